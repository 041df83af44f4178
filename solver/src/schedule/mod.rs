//! Decides what runs, when, and what need not run at all.
//!
//! # A solve
//!
//! 1. *Plan.* The steps that the target needs are announced in graph order. What their keys need from outside is
//!    asked side by side, each thing once: the content of selections from local directories, and what sources are
//!    right now. Then all definition keys are known, and one look into the records says which steps have a result.
//! 2. *Walk.* From the target down: where there is a result, nothing above it is touched. A build with nothing to do
//!    ends here.
//! 3. *Run.* Every step whose inputs are there is started as a task of its own: it looks its content key up (early
//!    cutoff), joins an equal step that is under way, or takes the key's lock, looks once more, and is run.
//!
//! Steps wait for their inputs in one loop that hands out work, not in each other's futures, so a chain of ten
//! thousand steps is as good as a wide graph.
//!
//! # Who runs what once
//!
//! | who | by |
//! | --- | --- |
//! | one graph | hash-consing in [`Graph`] |
//! | solves of one [`Solver`] and its clones | a flight per content key, which lives while somebody waits for it |
//! | processes on one store | [`RecordStore::lock`] on the content key, and a second look under the lock |
//!
//! A slot (`jobs`, `network`, `disk`) is taken before the lock and given back while the lock has to be waited for;
//! whoever holds a lock therefore has a slot or is about to get one, and never waits for another lock.
//!
//! # Without the cache
//!
//! A step that must run whatever the records say (`no_cache`) may give another result each time. So the steps after it
//! are never found by definition, only by the content of what it made. Its result is recorded all the same.

mod dry;
mod flight;
mod plan;
mod run;
mod step;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::errors::in_one_line;
use crate::event::{Outcome, Reporter, Task};
use crate::explain::Reason;
use crate::graph::{Graph, Location, VertexId};
use crate::record::{Output, RecordStore};
use crate::worker::{StepError, Worker};

/// What bounds a solver.
#[derive(Debug, Clone)]
pub struct SolverOptions {
    /// RUN steps at the same time; at least 1.
    pub jobs: usize,
    /// Sources at the same time that are not local directories; at least 1.
    pub network: usize,
    /// File ops and content digests at the same time; at least 1.
    pub disk: usize,
    /// `--no-cache`: every step runs, local directories and images aside.
    pub no_cache: bool,
}

impl Default for SolverOptions {
    /// As many RUN steps as there are cores; 8 sources; twice as many file ops as cores, at least 4.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { jobs: cores, network: 8, disk: (2 * cores).max(4), no_cache: false }
    }
}

/// Runs graphs. Cheap to clone; clones share their bounds and the steps that are under way.
#[derive(Clone)]
pub struct Solver {
    shared: Arc<Shared>,
    reporter: Reporter,
}

struct Shared {
    worker: Arc<dyn Worker>,
    records: Arc<dyn RecordStore>,
    options: SolverOptions,
    exec: Arc<Semaphore>,
    network: Arc<Semaphore>,
    disk: Arc<Semaphore>,
    flights: Arc<flight::Flights>,
}

/// How often a solve starts over when files of the store turn out to be lost.
const MAX_RESTARTS: usize = 3;

/// A target that was reached.
#[derive(Debug, Clone)]
pub struct Solved {
    /// The target's output.
    pub output: Output,
    /// What became of each step that the target needs, in graph order.
    pub steps: Vec<StepReport>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Which.
    pub vertex: VertexId,
    /// Its name, as people see it.
    pub name: String,
    /// What became of it.
    pub state: StepState,
    /// When it started to do something.
    pub started: Option<SystemTime>,
    /// From then to its end.
    pub duration: Duration,
    /// How much of that it waited: for a slot, or for an equal step of somebody else.
    pub waited: Duration,
    /// Its definition key, once that was known.
    pub key: Option<Digest>,
    /// Why there was no result for it: what [`EventKind::Missed`](crate::event::EventKind::Missed) said.
    pub reasons: Vec<String>,
}

/// What can become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It had not started when the build ended.
    Pending,
    /// Its result was there, or that of something which needs it.
    Cached,
    /// There was nothing to run: a local directory, a merge.
    Done,
    /// Somebody else ran the same step at the same time.
    Shared,
    /// It was run.
    Ran,
    /// It failed.
    Failed,
    /// It was told to stop.
    Cancelled,
}

/// A target that was not reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot build {name}")]
pub struct SolveError {
    /// The step that failed first; the target if the build was cancelled.
    pub vertex: VertexId,
    /// Its name, as people see it.
    pub name: String,
    /// Where it stands.
    pub location: Option<Location>,
    /// Why.
    #[source]
    pub error: Arc<StepError>,
    /// The last 16 KiB that it wrote.
    pub log: Vec<u8>,
    /// What became of each step that the target needs, in graph order.
    pub steps: Vec<StepReport>,
}

impl Solver {
    /// A solver. Nothing is touched before something is solved.
    pub fn new(
        worker: Arc<dyn Worker>,
        records: Arc<dyn RecordStore>,
        options: SolverOptions,
        reporter: Reporter,
    ) -> Self {
        let slots = |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        let (exec, network, disk) = (slots(options.jobs), slots(options.network), slots(options.disk));
        let shared = Shared { worker, records, options, exec, network, disk, flights: Arc::default() };
        Self { shared: Arc::new(shared), reporter }
    }

    /// The same solver with its events going elsewhere: for several builds at once.
    #[must_use]
    pub fn with_reporter(&self, reporter: Reporter) -> Self {
        Self { shared: Arc::clone(&self.shared), reporter }
    }

    /// Gets the output of `target`. `on_output` is told of outputs as soon as they are there: of every step that ran
    /// or was looked up (see [`Graph::foundation`] for those whose layers the target has), inputs before their users.
    ///
    /// Must be called on a tokio runtime. Dropping the future cancels the build, without waiting for its end.
    ///
    /// # Errors
    ///
    /// [`SolveError`] with the first step that failed; all others have ended by then. [`StepError::Cancelled`] after
    /// `cancel`.
    pub async fn solve(
        &self,
        graph: Arc<Graph>,
        target: VertexId,
        cancel: CancellationToken,
        on_output: impl Fn(VertexId, &Output) + Send + Sync,
    ) -> Result<Solved, SolveError> {
        let mut restarts = 0;
        loop {
            match self.attempt(&graph, target, &cancel, &on_output).await {
                Err(error) if matches!(*error.error, StepError::Lost { .. }) && restarts < MAX_RESTARTS => {
                    restarts += 1
                }
                end => return end,
            }
        }
    }

    async fn attempt(
        &self,
        graph: &Arc<Graph>,
        target: VertexId,
        cancel: &CancellationToken,
        on_output: &(dyn Fn(VertexId, &Output) + Send + Sync),
    ) -> Result<Solved, SolveError> {
        let plan = plan::make(&self.shared, &self.reporter, graph, target, cancel)
            .await
            .map_err(|(id, failure)| failure.of(graph, id, Vec::new()))?;
        let run = Arc::new(run::Run::new(Arc::clone(&self.shared), plan, cancel.child_token()));
        // steps end with the solve, even where its future is dropped
        let _stop = run.cancel.clone().drop_guard();
        match run::run(&run, on_output).await {
            (steps, Ok(output)) => Ok(Solved { output: Output::clone(&output), steps }),
            (steps, Err(_)) if cancel.is_cancelled() => Err(Failure::cancelled().of(graph, target, steps)),
            (steps, Err((id, failure))) => Err(failure.of(graph, id, steps)),
        }
    }

    /// What [`solve`](Self::solve) would do, without running anything: for each step that the target needs, in graph
    /// order. Files are hashed and sources asked what they are, as far as keys need it.
    ///
    /// # Errors
    ///
    /// [`SolveError`] where a step's key can't be computed, as for a COPY of a file that is missing.
    pub async fn explain(
        &self,
        graph: Arc<Graph>,
        target: VertexId,
        cancel: CancellationToken,
    ) -> Result<Vec<StepExplanation>, SolveError> {
        let plan = plan::make(&self.shared, &Reporter::silent(), &graph, target, &cancel).await;
        let plan = plan.map_err(|(id, failure)| failure.of(&graph, id, Vec::new()))?;
        dry::explain(&self.shared, plan, &cancel)
            .await
            .map_err(|(id, failure)| failure.of(&graph, id, Vec::new()))
    }
}

/// Why a step, or a flight that several wait for, has no result.
#[derive(Debug, Clone)]
struct Failure {
    error: Arc<StepError>,
    log: Vec<u8>,
}

impl Failure {
    fn new(error: StepError) -> Self {
        Self { error: Arc::new(error), log: Vec::new() }
    }

    fn cancelled() -> Self {
        Self::new(StepError::Cancelled)
    }

    fn is_cancelled(&self) -> bool {
        matches!(*self.error, StepError::Cancelled)
    }

    /// Tells the task.
    fn end(&self, task: &Task) {
        task.finish(match &*self.error {
            StepError::Cancelled => Outcome::Cancelled,
            StepError::Lost { message } => {
                // mostly it goes well the second time; if not, the solve's error says so
                task.warn(message);
                Outcome::Cancelled
            }
            error => Outcome::Failed(in_one_line(error)),
        });
    }

    fn of(self, graph: &Graph, id: VertexId, steps: Vec<StepReport>) -> SolveError {
        let info = ((id.0 as usize) < graph.len()).then(|| &graph.vertex(id).info);
        SolveError {
            vertex: id,
            name: info.map_or_else(|| format!("step {}", id.0), |info| info.name.clone()),
            location: info.and_then(|info| info.location.clone()),
            error: self.error,
            log: self.log,
            steps,
        }
    }
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepExplanation {
    /// Which.
    pub vertex: VertexId,
    /// What would become of it.
    pub state: Forecast,
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forecast {
    /// Its result is there, or that of something which needs it.
    Cached,
    /// There is nothing to run: a local directory, a merge.
    Nothing,
    /// It would run: why.
    WouldRun(Vec<Reason>),
    /// That depends on what this step, which would run before it, makes.
    Depends(VertexId),
}
