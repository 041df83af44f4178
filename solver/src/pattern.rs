//! Patterns for paths: Go's `filepath.Match` (wildcards of COPY and ADD) and the lists that `.dockerignore`,
//! `--exclude` and `COPY --parents` are made of (the rules of `moby/patternmatcher`).
//!
//! Paths are bytes, relative, cleaned, with `/` between names. Matching takes at most (pattern × path) steps, whatever
//! the pattern. Two oddities of the original, which come from its use of regular expressions, are not repeated: `\d`
//! is the letter `d` here, and `[[:alpha:]]` has no special meaning.

use std::borrow::Cow;

/// Why a pattern can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// An unclosed `[`, an empty class, or a `\` at the end.
    #[error("syntax error in pattern `{0}`")]
    Syntax(String),
    /// A `!` alone.
    #[error("pattern `!` excludes nothing")]
    EmptyException,
}

/// Does `name` match `pattern`, by the rules of Go's `path/filepath.Match`?
///
/// `*` is any run of characters but `/`, `?` one character but `/`, `[a-z]` and `[^a-z]` one character, `\c` the
/// character itself. The whole name must match. A malformed pattern is an error, whatever the name.
pub fn glob_match(pattern: &str, name: impl AsRef<[u8]>) -> Result<bool, PatternError> {
    Ok(Glob::new(pattern)?.matches(name))
}

/// Is `pattern` more than a name: has it a `*`, `?` or `[` that no `\` escapes? One that is not is compared as it
/// is, backslashes included (as BuildKit does).
pub fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// A compiled pattern of Go's `filepath.Match`.
#[derive(Debug, Clone)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Compiles `pattern`.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        Ok(Self { tokens: tokens(pattern, false)? })
    }

    /// Does the whole of `name` match?
    pub fn matches(&self, name: impl AsRef<[u8]>) -> bool {
        run(&self.tokens, name.as_ref(), End::Whole)
    }
}

/// The lexically shortest equal path, as Go's `path.Clean`: no `.`, no `//`, `..` resolved where it can be; never
/// empty (`.` instead).
pub fn clean(path: &str) -> Cow<'_, str> {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => match names.last() {
                Some(&last) if last != ".." => {
                    names.pop();
                }
                _ if rooted => {}
                _ => names.push(".."),
            },
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => Cow::Owned(format!("/{joined}")),
        (false, true) => Cow::Borrowed("."),
        (false, false) if joined == path => Cow::Borrowed(path),
        (false, false) => Cow::Owned(joined),
    }
}

/// The patterns of a `.dockerignore` file, in order: comments (`#` in the first column), blank lines and blanks around
/// a pattern are dropped; each is cleaned and loses its leading `/`.
pub fn read_ignore_file(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (exception, pattern) = normalise(line)?;
            let pattern = match pattern.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest,
                _ => &pattern,
            };
            Some(if exception { format!("!{pattern}") } else { pattern.to_owned() })
        })
        .collect()
}

/// Trims, splits off `!`, and cleans. `None`: nothing is left.
fn normalise(line: &str) -> Option<(bool, String)> {
    let line = line.trim();
    let (exception, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if pattern.is_empty() {
        return exception.then(|| (true, String::new()));
    }
    Some((exception, clean(pattern).into_owned()))
}

/// An ordered list of patterns, of which the last that matches decides.
///
/// A pattern matches a path if it matches the path itself or a directory above it. `**` stands for any number of
/// directories, also none; at the end it is everything below. `!pattern` takes back what earlier ones matched.
/// Empty patterns are skipped.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    exception: bool,
    matcher: Matcher,
}

/// Most patterns need no more than a comparison.
#[derive(Debug, Clone)]
enum Matcher {
    Exact(Vec<u8>),
    Tokens(Vec<Token>),
}

/// What a [`Patterns`] says of one path; what is needed to ask about the paths below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Which patterns match the path or one above it.
    hits: Vec<bool>,
    /// The pattern that decides.
    last: Option<usize>,
    /// Does the list match?
    matched: bool,
}

impl Verdict {
    /// Does the list match (is the path ignored)?
    pub fn matched(&self) -> bool {
        self.matched
    }
}

impl Patterns {
    /// Compiles a list. Each entry is trimmed and cleaned. Paths have no leading `/`, so a pattern with one matches nothing
    /// (that of a `.dockerignore` has lost it in [`read_ignore_file`]).
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut list = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let Some((exception, text)) = normalise(pattern.as_ref()) else { continue };
            if text.is_empty() {
                return Err(PatternError::EmptyException);
            }
            let mut tokens = tokens(&text, true)?;
            // `**name` ends with `name` (but `**name*` begins a path component with it): the original takes the
            // former for a plain suffix.
            if let [first @ Token::Directories, Token::Literal(_)] = tokens.as_mut_slice()
                && !text.starts_with("**/")
                && !text.contains('\\')
            {
                *first = Token::Everything;
            }
            let matcher = match tokens.as_slice() {
                [Token::Literal(bytes)] => Matcher::Exact(bytes.clone()),
                _ => Matcher::Tokens(tokens),
            };
            list.push(Pattern { text, exception, matcher });
        }
        Ok(Self { list })
    }

    /// Is there no pattern?
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Does the list match `path` (is it ignored)? For many paths of one tree, [`below`](Self::below) is cheaper.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.verdict(path.as_ref()).matched
    }

    /// The pattern that makes `path` match, as written but for blanks and cleaning; `None`: it does not match.
    pub fn matched_by(&self, path: impl AsRef<[u8]>) -> Option<&str> {
        let verdict = self.verdict(path.as_ref());
        if !verdict.matched {
            return None;
        }
        self.list.get(verdict.last?).map(|pattern| pattern.text.as_str())
    }

    /// What the list says of `path` and, with that, of what is above it.
    pub fn verdict(&self, path: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            verdict = self.below(&verdict, path.get(..at).unwrap_or_default());
        }
        self.below(&verdict, path)
    }

    /// What the list says of `path`, given what it said of the directory that holds it ([`Verdict::default`] for the
    /// top of the tree).
    pub fn below(&self, parent: &Verdict, path: &[u8]) -> Verdict {
        let mut verdict = Verdict { hits: Vec::with_capacity(self.list.len()), last: None, matched: false };
        for (index, pattern) in self.list.iter().enumerate() {
            let hit = parent.hits.get(index).copied().unwrap_or(false) || pattern.matches(path);
            verdict.hits.push(hit);
            if hit {
                verdict.matched = !pattern.exception;
                verdict.last = Some(index);
            }
        }
        verdict
    }

    /// Could an exception (`!…`) take back something below `dir`? If not, a directory that matches need not be walked.
    pub fn could_reinclude_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let mut prefix = dir.as_ref().to_vec();
        prefix.push(b'/');
        self.list.iter().any(|pattern| pattern.exception && pattern.could_match_below(&prefix))
    }

    /// Could the list match something below `dir` (that it may not match itself)? If not, a walk that looks for
    /// matches can leave the directory out.
    pub fn could_match_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let mut prefix = dir.as_ref().to_vec();
        prefix.push(b'/');
        self.list.iter().any(|pattern| !pattern.exception && pattern.could_match_below(&prefix))
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(bytes) => bytes == path,
            Matcher::Tokens(tokens) => run(tokens, path, End::Whole),
        }
    }

    /// `prefix` ends with `/`.
    fn could_match_below(&self, prefix: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(bytes) => bytes.len() > prefix.len() && bytes.starts_with(prefix),
            Matcher::Tokens(tokens) => run(tokens, prefix, End::Open),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character but `/`.
    One,
    /// Any run of characters but `/`.
    Run,
    /// One character in (or not in) these ranges; `/` is nothing special here.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Nothing, or anything that ends with `/`.
    Directories,
    /// Anything.
    Everything,
}

/// Parses a pattern; `double` says whether `**` means directories.
fn tokens(pattern: &str, double: bool) -> Result<Vec<Token>, PatternError> {
    let bad = || PatternError::Syntax(pattern.to_owned());
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' if double && chars.peek() == Some(&'*') => {
                chars.next();
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Everything } else { Token::Directories }
            }
            '*' => Token::Run,
            '?' => Token::One,
            '[' => class(&mut chars).ok_or_else(bad)?,
            '\\' => {
                literal.push(chars.next().ok_or_else(bad)?);
                continue;
            }
            c => {
                literal.push(c);
                continue;
            }
        };
        if !literal.is_empty() {
            tokens.push(Token::Literal(std::mem::take(&mut literal).into_bytes()));
        }
        if !(token == Token::Run && tokens.last() == Some(&Token::Run)) {
            tokens.push(token);
        }
    }
    if !literal.is_empty() || tokens.is_empty() {
        tokens.push(Token::Literal(literal.into_bytes()));
    }
    Ok(tokens)
}

/// The rest of a class, after `[`; `None`: malformed.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    fn bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
        match chars.next()? {
            '-' | ']' => None,
            '\\' => chars.next(),
            c => Some(c),
        }
    }
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = bound(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { bound(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// What must be at the end of the path for a match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The path ends where the pattern does.
    Whole,
    /// The path is a prefix of something that matches.
    Open,
}

/// Runs a pattern over a path: which positions can be reached after each token.
fn run(tokens: &[Token], path: &[u8], end: End) -> bool {
    if let Some(Token::Literal(bytes)) = tokens.first() {
        let agrees = path.starts_with(bytes) || (end == End::Open && bytes.starts_with(path));
        if !agrees {
            return false;
        }
    }
    if let (End::Whole, Some(Token::Literal(bytes))) = (end, tokens.last())
        && !path.ends_with(bytes)
    {
        return false;
    }
    let begins = beginnings(path);
    let mut here = vec![false; path.len() + 1];
    let mut next = here.clone();
    if let Some(start) = here.first_mut() {
        *start = true;
    }
    for token in tokens {
        // Anything may follow a prefix that is used up before the pattern is.
        if end == End::Open && here.last() == Some(&true) {
            return true;
        }
        next.fill(false);
        let mut mark = |at: usize| {
            if let Some(slot) = next.get_mut(at) {
                *slot = true;
            }
        };
        // For runs: can the current position be reached, and has any before it been reached?
        let mut running = false;
        let mut any = false;
        for at in 0..=path.len() {
            let reached = here.get(at).copied().unwrap_or(false);
            let rest = path.get(at..).unwrap_or_default();
            let before = at.checked_sub(1).and_then(|i| path.get(i));
            match token {
                Token::Literal(bytes) if reached => {
                    if rest.starts_with(bytes) {
                        mark(at + bytes.len());
                    } else if end == End::Open && bytes.starts_with(rest) {
                        return true;
                    }
                }
                Token::One if reached => {
                    if let Some((c, width)) = decode(rest)
                        && c != '/'
                    {
                        mark(at + width);
                    }
                }
                Token::Class { negated, ranges } if reached => {
                    if let Some((c, width)) = decode(rest)
                        && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
                    {
                        mark(at + width);
                    }
                }
                Token::Literal(_) | Token::One | Token::Class { .. } => {}
                Token::Run => {
                    running = reached || (running && before != Some(&b'/'));
                    // a run ends between two characters, not inside of one
                    if running && begins.get(at).copied().unwrap_or(true) {
                        mark(at);
                    }
                }
                Token::Directories => {
                    if reached || (any && before == Some(&b'/')) {
                        mark(at);
                    }
                    any |= reached;
                    if end == End::Open && any {
                        return true;
                    }
                }
                Token::Everything => {
                    any |= reached;
                    if any {
                        mark(at);
                        if end == End::Open {
                            return true;
                        }
                    }
                }
            }
        }
        std::mem::swap(&mut here, &mut next);
    }
    end == End::Whole && here.last() == Some(&true)
}

/// At which bytes characters begin; empty if that is at all of them.
fn beginnings(path: &[u8]) -> Vec<bool> {
    if path.is_ascii() {
        return Vec::new();
    }
    let mut begins = vec![false; path.len()];
    let mut at = 0;
    while let Some((_, width)) = decode(path.get(at..).unwrap_or_default()) {
        if let Some(slot) = begins.get_mut(at) {
            *slot = true;
        }
        at += width;
    }
    begins
}

/// The first character and its width; a byte that is not UTF-8 counts as U+FFFD.
fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    let width = match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    let c = bytes
        .get(..width)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.chars().next());
    Some(c.map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, width)))
}

#[cfg(test)]
mod tests;
