//! A parsed Dockerfile.

use crate::diagnostics::{Diagnostic, Diagnostics};

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    text: String,
}

impl Dockerfile {
    /// Parses a Dockerfile. Everything that is wrong is reported at once.
    pub fn parse(text: &[u8]) -> Result<Self, Diagnostics> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text: text.to_owned() }),
            Err(_) => Err(Diagnostic::error_outside("the Dockerfile is not UTF-8").into()),
        }
    }

    /// The text that was parsed, for [`render`](crate::render).
    pub fn source(&self) -> &str {
        &self.text
    }
}
