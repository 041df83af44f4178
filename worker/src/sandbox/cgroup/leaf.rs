//! One group of one hierarchy: made, locked, killed and removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

/// A group of one hierarchy.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) path: PathBuf,
    /// Open, and locked: a sign of life for other processes.
    pub(super) directory: OwnedFd,
}

impl Leaf {
    /// Makes `base/below` (shared by all our processes) and in it the group `name`, locked. What dead processes left there
    /// is removed first.
    pub(super) fn make(base: &Path, below: &Path, name: &str) -> io::Result<Self> {
        let parent = base.join(below);
        reap(&parent);
        loop {
            make_parents(base, below)?;
            // Another process may take it for empty, and remove it.
            match Self::make_in(&parent, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && base.exists() => {}
                result => return result,
            }
        }
    }

    fn make_in(parent: &Path, name: &str) -> io::Result<Self> {
        let parent_lock = File::open(parent)?;
        // Whoever removes groups holds this one exclusively: no group is seen between its making and its locking.
        flock(&parent_lock, FlockOperation::LockShared)?;
        let path = parent.join(name);
        fs::create_dir(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        flock(&directory, FlockOperation::NonBlockingLockShared)?;
        Ok(Self { path, directory })
    }

    /// The same in a hierarchy of version 1.
    pub(super) fn make_legacy(controller: &str, base: &Path, below: &Path, name: &str) -> io::Result<Self> {
        let leaf = Self::make(base, below, name)?;
        if controller == "cpuset" {
            // Empty in a new group, and no process can enter such a one.
            let mut level = base.to_owned();
            for part in below.iter().chain([name.as_ref()]) {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let ours = level.join(part).join(file);
                    if fs::read_to_string(&ours)?.trim().is_empty() {
                        fs::write(&ours, fs::read_to_string(level.join(file))?.trim())?;
                    }
                }
                level.push(part);
            }
        }
        Ok(leaf)
    }

    pub(super) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    pub(super) fn read_number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }

    /// The number after `key` in a file of lines `key number`.
    pub(super) fn read_key(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Kills what is in it and removes it.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

/// Directories above groups that this process made or used: base, and what is below it.
static PARENTS: Mutex<Vec<(PathBuf, PathBuf)>> = Mutex::new(Vec::new());

fn make_parents(base: &Path, below: &Path) -> io::Result<()> {
    fs::create_dir_all(base.join(below))?;
    let mut parents = PARENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if !parents.iter().any(|known| known.0 == base && known.1 == below) {
        parents.push((base.to_owned(), below.to_owned()));
    }
    Ok(())
}

/// Removes the directories above groups, where nobody has a group in them any more.
pub(super) fn remove_parents() {
    let parents = std::mem::take(&mut *PARENTS.lock().unwrap_or_else(PoisonError::into_inner));
    for (base, below) in parents {
        let mut below = below.as_path();
        // The kernel removes only what is empty.
        while !below.as_os_str().is_empty() && fs::remove_dir(base.join(below)).is_ok() {
            below = below.parent().unwrap_or(Path::new(""));
        }
    }
}

/// Removes the groups that dead processes left in `parent`; once per process and place.
fn reap(parent: &Path) {
    static DONE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if done.iter().any(|path| path == parent) {
        return;
    }
    done.push(parent.to_owned());
    let Ok(lock) = File::open(parent) else { return };
    // Others are busy making groups: they, or a later process, have looked or will.
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        // Only what `new_name` may have made.
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name.split('-').count() == 3 && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        });
        let Ok(directory) = File::open(entry.path()) else { continue };
        if ours && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            kill_all(&entry.path());
            remove(&entry.path());
        }
    }
}

/// Kills what is in a group and removes it. One that can't be removed now is removed by a later process.
fn remove(path: &Path) {
    // What a runtime made in it.
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        kill_all(&entry.path());
        remove(&entry.path());
    }
    for attempt in 0..20 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                if attempt == 0 {
                    kill_all(path);
                }
                // A killed process is in its group until the kernel is done with it.
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => return,
        }
    }
}

fn kill_all(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let Ok(text) = fs::read_to_string(path.join("cgroup.procs")) else { return };
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A name that no other group has.
pub(super) fn new_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static ME: OnceLock<u64> = OnceLock::new();
    let me = ME.get_or_init(|| {
        let mut bytes = [0; 8];
        // Names only have to differ; a process id and a number do where there is no randomness.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
        u64::from_ne_bytes(bytes)
    });
    format!("{}-{me:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
