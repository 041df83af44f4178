//! The one call of the new mount API that rustix does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes of a mount, as `mount_setattr(2)` names them; combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(u64);

impl Attributes {
    /// Nothing can be written.
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Setuid bits and file capabilities have no effect.
    pub const NO_SUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device files can't be opened.
    pub const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Programs can't be executed.
    pub const NO_EXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// As the kernel wants it.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl std::ops::BitOr for Attributes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Adds attributes to a mount; with `recursive` to every mount below it too.
pub fn set_attributes(mount: BorrowedFd<'_>, add: Attributes, recursive: bool) -> io::Result<()> {
    set(mount, recursive, libc::mount_attr { attr_set: add.0, attr_clr: 0, propagation: 0, userns_fd: 0 })
}

/// Cuts a mount and all below it off from mounts that happen elsewhere, both ways.
pub fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(
        mount,
        true,
        libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 },
    )
}

fn set(mount: BorrowedFd<'_>, recursive: bool, attr: libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated string, `attr` is a valid `mount_attr` of the size that is passed, and both
    // outlive the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
