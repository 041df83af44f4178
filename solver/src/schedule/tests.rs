use std::sync::Mutex;

use super::*;
use crate::graph::{Input, StepInfo, Usage};
use crate::op::{self, Exec, FileAction, FileOp, ImageSource, LocalSource, Op, Selection, Source};
use crate::platform::Platform;
use crate::testing::{FakeWorker, Happening, MemoryRecords};

/// A graph that is written down like a Dockerfile.
#[derive(Default)]
struct Book {
    graph: Graph,
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

    /// Solves, and says which steps ran.
    async fn runs(&self, book: Book, target: VertexId) -> Vec<String> {
        self.worker.take_happenings();
        self.solve(book, target).await.unwrap();
        self.worker.take_runs()
    }
}

fn two_stages(house: &House) -> (Book, VertexId) {
    house.worker.write("context", "main.c", "int main");
    let mut book = Book::default();
    let base = book.image("debian:12");
    let context = book.context();
    let tools = book.run(base, &["write gcc=gcc"]);
    let sources = book.copy(Some(tools), context, "main.c", "/src");
    let build = book.run(sources, &["copy /src/main.c=/app"]);
    let target = book.copy(None, build, "/app", "/bin");
    (book, target)
}

#[tokio::test]
async fn a_second_solve_runs_nothing_and_looks_once() {
    let house = House::new();
    let (book, target) = two_stages(&house);
    let solved = house.solve(book, target).await.unwrap();
    assert_eq!(house.worker.files(&solved.output)["/bin//app"], "int main");
    assert_eq!(house.worker.take_runs().len(), 5);
    let finds = house.records.finds();
    let (book, target) = two_stages(&house);
    let again = house.solve(book, target).await.unwrap();
    assert_eq!(again.output, solved.output);
    assert_eq!(house.worker.take_happenings(), [Happening::Read(vec!["main.c".into()])]);
    assert_eq!(house.records.finds(), finds + 1);
    assert!(
        again.steps.iter().all(|s| matches!(s.state, StepState::Cached | StepState::Done)),
        "{:?}",
        again.steps
    );
}
