//! Keeps a record of a build while it goes on: every event is written down as it comes, and when the build ends, what
//! they say together.
//!
//! A record is never a reason for a build to fail: what can't be written is told once, as a task that failed. Writes are
//! not synced, and events that nobody would miss after a kill wait for the next that matters, so that a build with nothing to
//! do pays for a handful of system calls.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bricklayer_cache::store::{BuildDirectory, LiveBuild};
use bricklayer_solver::errors::in_one_line;
use bricklayer_solver::event::{self, Event, EventKind, Outcome, Reporter, TaskKind};
use bricklayer_solver::graph::{Graph, VertexId};
use bricklayer_solver::schedule::{StepReport, StepState};

use super::collect::{Collector, counts};
use super::journal::{self, Entry, Header, LONGEST_PIECE, What};
use super::{Asked, BuildOutcome, BuildRecord, TaskState, VERSION, WorkKind};
use crate::build::{BuildResult, Builder, internal_task};
use crate::error::{Error, StepPlace};
use crate::request::{BuildRequest, Context, DockerfileSource};

/// Bytes of events that wait, at the most.
const BUFFER: usize = 64 << 10;

/// Logs of so many bytes make it worth while to add up what all builds take.
const MUCH: u64 = 1 << 20;

/// See the module's description. Dropped without an end, it says that the build was cancelled.
pub(crate) struct Recorder {
    builder: Builder,
    /// Where the build's events go: here, and then where the caller wants them.
    reporter: Reporter,
    asked: Asked,
    /// `None`: no record is kept.
    build: Option<(BuildDirectory, Arc<Mutex<State>>)>,
    details: Mutex<Details>,
    ended: bool,
}

struct State {
    started: SystemTime,
    /// Locked, also where nothing more can be written; `None`: the build has ended.
    file: Option<File>,
    buffer: Vec<u8>,
    collector: Collector,
    /// Why no more is written.
    failed: Option<String>,
}

/// What the events do not say.
#[derive(Default)]
struct Details {
    graph: Option<Arc<Graph>>,
    /// Tasks that were announced before it: those of a context that was fetched are steps of another graph.
    earlier: usize,
    reports: Vec<StepReport>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// A build begins.
    pub(crate) fn start(builder: &Builder, request: &BuildRequest, reporter: Reporter) -> Self {
        let asked = asked(request);
        let mut recorder = Self {
            builder: builder.clone(),
            reporter: reporter.clone(),
            asked,
            build: None,
            details: Mutex::default(),
            ended: false,
        };
        match builder.store.start_build() {
            Ok(LiveBuild { directory, events }) => {
                let state = Arc::new(Mutex::new(State::new(&directory, events, &recorder.asked)));
                let listener = Arc::clone(&state);
                recorder.reporter = reporter.tee(move |event| lock(&listener).event(event));
                recorder.build = Some((directory, state));
                // Now, since what is removed goes while the build is running.
                if let Err(error) = builder.store.trim_builds(false) {
                    recorder.complain(&error);
                }
            }
            Err(error) => recorder.complain(&error),
        }
        recorder
    }

    /// Where the build's events go.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The build's ID.
    pub(crate) fn id(&self) -> Option<&str> {
        self.build.as_ref().map(|(directory, _)| directory.id.as_str())
    }

    /// Events go elsewhere from now on.
    #[cfg(test)]
    pub(super) fn write_events_to(&self, file: File) {
        if let Some((_, state)) = &self.build {
            lock(state).file = Some(file);
        }
    }

    /// The steps that it has.
    pub(crate) fn graph(&self, graph: &Arc<Graph>) {
        let earlier = self.build.as_ref().map_or(0, |(_, state)| lock(state).collector.len());
        let mut details = lock(&self.details);
        details.graph = Some(Arc::clone(graph));
        details.earlier = earlier;
    }

    /// What became of them.
    pub(crate) fn reports(&self, reports: &[StepReport]) {
        lock(&self.details).reports = reports.to_vec();
    }

    /// Where what is known of a step can be found again.
    pub(crate) fn place_of(&self, vertex: VertexId) -> Option<StepPlace> {
        let (directory, state) = self.build.as_ref()?;
        let (step, log_bytes) = {
            let state = lock(state);
            let task = state.collector.of_vertex(vertex.0)?;
            (task.number, task.log_bytes)
        };
        Some(StepPlace {
            build: directory.id.clone(),
            directory: directory.path.clone(),
            step,
            log_bytes,
            kept: self.builder.store.keeps_failure(&directory.id, step).unwrap_or(false),
        })
    }

    /// The build has ended. Its record, unless none could be kept.
    pub(crate) fn end(mut self, result: &Result<BuildResult, Error>) -> Option<BuildRecord> {
        let (outcome, error) = match result {
            Ok(_) => (BuildOutcome::Done, None),
            Err(Error::Cancelled) => (BuildOutcome::Cancelled, None),
            Err(error) => (BuildOutcome::Failed, Some(in_one_line(error))),
        };
        self.write(outcome, error, result.as_ref().ok())
    }

    fn write(
        &mut self,
        outcome: BuildOutcome,
        error: Option<String>,
        result: Option<&BuildResult>,
    ) -> Option<BuildRecord> {
        self.ended = true;
        let (directory, state) = self.build.take()?;
        let mut record = {
            let mut state = lock(&state);
            state.flush();
            let end = state.since_start(SystemTime::now());
            BuildRecord {
                version: VERSION,
                id: directory.id.clone(),
                started_ms: directory.started_ms,
                duration_us: end.max(state.collector.last_us),
                outcome,
                error,
                asked: std::mem::take(&mut self.asked),
                image: result.and_then(|result| result.config),
                manifest: result.and_then(|result| result.image.as_ref()).map(|image| image.digest),
                steps: 0,
                cached: 0,
                tasks: std::mem::take(&mut state.collector).into_tasks(),
                incomplete: state.failed.clone(),
                directory: directory.path.clone(),
            }
        };
        {
            let details = lock(&self.details);
            let started = UNIX_EPOCH + Duration::from_millis(directory.started_ms.unsigned_abs());
            details.add_to(&mut record, started);
        }
        let written = write_whole(&record);
        // the lock goes after the record is there: so a build without both was killed
        lock(&state).file = None;
        if let Err(error) = &written {
            self.complain(error);
        }
        if let Some(error) = &record.incomplete {
            self.complain(&io::Error::other(error.clone()));
        }
        if record.log_bytes() > MUCH
            && let Err(error) = self.builder.store.trim_builds(true)
        {
            self.complain(&error);
        }
        if outcome == BuildOutcome::Failed
            && let Err(error) = self.builder.store.trim_failures()
        {
            self.complain(&error);
        }
        Some(record)
    }

    fn complain(&self, error: &dyn std::error::Error) {
        let task = internal_task(&self.reporter, "[internal] keep a record of the build");
        task.finish(Outcome::Failed(in_one_line(error)));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.ended {
            self.write(BuildOutcome::Cancelled, None, None);
        }
    }
}

impl Details {
    /// Adds what the events did not say.
    fn add_to(&self, record: &mut BuildRecord, started: SystemTime) {
        let Some(graph) = &self.graph else {
            (record.steps, record.cached) = counts(&record.tasks);
            return;
        };
        for task in record.tasks.iter_mut().take(self.earlier) {
            task.vertex = None;
        }
        // a step that was announced again is the newer one
        let numbers: HashMap<u32, u64> =
            record.tasks.iter().filter_map(|task| Some((task.vertex?, task.number))).collect();
        let reports: HashMap<u32, &StepReport> =
            self.reports.iter().map(|report| (report.vertex.0, report)).collect();
        for task in &mut record.tasks {
            let Some(id) = task.vertex.filter(|id| (*id as usize) < graph.len()) else { continue };
            let vertex = graph.vertex(VertexId(id));
            task.op = Some(bricklayer_solver::explain::kind(&vertex.op).to_owned());
            task.stage.clone_from(&vertex.info.stage);
            task.inputs = seen_inputs(graph, VertexId(id), &numbers);
            if numbers.get(&id) != Some(&task.number) {
                continue;
            }
            let Some(report) = reports.get(&id) else { continue };
            task.key = report.key;
            task.waited_us = micros(report.waited);
            if let Some(ready) = report.started {
                task.ready_us = Some(micros(ready.duration_since(started).unwrap_or_default()));
            }
            if report.state == StepState::Shared {
                task.state = TaskState::Shared;
            }
        }
        let counted = || {
            record.tasks.iter().filter(|task| {
                task.op.as_deref().is_some_and(|op| op != "local")
                    && task.vertex.and_then(|id| numbers.get(&id)) == Some(&task.number)
            })
        };
        let (steps, cached) =
            (counted().count(), counted().filter(|task| task.state == TaskState::Cached).count());
        (record.steps, record.cached) = (steps, cached);
    }
}

/// The tasks that a step needs. In place of an input that people do not see, those that it needs.
fn seen_inputs(graph: &Graph, id: VertexId, numbers: &HashMap<u32, u64>) -> Vec<u64> {
    let mut found = BTreeSet::new();
    let mut looked_at = HashSet::new();
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        for input in &graph.vertex(id).inputs {
            match numbers.get(&input.vertex.0) {
                Some(number) => drop(found.insert(*number)),
                None if looked_at.insert(input.vertex) => todo.push(input.vertex),
                None => {}
            }
        }
    }
    found.into_iter().collect()
}

impl State {
    fn new(directory: &BuildDirectory, file: File, asked: &Asked) -> Self {
        let mut state = Self {
            started: UNIX_EPOCH + Duration::from_millis(directory.started_ms.unsigned_abs()),
            file: Some(file),
            buffer: Vec::with_capacity(4096),
            collector: Collector::default(),
            failed: None,
        };
        let header = Header {
            version: VERSION,
            id: Cow::Borrowed(&directory.id),
            started_ms: directory.started_ms,
            process: std::process::id(),
            asked: asked.clone(),
        };
        journal::write(&mut state.buffer, &header);
        // from now on the build is seen by others
        state.flush();
        state
    }

    fn since_start(&self, time: SystemTime) -> u64 {
        micros(time.duration_since(self.started).unwrap_or_default())
    }

    fn event(&mut self, event: &Event) {
        let (number, us) = (event.task.number(), self.since_start(event.time));
        let mut data: Option<&[u8]> = None;
        // what may be followed by a long silence is written at once
        let mut at_once = true;
        let what = match &event.kind {
            EventKind::Announced(info) => {
                at_once = false;
                What::Announced {
                    name: Cow::Borrowed(&info.name),
                    kind: match info.kind {
                        TaskKind::Step => WorkKind::Step,
                        TaskKind::Export => WorkKind::Export,
                        _ => WorkKind::Internal,
                    },
                    vertex: info.vertex.map(|id| id.0),
                    location: info.location.as_ref().map(Into::into),
                }
            }
            EventKind::Started => What::Started,
            EventKind::Waiting(on) => What::Waiting { on: Cow::Borrowed(on) },
            EventKind::Cached => {
                at_once = false;
                What::Cached
            }
            EventKind::Sized(bytes) => {
                at_once = false;
                What::Sized { bytes: *bytes }
            }
            EventKind::Missed(reasons) => What::Missed { reasons: Cow::Borrowed(reasons) },
            EventKind::Progress(progress) => {
                self.collector.moved(number, &progress.part, progress.done);
                return;
            }
            EventKind::Log { stream, data: bytes } => {
                data = Some(bytes);
                let stream = match stream {
                    event::Stream::Stdout => journal::Stream::Out,
                    event::Stream::Stderr => journal::Stream::Err,
                };
                What::Log { stream, bytes: bytes.len() as u64 }
            }
            EventKind::Warning(text) => What::Warning { text: Cow::Borrowed(text) },
            EventKind::Exited(exited) => What::Exited {
                code: exited.code,
                peak_memory: exited.peak_memory,
                largest_process: exited.largest_process,
                cpu_us: exited.cpu_time.map(micros),
            },
            EventKind::Finished(Outcome::Done) => What::Done,
            EventKind::Finished(Outcome::Failed(error)) => What::Failed { error: Cow::Borrowed(error) },
            EventKind::Finished(Outcome::Cancelled) => {
                at_once = false;
                What::Cancelled
            }
            _ => return,
        };
        self.collector.add(us, number, &what);
        if self.file.is_none() || self.failed.is_some() {
            return;
        }
        match (data, what) {
            (Some(data), What::Log { stream, .. }) => {
                for piece in data.chunks(LONGEST_PIECE) {
                    let what = What::Log { stream, bytes: piece.len() as u64 };
                    journal::write(&mut self.buffer, &Entry { us, task: number, what });
                    self.buffer.extend_from_slice(piece);
                    self.buffer.push(b'\n');
                }
            }
            (_, what) => journal::write(&mut self.buffer, &Entry { us, task: number, what }),
        }
        if at_once || self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none()
            && let Some(mut file) = self.file.as_ref()
            && let Err(error) = file.write_all(&self.buffer)
        {
            self.failed = Some(format!("cannot write the events: {error}"));
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
    }
}

/// Writes `record.json`: a reader sees all of it or none.
fn write_whole(record: &BuildRecord) -> Result<(), io::Error> {
    let (draft, target) = (record.directory.join(".record.json"), record.directory.join("record.json"));
    let bytes = serde_json::to_vec(record)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    drop(file);
    fs::rename(draft, target)
}

fn asked(request: &BuildRequest) -> Asked {
    Asked {
        context: match &request.context {
            Context::Empty => "(empty)".to_owned(),
            Context::Directory(path) => path.display().to_string(),
            Context::Tar(_) => "-".to_owned(),
            Context::Remote(url) => crate::build::without_user(url),
        },
        dockerfile: match &request.dockerfile {
            DockerfileSource::InContext => "Dockerfile".to_owned(),
            DockerfileSource::PathInContext(path) => path.clone(),
            DockerfileSource::File(path) => path.display().to_string(),
            DockerfileSource::Text(_) => "-".to_owned(),
            DockerfileSource::Url(url) => crate::build::without_user(url),
        },
        target: request.target.clone(),
        platform: request.platform.as_ref().map(ToString::to_string),
        tags: request.tags.clone(),
        no_cache: request.no_cache,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
