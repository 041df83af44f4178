//! Stages: their names and bases, what they use of each other, which the target reaches, and the images they stand on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use bricklayer_solver::Platform;
use bricklayer_solver::errors::in_one_line;
use bricklayer_solver::graph::VertexId;

use super::state::{Root, State};
use super::{Lowering, mount, run};
use crate::api::{ImageOrigin, ImageQuery, NamedContext, ResolvedImage};
use crate::diagnostics::{Diagnostic, Span};
use crate::dockerfile;
use crate::instruction::{Instruction, Kind, Word};
use crate::lint::rules;
use crate::reference::{familiar, is_valid};
use crate::suggest::nearest;
use crate::words::{Budget, Lexer, NoVariables, Variables};

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, by its reference.
    Image(String),
}

/// An instruction of a stage.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// It is an ONBUILD trigger of the base.
    pub(super) trigger: bool,
    /// The stages that COPY's `--from`, or each of RUN's mounts, names.
    pub(super) sources: Vec<Option<usize>>,
}

impl Step<'_> {
    /// An error of this step: that of a trigger stands at the FROM that brought it.
    pub(super) fn place(&self, mut error: Diagnostic, from: Span) -> Diagnostic {
        if self.trigger {
            error.span = Some(from);
            error.label = Some("this base brings the instruction".to_owned());
            error = error.note(format!("in its ONBUILD trigger `{}`", self.instruction.text));
        }
        error
    }
}

/// A stage, or an image that is only copied or mounted from.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// `None`: no stage of the file.
    pub(super) file: Option<dockerfile::Stage<'a>>,
    /// Where its FROM, or the name of the image, stands.
    pub(super) place: Span,
    /// What people see: its name or `stage-N`.
    pub(super) label: String,
    /// Its name in lower case.
    pub(super) name: Option<String>,
    pub(super) base: Base,
    pub(super) platform: Option<Platform>,
    /// The named context that takes its place.
    pub(super) context: Option<usize>,
    pub(super) steps: Vec<Step<'a>>,
    /// Stages that it needs, its base not among them.
    pub(super) dependencies: Vec<usize>,
    pub(super) reached: bool,
    pub(super) found: Option<Found>,
    pub(super) triggers_read: bool,
    pub(super) state: Option<State>,
    /// How many steps people see, and the last that was counted.
    pub(super) total: usize,
    pub(super) counted: usize,
}

impl Stage<'_> {
    /// Where the name of its base stands.
    fn image_place(&self) -> Span {
        self.file.map_or(self.place, |file| file.from.image.span)
    }
}

/// What a base turned out to be.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Image(Rc<ResolvedImage>),
    /// A named context that is no image.
    Context(usize),
    Nothing,
}

impl<'a> Lowering<'a> {
    /// Finds all stages, their names, bases and platforms.
    pub(super) fn find_stages(&mut self) {
        let file = self.file;
        for (index, stage) in file.stages().enumerate() {
            let from = stage.from;
            let base = match self.expand_from(&from.image, stage.instruction) {
                Ok(base) => base,
                Err(error) => {
                    self.errors.push(error);
                    continue_with_scratch(&mut self.stages, stage, index);
                    continue;
                }
            };
            let platform = match &from.platform {
                None => None,
                Some(word) => match self.platform(word, from.lower_name().as_deref(), stage.instruction) {
                    Ok(platform) => Some(platform),
                    Err(error) => {
                        self.errors.push(error);
                        None
                    }
                },
            };
            let name = from.lower_name();
            let wanted = platform.clone().unwrap_or_else(|| self.options.platform.clone());
            let context = name.as_ref().and_then(|name| self.named_context(name, &wanted));
            // of several stages with one name the last before this one is meant
            let base = match self.stage_names.get(&base).and_then(|indices| indices.last()) {
                Some(&earlier) => Base::Stage(earlier),
                None if base == "scratch" => Base::Scratch,
                None => Base::Image(base),
            };
            let mut total = usize::from(matches!(base, Base::Image(_)));
            let steps: Vec<Step<'a>> = stage
                .body
                .iter()
                .map(|instruction| Step {
                    instruction: Cow::Borrowed(instruction),
                    trigger: false,
                    sources: Vec::new(),
                })
                .collect();
            total += stage.body.iter().filter(|i| has_layer(&i.kind)).count();
            if let Some(name) = &name {
                self.stage_names.entry(name.clone()).or_default().push(index);
            }
            self.stages.push(Stage {
                file: Some(stage),
                place: stage.instruction.span,
                label: name.clone().unwrap_or_else(|| format!("stage-{index}")),
                name,
                base,
                platform,
                context,
                steps,
                dependencies: Vec::new(),
                reached: false,
                found: None,
                triggers_read: false,
                state: None,
                total,
                counted: 0,
            });
        }
    }

    /// The base that a FROM names.
    fn expand_from(&mut self, image: &Word, instruction: &Instruction) -> Result<String, Diagnostic> {
        let expansion = self.expand_with(&image.text, image, &self.globals)?;
        self.check_from_args(&expansion.unmatched, instruction, image.span);
        if !expansion.text.is_empty() {
            return Ok(expansion.text);
        }
        let mut error = Diagnostic::error(format!("the base `{}` is empty", image.text), image.span)
            .label("expected an image, a stage, or `scratch`");
        if let Some(name) = expansion.unmatched.first() {
            let declared_later = self.file.instructions().iter().any(
                |i| matches!(&i.kind, Kind::Arg(arguments) if arguments.iter().any(|a| a.name == *name)),
            );
            let names = self.global_names.iter().map(String::as_str).chain(self.globals.names());
            let near = nearest(name, names).map(str::to_owned);
            error = match near {
                Some(near) => error.suggest(Some(&format!("${near}"))),
                None if declared_later && !self.global_names.contains(name) => error.help(format!(
                    "FROM sees only what is declared before the first FROM: put `ARG {name}` there"
                )),
                None if self.global_names.contains(name) => {
                    error.help(format!("give it a value: `--build-arg {name}=…`"))
                }
                None => error.help(format!("declare `{name}` with ARG before the first FROM")),
            };
        }
        Err(error)
    }

    fn check_from_args(&mut self, unmatched: &[String], instruction: &Instruction, span: Span) {
        for name in unmatched {
            if self.global_names.contains(name) {
                continue;
            }
            let mut message = format!("FROM argument '{name}' is not declared");
            let names = self.global_names.iter().map(String::as_str).chain(self.globals.names());
            if let Some(suggestion) = nearest(name, names) {
                message.push_str(&format!(" (did you mean {suggestion}?)"));
            }
            self.lint.warn(&rules::UNDEFINED_ARG_IN_FROM, &instruction.comments, Some(span), message);
        }
    }

    fn platform(
        &mut self,
        word: &Word,
        name: Option<&str>,
        instruction: &Instruction,
    ) -> Result<Platform, Diagnostic> {
        // the word is `--platform=VALUE`: its place is the flag's, not the value's
        let expansion = self.expand_with(&word.text, word, &self.globals)?;
        self.check_from_args(&expansion.unmatched, instruction, word.span);
        if expansion.matched == ["TARGETPLATFORM"]
            && expansion.unmatched.is_empty()
            && self.globals.get("TARGETPLATFORM") == Some(&expansion.text)
        {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            self.lint.warn(
                &rules::REDUNDANT_TARGET_PLATFORM,
                &instruction.comments,
                Some(word.span),
                message,
            );
        }
        if expansion.text.is_empty() {
            let mut error = Diagnostic::error(format!("the platform `{}` is empty", word.text), word.span)
                .label("expected os/architecture, such as linux/arm64");
            if let Some(name) = expansion.unmatched.first() {
                error = error.suggest(nearest(name, self.globals.names()));
            }
            return Err(error);
        }
        // `local` is a word of the command line's
        let parsed = Some(&expansion.text).filter(|text| *text != "local").and_then(|text| text.parse().ok());
        let platform: Platform = parsed.ok_or_else(|| {
            Diagnostic::error(format!("`{}` is no platform", expansion.text), word.span)
                .label("expected os/architecture, such as linux/arm64")
        })?;
        let constant = expansion.matched.is_empty() && expansion.unmatched.is_empty();
        let named =
            name.is_some_and(|name| name.contains(&platform.os) || name.contains(&platform.architecture));
        if constant && !named {
            let message =
                format!("FROM --platform flag should not use constant value \"{}\"", expansion.text);
            self.lint.warn(
                &rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED,
                &instruction.comments,
                Some(word.span),
                message,
            );
        }
        Ok(platform)
    }

    /// The `--build-context` that takes the place of a stage or an image of this name. `scratch` and `context` can't be replaced.
    pub(super) fn named_context(&self, name: &str, platform: &Platform) -> Option<usize> {
        let name = familiar(name);
        if matches!(name, "scratch" | "context") {
            return None;
        }
        let find = |wanted: Option<&str>| {
            // the last of the same name wins
            self.options.contexts.iter().rposition(|(given, _)| match given.split_once("::") {
                Some((given, platform)) => familiar(given) == name && Some(platform) == wanted,
                None => wanted.is_none() && familiar(given) == name,
            })
        };
        find(Some(&platform.to_string())).or_else(|| find(None))
    }

    /// What is wrong in a stage that is not lowered, as far as it can be told without lowering.
    pub(super) fn check_unreached(&mut self, index: usize) {
        let Some(file) = self.stages[index].file else { return };
        for instruction in file.body {
            let Kind::Run(run) = &instruction.kind else { continue };
            self.errors.0.extend(run.network.as_ref().and_then(|word| run::network_named(word).err()));
            self.errors.0.extend(run.security.as_ref().and_then(|word| run::security_named(word).err()));
        }
    }

    /// The stage that is built.
    pub(super) fn target(&self) -> Result<usize, Diagnostic> {
        let Some(target) = self.options.target.as_deref().filter(|target| !target.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        let lower = target.to_lowercase();
        self.stage_names.get(&lower).and_then(|indices| indices.last().copied()).ok_or_else(|| {
            let names = self.file.stage_names();
            let error =
                Diagnostic::error_outside(format!("the target stage `{target}` is not in the Dockerfile"));
            match (nearest(target, names.iter().copied()), names.as_slice()) {
                (Some(near), _) => error.suggest(Some(near)),
                (None, []) => error.note("no stage has a name"),
                (None, names) => error.note(format!("its stages are {}", names.join(", "))),
            }
        })
    }

    /// Finds what stages copy and mount from each other, in all stages.
    pub(super) fn find_dependencies(&mut self) {
        for index in 0..self.file.stages().len() {
            let mut steps = std::mem::take(&mut self.stages[index].steps);
            for step in &mut steps {
                if let Err(error) = self.find_sources(index, step) {
                    self.errors.push(error);
                }
            }
            self.stages[index].steps = steps;
        }
    }

    /// Fills in the sources of one step.
    fn find_sources(&mut self, index: usize, step: &mut Step<'a>) -> Result<(), Diagnostic> {
        let mut sources = Vec::new();
        match &step.instruction.kind {
            Kind::Copy(copy) => {
                if let Some(from) = &copy.from {
                    sources.push(Some(self.copy_source(index, from)?));
                }
            }
            Kind::Run(run) => {
                for word in &run.mounts {
                    sources.push(match mount::from(word)? {
                        Some(name) => Some(self.source_stage(index, &name, word)?),
                        None => None,
                    });
                }
            }
            _ => {}
        }
        self.stages[index].dependencies.extend(sources.iter().flatten());
        step.sources = sources;
        Ok(())
    }

    /// The stage or image of `COPY --from`.
    fn copy_source(&mut self, index: usize, from: &Word) -> Result<usize, Diagnostic> {
        let plain = Lexer::new(self.file.escape()).expand(&from.text, &NoVariables, &Budget::new());
        if plain.is_ok_and(|plain| plain.text != from.text) {
            return Err(Diagnostic::error("--from takes no variables", from.span)
                .label("expected the name or the number of a stage, an image, or a named context")
                .help("begin a stage with `FROM` and the variable, and copy from that stage"));
        }
        if let Ok(number) = from.text.parse::<usize>() {
            let count = self.file.stages().len();
            if number >= count {
                return Err(Diagnostic::error(format!("there is no stage number {number}"), from.span)
                    .label(format!("expected a number below {count}")));
            }
            return self.checked_source(index, number, from);
        }
        self.source_stage(index, &from.text, from)
    }

    /// The stage, or else the image, of this name.
    fn source_stage(&mut self, index: usize, name: &str, word: &Word) -> Result<usize, Diagnostic> {
        let lower = name.to_lowercase();
        if let Some(indices) = self.stage_names.get(&lower) {
            let earlier = indices.partition_point(|&found| found < index);
            if let Some(&found) = indices[..earlier].last().or(indices.first()) {
                return self.checked_source(index, found, word);
            }
        }
        let platform = self.options.platform.clone();
        let base = if lower == "scratch" { Base::Scratch } else { Base::Image(name.to_owned()) };
        if let Some(&known) = self.image_sources.get(&base) {
            return Ok(known);
        }
        self.image_sources.insert(base.clone(), self.stages.len());
        self.stages.push(Stage {
            file: None,
            place: word.span,
            label: String::new(),
            name: None,
            base,
            platform: Some(platform),
            context: None,
            steps: Vec::new(),
            dependencies: Vec::new(),
            reached: false,
            found: None,
            triggers_read: true,
            state: None,
            total: 0,
            counted: 0,
        });
        Ok(self.stages.len() - 1)
    }

    /// A stage may use earlier stages only; that a later one is used is told when the stage is reached.
    fn checked_source(&self, index: usize, source: usize, word: &Word) -> Result<usize, Diagnostic> {
        if source == index {
            let label = &self.stages[index].label;
            return Err(Diagnostic::error(format!("the stage `{label}` uses itself"), word.span)
                .label("expected an earlier stage"));
        }
        Ok(source)
    }

    /// Which stages the target needs.
    fn reach(&mut self, target: usize, all: bool) {
        let mut waiting = if all { (0..self.stages.len()).collect() } else { vec![target] };
        for stage in &mut self.stages {
            stage.reached = false;
        }
        while let Some(index) = waiting.pop() {
            let stage = &mut self.stages[index];
            if std::mem::replace(&mut stage.reached, true) {
                continue;
            }
            // a stage that a named context replaces needs nothing
            if stage.context.is_some() && !all {
                continue;
            }
            if let Base::Stage(base) = stage.base {
                waiting.push(base);
            }
            waiting.extend(&stage.dependencies);
        }
    }

    /// Asks for the images of all reached stages, and reads the ONBUILD triggers of what they stand on.
    pub(super) fn resolve(&mut self, target: usize, all: bool) {
        loop {
            self.reach(target, all);
            if !self.find_images() {
                return;
            }
            let mut new = false;
            for index in 0..self.stages.len() {
                if self.stages[index].reached && !self.stages[index].triggers_read {
                    self.stages[index].triggers_read = true;
                    if self.stages[index].context.is_none() {
                        new |= self.add_triggers(index);
                    }
                }
            }
            if !new {
                break;
            }
        }
        self.single = self.stages.iter().filter(|stage| stage.reached && stage.file.is_some()).count() == 1;
    }

    /// Asks for all images that are needed and not known yet, at once.
    fn find_images(&mut self) -> bool {
        let mut queries: Vec<ImageQuery> = Vec::new();
        let mut numbers: HashMap<ImageQuery, usize> = HashMap::new();
        let mut asked: Vec<(usize, usize)> = Vec::new();
        for index in 0..self.stages.len() {
            let stage = &self.stages[index];
            if stage.found.is_some() {
                continue;
            }
            if !stage.reached {
                // nobody is asked about it, but a name that can be none is wrong everywhere
                if let Base::Image(name) = &stage.base
                    && stage.context.is_none()
                    && !is_valid(name)
                    && self.named_context(name, &self.options.platform).is_none()
                {
                    let error = self.bad_reference(name, stage.image_place());
                    self.errors.push(error);
                    self.stages[index].found = Some(Found::Nothing);
                }
                continue;
            }
            let platform = stage.platform.clone().unwrap_or_else(|| self.options.platform.clone());
            let context = stage.context.or_else(|| match &stage.base {
                Base::Image(name) => self.named_context(name, &platform),
                _ => None,
            });
            let query = match (context, &stage.base) {
                (Some(context), _) => match &self.options.contexts[context].1 {
                    NamedContext::Image(reference) if reference == "scratch" => None,
                    NamedContext::Image(reference) => Some((reference.clone(), ImageOrigin::Registry)),
                    NamedContext::Layout(path) => {
                        Some((self.options.contexts[context].0.clone(), ImageOrigin::Layout(path.clone())))
                    }
                    NamedContext::Local { .. } | NamedContext::Remote(_) => {
                        self.stages[index].found = Some(Found::Context(context));
                        continue;
                    }
                },
                (None, Base::Image(name)) => {
                    if !is_valid(name) {
                        let error = self.bad_reference(name, stage.image_place());
                        self.errors.push(error);
                        self.stages[index].found = Some(Found::Nothing);
                        continue;
                    }
                    Some((name.clone(), ImageOrigin::Registry))
                }
                (None, _) => None,
            };
            let Some((reference, origin)) = query else {
                self.stages[index].found = Some(Found::Nothing);
                continue;
            };
            let query = ImageQuery { reference, platform, origin };
            let number = *numbers.entry(query.clone()).or_insert_with(|| {
                queries.push(query);
                queries.len() - 1
            });
            asked.push((index, number));
        }
        if !queries.is_empty() {
            let answers: Vec<Result<Rc<ResolvedImage>, String>> = self
                .resolver
                .images(&queries)
                .into_iter()
                .map(|answer| answer.map(Rc::new).map_err(|error| in_one_line(&error)))
                .collect();
            for (index, number) in asked {
                let stage = &mut self.stages[index];
                match answers.get(number) {
                    Some(Ok(image)) => stage.found = Some(Found::Image(image.clone())),
                    Some(Err(reason)) => {
                        stage.found = Some(Found::Nothing);
                        let place = stage.image_place();
                        let error = self.missing_image(&queries[number].reference, reason, place);
                        self.errors.push(error);
                    }
                    None => {
                        stage.found = Some(Found::Nothing);
                        let message =
                            format!("nothing was found out about the image `{}`", queries[number].reference);
                        self.errors.push(Diagnostic::error(message, stage.place));
                    }
                }
            }
        }
        self.errors.is_empty()
    }

    fn bad_reference(&self, name: &str, place: Span) -> Diagnostic {
        let error = Diagnostic::error(format!("`{name}` is neither a stage nor the name of an image"), place);
        let names = self.file.stage_names();
        let lower = name.to_lowercase();
        match nearest(name, names.iter().copied()) {
            Some(near) => error.suggest(Some(near)),
            None if lower != name && is_valid(&lower) => {
                error.help("names of images have lower-case letters only")
            }
            None => error.label("expected `[host/]name[:tag][@digest]`"),
        }
    }

    fn missing_image(&self, reference: &str, reason: &str, place: Span) -> Diagnostic {
        let message = if reason.contains(reference) {
            reason.to_owned()
        } else {
            format!("the image `{reference}` can't be used: {reason}")
        };
        let names = self.file.stage_names();
        Diagnostic::error(message, place)
            .label("neither a stage nor an image that can be had")
            .suggest(nearest(reference, names.iter().copied()))
    }

    /// Puts the ONBUILD triggers of what a stage stands on before its own instructions. Did they bring new sources?
    fn add_triggers(&mut self, index: usize) -> bool {
        let triggers: Vec<String> = match (&self.stages[index].found, &self.stages[index].base) {
            (Some(Found::Image(image)), _) => image.config.config.on_build.clone(),
            (_, Base::Stage(base)) => self.stages[*base]
                .file
                .iter()
                .flat_map(|stage| stage.body)
                .filter_map(|i| match &i.kind {
                    Kind::Onbuild(onbuild) => Some(onbuild.trigger.clone()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let place = self.stages[index].place;
        let mut steps = Vec::new();
        let mut new = false;
        for trigger in triggers {
            let shown: String = trigger.lines().next().unwrap_or_default().chars().take(200).collect();
            let read = dockerfile::read_trigger(&trigger).and_then(|mut instruction| {
                relocate(&mut instruction, place, self.file.text().lines(place));
                let mut step =
                    Step { instruction: Cow::Owned(instruction), trigger: true, sources: Vec::new() };
                self.find_sources(index, &mut step)?;
                Ok(step)
            });
            match read {
                Ok(step) => {
                    if let Kind::Arg(arguments) = &step.instruction.kind {
                        self.trigger_args.extend(arguments.iter().map(|a| a.name.clone()));
                    }
                    new |= step.sources.iter().any(Option::is_some);
                    steps.push(step);
                }
                Err(mut error) => {
                    error.span = Some(place);
                    error.label = Some("this base brings the instruction".to_owned());
                    self.errors.push(error.note(format!("in its ONBUILD trigger `{shown}`")));
                }
            }
        }
        let stage = &mut self.stages[index];
        stage.total += steps.iter().filter(|step| has_layer(&step.instruction.kind)).count();
        steps.append(&mut stage.steps);
        stage.steps = steps;
        new
    }

    /// A stage before its first instruction.
    pub(super) fn initial_state(&mut self, index: usize) -> Option<State> {
        let stage = &self.stages[index];
        if let (Base::Stage(base), None) = (&stage.base, stage.context) {
            let base = *base;
            let mut parent = self.stages[base].state.take()?;
            // what the parent's files are is settled now, so that its history says so
            self.root_vertex(&mut parent);
            let child = parent.child(base);
            self.stages[base].state = Some(parent);
            let word = Word { text: String::new(), span: self.stages[index].place };
            if let Err(error) = self.charge(child.copy_cost(), &word) {
                self.errors.push(error);
                return None;
            }
            return Some(child);
        }
        let platform = stage.platform.clone().unwrap_or_else(|| self.options.platform.clone());
        match stage.found.clone()? {
            Found::Nothing => Some(State::scratch(&self.options.platform)),
            Found::Context(context) => {
                let mut state = State::scratch(&platform);
                state.root = Root::Context(context);
                Some(state)
            }
            Found::Image(image) => {
                let root = self.image_root(index, &image, &platform);
                self.check_base_platform(index, &image, &platform);
                Some(State::new(root, image.config.clone(), platform, Some(image)))
            }
        }
    }

    /// The step that brings an image's layers; none if it has none.
    fn image_root(&mut self, index: usize, image: &Rc<ResolvedImage>, platform: &Platform) -> Root {
        if image.config.rootfs.diff_ids.is_empty() {
            return Root::Empty;
        }
        let vertex: VertexId = self.image_vertex(index, image, platform);
        Root::Step(vertex)
    }

    fn check_base_platform(&mut self, index: usize, image: &ResolvedImage, wanted: &Platform) {
        let actual = image.config.platform();
        let Some(file) = self.stages[index].file else { return };
        if (&actual.os, &actual.architecture) != (&wanted.os, &wanted.architecture) {
            let name = match &self.stages[index].base {
                Base::Image(name) => name.clone(),
                _ => image.reference.clone(),
            };
            let message = format!(
                "Base image {name} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build"
            );
            self.lint.warn(
                &rules::INVALID_BASE_IMAGE_PLATFORM,
                &file.instruction.comments,
                Some(file.from.image.span),
                message,
            );
        }
    }
}

/// A stage whose base is wrong keeps its place, so that the numbers of those behind it are right.
fn continue_with_scratch<'a>(stages: &mut Vec<Stage<'a>>, stage: dockerfile::Stage<'a>, index: usize) {
    stages.push(Stage {
        file: Some(stage),
        place: stage.instruction.span,
        label: format!("stage-{index}"),
        name: stage.from.lower_name(),
        base: Base::Scratch,
        platform: None,
        context: None,
        steps: Vec::new(),
        dependencies: Vec::new(),
        reached: false,
        found: None,
        triggers_read: true,
        state: None,
        total: 0,
        counted: 0,
    });
}

/// Does an instruction make a layer?
fn has_layer(kind: &Kind) -> bool {
    matches!(kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
}

/// Gives everything in a trigger the place of the FROM that brought it.
fn relocate(instruction: &mut Instruction, place: Span, lines: (u32, u32)) {
    instruction.span = place;
    instruction.lines = lines;
    instruction.keyword.span = place;
}
