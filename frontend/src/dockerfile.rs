//! A whole Dockerfile: directives, instructions, stages.

use crate::diagnostics::{Diagnostic, Diagnostics, Span};
use crate::directive::{self, Directive};
use crate::instruction::{self, From, Heredoc, Instruction, Kind, Word};
use crate::lines::Lines;
use crate::source::Source;
use crate::split;

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    source: Source,
    directives: Vec<Directive>,
    escape: char,
    instructions: Vec<Instruction>,
    stages: Vec<StageLines>,
}

/// Which instructions a stage has.
#[derive(Debug, Clone)]
struct StageLines {
    from: usize,
    end: usize,
}

/// A stage: a FROM and what follows up to the next.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// Its FROM.
    pub from: &'a From,
    /// The instruction that the FROM is.
    pub instruction: &'a Instruction,
    /// The instructions behind it.
    pub body: &'a [Instruction],
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(text: &[u8]) -> Result<Self, Diagnostics> {
        let source = Source::new(text);
        let mut errors = Diagnostics::default();
        let mut reported = |result: Result<(), Diagnostic>| {
            if let Err(error) = result {
                errors.push(error);
            }
        };
        let directives = directive::scan(&source).unwrap_or_else(|error| {
            reported(Err(error));
            Vec::new()
        });
        let escape = directive::escape(&directives).unwrap_or_else(|error| {
            reported(Err(error));
            '\\'
        });
        reported(check_syntax(&directives));
        let (instructions, mut found) = read_all(&source, body_start(&source, &directives), escape);
        errors.0.append(&mut found);
        let mut stages: Vec<StageLines> = Vec::new();
        for (i, instruction) in instructions.iter().enumerate() {
            match (&instruction.kind, stages.last_mut()) {
                (Kind::From(_), _) => stages.push(StageLines { from: i, end: i + 1 }),
                (_, Some(stage)) => stage.end = i + 1,
                (Kind::Arg(_), None) => {}
                (_, None) => errors.push(
                    Diagnostic::error(
                        format!("{} stands before the first FROM", instruction.keyword.text.to_uppercase()),
                        instruction.keyword.span,
                    )
                    .label("expected ARG or FROM"),
                ),
            }
        }
        if instructions.is_empty() && errors.is_empty() {
            errors.push(Diagnostic::error_outside("the Dockerfile has no instructions"));
        } else if stages.is_empty() && errors.is_empty() {
            errors.push(Diagnostic::error_outside("the Dockerfile has no stage: FROM is missing"));
        }
        if !errors.is_empty() {
            sort(&mut errors, &source);
            return Err(errors);
        }
        Ok(Self { source, directives, escape, instructions, stages })
    }

    /// The text that was parsed, for [`render`](crate::render): bytes that are not UTF-8 (in comments) are `?` in it.
    pub fn source(&self) -> &str {
        self.source.text()
    }

    /// Its parser directives.
    pub fn directives(&self) -> &[Directive] {
        &self.directives
    }

    /// The escape character.
    pub fn escape(&self) -> char {
        self.escape
    }

    /// All instructions, in order.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// What stands before the first FROM: ARGs.
    pub fn global_args(&self) -> &[Instruction] {
        &self.instructions[..self.stages.first().map_or(0, |stage| stage.from)]
    }

    /// All stages, in order; at least one.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = Stage<'_>> {
        self.stages.iter().map(|lines| {
            let instruction = &self.instructions[lines.from];
            let Kind::From(from) = &instruction.kind else { unreachable!("a stage begins with FROM") };
            Stage { from, instruction, body: &self.instructions[lines.from + 1..lines.end] }
        })
    }

    /// The names of all stages that have one, as written.
    pub fn stage_names(&self) -> Vec<&str> {
        self.stages().filter_map(|stage| stage.from.name.as_ref().map(|name| name.text.as_str())).collect()
    }

    /// The file with everything that stands in it.
    pub fn syntax(&self) -> crate::syntax::Tree {
        crate::syntax::Tree::parse(&self.source.bytes())
    }

    pub(crate) fn text(&self) -> &Source {
        &self.source
    }
}

/// Puts diagnostics in the order of the file and says which lines they are on.
pub(crate) fn sort(diagnostics: &mut Diagnostics, source: &Source) {
    for diagnostic in &mut diagnostics.0 {
        diagnostic.lines = diagnostic.span.map(|span| source.lines(span));
    }
    diagnostics.0.sort_by_key(|d| d.span.map_or(0, |span| span.start));
}

fn body_start(source: &Source, directives: &[Directive]) -> usize {
    match directives.last() {
        Some(last) => {
            source.text()[last.span.end..].find('\n').map_or(source.text().len(), |i| last.span.end + i + 1)
        }
        None if source.text().starts_with('\u{feff}') => '\u{feff}'.len_utf8(),
        None => 0,
    }
}

fn check_syntax(directives: &[Directive]) -> Result<(), Diagnostic> {
    match directives.iter().find(|d| d.name == "syntax") {
        Some(d) if !directive::is_builtin_syntax(&d.value) => {
            Err(Diagnostic::error(format!("the frontend `{}` can't be run", d.value), d.value_span)
                .label("expected docker/dockerfile, which is built in")
                .note("Dockerfiles are read by the builder itself; other frontends are programs that would have to be fetched and run"))
        }
        _ => Ok(()),
    }
}

/// So many errors are told of one file.
const ERRORS: usize = 1000;

/// Reads all instructions from `start` on, and goes on behind those that are wrong.
pub(crate) fn read_all(source: &Source, start: usize, escape: char) -> (Vec<Instruction>, Vec<Diagnostic>) {
    let mut lines = Lines::new(source, start, escape);
    let (mut instructions, mut errors) = (Vec::new(), Vec::new());
    while let Some(logical) = lines.logical() {
        let parts = split::split(&logical.text, escape);
        let heading = instruction::heading(&logical, &parts, escape);
        let mut heredocs = Vec::with_capacity(heading.markers.len());
        let mut span = logical.span;
        let logical_end = Span::new(span.end, span.end);
        let mut unterminated = None;
        for marker in heading.markers {
            match lines.heredoc(&marker.name, marker.tabs) {
                Some(body) => {
                    span.end = body.end.end;
                    heredocs.push(Heredoc {
                        name: marker.name,
                        expand: marker.expand,
                        strip_tabs: marker.tabs,
                        content: source.text()[body.content.start..body.content.end].to_owned(),
                        span: body.content,
                        end: body.end,
                    });
                }
                None => {
                    unterminated = Some(marker.name);
                    break;
                }
            }
        }
        if let Some(name) = unterminated {
            let place = mark(&logical, &name);
            errors.push(
                Diagnostic::error(format!("unterminated heredoc: no line is `{name}`"), place)
                    .label(format!("expected a line `{name}` before the end of the file"))
                    .note("the end marker stands alone on its line, without blanks before or behind it"),
            );
            break;
        }
        let read =
            source.check_utf8(span).and_then(|()| instruction::read(&logical, &parts, escape, heredocs));
        match read {
            Ok(kind) => instructions.push(Instruction {
                keyword: Word {
                    text: logical.text[parts.keyword.clone()].to_owned(),
                    span: logical.source_span(parts.keyword.start, parts.keyword.end),
                },
                kind,
                text: logical.text.trim().to_owned(),
                span,
                lines: source.lines(span),
                comments: logical.comments,
                empty_line: logical.empty_line,
            }),
            Err(error) => errors.push(error),
        }
        if errors.len() >= ERRORS {
            let message = format!("{ERRORS} instructions are wrong, and reading ends here");
            errors.push(Diagnostic::error(message, logical_end));
            break;
        }
    }
    (instructions, errors)
}

/// Where `<<name` stands in a line, or all of the line.
fn mark(logical: &crate::lines::Logical, name: &str) -> Span {
    let found = logical.text.match_indices("<<").find(|(i, _)| logical.text[*i..].contains(name));
    match found {
        Some((start, _)) => {
            let end = logical.text[start..].find(name).map_or(start + 2, |i| start + i + name.len());
            logical.source_span(start, end)
        }
        None => logical.span,
    }
}

/// Reads an ONBUILD trigger: one instruction.
pub(crate) fn read_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let source = Source::new(text.as_bytes());
    let (mut instructions, mut errors) = read_all(&source, 0, '\\');
    match (instructions.pop(), errors.pop()) {
        (Some(instruction), None) if instructions.is_empty() => match instruction.kind {
            Kind::Onbuild(_) | Kind::From(_) | Kind::Maintainer(_) => {
                let name = instruction.keyword.text.to_uppercase();
                Err(Diagnostic::error(format!("{name} can't stand behind ONBUILD"), Span::default()))
            }
            _ => Ok(instruction),
        },
        (_, Some(error)) => Err(error),
        _ => Err(Diagnostic::error("an ONBUILD trigger must be one instruction", Span::default())),
    }
}
