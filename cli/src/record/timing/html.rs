//! The page: HTML with its style in it, no scripts, nothing from elsewhere. Positions are percentages, so that it fits any width.
//!
//! Names and errors come from Dockerfiles, images and servers: all of it goes through [`Text`].

use std::collections::HashSet;
use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::{Bar, BuildRecord, Saving, Spent, TaskRecord, TaskState, Timing, WorkKind};
use crate::record::BuildOutcome;

const STYLE: &str = include_str!("page.css");

/// Characters of a name in a bar, and of any other text.
const LONGEST_LABEL: usize = 160;
const LONGEST_TEXT: usize = 2000;

/// Marks on the time axis, at the most.
const TICKS: u64 = 10;

/// Text that is no markup: escaped for HTML's text and quoted attributes, without control characters and those that turn
/// the direction of text, cut where it is too long.
struct Text<'a>(&'a str, usize);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, c) in self.0.chars().enumerate() {
            if number == self.1 {
                return f.write_char('…');
            }
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn text(text: &str) -> Text<'_> {
    Text(text, LONGEST_TEXT)
}

/// A part of the whole, in percent.
struct Percent(u64, u64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}%", self.0 as f64 * 100.0 / self.1.max(1) as f64)
    }
}

pub(super) fn page(timing: &Timing<'_>) -> String {
    let record = timing.record;
    let mut out = String::with_capacity(16 << 10);
    let title = format!("bricklayer build {} {} in {}", record.id, outcome(record), time(record.duration_us));
    // writing to a String does not fail
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        text(&title)
    );
    head(&mut out, record);
    timeline(&mut out, timing);
    savings(&mut out, timing);
    steps(&mut out, timing);
    out.push_str("</body>\n</html>\n");
    out
}

fn head(out: &mut String, record: &BuildRecord) {
    let asked = &record.asked;
    let _ = writeln!(
        out,
        "<h1>Build {}: {} in {}</h1>",
        text(&record.id),
        outcome(record),
        time(record.duration_us)
    );
    let started = jiff::Timestamp::from_millisecond(record.started_ms).unwrap_or_default();
    let steps = match (record.steps, record.cached) {
        (1, cached) => format!("1 step, {cached} cached"),
        (steps, cached) => format!("{steps} steps, {cached} cached"),
    };
    let _ = writeln!(
        out,
        "<p class=\"soft\">started {started:.0} · {steps} · <code>{}</code> with <code>{}</code>",
        text(&asked.context),
        text(&asked.dockerfile)
    );
    if let Some(target) = &asked.target {
        let _ = writeln!(out, " · target <code>{}</code>", text(target));
    }
    for tag in &asked.tags {
        let _ = writeln!(out, " · <code>{}</code>", text(tag));
    }
    out.push_str("</p>\n");
    if let Some(error) = &record.error {
        let _ = writeln!(out, "<p class=\"error\">{}</p>", text(error));
    }
}

fn timeline(out: &mut String, timing: &Timing<'_>) {
    out.push_str("<h2>Timeline</h2>\n");
    if timing.bars.is_empty() {
        out.push_str("<p>Nothing took any time.</p>\n");
        return;
    }
    let end = timing.end();
    out.push_str("<div class=\"scroll\"><div class=\"chart\">\n");
    let step = tick(end);
    for at in (0..end).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let _ =
            writeln!(out, "<div class=\"tick\" style=\"left:{}\">{}</div>", Percent(at, end), axis(at, step));
    }
    for lane in 0..timing.lanes {
        out.push_str("<div class=\"lane\">\n");
        for bar in timing.bars.iter().filter(|bar| bar.lane == lane) {
            draw(out, bar, end);
        }
        out.push_str("</div>\n");
    }
    out.push_str("<div class=\"path\"><div class=\"lane\">\n");
    for segment in &timing.path {
        let bar = &timing.bars[segment.activity];
        let (class, what) = match segment.spent {
            Spent::Working => (format!("bar {}", class(bar.task)), String::new()),
            Spent::Waiting => ("wait".to_owned(), "waiting: ".to_owned()),
            Spent::Between if bar.task.kind == WorkKind::Export => {
                ("bar packing".to_owned(), "packing layers before: ".to_owned())
            }
            // the line between two bars says it
            Spent::Between => continue,
        };
        let (from, took) = (segment.from, segment.to.saturating_sub(segment.from));
        let _ = writeln!(
            out,
            "<a class=\"{class}{}\" href=\"#s{}\" style=\"left:{};width:{}\" title=\"{what}#{} {}, {}\">{}</a>",
            thin(took, end),
            bar.task.number,
            Percent(from, end),
            Percent(took, end),
            bar.task.number,
            Text(&bar.task.name, LONGEST_LABEL),
            time(took),
            match segment.spent {
                Spent::Working => label(bar.task, took, end),
                Spent::Between if thin(took, end).is_empty() => "packing".to_owned(),
                Spent::Between | Spent::Waiting => String::new(),
            },
        );
    }
    out.push_str("</div></div>\n</div></div>\n<div class=\"legend\">");
    for (class, name) in [
        ("run", "RUN"),
        ("files", "COPY, ADD and other files"),
        ("source", "images, contexts, downloads"),
        ("export", "exports and pushes"),
        ("internal", "around the graph"),
        ("failed", "failed"),
        ("wait", "waiting"),
        ("critical", "on the critical path; the last row is the path alone"),
    ] {
        let _ = write!(out, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    out.push_str("</div>\n");
}

fn draw(out: &mut String, bar: &Bar<'_>, end: u64) {
    let task = bar.task;
    if bar.waits_from < bar.begin {
        let waited = bar.begin - bar.waits_from;
        let _ = writeln!(
            out,
            "<div class=\"wait\" style=\"left:{};width:{}\" title=\"#{} waited {}\"></div>",
            Percent(bar.waits_from, end),
            Percent(waited, end),
            task.number,
            time(task.waited_us.max(waited)),
        );
    }
    let took = bar.end.saturating_sub(bar.begin);
    let mut title =
        format!("#{} {}\n{} to {}: {}", task.number, task.name, time(bar.begin), time(bar.end), time(took));
    for reason in &task.reasons {
        let _ = write!(title, "\nnot cached: {reason}");
    }
    if let Some(error) = &task.error {
        let _ = write!(title, "\n{error}");
    }
    let _ = writeln!(
        out,
        "<a class=\"bar {}{}{}\" href=\"#s{}\" style=\"left:{};width:{}\" title=\"{}\">{}</a>",
        class(task),
        if bar.critical { " critical" } else { "" },
        thin(took, end),
        task.number,
        Percent(bar.begin, end),
        Percent(took, end),
        // line ends may stay in an attribute
        Lines(&title),
        label(task, took, end),
    );
}

/// [`Text`] of several lines.
struct Lines<'a>(&'a str);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.lines().enumerate() {
            if number > 0 {
                f.write_str("&#10;")?;
            }
            text(line).fmt(f)?;
        }
        Ok(())
    }
}

/// Bars that have no room for text.
fn thin(took: u64, end: u64) -> &'static str {
    if took.saturating_mul(100) < end.saturating_mul(2) { " thin" } else { "" }
}

fn label(task: &TaskRecord, took: u64, end: u64) -> String {
    if thin(took, end).is_empty() { Text(&task.name, LONGEST_LABEL).to_string() } else { String::new() }
}

fn savings(out: &mut String, timing: &Timing<'_>) {
    out.push_str("<h2>What would have saved most</h2>\n");
    if timing.savings.is_empty() {
        out.push_str("<p>No single thing took long.</p>\n");
    } else {
        out.push_str("<ol class=\"savings\">\n");
    }
    for Saving { us, task, text: about } in &timing.savings {
        let _ = write!(
            out,
            "<li><div><b>{}</b><div class=\"soft\">{:.0}% of it</div></div><div>",
            time(*us),
            *us as f64 * 100.0 / timing.record.duration_us.max(1) as f64
        );
        if let Some(task) = task {
            let _ = write!(
                out,
                "<a class=\"name\" href=\"#s{0}\" style=\"color:inherit\">#{0} {1}</a><div class=\"soft\">{2}</div>",
                task.number,
                text(&task.name),
                text(about)
            );
        } else {
            let _ = write!(out, "{}", text(about));
        }
        let _ = writeln!(
            out,
            "<div class=\"meter\"><div style=\"width:{}\"></div></div></div></li>",
            Percent(*us, timing.record.duration_us.max(*us))
        );
    }
    if !timing.savings.is_empty() {
        out.push_str(
            "</ol>\n<p class=\"soft\">By how much earlier the build would have ended without it, all else being as it was. \
             Several of them together do not add up.</p>\n",
        );
    }
    if let Some(tail) = tail(timing) {
        let _ = writeln!(out, "<p>{tail}</p>");
    }
}

/// What came after the last step, where only one thing goes on at a time.
fn tail(timing: &Timing<'_>) -> Option<String> {
    let record = timing.record;
    let steps = timing.bars.iter().filter(|bar| bar.task.kind == WorkKind::Step);
    let last = steps.map(|bar| bar.end).max()?;
    let tail = record.duration_us.saturating_sub(last);
    let worth =
        record.outcome == BuildOutcome::Done && tail >= 1000 && tail.saturating_mul(20) >= record.duration_us;
    worth.then(|| format!("After the last step it took another {} to export the result.", time(tail)))
}

fn steps(out: &mut String, timing: &Timing<'_>) {
    let record = timing.record;
    out.push_str(
        "<h2>Steps</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"n\">#</th><th>Name</th><th>State</th>\
         <th class=\"n\">Start</th><th class=\"n\">Time</th><th class=\"n\">Waited</th><th class=\"n\">CPU</th>\
         <th class=\"n\">Peak memory</th><th class=\"n\">Size</th><th class=\"n\">Moved</th></tr>\n",
    );
    let critical: HashSet<u64> =
        timing.bars.iter().filter(|bar| bar.critical).map(|bar| bar.task.number).collect();
    let most_cpu = record.tasks.iter().filter_map(|task| task.cpu_us).max().unwrap_or(0);
    let most_memory =
        record.tasks.iter().filter_map(|task| task.peak_memory.or(task.largest_process)).max().unwrap_or(0);
    for task in &record.tasks {
        let _ = write!(
            out,
            "<tr id=\"s{0}\"><td class=\"n\">{0}</td><td><span class=\"name\">{1}</span>",
            task.number,
            text(&task.name)
        );
        let why = task.reasons.iter().map(|reason| format!("not cached: {reason}"));
        let why = why.chain(task.waited_for.iter().map(|whom| format!("waited: {whom}")));
        for line in why.chain(task.error.clone()) {
            let _ = write!(out, "<div class=\"why\">{}</div>", text(&line));
        }
        let critical = critical.contains(&task.number);
        let _ = write!(
            out,
            "</td><td class=\"state\"><i class=\"dot {}\"></i>{}{}</td>",
            class(task),
            state(task),
            if critical { "<div class=\"soft\">critical</div>" } else { "" }
        );
        let or_not = |us: Option<u64>| us.map_or_else(|| "–".to_owned(), time);
        let worked = task.worked().map(|worked| u64::try_from(worked.as_micros()).unwrap_or(u64::MAX));
        let waited = Some(task.waited_us).filter(|us| *us >= 1000);
        for cell in [task.started_us, worked, waited] {
            let _ = write!(out, "<td class=\"n\">{}</td>", or_not(cell));
        }
        cell(out, task.cpu_us, most_cpu, time);
        match task.peak_memory {
            None => cell(out, task.largest_process, most_memory, at_least),
            known => cell(out, known, most_memory, bytes),
        }
        cell(out, Some(task.bytes).filter(|bytes| *bytes > 0), 0, bytes);
        cell(out, Some(task.moved).filter(|moved| *moved > 0), 0, bytes);
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// A number, and how it compares with the largest.
fn cell(out: &mut String, value: Option<u64>, most: u64, shown: fn(u64) -> String) {
    let _ = match value {
        None => write!(out, "<td class=\"n\">–</td>"),
        Some(value) if most == 0 => write!(out, "<td class=\"n\">{}</td>", shown(value)),
        Some(value) => write!(
            out,
            "<td class=\"n\">{}<div class=\"meter\"><div style=\"width:{}\"></div></div></td>",
            shown(value),
            Percent(value, most)
        ),
    };
}

fn outcome(record: &BuildRecord) -> &'static str {
    match record.outcome {
        BuildOutcome::Running => "running",
        BuildOutcome::Done => "done",
        BuildOutcome::Failed => "failed",
        BuildOutcome::Cancelled => "cancelled",
        BuildOutcome::Killed => "killed",
        BuildOutcome::Unreadable => "unreadable",
    }
}

fn state(task: &TaskRecord) -> String {
    let word = match task.state {
        TaskState::Pending => "not started",
        TaskState::Running => "running",
        TaskState::Cached => "cached",
        TaskState::Shared => "shared",
        TaskState::Done => "done",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
    };
    match task.exit_code.filter(|code| *code != 0) {
        Some(code) => format!("{word} ({code})"),
        None => word.to_owned(),
    }
}

fn class(task: &TaskRecord) -> &'static str {
    match (task.state, task.kind, task.op.as_deref()) {
        (TaskState::Failed, ..) => "failed",
        (_, WorkKind::Export, _) => "export",
        (_, WorkKind::Internal, _) => "internal",
        (_, _, Some("run")) => "run",
        (_, _, Some("image" | "local" | "http" | "git")) => "source",
        (_, _, Some(_)) => "files",
        (_, _, None) => "internal",
    }
}

/// The distance of two marks on the axis: 1, 2 or 5 times a power of ten.
pub(super) fn tick(end: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let step = unit.saturating_mul(factor);
            if end / step <= TICKS {
                return step;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// A mark on the axis, as exact as the distance between two.
fn axis(us: u64, step: u64) -> String {
    match step {
        ..1000 => format!("{:.3}\u{a0}ms", us as f64 / 1e3),
        1000..1_000_000 if us < 1_000_000 => format!("{}\u{a0}ms", us / 1000),
        1000..1_000_000 => format!("{:.2}\u{a0}s", us as f64 / 1e6),
        _ => format!("{}\u{a0}s", us / 1_000_000),
    }
}

fn time(us: u64) -> String {
    let time = Duration::from_micros(us);
    match us {
        ..10_000 => format!("{:.1}\u{a0}ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{}\u{a0}ms", us / 1000),
        1_000_000..60_000_000 => format!("{:.1}\u{a0}s", time.as_secs_f64()),
        60_000_000..3_600_000_000 => {
            format!("{}\u{a0}min\u{a0}{:02}\u{a0}s", time.as_secs() / 60, time.as_secs() % 60)
        }
        _ => format!("{}\u{a0}h\u{a0}{:02}\u{a0}min", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

fn at_least(count: u64) -> String {
    format!("≥ {}", bytes(count))
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count}\u{a0}B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$}\u{a0}{}", UNITS[unit])
}
