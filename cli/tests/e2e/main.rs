//! Whole builds with the real binary, real namespaces, real overlayfs and a real registry.
//!
//! Needs root, and Debian's busybox-static, docker-registry, openssh-client, skopeo, uidmap and umoci (`apt-get install busybox-static
//! docker-registry openssh-client skopeo uidmap umoci`); a test that finds one of them missing fails and says so.

mod builds;
mod debug;
mod explain;
mod faults;
mod images;
mod layers;
mod person;
mod processes;
mod records;
mod rootless;
mod run;
mod servers;
mod sources;
mod support;
