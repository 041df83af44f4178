//! One file a kind of op: what the solver asks of the worker, done with the store, overlay mounts and sandboxes.

mod cache;
mod exec;
mod failed;
mod file;
mod source;

pub(crate) use exec::{mount_failed, mount_overlay};
pub use failed::{FailedRun, OnFailure};
