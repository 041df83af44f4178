//! A command from its start to its end: what it writes is passed on, what it is to read and to be told reaches it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::stdio::{Control, Request, resize};
use super::{SandboxError, Stream};

/// How soon a cancelled command is noticed.
const CANCEL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// As much is passed on at once.
const PIECE: usize = 64 << 10;

/// Our ends of what a command reads and writes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Standard output, or the terminal.
    pub(super) stdout: Option<OwnedFd>,
    /// Standard error, where it is not the terminal.
    pub(super) stderr: Option<OwnedFd>,
    pub(super) input: Option<Input>,
    /// The command's end of its terminal.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) control: Option<Control>,
}

/// What a command reads.
#[derive(Debug)]
pub(super) struct Input {
    from: OwnedFd,
    /// Never blocks.
    to: OwnedFd,
    /// Read, and not yet written.
    pending: Vec<u8>,
    at_end: bool,
    terminal: bool,
}

/// What a line-wise terminal takes for the end of its input: Ctrl-D.
const END_OF_TRANSMISSION: u8 = 4;

impl Input {
    /// Passes on what `from` gives to `to`, which is the near end of a terminal, or of a pipe that is closed at the end.
    pub(super) fn new(from: OwnedFd, to: OwnedFd, terminal: bool) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&to)?;
        rustix::fs::fcntl_setfl(&to, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { from, to, pending: Vec::new(), at_end: false, terminal })
    }

    /// What is waited for now; `None`: it is done.
    fn wanted(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (self.pending.is_empty(), self.at_end) {
            (false, _) => Some((self.to.as_fd(), PollFlags::OUT)),
            (true, false) => Some((self.from.as_fd(), PollFlags::IN)),
            (true, true) => None,
        }
    }

    /// Does what it waited for. `false`: nobody reads any more.
    fn step(&mut self) -> bool {
        if self.pending.is_empty() {
            let mut buffer = vec![0; PIECE];
            match rustix::io::read(&self.from, &mut buffer[..]) {
                Ok(0) => self.end(),
                Ok(length) => {
                    buffer.truncate(length);
                    self.pending = buffer;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // A terminal that hung up, a descriptor that can't be read: there is no more.
                Err(_) => self.end(),
            }
            return true;
        }
        match rustix::io::write(&self.to, &self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return false,
        }
        true
    }

    fn end(&mut self) {
        self.at_end = true;
        if self.terminal {
            self.pending.push(END_OF_TRANSMISSION);
        }
    }
}

/// What was waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Stdout,
    Stderr,
    Input,
    Control,
    Status,
}

/// Follows a command until it has ended and all that it wrote was passed on. `status` is readable, or hung up, when it
/// has ended; `signal` sends it a signal.
pub(super) fn follow(
    mut streams: Streams,
    status: BorrowedFd<'_>,
    signal: &dyn Fn(u8),
    output: &dyn Fn(Stream, &[u8]),
    cancel: &CancellationToken,
) -> Result<(), SandboxError> {
    let mut buffer = vec![0u8; PIECE];
    let mut ended = false;
    while !ended || streams.stdout.is_some() || streams.stderr.is_some() {
        let ready = streams.wait((!ended).then_some(status))?;
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        for source in ready {
            match source {
                Source::Stdout => pass_on(&mut streams.stdout, Stream::Stdout, output, &mut buffer)?,
                Source::Stderr => pass_on(&mut streams.stderr, Stream::Stderr, output, &mut buffer)?,
                Source::Input => {
                    let goes_on = streams.input.as_mut().is_some_and(Input::step);
                    let goes_on =
                        goes_on && streams.input.as_ref().is_some_and(|input| input.wanted().is_some());
                    if !goes_on {
                        streams.input = None;
                    }
                }
                Source::Control => {
                    for request in streams.control.as_ref().map(Control::take).unwrap_or_default() {
                        match (request, &streams.stdout) {
                            (Request::Signal(number), _) => signal(number),
                            (Request::Resize(size), Some(terminal)) if streams.terminal.is_some() => {
                                // One that can't be resized stays as it is.
                                let _ = resize(terminal.as_fd(), size);
                            }
                            (Request::Resize(_), _) => {}
                        }
                    }
                }
                Source::Status => {
                    ended = true;
                    streams.input = None;
                    streams.terminal = None;
                }
            }
        }
    }
    Ok(())
}

impl Streams {
    /// Waits until something can be done, or for [`CANCEL_INTERVAL`].
    fn wait<'a>(&'a self, status: Option<BorrowedFd<'a>>) -> Result<Vec<Source>, SandboxError> {
        let mut waiting: Vec<(Source, BorrowedFd<'a>, PollFlags)> = Vec::with_capacity(5);
        let outputs = [(Source::Stdout, &self.stdout), (Source::Stderr, &self.stderr)];
        waiting.extend(
            outputs
                .into_iter()
                .filter_map(|(source, fd)| Some((source, fd.as_ref()?.as_fd(), PollFlags::IN))),
        );
        if let Some((fd, flags)) = self.input.as_ref().and_then(Input::wanted) {
            waiting.push((Source::Input, fd, flags));
        }
        if let Some(control) = &self.control {
            waiting.push((Source::Control, control.wake(), PollFlags::IN));
        }
        if let Some(status) = status {
            waiting.push((Source::Status, status, PollFlags::IN));
        }
        let mut entries: Vec<PollFd<'a>> =
            waiting.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut entries, Some(&CANCEL_INTERVAL)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(SandboxError::setup("wait for the command", error)),
        }
        let ready = waiting.iter().zip(&entries).filter(|(_, entry)| !entry.revents().is_empty());
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }
}

/// Passes on what has come; an output that is at its end is closed.
fn pass_on(
    from: &mut Option<OwnedFd>,
    stream: Stream,
    output: &dyn Fn(Stream, &[u8]),
    buffer: &mut [u8],
) -> Result<(), SandboxError> {
    let Some(fd) = &*from else { return Ok(()) };
    match rustix::io::read(fd, &mut *buffer) {
        // The other end of a terminal is closed.
        Ok(0) | Err(Errno::IO) => *from = None,
        Ok(length) => output(stream, buffer.get(..length).unwrap_or_default()),
        Err(Errno::INTR | Errno::AGAIN) => {}
        Err(error) => return Err(SandboxError::setup("read the output", error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Mutex;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::super::stdio::{Size, Terminal};
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
    }

    /// Follows what a thread does at the other ends.
    fn followed(streams: Streams, command: impl FnOnce() + Send + 'static) -> String {
        let (status, its_status) = pipe();
        let thread = std::thread::spawn(move || {
            command();
            drop(its_status);
        });
        let written = Mutex::new(Vec::new());
        let output = |_: Stream, bytes: &[u8]| written.lock().expect("lock").extend_from_slice(bytes);
        follow(streams, status.as_fd(), &|_| {}, &output, &CancellationToken::new()).expect("followed");
        thread.join().expect("it ends well");
        String::from_utf8(written.into_inner().expect("lock")).expect("text")
    }

    #[test]
    fn more_than_a_pipe_holds_goes_through_and_the_end_is_the_end() {
        let from = pipe();
        let (its_input, ours) = pipe();
        let (stdout, its_stdout) = pipe();
        let text: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 26) as u8).collect();
        let expected = String::from_utf8(text.clone()).expect("text");
        let writer = std::thread::spawn(move || std::fs::File::from(from.1).write_all(&text));
        let streams = Streams {
            stdout: Some(stdout),
            input: Some(Input::new(from.0, ours, false).expect("an input")),
            ..Streams::default()
        };
        let got = followed(streams, move || {
            std::io::copy(&mut std::fs::File::from(its_input), &mut std::fs::File::from(its_stdout))
                .expect("copied");
        });
        assert!(got == expected, "{} bytes", got.len());
        writer.join().expect("a thread").expect("written");
    }

    #[test]
    fn a_command_that_does_not_read_ends_all_the_same() {
        let (from, _open) = pipe();
        let (its_input, ours) = pipe();
        let (stdout, its_stdout) = pipe();
        let input = Some(Input::new(from, ours, false).expect("an input"));
        let got = followed(Streams { stdout: Some(stdout), input, ..Streams::default() }, move || {
            drop(its_input);
            std::fs::File::from(its_stdout).write_all(b"done").expect("written");
        });
        assert_eq!(got, "done");
    }

    #[test]
    fn a_terminal_gives_what_is_typed_back_until_the_end_of_input() {
        use std::io::BufRead as _;
        let ours = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
            .expect("a terminal");
        let Terminal { ours, its } = Terminal::behind(ours, Size { rows: 7, columns: 33 }).expect("its end");
        let size = rustix::termios::tcgetwinsize(&its).expect("a size");
        assert_eq!((size.ws_row, size.ws_col), (7, 33));
        let (from, to) = pipe();
        std::fs::File::from(to).write_all(b"typed\n").expect("written");
        let command = its.try_clone().expect("a copy");
        let input = Input::new(from, ours.try_clone().expect("a copy"), true).expect("an input");
        let streams =
            Streams { stdout: Some(ours), input: Some(input), terminal: Some(its), ..Streams::default() };
        let got = followed(streams, move || {
            let lines: Vec<String> =
                std::io::BufReader::new(std::fs::File::from(command)).lines().map_while(Result::ok).collect();
            assert_eq!(lines, ["typed"]);
        });
        assert_eq!(got, "typed\r\n");
    }
}
