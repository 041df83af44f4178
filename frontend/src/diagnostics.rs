//! What is wrong with a Dockerfile: errors and warnings with their places, and how they are shown.
//!
//! A message says what is wrong and names it; the label says what stands at the marked place or what was expected there; help says
//! what to do. None of them ends in a full stop.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A range of bytes of a source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// A span from `start` up to, not including, `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that holds both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing is built.
    Error,
    /// It is built all the same.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The build check that says so, such as `StageNameCasing`; `None` for errors.
    pub rule: Option<&'static str>,
    /// What is wrong, on one line.
    pub message: String,
    /// Where: bytes of the Dockerfile. `None`: nowhere in it (a flag of the command line, say).
    pub span: Option<Span>,
    /// Its lines, counted from 1, both included.
    pub lines: Option<(u32, u32)>,
    /// What stands at the span, or what was expected there.
    pub label: Option<String>,
    /// What to do.
    pub help: Vec<String>,
    /// Background.
    pub note: Option<String>,
    /// A page about it.
    pub url: Option<&'static str>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(message: impl Into<String>, span: Span) -> Self {
        Self::new(Severity::Error, message.into(), Some(span))
    }

    /// An error that stands nowhere in the Dockerfile.
    pub fn error_outside(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into(), None)
    }

    /// A warning.
    pub fn warning(message: impl Into<String>, span: Option<Span>) -> Self {
        Self::new(Severity::Warning, message.into(), span)
    }

    fn new(severity: Severity, message: String, span: Option<Span>) -> Self {
        Self {
            severity,
            rule: None,
            message,
            span,
            lines: None,
            label: None,
            help: Vec::new(),
            note: None,
            url: None,
        }
    }

    /// With what stands at the place, or what was expected there.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With background.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// With "did you mean", if a name is near.
    #[must_use]
    pub fn suggest(self, suggestion: Option<&str>) -> Self {
        match suggestion {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((first, _)) = self.lines {
            write!(f, "line {first}: ")?;
        }
        f.write_str(&self.message)?;
        for help in &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a Dockerfile, in the order of the file; never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Is nothing wrong?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// At most this many are shown; a file that is not a Dockerfile at all would give one a line.
const SHOWN: usize = 20;
/// At most this much of a source line is shown.
const SHOWN_LINE: usize = 300;

/// Diagnostics as people see them: the message, the lines with the place marked, help. Ends with a newline.
pub fn render(diagnostics: &Diagnostics, source_name: &str, source: &str, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for (i, diagnostic) in diagnostics.0.iter().take(SHOWN).enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&render_one(diagnostic, source_name, source, &renderer));
        out.push('\n');
    }
    if diagnostics.0.len() > SHOWN {
        out.push_str(&format!("\nand {} more\n", diagnostics.0.len() - SHOWN));
    }
    out
}

fn render_one(diagnostic: &Diagnostic, source_name: &str, source: &str, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = match diagnostic.rule {
        Some(rule) => level.primary_title(&diagnostic.message).id(rule),
        None => level.primary_title(&diagnostic.message),
    };
    let excerpt = diagnostic.span.map(|span| Excerpt::new(source, span));
    let mut group = Group::with_title(title);
    if let Some(excerpt) = &excerpt {
        let mut mark = AnnotationKind::Primary.span(excerpt.mark.start..excerpt.mark.end);
        if let Some(label) = &diagnostic.label {
            mark = mark.label(label);
        }
        group = group.element(
            Snippet::source(excerpt.text.as_str())
                .line_start(excerpt.first_line)
                .path(source_name)
                .fold(false)
                .annotation(mark),
        );
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    if let Some(note) = &diagnostic.note {
        group = group.element(Level::NOTE.message(note));
    }
    if let Some(url) = diagnostic.url {
        group = group.element(Level::NOTE.message(url));
    }
    renderer.render(&[group])
}

/// The lines that a span touches, with tabs as they are and over-long lines cut.
struct Excerpt {
    text: String,
    first_line: usize,
    mark: Span,
}

impl Excerpt {
    fn new(source: &str, span: Span) -> Self {
        let clamp = |offset: usize| {
            let mut offset = offset.min(source.len());
            while !source.is_char_boundary(offset) {
                offset -= 1;
            }
            offset
        };
        let (start, end) = (clamp(span.start), clamp(span.end.max(span.start)));
        let from = source[..start].rfind('\n').map_or(0, |i| i + 1);
        let mut to = source[end..].find('\n').map_or(source.len(), |i| end + i);
        if end > start && source[..end].ends_with('\n') {
            to = end - 1;
        }
        // a long heredoc or a long continued instruction: its first lines say which it is
        let shown_lines = 12;
        if let Some((i, _)) = source[from..to].match_indices('\n').nth(shown_lines - 1) {
            to = from + i;
        }
        let mut from_shown = from;
        if start - from > SHOWN_LINE {
            from_shown = clamp(start - SHOWN_LINE / 2);
        }
        if to - from_shown > shown_lines * SHOWN_LINE {
            to = clamp(from_shown + shown_lines * SHOWN_LINE);
        }
        let to = to.max(start);
        let text = source[from_shown..to].replace('\r', " ");
        let mark = Span::new(start - from_shown, end.min(to).max(start) - from_shown);
        Self { text, first_line: source[..from].matches('\n').count() + 1, mark }
    }
}
