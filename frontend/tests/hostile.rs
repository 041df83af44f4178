//! Input that wants to take all time or memory ends in an error, or in a graph, soon. No time is asserted: what takes too long
//! hangs the test, and what takes too much memory kills it. `cargo bench --bench hostile` says how long and how much.

mod common;
#[path = "common/hostile.rs"]
mod hostile;

use std::num::NonZero;
use std::sync::Mutex;

use bricklayer_frontend::syntax::Tree;
use bricklayer_frontend::{Dockerfile, call, ignore, lower};
use bricklayer_solver::pattern::Patterns;
use common::{Images, options};
use hostile::{Case, Outcome, cases};

#[test]
fn every_case_ends_as_it_should() {
    let wrong = Mutex::new(Vec::new());
    let cases = Mutex::new(cases().into_iter());
    let work = || {
        while let Some(case) = { cases.lock().unwrap().next() } {
            wrong.lock().unwrap().extend(problem(&case));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is not as it should be.
fn problem(case: &Case) -> Option<String> {
    let tree = Tree::parse(case.text.as_bytes());
    assert!(tree.write() == case.text.as_bytes(), "{}", case.name);
    let result = Dockerfile::parse(case.text.as_bytes()).and_then(|file| lower(&file, &options(), &Images));
    let error = result.err().map(|errors| {
        let text = errors.to_string();
        text.lines().next().unwrap_or_default().chars().take(200).collect::<String>()
    });
    let fine = match (case.outcome, &error) {
        (Outcome::Graph, None) => true,
        (Outcome::Error(wanted), Some(error)) => error.contains(wanted),
        _ => false,
    };
    (!fine).then(|| format!("{}: {:?}, and not {error:?}", case.name, case.outcome))
}

#[test]
fn what_is_asked_of_hostile_files_is_answered() {
    for name in ["100,000 ARGs", "10,000 stages of one name", "100,000 unknown instructions"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        assert!(!call::check(case.text.as_bytes(), &options(), &Images).to_json().is_empty());
        if let Ok(file) = Dockerfile::parse(case.text.as_bytes()) {
            assert!(!call::targets(&file).to_json().is_empty());
        }
    }
}

#[test]
fn ignore_files_of_many_stars() {
    let line = format!("{}b\n", "**/a*".repeat(20));
    let patterns = ignore::parse(line.repeat(200).as_bytes());
    let patterns = Patterns::new(&patterns).unwrap();
    let path = "aaaa/".repeat(40);
    assert!(!patterns.matches(path.trim_end_matches('/')));
    assert!(!Patterns::new(&["**/".repeat(50_000)]).unwrap().is_empty());
}
