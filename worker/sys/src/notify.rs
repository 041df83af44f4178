//! System calls of other processes that wait for an answer of ours (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::spawn::FilterInstruction;

/// What a filter returns for a system call that is to wait (`SECCOMP_RET_USER_NOTIF`).
pub const WAIT: u32 = 0x7fc0_0000;

/// A system call that a thread waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    id: u64,
    /// The thread, as our pid namespace has it.
    pub thread: u32,
    /// The call's number.
    pub number: i32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Puts a filter on the calling thread, which needs CAP_SYS_ADMIN, and on all that it starts from now on. It can't be
/// taken off again. Where it returns [`WAIT`], the call waits until somebody answers at the listener, which is returned;
/// when that is closed such calls do not exist.
pub fn listen(filter: &[FilterInstruction]) -> io::Result<Listener> {
    const SET_MODE_FILTER: libc::c_long = 1;
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: length and pointer describe `filter`, which is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let number = i32::try_from(result).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Where calls are answered. Readable while one waits; hung up when no process with the filter is left.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// A call that waits; blocks until there is one. `NotFound`: the thread was killed meanwhile.
    pub fn receive(&self) -> io::Result<Call> {
        // SAFETY: a struct of numbers, for which zeroes are values; the kernel wants it zeroed.
        let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request writes one `struct seccomp_notif`, which is borrowed for that. Kernels know larger ones only
        // by the size in the request's number, which is of this one.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut found) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let libc::seccomp_data { nr, args, .. } = found.data;
        Ok(Call { id: found.id, thread: found.pid, number: nr, arguments: args })
    }

    /// Does it still wait? If not, the thread's number may be another one's by now.
    pub fn waits(&self, call: &Call) -> bool {
        // SAFETY: the request reads one number.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const call.id)
        };
        result == 0
    }

    /// Ends a call: it returns 0, or fails with an error number.
    pub fn answer(&self, call: &Call, result: Result<(), i32>) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: result.err().map_or(0, |error| -error),
            flags: 0,
        })
    }

    /// Has the kernel do what it would have done without us.
    pub fn pass(&self, call: &Call) -> io::Result<()> {
        const CONTINUE: u32 = 1;
        self.send(libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: CONTINUE })
    }

    fn send(&self, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
        // SAFETY: the request reads one `struct seccomp_notif_resp`.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
