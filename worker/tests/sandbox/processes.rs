//! Lifetimes: whatever happens, nothing that a command started goes on.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bricklayer_worker::sandbox::{SandboxError, run};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Root, ran};

const BUILDER: &str = "BRICKLAYER_TEST_BUILDER";

/// Not a test of its own: another one starts this program again with [`BUILDER`] set, as a builder to be killed.
#[test]
fn builder() {
    let Some(word) = std::env::var_os(BUILDER) else { return };
    let word = word.into_string().expect("a number");
    let root = Root::new();
    let say = |bytes: &[u8]| std::io::stdout().write_all(bytes).expect("write");
    say(format!("folder {}\n", root.folder.path().display()).as_bytes());
    // In a session of its own, with children, deaf to what it can be deaf to.
    let script =
        format!("trap '' TERM INT HUP; setsid sleep {word} & sleep {word} & echo ready; sleep {word}");
    let mut command = root.shell(&script);
    command.mounts.push(crate::fixture::tmpfs("/stub/at"));
    let _ = run(command, &|_, bytes: &[u8]| say(bytes), &CancellationToken::new());
}

#[test]
fn the_kernel_ends_what_a_killed_builder_leaves() {
    // Other tests mount and unmount meanwhile; none of them an overlay where everybody sees it.
    let overlays = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        mounts.lines().filter(|line| line.contains(" - overlay ")).map(str::to_owned).collect::<Vec<_>>()
    };
    for round in 0..5 {
        let before = overlays();
        let word = format!("98761{round}");
        let program = std::env::current_exe().expect("the test's own program");
        let mut builder = std::process::Command::new(program)
            .args(["--exact", "processes::builder", "--nocapture"])
            .env(BUILDER, &word)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a builder");
        let mut output = builder.stdout.take().expect("its output");
        let mut text = String::new();
        let mut buffer = [0; 256];
        while !text.contains("ready") {
            let length = output.read(&mut buffer).expect("read");
            assert_ne!(length, 0, "the builder ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        // Processes are started before they have the arguments of what they become.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !running(&word) {
            assert!(Instant::now() < deadline, "nothing runs");
            std::thread::sleep(Duration::from_millis(2));
        }
        builder.kill().expect("kill -9");
        builder.wait().expect("wait");
        let deadline = Instant::now() + Duration::from_secs(60);
        while running(&word) {
            assert!(Instant::now() < deadline, "the command outlived its builder");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(overlays(), before);
        let folder = text.lines().find_map(|line| line.split_once("folder ")).expect("a folder").1;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(folder), "{mounts}");
        std::fs::remove_dir_all(Path::new(folder)).expect("remove what the builder left");
    }
    // The next command removes its control groups; `groups` says which those were.
    ran(Root::new().shell("true"));
}

/// Is there a process with this word among its arguments?
pub(crate) fn running(word: &str) -> bool {
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
fn time_is_that_of_all_processes() {
    let root = Root::new();
    let ran = ran(root.shell("(i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done) & wait"));
    assert!(ran.exit.cpu_time.is_some_and(|time| time > Duration::from_millis(1)), "{ran:?}");
}

/// Without any control group.
#[test]
fn the_largest_process_is_known_if_it_is_larger_than_the_program_that_ran_it() {
    let root = Root::new();
    let mebibytes = ran(root.shell("head -c 150m /dev/zero | tail | wc -c")).exit.largest_process;
    let mebibytes = mebibytes.map(|bytes| bytes >> 20);
    assert!(mebibytes.is_some_and(|size| (150..400).contains(&size)), "{mebibytes:?}");
    assert_eq!(ran(root.shell("true")).exit.largest_process, None);
}
