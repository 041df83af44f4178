//! One step whose inputs are there: found by content, joined, or run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::flight::{Cockpit, Landed};
use super::plan::{guard, selection, slot};
use super::run::Run;
use super::{Failure, StepState};
use crate::digest::Digest;
use crate::errors::in_one_line;
use crate::event::{Outcome, Task};
use crate::explain::{self, InputContent, KeyParts, Reason};
use crate::graph::{Input, Usage, VertexId};
use crate::key::{self, ContentInput};
use crate::op::Op;
use crate::record::{KeyGuard, Output, Record, RecordError, RecordStore};
use crate::worker::{Content, Job, StepError};

/// How many earlier records a step is compared with.
pub(super) const FAMILY: usize = 8;

/// A step that ended.
pub(super) struct Ended {
    pub(super) id: VertexId,
    pub(super) result: Result<Arc<Output>, Failure>,
    pub(super) state: StepState,
    pub(super) duration: Duration,
    pub(super) notes: Notes,
}

/// What is told of a step afterwards.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) started: Option<SystemTime>,
    pub(super) waited: Duration,
    pub(super) reasons: Vec<Reason>,
}

/// What is known of an input's content.
#[derive(Clone)]
pub(super) enum Known {
    Files(Arc<Content>),
    Chain(Digest),
}

impl Known {
    fn files(&self) -> Option<Arc<Content>> {
        match self {
            Self::Files(content) => Some(Arc::clone(content)),
            Self::Chain(_) => None,
        }
    }

    pub(super) fn part(&self) -> InputContent<'_> {
        match self {
            Self::Files(content) => InputContent::Files(content),
            Self::Chain(digest) => InputContent::Chain(*digest),
        }
    }
}

/// Gets the output of a step.
pub(super) async fn step(run: Arc<Run>, id: VertexId, inputs: Vec<Arc<Output>>) -> Ended {
    let task = Arc::clone(&run.plan.step(id).task);
    let begun = Instant::now();
    let notes = Arc::new(Mutex::new(Notes { started: Some(SystemTime::now()), ..Notes::default() }));
    let (state, result) = match obtain(&run, id, inputs, &notes).await {
        Ok((landed, joined)) => {
            let state = match (landed.ran, joined) {
                (true, false) => StepState::Ran,
                (true, true) => StepState::Shared,
                (false, _) => StepState::Cached,
            };
            if state == StepState::Ran {
                task.finish(Outcome::Done)
            } else {
                task.cached()
            }
            (state, Ok(landed.output))
        }
        Err(failure) => {
            failure.end(&task);
            (if failure.is_cancelled() { StepState::Cancelled } else { StepState::Failed }, Err(failure))
        }
    };
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ended { id, result, state, duration: begun.elapsed(), notes }
}

/// The result, and whether it came with a flight of somebody else.
async fn obtain(
    run: &Arc<Run>,
    id: VertexId,
    inputs: Vec<Arc<Output>>,
    notes: &Arc<Mutex<Notes>>,
) -> Result<(Landed, bool), Failure> {
    let step = run.plan.step(id);
    let known = tokio::select! {
        biased;
        () = run.cancel.cancelled() => return Err(Failure::cancelled()),
        known = contents(run, id, &inputs) => known.map_err(|error| Failure { error: Arc::new(error), log: step.task.log_tail() })?,
    };
    let key = content_key(run, id, &known).unwrap_or(step.definition);
    let flying = Flying { run: Arc::clone(run), id, inputs, known, key, notes: Arc::clone(notes) };
    // Without inputs from other steps, the plan has looked already; where a slot is free, the look under the lock
    // is soon enough. What is there already must not wait for a slot.
    if !step.no_cache
        && key != step.definition
        && flying.slots().available_permits() == 0
        && let Some(landed) = flying.waiting(Flying::look_up).await.flatten()
    {
        return Ok((landed, false));
    }
    let (ticket, cockpit) = run.shared.flights.enter((key, step.no_cache));
    let joined = cockpit.is_none();
    match cockpit {
        Some(cockpit) => {
            // Mostly its turn comes at once, and it is handed to its thread from here.
            let mut flight = Box::pin(flying.fly(cockpit));
            if (&mut flight).now_or_never().is_none() {
                tokio::spawn(flight);
            }
        }
        None => {
            step.task.waiting("an equal step, which is running already");
            let begun = Instant::now();
            let landed = ticket.ride(&run.cancel).await?;
            flying.note(|notes| notes.waited += begun.elapsed());
            if landed.definition != step.definition
                && let Some(record) = landed.record.clone()
            {
                flying.waiting(move |flying| flying.register(Record::clone(&record))).await;
            }
            return Ok((landed, true));
        }
    }
    Ok((ticket.ride(&run.cancel).await?, joined))
}

/// The content of each input, as the step uses it.
async fn contents(run: &Run, id: VertexId, inputs: &[Arc<Output>]) -> Result<Vec<Known>, StepError> {
    let mut known = Vec::with_capacity(inputs.len());
    for (input, output) in run.plan.graph.vertex(id).inputs.iter().zip(inputs) {
        known.push(content(run, id, input, output).await?);
    }
    Ok(known)
}

/// The content of one input of a step.
pub(super) async fn content(
    run: &Run,
    id: VertexId,
    input: &Input,
    output: &Output,
) -> Result<Known, StepError> {
    if let Some(content) = run.plan.local(input) {
        return Ok(Known::Files(Arc::clone(content)));
    }
    match (output, &input.usage) {
        (Output::Snapshot(snapshot), Usage::Root) => Ok(Known::Chain(key::chain(snapshot))),
        // nothing need be read to know that all of it is the same
        (Output::Snapshot(snapshot), Usage::Files(files)) if key::selects_everything(files) => {
            Ok(Known::Chain(key::chain(snapshot)))
        }
        (output, usage) => {
            let selection = selection(usage);
            let _slot = slot(&run.shared.disk).await?;
            run.plan.step(id).task.start();
            let content = async { run.shared.worker.content(output, &selection).await };
            Ok(Known::Files(Arc::new(guard("reading files", content).await?)))
        }
    }
}

/// The content key; `None` where no input comes from another step, so that the definition says it all.
pub(super) fn content_key(run: &Run, id: VertexId, known: &[Known]) -> Option<Digest> {
    let vertex = run.plan.graph.vertex(id);
    if vertex.inputs.iter().all(|input| run.plan.local(input).is_some()) {
        return None;
    }
    let inputs: Vec<ContentInput<'_>> = vertex
        .inputs
        .iter()
        .zip(known)
        .map(|(input, known)| match known {
            Known::Files(content) => ContentInput::Files(&input.usage, content.digest),
            Known::Chain(digest) => ContentInput::Chain(&input.usage, *digest),
        })
        .collect();
    Some(key::content(&vertex.op, &inputs))
}

/// A step with everything that its run needs.
#[derive(Clone)]
struct Flying {
    run: Arc<Run>,
    id: VertexId,
    inputs: Vec<Arc<Output>>,
    known: Vec<Known>,
    /// The content key.
    key: Digest,
    notes: Arc<Mutex<Notes>>,
}

impl Flying {
    fn task(&self) -> &Arc<Task> {
        &self.run.plan.step(self.id).task
    }

    fn definition(&self) -> Digest {
        self.run.plan.step(self.id).definition
    }

    fn parts(&self) -> KeyParts {
        let inputs: Vec<InputContent<'_>> = self.known.iter().map(Known::part).collect();
        KeyParts::of(&self.run.plan.graph, self.id, self.run.plan.step(self.id).pin.as_ref(), &inputs)
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn warn(&self, what: &str, error: &RecordError) {
        self.task().warn(format!("{what}: {}", in_one_line(error.as_ref())));
    }

    /// Calls the record store on a thread that may wait. `None`: that ended in a defect of this program.
    async fn waiting<T: Send + 'static>(&self, call: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let flying = self.clone();
        match tokio::task::spawn_blocking(move || call(&flying)).await {
            Ok(result) => Some(result),
            Err(error) => {
                self.warn("records can't be used", &error.into());
                None
            }
        }
    }

    /// Looks the content key up; what is found is from now on found by definition, too.
    fn look_up(&self) -> Option<Landed> {
        match self.run.shared.records.find(&[self.key]) {
            Ok(found) => Some(self.found(found.into_iter().next().flatten()?)),
            Err(error) => {
                self.warn("records can't be read, so the step runs", &error);
                None
            }
        }
    }

    fn found(&self, record: Record) -> Landed {
        let record = self.register(record);
        let output = Arc::new(Output::Snapshot(record.output.clone()));
        Landed { output, record: Some(Arc::new(record)), definition: self.definition(), ran: false }
    }

    /// Lets this step's keys lead to a result that was made under others.
    fn register(&self, mut record: Record) -> Record {
        record.family = explain::family(self.run.plan.graph.vertex(self.id));
        record.parts = self.parts().encode();
        self.put(&record);
        record
    }

    fn put(&self, record: &Record) {
        let mut keys = vec![self.definition()];
        if self.key != self.definition() {
            keys.push(self.key);
        }
        keys.extend(self.run.plan.places.get(self.id));
        if let Err(error) = self.run.shared.records.put(&keys, record) {
            self.warn("the result can't be recorded, so the step will run again next time", &error);
        }
    }

    /// Runs the step for everybody who is aboard.
    ///
    /// All that is held here is let go before anybody hears of the end: the process may end at that, and a store that was
    /// not let go leaves what it was writing to the next process.
    ///
    /// Waits for its turn, which holds no thread; what follows looks into the records, runs and writes, and has a
    /// thread that may wait for all of it: changing threads at each of them costs more than the solver's own work.
    async fn fly(self, cockpit: Cockpit) {
        let Cockpit { cancel, landing } = cockpit;
        let begun = Instant::now();
        let turn = async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(StepError::Cancelled),
                turn = self.take_turn() => turn,
            }
        };
        let turn = match guard("a step", turn).await {
            Ok(turn) => turn,
            Err(error) => {
                let failure = self.failure(error);
                drop(self);
                landing.send_replace(Some(Err(failure)));
                return;
            }
        };
        self.note(|notes| notes.waited += begun.elapsed());
        let runtime = tokio::runtime::Handle::current();
        // whoever waits hears from that thread; if it never runs, the dropped sender says so
        tokio::task::spawn_blocking(move || {
            let landed = runtime.block_on(guard("a step", self.make(&cancel)));
            let landed = landed.map_err(|error| self.failure(error));
            drop((turn, self));
            landing.send_replace(Some(landed));
        });
    }

    fn failure(&self, error: StepError) -> Failure {
        Failure { error: Arc::new(error), log: self.task().log_tail() }
    }

    /// Under the lock, on a thread of its own.
    async fn make(&self, cancel: &CancellationToken) -> Result<Landed, StepError> {
        let no_cache = self.run.plan.step(self.id).no_cache;
        let parts = self.parts();
        let reasons = match self.look_again(no_cache, &parts) {
            Ok(Again::Found(record)) => return Ok(self.found(*record)),
            Ok(Again::Missed(reasons)) => reasons,
            Err(error) => {
                self.warn("records can't be read, so the step runs", &error);
                Vec::new()
            }
        };
        if cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        self.task().start();
        if !reasons.is_empty() {
            self.task().missed(reasons.iter().map(ToString::to_string).collect());
            self.note(|notes| notes.reasons = reasons);
        }
        let begun = Instant::now();
        let created = SystemTime::now();
        let output = Arc::new(self.work(cancel).await?);
        let duration = begun.elapsed();
        let record = match &*output {
            Output::Snapshot(snapshot) => {
                let record = Record {
                    output: snapshot.clone(),
                    family: explain::family(self.run.plan.graph.vertex(self.id)),
                    parts: parts.encode(),
                    created_ms: millis(created.duration_since(UNIX_EPOCH).unwrap_or_default()),
                    duration_ms: millis(duration),
                };
                self.put(&record);
                Some(Arc::new(record))
            }
            Output::Local { .. } => None,
        };
        Ok(Landed { output, record, definition: self.definition(), ran: true })
    }

    async fn work(&self, cancel: &CancellationToken) -> Result<Output, StepError> {
        let job = Job {
            vertex: self.run.plan.graph.vertex(self.id),
            inputs: self.inputs.iter().map(|input| Output::clone(input)).collect(),
            contents: self.known.iter().map(Known::files).collect(),
            pinned: self.run.plan.step(self.id).pin.as_ref(),
            commands_to_come: self.run.no_longer_to_come(self.id),
            task: self.task(),
            cancel: cancel.clone(),
        };
        self.run.shared.worker.run(job).await
    }

    /// A slot and the key's lock. The slot is not kept from others while somebody else has the lock.
    async fn take_turn(&self) -> Result<(OwnedSemaphorePermit, Option<Box<dyn KeyGuard>>), StepError> {
        let slots = self.slots();
        let mut taken = Some(slot(slots).await?);
        let has_to_wait = Notify::new();
        let waiting = |whom: String| {
            self.task().waiting(format!("{whom}, which runs an equal step"));
            has_to_wait.notify_one();
        };
        let lock = self.run.shared.records.lock(self.key, &waiting);
        tokio::pin!(lock);
        let locked = tokio::select! {
            biased;
            locked = &mut lock => locked,
            () = has_to_wait.notified() => {
                taken = None;
                lock.await
            }
        };
        let guard = match locked {
            Ok(guard) => Some(guard),
            Err(error) => {
                self.warn("the step can't be locked, so another build may run it, too", &error);
                None
            }
        };
        let taken = match taken {
            Some(taken) => taken,
            None => slot(slots).await?,
        };
        Ok((taken, guard))
    }

    fn slots(&self) -> &Arc<Semaphore> {
        let shared = &self.run.shared;
        match self.run.plan.graph.vertex(self.id).op {
            Op::Exec(_) => &shared.exec,
            Op::Source(_) => &shared.network,
            Op::File(_) | Op::Merge | Op::Diff => &shared.disk,
        }
    }

    /// Under the lock: somebody else may have made it while this step waited. If not: why is there no result?
    fn look_again(&self, no_cache: bool, parts: &KeyParts) -> Result<Again, RecordError> {
        if no_cache {
            return Ok(Again::Missed(vec![Reason::NoCache]));
        }
        let records = &*self.run.shared.records;
        if let Some(record) = records.find(&[self.key])?.into_iter().next().flatten() {
            return Ok(Again::Found(Box::new(record)));
        }
        let family = explain::family(self.run.plan.graph.vertex(self.id));
        Ok(Again::Missed(why(records, family, self.run.plan.places.get(self.id), parts)?))
    }
}

/// What a second look found.
enum Again {
    Found(Box<Record>),
    Missed(Vec<Reason>),
}

/// Compares with the records of the same instruction, or else with the last one from the same place.
pub(super) fn why(
    records: &dyn RecordStore,
    family: Digest,
    place: Option<Digest>,
    parts: &KeyParts,
) -> Result<Vec<Reason>, RecordError> {
    let mut earlier = records.family(family, FAMILY)?;
    if earlier.is_empty()
        && let Some(place) = place
    {
        earlier.extend(records.find(&[place])?.into_iter().flatten());
    }
    Ok(explain::explain(&earlier, parts))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
