//! Scripted builds for the displays' tests: events at given times, played into a renderer.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bricklayer::event::{Event, EventKind, Outcome, Progress, Stream, TaskId, TaskInfo, TaskKind};

use super::{Pump, Renderer};

/// What happens, in order. `None`: a tick.
pub(super) struct Script {
    events: Vec<(SystemTime, Option<(TaskId, EventKind)>)>,
    now: SystemTime,
    tasks: u64,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { events: Vec::new(), now: start(), tasks: 0 }
    }

    pub(super) fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = start() + Duration::from_secs_f64(seconds);
        self
    }

    fn announce(&mut self, info: TaskInfo) -> TaskId {
        let id = TaskId(self.tasks);
        self.tasks += 1;
        self.push(id, EventKind::Announced(info));
        id
    }

    pub(super) fn task(&mut self, name: &str) -> TaskId {
        self.announce(TaskInfo { name: name.into(), kind: TaskKind::Internal, vertex: None, location: None })
    }

    pub(super) fn step(&mut self, name: &str, first: u32, last: u32) -> TaskId {
        let location = bricklayer_solver::graph::Location { file: "Dockerfile".into(), first, last };
        self.announce(TaskInfo {
            name: name.into(),
            kind: TaskKind::Step,
            vertex: None,
            location: Some(location),
        })
    }

    fn push(&mut self, task: TaskId, kind: EventKind) -> &mut Self {
        self.events.push((self.now, Some((task, kind))));
        self
    }

    pub(super) fn tick(&mut self) -> &mut Self {
        self.events.push((self.now, None));
        self
    }

    pub(super) fn start(&mut self, task: TaskId) -> &mut Self {
        self.push(task, EventKind::Started)
    }

    pub(super) fn waiting(&mut self, task: TaskId, text: &str) -> &mut Self {
        self.push(task, EventKind::Waiting(text.into()))
    }

    pub(super) fn cached(&mut self, task: TaskId) -> &mut Self {
        self.push(task, EventKind::Cached)
    }

    pub(super) fn missed(&mut self, task: TaskId, reasons: &[&str]) -> &mut Self {
        self.push(task, EventKind::Missed(reasons.iter().map(|&r| r.to_owned()).collect()))
    }

    pub(super) fn log(&mut self, task: TaskId, text: &str) -> &mut Self {
        self.push(task, EventKind::Log { stream: Stream::Stdout, data: text.as_bytes().to_vec() })
    }

    pub(super) fn warning(&mut self, task: TaskId, text: &str) -> &mut Self {
        self.push(task, EventKind::Warning(text.into()))
    }

    pub(super) fn progress(&mut self, task: TaskId, part: &str, done: u64, total: u64) -> &mut Self {
        self.push(task, EventKind::Progress(Progress { part: part.into(), done, total: Some(total) }))
    }

    pub(super) fn done(&mut self, task: TaskId) -> &mut Self {
        self.push(task, EventKind::Finished(Outcome::Done))
    }

    pub(super) fn failed(&mut self, task: TaskId, why: &str) -> &mut Self {
        self.push(task, EventKind::Finished(Outcome::Failed(why.into())))
    }

    pub(super) fn cancelled(&mut self, task: TaskId) -> &mut Self {
        self.push(task, EventKind::Finished(Outcome::Cancelled))
    }

    /// Plays it into `renderer`, without its end.
    pub(super) fn feed(&self, renderer: Box<dyn Renderer>) -> Pump {
        let mut pump = Pump::new(renderer);
        for (time, what) in &self.events {
            match what {
                Some((task, kind)) => pump.event(&Event { task: *task, time: *time, kind: kind.clone() }),
                None => pump.renderer.tick(*time),
            }
        }
        pump
    }
}

/// When scripts start: 2023-11-14T22:13:20Z.
pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[derive(Clone, Default)]
pub(super) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a renderer wrote when the script was played to its end.
pub(super) fn play(
    script: &Script,
    renderer: impl FnOnce(Box<dyn Write + Send>) -> Box<dyn Renderer>,
) -> String {
    let paper = Paper::default();
    script.feed(renderer(Box::new(paper.clone()))).end(script.now);
    paper.text()
}
