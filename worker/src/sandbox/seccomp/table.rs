//! The table, and what its words mean.
//!
//! What is denied may be allowed to a command that has the capability for it ([`UNLOCKED`], as in Docker's profile).

use std::collections::BTreeMap;

use super::super::capabilities::number;

/// Every system call, its rule and its numbers.
const TABLE: &str = include_str!("syscalls.txt");

/// What happens with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Rule {
    /// It is made.
    Allow,
    /// EPERM.
    Deny,
    /// ENOSYS.
    Missing,
    /// It is made if none of these bits of its first argument is set.
    Without(u32),
    /// It is made if the first argument, of which the kernel takes 32 bits, is in one of these ranges.
    In(&'static [(u32, u32)]),
}

/// A capability, and the calls that need it.
const UNLOCKED: [(u32, &[&str]); 12] = [
    (number("DAC_READ_SEARCH"), &["open_by_handle_at"]),
    (
        number("SYS_ADMIN"),
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (number("SYS_BOOT"), &["reboot"]),
    (number("SYS_MODULE"), &["delete_module", "finit_module", "init_module"]),
    (number("SYS_PACCT"), &["acct"]),
    (number("SYS_PTRACE"), &["kcmp", "pidfd_getfd", "process_madvise"]),
    (number("SYS_RAWIO"), &["ioperm", "iopl"]),
    (number("SYS_TIME"), &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (number("SYS_TTY_CONFIG"), &["vhangup"]),
    (number("SYS_NICE"), &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (number("SYSLOG"), &["syslog"]),
    (number("PERFMON"), &["perf_event_open"]),
];

/// Of these capabilities those that allow calls.
pub(super) fn unlocked(capabilities: u64) -> u64 {
    UNLOCKED.iter().fold(0, |set, (number, _)| set | capabilities & 1 << number)
}

/// Flags of clone(2) for new namespaces: mount, cgroup, uts, ipc, user, pid, network.
const NAMESPACES: u32 = 0x7e02_0000;

/// Linux, Linux on 32 bits, both without address randomisation of the uname kind, and "what is it?".
const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// All address families but AF_ALG (38) and AF_VSOCK (40), the ways to the kernel's crypto and to the machine below.
const FAMILIES: &[(u32, u32)] = &[(0, 37), (39, 39), (41, u32::MAX)];

/// The rules of one way into the kernel.
#[derive(Debug)]
pub(super) struct Section {
    /// `AUDIT_ARCH_*`.
    pub(super) architecture: u32,
    /// Bits that all its numbers have, and that tell it from another one of the same architecture.
    pub(super) number_bits: u32,
    /// Number (without these bits) to rule.
    pub(super) rules: BTreeMap<u32, Rule>,
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
/// `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The sections for a machine (as in `std::env::consts::ARCH`) and a command with these capabilities.
pub(super) fn sections(machine: &str, capabilities: u64) -> Option<Vec<Section>> {
    let section = |architecture, number_bits, column| Section {
        architecture,
        number_bits,
        rules: rules(column, capabilities),
    };
    match machine {
        // x32 first: its numbers are told apart before the others are looked at.
        "x86_64" => Some(vec![section(X86_64, X32_BIT, 2), section(X86_64, 0, 0), section(I386, 0, 1)]),
        "aarch64" => Some(vec![section(AARCH64, 0, 3), section(ARM, 0, 4)]),
        _ => None,
    }
}

/// This machine's `AUDIT_ARCH_*` and its number for a call, where it has one.
pub(in crate::sandbox) fn native_number(name: &str) -> Option<(u32, u32)> {
    let (architecture, column) = match std::env::consts::ARCH {
        "x86_64" => (X86_64, 0),
        "aarch64" => (AARCH64, 3),
        _ => return None,
    };
    let mut words = TABLE
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    // After the rule.
    Some((architecture, words.nth(column + 1)?.parse().ok()?))
}

fn rules(column: usize, capabilities: u64) -> BTreeMap<u32, Rule> {
    let mut rules = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(mut rule)) = (words.next(), words.next().and_then(rule)) else { continue };
        let has = |(number, names): &(u32, &[&str])| capabilities & 1 << number != 0 && names.contains(&name);
        if UNLOCKED.iter().any(has) {
            rule = Rule::Allow;
        }
        if let Some(number) = words.nth(column).and_then(|word| word.parse().ok()) {
            rules.insert(number, rule);
        }
    }
    rules
}

/// The name and the rule of a line.
fn named(line: &str, capabilities: u64) -> Option<(&str, Rule)> {
    let mut words = line.split_whitespace();
    let (name, rule) = (words.next()?, rule(words.next()?)?);
    let has = |(number, names): &(u32, &[&str])| capabilities & 1 << number != 0 && names.contains(&name);
    Some((name, if UNLOCKED.iter().any(has) { Rule::Allow } else { rule }))
}

/// Every call by its name, for a command with these capabilities.
pub(in super::super) fn rules_by_name(capabilities: u64) -> impl Iterator<Item = (&'static str, Rule)> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(move |line| named(line, capabilities))
}

fn rule(word: &str) -> Option<Rule> {
    match word {
        "allow" => Some(Rule::Allow),
        "deny" => Some(Rule::Deny),
        "missing" => Some(Rule::Missing),
        "clone" => Some(Rule::Without(NAMESPACES)),
        "personality" => Some(Rule::In(PERSONALITIES)),
        "socket" => Some(Rule::In(FAMILIES)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let mut before = "";
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words.len(), 7, "{line}");
            assert!(before < words[0], "{} is out of order", words[0]);
            assert!(rule(words[1]).is_some(), "{line}");
            assert!(words[2..].iter().all(|word| *word == "-" || word.parse::<u32>().is_ok()), "{line}");
            before = words[0];
        }
    }

    #[test]
    fn a_capability_allows_its_calls_and_no_others() {
        // x86-64: mount 165, reboot 169, unshare 272, clone 56, ptrace 101
        let of = |capabilities: u64, call: u32| rules(0, capabilities).get(&call).copied();
        assert_eq!(of(0, 165), Some(Rule::Deny));
        assert_eq!(of(1 << 21, 165), Some(Rule::Allow));
        assert_eq!(of(1 << 21, 56), Some(Rule::Allow));
        assert_eq!((of(1 << 21, 169), of(1 << 22, 169)), (Some(Rule::Deny), Some(Rule::Allow)));
        assert_eq!(of(1 << 12, 165), Some(Rule::Deny));
        for (_, names) in UNLOCKED {
            for name in names {
                assert!(TABLE.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
            }
        }
    }

    #[test]
    fn no_number_stands_for_two_calls() {
        for column in 0..5 {
            let count = TABLE
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter(|line| line.split_whitespace().nth(column + 2) != Some("-"))
                .count();
            assert_eq!(rules(column, 0).len(), count, "column {column}");
        }
    }
}
