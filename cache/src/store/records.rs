//! Records: which key leads to which layers.
//!
//! A record is written after what it points to, and it is valid as long as all its layers are there; nobody has to find
//! and remove the records of a layer that goes. What it pointed to stays known, so that a miss can be explained with it.

use std::collections::HashMap;
use std::path::Path;

use bricklayer_solver::Digest;
use bricklayer_solver::record::{KeyGuard, Layer, LayerId, Record, RecordError, RecordStore, Snapshot};
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::blobs::{digest_column, file_size};
use super::db::{Fail, next_seq};
use super::error::StoreError;
use super::layout::Layout;
use super::lock::{Mode, RangeLock, take_async};
use super::{Inner, Store};

/// How many records of one instruction are kept for explanations after their keys have gone to newer ones.
const KEPT_IN_FAMILY: i64 = 16;

/// Bytes of one layer in the column `output`.
const LAYER_BYTES: usize = 40;

impl RecordStore for Store {
    fn find(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, RecordError> {
        Ok(self.find_records(keys)?)
    }

    fn put(&self, keys: &[Digest], record: &Record) -> Result<(), RecordError> {
        Ok(self.put_record(keys, record)?)
    }

    fn family(&self, family: Digest, limit: usize) -> Result<Vec<Record>, RecordError> {
        Ok(self.record_family(family, limit)?)
    }

    fn lock<'a>(
        &'a self,
        key: Digest,
        waiting: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<Box<dyn KeyGuard>, RecordError>> {
        Box::pin(async move {
            let lock = RangeLock::new(&self.inner.layout, "key", key.as_bytes())?;
            take_async(&lock, Mode::Exclusive, waiting).await?;
            Ok(Box::new(Guard { _lock: lock, _store: self.clone() }) as Box<dyn KeyGuard>)
        })
    }
}

/// A key that is held. The store stays open with it, so that the process has a lease while it builds.
struct Guard {
    _lock: RangeLock,
    _store: Store,
}

impl KeyGuard for Guard {}

impl Store {
    fn find_records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.shared(|state| {
            let mut layers = Layers { inner: &self.inner, known: HashMap::new() };
            let (records, unsynced) = state.db.read("look up records", |tx| {
                let mut statement = tx.prepare_cached(
                    "SELECT output, family, parts, created_ms, duration_ms, unsynced IS NOT NULL
                     FROM record_keys JOIN records ON id = record WHERE key = ?",
                )?;
                let mut unsynced = false;
                let mut found = Vec::with_capacity(keys.len());
                for key in keys {
                    let row = statement
                        .query_one([key.as_bytes()], |row| Ok((record(row)?, row.get::<_, bool>(5)?)))
                        .optional()?;
                    let valid = match row {
                        Some((record, new)) if layers.all_there(tx, &record.output)? => {
                            unsynced |= new;
                            Some(record)
                        }
                        _ => None,
                    };
                    found.push(valid);
                }
                Ok((found, unsynced))
            })?;
            for layer in records.iter().flatten().flat_map(|record| &record.output.layers) {
                if let Some(Some(row)) = layers.known.get(&layer.id) {
                    state.lease.hold_layer(layer.id, row.used_ms);
                    self.inner.used_unsynced(row.unsynced);
                }
            }
            self.inner.used_unsynced(unsynced);
            Ok(records)
        })
    }

    fn put_record(&self, keys: &[Digest], record: &Record) -> Result<(), StoreError> {
        let mut output = Vec::with_capacity(record.output.layers.len() * LAYER_BYTES);
        for layer in &record.output.layers {
            output.extend_from_slice(&layer.id.0.to_le_bytes());
            output.extend_from_slice(layer.content.as_bytes());
        }
        self.inner.shared(|state| {
            let state = &mut *state;
            let rows = state.db.write("write a record", |tx| {
                let mut layers = Layers { inner: &self.inner, known: HashMap::new() };
                for layer in &record.output.layers {
                    if !layers.there(tx, layer)? {
                        return Err(StoreError::LayerMissing { layer: layer.id }.into());
                    }
                }
                let seq = next_seq(tx)?;
                tx.prepare_cached(
                    "INSERT INTO records (family, output, parts, created_ms, duration_ms, unsynced) VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    record.family.as_bytes(),
                    output,
                    record.parts,
                    record.created_ms,
                    record.duration_ms,
                    seq
                ])?;
                let id = tx.last_insert_rowid();
                let mut statement = tx.prepare_cached("INSERT OR REPLACE INTO record_keys (key, record) VALUES (?, ?)")?;
                for key in keys {
                    statement.execute(params![key.as_bytes(), id])?;
                }
                tx.prepare_cached(
                    "DELETE FROM records WHERE family = ?1
                     AND id <= (SELECT id FROM records WHERE family = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
                     AND NOT EXISTS (SELECT 1 FROM record_keys WHERE record = records.id)",
                )?
                .execute(params![record.family.as_bytes(), KEPT_IN_FAMILY])?;
                Ok(layers.known)
            })?;
            for (layer, row) in rows {
                if let Some(row) = row {
                    state.lease.hold_layer(layer, row.used_ms);
                }
            }
            self.inner.used_unsynced(true);
            Ok(())
        })
    }

    fn record_family(&self, family: Digest, limit: usize) -> Result<Vec<Record>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.inner.state().db.read("look up earlier records", |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT output, family, parts, created_ms, duration_ms FROM records WHERE family = ? ORDER BY id DESC LIMIT ?",
            )?;
            let rows = statement.query_map(params![family.as_bytes(), limit], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn record(row: &Row<'_>) -> Result<Record, rusqlite::Error> {
    Ok(Record {
        output: output(row.get_ref(0)?.as_blob()?),
        family: digest_column(row, 1)?,
        parts: row.get(2)?,
        created_ms: row.get(3)?,
        duration_ms: row.get(4)?,
    })
}

/// The column `output`.
pub(super) fn output(bytes: &[u8]) -> Snapshot {
    let (layers, _) = bytes.as_chunks::<LAYER_BYTES>();
    let layer = |bytes: &[u8; LAYER_BYTES]| {
        let (id, content) = bytes.split_first_chunk::<8>()?;
        let content = <[u8; 32]>::try_from(content).ok()?;
        Some(Layer { id: LayerId(i64::from_le_bytes(*id)), content: Digest::from_bytes(content) })
    };
    Snapshot { layers: layers.iter().filter_map(layer).collect() }
}

/// What the database knows of a layer that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerRow {
    pub(super) content: Digest,
    pub(super) tree: bool,
    pub(super) unsynced: bool,
    pub(super) used_ms: i64,
    /// When it was made or entered, in milliseconds since 1970.
    pub(super) created_ms: i64,
    /// Did it come with an image?
    pub(super) of_image: bool,
}

/// Which layers are there, each looked at once.
pub(super) struct Layers<'a> {
    pub(super) inner: &'a Inner,
    pub(super) known: HashMap<LayerId, Option<LayerRow>>,
}

impl Layers<'_> {
    fn all_there(&mut self, tx: &Connection, snapshot: &Snapshot) -> Result<bool, Fail> {
        for layer in &snapshot.layers {
            if !self.there(tx, layer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Is there something to make the layer's files from: a tree, a blob, or a place to fetch one?
    pub(super) fn there(&mut self, tx: &Connection, layer: &Layer) -> Result<bool, Fail> {
        let row = match self.known.get(&layer.id) {
            Some(row) => *row,
            None => {
                let row = layer_row(tx, &self.inner.layout, layer.id)?;
                self.known.insert(layer.id, row);
                row
            }
        };
        Ok(row.is_some_and(|row| row.content == layer.content))
    }
}

/// The layer's row, if one of its forms is really there.
pub(super) fn layer_row(
    tx: &Connection,
    layout: &Layout,
    layer: LayerId,
) -> Result<Option<LayerRow>, rusqlite::Error> {
    let row = tx
        .prepare_cached(
            "SELECT content, tree, unsynced IS NOT NULL, used_ms, remote, created_ms, chain IS NOT NULL FROM layers WHERE id = ?",
        )?
        .query_one([layer.0], |row| {
            let found = LayerRow {
                content: digest_column(row, 0)?,
                tree: row.get(1)?,
                unsynced: row.get(2)?,
                used_ms: row.get(3)?,
                created_ms: row.get(5)?,
                of_image: row.get(6)?,
            };
            Ok((found, row.get::<_, bool>(4)?))
        })
        .optional()?;
    let Some((mut row, remote)) = row else { return Ok(None) };
    row.tree = row.tree && is_directory(&layout.layer(layer));
    if row.tree || remote {
        return Ok(Some(row));
    }
    let mut statement = tx.prepare_cached(
        "SELECT digest, blobs.size, unsynced IS NOT NULL FROM layer_blobs JOIN blobs USING (digest) WHERE layer = ?",
    )?;
    let mut rows = statement.query([layer.0])?;
    while let Some(blob) = rows.next()? {
        let size = blob.get::<_, i64>(1)?.cast_unsigned();
        if file_size(&layout.blob(digest_column(blob, 0)?)) == Some(size) {
            row.unsynced |= blob.get::<_, bool>(2)?;
            return Ok(Some(row));
        }
    }
    Ok(None)
}

pub(super) fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
