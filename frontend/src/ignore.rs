//! `.dockerignore` text to patterns; matching them is [`bricklayer_solver`]'s part.

/// The patterns of a `.dockerignore` file, in order: comments (`#` in the first column), blank lines and a byte order mark
/// are dropped, blanks around patterns trimmed, paths cleaned, leading slashes dropped. `!` stays in front.
///
/// Bytes that are not UTF-8 become U+FFFD, which matches no such name.
pub fn parse(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let mut patterns = Vec::new();
    for line in text.split('\n') {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (negated, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if line.is_empty() {
            continue;
        }
        let mut cleaned = String::new();
        if negated {
            cleaned.push('!');
        }
        if !pattern.is_empty() {
            let path = clean(pattern);
            cleaned.push_str(match path.strip_prefix('/') {
                Some("") | None => &path,
                Some(rest) => rest,
            });
        }
        patterns.push(cleaned);
    }
    patterns
}

/// Go's `filepath.Clean` on Unix: no `.`, no `//`, no `..` that can be resolved by text alone.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
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
