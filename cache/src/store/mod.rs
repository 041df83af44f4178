//! The store: a directory that holds blobs, layers, records and images, used by any number of processes at once.
//!
//! # On disk
//!
//! ```text
//! <root>/                    mode 0700
//! ├── version                format number; a newer one is refused
//! ├── one-id                 only where one user id is all there is: owners are kept aside in attributes
//! ├── meta.db                SQLite in WAL mode: everything that is known about the rest
//! ├── oci/                   a valid OCI image layout
//! │   ├── blobs/sha256/<hex> finished blobs
//! │   └── index.json         the named images, written anew from the database when they change
//! ├── layers/<id>/           trees
//! ├── mounts/<hash>-<n>/     cache mounts
//! ├── builds/<time>-<id>/    what is known of each build, and its logs
//! ├── ingest/<lease>/        whatever a process is writing; the rubbish that it is removing
//! └── leases/
//!     ├── <pid>-<number>     one locked file per open store, listing what it holds
//!     ├── .gate              locked shared to find and hold, exclusive to remove
//!     ├── .keys              byte-range locks: steps being run, layers being made, cache mounts in use
//!     └── .reserve           space for pruning on a full disk
//! ```
//!
//! # Invariants
//!
//! - What has a row in the database is complete: files are written in `ingest/`, checked, renamed, and then noted. So a
//!   crash leaves rubbish in `ingest/`, which the next process removes, or a file without a row, which the next
//!   pruning removes. Removing goes the other way: first the row, then the file.
//! - What has a row may still be damaged by others: whoever finds a file missing, of the wrong size, or with the wrong digest
//!   forgets it, and everything that needs it counts as absent.
//! - What may not have reached the disk is marked, and dropped if the machine went down before it did (`sync`).
//! - What was found or made stays until the store is closed (`lease`): pruning knows what every process holds.
//! - Layers are numbered; a number is never used twice.
//!
//! # Concurrency
//!
//! All of it works for threads and for processes alike. Locks are taken in this order: keys (`lock`), the one mutex of a
//! process around its database connection, the gate, SQLite's own. Nothing slow happens under the last three: no fsync but in
//! [`Store::sync`] and where names of images or pruning are written, no copying, no hashing.
//!
//! Calls block (on the disk, or on a lock); only waiting for a key is asynchronous.

mod blobs;
mod builds;
mod cache_mounts;
mod db;
mod downloads;
mod error;
mod failures;
mod images;
mod layers;
mod layout;
mod lease;
mod lock;
mod prune;
mod recompress;
mod records;
mod remove;
mod sync;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bricklayer_solver::Digest;

use db::{Db, Fail};
use layout::Layout;
use lease::{Gate, Lease};

pub use blobs::{BlobReader, BlobWriter};
pub use builds::{BuildDirectory, LiveBuild};
pub use cache_mounts::{CacheMount, Fill};
pub use downloads::KnownDownload;
pub use error::StoreError;
pub use failures::{KEPT as KEPT_FAILURES, KeptFailure};
pub use layers::{LayerBlob, LayerDraft, LayerInfo};
pub use prune::{PruneOptions, PruneReport, Usage, UsageEntry, UsageKind};

/// How exactly times of last use are kept, in milliseconds: a use is written down only if the last one is that old, so that
/// a build that finds everything writes nothing.
const USE_GRANULARITY: i64 = 10 * 60 * 1000;

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

/// A store that is open. Cheap to clone; the last clone ends the lease.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    state: Mutex<State>,
    /// Was something written or used that may not be on disk yet?
    unsynced: AtomicBool,
    /// Bytes that were left when room was last made; 0: it never was.
    room_made: AtomicU64,
}

struct State {
    db: Db,
    lease: Lease,
    gate: Gate,
}

impl Store {
    /// Opens the store at `root`, makes it if there is none, takes a lease, and removes what killed processes left.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`] if a newer program wrote it, [`StoreError::NotAStore`] if the directory holds other files,
    /// [`StoreError::NoSharedMemory`] if its filesystem cannot hold a store.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::open(root)?;
        let gate = Gate::open(&layout)?;
        let mut lease = Lease::take(&layout, &gate)?;
        let db = Db::open(&layout)?;
        sync::recover(&layout, &db, &mut lease, &gate)?;
        let inner = Inner {
            layout,
            state: Mutex::new(State { db, lease, gate }),
            unsynced: AtomicBool::new(false),
            room_made: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its directory, absolute.
    pub fn path(&self) -> &Path {
        self.inner.layout.root()
    }

    /// A directory of this process's own under `ingest/` for temporary files; removed with the lease.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let mut state = self.inner.state();
        let path = state.lease.draft("scratch")?;
        std::fs::create_dir(&path).map_err(error::io_error("create", &path))?;
        Ok(path)
    }

    /// The directory `mount-points`, which all processes share and nobody changes; filled by `make` if it is not there.
    /// Several may make it at once: it is the same for all.
    pub fn mount_points(
        &self,
        make: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<PathBuf, StoreError> {
        let path = self.inner.layout.mount_points();
        if path.is_dir() {
            return Ok(path);
        }
        let draft = self.scratch()?;
        make(&draft).map_err(error::io_error("fill", &draft))?;
        let renamed = std::fs::rename(&draft, &path);
        if renamed.is_err() {
            // What stays goes with the lease.
            let _ = remove::remove(&draft);
        }
        renamed
            .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
            .map_err(error::io_error("create", &path))?;
        Ok(path)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked rolled its transaction back; nothing else in there can be half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks something up, or publishes it, and holds it: nothing is pruned meanwhile, nor what `body` holds after it.
    fn shared<T>(&self, body: impl FnOnce(&mut Use<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state();
        let State { db, lease, gate } = &mut *state;
        gate.shared(|| {
            let value = body(&mut Use { db, lease })?;
            lease.write()?;
            Ok(value)
        })
    }

    fn used_unsynced(&self, unsynced: bool) {
        if unsynced {
            self.unsynced.store(true, Ordering::Release);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The worst is that something is pruned earlier than it should.
        let _ = state.note_uses();
        state.db.checkpoint_large();
    }
}

/// What can be done while the gate is held.
struct Use<'a> {
    db: &'a Db,
    lease: &'a mut Lease,
}

impl State {
    /// Writes down the last use of what the lease holds, if it is worth it.
    fn note_uses(&mut self) -> Result<(), StoreError> {
        let Self { db, lease, .. } = self;
        if has_uses(lease) { db.write("note last uses", |tx| flush_uses(tx, lease)) } else { Ok(()) }
    }
}

fn has_uses(lease: &Lease) -> bool {
    let old = now_ms() - USE_GRANULARITY;
    !lease.mounts.is_empty()
        || lease.layers.values().any(|&used| used < old)
        || lease.blobs.values().any(|&(_, used)| used < old)
}

/// Writes down the last use of what the lease holds.
fn flush_uses(tx: &rusqlite::Connection, lease: &mut Lease) -> Result<(), Fail> {
    let now = now_ms();
    let old = now - USE_GRANULARITY;
    let mut statement = tx.prepare_cached("UPDATE layers SET used_ms = ? WHERE id = ?")?;
    for (layer, used) in lease.layers.iter_mut().filter(|(_, used)| **used < old) {
        statement.execute([now, layer.0])?;
        *used = now;
    }
    let mut statement = tx.prepare_cached("UPDATE blobs SET used_ms = ? WHERE digest = ?")?;
    for (digest, (_, used)) in lease.blobs.iter_mut().filter(|(_, (_, used))| *used < old) {
        statement.execute(rusqlite::params![now, digest.as_bytes()])?;
        *used = now;
    }
    let mut statement = tx.prepare_cached("UPDATE mounts SET used_ms = ? WHERE name = ?")?;
    for name in lease.mounts.drain() {
        statement.execute(rusqlite::params![now, name])?;
    }
    Ok(())
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
