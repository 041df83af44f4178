//! A command that has our terminal, or our standard streams, and our signals.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bricklayer::event::Stream;
use bricklayer::{CancellationToken, Control, Error, Exit, Stdio};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::errors::Failure;
use super::terminal;

/// So many SIGINTs and SIGTERMs mean it: the last one kills.
const PATIENCE: u32 = 3;

/// How long what was run has got when the terminal hung up.
const AFTER_HANGUP: Duration = Duration::from_secs(5);

/// What a command has of ours, until this is dropped.
pub(crate) struct Attachment {
    cancel: CancellationToken,
    /// Nobody reads what it writes any more.
    broken: Arc<AtomicBool>,
    _raw: Option<terminal::Raw>,
    signals: JoinHandle<()>,
}

impl Attachment {
    /// Passes on standard input if it is `interactive`, gives it a terminal if it is to have one, and takes signals for it.
    pub(crate) fn new(interactive: bool, tty: bool) -> Result<(Self, Stdio), Failure> {
        let control = Control::new().context("cannot pass signals on")?;
        let mut stdio = Stdio { control: Some(control.clone()), ..Stdio::default() };
        if interactive {
            let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
            stdio.input = Some(stdin.context("cannot read standard input")?);
        }
        let mut raw = None;
        if tty {
            stdio.terminal = Some(terminal::size());
            if interactive {
                raw = Some(terminal::Raw::new().context("cannot take over the terminal")?);
            }
        }
        let cancel = CancellationToken::new();
        let signals = Signals::new().context("cannot take signals")?;
        let signals = tokio::spawn(signals.pass_on(control, cancel.clone()));
        Ok((Self { cancel, broken: Arc::default(), _raw: raw, signals }, stdio))
    }

    /// Writes what the command writes.
    pub(crate) fn output(&self) -> impl Fn(Stream, &[u8]) + Send + use<> {
        let (broken, cancel) = (self.broken.clone(), self.cancel.clone());
        move |stream: Stream, bytes: &[u8]| {
            if write(stream, bytes).is_err() && !broken.swap(true, Ordering::Relaxed) {
                cancel.cancel();
            }
        }
    }

    /// Says when it is to be killed.
    pub(crate) fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Takes everything back. What was killed has an exit code as well.
    pub(crate) fn end(self, exit: Result<Exit, Error>) -> Result<Exit, Failure> {
        let broken = self.broken.load(Ordering::Relaxed);
        drop(self);
        match exit {
            // as a program that SIGPIPE ended
            Err(Error::Cancelled) if broken => Err(Failure::Ended(128 + 13)),
            Err(Error::Cancelled) => Err(Failure::Ended(128 + 9)),
            exit => Ok(exit?),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.signals.abort();
    }
}

fn write(stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        Stream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => std::io::stderr().lock().write_all(bytes),
    }
}

/// Signals that are taken, each with its number.
struct Signals {
    numbered: [(u8, Signal); 7],
    window: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let listen = |number: u8| -> std::io::Result<(u8, Signal)> {
            Ok((number, signal(SignalKind::from_raw(number.into()))?))
        };
        Ok(Self {
            // HUP, INT, QUIT, USR1, USR2, ALRM, TERM
            numbered: [
                listen(1)?,
                listen(2)?,
                listen(3)?,
                listen(10)?,
                listen(12)?,
                listen(14)?,
                listen(15)?,
            ],
            window: signal(SignalKind::window_change())?,
        })
    }

    /// Signals that we get go to the command. SIGINT and SIGTERM, which it may not heed, kill it when they come often.
    async fn pass_on(mut self, control: Control, cancel: CancellationToken) {
        let mut asked = 0;
        loop {
            let [hangup, interrupt, quit, user1, user2, alarm, terminate] = &mut self.numbered;
            let number = tokio::select! {
                _ = hangup.1.recv() => hangup.0,
                _ = interrupt.1.recv() => interrupt.0,
                _ = quit.1.recv() => quit.0,
                _ = user1.1.recv() => user1.0,
                _ = user2.1.recv() => user2.0,
                _ = alarm.1.recv() => alarm.0,
                _ = terminate.1.recv() => terminate.0,
                _ = self.window.recv() => {
                    control.resize(terminal::size());
                    continue;
                }
            };
            control.signal(number);
            match number {
                1 => {
                    let cancel = cancel.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(AFTER_HANGUP).await;
                        cancel.cancel();
                    });
                }
                2 | 15 => asked += 1,
                _ => {}
            }
            if asked >= PATIENCE {
                cancel.cancel();
            }
        }
    }
}
