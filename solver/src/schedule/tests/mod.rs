//! The scheduler over fakes. `caching`: what runs and what does not; `ending`: failures and cancellation; `random`:
//! graphs that nobody thought of.

mod caching;
mod dry;
mod ending;
mod random;

use std::sync::Mutex;

use super::*;
use crate::event::EventKind;
use crate::graph::{Input, StepInfo, Usage};
use crate::op::{self, Exec, FileAction, FileOp, ImageSource, LocalSource, Op, Selection, Source};
use crate::platform::Platform;
use crate::testing::{FakeWorker, MemoryRecords};

/// A graph that is written down like a Dockerfile.
#[derive(Default)]
struct Book {
    graph: Graph,
}

/// Waits until something is so; a minute at most, since the machine may be busy.
async fn until(is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "a minute went by, and it is not yet so");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn platform() -> Platform {
    Platform::new("linux", "amd64", "")
}

fn exec(root: Option<usize>, commands: &[&str]) -> Op {
    Op::Exec(Box::new(Exec {
        root,
        args: commands.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: op::Network::Default,
        security: op::Security::Sandbox,
        hostname: None,
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        proxy_env: Vec::new(),
        limits: op::Limits::default(),
        platform: platform(),
    }))
}

fn select(paths: &[&str]) -> Selection {
    Selection { paths: paths.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

impl Book {
    fn info(text: &str) -> StepInfo {
        StepInfo { name: text.into(), instruction: text.into(), ..StepInfo::default() }
    }

    fn image(&mut self, name: &str) -> VertexId {
        let diff_ids = vec![Digest::of(name.as_bytes())];
        let source = ImageSource {
            reference: name.into(),
            manifest: Digest::of(b"m"),
            diff_ids,
            platform: platform(),
        };
        self.graph.add(Op::Source(Source::Image(source)), vec![], Self::info(&format!("FROM {name}")))
    }

    fn context(&mut self) -> VertexId {
        let source = LocalSource { name: "context".into(), ignore: vec![] };
        self.graph.add(Op::Source(Source::Local(source)), vec![], Self::info("context"))
    }

    fn run(&mut self, on: VertexId, commands: &[&str]) -> VertexId {
        self.run_as(on, commands, Self::info(&format!("RUN {}", commands.join("; "))))
    }

    fn run_as(&mut self, on: VertexId, commands: &[&str], info: StepInfo) -> VertexId {
        self.graph.add(exec(Some(0), commands), vec![Input { vertex: on, usage: Usage::Root }], info)
    }

    fn copy(&mut self, on: Option<VertexId>, from: VertexId, path: &str, dest: &str) -> VertexId {
        let mut inputs: Vec<Input> =
            on.map(|vertex| Input { vertex, usage: Usage::Root }).into_iter().collect();
        let copy = op::Copy {
            input: inputs.len(),
            selection: select(&[path]),
            dest: dest.into(),
            owner: None,
            mode: None,
            unpack: false,
            replace: false,
            created: None,
        };
        inputs.push(Input { vertex: from, usage: Usage::Files(select(&[path])) });
        let file = FileOp { base: on.map(|_| 0), actions: vec![FileAction::Copy(copy)] };
        self.graph.add(Op::File(file), inputs, Self::info(&format!("COPY {path} {dest}")))
    }
}

/// A worker, records, and a solver over them.
struct House {
    worker: Arc<FakeWorker>,
    records: MemoryRecords,
    solver: Solver,
    events: Arc<Mutex<Vec<crate::event::Event>>>,
}

impl House {
    fn new() -> Self {
        Self::with(SolverOptions { jobs: 4, network: 4, disk: 4, no_cache: false })
    }

    fn with(options: SolverOptions) -> Self {
        let (worker, records) = (Arc::new(FakeWorker::new()), MemoryRecords::new());
        let events: Arc<Mutex<Vec<crate::event::Event>>> = Arc::default();
        let sink = Arc::clone(&events);
        let reporter = Reporter::new(move |event| sink.lock().unwrap().push(event));
        let solver = Solver::new(Arc::clone(&worker) as _, Arc::new(records.clone()), options, reporter);
        Self { worker, records, solver, events }
    }

    async fn solve(&self, book: Book, target: VertexId) -> Result<Solved, SolveError> {
        self.solver.solve(Arc::new(book.graph), target, CancellationToken::new(), |_, _| {}).await
    }

    /// What events said, each with its step's name: `Cached`, `Missed(…)`.
    fn told(&self) -> Vec<String> {
        let mut names = std::collections::HashMap::new();
        let mut told = Vec::new();
        for event in std::mem::take(&mut *self.events.lock().unwrap()) {
            if let EventKind::Announced(info) = &event.kind {
                names.insert(event.task, info.name.clone());
            }
            let what = match event.kind {
                EventKind::Missed(reasons) => format!("missed: {}", reasons.join("; ")),
                EventKind::Warning(text) => format!("warning: {text}"),
                EventKind::Log { data, .. } => format!("log: {}", String::from_utf8_lossy(&data).trim_end()),
                other => format!("{other:?}").split('(').next().unwrap_or_default().to_lowercase(),
            };
            told.push(format!("{}: {what}", names[&event.task]));
        }
        told
    }

    /// Solves, and says which steps ran.
    async fn runs(&self, book: Book, target: VertexId) -> Vec<String> {
        self.worker.take_happenings();
        self.solve(book, target).await.unwrap();
        self.worker.take_runs()
    }
}
