//! What holds a command line: RUN, CMD, ENTRYPOINT, SHELL and HEALTHCHECK.

use super::flags::{Flags, Takes};
use super::{Heredoc, Reader, Word};
use crate::diagnostics::Diagnostic;
use crate::duration;

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is run.
    pub form: CommandForm,
    /// Where it stands.
    pub word: Word,
    /// Heredocs that it begins (RUN), in order.
    pub heredocs: Vec<Heredoc>,
}

/// The two forms of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandForm {
    /// JSON: a program and its arguments.
    Exec(Vec<String>),
    /// A text for the shell; empty where nothing is written.
    Shell(String),
}

/// `RUN [flags] COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// `--mount`, each as written.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Option<Word>,
    /// `--security`.
    pub security: Option<Word>,
    /// `--device`, each.
    pub devices: Vec<Word>,
}

/// `HEALTHCHECK [flags] CMD COMMAND` or `HEALTHCHECK NONE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The command; `None`: there is no check.
    pub command: Option<Command>,
    /// Nanoseconds between checks; 0: inherit.
    pub interval: i64,
    /// Nanoseconds that one check may take; 0: inherit.
    pub timeout: i64,
    /// Nanoseconds that the container has to start; 0: inherit.
    pub start_period: i64,
    /// Nanoseconds between checks while it starts; 0: inherit.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0: inherit.
    pub retries: i64,
}

impl Reader<'_> {
    /// The command line in a part of the rest.
    fn command_line(&self, range: crate::split::Range) -> Result<Command, Diagnostic> {
        let word = self.word(range.clone());
        let form = match self.json(range)? {
            Some(strings) => CommandForm::Exec(strings),
            None => CommandForm::Shell(word.text.clone()),
        };
        Ok(Command { form, word, heredocs: self.heredocs.clone() })
    }

    pub(super) fn run(&self) -> Result<Run, Diagnostic> {
        let flags = self.flags(&[
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ])?;
        let command = self.command_line(0..self.rest().len())?;
        // an empty shell form is a command that does nothing
        if matches!(&command.form, CommandForm::Exec(args) if args.is_empty()) {
            return Err(self.missing("a command"));
        }
        Ok(Run {
            command,
            mounts: flags.values("mount"),
            network: flags.value("network"),
            security: flags.value("security"),
            devices: flags.values("device"),
        })
    }

    pub(super) fn command(&self) -> Result<Command, Diagnostic> {
        self.flags(&[])?;
        self.command_line(0..self.rest().len())
    }

    pub(super) fn shell(&self) -> Result<Vec<String>, Diagnostic> {
        self.flags(&[])?;
        let expected = "expected `[\"program\", \"argument\"]`";
        match self.json(0..self.rest().len())? {
            Some(words) if !words.is_empty() => Ok(words),
            Some(_) => Err(self.missing("at least one string")),
            None if self.rest().is_empty() => Err(self.missing("a program, in JSON form")),
            None => {
                Err(Diagnostic::error("SHELL takes the JSON form only", self.rest_word().span)
                    .label(expected))
            }
        }
    }

    pub(super) fn healthcheck(&self) -> Result<Health, Diagnostic> {
        let rest = self.rest();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let behind = rest.len() - rest[end..].trim_start().len();
        const FLAGS: &[(&str, Takes)] = &[
            ("interval", Takes::Value),
            ("timeout", Takes::Value),
            ("start-period", Takes::Value),
            ("start-interval", Takes::Value),
            ("retries", Takes::Value),
        ];
        match rest[..end].to_ascii_uppercase().as_str() {
            "NONE" => {
                // times may stand before NONE, and mean nothing there
                self.flags(FLAGS)?;
                if behind < rest.len() {
                    return Err(Diagnostic::error(
                        "HEALTHCHECK NONE takes nothing more",
                        self.word(behind..rest.len()).span,
                    )
                    .label("expected the end of the line"));
                }
                Ok(Health {
                    command: None,
                    interval: 0,
                    timeout: 0,
                    start_period: 0,
                    start_interval: 0,
                    retries: 0,
                })
            }
            "CMD" => {
                let flags = self.flags(FLAGS)?;
                let command = self.command_line(behind..rest.len())?;
                match &command.form {
                    CommandForm::Exec(args) if args.is_empty() => {
                        return Err(self.missing("a command behind CMD"));
                    }
                    CommandForm::Shell(text) if text.is_empty() => {
                        return Err(self.missing("a command behind CMD"));
                    }
                    _ => {}
                }
                Ok(Health {
                    command: Some(command),
                    interval: time(&flags, "interval")?,
                    timeout: time(&flags, "timeout")?,
                    start_period: time(&flags, "start-period")?,
                    start_interval: time(&flags, "start-interval")?,
                    retries: retries(&flags)?,
                })
            }
            "" => Err(self.missing("CMD and a command, or NONE")),
            other => {
                Err(Diagnostic::error(format!("HEALTHCHECK knows no `{other}`"), self.word(0..end).span)
                    .label("expected CMD or NONE"))
            }
        }
    }
}

/// Health checks are no finer than this.
const SHORTEST: i64 = 1_000_000;

fn time(flags: &Flags, name: &str) -> Result<i64, Diagnostic> {
    let Some(word) = flags.value(name) else { return Ok(0) };
    if word.text.is_empty() {
        return Ok(0);
    }
    match duration::parse(&word.text) {
        None => Err(Diagnostic::error(format!("`{}` is no duration", word.text), word.span)
            .label("expected a number and its unit, such as 30s or 1m30s")),
        Some(0) => Ok(0),
        Some(nanoseconds) if nanoseconds < SHORTEST => {
            Err(Diagnostic::error(format!("--{name}={} is shorter than 1ms", word.text), word.span)
                .label("expected 0 or at least 1ms"))
        }
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

fn retries(flags: &Flags) -> Result<i64, Diagnostic> {
    let Some(word) = flags.value("retries") else { return Ok(0) };
    if word.text.is_empty() {
        return Ok(0);
    }
    match word.text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number.into()),
        _ => Err(Diagnostic::error(format!("`{}` is no number of retries", word.text), word.span)
            .label("expected 0 or a positive number")),
    }
}
