//! The directories in which builds keep what is known of them: `builds/<started>-<id>/`, where `started` is in
//! milliseconds since 1970 with 13 digits, so that names sort by time.
//!
//! In each lies `events`, which the builder keeps locked (`flock(2)`) for as long as the build goes on. So a build
//! that nobody has locked has ended, or its process was killed. What else is in the directory is the caller's affair.
//!
//! A directory is made, and its file locked, under the shared gate; it is removed under the exclusive one. So nobody
//! removes a build that is just beginning.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::{StoreError, io_error};
use super::remove::disk_usage;
use super::{State, Store, now_ms};

/// Ended builds that are kept, by number.
const KEPT: usize = 100;
/// So many more may be there, since others wait while some are removed.
const MORE: usize = 10;
/// Ended builds that are kept, by bytes. The newest stays, however large.
const KEPT_BYTES: u64 = 1 << 30;

/// The file that is locked while the build goes on.
const EVENTS: &str = "events";

/// Digits of an ID, without those that look alike.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// The first ones are letters, so that no ID looks like a number.
const LETTERS: usize = 24;
const ID_LENGTH: usize = 8;

/// Where one build keeps what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildDirectory {
    /// The build's ID: eight lower-case letters and digits, the first a letter.
    pub id: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: i64,
    /// The directory.
    pub path: PathBuf,
}

/// A build that goes on. Its end, or the process's, gives the lock back.
#[derive(Debug)]
pub struct LiveBuild {
    /// Where it keeps what is known of it.
    pub directory: BuildDirectory,
    /// The file `events`, empty and locked.
    pub events: File,
}

impl BuildDirectory {
    fn of(path: &Path) -> Option<Self> {
        let (started, id) = path.file_name()?.to_str()?.split_once('-')?;
        let known = started.len() == 13
            && id.len() == ID_LENGTH
            && started.bytes().all(|byte| byte.is_ascii_digit())
            && id.bytes().all(|byte| DIGITS.contains(&byte));
        known.then_some(Self { id: id.to_owned(), started_ms: started.parse().ok()?, path: path.to_owned() })
    }

    /// Does the build go on?
    pub fn is_live(&self) -> bool {
        match File::open(self.path.join(EVENTS)) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
            Err(_) => false,
        }
    }
}

impl Store {
    /// Makes the directory of a build that begins now.
    pub fn start_build(&self) -> Result<LiveBuild, StoreError> {
        let builds = self.inner.layout.builds();
        let mut state = self.inner.state();
        let State { gate, .. } = &mut *state;
        gate.shared(|| {
            loop {
                let started_ms = now_ms().clamp(0, 9_999_999_999_999);
                let id = id();
                let path = builds.join(format!("{started_ms:013}-{id}"));
                match DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    // a store of an earlier program
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        DirBuilder::new()
                            .recursive(true)
                            .mode(0o700)
                            .create(&builds)
                            .map_err(io_error("create", &builds))?;
                        continue;
                    }
                    Err(error) => return Err(io_error("create", path)(error)),
                }
                let events = path.join(EVENTS);
                let file = OpenOptions::new()
                    .read(true)
                    .append(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&events)
                    .map_err(io_error("create", &events))?;
                // others have it for a moment only, to see whether it is locked
                while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
                    if error != rustix::io::Errno::INTR {
                        return Err(io_error("lock", events)(error));
                    }
                }
                return Ok(LiveBuild { directory: BuildDirectory { id, started_ms, path }, events: file });
            }
        })
    }

    /// The builds that are kept, and those that go on; the newest first.
    pub fn builds(&self) -> Result<Vec<BuildDirectory>, StoreError> {
        let builds = self.inner.layout.builds();
        let mut found = Vec::new();
        match fs::read_dir(&builds) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(io_error("list", &builds))?;
                    found.extend(BuildDirectory::of(&entry.path()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("list", builds)(error)),
        }
        found.sort_by(|a, b| b.path.cmp(&a.path));
        Ok(found)
    }

    /// Removes the oldest builds where there are too many. `measure`: also where they take too many bytes; looking
    /// for that takes a while. Their files go while the caller goes on.
    pub fn trim_builds(&self, measure: bool) -> Result<(), StoreError> {
        if measure {
            return self.trim_builds_to(KEPT, Some(KEPT_BYTES));
        }
        if self.builds()?.len() > KEPT + MORE { self.trim_builds_to(KEPT, None) } else { Ok(()) }
    }

    pub(super) fn trim_builds_to(&self, kept: usize, bytes: Option<u64>) -> Result<(), StoreError> {
        let all = self.builds()?;
        if all.len() <= kept && bytes.is_none() {
            return Ok(());
        }
        let mut left = bytes.unwrap_or(u64::MAX);
        let mut going = Vec::new();
        for (number, build) in all.into_iter().enumerate() {
            let size = if bytes.is_some() { disk_usage(&build.path) } else { 0 };
            let fits = number == 0 || size <= left;
            left = if fits { left.saturating_sub(size) } else { 0 };
            if number >= kept || !fits {
                going.push(build);
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        let mut state = self.inner.state();
        let State { lease, gate, .. } = &mut *state;
        let trash: Vec<_> = gate.exclusive(|| {
            going.retain(|build| !build.is_live());
            Ok(going.iter().map(|build| lease.discard(&build.path)).collect())
        })?;
        trash.into_iter().for_each(|path| lease.left_over(path));
        Ok(())
    }
}

/// A new ID.
fn id() -> String {
    let mut bytes = [0_u8; ID_LENGTH];
    if !matches!(getrandom(&mut bytes, GetRandomFlags::empty()), Ok(ID_LENGTH)) {
        // no kernel that runs this refuses so few bytes; the time makes an ID as well
        bytes = now_ms().to_le_bytes();
    }
    let digit = |(place, byte): (usize, &u8)| {
        let choice = if place == 0 { LETTERS } else { DIGITS.len() };
        char::from(DIGITS[usize::from(*byte) % choice])
    };
    bytes.iter().enumerate().map(digit).collect()
}
