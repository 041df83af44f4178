//! The plan of a solve: every key that can be known before anything ran, and what the records have for them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Failure, Shared};
use crate::digest::Digest;
use crate::errors::in_one_line;
use crate::event::{Reporter, Task, TaskInfo, TaskKind};
use crate::explain::Places;
use crate::graph::{Graph, Input, Usage, VertexId};
use crate::key::{self, DefinitionInput};
use crate::op::{Op, Selection, Source};
use crate::record::{Output, Record};
use crate::worker::{Content, Pinned, StepError};

/// What is known of a graph's steps before any of them ran. Lists are indexed by vertex; what the target does not
/// need is empty in them.
pub(super) struct Plan {
    pub(super) graph: Arc<Graph>,
    pub(super) target: VertexId,
    /// The steps that the target needs, inputs first.
    pub(super) needed: Vec<VertexId>,
    pub(super) steps: Vec<Option<Planned>>,
    pub(super) places: Places,
    /// Contents of local selections.
    contents: HashMap<(VertexId, Selection), Arc<Content>>,
}

/// What is known of one step.
pub(super) struct Planned {
    pub(super) task: Arc<Task>,
    pub(super) role: Role,
    pub(super) pin: Option<Pinned>,
    pub(super) definition: Digest,
    /// It, or something before it, runs whatever the records say: its definition key leads nowhere.
    pub(super) uncertain: bool,
    /// It runs whatever the records say.
    pub(super) no_cache: bool,
    /// What its definition key led to.
    pub(super) record: Option<Arc<Record>>,
}

/// How a step gets its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is a directory of the caller.
    Local,
    /// Its inputs' layers, one after the other.
    Merge,
    /// The worker makes it.
    Work,
}

impl Plan {
    pub(super) fn step(&self, id: VertexId) -> &Planned {
        // indexed by `needed` only, which `make` filled
        self.steps[id.0 as usize].as_ref().expect("a step that the target needs")
    }

    /// The content of a selection from a local directory; `None`: the input is no local directory.
    pub(super) fn local(&self, input: &Input) -> Option<&Arc<Content>> {
        (self.step(input.vertex).role == Role::Local)
            .then(|| self.contents.get(&(input.vertex, selection(&input.usage))))
            .flatten()
    }
}

/// What a usage selects of a directory.
pub(super) fn selection(usage: &Usage) -> Selection {
    match usage {
        Usage::Files(selection) => selection.clone(),
        Usage::Root => Selection { paths: vec![String::new()], ..Selection::default() },
    }
}

/// A local directory as an output.
fn local_output(op: &Op) -> Option<Output> {
    match op {
        Op::Source(Source::Local(local)) => {
            Some(Output::Local { name: local.name.clone(), ignore: local.ignore.clone().into() })
        }
        _ => None,
    }
}

enum Answer {
    Content(VertexId, Selection, Arc<Content>),
    Pin(VertexId, Pinned),
}

/// A question to the worker, and the step on whose behalf it is asked.
struct Question {
    asker: VertexId,
    answer: BoxFuture<'static, Result<Answer, StepError>>,
}

/// Announces the steps of `target`, asks what has to be asked, and looks all definition keys up at once. On failure
/// the tasks end, the failed one by name.
pub(super) async fn make(
    shared: &Arc<Shared>,
    reporter: &Reporter,
    graph: &Arc<Graph>,
    target: VertexId,
    cancel: &CancellationToken,
) -> Result<Plan, (VertexId, Failure)> {
    let needed = graph.needed(target);
    if needed.is_empty() {
        let message = format!("step {} is not in the graph", target.0);
        return Err((target, Failure::new(StepError::new(message))));
    }
    let mut steps: Vec<Option<Planned>> = Vec::new();
    steps.resize_with(target.0 as usize + 1, || None);
    for id in &needed {
        steps[id.0 as usize] = Some(announce(shared, reporter, graph, *id));
    }
    let plan = Plan {
        graph: Arc::clone(graph),
        target,
        places: Places::of(graph, &needed),
        needed,
        steps,
        contents: HashMap::new(),
    };
    fill(plan, shared, cancel).await
}

async fn fill(
    mut plan: Plan,
    shared: &Arc<Shared>,
    cancel: &CancellationToken,
) -> Result<Plan, (VertexId, Failure)> {
    let fail = |plan: &Plan, id: VertexId, error: StepError| {
        let task = &plan.step(id).task;
        let failure = Failure { error: Arc::new(error), log: task.log_tail() };
        failure.end(task);
        (id, failure)
    };
    let questions = match questions(&plan, shared) {
        Ok(questions) => questions,
        Err((id, error)) => return Err(fail(&plan, id, error)),
    };
    let answers = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err((plan.target, Failure::cancelled())),
        answers = ask(questions) => answers,
    };
    match answers {
        Ok(answers) => {
            for answer in answers {
                match answer {
                    Answer::Content(id, selection, content) => {
                        plan.contents.insert((id, selection), content);
                    }
                    Answer::Pin(id, pin) => {
                        if let Some(step) = &mut plan.steps[id.0 as usize] {
                            step.pin = Some(pin);
                        }
                    }
                }
            }
        }
        Err((id, error)) => return Err(fail(&plan, id, error)),
    }
    for id in plan.needed.clone() {
        define(&mut plan, id);
    }
    look_up(&mut plan, shared).await;
    Ok(plan)
}

fn announce(shared: &Shared, reporter: &Reporter, graph: &Graph, id: VertexId) -> Planned {
    let vertex = graph.vertex(id);
    // what has no name is not for people
    let silent;
    let reporter = if vertex.info.name.is_empty() {
        silent = Reporter::silent();
        &silent
    } else {
        reporter
    };
    let task = reporter.task(TaskInfo {
        name: vertex.info.name.clone(),
        kind: TaskKind::Step,
        vertex: Some(id),
        location: vertex.info.location.clone(),
    });
    let role = match &vertex.op {
        Op::Source(Source::Local(_)) => Role::Local,
        Op::Merge => Role::Merge,
        _ => Role::Work,
    };
    // an image is its diff IDs, whenever it is asked for
    let exempt = role != Role::Work || matches!(vertex.op, Op::Source(Source::Image(_)));
    Planned {
        task: Arc::new(task),
        role,
        pin: None,
        definition: Digest::from_bytes([0; 32]),
        uncertain: false,
        no_cache: !exempt && (vertex.info.no_cache || shared.options.no_cache),
        record: None,
    }
}

/// Everything that must be asked, each thing once, in graph order.
fn questions(plan: &Plan, shared: &Arc<Shared>) -> Result<Vec<Question>, (VertexId, StepError)> {
    let mut questions = Vec::new();
    let mut asked = HashMap::new();
    for id in &plan.needed {
        let vertex = plan.graph.vertex(*id);
        if let Op::Source(source) = &vertex.op
            && key::needs_pin(source)
        {
            let (shared, graph, task) =
                (Arc::clone(shared), Arc::clone(&plan.graph), Arc::clone(&plan.step(*id).task));
            let id = *id;
            let answer = async move {
                let Op::Source(source) = &graph.vertex(id).op else {
                    return Err(StepError::new("no source"));
                };
                let _slot = slot(&shared.network).await?;
                task.start();
                let pin = async { shared.worker.pin(source, &task).await };
                Ok(Answer::Pin(id, guard("asking what a source is", pin).await?))
            };
            questions.push(Question { asker: id, answer: answer.boxed() });
        }
        for input in &vertex.inputs {
            let from = plan.graph.vertex(input.vertex);
            let Some(output) = local_output(&from.op) else { continue };
            if matches!(vertex.op, Op::Merge | Op::Diff) {
                let message = format!(
                    "local directory `{}` can't be merged or compared: copy it first",
                    from.info.name
                );
                return Err((*id, StepError::new(message)));
            }
            let selection = selection(&input.usage);
            if asked.insert((input.vertex, selection.clone()), ()).is_some() {
                continue;
            }
            let (shared, task, local) =
                (Arc::clone(shared), Arc::clone(&plan.step(input.vertex).task), input.vertex);
            let answer = async move {
                let _slot = slot(&shared.disk).await?;
                task.start();
                let content = async { shared.worker.content(&output, &selection).await };
                let content = guard("reading files", content).await?;
                task.sized(content.bytes);
                Ok(Answer::Content(local, selection, Arc::new(content)))
            };
            questions.push(Question { asker: *id, answer: answer.boxed() });
        }
    }
    Ok(questions)
}

/// Asks them all side by side. Of several failures, that of the first step in graph order is the answer, so that two
/// builds of one mistake say the same.
async fn ask(questions: Vec<Question>) -> Result<Vec<Answer>, (VertexId, StepError)> {
    let mut running = JoinSet::new();
    let mut first: Option<(usize, VertexId, StepError)> = None;
    let mut waiting = Vec::new();
    for (number, question) in questions.into_iter().enumerate() {
        let asker = question.asker;
        waiting.push(running.spawn(async move { (number, asker, question.answer.await) }));
    }
    let mut answers = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((_, _, Ok(answer))) => answers.push(answer),
            Ok((number, asker, Err(error))) => {
                if first.as_ref().is_none_or(|(other, ..)| number < *other) {
                    first = Some((number, asker, error));
                    // only what comes before it in the graph can still change the answer
                    waiting.iter().skip(number + 1).for_each(tokio::task::AbortHandle::abort);
                }
            }
            // aborted just above; panics were caught inside
            Err(_) => {}
        }
    }
    match first {
        Some((_, asker, error)) => Err((asker, error)),
        None => Ok(answers),
    }
}

fn define(plan: &mut Plan, id: VertexId) {
    let vertex = plan.graph.vertex(id);
    let mut uncertain = plan.step(id).no_cache;
    let inputs: Vec<DefinitionInput<'_>> = vertex
        .inputs
        .iter()
        .map(|input| match plan.local(input) {
            Some(content) => DefinitionInput::Local(&input.usage, content.digest),
            None => {
                let step = plan.step(input.vertex);
                uncertain |= step.uncertain;
                DefinitionInput::Step(&input.usage, step.definition)
            }
        })
        .collect();
    let pin = plan.step(id).pin.as_ref().map(|pin| pin.key);
    let definition = key::definition(&vertex.op, pin, &inputs);
    if let Some(step) = &mut plan.steps[id.0 as usize] {
        step.definition = definition;
        step.uncertain = uncertain;
    }
}

/// One look into the records for everything.
async fn look_up(plan: &mut Plan, shared: &Arc<Shared>) {
    let wanted: Vec<VertexId> = plan
        .needed
        .iter()
        .copied()
        .filter(|id| plan.step(*id).role == Role::Work && !plan.step(*id).uncertain)
        .collect();
    if wanted.is_empty() {
        return;
    }
    let keys: Vec<Digest> = wanted.iter().map(|id| plan.step(*id).definition).collect();
    let records = Arc::clone(&shared.records);
    match blocking(move || records.find(&keys)).await {
        Ok(found) => {
            for (id, record) in wanted.into_iter().zip(found) {
                if let Some(step) = &mut plan.steps[id.0 as usize] {
                    step.record = record.map(Arc::new);
                }
            }
        }
        Err(error) => {
            let reason = in_one_line(error.as_ref());
            plan.step(plan.target).task.warn(format!("records can't be read, so every step runs: {reason}"));
        }
    }
}

/// The output of a local directory, for the steps that use it.
pub(super) fn output_of_local(graph: &Graph, id: VertexId) -> Option<Output> {
    local_output(&graph.vertex(id).op)
}

/// A slot of a semaphore. It is never closed.
pub(super) async fn slot(slots: &Arc<Semaphore>) -> Result<tokio::sync::OwnedSemaphorePermit, StepError> {
    Arc::clone(slots).acquire_owned().await.map_err(|_| StepError::Cancelled)
}

/// A call of the worker whose panic becomes an error.
pub(super) async fn guard<T>(
    what: &str,
    call: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            Err(StepError::new(format!("{what} ended in a defect of this program: {}", panic_text(&*panic))))
        }
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}

/// A call of the record store, on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, crate::record::RecordError> + Send + 'static,
) -> Result<T, crate::record::RecordError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(error.into()),
    }
}
