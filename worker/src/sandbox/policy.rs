//! What a command may see and do, as data. The values are Docker's, so that what builds there builds here.

use std::ffi::CStr;

use bricklayer_solver::op::Security;
use bricklayer_sys::device::Device;
use bricklayer_sys::spawn::Capabilities;

use super::capabilities::{CapabilityChanges, number};

/// What a command has unless the caller changes it.
const DEFAULT_CAPABILITIES: [u32; 14] = [
    number("CHOWN"),
    number("DAC_OVERRIDE"),
    number("FOWNER"),
    number("FSETID"),
    number("KILL"),
    number("SETGID"),
    number("SETUID"),
    number("SETPCAP"),
    number("NET_BIND_SERVICE"),
    number("NET_RAW"),
    number("SYS_CHROOT"),
    number("MKNOD"),
    number("AUDIT_WRITE"),
    number("SETFCAP"),
];

/// [`DEFAULT_CAPABILITIES`] as a set.
pub(super) fn default_capabilities() -> u64 {
    DEFAULT_CAPABILITIES.iter().fold(0, |set, number| set | 1 << number)
}

/// The capability sets of a command. Nothing is inheritable by default: a file capability alone gives a command nothing.
pub(super) fn capabilities(security: Security, changes: CapabilityChanges) -> Capabilities {
    match security {
        Security::Sandbox => {
            let set = changes.apply(default_capabilities());
            Capabilities { bounding: set, permitted: set, inheritable: 0 }
        }
        Security::Insecure => {
            let set = changes.apply(u64::MAX);
            Capabilities { bounding: set, permitted: set, inheritable: set }
        }
    }
}

/// Below /proc: what is made read-only.
pub(super) fn proc_read_only(security: Security) -> &'static [&'static CStr] {
    match security {
        Security::Sandbox => &[c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"],
        Security::Insecure => &[],
    }
}

/// Below /proc: what is hidden.
pub(super) fn proc_masked(security: Security) -> &'static [&'static CStr] {
    match security {
        Security::Sandbox => &[
            c"acpi",
            c"asound",
            c"interrupts",
            c"kcore",
            c"keys",
            c"latency_stats",
            c"sched_debug",
            c"scsi",
            c"timer_list",
            c"timer_stats",
        ],
        Security::Insecure => &[],
    }
}

/// Below /sys: what is hidden.
pub(super) fn sys_masked(security: Security) -> &'static [&'static str] {
    match security {
        Security::Sandbox => &["devices/virtual/powercap", "firmware", "fs/selinux"],
        Security::Insecure => &[],
    }
}

/// The device files of /dev: name, major, minor. All are readable and writable by everybody.
pub(super) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links of /dev: name, target.
pub(super) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What may be opened, wherever its device file lies: [`DEVICES`], the terminals of /dev/pts and its ptmx.
pub(super) fn allowed_devices() -> Vec<Device> {
    let mut devices: Vec<Device> =
        DEVICES.iter().map(|(_, major, minor)| Device { major: *major, minor: Some(*minor) }).collect();
    devices.push(Device { major: 5, minor: Some(2) });
    devices.push(Device { major: 136, minor: None });
    devices
}

/// The size of /dev/shm when the caller names none: 64 MiB.
pub(super) const SHM_SIZE: u64 = 64 << 20;

/// The file mode creation mask.
pub(super) const UMASK: u32 = 0o022;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_the_one_that_docker_gives() {
        let set = capabilities(Security::Sandbox, CapabilityChanges::default());
        assert_eq!((set.bounding, set.permitted, set.inheritable), (0xa804_25fb, 0xa804_25fb, 0));
    }
}
