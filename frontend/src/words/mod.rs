//! Words: quotes, escapes and variables.
//!
//! The language is the shell's, as far as Dockerfiles have it: `'…'` keeps everything, `"…"` keeps all but `$` and the escape
//! character before `"`, `$` and itself, a bare escape character keeps whatever follows. `$v` and `${v}` take a variable's value;
//! `${v:-w}`, `${v-w}`, `${v:+w}`, `${v+w}`, `${v:?w}`, `${v?w}`, `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`, `${v/p/r}` and
//! `${v//p/r}` do what they do in a shell, where `w`, `p` and `r` are words themselves. What an expansion gives is never
//! scanned again.
//!
//! A [`Budget`] bounds the work and the text that one Dockerfile's expansions may make, whatever it nests or doubles.

mod pattern;

use std::cell::Cell;

/// Where variables come from.
pub(crate) trait Variables {
    /// The value of a variable; `None`: it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
pub(crate) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// What all expansions of one Dockerfile may cost together, in bytes of text made (and steps of pattern matching).
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

/// Enough for any Dockerfile that a person or a generator writes.
const EXPANDED: usize = 64 << 20;
/// How deep `${a:-${b:-…}}` may nest.
const DEPTH: usize = 100;

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(EXPANDED))
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(bytes: usize) -> Self {
        Self(Cell::new(bytes))
    }

    fn take(&self, cost: usize) -> Result<(), Reason> {
        match self.0.get().checked_sub(cost) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(Reason::TooMuch),
        }
    }
}

/// Why a word can't be expanded, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct WordError {
    /// What is wrong.
    pub(crate) reason: Reason,
    /// The byte of the word at which the faulty part begins.
    pub(crate) at: usize,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("unterminated quote: expected a closing {0}")]
    Quote(char),
    #[error("`${{` is never closed: expected `}}`")]
    Brace,
    #[error("`${{}}` names no variable")]
    Empty,
    #[error("bad substitution: `${{` needs a variable's name, and `{0}` is none")]
    Name(char),
    #[error("unknown modifier `{0}` in `${{…}}`")]
    Modifier(String),
    #[error("`${{{0}/…}}` needs a second `/` before what replaces the pattern")]
    Slash(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid escape `\\{0}` in a pattern: only `\\*`, `\\?`, `\\\\`, `\\/` and `\\}}` are known")]
    PatternEscape(String),
    #[error("`${{…}}` is nested more than {DEPTH} deep")]
    TooDeep,
    #[error("the variables of this Dockerfile expand to more than {} MiB", EXPANDED >> 20)]
    TooMuch,
}

impl Reason {
    /// What was expected, in short, for the mark under the place.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Quote(_) => "this quote is never closed",
            Self::Brace => "this `${` is never closed",
            Self::Empty | Self::Name(_) => "expected a name after `${`",
            Self::Modifier(_) => {
                "expected `}` or one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`"
            }
            Self::Slash(_) => "expected `${name/pattern/replacement}`",
            Self::Required { .. } => "this variable must have a value",
            Self::PatternEscape(_) => "in this pattern",
            Self::TooDeep => "nested too deep",
            Self::TooMuch => "expanding this makes too much text",
        }
    }
}

/// What a word expands to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expansion {
    /// As one text.
    pub(crate) text: String,
    /// As words: blanks outside of quotes divide, those that a variable brought too.
    pub(crate) words: Vec<String>,
    /// Variables that were used and are set, each once.
    pub(crate) matched: Vec<String>,
    /// Variables that were used and are not set, each once.
    pub(crate) unmatched: Vec<String>,
}

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lexer {
    /// The escape character.
    pub(crate) escape: char,
    /// Keep quotes in the result.
    pub(crate) raw_quotes: bool,
    /// Keep escape characters in the result.
    pub(crate) raw_escapes: bool,
    /// Quotes mean nothing (the bodies of heredocs).
    pub(crate) plain_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub(crate) keep_unset: bool,
}

impl Lexer {
    /// The usual rules.
    pub(crate) const fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, plain_quotes: false, keep_unset: false }
    }

    /// The rules for bodies of heredocs: quotes are plain text, and the escape character is the backslash whatever the file says.
    pub(crate) const fn heredoc() -> Self {
        Self { plain_quotes: true, ..Self::new('\\') }
    }

    /// Expands a word.
    pub(crate) fn expand(
        &self,
        word: &str,
        variables: &dyn Variables,
        budget: &Budget,
    ) -> Result<Expansion, WordError> {
        // most words have nothing to expand
        if !word.contains(['$', '\'', '"', '<', self.escape]) && !word.contains(char::is_whitespace) {
            budget.take(word.len()).map_err(|reason| WordError { reason, at: 0 })?;
            let words = if word.is_empty() { Vec::new() } else { vec![word.to_owned()] };
            return Ok(Expansion { text: word.to_owned(), words, ..Expansion::default() });
        }
        let mut reader = Reader {
            lexer: self,
            rest: word.chars(),
            length: word.len(),
            variables,
            budget,
            depth: 0,
            seen: Expansion::default(),
        };
        let mut out = Output::new(true);
        reader.run(None, self.raw_escapes, &mut out)?;
        out.end_word();
        Ok(Expansion { text: out.text, words: out.words, ..reader.seen })
    }
}

/// What has been read so far, as text and as words.
struct Output {
    text: String,
    split: bool,
    words: Vec<String>,
    word: String,
}

impl Output {
    fn new(split: bool) -> Self {
        Self { text: String::new(), split, words: Vec::new(), word: String::new() }
    }

    /// Text in which blanks divide words.
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        if self.split {
            for c in text.chars() {
                if c.is_whitespace() {
                    self.end_word();
                } else {
                    self.word.push(c);
                }
            }
        }
    }

    /// Text that belongs to one word.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        if self.split {
            self.word.push_str(text);
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

struct Reader<'a> {
    lexer: &'a Lexer,
    rest: std::str::Chars<'a>,
    length: usize,
    variables: &'a dyn Variables,
    budget: &'a Budget,
    depth: usize,
    /// Only its names are used.
    seen: Expansion,
}

impl<'a> Reader<'a> {
    fn at(&self) -> usize {
        self.length - self.rest.as_str().len()
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    fn fail<T>(&self, reason: Reason, at: usize) -> Result<T, WordError> {
        Err(WordError { reason, at })
    }

    fn charge(&self, cost: usize, at: usize) -> Result<(), WordError> {
        self.budget.take(cost).map_err(|reason| WordError { reason, at })
    }

    /// Reads up to `stop` (which is consumed) or the end. Returns whether `stop` was found.
    fn run(&mut self, stop: Option<char>, raw_escapes: bool, out: &mut Output) -> Result<bool, WordError> {
        let mut buffer = [0; 4];
        while let Some(c) = self.peek() {
            let at = self.at();
            self.charge(1, at)?;
            if Some(c) == stop {
                self.next();
                return Ok(true);
            }
            match c {
                '\'' if !self.lexer.plain_quotes => {
                    let text = self.single_quoted()?;
                    self.charge(text.len(), at)?;
                    out.push_quoted(&text);
                }
                '"' if !self.lexer.plain_quotes => {
                    let text = self.double_quoted(raw_escapes)?;
                    self.charge(text.len(), at)?;
                    out.push_quoted(&text);
                }
                '$' => {
                    let text = self.dollar()?;
                    self.charge(text.len(), at)?;
                    out.push(&text);
                }
                '<' => {
                    // blanks between `<<` and the marker of a heredoc divide nothing
                    self.next();
                    out.push_quoted("<");
                    if self.peek() == Some('<') {
                        self.next();
                        out.push_quoted("<");
                        while let Some(blank @ (' ' | '\t' | '\r')) = self.peek() {
                            self.next();
                            out.push_quoted(blank.encode_utf8(&mut buffer));
                        }
                    }
                }
                c if c == self.lexer.escape => {
                    self.next();
                    if raw_escapes {
                        out.push_quoted(c.encode_utf8(&mut buffer));
                    }
                    if let Some(escaped) = self.next() {
                        out.push_quoted(escaped.encode_utf8(&mut buffer));
                    }
                }
                c => {
                    self.next();
                    out.push(c.encode_utf8(&mut buffer));
                }
            }
        }
        Ok(false)
    }

    fn single_quoted(&mut self) -> Result<String, WordError> {
        let start = self.at();
        self.next();
        let body = self.rest.as_str();
        let Some(end) = body.find('\'') else { return self.fail(Reason::Quote('\''), start) };
        self.rest = body[end + 1..].chars();
        let body = &body[..end];
        Ok(if self.lexer.raw_quotes { format!("'{body}'") } else { body.to_owned() })
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, WordError> {
        let start = self.at();
        let escape = self.lexer.escape;
        let mut out = String::new();
        self.next();
        if self.lexer.raw_quotes {
            out.push('"');
        }
        loop {
            match self.peek() {
                None => return self.fail(Reason::Quote('"'), start),
                Some('"') => {
                    self.next();
                    if self.lexer.raw_quotes {
                        out.push('"');
                    }
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    let mut c = c;
                    if c == escape {
                        if raw_escapes {
                            out.push(c);
                        }
                        match self.peek() {
                            None => continue,
                            Some(escaped) if escaped == '"' || escaped == '$' || escaped == escape => {
                                self.next();
                                c = escaped;
                            }
                            Some(_) => {}
                        }
                    }
                    out.push(c);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, WordError> {
        let start = self.at();
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return self.fail(Reason::Brace, start),
            Some('}') => return self.fail(Reason::Empty, start),
            Some(c @ ('{' | ':')) => return self.fail(Reason::Name(c), start),
            Some(_) => {}
        }
        if self.depth >= DEPTH {
            return self.fail(Reason::TooDeep, start);
        }
        self.depth += 1;
        let result = self.braces(start);
        self.depth -= 1;
        result
    }

    /// After `${`.
    fn braces(&mut self, start: usize) -> Result<String, WordError> {
        let name = self.name();
        let Some(first) = self.next() else { return self.fail(Reason::Brace, start) };
        match first {
            '}' => Ok(match self.lookup(&name) {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            '/' => self.replace(start, &name),
            '#' | '%' => self.remove(start, &name, first),
            ':' => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.choose(start, &name, operator, true),
                // a shell's own, such as `${v:0:2}`: where variables stay as they are written, it does too
                Some(other)
                    if self.lexer.keep_unset
                        && !matches!(other, '#' | '%')
                        && self.lookup(&name).is_none() =>
                {
                    let word = self.inner(start, '}', false, Reason::Brace)?;
                    Ok(format!("${{{name}:{other}{word}}}"))
                }
                Some(other) => self.fail(Reason::Modifier(format!(":{other}")), start),
                None => self.fail(Reason::Brace, start),
            },
            '-' | '+' | '?' => self.choose(start, &name, first, false),
            other if name.is_empty() => self.fail(Reason::Name(other), start),
            other => self.fail(Reason::Modifier(other.to_string()), start),
        }
    }

    /// The word up to `stop`.
    fn inner(
        &mut self,
        start: usize,
        stop: char,
        raw_escapes: bool,
        missing: Reason,
    ) -> Result<String, WordError> {
        let mut out = Output::new(false);
        if self.run(Some(stop), raw_escapes, &mut out)? { Ok(out.text) } else { self.fail(missing, start) }
    }

    fn choose(
        &mut self,
        start: usize,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, WordError> {
        let word = self.inner(start, '}', false, Reason::Brace)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let usable = value.filter(|v| !(empty_is_unset && v.is_empty()));
        match (operator, usable) {
            ('-', Some(value)) => Ok(value.to_owned()),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value.to_owned()),
            (_, None) => {
                let message = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "must be set, and is not".to_owned(),
                    (true, Some(_)) => "must not be empty, and is".to_owned(),
                };
                self.fail(Reason::Required { name: name.to_owned(), message }, start)
            }
        }
    }

    fn remove(&mut self, start: usize, name: &str, operator: char) -> Result<String, WordError> {
        let word = self.inner(start, '}', true, Reason::Brace)?;
        let Some(value) = self.lookup(name) else {
            return Ok(if self.lexer.keep_unset {
                format!("${{{name}{operator}{word}}}")
            } else {
                String::new()
            });
        };
        let (longest, pattern) = match word.strip_prefix(operator) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let result = if operator == '#' {
            pattern::without_prefix(value, pattern, longest, &|cost| self.budget.take(cost))
        } else {
            pattern::without_suffix(value, pattern, longest, &|cost| self.budget.take(cost))
        };
        result.or_else(|reason| self.fail(reason, start))
    }

    fn replace(&mut self, start: usize, name: &str) -> Result<String, WordError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.inner(start, '/', true, Reason::Slash(name.to_owned()))?;
        let replacement = self.inner(start, '}', true, Reason::Brace)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            let slash = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"));
        }
        // a pattern may match nothing
        let value = value.unwrap_or_default();
        pattern::replace(value, &pattern, &replacement, all, &|cost| self.budget.take(cost))
            .or_else(|reason| self.fail(reason, start))
    }

    /// A name, a number, or one of the shell's special parameters; may be empty.
    fn name(&mut self) -> String {
        let rest = self.rest.as_str();
        let end = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            Some(_) => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')),
            None => None,
        }
        .unwrap_or(rest.len());
        self.rest = rest[end..].chars();
        rest[..end].to_owned()
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let names = if value.is_some() { &mut self.seen.matched } else { &mut self.seen.unmatched };
        if !names.iter().any(|n| n == name) && names.len() < 1000 {
            names.push(name.to_owned());
        }
        value
    }
}

#[cfg(test)]
mod tests;
