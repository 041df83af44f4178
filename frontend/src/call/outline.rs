//! `--call=outline`: what a target can be given.

use serde::Serialize;

use super::{Location, base64, json, table};
use crate::api::{Options, Resolver};
use crate::diagnostics::Diagnostics;
use crate::dockerfile::Dockerfile;
use crate::lower::{Lowering, Outlined};

/// What a target can be given, each in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The target's name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above its FROM says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments that it or what it needs uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineSecret>,
    /// SSH agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineSecret>,
    /// The Dockerfile, in Base64.
    pub sources: Vec<String>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above its ARG says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The value that it has in this build.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineSecret {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Where it is used first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// What the target of `options` can be given.
///
/// # Errors
///
/// Everything that is wrong in the stages that the target reaches.
pub fn outline(
    dockerfile: &Dockerfile,
    options: &Options,
    resolver: &dyn Resolver,
) -> Result<Outline, Diagnostics> {
    let mut lowering = Lowering::new(dockerfile, options, resolver);
    let target = lowering.run(false)?;
    let Outlined { name, description, args, secrets, ssh } = lowering.outline(target);
    Ok(Outline { name, description, args, secrets, ssh, sources: vec![base64(&dockerfile.text().bytes())] })
}

impl Outline {
    /// For people: a table of each kind.
    pub fn to_text(&self) -> String {
        let mut parts = Vec::new();
        if !(self.name.is_empty() && self.description.is_empty()) {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            parts.push(table(&rows, 1));
        }
        if !self.args.is_empty() {
            let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(self.args.iter().map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]));
            parts.push(table(&rows, 3));
        }
        for (title, entries) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !entries.is_empty() {
                let mut rows = vec![vec![title, "REQUIRED"]];
                rows.extend(
                    entries.iter().map(|e| vec![e.name.as_str(), if e.required { "true" } else { "" }]),
                );
                parts.push(table(&rows, 3));
            }
        }
        parts.join("\n")
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        json(self)
    }
}
