//! What happens during a build, as one typed stream: the command's displays, the library and, later, a gRPC service
//! all listen to it.
//!
//! A [`Reporter`] is where events go; a [`Task`] is one thing that people see (a step, a pull, an export). A task
//! that is dropped without an end counts as cancelled, so that no display waits for it for ever. Nothing follows
//! a task's end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::graph::{Location, VertexId};

/// One thing that people see, numbered in the order in which they were announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

impl TaskId {
    /// What people see it under: `#5`.
    pub fn number(self) -> u64 {
        self.0.saturating_add(1)
    }
}

/// Something happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// To what.
    pub task: TaskId,
    /// When.
    pub time: SystemTime,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// The task exists; it has not started.
    Announced(TaskInfo),
    /// It starts.
    Started,
    /// It waits for somebody: text says for whom.
    Waiting(String),
    /// Its result was there already: it ends without having run.
    Cached,
    /// Why there was no result for it.
    Missed(Vec<String>),
    /// How far it is.
    Progress(Progress),
    /// The command wrote something; not cut at line ends, not clipped, maybe not UTF-8.
    Log {
        /// Where.
        stream: Stream,
        /// What.
        data: Vec<u8>,
    },
    /// Something that the user should know.
    Warning(String),
    /// Its result has files of so many bytes: the layer that it made, or what was selected of a directory. Several are to be
    /// added up.
    Sized(u64),
    /// Its command ended, and this is what it took.
    Exited(Exited),
    /// It ended.
    Finished(Outcome),
}

/// What people see of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// `[build 2/5] RUN make`, `pulling debian:12`.
    pub name: String,
    /// What kind of work it is.
    pub kind: TaskKind,
    /// The step, if it is one.
    pub vertex: Option<VertexId>,
    /// Where it stands in the Dockerfile.
    pub location: Option<Location>,
}

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskKind {
    /// A step of the graph.
    Step,
    /// Work around the graph: reading the Dockerfile, resolving an image's name.
    Internal,
    /// Moving or making what leaves the build: packing, writing, pushing.
    Export,
}

/// Progress in one part of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which part: a layer's digest, a file.
    pub part: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, if that is known.
    pub total: Option<u64>,
}

/// How a command ended and what it used, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// The exit code, or 128 + the signal that killed it.
    pub code: i32,
    /// The most memory that it and its children used at a time, in bytes.
    pub peak_memory: Option<u64>,
    /// The most memory that one of these processes had, in bytes: where nobody counted for all of them together, they used at
    /// least as much.
    pub largest_process: Option<u64>,
    /// User and system time of it and its children.
    pub cpu_time: Option<Duration>,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// It failed, with the whole chain of reasons in one line.
    Failed(String),
    /// It was told to stop.
    Cancelled,
}

/// Where events go. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<ReporterInner>,
}

struct ReporterInner {
    /// Shared with the reporters that were made of this one, so that numbers stay unique.
    next: Arc<AtomicU64>,
    sink: Box<dyn Fn(Event) + Send + Sync>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    /// Events go to `sink`, from many threads at once, in order for each task. It must not block for long.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { inner: Arc::new(ReporterInner { next: Arc::default(), sink: Box::new(sink) }) }
    }

    /// Events go to `listener` first, then where this reporter's go.
    #[must_use]
    pub fn tee(&self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let others = Arc::clone(&self.inner);
        let next = Arc::clone(&others.next);
        let sink = move |event: Event| {
            listener(&event);
            (others.sink)(event);
        };
        Self { inner: Arc::new(ReporterInner { next, sink: Box::new(sink) }) }
    }

    /// Events go nowhere.
    pub fn silent() -> Self {
        Self::new(drop)
    }

    /// Announces a task.
    pub fn task(&self, info: TaskInfo) -> Task {
        let id = TaskId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let task = Task {
            inner: Arc::new(TaskInner {
                id,
                reporter: self.clone(),
                started: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                tail: Mutex::default(),
            }),
        };
        task.send(EventKind::Announced(info));
        task
    }
}

/// One thing that people see, from its announcement to its end. Clones are the same task; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Task {
    inner: Arc<TaskInner>,
}

#[derive(Debug)]
struct TaskInner {
    id: TaskId,
    reporter: Reporter,
    started: AtomicBool,
    ended: AtomicBool,
    tail: Mutex<VecDeque<u8>>,
}

/// How much of a task's log is kept in memory, in bytes: what a failure shows.
const TAIL: usize = 16 << 10;

impl Task {
    /// Its number.
    pub fn id(&self) -> TaskId {
        self.inner.id
    }

    /// Where its events go: for tasks that come of it.
    pub fn reporter(&self) -> &Reporter {
        &self.inner.reporter
    }

    fn send(&self, kind: EventKind) {
        if !self.inner.ended.load(Ordering::Relaxed) {
            self.inner.emit(kind);
        }
    }

    /// It starts. Only the first call says so.
    pub fn start(&self) {
        if !self.inner.started.swap(true, Ordering::Relaxed) {
            self.send(EventKind::Started);
        }
    }

    /// It waits.
    pub fn waiting(&self, what_for: impl Into<String>) {
        self.send(EventKind::Waiting(what_for.into()));
    }

    /// Why there was no result for it.
    pub fn missed(&self, reasons: Vec<String>) {
        self.send(EventKind::Missed(reasons));
    }

    /// How far a part of it is.
    pub fn progress(&self, part: impl Into<String>, done: u64, total: Option<u64>) {
        self.send(EventKind::Progress(Progress { part: part.into(), done, total }));
    }

    /// The command wrote something.
    pub fn log(&self, stream: Stream, data: Vec<u8>) {
        {
            let mut tail = self.inner.tail.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = data.get(data.len().saturating_sub(TAIL)..).unwrap_or_default();
            let excess = (tail.len() + fresh.len()).saturating_sub(TAIL);
            tail.drain(..excess);
            tail.extend(fresh);
        }
        self.send(EventKind::Log { stream, data });
    }

    /// The last 16 KiB that the command wrote, both streams in the order in which they came.
    pub fn log_tail(&self) -> Vec<u8> {
        self.inner.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Something that the user should know.
    pub fn warn(&self, text: impl Into<String>) {
        self.send(EventKind::Warning(text.into()));
    }

    /// Its result has files of so many bytes.
    pub fn sized(&self, bytes: u64) {
        self.send(EventKind::Sized(bytes));
    }

    /// Its command ended.
    pub fn exited(&self, exited: Exited) {
        self.send(EventKind::Exited(exited));
    }

    /// It ends: its result was there already.
    pub fn cached(&self) {
        if !self.inner.ended.swap(true, Ordering::Relaxed) {
            self.inner.emit(EventKind::Cached);
        }
    }

    /// It ends.
    pub fn finish(&self, outcome: Outcome) {
        if !self.inner.ended.swap(true, Ordering::Relaxed) {
            self.inner.emit(EventKind::Finished(outcome));
        }
    }
}

impl TaskInner {
    fn emit(&self, kind: EventKind) {
        (self.reporter.inner.sink)(Event { task: self.id, time: SystemTime::now(), kind });
    }
}

impl Drop for TaskInner {
    fn drop(&mut self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.emit(EventKind::Finished(Outcome::Cancelled));
        }
    }
}
