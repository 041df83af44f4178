//! Results and the records that point to them.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A layer of the store: a number that is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerId(pub i64);

/// One filesystem change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// Where the store has it.
    pub id: LayerId,
    /// What it holds: the content digest of its tree, or for a layer that was pulled and never unpacked a
    /// digest made from its diff ID. Equal digests, equal files.
    pub content: Digest,
}

/// An ordered list of layers, lowest first: what a step's output is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The layers; none: an empty directory.
    pub layers: Vec<Layer>,
}

/// What a step yields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Files in the store.
    Snapshot(Snapshot),
    /// A directory of the caller, by its name, with the patterns that hide files of it.
    Local {
        /// The name that the worker was told it under.
        name: String,
        /// See [`LocalSource::ignore`](crate::op::LocalSource::ignore).
        ignore: std::sync::Arc<[String]>,
    },
}

/// A cached result, with everything that went into its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The result.
    pub output: Snapshot,
    /// What ties the same instruction of different builds together; see [`crate::explain`].
    pub family: Digest,
    /// What went into the key, encoded by [`crate::explain`]; opaque to the store.
    pub parts: Vec<u8>,
    /// When the step ran, in milliseconds since 1970.
    pub created_ms: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
}

/// A failure of the store of records.
pub type RecordError = Box<dyn std::error::Error + Send + Sync>;

/// What keeps a key for one builder; dropping it (or the process's end) gives it back.
pub trait KeyGuard: Send + Sync {}

/// Where records are kept. Implemented by `cache`; several processes may use one store at once.
pub trait RecordStore: Send + Sync + 'static {
    /// The records of `keys`, in their order, in one look. A record whose layers are gone or damaged is not returned.
    /// What is returned stays in the store for as long as the process uses it (a lease).
    fn find(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, RecordError>;

    /// Writes a record that all of `keys` lead to (by definition, by content). An earlier record of a key is replaced.
    fn put(&self, keys: &[Digest], record: &Record) -> Result<(), RecordError>;

    /// Earlier records of the same instruction, newest first, at most `limit`: also those whose layers are gone.
    fn family(&self, family: Digest, limit: usize) -> Result<Vec<Record>, RecordError>;

    /// Waits until no other builder, of this process or another, works on `key`, and takes it. `waiting` is called
    /// once, with who has it, if it has to wait.
    fn lock<'a>(
        &'a self,
        key: Digest,
        waiting: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<Box<dyn KeyGuard>, RecordError>>;
}
