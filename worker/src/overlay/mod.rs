//! Root filesystems that nobody else sees: overlay mounts that are attached nowhere.
//!
//! A mount made here stands in no mount table. It lives as long as somebody holds its descriptor or has attached it in a
//! namespace of their own, so a killed builder leaves none behind. How it is made depends on what the kernel can do
//! ([`Way`]); what comes out is the same.
//!
//! Before Linux 6.15 a mount that is attached nowhere can be attached once, but not cloned: a part of a snapshot is made
//! by [`part`], from its layers. [`subtree`] is for directories of the host.
//!
//! Paths inside such a mount come from images and Dockerfiles; they are resolved with `openat2(RESOLVE_IN_ROOT |
//! RESOLVE_NO_MAGICLINKS)`.

mod descriptors;
mod options;
mod way;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bricklayer_sys::mount::{Attributes, make_private, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

pub use way::Way;

/// How many layers the kernel lays on each other in one mount (`OVL_MAX_STACK`).
const MAX_STACK: usize = 500;

/// How many layers a mount can have: the lowest ones may be a mount of their own, which is one layer of the other. A third
/// level is more than the kernel allows (`FILESYSTEM_MAX_STACK_DEPTH`).
pub const MAX_LAYERS: usize = 2 * MAX_STACK - 1;

/// A layer's own attributes must not redirect lookups elsewhere, and equal layers must look equal.
const SETTINGS: [(&str, &str); 4] =
    [("redirect_dir", "nofollow"), ("index", "off"), ("xino", "off"), ("metacopy", "off")];

/// The directory that gets the changes, and the one that overlayfs works in; both on one filesystem.
pub type Upper<'a> = (&'a Path, &'a Path);

/// Why a root filesystem can't be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// More layers than the kernel takes.
    #[error("{0} layers: overlayfs takes at most {MAX_LAYERS}")]
    TooManyLayers(usize),
    /// A layer's directory can't be opened.
    #[error("layer {}", .path.display())]
    Layer {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the mount.
    #[error("{step}")]
    Mount {
        /// What was asked for.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path inside a mount can't be had.
    #[error("{}", .path.display())]
    Path {
        /// The path, as seen inside.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OverlayError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooManyLayers(_) => {
                Some("join instructions, or start from an image with fewer layers".to_owned())
            }
            Self::Mount { source, .. } if source.raw_os_error() == Some(libc_eperm()) => {
                Some("mounting needs root, or a user namespace".to_owned())
            }
            Self::Mount { source, .. } if source.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                Some("the kernel has no overlayfs: load the module `overlay`".to_owned())
            }
            _ => None,
        }
    }
}

fn libc_eperm() -> i32 {
    Errno::PERM.raw_os_error()
}

fn step(step: &'static str) -> impl FnOnce(Errno) -> OverlayError {
    move |error| OverlayError::Mount { step, source: error.into() }
}

fn open_dir(path: &Path) -> Result<OwnedFd, OverlayError> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| OverlayError::Layer { path: path.to_owned(), source: error.into() })
}

/// Mounts `lowers` (lowest first) and on top of them `upper`. Without `upper` the mount is read-only. Nothing at all gives
/// an empty read-only directory.
///
/// With an upper directory the mount is `volatile`: nothing is synced to disk when it goes away, so what points at the
/// upper directory must be written after a sync.
pub fn mount(lowers: &[&Path], upper: Option<Upper<'_>>) -> Result<OwnedFd, OverlayError> {
    part_by(Way::of_kernel(), lowers, upper, Path::new(""))
}

/// The same, but only what lies at `inside` (a path as seen in the mount, which must exist). Links are followed inside the
/// mount only.
pub fn part(lowers: &[&Path], upper: Option<Upper<'_>>, inside: &Path) -> Result<OwnedFd, OverlayError> {
    part_by(Way::of_kernel(), lowers, upper, inside)
}

/// [`part`] in a way that the caller chooses; an empty path is the root.
pub fn part_by(
    way: Way,
    lowers: &[&Path],
    upper: Option<Upper<'_>>,
    inside: &Path,
) -> Result<OwnedFd, OverlayError> {
    if lowers.len() > MAX_LAYERS {
        return Err(OverlayError::TooManyLayers(lowers.len()));
    }
    match (lowers, upper, way) {
        ([only], None, _) => {
            let tree = subtree(open_dir(only)?.as_fd(), inside)?;
            set_attributes(tree.as_fd(), Attributes::READ_ONLY, false)
                .map_err(|source| OverlayError::Mount { step: "make a layer read-only", source })?;
            Ok(tree)
        }
        ([], None, _) if is_root(inside) => empty(),
        (_, _, Way::Options) => options::mount(lowers, upper, inside),
        (_, _, Way::Descriptors) => {
            let whole = descriptors::mount(lowers, upper)?;
            if is_root(inside) { Ok(whole) } else { subtree(whole.as_fd(), inside) }
        }
    }
}

/// Waits until nothing else of the mounts that were made before is left: from then on the upper directory of one that is
/// gone is used by nobody. Not needed before a mount is used.
pub(crate) fn settle() {
    bricklayer_sys::namespace::settle();
}

/// An empty directory that can't be written to.
fn empty() -> Result<OwnedFd, OverlayError> {
    tmpfs(&[("mode", "0755"), ("size", "0")], MountAttrFlags::MOUNT_ATTR_RDONLY)
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH
}

/// A new tmpfs that is attached nowhere, with these options.
pub(crate) fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, OverlayError> {
    let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open tmpfs"))?;
    let fs = fs.as_fd();
    fsconfig_set_string(fs, c"source", c"tmpfs").map_err(step("set tmpfs source"))?;
    for (key, value) in options {
        fsconfig_set_string(fs, *key, *value).map_err(step("set tmpfs options"))?;
    }
    fsconfig_create(fs).map_err(step("create a tmpfs"))?;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("mount a tmpfs"))
}

/// Opens `path` (which must exist) as seen from `root`, a directory of the caller's mount namespace, and clones what is
/// mounted there as a mount of its own, to be attached elsewhere. Links are followed inside `root` only.
///
/// Where [`Way::clones_detached`] holds, `root` may also be a mount that is attached nowhere.
pub fn subtree(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, OverlayError> {
    let fail = |error: Errno| OverlayError::Path { path: path.to_owned(), source: error.into() };
    let found = open_in(root, path, OFlags::PATH).map_err(fail)?;
    open_tree(found.as_fd(), c"", clone_flags()).map_err(fail)
}

/// What lies at a path in a mount that is attached nowhere, as a mount of its own. `mount` is replaced by another one of the
/// same filesystem where that is the only way.
pub(crate) fn part_of(mount: &mut OwnedFd, inside: &Path) -> Result<OwnedFd, OverlayError> {
    if Way::of_kernel().clones_detached() {
        return subtree(mount.as_fd(), inside);
    }
    let (another, part) = options::clone_attached(mount.as_fd(), inside)?;
    *mount = another;
    Ok(part)
}

/// What the host has at a path of the caller, with all that is mounted below it, as a mount of its own, cut off from
/// mounts that happen later. Links are followed.
pub fn host_tree(path: &Path) -> Result<OwnedFd, OverlayError> {
    let fail = |error: Errno| OverlayError::Path { path: path.to_owned(), source: error.into() };
    let flags = clone_flags() | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags).map_err(fail)?;
    make_private(tree.as_fd()).map_err(|source| OverlayError::Path { path: path.to_owned(), source })?;
    Ok(tree)
}

/// `openat2` inside `root`: neither links nor `..` lead out of it, `/proc`'s magic links nowhere.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    loop {
        // EAGAIN: something was renamed while the kernel walked a path with `..` in it.
        match rustix::fs::openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
