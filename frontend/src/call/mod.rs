//! What `--call` asks instead of a build: `check` (is anything wrong), `outline` (what can a target be given), `targets` (which are
//! there), `subrequests.describe` (what can be asked). Each result prints as text and as JSON, in the shapes of BuildKit's subrequests `frontend.lint`,
//! `frontend.outline` and `frontend.targets`, version 1.0.0.

mod check;
mod describe;
mod outline;
mod targets;

use serde::Serialize;

pub use check::{BuildError, Check, CheckWarning, check};
pub use describe::{Form, Method, Methods, methods};
pub use outline::{Outline, OutlineArg, OutlineSecret, outline};
pub use targets::{Target, Targets, targets};

/// Lines of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Location {
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// Some lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first.
    pub start: Position,
    /// The last.
    pub end: Position,
}

/// A place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
}

impl Location {
    pub(crate) fn of_lines((first, last): (u32, u32)) -> Self {
        Self { ranges: vec![Range { start: Position { line: first }, end: Position { line: last } }] }
    }

    pub(crate) fn first_line(&self) -> u32 {
        self.ranges.first().map_or(0, |range| range.start.line)
    }
}

/// A result as indented JSON, with a newline behind it.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    // these types have string keys only and can't fail to serialize
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Columns, each as wide as its widest cell and `gap` more; the last is not padded.
pub(crate) fn table(rows: &[Vec<&str>], gap: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if i + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[i] + gap - cell.chars().count()));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Base64 (RFC 4648, section 4), as Go writes bytes in JSON.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().enumerate().fold(0u32, |n, (i, b)| n | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let c = if i <= chunk.len() { ALPHABET[(n >> (18 - 6 * i) & 63) as usize] as char } else { '=' };
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn tables() {
        let rows = [vec!["A", "B", "C"], vec!["long", "", "x"], vec!["b"]];
        assert_eq!(table(&rows, 3), "A      B   C\nlong       x\nb\n");
    }
}
