//! Why a command could not be run. A command that ran and failed is no error here.

use std::io;

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The caller said so.
    #[error("cancelled")]
    Cancelled,
    /// Something in the command can't be honoured.
    #[error("{0}")]
    Invalid(String),
    /// Something can't be mounted where it was wanted.
    #[error("mount on {target}")]
    Mount {
        /// The path inside the sandbox.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The root filesystem can't be used as it is.
    #[error("{path} in the root filesystem is {found}, not a directory")]
    NotADirectory {
        /// The path inside the sandbox.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// The working directory can't be entered.
    #[error("working directory {path}")]
    Cwd {
        /// The path inside the sandbox.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no private network, and the host's was not asked for.
    #[error("no network for the command: {reason}")]
    Network {
        /// What failed.
        reason: String,
        /// What the user can do.
        hint: String,
    },
    /// A limit that was asked for can't be set.
    #[error("{what} can't be limited")]
    Limit {
        /// Memory, CPU time, number of processes.
        what: &'static str,
        /// What the user can do.
        hint: String,
        /// What the kernel said.
        source: Option<io::Error>,
    },
    /// An OCI runtime could not make the sandbox.
    #[error("{program}: {message}")]
    Runtime {
        /// The runtime.
        program: String,
        /// What it said.
        message: String,
    },
    /// The kernel refused a part of the sandbox.
    #[error("set up the sandbox: {step}")]
    Setup {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SandboxError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Limit { hint, .. } | Self::Network { hint, .. } => Some(hint.clone()),
            Self::Setup { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                crate::rootless::advice()
            }
            Self::Setup { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("namespaces and mounts need root, or a user namespace".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn setup(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Setup { step: step.into(), source: source.into() }
    }
}
