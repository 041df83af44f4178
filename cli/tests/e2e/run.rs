//! Images are tried out: `bricklayer run`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use crate::faults::{mounts_of, processes_with};
use crate::person::Person;
use crate::support::{Bench, Printed, RegistryServer, tool, wait_for};

/// A store with the image `app`, whose config says everything that `run` looks at.
fn bench() -> Bench {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN mkdir /work && echo kept > /work/file\nENV A=image B=image\nWORKDIR /work\nUSER app\n\
                      ENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo default; pwd; id -u\"]\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    bench.build(&["-t", "app", context.to_str().unwrap()]).fine();
    bench
}

fn run(bench: &Bench, args: &[&str]) -> Printed {
    bench.run(&[&["run"], args].concat())
}

#[test]
fn the_image_says_what_runs_and_flags_change_it() {
    let bench = bench();
    fs::write(bench.path("variables"), "# a comment\n\nC=file\nHOME\nB\n").unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["app"], "default\n/work\n1000\n"),
        (&["--rm", "app", "echo $0 $1", "x", "y"], "x y\n"),
        (&["--entrypoint", "echo", "app"], "\n"),
        (&["--entrypoint", "echo", "app", "-n", "--rm"], "--rm"),
        (&["--entrypoint", "", "app", "pwd"], "/work\n"),
        (&["-w", "/new/dir", "-u", "0:7", "app", "pwd; id -u; id -g; touch x"], "/new/dir\n0\n7\n"),
        (&["-e", "A=run", "-e", "WORD", "-e", "B", "app", "echo $A $WORD ${B-none}"], "run given none\n"),
        (&["--env-file", "variables", "app", "echo $A $C ${B-none}"], "image file none\n"),
        (
            &[
                "--hostname",
                "here",
                "--add-host",
                "db:192.0.2.7",
                "app",
                "hostname; grep -c 192.0.2.7 /etc/hosts",
            ],
            "here\n1\n",
        ),
        (&["--network", "none", "app", "ls /sys/class/net"], "lo\n"),
    ];
    for (args, expected) in cases {
        let done = bench.command(&[&["run"], args].concat()).env("WORD", "given").env_remove("B").output();
        let done = Printed::from(done.unwrap()).fine();
        assert_eq!(done.text, expected, "{args:?}");
    }
    // by the beginning of its ID
    let inspected = bench.run(&["inspect", "app"]).fine().stdout;
    let id = inspected.split("\"sha256:").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(run(&bench, &[&id[..12], "echo by id"]).fine().stdout, "by id\n");
    // nothing that one did is there for the next
    run(&bench, &["-u", "0", "app", "echo changed > file; cat file"]).fine();
    assert_eq!(run(&bench, &["app", "cat file"]).fine().stdout, "kept\n");
    let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn exit_codes_are_those_of_docker() {
    let bench = bench();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["app", "exit 7"], 7, ""),
        (&["app", "kill -9 $$"], 0, ""),
        (&["app", "sh -c 'kill -9 $$'; exit $?"], 137, "Killed"),
        (&["--entrypoint", "/nope", "app"], 127, "exec: \"/nope\": no such file"),
        (&["--entrypoint", "/etc/passwd", "app"], 126, "exec: \"/etc/passwd\": permission denied"),
        (&["--pull=never", "nowhere.invalid/app"], 125, "no image `nowhere.invalid/app` in the store"),
        (&["-u", "nobody-here", "app"], 125, "no user `nobody-here`"),
        (&["-v", "x:/x", "app"], 125, "a named volume is not supported yet"),
        (&["-t", "-i", "app"], 125, "standard input is not a terminal"),
    ];
    for (args, code, text) in cases {
        let done = run(&bench, args);
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.text);
        assert!(done.text.contains(text), "{args:?}: {}", done.text);
    }
    let limited = run(
        &bench,
        &["-m", "16m", "--tmpfs", "/m", "-u", "0", "app", "exec dd if=/dev/zero of=/m/x bs=1M count=64"],
    );
    assert_eq!(limited.code, Some(137), "{}", limited.text);
    assert!(limited.text.contains("killed: out of memory at 16 MiB"), "{}", limited.text);
}

#[test]
fn files_of_the_host_are_mounted() {
    let bench = bench();
    let host = bench.context("host", &[("file", "from the host\n")]);
    let host = host.to_str().unwrap();
    let root = |args: &[&str]| run(&bench, &[&["-u", "0"], args].concat());
    let volume = format!("{host}:/data");
    assert_eq!(
        root(&["-v", &volume, "app", "cat /data/file; echo made > /data/new"]).fine().stdout,
        "from the host\n"
    );
    assert_eq!(fs::read_to_string(bench.path("host/new")).unwrap(), "made\n");
    let refused = root(&["-v", &format!("{volume}:ro"), "app", "echo > /data/other"]);
    assert!(!refused.ok && refused.text.contains("Read-only file system"), "{}", refused.text);
    let mount = format!("type=bind,src={host}/file,dst=/etc/one,readonly");
    assert_eq!(root(&["--mount", &mount, "app", "cat /etc/one"]).fine().stdout, "from the host\n");
    let missing = root(&["--mount", "type=bind,src=/no/such/place,dst=/x", "app", "true"]);
    assert_eq!(missing.code, Some(125));
    assert!(missing.text.contains("cannot mount `/no/such/place`"), "{}", missing.text);
    root(&["-v", "./made/deep:/x", "app", "true"]).fine();
    assert!(bench.path("made/deep").is_dir());
    let script = "touch /no 2>/dev/null || echo refused; echo > /t/yes && grep ' /t ' /proc/mounts";
    let read_only = root(&["--read-only", "--tmpfs", "/t:size=1m,mode=700", "app", script]).fine().stdout;
    assert!(read_only.starts_with("refused\n") && read_only.contains("noexec"), "{read_only}");
    let sets = "grep CapEff /proc/self/status; mount -t tmpfs none /mnt 2>/dev/null && echo mounted";
    let text = root(&["--cap-drop", "ALL", "--cap-add", "SYS_ADMIN", "app", &format!("mkdir /mnt; {sets}")])
        .fine()
        .stdout;
    assert_eq!(text, "CapEff:\t0000000000200000\nmounted\n");
}

#[test]
fn standard_input_is_passed_on_and_signals_too() {
    let bench = bench();
    let mut child =
        bench.command(&["run", "-i", "app", "cat; exit 3"]).stdin(Stdio::piped()).spawn().unwrap();
    let text = "line\n".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let text = text.clone();
        move || stdin.write_all(text.as_bytes())
    });
    let done: Printed = child.wait_with_output().unwrap().into();
    writer.join().unwrap().unwrap();
    assert_eq!((done.code, done.stdout.len()), (Some(3), text.len()), "{}", done.stdout.len());

    let script = "trap 'echo heard; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = bench.command(&["run", "app", script]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\nheard\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));

    // what does not heed signals is killed by the third
    let mut child = bench
        .command(&["run", "app", "trap '' INT TERM; echo ready; while :; do sleep 0.05; done"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    wait_for("it is killed", || {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn a_terminal_is_handed_over_and_given_back() {
    let bench = bench();
    let mut person = Person::start(&bench.command(&["run", "-it", "--entrypoint", "sh", "app"]));
    person.types("echo $((40 + 2)); tty; stty size; echo $TERM; id -u\n");
    person.sees("\n42\r\n/dev/pts/0\r\n50 132\r\nxterm\r\n1000\r\n");
    assert!(person.is_raw());
    person.resizes(33, 101);
    wait_for("the new size", || {
        person.types("stty size\n");
        person.screen().contains("33 101\r\n")
    });
    // Ctrl-C is for what runs inside
    person.types("sh -c 'echo beg\"\"un; exec sleep 600'\n");
    person.sees("begun");
    person.types("\x03");
    person.types("echo af\"\"ter; exit 5\n");
    person.sees("after");
    assert_eq!(person.end().code(), Some(5));
    assert!(!person.is_raw());

    let mut person = Person::start(&bench.command(&["run", "-it", "app", "echo ready; exec cat"]));
    person.sees("ready");
    wait_for("it is killed", || {
        if person.program.try_wait().unwrap().is_none() {
            person.signals(rustix::process::Signal::TERM);
        }
        person.program.try_wait().unwrap().is_some()
    });
    assert_eq!(person.end().code(), Some(137));
    assert!(!person.is_raw(), "given back also when the command was killed");
}

#[test]
fn a_killed_run_leaves_nothing() {
    let bench = bench();
    let store = bench.store();
    let store = store.to_str().unwrap();
    for round in 0..4 {
        let word = format!("e2e-run-{}-{round}", std::process::id());
        let script = format!("echo {word} > /work/file; sleep 600; echo {word}");
        let mut child = bench.command(&["run", "-u", "0", "app", &script]).spawn().unwrap();
        wait_for("the command runs", || {
            processes_with(&word).iter().any(|line| line.starts_with("sleep") || line.contains("/bin/sh -c"))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("its processes are gone", || {
            processes_with(&word).is_empty() && processes_with(store).is_empty()
        });
        assert_eq!(mounts_of(store), 0);
        assert_eq!(run(&bench, &["app", "cat file"]).fine().stdout, "kept\n");
        let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

#[test]
fn an_image_that_is_not_there_is_pulled() {
    let bench = bench();
    let registry = RegistryServer::start(&bench);
    let name = format!("{}/app:1", registry.address);
    bench.run(&["tag", "app", &name]).fine();
    bench.run(&["push", &name]).fine();
    let other = Bench::empty();
    let done = run(&other, &["--progress", "plain", &name, "echo pulled"]).fine();
    assert_eq!(done.stdout, "pulled\n");
    assert!(done.text.contains(&format!("pulling {name}")), "{}", done.text);
    // it stays, under its name
    drop(registry);
    let again = run(&other, &[&name, "echo again"]).fine();
    assert_eq!(again.text, "again\n");
    let always = run(&other, &["--pull", &name, "true"]);
    assert_eq!(always.code, Some(125), "{}", always.text);
}

#[test]
fn an_oci_runtime_runs_builds_and_containers_and_leaves_nothing_when_killed() {
    let bench = bench();
    let store = bench.store();
    let store = store.to_str().unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c cat /run/secrets/s > /seen; grep -c . /proc/1/cmdline >> /seen\n\
                      RUN ls -a / /etc > /list\n";
    let context = bench.context("oci", &[("Dockerfile", dockerfile), ("secret", "value\n")]);
    let context = context.to_str().unwrap();
    let build = |runtime: &str, out: &str| {
        let secret = format!("id=s,src={context}/secret");
        let output = format!("type=local,dest={out}");
        bench
            .build(&["--oci-runtime", runtime, "--no-cache", "--secret", &secret, "-o", &output, context])
            .fine();
        (
            fs::read_to_string(bench.path(&format!("{out}/seen"))).unwrap(),
            fs::read_to_string(bench.path(&format!("{out}/list"))).unwrap(),
        )
    };
    let runc = build("runc", "runc");
    assert!(runc.0.starts_with("value\n"), "{}", runc.0);
    assert_eq!(build("crun", "crun"), runc);

    let missing = bench.build(&["--oci-runtime", "no-such-runtime", context]);
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.text.contains("--oci-runtime `no-such-runtime`: there is no such program in PATH"),
        "{}",
        missing.text
    );
    let none = bench.command(&["run", "app"]).env("BRICKLAYER_OCI_RUNTIME", "/dev/null").output().unwrap();
    assert_eq!(none.status.code(), Some(125));

    for runtime in ["runc", "crun"] {
        let word = format!("e2e-{runtime}-{}", std::process::id());
        let args = [
            "run",
            "--oci-runtime",
            runtime,
            "-u",
            "0",
            "app",
            &format!("echo {word}; sleep 600; echo {word}"),
        ];
        let mut child = bench.command(&args).spawn().unwrap();
        wait_for("the command runs", || processes_with(&word).iter().any(|line| line.starts_with("/bin/sh")));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("its processes are gone", || {
            processes_with(&word).is_empty() && processes_with(store).is_empty()
        });
        assert_eq!(mounts_of(store), 0);
        run(&bench, &["--oci-runtime", runtime, "app", "true"]).fine();
        let groups = tool("find", &["/sys/fs/cgroup", "-path", &format!("*/bricklayer/{}-*", child.id())]);
        assert_eq!(groups, "", "{runtime}");
        let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
