//! What a solve would do, without running anything.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan, Role, blocking};
use super::run::{Run, merge, wanted};
use super::step::{Known, content, content_key, why};
use super::{Failure, Forecast, Shared, StepExplanation};
use crate::digest::Digest;
use crate::errors::in_one_line;
use crate::explain::{self, InputContent, KeyParts, Reason};
use crate::graph::VertexId;
use crate::record::Output;
use crate::worker::StepError;

/// Among how many records of an instruction a result may be that nothing known speaks against.
const LOOKED_AT: usize = 100;

/// What is known of a step's output.
#[derive(Clone)]
enum Prospect {
    /// This is it.
    There(Arc<Output>),
    /// It hangs on this step, which would run.
    Hangs(VertexId),
}

pub(super) async fn explain(
    shared: &Arc<Shared>,
    plan: Plan,
    cancel: &CancellationToken,
) -> Result<Vec<StepExplanation>, (VertexId, Failure)> {
    let run = Run::new(Arc::clone(shared), plan, cancel.child_token());
    let wanted = wanted(&run.plan);
    let mut prospects: Vec<Option<Prospect>> = vec![None; run.plan.steps.len()];
    let mut explanations = Vec::with_capacity(run.plan.needed.len());
    for id in run.plan.needed.iter().copied() {
        let step = run.plan.step(id);
        let (state, prospect) = if step.role == Role::Local {
            let output = plan::output_of_local(&run.plan.graph, id);
            (Forecast::Nothing, output.map(|output| Prospect::There(Arc::new(output))))
        } else if !wanted[id.0 as usize] {
            (Forecast::Cached, None)
        } else if let Some(record) = &step.record {
            let output = Output::Snapshot(record.output.clone());
            (Forecast::Cached, Some(Prospect::There(Arc::new(output))))
        } else {
            let looked = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(StepError::Cancelled),
                looked = look(&run, id, &prospects) => looked,
            };
            let (state, prospect) = looked.map_err(|error| (id, Failure::new(error)))?;
            (state, Some(prospect))
        };
        prospects[id.0 as usize] = prospect;
        explanations.push(StepExplanation { vertex: id, state });
    }
    Ok(explanations)
}

/// What would become of a step that its definition does not find.
async fn look(
    run: &Run,
    id: VertexId,
    prospects: &[Option<Prospect>],
) -> Result<(Forecast, Prospect), StepError> {
    let step = run.plan.step(id);
    let vertex = run.plan.graph.vertex(id);
    let inputs: Vec<Option<&Prospect>> =
        vertex.inputs.iter().map(|input| prospects[input.vertex.0 as usize].as_ref()).collect();
    let hangs = inputs.iter().find_map(|prospect| match prospect {
        Some(Prospect::Hangs(on)) => Some(*on),
        _ => None,
    });
    if step.role == Role::Merge {
        return Ok(match hangs {
            Some(on) => (Forecast::Depends(on), Prospect::Hangs(on)),
            None => {
                let outputs: Vec<Arc<Output>> = inputs.into_iter().filter_map(there).collect();
                (Forecast::Nothing, Prospect::There(merge(&outputs)))
            }
        });
    }
    let mut known: Vec<Option<Known>> = Vec::with_capacity(inputs.len());
    for (input, prospect) in vertex.inputs.iter().zip(&inputs) {
        known.push(match there(*prospect) {
            Some(output) => Some(content(run, id, input, &output).await?),
            None => None,
        });
    }
    let all: Option<Vec<Known>> = known.iter().cloned().collect();
    if let Some(all) = all
        && !step.no_cache
        && let Some(key) = content_key(run, id, &all)
        && let Some(output) = find(run, key).await?
    {
        return Ok((Forecast::Cached, Prospect::There(output)));
    }
    let Missing { reasons, may_be_there } = missing(run, id, &known).await?;
    // nothing that is known speaks against a hit
    if let Some(on) = hangs.filter(|_| may_be_there) {
        return Ok((Forecast::Depends(on), Prospect::Hangs(on)));
    }
    Ok((Forecast::WouldRun(reasons), Prospect::Hangs(id)))
}

fn there(prospect: Option<&Prospect>) -> Option<Arc<Output>> {
    match prospect {
        Some(Prospect::There(output)) => Some(Arc::clone(output)),
        _ => None,
    }
}

async fn find(run: &Run, key: Digest) -> Result<Option<Arc<Output>>, StepError> {
    let records = Arc::clone(&run.shared.records);
    let found = blocking(move || records.find(&[key])).await.map_err(unreadable)?;
    Ok(found.into_iter().next().flatten().map(|record| Arc::new(Output::Snapshot(record.output))))
}

/// What speaks for a run.
struct Missing {
    /// The differences to the nearest record, as a build would say them.
    reasons: Vec<Reason>,
    /// Is there a record, not necessarily the nearest, that has all that is known?
    may_be_there: bool,
}

async fn missing(run: &Run, id: VertexId, known: &[Option<Known>]) -> Result<Missing, StepError> {
    let step = run.plan.step(id);
    if step.no_cache {
        return Ok(Missing { reasons: vec![Reason::NoCache], may_be_there: false });
    }
    let inputs: Vec<InputContent<'_>> =
        known.iter().map(|known| known.as_ref().map_or(InputContent::Unknown, Known::part)).collect();
    let parts = KeyParts::of(&run.plan.graph, id, step.pin.as_ref(), &inputs);
    let family = explain::family(run.plan.graph.vertex(id));
    let (records, place) = (Arc::clone(&run.shared.records), run.plan.places.get(id));
    blocking(move || {
        let reasons = why(&*records, family, place, &parts)?;
        let may_be_there = explain::may_be_among(&records.family(family, LOOKED_AT)?, &parts);
        Ok(Missing { reasons, may_be_there })
    })
    .await
    .map_err(unreadable)
}

fn unreadable(error: crate::record::RecordError) -> StepError {
    StepError::new(format!("records can't be read: {}", in_one_line(error.as_ref())))
}
