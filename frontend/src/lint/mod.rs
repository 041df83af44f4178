//! Build checks: the rules, which of them are wanted, and the warnings they gave.

pub mod rules;

use std::collections::BTreeSet;

use crate::diagnostics::{Diagnostic, Span};
use crate::lines::Comment;

pub use rules::Rule;

/// What `# check=…` says: which rules are skipped, which experimental ones are wanted, whether warnings fail the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// No rule warns.
    pub skip_all: bool,
    /// These rules don't warn; names as they are, letter case counts.
    pub skip: BTreeSet<String>,
    /// All experimental rules warn.
    pub experimental_all: bool,
    /// These experimental rules warn.
    pub experimental: BTreeSet<String>,
    /// A warning fails the build.
    pub error: bool,
}

impl Config {
    /// Parses `skip=A,B;error=true;experimental=C`; `all` stands for every rule.
    ///
    /// # Errors
    ///
    /// The part that is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        let names = |value: &str| value.split(',').map(|name| name.trim().to_owned()).collect();
        for part in text.split(';') {
            let (key, value) = part.split_once('=').ok_or_else(|| part.trim().to_owned())?;
            let value = value.trim();
            match (key.trim(), value) {
                ("skip", "all") => config.skip_all = true,
                ("skip", names_given) => config.skip = names(names_given),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", names_given) => config.experimental = names(names_given),
                ("error", "true" | "1" | "t" | "T" | "TRUE" | "True") => config.error = true,
                ("error", "false" | "0" | "f" | "F" | "FALSE" | "False") => config.error = false,
                _ => return Err(part.trim().to_owned()),
            }
        }
        Ok(config)
    }

    fn wants(&self, rule: &Rule) -> bool {
        if rule.experimental {
            self.experimental_all || self.experimental.contains(rule.name)
        } else {
            !(self.skip_all || self.skip.contains(rule.name))
        }
    }

    /// With what a `# check=…` comment above an instruction adds.
    fn with(&self, other: Self) -> Self {
        let mut merged = self.clone();
        merged.skip_all |= other.skip_all;
        merged.experimental_all |= other.experimental_all;
        merged.skip.extend(other.skip);
        merged.experimental.extend(other.experimental);
        merged
    }
}

/// The checks of one run.
#[derive(Debug, Default)]
pub(crate) struct Lint {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Lint {
    /// Notes that a rule is broken, if it is wanted; `comments` are those above the instruction.
    pub(crate) fn warn(
        &mut self,
        rule: &'static Rule,
        comments: &[Comment],
        span: Option<Span>,
        message: String,
    ) {
        let wanted = match comments.iter().find_map(local_config) {
            Some(local) => self.config.with(local).wants(rule),
            None => self.config.wants(rule),
        };
        if !wanted {
            return;
        }
        let mut warning = Diagnostic::warning(message, span);
        warning.rule = Some(rule.name);
        warning.url = rule.url;
        if let Some(help) = rule.help {
            warning = warning.help(help);
        }
        self.warnings.push(warning);
    }
}

/// What a comment `check=… words` says; `None`: it says nothing of the kind.
fn local_config(comment: &Comment) -> Option<Config> {
    let (name, value) = comment.text.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("check") {
        return None;
    }
    Config::parse(value.trim().split(' ').next().unwrap_or_default()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_directive() {
        let config = Config::parse("skip=A, B;error=true;experimental=all").unwrap();
        assert_eq!(config.skip, ["A".to_owned(), "B".to_owned()].into());
        assert!(config.error && config.experimental_all && !config.skip_all);
        assert_eq!(Config::parse("").unwrap(), Config::default());
        for (text, part) in [("skip", "skip"), ("error=maybe", "error=maybe"), ("skip=A; what=x", "what=x")] {
            assert_eq!(Config::parse(text).unwrap_err(), part, "{text}");
        }
    }
}
