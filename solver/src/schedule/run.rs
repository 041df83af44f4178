//! The loop that hands out work: it knows what each step still waits for, and nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan, Role};
use super::step::{self, Ended};
use super::{Failure, Shared, StepReport, StepState};
use crate::event::Outcome;
use crate::graph::VertexId;
use crate::op::Op;
use crate::record::{Output, Snapshot};

/// A plan that is being carried out.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) plan: Plan,
    /// Stops this solve, and nothing of others.
    pub(super) cancel: CancellationToken,
    commands_to_come: AtomicUsize,
}

impl Run {
    pub(super) fn new(shared: Arc<Shared>, plan: Plan, cancel: CancellationToken) -> Self {
        Self { shared, plan, cancel, commands_to_come: AtomicUsize::new(0) }
    }

    fn is_command(&self, id: VertexId) -> bool {
        matches!(self.plan.graph.vertex(id).op, Op::Exec(_))
    }

    /// To be told when a step is run, or hits when its turn comes; how many others may still run a command.
    pub(super) fn no_longer_to_come(&self, id: VertexId) -> usize {
        if !self.is_command(id) {
            return self.commands_to_come.load(Ordering::Relaxed);
        }
        let less = |count: usize| Some(count.saturating_sub(1));
        let before = self.commands_to_come.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or_default().saturating_sub(1)
    }
}

/// What the loop knows. Lists are indexed by vertex.
struct Board<'a> {
    run: &'a Arc<Run>,
    on_output: &'a (dyn Fn(VertexId, &Output) + Send + Sync),
    outputs: Vec<Option<Arc<Output>>>,
    /// How many inputs a step still waits for.
    missing: Vec<usize>,
    users: Vec<Vec<VertexId>>,
    /// How many steps still need an output; nothing is kept that nobody needs.
    uses: Vec<usize>,
    reports: Vec<Option<StepReport>>,
    ready: Vec<VertexId>,
}

/// Carries the plan out. When it returns, nothing of it runs any more.
pub(super) async fn run(
    run: &Arc<Run>,
    on_output: &(dyn Fn(VertexId, &Output) + Send + Sync),
) -> (Vec<StepReport>, Result<Arc<Output>, (VertexId, Failure)>) {
    let mut board = Board::new(run, on_output);
    // Polled here: what takes long has threads of its own, and a task each would only add two changes of thread.
    let mut working = FuturesUnordered::new();
    let mut failed: Option<(VertexId, Failure)> = None;
    board.settle();
    loop {
        while failed.is_none()
            && let Some(id) = board.ready.pop()
        {
            let inputs = board.take_inputs(id);
            if run.plan.step(id).role == Role::Merge {
                let output = merge(&inputs);
                run.plan.step(id).task.finish(Outcome::Done);
                board.report(id, StepState::Done);
                board.has_output(id, output);
            } else {
                let step = AssertUnwindSafe(step::step(Arc::clone(run), id, inputs));
                working.push(step.catch_unwind().map(move |ended| ended.map_err(|panic| (id, panic))));
            }
        }
        let Some(ended) = working.next().await else { break };
        match ended {
            Ok(ended) => {
                let id = ended.id;
                let result = board.ended(ended);
                match result {
                    Ok(output) => board.has_output(id, output),
                    Err(failure) => {
                        // what was only told to stop is not the reason
                        if failed
                            .as_ref()
                            .is_none_or(|(_, known)| known.is_cancelled() && !failure.is_cancelled())
                        {
                            failed = Some((id, failure));
                        }
                        run.cancel.cancel();
                    }
                }
            }
            Err((id, panic)) => {
                let text = plan::panic_text(&*panic);
                let error = crate::worker::StepError::new(format!(
                    "a step ended in a defect of this program: {text}"
                ));
                failed.get_or_insert((id, Failure::new(error)));
                run.cancel.cancel();
            }
        }
    }
    // a flight that another solve still needs keeps this plan; nobody is to wait for its tasks
    for id in &run.plan.needed {
        run.plan.step(*id).task.finish(Outcome::Cancelled);
    }
    let target = board.outputs[run.plan.target.0 as usize].take();
    let result = match (target, failed) {
        (Some(output), None) => Ok(output),
        (_, Some(failed)) => Err(failed),
        (None, None) => Err((run.plan.target, Failure::cancelled())),
    };
    (board.reports.into_iter().flatten().collect(), result)
}

/// Which outputs are wanted: from the target down as far as there are no results. Indexed by vertex.
pub(super) fn wanted(plan: &Plan) -> Vec<bool> {
    let mut wanted = vec![false; plan.steps.len()];
    wanted[plan.target.0 as usize] = true;
    for id in plan.needed.iter().rev().filter(|id| plan.step(**id).record.is_none()) {
        if wanted[id.0 as usize] {
            plan.graph.vertex(*id).inputs.iter().for_each(|input| wanted[input.vertex.0 as usize] = true);
        }
    }
    wanted
}

/// All layers of all inputs, first input lowest.
pub(super) fn merge(inputs: &[Arc<Output>]) -> Arc<Output> {
    let layers = inputs.iter().flat_map(|input| match &**input {
        Output::Snapshot(snapshot) => snapshot.layers.clone(),
        // refused when the plan was made
        Output::Local { .. } => Vec::new(),
    });
    Arc::new(Output::Snapshot(Snapshot { layers: layers.collect() }))
}

impl<'a> Board<'a> {
    fn new(run: &'a Arc<Run>, on_output: &'a (dyn Fn(VertexId, &Output) + Send + Sync)) -> Self {
        let size = run.plan.steps.len();
        Self {
            run,
            on_output,
            outputs: vec![None; size],
            missing: vec![0; size],
            users: vec![Vec::new(); size],
            uses: vec![0; size],
            reports: vec![None; size],
            ready: Vec::new(),
        }
    }

    /// Ends the tasks of everything that is not to run, and counts what the others wait for.
    fn settle(&mut self) {
        let plan = &self.run.plan;
        let wanted = wanted(plan);
        for id in &plan.needed {
            let (step, wanted) = (plan.step(*id), wanted[id.0 as usize]);
            match (step.role, &step.record) {
                (Role::Local, _) => {
                    step.task.finish(Outcome::Done);
                    self.report(*id, StepState::Done);
                    if wanted {
                        self.outputs[id.0 as usize] = plan::output_of_local(&plan.graph, *id).map(Arc::new);
                    }
                }
                (_, Some(record)) if wanted => {
                    step.task.cached();
                    self.report(*id, StepState::Cached);
                    let output = Output::Snapshot(record.output.clone());
                    (self.on_output)(*id, &output);
                    self.outputs[id.0 as usize] = Some(Arc::new(output));
                }
                _ if !wanted => {
                    step.task.cached();
                    self.report(*id, StepState::Cached);
                }
                _ => {
                    self.report(*id, StepState::Pending);
                    if self.run.is_command(*id) {
                        self.run.commands_to_come.fetch_add(1, Ordering::Relaxed);
                    }
                    for input in &plan.graph.vertex(*id).inputs {
                        let from = input.vertex.0 as usize;
                        self.uses[from] += 1;
                        if self.outputs[from].is_none() {
                            self.users[from].push(*id);
                            self.missing[id.0 as usize] += 1;
                        }
                    }
                    if self.missing[id.0 as usize] == 0 {
                        self.ready.push(*id);
                    }
                }
            }
        }
        // taken from the end: first come, first served
        self.ready.reverse();
    }

    fn report(&mut self, id: VertexId, state: StepState) {
        let step = self.run.plan.step(id);
        self.reports[id.0 as usize] = Some(StepReport {
            vertex: id,
            name: self.run.plan.graph.vertex(id).info.name.clone(),
            state,
            started: None,
            duration: Duration::ZERO,
            waited: Duration::ZERO,
            key: Some(step.definition),
            reasons: Vec::new(),
        });
    }

    /// The inputs of a step that is to run; what nobody else needs is let go.
    fn take_inputs(&mut self, id: VertexId) -> Vec<Arc<Output>> {
        let inputs = &self.run.plan.graph.vertex(id).inputs;
        let taken = inputs.iter().filter_map(|input| self.outputs[input.vertex.0 as usize].clone()).collect();
        for input in inputs {
            let from = input.vertex.0 as usize;
            self.uses[from] = self.uses[from].saturating_sub(1);
            if self.uses[from] == 0 {
                self.outputs[from] = None;
            }
        }
        taken
    }

    fn has_output(&mut self, id: VertexId, output: Arc<Output>) {
        (self.on_output)(id, &output);
        self.outputs[id.0 as usize] = Some(output);
        for user in std::mem::take(&mut self.users[id.0 as usize]) {
            let missing = &mut self.missing[user.0 as usize];
            *missing -= 1;
            if *missing == 0 {
                self.ready.push(user);
            }
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<Arc<Output>, Failure> {
        if matches!(ended.state, StepState::Cached | StepState::Shared) {
            self.run.no_longer_to_come(ended.id);
        }
        if let Some(report) = &mut self.reports[ended.id.0 as usize] {
            report.state = ended.state;
            report.started = ended.notes.started;
            report.duration = ended.duration;
            report.waited = ended.notes.waited;
            report.reasons = ended.notes.reasons.iter().map(ToString::to_string).collect();
        }
        ended.result
    }
}
