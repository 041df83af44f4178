//! The store: a directory that holds blobs, layers, records and images, used by any number of processes at once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::record::{Layer, LayerId, Snapshot};

/// A store that is open. Cheap to clone; the last clone ends the lease.
#[derive(Clone)]
pub struct Store {}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {}

/// A blob as a manifest names it (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// How a layer's tar is compressed into a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, in independent blocks of a fixed size: the same bytes on every machine and for every number of cores.
    #[default]
    Gzip,
    /// zstd, likewise.
    Zstd,
}

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The (compressed) blob.
    pub blob: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// An image that the store has a name for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// Normalised: `docker.io/library/alpine:latest`.
    pub name: String,
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// When it got the name, in milliseconds since 1970.
    pub created_ms: i64,
}

/// A new layer that is being made: `tree()` and `work()` lie on one filesystem, in `ingest/`. Dropped without
/// [`commit`](Self::commit), it is removed.
pub struct LayerDraft {}

impl LayerDraft {
    /// The directory that becomes the layer (an overlay's upper directory). Empty, mode 0755.
    pub fn tree(&self) -> &Path {
        unimplemented!()
    }
    /// An empty directory beside it (an overlay's work directory).
    pub fn work(&self) -> &Path {
        unimplemented!()
    }
    /// Makes it a layer: renamed into `layers/<id>` whole. `content` is the content digest of its tree.
    pub fn commit(self, content: Digest) -> Result<Layer, StoreError> {
        let _ = content;
        unimplemented!()
    }
}

/// A blob that is being written: bytes go to `ingest/` and are hashed on the way.
pub struct BlobWriter {}

impl BlobWriter {
    /// Checks digest and size, and makes it visible under its digest. One that is already there is left alone.
    pub fn commit(self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        let _ = expected;
        unimplemented!()
    }
}

impl std::io::Write for BlobWriter {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        unimplemented!()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        unimplemented!()
    }
}

#[expect(unused_variables, reason = "stubs")]
impl Store {
    /// Opens the store at `root`, makes it if there is none, takes a lease, and removes what killed processes left.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        unimplemented!()
    }
    /// Its directory.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
    /// A directory of this process's own under `ingest/` for temporary files; removed with the lease.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        unimplemented!()
    }

    // blobs
    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        unimplemented!()
    }
    /// Copies a blob in: at most `size` bytes are read.
    pub fn put_blob(&self, source: &mut dyn Read, digest: Digest, size: u64) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Is it there (with the right size)? What was found stays while the lease lives.
    pub fn has_blob(&self, digest: Digest) -> bool {
        unimplemented!()
    }
    /// Opens a blob.
    pub fn open_blob(&self, digest: Digest) -> Result<File, StoreError> {
        unimplemented!()
    }
    /// Reads a small blob (manifest, config): verified, at most `limit` bytes.
    pub fn read_blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        unimplemented!()
    }

    // layers
    /// Starts a layer.
    pub fn draft_layer(&self) -> Result<LayerDraft, StoreError> {
        unimplemented!()
    }
    /// The layers of an image in the store, lowest first, known by their diff IDs: found, or entered as
    /// layers that have a blob and no tree yet. Refused where the numbers of layers and diff IDs differ.
    pub fn image_layers(&self, config: &ImageConfig, blobs: &[Descriptor]) -> Result<Snapshot, StoreError> {
        unimplemented!()
    }
    /// The layer's tree; made from its blob, verified against its diff ID, where there is none. `below` are the
    /// layers under it (a hard link may point into them). Two callers at once do it once.
    pub fn layer_tree(&self, layer: LayerId, below: &[LayerId]) -> Result<PathBuf, StoreError> {
        unimplemented!()
    }
    /// The layer as a blob; made from its tree where there is none with this compression (any will do if `force` is
    /// false). `progress` gets bytes of tar done. `clamp`: no file is newer than this (seconds since 1970).
    pub fn layer_blob(
        &self,
        layer: LayerId,
        compression: Compression,
        force: bool,
        clamp: Option<i64>,
        progress: &dyn Fn(u64),
    ) -> Result<Packed, StoreError> {
        unimplemented!()
    }

    // images
    /// Gives `name` to a manifest or index that is in the store, with everything that it needs.
    pub fn tag(&self, name: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// What has that name.
    pub fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        unimplemented!()
    }
    /// All names.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        unimplemented!()
    }
    /// Takes a name away; false: there was none. Blobs and layers go when pruning finds that nothing needs them.
    pub fn untag(&self, name: &str) -> Result<bool, StoreError> {
        unimplemented!()
    }

    // sources
    /// Remembers where blobs of a manifest can be fetched from (a repository), for layers that are not here yet.
    pub fn remember_origin(&self, manifest: Digest, repository: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Where that was.
    pub fn origin(&self, manifest: Digest) -> Result<Option<String>, StoreError> {
        unimplemented!()
    }

    // cache mounts
    /// The directory of a cache mount, made if there is none; locked for as long as the guard lives
    /// (`shared`: with others; `exclusive`: alone; `private`: one that nobody else has).
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: bricklayer_solver::op::Sharing,
    ) -> Result<CacheMount, StoreError> {
        unimplemented!()
    }

    /// Makes everything that was written since the store was opened durable (`syncfs`) and its records with it.
    pub fn sync(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}

/// A cache mount in use.
pub struct CacheMount {
    /// Its directory.
    pub path: PathBuf,
    /// Was it made just now (so that it can be filled)?
    pub fresh: bool,
}
