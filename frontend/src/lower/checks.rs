//! The rules that look at the whole file, not at what a build makes of it.

use std::collections::HashSet;

use super::Lowering;
use super::state::Env;
use crate::instruction::{Instruction, Kind};
use crate::lint::rules;
use crate::reference::is_valid;
use crate::suggest::nearest;

impl Lowering<'_> {
    /// Looks at names, letter case, comments and old forms.
    pub(super) fn check_file(&mut self) {
        let file = self.file;
        let (mut lower, mut upper) = (0usize, 0usize);
        let in_stages = &file.instructions()[file.global_args().len()..];
        for instruction in in_stages {
            match instruction.keyword.text.as_str() {
                name if is_lower(name) => lower += 1,
                name if is_upper(name) => upper += 1,
                _ => {}
            }
        }
        let majority_is_lower = lower > upper;
        for instruction in file.instructions() {
            if let Some(span) = instruction.empty_line {
                let message = "Empty continuation line".to_owned();
                self.lint.warn(&rules::NO_EMPTY_CONTINUATION, &[], Some(span), message);
            }
            match &instruction.kind {
                Kind::Maintainer(_) => self.lint.warn(
                    &rules::MAINTAINER_DEPRECATED,
                    &instruction.comments,
                    Some(instruction.span),
                    "Maintainer instruction is deprecated in favor of using label".to_owned(),
                ),
                Kind::Arg(arguments) => {
                    let names: Vec<&str> = arguments.iter().map(|a| a.name.as_str()).collect();
                    self.check_description("ARG", &names, instruction);
                }
                _ => {}
            }
        }
        for instruction in in_stages {
            let name = &instruction.keyword.text;
            let wanted = match majority_is_lower {
                true if !is_lower(name) => "lowercase",
                false if !is_upper(name) => "uppercase",
                _ => continue,
            };
            let message =
                format!("Command '{name}' should match the case of the command majority ({wanted})");
            let span = Some(instruction.keyword.span);
            self.lint.warn(&rules::CONSISTENT_INSTRUCTION_CASING, &[], span, message);
        }
        let mut names: HashSet<String> = HashSet::new();
        for stage in file.stages() {
            let (from, instruction) = (stage.from, stage.instruction);
            let (Some(name), Some(lower), Some(keyword)) = (&from.name, from.lower_name(), &from.keyword)
            else {
                continue;
            };
            if name.text != lower {
                let message = format!("Stage name '{}' should be lowercase", name.text);
                self.lint.warn(&rules::STAGE_NAME_CASING, &instruction.comments, Some(name.span), message);
            }
            let written = &instruction.keyword.text;
            let matches = match written.as_str() {
                from if is_lower(from) => is_lower(&keyword.text),
                from if is_upper(from) => is_upper(&keyword.text),
                _ => true,
            };
            if !matches {
                let message = format!("'{}' and '{written}' keywords' casing do not match", keyword.text);
                self.lint.warn(&rules::FROM_AS_CASING, &instruction.comments, Some(keyword.span), message);
            }
            self.check_description("FROM", &[&lower], instruction);
            if matches!(lower.as_str(), "scratch" | "context") {
                let message = format!("Stage name should not use the same name as reserved stage {lower:?}");
                self.lint.warn(&rules::RESERVED_STAGE_NAME, &[], Some(name.span), message);
            }
            if !names.insert(lower.clone()) {
                let message = format!("Duplicate stage name {lower:?}, stage names should be unique");
                self.lint.warn(&rules::DUPLICATE_STAGE_NAME, &[], Some(name.span), message);
            }
        }
    }

    /// The comment above an ARG or a FROM should describe it.
    fn check_description(&mut self, kind: &str, names: &[&str], instruction: &Instruction) {
        let Some(comment) = instruction.comments.last() else { return };
        let first = comment.text.split(' ').next().unwrap_or_default();
        if names.contains(&first) {
            return;
        }
        let example = match names {
            [name] => name,
            _ => "<arg_key>",
        };
        let message = format!("Comment for {kind} should follow the format: `# {example} <description>`");
        self.lint.warn(
            &rules::INVALID_DEFINITION_DESCRIPTION,
            &instruction.comments,
            Some(comment.span),
            message,
        );
    }

    /// Bases should be names of images also when no build argument is given.
    pub(super) fn check_defaults_in_from(&mut self) {
        let mut defaults: Env = self.globals.clone();
        for instruction in self.file.global_args() {
            let Kind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                let Some(default) = &argument.default else { continue };
                match self.expand_with(default, &argument.word, &defaults) {
                    Ok(expansion) => defaults.set(&argument.name, &expansion.text),
                    // it is told where it is an error
                    Err(_) => return,
                }
            }
        }
        for stage in self.file.stages() {
            let image = &stage.from.image;
            let Ok(expansion) = self.expand_with(&image.text, image, &defaults) else { return };
            if !is_valid(&expansion.text) {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    image.text
                );
                self.lint.warn(&rules::INVALID_DEFAULT_ARG_IN_FROM, &[], Some(image.span), message);
            }
        }
    }

    /// Build arguments that are given should be declared somewhere.
    pub(super) fn check_unused_build_args(&mut self) {
        let declared: Vec<&str> = self
            .file
            .instructions()
            .iter()
            .filter_map(|i| match &i.kind {
                Kind::Arg(arguments) => Some(arguments),
                _ => None,
            })
            .flatten()
            .map(|argument| argument.name.as_str())
            .chain(self.trigger_args.iter().map(String::as_str))
            .collect();
        for (name, _) in &self.options.build_args {
            if declared.contains(&name.as_str()) || is_predefined(name) {
                continue;
            }
            let mut message = format!("the build argument `{name}` is used by no ARG");
            if let Some(near) = nearest(name, declared.iter().copied()) {
                message.push_str(&format!(" (did you mean {near}?)"));
            }
            self.lint.warn(&rules::UNUSED_BUILD_ARG, &[], None, message);
        }
    }
}

fn is_lower(name: &str) -> bool {
    name == name.to_lowercase()
}

fn is_upper(name: &str) -> bool {
    name == name.to_uppercase()
}

/// The proxy variables, in lower case.
pub(super) const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Is it an argument that means something without ARG?
fn is_predefined(name: &str) -> bool {
    const PLATFORM: [&str; 5] = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"];
    let platform = name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"));
    name.starts_with("BUILDKIT_")
        || matches!(name, "SOURCE_DATE_EPOCH" | "TARGETSTAGE")
        || platform.is_some_and(|rest| PLATFORM.contains(&rest))
        || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}
