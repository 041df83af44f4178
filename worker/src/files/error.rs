//! Why files could not be found, copied or hashed.

use std::io;
use std::path::{Path, PathBuf};

use bricklayer_cache::layer::LayerError;
use bricklayer_cache::root::{Kind, RootError};
use bricklayer_solver::mode::ModeError;
use bricklayer_solver::pattern::PatternError;

use crate::users::UsersError;

/// Why a file op failed, or a selection could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A source that is not there.
    #[error("`{path}` not found in {place}")]
    NotFound {
        /// As the instruction names it.
        path: String,
        /// Where it was looked for: `the context`.
        place: String,
    },
    /// A source that is there but not to be seen.
    #[error("`{path}` is excluded from {place} by the pattern `{pattern}` of .dockerignore")]
    Ignored {
        /// As the instruction names it.
        path: String,
        /// Where it was looked for: `the context`.
        place: String,
        /// What hides it.
        pattern: String,
    },
    /// Too many symbolic links on the way to a source.
    #[error("too many symbolic links on the way to `{path}` in {place}")]
    Loop {
        /// As the instruction names it.
        path: String,
        /// Where it was looked for.
        place: String,
    },
    /// A directory is to be where something else is.
    #[error("cannot copy directory `{from}` onto `{}`, which is {kind}", to.display())]
    OntoFile {
        /// The directory, as the instruction names it.
        from: String,
        /// What is in the way.
        to: PathBuf,
        /// What that is.
        kind: Kind,
    },
    /// A file is to be where a directory is.
    #[error("cannot replace directory `{}` by `{from}`, which is no directory", to.display())]
    OntoDirectory {
        /// The file, as the instruction names it.
        from: String,
        /// What is in the way.
        to: PathBuf,
    },
    /// A file was changed by somebody while the build used it.
    #[error("`{path}` in {place} was changed while the build read it")]
    Changed {
        /// Which.
        path: String,
        /// Where.
        place: String,
    },
    /// An input that the op names and nobody gave.
    #[error("file operation has no input {0}")]
    NoInput(usize),
    /// A context that nobody told about.
    #[error("no directory is known as context `{name}`")]
    NoContext {
        /// Its name.
        name: String,
    },
    /// A path to remove that is not there.
    #[error("cannot remove `{path}`: not found")]
    NothingToRemove {
        /// Which.
        path: String,
    },
    /// A pattern of a source, `--exclude` or `.dockerignore`.
    #[error("invalid pattern")]
    Pattern(#[from] PatternError),
    /// A symbolic `--chmod`.
    #[error("invalid mode")]
    Mode(#[from] ModeError),
    /// A `--chown`.
    #[error("cannot resolve owner")]
    Owner(#[from] UsersError),
    /// An archive could not be unpacked.
    #[error("cannot unpack `{path}`")]
    Unpack {
        /// The archive, as the instruction names it.
        path: String,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// A path in a root or a context could not be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A system call failed on a file of a source or of the result.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what: a path below the root of the source or of the result.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    /// For `map_err`: an error of a system call on `path`.
    pub(crate) fn io<'a, E: Into<io::Error>>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(E) -> Self + use<'a, E> {
        move |source| Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ignored { .. } => Some(
                "take the file back in with a `!` line in .dockerignore, after the line that excludes it",
            ),
            Self::Changed { .. } => {
                Some("something else writes there: build again, or exclude it in .dockerignore")
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full; `bricklayer prune` frees what no build needs")
            }
            _ => None,
        }
    }
}
