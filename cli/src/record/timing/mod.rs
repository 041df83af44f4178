//! Where the time of a build went, of its record: bars on lanes, the critical path, and what would have saved most; as a page
//! ([`html`]) and for trace viewers ([`trace`]).

mod html;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, HashMap, HashSet};

use bricklayer_solver::timing::{Activity, Segment, Spent, critical_path, saved_without};

use super::{BuildRecord, TaskRecord, TaskState, WorkKind};
use crate::build::EXPORTING;

/// Tasks that are asked what would have been without them: those that take most of the critical path.
const MOST_ASKED: usize = 40;
/// A step's slot is given back this long, in microseconds, before its end is told, at the most: its record is looked at in between.
const SLACK: u64 = 10_000;
/// Savings that are told.
const MOST_TOLD: usize = 6;

/// A task that took time. Times are in microseconds since the build started.
#[derive(Debug)]
struct Bar<'a> {
    task: &'a TaskRecord,
    lane: usize,
    /// From when it is seen to wait; `begin` where it did not, or where its lane has no room for that.
    waits_from: u64,
    begin: u64,
    end: u64,
    /// Is it on the critical path?
    critical: bool,
}

/// What would have made the build shorter.
#[derive(Debug)]
struct Saving<'a> {
    /// By how much, at most.
    us: u64,
    /// Which task; `None`: the text says it all.
    task: Option<&'a TaskRecord>,
    /// What it is about.
    text: String,
}

#[derive(Debug)]
struct Timing<'a> {
    record: &'a BuildRecord,
    /// In the order of their beginnings.
    bars: Vec<Bar<'a>>,
    lanes: usize,
    /// By index of `bars`.
    path: Vec<Segment>,
    /// The largest first.
    savings: Vec<Saving<'a>>,
}

impl BuildRecord {
    /// A page about where the time went: complete in itself, without scripts, for a browser.
    pub fn timing_html(&self) -> String {
        html::page(&Timing::of(self))
    }

    /// The same as a trace in Chrome's Trace Event Format (JSON object format), for <https://ui.perfetto.dev> and
    /// others.
    pub fn timing_trace(&self) -> String {
        trace::trace(&Timing::of(self))
    }
}

impl<'a> Timing<'a> {
    fn of(record: &'a BuildRecord) -> Self {
        let mut tasks: Vec<(&TaskRecord, u64, u64)> = record
            .tasks
            .iter()
            .filter_map(|task| {
                // one that only waited, for somebody who then had its result, never started
                let only_waited = task.ready_us.filter(|_| task.waited_us > 0);
                let started = task.started_us.or(only_waited)?;
                let worked_from = task.ready_us.unwrap_or(started).saturating_add(task.waited_us);
                let end = task.ended_us.unwrap_or(record.duration_us);
                Some((task, started.max(worked_from).min(end), end))
            })
            .collect();
        tasks.sort_by_key(|(task, begin, end)| (*begin, *end, task.number));
        let activities = activities(&tasks);
        let path = critical_path(&activities, SLACK);
        let savings = savings(record, &tasks, &activities, &path);
        let critical: HashSet<usize> = path.iter().map(|segment| segment.activity).collect();
        let mut lanes: Vec<u64> = Vec::new();
        let bars =
            tasks.iter().zip(&activities).enumerate().map(|(index, ((task, begin, end), activity))| {
                let lane = lanes.iter().position(|free| free <= begin).unwrap_or(lanes.len());
                let free = lanes.get(lane).copied().unwrap_or(0);
                match lanes.get_mut(lane) {
                    Some(free) => *free = *end,
                    None => lanes.push(*end),
                }
                let waited = begin.saturating_sub(task.waited_us);
                Bar {
                    task,
                    lane,
                    waits_from: activity.ready.max(waited).max(free).min(*begin),
                    begin: *begin,
                    end: *end,
                    critical: critical.contains(&index),
                }
            });
        let bars = bars.collect();
        Self { record, bars, lanes: lanes.len(), path, savings }
    }

    /// The end of the time that is shown.
    fn end(&self) -> u64 {
        self.bars.iter().map(|bar| bar.end).max().unwrap_or(0).max(self.record.duration_us).max(1)
    }
}

/// What each task needed, as far as it is known.
///
/// A step needs its inputs. The keys of all steps are made before any of them starts, so a step that needs no other one needs
/// what came before the steps: the Dockerfile, configs of images, contexts. What else there is needs what ended before it
/// began, other pushes aside; an export needs the pushes of layers that end within it, too.
fn activities(tasks: &[(&TaskRecord, u64, u64)]) -> Vec<Activity> {
    let places: HashMap<u64, usize> =
        tasks.iter().enumerate().map(|(place, (task, ..))| (task.number, place)).collect();
    let is_step = |task: &TaskRecord| task.kind == WorkKind::Step && task.op.as_deref() != Some("local");
    let is_push = |task: &TaskRecord| task.kind == WorkKind::Export && !task.name.starts_with(EXPORTING);
    let activity = |(place, (task, begin, end)): (usize, &(&TaskRecord, u64, u64))| {
        let mut needs: Vec<usize> =
            task.inputs.iter().filter_map(|number| places.get(number)).copied().collect();
        let before = |other: usize, until: u64| other != place && tasks[other].2 <= until;
        let latest = |wanted: &dyn Fn(&TaskRecord) -> bool, until: u64| {
            let fits = (0..tasks.len()).filter(|other| wanted(tasks[*other].0) && before(*other, until));
            fits.max_by_key(|other| tasks[*other].2)
        };
        let ready = task.ready_us.unwrap_or(*begin).min(*begin);
        if is_step(task) {
            if needs.iter().all(|need| !is_step(tasks[*need].0)) {
                needs.extend(latest(&|other| !is_step(other) && other.kind != WorkKind::Export, ready));
            }
        } else {
            // pushes do not wait for each other
            needs.extend(latest(&|other| !is_push(other), *begin));
            if task.name.starts_with(EXPORTING) {
                needs.extend(latest(&is_push, *end));
            }
        }
        let slots = match task.op.as_deref() {
            Some("local") | None => None,
            Some("run") => Some(0),
            Some("image" | "http" | "git") => Some(1),
            Some(_) => Some(2),
        };
        Activity { ready, begin: *begin, end: *end, needs, slots }
    };
    tasks.iter().enumerate().map(activity).collect()
}

fn savings<'a>(
    record: &'a BuildRecord,
    tasks: &[(&'a TaskRecord, u64, u64)],
    activities: &[Activity],
    path: &[Segment],
) -> Vec<Saving<'a>> {
    let mut worked: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut for_slots, mut for_others, mut packing) = (0_u64, 0_u64, 0_u64);
    let mut others: Vec<&str> = Vec::new();
    for segment in path {
        let us = segment.to.saturating_sub(segment.from);
        let task = tasks[segment.activity].0;
        match segment.spent {
            Spent::Working => *worked.entry(segment.activity).or_default() += us,
            Spent::Waiting if task.waited_for.is_empty() => for_slots += us,
            Spent::Waiting => {
                for_others += us;
                others.extend(task.waited_for.iter().map(String::as_str));
            }
            // what a push or an export waits for without a task of its own
            Spent::Between if task.kind == WorkKind::Export => packing += us,
            Spent::Between => {}
        }
    }
    let mut longest: Vec<(u64, usize)> = worked.into_iter().map(|(index, us)| (us, index)).collect();
    longest.sort_unstable_by(|a, b| b.cmp(a));
    let mut savings: Vec<Saving<'a>> = longest
        .into_iter()
        .take(MOST_ASKED)
        .map(|(_, index)| {
            let task = tasks[index].0;
            Saving { us: saved_without(activities, SLACK, index), task: Some(task), text: why(task) }
        })
        .collect();
    if for_slots > 0 {
        let text = "steps on the critical path waited for others of this build: with more --jobs they would not have";
        savings.push(Saving { us: for_slots, task: None, text: text.to_owned() });
    }
    if packing > 0 {
        let text = "layers were packed before they could be exported or pushed".to_owned();
        savings.push(Saving { us: packing, task: None, text });
    }
    if for_others > 0 {
        others.sort_unstable();
        others.dedup();
        let text = format!("steps on the critical path waited for other builds: {}", others.join(", "));
        savings.push(Saving { us: for_others, task: None, text });
    }
    // what is too short to be worth a thought is not told
    let least = (record.duration_us / 100).max(1000);
    savings.retain(|saving| saving.us >= least);
    savings.sort_by_key(|saving| std::cmp::Reverse(saving.us));
    savings.truncate(MOST_TOLD);
    savings
}

/// Why a task took time.
fn why(task: &TaskRecord) -> String {
    match (task.kind, task.reasons.as_slice()) {
        (_, []) if task.state == TaskState::Failed => "it failed".to_owned(),
        (WorkKind::Export, _) => "what is done with the result after the steps".to_owned(),
        (WorkKind::Internal, _) => "what is done before the steps".to_owned(),
        (WorkKind::Step, []) => "it was not cached".to_owned(),
        (WorkKind::Step, reasons) => format!("it was not cached: {}", reasons.join("; ")),
    }
}
