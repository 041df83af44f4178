//! FROM, ARG and ONBUILD.

use super::flags::Takes;
use super::{Heredoc, Reader, Word};
use crate::diagnostics::Diagnostic;
use crate::split::{Parts, plain_words, quoted_words, split};

/// `FROM [--platform=P] IMAGE [AS NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// An image, an earlier stage, or `scratch`; variables as written.
    pub image: Word,
    /// `as`, as it is written.
    pub keyword: Option<Word>,
    /// The stage's name as written.
    pub name: Option<Word>,
    /// `--platform`, if it is not empty.
    pub platform: Option<Word>,
}

impl From {
    /// The stage's name as it is compared: in lower case.
    pub fn lower_name(&self) -> Option<String> {
        self.name.as_ref().map(|word| word.text.to_lowercase())
    }
}

/// One of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The default, unexpanded; `None`: it has none.
    pub default: Option<String>,
    /// Where `name[=default]` stands.
    pub word: Word,
}

/// `ONBUILD INSTRUCTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction's text, with its heredocs, as it is stored in the image.
    pub trigger: String,
}

impl Reader<'_> {
    pub(super) fn from(&self) -> Result<From, Diagnostic> {
        let flags = self.flags(&[("platform", Takes::Value)])?;
        let words: Vec<Word> = plain_words(self.rest()).into_iter().map(|range| self.word(range)).collect();
        let (image, keyword, name) = match words.as_slice() {
            [] => return Err(self.missing("an image, a stage, or `scratch`")),
            [image] => (image, None, None),
            [image, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                (image, Some(keyword), Some(name))
            }
            [_, keyword, ..] => {
                return Err(Diagnostic::error("FROM takes an image and, with AS, a name", keyword.span)
                    .label("expected the end of the line or `AS name`"));
            }
        };
        if let Some(name) = name {
            let lower = name.text.to_lowercase();
            let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !valid {
                return Err(Diagnostic::error(
                    format!("`{}` can't be the name of a stage", name.text),
                    name.span,
                )
                .label("expected a letter, then letters, digits, `-`, `_` or `.`"));
            }
        }
        Ok(From {
            image: image.clone(),
            keyword: keyword.cloned(),
            name: name.cloned(),
            platform: flags.value("platform").filter(|word| !word.text.is_empty()),
        })
    }

    pub(super) fn arg(&self) -> Result<Vec<Argument>, Diagnostic> {
        self.flags(&[])?;
        let mut arguments = Vec::new();
        for range in quoted_words(self.rest(), self.escape) {
            let word = self.word(range);
            let (name, default) = match word.text.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word.text.clone(), None),
            };
            if name.is_empty() {
                return Err(Diagnostic::error("an ARG needs a name before `=`", word.span)
                    .label("expected `name=value`"));
            }
            arguments.push(Argument { name, default, word });
        }
        if arguments.is_empty() { Err(self.missing("at least one name")) } else { Ok(arguments) }
    }

    pub(super) fn onbuild(&self) -> Result<Onbuild, Diagnostic> {
        self.flags(&[])?;
        if self.rest().is_empty() {
            return Err(self.missing("an instruction"));
        }
        let inner = split(self.rest(), self.escape);
        let name = self.rest()[inner.keyword.clone()].to_ascii_uppercase();
        if let "ONBUILD" | "FROM" | "MAINTAINER" = name.as_str() {
            return Err(Diagnostic::error(
                format!("{name} can't stand behind ONBUILD"),
                self.word(inner.keyword.clone()).span,
            )
            .label("expected an instruction that a build can run later"));
        }
        // what is wrong with it is told now, not only to those who build on the image
        let offset = self.parts.rest.start;
        let shift = |range: crate::split::Range| range.start + offset..range.end + offset;
        let parts = Parts {
            keyword: shift(inner.keyword),
            flags: inner.flags.into_iter().map(|(range, text)| (shift(range), text)).collect(),
            rest: shift(inner.rest),
        };
        super::read(self.logical, &parts, self.escape, self.heredocs.clone())?;
        let mut trigger = self.logical.text[self.parts.keyword.end..].trim_start().to_owned();
        for Heredoc { name, content, .. } in &self.heredocs {
            trigger.push('\n');
            trigger.push_str(content);
            trigger.push_str(name);
        }
        Ok(Onbuild { trigger })
    }
}
