//! Typed instructions to graph.
//!
//! Order: global arguments; names and bases of all stages; the target; what stages use of each other; images of the stages that
//! the target reaches, all at once, and again as long as their ONBUILD triggers bring new ones; then the reached stages'
//! instructions, in the order of the file. An error in one instruction does not hide those behind it.
//!
//! One file a task: `stage` finds and resolves stages, `state` is what an instruction changes, `config`, `run`, `mount` and `copy`
//! lower the instructions, `source` makes steps for contexts and images, `names` says what people see, `checks` are the rules
//! that look at the whole file.

mod checks;
mod config;
mod copy;
mod mount;
mod names;
mod outline;
mod ports;
mod run;
mod source;
mod stage;
mod state;

pub(crate) use outline::{Outlined, described};
pub use source::remote_context;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use bricklayer_solver::graph::Graph;
use bricklayer_solver::image::History;

use crate::api::{Build, Lowered, Options, Resolver};
use crate::diagnostics::{Diagnostic, Diagnostics, Span};
use crate::dockerfile::{Dockerfile, sort};
use crate::instruction::{Instruction, Kind, Word};
use crate::lint::{Config, Lint, rules};
use crate::suggest::nearest;
use crate::text::rfc3339;
use crate::words::{Budget, Expansion, Lexer, Variables, WordError};
use stage::{Base, Stage};
use state::{Env, Root, State};

/// The graph of the stage that `options` want, with everything that it needs.
///
/// # Errors
///
/// Everything that is wrong in the stages that the target reaches.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &Options,
    resolver: &dyn Resolver,
) -> Result<Lowered, Diagnostics> {
    let mut lowering = Lowering::new(dockerfile, options, resolver);
    let target = lowering.run(false)?;
    lowering.finish(target)
}

/// What the environments and histories of all steps may take together, in bytes: every RUN holds the whole environment.
const COPIED: usize = 128 << 20;
/// Arguments that are never in the environment.
const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

pub(crate) struct Lowering<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    resolver: &'a dyn Resolver,
    lexer: Lexer,
    budget: Budget,
    copied: Cell<usize>,
    graph: Graph,
    errors: Diagnostics,
    pub(crate) lint: Lint,
    /// `--build-arg`, the last of each name.
    build_args: BTreeMap<String, String>,
    /// Arguments before the first FROM, and those that every build has.
    globals: Env,
    /// Names that an ARG before the first FROM declares.
    global_names: BTreeSet<String>,
    stages: Vec<Stage<'a>>,
    /// Stages by name, in lower case, each in the order of the file.
    stage_names: HashMap<String, Vec<usize>>,
    /// Images that are only copied or mounted from.
    image_sources: HashMap<Base, usize>,
    /// How many suggestions for undefined variables may still be looked for.
    suggestions: usize,
    epoch: Option<i64>,
    /// The steps of stages that more than one is reached of show their stage's name.
    single: bool,
    /// What ONBUILD triggers declare.
    trigger_args: BTreeSet<String>,
    /// Secrets and agents that RUNs mount.
    notes: Vec<Note>,
}

/// A secret or an agent that a RUN mounts.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) stage: usize,
    pub(crate) ssh: bool,
    pub(crate) id: String,
    pub(crate) required: bool,
    pub(crate) lines: (u32, u32),
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(file: &'a Dockerfile, options: &'a Options, resolver: &'a dyn Resolver) -> Self {
        let mut build_args = BTreeMap::new();
        for (name, value) in &options.build_args {
            match value {
                // an empty time is none
                Some(value) if !(value.is_empty() && name == "SOURCE_DATE_EPOCH") => {
                    build_args.insert(name.clone(), value.clone())
                }
                _ => build_args.remove(name),
            };
        }
        if let Some(epoch) = options.source_date_epoch {
            build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
        }
        Self {
            file,
            options,
            resolver,
            lexer: Lexer::new(file.escape()),
            budget: Budget::new(),
            copied: Cell::new(0),
            graph: Graph::new(),
            errors: Diagnostics::default(),
            lint: Lint::default(),
            build_args,
            globals: Env::default(),
            global_names: BTreeSet::new(),
            stages: Vec::new(),
            stage_names: HashMap::new(),
            image_sources: HashMap::new(),
            suggestions: 200,
            epoch: options.source_date_epoch,
            single: false,
            trigger_args: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Lowers what the target reaches, or with `all` every stage. Returns the target.
    pub(crate) fn run(&mut self, all: bool) -> Result<usize, Diagnostics> {
        let target = self.prepare(all);
        self.fail_if_errors()?;
        let target = target.expect("without errors there is a target");
        for index in 0..self.stages.len() {
            if self.stages[index].reached {
                self.lower_stage(index);
            } else {
                self.check_unreached(index);
            }
        }
        self.check_unused_build_args();
        self.fail_if_errors()?;
        Ok(target)
    }

    fn prepare(&mut self, all: bool) -> Option<usize> {
        self.configure_lint();
        self.check_frontend();
        self.check_file();
        if let Err(error) = self.read_globals() {
            self.errors.push(error);
            return None;
        }
        self.find_stages();
        let target = match self.target() {
            Ok(target) => target,
            Err(error) => {
                self.errors.push(error);
                return None;
            }
        };
        self.find_dependencies();
        if !self.errors.is_empty() {
            return None;
        }
        self.resolve(target, all);
        Some(target)
    }

    fn fail_if_errors(&mut self) -> Result<(), Diagnostics> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let mut errors = std::mem::take(&mut self.errors);
        sort(&mut errors, self.file.text());
        errors.0.dedup();
        Err(errors)
    }

    /// `check=`, and `BUILDKIT_DOCKERFILE_CHECK` instead of it.
    fn configure_lint(&mut self) {
        let directive = self.file.directives().iter().find(|d| d.name == "check");
        let (text, span) = match (self.build_args.get("BUILDKIT_DOCKERFILE_CHECK"), directive) {
            (Some(value), _) => (value.as_str(), None),
            (None, Some(directive)) => (directive.value.as_str(), Some(directive.value_span)),
            (None, None) => return,
        };
        match Config::parse(text) {
            Ok(config) => self.lint.config = config,
            Err(part) => {
                let mut error = Diagnostic::error(format!("invalid check option `{part}`"), Span::default())
                    .label("expected `skip=RULE,…`, `error=true` or `experimental=RULE,…`, with `;` between them");
                error.span = span;
                self.errors.push(error);
            }
        }
    }

    fn check_frontend(&mut self) {
        if let Some(syntax) = self.build_args.get("BUILDKIT_SYNTAX")
            && !crate::directive::is_builtin_syntax(syntax)
        {
            self.errors.push(
                Diagnostic::error_outside(format!(
                    "the frontend `{syntax}`, which BUILDKIT_SYNTAX asks for, can't be run"
                ))
                .help("leave the build argument out: docker/dockerfile is built in"),
            );
        }
    }

    /// Arguments that every build has, then ARGs before the first FROM.
    fn read_globals(&mut self) -> Result<(), Diagnostic> {
        self.globals = self.default_globals();
        self.check_defaults_in_from();
        for instruction in self.file.global_args() {
            let Kind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                let value = match (self.build_args.get(&argument.name), &argument.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        Some(self.expand_with(default, &argument.word, &self.globals)?.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.globals.set(&argument.name, &value);
                }
                self.global_names.insert(argument.name.clone());
            }
        }
        self.read_epoch()
    }

    fn default_globals(&self) -> Env {
        let (build, target) = (&self.options.build_platform, &self.options.platform);
        let full = |platform: &bricklayer_solver::Platform| match platform.os_version.as_str() {
            "" => platform.to_string(),
            version => platform.to_string().replacen(&platform.os, &format!("{}({version})", platform.os), 1),
        };
        let last = self.file.stages().last().and_then(|stage| stage.from.lower_name());
        let stage = self
            .options
            .target
            .clone()
            .filter(|t| !t.is_empty())
            .or(last)
            .unwrap_or_else(|| "default".to_owned());
        let predefined = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", build.os_version.clone()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", build.variant.clone()),
            ("TARGETPLATFORM", full(target)),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", target.os_version.clone()),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", target.variant.clone()),
            ("TARGETSTAGE", stage),
        ];
        let mut globals = Env::default();
        for (name, value) in predefined {
            globals.set(name, self.build_args.get(name).unwrap_or(&value));
        }
        globals
    }

    /// SOURCE_DATE_EPOCH as a global ARG gives it, if nobody else does.
    fn read_epoch(&mut self) -> Result<(), Diagnostic> {
        if self.build_args.contains_key("SOURCE_DATE_EPOCH") {
            if self.epoch.is_none() {
                let value = &self.build_args["SOURCE_DATE_EPOCH"];
                self.epoch = parse_epoch(value)?;
            }
            return Ok(());
        }
        if let Some(value) = self.globals.get("SOURCE_DATE_EPOCH") {
            self.epoch = parse_epoch(value)?;
        }
        Ok(())
    }

    /// What people see of a history entry's time.
    fn created(&self) -> String {
        match self.epoch {
            Some(epoch) => rfc3339(epoch),
            None => self.options.now.clone(),
        }
    }

    fn history_entry(&self, created_by: String, empty: bool) -> History {
        History {
            created: Some(self.created()),
            created_by,
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer: empty,
            ..History::default()
        }
    }

    /// Counts what a step copies of its stage.
    fn charge(&self, bytes: usize, word: &Word) -> Result<(), Diagnostic> {
        let copied = self.copied.get().saturating_add(bytes);
        self.copied.set(copied);
        if copied > COPIED {
            let message = format!("the environments of all steps take more than {} MiB", COPIED >> 20);
            return Err(Diagnostic::error(message, word.span).label("this step is one too many"));
        }
        Ok(())
    }

    /// Expands a word with some variables.
    fn expand_with(
        &self,
        text: &str,
        word: &Word,
        variables: &dyn Variables,
    ) -> Result<Expansion, Diagnostic> {
        self.lexer.expand(text, variables, &self.budget).map_err(|error| word_error(error, text, word))
    }

    /// Expands a word of an instruction with the stage's variables.
    fn expand(
        &mut self,
        text: &str,
        word: &Word,
        state: &State,
        instruction: &Instruction,
    ) -> Result<String, Diagnostic> {
        Ok(self.expand_words(text, word, state, instruction)?.text)
    }

    fn expand_words(
        &mut self,
        text: &str,
        word: &Word,
        state: &State,
        instruction: &Instruction,
    ) -> Result<Expansion, Diagnostic> {
        let expansion = self.expand_with(text, word, &*state.env)?;
        self.check_undefined(&expansion.unmatched, state, instruction, word.span);
        Ok(expansion)
    }

    fn check_undefined(
        &mut self,
        unmatched: &[String],
        state: &State,
        instruction: &Instruction,
        span: Span,
    ) {
        for name in unmatched {
            if state.args.get(name).is_some() || NOT_IN_ENV.contains(&name.as_str()) {
                continue;
            }
            // each is a search through all names
            self.suggestions = self.suggestions.saturating_sub(1);
            let suggestion = if self.suggestions > 0 { nearest(name, state.env.names()) } else { None };
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(suggestion) = suggestion {
                message.push_str(&format!(" (did you mean ${suggestion}?)"));
            }
            self.lint.warn(&rules::UNDEFINED_VAR, &instruction.comments, Some(span), message);
        }
    }

    /// Lowers one stage's instructions.
    fn lower_stage(&mut self, index: usize) {
        let Some(mut state) = self.initial_state(index) else { return };
        if self.stages[index].context.is_none() {
            let steps = std::mem::take(&mut self.stages[index].steps);
            for step in &steps {
                if let Err(error) = self.lower_instruction(index, step, &mut state) {
                    self.errors.push(step.place(error, self.stages[index].place));
                }
                if self.copied.get() > COPIED {
                    break;
                }
            }
            self.stages[index].steps = steps;
        }
        self.stages[index].state = Some(state);
    }

    /// The result.
    fn finish(mut self, target: usize) -> Result<Lowered, Diagnostics> {
        let mut state = self.stages[target].state.take().expect("the target is lowered");
        let root = self.root_vertex(&mut state);
        let mut warnings = Diagnostics(std::mem::take(&mut self.lint.warnings));
        sort(&mut warnings, self.file.text());
        warnings.0.dedup();
        if self.lint.config.error && !warnings.is_empty() {
            let rules: BTreeSet<&str> = warnings.iter().filter_map(|w| w.rule).collect();
            let rules: Vec<&str> = rules.into_iter().collect();
            let mut errors = Diagnostics::from(Diagnostic::error_outside(format!(
                "lint violation found for rules: {}",
                rules.join(", ")
            )));
            errors.0.extend(warnings.0);
            return Err(errors);
        }
        let mut config = (*state.config).clone();
        config.config.env = state.image_env.to_list();
        for (name, value) in &self.options.labels {
            config.config.labels.insert(name.clone(), value.clone());
        }
        config.created = Some(self.created());
        config.history = self.whole_history(&state);
        let wanted = &self.options.platform;
        if *wanted != self.options.build_platform || config.os.is_empty() || config.architecture.is_empty() {
            let same = config.os == wanted.os && config.architecture == wanted.architecture;
            config.os.clone_from(&wanted.os);
            config.architecture.clone_from(&wanted.architecture);
            if !wanted.variant.is_empty() || !same {
                config.variant.clone_from(&wanted.variant);
            }
            if !wanted.os_version.is_empty() || !same {
                config.os_version.clone_from(&wanted.os_version);
            }
        }
        let base = state.base.map(Rc::unwrap_or_clone);
        let build = Build { graph: self.graph, root, config, base };
        Ok(Lowered { build, warnings: warnings.0, source_date_epoch: self.epoch })
    }

    /// The history of a stage and of all that it stands on.
    fn whole_history(&self, state: &State) -> Vec<History> {
        let mut chain = vec![&state.history];
        let mut parent = state.parent;
        while let Some(index) = parent {
            let Some(state) = &self.stages[index].state else { break };
            chain.push(&state.history);
            parent = state.parent;
        }
        chain.into_iter().rev().flatten().cloned().collect()
    }

    /// The step whose output is the stage's root filesystem. Files of a named context become a layer here, with an entry in the
    /// stage's history.
    fn root_vertex(&mut self, state: &mut State) -> Option<bricklayer_solver::graph::VertexId> {
        match state.root {
            Root::Empty => None,
            Root::Step(vertex) => Some(vertex),
            Root::Context(context) => {
                let (vertex, text) = self.context_as_root(context);
                state.root = Root::Step(vertex);
                // nothing of this stage came before
                let entry = self.history_entry(text, false);
                state.history.insert(0, entry);
                Some(vertex)
            }
        }
    }
}

/// Seconds since 1970; an empty text is none.
fn parse_epoch(value: &str) -> Result<Option<i64>, Diagnostic> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        Diagnostic::error_outside(format!(
            "SOURCE_DATE_EPOCH is `{value}`, which is no number of seconds since 1970"
        ))
        .note("times of contexts and stages can't be taken for it")
    })
}

/// An error in a word, with its place in the word marked where the word stands in the file as it is.
fn word_error(error: WordError, text: &str, word: &Word) -> Diagnostic {
    let mut span = word.span;
    if let Some(offset) = word.text.find(text)
        && span.end - span.start == word.text.len()
    {
        let start = span.start + offset + error.at;
        span = Span::new(start.min(span.end), span.start + offset + text.len());
    }
    Diagnostic::error(error.reason.to_string(), span).label(error.reason.label())
}
