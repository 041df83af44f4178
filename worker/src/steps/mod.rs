//! One file a kind of op: what the solver asks of the worker, done with the store, overlay mounts and sandboxes.

mod cache;
mod exec;
mod failed;
mod file;
mod kept;
mod reopen;
mod source;

pub(crate) use exec::{mount_failed, mount_overlay};
pub use failed::{FailedRun, OnFailure};
pub use kept::{FailedStep, UnreadableStep};
pub use reopen::{Difference, Reopened};
