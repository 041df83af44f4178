//! `--call=check`: everything that is wrong, without a build.

use serde::Serialize;

use super::{Location, base64, json};
use crate::api::{Options, Resolver};
use crate::diagnostics::{Diagnostic, Diagnostics, Severity, render};
use crate::dockerfile::{Dockerfile, sort};
use crate::lint::rules;
use crate::lower::Lowering;
use crate::source::Source;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Broken rules, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// Why a build would fail before its first step.
    pub errors: Vec<Diagnostic>,
    name: String,
    text: String,
    bytes: Vec<u8>,
}

/// A warning, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckWarning {
    /// The rule.
    pub rule_name: String,
    /// What the rule wants.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A page about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is wrong here.
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// An error, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub location: Location,
}

#[derive(Serialize)]
struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct Document {
    warnings: Vec<CheckWarning>,
    sources: Vec<SourceInfo>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

/// Checks a Dockerfile: with a target what it reaches, without one all stages.
pub fn check(text: &[u8], options: &Options, resolver: &dyn Resolver) -> Check {
    let source = Source::new(text);
    let mut found = Check {
        warnings: Vec::new(),
        errors: Vec::new(),
        name: options.dockerfile.clone(),
        text: source.text().to_owned(),
        bytes: text.to_vec(),
    };
    let file = match Dockerfile::parse(text) {
        Ok(file) => file,
        Err(errors) => {
            found.errors = errors.0;
            return found;
        }
    };
    let mut lowering = Lowering::new(&file, options, resolver);
    let all = options.target.as_deref().is_none_or(str::is_empty);
    if let Err(errors) = lowering.run(all) {
        found.errors = errors.0;
    }
    let mut warnings = Diagnostics(std::mem::take(&mut lowering.lint.warnings));
    sort(&mut warnings, file.text());
    warnings.0.dedup();
    found.warnings = warnings.0;
    found
}

impl Check {
    /// The exit code that says what was found: 0 for nothing, 1 otherwise.
    pub fn status(&self) -> u8 {
        u8::from(!(self.warnings.is_empty() && self.errors.is_empty()))
    }

    /// For people: how many warnings there are, then each with its lines.
    pub fn to_text(&self, color: bool) -> String {
        let mut out = match (self.warnings.len(), self.errors.is_empty()) {
            (0, true) => "Check complete, no warnings found.\n".to_owned(),
            (0, false) => String::new(),
            (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
            (n, _) => format!("Check complete, {n} warnings have been found!\n"),
        };
        for diagnostic in self.warnings.iter().chain(&self.errors) {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&render(&diagnostic.clone().into(), &self.name, &self.text, color));
        }
        out
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        let location = |diagnostic: &Diagnostic| diagnostic.lines.map(Location::of_lines).unwrap_or_default();
        let warnings = self
            .warnings
            .iter()
            .filter(|warning| warning.severity == Severity::Warning)
            .map(|warning| {
                let name = warning.rule.unwrap_or_default();
                let rule = rules::ALL.iter().find(|rule| rule.name == name);
                CheckWarning {
                    rule_name: name.to_owned(),
                    description: rule.map(|rule| rule.description.to_owned()).unwrap_or_default(),
                    url: warning.url.map(str::to_owned),
                    detail: warning.message.clone(),
                    location: location(warning),
                }
            })
            .collect();
        let build_error = self.errors.first().map(|first| BuildError {
            message: self.errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("\n"),
            location: location(first),
        });
        let source =
            SourceInfo { filename: self.name.clone(), data: base64(&self.bytes), language: "Dockerfile" };
        json(&Document { warnings, sources: vec![source], build_error })
    }
}
