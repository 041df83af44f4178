//! What a build would do, and why, without doing it.

use std::sync::Arc;

use bricklayer_solver::event::Reporter;
use bricklayer_solver::explain::Reason;
use bricklayer_solver::graph::Location;
use bricklayer_solver::schedule::Forecast;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use tokio_util::sync::CancellationToken;

use super::{Builder, input};
use crate::error::Error;
use crate::request::BuildRequest;

/// What a build would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// Each step that the target needs, inputs before those that use them.
    pub steps: Vec<ExplainedStep>,
    /// Warnings about the Dockerfile, rendered for people without colours.
    pub warnings: Vec<String>,
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedStep {
    /// Its number in the graph: the same as in a graph that a build writes.
    pub id: u32,
    /// Its name: `[build 2/5] RUN make`.
    pub name: String,
    /// The stage it belongs to; empty for steps that belong to none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// What would become of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fate {
    /// Its result is there, or that of something which needs it.
    Cached,
    /// There is nothing to run: a local directory, a merge.
    Nothing,
    /// It would run: why.
    WouldRun(Vec<Reason>),
    /// It would run unless the step of this number, which would run before it, makes what it made last time.
    Depends(u32),
}

impl Serialize for Fate {
    /// `state`, and with it `reasons` (each with its `text`) or `dependsOn`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Said<'a> {
            text: String,
            #[serde(flatten)]
            reason: &'a Reason,
        }
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Cached => map.serialize_entry("state", "cached")?,
            Self::Nothing => map.serialize_entry("state", "nothing")?,
            Self::WouldRun(reasons) => {
                map.serialize_entry("state", "would-run")?;
                let said: Vec<Said<'_>> =
                    reasons.iter().map(|reason| Said { text: reason.to_string(), reason }).collect();
                map.serialize_entry("reasons", &said)?;
            }
            Self::Depends(on) => {
                map.serialize_entry("state", "depends")?;
                map.serialize_entry("dependsOn", on)?;
            }
        }
        map.end()
    }
}

impl From<Forecast> for Fate {
    fn from(forecast: Forecast) -> Self {
        match forecast {
            Forecast::Cached => Self::Cached,
            Forecast::Nothing => Self::Nothing,
            Forecast::WouldRun(reasons) => Self::WouldRun(reasons),
            Forecast::Depends(on) => Self::Depends(on.0),
        }
    }
}

impl Builder {
    /// Says what [`build`](Self::build) would do, for every step that the target needs. Nothing runs and no output is
    /// written; files of the contexts are hashed, and configs of base images fetched, as far as keys need them. A context
    /// that is elsewhere is fetched, for its Dockerfile.
    ///
    /// # Errors
    ///
    /// [`Error::Dockerfile`] for what is wrong with the Dockerfile, [`Error::Step`] for a step whose key can't be
    /// computed, such as a COPY of a file that is missing.
    pub async fn explain(
        &self,
        request: BuildRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> Result<Explanation, Error> {
        let input = input::read(self, &request, &reporter, &cancel).await?;
        let (lowered, result) = self.lower(&request, &input, &reporter).await?;
        let warnings = result.warnings;
        let Some(root) = lowered.build.root else { return Ok(Explanation { steps: Vec::new(), warnings }) };
        let (worker, solver) = self.solver(&request, &input, &lowered, &reporter, None);
        let graph = Arc::new(lowered.build.graph.clone());
        let explained = solver.explain(Arc::clone(&graph), root, cancel.clone()).await;
        self.save_indexes(worker).await;
        let explained = explained.map_err(|failed| lowered.step_failed(failed, None, &cancel))?;
        let steps = explained.into_iter().map(|step| {
            let info = &graph.vertex(step.vertex).info;
            ExplainedStep {
                id: step.vertex.0,
                name: info.name.clone(),
                stage: info.stage.clone(),
                location: info.location.clone(),
                fate: step.state.into(),
            }
        });
        Ok(Explanation { steps: steps.collect(), warnings })
    }
}
