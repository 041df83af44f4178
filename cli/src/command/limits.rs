//! Limits of memory, CPU time and processes: of each RUN step, and of a container that is run.

use bricklayer::op::Limits;
use clap::Args;

use super::usage::Usage;
use super::values::{cpus, name_and_value, size};

const HEADING: &str = "Limits of each command";

/// The flags.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// Memory, such as 512m
    #[arg(short, long, value_name = "SIZE", help_heading = HEADING)]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1: as much swap as there is
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = HEADING)]
    pub(crate) memory_swap: Option<String>,
    /// CPUs, such as 1.5
    #[arg(long, value_name = "N", conflicts_with_all = ["cpu_quota", "cpu_period"], help_heading = HEADING)]
    pub(crate) cpus: Option<String>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = HEADING)]
    pub(crate) cpu_quota: Option<u64>,
    /// The length of that period, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", requires = "cpu_quota", help_heading = HEADING)]
    pub(crate) cpu_period: Option<u64>,
    /// Weight of CPU time against others', 2 to 262144
    #[arg(short, long, value_name = "WEIGHT", help_heading = HEADING)]
    pub(crate) cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = HEADING)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0,1
    #[arg(long, value_name = "LIST", help_heading = HEADING)]
    pub(crate) cpuset_mems: Option<String>,
    /// Processes and threads
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub(crate) pids_limit: Option<u64>,
    /// Limits in BuildKit's form, such as memory=512m,cpu-quota=50000
    #[arg(
        long = "resource",
        value_name = "NAME=VALUE,…",
        value_delimiter = ',',
        hide_short_help = true,
        help_heading = HEADING
    )]
    pub(crate) resources: Vec<String>,
}

/// What they mean.
pub(crate) fn limits(args: &LimitArgs) -> Result<Limits, Usage> {
    const RESOURCES: [&str; 7] =
        ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];
    let mut memory = args.memory.clone();
    let mut memory_swap = args.memory_swap.clone();
    let (mut quota, mut period, mut shares) = (args.cpu_quota, args.cpu_period, args.cpu_shares);
    let (mut cpus_list, mut mems) = (args.cpuset_cpus.clone(), args.cpuset_mems.clone());
    for text in &args.resources {
        let (key, value) = name_and_value("--resource", text)?;
        let number = || {
            value
                .parse::<u64>()
                .map(Some)
                .map_err(|_| Usage::new(format!("--resource `{text}` is not a number")))
        };
        match key.as_str() {
            "memory" => memory = Some(value),
            "memory-swap" => memory_swap = Some(value),
            "cpu-shares" => shares = number()?,
            "cpu-period" => period = number()?,
            "cpu-quota" => quota = number()?,
            // a list has commas of its own, which also part the limits; the flag of its own has not
            "cpuset-cpus" => cpus_list = Some(value),
            "cpuset-mems" => mems = Some(value),
            _ => {
                return Err(Usage::new(format!("--resource `{text}`: there is no limit `{key}`"))
                    .suggest(&key, &RESOURCES));
            }
        }
    }
    let memory = memory.map(|text| size("--memory", &text)).transpose()?.filter(|bytes| *bytes > 0);
    let memory_swap = match memory_swap.as_deref() {
        None | Some("0" | "") => None,
        Some("-1") => Some(-1),
        Some(text) => {
            let bytes = size("--memory-swap", text)?;
            if memory.is_none_or(|memory| bytes < memory) {
                return Err(Usage::new(format!("--memory-swap `{text}` is memory and swap together"))
                    .hint("it needs --memory, and must not be less"));
            }
            Some(
                i64::try_from(bytes)
                    .map_err(|_| Usage::new(format!("--memory-swap `{text}` is too large")))?,
            )
        }
    };
    let cpu_quota = match (args.cpus.as_deref(), quota, period) {
        (Some(text), ..) => Some(cpus(text)?),
        (None, Some(0), _) => None,
        (None, Some(quota), period) => {
            let period = period.unwrap_or(100_000);
            // kernel/sched/core.c: a period of 1 ms to 1 s, a quota of at least 1 ms
            if quota < 1000 || !(1000..=1_000_000).contains(&period) {
                return Err(Usage::new(format!("--cpu-quota {quota} in --cpu-period {period}"))
                    .hint("the quota is at least 1000, the period 1000 to 1000000 microseconds"));
            }
            Some((quota, period))
        }
        (None, None, Some(_)) => return Err(Usage::new("--cpu-period needs --cpu-quota")),
        (None, None, None) => None,
    };
    if let Some(shares) = shares
        && shares != 0
        && !(2..=262_144).contains(&shares)
    {
        return Err(Usage::new(format!("--cpu-shares {shares} is not between 2 and 262144")));
    }
    for (flag, list) in [("--cpuset-cpus", &cpus_list), ("--cpuset-mems", &mems)] {
        if let Some(list) = list
            && (list.is_empty() || !list.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-')))
        {
            return Err(Usage::new(format!("{flag} `{list}` is not a list such as 0-3,7")));
        }
    }
    Ok(Limits {
        memory,
        memory_swap,
        cpu_quota,
        cpu_shares: shares.filter(|shares| *shares != 0),
        cpuset_cpus: cpus_list,
        cpuset_mems: mems,
        pids: args.pids_limit.filter(|pids| *pids != 0),
    })
}
