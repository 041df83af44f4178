//! Where an entry goes: names cleaned, links on the way resolved inside the destination, missing directories made.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode as Permissions, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::below::{Below, Found};
use super::files::{copy_xattrs, remember};
use super::{Mode, UnpackOptions};
use crate::layer::LayerError;
use crate::root::{Kind, Root, at};

/// How many links are followed on the way to one entry (as Linux does).
const MAX_LINKS: usize = 40;
/// How many directories are kept open.
const OPEN_DIRECTORIES: usize = 64;

/// A directory of the destination.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) fd: Rc<OwnedFd>,
    /// Below the destination, without links; empty: the destination itself.
    pub(super) path: PathBuf,
}

/// The destination and what is known about it.
pub(super) struct Place<'a> {
    pub(super) root: &'a Root,
    pub(super) options: &'a UnpackOptions,
    pub(super) below: Below,
    /// Did something come from below?
    pub(super) used_below: bool,
    /// Directories by the name under which the archive speaks of them.
    open: HashMap<Vec<u8>, Directory>,
    /// Times of directories, set at the end.
    pub(super) times: HashMap<PathBuf, (i64, u32)>,
    /// Directories that hide what is below them; the empty path: the root.
    pub(super) opaque: HashSet<PathBuf>,
    /// Paths that the layer removes.
    pub(super) whiteouts: HashSet<PathBuf>,
    /// Bytes that `times`, `opaque` and `whiteouts` may still take.
    pub(super) budget: usize,
}

impl<'a> Place<'a> {
    pub(super) fn new(root: &'a Root, options: &'a UnpackOptions) -> Result<Self, LayerError> {
        Ok(Self {
            root,
            options,
            below: Below::open(if options.mode == Mode::Layer { &options.below } else { &[] })?,
            used_below: false,
            open: HashMap::new(),
            times: HashMap::new(),
            opaque: HashSet::new(),
            whiteouts: HashSet::new(),
            budget: 512 << 20,
        })
    }

    /// Something that existed was removed or replaced: what is open may no longer be where it was.
    pub(super) fn forget_open(&mut self) {
        self.open.clear();
    }

    /// The directory that `names` lead to; missing ones are made.
    pub(super) fn directory(&mut self, names: &[&[u8]]) -> Result<Directory, LayerError> {
        let key = names.join(&b'/');
        if let Some(known) = self.open.get(&key) {
            return Ok(known.clone());
        }
        let path = Path::new(OsStr::from_bytes(&key));
        let found = match self.open_plain(path) {
            Ok(fd) => Directory { fd: Rc::new(fd), path: path.to_owned() },
            Err(_) => self.walk(names, path)?,
        };
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(key, found.clone());
        Ok(found)
    }

    /// Opens a directory of the destination that is reached without links.
    pub(super) fn open_plain(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root.as_fd(), path, flags, Permissions::empty(), resolve)
    }

    /// Component by component: through links, the layers below, and what must be made.
    fn walk(&mut self, names: &[&[u8]], shown: &Path) -> Result<Directory, LayerError> {
        let mut rest: Vec<OsString> =
            names.iter().rev().map(|name| OsStr::from_bytes(name).to_owned()).collect();
        let mut current = self.top(shown)?;
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                let mut path = current.path.clone();
                path.pop();
                let fd = self.open_plain(&path).map_err(LayerError::io("open directory", &path))?;
                current = Directory { fd: Rc::new(fd), path };
                continue;
            }
            let path = current.path.join(&name);
            let here = at::lstat(&*current.fd, &name).map_err(LayerError::io("look at", &path))?;
            let link = match here.map(|found| found.kind) {
                Some(Kind::Directory) => None,
                Some(Kind::Symlink) => {
                    Some(at::read_link(&*current.fd, &name).map_err(LayerError::io("read link", &path))?)
                }
                Some(_) => {
                    let what = "a file is where a directory is needed";
                    return Err(LayerError::Refused { path: for_message(shown), what });
                }
                None => match self.find_below(&path)? {
                    Some(found) if found.metadata.kind == Kind::Symlink => {
                        self.used_below = true;
                        let link = at::read_link(&found.dir, &found.name);
                        Some(link.map_err(LayerError::io("read link", &path))?)
                    }
                    Some(found) if found.metadata.kind == Kind::Directory => {
                        self.used_below = true;
                        self.make_like(&current, &name, &path, &found)?;
                        None
                    }
                    _ => {
                        self.make(&current, &name, &path)?;
                        None
                    }
                },
            };
            match link {
                None => {
                    let fd =
                        at::open_dir(&*current.fd, &name).map_err(LayerError::io("open directory", &path))?;
                    current = Directory { fd: Rc::new(fd), path };
                }
                Some(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(LayerError::Refused { path: for_message(shown), what: "too many links" });
                    }
                    if target.is_absolute() {
                        current = self.top(shown)?;
                    }
                    let parts = target.as_os_str().as_bytes().split(|byte| *byte == b'/');
                    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
                    rest.extend(parts.rev().map(|part| OsStr::from_bytes(part).to_owned()));
                }
            }
        }
        Ok(current)
    }

    fn top(&self, shown: &Path) -> Result<Directory, LayerError> {
        let fd = self.open_plain(Path::new("")).map_err(LayerError::io("open directory", shown))?;
        Ok(Directory { fd: Rc::new(fd), path: PathBuf::new() })
    }

    /// What the layers below have at a path, unless this layer hides it.
    pub(super) fn find_below(&self, path: &Path) -> Result<Option<Found>, LayerError> {
        let hidden = path
            .ancestors()
            .any(|above| self.whiteouts.contains(above) || (above != path && self.opaque.contains(above)));
        if hidden { Ok(None) } else { self.below.find(path) }
    }

    /// Makes a directory that nothing is known about.
    fn make(&mut self, parent: &Directory, name: &OsStr, path: &Path) -> Result<(), LayerError> {
        make_dir(&parent.fd, name, 0o755).map_err(LayerError::io("make directory", path))?;
        let (uid, gid) = self.options.owner.unwrap_or((0, 0));
        // Also without a wish: a setgid parent hands its group down.
        at::chown(&*parent.fd, name, uid, gid).map_err(LayerError::io("change owner of", path))?;
        at::chmod(&*parent.fd, name, 0o755).map_err(LayerError::io("change mode of", path))
    }

    /// Makes a directory that covers one of a lower layer: overlayfs shows the metadata of the upper one.
    fn make_like(
        &mut self,
        parent: &Directory,
        name: &OsStr,
        path: &Path,
        found: &Found,
    ) -> Result<(), LayerError> {
        let like = &found.metadata;
        make_dir(&parent.fd, name, 0o700).map_err(LayerError::io("make directory", path))?;
        at::chown(&*parent.fd, name, like.uid, like.gid).map_err(LayerError::io("change owner of", path))?;
        at::chmod(&*parent.fd, name, like.mode).map_err(LayerError::io("change mode of", path))?;
        copy_xattrs((found.dir.as_fd(), &found.name), (parent.fd.as_fd(), name), path)?;
        self.set_time(path, like.mtime)
    }

    /// Remembers the time of a directory.
    pub(super) fn set_time(&mut self, path: &Path, mtime: (i64, u32)) -> Result<(), LayerError> {
        remember(&mut self.budget, path)?;
        self.times.insert(path.to_owned(), mtime);
        Ok(())
    }
}

fn for_message(path: &Path) -> PathBuf {
    crate::layer::tar::read::shown(path.as_os_str().as_bytes())
}

/// Makes a directory; one that exists is an error.
pub(super) fn make_dir(dir: &OwnedFd, name: &OsStr, mode: u32) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, Permissions::from_raw_mode(mode))
}

/// Splits an archive's path into names: `/`, `.` and empty parts are dropped, `..` takes one back. `None`: it leads out.
pub(super) fn clean(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names)
}
