//! Whole builds with the real binary, real namespaces, real overlayfs and a real registry.
//!
//! Needs root, and Debian's bindfs, busybox-static, docker-registry, fuse-overlayfs, openssh-client, openssh-server, passt, skopeo,
//! uidmap and umoci (`.ci/test` installs them); a test that finds one of them missing fails and says so.

mod builds;
mod debug;
mod explain;
mod faults;
mod images;
mod kernels;
mod layers;
mod on_fail;
mod person;
mod processes;
mod records;
mod rootless;
mod run;
mod servers;
mod sources;
mod ssh;
mod support;
