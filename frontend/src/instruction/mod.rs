//! Typed instructions: what each line of a Dockerfile says, before variables are expanded.
//!
//! One file a family: [`file`](self) names the types, `copy` reads COPY and ADD, `command` what holds a command line, `config` what
//! only changes the image's configuration, `stage` FROM, ARG and ONBUILD, `flags` the `--flags` of all.

mod command;
mod config;
mod copy;
mod flags;
mod stage;

use crate::diagnostics::{Diagnostic, Span};
use crate::lines::{Comment, Logical};
use crate::split::{self, Parts, Range};
use crate::suggest::nearest;

pub use command::{Command, CommandForm, Health, Run};
pub use config::Pair;
pub use copy::{CopyFiles, HeredocFile};
pub use stage::{Argument, From, Onbuild};

/// A text of the file, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, continuations taken out; quotes and variables as written.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A heredoc that an instruction begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The marker that ends it.
    pub name: String,
    /// Are variables expanded in it (by COPY and ADD; the marker is not quoted)?
    pub expand: bool,
    /// `<<-`: tabs that begin its lines are dropped.
    pub strip_tabs: bool,
    /// Its body as written.
    pub content: String,
    /// Where the body stands.
    pub span: Span,
    /// Where the line with the end marker stands.
    pub end: Span,
}

impl Heredoc {
    /// The body, without the tabs that `<<-` drops.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its name as written, such as `RUN` or `copy`.
    pub keyword: Word,
    /// What it says.
    pub kind: Kind,
    /// The whole of it on one line, heredocs not included.
    pub text: String,
    /// From its first byte to its last, heredocs included.
    pub span: Span,
    /// Its first and last line, counted from 1, heredocs included.
    pub lines: (u32, u32),
    /// The comments directly above it.
    pub comments: Vec<Comment>,
    /// The last empty line among its continued lines.
    pub empty_line: Option<Span>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Begins a stage.
    From(From),
    /// Declares build arguments.
    Arg(Vec<Argument>),
    /// Sets environment variables.
    Env(Vec<Pair>),
    /// Sets labels.
    Label(Vec<Pair>),
    /// Runs a command.
    Run(Run),
    /// Copies files.
    Copy(CopyFiles),
    /// Copies files, unpacks archives, fetches URLs and git repositories.
    Add(CopyFiles),
    /// Sets the default command.
    Cmd(Command),
    /// Sets the program.
    Entrypoint(Command),
    /// Sets what runs shell forms.
    Shell(Vec<String>),
    /// Sets or removes the health check.
    Healthcheck(Health),
    /// Names ports.
    Expose(Vec<Word>),
    /// Names volumes.
    Volume(Vec<Word>),
    /// Sets the user.
    User(Word),
    /// Sets the working directory.
    Workdir(Word),
    /// Sets the signal that ends a container.
    StopSignal(Word),
    /// Stores an instruction for images built on this one.
    Onbuild(Onbuild),
    /// Sets the image's author.
    Maintainer(Word),
}

/// All instructions, as they are usually written.
pub const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One line being read.
pub(crate) struct Reader<'a> {
    pub(crate) logical: &'a Logical,
    pub(crate) parts: &'a Parts,
    pub(crate) escape: char,
    /// The instruction's name in upper case.
    pub(crate) name: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// What the line begins that its own text does not hold.
pub(crate) struct Heading {
    /// Heredocs to be read.
    pub(crate) markers: Vec<split::Marker>,
}

/// Finds the heredocs that a line begins: in RUN, COPY and ADD, and in ONBUILD before them, unless they are in JSON form.
pub(crate) fn heading(logical: &Logical, parts: &Parts, escape: char) -> Heading {
    let line = &logical.text;
    let mut keyword = line[parts.keyword.clone()].to_ascii_uppercase();
    let mut rest = &line[parts.rest.clone()];
    let inner;
    if keyword == "ONBUILD" {
        inner = split::split(rest, escape);
        keyword = rest[inner.keyword.clone()].to_ascii_uppercase();
        rest = &rest[inner.rest.clone()];
    }
    let takes_heredocs = matches!(keyword.as_str(), "RUN" | "COPY" | "ADD");
    if !takes_heredocs || split::json(rest).is_some() {
        return Heading { markers: Vec::new() };
    }
    Heading { markers: split::markers(line) }
}

/// Reads an instruction.
pub(crate) fn read(
    logical: &Logical,
    parts: &Parts,
    escape: char,
    heredocs: Vec<Heredoc>,
) -> Result<Kind, Diagnostic> {
    let name = logical.text[parts.keyword.clone()].to_ascii_uppercase();
    let reader = Reader { logical, parts, escape, name, heredocs };
    match reader.name.as_str() {
        "FROM" => reader.from().map(Kind::From),
        "ARG" => reader.arg().map(Kind::Arg),
        "ENV" => reader.pairs().map(Kind::Env),
        "LABEL" => reader.pairs().map(Kind::Label),
        "RUN" => reader.run().map(Kind::Run),
        "COPY" => reader.copy().map(Kind::Copy),
        "ADD" => reader.copy().map(Kind::Add),
        "CMD" => reader.command().map(Kind::Cmd),
        "ENTRYPOINT" => reader.command().map(Kind::Entrypoint),
        "SHELL" => reader.shell().map(Kind::Shell),
        "HEALTHCHECK" => reader.healthcheck().map(Kind::Healthcheck),
        "EXPOSE" => reader.expose().map(Kind::Expose),
        "VOLUME" => reader.volume().map(Kind::Volume),
        "USER" => reader.whole("a user").map(Kind::User),
        "WORKDIR" => reader.whole("a path").map(Kind::Workdir),
        "STOPSIGNAL" => reader.whole("a signal").map(Kind::StopSignal),
        "MAINTAINER" => reader.whole("a name").map(Kind::Maintainer),
        "ONBUILD" => reader.onbuild().map(Kind::Onbuild),
        _ => {
            let written = &logical.text[parts.keyword.clone()];
            let shown: String = written.chars().take(100).collect();
            Err(Diagnostic::error(
                format!("unknown instruction `{shown}`"),
                reader.span(parts.keyword.clone()),
            )
            .label("expected an instruction")
            .suggest(nearest(&reader.name, NAMES)))
        }
    }
}

impl Reader<'_> {
    /// Where a part of the line stands in the file.
    pub(crate) fn span(&self, range: Range) -> Span {
        self.logical.source_span(range.start, range.end)
    }

    /// Where the instruction stands, without heredocs.
    pub(crate) fn whole_span(&self) -> Span {
        self.logical.span
    }

    /// What stands behind the flags.
    pub(crate) fn rest(&self) -> &str {
        &self.logical.text[self.parts.rest.clone()]
    }

    /// A part of the rest as a word.
    pub(crate) fn word(&self, range: Range) -> Word {
        let range = range.start + self.parts.rest.start..range.end + self.parts.rest.start;
        Word { text: self.logical.text[range.clone()].to_owned(), span: self.span(range) }
    }

    /// All of the rest as a word.
    pub(crate) fn rest_word(&self) -> Word {
        self.word(0..self.parts.rest.len())
    }

    /// The rest in JSON form, if it has that form.
    pub(crate) fn json(&self, range: Range) -> Result<Option<Vec<String>>, Diagnostic> {
        match split::json(&self.rest()[range.clone()]) {
            None => Ok(None),
            Some(Ok(strings)) => Ok(Some(strings)),
            Some(Err(())) => Err(Diagnostic::error(
                format!("the JSON form of {} takes strings only", self.name),
                self.word(range).span,
            )
            .label("expected an array of strings")
            .help("put quotes around every element")),
        }
    }

    /// Something is missing behind the instruction's name.
    pub(crate) fn missing(&self, what: &str) -> Diagnostic {
        Diagnostic::error(format!("{} needs {what}", self.name), self.whole_span())
            .label(format!("expected {what}"))
    }

    /// The rest, which must not be empty.
    fn whole(&self, what: &str) -> Result<Word, Diagnostic> {
        self.flags(&[])?;
        if self.rest().is_empty() { Err(self.missing(what)) } else { Ok(self.rest_word()) }
    }
}
