//! Overlay mounts whose layers are passed by descriptor: no option string that could be cut, no path that has to be
//! escaped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bricklayer_cache::root::ids::in_user_namespace;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{MAX_STACK, OverlayError, SETTINGS, Upper, empty, open_dir, step};

/// Mounts layers (lowest first, at most [`super::MAX_LAYERS`]) below `upper`.
pub(super) fn mount(lowers: &[&Path], upper: Option<Upper<'_>>) -> Result<OwnedFd, OverlayError> {
    if lowers.len() <= MAX_STACK {
        return overlay(None, lowers, upper);
    }
    // The lowest ones hide nothing that lies below them, so they can be seen as one.
    let (lowest, rest) = lowers.split_at(MAX_STACK);
    let lowest = overlay(None, lowest, None)?;
    overlay(Some(lowest.as_fd()), rest, upper)
}

/// Layers (lowest first) on `lowest`, a mount.
fn overlay(
    lowest: Option<BorrowedFd<'_>>,
    lowers: &[&Path],
    upper: Option<Upper<'_>>,
) -> Result<OwnedFd, OverlayError> {
    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open overlayfs"))?;
    let fs = fs.as_fd();
    fsconfig_set_string(fs, c"source", c"overlay").map_err(step("set overlayfs source"))?;
    // The highest layer first. An overlay needs a lower directory: an empty upper gets an empty one below it.
    let empty = if lowers.is_empty() { Some(empty()?) } else { None };
    if let Some(empty) = &empty {
        fsconfig_set_fd(fs, c"lowerdir+", empty.as_fd()).map_err(step("add an empty layer"))?;
    }
    for path in lowers.iter().rev() {
        let dir = open_dir(path)?;
        fsconfig_set_fd(fs, c"lowerdir+", dir.as_fd())
            .map_err(|error| OverlayError::Layer { path: path.to_path_buf(), source: error.into() })?;
    }
    if let Some(lowest) = lowest {
        fsconfig_set_fd(fs, c"lowerdir+", lowest).map_err(step("add the lowest layers"))?;
    }
    for (key, value) in SETTINGS {
        fsconfig_set_string(fs, key, value).map_err(step("set overlayfs options"))?;
    }
    if in_user_namespace() {
        fsconfig_set_flag(fs, c"userxattr").map_err(step("set overlayfs option userxattr"))?;
    }
    if let Some((upper, work)) = upper {
        for (key, path) in [(c"upperdir", upper), (c"workdir", work)] {
            let dir = open_dir(path)?;
            fsconfig_set_fd(fs, key, dir.as_fd())
                .map_err(|error| OverlayError::Layer { path: path.to_owned(), source: error.into() })?;
        }
        fsconfig_set_flag(fs, c"volatile").map_err(step("set overlayfs option volatile"))?;
    }
    fsconfig_create(fs).map_err(step("create an overlay"))?;
    let attributes =
        if upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("mount an overlay"))
}
