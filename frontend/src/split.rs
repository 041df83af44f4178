//! A logical line into its keyword, flags and arguments, and arguments into words.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::words::Lexer;

/// A part of a logical line, by bytes.
pub(crate) type Range = std::ops::Range<usize>;

/// The blanks that part words: those of BuildKit, not all of Unicode's.
pub(crate) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// A logical line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The instruction's name as written.
    pub(crate) keyword: Range,
    /// `--name[=value]`, quotes and escapes removed.
    pub(crate) flags: Vec<(Range, String)>,
    /// Everything behind, without blanks around it.
    pub(crate) rest: Range,
}

/// Takes a line apart. Words that begin with `--` are flags up to the first that does not, or up to `--`.
pub(crate) fn split(line: &str, escape: char) -> Parts {
    let start = line.len() - line.trim_start().len();
    let end = line.trim_end().len().max(start);
    let keyword_end = line[start..end].find(BLANKS).map_or(end, |i| start + i);
    let mut flags = Vec::new();
    let mut position = keyword_end;
    loop {
        position = end - line[position..end].trim_start().len();
        if !line[position..end].starts_with("--") {
            break;
        }
        let (flag_end, text) = flag(line, position, end, escape);
        let word = position..flag_end;
        position = flag_end;
        if text == "--" {
            break;
        }
        flags.push((word, text));
    }
    let rest_start = end - line[position..end].trim_start().len();
    Parts { keyword: start..keyword_end, flags, rest: rest_start..end }
}

/// The flag that begins at `start`: its end, and its text without quotes and escapes.
fn flag(line: &str, start: usize, end: usize, escape: char) -> (usize, String) {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = line[start..end].char_indices();
    while let Some((i, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (start + i, text),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape => text.extend(chars.next().map(|(_, c)| c)),
            _ => text.push(c),
        }
    }
    (end, text)
}

/// Words of ENV, LABEL and ARG: parted by blanks outside of quotes; quotes and escapes stay.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<Range> {
    let mut words = Vec::new();
    let mut word: Option<usize> = None;
    let mut quote = None;
    let mut end = text.len();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        if word.is_none() {
            if c.is_whitespace() {
                continue;
            }
            word = Some(i);
        }
        match quote {
            None if c.is_whitespace() => {
                words.extend(word.take().map(|start| start..i));
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        // in single quotes nothing is escaped; a lone escape at the very end escapes nothing and is dropped
        if c == escape && quote != Some('\'') && chars.next().is_none() {
            end = i;
        }
    }
    words.extend(word.filter(|&start| start < end).map(|start| start..end));
    words
}

/// Words of COPY, FROM, EXPOSE and others: parted by blanks, whatever quotes there are.
pub(crate) fn plain_words(text: &str) -> Vec<Range> {
    let mut words = Vec::new();
    let mut position = 0;
    for part in text.split(BLANKS) {
        if !part.is_empty() {
            words.push(position..position + part.len());
        }
        position += part.len() + 1;
    }
    words
}

/// The strings of a JSON array, if `text` is one; `Some(Err(()))`: it is one, but not of strings.
///
/// As Go reads JSON: half of a surrogate pair is U+FFFD, and arrays may nest as deep as they like.
pub(crate) fn json(text: &str) -> Option<Result<Vec<String>, ()>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let elements: Vec<Element> =
        serde_json::from_str(text).or_else(|_| serde_json::from_str(&whole_surrogates(text))).ok()?;
    Some(elements.into_iter().map(|element| element.0.ok_or(())).collect())
}

/// An element of an array: a string, or `None`: anything else.
struct Element(Option<String>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Element, E> {
                Ok(Element(Some(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Element, E> {
                Ok(Element(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
                Ok(Element(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
                Ok(Element(None))
            }
            // what is skipped is not nested on the stack
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Element(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// JSON with `\ufffd` for every half of a surrogate pair that stands alone.
fn whole_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let start = text.len() - rest.len() + at;
        let length = match (unit(start), unit(start + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str("\\ufffd");
                rest = &text[start + 6..];
                continue;
            }
            (Some(_), _) => 6,
            // an escape, and what it escapes
            (None, _) => 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[start..start + length]);
        rest = &text[start + length..];
    }
    out.push_str(rest);
    out
}

/// The beginning of a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// What ends it.
    pub(crate) name: String,
    /// Are variables expanded in it (no part of the marker is quoted)?
    pub(crate) expand: bool,
    /// `<<-`: tabs that begin lines are dropped.
    pub(crate) tabs: bool,
}

/// The heredoc that a word begins: `[n]<<[-]MARKER`, the marker quoted or not.
pub(crate) fn marker(word: &str) -> Option<Marker> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, word) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let word = word.trim_start();
    if word.is_empty() || word.contains('<') {
        return None;
    }
    let budget = crate::words::Budget::new();
    let lexer = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let expanded = lexer.expand(word, &crate::words::NoVariables, &budget).ok()?;
    let [name] = &expanded.words[..] else { return None };
    let raw = Lexer { raw_quotes: true, ..lexer }.expand(word, &crate::words::NoVariables, &budget).ok()?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = raw.words.first().is_some_and(|raw| quotes(raw) == quotes(name));
    Some(Marker { name: name.clone(), expand, tabs })
}

/// All heredocs that a line begins, in order.
pub(crate) fn markers(line: &str) -> Vec<Marker> {
    if !line.contains("<<") {
        return Vec::new();
    }
    // a text that is no list of words (`${x:0:2}` is a shell's, not ours) has no heredoc that could be told apart
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    let words = lexer.expand(line, &crate::words::NoVariables, &crate::words::Budget::new()).map(|e| e.words);
    words.unwrap_or_default().iter().filter_map(|word| marker(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let cases: &[(&str, &str, &[&str], &str)] = &[
            ("RUN  make  all ", "RUN", &[], "make  all"),
            ("COPY --from=a  --chmod='6'00 x y", "COPY", &["--from=a", "--chmod=600"], "x y"),
            ("COPY --chown=\"3:4\" --chown=5\\:6 a", "COPY", &["--chown=3:4", "--chown=5:6"], "a"),
            ("COPY -- --odd /a", "COPY", &[], "--odd /a"),
            ("COPY --chmod=600 -- --odd --chown=7 /d/", "COPY", &["--chmod=600"], "--odd --chown=7 /d/"),
            ("RUN --x", "RUN", &["--x"], ""),
            ("RUN -x", "RUN", &[], "-x"),
            ("RUN --mount=\"type=bind,source=a b\" ls", "RUN", &["--mount=type=bind,source=a b"], "ls"),
            ("ENV", "ENV", &[], ""),
        ];
        for (line, keyword, flags, rest) in cases {
            let parts = split(line, '\\');
            let got: Vec<&str> = parts.flags.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(
                (&line[parts.keyword], &got[..], &line[parts.rest]),
                (*keyword, *flags, *rest),
                "{line}"
            );
        }
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("A=1  B=\"2 3\" C='4 \" 5' D=e\\ f", &["A=1", "B=\"2 3\"", "C='4 \" 5'", "D=e\\ f"]),
            ("A=\"x\\\" y\" 'a\\' b", &["A=\"x\\\" y\"", "'a\\'", "b"]),
            ("A=\"never closed", &["A=\"never closed"]),
            ("A=x\\", &["A=x"]),
            ("A=x\\\\", &["A=x\\\\"]),
            ("\\", &[]),
        ];
        for (text, expected) in cases {
            let got: Vec<&str> = quoted_words(text, '\\').into_iter().map(|r| &text[r]).collect();
            assert_eq!(got, *expected, "{text}");
        }
    }

    #[test]
    fn json_forms() {
        assert_eq!(json("[\"a\", \"b\\u0041\"]"), Some(Ok(vec!["a".to_owned(), "bA".to_owned()])));
        assert_eq!(json(" [ ] "), Some(Ok(vec![])));
        assert_eq!(json("[\"a\", 1]"), Some(Err(())));
        assert_eq!(
            json(r#"["\ud800", "\ud83d\ude00\udfff", "\\\ud800x", "\\"]"#),
            Some(Ok(["\u{fffd}", "\u{1f600}\u{fffd}", "\\\u{fffd}x", "\\"].map(str::to_owned).to_vec()))
        );
        assert_eq!(json(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), Some(Err(())));
        assert_eq!(json("[{\"a\": [1, null]}, true, -1, 1.5]"), Some(Err(())));
        for text in ["['a']", "[\"a\"] b", "[ -f x ]", "a", "", "[\"a\",]"] {
            assert_eq!(json(text), None, "{text}");
        }
    }

    #[test]
    fn heredoc_markers() {
        let name = |word: &str| {
            marker(word).map(|m| {
                format!(
                    "{}{}{}",
                    m.name,
                    if m.expand { "" } else { " quoted" },
                    if m.tabs { " tabs" } else { "" }
                )
            })
        };
        let cases = [
            ("<<EOF", Some("EOF")),
            ("<<-EOF", Some("EOF tabs")),
            ("3<<\"EOF\"", Some("EOF quoted")),
            ("<<E'O'F", Some("EOF quoted")),
            ("<< EOF", Some("EOF")),
            ("<<", None),
            ("<<<EOF", None),
            ("a<<EOF", None),
            ("<<EOF x", None),
            ("<<\"EOF", None),
        ];
        for (word, expected) in cases {
            assert_eq!(name(word).as_deref(), expected, "{word}");
        }
        let names = |line: &str| markers(line).into_iter().map(|m| m.name).collect::<Vec<_>>();
        assert_eq!(
            names("RUN cat <<ONE > /1 && cat << \"TWO\" 3<<-TH'REE' '<<NO' \"<<NO\""),
            ["ONE", "TWO", "THREE"]
        );
        assert_eq!(names("RUN echo <<<x a<<b"), [""; 0].map(String::from).to_vec());
        // what only a shell understands hides no heredoc
        assert_eq!(names("RUN echo \"${x:0:2}\" ${y: -1} <<EOF"), ["EOF"]);
    }
}
