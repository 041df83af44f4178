//! Wrong usage: what is wrong with what was typed, and what would be right. Exit code 2.

use std::error::Error;

use bricklayer::frontend::nearest;

/// What was typed cannot be understood or honoured.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Usage {
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Usage {
    /// `message` names the flag and the value.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// Something that is known from Docker and not there yet.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(format!("{what} is not supported yet"))
    }

    /// Adds why.
    pub(crate) fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Adds what would be right.
    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        Self { hint: Some(text.into()), ..self }
    }

    /// Adds the nearest of `known`, or all of them where none is near.
    pub(crate) fn suggest(self, typed: &str, known: &[&str]) -> Self {
        match nearest(typed, known.iter().copied()) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self.hint(format!("known: {}", known.join(", "))),
        }
    }

    /// For a line of its own.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        let known = ["type", "dest", "compression"];
        let hint =
            |typed: &str| Usage::new("no such key").suggest(typed, &known).hint_text().unwrap().to_owned();
        assert_eq!(hint("tpye"), "did you mean `type`?");
        assert_eq!(hint("quality"), "known: type, dest, compression");
    }
}
