//! Pruning: what goes, in which order, and how.
//!
//! What may go: layers, blobs that belong to no layer, cache mounts that no live lease holds and no named image needs, and what
//! is known of builds that have ended.
//! Of a layer whose blob an image needs, the tree may go. What failed steps left goes first, then what was used least recently;
//! a layer is used whenever something above it is, so that what lies on top goes first.
//!
//! How: with the gate held exclusive, all leases are read, the rows are deleted in a transaction that is synced, the files
//! are unlinked or moved to `ingest/`; then the gate is opened, and what was moved is removed. A crash on the way
//! leaves files that nothing points to, for the next to find. On a full disk, some space that was kept back makes room
//! for the transaction.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;
use rusqlite::Connection;

use super::blobs::digest_column;
use super::builds::BuildDirectory;
use super::cache_mounts::mount_lock;
use super::db::{Db, Fail};
use super::error::{StoreError, io_error};
use super::images::{all_needs, origin_needs};
use super::layout::Layout;
use super::lease::{Held, remove_all};
use super::lock::Mode;
use super::remove::disk_usage;
use super::{State, Store, now_ms};

/// How many records without a result are kept for each instruction, to explain misses with.
const KEPT_FOR_EXPLANATION: i64 = 4;

/// How much must have been added since the cap was last enforced before it is tried again, in bytes.
const STEP: u64 = 64 << 20;

/// What is to be pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Everything that is not in use; otherwise (and without `max_used`) only what no cache record leads to.
    pub all: bool,
    /// Prune until the store takes no more than this many bytes, the least recently used first.
    pub max_used: Option<u64>,
    /// Only what was not used for so long.
    pub older_than: Option<Duration>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What pruning removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// What went.
    pub removed: Vec<UsageEntry>,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Bytes that the store still takes.
    pub left: u64,
}

/// What something in the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UsageKind {
    /// A layer: its tree and its blobs.
    Layer,
    /// A blob that belongs to no layer: a manifest, a config.
    Blob,
    /// A cache mount.
    Mount,
    /// The record and the logs of a build.
    Build,
    /// What a failed step left: a layer that nothing stands on.
    Failure,
}

/// Something in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    /// What it is.
    pub kind: UsageKind,
    /// Number of the layer, digest of the blob, ID of the cache mount, ID of the build; of a failure, the ID of its build and the
    /// step's number.
    pub id: String,
    /// In bytes, what removing it would free.
    pub size: u64,
    /// In milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last used, in milliseconds since 1970.
    pub used_ms: i64,
    /// Does a process use it, or a named image need it?
    pub in_use: bool,
    /// Does a cache record lead to it? Cache mounts and builds count as such: only what prunes the cache takes them.
    pub cached: bool,
}

/// What is in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Everything, in the order in which it goes: what failed steps left, then the least recently used.
    pub entries: Vec<UsageEntry>,
    /// Bytes of it all.
    pub total: u64,
    /// Bytes of what is not in use.
    pub reclaimable: u64,
}

/// Something that may go as a whole.
struct Unit {
    key: Key,
    entry: UsageEntry,
    /// The layer's tree, if there is one, in bytes.
    tree: Option<u64>,
    /// The blobs that may go with it.
    blobs: Vec<(Digest, u64)>,
    /// Only the tree may go: an image needs a blob.
    keep_row: bool,
}

enum Key {
    Layer(LayerId),
    Blob,
    Mount(String),
    Build(BuildDirectory),
}

/// What has no size in the database.
struct Measured {
    /// Cache mounts: name → bytes.
    mounts: HashMap<String, u64>,
    builds: Vec<(BuildDirectory, u64)>,
}

impl Measured {
    fn total(&self) -> u64 {
        self.mounts.values().sum::<u64>() + self.builds.iter().map(|(_, size)| size).sum::<u64>()
    }
}

impl Store {
    /// What is in the store.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let measured = self.measure()?;
        let mut state = self.inner.state();
        let state = &mut *state;
        let held = state.lease.all_held(&self.inner.layout)?;
        let (units, total) = state.db.read("look at everything", |tx| {
            let units = units(tx, &self.inner.layout, &held, &measured)?;
            Ok((units, total(tx)? + measured.total()))
        })?;
        let entries: Vec<_> = units.into_iter().map(|unit| unit.entry).collect();
        let reclaimable = entries.iter().filter(|entry| !entry.in_use).map(|entry| entry.size).sum();
        Ok(Usage { entries, total, reclaimable })
    }

    /// Removes what is not needed. Never what a live lease holds, what a named image needs, or what is being written. Works
    /// on a full disk.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, StoreError> {
        let result = self.prune_once(options).or_else(|error| {
            if error.is_full() && self.inner.layout.release_reserve() {
                self.prune_once(options)
            } else {
                Err(error)
            }
        });
        self.inner.layout.make_reserve();
        result
    }

    /// Keeps the store below `cap` bytes during a build, as far as it can. Cheap while it is below.
    pub fn make_room(&self, cap: u64) -> Result<(), StoreError> {
        let used = {
            let state = self.inner.state();
            let unknown = state.db.read("look for new layers", |tx| {
                Ok(tx
                    .prepare_cached("SELECT id FROM layers WHERE tree AND tree_size IS NULL")?
                    .query_map([], |row| row.get(0).map(LayerId))?
                    .collect::<Result<Vec<_>, _>>()?)
            })?;
            drop(state);
            self.measure_trees(unknown)?;
            self.inner.state().db.read("add up", total)?
        };
        let tried = self.inner.room_made.load(std::sync::atomic::Ordering::Relaxed);
        if used <= cap || tried != 0 && used < tried.saturating_add(STEP) {
            return Ok(());
        }
        let options = PruneOptions { max_used: Some(cap - cap / 10), ..PruneOptions::default() };
        let report = self.prune(&options)?;
        self.inner.room_made.store(report.left.max(1), std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn prune_once(&self, options: &PruneOptions) -> Result<PruneReport, StoreError> {
        let inner = &self.inner;
        let rubbish = {
            let mut state = inner.state();
            let State { lease, gate, .. } = &mut *state;
            lease.sweep(&inner.layout, gate)?
        };
        remove_all(rubbish);
        let measured = self.measure()?;
        let mut state = inner.state();
        let State { db, lease, gate } = &mut *state;
        let (report, trash) = gate.exclusive(|| {
            let held = lease.all_held(&inner.layout)?;
            let (units, total) = db.read("look at everything", |tx| {
                Ok((units(tx, &inner.layout, &held, &measured)?, total(tx)? + measured.total()))
            })?;
            let chosen = choose(units, total, options);
            let mut report = PruneReport { left: total, ..PruneReport::default() };
            // Nobody may use a mount from here until it is gone.
            let mut locks = Vec::new();
            let mut going = Vec::new();
            for unit in chosen {
                if let Key::Mount(name) = &unit.key {
                    let lock = mount_lock(self, name)?;
                    if !lock.try_take(Mode::Exclusive)? {
                        continue;
                    }
                    locks.push(lock);
                }
                going.push(unit);
            }
            if options.dry_run {
                for unit in going {
                    report.bytes += unit.entry.size;
                    report.left = report.left.saturating_sub(unit.entry.size);
                    report.removed.push(unit.entry);
                }
                return Ok((report, Vec::new()));
            }
            let freed =
                db.write_durably("remove what is not needed", |tx| delete_rows(tx, &going, options))?;
            let mut trash = Vec::new();
            for unit in going {
                match &unit.key {
                    Key::Layer(layer) if unit.tree.is_some() => {
                        trash.push(lease.discard(&inner.layout.layer(*layer)))
                    }
                    Key::Mount(name) => trash.push(lease.discard(&inner.layout.mounts().join(name))),
                    Key::Build(build) => trash.push(lease.discard(&build.path)),
                    Key::Layer(_) | Key::Blob => {}
                }
                report.bytes += unit.tree.unwrap_or(0);
                if matches!(unit.key, Key::Mount(_) | Key::Build(_)) {
                    report.bytes += unit.entry.size;
                }
                report.removed.push(unit.entry);
            }
            for (digest, size) in freed {
                lease.blobs.remove(&digest);
                let path = inner.layout.blob(digest);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io_error("remove", path)(error));
                    }
                    _ => report.bytes += size,
                }
            }
            report.left = report.left.saturating_sub(report.bytes);
            trash.extend(orphans(db, &inner.layout, lease)?);
            Ok((report, trash))
        })?;
        drop(state);
        remove_all(trash);
        Ok(report)
    }

    /// Measures the trees that were not yet, all cache mounts and all builds.
    fn measure(&self) -> Result<Measured, StoreError> {
        let (unknown, mounts) = self.inner.state().db.read("look for new layers", |tx| {
            let unknown = tx
                .prepare_cached("SELECT id FROM layers WHERE tree AND tree_size IS NULL")?
                .query_map([], |row| row.get(0).map(LayerId))?
                .collect::<Result<Vec<_>, _>>()?;
            let mounts = tx
                .prepare_cached("SELECT name FROM mounts")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()?;
            Ok((unknown, mounts))
        })?;
        self.measure_trees(unknown)?;
        let directory = self.inner.layout.mounts();
        let mounts = mounts.into_iter().map(|name| {
            let size = disk_usage(&directory.join(&name));
            (name, size)
        });
        let builds = self.builds()?.into_iter().map(|build| {
            let size = disk_usage(&build.path);
            (build, size)
        });
        Ok(Measured { mounts: mounts.collect(), builds: builds.collect() })
    }

    pub(super) fn measure_trees(&self, layers: Vec<LayerId>) -> Result<(), StoreError> {
        if layers.is_empty() {
            return Ok(());
        }
        let sizes: Vec<_> =
            layers.into_iter().map(|layer| (layer, disk_usage(&self.inner.layout.layer(layer)))).collect();
        let noted = self.inner.state().db.write("note sizes", |tx| {
            let mut statement = tx.prepare_cached("UPDATE layers SET tree_size = ? WHERE id = ? AND tree")?;
            for (layer, size) in &sizes {
                statement.execute([size.cast_signed(), layer.0])?;
            }
            Ok(())
        });
        // On a full disk, what is measured is forgotten again: pruning goes on without.
        noted.or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })
    }
}

/// Bytes of blobs and trees.
fn total(tx: &Connection) -> Result<u64, Fail> {
    let stored: i64 = tx
        .prepare_cached(
            "SELECT (SELECT TOTAL(size) FROM blobs) + (SELECT TOTAL(tree_size) FROM layers WHERE tree)",
        )?
        .query_one([], |row| row.get::<_, f64>(0).map(|sum| sum as i64))?;
    Ok(stored.cast_unsigned())
}

/// Everything in the store, in the order in which it goes.
fn units(tx: &Connection, layout: &Layout, held: &Held, measured: &Measured) -> Result<Vec<Unit>, Fail> {
    let needed = all_needs(tx, layout)?;
    let origins = origin_needs(tx, layout)?;
    let cached = cached_layers(tx)?;
    let failures = super::failures::of_layers(tx)?;
    let live: HashSet<&str> = measured
        .builds
        .iter()
        .filter(|(build, _)| build.is_live())
        .map(|(build, _)| build.id.as_str())
        .collect();
    let mut blobs: HashMap<Digest, (u64, i64, i64)> = tx
        .prepare_cached("SELECT digest, size, created_ms, used_ms FROM blobs")?
        .query_map([], |row| {
            Ok((digest_column(row, 0)?, (row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?, row.get(3)?)))
        })?
        .collect::<Result<_, _>>()?;
    let mut of_layers: HashMap<i64, Vec<(Digest, u64)>> = HashMap::new();
    // Blobs that stay because a layer that somebody holds has them.
    let mut held_blobs: HashSet<Digest> = held.blobs.clone();
    let mut in_layers = HashSet::new();
    let mut statement = tx.prepare_cached("SELECT DISTINCT layer, digest FROM layer_blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (layer, digest) = (row.get::<_, i64>(0)?, digest_column(row, 1)?);
        if let Some(&(size, ..)) = blobs.get(&digest) {
            of_layers.entry(layer).or_default().push((digest, size));
            in_layers.insert(digest);
            if held.layers.contains(&layer) {
                held_blobs.insert(digest);
            }
        }
    }
    let mut units = Vec::new();
    let mut statement = tx.prepare_cached(
        "SELECT id, tree, tree_size, created_ms, used_ms FROM layers ORDER BY used_ms, id DESC",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get::<_, i64>(0)?;
        let tree =
            row.get::<_, bool>(1)?.then_some(row.get::<_, Option<i64>>(2)?.unwrap_or(0).cast_unsigned());
        let all = of_layers.remove(&id).unwrap_or_default();
        let keep_row = all.iter().any(|(digest, _)| needed.contains(digest));
        let blobs: Vec<_> = all
            .into_iter()
            .filter(|(digest, _)| !needed.contains(digest) && !held_blobs.contains(digest))
            .collect();
        let size = tree.unwrap_or(0) + blobs.iter().map(|(_, size)| size).sum::<u64>();
        // With the tree gone and the image's blob kept there is nothing more to take.
        let mut in_use = held.layers.contains(&id) || keep_row && tree.is_none() && blobs.is_empty();
        let (kind, name) = match failures.get(&id) {
            Some((build, step)) => {
                // Whoever makes room while the build goes on leaves it what it is about to point people to.
                in_use |= live.contains(build.as_str());
                (UsageKind::Failure, format!("{build} {step}"))
            }
            None => (UsageKind::Layer, id.to_string()),
        };
        let entry = UsageEntry {
            kind,
            id: name,
            size,
            created_ms: row.get(3)?,
            used_ms: row.get(4)?,
            in_use,
            cached: cached.contains(&id) || keep_row,
        };
        units.push(Unit { key: Key::Layer(LayerId(id)), entry, tree, blobs, keep_row });
    }
    blobs.retain(|digest, _| !in_layers.contains(digest));
    for (digest, (size, created_ms, used_ms)) in blobs {
        let entry = UsageEntry {
            kind: UsageKind::Blob,
            id: digest.to_string(),
            size,
            created_ms,
            used_ms,
            in_use: needed.contains(&digest) || held_blobs.contains(&digest),
            cached: origins.contains(&digest),
        };
        units.push(Unit { key: Key::Blob, entry, tree: None, blobs: vec![(digest, size)], keep_row: false });
    }
    let mut statement = tx.prepare_cached("SELECT name, id, created_ms, used_ms FROM mounts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let entry = UsageEntry {
            kind: UsageKind::Mount,
            id: row.get(1)?,
            size: measured.mounts.get(&name).copied().unwrap_or(0),
            created_ms: row.get(2)?,
            used_ms: row.get(3)?,
            in_use: false,
            cached: true,
        };
        units.push(Unit { key: Key::Mount(name), entry, tree: None, blobs: Vec::new(), keep_row: false });
    }
    for (build, size) in &measured.builds {
        let entry = UsageEntry {
            kind: UsageKind::Build,
            id: build.id.clone(),
            size: *size,
            created_ms: build.started_ms,
            used_ms: build.started_ms,
            in_use: live.contains(build.id.as_str()),
            cached: true,
        };
        units.push(Unit {
            key: Key::Build(build.clone()),
            entry,
            tree: None,
            blobs: Vec::new(),
            keep_row: false,
        });
    }
    // Stable: layers of one time stay in the order that takes the upper ones first.
    units.sort_by_key(|unit| (unit.entry.kind != UsageKind::Failure, unit.entry.used_ms));
    Ok(units)
}

/// The layers that a record with a key leads to.
fn cached_layers(tx: &Connection) -> Result<HashSet<i64>, Fail> {
    let mut found = HashSet::new();
    let mut statement = tx.prepare_cached(
        "SELECT output FROM records WHERE EXISTS (SELECT 1 FROM record_keys WHERE record = records.id)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.extend(
            super::records::output(row.get_ref(0).and_then(|value| Ok(value.as_blob()?))?)
                .layers
                .iter()
                .map(|layer| layer.id.0),
        );
    }
    Ok(found)
}

fn choose(units: Vec<Unit>, total: u64, options: &PruneOptions) -> Vec<Unit> {
    let now = now_ms();
    let age = options.older_than.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let mut left = total;
    let mut chosen = Vec::new();
    for unit in units {
        let entry = &unit.entry;
        // A clock that was set back makes nothing old.
        let old = age.is_none_or(|age| now.saturating_sub(entry.used_ms).max(0) >= age);
        let wanted = options.all || options.max_used.is_some() || !entry.cached;
        if entry.in_use || !old || !wanted || options.max_used.is_some_and(|max| left <= max) {
            continue;
        }
        left = left.saturating_sub(entry.size);
        chosen.push(unit);
    }
    chosen
}

/// Deletes the rows; gives the blobs that nothing has any more, with their sizes.
fn delete_rows(tx: &Connection, units: &[Unit], options: &PruneOptions) -> Result<Vec<(Digest, u64)>, Fail> {
    let mut freed = Vec::new();
    for unit in units {
        match &unit.key {
            Key::Layer(layer) if unit.keep_row => {
                tx.prepare_cached("UPDATE layers SET tree = 0, tree_size = NULL WHERE id = ?")?
                    .execute([layer.0])?;
            }
            Key::Layer(layer) => {
                tx.prepare_cached("DELETE FROM layers WHERE id = ?")?.execute([layer.0])?;
                tx.prepare_cached("DELETE FROM layer_blobs WHERE layer = ?")?.execute([layer.0])?;
                tx.prepare_cached("DELETE FROM failures WHERE layer = ?")?.execute([layer.0])?;
            }
            Key::Blob | Key::Build(_) => {}
            Key::Mount(name) => {
                tx.prepare_cached("DELETE FROM mounts WHERE name = ?")?.execute([name])?;
            }
        }
        for &(digest, size) in &unit.blobs {
            if unit.keep_row {
                tx.prepare_cached("DELETE FROM layer_blobs WHERE digest = ?")?
                    .execute([digest.as_bytes()])?;
            }
            let gone = tx
                .prepare_cached(
                    "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE digest = ?1)",
                )?
                .execute([digest.as_bytes()])?;
            if gone > 0 {
                freed.push((digest, size));
            }
        }
    }
    delete_void_records(tx, if options.all { 0 } else { KEPT_FOR_EXPLANATION })?;
    tx.execute_batch("DELETE FROM origins WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE digest = manifest)")?;
    Ok(freed)
}

/// Takes the keys from records whose layers are gone, and keeps the newest `kept` of each instruction for explanations.
fn delete_void_records(tx: &Connection, kept: i64) -> Result<(), Fail> {
    let mut layers: HashSet<i64> = HashSet::new();
    let mut statement = tx.prepare_cached("SELECT id FROM layers")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        layers.insert(row.get(0)?);
    }
    let mut void = Vec::new();
    let mut statement = tx.prepare_cached("SELECT id, output FROM records")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let output = super::records::output(row.get_ref(1).and_then(|value| Ok(value.as_blob()?))?);
        if output.layers.iter().any(|layer| !layers.contains(&layer.id.0)) {
            void.push(row.get::<_, i64>(0)?);
        }
    }
    for id in void {
        tx.prepare_cached("DELETE FROM record_keys WHERE record = ?")?.execute([id])?;
    }
    tx.prepare_cached(
        "DELETE FROM records AS r WHERE NOT EXISTS (SELECT 1 FROM record_keys WHERE record = r.id)
         AND (SELECT COUNT(*) FROM records AS newer WHERE newer.family = r.family AND newer.id > r.id) >= ?",
    )?
    .execute([kept])?;
    Ok(())
}

/// Files that have no row: left by a crash between a row and its file. Blobs are removed at once.
fn orphans(db: &Db, layout: &Layout, lease: &mut super::lease::Lease) -> Result<Vec<PathBuf>, StoreError> {
    let (layers, blobs, mounts) = db.read("look at everything", |tx| {
        let mut statement = tx.prepare_cached("SELECT id FROM layers WHERE tree")?;
        let layers: HashSet<String> = statement
            .query_map([], |row| row.get::<_, i64>(0).map(|id| id.to_string()))?
            .collect::<Result<_, _>>()?;
        let mut statement = tx.prepare_cached("SELECT digest FROM blobs")?;
        let blobs: HashSet<String> =
            statement.query_map([], |row| Ok(digest_column(row, 0)?.hex()))?.collect::<Result<_, _>>()?;
        let mut statement = tx.prepare_cached("SELECT name FROM mounts")?;
        let mounts: HashSet<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok((layers, blobs, mounts))
    })?;
    let mut trash = Vec::new();
    for (directory, known) in [(layout.layers(), layers), (layout.blobs(), blobs), (layout.mounts(), mounts)]
    {
        for entry in fs::read_dir(&directory).map_err(io_error("list", &directory))? {
            let entry = entry.map_err(io_error("list", &directory))?;
            if entry.file_name().to_str().is_none_or(|name| !known.contains(name)) {
                trash.push(lease.discard(&entry.path()));
            }
        }
    }
    Ok(trash)
}
