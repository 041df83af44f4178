use std::time::Duration;

use super::*;
use crate::worker::StepError;

fn wide(steps: &[&[&str]]) -> (Book, VertexId) {
    let mut book = Book::default();
    let base = book.image("debian:12");
    let inputs = steps.iter().map(|commands| Input { vertex: book.run(base, commands), usage: Usage::Root });
    let inputs = inputs.collect();
    let merge = book.graph.add(Op::Merge, inputs, StepInfo::default());
    let target = book.run(merge, &["write never=1"]);
    (book, target)
}

#[tokio::test]
async fn the_first_failure_stops_the_others_and_says_where() {
    let house = House::new();
    let (mut book, _) = wide(&[&["hang 1"], &["hang 2"]]);
    let base = VertexId(0);
    let location = Location { file: "Dockerfile".into(), first: 3, last: 4 };
    let info = StepInfo { location: Some(location.clone()), ..Book::info("RUN make") };
    let bad = book.run_as(base, &["sleep 5", "log compiling", "log error: x", "fail no luck"], info);
    let inputs = (1..4).chain([bad.0]).map(|n| Input { vertex: VertexId(n), usage: Usage::Root }).collect();
    let all = book.graph.add(Op::Merge, inputs, Book::info("all"));
    let target = book.run(all, &["write never=1"]);
    let error = house.solve(book, target).await.unwrap_err();
    assert_eq!(
        (error.vertex, error.location.as_ref(), error.to_string()),
        (bad, Some(&location), "cannot build RUN make".into())
    );
    assert_eq!(error.error.to_string(), "no luck");
    assert_eq!(error.log, b"compiling\nerror: x\n");
    assert_eq!(house.worker.busy(), 0, "everything has ended");
    let state = |name: &str| error.steps.iter().find(|step| step.name == name).map(|step| step.state);
    assert_eq!(state("RUN make"), Some(StepState::Failed));
    assert_eq!(state("RUN hang 2"), Some(StepState::Cancelled));
    assert_eq!(state("RUN write never=1"), Some(StepState::Pending));
    let told = house.told();
    let ends = |line: &&String| [": finished", ": cached"].iter().any(|end| line.ends_with(end));
    let announced = told.iter().filter(|line| line.ends_with(": announced")).count();
    assert_eq!(told.iter().filter(ends).count(), announced, "no display waits for ever: {told:?}");
    // what did succeed is there next time
    let mut book = Book::default();
    let base = book.image("debian:12");
    assert!(house.runs(book, base).await.is_empty());
}

#[tokio::test]
async fn cancelling_stops_everything() {
    let house = House::new();
    let (book, target) =
        wide(&[&["hang 1"], &["sleep 100000"], &["hang 2"], &["hang 3"], &["hang 4"], &["hang 5"]]);
    let cancel = CancellationToken::new();
    let solve = house.solver.solve(Arc::new(book.graph), target, cancel.clone(), |_, _| {});
    let stop = async {
        until(|| house.worker.busy() == 4).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(solve, stop);
    let error = result.unwrap_err();
    assert!(matches!(*error.error, StepError::Cancelled), "{error:?}");
    assert_eq!(error.vertex, target);
    assert_eq!((house.worker.busy(), house.solver.shared.flights.len()), (0, 0));
}

#[tokio::test]
async fn a_token_that_is_cancelled_already_starts_nothing() {
    let house = House::new();
    let (book, target) = wide(&[&["write a=1"]]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = house.solver.solve(Arc::new(book.graph), target, cancel, |_, _| {}).await.unwrap_err();
    assert!(matches!(*error.error, StepError::Cancelled));
    assert!(house.worker.take_happenings().is_empty());
}

#[tokio::test]
async fn a_step_goes_on_while_another_solve_needs_it() {
    let house = House::new();
    let mut book = Book::default();
    let base = book.image("debian:12");
    let target = book.run(base, &["gate go", "unique a"]);
    let graph = Arc::new(book.graph);
    let cancel = CancellationToken::new();
    let second = house.solver.with_reporter(Reporter::silent());
    let one = async {
        let result = house.solver.solve(Arc::clone(&graph), target, cancel.clone(), |_, _| {}).await;
        house.worker.open("go");
        result
    };
    let two = async {
        until(|| house.worker.busy() == 1).await;
        second.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {}).await
    };
    let stop = async {
        until(|| house.solver.shared.flights.passengers() == 2).await;
        cancel.cancel();
    };
    let (one, two, ()) = tokio::join!(one, two, stop);
    assert!(matches!(*one.unwrap_err().error, StepError::Cancelled));
    assert!(two.is_ok());
    assert_eq!(house.worker.take_runs(), ["FROM debian:12", "RUN gate go; unique a"]);
}

#[tokio::test]
async fn dropping_a_solve_stops_its_steps() {
    let house = House::new();
    let (book, target) = wide(&[&["hang 1"], &["hang 2"]]);
    {
        let solve = house.solver.solve(Arc::new(book.graph), target, CancellationToken::new(), |_, _| {});
        tokio::pin!(solve);
        while house.worker.busy() < 2 {
            let _ = tokio::time::timeout(Duration::from_millis(1), &mut solve).await;
        }
    }
    until(|| house.worker.busy() == 0 && house.solver.shared.flights.len() == 0).await;
}

#[tokio::test]
async fn a_panic_is_an_error_that_names_itself() {
    let house = House::new();
    let (book, target) = wide(&[&["panic index out of range"]]);
    let error = house.solve(book, target).await.unwrap_err();
    assert_eq!(error.error.to_string(), "a step ended in a defect of this program: index out of range");
    assert_eq!(error.name, "RUN panic index out of range");
}

/// Both are missing: whichever is found first, the one that comes first in the Dockerfile is told.
#[tokio::test]
async fn of_several_missing_files_the_first_is_told() {
    for _ in 0..20 {
        let house = House::new();
        let mut book = Book::default();
        let context = book.context();
        let a = book.copy(None, context, "nope", "/a");
        let b = book.copy(Some(a), context, "neither", "/b");
        let error = house.solve(book, b).await.unwrap_err();
        assert_eq!((error.vertex, error.error.to_string()), (a, "no such file: nope".to_owned()));
    }
}

#[tokio::test]
async fn files_missing_in_a_stage_are_the_fault_of_the_copy() {
    let house = House::new();
    let mut book = Book::default();
    let base = book.image("debian:12");
    let build = book.run(base, &["write a=1"]);
    let copy = book.copy(None, build, "b", "/");
    let error = house.solve(book, copy).await.unwrap_err();
    assert_eq!((error.vertex, error.error.to_string()), (copy, "no such file: b".to_owned()));
}

#[tokio::test]
async fn a_local_directory_is_no_layer() {
    let house = House::new();
    let mut book = Book::default();
    let context = book.context();
    let target =
        book.graph.add(Op::Merge, vec![Input { vertex: context, usage: Usage::Root }], Book::info("merge"));
    let error = house.solve(book, target).await.unwrap_err();
    assert_eq!(
        error.error.to_string(),
        "local directory `context` can't be merged or compared: copy it first"
    );
}

#[tokio::test]
async fn lost_files_start_the_solve_over_but_not_for_ever() {
    let house = House::new();
    let mut book = Book::default();
    let base = book.image("debian:12");
    let target = book.run(base, &["lose"]);
    let error = house.solve(book, target).await.unwrap_err();
    assert_eq!(error.error.to_string(), "an input is damaged");
    assert_eq!(house.worker.take_runs().len(), 1 + 1 + MAX_RESTARTS);
}

#[tokio::test]
async fn a_target_that_is_not_there_is_an_error() {
    let house = House::new();
    let error = house.solve(Book::default(), VertexId(7)).await.unwrap_err();
    assert_eq!(error.error.to_string(), "step 7 is not in the graph");
}

/// The key of a COPY is made when the build starts, its files are read later. What was changed in between is not
/// recorded under the key of what was there before.
#[tokio::test]
async fn a_file_that_changes_meanwhile_starts_the_solve_over() {
    let house = House::new();
    house.worker.write("context", "a", "old");
    let graph = |command: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let context = book.context();
        let edit = book.run(base, &[command]);
        let target = book.copy(Some(edit), context, "a", "/x");
        (book, target)
    };
    let (book, target) = graph("edit a=new");
    let solved = house.solve(book, target).await.unwrap();
    assert_eq!(house.worker.files(&solved.output)["/x/a"], "new");
    let copies = house.worker.take_runs().into_iter().filter(|name| name.starts_with("COPY"));
    assert_eq!(copies.count(), 2);
    assert!(house.told().contains(&"COPY a /x: warning: a file has changed while it was copied".to_owned()));
    house.worker.write("context", "a", "old");
    let (book, target) = graph("edit a=new");
    let solved = house.solve(book, target).await.unwrap();
    assert_eq!(house.worker.files(&solved.output)["/x/a"], "old");
}
