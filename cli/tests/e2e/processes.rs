//! Several processes on one store.

use std::collections::HashMap;
use std::fs;
use std::process::Child;
use std::time::Duration;

use crate::support::Bench;

/// Each step writes something that no second run would write, and leaves a line in a log that outlives builds.
fn dockerfile(round: usize, end: &str) -> String {
    let step = |name: &str, more: &str| {
        format!(
            "RUN --mount=type=cache,id=log,target=/log echo {round}-{name} >> /log/runs; \
             cat /proc/sys/kernel/random/uuid {more}> /{name}\n"
        )
    };
    format!(
        "FROM base AS one\n{}FROM base AS two\n{}{}FROM base\nCOPY --from=one /a /\nCOPY --from=two /c /\n{}",
        step("a", ""),
        step("b", ""),
        step("c", "/b "),
        step(end, "/a /c "),
    )
}

#[track_caller]
fn all_well(builds: impl IntoIterator<Item = Child>) -> Vec<String> {
    let ended = builds.into_iter().map(|build| {
        let done = build.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{text}");
        for complaint in ["warning", "locked", "can't be recorded", "can't be read"] {
            assert!(!text.contains(complaint), "{text}");
        }
        text
    });
    ended.collect()
}

#[test]
fn in_many_rounds_equal_steps_run_once_and_results_are_equal() {
    const ROUNDS: usize = 12;
    let bench = Bench::new();
    for round in 0..ROUNDS {
        // the last step is the same in every second round
        let ends = if round % 2 == 0 { ["d", "d"] } else { ["d", "e"] };
        let mut builds = Vec::new();
        for (number, end) in ends.into_iter().enumerate() {
            let name = format!("{round}-{number}");
            let context = bench.context(&name, &[("Dockerfile", &dockerfile(round, end))]);
            let dest = format!("type=local,dest=out-{name}");
            builds.push(bench.start_build(&["-o", &dest, context.to_str().unwrap()]));
            std::thread::sleep(Duration::from_millis([0, 3, 11, 29, 67, 150][round % 6]));
        }
        all_well(builds);
        let made = |number: usize, file: &str| fs::read(bench.path(&format!("out-{round}-{number}/{file}")));
        for file in ["a", "c"] {
            assert_eq!(made(0, file).unwrap(), made(1, file).unwrap(), "round {round}, {file}");
        }
        if ends[0] == ends[1] {
            assert_eq!(made(0, "d").unwrap(), made(1, "d").unwrap(), "round {round}");
        }
    }
    let log = "FROM base AS log\nRUN --mount=type=cache,id=log,target=/log cp /log/runs /runs\nFROM scratch\nCOPY --from=log /runs /\n";
    let context = bench.context("log", &[("Dockerfile", log)]);
    bench.build(&["-o", "type=local,dest=log-out", context.to_str().unwrap()]).fine();
    let mut runs: HashMap<String, usize> = HashMap::new();
    for line in fs::read_to_string(bench.path("log-out/runs")).unwrap().lines() {
        *runs.entry(line.to_owned()).or_default() += 1;
    }
    assert_eq!(runs.len(), ROUNDS * 4 + ROUNDS / 2, "{runs:?}");
    assert!(runs.values().all(|count| *count == 1), "{runs:?}");
}

#[test]
fn sixteen_processes_get_along() {
    let bench = Bench::new();
    let prepare = |round: usize, number: usize| {
        let text = format!(
            "FROM base AS shared\nRUN echo {round} > /shared\nFROM base\nCOPY --from=shared /shared /\n\
             RUN echo {number} > /own\nRUN cat /shared /own > /both\nCMD [\"{number}\"]\n"
        );
        let context = bench.context(&format!("{round}-{number}"), &[("Dockerfile", &text)]);
        (context, format!("type=local,dest=out-{number}"))
    };
    for round in 0..2 {
        let contexts: Vec<_> = (0..16).map(|number| prepare(round, number)).collect();
        let builds: Vec<Child> = contexts
            .iter()
            .map(|(context, dest)| bench.start_build(&["-o", dest, context.to_str().unwrap()]))
            .collect();
        all_well(builds);
        for number in 0..16 {
            let both = fs::read_to_string(bench.path(&format!("out-{number}/both"))).unwrap();
            assert_eq!(both, format!("{round}\n{number}\n"));
        }
    }
}
