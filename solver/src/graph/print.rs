//! The graph as text for other programs: DOT for Graphviz, JSON for everything else.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::{Graph, Location, Usage, VertexId};
use crate::digest::Digest;
use crate::explain::kind;
use crate::platform::Platform;
use crate::schedule::{StepReport, StepState};

/// The graph in Graphviz' DOT language: a node a step, with its state and time where `reports` has them; an edge from
/// each input to its user, dashed where only some files are used.
pub fn dot(graph: &Graph, reports: &[StepReport]) -> String {
    let known: HashMap<VertexId, &StepReport> =
        reports.iter().map(|report| (report.vertex, report)).collect();
    let mut out = String::from(
        "digraph build {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white];\n",
    );
    for (id, vertex) in graph.vertices() {
        let mut label =
            escape(if vertex.info.name.is_empty() { kind(&vertex.op) } else { &vertex.info.name });
        let mut fill = "white";
        if let Some(report) = known.get(&id) {
            let _ = write!(label, "\\n{}", word(report.state));
            if !report.duration.is_zero() {
                let _ = write!(label, ", {:.3} s", report.duration.as_secs_f64());
            }
            fill = colour(report.state);
        }
        let _ = writeln!(out, "  s{} [label=\"{label}\", fillcolor={fill}];", id.0);
    }
    for (id, vertex) in graph.vertices() {
        for input in &vertex.inputs {
            let _ = match &input.usage {
                Usage::Root => writeln!(out, "  s{} -> s{};", input.vertex.0, id.0),
                Usage::Files(selection) => {
                    let paths = escape(&selection.paths.join(" "));
                    writeln!(out, "  s{} -> s{} [style=dashed, label=\"{paths}\"];", input.vertex.0, id.0)
                }
            };
        }
    }
    out.push_str("}\n");
    out
}

/// A quoted string of DOT: quotes and backslashes escaped, nothing that ends a line, at most 200 characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, c) in text.chars().enumerate() {
        match c {
            _ if number == 200 => {
                out.push('…');
                break;
            }
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A colour that DOT and SVG know.
pub(super) fn colour(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "white",
        StepState::Cached | StepState::Done => "palegreen",
        StepState::Shared | StepState::Ran => "lightblue",
        StepState::Failed => "salmon",
        StepState::Cancelled => "lightgrey",
    }
}

pub(super) fn word(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "not started",
        StepState::Cached => "cached",
        StepState::Done => "done",
        StepState::Shared => "shared",
        StepState::Ran => "ran",
        StepState::Failed => "failed",
        StepState::Cancelled => "cancelled",
    }
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    steps: Vec<Step<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    id: u32,
    name: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a Location>,
    inputs: Vec<InputOf<'a>>,
    #[serde(flatten)]
    report: Option<Report<'a>>,
}

#[derive(Serialize)]
struct InputOf<'a> {
    step: u32,
    /// Left out: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    state: StepState,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_ms: Option<u64>,
    duration_ms: f64,
    waited_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Digest>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    reasons: &'a [String],
}

/// The graph as a JSON document, with state and times of each step where `reports` has them. Times are milliseconds,
/// points in time those since 1970.
pub fn json(graph: &Graph, reports: &[StepReport]) -> String {
    let known: HashMap<VertexId, &StepReport> =
        reports.iter().map(|report| (report.vertex, report)).collect();
    let steps = graph.vertices().map(|(id, vertex)| Step {
        id: id.0,
        name: &vertex.info.name,
        kind: kind(&vertex.op),
        stage: &vertex.info.stage,
        platform: vertex.info.platform.as_ref(),
        location: vertex.info.location.as_ref(),
        inputs: vertex
            .inputs
            .iter()
            .map(|input| InputOf {
                step: input.vertex.0,
                paths: match &input.usage {
                    Usage::Root => None,
                    Usage::Files(selection) => Some(&selection.paths),
                },
            })
            .collect(),
        report: known.get(&id).map(|report| Report {
            state: report.state,
            started_ms: report
                .started
                .and_then(|time| u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()),
            duration_ms: report.duration.as_secs_f64() * 1e3,
            waited_ms: report.waited.as_secs_f64() * 1e3,
            key: report.key,
            reasons: &report.reasons,
        }),
    });
    // strings and numbers only: there is nothing that JSON can't say
    serde_json::to_string_pretty(&Document { version: 1, steps: steps.collect() }).unwrap_or_default()
}
