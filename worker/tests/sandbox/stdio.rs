//! What goes into a command and out of it, what it is told while it runs, and what the caller changes of its rights.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use bricklayer_worker::sandbox::{Command, Control, Size, Stream, run};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Root, output, ran};

/// An input that says this, and ends.
fn saying(text: &'static str) -> OwnedFd {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    std::thread::spawn(move || std::fs::File::from(to).write_all(text.as_bytes()));
    from
}

const SMALL: Size = Size { rows: 11, columns: 44 };

#[test]
fn what_comes_in_is_read_to_its_end() {
    let root = Root::new();
    let mut command = root.shell("wc -l; readlink /proc/self/fd/0 | cut -d: -f1");
    command.stdio.input = Some(saying("one\ntwo\n"));
    assert_eq!(output(command), "2\npipe\n");
    root.fresh_upper();
    assert_eq!(root.output("wc -c"), "0\n");
}

#[test]
fn a_terminal_is_a_terminal() {
    let root = Root::new();
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo error >&2 && echo > /dev/tty; \
                  test -c /dev/console && ls /dev/pts";
    let mut command = root.shell(script);
    command.stdio.terminal = Some(SMALL);
    let ran = ran(command);
    assert_eq!(ran.stdout, "/dev/pts/0\r\n11 44\r\nerror\r\n\r\n0     ptmx\r\n");
    assert_eq!((ran.stderr.as_str(), ran.exit.code), ("", 0));
}

#[test]
fn what_is_typed_reaches_a_terminal_as_another_user() {
    let root = Root::new();
    let mut command = root.shell("read word && echo got $word && echo again > /dev/pts/0; cat");
    command.user.uid = 1000;
    command.stdio.terminal = Some(SMALL);
    command.stdio.input = Some(saying("hello\n"));
    assert_eq!(output(command), "hello\r\ngot hello\r\nagain\r\n");
}

#[test]
fn an_interrupt_that_is_typed_ends_the_program_in_the_foreground() {
    let root = Root::new();
    // The shell is pid 1 and lives on.
    let mut command = root.shell("trap 'echo trapped' INT; sh -c 'echo ready; exec sleep 600'; echo after");
    command.stdio.terminal = Some(SMALL);
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    command.stdio.input = Some(from);
    let text = until_ready(command, &|| {
        rustix::io::write(&to, b"\x03").expect("typed");
    });
    assert!(text.contains("trapped") && text.contains("after"), "{text:?}");
}

/// Runs a command; when it has written `ready`, does something. What it wrote.
fn until_ready(command: Command, then: &dyn Fn()) -> String {
    let written = Mutex::new(String::new());
    let collect = |_: Stream, bytes: &[u8]| {
        let mut written = written.lock().expect("lock");
        let before = written.contains("ready");
        written.push_str(&String::from_utf8_lossy(bytes));
        if !before && written.contains("ready") {
            then();
        }
    };
    run(command, &collect, &CancellationToken::new()).expect("it runs");
    written.into_inner().expect("lock")
}

#[test]
fn signals_and_sizes_reach_a_running_command() {
    let root = Root::new();
    let control = Control::new().expect("a control");
    let mut command = root.shell("trap 'echo one; exit 3' USR1; echo ready; while :; do sleep 0.1; done");
    command.stdio.control = Some(control.clone());
    let text = until_ready(command, &|| {
        // TERM has no handler, and pid 1 does not heed it.
        control.signal(15);
        control.signal(10);
    });
    assert_eq!(text, "ready\none\n");

    root.fresh_upper();
    let mut command = root.shell("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done");
    command.stdio.terminal = Some(SMALL);
    command.stdio.control = Some(control.clone());
    let text = until_ready(command, &|| control.resize(Size { rows: 5, columns: 99 }));
    assert_eq!(text, "ready\r\n5 99\r\n");

    root.fresh_upper();
    let mut command = root.shell("echo ready; sleep 600");
    command.stdio.control = Some(control.clone());
    let exit = {
        let ready = |_: Stream, _: &[u8]| control.signal(9);
        run(command, &ready, &CancellationToken::new()).expect("it runs")
    };
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
}

#[test]
fn a_read_only_root_takes_writes_on_mounts_only() {
    let root = Root::new();
    let mut command = root.shell(
        "touch /new 2>/dev/null || echo refused; touch /srv/new && echo mounted; echo > /dev/null && echo device; \
         mount -o remount,rw / 2>/dev/null || echo stays; pwd",
    );
    command.read_only = true;
    command.cwd = "/made/for/it".to_owned();
    command.mounts.push(crate::fixture::tmpfs("/srv"));
    assert_eq!(output(command), "refused\nmounted\ndevice\nstays\n/made/for/it\n");
}

#[test]
fn capabilities_are_added_and_taken_away() {
    let root = Root::new();
    let script = "grep -E 'Cap(Eff|Bnd)' /proc/self/status; mount -t tmpfs none /srv 2>/dev/null && echo mounted; \
                  chown 5 /tmp 2>/dev/null || echo kept";
    let with = |add: &[&str], drop: &[&str]| {
        root.fresh_upper();
        let mut command = root.shell(script);
        add.iter().try_for_each(|name| command.capabilities.add(name)).expect("known");
        drop.iter().try_for_each(|name| command.capabilities.drop(name)).expect("known");
        output(command).replace('\t', " ")
    };
    let sets = |set: &str| format!("CapEff: {set}\nCapBnd: {set}\n");
    assert_eq!(with(&[], &[]), sets("00000000a80425fb"));
    assert_eq!(with(&[], &["all"]), sets("0000000000000000") + "kept\n");
    assert_eq!(with(&["SYS_ADMIN"], &["CAP_CHOWN"]), sets("00000000a82425fa") + "mounted\nkept\n");
}
