//! Records in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedMutexGuard;

use crate::digest::Digest;
use crate::record::{KeyGuard, LayerId, Record, RecordError, RecordStore};

/// A store of records that ends with the process. Clones are handles on one store.
#[derive(Clone, Default)]
pub struct MemoryRecords {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: Mutex<Rows>,
    locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    broken: AtomicBool,
    finds: AtomicUsize,
}

#[derive(Default)]
struct Rows {
    records: Vec<Record>,
    keys: HashMap<Digest, usize>,
    families: HashMap<Digest, Vec<usize>>,
    lost: HashSet<LayerId>,
}

struct Held(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

impl KeyGuard for Held {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryRecords {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, every call is an error, or none is any more.
    pub fn set_broken(&self, is_broken: bool) {
        self.inner.broken.store(is_broken, Ordering::SeqCst);
    }

    /// A layer is gone: records that need it are not found any more.
    pub fn lose(&self, layer: LayerId) {
        lock(&self.inner.rows).lost.insert(layer);
    }

    /// Forgets all records, as pruning everything does.
    pub fn clear(&self) {
        *lock(&self.inner.rows) = Rows::default();
    }

    /// How often [`RecordStore::find`] was called.
    pub fn finds(&self) -> usize {
        self.inner.finds.load(Ordering::SeqCst)
    }

    /// All records ever written, oldest first.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.inner.rows).records.clone()
    }

    fn check(&self) -> Result<(), RecordError> {
        match self.inner.broken.load(Ordering::SeqCst) {
            true => Err("the records are broken".into()),
            false => Ok(()),
        }
    }
}

impl RecordStore for MemoryRecords {
    fn find(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, RecordError> {
        self.inner.finds.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let rows = lock(&self.inner.rows);
        Ok(keys
            .iter()
            .map(|key| {
                let record = &rows.records[*rows.keys.get(key)?];
                (!record.output.layers.iter().any(|layer| rows.lost.contains(&layer.id)))
                    .then(|| record.clone())
            })
            .collect())
    }

    fn put(&self, keys: &[Digest], record: &Record) -> Result<(), RecordError> {
        self.check()?;
        let mut rows = lock(&self.inner.rows);
        let row = rows.records.len();
        rows.records.push(record.clone());
        rows.families.entry(record.family).or_default().push(row);
        for key in keys {
            rows.keys.insert(*key, row);
        }
        Ok(())
    }

    fn family(&self, family: Digest, limit: usize) -> Result<Vec<Record>, RecordError> {
        self.check()?;
        let rows = lock(&self.inner.rows);
        let members = rows.families.get(&family).map(Vec::as_slice).unwrap_or_default();
        Ok(members.iter().rev().take(limit).map(|row| rows.records[*row].clone()).collect())
    }

    fn lock<'a>(
        &'a self,
        key: Digest,
        waiting: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<Box<dyn KeyGuard>, RecordError>> {
        async move {
            self.check()?;
            let mutex = Arc::clone(lock(&self.inner.locks).entry(key).or_default());
            let held = match Arc::clone(&mutex).try_lock_owned() {
                Ok(held) => held,
                Err(_) => {
                    waiting("another build in memory".into());
                    mutex.lock_owned().await
                }
            };
            Ok(Box::new(Held(held)) as Box<dyn KeyGuard>)
        }
        .boxed()
    }
}
