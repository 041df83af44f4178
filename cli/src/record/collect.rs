//! From events to a record, while the build goes on and when its events are read again.

use std::collections::HashMap;

use super::journal::What;
use super::{TaskRecord, TaskState, WorkKind};

/// Warnings, and names of those that were waited for, that are kept of a task.
const MOST_TEXTS: usize = 100;

/// What is known of the tasks of a build.
#[derive(Debug, Default)]
pub(super) struct Collector {
    tasks: Vec<TaskRecord>,
    places: HashMap<u64, usize>,
    /// Bytes that were moved: by task and part.
    moved: HashMap<(u64, String), u64>,
    /// The time of the last event.
    pub(super) last_us: u64,
}

impl Collector {
    /// Something happened.
    pub(super) fn add(&mut self, us: u64, number: u64, what: &What<'_>) {
        self.last_us = self.last_us.max(us);
        if let What::Announced { name, kind, vertex, location } = what {
            self.places.insert(number, self.tasks.len());
            self.tasks.push(TaskRecord {
                number,
                name: name.clone().into_owned(),
                kind: *kind,
                vertex: *vertex,
                op: None,
                stage: String::new(),
                location: location.clone(),
                inputs: Vec::new(),
                state: TaskState::Pending,
                error: None,
                ready_us: None,
                started_us: None,
                ended_us: None,
                waited_us: 0,
                waited_for: Vec::new(),
                reasons: Vec::new(),
                warnings: Vec::new(),
                key: None,
                exit_code: None,
                peak_memory: None,
                largest_process: None,
                cpu_us: None,
                bytes: 0,
                moved: 0,
                log_bytes: 0,
            });
            return;
        }
        let Some(task) = self.places.get(&number).and_then(|place| self.tasks.get_mut(*place)) else {
            return;
        };
        match what {
            What::Announced { .. } => {}
            What::Started => {
                task.state = TaskState::Running;
                task.started_us.get_or_insert(us);
            }
            What::Waiting { on } => {
                task.state = TaskState::Running;
                if task.waited_for.len() < MOST_TEXTS {
                    task.waited_for.push(on.clone().into_owned());
                }
            }
            What::Cached => task.end(TaskState::Cached, us),
            What::Sized { bytes } => task.bytes = task.bytes.saturating_add(*bytes),
            What::Missed { reasons } => task.reasons = reasons.clone().into_owned(),
            What::Log { bytes, .. } => task.log_bytes = task.log_bytes.saturating_add(*bytes),
            What::Warning { text } => {
                if task.warnings.len() < MOST_TEXTS {
                    task.warnings.push(text.clone().into_owned());
                }
            }
            What::Exited { code, peak_memory, largest_process, cpu_us } => {
                task.exit_code = Some(*code);
                task.peak_memory = *peak_memory;
                task.largest_process = *largest_process;
                task.cpu_us = *cpu_us;
            }
            What::Done => task.end(TaskState::Done, us),
            What::Failed { error } => {
                task.end(TaskState::Failed, us);
                task.error = Some(error.clone().into_owned());
            }
            What::Cancelled => {
                // what had not started is still that
                if task.state != TaskState::Pending {
                    task.end(TaskState::Cancelled, us);
                }
            }
        }
    }

    /// Bytes of a part of a task were moved, so many until now.
    pub(super) fn moved(&mut self, number: u64, part: &str, done: u64) {
        self.moved.insert((number, part.to_owned()), done);
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The task of a vertex: the one that was announced last.
    pub(super) fn of_vertex(&self, vertex: u32) -> Option<&TaskRecord> {
        self.tasks.iter().rfind(|task| task.vertex == Some(vertex))
    }

    /// The tasks, in the order in which they were announced.
    pub(super) fn into_tasks(mut self) -> Vec<TaskRecord> {
        for ((number, _), done) in self.moved {
            if let Some(task) = self.places.get(&number).and_then(|place| self.tasks.get_mut(*place)) {
                task.moved = task.moved.saturating_add(done);
            }
        }
        self.tasks
    }
}

impl TaskRecord {
    fn end(&mut self, state: TaskState, us: u64) {
        self.state = state;
        self.ended_us = Some(us);
    }
}

/// Steps of the graph that were needed, contexts not counted, and how many of them did not have to run: what can be
/// told by events alone: contexts have names like `[internal] load build context`.
pub(super) fn counts(tasks: &[TaskRecord]) -> (usize, usize) {
    let steps =
        || tasks.iter().filter(|task| task.kind == WorkKind::Step && !task.name.starts_with("[internal]"));
    (steps().count(), steps().filter(|task| task.state == TaskState::Cached).count())
}
