//! The limits of a command, as files and values of both versions of control groups.

use bricklayer_solver::op::Limits;

/// A file of a group, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: &'static str,
    pub(super) value: String,
}

/// One limit, for either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// What is limited, for people.
    pub(super) what: &'static str,
    pub(super) controller: &'static str,
    /// Version 2.
    pub(super) unified: Write,
    /// Version 1, in this order.
    pub(super) legacy: Vec<Write>,
    /// What to do where the controller is there, but not the file; `None`: nothing, it was not asked for.
    pub(super) missing: Option<&'static str>,
}

fn write(file: &'static str, value: impl ToString) -> Write {
    Write { file, value: value.to_string() }
}

/// What the limits come to.
pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |what, controller, unified, legacy| {
        settings.push(Setting {
            what,
            controller,
            unified,
            legacy,
            missing: Some("the kernel was built without it"),
        });
    };
    if let Some(memory) = limits.memory {
        add("memory", "memory", write("memory.max", memory), vec![write("memory.limit_in_bytes", memory)]);
    }
    if let Some((quota, period)) = limits.cpu_quota {
        add(
            "CPU time",
            "cpu",
            write("cpu.max", format!("{quota} {period}")),
            vec![write("cpu.cfs_period_us", period), write("cpu.cfs_quota_us", quota)],
        );
    }
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        // The two scales, as the kernel's documentation of both has them: 2..=262144 to 1..=10000.
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        add("CPU time", "cpu", write("cpu.weight", weight), vec![write("cpu.shares", shares)]);
    }
    for (what, list, file) in [
        ("the set of CPUs", &limits.cpuset_cpus, "cpuset.cpus"),
        ("the set of memory nodes", &limits.cpuset_mems, "cpuset.mems"),
    ] {
        if let Some(list) = list {
            add(what, "cpuset", write(file, list), vec![write(file, list)]);
        }
    }
    if let Some(pids) = limits.pids {
        add("the number of processes", "pids", write("pids.max", pids), vec![write("pids.max", pids)]);
    }
    settings.extend(limits.memory.map(|memory| swap(memory, limits.memory_swap)));
    settings
}

/// Version 1 counts memory and swap together, version 2 swap alone. Both come after the limit of memory: in version 1 the
/// sum must not be less.
fn swap(memory: u64, asked: Option<i64>) -> Setting {
    // Without a word about swap as much again, as Docker does.
    let both = asked.unwrap_or_else(|| i64::try_from(memory.saturating_mul(2)).unwrap_or(-1));
    let alone = match u64::try_from(both) {
        Ok(both) => both.saturating_sub(memory).to_string(),
        Err(_) => "max".to_owned(),
    };
    Setting {
        what: "swap",
        controller: "memory",
        unified: write("memory.swap.max", alone),
        legacy: vec![write("memory.memsw.limit_in_bytes", both)],
        // A kernel that does not count swap can still have some; only who asked about it need know.
        missing: asked.is_some().then_some(
            "this kernel does not count swap: boot it with `swapaccount=1`, or leave --memory-swap out",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_follows_memory_as_in_docker() {
        let value = |memory_swap| {
            let limits = Limits { memory: Some(100), memory_swap, ..Limits::default() };
            let swap = settings(&limits).pop().expect("swap is the last");
            (swap.unified.value, swap.legacy.into_iter().map(|write| write.value).collect::<String>())
        };
        let pair = |unified: &str, legacy: &str| (unified.to_owned(), legacy.to_owned());
        assert_eq!(value(None), pair("100", "200"));
        assert_eq!(value(Some(100)), pair("0", "100"));
        assert_eq!(value(Some(150)), pair("50", "150"));
        assert_eq!(value(Some(-1)), pair("max", "-1"));
    }

    #[test]
    fn weights_are_shares_on_another_scale() {
        let weight = |shares| {
            let limits = Limits { cpu_shares: Some(shares), ..Limits::default() };
            settings(&limits).remove(0).unified.value
        };
        assert_eq!([2, 1024, 262_144].map(weight), ["1", "39", "10000"]);
    }
}
