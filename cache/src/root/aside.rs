//! What a user namespace keeps files from being, kept aside in attributes of theirs, and given back by [`at`](super::at)'s
//! `lstat` and `fstat`.
//!
//! | attribute | on | value |
//! | --- | --- | --- |
//! | `user.bricklayer.owner` | a file or directory of root, where one id is mapped only | `UID:GID`: whose it is to be |
//! | `user.bricklayer.node` | an empty file with mode 01000 | `c MAJOR MINOR MODE` or `b …` (octal mode): the device that it stands for |
//!
//! The file itself keeps its mode and everything else, so a command that runs in the namespace can use it; overlayfs
//! copies the attributes with the file. Links, pipes and sockets can't have such attributes: with one id they are root's.
//! Names that begin with `user.bricklayer.` never come from an archive, and never get into one.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::at::{Kind, Metadata};
use super::ids;

/// What the names of all of these attributes begin with.
pub(crate) const PREFIX: &[u8] = b"user.bricklayer.";
const OWNER: &str = "user.bricklayer.owner";
const NODE: &str = "user.bricklayer.node";

/// The mode of a file that stands for a device: nobody makes such a file by chance, so others need no second look.
const PLACEHOLDER: u32 = 0o1000;

/// A path that leads to an open file, whatever lies above it.
pub(super) fn path_of(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// A file's metadata as they are to be. `path` leads to the file, through no link but one of /proc.
pub(super) fn restore(mut metadata: Metadata, path: impl FnOnce() -> PathBuf) -> Result<Metadata> {
    if !ids::in_user_namespace() {
        return Ok(metadata);
    }
    let placeholder = is_placeholder(&metadata);
    let owned = ids::single() && can_have_attributes(metadata.kind);
    if !placeholder && !owned {
        return Ok(metadata);
    }
    let path = path();
    if owned && let Some((uid, gid)) = read(&path, OWNER)?.as_deref().and_then(owner) {
        (metadata.uid, metadata.gid) = (uid, gid);
    }
    if placeholder && let Some((kind, device, mode)) = read(&path, NODE)?.as_deref().and_then(node) {
        (metadata.kind, metadata.device, metadata.mode) = (kind, device, mode);
    }
    Ok(metadata)
}

fn can_have_attributes(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Directory)
}

fn is_placeholder(metadata: &Metadata) -> bool {
    metadata.kind == Kind::File && metadata.size == 0 && metadata.mode == PLACEHOLDER
}

fn read(path: &Path, key: &str) -> Result<Option<Vec<u8>>> {
    let mut value = [0; 64];
    // The last component may be a descriptor's link of /proc, which has to be followed.
    match rustix::fs::getxattr(path, key, &mut value) {
        Ok(length) => Ok(value.get(..length).map(<[u8]>::to_vec)),
        // Gone, or a link to nowhere: then it is none of ours.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn node(value: &[u8]) -> Option<(Kind, (u32, u32), u32)> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let kind = match words.next()? {
        "c" => Kind::CharDevice,
        "b" => Kind::BlockDevice,
        _ => return None,
    };
    let device = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mode = u32::from_str_radix(words.next()?, 8).ok()? & 0o7777;
    // 0:0 would be a whiteout.
    (device != (0, 0) || kind == Kind::BlockDevice).then_some((kind, device, mode))
}

/// The same, of what [`restore`] says: a device is a file that stands for one.
fn keeps_attributes(kind: Kind) -> bool {
    can_have_attributes(kind) || matches!(kind, Kind::CharDevice | Kind::BlockDevice)
}

/// After the kernel refused a file an owner, or gave it: keeps aside what it refused, and forgets what was kept aside
/// before. Any other refusal stays one.
pub(super) fn keep_owner(
    given: Result<()>,
    (uid, gid): (u32, u32),
    kind: impl FnOnce() -> Result<Kind>,
    path: impl FnOnce() -> PathBuf,
) -> Result<()> {
    if !ids::single() || !ids::in_user_namespace() {
        return given;
    }
    match given {
        Ok(()) => {
            if kind().map(keeps_attributes)? {
                match rustix::fs::removexattr(path(), OWNER) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
        Err(Errno::INVAL) if !ids::mapped(uid, gid) => {
            if kind().map(keeps_attributes)? {
                let value = format!("{uid}:{gid}");
                rustix::fs::setxattr(path(), OWNER, value.as_bytes(), XattrFlags::empty())?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes an empty file with this descriptor (mode 0600) stand for a device.
pub(super) fn make_node(file: impl AsFd, kind: Kind, device: (u32, u32)) -> Result<()> {
    write_node(&path_of(&file), kind, device, 0)?;
    rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(PLACEHOLDER))
}

/// Gives the device that a file stands for another mode.
pub(super) fn write_node(path: &Path, kind: Kind, device: (u32, u32), mode: u32) -> Result<()> {
    let letter = if kind == Kind::BlockDevice { 'b' } else { 'c' };
    let value = format!("{letter} {} {} {mode:o}", device.0, device.1);
    rustix::fs::setxattr(path, NODE, value.as_bytes(), XattrFlags::empty())
}

/// Is it an attribute of ours?
pub(crate) fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_we_write_are_read_and_others_are_not() {
        assert_eq!(owner(b"1000:20"), Some((1000, 20)));
        for wrong in [&b"1000"[..], b"a:b", b"1:4294967296", b"-1:2", b"\xff:1", b""] {
            assert_eq!(owner(wrong), None, "{wrong:?}");
        }
        assert_eq!(node(b"c 1 3 666"), Some((Kind::CharDevice, (1, 3), 0o666)));
        assert_eq!(node(b"b 8 0 60660"), Some((Kind::BlockDevice, (8, 0), 0o660)));
        for wrong in [&b"c 0 0 666"[..], b"d 1 3 666", b"c 1 3", b"c 1 3 9", b""] {
            assert_eq!(node(wrong), None, "{wrong:?}");
        }
    }
}
