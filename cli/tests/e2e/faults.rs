//! Builds that end before their time leave nothing, and spoil nothing.

use std::fs;
use std::process::Child;

use crate::support::{Bench, wait_for};

/// Mounts of this machine that mention a path.
pub(crate) fn mounts_of(path: &str) -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(path)).count()
}

/// Processes whose command line mentions a word.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = fs::read(entry.path().join("cmdline")) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(word) {
                found.push(line);
            }
        }
    }
    found
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_build_leaves_no_process_and_no_mount_and_the_next_one_succeeds() {
    let bench = Bench::new();
    let store = bench.store();
    let store = store.to_str().unwrap();
    let moments = [5u64, 30, 60, 100, 150, 200, 300, 450, 600, 900];
    for (round, moment) in moments.iter().enumerate() {
        let word = format!("e2e-kill-{}-{round}", std::process::id());
        let dockerfile = format!(
            "FROM base\nRUN echo {word}; dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null; sleep 0.3; echo {word}\nRUN cp /data /copy\n"
        );
        let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
        let context = context.to_str().unwrap();
        let build = bench.start_build(&["-t", "app", "-o", "type=oci,dest=out.tar", context]);
        std::thread::sleep(std::time::Duration::from_millis(*moment));
        kill(build);
        wait_for("its processes are gone", || processes_with(&word).is_empty());
        // a child that had not got to its command yet holds the lease until it is dead; it looks like the builder
        wait_for("its children are gone", || processes_with(store).is_empty());
        assert_eq!(mounts_of(store), 0, "round {round}");
        bench.build(&["-t", "app", "-o", "type=oci,dest=out.tar", context]).fine();
        let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

/// Directories of this name in the hierarchies of control groups.
fn groups_named(name: &str) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|path| path.join(name)).filter(|path| path.exists()).collect()
}

#[test]
fn no_control_group_stays_not_even_after_a_kill() {
    let bench = Bench::new();
    let word = format!("e2e-groups-{}", std::process::id());
    let dockerfile = format!("FROM base\nRUN echo {word}; sleep 600; echo {word}\n");
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let flags = ["--cgroup-parent", &word, "--memory", "64m", "--pids-limit", "100", "--cpu-shares", "512"];
    let build = bench.start_build(&[&flags[..], &[context]].concat());
    wait_for("the command runs", || processes_with(&word).iter().any(|line| line.contains("sleep 600")));
    assert!(!groups_named(&word).is_empty());
    kill(build);
    wait_for("its processes are gone", || processes_with(&word).is_empty());
    let quick = bench.context("quick", &[("Dockerfile", "FROM base\nRUN true\n")]);
    bench.build(&[&flags[..], &[quick.to_str().unwrap()]].concat()).fine();
    assert_eq!(groups_named(&word), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_command_that_needs_too_much_memory_is_named() {
    let bench = Bench::new();
    let context =
        bench.context("context", &[("Dockerfile", "FROM base\nRUN head -c 200m /dev/zero | tail\n")]);
    let printed = bench.build(&["--memory", "32m", "--memory-swap", "32m", context.to_str().unwrap()]);
    let line = "RUN head -c 200m /dev/zero | tail was killed: out of memory at 32 MiB";
    assert!(!printed.ok && printed.text.contains(line), "{}", printed.text);
}

#[test]
fn a_build_that_is_interrupted_stops_its_command() {
    let bench = Bench::new();
    let word = format!("e2e-interrupt-{}", std::process::id());
    let context = bench.context(
        "context",
        &[("Dockerfile", &format!("FROM base\nRUN echo {word}; sleep 600; echo {word}\n"))],
    );
    let build = bench.start_build(&[context.to_str().unwrap()]);
    wait_for("the command runs", || processes_with(&word).iter().any(|line| line.contains("sleep 600")));
    let pid = rustix::process::Pid::from_child(&build);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let done = build.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(processes_with(&word), Vec::<String>::new());
}

#[test]
fn what_is_missing_in_the_store_is_made_again() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN echo one > /one\nRUN echo two > /two\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    bench.build(&["-o", "type=local,dest=first", context]).fine();
    for layer in fs::read_dir(bench.store().join("layers")).unwrap().flatten() {
        fs::remove_dir_all(layer.path()).unwrap();
    }
    bench.build(&["-o", "type=local,dest=second", context]).fine();
    assert_eq!(fs::read_to_string(bench.path("second/two")).unwrap(), "two\n");
}
