//! Mount points: finding them inside a root filesystem, making those that are missing, and removing these afterwards so
//! that they never reach a layer.
//!
//! Paths come from images and Dockerfiles. They are walked component by component: every directory on the way is open,
//! links are read and walked by us, `..` goes back to the descriptor it came from. So nothing leads out of the root,
//! whatever the root holds, and the path that was really walked is known.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// As many components as can matter: a path has 4096 bytes at most, links may add to it.
const MAX_COMPONENTS: usize = 8192;

/// What is wanted at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A directory; made with mode 0755 if there is nothing.
    Directory,
    /// Anything but a directory; an empty file with mode 0644 is made if there is nothing.
    File,
}

/// The end of a walk.
pub(super) struct Place {
    /// What is there (`O_PATH`).
    pub(super) fd: OwnedFd,
    /// Where it really is, from the root.
    pub(super) path: Vec<OsString>,
}

/// Something made only to mount on.
struct Stub {
    path: Vec<OsString>,
    directory: bool,
    /// Set when it does not lie on the root's own mount, and so not in the upper directory: where it lies.
    elsewhere: Option<OwnedFd>,
}

/// A directory that a stub was made in, as it was before.
struct Parent {
    path: Vec<OsString>,
    stat: Stat,
    has_xattrs: bool,
}

/// Everything that was made only to mount on.
#[derive(Default)]
pub(super) struct Stubs {
    made: Vec<Stub>,
    parents: Vec<Parent>,
}

/// How missing components are made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing {
    /// Made to mount on, and removed afterwards.
    Stub,
    /// Made for good, for this user and group.
    Keep {
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories from the root (not in here) down to where we are.
    open: Vec<OwnedFd>,
    path: Vec<OsString>,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root, |fd| fd.as_fd())
    }
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
}

/// Walks to `path` below `root`, making what is missing. `forbidden` (device and inode) are directories in which nothing
/// is made.
pub(super) fn place(
    root: BorrowedFd<'_>,
    path: &str,
    want: Want,
    missing: Missing,
    forbidden: &[(u64, u64)],
    stubs: &mut Stubs,
) -> io::Result<Place> {
    let mut pending: VecDeque<OsString> = components(path.as_bytes()).collect();
    let mut walk = Walk { root, open: Vec::new(), path: Vec::new() };
    let mut links = 0;
    let mut end = None;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            walk.open.pop();
            walk.path.pop();
            continue;
        }
        let last = pending.is_empty();
        let found = match rustix::fs::openat(walk.here(), &name, LOOK, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let want = if last { want } else { Want::Directory };
                make(&walk, &name, want, missing, forbidden, stubs)?;
                rustix::fs::openat(walk.here(), &name, LOOK, Mode::empty())?
            }
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS || pending.len() > MAX_COMPONENTS {
                    return Err(Errno::LOOP.into());
                }
                // Read from the descriptor: the link that was looked at.
                let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    walk.open.clear();
                    walk.path.clear();
                }
                for part in components(target.as_bytes()).rev() {
                    pending.push_front(part);
                }
            }
            FileType::Directory => {
                walk.path.push(name);
                walk.open.push(found);
            }
            _ if last => {
                walk.path.push(name);
                end = Some(found);
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    let fd = match (end, walk.open.pop()) {
        (Some(end), _) => end,
        (None, Some(directory)) => directory,
        (None, None) => rustix::fs::openat(root, c".", LOOK, Mode::empty())?,
    };
    Ok(Place { fd, path: walk.path })
}

fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn make(
    walk: &Walk<'_>,
    name: &OsStr,
    want: Want,
    missing: Missing,
    forbidden: &[(u64, u64)],
    stubs: &mut Stubs,
) -> io::Result<()> {
    let here = walk.here();
    let before = rustix::fs::fstat(here)?;
    if forbidden.contains(&(before.st_dev, before.st_ino)) {
        return Err(Errno::ROFS.into());
    }
    let stub = matches!(missing, Missing::Stub);
    let in_root = mount_id(here)? == mount_id(walk.root)?;
    if stub && in_root {
        stubs.remember(walk, before)?;
    }
    match want {
        Want::Directory => {
            rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755))?;
            // The mode that was asked for, whatever our umask is.
            let made = rustix::fs::openat(
                here,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            if let Missing::Keep { uid, gid } = missing {
                rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
        }
        Want::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(here, name, flags, Mode::from_raw_mode(0o644))?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o644))?;
        }
    }
    if stub {
        set_times(here, &before);
        let mut path = walk.path.clone();
        path.push(name.to_owned());
        let elsewhere =
            if in_root { None } else { Some(rustix::fs::openat(here, c".", LOOK, Mode::empty())?) };
        stubs.made.push(Stub { path, directory: want == Want::Directory, elsewhere });
    }
    Ok(())
}

/// Gives a directory the times that it had. That this fails is no reason to fail: it changes a time, nothing else.
#[allow(clippy::unnecessary_cast, reason = "the fields have other types on other architectures")]
fn set_times(directory: BorrowedFd<'_>, stat: &Stat) {
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    let times = Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    };
    if let Ok(open) = rustix::fs::openat(
        directory,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        let _ = rustix::fs::futimens(&open, &times);
    }
}

impl Stubs {
    /// A stub in the root copies its directory, and all above it, into the upper directory.
    fn remember(&mut self, walk: &Walk<'_>, here: Stat) -> io::Result<()> {
        for depth in (1..=walk.path.len()).rev() {
            let Some(path) = walk.path.get(..depth) else { break };
            if self.parents.iter().any(|parent| parent.path == path)
                || self.made.iter().any(|stub| stub.path == path)
            {
                continue;
            }
            let Some(fd) = walk.open.get(depth - 1) else { break };
            let stat = if depth == walk.path.len() { here } else { rustix::fs::fstat(fd)? };
            self.parents.push(Parent { path: path.to_vec(), stat, has_xattrs: has_xattrs(fd.as_fd())? });
        }
        Ok(())
    }

    /// Removes what was made, where it is still what was made; and copies of directories that nothing else changed.
    ///
    /// `upper` is the upper directory of the root, whose mount is gone. A component that is no longer a directory is
    /// not followed.
    pub(super) fn remove(&mut self, upper: BorrowedFd<'_>) -> io::Result<()> {
        // The last was made deepest.
        while let Some(stub) = self.made.pop() {
            let Some((name, above)) = stub.path.split_last() else { continue };
            let directory = match stub.elsewhere {
                Some(directory) => Some(directory),
                None => descend(upper, above)?,
            };
            let Some(directory) = directory else { continue };
            let before = rustix::fs::fstat(&directory)?;
            if remove_one(directory.as_fd(), name, stub.directory)? {
                set_times(directory.as_fd(), &before);
            }
        }
        self.parents.sort_by_key(|parent| std::cmp::Reverse(parent.path.len()));
        for parent in self.parents.drain(..) {
            let Some((name, above)) = parent.path.split_last() else { continue };
            let Some(directory) = descend(upper, above)? else { continue };
            let Some(copy) = descend(directory.as_fd(), std::slice::from_ref(name))? else { continue };
            if parent.has_xattrs || has_xattrs(copy.as_fd())? || is_opaque(copy.as_fd())? {
                continue;
            }
            let now = rustix::fs::fstat(&copy)?;
            let same =
                |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
            if same(&now) != same(&parent.stat) {
                continue;
            }
            let before = rustix::fs::fstat(&directory)?;
            match rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
                Ok(()) => set_times(directory.as_fd(), &before),
                // Something was made in it.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Opens a directory below `from`; `None` if it, or something on the way, is missing or no directory.
fn descend(from: BorrowedFd<'_>, path: &[OsString]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    for name in path {
        at = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Some(at))
}

fn remove_one(directory: BorrowedFd<'_>, name: &OsStr, is_directory: bool) -> io::Result<bool> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (still, flags) = if is_directory {
        (kind == FileType::Directory, AtFlags::REMOVEDIR)
    } else {
        (kind == FileType::RegularFile && stat.st_size == 0, AtFlags::empty())
    };
    if !still {
        return Ok(false);
    }
    match rustix::fs::unlinkat(directory, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The names of the xattrs of a directory. Descriptors that only name a file (`O_PATH`) can't be asked.
fn xattr_names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = vec![0u8; 4096];
    loop {
        match rustix::fs::flistxattr(&open, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                let names = buffer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.filter_map(|name| CString::new(name).ok()).collect());
            }
            // The kernel keeps a list of names below 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 16 => buffer.resize(buffer.len() * 2, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_overlay(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"trusted.overlay.") || name.to_bytes().starts_with(b"user.overlay.")
}

fn has_xattrs(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(xattr_names(directory)?.iter().any(|name| !is_overlay(name)))
}

/// Does it hide what lower layers have at its place?
fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(xattr_names(directory)?.iter().any(|name| is_overlay(name) && name.to_bytes().ends_with(b".opaque")))
}
