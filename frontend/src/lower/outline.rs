//! What a target can be given: its arguments, secrets and agents.

use std::collections::BTreeSet;

use super::Lowering;
use super::stage::Base;
use crate::call::{Location, OutlineArg, OutlineSecret};
use crate::instruction::{Argument, Instruction, Kind};
use crate::words::Variables;

/// What a lowered target can be given, each in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Outlined {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) args: Vec<OutlineArg>,
    pub(crate) secrets: Vec<OutlineSecret>,
    pub(crate) ssh: Vec<OutlineSecret>,
}

impl Lowering<'_> {
    /// Gathers what the target and all that it needs can be given.
    pub(crate) fn outline(&self, target: usize) -> Outlined {
        let mut out = Outlined::default();
        if let Some(file) = self.stages[target].file {
            out.name = self.stages[target].name.clone().unwrap_or_default();
            out.description = described(file.instruction, &out.name).unwrap_or_default();
        }
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut visited = BTreeSet::new();
        // the target's own first: of several ARGs with one name the nearest counts
        let mut waiting = std::collections::VecDeque::from([target]);
        while let Some(index) = waiting.pop_front() {
            if !visited.insert(index) {
                continue;
            }
            self.outline_stage(index, &mut seen, &mut out.args);
            if let Base::Stage(base) = self.stages[index].base {
                waiting.push_back(base);
            }
            waiting.extend(&self.stages[index].dependencies);
        }
        let mut secrets = BTreeSet::new();
        for note in self.notes.iter().filter(|note| visited.contains(&note.stage)) {
            if !secrets.insert((note.ssh, &note.id)) {
                continue;
            }
            let location = Some(Location::of_lines(note.lines));
            let entry = OutlineSecret { name: note.id.clone(), required: note.required, location };
            if note.ssh { out.ssh.push(entry) } else { out.secrets.push(entry) }
        }
        out.args.sort_by_key(|arg| arg.location.as_ref().map(Location::first_line));
        out.secrets.sort_by_key(|secret| secret.location.as_ref().map(Location::first_line));
        out.ssh.sort_by_key(|secret| secret.location.as_ref().map(Location::first_line));
        out
    }

    fn outline_stage(&self, index: usize, seen: &mut BTreeSet<String>, args: &mut Vec<OutlineArg>) {
        let stage = &self.stages[index];
        let Some(file) = stage.file else { return };
        let mut globals: Vec<String> = Vec::new();
        // later declarations of one name in a stage count
        for instruction in file.body.iter().rev() {
            let Kind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments.iter().rev() {
                // also from the arguments that every build has, which are nobody's to list
                let inherited = argument.default.is_none()
                    && !self.build_args.contains_key(&argument.name)
                    && self.globals.get(&argument.name).is_some();
                if inherited {
                    globals.push(argument.name.clone());
                } else if seen.insert(argument.name.clone()) {
                    let value = stage.state.as_ref().and_then(|state| state.args.get(&argument.name));
                    args.push(entry(argument, instruction, value.unwrap_or_default()));
                }
            }
        }
        for word in std::iter::once(&file.from.image).chain(&file.from.platform) {
            if let Ok(expansion) = self.expand_with(&word.text, word, &self.globals) {
                globals.extend(expansion.matched);
                globals.extend(expansion.unmatched);
            }
        }
        while let Some(name) = globals.pop() {
            for instruction in self.file.global_args().iter().rev() {
                let Kind::Arg(arguments) = &instruction.kind else { continue };
                let Some(argument) = arguments.iter().rev().find(|argument| argument.name == name) else {
                    continue;
                };
                if !seen.insert(name.clone()) {
                    break;
                }
                args.push(entry(argument, instruction, self.globals.get(&name).unwrap_or_default()));
                // what its default is made of can be given as well
                if let Some(default) = &argument.default
                    && let Ok(expansion) = self.expand_with(default, &argument.word, &self.globals)
                {
                    globals.extend(expansion.matched);
                    globals.extend(expansion.unmatched);
                }
                break;
            }
        }
    }
}

fn entry(argument: &Argument, instruction: &Instruction, value: &str) -> OutlineArg {
    OutlineArg {
        name: argument.name.clone(),
        description: described(instruction, &argument.name).unwrap_or_default(),
        value: value.to_owned(),
        location: Some(Location::of_lines(instruction.lines)),
    }
}

/// What the comment `# name description` above an instruction says.
pub(crate) fn described(instruction: &Instruction, name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let mut comments = instruction.comments.iter();
    comments.find_map(|comment| comment.text.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}
