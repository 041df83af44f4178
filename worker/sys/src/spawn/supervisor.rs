//! The process between the builder and pid 1.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::raw;
use super::{MESSAGE_ENDED, MESSAGE_FAILED, Message, Stage};

/// What pid 1 does; it is given the status pipe, and does not return. System calls only.
pub(super) type PidOne<'a> = dyn Fn(RawFd) -> Infallible + 'a;

/// Starts the supervisor, which starts pid 1 in a control group; gives the supervisor's pidfd.
pub(super) fn start(
    pid_one: &PidOne<'_>,
    group: Option<RawFd>,
    life: &OwnedFd,
    status: &OwnedFd,
) -> io::Result<OwnedFd> {
    let (life, status) = (life.as_raw_fd(), status.as_raw_fd());
    let before = rustix_signals_blocked();
    raw::block_signals(true);
    // Exit signal 0: the end of the supervisor is nobody's business but ours, who ask by pidfd.
    let result = raw::clone_process(0, 0, None);
    match result {
        Ok(None) => supervise(pid_one, group, life, status),
        Ok(Some(pidfd)) => {
            before.restore();
            Ok(pidfd)
        }
        Err(error) => {
            before.restore();
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// The signals that were blocked in this thread.
struct Blocked(libc::sigset_t);

fn rustix_signals_blocked() -> Blocked {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: without a new set the call only writes the old one, for which there is room; zeroed memory is valid too.
    let set = unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), set.as_mut_ptr());
        set.assume_init()
    };
    Blocked(set)
}

impl Blocked {
    fn restore(&self) {
        // SAFETY: the set is a valid one, and only read.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Runs in the supervisor: system calls only from here on.
fn supervise(pid_one: &PidOne<'_>, group: Option<RawFd>, life: RawFd, status: RawFd) -> ! {
    let failed = |error: i32| -> ! {
        let message = Message {
            kind: MESSAGE_FAILED,
            what: Stage::Supervise as u32,
            value: error,
            ..Message::default()
        };
        raw::send(status, &message);
        raw::exit(1)
    };
    // Out of the builder's process group: Ctrl-C at a terminal is the builder's to handle.
    let _ = raw::set_session();
    let _ = raw::prctl(libc::PR_SET_NAME, c"bricklayer-run".as_ptr() as usize);
    let pid_one = match raw::clone_process(libc::CLONE_NEWPID as u64, libc::SIGCHLD, group) {
        Ok(None) => match pid_one(status) {},
        Ok(Some(pidfd)) => pidfd.into_raw_fd(),
        Err(error) => failed(error),
    };
    // Everything else that the builder has open is none of our business: pipes whose ends somebody waits for, locks.
    let moved = (|| {
        // First above the numbers that they are to get, so that none overwrites another.
        let [life, status, pid_one] = [life, status, pid_one].map(|fd| raw::duplicate_above(fd, 3));
        raw::duplicate(life?, 0)?;
        raw::duplicate(status?, 1)?;
        raw::duplicate(pid_one?, 2)?;
        raw::close_from(3, false)
    })();
    if let Err(error) = moved {
        raw::kill(pid_one, libc::SIGKILL);
        failed(error);
    }
    let (mut life, status, pid_one) = (0, 1, 2);
    loop {
        let [told, ended] = raw::poll([life, pid_one]);
        if ended {
            break;
        }
        if told {
            let mut signal = [0];
            match raw::read(life, &mut signal) {
                Ok(1) => raw::kill(pid_one, i32::from(signal[0])),
                _ => {
                    raw::kill(pid_one, libc::SIGKILL);
                    // A negative descriptor is not polled: from now on only for the end.
                    life = -1;
                }
            }
        }
    }
    if let Some(end) = raw::wait_for(pid_one) {
        let message = Message {
            kind: MESSAGE_ENDED,
            what: end.code as u32,
            value: end.status,
            reserved: 0,
            cpu_time: end.cpu_time,
        };
        raw::send(status, &message);
    }
    raw::exit(0)
}
