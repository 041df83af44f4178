//! `.dockerignore` text to patterns; matching them is [`bricklayer_solver`]'s part.

/// The patterns of a `.dockerignore` file, in order: comments (`#` in the first column), blank lines and a byte order mark
/// are dropped, blanks around patterns trimmed, paths cleaned, leading slashes dropped. `!` stays in front.
///
/// Bytes that are not UTF-8 become U+FFFD, which matches no such name.
pub fn parse(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    bricklayer_solver::pattern::read_ignore_file(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_patterns() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("# comment\na\n", &["a"]),
            (" # no comment\n", &["# no comment"]),
            ("  b  \r\n\r\nwith blank\n", &["b", "with blank"]),
            ("\u{feff}a\n", &["a"]),
            ("/a\nb/\n./c\nd/../e\n/f/g/\n", &["a", "b", "c", "e", "f/g"]),
            ("!keep\n! /x/\n!\n", &["!keep", "!x", "!"]),
            ("/\n.\n..\n/..\n", &["/", ".", "..", "/"]),
            ("**/*.pyc\nlogs/**\n", &["**/*.pyc", "logs/**"]),
            ("a", &["a"]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn other_encodings_do_not_fail() {
        assert_eq!(parse(b"\xff\xfe\nb"), ["\u{fffd}\u{fffd}", "b"]);
    }
}
