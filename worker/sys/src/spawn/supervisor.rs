//! The process between the builder and pid 1.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::raw;
use super::stack::Stack;
use super::{Child, MESSAGE_ENDED, MESSAGE_FAILED, MESSAGE_STARTED, Message, Stage};

/// What pid 1 does; it is given the status pipe, and does not return. System calls only.
pub(super) type PidOne<'a> = dyn Fn(RawFd) -> Infallible + 'a;

/// What the supervisor needs to know. It lies in the memory of the thread that starts it.
struct Task<'a> {
    pid_one: &'a PidOne<'a>,
    /// The control group that pid 1 is born in.
    group: Option<RawFd>,
    life: RawFd,
    status: RawFd,
    /// For pid 1.
    stack: &'a Stack,
}

/// Starts the supervisor, which starts pid 1 in a control group, and waits until pid 1 has executed its program or failed,
/// or was killed because `cancelled` says so.
pub(super) fn start(
    pid_one: &PidOne<'_>,
    group: Option<RawFd>,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Child> {
    let (life_end, life) = pipe_with(PipeFlags::CLOEXEC)?;
    let (status, status_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (own, stack) = (Stack::new()?, Stack::new()?);
    let task =
        Task { pid_one, group, life: life_end.as_raw_fd(), status: status_end.as_raw_fd(), stack: &stack };
    let before = signals_blocked();
    raw::block_signals(true);
    // Exit signal 0: the end of the supervisor is nobody's business but ours, who ask by pidfd. CLONE_NEWPID: what ends it
    // ends all that it has started, at whatever point. A signal that is sent at the parent's death would not do: the kernel
    // forgets it when the command changes users, also by a setuid program.
    // SAFETY: `supervise` only makes system calls. `own` lives until the supervisor has ended (in `Child`). What `task`
    // leads to lives until both processes are done with it: see below.
    let started = unsafe {
        raw::start_process(libc::CLONE_NEWPID as u64, 0, None, &own, supervise, (&raw const task).cast())
    };
    before.restore();
    let supervisor = started.map_err(io::Error::from_raw_os_error)?;
    drop((life_end, status_end));
    let mut child = Child::new(life, status, supervisor, own);
    // The supervisor says so when pid 1 is in memory of its own, or has ended, and it needs nothing of ours but its stack
    // any more. If it is killed before, it does not end before pid 1 has, which is killed with it.
    child.wait_until_started(cancelled);
    drop(stack);
    Ok(child)
}

/// The signals that were blocked in this thread.
struct Blocked(libc::sigset_t);

fn signals_blocked() -> Blocked {
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

/// The supervisor: system calls only.
unsafe extern "C" fn supervise(task: *const ()) -> ! {
    // SAFETY: `start` passes a task, and keeps it for as long as it is used here.
    let Task { pid_one, group, life, status, stack } = unsafe { &*task.cast::<Task<'_>>() };
    let (life, status) = (*life, *status);
    // Out of the builder's process group: Ctrl-C at a terminal is the builder's to handle.
    let _ = raw::set_session();
    let _ = raw::prctl(libc::PR_SET_NAME, c"bricklayer-run".as_ptr() as usize);
    let becomes = BecomesPidOne { pid_one: *pid_one, status };
    // CLONE_VFORK: we go on when it has executed its program or ended. Until then the kernel does not kill it, and all
    // that share its memory, for a limit of its control group.
    let flags = (libc::CLONE_NEWPID | libc::CLONE_VFORK) as u64;
    // SAFETY: `pid_one` only makes system calls. Its stack and all that it reads is left alone until we go on, which
    // `start` waits for.
    let started = unsafe {
        raw::start_process(flags, libc::SIGCHLD, *group, stack, pid_one_entry, (&raw const becomes).cast())
    };
    match started {
        Ok(pidfd) => {
            raw::send(status, &Message { kind: MESSAGE_STARTED, ..Message::default() });
            watch(life, status, pidfd.into_raw_fd())
        }
        Err(error) => failed(status, error),
    }
}

struct BecomesPidOne<'a> {
    pid_one: &'a PidOne<'a>,
    status: RawFd,
}

unsafe extern "C" fn pid_one_entry(data: *const ()) -> ! {
    // SAFETY: `supervise` passes this, and waits until we have executed a program or ended.
    let BecomesPidOne { pid_one, status } = unsafe { &*data.cast::<BecomesPidOne<'_>>() };
    match pid_one(*status) {}
}

fn failed(status: RawFd, error: i32) -> ! {
    let message =
        Message { kind: MESSAGE_FAILED, what: Stage::Supervise as u32, value: error, ..Message::default() };
    raw::send(status, &message);
    raw::exit(1)
}

/// The rest of the supervisor's life. It uses nothing of the builder's memory but its stack.
fn watch(life: RawFd, status: RawFd, pid_one: RawFd) -> ! {
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
        failed(status, error);
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
            largest: end.largest,
        };
        raw::send(status, &message);
    }
    raw::exit(0)
}
