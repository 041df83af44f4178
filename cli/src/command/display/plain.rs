//! The plain display: lines for logs, in the form that people know from BuildKit.
//!
//! ```text
//! #5 [build 2/4] RUN make
//! #5 not cached: changed: src/main.c
//! #5 0.123 cc -O2 -c main.c
//! #5 DONE 0.3s
//! ```
//!
//! Steps run side by side, and a log that jumps between them at every line cannot be read. So one task has the
//! floor; the others' lines wait until it ends, or until they have waited for [`PATIENCE`] or fill [`WAITING_BYTES`].
//! Nothing is dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, SystemTime};

use bricklayer::event::{Event, EventKind, Outcome, Progress, TaskId};

use super::text::{between, bytes, one_line, sanitise, seconds, short_part};
use super::{Renderer, put};

/// How long a task's lines wait for another task to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many bytes of lines may wait.
const WAITING_BYTES: usize = 256 * 1024;
/// How often the progress of one part makes a line.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// See the module's description.
pub(crate) struct Plain {
    out: Box<dyn Write + Send>,
    colours: bool,
    tasks: BTreeMap<TaskId, Task>,
    floor: Option<TaskId>,
    ended: u64,
}

#[derive(Default)]
struct Task {
    name: String,
    started: Option<SystemTime>,
    parts: BTreeMap<String, Part>,
    /// Lines that wait for the floor.
    waiting: Vec<String>,
    waiting_bytes: usize,
    waiting_since: Option<SystemTime>,
    /// The order in which it ended.
    ended: Option<u64>,
    /// Its header stands above the last line that was written.
    introduced: bool,
}

struct Part {
    started: SystemTime,
    shown: Option<SystemTime>,
    complete: bool,
}

impl Plain {
    /// Writes to `out`; colours of programs pass if `colours`.
    pub(crate) fn new(out: Box<dyn Write + Send>, colours: bool) -> Self {
        Self { out, colours, tasks: BTreeMap::new(), floor: None, ended: 0 }
    }

    /// A line of a task, without its number; shown at once or when its turn comes.
    fn say(&mut self, id: TaskId, time: SystemTime, line: String) {
        let task = self.tasks.entry(id).or_default();
        task.waiting_bytes += line.len();
        task.waiting_since.get_or_insert(time);
        task.waiting.push(line);
        match self.floor {
            Some(floor) if floor == id => self.show(id),
            Some(_) => self.take_turns(time),
            None => self.give_floor(id),
        }
    }

    fn give_floor(&mut self, id: TaskId) {
        if let Some(floor) = self.floor
            && let Some(before) = self.tasks.get_mut(&floor)
        {
            if before.introduced {
                put(&mut self.out, &format!("#{} ...\n\n", floor.number()));
            }
            before.introduced = false;
        }
        self.floor = Some(id);
        self.show(id);
    }

    /// Writes what a task has to say; a task that has ended leaves the floor.
    fn show(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let number = id.number();
        let mut text = String::new();
        if !task.waiting.is_empty() && !task.introduced {
            let _ = writeln!(text, "#{number} {}", task.name);
            task.introduced = true;
        }
        for line in task.waiting.drain(..) {
            if line.is_empty() {
                let _ = writeln!(text, "#{number}");
            } else {
                let _ = writeln!(text, "#{number} {line}");
            }
        }
        task.waiting_bytes = 0;
        task.waiting_since = None;
        let ended = task.ended.is_some();
        if ended {
            text.push('\n');
            self.tasks.remove(&id);
            self.floor = None;
        }
        put(&mut self.out, &text);
        if ended {
            self.next_turn();
        }
    }

    /// The floor is free: those that have ended first, in the order of their ends; then who waits longest.
    fn next_turn(&mut self) {
        let waits = |task: &Task| !task.waiting.is_empty();
        let next = self
            .tasks
            .iter()
            .filter(|(_, task)| waits(task))
            .min_by_key(|(_, task)| (task.ended.is_none(), task.ended, task.waiting_since))
            .map(|(id, _)| *id);
        if let Some(next) = next {
            self.give_floor(next);
        }
    }

    /// Somebody who has waited too long gets the floor.
    fn take_turns(&mut self, now: SystemTime) {
        let impatient = self
            .tasks
            .iter()
            .filter(|(id, task)| Some(**id) != self.floor && !task.waiting.is_empty())
            .filter(|(_, task)| {
                task.waiting_bytes > WAITING_BYTES
                    || task.waiting_since.is_some_and(|since| between(since, now) >= PATIENCE)
            })
            .min_by_key(|(_, task)| (task.waiting_since, task.ended))
            .map(|(id, _)| *id);
        if let Some(id) = impatient {
            self.give_floor(id);
        }
    }

    fn progress(&mut self, id: TaskId, time: SystemTime, progress: &Progress) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Progress { part, done, total } = progress;
        let complete = total.is_some_and(|total| *done >= total);
        let state =
            task.parts.entry(part.clone()).or_insert(Part { started: time, shown: None, complete: false });
        let due = match state.shown {
            None => between(state.started, time) >= PROGRESS_EVERY,
            Some(shown) => between(shown, time) >= PROGRESS_EVERY,
        };
        if state.complete || !(complete || due) {
            return;
        }
        state.shown = Some(time);
        state.complete = complete;
        let mut line = format!("{} {}", short_part(part), bytes(*done));
        if let Some(total) = total {
            let _ = write!(line, " / {}", bytes(*total));
        }
        let _ = write!(line, " {}", seconds(between(state.started, time)));
        if complete {
            line.push_str(" done");
        }
        self.say(id, time, line);
    }

    fn finish(&mut self, id: TaskId, time: SystemTime, line: String) {
        let order = self.ended;
        self.ended += 1;
        self.tasks.entry(id).or_default().ended = Some(order);
        self.say(id, time, line);
    }
}

impl Renderer for Plain {
    fn event(&mut self, event: &Event) {
        let Event { task: id, time, kind } = event;
        let (id, time) = (*id, *time);
        match kind {
            EventKind::Announced(info) => self.tasks.entry(id).or_default().name = one_line(&info.name),
            EventKind::Started => {
                let task = self.tasks.entry(id).or_default();
                task.started.get_or_insert(time);
                // the header alone: what runs long and says nothing is seen to run
                if self.floor.is_none() {
                    self.introduce(id);
                }
            }
            EventKind::Waiting(what) => self.say(id, time, format!("waiting: {}", one_line(what))),
            EventKind::Missed(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(|reason| one_line(reason)).collect();
                if !reasons.is_empty() {
                    self.say(id, time, format!("not cached: {}", reasons.join("; ")));
                }
            }
            EventKind::Progress(progress) => self.progress(id, time, progress),
            EventKind::Warning(text) => {
                for line in text.lines() {
                    self.say(id, time, format!("warning: {}", one_line(line)));
                }
            }
            EventKind::Cached => self.finish(id, time, "CACHED".to_owned()),
            EventKind::Finished(outcome) => {
                let started = self.tasks.get(&id).and_then(|task| task.started);
                match outcome {
                    Outcome::Done => {
                        let took = started.map(|started| between(started, time)).unwrap_or_default();
                        self.finish(id, time, format!("DONE {}", seconds(took)));
                    }
                    Outcome::Failed(why) => self.finish(id, time, format!("ERROR: {}", one_line(why))),
                    // what never started is not worth a line
                    Outcome::Cancelled if started.is_some() => self.finish(id, time, "CANCELED".to_owned()),
                    Outcome::Cancelled => drop(self.tasks.remove(&id)),
                }
            }
            _ => {}
        }
    }

    fn line(&mut self, id: TaskId, time: SystemTime, line: &[u8]) {
        let started = self.tasks.get(&id).and_then(|task| task.started).unwrap_or(time);
        let line = format!("{:.3} {}", between(started, time).as_secs_f64(), sanitise(line, self.colours));
        self.say(id, time, line);
    }

    fn tick(&mut self, now: SystemTime) {
        match self.floor {
            Some(_) => self.take_turns(now),
            None => self.next_turn(),
        }
    }

    fn end(&mut self, _: SystemTime) {
        let mut open: Vec<TaskId> =
            self.tasks.iter().filter(|(_, task)| !task.waiting.is_empty()).map(|(id, _)| *id).collect();
        open.sort_by_key(|id| self.tasks.get(id).map(|task| (task.ended.is_none(), task.ended, *id)));
        for id in open {
            if self.tasks.get(&id).is_some_and(|task| !task.waiting.is_empty()) {
                self.give_floor(id);
            }
        }
    }
}

impl Plain {
    fn introduce(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        self.floor = Some(id);
        if !task.introduced {
            task.introduced = true;
            let text = format!("#{} {}\n", id.number(), task.name);
            put(&mut self.out, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, play};
    use super::*;

    fn plain(script: &Script) -> String {
        play(script, |out| Box::new(Plain::new(out, true)))
    }

    #[test]
    fn a_build_reads_like_buildkits() {
        let mut script = Script::new();
        let load = script.task("[internal] load build definition from Dockerfile");
        script.at(0.0).start(load).at(0.02).done(load);
        let base = script.task("[1/4] FROM docker.io/library/debian:12");
        let copy = script.step("[2/4] COPY . /src", 2, 2);
        let make = script.step("[3/4] RUN make", 3, 3);
        script.at(0.1).cached(base);
        script
            .at(0.2)
            .missed(copy, &["changed: src/main.c", "added: docs/a.md and 2 more"])
            .start(copy)
            .at(0.25)
            .done(copy);
        script.at(0.3).missed(make, &["never built"]).start(make);
        script.at(0.423).log(make, "cc -O2 -c main.c\nmain.c:1: warning: unused");
        script.at(0.5).log(make, " variable `x`\n\n\x1b[32mok\x1b[0m\x1b[2K\n");
        script.at(1.6).done(make);
        let push = script.task("pushing registry.example/app:1");
        script.at(1.7).start(push);
        script.at(1.8).progress(
            push,
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            1_000_000,
            28_200_000,
        );
        script.at(7.0).progress(
            push,
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            14_000_000,
            28_200_000,
        );
        script.at(9.0).progress(
            push,
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            28_200_000,
            28_200_000,
        );
        script.at(9.1).done(push);
        insta::assert_snapshot!(plain(&script).replace('\x1b', "^["), @"
        #1 [internal] load build definition from Dockerfile
        #1 DONE 0.0s

        #2 [1/4] FROM docker.io/library/debian:12
        #2 CACHED

        #3 [2/4] COPY . /src
        #3 not cached: changed: src/main.c; added: docs/a.md and 2 more
        #3 DONE 0.1s

        #4 [3/4] RUN make
        #4 not cached: never built
        #4 0.123 cc -O2 -c main.c
        #4 0.200 main.c:1: warning: unused variable `x`
        #4 0.200 
        #4 0.200 ^[[32mok^[[0m
        #4 DONE 1.3s

        #5 pushing registry.example/app:1
        #5 sha256:2cf24dba5fb0 14.0MB / 28.2MB 5.2s
        #5 sha256:2cf24dba5fb0 28.2MB / 28.2MB 7.2s done
        #5 DONE 7.4s
        ");
    }

    #[test]
    fn steps_that_run_side_by_side_take_turns() {
        let mut script = Script::new();
        let a = script.step("[a 1/1] RUN slow", 2, 2);
        let b = script.step("[b 1/1] RUN quick", 4, 4);
        let c = script.step("[c 1/1] COPY x y", 6, 6);
        script.at(0.0).start(a).start(b).cached(c);
        script.at(0.1).log(a, "a1\n").log(b, "b1\n").at(0.2).log(a, "a2\n").log(b, "b2\n");
        script.at(0.3).done(b).at(0.4).log(a, "a3\n");
        script.at(2.5).log(a, "a4\n").tick().at(2.6).log(a, "a5\n").at(3.0).done(a);
        insta::assert_snapshot!(plain(&script), @"
        #1 [a 1/1] RUN slow
        #1 0.100 a1
        #1 0.200 a2
        #1 0.400 a3
        #1 2.500 a4
        #1 ...

        #3 [c 1/1] COPY x y
        #3 CACHED

        #2 [b 1/1] RUN quick
        #2 0.100 b1
        #2 0.200 b2
        #2 DONE 0.3s

        #1 [a 1/1] RUN slow
        #1 2.600 a5
        #1 DONE 3.0s
        ");
    }

    #[test]
    fn failures_cancellations_and_waits_are_seen() {
        let mut script = Script::new();
        let a = script.step("[1/2] RUN false", 2, 2);
        let b = script.step("[2/2] RUN sleep", 3, 3);
        let never = script.step("[3/2] RUN never", 4, 4);
        script
            .at(0.0)
            .waiting(a, "another build (process 4711) runs this step")
            .at(1.0)
            .start(a)
            .at(1.1)
            .start(b);
        script
            .at(1.2)
            .log(a, "no end of line")
            .failed(a, "process `false` did not complete successfully: exit code: 1");
        script.at(1.3).cancelled(b).cancelled(never);
        insta::assert_snapshot!(plain(&script), @"
        #1 [1/2] RUN false
        #1 waiting: another build (process 4711) runs this step
        #1 0.200 no end of line
        #1 ERROR: process `false` did not complete successfully: exit code: 1

        #2 [2/2] RUN sleep
        #2 CANCELED
        ");
    }

    #[test]
    fn nothing_is_clipped() {
        let mut script = Script::new();
        let a = script.step("a", 1, 1);
        let b = script.step("b", 2, 2);
        script.at(0.0).start(a).start(b);
        let long = "x".repeat(300);
        for _ in 0..20_000 {
            script.log(b, &format!("{long}\n"));
        }
        script.done(b).done(a);
        let text = plain(&script);
        assert_eq!(text.matches(&long).count(), 20_000);
    }
}
