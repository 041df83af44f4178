//! `bricklayer du` and `prune`: what takes up room in the store, and what may go.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bricklayer::cache::store::{PruneOptions, PruneReport, Usage, UsageEntry, UsageKind};
use serde_json::json;

use super::args::{DuArgs, Format, Global, PruneArgs};
use super::display::{bytes, one_line};
use super::environment::Environment;
use super::errors::Failure;
use super::images::open;
use super::print;
use super::table::{Table, age_of};
use super::usage::Usage as Wrong;
use super::values::{duration, size};

/// `bricklayer du`
pub(crate) fn du(args: &DuArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    let usage = builder.store().usage().context("cannot look through the store")?;
    print(&usage_text(&usage, args, SystemTime::now()))?;
    Ok(())
}

fn usage_text(usage: &Usage, args: &DuArgs, now: SystemTime) -> String {
    if args.format == Format::Json {
        return usage.entries.iter().map(|entry| format!("{}\n", as_json(entry))).collect();
    }
    let mut text = String::new();
    if args.verbose {
        text = entries(&usage.entries, now) + "\n";
    }
    let mut table = Table::new(&["", "COUNT", "MAY GO"]);
    for (kind, name) in [
        (UsageKind::Layer, "layers"),
        (UsageKind::Blob, "other blobs"),
        (UsageKind::Mount, "cache mounts"),
        (UsageKind::Build, "records of builds"),
        (UsageKind::Failure, "left by failed steps"),
    ] {
        let of_kind: Vec<&UsageEntry> = usage.entries.iter().filter(|entry| entry.kind == kind).collect();
        let may_go = of_kind.iter().filter(|entry| !entry.in_use).map(|entry| entry.size).sum();
        table.row([name.to_owned(), of_kind.len().to_string(), bytes(may_go)]);
    }
    text + &format!("{table}\n{} in all, {} may go\n", bytes(usage.total), bytes(usage.reclaimable))
}

fn word(kind: UsageKind) -> &'static str {
    match kind {
        UsageKind::Layer => "layer",
        UsageKind::Blob => "blob",
        UsageKind::Mount => "cache mount",
        UsageKind::Build => "build",
        UsageKind::Failure => "failure",
    }
}

fn entries(entries: &[UsageEntry], now: SystemTime) -> String {
    let mut table = Table::new(&["KIND", "ID", "FREES", "LAST USED", "NEEDED BY"]);
    for entry in entries {
        let needed = match (entry.in_use, entry.cached) {
            _ if entry.kind == UsageKind::Build && !entry.in_use => "`builds`",
            _ if entry.kind == UsageKind::Failure && !entry.in_use => "`debug`",
            (true, _) => "an image or a build",
            (false, true) => "the cache",
            (false, false) => "-",
        };
        let used = SystemTime::UNIX_EPOCH + Duration::from_millis(entry.used_ms.try_into().unwrap_or(0));
        table.row([
            word(entry.kind).to_owned(),
            short(&entry.id),
            bytes(entry.size),
            age_of(used, now),
            needed.to_owned(),
        ]);
    }
    table.to_string()
}

/// A digest by its first digits, the name of a cache mount on one line.
fn short(id: &str) -> String {
    match id.parse::<bricklayer::Digest>() {
        Ok(digest) => digest.short(),
        Err(_) => one_line(id),
    }
}

fn as_json(entry: &UsageEntry) -> serde_json::Value {
    json!({
        "Kind": word(entry.kind),
        "ID": entry.id,
        "Size": entry.size,
        "Created": timestamp(entry.created_ms),
        "LastUsed": timestamp(entry.used_ms),
        "InUse": entry.in_use,
        "Cached": entry.cached,
    })
}

fn timestamp(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or_default().to_string()
}

/// `bricklayer prune`
pub(crate) fn prune(args: &PruneArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let options = PruneOptions {
        all: args.all,
        max_used: args.max_used_space.as_deref().map(|text| size("--max-used-space", text)).transpose()?,
        older_than: older_than_of(args)?,
        dry_run: args.dry_run,
    };
    let builder = open(global, environment)?;
    let report = builder.store().prune(&options).context("cannot prune the store")?;
    print(&report_text(&report, args.dry_run, SystemTime::now()))?;
    Ok(())
}

/// `--older-than TIME`, `--filter until=TIME`
fn older_than_of(args: &PruneArgs) -> Result<Option<Duration>, Wrong> {
    if let Some(filter) = &args.filter {
        let Some(time) = filter.strip_prefix("until=") else {
            return Err(Wrong::unsupported(format!("--filter `{filter}`")).hint("--filter until=24h"));
        };
        return duration("--filter until", time).map(Some);
    }
    args.older_than.as_deref().map(|text| duration("--older-than", text)).transpose()
}

fn report_text(report: &PruneReport, dry_run: bool, now: SystemTime) -> String {
    let mut text = String::new();
    if !report.removed.is_empty() {
        text = entries(&report.removed, now) + "\n";
    }
    let (freed, left) = (bytes(report.bytes), bytes(report.left));
    if dry_run {
        text + &format!("{freed} would be free, {left} would be left\n")
    } else {
        text + &format!("{freed} freed, {left} left\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn some() -> Vec<UsageEntry> {
        let entry = |kind, id: &str, size, in_use, cached| UsageEntry {
            kind,
            id: id.into(),
            size,
            created_ms: 1_699_990_000_000,
            used_ms: 1_699_999_000_000,
            in_use,
            cached,
        };
        vec![
            entry(UsageKind::Layer, "7", 5_000_000, true, true),
            entry(UsageKind::Layer, "8", 3_000_000, false, true),
            entry(UsageKind::Blob, &bricklayer::Digest::of(b"x").to_string(), 500, false, false),
            entry(UsageKind::Mount, "/root/.npm\x1b[2J", 70_000, false, false),
            entry(UsageKind::Build, "k3f9a2xy", 4096, false, true),
            entry(UsageKind::Failure, "k3f9a2xy 5", 9_000, false, false),
        ]
    }

    #[test]
    fn usage_is_summed_and_listed() {
        let usage = Usage { entries: some(), total: 8_070_500, reclaimable: 3_070_500 };
        let mut args = DuArgs { verbose: true, format: Format::Table };
        insta::assert_snapshot!(usage_text(&usage, &args, now()), @"
        KIND          ID             FREES    LAST USED        NEEDED BY
        layer         7              5.00MB   16 minutes ago   an image or a build
        layer         8              3.00MB   16 minutes ago   the cache
        blob          2d711642b726   500B     16 minutes ago   -
        cache mount   /root/.npm     70.0kB   16 minutes ago   -
        build         k3f9a2xy       4.10kB   16 minutes ago   `builds`
        failure       k3f9a2xy 5     9.00kB   16 minutes ago   `debug`

                               COUNT   MAY GO
        layers                 2       3.00MB
        other blobs            1       500B
        cache mounts           1       70.0kB
        records of builds      1       4.10kB
        left by failed steps   1       9.00kB

        8.07MB in all, 3.07MB may go
        ");
        args.format = Format::Json;
        let lines = usage_text(&usage, &args, now());
        assert_eq!(lines.lines().count(), 6);
        insta::assert_snapshot!(lines.lines().next().unwrap(), @r#"{"Cached":true,"Created":"2023-11-14T19:26:40Z","ID":"7","InUse":true,"Kind":"layer","LastUsed":"2023-11-14T21:56:40Z","Size":5000000}"#);
    }

    #[test]
    fn dockers_filter_is_the_same_as_older_than() {
        let age = |older_than: Option<&str>, filter: Option<&str>| {
            let args = PruneArgs {
                all: false,
                max_used_space: None,
                older_than: older_than.map(str::to_owned),
                filter: filter.map(str::to_owned),
                dry_run: false,
            };
            older_than_of(&args)
        };
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(age(None, None).unwrap(), None);
        assert_eq!(age(Some("1d"), None).unwrap(), day);
        assert_eq!(age(None, Some("until=24h")).unwrap(), day);
        for wrong in ["until=", "until", "label=x", "until=2020-01-01"] {
            assert!(age(None, Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_pruned_is_said() {
        let report = PruneReport { removed: some().split_off(2), bytes: 70_500, left: 8_000_000 };
        insta::assert_snapshot!(report_text(&report, false, now()), @"
        KIND          ID             FREES    LAST USED        NEEDED BY
        blob          2d711642b726   500B     16 minutes ago   -
        cache mount   /root/.npm     70.0kB   16 minutes ago   -
        build         k3f9a2xy       4.10kB   16 minutes ago   `builds`
        failure       k3f9a2xy 5     9.00kB   16 minutes ago   `debug`

        70.5kB freed, 8.00MB left
        ");
        insta::assert_snapshot!(report_text(&PruneReport::default(), true, now()), @"0B would be free, 0B would be left");
    }
}
