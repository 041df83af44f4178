//! Standard input, output and error of a command, and what can be done with it while it runs.
//!
//! A command never gets a descriptor of ours: through `/proc/self/fd` it could open the file behind it anew, with the
//! rights of its user. What goes in and out is passed on through pipes, or through a terminal of the sandbox's own
//! `/dev/pts`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What a command's standard input, output and error are connected to. By default it reads nothing, and writes to two
/// pipes.
#[derive(Debug, Default)]
pub struct Stdio {
    /// What it reads: passed on from here as it comes. `None`: its input is at its end from the start.
    pub input: Option<OwnedFd>,
    /// It gets a terminal of this size, which controls it. All that it writes is then standard output.
    pub terminal: Option<Size>,
    /// Says what is to be done with it while it runs.
    pub control: Option<Control>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Tells a running command something, from any thread. Clones tell the same one.
#[derive(Debug, Clone)]
pub struct Control(Arc<Requests>);

#[derive(Debug)]
struct Requests {
    waiting: Mutex<Vec<Request>>,
    wake: OwnedFd,
}

/// What a command is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Signal(u8),
    Resize(Size),
}

/// Requests that wait at the most; further ones are dropped: nobody takes them.
const MOST_REQUESTS: usize = 1024;

impl Control {
    /// One that leads to no command yet.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Requests { waiting: Mutex::default(), wake })))
    }

    /// Sends a signal (1 to 64) to the command itself. It is pid 1 where it is: a signal that it has no handler for does
    /// nothing, but for SIGKILL and SIGSTOP.
    pub fn signal(&self, number: u8) {
        self.ask(Request::Signal(number));
    }

    /// Gives its terminal another size.
    pub fn resize(&self, size: Size) {
        self.ask(Request::Resize(size));
    }

    fn ask(&self, request: Request) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_REQUESTS {
            waiting.push(request);
        }
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Readable while requests wait.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }

    pub(super) fn take(&self) -> Vec<Request> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0.wake, &mut count);
        std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) ours: OwnedFd,
    /// Held by us as well until the command has ended: so the end of output is that of the command, not the moment in
    /// which none of its processes happens to have the terminal open.
    pub(super) its: OwnedFd,
}

impl Terminal {
    /// A new terminal of a devpts filesystem (`pts(4)`).
    pub(super) fn of(devpts: BorrowedFd<'_>, size: Size) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
        Self::behind(ours, size)
    }

    /// A new terminal of the host, for a runtime that makes one of its own and passes on what goes through it.
    pub(super) fn of_host(size: Size) -> io::Result<Self> {
        Self::behind(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?, size)
    }

    /// The other end of a terminal whose near end is given.
    pub(super) fn behind(ours: OwnedFd, size: Size) -> io::Result<Self> {
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let its = ioctl_tiocgptpeer(&ours, flags)?;
        resize(ours.as_fd(), size)?;
        Ok(Self { ours, its })
    }
}

/// Gives a terminal a size.
pub(super) fn resize(terminal: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    let Size { rows, columns } = size;
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(())
}
