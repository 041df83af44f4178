//! The terminal in front of people, handed to a command: raw while it runs, as it was afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bricklayer::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input as a terminal in raw mode: what is typed goes through as it is, Ctrl-C as well. Dropping it, also while
/// panicking, makes it what it was.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes standard input raw.
    pub(crate) fn new() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone is nothing to be restored.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of the first of standard output, input and error that is a terminal; 80 by 24 where none is.
pub(crate) fn size() -> Size {
    let of = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let streams = [rustix::stdio::stdout(), rustix::stdio::stdin(), rustix::stdio::stderr()];
    let found = streams.iter().find_map(|stream| of(stream.as_fd()));
    found.map_or(Size { rows: 24, columns: 80 }, |size| Size { rows: size.ws_row, columns: size.ws_col })
}
