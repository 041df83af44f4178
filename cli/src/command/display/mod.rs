//! Displays of a build: events come in from many threads, one thread draws.
//!
//! - [`plain`]: lines for logs, in BuildKit's format, never clipped
//! - [`tty`]: a live region at the bottom of a terminal
//! - [`rawjson`]: BuildKit's `SolveStatus` as JSON lines, for programs
//!
//! All of it goes to standard error. The thread also keeps the last lines of every task, so that the report of a
//! failed step can show them whatever the display was.

mod plain;
mod rawjson;
mod text;
mod tty;

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bricklayer::event::{Event, EventKind, Reporter, Stream, TaskId};

pub(crate) use plain::Plain;
pub(crate) use rawjson::RawJson;
pub(crate) use text::{LineSplitter, bytes, one_line, sanitise};
pub(crate) use tty::Tty;

/// Events that may wait for the drawing thread; then a RUN that writes faster than the terminal shows has to wait.
const QUEUE: usize = 1024;
/// How often a live display moves.
const TICK: Duration = Duration::from_millis(100);

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Progress {
    /// tty on a terminal, plain otherwise
    #[default]
    Auto,
    /// A live region at the bottom of the terminal
    Tty,
    /// Lines, for logs
    Plain,
    /// Nothing but the image ID at the end
    Quiet,
    /// Nothing
    None,
    /// JSON lines in BuildKit's SolveStatus format
    Rawjson,
}

/// What draws. All calls come from one thread.
pub(crate) trait Renderer: Send {
    /// Something happened. Log events come here too, uncut.
    fn event(&mut self, event: &Event);
    /// A task wrote a line; it is not sanitised.
    fn line(&mut self, task: TaskId, time: SystemTime, line: &[u8]);
    /// Time passes.
    fn tick(&mut self, now: SystemTime);
    /// Takes itself off the terminal while something else has it.
    fn aside(&mut self, meanwhile: &mut dyn FnMut()) {
        meanwhile();
    }
    /// Nothing more will come.
    fn end(&mut self, now: SystemTime);
}

/// Shows nothing.
pub(crate) struct Quiet;

impl Renderer for Quiet {
    fn event(&mut self, _: &Event) {}
    fn line(&mut self, _: TaskId, _: SystemTime, _: &[u8]) {}
    fn tick(&mut self, _: SystemTime) {}
    fn end(&mut self, _: SystemTime) {}
}

enum Message {
    Event(Event),
    /// The display says when it stands still, and waits until the other's end is gone.
    Aside(SyncSender<()>, Receiver<()>),
    End,
}

/// A display that runs.
pub(crate) struct Display {
    sender: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts the drawing thread.
    pub(crate) fn start(renderer: Box<dyn Renderer>) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || {
            let mut pump = Pump::new(renderer);
            let mut ticked = Instant::now();
            loop {
                match receiver.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                    Ok(Message::Event(event)) => pump.event(&event),
                    Ok(Message::Aside(ready, done)) => pump.renderer.aside(&mut || {
                        let _ = ready.send(());
                        let _ = done.recv();
                    }),
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                }
                if ticked.elapsed() >= TICK {
                    pump.renderer.tick(SystemTime::now());
                    ticked = Instant::now();
                }
            }
            pump.end(SystemTime::now());
        });
        Self { sender, thread: Some(thread) }
    }

    /// Where events go.
    pub(crate) fn reporter(&self) -> Reporter {
        let sender = self.sender.clone();
        // after the end nobody listens any more, and that is all right
        Reporter::new(move |event| drop(sender.send(Message::Event(event))))
    }

    /// What takes the display off the terminal.
    pub(crate) fn standstill(&self) -> Standstill {
        Standstill(self.sender.clone())
    }

    /// Draws what is left and stops, also if a reporter is still held somewhere.
    pub(crate) fn finish(mut self) {
        drop(self.sender.send(Message::End));
        // a display that panicked has nothing left to draw
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Takes the display off the terminal.
#[derive(Clone)]
pub(crate) struct Standstill(SyncSender<Message>);

/// The display stands still until this is dropped.
pub(crate) struct Still(#[expect(dead_code, reason = "its end is what counts")] SyncSender<()>);

impl Standstill {
    /// Returns when the display has shown what happened before and stands still. Whoever has more to tell meanwhile than the
    /// queue holds waits.
    pub(crate) fn begin(&self) -> Still {
        let ((ready, is_ready), (done, is_done)) = (sync_channel(1), sync_channel(1));
        if self.0.send(Message::Aside(ready, is_done)).is_ok() {
            // a display that has ended has nothing on the terminal
            let _ = is_ready.recv();
        }
        Still(done)
    }
}

/// Cuts logs into lines.
struct Pump {
    renderer: Box<dyn Renderer>,
    splitters: HashMap<(TaskId, Stream), LineSplitter>,
}

impl Pump {
    fn new(renderer: Box<dyn Renderer>) -> Self {
        Self { renderer, splitters: HashMap::new() }
    }

    fn event(&mut self, event: &Event) {
        let Event { task, time, kind } = event;
        match kind {
            EventKind::Log { stream, data } => {
                self.renderer.event(event);
                let splitter = self.splitters.entry((*task, *stream)).or_default();
                splitter.push(data, |line| self.renderer.line(*task, *time, line));
            }
            EventKind::Finished(_) => {
                self.flush(*task, *time);
                self.renderer.event(event);
            }
            _ => self.renderer.event(event),
        }
    }

    /// Lines that their task did not end.
    fn flush(&mut self, task: TaskId, time: SystemTime) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(mut splitter) = self.splitters.remove(&(task, stream)) {
                splitter.finish(|line| self.renderer.line(task, time, line));
            }
        }
    }

    fn end(mut self, now: SystemTime) {
        let mut open: Vec<TaskId> = self.splitters.keys().map(|(task, _)| *task).collect();
        open.sort();
        open.dedup();
        for task in open {
            self.flush(task, now);
        }
        self.renderer.end(now);
    }
}

/// Writes to standard error. Where that is closed there is nobody to tell, so failures are dropped.
fn put(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod script;
