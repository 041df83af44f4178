//! What people see of steps: `[build 2/5] RUN make`.

use bricklayer_solver::explain::secret::is_secret;
use bricklayer_solver::graph::{Location, StepInfo};

use super::Lowering;
use super::stage::Step;
use super::state::State;
use crate::words::{Lexer, Variables};

/// Variables of a stage, some of them hidden because they are secrets of the step.
pub(super) struct Masked<'a> {
    pub(super) variables: &'a dyn Variables,
    pub(super) hidden: &'a [String],
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name);
        match self.hidden.iter().any(|hidden| hidden == name) || (value.is_some() && is_secret(name)) {
            true => Some("****"),
            false => value,
        }
    }
}

impl Lowering<'_> {
    /// What people see of a step of a stage; counts it.
    pub(super) fn step_info(&mut self, index: usize, step: &Step<'_>, state: &State, text: &str) -> StepInfo {
        let prefix = self.step_prefix(index);
        let trigger = if step.trigger { "ONBUILD " } else { "" };
        let instruction = &step.instruction;
        let mut info = self.plain_info(index, state);
        info.name = format!("{prefix}{trigger}{text}");
        info.instruction.clone_from(&instruction.text);
        info.location = Some(Location {
            file: self.options.dockerfile.clone(),
            first: instruction.lines.0,
            last: instruction.lines.1,
        });
        info
    }

    /// A stage's name, platform and caching, without a step's name.
    fn plain_info(&self, index: usize, state: &State) -> StepInfo {
        StepInfo {
            stage: self.stages[index].label.clone(),
            platform: Some(state.platform.clone()),
            no_cache: self.no_cache(index),
            ..StepInfo::default()
        }
    }

    /// `[build 2/5] `, counting one more; empty for what is no stage.
    pub(super) fn step_prefix(&mut self, index: usize) -> String {
        let single = self.single;
        let stage = &mut self.stages[index];
        if stage.total == 0 {
            return String::new();
        }
        stage.counted += 1;
        let width = stage.total.ilog10() as usize + 1;
        let (number, total) = (stage.counted, stage.total);
        if single {
            format!("[{number:width$}/{total}] ")
        } else {
            format!("[{} {number:width$}/{total}] ", stage.label)
        }
    }

    /// Is the stage to be run again?
    pub(super) fn no_cache(&self, index: usize) -> bool {
        let name = self.stages[index].name.as_deref();
        self.options.no_cache
            || name.is_some_and(|name| {
                self.options.no_cache_filter.iter().any(|wanted| wanted.to_lowercase() == name)
            })
    }

    /// An instruction as it is shown: its name in upper case, variables expanded as far as they are known, values that
    /// look like secrets not shown.
    pub(super) fn shown(&self, text: &str, variables: &dyn Variables, shell: bool) -> String {
        let lexer =
            if shell { Lexer { raw_quotes: true, keep_unset: true, ..self.lexer } } else { self.lexer };
        let masked = Masked { variables, hidden: &[] };
        let text = match lexer.expand(text, &masked, &self.budget) {
            Ok(expansion) => expansion.text,
            Err(_) => text.to_owned(),
        };
        match text.split_once(' ') {
            Some((name, rest)) => format!("{} {rest}", name.to_uppercase()),
            None => text.to_uppercase(),
        }
    }
}
