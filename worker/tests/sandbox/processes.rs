//! Lifetimes: whatever happens, nothing that a command started goes on.

use std::time::Duration;

use bricklayer_worker::sandbox::{SandboxError, run};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Root, ran};

/// Is there a process with this word among its arguments?
fn running(word: &str) -> bool {
    std::fs::read_dir("/proc").expect("read /proc").flatten().any(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}

#[test]
fn what_runs_in_the_background_ends_with_the_command() {
    let root = Root::new();
    let ran = ran(root
        .shell("(sleep 987601 &) ; setsid sleep 987601 & nohup sleep 987601 >/dev/null 2>&1 & echo started"));
    assert_eq!(ran.stdout, "started\n");
    assert!(!running("987601"));
}

#[test]
fn a_cancelled_command_is_killed_with_all_it_started() {
    let root = Root::new();
    let cancel = CancellationToken::new();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !running("987602") {
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.cancel();
        });
        let command = root.shell("trap '' TERM INT; sleep 987602 & sleep 987602; sleep 987602");
        run(command, &|_, _| {}, &cancel).expect_err("cancelled")
    });
    assert!(matches!(error, SandboxError::Cancelled), "{error}");
    assert!(!running("987602"));
    assert_eq!(root.changes(), Vec::<String>::new());
}

#[test]
fn a_command_that_closes_its_outputs_is_waited_for() {
    let root = Root::new();
    let ran = ran(root.shell("exec >&- 2>&-; sleep 0.3; exit 5"));
    assert_eq!(ran.exit.code, 5);
}

#[test]
fn figures_are_those_of_all_processes() {
    let root = Root::new();
    let ran = ran(root.shell("(i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done) & wait"));
    assert!(ran.exit.cpu_time.is_some_and(|time| time > Duration::from_millis(1)), "{ran:?}");
    assert!(ran.exit.peak_memory.is_some_and(|bytes| bytes > 100_000), "{ran:?}");
}
