//! What a command finds around it: streams, environment, user, limits, devices, names.

use crate::fixture::{Root, output, ran, refused};

#[test]
fn output_and_exit_code_come_through() {
    let root = Root::new();
    let ran = ran(root.shell("echo out; echo err >&2; exit 42"));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.exit.code), ("out\n", "err\n", 42));
    assert_eq!(ran.exit.signal, None);
}

#[test]
fn much_output_is_complete() {
    let root = Root::new();
    let text = root.output("seq 1 200000");
    assert_eq!(text.lines().count(), 200_000);
    assert!(text.ends_with("\n200000\n"));
}

#[test]
fn a_signal_is_reported() {
    let root = Root::new();
    // Pid 1 is deaf to its own signals, so something else kills the shell: a fault of its own.
    let ran = ran(root.shell("ulimit -t 1; while :; do :; done"));
    assert_eq!(ran.exit.signal.map(|signal| ran.exit.code - signal), Some(128), "{ran:?}");
}

#[test]
fn a_missing_program_is_named() {
    let root = Root::new();
    for (program, code) in [("/no/such/program", 127), ("nosuch", 127), ("", 127), ("/etc", 126)] {
        let ran = ran(root.command(&[program, "x"]));
        assert_eq!(ran.exit.code, code, "{ran:?}");
        let message = ran.exit.not_started.expect("a reason");
        assert!(message.starts_with(&format!("exec: {program:?}: ")), "{message}");
    }
}

#[test]
fn standard_input_is_at_its_end_and_nothing_else_is_open() {
    let root = Root::new();
    assert_eq!(root.output("cat; read x || echo eof"), "eof\n");
    // A descriptor that the builder has open, and that is inherited unless somebody takes care.
    let leak = std::fs::File::open("/").expect("open /");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("clear close-on-exec");
    // `ls` itself opens one: the directory.
    let open = root.output("exec ls /proc/self/fd");
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let links = root.output("for f in 0 1 2; do readlink /proc/self/fd/$f; done");
    assert!(links.lines().all(|link| link.starts_with("pipe:")), "{links}");
}

#[test]
fn environment_umask_and_signals_are_fixed() {
    let root = Root::new();
    let mut command = root.command(&["env"]);
    command.env = ["A=1", "A=2", "PATH=/bin"].map(str::to_owned).to_vec();
    assert_eq!(output(command), "A=2\nPATH=/bin\nHOME=/root\n");
    assert_eq!(root.output("umask"), "0022\n");
    let signals = root.output("exec grep -E '^(SigBlk|SigIgn)' /proc/self/status");
    assert_eq!(signals, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn resource_limits_do_not_come_from_the_builder() {
    let root = Root::new();
    assert_eq!(root.output("ulimit -n; ulimit -c"), "1024\n0\n");
    let mut command = root.shell("ulimit -n; ulimit -H -n");
    command.ulimits = vec![("nofile".to_owned(), 100, 200)];
    assert_eq!(output(command), "100\n200\n");
}

#[test]
fn users_have_their_ids_groups_and_home() {
    let root = Root::new();
    let mut command = root.shell("id -u; id -g; id -G; echo $HOME");
    command.user.uid = 1000;
    command.user.gid = 1000;
    command.user.groups = vec![2000];
    command.user.home = "/home/app".to_owned();
    assert_eq!(output(command), "1000\n1000\n1000 2000\n/home/app\n");
}

#[test]
fn the_host_name_and_hosts_are_its_own() {
    let root = Root::new();
    assert_eq!(
        root.output("hostname; cat /etc/hosts"),
        "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    let mut command = root.shell("hostname; grep db /etc/hosts");
    command.hostname = Some("mine".to_owned());
    command.extra_hosts = vec![("db".to_owned(), "10.1.2.3".to_owned())];
    assert_eq!(output(command), "mine\n10.1.2.3\tdb\n");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").expect("host name").trim(), "mine");
}

#[test]
fn devices_are_the_usual_ones_and_work() {
    let root = Root::new();
    let script = "for f in null zero full random urandom tty; do [ -c /dev/$f ] && stat -c '%n %a' /dev/$f; done; \
         for f in fd stdin stdout stderr ptmx; do readlink /dev/$f; done; stat -c %a /dev/shm; ls /dev";
    let expected = "/dev/null 666\n/dev/zero 666\n/dev/full 666\n/dev/random 666\n/dev/urandom 666\n/dev/tty 666\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n1777\n\
         fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert_eq!(root.output(script), expected);
    assert_eq!(
        root.output("echo x > /dev/null; head -c 2 /dev/zero | od -An -tx1; echo x > /dev/full || echo full"),
        " 00 00\nfull\n"
    );
    assert_eq!(root.output("df -k /dev/shm | tail -1 | awk '{print $2}'"), "65536\n");
}

#[test]
fn the_working_directory_is_made_for_the_user() {
    let root = Root::new();
    let mut command = root.shell("pwd; stat -c '%a %u:%g' . ..");
    command.cwd = "/w/x".to_owned();
    command.user.uid = 1000;
    command.user.gid = 2000;
    assert_eq!(output(command), "/w/x\n755 1000:2000\n755 1000:2000\n");
    assert_eq!(root.changes(), ["w", "w/x"]);
}

#[test]
fn a_working_directory_that_is_none_is_named() {
    let root = Root::new();
    let mut command = root.shell("true");
    command.cwd = "/bin/busybox".to_owned();
    assert_eq!(refused(command), "working directory /bin/busybox: Not a directory (os error 20)");
}
