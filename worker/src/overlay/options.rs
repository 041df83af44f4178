//! Overlay mounts by `mount(2)`, whose options are one string of at most a page, and commas and colons in it separate.
//!
//! A thread enters a mount namespace of its own, which nobody else sees and which ends with it however the process ends.
//! There a filesystem in memory is attached, with a link of one or two letters to each layer; names relative to it make
//! the option string: 500 layers fit into a page, and nothing of a path has to be escaped. The finished overlay is cloned
//! from where it was attached: the clone outlives the namespace.
//!
//! ```text
//! 0 1 … z 10 …    links to the layers, highest first
//! U W             links to the upper and the work directory
//! E               an empty directory, the lowest layer where there is no other
//! L               the mount of the lowest layers, where there are more than one overlay takes
//! M               the mount
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_sys::mount::make_private;
use bricklayer_sys::namespace::in_own_mounts;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, move_mount};

use super::{MAX_STACK, OverlayError, SETTINGS, Upper, open_dir, step};

/// Mounts layers (lowest first, at most [`super::MAX_LAYERS`]) below `upper`, and gives what lies at `inside`.
pub(super) fn mount(
    lowers: &[&Path],
    upper: Option<Upper<'_>>,
    inside: &Path,
) -> Result<OwnedFd, OverlayError> {
    // Relative ones are so to the working directory, which the thread leaves.
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| OverlayError::Layer { path: path.to_owned(), source })
    };
    let lowers: Vec<PathBuf> = lowers.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let upper = match upper {
        Some((upper, work)) => Some((absolute(upper)?, absolute(work)?)),
        None => None,
    };
    let inside = inside.to_owned();
    in_own_mounts(move || mount_here(&lowers, upper.as_ref(), &inside))
        .map_err(|source| OverlayError::Mount { step: "make a mount namespace", source })?
}

/// A mount that is attached nowhere, once more, and what lies at `inside` in it. The given one can't be attached any more.
pub(super) fn clone_attached(
    mount: BorrowedFd<'_>,
    inside: &Path,
) -> Result<(OwnedFd, OwnedFd), OverlayError> {
    let failed = |step: &'static str| move |source| OverlayError::Mount { step, source };
    let mount = mount.try_clone_to_owned().map_err(failed("copy a descriptor"))?;
    let inside = inside.to_owned();
    let clones = move || {
        let mount = mount.as_fd();
        attach(mount)?;
        Ok((super::subtree(mount, Path::new("/"))?, super::subtree(mount, &inside)?))
    };
    in_own_mounts(clones).map_err(failed("make a mount namespace"))?
}

/// Attaches a mount on the root of the calling thread's mount namespace. Paths still lead to what the host has: they begin
/// below it.
fn attach(mount: BorrowedFd<'_>) -> Result<(), OverlayError> {
    let root = rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open the root directory"))?;
    make_private(root.as_fd())
        .map_err(|source| OverlayError::Mount { step: "make mounts private", source })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &root, c"", flags).map_err(step("attach a mount"))
}

/// In a mount namespace of the calling thread, which is also the only one to see its working directory change.
fn mount_here(
    lowers: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    inside: &Path,
) -> Result<OwnedFd, OverlayError> {
    let names = super::tmpfs(&[("mode", "0755")], MountAttrFlags::empty())?;
    let link = |path: &Path, name: &str| {
        drop(open_dir(path)?);
        rustix::fs::symlinkat(path, &names, name).map_err(step("name a layer"))
    };
    for (number, path) in lowers.iter().rev().enumerate() {
        link(path, &name(number))?;
    }
    if let Some((upper, work)) = upper {
        link(upper, "U")?;
        link(work, "W")?;
    }
    attach(names.as_fd())?;
    rustix::process::fchdir(&names).map_err(step("enter a filesystem in memory"))?;

    // The lowest ones hide nothing that lies below them, so they can be seen as one.
    let own = lowers.len().saturating_sub(if lowers.len() > MAX_STACK { MAX_STACK } else { 0 });
    let mut lowest = None;
    if own < lowers.len() {
        let names_of_lowest: Vec<String> = (own..lowers.len()).map(name).collect();
        overlay(names.as_fd(), "L", &names_of_lowest, false)?;
        lowest = Some("L");
    } else if lowers.is_empty() {
        // An overlay needs a lower directory.
        rustix::fs::mkdirat(&names, "E", Mode::from_raw_mode(0o755)).map_err(step("make an empty layer"))?;
        lowest = Some("E");
    }
    let layers: Vec<String> = (0..own).map(name).chain(lowest.map(str::to_owned)).collect();
    let whole = overlay(names.as_fd(), "M", &layers, upper.is_some())?;
    super::subtree(whole.as_fd(), inside)
}

/// Mounts an overlay on the directory `target`, which is made; gives its root.
fn overlay(
    names: BorrowedFd<'_>,
    target: &str,
    layers: &[String],
    upper: bool,
) -> Result<OwnedFd, OverlayError> {
    rustix::fs::mkdirat(names, target, Mode::from_raw_mode(0o755)).map_err(step("make a mount point"))?;
    let flags = if upper { MountFlags::empty() } else { MountFlags::RDONLY };
    rustix::mount::mount("overlay", target, "overlay", flags, options(layers, upper)?.as_c_str())
        .map_err(step("mount an overlay"))?;
    rustix::fs::openat(names, target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open an overlay"))
}

/// The option string; layers highest first.
fn options(layers: &[String], upper: bool) -> Result<CString, OverlayError> {
    let mut options = format!("lowerdir={}", layers.join(":"));
    for (key, value) in SETTINGS {
        options.push_str(&format!(",{key}={value}"));
    }
    if in_user_namespace() {
        options.push_str(",userxattr");
    }
    if upper {
        options.push_str(",upperdir=U,workdir=W,volatile");
    }
    CString::new(options).map_err(|_| step("set overlayfs options")(Errno::INVAL))
}

/// A short name for the layer of this number: digits and small letters.
fn name(number: usize) -> String {
    let digit = |value: usize| char::from_digit((value % 36) as u32, 36).unwrap_or('0');
    let mut digits = vec![digit(number)];
    let mut rest = number / 36;
    while rest > 0 {
        digits.push(digit(rest));
        rest /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        assert_eq!([0, 9, 35, 36, 499, 998].map(name), ["0", "9", "z", "10", "dv", "rq"]);
        let all: std::collections::HashSet<String> = (0..super::super::MAX_LAYERS).map(name).collect();
        assert_eq!(all.len(), super::super::MAX_LAYERS);
    }

    #[test]
    fn the_options_of_the_highest_stack_fit_into_a_page() {
        let layers: Vec<String> = (499..super::super::MAX_LAYERS).map(name).collect();
        let options = options(&layers, true).expect("options");
        // The kernel reads a page, and ends it with a NUL byte.
        assert!(options.as_bytes().len() < 4095, "{}", options.as_bytes().len());
    }
}
