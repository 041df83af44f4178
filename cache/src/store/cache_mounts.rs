//! Cache mounts: directories that outlive builds, `mounts/<digest of the ID>-<number>/`.
//!
//! A directory appears with a rename once it is filled, so a new one is whole. Number 0 is the one that is shared or
//! locked; `private` mounts take the lowest number that nobody uses.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;
use bricklayer_solver::op::Sharing;
use rusqlite::params;

use super::error::{StoreError, io_error};
use super::lock::{Mode, Pauses, RangeLock};
use super::records::is_directory;
use super::remove::remove;
use super::{Store, now_ms};

/// How many builds at once may have a private mount of one ID.
const MAX_PRIVATE: u32 = 10_000;

/// What fills a new cache mount.
pub type Fill<'a> = &'a dyn Fn(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A cache mount in use; nobody else gets more than its sharing allows for as long as this lives.
pub struct CacheMount {
    /// Its directory.
    pub path: PathBuf,
    /// Was it made just now?
    pub fresh: bool,
    _lock: RangeLock,
    _store: Store,
}

impl Store {
    /// The directory of a cache mount, made if there is none (mode 0755, empty); locked for as long as the guard lives
    /// (`shared`: with others; `locked`: alone; `private`: one that nobody else has). Blocks until it can be had.
    ///
    /// A mount that is to be filled is better made by [`cache_mount_with`](Self::cache_mount_with): here a process that is
    /// killed while it fills one leaves it half filled.
    pub fn cache_mount(&self, id: &str, sharing: Sharing) -> Result<CacheMount, StoreError> {
        self.cache_mount_with(id, sharing, &|_| Ok(()))
    }

    /// Like [`cache_mount`](Self::cache_mount). `fill` gets a new directory before anybody else can see it, and may set its
    /// owner and mode and put files into it. If it fails there is no mount, and the next call fills it again.
    pub fn cache_mount_with(
        &self,
        id: &str,
        sharing: Sharing,
        fill: Fill<'_>,
    ) -> Result<CacheMount, StoreError> {
        let mut pauses = Pauses::default();
        loop {
            match self.try_cache_mount(id, sharing, fill)? {
                Ok(mount) => return Ok(mount),
                Err(_) => std::thread::sleep(pauses.next_pause()),
            }
        }
    }

    /// Like [`cache_mount_with`](Self::cache_mount_with), but gives who has the mount instead of waiting.
    pub fn try_cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        fill: Fill<'_>,
    ) -> Result<Result<CacheMount, String>, StoreError> {
        let last = if sharing == Sharing::Private { MAX_PRIVATE } else { 0 };
        let mut holder = String::new();
        for number in 0..=last {
            let name = name(id, number);
            let lock = mount_lock(self, &name)?;
            let path = self.inner.layout.mounts().join(&name);
            let shared = sharing == Sharing::Shared;
            let mut fresh = false;
            if shared && lock.try_take(Mode::Shared)? && is_directory(&path) {
                // The common case: it is there, and nobody is alone with it.
            } else if lock.try_take(Mode::Exclusive)? {
                if !is_directory(&path) {
                    self.make_mount(id, &name, &path, fill)?;
                    fresh = true;
                }
                if shared {
                    lock.try_take(Mode::Shared)?;
                }
            } else {
                holder = lock.holder();
                continue;
            }
            self.inner.state().lease.mounts.insert(name);
            return Ok(Ok(CacheMount { path, fresh, _lock: lock, _store: self.clone() }));
        }
        Ok(Err(holder))
    }

    fn make_mount(&self, id: &str, name: &str, path: &Path, fill: Fill<'_>) -> Result<(), StoreError> {
        let draft = self.inner.state().lease.draft("mount")?;
        let made = (|| {
            DirBuilder::new().mode(0o755).create(&draft).map_err(io_error("create", &draft))?;
            // Whatever the umask says.
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))
                .map_err(io_error("create", &draft))?;
            fill(&draft).map_err(|source| StoreError::Fill { id: id.to_owned(), source })?;
            self.inner.state().db.write("note a cache mount", |tx| {
                tx.execute(
                    "INSERT OR REPLACE INTO mounts (name, id, created_ms, used_ms) VALUES (?1, ?2, ?3, ?3)",
                    params![name, id, now_ms()],
                )?;
                Ok(())
            })?;
            fs::rename(&draft, path).map_err(io_error("create", path))
        })();
        if made.is_err() {
            let _ = remove(&draft);
        }
        made
    }
}

/// The lock of a mount's directory.
pub(super) fn mount_lock(store: &Store, name: &str) -> Result<RangeLock, StoreError> {
    RangeLock::new(&store.inner.layout, "mount", name.as_bytes())
}

/// The name of a directory. An ID is opaque and may be anything, so it never is a path.
fn name(id: &str, number: u32) -> String {
    let hex = Digest::of(id.as_bytes()).hex();
    format!("{}-{number}", hex.get(..32).unwrap_or_default())
}
