//! `--flags` of instructions.

use super::{Reader, Word};
use crate::diagnostics::Diagnostic;
use crate::suggest::nearest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value, once.
    Value,
    /// A value each, as often as wanted.
    Values,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(&'static str, Word)>);

impl Flags {
    /// The value of a flag that is given once at most.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, word)| word.clone())
    }

    /// All values of a flag.
    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        self.0.iter().filter(|(n, _)| *n == name).map(|(_, word)| word.clone()).collect()
    }

    /// Whether a switch is on; `None`: it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|word| word.text == "true")
    }
}

impl Reader<'_> {
    /// Checks the flags that are given against those that are known.
    pub(super) fn flags(&self, known: &[(&'static str, Takes)]) -> Result<Flags, Diagnostic> {
        let mut flags = Flags::default();
        for (range, text) in &self.parts.flags {
            let span = self.span(range.clone());
            let (name, value) = match text[2..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&text[2..], None),
            };
            let Some(&(name, takes)) = known.iter().find(|(n, _)| *n == name) else {
                let shown: String = name.chars().take(100).collect();
                let error = Diagnostic::error(format!("unknown flag `--{shown}` for {}", self.name), span);
                if known.is_empty() {
                    return Err(error.label(format!("{} takes no flags", self.name)));
                }
                let all: Vec<String> = known.iter().map(|(n, _)| format!("--{n}")).collect();
                let wanted = format!("--{name}");
                return Err(error
                    .label(format!("expected one of {}", all.join(", ")))
                    .suggest(nearest(&wanted, all.iter().map(String::as_str))));
            };
            if takes != Takes::Values && flags.0.iter().any(|(n, _)| *n == name) {
                return Err(Diagnostic::error(format!("the flag `--{name}` is given twice"), span)
                    .label("expected at most one"));
            }
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    value @ ("true" | "false") => value.to_owned(),
                    _ => {
                        return Err(Diagnostic::error(
                            format!("`--{name}` is a switch, and `{value}` is none of its values"),
                            span,
                        )
                        .label("expected `true` or `false`"));
                    }
                },
                (_, Some(value)) => value.to_owned(),
                (_, None) => {
                    return Err(Diagnostic::error(format!("`--{name}` needs a value"), span)
                        .label(format!("expected `--{name}=…`")));
                }
            };
            flags.0.push((name, Word { text: value, span }));
        }
        Ok(flags)
    }
}
