//! A Dockerfile with everything that stands in it: comments, blanks, line ends, continuations. For formatters and editors.
//!
//! The tree is flat: nodes (lines that belong together) of tokens. Every byte is in exactly one token, so writing the tokens one
//! behind the other gives the file back, byte for byte. Reading never fails: what is no instruction is an instruction
//! with an unknown keyword, and a heredoc that never ends goes to the end of the file.

use crate::diagnostics::Span;
use crate::directive;
use crate::instruction::heading;
use crate::lines::{Lines, Logical};
use crate::source::Source;
use crate::split::{Parts, split};

/// A Dockerfile, nothing left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    bytes: Vec<u8>,
    nodes: Vec<Node>,
}

/// Lines that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What they are.
    pub kind: NodeKind,
    /// Their parts, without a gap.
    pub tokens: Vec<Token>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A parser directive.
    Directive,
    /// A comment.
    Comment,
    /// An empty line.
    Blank,
    /// An instruction with all its lines and heredocs.
    Instruction,
}

/// A part of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its bytes.
    pub span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A byte order mark at the beginning of the file.
    ByteOrderMark,
    /// Blanks.
    Blanks,
    /// A line end: one line feed, and carriage returns before it.
    LineEnd,
    /// A directive, from its `#` to the end of its value.
    Directive,
    /// A comment, from its `#` on.
    Comment,
    /// An instruction's name, or a part of it where a line is continued inside of it.
    Keyword,
    /// `--name=value`, quotes included, or a part of it.
    Flag,
    /// A word of an instruction, or a part of it.
    Word,
    /// The escape character that continues a line.
    Continuation,
    /// The body of a heredoc.
    HeredocBody,
    /// The end marker of a heredoc, with the tabs before it.
    HeredocEnd,
}

impl Tree {
    /// Reads a Dockerfile.
    pub fn parse(text: &[u8]) -> Self {
        let source = Source::new(text);
        let directives = directive::scan(&source).unwrap_or_default();
        let escape = directive::escape(&directives).unwrap_or('\\');
        let mut builder = Builder { text: source.text(), escape, nodes: Vec::new(), position: 0 };
        let mut start = 0;
        for directive in &directives {
            builder.lines_up_to(line_start(source.text(), directive.span.start));
            let end = line_end(source.text(), directive.span.end);
            builder.directive(directive.span, end);
            start = end;
        }
        if directives.is_empty() && source.text().starts_with('\u{feff}') {
            start = '\u{feff}'.len_utf8();
        }
        let mut lines = Lines::new(&source, start, escape);
        while let Some(logical) = lines.logical() {
            let parts = split(&logical.text, escape);
            builder.lines_up_to(line_start(source.text(), logical.span.start).max(builder.position));
            let mut tokens = builder.instruction(&logical, &parts);
            for marker in heading(&logical, &parts, escape).markers {
                let body = lines.heredoc(&marker.name, marker.tabs);
                let (content_end, end) = match body {
                    Some(body) => (body.content.end, body.end.end),
                    None => (source.text().len(), source.text().len()),
                };
                builder.push(&mut tokens, TokenKind::HeredocBody, content_end);
                builder.push(&mut tokens, TokenKind::HeredocEnd, end);
                builder.line_end(&mut tokens);
            }
            builder.nodes.push(Node { kind: NodeKind::Instruction, tokens });
        }
        builder.lines_up_to(source.text().len());
        Self { bytes: source.bytes(), nodes: builder.nodes }
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A token's bytes.
    pub fn bytes(&self, token: &Token) -> &[u8] {
        self.bytes.get(token.span.start..token.span.end).unwrap_or_default()
    }

    /// The file that was read.
    pub fn write(&self) -> Vec<u8> {
        self.nodes.iter().flat_map(|node| &node.tokens).flat_map(|token| self.bytes(token)).copied().collect()
    }
}

/// Where the line of a byte begins.
fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |i| i + 1)
}

/// Behind the line end of a byte's line.
fn line_end(text: &str, offset: usize) -> usize {
    text[offset..].find('\n').map_or(text.len(), |i| offset + i + 1)
}

struct Builder<'a> {
    text: &'a str,
    escape: char,
    nodes: Vec<Node>,
    /// Everything before is in a token.
    position: usize,
}

impl Builder<'_> {
    /// A token up to `end`; none if nothing is left.
    fn push(&mut self, tokens: &mut Vec<Token>, kind: TokenKind, end: usize) {
        if end > self.position {
            tokens.push(Token { kind, span: Span::new(self.position, end) });
            self.position = end;
        }
    }

    /// Blanks, and one line end if it is there.
    fn line_end(&mut self, tokens: &mut Vec<Token>) {
        let rest = &self.text[self.position..];
        let line = rest.find('\n').map_or(rest, |i| &rest[..i]);
        let blanks = line.trim_end_matches('\r').len();
        if line[..blanks].chars().all(char::is_whitespace) {
            self.push(tokens, TokenKind::Blanks, self.position + blanks);
            let end = line_end(self.text, self.position);
            self.push(tokens, TokenKind::LineEnd, end);
        }
    }

    fn byte_order_mark(&mut self, tokens: &mut Vec<Token>) {
        if self.position == 0 && self.text.starts_with('\u{feff}') {
            self.push(tokens, TokenKind::ByteOrderMark, '\u{feff}'.len_utf8());
        }
    }

    fn directive(&mut self, span: Span, end: usize) {
        let mut tokens = Vec::new();
        self.byte_order_mark(&mut tokens);
        self.push(&mut tokens, TokenKind::Blanks, span.start);
        self.push(&mut tokens, TokenKind::Directive, span.end);
        self.line_end(&mut tokens);
        self.push(&mut tokens, TokenKind::Blanks, end);
        self.nodes.push(Node { kind: NodeKind::Directive, tokens });
    }

    /// Lines between instructions: comments and empty ones.
    fn lines_up_to(&mut self, end: usize) {
        while self.position < end {
            let mut tokens = Vec::new();
            self.byte_order_mark(&mut tokens);
            let is_comment = self.trivia_line(&mut tokens);
            let kind = if is_comment { NodeKind::Comment } else { NodeKind::Blank };
            self.nodes.push(Node { kind, tokens });
        }
    }

    /// A line that is a comment or empty. Was it a comment?
    fn trivia_line(&mut self, tokens: &mut Vec<Token>) -> bool {
        let end = line_end(self.text, self.position);
        let content_end = self.position + self.text[self.position..end].trim_end_matches(['\n', '\r']).len();
        let line = &self.text[self.position..content_end];
        let start = content_end - line.trim_start().len();
        self.push(tokens, TokenKind::Blanks, start);
        let is_comment = self.text[start..content_end].starts_with('#');
        let kind = if is_comment { TokenKind::Comment } else { TokenKind::Continuation };
        self.push(tokens, kind, content_end);
        self.push(tokens, TokenKind::LineEnd, end);
        is_comment
    }

    /// An instruction's lines, without heredocs.
    fn instruction(&mut self, logical: &Logical, parts: &Parts) -> Vec<Token> {
        let mut tokens = Vec::new();
        self.byte_order_mark(&mut tokens);
        let spans = |ranges: &[std::ops::Range<usize>]| {
            ranges.iter().map(|range| logical.source_span(range.start, range.end)).collect::<Vec<_>>()
        };
        let keyword = spans(std::slice::from_ref(&parts.keyword));
        let flags = spans(&parts.flags.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>());
        let mut first = true;
        while self.position < logical.span.end {
            let end = line_end(self.text, self.position);
            let line = self.text[self.position..end].trim_end_matches(['\n', '\r']);
            if !first && (line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
                self.trivia_line(&mut tokens);
                continue;
            }
            first = false;
            let content_end = self.position + line.len();
            let before = line.trim_end_matches([' ', '\t']);
            let stop = match before.strip_suffix(self.escape) {
                Some(before) if !before.ends_with(self.escape) => self.position + before.len(),
                _ => content_end,
            };
            self.words(&mut tokens, stop, &keyword, &flags);
            if stop < content_end {
                self.push(&mut tokens, TokenKind::Continuation, stop + self.escape.len_utf8());
                self.push(&mut tokens, TokenKind::Blanks, content_end);
            }
            self.push(&mut tokens, TokenKind::LineEnd, end);
        }
        tokens
    }

    /// The words of one line up to `stop`.
    fn words(&mut self, tokens: &mut Vec<Token>, stop: usize, keyword: &[Span], flags: &[Span]) {
        let within = |spans: &[Span], at: usize| {
            let next = spans.partition_point(|span| span.end <= at);
            spans.get(next).is_some_and(|span| span.start <= at)
        };
        let kind_at = |at: usize, c: char| {
            if within(keyword, at) {
                TokenKind::Keyword
            } else if within(flags, at) {
                TokenKind::Flag
            } else if c.is_whitespace() {
                TokenKind::Blanks
            } else {
                TokenKind::Word
            }
        };
        let start = self.position;
        let mut current = None;
        for (i, c) in self.text[start..stop].char_indices() {
            let kind = kind_at(start + i, c);
            if let Some(before) = current.replace(kind)
                && before != kind
            {
                self.push(tokens, before, start + i);
            }
        }
        if let Some(kind) = current {
            self.push(tokens, kind, stop);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let tree = Tree::parse(text.as_bytes());
        let mut out = String::new();
        for node in tree.nodes() {
            let tokens: Vec<String> = node
                .tokens
                .iter()
                .filter(|token| !matches!(token.kind, TokenKind::Blanks | TokenKind::LineEnd))
                .map(|token| format!("{:?} {:?}", token.kind, String::from_utf8_lossy(tree.bytes(token))))
                .collect();
            out.push_str(&format!("{:?}: {}\n", node.kind, tokens.join(", ")));
        }
        out
    }

    #[test]
    fn everything_is_a_token() {
        let text = "\u{feff}# escape=\\\n# note\n\n  FROM --platform='a b' x \\\n# inside\n\n  AS y  \r\nRUN <<-A cat <<B\n1\n\tA\n2\nB\nWOR\\\nKDIR /w\n# end";
        insta::assert_snapshot!(shown(text), @r###"
        Directive: ByteOrderMark "\u{feff}", Directive "# escape=\\"
        Comment: Comment "# note"
        Blank: 
        Instruction: Keyword "FROM", Flag "--platform='a b'", Word "x", Continuation "\\", Comment "# inside", Word "AS", Word "y"
        Instruction: Keyword "RUN", Word "<<-A", Word "cat", Word "<<B", HeredocBody "1\n", HeredocEnd "\tA", HeredocBody "2\n", HeredocEnd "B"
        Instruction: Keyword "WOR", Continuation "\\", Keyword "KDIR", Word "/w"
        Comment: Comment "# end"
        "###);
    }

    #[test]
    fn what_is_wrong_is_kept_too() {
        for text in [
            "FOO bar\n",
            "COPY <<EOF /x\nnever\n",
            "\\\n\n",
            "# escape=x\nFROM a\\\n",
            "",
            "\n\n",
            "#!/x\n# syntax=y\nFROM a",
            "# escape=`\n# escape=`\n",
        ] {
            assert_eq!(Tree::parse(text.as_bytes()).write(), text.as_bytes(), "{text:?}");
        }
        let latin = b"# caf\xe9\nFROM \xff\n";
        assert_eq!(Tree::parse(latin).write(), latin);
    }

    proptest! {
        #[test]
        fn every_file_is_written_back(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "(\u{feff})?([a-zA-Z#\\\\` \t\r\n=<>\"'-]|RUN |COPY |<<E|E\n|# escape=`\n|ONBUILD ){0,30}".prop_map(String::into_bytes),
        ]) {
            let tree = Tree::parse(&bytes);
            prop_assert_eq!(tree.write(), bytes);
            let mut position = 0;
            for token in tree.nodes().iter().flat_map(|node| &node.tokens) {
                prop_assert_eq!(token.span.start, position);
                position = token.span.end;
            }
        }
    }
}
