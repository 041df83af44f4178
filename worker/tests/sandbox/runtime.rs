//! The same sandbox under OCI runtimes: Debian's runc and crun.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use bricklayer_solver::op::{Limits, Network, Security};
use bricklayer_worker::overlay;
use bricklayer_worker::sandbox::{
    Attached, AttachedMount, Command, Runtime, SandboxError, Size, Stream, run,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Root, ran, tmpfs};

const RUNTIMES: [&str; 2] = ["runc", "crun"];

fn program(name: &str) -> PathBuf {
    let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|place| PathBuf::from(place).join(name));
    places
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: apt-get install {name}"))
}

fn under(root: &Root, name: &str, mut command: Command) -> Command {
    let scratch = root.folder.path().join(format!("bundle-{name}"));
    fs::create_dir_all(&scratch).expect("make a directory");
    command.runtime = Some(Runtime { program: program(name), scratch });
    command
}

/// What a command with everything at its default, or changed by `change`, writes: by our own sandbox first.
#[track_caller]
fn the_same(script: &str, change: &dyn Fn(&Root, &mut Command)) -> String {
    let root = Root::new();
    let mut texts = Vec::new();
    for name in ["ourselves"].iter().chain(&RUNTIMES) {
        root.fresh_upper();
        let mut command = root.shell(script);
        change(&root, &mut command);
        if *name != "ourselves" {
            command = under(&root, name, command);
        }
        let done = ran(command);
        assert!(done.exit.success(), "{name}: {done:?}");
        let left = root.changes();
        texts.push((name, format!("{}\nleft: {left:?}", done.stdout)));
    }
    let (_, first) = texts.remove(0);
    for (name, text) in texts {
        assert_eq!(text, first, "{name}");
    }
    first
}

#[test]
fn a_command_sees_and_may_do_the_same() {
    let script = "id; umask; pwd; hostname; cat /etc/hosts /etc/resolv.conf; env | sort | grep -v SHLVL; ls /sys/class/net; \
                  grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; cut -c1-47 /proc/self/limits; ls /dev | grep -v core; stat -c '%A %u:%g %t %T %n' /dev/pts/*; \
                  for f in kcore keys sched_debug timer_list interrupts; do cat /proc/$f 2>/dev/null | wc -c; done; ls /proc/acpi /sys/firmware; \
                  for f in /proc/sysrq-trigger /proc/sys/kernel/hostname /sys/kernel/x; do echo 1 2>/dev/null > $f || echo no $f; done; \
                  for c in 'mount -t tmpfs x /tmp' 'unshare -n true' 'mknod /tmp/n c 1 3' 'mknod /tmp/m b 8 0' 'cat /tmp/m' 'chroot / true'; do \
                  $c >/dev/null 2>&1 && echo may $c || echo may not $c; done; stat -c %a /dev/shm /dev/null; ps >/tmp/ps; wc -l </tmp/ps; rm /tmp/ps";
    let text = the_same(script, &|_, command| {
        command.extra_hosts.push(("db".to_owned(), "192.0.2.7".to_owned()));
        command.ulimits.push(("nofile".to_owned(), 100, 200));
        command.env.push("A=b c".to_owned());
    });
    assert!(text.contains("may not mount") && text.contains("may chroot"), "{text}");
}

#[test]
fn other_users_rights_and_places_are_the_same() {
    let script = "id; pwd; grep -E 'Cap' /proc/self/status; touch /x 2>/dev/null || echo refused; touch made && echo made; chown 5 made 2>/dev/null || echo kept";
    the_same(script, &|_, command| {
        command.user.uid = 1000;
        command.user.gid = 1000;
        command.user.groups = vec![1000, 2000];
        command.cwd = "/home/app/deep/er".to_owned();
    });
    the_same(script, &|_, command| {
        command.capabilities.add("SYS_ADMIN").expect("known");
        command.capabilities.drop("CHOWN").expect("known");
        command.mounts.push(tmpfs("/srv"));
        command.cwd = "/srv".to_owned();
        command.read_only = true;
    });
    the_same(
        "grep -E 'Seccomp:' /proc/self/status; mount -t tmpfs x /srv && echo mounted; cat /proc/keys >/dev/null && echo seen",
        &|_, command| {
            command.security = Security::Insecure;
        },
    );
}

#[test]
fn mounts_are_the_same_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("tree")).expect("make a directory");
    fs::write(folder.path().join("tree/file"), "from outside\n").expect("write");
    let socket = folder.path().join("agent");
    let _listener = UnixListener::bind(&socket).expect("listen");
    let script = "cat /deep/in/file /run/secrets/s; stat -c '%a %u' /run/secrets/s; echo 2>/dev/null > /deep/in/new || echo read-only; \
                  stat -c '%F %a' /run/agent; cat /dev/one; touch /scratch/x && echo written; ls / /run /deep";
    let text = the_same(script, &|_, command| {
        let tree = |path: &str| {
            let host = fs::File::open(folder.path()).expect("open");
            overlay::subtree(std::os::fd::AsFd::as_fd(&host), path.as_ref()).expect("a mount")
        };
        let mut mount =
            |target: &str, what| command.mounts.push(AttachedMount { target: target.to_owned(), what });
        mount("/deep/in", Attached::Tree { fd: tree("tree"), read_only: true });
        mount(
            "/run/secrets/s",
            Attached::SecretFile { data: b"secret\n".to_vec(), mode: 0o440, uid: 7, gid: 0 },
        );
        mount("/run/agent", Attached::Socket { path: socket.clone(), mode: 0o600, uid: 0, gid: 0 });
        mount("/dev/one", Attached::Tree { fd: tree("tree/file"), read_only: true });
        mount("/scratch", Attached::Tmpfs(bricklayer_worker::sandbox::Tmpfs::default()));
    });
    assert!(
        text.contains("from outside\nsecret\n440 7\nread-only\nsocket 600\nfrom outside\nwritten"),
        "{text}"
    );
    // in neither case is there anything but what every command makes
    assert!(!text.contains("deep/in") && !text.contains("\"run") && !text.contains("\"etc"), "{text}");
}

#[test]
fn networks_are_the_same() {
    // What others run meanwhile has interfaces and routes on the host.
    let script = "ls /sys/class/net | grep -v brick; ip route | grep -vc brick; ip link show lo | grep -q ',UP' && echo up";
    for network in [Network::None, Network::Default, Network::Host] {
        the_same(script, &|_, command| command.network = network);
    }
}

#[test]
fn ends_are_told_apart() {
    let root = Root::new();
    for name in RUNTIMES {
        let code = |args: &[&str]| {
            root.fresh_upper();
            let exit = ran(under(&root, name, root.command(args))).exit;
            (exit.code, exit.not_started.is_some())
        };
        assert_eq!(code(&["sh", "-c", "exit 7"]), (7, false), "{name}");
        assert_eq!(code(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), (137, false), "{name}");
        assert_eq!(code(&["/no/such"]), (127, true), "{name}");
        assert_eq!(code(&["/etc"]), (126, true), "{name}");

        // both outputs, and an input
        root.fresh_upper();
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        std::thread::spawn(move || fs::File::from(to).write_all(b"in\n"));
        let mut command = root.shell("cat; echo err >&2");
        command.stdio.input = Some(from);
        let done = ran(under(&root, name, command));
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("in\n", "err\n"), "{name}");

        // a terminal; the command waits for an answer, since crun 1.8 may drop what is written just before the end
        root.fresh_upper();
        let mut command = root.shell("stty -echo; test -t 0 && test -t 2 && stty size; tty; read answer");
        command.stdio.terminal = Some(Size { rows: 12, columns: 34 });
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        command.stdio.input = Some(from);
        let text = std::sync::Mutex::new(String::new());
        let collect = |_: Stream, bytes: &[u8]| {
            let mut text = text.lock().expect("lock");
            text.push_str(&String::from_utf8_lossy(bytes));
            if text.ends_with("/dev/pts/0\r\n") {
                rustix::io::write(&to, b"\n").expect("typed");
            }
        };
        run(under(&root, name, command), &collect, &CancellationToken::new()).expect("it runs");
        let text = text.into_inner().expect("lock");
        assert_eq!(text, "12 34\r\n/dev/pts/0\r\n", "{name}");

        // cancelled: everything ends
        root.fresh_upper();
        let word = format!("6661{}", std::process::id());
        let cancel = CancellationToken::new();
        let ready = |_: Stream, _: &[u8]| cancel.cancel();
        let command = under(&root, name, root.shell(&format!("echo ready; sleep {word}; :")));
        assert!(matches!(run(command, &ready, &cancel), Err(SandboxError::Cancelled)), "{name}");
        assert!(!crate::processes::running(&word), "{name}");
        let bundle = root.folder.path().join(format!("bundle-{name}"));
        assert_eq!(fs::read_dir(bundle).expect("the bundle").count(), 0, "{name}");
    }
}

#[test]
fn limits_hold_and_are_told() {
    let root = Root::new();
    for name in RUNTIMES {
        root.fresh_upper();
        let mut command = root.shell("dd if=/dev/zero of=/dev/shm/x bs=1M count=64");
        command.limits = Limits { memory: Some(16 << 20), pids: Some(50), ..Limits::default() };
        let exit = ran(under(&root, name, command)).exit;
        assert_eq!(exit.out_of_memory, Some(16 << 20), "{name}: {exit:?}");
        assert!(exit.peak_memory.is_some_and(|peak| peak > 1 << 20), "{name}: {exit:?}");
    }
}

#[test]
fn a_runtime_that_is_none_is_told() {
    let root = Root::new();
    let mut command = under(&root, "runc", root.shell("true"));
    command.runtime.as_mut().expect("a runtime").program = "/bin/false".into();
    // it ends with 1 and says nothing, as a command may
    assert_eq!(ran(command).exit.code, 1);
    root.fresh_upper();
    let mut command = under(&root, "runc", root.shell("true"));
    command.runtime.as_mut().expect("a runtime").program = "/no/such/runtime".into();
    let refused = crate::fixture::refused(command);
    assert!(refused.contains("execute /no/such/runtime"), "{refused}");
}
