//! Instructions that change only the image's configuration, and WORKDIR.

use std::collections::BTreeMap;
use std::rc::Rc;

use bricklayer_solver::graph::{Input, Usage};
use bricklayer_solver::image::Healthcheck;
use bricklayer_solver::op::{FileAction, FileOp, Op, Owner};
use bricklayer_solver::pattern::clean;

use super::stage::Step;
use super::state::{Root, State};
use super::{Lowering, NOT_IN_ENV, ports};
use crate::diagnostics::{Diagnostic, Span};
use crate::duration;
use crate::instruction::{Argument, Command, CommandForm, Health, Instruction, Kind, Pair, Word};
use crate::lint::rules;
use crate::suggest::nearest;
use crate::text::{SIGNALS, go_list, go_quoted_list, is_signal};
use crate::words::Variables;

impl Lowering<'_> {
    /// Lowers one instruction.
    pub(super) fn lower_instruction(
        &mut self,
        index: usize,
        step: &Step<'_>,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let warnings = self.lint.warnings.len();
        let result = self.lower_kind(index, step, state);
        if step.trigger {
            // its words stand in no file
            for warning in &mut self.lint.warnings[warnings..] {
                warning.span = Some(self.stages[index].place);
            }
        }
        result
    }

    fn lower_kind(&mut self, index: usize, step: &Step<'_>, state: &mut State) -> Result<(), Diagnostic> {
        let instruction = &*step.instruction;
        match &instruction.kind {
            Kind::Arg(arguments) => self.arg(arguments, instruction, state),
            Kind::Env(pairs) => self.env(pairs, instruction, state),
            Kind::Label(pairs) => self.label(pairs, instruction, state),
            Kind::Run(run) => self.run_step(index, run, step, state),
            Kind::Copy(copy) => self.copy_step(index, copy, false, step, state),
            Kind::Add(copy) => self.copy_step(index, copy, true, step, state),
            Kind::Cmd(command) => {
                self.cmd(command, instruction, state);
                Ok(())
            }
            Kind::Entrypoint(command) => {
                self.entrypoint(command, instruction, state);
                Ok(())
            }
            Kind::Shell(shell) => {
                state.config_mut().config.shell = Some(shell.clone());
                self.remark(state, format!("SHELL {}", go_list(shell)));
                Ok(())
            }
            Kind::Healthcheck(health) => {
                self.healthcheck(health, instruction, state);
                Ok(())
            }
            Kind::Expose(words) => self.expose(words, instruction, state),
            Kind::Volume(words) => self.volume(words, instruction, state),
            Kind::User(word) => {
                let user = self.expand(&word.text, word, state, instruction)?;
                state.config_mut().config.user.clone_from(&user);
                self.remark(state, format!("USER {user}"));
                Ok(())
            }
            Kind::Workdir(word) => self.workdir(index, word, step, state),
            Kind::StopSignal(word) => self.stop_signal(word, instruction, state),
            Kind::Onbuild(onbuild) => {
                state.config_mut().config.on_build.push(onbuild.trigger.clone());
                Ok(())
            }
            Kind::Maintainer(word) => {
                state.config_mut().author.clone_from(&word.text);
                self.remark(state, format!("MAINTAINER {}", word.text));
                Ok(())
            }
            Kind::From(_) => Ok(()),
        }
    }

    /// An entry of the history that made no layer.
    fn remark(&self, state: &mut State, text: String) {
        let entry = self.history_entry(text, true);
        state.history.push(entry);
    }

    fn arg(
        &mut self,
        arguments: &[Argument],
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let mut shown = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let name = &argument.name;
            self.check_secret("ARG", name, instruction, argument.word.span);
            let value = match (self.build_args.get(name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, &argument.word, state, instruction)?),
                (None, None) => self.globals.get(name).map(str::to_owned),
            };
            if let Some(value) = &value
                && !NOT_IN_ENV.contains(&name.as_str())
            {
                Rc::make_mut(&mut state.env).set(name, value);
            }
            Rc::make_mut(&mut state.args).set(name, value.as_deref().unwrap_or_default());
            shown.push(match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
        }
        self.remark(state, format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    /// Names and values of ENV and LABEL, expanded with what was set before the instruction.
    fn pairs(
        &mut self,
        pairs: &[Pair],
        instruction: &Instruction,
        state: &State,
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        let name = &instruction.keyword.text;
        pairs
            .iter()
            .map(|pair| {
                if pair.legacy {
                    let message = format!(
                        "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
                    );
                    self.lint.warn(
                        &rules::LEGACY_KEY_VALUE_FORMAT,
                        &instruction.comments,
                        Some(pair.word.span),
                        message,
                    );
                }
                let key = self.expand(&pair.name, &pair.word, state, instruction)?;
                let value = self.expand(&pair.value, &pair.word, state, instruction)?;
                Ok((key, value))
            })
            .collect()
    }

    fn env(
        &mut self,
        pairs: &[Pair],
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let expanded = self.pairs(pairs, instruction, state)?;
        for ((name, value), pair) in expanded.iter().zip(pairs) {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Diagnostic::error(
                    format!("`{name}` can't be the name of a variable"),
                    pair.word.span,
                )
                .label("expected `name=value`"));
            }
            self.check_secret("ENV", name, instruction, pair.word.span);
            Rc::make_mut(&mut state.env).set(name, value);
            Rc::make_mut(&mut state.image_env).set(name, value);
        }
        self.remark(state, format!("ENV {}", joined(&expanded)));
        Ok(())
    }

    fn label(
        &mut self,
        pairs: &[Pair],
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let expanded = self.pairs(pairs, instruction, state)?;
        let text = format!("LABEL {}", joined(&expanded));
        state.config_mut().config.labels.extend(expanded);
        self.remark(state, text);
        Ok(())
    }

    /// A command line as the image stores it.
    fn stored_command(
        &mut self,
        command: &Command,
        name: &str,
        instruction: &Instruction,
        state: &State,
    ) -> Vec<String> {
        match &command.form {
            CommandForm::Exec(args) => args.clone(),
            CommandForm::Shell(text) => {
                if state.config.config.shell.as_ref().is_none_or(Vec::is_empty) {
                    let message = format!(
                        "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                    );
                    self.lint.warn(
                        &rules::JSON_ARGS_RECOMMENDED,
                        &instruction.comments,
                        Some(instruction.span),
                        message,
                    );
                }
                let mut args = shell(state);
                args.push(text.clone());
                args
            }
        }
    }

    /// Notes where an instruction stands of which only the last counts; the earlier one is told about.
    fn used_once(&mut self, earlier: Option<Span>, instruction: &Instruction) {
        if let Some(earlier) = earlier {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                instruction.keyword.text
            );
            self.lint.warn(
                &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED,
                &instruction.comments,
                Some(earlier),
                message,
            );
        }
    }

    fn cmd(&mut self, command: &Command, instruction: &Instruction, state: &mut State) {
        self.used_once(state.last_cmd.replace(instruction.span), instruction);
        let args = self.stored_command(command, &instruction.keyword.text, instruction, state);
        self.remark(state, format!("CMD {}", go_quoted_list(&args)));
        let config = &mut state.config_mut().config;
        config.cmd = Some(args);
        config.args_escaped = true;
    }

    fn entrypoint(&mut self, command: &Command, instruction: &Instruction, state: &mut State) {
        self.used_once(state.last_entrypoint.replace(instruction.span), instruction);
        let args = self.stored_command(command, &instruction.keyword.text, instruction, state);
        self.remark(state, format!("ENTRYPOINT {}", go_quoted_list(&args)));
        let keeps_cmd = state.last_cmd.is_some();
        let config = &mut state.config_mut().config;
        config.entrypoint = if args.is_empty() { None } else { Some(args) };
        if !keeps_cmd {
            config.cmd = None;
        }
    }

    fn healthcheck(&mut self, health: &Health, instruction: &Instruction, state: &mut State) {
        self.used_once(state.last_healthcheck.replace(instruction.span), instruction);
        let test = match health.command.as_ref().map(|command| &command.form) {
            None => vec!["NONE".to_owned()],
            Some(CommandForm::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
            Some(CommandForm::Exec(args)) => {
                std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect()
            }
        };
        let time = duration::format;
        let text = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            go_list(&test),
            time(health.interval),
            time(health.timeout),
            time(health.start_period),
            time(health.start_interval),
            health.retries
        );
        state.config_mut().config.healthcheck = Some(Healthcheck {
            test,
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        });
        self.remark(state, text);
    }

    fn expose(
        &mut self,
        words: &[Word],
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let mut sorted: Vec<&Word> = words.iter().collect();
        sorted.sort_by(|a, b| a.text.cmp(&b.text));
        let mut all = Vec::new();
        for word in sorted {
            for port in self.expand_words(&word.text, word, state, instruction)?.words {
                let parsed = ports::parse(&port).map_err(|reason| {
                    Diagnostic::error(format!("EXPOSE can't use `{port}`: {reason}"), word.span)
                        .label("expected port[-port][/tcp|udp|sctp]")
                })?;
                if parsed.odd_case {
                    let message =
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    self.lint.warn(
                        &rules::EXPOSE_PROTO_CASING,
                        &instruction.comments,
                        Some(word.span),
                        message,
                    );
                }
                if parsed.mapped {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    self.lint.warn(
                        &rules::EXPOSE_INVALID_FORMAT,
                        &instruction.comments,
                        Some(word.span),
                        message,
                    );
                }
                all.extend(parsed.ports);
                if all.len() > MOST_PORTS {
                    return Err(Diagnostic::error(
                        format!("EXPOSE names more than {MOST_PORTS} ports"),
                        word.span,
                    ));
                }
            }
        }
        let exposed = &mut state.config_mut().config.exposed_ports;
        exposed.extend(all.iter().map(|port| (port.clone(), serde_json::json!({}))));
        self.remark(state, format!("EXPOSE {}", go_list(&all)));
        Ok(())
    }

    fn volume(
        &mut self,
        words: &[Word],
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let mut paths = Vec::with_capacity(words.len());
        for word in words {
            let path = self.expand(&word.text, word, state, instruction)?;
            if path.is_empty() {
                return Err(Diagnostic::error(format!("the VOLUME `{}` is empty", word.text), word.span)
                    .label("expected a path"));
            }
            paths.push(path);
        }
        let volumes: &mut BTreeMap<_, _> = &mut state.config_mut().config.volumes;
        volumes.extend(paths.iter().map(|path| (path.clone(), serde_json::json!({}))));
        self.remark(state, format!("VOLUME {}", go_list(&paths)));
        Ok(())
    }

    fn stop_signal(
        &mut self,
        word: &Word,
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let signal = self.expand(&word.text, word, state, instruction)?;
        if !is_signal(&signal) {
            let name = signal.to_uppercase();
            let near =
                nearest(name.strip_prefix("SIG").unwrap_or(&name), SIGNALS).map(|name| format!("SIG{name}"));
            return Err(Diagnostic::error(format!("`{signal}` is no signal"), word.span)
                .label("expected a name such as SIGTERM, or a number")
                .suggest(near.as_deref()));
        }
        state.config_mut().config.stop_signal.clone_from(&signal);
        self.remark(state, format!("STOPSIGNAL {signal}"));
        Ok(())
    }

    fn workdir(
        &mut self,
        index: usize,
        word: &Word,
        step: &Step<'_>,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let instruction = &*step.instruction;
        let path = self.expand(&word.text, word, state, instruction)?;
        if !state.workdir_set && !path.starts_with('/') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.lint.warn(&rules::WORKDIR_RELATIVE_PATH, &instruction.comments, Some(word.span), message);
        }
        state.workdir_set = true;
        // an absolute path is stored as it is written
        let path = match path.as_str() {
            "" => state.cwd().to_owned(),
            absolute if absolute.starts_with('/') => path,
            relative => clean(&format!("{}/{relative}", state.cwd())).into_owned(),
        };
        state.config_mut().config.working_dir.clone_from(&path);
        if path == "/" {
            self.remark(state, "WORKDIR /".to_owned());
            return Ok(());
        }
        let user = state.config.config.user.clone();
        let owner = match user.split_once(':') {
            _ if user.is_empty() => None,
            Some((user, group)) => Some(Owner { user: user.to_owned(), group: Some(group.to_owned()) }),
            None => Some(Owner { user, group: None }),
        };
        let make =
            FileAction::MakeDir { path: clean(&path).into_owned(), mode: 0o755, owner, created: self.epoch };
        let root = self.root_vertex(state);
        let op = Op::File(FileOp { base: root.map(|_| 0), actions: vec![make] });
        let shown = self.shown(&instruction.text, &*state.env.clone(), false);
        let info = self.step_info(index, step, state, &shown);
        let inputs = root.map(|vertex| Input { vertex, usage: Usage::Root }).into_iter().collect();
        state.root = Root::Step(self.graph.add(op, inputs, info));
        let entry = self.history_entry(format!("WORKDIR {path}"), false);
        state.history.push(entry);
        Ok(())
    }

    fn check_secret(&mut self, kind: &str, name: &str, instruction: &Instruction, span: Span) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let has = |words: &[&str]| {
            name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
        };
        if has(&SECRET) && !has(&HARMLESS) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name:?})");
            self.lint.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, &instruction.comments, Some(span), message);
        }
    }
}

/// No image names as many; a few ranges would.
const MOST_PORTS: usize = 1 << 17;

/// What runs shell forms.
pub(super) fn shell(state: &State) -> Vec<String> {
    match &state.config.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ if state.config.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
        _ => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
