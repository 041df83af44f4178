//! `bricklayer logs`: what the commands of a build wrote, whole.
//!
//! A file or a pipe gets the bytes just as they were written, a terminal gets lines without what it would obey.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use bricklayer::event::Stream;
use bricklayer::{
    BuildLog, BuildOutcome, BuildRecord, Builder, LogEventKind, LogPiece, TaskRecord, TaskState,
};

use super::args::{Global, LogsArgs};
use super::display::{LineSplitter, one_line, sanitise};
use super::environment::Environment;
use super::errors::Failure;
use super::images::open;
use super::say;

/// How often a build that goes on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `bricklayer logs`
pub(crate) fn logs(args: &LogsArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    let record = builder.find_build(&args.build)?;
    let step = args.step.as_deref().map(|step| record.find_task(step)).transpose()?;
    let mut out = Out {
        out: Box::new(io::BufWriter::new(io::stdout().lock())),
        terminal: environment.stdout_terminal,
        colours: environment.stdout_colours(),
        times: args.timestamps.then_some(record.started_ms),
        at_line_start: true,
        splitters: HashMap::new(),
    };
    let written = if args.follow && record.outcome == BuildOutcome::Running {
        follow(&record, step, &mut out)
    } else {
        whole(&record, step, &mut out)
    };
    match written.and_then(|()| Ok(out.out.flush()?)) {
        // nobody reads on, as with `| head`
        Err(Cannot::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Cannot::Write(error)) => {
            return Err(error).context("cannot write to standard output").map_err(Into::into);
        }
        Err(Cannot::Read(error)) => return Err((*error).into()),
        Ok(()) => {}
    }
    drop(out);
    // as it was when it was followed to its end
    let number = step.map(|step| step.number);
    let record = if args.follow { builder.find_build(&record.id)? } else { record };
    let end = match number.and_then(|number| record.numbered(number)) {
        Some(step) => end_of_step(&builder, &record, step),
        None => end_of_build(&record),
    };
    say(&end);
    Ok(())
}

enum Cannot {
    Read(Box<bricklayer::Error>),
    Write(io::Error),
}

impl From<bricklayer::Error> for Cannot {
    fn from(error: bricklayer::Error) -> Self {
        Self::Read(Box::new(error))
    }
}

impl From<io::Error> for Cannot {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// A step after the other, in the order of their numbers; or one alone, without a heading.
fn whole(record: &BuildRecord, step: Option<&TaskRecord>, out: &mut Out<'_>) -> Result<(), Cannot> {
    let mut log = record.log()?;
    let mut pieces: HashMap<u64, Vec<(u64, LogPiece)>> = HashMap::new();
    while let Some(event) = log.next_event()? {
        if let LogEventKind::Wrote(piece) = event.kind
            && step.is_none_or(|step| step.number == event.task)
        {
            pieces.entry(event.task).or_default().push((event.time_us, piece));
        }
    }
    let mut first = true;
    for task in &record.tasks {
        let Some(pieces) = pieces.get(&task.number) else { continue };
        if step.is_none() {
            if !first {
                out.line("")?;
            }
            out.line(&format!("#{} {}", task.number, one_line(&task.name)))?;
        }
        first = false;
        for (time_us, piece) in pieces {
            out.piece(&log, *time_us, *piece)?;
        }
        out.end_of_step(step.is_none())?;
        if step.is_none()
            && let Some(end) = ending(task)
        {
            out.line(&format!("#{} {end}", task.number))?;
        }
    }
    Ok(())
}

/// As it comes, until the build has ended.
fn follow(record: &BuildRecord, step: Option<&TaskRecord>, out: &mut Out<'_>) -> Result<(), Cannot> {
    let mut log = record.log()?;
    let mut names: HashMap<u64, String> = HashMap::new();
    let mut codes: HashMap<u64, i32> = HashMap::new();
    let mut floor = None;
    let mut last = false;
    loop {
        while let Some(event) = log.next_event()? {
            let wanted = step.is_none_or(|step| step.number == event.task);
            match event.kind {
                LogEventKind::Named(name) => drop(names.insert(event.task, one_line(&name))),
                LogEventKind::Wrote(piece) if wanted => {
                    if step.is_none() && floor != Some(event.task) {
                        if floor.is_some() {
                            out.end_of_step(true)?;
                            out.line("")?;
                        }
                        let name = names.get(&event.task).map_or("", String::as_str);
                        out.line(&format!("#{} {name}", event.task))?;
                        floor = Some(event.task);
                    }
                    out.piece(&log, event.time_us, piece)?;
                }
                LogEventKind::Exited(code) => drop(codes.insert(event.task, code)),
                LogEventKind::Ended(Some(_)) if step.is_none() => {
                    out.end_of_step(true)?;
                    let code = codes.get(&event.task).map(|code| format!("exit code: {code}"));
                    out.line(&format!("#{} {}", event.task, code.unwrap_or_else(|| "failed".to_owned())))?;
                }
                _ => {}
            }
        }
        out.out.flush()?;
        if last {
            return out.end_of_step(step.is_none()).map_err(Into::into);
        }
        std::thread::sleep(LOOK_EVERY);
        // once more after the end: for what was written before it
        last = !record.goes_on();
    }
}

/// How a step that wrote something ended, if that is not as it should.
fn ending(task: &TaskRecord) -> Option<String> {
    match (task.exit_code, task.state) {
        (Some(code), _) if code != 0 => Some(format!("exit code: {code}")),
        (_, TaskState::Failed) => Some(match &task.error {
            Some(error) => format!("failed: {}", one_line(error)),
            None => "failed".to_owned(),
        }),
        (_, TaskState::Cancelled) => Some("cancelled".to_owned()),
        (_, TaskState::Running) => Some("it goes on".to_owned()),
        _ => None,
    }
}

/// What is said of a step beside its log.
fn end_of_step(builder: &Builder, record: &BuildRecord, step: &TaskRecord) -> String {
    let number = step.number;
    if let Some(end) = ending(step) {
        return format!("#{number} {end}\n");
    }
    if step.log_bytes > 0 {
        return String::new();
    }
    match step.state {
        TaskState::Cached | TaskState::Shared => {
            let made = step.key.and_then(|key| {
                let builds = builder.builds().ok()?;
                builds.iter().find_map(|build| {
                    let ran = |task: &&TaskRecord| task.key == Some(key) && task.state == TaskState::Done;
                    Some((build.id.clone(), build.tasks.iter().find(ran)?.number))
                })
            });
            let hint = made.map_or_else(String::new, |(build, step)| {
                format!("; it ran in build {build}: bricklayer logs {build} {step}")
            });
            format!("#{number} was cached in build {}{hint}\n", record.id)
        }
        TaskState::Pending => format!("#{number} had not started\n"),
        _ => format!("#{number} wrote nothing\n"),
    }
}

/// What is said of a build beside its logs.
fn end_of_build(record: &BuildRecord) -> String {
    let mut text = String::new();
    if record.log_bytes() == 0 {
        text += &format!("build {}: no step wrote anything\n", record.id);
    }
    if let Some(why) = &record.incomplete {
        text += &format!("build {}: the logs are not complete: {}\n", record.id, one_line(why));
    }
    match record.outcome {
        BuildOutcome::Failed => {
            let error = record.error.as_deref().unwrap_or_default();
            text += &format!("build {} failed: {}\n", record.id, one_line(error));
        }
        BuildOutcome::Killed => text += &format!("build {} was killed\n", record.id),
        BuildOutcome::Cancelled => text += &format!("build {} was cancelled\n", record.id),
        _ => {}
    }
    text
}

/// Where logs go.
struct Out<'a> {
    out: Box<dyn Write + 'a>,
    terminal: bool,
    colours: bool,
    /// Each line gets its time: when the build started, in milliseconds since 1970.
    times: Option<i64>,
    at_line_start: bool,
    /// For a terminal.
    splitters: HashMap<Stream, LineSplitter>,
}

impl Out<'_> {
    /// A line of our own.
    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    fn piece(&mut self, log: &BuildLog, time_us: u64, piece: LogPiece) -> Result<(), Cannot> {
        let data = log.read(piece)?;
        Ok(self.data(time_us, piece.stream, &data)?)
    }

    fn data(&mut self, time_us: u64, stream: Stream, data: &[u8]) -> io::Result<()> {
        let time = self.times.map(|started| timestamp(started, time_us));
        if self.terminal {
            let mut lines = Vec::new();
            let splitter = self.splitters.entry(stream).or_default();
            splitter.push(data, |line| lines.push(sanitise(line, self.colours)));
            for line in lines {
                let time = time.as_deref().unwrap_or_default();
                self.line(&format!("{time}{line}"))?;
            }
            return Ok(());
        }
        match time {
            None => self.out.write_all(data)?,
            Some(time) => {
                for line in data.split_inclusive(|byte| *byte == b'\n') {
                    if self.at_line_start {
                        self.out.write_all(time.as_bytes())?;
                    }
                    self.out.write_all(line)?;
                    self.at_line_start = line.ends_with(b"\n");
                }
            }
        }
        if let Some(last) = data.last() {
            self.at_line_start = *last == b'\n';
        }
        Ok(())
    }

    /// What the step did not end with a line end; `more`: something else follows.
    fn end_of_step(&mut self, more: bool) -> io::Result<()> {
        for (_, mut splitter) in std::mem::take(&mut self.splitters) {
            let mut rest = None;
            splitter.finish(|line| rest = Some(sanitise(line, self.colours)));
            if let Some(rest) = rest {
                self.line(&rest)?;
            }
        }
        if more && !std::mem::replace(&mut self.at_line_start, true) {
            self.line("")?;
        }
        Ok(())
    }
}

/// When a piece came, with a space behind it.
fn timestamp(started_ms: i64, time_us: u64) -> String {
    let micros = started_ms.saturating_mul(1000).saturating_add(time_us.try_into().unwrap_or(i64::MAX));
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    format!("{time:.6} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for pieces of one step, and then for a line of ours.
    fn shown(terminal: bool, times: Option<i64>, pieces: &[(u64, Stream, &[u8])]) -> String {
        let mut bytes = Vec::new();
        let out = Box::new(&mut bytes);
        let mut out =
            Out { out, terminal, colours: true, times, at_line_start: true, splitters: HashMap::new() };
        for (time_us, stream, data) in pieces {
            out.data(*time_us, *stream, data).unwrap();
        }
        out.end_of_step(true).unwrap();
        out.line("next").unwrap();
        drop(out);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn files_get_the_bytes_and_terminals_get_lines() {
        use Stream::{Stderr, Stdout};
        let pieces: [(u64, Stream, &[u8]); 4] = [
            (0, Stdout, b"one\x1b[2J\x1b[31m red\r\ntw"),
            (1_500_000, Stderr, b"err\n"),
            (2_000_000, Stdout, b"o\n"),
            (3_000_000, Stdout, b"end"),
        ];
        assert_eq!(shown(false, None, &pieces), "one\x1b[2J\x1b[31m red\r\ntwerr\no\nend\nnext\n");
        assert_eq!(shown(true, None, &pieces), "one\x1b[31m red\x1b[0m\nerr\ntwo\nend\nnext\n");
        insta::assert_snapshot!(shown(false, Some(1_700_000_000_000), &pieces[1..]), @"
        2023-11-14T22:13:21.500000Z err
        2023-11-14T22:13:22.000000Z o
        2023-11-14T22:13:23.000000Z end
        next
        ");
        assert_eq!(shown(false, None, &[]), "next\n");
    }

    #[test]
    fn how_a_step_ended_is_said_where_that_is_not_as_it_should() {
        let task = |fields: &str| {
            let text = format!(r#"{{"number":1,"name":"RUN x","kind":"step",{fields}}}"#);
            ending(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(task(r#""state":"done","exitCode":0"#), None);
        assert_eq!(task(r#""state":"failed","exitCode":7"#).unwrap(), "exit code: 7");
        assert_eq!(
            task(r#""state":"failed","error":"no\u001b[2J such file""#).unwrap(),
            "failed: no such file"
        );
        assert_eq!(task(r#""state":"cancelled""#).unwrap(), "cancelled");
        assert_eq!(task(r#""state":"cached""#), None);
    }
}
