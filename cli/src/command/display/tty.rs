//! The display for terminals: what is finished scrolls up, one line a step; below it a live region shows what runs,
//! with the last lines that it wrote and how far transfers are.
//!
//! What is drawn is made by pure functions of the state, the size of the terminal and the time; only [`Tty::draw`]
//! touches the terminal, through one `indicatif` bar whose message is the region. No line is wider than the terminal,
//! so that the region's height is the number of its lines.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use bricklayer::event::{Event, EventKind, Outcome, Progress, TaskId};
use console::{Term, measure_text_width, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Renderer;
use super::text::{between, bytes, one_line, sanitise, seconds, short_part};

/// Lines of a step's log that are shown while it runs.
const LOG_LINES: usize = 6;
/// Transfers of one task that are shown.
const BARS: usize = 6;
const BAR_WIDTH: usize = 24;

/// See the module's description.
pub(crate) struct Tty {
    term: Term,
    state: State,
    region: ProgressBar,
}

/// Drawings a second that the terminal is asked for at most; the display's own clock is slower.
const RATE: u8 = 60;

/// What is known of the build.
struct State {
    colours: bool,
    began: Option<SystemTime>,
    tasks: BTreeMap<TaskId, Task>,
    announced: usize,
    ended: usize,
    /// Lines that go above the live region at the next drawing.
    settled: Vec<String>,
    frame: usize,
}

struct Task {
    name: String,
    started: Option<SystemTime>,
    waiting: Option<String>,
    missed: Vec<String>,
    log: VecDeque<String>,
    parts: Vec<Progress>,
}

impl Tty {
    /// Draws on `term`, which must be a terminal.
    pub(crate) fn new(term: Term, colours: bool) -> Self {
        let target = ProgressDrawTarget::term(term.clone(), RATE);
        let region = ProgressBar::with_draw_target(None, target).with_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { term, state: State::new(colours), region }
    }

    /// Writes what has settled above the region, and draws the region anew.
    fn draw(&mut self, now: SystemTime) {
        let (height, width) = self.term.size();
        let (height, width) = (usize::from(height).max(4), usize::from(width).max(20));
        self.settle(width);
        self.region.set_message(self.state.region(width, height - 1, now).join("\n"));
    }

    fn settle(&mut self, width: usize) {
        let settled = self.state.settle(width);
        if !settled.is_empty() {
            self.region.println(settled.join("\n"));
        }
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &Event) {
        self.state.event(event);
    }

    fn line(&mut self, task: TaskId, _: SystemTime, line: &[u8]) {
        self.state.line(task, line);
    }

    fn tick(&mut self, now: SystemTime) {
        self.draw(now);
    }

    fn aside(&mut self, meanwhile: &mut dyn FnMut()) {
        self.settle(usize::from(self.term.size().1).max(20));
        self.region.suspend(meanwhile);
    }

    fn end(&mut self, _: SystemTime) {
        self.settle(usize::from(self.term.size().1).max(20));
        self.region.finish_and_clear();
    }
}

impl State {
    fn new(colours: bool) -> Self {
        Self {
            colours,
            began: None,
            tasks: BTreeMap::new(),
            announced: 0,
            ended: 0,
            settled: Vec::new(),
            frame: 0,
        }
    }

    fn event(&mut self, event: &Event) {
        let Event { task: id, time, kind } = event;
        self.began.get_or_insert(*time);
        if let EventKind::Announced(info) = kind {
            self.announced += 1;
            self.tasks.insert(
                *id,
                Task {
                    name: one_line(&info.name),
                    started: None,
                    waiting: None,
                    missed: Vec::new(),
                    log: VecDeque::new(),
                    parts: Vec::new(),
                },
            );
            return;
        }
        let Some(task) = self.tasks.get_mut(id) else { return };
        match kind {
            EventKind::Started => {
                task.started.get_or_insert(*time);
                task.waiting = None;
            }
            EventKind::Waiting(what) => task.waiting = Some(one_line(what)),
            EventKind::Missed(reasons) => {
                task.missed = reasons.iter().map(|reason| one_line(reason)).collect()
            }
            EventKind::Progress(progress) => {
                match task.parts.iter_mut().find(|known| known.part == progress.part) {
                    Some(known) => known.clone_from(progress),
                    None => task.parts.push(progress.clone()),
                }
            }
            EventKind::Warning(text) => {
                for line in text.lines() {
                    self.settled.push(format!("{} {}", self.style("warning:", "33"), one_line(line)));
                }
            }
            EventKind::Cached => self.settle_task(*id, *time, "CACHED", "34"),
            EventKind::Finished(Outcome::Done) => self.settle_task(*id, *time, "", "32"),
            EventKind::Finished(Outcome::Failed(_)) => self.settle_task(*id, *time, "ERROR", "31"),
            EventKind::Finished(Outcome::Cancelled) => self.settle_task(*id, *time, "CANCELED", "33"),
            _ => {}
        }
    }

    fn line(&mut self, id: TaskId, line: &[u8]) {
        if let Some(task) = self.tasks.get_mut(&id) {
            if task.log.len() == LOG_LINES {
                task.log.pop_front();
            }
            task.log.push_back(sanitise(line, self.colours).replace('\t', "    "));
        }
    }

    /// A task has ended: its line goes up.
    fn settle_task(&mut self, id: TaskId, time: SystemTime, word: &str, colour: &str) {
        let Some(task) = self.tasks.remove(&id) else { return };
        self.ended += 1;
        let took = match task.started {
            Some(started) if word != "CACHED" => seconds(between(started, time)),
            None if word == "CANCELED" => return, // it never ran
            _ => String::new(),
        };
        let mark = self.style("=>", colour);
        let word = if word.is_empty() { String::new() } else { format!("{} ", self.style(word, colour)) };
        // a tab stands between the text and what is set at the right edge
        self.settled.push(format!("{mark} {word}{}\t{took}", task.name));
        if !task.missed.is_empty() {
            self.settled.push(self.style(&format!("   not cached: {}", task.missed.join("; ")), "2"));
        }
    }

    /// The lines that go above the region.
    fn settle(&mut self, width: usize) -> Vec<String> {
        std::mem::take(&mut self.settled)
            .into_iter()
            .map(|line| match line.split_once('\t') {
                Some((left, right)) => two_sided(left, right, width),
                None => truncate_str(&line, width, "…").into_owned(),
            })
            .collect()
    }

    /// The live region: at most `height` lines of at most `width` columns.
    fn region(&mut self, width: usize, height: usize, now: SystemTime) -> Vec<String> {
        self.frame += 1;
        let spinner = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"][self.frame % 10];
        let Some(began) = self.began else { return Vec::new() };
        let mut active: Vec<&Task> =
            self.tasks.values().filter(|task| task.started.is_some() || task.waiting.is_some()).collect();
        active.sort_by_key(|task| task.started.unwrap_or(now));
        let head =
            format!("[+] Building {} ({}/{})", seconds(between(began, now)), self.ended, self.announced);
        let mut lines = vec![truncate_str(&self.style(&head, "1"), width, "…").into_owned()];
        let detail_room = height.saturating_sub(1 + active.len());
        let mut room = detail_room;
        for (shown, task) in active.iter().enumerate() {
            if lines.len() + 1 >= height && shown + 1 < active.len() {
                lines.push(
                    truncate_str(&format!(" {} more run", active.len() - shown), width, "…").into_owned(),
                );
                break;
            }
            let took = seconds(between(task.started.unwrap_or(now), now));
            let mut left = format!("{} {}", self.style(spinner, "36"), task.name);
            if let (None, Some(what)) = (task.started, &task.waiting) {
                left = format!("{left} (waiting: {what})");
            }
            lines.push(two_sided(&left, &took, width));
            let mut details: Vec<String> = Vec::new();
            if !task.missed.is_empty() && task.log.is_empty() {
                details.push(self.style(&format!("  not cached: {}", task.missed.join("; ")), "2"));
            }
            details.extend(bars(&task.parts));
            details.extend(task.log.iter().map(|line| format!("  {} {line}", self.style("│", "2"))));
            // every running step gets its share of what is left
            let share = (room / (active.len() - shown)).min(details.len());
            room -= share;
            let from = details.len() - share;
            lines.extend(details[from..].iter().map(|line| truncate_str(line, width, "…").into_owned()));
        }
        lines.truncate(height);
        lines
    }

    fn style(&self, text: &str, code: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// `left` from the left, `right` at the right edge; `left` gives way.
fn two_sided(left: &str, right: &str, width: usize) -> String {
    if right.is_empty() {
        return truncate_str(left, width, "…").into_owned();
    }
    let room = width.saturating_sub(measure_text_width(right) + 1);
    let left = truncate_str(left, room, "…");
    let gap = width.saturating_sub(measure_text_width(&left) + measure_text_width(right));
    format!("{left}{}{right}", " ".repeat(gap))
}

/// One line for each transfer that is not complete.
fn bars(parts: &[Progress]) -> Vec<String> {
    let open = |part: &&Progress| part.total.is_none_or(|total| part.done < total);
    let complete = parts.iter().filter(|part| !open(part)).count();
    let mut lines: Vec<String> = parts
        .iter()
        .filter(open)
        .take(BARS)
        .map(|Progress { part, done, total }| match total {
            Some(total) => {
                let filled = (u128::from(*done) * BAR_WIDTH as u128 / u128::from((*total).max(1))) as usize;
                let bar: String = (0..BAR_WIDTH).map(|i| if i < filled { '█' } else { '░' }).collect();
                format!("  {bar} {} / {} {}", bytes(*done), bytes(*total), short_part(part))
            }
            None => format!("  {} {}", bytes(*done), short_part(part)),
        })
        .collect();
    if complete > 0 {
        lines.insert(0, format!("  {complete} of {} done", parts.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    /// What stands on the terminal after the script: what has settled, then the region.
    fn screen(script: &Script, width: usize, height: usize, seconds: f64) -> String {
        let paper = std::sync::Arc::new(std::sync::Mutex::new(State::new(false)));
        struct Recorder(std::sync::Arc<std::sync::Mutex<State>>);
        impl Renderer for Recorder {
            fn event(&mut self, event: &Event) {
                self.0.lock().unwrap().event(event);
            }
            fn line(&mut self, task: TaskId, _: SystemTime, line: &[u8]) {
                self.0.lock().unwrap().line(task, line);
            }
            fn tick(&mut self, _: SystemTime) {}
            fn end(&mut self, _: SystemTime) {}
        }
        drop(script.feed(Box::new(Recorder(paper.clone()))));
        let mut state = paper.lock().unwrap();
        let now = super::super::script::start() + std::time::Duration::from_secs_f64(seconds);
        let mut lines = state.settle(width);
        lines.push("─".repeat(width));
        let region = state.region(width, height, now);
        assert!(region.len() <= height, "{region:?}");
        lines.extend(region);
        for line in &lines {
            assert!(measure_text_width(line) <= width, "{line:?}");
            assert!(!line.contains('\x1b'), "{line:?}");
        }
        lines.join("\n")
    }

    fn busy() -> Script {
        let mut script = Script::new();
        let load = script.task("[internal] load build definition from Dockerfile");
        let base = script.step("[1/4] FROM docker.io/library/debian:bookworm-slim", 1, 1);
        let make = script.step(
            "[2/4] RUN make \\\n  all \x1b[2J a-rather-long-command-line --with=many --flags=too",
            3,
            4,
        );
        let push = script.task("pushing registry.example/app:1");
        let waits = script.step("[3/4] RUN sleep", 5, 5);
        let idle = script.step("[4/4] RUN later", 6, 6);
        let _ = idle;
        script
            .at(0.0)
            .start(load)
            .at(0.1)
            .done(load)
            .cached(base)
            .missed(make, &["changed: src/main.c"])
            .start(make);
        for n in 0..20 {
            script.log(make, &format!("line {n}\t\x1b[5A\x1b[31mred\n"));
        }
        script.start(push).progress(
            push,
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            7_000_000,
            28_000_000,
        );
        script.progress(push, "config", 10, 10).waiting(waits, "process 4711 runs this step");
        script.warning(make, "something is odd");
        script
    }

    #[test]
    fn what_runs_is_live_and_what_ended_has_settled() {
        insta::assert_snapshot!(screen(&busy(), 72, 30, 3.25), @r"
        => [internal] load build definition from Dockerfile                 0.1s
        => CACHED [1/4] FROM docker.io/library/debian:bookworm-slim
        warning: something is odd
        ────────────────────────────────────────────────────────────────────────
        [+] Building 3.2s (2/6)
        ⠙ [2/4] RUN make \   all  a-rather-long-command-line --with=many -… 3.1s
          │ line 14    red
          │ line 15    red
          │ line 16    red
          │ line 17    red
          │ line 18    red
          │ line 19    red
        ⠙ pushing registry.example/app:1                                    3.1s
          1 of 2 done
          ██████░░░░░░░░░░░░░░░░░░ 7.00MB / 28.0MB sha256:2cf24dba5fb0
        ⠙ [3/4] RUN sleep (waiting: process 4711 runs this step)            0.0s
        ");
    }

    #[test]
    fn a_small_terminal_is_never_overfilled() {
        for height in 1..12 {
            for width in [20, 40, 100] {
                screen(&busy(), width, height, 3.25);
            }
        }
        insta::assert_snapshot!(screen(&busy(), 40, 7, 3.25), @r"
        => [internal] load build definitio… 0.1s
        => CACHED [1/4] FROM docker.io/library/…
        warning: something is odd
        ────────────────────────────────────────
        [+] Building 3.2s (2/6)
        ⠙ [2/4] RUN make \   all  a-rather… 3.1s
          │ line 19    red
        ⠙ pushing registry.example/app:1    3.1s
          ██████░░░░░░░░░░░░░░░░░░ 7.00MB / 28.…
        ⠙ [3/4] RUN sleep (waiting: proces… 0.0s
        ");
    }
}
