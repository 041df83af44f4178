//! Ignore files and wildcards.

use bricklayer_solver::pattern::{Patterns, glob_match};

/// The matcher says of a path what trying everything says; what it says step by step is the same; and where it says that nothing
/// below a directory can match, nothing does. The last line is the path, the others are the ignore file.
pub fn ignore(data: &[u8]) {
    let (file, path) = match data.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"a/b"[..]),
    };
    let patterns = crate::ignore::parse(file);
    assert!(patterns.len() <= data.len());
    // a cleaned, relative path
    let path = String::from_utf8_lossy(path);
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect();
    let path = names.join("/");
    if path.is_empty() {
        return;
    }
    for pattern in &patterns {
        if let Ok(matched) = glob_match(pattern, &path)
            && let Some(expected) = Naive::new(pattern, false).matches(&path)
        {
            assert_eq!(matched, expected, "{pattern:?} {path:?}");
        }
    }
    let Ok(compiled) = Patterns::new(&patterns) else { return };
    let matched = compiled.matches(&path);
    assert_eq!(matched, compiled.matched_by(&path).is_some());
    // the list is trimmed and cleaned once more, which changes what cleaning laid bare (`/ ./x`)
    let settled = |pattern: &String| crate::ignore::parse(pattern.as_bytes()) == [pattern.as_str()];
    if patterns.iter().all(settled)
        && let Some(expected) = listed(&patterns, &names)
    {
        assert_eq!(matched, expected, "{patterns:?} {path:?}");
    }
    for depth in 1..names.len() {
        let directory = names[..depth].join("/");
        if matched && !compiled.matches(&directory) {
            assert!(compiled.could_match_below(&directory), "{patterns:?} {directory:?} {path:?}");
        }
        if !matched && compiled.matches(&directory) {
            assert!(compiled.could_reinclude_below(&directory), "{patterns:?} {directory:?} {path:?}");
        }
    }
}

/// Does the list match the path or something above it, the last pattern that hits deciding? `None`: too much to try.
fn listed(patterns: &[String], names: &[&str]) -> Option<bool> {
    let mut matched = false;
    for pattern in patterns {
        let (exception, text) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        for depth in 1..=names.len() {
            if Naive::new(text, true).matches(&names[..depth].join("/"))? {
                matched = !exception;
                break;
            }
        }
    }
    Some(matched)
}

/// Tries everything, as long as that is not too much.
struct Naive {
    pattern: Vec<char>,
    double: bool,
    steps: usize,
}

impl Naive {
    fn new(pattern: &str, double: bool) -> Self {
        Self { pattern: pattern.chars().collect(), double, steps: 0 }
    }

    fn matches(mut self, path: &str) -> Option<bool> {
        let path: Vec<char> = path.chars().collect();
        // `**name`, with nothing special in it, is any path that ends so
        let special = |c: &char| "*?[\\".contains(*c);
        if self.double
            && let ['*', '*', rest @ ..] = &self.pattern[..]
            && !rest.is_empty()
            && rest[0] != '/'
            && !rest.iter().any(special)
        {
            return Some(path.ends_with(rest));
        }
        self.at(0, &path, 0)
    }

    fn at(&mut self, mut p: usize, path: &[char], at: usize) -> Option<bool> {
        self.steps += 1;
        if self.steps > 20_000 {
            return None;
        }
        let Some(&c) = self.pattern.get(p) else { return Some(at == path.len()) };
        match c {
            '*' if self.double && self.pattern.get(p + 1) == Some(&'*') => {
                p += 2;
                if self.pattern.get(p) == Some(&'/') {
                    p += 1;
                }
                if p == self.pattern.len() {
                    return Some(true);
                }
                for start in at..=path.len() {
                    if (start == at || path[start - 1] == '/') && self.at(p, path, start)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
            '*' => {
                for end in at..=path.len() {
                    if self.at(p + 1, path, end)? {
                        return Some(true);
                    }
                    if path.get(end) == Some(&'/') {
                        break;
                    }
                }
                Some(false)
            }
            '?' => match path.get(at) {
                Some(c) if *c != '/' => self.at(p + 1, path, at + 1),
                _ => Some(false),
            },
            '[' => {
                let Some(&c) = path.get(at) else { return Some(false) };
                let (inside, behind) = self.class(p + 1, c)?;
                if inside { self.at(behind, path, at + 1) } else { Some(false) }
            }
            '\\' => match (self.pattern.get(p + 1), path.get(at)) {
                (Some(wanted), Some(c)) if wanted == c => self.at(p + 2, path, at + 1),
                (None, _) => None,
                _ => Some(false),
            },
            wanted if path.get(at) == Some(&wanted) => self.at(p + 1, path, at + 1),
            _ => Some(false),
        }
    }

    /// Is `c` in the class that begins at `p`, and where does it end? `None`: it is malformed.
    fn class(&self, mut p: usize, c: char) -> Option<(bool, usize)> {
        let negated = self.pattern.get(p) == Some(&'^');
        p += usize::from(negated);
        let mut inside = false;
        let mut first = true;
        loop {
            if !first && self.pattern.get(p) == Some(&']') {
                return Some((inside != negated, p + 1));
            }
            first = false;
            let (low, behind) = self.bound(p)?;
            p = behind;
            let mut high = low;
            if self.pattern.get(p) == Some(&'-') {
                (high, p) = self.bound(p + 1)?;
            }
            inside |= low <= c && c <= high;
        }
    }

    fn bound(&self, p: usize) -> Option<(char, usize)> {
        match self.pattern.get(p)? {
            '-' | ']' => None,
            '\\' => Some((*self.pattern.get(p + 1)?, p + 2)),
            c => Some((*c, p + 1)),
        }
    }
}
