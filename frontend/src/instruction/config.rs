//! What only changes the image's configuration: ENV, LABEL, EXPOSE, VOLUME.

use super::{Reader, Word};
use crate::diagnostics::Diagnostic;
use crate::split::{BLANKS, plain_words, quoted_words};

/// A name and a value of ENV or LABEL; both may hold quotes and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// The old form: `NAME value`, without `=`.
    pub legacy: bool,
    /// Where both stand.
    pub word: Word,
}

impl Reader<'_> {
    pub(super) fn pairs(&self) -> Result<Vec<Pair>, Diagnostic> {
        self.flags(&[])?;
        let rest = self.rest();
        let words = quoted_words(rest, self.escape);
        let Some(first) = words.first() else { return Err(self.missing("at least one name and value")) };
        if !rest[first.clone()].contains('=') {
            let end = rest.find(BLANKS).unwrap_or(rest.len());
            let value = rest[end..].trim_start_matches(BLANKS);
            let word = self.rest_word();
            if end == rest.len() {
                return Err(Diagnostic::error(
                    format!("{} needs a value behind the name", self.name),
                    word.span,
                )
                .label("expected `name=value`"));
            }
            return Ok(vec![Pair {
                name: rest[..end].to_owned(),
                value: value.to_owned(),
                legacy: true,
                word,
            }]);
        }
        let mut pairs = Vec::with_capacity(words.len());
        for range in words {
            let word = self.word(range);
            let Some((name, value)) = word.text.split_once('=') else {
                return Err(Diagnostic::error(format!("`{}` has no `=`", word.text), word.span)
                    .label("expected `name=value`")
                    .help("put quotes around a value that has blanks"));
            };
            if name.is_empty() {
                return Err(Diagnostic::error(format!("{} needs a name before `=`", self.name), word.span)
                    .label("expected `name=value`"));
            }
            pairs.push(Pair { name: name.to_owned(), value: value.to_owned(), legacy: false, word });
        }
        Ok(pairs)
    }

    pub(super) fn expose(&self) -> Result<Vec<Word>, Diagnostic> {
        self.flags(&[])?;
        let words: Vec<Word> = plain_words(self.rest()).into_iter().map(|range| self.word(range)).collect();
        if words.is_empty() { Err(self.missing("at least one port")) } else { Ok(words) }
    }

    pub(super) fn volume(&self) -> Result<Vec<Word>, Diagnostic> {
        self.flags(&[])?;
        let words: Vec<Word> = match self.json(0..self.rest().len())? {
            Some(strings) => {
                let span = self.rest_word().span;
                strings.into_iter().map(|text| Word { text: text.trim().to_owned(), span }).collect()
            }
            None => plain_words(self.rest()).into_iter().map(|range| self.word(range)).collect(),
        };
        if words.is_empty() {
            return Err(self.missing("at least one path"));
        }
        match words.iter().find(|word| word.text.is_empty()) {
            Some(word) => {
                Err(Diagnostic::error("a VOLUME can't be an empty text", word.span).label("expected a path"))
            }
            None => Ok(words),
        }
    }
}
