use super::*;
use crate::op::{GitSource, HttpSource};
use crate::testing::Happening;

fn two_stages(house: &House) -> (Book, VertexId) {
    house.worker.write("context", "main.c", "int main");
    two_stages_as_is()
}

fn two_stages_as_is() -> (Book, VertexId) {
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
    house.told();
    let finds = house.records.finds();
    let (book, target) = two_stages(&house);
    let again = house.solve(book, target).await.unwrap();
    assert_eq!(again.output, solved.output);
    assert_eq!(house.worker.take_happenings(), [Happening::Read(vec!["main.c".into()])]);
    assert_eq!(house.records.finds(), finds + 1);
    insta::assert_snapshot!(house.told().join("\n"), @"
    FROM debian:12: announced
    context: announced
    RUN write gcc=gcc: announced
    COPY main.c /src: announced
    RUN copy /src/main.c=/app: announced
    COPY /app /bin: announced
    context: started
    context: sized
    FROM debian:12: cached
    context: finished
    RUN write gcc=gcc: cached
    COPY main.c /src: cached
    RUN copy /src/main.c=/app: cached
    COPY /app /bin: cached
    ");
    let states: Vec<StepState> = again.steps.iter().map(|step| step.state).collect();
    use StepState::{Cached, Done};
    assert_eq!(states, [Cached, Done, Cached, Cached, Cached, Cached]);
}

/// Those that are known not to run don't count, nor does what hits when its turn comes.
#[tokio::test]
async fn a_step_is_told_how_many_commands_are_to_come() {
    let house = House::new();
    let chain = |commands: [&str; 4]| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let target =
            commands.iter().fold(base, |on, command| book.run(on, &command.split("; ").collect::<Vec<_>>()));
        (book, target)
    };
    for (commands, to_come) in [
        (["write a=1", "write b=1", "write c=1", "write d=1"], &[3, 2, 1, 0][..]),
        (["write a=1", "write b=1", "write c=2", "write d=1"], &[1, 0]),
        // makes what was there before
        (["write a=1", "write b=1; log it", "write c=2", "write d=1"], &[2]),
    ] {
        let (book, target) = chain(commands);
        house.solve(book, target).await.unwrap();
        assert_eq!(house.worker.take_to_come(), to_come, "{commands:?}");
    }
}

#[tokio::test]
async fn a_changed_file_runs_what_uses_it() {
    let house = House::new();
    let (book, target) = two_stages(&house);
    house.solve(book, target).await.unwrap();
    house.worker.write("context", "main.c", "int main2");
    let (book, target) = two_stages_as_is();
    let runs = house.runs(book, target).await;
    assert_eq!(runs, ["COPY main.c /src", "RUN copy /src/main.c=/app", "COPY /app /bin"]);
    // and back: all of it is still there
    house.worker.write("context", "main.c", "int main");
    let (book, target) = two_stages_as_is();
    assert!(house.runs(book, target).await.is_empty());
    // a file that nothing selects is nobody's business
    house.worker.write("context", "README", "hello");
    let (book, target) = two_stages_as_is();
    assert!(house.runs(book, target).await.is_empty());
}

/// RUN after RUN: the first is another command that makes the same files.
#[tokio::test]
async fn a_step_that_made_the_same_files_lets_all_after_it_hit() {
    let house = House::new();
    let graph = |first: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let a = book.run(base, &[first, "write out=1"]);
        let b = book.run(a, &["copy out=b"]);
        let c = book.run(b, &["copy b=c"]);
        (book, c)
    };
    let (book, target) = graph("log one");
    let first = house.solve(book, target).await.unwrap();
    house.told();
    let (book, target) = graph("log two");
    let runs = house.runs(book, target).await;
    assert_eq!(runs, ["RUN log two; write out=1"]);
    insta::assert_snapshot!(house.told().join("\n"), @"
    FROM debian:12: announced
    RUN log two; write out=1: announced
    RUN copy out=b: announced
    RUN copy b=c: announced
    FROM debian:12: cached
    RUN log two; write out=1: started
    RUN log two; write out=1: missed: instruction changed: RUN log one; write out=1 → RUN log two; write out=1
    RUN log two; write out=1: log: two
    RUN log two; write out=1: finished
    RUN copy out=b: cached
    RUN copy b=c: cached
    ");
    // the hits by content are now hits by definition: one look, nothing else
    let finds = house.records.finds();
    let (book, target) = graph("log two");
    let again = house.solve(book, target).await.unwrap();
    assert_eq!((house.records.finds(), &again.output), (finds + 1, &first.output));
}

#[tokio::test]
async fn copy_from_a_stage_looks_at_the_selected_files_only() {
    let house = House::new();
    let graph = |noise: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let build = book.run(base, &["write app=1", noise]);
        let copy = book.copy(None, build, "app", "/bin");
        let last = book.run(copy, &["copy /bin/app=x"]);
        (book, last)
    };
    let (book, target) = graph("write log=1");
    assert_eq!(house.runs(book, target).await.len(), 4);
    let (book, target) = graph("write log=2");
    assert_eq!(house.runs(book, target).await, ["RUN write app=1; write log=2"]);
}

#[tokio::test]
async fn what_is_not_in_keys_changes_nothing() {
    let house = House::new();
    let graph = |change: &dyn Fn(&mut Exec)| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let Op::Exec(mut op) = exec(Some(0), &["write a=1"]) else { unreachable!() };
        change(&mut op);
        let input = Input { vertex: base, usage: Usage::Root };
        let target = book.graph.add(Op::Exec(op), vec![input], Book::info("RUN"));
        (book, target)
    };
    let (book, target) = graph(&|_| {});
    house.solve(book, target).await.unwrap();
    let (book, target) = graph(&|exec| {
        exec.proxy_env = vec!["http_proxy=http://proxy".into()];
        exec.limits.memory = Some(1 << 30);
    });
    assert!(house.runs(book, target).await.is_empty());
    let (book, target) = graph(&|exec| exec.env = vec!["A=1".into()]);
    assert_eq!(house.runs(book, target).await, ["RUN"]);
}

#[tokio::test]
async fn without_the_cache_a_step_runs_and_what_follows_goes_by_content() {
    let house = House::new();
    let graph = |no_cache: bool, first: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let a = book.run_as(base, &[first], StepInfo { no_cache, ..Book::info(&format!("RUN {first}")) });
        let b = book.run(a, &["write b=1"]);
        (book, b)
    };
    let (book, target) = graph(false, "write a=1");
    house.solve(book, target).await.unwrap();
    let (book, target) = graph(true, "write a=1");
    assert_eq!(house.runs(book, target).await, ["RUN write a=1"], "the same files again");
    let (book, target) = graph(true, "unique a");
    assert_eq!(house.runs(book, target).await, ["RUN unique a", "RUN write b=1"], "other files");
    let (book, target) = graph(true, "unique a");
    let solved = house.solve(book, target).await.unwrap();
    assert_eq!(house.worker.take_runs().len(), 2, "other files again, although all definitions are the same");
    let (book, target) = graph(false, "unique a");
    assert_eq!(house.solve(book, target).await.unwrap().output, solved.output, "the last result counts");
    assert!(house.worker.take_runs().is_empty());

    let all = House::with(SolverOptions { no_cache: true, ..SolverOptions::default() });
    for _ in 0..2 {
        let (book, target) = two_stages(&all);
        let runs = all.runs(book, target).await;
        assert_eq!(runs.iter().filter(|name| !name.starts_with("FROM")).count(), 4);
    }
}

#[tokio::test]
async fn sources_go_by_what_they_are_now() {
    let house = House::new();
    let add = |op: Source| {
        let mut book = Book::default();
        let source = book.graph.add(Op::Source(op), vec![], Book::info("source"));
        let target = book.copy(None, source, "source", "/");
        (book, target)
    };
    let http = |checksum: Option<Digest>| {
        Source::Http(HttpSource { url: "https://example.org/x".into(), checksum, filename: "x".into() })
    };
    let git = |reference: &str| {
        Source::Git(GitSource {
            remote: "https://example.org/x.git".into(),
            reference: reference.into(),
            subdir: String::new(),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            commit_time: false,
            by_commit: false,
        })
    };
    house.worker.set_pin("https://example.org/x", "v1");
    house.worker.set_pin("https://example.org/x.git", "c1");
    for source in [http(None), git("main")] {
        let (book, target) = add(source.clone());
        let solved = house.solve(book, target).await.unwrap();
        assert!(matches!(house.worker.files(&solved.output)["//source"].as_str(), "v1" | "c1"));
        let (book, target) = add(source);
        assert!(house.runs(book, target).await.is_empty());
    }
    house.worker.set_pin("https://example.org/x", "v2");
    let (book, target) = add(http(None));
    assert_eq!(house.runs(book, target).await, ["source", "COPY source /"]);
    // what the op itself pins is not asked for
    for source in [http(Some(Digest::of(b"x"))), git(&"a".repeat(40))] {
        let (book, target) = add(source);
        house.worker.take_happenings();
        house.solve(book, target).await.unwrap();
        assert!(!house.worker.take_happenings().iter().any(|h| matches!(h, Happening::Pinned(_))));
    }
}

#[tokio::test]
async fn a_merge_is_the_layers_of_its_inputs_and_needs_no_record() {
    let house = House::new();
    let graph = |second: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let context = book.context();
        let link = book.copy(None, context, second, "/opt");
        let inputs = [base, link].map(|vertex| Input { vertex, usage: Usage::Root });
        let merge = book.graph.add(Op::Merge, inputs.to_vec(), StepInfo::default());
        let target = book.run(merge, &["write done=1"]);
        (book, merge, target)
    };
    house.worker.write("context", "a", "1");
    house.worker.write("context", "b", "2");
    let (book, merge, target) = graph("a");
    let mut foundation = book.graph.foundation(target);
    foundation.retain(|id| !matches!(book.graph.vertex(*id).op, Op::Source(_)));
    assert_eq!(foundation.len(), 3, "the copy, the merge, the run");
    let seen = Mutex::new(Vec::new());
    let note = |id: VertexId, output: &Output| seen.lock().unwrap().push((id, output.clone()));
    let graph_ = Arc::new(book.graph);
    let solved = house.solver.solve(graph_, target, CancellationToken::new(), note).await.unwrap();
    let seen = seen.into_inner().unwrap();
    let (_, merged) = seen.iter().find(|(id, _)| *id == merge).unwrap();
    let Output::Snapshot(snapshot) = merged else { panic!() };
    assert_eq!(snapshot.layers.len(), 2);
    assert_eq!(house.worker.files(&solved.output).len(), 3);
    assert_eq!(seen.last().unwrap(), &(target, solved.output));
    let (book, _, target) = graph("a");
    assert!(house.runs(book, target).await.is_empty());
    let (book, _, target) = graph("b");
    assert_eq!(house.runs(book, target).await, ["COPY b /opt", "RUN write done=1"]);
    assert!(!house.told().iter().any(|line| line.starts_with(": ")), "a step without a name is not shown");
}

/// What is asked outside is asked once, however many steps use it.
#[tokio::test]
async fn a_selection_is_read_once() {
    let house = House::new();
    house.worker.write("context", "a", "1");
    let mut book = Book::default();
    let context = book.context();
    let mut inputs = Vec::new();
    for n in 0..5 {
        let vertex = book.copy(None, context, "a", &format!("/{n}"));
        inputs.push(Input { vertex, usage: Usage::Root });
    }
    let target = book.graph.add(Op::Merge, inputs, StepInfo::default());
    house.solve(book, target).await.unwrap();
    let reads = house.worker.take_happenings().into_iter().filter(|h| matches!(h, Happening::Read(_)));
    assert_eq!(reads.count(), 1);
}

#[tokio::test]
async fn solves_of_one_solver_share_what_is_under_way() {
    let house = House::new();
    let mut book = Book::default();
    let base = book.image("debian:12");
    let a = book.run(base, &["sleep 20", "unique a"]);
    let b = book.run(a, &["sleep 20", "unique b"]);
    let graph = Arc::new(book.graph);
    let solve = || {
        let other = house.solver.with_reporter(Reporter::silent());
        let graph = Arc::clone(&graph);
        async move { other.solve(graph, b, CancellationToken::new(), |_, _| {}).await.unwrap().output }
    };
    let outputs = futures_util::future::join_all((0..8).map(|_| solve())).await;
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    assert_eq!(house.worker.take_runs().len(), 3);
    assert_eq!(house.solver.shared.flights.len(), 0);
}

/// Two solvers on one store of records are like two processes: the second waits at the lock and then finds the result.
#[tokio::test]
async fn builders_on_one_store_run_equal_steps_once() {
    let one = House::new();
    let mut book = Book::default();
    let base = book.image("debian:12");
    let target = book.run(base, &["gate go", "unique a"]);
    let graph = Arc::new(book.graph);
    let events: Arc<Mutex<Vec<EventKind>>> = Arc::default();
    let sink = Arc::clone(&events);
    let other = Solver::new(
        Arc::clone(&one.worker) as _,
        Arc::new(one.records.clone()),
        SolverOptions::default(),
        Reporter::new(move |event| sink.lock().unwrap().push(event.kind)),
    );
    let is_waiting = |kind: &EventKind| matches!(kind, EventKind::Waiting(whom) if whom == "another build in memory, which runs an equal step");
    let first = one.solver.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {});
    let second = async {
        until(|| one.worker.busy() == 1).await;
        other.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {}).await
    };
    let let_go = async {
        until(|| events.lock().unwrap().iter().any(is_waiting)).await;
        one.worker.open("go");
    };
    let (a, b, ()) = tokio::join!(first, second, let_go);
    assert_eq!(a.unwrap().output, b.unwrap().output);
    assert_eq!(one.worker.take_runs(), ["FROM debian:12", "RUN gate go; unique a"]);
}

#[tokio::test]
async fn a_result_that_is_gone_is_made_again() {
    let house = House::new();
    let (book, target) = two_stages(&house);
    let solved = house.solve(book, target).await.unwrap();
    let Output::Snapshot(snapshot) = &solved.output else { panic!() };
    house.records.lose(snapshot.layers[0].id);
    let (book, target) = two_stages_as_is();
    house.told();
    assert_eq!(house.runs(book, target).await, ["COPY /app /bin"]);
    let told = house.told();
    assert!(told.contains(&"COPY /app /bin: missed: result pruned".to_owned()), "{told:?}");
}

#[tokio::test]
async fn broken_records_lose_no_result() {
    let house = House::new();
    house.records.set_broken(true);
    let (book, target) = two_stages(&house);
    let solved = house.solve(book, target).await.unwrap();
    assert_eq!(house.worker.files(&solved.output)["/bin//app"], "int main");
    let told = house.told();
    for warning in ["every step runs", "can't be locked", "can't be recorded"] {
        assert!(
            told.iter().any(|line| line.contains("warning") && line.contains(warning)),
            "{warning}: {told:?}"
        );
    }
}

#[tokio::test]
async fn slots_bound_what_runs_at_once() {
    let house = House::with(SolverOptions { jobs: 3, ..SolverOptions::default() });
    let mut book = Book::default();
    let base = book.image("debian:12");
    let inputs = (0..12).map(|n| {
        let vertex = book.run(base, &["gate go", &format!("write {n}=1")]);
        Input { vertex, usage: Usage::Root }
    });
    let inputs = inputs.collect();
    let target = book.graph.add(Op::Merge, inputs, StepInfo::default());
    let let_go = async {
        until(|| house.worker.busy() == 3).await;
        house.worker.open("go");
    };
    let (solved, ()) = tokio::join!(house.solve(book, target), let_go);
    assert_eq!(solved.unwrap().steps.len(), 14);
    assert_eq!(house.worker.busiest(), 3);
}
