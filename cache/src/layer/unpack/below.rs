//! The trees under a layer, seen as overlayfs would show them.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::layer::LayerError;
use crate::layer::xattr::OPAQUE;
use crate::root::at;
use crate::root::{Kind, Metadata, Root};

/// The layers below.
pub(super) struct Below {
    /// Highest first.
    trees: Vec<Root>,
}

/// What the layers below have at a path.
pub(super) struct Found {
    /// The directory that holds it, in the highest layer that has it.
    pub(super) dir: OwnedFd,
    /// Its name there.
    pub(super) name: OsString,
    /// What it is.
    pub(super) metadata: Metadata,
}

impl Below {
    /// `paths`: lowest first.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, LayerError> {
        Ok(Self { trees: paths.iter().rev().map(|path| Root::open(path)).collect::<Result<_, _>>()? })
    }

    /// What is at `path`, which has no links but maybe the last component; `None`: nothing, or something hidden.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Found>, LayerError> {
        for tree in &self.trees {
            match in_tree(tree, path).map_err(LayerError::io("look into a lower layer at", path))? {
                InTree::Found(found) => return Ok(Some(*found)),
                InTree::Hidden => return Ok(None),
                InTree::Missing => {}
            }
        }
        Ok(None)
    }

    /// The root directory that shows: the highest layer's.
    pub(super) fn root(&self) -> Option<&Root> {
        self.trees.first()
    }

    /// All names at the root, those that higher layers hide too.
    pub(super) fn root_names(&self) -> Result<Vec<OsString>, LayerError> {
        let mut names = Vec::new();
        for tree in &self.trees {
            names.extend(tree.read_dir(Path::new(""))?.into_iter().map(|(name, _)| name));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

enum InTree {
    Found(Box<Found>),
    /// Not here, but maybe further down.
    Missing,
    /// Here it ends: a whiteout, an opaque directory, or a file on the way.
    Hidden,
}

fn in_tree(tree: &Root, path: &Path) -> rustix::io::Result<InTree> {
    let mut dir = rustix::io::fcntl_dupfd_cloexec(tree.as_fd(), 0)?;
    let mut names =
        path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    let mut opaque = false;
    while let Some(name) = names.next() {
        let name = OsStr::from_bytes(name);
        let Some(metadata) = at::lstat(&dir, name)? else {
            return Ok(if opaque { InTree::Hidden } else { InTree::Missing });
        };
        if metadata.is_whiteout() {
            return Ok(InTree::Hidden);
        }
        if names.peek().is_none() {
            return Ok(InTree::Found(Box::new(Found { dir, name: name.to_owned(), metadata })));
        }
        if metadata.kind != Kind::Directory {
            return Ok(InTree::Hidden);
        }
        dir = at::open_dir(&dir, name)?;
        opaque |= is_opaque(&dir)?;
    }
    Err(Errno::INVAL)
}

pub(super) fn is_opaque(dir: &OwnedFd) -> rustix::io::Result<bool> {
    for name in OPAQUE {
        if at::fxattr(dir, OsStr::new(name))?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}
