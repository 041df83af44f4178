//! A layer's two forms, each made from the other: a *tree* that overlayfs mounts, and a *tar* as OCI's image-spec
//! `layer.md` defines it.
//!
//! A tree is what overlayfs leaves in an upper directory: a whiteout is a character device 0:0, an opaque directory
//! carries the xattr `trusted.overlay.opaque=y` (`user.overlay.opaque` in a user namespace).
//!
//! - [`unpack`]: tar → tree, and the unpacking of ADD; bounded, and never outside its directory
//! - [`pack`]: tree → tar → blob, the same bytes on every machine
//! - [`tree`]: the content digest of a tree
//! - [`compression`]: what a stream is compressed with, and reading it
//! - [`tar`]: reading and writing tar entries; [`xattr`]: which extended attributes belong to a layer

pub mod compression;
pub mod pack;
pub mod tar;
pub mod tree;
pub mod unpack;
mod walk;
pub mod xattr;

use std::io;
use std::path::{Path, PathBuf};

use crate::root::RootError;

pub use compression::{Archive, sniff};
pub use pack::{PackOptions, Tarred, pack};
pub use tree::{FileFacts, TreeContent, content, content_digest};
pub use unpack::{UnpackOptions, Unpacked, unpack};

/// Why a layer could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A file of the tree could not be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A path inside the tree could not be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The archive's bytes could not be had: the disk, the network, or broken compression.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive is no well-formed tar.
    #[error("malformed tar at byte {offset}: {what}")]
    Malformed {
        /// Where the entry's header starts in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry that no sound archive has, or that would be unsafe to unpack.
    #[error("archive entry `{}` is refused: {what}", path.display())]
    Refused {
        /// Its name as the archive has it (the start of it).
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The uncompressed archive is larger than the configured limit.
    #[error("archive is larger than {limit} bytes when unpacked")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The archive has more entries than the configured limit.
    #[error("archive has more than {limit} entries")]
    TooManyEntries {
        /// How many are accepted.
        limit: u64,
    },
    /// A file was changed while it was read.
    #[error("`{}` was changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A file that has no form in a layer.
    #[error("`{}` cannot be part of a layer: {what}", path.display())]
    Unpackable {
        /// Which.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// The packed layer could not be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

impl LayerError {
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
            Self::Changed { .. } => Some("something else writes there; build again when it is done"),
            Self::Io { action: "change owner of", source, .. }
                if source.kind() == io::ErrorKind::InvalidInput && crate::root::ids::in_user_namespace() =>
            {
                Some(
                    "the owner is beyond the user's subordinate ids: /etc/subuid and /etc/subgid can give it more",
                )
            }
            Self::Io { source, .. } | Self::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full; `bricklayer prune` frees what no build needs")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
