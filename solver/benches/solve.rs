//! What the solver itself costs a step: keys, look-ups, hand-out, records and events, with a worker that does nothing.
//!
//! `cargo bench -p bricklayer-solver`; time divided by elements is time a step.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bricklayer_solver::Digest;
use bricklayer_solver::Platform;
use bricklayer_solver::event::{Reporter, Task};
use bricklayer_solver::graph::{Graph, Input, StepInfo, Usage, VertexId};
use bricklayer_solver::op::{Exec, Limits, Network, Op, Security, Selection, Source};
use bricklayer_solver::record::{Layer, LayerId, Output, Snapshot};
use bricklayer_solver::schedule::{Solver, SolverOptions};
use bricklayer_solver::testing::MemoryRecords;
use bricklayer_solver::worker::{Content, Job, Pinned, StepError, Worker};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Every step is one new layer, at once.
#[derive(Default)]
struct Nothing(AtomicI64);

impl Worker for Nothing {
    fn pin<'a>(&'a self, _: &'a Source, _: &'a Task) -> BoxFuture<'a, Result<Pinned, StepError>> {
        async { Err(StepError::new("no sources here")) }.boxed()
    }

    fn content<'a>(&'a self, _: &'a Output, _: &'a Selection) -> BoxFuture<'a, Result<Content, StepError>> {
        async { Ok(Content { digest: Digest::of(b""), files: Vec::new(), truncated: false, bytes: 0 }) }
            .boxed()
    }

    fn run<'a>(&'a self, _: Job<'a>) -> BoxFuture<'a, Result<Output, StepError>> {
        let id = self.0.fetch_add(1, Ordering::Relaxed);
        let layers = vec![Layer { id: LayerId(id), content: Digest::of(&id.to_le_bytes()) }];
        async { Ok(Output::Snapshot(Snapshot { layers })) }.boxed()
    }
}

fn exec(number: usize, root: Option<usize>) -> Op {
    Op::Exec(Box::new(Exec {
        root,
        args: vec!["/bin/sh".into(), "-c".into(), format!("make part-{number}")],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "VERSION=1.2.3".into(),
        ],
        cwd: "/src".into(),
        user: String::new(),
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: Network::Default,
        security: Security::Sandbox,
        hostname: None,
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        proxy_env: Vec::new(),
        limits: Limits::default(),
        platform: Platform::new("linux", "amd64", ""),
    }))
}

/// Chains of a hundred RUNs side by side, all needed by the last step; or one chain.
fn graph(steps: usize, is_deep: bool) -> (Arc<Graph>, VertexId) {
    let mut graph = Graph::new();
    let mut ends = Vec::new();
    let mut last = None;
    for number in 0..steps - 1 {
        let length = if is_deep { steps } else { 100 };
        if number % length == 0 {
            ends.extend(last.take());
        }
        let inputs: Vec<Input> =
            last.map(|vertex| Input { vertex, usage: Usage::Root }).into_iter().collect();
        let text = format!("RUN make part-{number}");
        let info = StepInfo { name: text.clone(), instruction: text, ..StepInfo::default() };
        last = Some(graph.add(exec(number, last.map(|_| 0)), inputs, info));
    }
    ends.extend(last);
    let inputs = ends.into_iter().map(|vertex| Input { vertex, usage: Usage::Root }).collect();
    let target =
        graph.add(exec(steps, Some(0)), inputs, StepInfo { name: "last".into(), ..StepInfo::default() });
    (Arc::new(graph), target)
}

fn solver(records: &MemoryRecords) -> Solver {
    let options = SolverOptions { jobs: 4, ..SolverOptions::default() };
    // events go somewhere, as they do in a build
    let reporter = Reporter::new(|event| drop(black_box(event)));
    Solver::new(Arc::new(Nothing::default()), Arc::new(records.clone()), options, reporter)
}

fn solve(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("solve");
    group.sample_size(10);
    for steps in [100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(steps as u64));
        for (name, is_deep) in [("wide", false), ("deep", true)] {
            let (graph, target) = graph(steps, is_deep);
            let run = |solver: &Solver| {
                let solved = solver.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {});
                runtime.block_on(solved).expect("nothing fails here")
            };
            group.bench_function(BenchmarkId::new(format!("{name}, all run"), steps), |b| {
                b.iter_batched(
                    || solver(&MemoryRecords::new()),
                    |solver| run(&solver),
                    BatchSize::PerIteration,
                );
            });
            let full = solver(&MemoryRecords::new());
            run(&full);
            group.bench_function(BenchmarkId::new(format!("{name}, all cached"), steps), |b| {
                b.iter(|| run(&full))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, solve);
criterion_main!(benches);
