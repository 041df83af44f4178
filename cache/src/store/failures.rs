//! What failed steps left: each a layer that nothing stands on, and with it what whoever ran the step needs to look into it.
//!
//! Keeping it costs a rename and two rows in one transaction: nothing is read, so the layer's content digest is one that no
//! other layer has. No record leads to the layer and no lease holds it, so any pruning may take it, and takes it before
//! anything else. Only the newest few are kept ([`KEPT`],
//! [`KEPT_BYTES`]).

use std::collections::HashMap;

use bricklayer_solver::Digest;
use bricklayer_solver::record::{Layer, LayerId};
use rusqlite::{Connection, OptionalExtension, params};

use super::db::Fail;
use super::error::StoreError;
use super::layers::LayerDraft;
use super::lease::{remove_all, unique};
use super::records::layer_row;
use super::{State, Store};

/// Of how many failed steps is kept what they left: the newest.
pub const KEPT: usize = 5;

/// How many bytes of it are kept. The newest stays, however large.
const KEPT_BYTES: u64 = 4 << 30;

/// A description that is read, in bytes, at the most.
const LARGEST_DESCRIPTION: i64 = 4 << 20;

/// What a failed step left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFailure {
    /// What it changed: the layer above those that it stood on.
    pub layer: Layer,
    /// What was given to [`LayerDraft::keep`].
    pub description: Vec<u8>,
    /// When it failed, in milliseconds since 1970.
    pub created_ms: i64,
}

impl LayerDraft {
    /// Keeps the tree as what step `step` of the build `build` left when it failed.
    ///
    /// # Errors
    ///
    /// The database or the disk does not take it; nothing is kept then.
    pub fn keep(self, build: &str, step: u64, description: &[u8]) -> Result<(), StoreError> {
        let content =
            Digest::of(format!("left by a failed step\0{}\0{}", std::process::id(), unique()).as_bytes());
        self.enter(content, false, |tx, layer, now| {
            tx.prepare_cached(
                "INSERT INTO failures (layer, build, step, description, created_ms) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![layer.0, build, step.cast_signed(), description, now])?;
            Ok(())
        })?;
        Ok(())
    }
}

impl Store {
    /// What a step of a build left when it failed, if that is still there. The lease holds its layer.
    pub fn failure(&self, build: &str, step: u64) -> Result<Option<KeptFailure>, StoreError> {
        self.inner.shared(|state| {
            let found = state.db.read("look up what a step left", |tx| {
                let row = tx
                    .prepare_cached(
                        "SELECT layer, description, created_ms FROM failures
                         WHERE build = ? AND step = ? AND length(description) <= ?",
                    )?
                    .query_one(params![build, step.cast_signed(), LARGEST_DESCRIPTION], |row| {
                        Ok((LayerId(row.get(0)?), row.get(1)?, row.get(2)?))
                    })
                    .optional()?;
                let Some((id, description, created_ms)) = row else { return Ok(None) };
                let Some(found) = layer_row(tx, &self.inner.layout, id)?.filter(|row| row.tree) else {
                    return Ok(None);
                };
                let layer = Layer { id, content: found.content };
                Ok(Some((KeptFailure { layer, description, created_ms }, found.used_ms)))
            })?;
            Ok(found.map(|(failure, used_ms)| {
                state.lease.hold_layer(failure.layer.id, used_ms);
                failure
            }))
        })
    }

    /// Is what a step of a build left when it failed kept?
    pub fn keeps_failure(&self, build: &str, step: u64) -> Result<bool, StoreError> {
        self.inner.state().db.read("look up what a step left", |tx| {
            Ok(tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM failures WHERE build = ? AND step = ?)")?
                .query_one(params![build, step.cast_signed()], |row| row.get(0))?)
        })
    }

    /// Removes what failed steps left, but for the newest few, as far as they are not too large, and what a process looks
    /// into. To be called when a build has failed.
    pub fn trim_failures(&self) -> Result<(), StoreError> {
        self.trim_failures_to(KEPT, KEPT_BYTES)
    }

    pub(super) fn trim_failures_to(&self, kept: usize, bytes: u64) -> Result<(), StoreError> {
        let layers = self.inner.state().db.read("look for what failed steps left", |tx| {
            let mut statement =
                tx.prepare_cached("SELECT layer, tree_size FROM failures JOIN layers ON id = layer")?;
            let rows =
                statement.query_map([], |row| Ok((LayerId(row.get(0)?), row.get::<_, Option<i64>>(1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        // the newest stays, however large
        if layers.len() <= 1 {
            return Ok(());
        }
        self.measure_trees(
            layers.iter().filter(|(_, size)| size.is_none()).map(|(layer, _)| *layer).collect(),
        )?;
        let layout = &self.inner.layout;
        let trash: Vec<_> = {
            let mut state = self.inner.state();
            let State { db, lease, gate } = &mut *state;
            gate.exclusive(|| {
                let held = lease.all_held(layout)?;
                let going = db.write("remove what failed steps left", |tx| {
                    let mut going = surplus(tx, kept, bytes)?;
                    going.retain(|layer| !held.layers.contains(layer));
                    for layer in &going {
                        tx.prepare_cached("DELETE FROM failures WHERE layer = ?")?.execute([layer])?;
                        tx.prepare_cached("DELETE FROM layer_blobs WHERE layer = ?")?.execute([layer])?;
                        tx.prepare_cached("DELETE FROM layers WHERE id = ?")?.execute([layer])?;
                    }
                    Ok(going)
                })?;
                Ok(going.into_iter().map(|layer| lease.discard(&layout.layer(LayerId(layer)))).collect())
            })?
        };
        remove_all(trash);
        Ok(())
    }
}

/// The layers that are one too many, or too large together with the newer ones.
fn surplus(tx: &Connection, kept: usize, bytes: u64) -> Result<Vec<i64>, Fail> {
    let mut statement = tx.prepare_cached(
        "SELECT layer, tree_size FROM failures LEFT JOIN layers ON id = layer ORDER BY layer DESC",
    )?;
    let mut rows = statement.query([])?;
    let (mut number, mut left, mut surplus) = (0, bytes, Vec::new());
    while let Some(row) = rows.next()? {
        let size = row.get::<_, Option<i64>>(1)?.unwrap_or(0).cast_unsigned();
        let fits = number == 0 || size <= left;
        left = if fits { left.saturating_sub(size) } else { 0 };
        if number >= kept || !fits {
            surplus.push(row.get(0)?);
        }
        number += 1;
    }
    Ok(surplus)
}

/// The layers that failed steps left, with the build and the number of the step.
pub(super) fn of_layers(tx: &Connection) -> Result<HashMap<i64, (String, i64)>, Fail> {
    let mut statement = tx.prepare_cached("SELECT layer, build, step FROM failures")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
