//! What is done to a name in an open directory. A name is one component; no call here follows a link.
//!
//! Where Linux has no such call on descriptors (modes, xattrs of links and special files), the way is
//! `/proc/self/fd/<directory>/<name>`: the kernel itself resolves the descriptor, whatever lies above it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::{aside, ids};

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Regular.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Socket.
    Socket,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::CharDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Socket => "a socket",
        })
    }
}

impl Kind {
    fn from_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// What `stat` tells about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file; length of a link's text.
    pub size: u64,
    /// Modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Change of content or metadata: seconds since 1970, nanoseconds.
    pub ctime: (i64, u32),
    /// The filesystem it is on.
    pub dev: u64,
    /// Its inode number there.
    pub ino: u64,
    /// How many names it has.
    pub links: u64,
    /// Blocks of 512 bytes that it takes.
    pub blocks: u64,
    /// Major and minor number of a device; 0, 0 otherwise.
    pub device: (u32, u32),
}

impl Metadata {
    /// Is it a whiteout of overlayfs, a character device 0:0?
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice && self.device == (0, 0)
    }
}

#[expect(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
impl TryFrom<Stat> for Metadata {
    type Error = Errno;

    fn try_from(stat: Stat) -> Result<Self> {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let kind = Kind::from_type(file_type).ok_or(Errno::INVAL)?;
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        Ok(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            blocks: stat.st_blocks as u64,
            device: if device {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            } else {
                (0, 0)
            },
        })
    }
}

/// What an open file is, in a user namespace with what was kept aside.
pub fn fstat(fd: impl AsFd) -> Result<Metadata> {
    aside::restore(rustix::fs::fstat(&fd)?.try_into()?, || aside::path_of(&fd))
}

/// What has that name, likewise; `None`: nothing.
pub fn lstat(dir: impl AsFd, name: &OsStr) -> Result<Option<Metadata>> {
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        // A link has nothing kept aside, so none is followed.
        Ok(stat) => aside::restore(stat.try_into()?, || proc_path(&dir, name)).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a directory for reading and as a base of other calls.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a regular file for reading; anything else is `EINVAL` (a link: `ELOOP`). Does not wait on a pipe; a device
/// that somebody put there in the same moment is opened, but not read.
pub fn open_file(dir: impl AsFd, name: &OsStr) -> Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let metadata = fstat(&fd)?;
    if metadata.kind != Kind::File {
        return Err(Errno::INVAL);
    }
    Ok((File::from(fd), metadata))
}

/// Makes a new regular file with `mode`, whatever the umask.
pub fn create_file(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
    if mode != 0o600 {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    }
    Ok(File::from(fd))
}

/// The text of a symbolic link.
pub fn read_link(dir: impl AsFd, name: &OsStr) -> Result<PathBuf> {
    let text = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(text.into_bytes()).into())
}

/// The names in an open directory, sorted by bytes, with their types.
pub fn read_dir(dir: impl AsFd) -> Result<Vec<(OsString, Kind)>> {
    let mut names = Vec::new();
    // A descriptor of its own: reading moves the position, which clones share.
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let name = OsStr::from_bytes(bytes).to_owned();
        let kind = match Kind::from_type(entry.file_type()) {
            Some(kind) => kind,
            None => match lstat(&dir, &name)? {
                Some(found) => found.kind,
                None => continue,
            },
        };
        names.push((name, kind));
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a name; a directory with everything in it. `false`: there was nothing.
///
/// Not recursive, and one directory is open at a time: a tree may be deeper than a stack and than the limit of descriptors.
/// The way up is `..`, checked against the directory that was left; `ESTALE` if somebody moved it meanwhile.
pub fn remove_all(dir: impl AsFd, name: &OsStr) -> Result<bool> {
    let dir = dir.as_fd();
    match remove_one(dir, name)? {
        Removed::Gone => return Ok(true),
        Removed::Missing => return Ok(false),
        Removed::NotEmpty => {}
    }
    let mut levels = Vec::new();
    let mut current = open_dir(dir, name)?;
    let mut names = read_dir(&current)?.into_iter();
    let mut current_name = name.to_owned();
    loop {
        if let Some((child, _)) = names.next() {
            if let Removed::NotEmpty = remove_one(current.as_fd(), &child)? {
                let here = fstat(&current)?;
                let below = open_dir(&current, &child)?;
                let below_names = read_dir(&below)?.into_iter();
                let left = std::mem::replace(&mut current_name, child);
                levels.push((left, (here.dev, here.ino), std::mem::replace(&mut names, below_names)));
                current = below;
            }
            continue;
        }
        let Some((above_name, identity, above_names)) = levels.pop() else {
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            return Ok(true);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::openat(&current, "..", flags, Mode::empty())?;
        let found = fstat(&above)?;
        if (found.dev, found.ino) != identity {
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&above, &current_name, AtFlags::REMOVEDIR)?;
        (current, current_name, names) = (above, above_name, above_names);
    }
}

enum Removed {
    Gone,
    Missing,
    /// A directory with something in it: it is still there.
    NotEmpty,
}

fn remove_one(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Removed> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(Removed::Gone),
        Err(Errno::NOENT) => return Ok(Removed::Missing),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(Removed::Gone),
        Err(Errno::NOENT) => Ok(Removed::Missing),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotEmpty),
        Err(error) => Err(error),
    }
}

/// Renames to a name that is not taken (`EEXIST`). Some filesystems (NFS, FUSE) can't do that in one step: there the name is
/// looked at first, so nobody else may make it meanwhile.
pub fn rename_new<P: Arg + Copy>(from: impl AsFd, name: P, to: impl AsFd, new: P) -> Result<()> {
    match rustix::fs::renameat_with(&from, name, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, new),
            Ok(_) => Err(Errno::EXIST),
            Err(error) => Err(error),
        },
        result => result,
    }
}

/// Changes the owner; of a link, its own. Where a user namespace has a single id, another owner is kept aside.
pub fn chown(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    let ids = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
    let given = rustix::fs::chownat(&dir, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW);
    let kind = || lstat(&dir, name)?.map(|found| found.kind).ok_or(Errno::NOENT);
    aside::keep_owner(given, (uid, gid), kind, || proc_path(&dir, name))
}

/// The same, of an open file or directory.
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let ids = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
    let given = rustix::fs::fchown(&fd, ids.0, ids.1);
    aside::keep_owner(given, (uid, gid), || fstat(&fd).map(|found| found.kind), || aside::path_of(&fd))
}

/// The same, of whatever a descriptor stands for (also an `O_PATH` one), as a command's chown(2) does it: `None` leaves an id as
/// it is, and the bits that lend the owner's rights are taken away.
pub fn chown_found(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let found = fstat(&fd)?;
    let (uid, gid) = (uid.unwrap_or(found.uid), gid.unwrap_or(found.gid));
    let give = |uid, gid| {
        let ids = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
        rustix::fs::chownat(&fd, "", ids.0, ids.1, AtFlags::EMPTY_PATH)
    };
    let mut given = give(uid, gid);
    if given == Err(Errno::INVAL) && ids::single() && !ids::mapped(uid, gid) {
        // What is kept aside takes no bits away.
        give(0, 0)?;
        given = Err(Errno::INVAL);
    }
    aside::keep_owner(given, (uid, gid), || Ok(found.kind), || aside::path_of(&fd))
}

/// Makes a pipe or a device, with mode 0. In a user namespace, where the kernel makes no devices, it is an empty file that
/// stands for one.
pub fn make_node(dir: impl AsFd, name: &OsStr, kind: Kind, device: (u32, u32)) -> Result<()> {
    let file_type = match kind {
        Kind::Fifo => FileType::Fifo,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::File | Kind::Directory | Kind::Symlink | Kind::Socket => return Err(Errno::INVAL),
    };
    if kind != Kind::Fifo && ids::in_user_namespace() {
        return aside::make_node(create_file(dir, name, 0o600)?, kind, device);
    }
    rustix::fs::mknodat(dir, name, file_type, Mode::empty(), rustix::fs::makedev(device.0, device.1))
}

/// Changes the mode of anything but a link (`EOPNOTSUPP`).
pub fn chmod(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let path = aside::path_of(&fd);
    let found = fstat(&fd)?;
    match found.kind {
        Kind::Symlink => Err(Errno::OPNOTSUPP),
        kind @ (Kind::CharDevice | Kind::BlockDevice) if ids::in_user_namespace() => {
            aside::write_node(&path, kind, found.device, mode)
        }
        _ => rustix::fs::chmod(path, Mode::from_raw_mode(mode)),
    }
}

/// Sets the modification time (seconds since 1970, nanoseconds), and the access time likewise; of a link, its own.
pub fn set_mtime(dir: impl AsFd, name: &OsStr, mtime: (i64, u32)) -> Result<()> {
    rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// The same, of an open file.
pub fn fset_mtime(fd: impl AsFd, mtime: (i64, u32)) -> Result<()> {
    rustix::fs::futimens(fd, &times(mtime))
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// An extended attribute: its name and its value.
pub type Xattr = (OsString, Vec<u8>);

/// All extended attributes that can be read, sorted by name. A filesystem that has none: none.
pub fn xattrs(dir: impl AsFd, name: &OsStr) -> Result<Vec<Xattr>> {
    let path = proc_path(&dir, name);
    collect_xattrs(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |key, buffer| rustix::fs::lgetxattr(&path, key, buffer),
    )
}

/// The same, of an open file or directory (not of an `O_PATH` descriptor).
pub fn fxattrs(fd: impl AsFd) -> Result<Vec<Xattr>> {
    let fd = fd.as_fd();
    collect_xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |key, buffer| rustix::fs::fgetxattr(fd, key, buffer),
    )
}

/// One extended attribute; `None`: there is none of that name.
pub fn xattr(dir: impl AsFd, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = proc_path(&dir, name);
    match read_growing(|buffer| rustix::fs::lgetxattr(&path, key, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, of an open file or directory.
pub fn fxattr(fd: impl AsFd, key: &OsStr) -> Result<Option<Vec<u8>>> {
    match read_growing(|buffer| rustix::fs::fgetxattr(&fd, key, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets an extended attribute.
pub fn set_xattr(dir: impl AsFd, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<()> {
    rustix::fs::lsetxattr(proc_path(&dir, name), key, value, XattrFlags::empty())
}

/// Removes an extended attribute; that there is none is no error.
pub fn remove_xattr(dir: impl AsFd, name: &OsStr, key: &OsStr) -> Result<()> {
    match rustix::fs::lremovexattr(proc_path(&dir, name), key) {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

fn proc_path(dir: impl AsFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    path.push(name);
    path
}

fn collect_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize>,
) -> Result<Vec<Xattr>> {
    let names = match read_growing(&list) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        let key = OsStr::from_bytes(key);
        match read_growing(|buffer| get(key, buffer)) {
            Ok(value) => found.push((key.to_owned(), value)),
            // Listed but gone, or not for us to read.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls `read` with a buffer that fits: small at first, as large as Linux allows (64 KiB) at last.
fn read_growing(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    match read(&mut small) {
        Ok(length) => return Ok(small.get(..length).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; 64 << 10];
    let length = read(&mut large)?;
    large.truncate(length);
    Ok(large)
}
