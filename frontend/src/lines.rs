//! Physical lines to logical ones: comments, blank lines, continuations, and the bodies of heredocs.
//!
//! A line whose first non-blank is `#` is a comment, also between continued lines, where it is taken out before the lines are
//! joined. A line goes on when it ends in the escape character, blanks behind it allowed, unless another escape character stands
//! before that. Joining adds nothing and keeps the blanks that begin the next line; only those of the first line are dropped.
//! Empty lines between continued ones are skipped.

use crate::diagnostics::Span;
use crate::source::Source;

/// A comment above an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// What stands behind the `#`, without blanks around it.
    pub text: String,
    /// From the `#` to the end of the line.
    pub span: Span,
}

/// An instruction's lines, joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logical {
    /// The text, without continuations and comments.
    pub(crate) text: String,
    /// Which part of the text (by its first byte) came from where in the source.
    pieces: Vec<(usize, usize)>,
    /// From the first byte of the instruction to its last, heredocs not included.
    pub(crate) span: Span,
    /// The last empty line inside of it.
    pub(crate) empty_line: Option<Span>,
    /// The comments directly above it.
    pub(crate) comments: Vec<Comment>,
}

impl Logical {
    /// A line that stands nowhere in a file of its own: an ONBUILD trigger, all of which is at `place`.
    pub(crate) fn source_span(&self, start: usize, end: usize) -> Span {
        let map = |offset: usize| {
            let piece = self.pieces.partition_point(|&(at, _)| at <= offset).saturating_sub(1);
            self.pieces.get(piece).map_or(self.span.start, |&(at, from)| from + (offset - at))
        };
        if end > start { Span::new(map(start), map(end - 1) + 1) } else { Span::new(map(start), map(start)) }
    }
}

/// One physical line.
#[derive(Debug, Clone, Copy)]
struct Physical {
    start: usize,
    /// Behind the last byte that is no line end.
    end: usize,
}

/// Reads a source line by line.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    position: usize,
    escape: char,
}

/// A heredoc's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    /// From its first byte to the line end before the end marker.
    pub(crate) content: Span,
    /// The line with the end marker, without its line end.
    pub(crate) end: Span,
}

impl<'a> Lines<'a> {
    /// Reads from `position` on.
    pub(crate) fn new(source: &'a Source, position: usize, escape: char) -> Self {
        Self { text: source.text(), position, escape }
    }

    fn physical(&mut self) -> Option<Physical> {
        let start = self.position;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return None;
        }
        self.position = rest.find('\n').map_or(self.text.len(), |i| start + i + 1);
        let line = self.text[start..self.position].trim_end_matches(['\r', '\n']);
        Some(Physical { start, end: start + line.len() })
    }

    /// The next instruction; `None` at the end.
    pub(crate) fn logical(&mut self) -> Option<Logical> {
        let mut comments = Vec::new();
        loop {
            let physical = self.physical()?;
            let line = &self.text[physical.start..physical.end];
            let start = physical.end - line.trim_start().len();
            if let Some(text) = self.text[start..physical.end].strip_prefix('#') {
                let text = text.trim();
                if text.is_empty() {
                    comments.clear();
                } else {
                    comments.push(Comment { text: text.to_owned(), span: Span::new(start, physical.end) });
                }
                continue;
            }
            if start == physical.end {
                // an empty line parts a comment from what follows
                comments.clear();
                continue;
            }
            let mut logical = Logical { span: Span::new(start, start), comments, ..Logical::default() };
            let mut continued = self.append(&mut logical, start, physical.end);
            while continued {
                let Some(physical) = self.physical() else { break };
                let line = self.text[physical.start..physical.end].trim_start();
                if line.starts_with('#') {
                    continue;
                }
                if line.is_empty() {
                    logical.empty_line = Some(Span::new(physical.start, physical.end));
                    continue;
                }
                continued = self.append(&mut logical, physical.start, physical.end);
            }
            if logical.text.trim().is_empty() {
                comments = logical.comments;
                continue;
            }
            return Some(logical);
        }
    }

    /// Adds a physical line to a logical one. Does it go on?
    fn append(&self, logical: &mut Logical, start: usize, end: usize) -> bool {
        let line = &self.text[start..end];
        let (line, continued) = match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        };
        if !line.is_empty() {
            logical.pieces.push((logical.text.len(), start));
            logical.text.push_str(line);
        }
        logical.span.end = end;
        continued
    }

    /// The body of a heredoc that ends at a line that is `marker` (with tabs before it if `tabs`). `None`: it never comes, and
    /// everything is read.
    pub(crate) fn heredoc(&mut self, marker: &str, tabs: bool) -> Option<Body> {
        let start = self.position;
        while let Some(physical) = self.physical() {
            let line = &self.text[physical.start..physical.end];
            let candidate = if tabs { line.trim_start_matches('\t') } else { line };
            if candidate == marker {
                return Some(Body {
                    content: Span::new(start, physical.start),
                    end: Span::new(physical.start, physical.end),
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, escape: char) -> Vec<Logical> {
        let source = Source::new(text.as_bytes());
        let mut lines = Lines::new(&source, 0, escape);
        std::iter::from_fn(|| lines.logical()).collect()
    }

    fn texts(text: &str, escape: char) -> Vec<String> {
        read(text, escape).into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn lines_are_joined_as_they_are() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("\n  \t\n# c\n", &[]),
            ("  FROM a  \nRUN b", &["FROM a  ", "RUN b"]),
            ("a \\ \t \n  b\n", &["a   b"]),
            ("C=x\\\\\nD", &["C=x\\\\", "D"]),
            ("e=1 \\\n\\\n  f=2\n", &["e=1   f=2"]),
            ("foo\\\nbar \\\n  y\nz", &["foobar   y", "z"]),
            ("a \\\n# c \\\n   # d\nb", &["a b"]),
            ("a \\\n\n  \n\n b\nc", &["a  b", "c"]),
            ("a \\\r\n b\r\nc\r\n", &["a  b", "c"]),
            ("a \\", &["a "]),
            ("\\\n\\\na", &["a"]),
            ("a # b\\\nc", &["a # bc"]),
        ];
        for (text, expected) in cases {
            assert_eq!(texts(text, '\\'), *expected, "{text:?}");
        }
        assert_eq!(texts("a `\nb\\\nc", '`'), ["a b\\", "c"]);
    }

    #[test]
    fn every_byte_knows_where_it_came_from() {
        let text = "\n  COPY a\\\n# c\n   b \\\n\nd\n";
        let [line] = &read(text, '\\')[..] else { panic!() };
        assert_eq!(line.text, "COPY a   b d");
        for (i, c) in line.text.char_indices() {
            let span = line.source_span(i, i + 1);
            assert_eq!(&text[span.start..span.end], c.to_string(), "{i}");
        }
        let b = line.text.find('b').unwrap();
        assert_eq!(&text[line.source_span(b, b + 3).start..line.source_span(b, b + 3).end], "b \\\n\nd");
        assert_eq!(&text[line.span.start..line.span.end], "COPY a\\\n# c\n   b \\\n\nd");
        assert!(line.empty_line.is_some());
    }

    #[test]
    fn comments_belong_to_what_follows_directly() {
        let comments = |text: &str| {
            read(text, '\\')
                .into_iter()
                .map(|l| l.comments.into_iter().map(|c| c.text).collect())
                .collect::<Vec<Vec<_>>>()
        };
        assert_eq!(
            comments("# one\n #  two \nA\nB\n# x\n#\n# three\nC\n# y\n\nD"),
            [vec!["one", "two"], vec![], vec!["three"], vec![]]
        );
    }

    #[test]
    fn heredocs_keep_their_line_ends() {
        let text = "RUN x\r\none\r\n\r\n\tEOF\nEOF \nEOF\r\nrest";
        let source = Source::new(text.as_bytes());
        let mut lines = Lines::new(&source, 0, '\\');
        lines.logical();
        let body = lines.heredoc("EOF", false).unwrap();
        assert_eq!(&text[body.content.start..body.content.end], "one\r\n\r\n\tEOF\nEOF \n");
        assert_eq!(lines.logical().unwrap().text, "rest");
        let mut lines = Lines::new(&source, 7, '\\');
        let body = lines.heredoc("EOF", true).unwrap();
        assert_eq!(&text[body.content.start..body.content.end], "one\r\n\r\n");
        assert!(lines.heredoc("NEVER", false).is_none());
    }

    proptest! {
        #[test]
        fn never_panics_and_spans_hold(text in "[a-z#\\\\` \t\r\né]{0,60}") {
            let source = Source::new(text.as_bytes());
            for escape in ['\\', '`'] {
                let mut lines = Lines::new(&source, 0, escape);
                let mut before = 0;
                while let Some(line) = lines.logical() {
                    prop_assert!(line.span.start >= before && line.span.end >= line.span.start);
                    before = line.span.end;
                    for (i, c) in line.text.char_indices() {
                        let span = line.source_span(i, i + c.len_utf8());
                        prop_assert_eq!(&text[span.start..span.end], c.to_string());
                    }
                }
            }
        }
    }
}
