//! Commands in real sandboxes, on a root filesystem made of busybox. Needs root, and Debian's busybox-static and uidmap.

mod environment;
mod escape;
mod fixture;
mod limits;
mod mounts;
mod network;
mod older;
mod processes;
mod rootless;
mod runtime;
mod stdio;
mod swaps;
mod syscalls;
