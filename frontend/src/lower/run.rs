//! RUN.

use std::rc::Rc;

use bricklayer_solver::graph::{Input, StepInfo, Usage, VertexId};
use bricklayer_solver::op::{
    Exec, FileAction, FileOp, Mode, Mount, MountKind, Network, Op, SecretEnv, SecretMount, Security,
    Selection,
};
use bricklayer_solver::pattern::clean;

use super::checks::PROXIES;
use super::config::shell;
use super::mount::{self, Spec, Type};
use super::names::Masked;
use super::stage::Step;
use super::state::{Root, State};
use super::{Lowering, Note};
use crate::api::Entitlement;
use crate::diagnostics::Diagnostic;
use crate::instruction::{CommandForm, Heredoc, Run, Word};
use crate::lint::rules;
use crate::split::marker;
use crate::suggest::nearest;
use crate::words::Variables;

/// What a RUN's mounts come to.
#[derive(Default)]
struct Mounts {
    mounts: Vec<Mount>,
    secret_env: Vec<SecretEnv>,
    /// The first agent's socket.
    ssh_socket: Option<String>,
}

/// What is run, and the script that it needs.
struct CommandLine {
    args: Vec<String>,
    script: Option<VertexId>,
    /// What is added to the step's name.
    summary: String,
}

impl Lowering<'_> {
    pub(super) fn run_step(
        &mut self,
        index: usize,
        run: &Run,
        step: &Step<'_>,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let root = self.root_vertex(state);
        let mut inputs: Vec<Input> =
            root.map(|vertex| Input { vertex, usage: Usage::Root }).into_iter().collect();
        let command = self.command_line(run, step, state)?;
        let mut mounts = Mounts::default();
        if let Some(script) = command.script {
            inputs.push(Input { vertex: script, usage: Usage::Files(whole()) });
            mounts.mounts.push(Mount {
                target: "/dev/pipes".to_owned(),
                kind: MountKind::Bind { input: inputs.len() - 1, source: "/".to_owned(), writable: false },
            });
        }
        for (word, source) in run.mounts.iter().zip(&step.sources) {
            let instruction = &*step.instruction;
            let spec = mount::parse(word, &mut |value| self.expand(value, word, state, instruction))?;
            self.add_mount(index, spec, *source, (word, instruction.lines), state, &mut inputs, &mut mounts)?;
        }
        let network = self.network(run.network.as_ref())?;
        let security = self.security(run.security.as_ref())?;
        if let Some(device) = run.devices.first() {
            return Err(Diagnostic::error(
                format!("the device `{}` can't be given to a RUN", device.text),
                device.span,
            )
            .label("--device is not supported"));
        }
        self.charge(state.run_cost(), &run.command.word)?;
        let mut env = state.env.to_list();
        if let Some(socket) = &mounts.ssh_socket
            && state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let options = self.options;
        let hidden: Vec<String> = mounts.secret_env.iter().map(|secret| secret.variable.clone()).collect();
        let exec = Exec {
            root: root.map(|_| 0),
            args: command.args.clone(),
            env,
            cwd: state.cwd().to_owned(),
            user: state.config.config.user.clone(),
            mounts: mounts.mounts,
            secret_env: mounts.secret_env,
            network,
            security,
            hostname: self.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned(),
            extra_hosts: options.extra_hosts.clone(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            proxy_env: self.proxy_env(),
            limits: options.limits.clone(),
            platform: state.platform.clone(),
        };
        let shown = {
            let variables = Masked { variables: &*state.env, hidden: &hidden };
            self.shown(&step.instruction.text, &variables, true)
        };
        let mut info = self.step_info(index, step, state, &format!("{shown}{}", command.summary));
        info.build_args = state.args.names().map(str::to_owned).collect();
        state.root = Root::Step(self.graph.add(Op::Exec(Box::new(exec)), inputs, info));
        let entry =
            self.history_entry(format!("RUN {} # buildkit", history_text(&command.args, state)), false);
        state.history.push(entry);
        Ok(())
    }

    /// The program and its arguments.
    fn command_line(&mut self, run: &Run, step: &Step<'_>, state: &State) -> Result<CommandLine, Diagnostic> {
        let text = match &run.command.form {
            CommandForm::Exec(args) => {
                return Ok(CommandLine { args: args.clone(), script: None, summary: String::new() });
            }
            CommandForm::Shell(text) => text,
        };
        let heredocs = &run.command.heredocs;
        let mut args = shell(state);
        let (mut script, mut summary) = (None, String::new());
        match heredocs.first() {
            None => args.push(text.clone()),
            Some(heredoc) if marker(text).is_some() => {
                summary = format!(" ({})", summarised(&heredoc.content));
                let body = heredoc.text();
                if body.starts_with("#!") && state.config.os != "windows" {
                    script = Some(self.script(heredoc, body, &run.command.word)?);
                    args.push(format!("/dev/pipes/{}", heredoc.name));
                } else {
                    self.check_errexit(&args, &body, step, heredoc);
                    args.push(body);
                }
            }
            Some(_) => {
                let mut whole = text.clone();
                for heredoc in heredocs {
                    whole.push('\n');
                    whole.push_str(&heredoc.content);
                    whole.push_str(&heredoc.name);
                }
                args.push(whole);
            }
        }
        Ok(CommandLine { args, script, summary })
    }

    /// The step that writes a script.
    fn script(&mut self, heredoc: &Heredoc, body: String, word: &Word) -> Result<VertexId, Diagnostic> {
        let action = FileAction::MakeFile {
            path: format!("/{}", file_name(heredoc, word)?),
            mode: Mode::Bits(0o755),
            data: body.into_bytes(),
            owner: None,
            created: self.epoch,
        };
        let info =
            StepInfo { name: "[internal] preparing inline document".to_owned(), ..StepInfo::default() };
        Ok(self.graph.add(Op::File(FileOp { base: None, actions: vec![action] }), Vec::new(), info))
    }

    /// A shell goes on behind a line that fails, which surprises those who write several.
    fn check_errexit(&mut self, shell: &[String], body: &str, step: &Step<'_>, heredoc: &Heredoc) {
        let is_errexit = |word: &str| {
            word == "errexit"
                || word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('e'))
        };
        let mut commands =
            body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let told = shell.iter().skip(1).any(|word| is_errexit(word))
            || commands.clone().any(|line| {
                line.split(['&', ';', '|']).any(|command| {
                    let mut words = command.split_whitespace();
                    words.next() == Some("set") && words.any(is_errexit)
                })
            });
        if told || commands.nth(1).is_none() {
            return;
        }
        let message = format!("RUN goes on behind a failing line of the heredoc `{}`", heredoc.name);
        let span = Some(step.instruction.keyword.span);
        self.lint.warn(&rules::HEREDOC_WITHOUT_ERREXIT, &step.instruction.comments, span, message);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one mount of one RUN: nothing that would be an object of its own"
    )]
    fn add_mount(
        &mut self,
        index: usize,
        spec: Spec,
        source: Option<usize>,
        (word, lines): (&Word, (u32, u32)),
        state: &State,
        inputs: &mut Vec<Input>,
        out: &mut Mounts,
    ) -> Result<(), Diagnostic> {
        let path = clean(&format!("/{}", spec.source)).into_owned();
        let target = if clean(&spec.target).starts_with('/') {
            clean(&spec.target).into_owned()
        } else {
            clean(&format!("/{}/{}", state.cwd(), spec.target)).into_owned()
        };
        let default_target = spec.target.is_empty();
        let is_file = !matches!(spec.kind, Type::Secret | Type::Ssh);
        if (is_file || !default_target) && target == "/" {
            return Err(Diagnostic::error("the mount target `/` can't be used", word.span)
                .label("expected `target=` and a path below the root"));
        }
        if matches!(spec.kind, Type::Secret | Type::Ssh) {
            self.notes.push(Note {
                stage: index,
                ssh: spec.kind == Type::Ssh,
                id: secret_id(&spec),
                required: spec.required,
                lines,
            });
        }
        let secret = |id: String, mode: u32| SecretMount {
            id,
            mode: spec.mode.unwrap_or(mode),
            uid: spec.uid.unwrap_or(0),
            gid: spec.gid.unwrap_or(0),
            required: spec.required,
        };
        match spec.kind {
            Type::Bind => {
                let vertex = match source {
                    Some(source) => self.files_of(source, index, word)?,
                    None => self.main_context().map_err(|error| at(error, word))?,
                };
                let paths =
                    if path == "/" { Vec::new() } else { vec![path.trim_start_matches('/').to_owned()] };
                let selection = Selection { paths, ..Selection::default() };
                inputs.push(Input { vertex, usage: Usage::Files(selection) });
                let kind =
                    MountKind::Bind { input: inputs.len() - 1, source: path, writable: !spec.read_only };
                out.mounts.push(Mount { target, kind });
            }
            Type::Cache => {
                let input = match source {
                    Some(source) => {
                        let vertex = self.files_of(source, index, word)?;
                        inputs.push(Input { vertex, usage: Usage::Root });
                        Some(inputs.len() - 1)
                    }
                    None => None,
                };
                let id = if spec.id.is_empty() { clean(&spec.target).into_owned() } else { spec.id };
                let id = match self.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|ns| !ns.is_empty()) {
                    Some(namespace) => format!("{namespace}/{id}"),
                    None => id,
                };
                // a source's own directory keeps its owner and mode
                let own = path == "/";
                let kind = MountKind::Cache {
                    id,
                    sharing: spec.sharing.unwrap_or_default(),
                    input,
                    source: path,
                    mode: spec.mode.filter(|_| own),
                    uid: spec.uid.filter(|_| own),
                    gid: spec.gid.filter(|_| own),
                    read_only: spec.read_only,
                };
                out.mounts.push(Mount { target, kind });
            }
            Type::Tmpfs => out
                .mounts
                .push(Mount { target, kind: MountKind::Tmpfs { size: spec.size.filter(|size| *size > 0) } }),
            Type::Secret => {
                let last =
                    |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                let id =
                    [spec.id.as_str(), &spec.source].into_iter().find(|id| !id.is_empty()).map(str::to_owned);
                let id = id.unwrap_or_else(|| last(&spec.target));
                if id.is_empty() {
                    return Err(
                        Diagnostic::error("a secret mount needs an id", word.span).label("expected `id=…`")
                    );
                }
                if let Some(variable) = &spec.env {
                    let variable = if variable.is_empty() { id.clone() } else { variable.clone() };
                    out.secret_env.push(SecretEnv { id: id.clone(), variable, required: spec.required });
                    if default_target {
                        return Ok(());
                    }
                }
                let target = if default_target { format!("/run/secrets/{}", last_part(&id)) } else { target };
                out.mounts.push(Mount { target, kind: MountKind::Secret(secret(id, 0o400)) });
            }
            Type::Ssh => {
                let number =
                    out.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Ssh(_))).count();
                let target =
                    if default_target { format!("/run/buildkit/ssh_agent.{number}") } else { target };
                out.ssh_socket.get_or_insert_with(|| target.clone());
                out.mounts.push(Mount { target, kind: MountKind::Ssh(secret(secret_id(&spec), 0o600)) });
            }
        }
        Ok(())
    }

    fn network(&self, word: Option<&Word>) -> Result<Network, Diagnostic> {
        let Some(word) = word else { return Ok(self.options.network) };
        match network_named(word)? {
            Network::Default => Ok(self.options.network),
            Network::Host if !self.options.entitlements.contains(&Entitlement::NetworkHost) => {
                Err(not_allowed("network.host", "the host's network", word))
            }
            network => Ok(network),
        }
    }

    fn security(&self, word: Option<&Word>) -> Result<Security, Diagnostic> {
        let Some(word) = word else { return Ok(Security::Sandbox) };
        match security_named(word)? {
            Security::Insecure if !self.options.entitlements.contains(&Entitlement::SecurityInsecure) => {
                Err(not_allowed("security.insecure", "a RUN without its sandbox's limits", word))
            }
            security => Ok(security),
        }
    }

    /// Proxy variables from build arguments, in both spellings.
    fn proxy_env(&self) -> Vec<String> {
        let mut env = Vec::new();
        for proxy in PROXIES {
            // of several spellings the last in order of their names counts
            let given = self
                .build_args
                .iter()
                .rfind(|(name, value)| name.eq_ignore_ascii_case(proxy) && !value.is_empty());
            if let Some((_, value)) = given {
                env.push(format!("{}={value}", proxy.to_uppercase()));
                env.push(format!("{proxy}={value}"));
            }
        }
        env
    }
}

/// All files of an input.
fn whole() -> Selection {
    Selection { paths: vec![".".to_owned()], ..Selection::default() }
}

/// The name of a secret or an agent: its id, or the last part of its target.
fn secret_id(spec: &Spec) -> String {
    match (spec.id.as_str(), spec.source.as_str()) {
        ("", "") if spec.kind == Type::Ssh => "default".to_owned(),
        ("", "") => last_part(&spec.target).to_owned(),
        ("", source) => source.to_owned(),
        (id, _) => id.to_owned(),
    }
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The value of `--network`.
pub(super) fn network_named(word: &Word) -> Result<Network, Diagnostic> {
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Err(Diagnostic::error(format!("unknown network `{other}`"), word.span)
            .label("expected default, none or host")
            .suggest(nearest(other, ["default", "none", "host"]))),
    }
}

/// The value of `--security`.
pub(super) fn security_named(word: &Word) -> Result<Security, Diagnostic> {
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => Err(Diagnostic::error(format!("unknown security mode `{other}`"), word.span)
            .label("expected sandbox or insecure")
            .suggest(nearest(other, ["sandbox", "insecure"]))),
    }
}

fn not_allowed(entitlement: &str, what: &str, word: &Word) -> Diagnostic {
    Diagnostic::error(format!("{what} needs the entitlement {entitlement}, which is not allowed"), word.span)
        .label("not allowed")
        .help(format!("allow it with `--allow {entitlement}`"))
}

/// The name of a heredoc's file: one part of a path.
pub(super) fn file_name<'h>(heredoc: &'h Heredoc, word: &Word) -> Result<&'h str, Diagnostic> {
    let name = heredoc.name.as_str();
    if name.contains(['/', '\0']) || matches!(name, "" | "." | "..") {
        return Err(Diagnostic::error(
            format!("the heredoc `{name}` can't be a file: its marker is no file name"),
            word.span,
        )
        .label("expected a marker without `/`"));
    }
    Ok(name)
}

/// An error that stands nowhere, at the word that asked for it.
pub(super) fn at(mut error: Diagnostic, word: &Word) -> Diagnostic {
    error.span.get_or_insert(word.span);
    error
}

/// The first line of a heredoc.
fn summarised(content: &str) -> String {
    let text = content.trim();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim_end();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

/// What the history says of a RUN: its arguments, with the ARGs in scope before them.
fn history_text(args: &[String], state: &State) -> String {
    let arguments: Vec<String> = Rc::clone(&state.args)
        .iter()
        .map(|(name, value)| format!("{name}={}", state.env.get(name).unwrap_or(value)))
        .collect();
    let command = args.join(" ");
    if arguments.is_empty() {
        command
    } else {
        format!("|{} {} {command}", arguments.len(), arguments.join(" "))
    }
}
