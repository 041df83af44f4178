//! Capabilities by name, and what a caller adds to or takes from those that a command has.

/// Names and numbers as in `linux/capability.h`: the number is the place.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A word that names no capability.
#[derive(Debug, thiserror::Error)]
#[error("there is no capability `{0}`")]
pub struct UnknownCapability(pub String);

/// What is added to a set of capabilities, and what is taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityChanges {
    add: u64,
    drop: u64,
    add_all: bool,
    drop_all: bool,
}

impl CapabilityChanges {
    /// Adds a capability: `NET_ADMIN`, `CAP_NET_ADMIN` or `ALL`, in upper or lower case.
    pub fn add(&mut self, name: &str) -> Result<(), UnknownCapability> {
        match bit(name)? {
            Some(bit) => self.add |= bit,
            None => self.add_all = true,
        }
        Ok(())
    }

    /// Takes one away; with `ALL` only the added ones are left.
    pub fn drop(&mut self, name: &str) -> Result<(), UnknownCapability> {
        match bit(name)? {
            Some(bit) => self.drop |= bit,
            None => self.drop_all = true,
        }
        Ok(())
    }

    /// The names that [`add`](Self::add) and [`drop`](Self::drop) take.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().chain(["ALL"])
    }

    /// The set that becomes of another one, by Docker's rules.
    pub(super) fn apply(self, set: u64) -> u64 {
        match self {
            Self { add_all: true, drop, .. } => !drop,
            Self { drop_all: true, add, .. } => add,
            Self { add, drop, .. } => set & !drop | add,
        }
    }
}

/// The bit of a capability; `None`: all of them.
fn bit(name: &str) -> Result<Option<u64>, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(None);
    }
    let number = NAMES.iter().position(|known| *known == bare);
    number.map(|number| Some(1 << number)).ok_or_else(|| UnknownCapability(name.to_owned()))
}

/// The names of a set, as OCI has them, as far as the kernel knows them.
pub(super) fn names_of(set: u64) -> Vec<String> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let known = NAMES.iter().take(last.map_or(NAMES.len(), |last: usize| last.saturating_add(1)));
    let has = |(number, name): (usize, &&str)| (set & 1 << number != 0).then(|| format!("CAP_{name}"));
    known.enumerate().filter_map(has).collect()
}

/// The number of a capability of [`NAMES`], which must be one of them.
pub(super) const fn number(name: &str) -> u32 {
    let mut number = 0;
    while number < NAMES.len() {
        if equal(NAMES[number].as_bytes(), name.as_bytes()) {
            return number as u32;
        }
        number += 1;
    }
    panic!("there is no such capability");
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_follow_docker() {
        let changed = |add: &[&str], drop: &[&str]| {
            let mut changes = CapabilityChanges::default();
            add.iter().try_for_each(|name| changes.add(name))?;
            drop.iter().try_for_each(|name| changes.drop(name))?;
            Ok::<u64, UnknownCapability>(changes.apply(0b1011))
        };
        let cases: [(&[&str], &[&str], u64); 7] = [
            (&[], &[], 0b1011),
            (&["DAC_READ_SEARCH"], &[], 0b1111),
            (&["cap_dac_read_search"], &["CHOWN"], 0b1110),
            (&[], &["all"], 0),
            (&["KILL"], &["ALL"], 1 << 5),
            (&["ALL"], &[], u64::MAX),
            (&["ALL"], &["CHOWN"], u64::MAX - 1),
        ];
        for (add, drop, expected) in cases {
            assert_eq!(changed(add, drop).expect("known names"), expected, "{add:?} {drop:?}");
        }
        for unknown in ["", "CAP_", "NET ADMIN", "CAP_CAP_KILL", "SYS_ADMINS"] {
            assert_eq!(changed(&[unknown], &[]).expect_err("unknown").0, unknown);
        }
    }

    #[test]
    fn names_stand_at_their_numbers() {
        assert_eq!((number("CHOWN"), number("SYS_ADMIN"), number("CHECKPOINT_RESTORE")), (0, 21, 40));
    }
}
