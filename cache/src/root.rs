//! Paths inside a foreign root (an image's files, a context, a git checkout), resolved in one place.
//!
//! Everything goes through a directory descriptor and `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`: no link,
//! `..` or absolute path in there leads out of it. Files are opened with `O_NONBLOCK | O_NOCTTY | O_CLOEXEC` and
//! their type is checked before they are read.
//!
//! Paths are bytes: any file name that Linux knows will do. A leading `/` and none mean the same, and the empty path
//! is the root itself. [`at`] holds what is done to a name in an open directory, never following a link; [`ids`] knows which owners files can get.

pub(crate) mod aside;
pub mod at;
pub mod ids;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use at::{Kind, Metadata};

/// How many links are followed on the way to one path (as Linux does).
const MAX_LINKS: usize = 40;

/// A directory whose files are foreign.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// What the directory is called in errors.
    name: PathBuf,
}

/// Why something inside a root could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// A system call failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what: a path inside the root.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something that is no regular file where one is needed.
    #[error("`{}` is {kind}, not a regular file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// Something that is no directory where one is needed.
    #[error("`{}` is {kind}, not a directory", path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// A file that is larger than what its reader accepts.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How much is accepted.
        limit: u64,
    },
}

impl RootError {
    /// For `map_err`: an error of a system call on `path`.
    pub fn io<'a, E: Into<io::Error>>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(E) -> Self + use<'a, E> {
        move |source| Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// What the kernel said, or what comes nearest.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::NotAFile { .. } => io::ErrorKind::InvalidInput,
            Self::NotADirectory { .. } => io::ErrorKind::NotADirectory,
            Self::TooLarge { .. } => io::ErrorKind::FileTooLarge,
        }
    }

    /// Is there nothing at that path (or no directory on the way to it)?
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

impl Root {
    /// Opens a directory that is trusted itself: `path` is resolved as usual.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(RootError::io("open directory", path))?;
        Ok(Self { fd, name: path.to_owned() })
    }

    /// A directory that is open already. Errors show paths inside of it only.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, name: PathBuf::from("/") }
    }

    /// The directory's descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the directory was opened as; `/` for [`from_fd`](Self::from_fd). For messages only.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The directory at `path` as a root of its own: nothing leads out of it, not even into this one.
    pub fn subroot(&self, path: &Path) -> Result<Self, RootError> {
        Ok(Self { fd: self.open_dir(path)?, name: self.name.join(inner(path)) })
    }

    /// A second handle on the same directory.
    pub fn try_clone(&self) -> Result<Self, RootError> {
        let fd = self.fd.try_clone().map_err(RootError::io("open directory", &self.name))?;
        Ok(Self { fd, name: self.name.clone() })
    }

    fn openat2(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let path = inner(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether `..` left the root.
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN) if tries < 100 => tries += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Opens a regular file for reading; links are followed inside the root.
    pub fn open_file(&self, path: &Path) -> Result<File, RootError> {
        // The type is looked at before the open that could wait on a pipe or wake a device.
        let found = self.stat(path)?.ok_or_else(|| RootError::io("open", path)(Errno::NOENT))?;
        if found.kind != Kind::File {
            return Err(RootError::NotAFile { path: path.to_owned(), kind: found.kind });
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.openat2(path, flags, Mode::empty()).map_err(RootError::io("open", path))?;
        let opened = at::fstat(&fd).map_err(RootError::io("look at", path))?;
        if opened.kind != Kind::File {
            return Err(RootError::NotAFile { path: path.to_owned(), kind: opened.kind });
        }
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read_small(&self, path: &Path, limit: u64) -> Result<Vec<u8>, RootError> {
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(RootError::io("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(RootError::TooLarge { path: path.to_owned(), limit });
        }
        Ok(bytes)
    }

    /// Opens a directory for reading and as a base of other calls; links are followed inside the root.
    pub fn open_dir(&self, path: &Path) -> Result<OwnedFd, RootError> {
        self.openat2(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(RootError::io("open directory", path))
    }

    /// What is at `path`, links followed inside the root; `None`: nothing.
    pub fn stat(&self, path: &Path) -> Result<Option<Metadata>, RootError> {
        self.look(path, OFlags::PATH)
    }

    /// What is at `path`; the last component may be a link, those before it are followed inside the root.
    pub fn lstat(&self, path: &Path) -> Result<Option<Metadata>, RootError> {
        self.look(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn look(&self, path: &Path, flags: OFlags) -> Result<Option<Metadata>, RootError> {
        match self.openat2(path, flags, Mode::empty()) {
            Ok(fd) => at::fstat(&fd).map(Some).map_err(RootError::io("look at", path)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(RootError::io("look at", path)(error)),
        }
    }

    /// An `O_PATH` descriptor of whatever is at `path`; the last component is followed if `follow`.
    pub fn open_path(&self, path: &Path, follow: bool) -> Result<OwnedFd, RootError> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        self.openat2(path, flags, Mode::empty()).map_err(RootError::io("open", path))
    }

    /// The text of a symbolic link; links before the last component are followed inside the root.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf, RootError> {
        let (dir, name) = self.parent_of(path)?;
        at::read_link(&dir, &name).map_err(RootError::io("read link", path))
    }

    /// The directory that holds `path`'s last component, and that component. Links before it are followed inside
    /// the root. `..` as the last component, or the root itself, is an error: neither is a name in a directory.
    pub fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString), RootError> {
        let last = match path.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => return Err(RootError::io("find a name in", path)(Errno::INVAL)),
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.open_dir(parent)?, last.to_owned()))
    }

    /// Where `path` really is: absolute inside the root, without links, `.` and `..`. From the first component that
    /// does not exist on, the path is taken as it is (a link to nothing leads to where its target would be).
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, RootError> {
        let mut real = PathBuf::new();
        let mut rest: Vec<OsString> = components(path).rev().collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            match self.lstat(&next)? {
                Some(found) if found.kind == Kind::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(RootError::io("resolve", path)(Errno::LOOP));
                    }
                    let target = self.read_link(&next)?;
                    if target.is_absolute() {
                        real = PathBuf::new();
                    }
                    rest.extend(components(&target).rev());
                }
                _ => real = next,
            }
        }
        Ok(Path::new("/").join(real))
    }

    /// Makes the directory `path` and its missing parents with `mode`, whatever the umask, and opens it. Below a directory with
    /// the setgid bit they have that bit and its group, as the kernel does it. Existing links are followed inside the root,
    /// also those to nothing. `on_created` gets each directory that was made, from the top,
    /// with its path inside the root (to change its owner, say).
    pub fn make_dirs(
        &self,
        path: &Path,
        mode: u32,
        mut on_created: impl FnMut(BorrowedFd<'_>, &Path) -> Result<(), RootError>,
    ) -> Result<OwnedFd, RootError> {
        let real = self.resolve(path)?;
        let mut dir = self.open_dir(Path::new(""))?;
        let mut done = PathBuf::from("/");
        for name in components(&real) {
            done.push(&name);
            let made = match rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(RootError::io("make directory", &done)(error)),
            };
            dir = match at::open_dir(&dir, &name) {
                Ok(fd) => fd,
                Err(error) => {
                    return Err(match at::lstat(&dir, &name) {
                        Ok(Some(found)) if found.kind != Kind::Directory => {
                            RootError::NotADirectory { path: done, kind: found.kind }
                        }
                        _ => RootError::io("open directory", &done)(error),
                    });
                }
            };
            if made {
                let inherited = at::fstat(&dir).map_err(RootError::io("look at", &done))?.mode & 0o2000;
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode | inherited))
                    .map_err(RootError::io("change mode of", &done))?;
                on_created(dir.as_fd(), &done)?;
            }
        }
        Ok(dir)
    }

    /// Makes a new regular file with `mode`, whatever the umask. What has that name already, be it a link, is an error.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<File, RootError> {
        let (dir, name) = self.parent_of(path)?;
        at::create_file(&dir, &name, mode).map_err(RootError::io("create", path))
    }

    /// Removes what is at `path`, a directory with everything in it; links are removed, not followed. `false`: there was
    /// nothing.
    pub fn remove_all(&self, path: &Path) -> Result<bool, RootError> {
        match self.parent_of(path) {
            Ok((dir, name)) => at::remove_all(&dir, &name).map_err(RootError::io("remove", path)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory, sorted by bytes, with their types; links on the way are followed inside the root.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<(OsString, Kind)>, RootError> {
        at::read_dir(&self.open_dir(path)?).map_err(RootError::io("read directory", path))
    }
}

/// A path as openat2 takes it: never empty.
fn inner(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// The parts of a path from the top: names and `..`.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
}

#[cfg(test)]
mod tests;
