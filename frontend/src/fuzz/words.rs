//! Words and expansions.

use crate::split;
use crate::words::{Budget, Lexer, Variables};

struct List<'a>(Vec<(&'a str, &'a str)>);

impl Variables for List<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// What a small Dockerfile's expansions may make here.
const SMALL: usize = 1 << 14;

/// Expansions end, make no more than their budget allows, name only what was written, and patterns take what a backtracking
/// matcher says; words of a line tile it.
///
/// Lines of `name=value` up to the first other one are the variables, what follows is the text.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut rest = &*text;
    let mut variables = List(Vec::new());
    while let Some((line, behind)) = rest.split_once('\n')
        && let Some((name, value)) = line.split_once('=')
        && !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    {
        variables.0.push((name, value));
        rest = behind;
    }
    for escape in ['\\', '`'] {
        let usual = Lexer::new(escape);
        let kinds = [
            usual,
            Lexer { raw_quotes: true, raw_escapes: true, ..usual },
            Lexer { keep_unset: true, ..usual },
            Lexer { plain_quotes: true, ..usual },
        ];
        for lexer in kinds {
            check(&lexer, rest, &variables);
        }
        split_words(rest, escape);
    }
    quoted(rest);
    if let [(_, value), (_, pattern), ..] = variables.0[..] {
        patterns(value, pattern);
    }
}

fn check(lexer: &Lexer, text: &str, variables: &List<'_>) {
    match lexer.expand(text, variables, &Budget::of(SMALL)) {
        Ok(done) => {
            assert!(done.text.len() <= SMALL);
            let joined: usize = done.words.iter().map(String::len).sum();
            assert!(joined <= done.text.len(), "words are parts of the text");
            assert!(done.words.iter().all(|word| !word.is_empty() || text.contains(['\'', '"'])));
            assert!(done.matched.iter().all(|name| variables.get(name).is_some()));
            assert!(done.unmatched.iter().all(|name| variables.get(name).is_none()));
            if lexer.raw_quotes && lexer.raw_escapes && !text.contains(['$', lexer.escape]) {
                assert_eq!(done.text, text, "raw words are as they are written");
            }
        }
        Err(error) => {
            assert!(error.at <= text.len());
            assert!(!error.to_string().is_empty() && !error.reason.label().is_empty());
        }
    }
}

/// Quoting anything in any of the three ways and expanding it gives it back, as one word.
fn quoted(text: &str) {
    if text.is_empty() {
        return;
    }
    let variables = List(Vec::new());
    let double: String =
        text.chars().flat_map(|c| ['\\', c].into_iter().skip(usize::from(!"\"$\\".contains(c)))).collect();
    let bare: String = text.chars().flat_map(|c| ['\\', c]).collect();
    let mut ways = vec![format!("\"{double}\""), bare];
    if !text.contains('\'') {
        ways.push(format!("'{text}'"));
    }
    for way in ways {
        let done = Lexer::new('\\').expand(&way, &variables, &Budget::new()).expect("quoted text is a word");
        assert_eq!(done.text, text);
        assert_eq!(done.words, [text]);
    }
}

fn split_words(line: &str, escape: char) {
    let mut before = 0;
    for range in split::quoted_words(line, escape) {
        let word = &line[range.clone()];
        assert!(range.start >= before && !word.is_empty() && !word.starts_with(char::is_whitespace));
        before = range.end;
    }
    for range in split::plain_words(line) {
        assert!(!line[range].contains(split::BLANKS));
    }
    let parts = split::split(line, escape);
    assert!(parts.keyword.end <= parts.rest.start && parts.rest.end <= line.len());
    for (range, _) in &parts.flags {
        assert!(line[range.clone()].starts_with("--"));
    }
}

/// `${v#p}` and its kin against a matcher that tries everything.
fn patterns(value: &str, pattern: &str) {
    // what tries everything must be given little
    let short = |text: &str, most: usize| text.chars().count() <= most;
    if !short(value, 12) || !short(pattern, 8) || pattern.contains(['\'', '"', '$', '\\', '}', '/']) {
        return;
    }
    if pattern.is_empty() || pattern.starts_with(['#', '%']) {
        return;
    }
    let variables = List(vec![("v", value)]);
    let expand = |word: String| {
        Lexer::new('`')
            .expand(&word, &variables, &Budget::new())
            .map(|done| done.text)
            .expect("a good pattern")
    };
    if pattern.contains('`') {
        return;
    }
    let text: Vec<char> = value.chars().collect();
    let wanted: Vec<char> = pattern.chars().collect();
    let all = |range: std::ops::Range<usize>| matches(&wanted, &text[range]);
    let ends: Vec<usize> = (0..=text.len()).filter(|&end| all(0..end)).collect();
    let starts: Vec<usize> = (0..=text.len()).filter(|&start| all(start..text.len())).collect();
    let from = |start: Option<&usize>| text[start.copied().unwrap_or(0)..].iter().collect::<String>();
    let to = |end: Option<&usize>| text[..end.copied().unwrap_or(text.len())].iter().collect::<String>();
    assert_eq!(expand(format!("${{v#{pattern}}}")), from(ends.first()));
    assert_eq!(expand(format!("${{v##{pattern}}}")), from(ends.last()));
    assert_eq!(expand(format!("${{v%{pattern}}}")), to(starts.last()));
    assert_eq!(expand(format!("${{v%%{pattern}}}")), to(starts.first()));
    let first = (0..=text.len())
        .find_map(|start| (start..=text.len()).rev().find(|&end| all(start..end)).map(|end| (start, end)));
    let replaced = match first {
        Some((start, end)) => text[..start].iter().chain(&['<', '>']).chain(&text[end..]).collect::<String>(),
        None => value.to_owned(),
    };
    assert_eq!(expand(format!("${{v/{pattern}/<>}}")), replaced);
}

fn matches(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, _) => text.is_empty(),
        (Some('*'), c) => {
            matches(&pattern[1..], text) || c.is_some_and(|c| *c != '\n' && matches(pattern, &text[1..]))
        }
        (Some('?'), Some(c)) => *c != '\n' && matches(&pattern[1..], &text[1..]),
        (Some(wanted), Some(c)) => wanted == c && matches(&pattern[1..], &text[1..]),
        (Some(_), None) => false,
    }
}
