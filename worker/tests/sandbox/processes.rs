//! Lifetimes: whatever happens, nothing that a command started goes on.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bricklayer_worker::sandbox::{Attached, AttachedMount, SandboxError, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Root, ran};

const BUILDER: &str = "BRICKLAYER_TEST_BUILDER";

/// What it runs; the value of [`BUILDER`] stands where it says `WORD`.
const SCRIPT: &str = "BRICKLAYER_TEST_SCRIPT";

/// Not a test of its own: another one starts this program again with [`BUILDER`] set, as a builder to be killed.
#[test]
fn builder() {
    let Some(word) = std::env::var_os(BUILDER) else { return };
    let word = word.into_string().expect("a number");
    let root = Root::new();
    let say = |bytes: &[u8]| std::io::stdout().write_all(bytes).expect("write");
    say(format!("folder {}\n", root.folder.path().display()).as_bytes());
    std::fs::write(root.base().join("etc/passwd"), "app:x:1000:1000::/:/bin/sh\n").expect("write");
    let script = std::env::var(SCRIPT).expect("a script").replace("WORD", &word);
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
        // In a session of its own, with children, deaf to what it can be deaf to.
        let (mut builder, text) =
            started(&word, "trap '' TERM INT HUP; setsid sleep WORD & sleep WORD & echo ready; sleep WORD");
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

/// A builder that runs a script, which has said `ready` and started a program with the word among its arguments; and what
/// it wrote.
fn started(word: &str, script: &str) -> (std::process::Child, String) {
    let program = std::env::current_exe().expect("the test's own program");
    let mut builder = std::process::Command::new(program)
        .args(["--exact", "processes::builder", "--nocapture"])
        .env(BUILDER, word)
        .env(SCRIPT, script)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a builder");
    let output = builder.stdout.as_mut().expect("its output");
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.contains("ready") {
        let length = output.read(&mut buffer).expect("read");
        assert_ne!(length, 0, "the builder ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    // Processes are started before they have the arguments of what they become.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !running(word) {
        assert!(Instant::now() < deadline, "nothing runs");
        std::thread::sleep(Duration::from_millis(2));
    }
    (builder, text)
}

/// What the kernel does when memory is short: it kills all that share the builder's, and so the supervisor with it. The
/// command has become another user, which no longer dies with its parent by itself.
#[test]
fn the_kernel_ends_a_command_whose_builder_and_supervisor_are_killed_at_once() {
    let word = "987620";
    let (mut builder, text) =
        started(word, "echo ready; exec start-stop-daemon -S -c 1000 -x /bin/sleep -- WORD");
    let command = with_word(word).expect("the command");
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{command}/status")).expect("its status");
        if status.starts_with("Name:\tsleep\n") {
            break status;
        }
        assert!(Instant::now() < deadline, "it has not become the program: {status}");
        std::thread::sleep(Duration::from_millis(2));
    };
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("its parent").trim();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).expect("the parent's name");
    assert_eq!(name, "bricklayer-run\n");
    let kill = |signal: rustix::process::Signal, number: &str| {
        let pid = number.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(pid, signal).expect("a signal");
    };
    // Stopped first: it is to do nothing about the supervisor's end.
    kill(rustix::process::Signal::STOP, &builder.id().to_string());
    kill(rustix::process::Signal::KILL, parent);
    kill(rustix::process::Signal::KILL, &builder.id().to_string());
    builder.wait().expect("wait");
    let deadline = Instant::now() + Duration::from_secs(20);
    while running(word) {
        if Instant::now() > deadline {
            kill(rustix::process::Signal::KILL, &command);
            panic!("the command outlived its supervisor");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let folder = text.lines().find_map(|line| line.split_once("folder ")).expect("a folder").1;
    std::fs::remove_dir_all(Path::new(folder)).expect("remove what the builder left");
    ran(Root::new().shell("true"));
}

/// Is there a process with this word among its arguments?
pub(crate) fn running(word: &str) -> bool {
    with_word(word).is_some()
}

/// The number of a process with this word among its arguments.
fn with_word(word: &str) -> Option<String> {
    let mut entries = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let entry = entries.find(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    });
    entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
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

/// A filesystem (FUSE) attached nowhere, whose server tells what its root is, and then never answers again. It ends when
/// the second descriptor is closed.
fn mute() -> (OwnedFd, OwnedFd) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).expect("/dev/fuse");
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    let number = device.as_raw_fd().to_string();
    for (key, value) in [("fd", &*number), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        fsconfig_set_string(context.as_fd(), key, value).expect("an option");
    }
    fsconfig_create(context.as_fd()).expect("a filesystem");
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(context.as_fd(), flags, MountAttrFlags::empty()).expect("a mount");
    let look = std::thread::spawn(move || {
        rustix::fs::fstat(&mount).expect("stat");
        mount
    });
    // INIT and GETATTR, with the answers' parts after `fuse_out_header`.
    let numbers = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let init = numbers(&[7, 19, 0, 0, 0, 4096]);
    let mut root = vec![0u32; 26];
    (root[0], root[4], root[19], root[20]) = (u32::MAX, 1, 0o40755, 2);
    for (operation, answer) in [(26u32, init), (3, numbers(&root))] {
        let mut request = vec![0; 64 << 10];
        let length = rustix::io::read(&device, &mut request).expect("a request");
        assert!(length >= 16 && request[4..8] == operation.to_ne_bytes(), "{:?}", &request[..length]);
        let mut reply = numbers(&[16 + answer.len() as u32, 0]);
        reply.extend_from_slice(&request[8..16]);
        reply.extend(answer);
        rustix::io::write(&device, &reply).expect("an answer");
    }
    (look.join().expect("a thread"), device)
}

#[test]
fn a_command_that_can_not_start_is_cancelled() {
    let root = Root::new();
    let (mount, device) = mute();
    let mut command = root.command(&["/mute/program"]);
    command.mounts.push(AttachedMount {
        target: "/mute".to_owned(),
        what: Attached::Tree { fd: mount, read_only: false },
    });
    let cancel = CancellationToken::new();
    let (tell, told) = std::sync::mpsc::channel();
    let run_it = {
        let cancel = cancel.clone();
        std::thread::spawn(move || tell.send(run(command, &|_, _| {}, &cancel)).expect("somebody listens"))
    };
    // Pid 1 looks for its program.
    let mut asked = [PollFd::new(&device, PollFlags::IN)];
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut asked, Some(&patience)), Ok(1), "it does not get there");
    assert!(told.try_recv().is_err(), "it waits");
    cancel.cancel();
    let error = told
        .recv_timeout(Duration::from_secs(20))
        .expect("it ends although nobody answers")
        .expect_err("cancelled");
    assert!(matches!(error, SandboxError::Cancelled), "{error}");
    run_it.join().expect("a thread");
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
