//! How failures are told: the chain of reasons once, one line each; the lines of the Dockerfile with the place marked; what a
//! failed command wrote last; and what the user can do, last.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::process::ExitCode;

use bricklayer::Error;
use bricklayer::cache::StoreError;
use bricklayer::cache::layer::LayerError;
use bricklayer::cache::registry::RegistryError;
use bricklayer::rootless::RootlessError;
use bricklayer_solver::graph::Location;
use bricklayer_solver::worker::StepError;
use bricklayer_worker::files::FilesError;
use bricklayer_worker::overlay::OverlayError;
use bricklayer_worker::sandbox::SandboxError;

use super::display::{one_line, sanitise};
use super::usage::Usage;

/// Lines of the Dockerfile that are shown around the failed instruction.
const AROUND: u32 = 2;
/// Lines of an instruction that are shown; the middle of a longer one is left out.
const LONGEST_EXCERPT: usize = 16;

/// Lines of what a failed command wrote last that are shown.
const TAIL: usize = 20;

/// Why the command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage: exit code 2.
    Usage(Usage),
    /// The library says no. Exit code 1, or 130 if it was told to stop.
    Library(Box<Error>),
    /// A step of a build failed.
    Step {
        /// The error.
        error: Box<Error>,
        /// How more can be seen than its display and the error show.
        hints: Vec<String>,
    },
    /// A container can't be made or run: exit code 125, as of Docker.
    Container(Box<Failure>),
    /// What was to be run ended with this code.
    Ended(u8),
    /// A check found something, and has been printed. Exit code 1.
    Findings,
    /// Something around it: a file of results that cannot be written. Exit code 1.
    Around(anyhow::Error),
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(Box::new(error))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Around(error)
    }
}

impl Failure {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            // as a shell reports a program that SIGINT ended
            Self::Library(error) if matches!(**error, Error::Cancelled) => 130,
            Self::Container(_) => 125,
            Self::Ended(code) => *code,
            Self::Library(..) | Self::Step { .. } | Self::Around(_) | Self::Findings => 1,
        })
    }

    /// The text for standard error.
    pub(crate) fn render(&self, colours: bool) -> String {
        let mut report = Report { text: String::new(), colours };
        match self {
            Self::Usage(usage) => {
                report.chain(usage);
                report.hints(usage);
            }
            Self::Library(error) => {
                report.library(error);
                report.hints(error.as_ref());
            }
            Self::Step { error, hints } => {
                report.library(error);
                report.hints(error.as_ref());
                hints.iter().for_each(|hint| report.hint(hint));
            }
            Self::Around(error) => {
                report.chain(error.as_ref());
                report.hints(error.as_ref());
            }
            Self::Container(why) => return why.render(colours),
            Self::Ended(_) | Self::Findings => {}
        }
        report.text
    }
}

/// Does the report of an error show less of a step's log than there is?
pub(crate) fn is_clipped(error: &Error) -> bool {
    match error {
        Error::Step { log, place: Some(place), .. } => {
            place.log_bytes > log.len() as u64
                || log.trim_ascii_end().split(|byte| *byte == b'\n').count() > TAIL
        }
        _ => false,
    }
}

struct Report {
    text: String,
    colours: bool,
}

impl Report {
    fn library(&mut self, error: &Error) {
        match error {
            // each diagnostic is an `error: …` of its own
            Error::Dockerfile { report, coloured, .. } => {
                self.text.push_str(if self.colours { coloured } else { report });
                if !self.text.ends_with('\n') {
                    self.text.push('\n');
                }
            }
            Error::Step { step, location, text, log, source, .. } => {
                self.error(&format!("{} failed", shortened(&one_line(step))));
                self.causes(Some(source));
                if let Some(location) = location {
                    self.excerpt(location, text);
                }
                let written: Vec<&[u8]> = log.trim_ascii_end().split(|byte| *byte == b'\n').collect();
                let from = written.len().saturating_sub(TAIL);
                let tail: Vec<String> = written[from..]
                    .iter()
                    .filter(|line| written.len() > 1 || !line.is_empty())
                    .map(|line| sanitise(line, self.colours))
                    .collect();
                if !tail.is_empty() {
                    self.text.push_str("what it wrote last:\n");
                    for line in tail {
                        let _ = writeln!(self.text, "  {line}");
                    }
                }
            }
            error => self.chain(error),
        }
    }

    fn chain(&mut self, error: &dyn StdError) {
        self.error(&error.to_string());
        self.causes(error.source());
    }

    fn error(&mut self, message: &str) {
        let word = self.style("error:", "1;31");
        let _ = writeln!(self.text, "{word} {}", printable(message));
    }

    fn causes(&mut self, mut cause: Option<&(dyn StdError + 'static)>) {
        let mut told = String::new();
        while let Some(error) = cause {
            let text = error.to_string();
            // libraries of others repeat what their sources say
            if text.is_empty() || !told.ends_with(&text) {
                let word = self.style("caused by:", "1");
                let _ = writeln!(self.text, "  {word} {}", printable(&text));
            }
            told = text;
            cause = error.source();
        }
    }

    /// What the errors of the chain say could be done, each thing once.
    fn hints(&mut self, error: &(dyn StdError + 'static)) {
        let mut told: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(hint) = hint_of(error)
                && !told.contains(&hint)
            {
                self.hint(&hint);
                told.push(hint);
            }
            next = error.source();
        }
    }

    fn hint(&mut self, hint: &str) {
        let word = self.style("hint:", "1;36");
        let _ = writeln!(self.text, "{word} {}", printable(hint));
    }

    /// The lines of an instruction, marked, with some around them.
    fn excerpt(&mut self, location: &Location, text: &str) {
        let Location { file, first, last } = location;
        let place = if first == last { format!("{first}") } else { format!("{first}-{last}") };
        let _ = writeln!(self.text, " --> {}:{place}", one_line(file));
        let from = first.saturating_sub(AROUND).max(1);
        let lines: Vec<(u32, &str)> = (1..)
            .zip(text.lines())
            .filter(|(number, _)| (from..=last.saturating_add(AROUND)).contains(number))
            .collect();
        let width = lines.last().map_or(1, |(number, _)| number.to_string().len());
        let left_out = lines.len().saturating_sub(LONGEST_EXCERPT);
        let head = if left_out > 0 { LONGEST_EXCERPT / 2 } else { lines.len() };
        for (index, (number, line)) in lines.iter().enumerate() {
            if index == head {
                let _ = writeln!(self.text, "{:width$} | … {left_out} lines …", "");
            }
            if index >= head && index < head + left_out {
                continue;
            }
            let mark =
                if (*first..=*last).contains(number) { self.style(">>>", "1;31") } else { "   ".to_owned() };
            let line = sanitise(line.as_bytes(), false);
            let _ = writeln!(self.text, "{}", format!("{number:width$} | {mark} {line}").trim_end());
        }
    }

    fn style(&self, text: &str, code: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The beginning of a name: all of it stands in the lines of the Dockerfile.
pub(crate) fn shortened(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

/// What an error says could be done about it. Each kind has a method of its own for that; the chain has only lost its type.
fn hint_of(error: &(dyn StdError + 'static)) -> Option<String> {
    fn of<E: StdError + 'static>(
        error: &(dyn StdError + 'static),
        hint: fn(&E) -> Option<String>,
    ) -> Option<String> {
        // a `#[source] Box<E>` stands in the chain as the box
        error.downcast_ref::<E>().or_else(|| error.downcast_ref::<Box<E>>().map(AsRef::as_ref)).and_then(hint)
    }
    fn of_step(error: &StepError) -> Option<String> {
        match error {
            StepError::Failed { hint, .. } => hint.clone(),
            _ => None,
        }
    }
    of::<Usage>(error, |e| e.hint_text().map(str::to_owned))
        .or_else(|| of::<Error>(error, |e| e.hint().map(str::to_owned)))
        .or_else(|| of::<StepError>(error, of_step))
        .or_else(|| of::<RootlessError>(error, RootlessError::hint))
        .or_else(|| of::<StoreError>(error, |e| e.hint().map(str::to_owned)))
        .or_else(|| of::<LayerError>(error, |e| e.hint().map(str::to_owned)))
        .or_else(|| of::<RegistryError>(error, RegistryError::hint))
        .or_else(|| of::<SandboxError>(error, SandboxError::hint))
        .or_else(|| of::<OverlayError>(error, OverlayError::hint))
        .or_else(|| of::<FilesError>(error, |e| e.hint().map(str::to_owned)))
}

/// Without what a terminal would obey; further lines are indented.
fn printable(message: &str) -> String {
    message.lines().map(|line| sanitise(line.as_bytes(), false)).collect::<Vec<_>>().join("\n    ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn step(first: u32, last: u32, text: &str) -> String {
        let error = Error::Step {
            step: "[build 2/4] RUN make".into(),
            location: Some(Location { file: "Dockerfile".into(), first, last }),
            text: text.into(),
            log: Vec::new(),
            place: None,
            source: Arc::new(StepError::Exit {
                command: "/bin/sh -c make".into(),
                code: 2,
                status: "exit code: 2".into(),
            }),
        };
        Failure::from(error).render(false)
    }

    #[test]
    fn a_failed_step_shows_its_lines() {
        let text = "FROM debian\nWORKDIR /src\nCOPY . .\nRUN make \\\n    all\n\nCMD [\"x\"]\nUSER app\n";
        insta::assert_snapshot!(step(4, 5, text), @r#"
        error: [build 2/4] RUN make failed
          caused by: process `/bin/sh -c make` did not complete successfully: exit code: 2
         --> Dockerfile:4-5
        2 |     WORKDIR /src
        3 |     COPY . .
        4 | >>> RUN make \
        5 | >>>     all
        6 |
        7 |     CMD ["x"]
        "#);
        assert!(step(1, 1, text).contains("1 | >>> FROM debian\n2 |     WORKDIR /src\n3 |"));
        // places that are not in the text, as after a change of the file
        assert!(step(400, 500, text).contains("Dockerfile:400-500\n"));
        assert!(step(0, u32::MAX, "").contains("--> Dockerfile"));
    }

    #[test]
    fn a_long_instruction_is_shortened() {
        let text: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        insta::assert_snapshot!(step(10, 90, &text), @"
        error: [build 2/4] RUN make failed
          caused by: process `/bin/sh -c make` did not complete successfully: exit code: 2
         --> Dockerfile:10-90
         8 |     line 8
         9 |     line 9
        10 | >>> line 10
        11 | >>> line 11
        12 | >>> line 12
        13 | >>> line 13
        14 | >>> line 14
        15 | >>> line 15
           | … 69 lines …
        85 | >>> line 85
        86 | >>> line 86
        87 | >>> line 87
        88 | >>> line 88
        89 | >>> line 89
        90 | >>> line 90
        91 |     line 91
        92 |     line 92
        ");
    }

    #[test]
    fn the_chain_is_told_once_and_the_hint_last() {
        let cause = std::io::Error::from_raw_os_error(13);
        let usage = Usage::new("cannot read the context `a\x1b[2Jb`").because(cause).hint("say where");
        insta::assert_snapshot!(Failure::from(usage).render(false), @"
        error: cannot read the context `ab`
          caused by: Permission denied (os error 13)
        hint: say where
        ");
    }

    #[test]
    fn a_cause_that_only_repeats_is_left_out() {
        let source = anyhow::anyhow!("no records found").context("DNS error: no records found").context("x");
        insta::assert_snapshot!(Failure::from(source).render(false), @"
        error: x
          caused by: DNS error: no records found
        ");
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let code = |failure: Failure| format!("{:?}", failure.exit_code());
        assert_eq!(code(Usage::new("x").into()), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(Error::Cancelled.into()), format!("{:?}", ExitCode::from(130)));
        assert_eq!(code(anyhow::anyhow!("x").into()), format!("{:?}", ExitCode::from(1)));
    }
}
