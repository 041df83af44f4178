//! Text from builds, made fit for a terminal or a log: lines, control characters, durations, bytes.
//!
//! What a RUN, an image or a server says is data. Colours may pass; whatever moves the cursor, changes the title,
//! rings or hides text may not.

use std::time::{Duration, SystemTime};

/// A line that has no end yet is cut here, so that a program that never writes one cannot fill memory.
const LONGEST_LINE: usize = 64 * 1024;

/// Cuts a stream of bytes into lines. `\n`, `\r\n` and a lone `\r` (progress bars) each end one.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    pending: Vec<u8>,
    after_return: bool,
}

impl LineSplitter {
    /// Takes bytes; calls `line` for each line that is complete.
    pub(crate) fn push(&mut self, data: &[u8], mut line: impl FnMut(&[u8])) {
        for &byte in data {
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    line(&self.pending);
                    self.pending.clear();
                }
                _ => {
                    self.pending.push(byte);
                    if self.pending.len() >= LONGEST_LINE {
                        line(&self.pending);
                        self.pending.clear();
                    }
                }
            }
        }
    }

    /// The rest, if the stream did not end with a line end.
    pub(crate) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        self.after_return = false;
        if !self.pending.is_empty() {
            line(&self.pending);
            self.pending = Vec::new();
        }
    }
}

/// One line for people: UTF-8, no control characters but tabs; colour sequences (SGR) stay if `colours`.
pub(crate) fn sanitise(line: &[u8], colours: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut styled = false;
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.peek() {
                Some('[') => {
                    chars.next();
                    let mut parameters = String::new();
                    let mut end = None;
                    for c in chars.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            end = Some(c);
                            break;
                        }
                        parameters.push(c);
                    }
                    let harmless = parameters.len() <= 32
                        && parameters.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':');
                    if colours && end == Some('m') && harmless {
                        out.push_str("\u{1b}[");
                        out.push_str(&parameters);
                        out.push('m');
                        styled = !matches!(parameters.as_str(), "" | "0");
                    }
                }
                // title, clipboard, links: up to BEL or ESC \
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    let mut last = chars.next();
                    for c in chars.by_ref() {
                        if c == '\u{7}' || (last == Some('\u{1b}') && c == '\\') {
                            break;
                        }
                        last = Some(c);
                    }
                }
                _ => {
                    chars.next();
                }
            },
            '\t' => out.push(c),
            c if c.is_control() || hides_text(c) => {}
            c => out.push(c),
        }
    }
    if styled {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Characters that turn the direction of text around them.
fn hides_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name on one line, without anything that a terminal would obey.
pub(crate) fn one_line(name: &str) -> String {
    let spaced: String =
        name.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
    sanitise(spaced.as_bytes(), false)
}

/// Seconds with one decimal: `0.3s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Time from `start` to `end`; a clock that went back counts as none.
pub(crate) fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// Bytes in decimal units, as registries and `docker` print them: `28.2MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}{}", UNITS[unit])
}

/// A digest by its first 12 digits, anything else as it is.
pub(crate) fn short_part(part: &str) -> String {
    match part.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.is_ascii() => format!("sha256:{}", &hex[..12]),
        _ => one_line(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_any_kind_of_end_and_across_chunks() {
        let cases: [(&[&[u8]], &[&str]); 6] = [
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a", b"b\nc"], &["ab", "c"]),
            (&[b"a\r", b"\nb"], &["a", "b"]),
            (&[b"1%\r2%\r3%\n"], &["1%", "2%", "3%"]),
            (&[b"\n\n"], &["", ""]),
            (&[b""], &[]),
        ];
        for (chunks, expected) in cases {
            let mut splitter = LineSplitter::default();
            let mut lines = Vec::new();
            for chunk in chunks {
                splitter.push(chunk, |l| lines.push(String::from_utf8(l.to_vec()).unwrap()));
            }
            splitter.finish(|l| lines.push(String::from_utf8(l.to_vec()).unwrap()));
            assert_eq!(lines, expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_cut_not_collected() {
        let mut splitter = LineSplitter::default();
        let mut lengths = Vec::new();
        for _ in 0..40 {
            splitter.push(&[b'x'; 10_000], |l| lengths.push(l.len()));
        }
        splitter.finish(|l| lengths.push(l.len()));
        assert_eq!(lengths.iter().sum::<usize>(), 400_000, "nothing is lost");
        assert!(lengths.iter().all(|&l| l <= LONGEST_LINE));
    }

    #[test]
    fn terminals_are_not_commanded() {
        let cases: [(&[u8], &str, &str); 9] = [
            (b"plain\ttext", "plain\ttext", "plain\ttext"),
            (b"\x1b[31mred", "red", "\x1b[31mred\x1b[0m"),
            (b"\x1b[1;31mred\x1b[0m end", "red end", "\x1b[1;31mred\x1b[0m end"),
            (b"up\x1b[2A\x1b[Jgone", "upgone", "upgone"),
            (b"\x1b]0;title\x07text", "text", "text"),
            (b"\x1b]52;c;Zm9v\x1b\\text", "text", "text"),
            (b"bell\x07 back\x08 nul\x00", "bell back nul", "bell back nul"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}"),
            ("a\u{202e}b\u{9b}2Jc".as_bytes(), "ab2Jc", "ab2Jc"),
        ];
        for (input, without, with) in cases {
            assert_eq!(sanitise(input, false), without, "{input:?}");
            assert_eq!(sanitise(input, true), with, "{input:?}");
        }
    }

    #[test]
    fn sizes_read_like_dockers() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (28_230_000, "28.2MB"),
            (999_999, "1.00MB"),
            (u64::MAX, "18447PB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }
}
