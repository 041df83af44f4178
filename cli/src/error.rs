//! Why something could not be done.

use std::path::PathBuf;
use std::sync::Arc;

use bricklayer_frontend::ResolveError;
use bricklayer_solver::graph::Location;
use bricklayer_solver::worker::StepError;

/// Why a build, or another thing that was asked for, could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile has errors; `report` shows them with the lines they stand on.
    #[error("{name} has {count}", count = if *.count == 1 { "an error".to_owned() } else { format!("{count} errors") })]
    Dockerfile {
        /// The Dockerfile's name.
        name: String,
        /// How many.
        count: usize,
        /// All of them, rendered for people without colours.
        report: String,
        /// The same with colours.
        coloured: String,
    },
    /// A step failed.
    #[error("{step}")]
    Step {
        /// What people see of it.
        step: String,
        /// Where it stands in the Dockerfile.
        location: Option<Location>,
        /// The Dockerfile's text, to show the place.
        text: String,
        /// The last 16 KiB that its command wrote.
        log: Vec<u8>,
        /// Where all that it wrote can be found again.
        place: Option<Box<StepPlace>>,
        /// Why.
        #[source]
        source: Arc<StepError>,
    },
    /// An image could not be found.
    #[error("cannot resolve an image")]
    Resolve(#[source] ResolveError),
    /// The caller told it to stop.
    #[error("cancelled")]
    Cancelled,
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

/// A step of a build that a record was kept of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlace {
    /// The build's ID.
    pub build: String,
    /// The directory of its record. What else is put there goes when the record goes.
    pub directory: PathBuf,
    /// The step's number.
    pub step: u64,
    /// Bytes that its command wrote.
    pub log_bytes: u64,
    /// Is what it left kept, so that [`Builder::debug`](crate::Builder::debug) opens it?
    pub kept: bool,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None, source: None }
    }

    pub(crate) fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { message: message.into(), hint: None, source: Some(source.into()) }
    }

    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Failed { message, source, .. } => Self::Failed { message, hint: Some(text.into()), source },
            other => other,
        }
    }

    /// What the user can do about it, if anything: for a line of its own, `hint: …`.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Failed { hint, .. } => hint.as_deref(),
            Self::Step { source, .. } => match source.as_ref() {
                StepError::Failed { hint, .. } => hint.as_deref(),
                _ => None,
            },
            _ => None,
        }
    }
}
