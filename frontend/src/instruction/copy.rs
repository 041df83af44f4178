//! COPY and ADD.

use super::flags::Takes;
use super::{Heredoc, Reader, Word};
use crate::diagnostics::Diagnostic;
use crate::split::{marker, plain_words};

/// `COPY [flags] SOURCE… DESTINATION`; the same for ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFiles {
    /// Paths, URLs and git repositories.
    pub sources: Vec<Word>,
    /// Files whose content stands in the Dockerfile.
    pub heredocs: Vec<HeredocFile>,
    /// Where to.
    pub destination: Word,
    /// `--from` (COPY): a stage, its number, an image, or a named context.
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY).
    pub parents: bool,
    /// `--exclude`, each.
    pub exclude: Vec<Word>,
    /// `--checksum` (ADD).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (ADD).
    pub unpack: Option<bool>,
}

/// A heredoc that is a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeredocFile {
    /// The heredoc.
    pub heredoc: Heredoc,
    /// Where `<<NAME` stands.
    pub word: Word,
}

impl Reader<'_> {
    pub(super) fn copy(&self) -> Result<CopyFiles, Diagnostic> {
        let mut known = vec![
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Bool),
            ("exclude", Takes::Values),
        ];
        if self.name == "COPY" {
            known.extend([("from", Takes::Value), ("parents", Takes::Bool)]);
        } else {
            known.extend([
                ("checksum", Takes::Value),
                ("keep-git-dir", Takes::Bool),
                ("unpack", Takes::Bool),
            ]);
        }
        let flags = self.flags(&known)?;
        let json = self.json(0..self.rest().len())?;
        let is_json = json.is_some();
        let mut words: Vec<Word> = match json {
            Some(strings) => {
                let span = self.rest_word().span;
                strings.into_iter().map(|text| Word { text, span }).collect()
            }
            None => plain_words(self.rest()).into_iter().map(|range| self.word(range)).collect(),
        };
        let destination = match words.pop() {
            Some(destination) if !words.is_empty() => destination,
            Some(only) => {
                return Err(Diagnostic::error(
                    format!("{} needs a source and a destination", self.name),
                    only.span,
                )
                .label("expected one more path behind this one"));
            }
            None => return Err(self.missing("a source and a destination")),
        };
        let begins_heredoc = |word: &Word| if is_json { None } else { marker(&word.text) };
        if begins_heredoc(&destination).is_some() {
            return Err(Diagnostic::error(
                format!("a heredoc can't be the destination of {}", self.name),
                destination.span,
            )
            .label("expected a path"));
        }
        let (mut sources, mut heredocs) = (Vec::new(), Vec::new());
        for word in words {
            let heredoc = begins_heredoc(&word).and_then(|m| self.heredocs.iter().find(|h| h.name == m.name));
            match heredoc {
                Some(heredoc) => heredocs.push(HeredocFile { heredoc: heredoc.clone(), word }),
                None => sources.push(word),
            }
        }
        Ok(CopyFiles {
            sources,
            heredocs,
            destination,
            from: flags.value("from").filter(|word| !word.text.is_empty()),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: flags.values("exclude"),
            checksum: flags.value("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }
}
