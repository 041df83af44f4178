//! Reaching the disk: one `syncfs` for all that a build wrote, and what happens if the machine went down before.
//!
//! Nothing is synced when it is written. Its row carries a number (`unsynced`), from one sequence, given after its files
//! were complete. [`Store::sync`] notes the last number, calls `syncfs`, and then clears all numbers up to that one in a
//! transaction that is itself synced: whatever has no number has been on disk since before its row said so.
//!
//! Within one boot the page cache is as good as the disk, so numbered things are used like others; a build that used
//! some is as responsible for syncing them as if it had written them. The first process after a boot finds another boot
//! ID in the database and drops what has a number: records at once, trees too; blobs are kept if they hash to their names.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;
use rusqlite::params;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::Digest as _;

use super::blobs::{digest_column, file_size};
use super::error::{StoreError, io_error};
use super::images::write_index;
use super::layout::Layout;
use super::lease::{Gate, Lease, remove_all};
use super::{Store, db};

const TABLES: [&str; 3] = ["blobs", "layers", "records"];

/// Whoever writes to the disk has this file locked. Beside the leases.
const TURN: &str = ".sync";

/// Unlocked when it is dropped, also while a process that was just started still has the file open.
struct Turn(File);

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// How long one waits for another to do so.
const PATIENCE: Duration = Duration::from_secs(3);

impl Store {
    /// Makes everything that was written since the store was opened durable (`syncfs`) and its records with it. To be
    /// called once at the end of a build; costs nothing if the build wrote nothing and used nothing that is not on disk yet.
    pub fn sync(&self) -> Result<(), StoreError> {
        if !self.inner.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.sync_now();
        if result.is_err() {
            self.inner.unsynced.store(true, Ordering::Release);
        }
        result
    }

    fn sync_now(&self) -> Result<(), StoreError> {
        let _turn = self.turn();
        let (last, waiting): (i64, bool) =
            self.inner.state().db.read("look for what is not on disk", |tx| {
                let mut waiting = false;
                for table in TABLES {
                    let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE unsynced IS NOT NULL)");
                    waiting |= tx.query_one(&sql, [], |row| row.get::<_, bool>(0))?;
                }
                Ok((tx.query_one("SELECT seq FROM state", [], |row| row.get(0))?, waiting))
            })?;
        if !waiting {
            return self.inner.state().note_uses();
        }
        let root = self.inner.layout.root();
        let directory = File::open(root).map_err(io_error("open", root))?;
        // Builds that run beside this one must not wait for the disk: the database is not locked here.
        // ENOENT: a filesystem in user space had nothing to write to any more, since the file was removed before. What is not
        // on disk after that is written, or told, by the second call: an error is told once.
        rustix::fs::syncfs(&directory)
            .or_else(|error| if error == Errno::NOENT { rustix::fs::syncfs(&directory) } else { Err(error) })
            .map_err(io_error("write to disk", root))?;
        let mut state = self.inner.state();
        let state = &mut *state;
        state.db.write_durably("note what is on disk", |tx| {
            for table in TABLES {
                tx.execute(&format!("UPDATE {table} SET unsynced = NULL WHERE unsynced <= ?"), [last])?;
            }
            super::flush_uses(tx, &mut state.lease)?;
            Ok(())
        })?;
        state.db.checkpoint_large();
        Ok(())
    }

    /// Builds that end at the same time go one after another, so that the first writes for all that wait. Somebody who was
    /// stopped in there holds nobody up for long: it is no error to do it side by side.
    fn turn(&self) -> Option<Turn> {
        let file = self.inner.layout.lock_file(TURN).ok()?;
        let began = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Turn(file)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return None,
            }
        }
    }
}

/// Which boot of the machine this is; empty where the kernel does not tell.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Drops what may have been lost if the machine was started since the store was last used.
pub(super) fn recover(
    layout: &Layout,
    db: &db::Db,
    lease: &mut Lease,
    gate: &Gate,
) -> Result<(), StoreError> {
    recover_in(layout, db, lease, gate, &boot_id())
}

pub(super) fn recover_in(
    layout: &Layout,
    db: &db::Db,
    lease: &mut Lease,
    gate: &Gate,
    boot: &str,
) -> Result<(), StoreError> {
    let known = || {
        db.read("look for the boot", |tx| {
            Ok(tx.prepare_cached("SELECT boot FROM state")?.query_one([], |row| row.get::<_, String>(0))?)
        })
    };
    if known()? == boot {
        return Ok(());
    }
    let trash = gate.exclusive(|| {
        if known()? == boot { Ok(Vec::new()) } else { drop_unsynced(layout, db, lease, boot) }
    })?;
    remove_all(trash);
    Ok(())
}

fn drop_unsynced(
    layout: &Layout,
    db: &db::Db,
    lease: &mut Lease,
    boot: &str,
) -> Result<Vec<PathBuf>, StoreError> {
    let (blobs, trees) = db.read("look for what is not on disk", |tx| {
        let blobs: Vec<(Digest, u64)> = tx
            .prepare("SELECT digest, size FROM blobs WHERE unsynced IS NOT NULL")?
            .query_map([], |row| Ok((digest_column(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
            .collect::<Result<_, _>>()?;
        let trees: Vec<LayerId> = tx
            .prepare("SELECT id FROM layers WHERE unsynced IS NOT NULL AND tree")?
            .query_map([], |row| row.get(0).map(LayerId))?
            .collect::<Result<_, _>>()?;
        Ok((blobs, trees))
    })?;
    let bad: Vec<Digest> =
        blobs.into_iter().filter(|&(digest, size)| !holds(layout, digest, size)).map(|(d, _)| d).collect();
    db.write_durably("drop what was not on disk", |tx| {
        tx.execute_batch(
            "DELETE FROM record_keys WHERE record IN (SELECT id FROM records WHERE unsynced IS NOT NULL);
             DELETE FROM records WHERE unsynced IS NOT NULL;
             UPDATE layers SET tree = 0, tree_size = NULL WHERE unsynced IS NOT NULL;",
        )?;
        for digest in &bad {
            tx.execute("DELETE FROM blobs WHERE digest = ?", [digest.as_bytes()])?;
        }
        tx.execute_batch(
            "DELETE FROM layers WHERE unsynced IS NOT NULL AND NOT remote AND NOT EXISTS
                (SELECT 1 FROM layer_blobs JOIN blobs USING (digest) WHERE layer = layers.id);
             DELETE FROM layer_blobs WHERE NOT EXISTS (SELECT 1 FROM layers WHERE id = layer);
             DELETE FROM failures WHERE NOT EXISTS (SELECT 1 FROM layers WHERE id = layer);
             UPDATE layers SET unsynced = NULL WHERE unsynced IS NOT NULL;
             UPDATE blobs SET unsynced = NULL WHERE unsynced IS NOT NULL;",
        )?;
        tx.execute("UPDATE state SET boot = ?", params![boot])?;
        write_index(tx, layout)
    })?;
    for digest in bad {
        let _ = fs::remove_file(layout.blob(digest));
    }
    let mut trash = Vec::new();
    for layer in trees {
        trash.push(lease.discard(&layout.layer(layer)));
    }
    Ok(trash)
}

/// Does the file hash to its name? Any failure to read it is a no.
fn holds(layout: &Layout, digest: Digest, size: u64) -> bool {
    fn hash(path: &Path) -> std::io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Digest::from_bytes(hasher.finalize().into()));
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
    }
    let path = layout.blob(digest);
    file_size(&path) == Some(size) && hash(&path).is_ok_and(|actual| actual == digest)
}
