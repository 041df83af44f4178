//! Devices of the host, for commands that are not locked in: those that BuildKit gives them.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::SandboxError;

/// Kernel messages, filesystems of programs, virtual machines, network tunnels, loop devices.
const NAMES: [&str; 6] = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"];

/// The loop devices that are there whether the host has used so many or not.
const LOOPS: u32 = 8;

/// The major number of loop devices.
const LOOP_MAJOR: u32 = 7;

/// A device file to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    name: String,
    block: bool,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What the host has of them.
fn of_host() -> BTreeSet<Device> {
    let mut names: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    for entry in std::fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_loop = |name: &str| name.strip_prefix("loop").is_some_and(|rest| rest.parse::<u32>().is_ok());
        names.extend(name.to_str().filter(|name| is_loop(name)).map(str::to_owned));
    }
    let device = |name: String| {
        let stat = rustix::fs::statat(CWD, format!("/dev/{name}"), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        is_device.then_some(Device {
            name,
            block: kind == FileType::BlockDevice,
            number: stat.st_rdev,
            mode: stat.st_mode & 0o777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        })
    };
    names.into_iter().filter_map(device).collect()
}

/// Makes the files in `dev`, which is attached. In a user namespace, where none can be made, they are the host's own.
pub(super) fn make(dev: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let of_host = of_host();
    let missing = (0..LOOPS)
        .map(|number| Device {
            name: format!("loop{number}"),
            block: true,
            number: rustix::fs::makedev(LOOP_MAJOR, number),
            mode: 0o660,
            uid: 0,
            gid: 0,
        })
        .filter(|device| !of_host.iter().any(|there| there.name == device.name));
    match rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(SandboxError::setup("make a directory in /dev", error)),
    }
    for device in of_host.iter().cloned().chain(missing) {
        let made = make_one(dev, &device).or_else(|error| match error {
            // A loop device that the host does not have either can't be bound.
            Errno::PERM => bind(dev, &device.name).or_else(|error| match error {
                Errno::NOENT => Ok(()),
                error => Err(error),
            }),
            error => Err(error),
        });
        made.map_err(|error| SandboxError::setup(format!("make /dev/{}", device.name), error))?;
    }
    Ok(())
}

fn make_one(dev: BorrowedFd<'_>, device: &Device) -> rustix::io::Result<()> {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode);
    let name = device.name.as_str();
    rustix::fs::mknodat(dev, name, kind, mode, device.number)?;
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(dev, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // Our umask may have taken bits away.
    rustix::fs::chmodat(dev, name, mode, AtFlags::empty())
}

fn bind(dev: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let device = open_tree(CWD, format!("/dev/{name}"), flags)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(dev, name, create, Mode::from_raw_mode(0o600))?);
    move_mount(&device, c"", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
