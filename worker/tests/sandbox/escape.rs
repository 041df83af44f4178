//! What a command must not be able to do. Each test fails when the protection that it names is taken away.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

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
fn an_insecure_command_may_do_more() {
    let root = Root::new();
    let mut command = root.shell("mount -t tmpfs none /srv && echo mounted; touch /sys/fs/cgroup/x 2>/dev/null; grep Seccomp: /proc/self/status");
    command.security = Security::Insecure;
    assert_eq!(output(command), "mounted\nSeccomp:\t0\n");
}
