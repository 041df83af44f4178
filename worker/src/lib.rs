//! Runs ops: sources, file operations, sandboxes, exporters.

pub mod context;
mod copied;
pub mod export;
pub mod files;
mod fuse;
mod local_worker;
mod mount_points;
pub mod network;
pub mod overlay;
pub mod rootless;
pub mod sandbox;
mod settings;
mod source;
mod steps;
pub mod users;
mod views;
mod writable;

pub use local_worker::LocalWorker;
pub use settings::{Pins, WorkerSettings};
pub use steps::{Difference, FailedRun, FailedStep, OnFailure, Reopened, UnreadableStep};
pub use views::snapshot_view;
pub use writable::WritableRoot;
