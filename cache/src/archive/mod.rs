//! Images in files: OCI image layouts (image-spec v1.1 image-layout.md) and Docker archives (`docker save`, image-spec v1.2 of
//! moby), as tar or (layouts) as directories.
//!
//! Reading: blobs go straight from the tar into the store, hashed on the way, in whatever order they come; only `index.json`,
//! `manifest.json` and links are kept in memory, within caps. No entry is ever a path of this machine: names of entries are keys of a map. What an
//! image needs must be there and fit together before the image is returned.
//!
//! Writing: the same bytes for the same images. A Docker archive is an OCI image layout as well, as Docker's own has been since v25.

mod directory;
mod docker;
mod load;
mod oci;
mod save;
#[cfg(test)]
mod tests;
mod validate;

use std::path::PathBuf;

use bricklayer_solver::Digest;

use crate::document::DocumentError;
use crate::registry::Reference;
use crate::store::{Descriptor, StoreError};

pub use self::directory::{load_dir, save_oci_dir};
pub use self::load::load;
pub use self::save::{missing_blobs, save_docker, save_oci};
pub use self::validate::validate_image;

/// An image that was read from an archive and now is in the store, whole. It has no name in the store yet: see
/// [`Store::tag`](crate::Store::tag).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The names that the archive gives it, normalised; maybe none.
    pub names: Vec<Reference>,
    /// A tag without a name (`org.opencontainers.image.ref.name` may be no more than that).
    pub tag: Option<String>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store failed.
    #[error("cannot use the store for `{what}`")]
    Store {
        /// The entry or blob.
        what: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// The archive could not be read or written.
    #[error("cannot {action}")]
    Io {
        /// What was tried, with the file's name.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The archive is damaged, or no archive of images.
    #[error("the archive cannot be used: {0}")]
    Invalid(String),
    /// A manifest, an index or a configuration that cannot be used.
    #[error("`{what}` cannot be used")]
    Document {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A blob that the image needs is missing.
    #[error("`{what}` needs blob {digest}, which is not there")]
    MissingBlob {
        /// The document that names it.
        what: String,
        /// The blob.
        digest: Digest,
    },
    /// An image whose parts do not fit together.
    #[error("image `{what}` is not valid: {reason}")]
    Image {
        /// Its manifest or index.
        what: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A directory cannot be used.
    #[error("`{}` is not an OCI image layout: {reason}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ArchiveError {
    fn store(what: impl ToString) -> impl FnOnce(StoreError) -> Self {
        let what = what.to_string();
        move |source| Self::Store { what, source: source.into() }
    }

    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
