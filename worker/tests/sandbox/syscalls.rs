//! What the kernel answers to system calls that a command makes.
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bricklayer_solver::op::Security;

use crate::fixture::probe::{Way, program};
use crate::fixture::{Root, ran};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// The error number that a call gets.
fn errno(root: &Root, way: Way, number: u32, args: [u32; 4], security: Security) -> i32 {
    let path = root.base().join("probe");
    fs::write(&path, program(way, number, args)).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut command = root.command(&["/probe"]);
    command.security = security;
    let ran = ran(command);
    assert_eq!((ran.exit.signal, ran.exit.not_started.as_deref()), (None, None), "{ran:?}");
    ran.exit.code
}

#[test]
fn calls_that_builds_do_not_need_are_denied() {
    let root = Root::new();
    let zero = [0; 4];
    let cases = [
        ("unshare(CLONE_NEWUSER)", 272, [0x1000_0000, 0, 0, 0]),
        ("clone(CLONE_NEWUSER)", 56, [0x1000_0000, 0, 0, 0]),
        ("mount", 165, zero),
        ("setns", 308, zero),
        ("keyctl", 250, zero),
        ("add_key", 248, zero),
        ("request_key", 249, zero),
        ("bpf", 321, zero),
        ("io_uring_setup", 425, zero),
        ("userfaultfd", 323, zero),
        ("perf_event_open", 298, zero),
        ("open_by_handle_at", 304, zero),
        ("kexec_load", 246, zero),
        ("init_module", 175, zero),
        ("socket(AF_ALG)", 41, [38, 5, 0, 0]),
        ("socket(AF_VSOCK)", 41, [40, 1, 0, 0]),
        ("personality(READ_IMPLIES_EXEC)", 135, [0x40_0000, 0, 0, 0]),
        ("fsopen", 430, zero),
        ("open_tree", 428, zero),
        ("pivot_root", 155, zero),
        ("syslog", 103, zero),
    ];
    for (name, number, args) in cases {
        assert_eq!(errno(&root, Way::Native, number, args, Security::Sandbox), EPERM, "{name}");
    }
}

#[test]
fn unknown_calls_do_not_exist() {
    let root = Root::new();
    for (name, number) in [("clone3", 435), ("the next new one", 999), ("the last one", 0x3fff_ffff)] {
        assert_eq!(errno(&root, Way::Native, number, [0; 4], Security::Sandbox), ENOSYS, "{name}");
    }
}

#[test]
fn usual_calls_work() {
    let root = Root::new();
    // The first free descriptor is 3; the program exits with its negative.
    let third = 256 - 3;
    assert_eq!(errno(&root, Way::Native, 41, [2, 1, 0, 0], Security::Sandbox), third, "socket(AF_INET)");
    assert_eq!(errno(&root, Way::Native, 41, [16, 3, 0, 0], Security::Sandbox), third, "socket(AF_NETLINK)");
    assert_eq!(errno(&root, Way::Native, 135, [u32::MAX, 0, 0, 0], Security::Sandbox), 0, "personality");
    assert_eq!(errno(&root, Way::Native, 39, [0; 4], Security::Sandbox), 255, "getpid");
    let fault = 14;
    assert_eq!(
        errno(&root, Way::Native, 161, [1, 0, 0, 0], Security::Sandbox),
        fault,
        "chroot reaches the kernel"
    );
}

#[test]
fn programs_of_32_bits_have_the_same_rules() {
    let root = Root::new();
    let bits32 = |number, args| errno(&root, Way::Bits32, number, args, Security::Sandbox);
    assert_eq!(bits32(20, [0; 4]), 255, "getpid");
    assert_eq!(bits32(310, [0x1000_0000, 0, 0, 0]), EPERM, "unshare");
    assert_eq!(bits32(120, [0x1000_0000, 0, 0, 0]), EPERM, "clone");
    assert_eq!(bits32(359, [38, 5, 0, 0]), EPERM, "socket(AF_ALG)");
    assert_eq!(bits32(288, [0; 4]), EPERM, "keyctl");
    assert_eq!(bits32(999, [0; 4]), ENOSYS, "unknown");
    assert_eq!(errno(&root, Way::X32, 272, [0x1000_0000, 0, 0, 0], Security::Sandbox), EPERM, "x32 unshare");
    assert_eq!(errno(&root, Way::X32, 59, [0; 4], Security::Sandbox), ENOSYS, "x32 has no call 59");
}

#[test]
fn an_insecure_command_has_no_filter() {
    let root = Root::new();
    assert_eq!(
        errno(&root, Way::Native, 272, [0x0400_0000, 0, 0, 0], Security::Insecure),
        0,
        "unshare(CLONE_NEWUTS)"
    );
}

#[test]
fn the_session_keyring_is_new() {
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING): the exit code has the low byte of its number.
    let args = [0, 0xffff_fffd, 0, 0];
    let root = Root::new();
    let path = root.folder.path().join("probe");
    fs::write(&path, program(Way::Native, 250, args)).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let outside = std::process::Command::new(&path).status().expect("run the probe").code();
    let inside: Vec<_> =
        (0..4).map(|_| Some(errno(&root, Way::Native, 250, args, Security::Insecure))).collect();
    assert!(inside.iter().any(|number| *number != outside), "{outside:?} {inside:?}");
}
