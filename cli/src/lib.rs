//! Builds OCI images from Dockerfiles: the library that the `bricklayer` command is made of.
//!
//! It prints nothing, reads no environment, and needs no daemon. A [`Builder`] opens a store; [`Builder::build`] takes a
//! [`BuildRequest`]; a [`Reporter`](event::Reporter) hears what happens. Every build leaves a [`BuildRecord`] and its logs
//! in the store: [`Builder::builds`]; what its failed RUNs left is opened with [`Builder::debug`].

mod build;
mod debug;
mod error;
mod images;
mod key_agent;
mod record;
mod request;
mod run;

pub use bricklayer_cache as cache;
pub use bricklayer_frontend as frontend;
pub use bricklayer_solver::{Digest, Platform, event, op};
pub use tokio_util::sync::CancellationToken;

pub use bricklayer_solver::explain::Reason;
pub use bricklayer_solver::worker::StepError;
pub use bricklayer_worker::sandbox::{
    CapabilityChanges, Control, Exit, Size, Stdio, Tmpfs, UnknownCapability,
};
pub use bricklayer_worker::{Difference, FailedRun, OnFailure};
pub use build::{Answer, BuildResult, Builder, BuilderOptions, Call, ExplainedStep, Explanation, Fate};
pub use debug::{DebugRequest, DebugSession};
pub use error::{Error, StepPlace};
pub use images::{ArchiveFormat, ImageDetails};
pub use record::{
    Asked, BuildLog, BuildOutcome, BuildRecord, LogEvent, LogEventKind, LogPiece, Place, TaskRecord,
    TaskState, WorkKind,
};
pub use request::*;
pub use run::{Container, RunMount, RunMountKind, RunRequest};

/// Building as an ordinary user: what has to be done before anything else.
pub mod rootless {
    pub use bricklayer_worker::rootless::{Entered, RootlessError, enter, may_mount};
}
