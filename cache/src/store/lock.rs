//! Locks on keys, across threads and processes: byte-range locks on one permanent file.
//!
//! Each lock is a file description of its own with an OFD lock (`fcntl(2)`, `F_OFD_SETLK`) on the one byte whose
//! offset is made from the key. So the kernel arbitrates between threads as it does between processes, frees what a
//! killed process held, and two keys get into each other's way only if 62 bits of their digests are equal.
//!
//! The content of the file says who holds what, for people alone: a table of slots, 16 bytes each (offset and process
//! ID, little endian). Two keys may share a slot; then nobody is named.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bricklayer_solver::Digest;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::error::StoreError;
use super::layout::Layout;

const FILE: &str = ".keys";
const SLOTS: u64 = 4096;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Who else may have the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

/// A lock that is held, or that is to be taken. Dropping it frees it.
#[derive(Debug)]
pub(super) struct RangeLock {
    file: File,
    offset: u64,
}

impl RangeLock {
    /// A lock on `key`, not taken yet. `domain` keeps apart what keys are for.
    pub(super) fn new(layout: &Layout, domain: &str, key: &[u8]) -> Result<Self, StoreError> {
        let digest = Digest::of(&[domain.as_bytes(), b"\0", key].concat());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        // Offsets are signed, and the last one must have a successor.
        let offset = u64::from_le_bytes(first) >> 2;
        Ok(Self { file: layout.lock_file(FILE)?, offset })
    }

    /// Takes the lock, or changes its mode, if nobody is in the way.
    pub(super) fn try_take(&self, mode: Mode) -> Result<bool, StoreError> {
        let kind = match mode {
            Mode::Shared => libc::F_RDLCK,
            Mode::Exclusive => libc::F_WRLCK,
        };
        match self.set(kind) {
            Ok(()) => {
                let mut entry = [0; 16];
                entry[..8].copy_from_slice(&self.offset.to_le_bytes());
                entry[8..].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
                // Only for people, and the disk may be full.
                let _ = self.file.write_all_at(&entry, self.slot());
                Ok(true)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(StoreError::Io { action: "lock", path: "leases/.keys".into(), source: error }),
        }
    }

    /// Takes the lock on a thread that may block. Whoever holds it has something to do that ends.
    pub(super) fn take(&self, mode: Mode) -> Result<(), StoreError> {
        let mut pauses = Pauses::default();
        while !self.try_take(mode)? {
            std::thread::sleep(pauses.next_pause());
        }
        Ok(())
    }

    /// Who took it last, for people.
    pub(super) fn holder(&self) -> String {
        let mut entry = [0; 16];
        if self.file.read_exact_at(&mut entry, self.slot()).is_err() {
            return "another build".into();
        }
        let (offset, pid) = entry.split_at(8);
        match pid.try_into().map(u64::from_le_bytes) {
            Ok(pid) if offset == self.offset.to_le_bytes() && pid == u64::from(std::process::id()) => {
                "another build of this process".into()
            }
            Ok(pid) if offset == self.offset.to_le_bytes() => format!("process {pid}"),
            _ => "another build".into(),
        }
    }

    fn slot(&self) -> u64 {
        self.offset % SLOTS * 16
    }

    fn set(&self, kind: i32) -> io::Result<()> {
        let range = libc::flock {
            l_type: kind as _,
            l_whence: libc::SEEK_SET as _,
            l_start: self.offset as _,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range))?;
        Ok(())
    }
}

impl Drop for RangeLock {
    fn drop(&mut self) {
        // Closing would do, but a child that is between clone and execve has the description too.
        let _ = self.set(libc::F_UNLCK);
    }
}

/// How long to wait before the next try: short at first, never long.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Waits for a lock without blocking the thread; dropping the future gives up. `waiting` is called once, with who has
/// the lock, if there is something to wait for.
pub(super) async fn take_async(
    lock: &RangeLock,
    mode: Mode,
    waiting: &(dyn Fn(String) + Send + Sync),
) -> Result<(), StoreError> {
    let mut pauses = Pauses::default();
    let mut told = false;
    while !lock.try_take(mode)? {
        if !told {
            waiting(lock.holder());
            told = true;
        }
        tokio::time::sleep(pauses.next_pause()).await;
    }
    Ok(())
}
