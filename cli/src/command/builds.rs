//! `bricklayer builds`: the builds that a record was kept of, and one of them step by step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bricklayer::{BuildOutcome, BuildRecord, TaskRecord, TaskState, TimingFile, TimingForm, WorkKind};
use serde_json::Value;

use super::args::{BuildsArgs, Format, Global};
use super::build::write_file;
use super::display::{bytes, one_line};
use super::environment::Environment;
use super::errors::Failure;
use super::flags::timing;
use super::images::open;
use super::print;
use super::table::{Table, age_of};
use super::usage::Usage;

/// `bricklayer builds`
pub(crate) fn builds(args: &BuildsArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    let look = Look { now: SystemTime::now(), colours: environment.stdout_colours() };
    let text = match &args.build {
        Some(build) => {
            let files = args.timing.iter().map(|path| timing(path, environment));
            let files = files.collect::<Result<Vec<TimingFile>, Usage>>()?;
            let record = builder.find_build(build)?;
            for file in &files {
                let text = match file.form {
                    TimingForm::Html => record.timing_html(),
                    TimingForm::Trace => record.timing_trace(),
                };
                write_file(&file.path, text.as_bytes())?;
            }
            match args.format {
                // the files are what was asked for
                Format::Table if !files.is_empty() => String::new(),
                Format::Json => json(&record)? + "\n",
                Format::Table => look.one(&record, environment),
            }
        }
        None => {
            let wanted = args.filter.as_deref().map(outcome_of).transpose()?;
            let mut records = builder.builds()?;
            records.retain(|record| wanted.is_none_or(|wanted| record.outcome == wanted));
            if args.quiet {
                records.iter().map(|record| format!("{}\n", record.id)).collect()
            } else if args.format == Format::Json {
                let lines = records.iter().map(|record| Ok(format!("{}\n", summary(record)?)));
                lines.collect::<Result<String, anyhow::Error>>()?
            } else {
                look.list(&records, environment)
            }
        }
    };
    print(&text)?;
    Ok(())
}

const OUTCOMES: [(&str, BuildOutcome); 6] = [
    ("running", BuildOutcome::Running),
    ("done", BuildOutcome::Done),
    ("failed", BuildOutcome::Failed),
    ("cancelled", BuildOutcome::Cancelled),
    ("killed", BuildOutcome::Killed),
    ("unreadable", BuildOutcome::Unreadable),
];

/// `outcome=failed`
fn outcome_of(filter: &str) -> Result<BuildOutcome, Usage> {
    let Some(name) = filter.strip_prefix("outcome=") else {
        return Err(Usage::unsupported(format!("--filter `{filter}`")).hint("--filter outcome=failed"));
    };
    OUTCOMES.iter().find(|(known, _)| *known == name).map(|(_, outcome)| *outcome).ok_or_else(|| {
        let known = OUTCOMES.map(|(known, _)| known);
        Usage::new(format!("--filter: there is no outcome `{name}`")).suggest(name, &known)
    })
}

fn json(record: &BuildRecord) -> Result<String, anyhow::Error> {
    serde_json::to_string_pretty(record).context("cannot write the record as JSON")
}

/// A record without its tasks.
fn summary(record: &BuildRecord) -> Result<Value, anyhow::Error> {
    let mut value = serde_json::to_value(record).context("cannot write the record as JSON")?;
    if let Some(object) = value.as_object_mut() {
        object.remove("tasks");
    }
    Ok(value)
}

/// How things are told.
struct Look {
    now: SystemTime,
    colours: bool,
}

impl Look {
    fn list(&self, records: &[BuildRecord], environment: &Environment) -> String {
        let mut table = Table::new(&["BUILD", "STARTED", "OUTCOME", "TOOK", "STEPS", "CACHED", "WHAT"]);
        for record in records {
            let what = match record.outcome {
                BuildOutcome::Unreadable => one_line(record.error.as_deref().unwrap_or_default()),
                _ => what(record, environment),
            };
            table.row([
                record.id.clone(),
                age_of(started(record), self.now),
                self.outcome(record.outcome),
                duration(record.duration()),
                record.steps.to_string(),
                record.cached.to_string(),
                what,
            ]);
        }
        table.to_string()
    }

    fn outcome(&self, outcome: BuildOutcome) -> String {
        let word = OUTCOMES.iter().find(|(_, known)| *known == outcome).map_or("", |(word, _)| *word);
        let colour = match outcome {
            BuildOutcome::Done => "32",
            BuildOutcome::Running => "36",
            BuildOutcome::Cancelled | BuildOutcome::Killed => "33",
            _ => "31",
        };
        self.style(word, colour)
    }

    fn state(&self, task: &TaskRecord) -> String {
        let (word, colour) = match task.state {
            TaskState::Pending => ("not started", "2"),
            TaskState::Running => ("running", "36"),
            TaskState::Cached => ("cached", "34"),
            TaskState::Shared => ("shared", "34"),
            TaskState::Done if ran(task) => ("ran", "32"),
            TaskState::Done => ("done", "32"),
            TaskState::Failed => ("failed", "31"),
            TaskState::Cancelled => ("cancelled", "33"),
        };
        self.style(word, colour)
    }

    fn one(&self, record: &BuildRecord, environment: &Environment) -> String {
        let mut text = format!(
            "build {} {} {} {}, started {}\n",
            record.id,
            self.outcome(record.outcome),
            if record.outcome == BuildOutcome::Running { "for" } else { "after" },
            duration(record.duration()),
            age_of(started(record), self.now)
        );
        let mut facts = vec![("what", what(record, environment))];
        facts.extend(record.image.map(|image| ("image", image.to_string())));
        facts.push(("steps", format!("{}, {} cached", record.steps, record.cached)));
        facts.extend(record.error.as_deref().map(|error| ("error", one_line(error))));
        facts.extend(record.incomplete.as_deref().map(|why| ("incomplete", one_line(why))));
        for (name, fact) in facts {
            text += &format!("{name:<11}{fact}\n");
        }
        let mut table =
            Table::new(&["STEP", "STATE", "START", "TIME", "WAITED", "CPU", "MEMORY", "SIZE", "NAME"]);
        for task in &record.tasks {
            let or_not = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let micros = |us: u64| duration(Duration::from_micros(us));
            let mut state = self.state(task);
            if let Some(code) = task.exit_code.filter(|code| *code != 0) {
                state += &format!(" ({code})");
            }
            table.row([
                format!("#{}", task.number),
                state,
                or_not(task.started_us.map(micros)),
                or_not(task.worked().map(duration)),
                or_not(Some(task.waited_us).filter(|us| *us >= 1000).map(micros)),
                or_not(task.cpu_us.map(micros)),
                or_not(memory(task)),
                or_not(Some(task.bytes).filter(|bytes| *bytes > 0).map(bytes)),
                one_line(&task.name),
            ]);
            let below = task.reasons.iter().map(|reason| format!("not cached: {reason}"));
            let below = below.chain(task.waited_for.iter().map(|whom| format!("waited: {whom}")));
            let below = below.chain(task.warnings.iter().map(|warning| format!("warning: {warning}")));
            let moved = Some(task.moved).filter(|moved| *moved > 0);
            for line in below.chain(moved.map(|moved| format!("moved {}", bytes(moved)))) {
                let mut row: [String; 9] = Default::default();
                row[8] = self.style(&format!("  {}", one_line(&line)), "2");
                table.row(row);
            }
        }
        text + "\n" + &table.to_string()
    }

    fn style(&self, text: &str, code: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Was it a step that had something to run?
fn ran(task: &TaskRecord) -> bool {
    task.kind == WorkKind::Step && task.op.as_deref() != Some("local")
}

/// What was asked for, nearly as it was typed.
fn what(record: &BuildRecord, environment: &Environment) -> String {
    let asked = &record.asked;
    let context = std::path::Path::new(&asked.context);
    let context = match environment.shown(context) {
        path if path == environment.path(".") => ".".to_owned(),
        path => path.display().to_string(),
    };
    let mut words = Vec::new();
    for tag in &asked.tags {
        words.push(format!("-t {tag}"));
    }
    if let Some(target) = &asked.target {
        words.push(format!("--target {target}"));
    }
    if let Some(platform) = &asked.platform {
        words.push(format!("--platform {platform}"));
    }
    if asked.no_cache {
        words.push("--no-cache".to_owned());
    }
    let file = std::path::Path::new(&asked.dockerfile);
    let usual = file.file_name().is_some_and(|name| name == "Dockerfile")
        && file.parent().is_none_or(|directory| {
            directory == std::path::Path::new("") || asked.context.ends_with(&*directory.to_string_lossy())
        });
    // a Dockerfile on standard input may come without a context
    if asked.dockerfile == "-" && asked.context == "(empty)" {
        words.push("-".to_owned());
        return one_line(&words.join(" "));
    }
    if !usual {
        words.push(format!("-f {}", asked.dockerfile));
    }
    words.push(context);
    one_line(&words.join(" "))
}

fn started(record: &BuildRecord) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(record.started_ms.try_into().unwrap_or(0))
}

/// `12ms`, `3.2s`, `4m05s`, `2h03m`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.as_millis() {
        millis @ ..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{:.1}s", time.as_secs_f64()),
        60_000..3_600_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// What a command used, or the least that it must have used: what its largest process did.
fn memory(task: &TaskRecord) -> Option<String> {
    let least = || task.largest_process.map(|count| format!("≥{}", bytes(count)));
    task.peak_memory.map(bytes).or_else(least)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A build that failed, as its record has it.
    fn failed() -> BuildRecord {
        let text = r#"{
            "version": 1, "id": "k3f9a2xy", "startedMs": 1700000000000, "durationUs": 75250000, "outcome": "failed",
            "error": "[2/2] RUN make: exit code: 2", "context": "/src/app", "dockerfile": "app/Dockerfile",
            "target": "build", "tags": ["app:\u001b[2J1"], "steps": 2, "cached": 1, "tasks": [
                {"number": 1, "name": "[internal] load build definition", "kind": "internal", "state": "done",
                 "startedUs": 1000, "endedUs": 2500},
                {"number": 2, "name": "[1/2] FROM base", "kind": "step", "op": "image", "state": "cached"},
                {"number": 3, "name": "[2/2] RUN make\u001b[2J", "kind": "step", "op": "run", "state": "failed", "exitCode": 2,
                 "startedUs": 2150000, "endedUs": 75100000, "waitedUs": 2000000, "cpuUs": 140000000,
                 "peakMemory": 512000000, "reasons": ["changed: src/main.c"], "waitedFor": ["process 4711"],
                 "warnings": ["careful"], "logBytes": 9, "bytes": 1234567},
                {"number": 4, "name": "pushing", "kind": "export", "state": "running", "startedUs": 5000, "moved": 2000000,
                 "largestProcess": 81000000},
                {"number": 5, "name": "[3/3] COPY", "kind": "step", "op": "copy", "state": "pending"}]}"#;
        serde_json::from_str(text).unwrap()
    }

    fn look(colours: bool) -> Look {
        Look { now: UNIX_EPOCH + Duration::from_secs(1_700_000_300), colours }
    }

    fn environment() -> Environment {
        Environment::fake(Path::new("/src"), &[], b"")
    }

    #[test]
    fn builds_are_listed() {
        let damaged = BuildRecord {
            outcome: BuildOutcome::Unreadable,
            error: Some("cannot read `x`".into()),
            ..failed()
        };
        let mut here = failed();
        here.outcome = BuildOutcome::Done;
        here.asked = bricklayer::Asked {
            context: "/src".into(),
            dockerfile: "docker/Dockerfile".into(),
            ..bricklayer::Asked::default()
        };
        let mut stdin = here.clone();
        (stdin.asked.context, stdin.asked.dockerfile) = ("(empty)".into(), "-".into());
        let records = [failed(), damaged, here, stdin];
        insta::assert_snapshot!(look(false).list(&records, &environment()), @"
        BUILD      STARTED         OUTCOME      TOOK    STEPS   CACHED   WHAT
        k3f9a2xy   5 minutes ago   failed       1m15s   2       1        -t app:1 --target build app
        k3f9a2xy   5 minutes ago   unreadable   1m15s   2       1        cannot read `x`
        k3f9a2xy   5 minutes ago   done         1m15s   2       1        -f docker/Dockerfile .
        k3f9a2xy   5 minutes ago   done         1m15s   2       1        -
        ");
    }

    #[test]
    fn a_build_is_shown_step_by_step() {
        insta::assert_snapshot!(look(false).one(&failed(), &environment()), @"
        build k3f9a2xy failed after 1m15s, started 5 minutes ago
        what       -t app:1 --target build app
        steps      2, 1 cached
        error      [2/2] RUN make: exit code: 2

        STEP   STATE         START   TIME    WAITED   CPU     MEMORY    SIZE     NAME
        #1     done          1ms     1ms     -        -       -         -        [internal] load build definition
        #2     cached        -       -       -        -       -         -        [1/2] FROM base
        #3     failed (2)    2.1s    1m12s   2.0s     2m20s   512MB     1.23MB   [2/2] RUN make
                                                                                   not cached: changed: src/main.c
                                                                                   waited: process 4711
                                                                                   warning: careful
        #4     running       5ms     -       -        -       ≥81.0MB   -        pushing
                                                                                   moved 2.00MB
        #5     not started   -       -       -        -       -         -        [3/3] COPY
        ");
        assert!(look(true).one(&failed(), &environment()).contains("\u{1b}[31mfailed\u{1b}[0m"));
    }

    #[test]
    fn programs_get_the_record() {
        let all: Value = serde_json::from_str(&json(&failed()).unwrap()).unwrap();
        assert_eq!(all["tasks"][2]["exitCode"], 2);
        insta::assert_snapshot!(summary(&failed()).unwrap(), @r#"{"cached":1,"context":"/src/app","dockerfile":"app/Dockerfile","durationUs":75250000,"error":"[2/2] RUN make: exit code: 2","id":"k3f9a2xy","outcome":"failed","startedMs":1700000000000,"steps":2,"tags":["app:\u001b[2J1"],"target":"build","version":1}"#);
    }

    #[test]
    fn outcomes_are_filtered_by_name() {
        assert_eq!(outcome_of("outcome=killed").unwrap(), BuildOutcome::Killed);
        for wrong in ["outcome=", "outcome=faild", "failed", "until=1h"] {
            assert!(outcome_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_in_units_that_people_use() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1.0s"),
            (59_949, "59.9s"),
            (245_000, "4m05s"),
            (7_380_000, "2h03m"),
        ];
        for (millis, expected) in cases {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }
}
