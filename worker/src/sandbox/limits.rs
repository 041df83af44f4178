//! Resource limits of one process (`setrlimit`): fixed, so that a build does not depend on who started the builder.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::SandboxError;

/// No limit, as the kernel writes it.
const UNLIMITED: u64 = u64::MAX;

/// Name as in `--ulimit`, resource, number as in `asm-generic/resource.h`, default soft and hard limit.
const TABLE: [(&str, Resource, u32, u64, u64); 15] = [
    ("cpu", Resource::Cpu, 0, UNLIMITED, UNLIMITED),
    ("fsize", Resource::Fsize, 1, UNLIMITED, UNLIMITED),
    ("data", Resource::Data, 2, UNLIMITED, UNLIMITED),
    ("stack", Resource::Stack, 3, 8 << 20, UNLIMITED),
    ("core", Resource::Core, 4, 0, 0),
    ("rss", Resource::Rss, 5, UNLIMITED, UNLIMITED),
    ("nproc", Resource::Nproc, 6, UNLIMITED, UNLIMITED),
    ("nofile", Resource::Nofile, 7, 1024, 524_288),
    ("memlock", Resource::Memlock, 8, 8 << 20, 8 << 20),
    ("as", Resource::As, 9, UNLIMITED, UNLIMITED),
    ("locks", Resource::Locks, 10, UNLIMITED, UNLIMITED),
    ("msgqueue", Resource::Msgqueue, 12, 819_200, 819_200),
    ("nice", Resource::Nice, 13, 0, 0),
    ("rtprio", Resource::Rtprio, 14, 0, 0),
    ("rttime", Resource::Rttime, 15, UNLIMITED, UNLIMITED),
];

/// The number, soft and hard value of every limit: the defaults, changed as `wanted` says (name, soft, hard).
///
/// Raising a hard limit above our own needs CAP_SYS_RESOURCE on the host. Without it a default ends at our own, and a wanted one is
/// an error.
pub(super) fn resolve(wanted: &[(String, u64, u64)]) -> Result<Vec<(u32, u64, u64)>, SandboxError> {
    for (name, soft, hard) in wanted {
        if !TABLE.iter().any(|row| row.0 == name) && name != "sigpending" {
            return Err(SandboxError::Invalid(format!("there is no limit named `{name}`")));
        }
        if soft > hard {
            return Err(SandboxError::Invalid(format!(
                "limit {name}: {soft} is more than its hard limit {hard}"
            )));
        }
    }
    // The capability counts only where no user namespace has changed its meaning.
    let may_raise = !bricklayer_cache::root::ids::in_user_namespace()
        && rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    let mut limits = Vec::with_capacity(TABLE.len() + 1);
    let wanted_of = |name: &str| wanted.iter().rfind(|row| row.0 == name).map(|row| (row.1, row.2));
    for (name, resource, number, soft, hard) in TABLE {
        let own = own_hard(resource);
        let (soft, hard) = match wanted_of(name) {
            Some((_, hard)) if hard > own && !may_raise => {
                return Err(SandboxError::Invalid(format!(
                    "limit {name}: {hard} is more than this process itself may use ({own})"
                )));
            }
            Some(wanted) => wanted,
            None if may_raise => (soft, hard),
            None => (soft.min(own), hard.min(own)),
        };
        limits.push((number, soft, hard));
    }
    // Its default depends on the machine's memory; ours would be no better.
    if let Some((soft, hard)) = wanted_of("sigpending") {
        limits.push((11, soft, hard));
    }
    Ok(limits)
}

/// The name of a limit.
pub(super) fn name(number: u32) -> Option<&'static str> {
    if number == 11 {
        return Some("sigpending");
    }
    TABLE.iter().find(|row| row.2 == number).map(|row| row.0)
}

fn own_hard(resource: Resource) -> u64 {
    let Rlimit { maximum, .. } = getrlimit(resource);
    maximum.unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_contradictory_limit_is_refused() {
        let one =
            |name: &str, soft, hard| resolve(&[(name.to_owned(), soft, hard)]).map_err(|e| e.to_string());
        assert_eq!(one("files", 1, 2), Err("there is no limit named `files`".to_owned()));
        assert_eq!(one("core", 3, 2), Err("limit core: 3 is more than its hard limit 2".to_owned()));
        assert!(one("core", 0, 0).is_ok());
    }

    #[test]
    fn a_wanted_limit_replaces_the_default() {
        let limits =
            resolve(&[("nofile".to_owned(), 10, 20), ("nofile".to_owned(), 30, 40)]).expect("limits");
        assert!(limits.contains(&(7, 30, 40)), "{limits:?}");
        assert!(limits.contains(&(4, 0, 0)), "{limits:?}");
    }
}
