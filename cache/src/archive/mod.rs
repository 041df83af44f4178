//! Images in files: OCI image layouts and Docker archives, as tar or (layouts) as directories.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;

use crate::document::DocumentError;
use crate::registry::Reference;
use crate::store::{Descriptor, Store, StoreError};

/// An image that was read from an archive and now is in the store, whole. It has no name in the store yet: see [`Store::tag`].
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
        source: StoreError,
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
    /// A directory cannot be used.
    #[error("`{}` is not an OCI image layout: {reason}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Reads all images of an archive into the store. The tar may be compressed (gzip, zstd, xz, bzip2) and have its entries in any order; memory use
/// does not grow with it.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn load(store: &Store, reader: impl Read) -> Result<Vec<LoadedImage>, ArchiveError> {
    unimplemented!()
}

/// Reads the images of an OCI image layout (a directory) into the store: all, or those whose `org.opencontainers.image.ref.name` or name is `wanted`.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn load_dir(
    store: &Store,
    layout: &Path,
    wanted: Option<&str>,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    unimplemented!()
}

/// Writes images as an OCI image layout in a tar: the same bytes for the same images. A name of `None` writes the image without one.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn save_oci(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    writer: impl Write,
) -> Result<(), ArchiveError> {
    unimplemented!()
}

/// Writes images as a Docker archive (`docker load`), which is an OCI image layout as well.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn save_docker(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    writer: impl Write,
) -> Result<(), ArchiveError> {
    unimplemented!()
}

/// Writes images into an OCI image layout: a directory that is made, or a layout whose other images stay.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn save_oci_dir(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    directory: &Path,
) -> Result<(), ArchiveError> {
    unimplemented!()
}

/// The blobs that an image needs and the store has not: layers that were never fetched.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn missing_blobs(store: &Store, image: &Descriptor) -> Result<Vec<Descriptor>, ArchiveError> {
    unimplemented!()
}

/// Checks an image of the store wholly: every blob is there and has its digest and size, the media types fit, the layers unpack to their diff IDs,
/// and the history fits the layers.
#[expect(unused_variables, clippy::unimplemented, reason = "API first, bodies follow")]
pub fn validate_image(store: &Store, image: &Descriptor) -> Result<(), ArchiveError> {
    unimplemented!()
}
