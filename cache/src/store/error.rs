//! What can go wrong in the store, and what the user can do about it.

use std::io;
use std::path::PathBuf;

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;

/// A cause that comes from below (SQLite, the layer code).
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file of the store could not be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `open`, `remove`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The bytes of a new blob could not be read from where they come from.
    #[error("cannot read the bytes of blob {digest}")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The database could not be used.
    #[error("cannot {action} in `{}`", path.display())]
    Database {
        /// What was tried: `look up records`.
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: Cause,
    },
    /// A newer program wrote the store.
    #[error("store `{}` has format {found}, this program knows formats up to {known}", path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format number.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The store was made by another user.
    #[error("store `{}` belongs to another user", path.display())]
    OtherOwner {
        /// The store.
        path: PathBuf,
    },
    /// The store was made with more ids, or fewer.
    #[error("store `{}` was made {} subordinate ids, and now {}", path.display(), if *.single { "without" } else { "with" }, if *.single { "there are some" } else { "there are none" })]
    OtherIds {
        /// The store.
        path: PathBuf,
        /// Was it made with a single id?
        single: bool,
    },
    /// The directory holds something else.
    #[error("`{}` is not a store: it holds `{found}`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// The first file that does not belong to a store.
        found: String,
    },
    /// A file that says what the store is has no meaning.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// SQLite's WAL mode needs memory that processes share, which some network filesystems lack.
    #[error("the filesystem of `{}` cannot share memory between processes, which the store's database needs", path.display())]
    NoSharedMemory {
        /// The database file.
        path: PathBuf,
    },
    /// The bytes do not have the digest that was promised. Nothing was stored.
    #[error("blob is {actual}, but {expected} was expected")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// The blob has another size than was promised. Nothing was stored.
    #[error("blob {digest} has {actual} bytes, but {expected} were expected")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What was promised, in bytes.
        expected: u64,
        /// What there is, in bytes.
        actual: u64,
    },
    /// More bytes came than were promised or allowed. Reading stopped at the limit.
    #[error("blob {digest} is larger than {limit} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The blob is not in the store.
    #[error("blob {digest} is not in the store")]
    BlobMissing {
        /// The blob.
        digest: Digest,
    },
    /// The blob was in the store, but its bytes were wrong. It was removed.
    #[error("blob {digest} was damaged and has been removed from the store: {what}")]
    BlobDamaged {
        /// The blob.
        digest: Digest,
        /// What was wrong.
        what: String,
    },
    /// The layer is not in the store, or neither of its forms is.
    #[error("layer {} is not in the store", layer.0)]
    LayerMissing {
        /// The layer.
        layer: LayerId,
    },
    /// A config and a manifest disagree.
    #[error("image has {blobs} layers, but its config has {diff_ids} diff IDs")]
    LayerCount {
        /// Layers of the manifest.
        blobs: usize,
        /// Diff IDs of the config.
        diff_ids: usize,
    },
    /// The bytes of a layer are not what the image's config says. The claim was forgotten.
    #[error("layer {blob} has diff ID {actual}, but the image's config says {expected}")]
    DiffIdMismatch {
        /// The layer's blob.
        blob: Digest,
        /// What the config says.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// A layer whose bytes have to be fetched from a URL in the manifest; such URLs are not followed.
    #[error("layer {digest} is of type `{media_type}`, which may not be distributed with its image")]
    ForeignLayer {
        /// The layer's blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer of a type that this program cannot read.
    #[error("layer {digest} is of unknown type `{media_type}`")]
    UnknownLayer {
        /// The layer's blob.
        digest: Digest,
        /// Its media type, cut to 100 characters.
        media_type: String,
    },
    /// A blob could not be unpacked into a tree.
    #[error("cannot unpack layer {blob}")]
    Unpack {
        /// The layer's blob.
        blob: Digest,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A tree could not be packed into a blob.
    #[error("cannot pack the layer in `{}`", path.display())]
    Pack {
        /// The tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A new cache mount could not be filled. There is none now.
    #[error("cannot fill the cache mount `{id}`")]
    Fill {
        /// Its ID.
        id: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A text that is no image name.
    #[error("`{name}` is not a normalised image name")]
    InvalidName {
        /// The text, cut to 200 characters.
        name: String,
    },
    /// A document that is no manifest and no index.
    #[error("{digest} is not an image manifest or index: {what}")]
    InvalidManifest {
        /// The document.
        digest: Digest,
        /// What is wrong.
        what: String,
    },
    /// An image cannot get a name, because something that it needs is not in the store.
    #[error("cannot name `{name}`: the image needs {missing}, which is not in the store")]
    Incomplete {
        /// The name.
        name: String,
        /// The first blob that is missing.
        missing: Digest,
    },
}

impl StoreError {
    /// What the user can do about it, if anything; printed on a line of its own as `hint: …`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NewerFormat { .. } => Some("use the newer program, or another directory with `--root`"),
            Self::OtherOwner { .. } => {
                Some("each user has a store of their own: choose another directory with `--root`")
            }
            Self::OtherIds { single: true, .. } => {
                Some("remove the store's directory, or choose another with `--root`")
            }
            Self::OtherIds { single: false, .. } => Some(
                "see /etc/subuid and /etc/subgid, and whether newuidmap is installed (Debian: uidmap); or choose another \
                 directory with `--root`",
            ),
            Self::NotAStore { .. } => Some("choose an empty or new directory with `--root`"),
            Self::NoSharedMemory { .. } => Some("put the store on a local disk with `--root`"),
            Self::BlobDamaged { .. } => Some("build again: what needs the blob is fetched or made again"),
            Self::Database { source, .. } => source.downcast_ref().and_then(database_hint),
            Self::Io { source, .. } if is_full(source) => Some("free space with `bricklayer prune`"),
            _ => None,
        }
    }

    /// Is it a lack of space or of inodes?
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Database { source, .. } => source.downcast_ref().is_some_and(is_database_full),
            _ => false,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_database_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

fn database_hint(error: &rusqlite::Error) -> Option<&'static str> {
    match error.sqlite_error_code()? {
        rusqlite::ErrorCode::DiskFull => Some("free space with `bricklayer prune`"),
        rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase => {
            Some("remove the store's directory: what it held is fetched or built again")
        }
        _ => None,
    }
}

/// Makes an [`StoreError::Io`] of an error on `path`.
pub(super) fn io_error<E: Into<io::Error>>(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Io { action, path: path.into(), source: source.into() }
}
