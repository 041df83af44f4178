//! Going through a tree: depth first, names sorted by bytes, a directory before what is in it. One descriptor is open at a
//! time, however deep the tree is.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::LayerError;
use crate::root::{Kind, Metadata, Root, at};

/// Something in a tree.
pub(super) struct Visit<'a> {
    /// The directory that holds it.
    pub(super) dir: &'a Arc<OwnedFd>,
    /// Its name there.
    pub(super) name: &'a OsStr,
    /// Its path below the tree's root.
    pub(super) path: &'a Path,
    /// What it is.
    pub(super) metadata: Metadata,
}

struct Level {
    names: std::vec::IntoIter<(OsString, Kind)>,
    /// The directory's device and inode.
    identity: (u64, u64),
}

/// Calls `visit` for everything below `root`, but not for the root itself.
pub(super) fn walk(
    root: &Root,
    visit: &mut dyn FnMut(&Visit<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let mut path = PathBuf::new();
    let fail = |action, path: &Path| {
        let path = root.name().join(path);
        move |source: rustix::io::Errno| LayerError::Io { action, path, source: source.into() }
    };
    let list = |dir: &OwnedFd, path: &Path| -> Result<Level, LayerError> {
        let identity = at::fstat(dir).map_err(fail("look at", path))?;
        let names = at::read_dir(dir).map_err(fail("read directory", path))?.into_iter();
        Ok(Level { names, identity: (identity.dev, identity.ino) })
    };
    let open = |dir: &OwnedFd, name: &OsStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty())
    };
    let top = rustix::io::fcntl_dupfd_cloexec(root.as_fd(), 0).map_err(fail("open directory", &path))?;
    let mut current = Arc::new(top);
    let mut levels = vec![list(&current, &path)?];
    while let Some(level) = levels.last_mut() {
        let Some((name, _)) = level.names.next() else {
            levels.pop();
            if let Some(parent) = levels.last() {
                let up = open(&current, OsStr::new("..")).map_err(fail("open the directory above", &path))?;
                let found = at::fstat(&up).map_err(fail("look at", &path))?;
                if (found.dev, found.ino) != parent.identity {
                    return Err(LayerError::Changed { path: root.name().join(path) });
                }
                path.pop();
                current = Arc::new(up);
            }
            continue;
        };
        path.push(&name);
        let Some(metadata) = at::lstat(&current, &name).map_err(fail("look at", &path))? else {
            return Err(LayerError::Changed { path: root.name().join(path) });
        };
        visit(&Visit { dir: &current, name: &name, path: &path, metadata })?;
        if metadata.kind == Kind::Directory {
            current = Arc::new(open(&current, &name).map_err(fail("open directory", &path))?);
            levels.push(list(&current, &path)?);
        } else {
            path.pop();
        }
    }
    Ok(())
}
