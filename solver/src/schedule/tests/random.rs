//! Random graphs, each solved again and again: with everything working, with steps that fail, cancelled at a random
//! moment, and by several solves at once.

use std::collections::HashMap;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::testing::Happening;
use crate::worker::StepError;

/// A step of a random graph: which of the steps before it it stands on and copies from, and what it does.
#[derive(Debug, Clone)]
struct Plant {
    on: prop::sample::Index,
    from: Vec<prop::sample::Index>,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// Writes a file of its own.
    Write,
    /// Does what others on the same base do, too: an equal step.
    Equal,
    /// Takes some milliseconds.
    Slow,
    /// Stands on several.
    Merge,
    /// Copies a file from another step.
    Copy,
}

fn plants(steps: usize) -> impl Strategy<Value = Vec<Plant>> {
    let what = prop_oneof![
        6 => Just(What::Write),
        2 => Just(What::Equal),
        1 => Just(What::Slow),
        1 => Just(What::Merge),
        3 => Just(What::Copy),
    ];
    let plant =
        (any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 1..4), what);
    prop::collection::vec(plant.prop_map(|(on, from, what)| Plant { on, from, what }), 1..steps)
}

/// Grows the graph; `spoil` turns one step into a failing one. The target needs everything.
fn grow(plants: &[Plant], spoil: Option<usize>) -> (Arc<Graph>, VertexId) {
    let mut book = Book::default();
    let mut grown = vec![book.image("debian:12")];
    // each has the file `mark`, so that it can be copied from everywhere
    grown.push(book.run(grown[0], &["write mark=0"]));
    for (number, plant) in plants.iter().enumerate() {
        // near the end, so that graphs are deep as well as wide
        let near = &grown[grown.len().saturating_sub(12).max(1)..];
        let on = *plant.on.get(near);
        let from = *plant.from[0].get(&grown[1..]);
        let info = Book::info(&format!("step {number}"));
        let step = match plant.what {
            _ if spoil == Some(number) => book.run_as(on, &["log last words", "fail on purpose"], info),
            What::Write => book.run_as(on, &[&format!("write mark={number}")], info),
            What::Equal => book.run_as(on, &["write mark=equal"], info),
            What::Slow => book.run_as(on, &["sleep 2", &format!("write mark={number}")], info),
            What::Merge => {
                let inputs = plant
                    .from
                    .iter()
                    .map(|from| Input { vertex: *from.get(&grown[1..]), usage: Usage::Root });
                let inputs = inputs.collect();
                book.graph.add(Op::Merge, inputs, info)
            }
            What::Copy => {
                let to = format!("/{number}");
                let copied = book.copy(Some(on), from, "mark", &to);
                book.run_as(copied, &[&format!("copy {to}/mark=mark")], info)
            }
        };
        grown.push(step);
    }
    // a last step that needs all
    let inputs =
        grown.iter().map(|vertex| Input { vertex: *vertex, usage: Usage::Files(select(&["mark"])) }).skip(1);
    let inputs: Vec<Input> = inputs.collect();
    let actions = Vec::new();
    let last = book.graph.add(Op::File(FileOp { base: None, actions }), inputs, Book::info("last"));
    (Arc::new(book.graph), last)
}

/// Nothing ran twice, and nothing before its inputs had ended.
fn check_order(graph: &Graph, happenings: &[Happening], steps: &[StepReport]) -> Result<(), TestCaseError> {
    let mut began = HashMap::new();
    let mut ended = HashMap::new();
    for (time, happening) in happenings.iter().enumerate() {
        match happening {
            Happening::Began(name) => {
                let earlier = began.insert(name.clone(), time);
                prop_assert_eq!(earlier, None, "{} ran twice", name);
            }
            Happening::Ended(name) => drop(ended.insert(name.clone(), time)),
            _ => {}
        }
    }
    prop_assert_eq!(began.len(), ended.len(), "something is still running");
    for report in steps.iter().filter(|report| report.state == StepState::Ran) {
        for input in &graph.vertex(report.vertex).inputs {
            let name = &graph.vertex(input.vertex).info.name;
            if let Some(end) = ended.get(name) {
                prop_assert!(*end < began[&report.name], "{} ran before {}", report.name, name);
            }
        }
    }
    Ok(())
}

/// Every task that was announced has ended, once.
fn check_events(house: &House) -> Result<(), TestCaseError> {
    let mut open: HashMap<_, bool> = HashMap::new();
    for event in std::mem::take(&mut *house.events.lock().unwrap()) {
        match event.kind {
            EventKind::Announced(_) => drop(open.insert(event.task, true)),
            EventKind::Cached | EventKind::Finished(_) => {
                prop_assert_eq!(open.insert(event.task, false), Some(true), "one end for each task");
            }
            _ => prop_assert_eq!(open.get(&event.task), Some(&true), "nothing after the end"),
        }
    }
    prop_assert!(!open.values().any(|open| *open), "a task without an end");
    Ok(())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A solve that hangs is a failed test, not a test that hangs.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("the solve hangs")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn everything_runs_once_in_order_and_then_never_again(plants in plants(300), jobs in 1..5usize) {
        runtime().block_on(async {
            let house = House::with(SolverOptions { jobs, network: 2, disk: 2, no_cache: false });
            let (graph, target) = grow(&plants, None);
            let none = CancellationToken::new;
            let solved = in_time(house.solver.solve(Arc::clone(&graph), target, none(), |_, _| {})).await.unwrap();
            check_order(&graph, &house.worker.take_happenings(), &solved.steps)?;
            check_events(&house)?;
            prop_assert!(solved.steps.iter().all(|s| matches!(s.state, StepState::Ran | StepState::Shared | StepState::Cached | StepState::Done)));
            let again = in_time(house.solver.solve(graph, target, none(), |_, _| {})).await.unwrap();
            prop_assert_eq!(house.worker.take_happenings(), []);
            prop_assert_eq!(again.output, solved.output);
            check_events(&house)?;
            prop_assert_eq!(house.solver.shared.flights.len(), 0);
            Ok(())
        })?;
    }

    #[test]
    fn a_failure_ends_everything(plants in plants(150), spoil in any::<prop::sample::Index>()) {
        runtime().block_on(async {
            let house = House::new();
            let spoilt = spoil.index(plants.len());
            let (graph, target) = grow(&plants, Some(spoilt));
            let none = CancellationToken::new;
            let error = in_time(house.solver.solve(Arc::clone(&graph), target, none(), |_, _| {})).await.unwrap_err();
            prop_assert_eq!(error.error.to_string(), "on purpose");
            prop_assert_eq!(error.log.as_slice(), b"last words\n");
            prop_assert_eq!(house.worker.busy(), 0);
            let happenings = house.worker.take_happenings();
            check_order(&graph, &happenings, &error.steps)?;
            check_events(&house)?;
            // whatever ended well does not run again
            let again = in_time(house.solver.solve(Arc::clone(&graph), target, none(), |_, _| {})).await.unwrap_err();
            let done: Vec<&String> = error.steps.iter().filter(|s| s.state == StepState::Ran).map(|s| &s.name).collect();
            prop_assert!(!again.steps.iter().any(|s| s.state == StepState::Ran && done.contains(&&s.name)));
            Ok(())
        })?;
    }

    #[test]
    fn a_cancelled_solve_ends_and_can_be_taken_up(plants in plants(150), after in 0..40usize) {
        runtime().block_on(async {
            let house = House::new();
            let (graph, target) = grow(&plants, None);
            let cancel = CancellationToken::new();
            let count = std::sync::atomic::AtomicUsize::new(0);
            let stop_then = |_: VertexId, _: &Output| {
                if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == after {
                    cancel.cancel();
                }
            };
            let first = in_time(house.solver.solve(Arc::clone(&graph), target, cancel.clone(), stop_then)).await;
            prop_assert_eq!(house.worker.busy(), 0);
            check_events(&house)?;
            prop_assert_eq!(house.solver.shared.flights.len(), 0);
            let done: Vec<String> = match &first {
                Ok(solved) => solved.steps.iter().map(|s| s.name.clone()).collect(),
                Err(error) => {
                    prop_assert!(matches!(*error.error, StepError::Cancelled));
                    error.steps.iter().filter(|s| s.state == StepState::Ran).map(|s| s.name.clone()).collect()
                }
            };
            house.worker.take_happenings();
            let second = in_time(house.solver.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {})).await.unwrap();
            let happenings = house.worker.take_happenings();
            check_order(&graph, &happenings, &second.steps)?;
            for happening in &happenings {
                prop_assert!(!matches!(happening, Happening::Began(name) if done.contains(name)));
            }
            Ok(())
        })?;
    }

    #[test]
    fn several_solves_at_once_run_everything_once(plants in plants(80), solves in 2..6usize) {
        runtime().block_on(async {
            let house = House::new();
            let (graph, target) = grow(&plants, None);
            // half of them through another solver on the same records, as other processes are
            let other = Solver::new(Arc::clone(&house.worker) as _, Arc::new(house.records.clone()), SolverOptions::default(), Reporter::silent());
            let solves = (0..solves).map(|n| {
                let solver = if n % 2 == 0 { house.solver.with_reporter(Reporter::silent()) } else { other.clone() };
                let graph = Arc::clone(&graph);
                tokio::spawn(async move { solver.solve(graph, target, CancellationToken::new(), |_, _| {}).await.unwrap() })
            });
            let solved: Vec<Solved> = in_time(futures_util::future::join_all(solves)).await.into_iter().map(Result::unwrap).collect();
            prop_assert!(solved.iter().all(|s| s.output == solved[0].output));
            check_order(&graph, &house.worker.take_happenings(), &[])?;
            Ok(())
        })?;
    }
}

/// Thousands of steps, wide and deep.
#[test]
fn thousands_of_steps() {
    let plants: Vec<Plant> = {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let tree =
            prop::collection::vec(plants(2).prop_map(|mut p| p.remove(0)), 4_000).new_tree(&mut runner);
        proptest::strategy::ValueTree::current(&tree.unwrap())
    };
    runtime().block_on(async {
        let house = House::new();
        let (graph, target) = grow(&plants, None);
        assert!(graph.len() > 4_000);
        let solve =
            || in_time(house.solver.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {}));
        let solved = solve().await.unwrap();
        check_order(&graph, &house.worker.take_happenings(), &solved.steps).unwrap();
        solve().await.unwrap();
        assert!(house.worker.take_happenings().is_empty());
    });
}

/// Nothing recurses along the graph.
#[test]
fn a_chain_of_ten_thousand() {
    runtime().block_on(async {
        let house = House::new();
        let mut book = Book::default();
        let mut last = book.image("debian:12");
        for n in 0..10_000 {
            last = book.copy(None, last, if n == 0 { "base" } else { "x" }, "");
            last = book.graph.add(
                exec(None, &["write x=1"]),
                vec![Input { vertex: last, usage: Usage::Root }],
                Book::info(&n.to_string()),
            );
        }
        let graph = Arc::new(book.graph);
        assert_eq!(graph.needed(last).len(), 20_001);
        let solve =
            || in_time(house.solver.solve(Arc::clone(&graph), last, CancellationToken::new(), |_, _| {}));
        solve().await.unwrap();
        assert!(solve().await.unwrap().steps.iter().all(|step| step.state == StepState::Cached));
        let explained = house.solver.explain(graph, last, CancellationToken::new()).await.unwrap();
        assert!(explained.iter().all(|step| step.state == Forecast::Cached));
    });
}
