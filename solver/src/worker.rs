//! What the solver asks of whoever runs ops.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::event::Task;
use crate::graph::Vertex;
use crate::op::{Selection, Source};
use crate::record::Output;

/// Runs ops. Implemented by `worker`, and by fakes in the solver's tests.
pub trait Worker: Send + Sync + 'static {
    /// What a source is, right now: its key, and what people see of it. Asked only of sources whose op does not say
    /// it: HTTP without a checksum, git references that are no full commit. Dropped when the build is cancelled.
    fn pin<'a>(&'a self, source: &'a Source, task: &'a Task) -> BoxFuture<'a, Result<Pinned, StepError>>;

    /// The digest of what `selection` finds in `output`, and the files that it found. Dropped when the build is
    /// cancelled.
    fn content<'a>(
        &'a self,
        output: &'a Output,
        selection: &'a Selection,
    ) -> BoxFuture<'a, Result<Content, StepError>>;

    /// Runs a step. It stops soon after `cancel` and leaves nothing behind.
    fn run<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Output, StepError>>;
}

/// A step that is to be run.
pub struct Job<'a> {
    /// What.
    pub vertex: &'a Vertex,
    /// The outputs of its inputs, in their order.
    pub inputs: Vec<Output>,
    /// For each input, what the key knows of the files that the step uses of it, where they were read: what is copied
    /// has to have this digest. If a file has changed since, [`StepError::Lost`] makes the solver ask anew.
    pub contents: Vec<Option<Arc<Content>>>,
    /// For a source that was pinned: what [`Worker::pin`] said. Exactly this is to be fetched, since the key says so.
    pub pinned: Option<&'a Pinned>,
    /// How many steps of the build may still run a command after this one: what they need can be prepared. An estimate.
    pub commands_to_come: usize,
    /// Where its log lines and progress go.
    pub task: &'a Task,
    /// Says when to stop.
    pub cancel: CancellationToken,
}

/// What a source is, right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Equal digests, equal files.
    pub key: Digest,
    /// For people: `debian:12@sha256:…`, a commit.
    pub label: String,
}

/// What a selection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Over path, type, mode, owner, link target, device, xattrs and content of each file; no times, no inodes.
    pub digest: Digest,
    /// The files, by path, each with a digest of its own; at most some thousands are kept, so that a miss can be explained.
    pub files: Vec<(String, Digest)>,
    /// Were there more files than `files` lists?
    pub truncated: bool,
    /// Bytes of all files that it found.
    pub bytes: u64,
}

/// Why a step has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// Somebody pressed Ctrl-C, or another step failed.
    #[error("cancelled")]
    Cancelled,
    /// The command of a RUN failed.
    #[error("{}", exit_text(command, status))]
    Exit {
        /// The command as written.
        command: String,
        /// What it ended with: an exit code, or 128 + a signal.
        code: i32,
        /// `exit code: 7`, `killed by SIGSEGV`, `killed: out of memory at 512 MiB`.
        status: String,
    },
    /// Files of an input, or of an image that was thought to be in the store, are gone or damaged, and the store has
    /// dropped the records that led to them; or a file of a local directory has changed since its key was made. The
    /// solver starts over, some times, so that keys are made anew and what is missing runs again.
    #[error("{message}")]
    Lost {
        /// What was found.
        message: String,
    },
    /// Anything else.
    #[error("{message}")]
    Failed {
        /// What was tried, and on what.
        message: String,
        /// What the user can do about it.
        hint: Option<String>,
        /// Why it failed.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A command that something killed has not ended by itself, successfully or not.
fn exit_text(command: &str, status: &str) -> String {
    match status.strip_prefix("killed: ") {
        Some(reason) => format!("RUN {command} was killed: {reason}"),
        None => format!("process `{command}` did not complete successfully: {status}"),
    }
}

impl StepError {
    /// A failure with a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None, source: None }
    }

    /// A failure with its cause.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { message: message.into(), hint: None, source: Some(source.into()) }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Failed { message, source, .. } => Self::Failed { message, hint: Some(text.into()), source },
            other => other,
        }
    }
}
