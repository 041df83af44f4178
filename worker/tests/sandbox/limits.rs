//! Limits of control groups. They need a host whose memory, cpu and pids controllers root can use.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::{Root, output, ran, refused};

/// All groups below the folders that are ours.
fn groups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
        for ours in [hierarchy.path().join("bricklayer"), hierarchy.path().join("bricklayer-test")] {
            found.extend(fs::read_dir(ours).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    for ours in ["/sys/fs/cgroup/bricklayer", "/sys/fs/cgroup/bricklayer-test"] {
        found.extend(fs::read_dir(ours).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    found.retain(|path| path.is_dir());
    found
}

#[test]
fn a_command_that_uses_too_much_memory_is_killed_and_it_is_said() {
    let root = Root::new();
    let mut command = root.shell("head -c 100m /dev/zero | tail");
    command.limits.memory = Some(32 << 20);
    command.limits.memory_swap = Some(32 << 20);
    let ran = ran(command);
    assert_eq!(ran.exit.out_of_memory, Some(32 << 20), "{ran:?}");
    assert!(!ran.exit.success());
    assert!(ran.exit.peak_memory.is_some_and(|bytes| bytes > 16 << 20 && bytes <= 32 << 20), "{ran:?}");
    // With enough it works.
    let mut command = root.shell("head -c 10m /dev/zero | tail | wc -c");
    command.limits.memory = Some(256 << 20);
    assert_eq!(output(command), "10485760\n");
}

/// What a file of the running command's own group says, whichever version has it.
fn while_it_runs(
    mut command: bricklayer_worker::sandbox::Command,
    parent: &str,
    names: &[&str],
) -> Vec<String> {
    command.cgroup_parent = Some(parent.to_owned());
    let found = std::sync::Mutex::new(Vec::new());
    let look = |_, _: &[u8]| {
        let roots =
            fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten().map(|entry| entry.path());
        // What was delegated to an ordinary user lies deeper.
        let own = fs::read_to_string("/proc/self/cgroup").expect("own groups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
        let above = Path::new(&own).ancestors().map(|path| Path::new("/sys/fs/cgroup").join(path));
        for root in roots.chain(above) {
            for group in fs::read_dir(root.join(parent)).into_iter().flatten().flatten() {
                let read = names.iter().filter_map(|name| fs::read_to_string(group.path().join(name)).ok());
                found.lock().expect("lock").extend(read.map(|text| text.trim().to_owned()));
            }
        }
    };
    let exit = bricklayer_worker::sandbox::run(command, &look, &tokio_util::sync::CancellationToken::new());
    assert!(exit.expect("run").success());
    found.into_inner().expect("lock")
}

#[test]
fn memory_and_swap_are_limited_together() {
    let root = Root::new();
    let parent = format!("bricklayer-test-swap-{}", std::process::id());
    let mut command = root.shell("echo running");
    command.limits.memory = Some(32 << 20);
    command.limits.memory_swap = Some(48 << 20);
    // Version 1 knows the sum, version 2 swap alone.
    let names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max"];
    let found = while_it_runs(command, &parent, &names);
    assert!(found == ["33554432", "50331648"] || found == ["33554432", "16777216"], "{found:?}");
}

#[test]
fn processes_are_counted() {
    let root = Root::new();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done; echo all; wait";
    let mut command = root.shell(script);
    command.limits.pids = Some(8);
    let few = ran(command);
    assert!(few.stderr.contains("fork"), "{few:?}");
    let mut command = root.shell(script);
    command.limits.pids = Some(64);
    assert_eq!(output(command), "all\n");
}

#[test]
fn time_on_the_cpus_is_limited() {
    let root = Root::new();
    // A tenth of one CPU: 40 ms of work take 300 ms at least.
    let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
    let mut command = root.shell(script);
    command.limits.cpu_quota = Some((10_000, 100_000));
    let start = std::time::Instant::now();
    let slow = ran(command);
    let wall = start.elapsed();
    let used = slow.exit.cpu_time.expect("a figure");
    assert!(slow.exit.success());
    // A period's share may be used at once at the beginning and at the end.
    assert!(wall.as_secs_f64() > (used.as_secs_f64() - 0.02) * 5.0, "{used:?} of CPU in {wall:?}");
}

#[test]
fn sets_of_cpus_and_weights_are_accepted() {
    let root = Root::new();
    let mut command = root.shell("grep Cpus_allowed_list /proc/self/status | awk '{print $2}'");
    command.limits.cpuset_cpus = Some("0".to_owned());
    command.limits.cpuset_mems = Some("0".to_owned());
    command.limits.cpu_shares = Some(512);
    assert_eq!(output(command), "0\n");
    let mut command = root.shell("true");
    command.limits.cpuset_cpus = Some("4000".to_owned());
    assert!(refused(command).starts_with("the set of CPUs can't be limited: "));
}

#[test]
fn groups_are_removed_and_may_have_a_parent() {
    let root = Root::new();
    let mut command = root.shell("cat /proc/self/cgroup; ls /sys/fs/cgroup | head -1; ls -d /sys/fs/cgroup/bricklayer* 2>/dev/null; true");
    command.cgroup_parent = Some("/bricklayer-test".to_owned());
    command.limits.pids = Some(50);
    let text = output(command);
    // It sees its own group as the root.
    assert!(text.contains("0::/\n"), "{text}");
    assert!(!text.contains("bricklayer"), "{text}");
    let mine = format!("{}-", std::process::id());
    let left = groups()
        .into_iter()
        .filter(|path| path.parent().is_some_and(|parent| parent.ends_with("bricklayer-test")));
    let left: Vec<_> = left
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mine)))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_parent_is_a_name_in_the_hierarchy() {
    let root = Root::new();
    let mut command = root.shell("true");
    command.cgroup_parent = Some("../outside".to_owned());
    assert_eq!(refused(command), "`../outside` is no control group");
    assert!(!Path::new("/sys/fs/outside").exists());
}
