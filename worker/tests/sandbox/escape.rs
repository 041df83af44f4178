//! What a command must not be able to do. Each test fails when the protection that it names is taken away.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_solver::op::Security;

use crate::fixture::{Root, output, ran, refused, try_run};

#[test]
fn capabilities_are_the_default_ones() {
    let root = Root::new();
    let sets = root.output("grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
    assert_eq!(
        sets,
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
         CapAmb:\t0000000000000000\nNoNewPrivs:\t0\n"
    );
    let mut command = root.shell("grep -E '^Cap' /proc/self/status");
    command.user.uid = 1000;
    assert_eq!(
        output(command),
        "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n\
         CapAmb:\t0000000000000000\n"
    );
}

#[test]
fn the_kernel_can_not_be_configured() {
    let root = Root::new();
    let script = "for f in /proc/sys/kernel/domainname /proc/sys/kernel/core_pattern /proc/sysrq-trigger \
         /proc/irq/default_smp_affinity /sys/kernel/uevent_seqnum /sys/fs/cgroup/cgroup.procs; do \
         (echo x > $f) 2>/dev/null && echo $f written; done; \
         mount -o remount,rw /sys 2>/dev/null && echo remounted; mount -t tmpfs none /srv 2>/dev/null && echo mounted; \
         umount /proc/sys 2>/dev/null && echo unmounted; true";
    assert_eq!(root.output(script), "");
    let options =
        root.output("grep -E ' (/sys|/proc/sys|/proc/bus) ' /proc/self/mountinfo | awk '{print $5, $6}'");
    assert!(options.lines().count() >= 2, "{options}");
    assert!(options.lines().all(|line| line.contains(" ro,")), "{options}");
}

#[test]
fn secrets_of_the_kernel_are_hidden() {
    let root = Root::new();
    let script = "for f in kcore keys timer_list sched_debug latency_stats interrupts; do \
         [ -e /proc/$f ] && cat /proc/$f; done; \
         for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do \
         [ -e $d ] && ls -A $d; done; true";
    assert_eq!(root.output(script), "");
    // They are there, so that this says something.
    assert!(fs::metadata("/proc/keys").is_ok() && fs::metadata("/proc/interrupts").is_ok());
}

#[test]
fn no_process_of_the_host_is_seen() {
    let root = Root::new();
    let pids = root.output("cd /proc; echo [0-9]*; echo $$");
    assert_eq!(pids, "1\n1\n");
}

#[test]
fn disks_can_be_named_but_not_opened() {
    let root = Root::new();
    if in_user_namespace() {
        let script = "for at in /srv /dev /tmp; do for device in 'b 7 0' 'c 1 1' 'c 1 3'; do \
             mknod $at/disk $device 2>/dev/null && echo named; done; done; true";
        assert_eq!(root.output(script), "");
        return;
    }
    // 7:0 is a loop device, 1:1 the memory, 1:3 is null and allowed wherever it lies.
    let script = "for at in /srv /dev /tmp; do mknod $at/disk b 7 0 && mknod $at/mem c 1 1 && mknod $at/n c 1 3 || exit 9; \
         head -c1 $at/disk 2>/dev/null && echo read disk; head -c1 $at/mem 2>/dev/null && echo read mem; \
         echo x > $at/n || echo no null; done; true";
    assert_eq!(root.output(script), "");
    let ran = ran(root.shell("mknod /srv/again b 7 0; head -c1 /srv/again"));
    assert!(ran.stderr.contains("Operation not permitted"), "{ran:?}");
}

#[test]
fn the_builders_program_can_not_be_reached_through_proc() {
    let root = Root::new();
    let ran_link = ran(root.command(&["/proc/self/exe"]));
    assert_eq!((ran_link.exit.code, ran_link.exit.success()), (126, false), "{ran_link:?}");
    fs::write(root.base().join("script"), "#!  /proc/self/exe x\n").expect("write");
    fs::write(root.base().join("outer"), "#!/script\n").expect("write");
    symlink("/proc/self/exe", root.base().join("link")).expect("link");
    for (name, mode, uid) in
        [("script", 0o755, 0), ("outer", 0o755, 0), ("link", 0, 0), ("script", 0o711, 1000)]
    {
        if mode != 0 {
            fs::set_permissions(root.base().join(name), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let mut command = root.command(&[&format!("/{name}")]);
        command.user.uid = uid;
        let ran = ran(command);
        assert_eq!(ran.exit.code, 126, "{name}: {ran:?}");
        assert!(ran.exit.not_started.as_deref().is_some_and(|text| text.contains("a link that")), "{ran:?}");
    }
}

#[test]
fn no_open_file_of_the_builder_can_be_the_working_directory() {
    let root = Root::new();
    let leak = fs::File::open("/").expect("open /");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("clear close-on-exec");
    symlink("/proc/self/fd", root.base().join("fds")).expect("link");
    for number in 3..30 {
        for directory in ["/proc/self/fd", "/fds", "/proc/1/fd", "/proc/self/task/1/fd"] {
            let mut command = root.shell("ls");
            command.cwd = format!("{directory}/{number}");
            let error = refused(command);
            assert!(error.starts_with(&format!("working directory {directory}/{number}: ")), "{error}");
        }
    }
    let mut command = root.shell("ls etc");
    command.cwd = "/proc/1/root".to_owned();
    assert!(try_run(command).is_err());
    assert!(!root.upper().join("proc").exists(), "{:?}", root.changes());
}

#[test]
fn links_of_the_image_lead_nowhere_outside() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let target = outside.path().display().to_string();
    let root = Root::new();
    symlink(&target, root.base().join("abs")).expect("link");
    symlink(format!("../../../../../../..{target}"), root.base().join("rel")).expect("link");
    for link in ["abs", "rel"] {
        let mut command = root.shell("true");
        command.cwd = format!("/{link}/made");
        command.mounts.push(crate::fixture::tmpfs(&format!("/{link}/mounted")));
        output(command);
        assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0);
        assert!(root.upper().join(target.trim_start_matches('/')).join("made").is_dir());
        root.fresh_upper();
    }
}

#[test]
fn system_directories_of_the_image_must_be_directories() {
    for name in ["proc", "sys", "dev"] {
        let outside = tempfile::tempdir().expect("a temporary folder");
        let root = Root::new();
        fs::remove_dir(root.base().join(name)).expect("remove");
        symlink(outside.path(), root.base().join(name)).expect("link");
        assert_eq!(
            refused(root.shell("true")),
            format!("/{name} in the root filesystem is a symbolic link, not a directory")
        );
        fs::remove_file(root.base().join(name)).expect("remove");
        fs::write(root.base().join(name), "").expect("write");
        root.fresh_upper();
        assert_eq!(
            refused(root.shell("true")),
            format!("/{name} in the root filesystem is a file, not a directory")
        );
        assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0);
    }
}

#[test]
fn etc_of_the_image_may_be_a_link_and_the_host_stays_as_it_is() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let root = Root::new();
    fs::remove_dir(root.base().join("etc")).expect("remove");
    symlink(outside.path(), root.base().join("etc")).expect("link");
    assert_eq!(root.output("head -c 9 /etc/hosts"), "127.0.0.1");
    assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0);
    assert_eq!(root.changes(), Vec::<String>::new());
}

#[test]
fn an_insecure_command_may_do_what_buildkit_lets_it_do() {
    let root = Root::new();
    let script = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|Seccomp):' /proc/self/status | awk '{print $2}' | sort -u; \
         mount -t tmpfs none /srv && echo mounted; \
         for at in proc/sys proc/bus proc/sysrq-trigger sys; do grep -q \" /$at ro\" /proc/self/mountinfo && echo $at; done; \
         grep -qE ' /(proc|sys)/.* - tmpfs ' /proc/self/mountinfo && echo masked; \
         for d in loop-control kmsg fuse; do [ ! -e /host/$d ] || [ -c /dev/$d ] || echo no $d; done; \
         for n in 0 1 2 3 4 5 6 7; do [ -b /dev/loop$n ] || echo no loop$n; done; \
         mknod /tmp/zero c 1 5 && head -c 4 /tmp/zero | wc -c; (exec 3< /dev/loop-control) && echo opened";
    let mut command = root.shell(script);
    command.security = Security::Insecure;
    let host = bricklayer_worker::overlay::mount(&[std::path::Path::new("/dev")], None).expect("clone /dev");
    command.mounts.push(bricklayer_worker::sandbox::AttachedMount {
        target: "/host".to_owned(),
        what: bricklayer_worker::sandbox::Attached::Tree { fd: host, read_only: true },
    });
    // All that this process has itself: everything, or what a container left it.
    let own = fs::read_to_string("/proc/self/status").expect("read");
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).expect("a line");
    assert_eq!(output(command), format!("0\n{own}\nmounted\n4\nopened\n"));
    // Locked in, a command has none of it.
    assert_eq!(root.output("ls /dev | grep -E 'loop|kmsg|fuse|net|kvm'; true"), "");
}

/// A filesystem whose mounts are told to others, as those of a host with systemd are. Gone when it is dropped.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let shared = Self(tempfile::tempdir().expect("a temporary folder"));
        let path = shared.0.path().to_str().expect("text").to_owned();
        for args in [&["-t", "tmpfs", "none", &path][..], &["--make-shared", &path]] {
            let done = std::process::Command::new("mount").args(args).status().expect("mount");
            assert!(done.success(), "mount {args:?}");
        }
        shared
    }

    fn mounts_below(&self) -> usize {
        let path = format!(" {}/", self.0.path().display());
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        table.lines().filter(|line| line.contains(&path)).count()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-R", "-l"]).arg(self.0.path()).status();
    }
}

#[test]
fn what_a_command_mounts_does_not_show_outside() {
    let (shared, root) = (Shared::new(), Root::new());
    for name in ["one", "two/sub"] {
        fs::create_dir_all(shared.0.path().join(name)).expect("make a directory");
    }
    let attach = |name: &str, target: &str| bricklayer_worker::sandbox::AttachedMount {
        target: target.to_owned(),
        what: bricklayer_worker::sandbox::Attached::Tree {
            fd: bricklayer_worker::overlay::mount(&[&shared.0.path().join(name)], None).expect("clone"),
            read_only: false,
        },
    };
    let mut command =
        root.shell("mount -t tmpfs none /one && mount -t tmpfs none /two/sub && echo mounted; sleep 0.2");
    command.security = Security::Insecure;
    command.mounts = vec![attach("one", "/one"), attach("two", "/two")];
    let seen = std::sync::Mutex::new(Vec::new());
    let look = |_, _: &[u8]| seen.lock().expect("lock").push(shared.mounts_below());
    let exit = bricklayer_worker::sandbox::run(command, &look, &tokio_util::sync::CancellationToken::new());
    assert!(exit.expect("run").success());
    assert_eq!((seen.into_inner().expect("lock"), shared.mounts_below()), (vec![0], 0));
}

#[test]
fn shared_memory_of_the_host_is_not_seen() {
    let tool = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).output().expect("util-linux");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).expect("text")
    };
    let made = tool(&["ipcmk", "--shmem", "4096"]);
    let id = made.rsplit(' ').next().expect("a number").trim();
    let own = fs::read_to_string("/proc/sysvipc/shm").expect("read");
    let inside = Root::new().output("tail -n +2 /proc/sysvipc/shm; ls /dev/shm /dev/mqueue");
    tool(&["ipcrm", "--shmem-id", id]);
    assert!(own.lines().count() > 1, "{own}");
    assert_eq!(inside, "/dev/mqueue:\n\n/dev/shm:\n");
}

#[test]
fn sockets_of_the_host_without_a_file_are_not_reached() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("bricklayer-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("listen");
    assert!(fs::read_to_string("/proc/net/unix").expect("read").contains(&name));
    for network in [bricklayer_solver::op::Network::None, bricklayer_solver::op::Network::Default] {
        let root = Root::new();
        let mut command = root.shell("cat /proc/net/unix");
        command.network = network;
        assert!(!output(command).contains(&name), "{network:?}");
    }
}
