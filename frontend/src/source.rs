//! The text of a Dockerfile: bytes made into text without moving anything, and where its lines begin.

use crate::diagnostics::{Diagnostic, Span};

/// A Dockerfile's text. Byte offsets are those of the file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    text: String,
    /// Where each line begins; the first is 0.
    starts: Vec<usize>,
    /// Bytes that are not UTF-8, each a `?` in the text. A comment may have them.
    undecodable: Vec<usize>,
    /// What stood there.
    original: Vec<u8>,
}

impl Source {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let (mut undecodable, mut original) = (Vec::new(), Vec::new());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for &byte in chunk.invalid() {
                undecodable.push(text.len());
                original.push(byte);
                text.push('?');
            }
        }
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts, undecodable, original }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The bytes that the text was made of.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.clone().into_bytes();
        for (&at, &byte) in self.undecodable.iter().zip(&self.original) {
            bytes[at] = byte;
        }
        bytes
    }

    /// The line of a byte, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|&start| start <= offset)).unwrap_or(u32::MAX)
    }

    /// The first and the last line that a span touches.
    pub(crate) fn lines(&self, span: Span) -> (u32, u32) {
        let last = if span.end > span.start { span.end - 1 } else { span.start };
        (self.line(span.start), self.line(last))
    }

    /// An error for the first byte of `span` that is not UTF-8.
    pub(crate) fn check_utf8(&self, span: Span) -> Result<(), Diagnostic> {
        let first = self.undecodable.partition_point(|&at| at < span.start);
        match self.undecodable.get(first) {
            Some(&at) if at < span.end => {
                Err(Diagnostic::error("the instruction is not UTF-8 text", Span::new(at, at + 1))
                    .label(format!("byte 0x{:02x} is none of UTF-8", self.original[first])))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_bytes_survive() {
        let bytes = b"# caf\xe9\nFROM a\n\xff";
        let source = Source::new(bytes);
        assert_eq!(source.text(), "# caf?\nFROM a\n?");
        assert_eq!(source.bytes(), bytes);
        assert_eq!([0, 6, 7, 13, 14].map(|at| source.line(at)), [1, 1, 2, 2, 3]);
        assert_eq!(source.lines(Span::new(7, 14)), (2, 2));
        assert!(source.check_utf8(Span::new(7, 14)).is_ok());
        let error = source.check_utf8(Span::new(7, 15)).unwrap_err();
        assert_eq!(
            (error.span, error.label.as_deref()),
            (Some(Span::new(14, 15)), Some("byte 0xff is none of UTF-8"))
        );
    }
}
