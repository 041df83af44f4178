//! What is kept of every build: a record of its steps, and its logs, whole.
//!
//! ```text
//! STORE/builds/<time>-<id>/
//!   events        what happened, as it happened, logs included ([`journal`]); locked while the build goes on
//!   record.json   a [`BuildRecord`], written when the build ended
//! ```
//!
//! Both are fed by the build's events ([`recorder`]). While a build goes on, or after its process was killed, there is no
//! `record.json`: then the record is made of the events that there are ([`read`]).

mod collect;
mod find;
mod journal;
mod read;
mod recorder;
#[cfg(test)]
mod tests;
mod timing;

use std::path::PathBuf;
use std::time::Duration;

use bricklayer_solver::Digest;
use bricklayer_solver::graph::Location;
use serde::{Deserialize, Serialize};

pub use read::{BuildLog, LogEvent, LogEventKind, LogPiece};
pub(crate) use recorder::Recorder;

/// The version of `record.json` and of `events` that this program writes. A newer one is refused.
const VERSION: u32 = 1;

/// A build that was, or that goes on.
///
/// Times in microseconds (`…_us`) count from its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRecord {
    /// The version of this document.
    pub version: u32,
    /// The build's ID.
    pub id: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: i64,
    /// How long it took, or takes until now; for one that was killed, up to the last event that was written.
    pub duration_us: u64,
    /// What became of it.
    pub outcome: BuildOutcome,
    /// Why it failed, the whole chain of reasons in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was asked for.
    #[serde(flatten)]
    pub asked: Asked,
    /// The image's config: Docker's image ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// The image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Steps of the graph that were needed, contexts not counted.
    pub steps: usize,
    /// How many of them did not have to run.
    pub cached: usize,
    /// Everything that people saw of it, in the order in which it was announced.
    pub tasks: Vec<TaskRecord>,
    /// A part of the events could not be written, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Where it lies.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// What a build was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// A directory or a URL, without a password; `-` for what came as a stream.
    pub context: String,
    /// The Dockerfile's name.
    pub dockerfile: String,
    /// The stage that was wanted; `None`: the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform that was wanted; `None`: this machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Names for the image, as they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Did it ask for every step to run?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
}

/// What became of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BuildOutcome {
    /// It goes on.
    Running,
    /// It made what was wanted.
    Done,
    /// It failed.
    Failed,
    /// It was told to stop.
    Cancelled,
    /// Its process ended before the build did.
    Killed,
    /// Its record can't be read; `error` says why.
    Unreadable,
}

/// A step, or something else that people saw of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// Its number, as displays show it.
    pub number: u64,
    /// `[build 2/5] RUN make`, `pulling debian:12`.
    pub name: String,
    /// What kind of work it is.
    pub kind: WorkKind,
    /// For a step, its number in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertex: Option<u32>,
    /// For a step, what it does: `run`, `copy`, `image`, `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// For a step, the stage it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Where it stands in the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Place>,
    /// For a step, the tasks (by number) whose results it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<u64>,
    /// What became of it.
    pub state: TaskState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it could have started: all that it needs was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_us: Option<u64>,
    /// When it started to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<u64>,
    /// How long it waited before it could work: for a slot, or for an equal step of somebody else.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_us: u64,
    /// For whom it waited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waited_for: Vec<String>,
    /// Why there was no result for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Its definition key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What its command ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The most memory that its command used, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The most memory that one of its command's processes had, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_process: Option<u64>,
    /// User and system time of its command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Bytes of the files in its result: the layer that it made, or what was used of a context.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Bytes that it moved: pulled, pushed, fetched.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved: u64,
    /// Bytes that it wrote to its log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// First line, counted from 1.
    pub first: u32,
    /// Last line, included.
    pub last: u32,
}

impl From<&Location> for Place {
    fn from(location: &Location) -> Self {
        Self { file: location.file.clone(), first: location.first, last: location.last }
    }
}

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkKind {
    /// A step of the graph.
    Step,
    /// Work around the graph: reading the Dockerfile, resolving an image's name.
    Internal,
    /// Moving or making what leaves the build.
    Export,
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// It had not started when the build ended.
    Pending,
    /// It goes on, or went on when the process was killed.
    Running,
    /// Its result was there.
    Cached,
    /// Somebody else ran the same step at the same time.
    Shared,
    /// It was done; for a step: there was something to do, and it ran.
    Done,
    /// It failed.
    Failed,
    /// It was told to stop.
    Cancelled,
}

impl BuildRecord {
    /// The step that failed first.
    pub fn failed(&self) -> Option<&TaskRecord> {
        let failed = self.tasks.iter().filter(|task| task.state == TaskState::Failed);
        failed.min_by_key(|task| (task.kind != WorkKind::Step, task.ended_us.unwrap_or(u64::MAX)))
    }

    /// The task with this number.
    pub fn numbered(&self, number: u64) -> Option<&TaskRecord> {
        self.tasks.iter().find(|task| task.number == number)
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_us)
    }

    /// Bytes of all logs.
    pub fn log_bytes(&self) -> u64 {
        self.tasks.iter().map(|task| task.log_bytes).sum()
    }
}

impl TaskRecord {
    /// From its start to its end; `None`: it has not started, or not ended.
    pub fn worked(&self) -> Option<Duration> {
        let (start, end) = (self.started_us?, self.ended_us?);
        Some(Duration::from_micros(end.saturating_sub(start)))
    }
}
