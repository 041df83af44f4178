//! Leases: what keeps things from being pruned while a process uses them.
//!
//! A lease is a file `leases/<pid>-<number>` that its process keeps locked (`flock(2)`), so it ends with the process,
//! however that ends. It lists what the process holds, one line each: `layer 12`, `blob 2cf2…`. Whatever the process
//! is writing lies in `ingest/<name of the lease>/`.
//!
//! The gate, `leases/.gate`, is a permanent file. Who looks something up and uses it, or publishes something, holds
//! the gate *shared* from before the look until the line in the lease is written. Who decides what is removed holds it
//! *exclusive* from reading all leases until the mapping is gone. So nothing goes between being found and being held.
//!
//! A lease is made and locked under the shared gate, and one of a dead process is removed under the exclusive gate, where
//! it is looked at once more: so nobody removes a lease that is not locked yet, and no lock is taken on a file that is
//! about to go. Names are never used twice.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;
use rustix::fs::{FlockOperation, flock};

use super::error::{StoreError, io_error};
use super::layout::Layout;
use super::remove::remove;

const GATE: &str = ".gate";

/// The largest list of held things that is read: what a process that went wild wrote must not fill memory.
const MAX_LEASE: u64 = 256 << 20;

/// A text that no other call gives, in this process or, with its ID, in another one.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What is held, by one process or by all.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) layers: HashSet<i64>,
    pub(super) blobs: HashSet<Digest>,
}

impl Held {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("layer", id)) => self.layers.extend(id.parse::<i64>()),
                Some(("blob", hex)) => self.blobs.extend(Digest::from_hex(hex)),
                _ => {}
            }
        }
    }
}

/// The permanent file that keeps looking and removing apart.
#[derive(Debug)]
pub(super) struct Gate {
    file: File,
    path: PathBuf,
}

impl Gate {
    pub(super) fn open(layout: &Layout) -> Result<Self, StoreError> {
        Ok(Self { file: layout.lock_file(GATE)?, path: layout.leases().join(GATE) })
    }

    pub(super) fn shared<T>(&self, body: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(FlockOperation::LockShared, body)
    }

    pub(super) fn exclusive<T>(&self, body: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(FlockOperation::LockExclusive, body)
    }

    fn with<T>(
        &self,
        operation: FlockOperation,
        body: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            match flock(&self.file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.map_err(io_error("lock", &self.path))?,
            }
        }
        // Given back also if `body` panics.
        struct Open<'a>(&'a File);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                let _ = flock(self.0, FlockOperation::Unlock);
            }
        }
        let _open = Open(&self.file);
        body()
    }
}

/// The lease of this process (of one open store in it).
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    file: File,
    /// `ingest/<name>`, made when somebody needs it.
    directory: PathBuf,
    made: bool,
    count: u64,
    /// The thread that removes what is left of things that are done, and the way to it.
    sweeper: Option<(Sender<PathBuf>, Option<JoinHandle<()>>)>,
    /// Layers that are held, with the time of their last use as the database has it.
    pub(super) layers: HashMap<LayerId, i64>,
    /// Blobs that are held, with size and last use.
    pub(super) blobs: HashMap<Digest, (u64, i64)>,
    /// Directories of cache mounts that were used.
    pub(super) mounts: HashSet<String>,
    lines: String,
}

impl Lease {
    /// Takes a lease, and removes those of dead processes with what they were writing.
    pub(super) fn take(layout: &Layout, gate: &Gate) -> Result<Self, StoreError> {
        let (mut lease, others) = gate.shared(|| {
            let lease = Self::create(layout)?;
            let others = lease.others(layout)?;
            Ok((lease, others))
        })?;
        if others.iter().any(|path| is_dead(path)) {
            match lease.sweep(layout, gate) {
                Ok(rubbish) => remove_all(rubbish),
                // On a full disk it is pruning that has to get through.
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lease)
    }

    fn create(layout: &Layout) -> Result<Self, StoreError> {
        let name = format!("{}-{}", std::process::id(), unique());
        let path = layout.leases().join(&name);
        let open = || OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path);
        let file = open()
            .or_else(|error| if layout.release_reserve() { open() } else { Err(error) })
            .map_err(io_error("create", &path))?;
        // Another process that looks whether it is dead has it for a moment.
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(io_error("lock", &path))?;
        Ok(Self {
            path,
            file,
            directory: layout.ingest().join(name),
            made: false,
            count: 0,
            sweeper: None,
            layers: HashMap::new(),
            blobs: HashMap::new(),
            mounts: HashSet::new(),
            lines: String::new(),
        })
    }

    /// The leases of others, dead or alive.
    fn others(&self, layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
        let directory = layout.leases();
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory).map_err(io_error("list", &directory))? {
            let entry = entry.map_err(io_error("list", &directory))?;
            if !entry.file_name().to_string_lossy().starts_with('.') && entry.path() != self.path {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Removes the leases of dead processes, and gives everything in `ingest/` that belongs to no live one, for
    /// [`remove_all`].
    pub(super) fn sweep(&mut self, layout: &Layout, gate: &Gate) -> Result<Vec<PathBuf>, StoreError> {
        gate.exclusive(|| {
            let mut live: HashSet<_> = self.path.file_name().map(ToOwned::to_owned).into_iter().collect();
            for path in self.others(layout)? {
                if is_dead(&path) {
                    let _ = fs::remove_file(&path);
                } else {
                    live.extend(path.file_name().map(ToOwned::to_owned));
                }
            }
            let ingest = layout.ingest();
            let mut rubbish = Vec::new();
            for entry in fs::read_dir(&ingest).map_err(io_error("list", &ingest))? {
                let entry = entry.map_err(io_error("list", &ingest))?;
                if !live.contains(&entry.file_name()) {
                    rubbish.push(self.discard(&entry.path()));
                }
            }
            Ok(rubbish)
        })
    }

    /// Takes something out of its place, for [`remove_all`]: moved to `ingest/`, or left where it is if that cannot be.
    pub(super) fn discard(&mut self, path: &Path) -> PathBuf {
        match self.draft("trash") {
            Ok(target) if fs::rename(path, &target).is_ok() => target,
            _ => path.to_owned(),
        }
    }

    /// What live processes hold, this one included. Under the exclusive gate, or else it is old when it comes.
    pub(super) fn all_held(&self, layout: &Layout) -> Result<Held, StoreError> {
        let mut held = Held::default();
        held.layers.extend(self.layers.keys().map(|layer| layer.0));
        held.blobs.extend(self.blobs.keys());
        for path in self.others(layout)? {
            if is_dead(&path) {
                continue;
            }
            let mut text = String::new();
            let read = File::open(&path).and_then(|file| file.take(MAX_LEASE).read_to_string(&mut text));
            match read {
                Ok(_) => held.read(&text),
                // It ended just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", path)(error)),
            }
        }
        Ok(held)
    }

    /// Holds a layer once [`write`](Self::write) is called.
    pub(super) fn hold_layer(&mut self, layer: LayerId, used_ms: i64) {
        if self.layers.insert(layer, used_ms).is_none() {
            self.lines.push_str(&format!("layer {}\n", layer.0));
        }
    }

    /// Holds a blob once [`write`](Self::write) is called.
    pub(super) fn hold_blob(&mut self, digest: Digest, size: u64, used_ms: i64) {
        if self.blobs.insert(digest, (size, used_ms)).is_none() {
            self.lines.push_str(&format!("blob {}\n", digest.hex()));
        }
    }

    /// Writes down what was held since the last call: one write for all of it.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let result = self.file.write_all(self.lines.as_bytes());
        if result.is_err() {
            // A line may be half there; a whole one must not be glued to it. Nothing counts as held by it.
            self.lines.insert(0, '\n');
        } else {
            self.lines.clear();
        }
        result.map_err(io_error("write", &self.path))
    }

    /// `ingest/<name>`, made when it is first asked for.
    pub(super) fn directory(&mut self) -> Result<&Path, StoreError> {
        if !self.made {
            DirBuilder::new()
                .mode(0o700)
                .create(&self.directory)
                .map_err(io_error("create", &self.directory))?;
            self.made = true;
        }
        Ok(&self.directory)
    }

    /// A new path in it.
    pub(super) fn draft(&mut self, kind: &str) -> Result<PathBuf, StoreError> {
        self.count += 1;
        let name = format!("{kind}-{}", self.count);
        Ok(self.directory()?.join(name))
    }

    /// Notes that a path is of no more use. A thread removes it, so that nobody waits: a filesystem may tell the disk of each
    /// block that becomes free (`discard`), and wait for its answer.
    pub(super) fn left_over(&mut self, path: PathBuf) {
        let sweeper = self.sweeper.get_or_insert_with(|| {
            let (paths, queue) = channel::<PathBuf>();
            let sweep = move || remove_all(queue);
            // Without a thread what lies in our directory goes with the lease.
            let thread = std::thread::Builder::new().name("sweep".to_owned()).spawn(sweep).ok();
            (paths, thread)
        });
        let _ = sweeper.0.send(path);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((paths, Some(thread))) = self.sweeper.take() {
            drop(paths);
            let _ = thread.join();
        }
        // What cannot be removed keeps its lease, so that the next process finds it.
        if !self.made || remove(&self.directory).is_ok() {
            let _ = fs::remove_file(&self.path);
        }
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Removes what [`Lease::discard`] gave. What cannot be removed (files of other users) is left to a later sweep.
pub(super) fn remove_all(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        let _ = remove(&path);
    }
}

/// Is nobody behind the lease? One that cannot be opened counts as live, unless it is gone.
fn is_dead(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
        Err(_) => false,
    }
}
