//! `--call=targets`: the stages of a Dockerfile.

use serde::Serialize;

use super::{Location, base64, json, table};
use crate::dockerfile::Dockerfile;
use crate::lower::described;

/// All stages, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// The stages.
    pub targets: Vec<Target>,
    /// The Dockerfile, in Base64.
    pub sources: Vec<String>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name in lower case, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// It is built if nothing else is asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What the comment above its FROM says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it stands on, as written.
    pub base: String,
    /// `--platform` as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Its FROM.
    pub location: Location,
}

/// The stages of a Dockerfile.
pub fn targets(dockerfile: &Dockerfile) -> Targets {
    let count = dockerfile.stages().len();
    let targets = dockerfile.stages().enumerate().map(|(i, stage)| {
        let name = stage.from.lower_name().unwrap_or_default();
        Target {
            default: i + 1 == count,
            description: described(stage.instruction, &name).unwrap_or_default(),
            base: stage.from.image.text.clone(),
            platform: stage.from.platform.as_ref().map(|word| word.text.clone()).unwrap_or_default(),
            location: Location::of_lines(stage.instruction.lines),
            name,
        }
    });
    Targets { targets: targets.collect(), sources: vec![base64(&dockerfile.text().bytes())] }
}

impl Targets {
    /// For people: a table.
    pub fn to_text(&self) -> String {
        let names: Vec<String> = self
            .targets
            .iter()
            .map(|target| match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            })
            .collect();
        let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
        rows.extend(
            names.iter().zip(&self.targets).map(|(name, target)| vec![name.as_str(), &target.description]),
        );
        table(&rows, 1)
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        json(self)
    }
}
