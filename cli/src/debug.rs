//! Steps of builds that are over, looked into: a shell, or another command, on the files that a RUN left when it failed or
//! that a step made.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bricklayer_cache::store::KEPT_FAILURES;
use bricklayer_frontend::Entitlement;
use bricklayer_solver::Platform;
use bricklayer_solver::event::{Reporter, Stream};
use bricklayer_solver::explain::KeyParts;
use bricklayer_solver::op::{Exec, ImageSource, Limits, Network, Security};
use bricklayer_solver::record::{Layer, Output, RecordStore as _};
use bricklayer_solver::worker::StepError;
use bricklayer_worker::sandbox::{Exit, Stdio};
use bricklayer_worker::{Difference, FailedStep, LocalWorker, Reopened, WorkerSettings};
use tokio_util::sync::CancellationToken;

use crate::build::{Builder, internal_task};
use crate::error::Error;
use crate::record::{BuildOutcome, BuildRecord, TaskRecord, TaskState, WorkKind};
use crate::request::{Secret, SshAgent};
use crate::run::{change_variables, step_failed};

/// A step to look into, and what is to be other than it was for the step.
///
/// Nothing that is secret, and no directory outside of the store, is kept with a failed step: secrets, agents,
/// directories and what needs to be allowed are given again.
#[derive(Debug, Clone, Default)]
pub struct DebugRequest {
    /// A build, as [`Builder::find_build`] takes it; `None`: the newest that failed.
    pub build: Option<String>,
    /// A step, as [`BuildRecord::find_task`] takes it; `None`: the one that failed.
    pub step: Option<String>,
    /// What is run; empty: the step's shell, or another one that is there.
    pub command: Vec<String>,
    /// Instead of the step's user: `user[:group]`.
    pub user: Option<String>,
    /// Instead of the step's working directory; absolute.
    pub working_dir: Option<String>,
    /// Variables; `None`: one of the step that is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// Instead of the step's network. The host's needs no further leave.
    pub network: Option<Network>,
    /// Secrets that the step mounts.
    pub secrets: Vec<Secret>,
    /// SSH agents that it mounts.
    pub ssh: Vec<SshAgent>,
    /// Local directories that it mounts, by the names of `--build-context`; `context` is the build context itself.
    pub contexts: Vec<(String, PathBuf)>,
    /// What it may do beyond the sandbox, if it did so in the build.
    pub entitlements: Vec<Entitlement>,
    /// The cgroup below which it gets its own.
    pub cgroup_parent: Option<String>,
    /// An OCI runtime (an absolute path) that it runs under; `None`: our own sandbox.
    pub oci_runtime: Option<PathBuf>,
    /// `HTTP_PROXY` and the like.
    pub proxy: Vec<(String, String)>,
}

/// A step that is open: a command that is ready to run on its files. What it writes to them is thrown away.
pub struct DebugSession {
    builder: Builder,
    build: String,
    step: TaskRecord,
    reopened: Reopened,
    differences: Vec<Difference>,
    /// Agents of our own end with it.
    _ssh: Vec<SshAgent>,
}

/// Why the value of a variable is not known.
const MAYBE_SECRET: &str = "a value that may be a secret is not kept";
const CLIPPED: &str = "not all of its value is kept";

/// What is opened.
struct Scene {
    exec: Exec,
    inputs: Vec<Output>,
    /// What the step left when it failed.
    left: Option<Layer>,
    /// Variables whose values are not known, each with the reason.
    withheld: Vec<(String, &'static str)>,
    images: Vec<ImageSource>,
}

impl Builder {
    /// Opens a step of a build that is over, or that goes on: a RUN that failed, as it left its files, with its mounts,
    /// variables, user, working directory, network and limits; or a step that went well, with the files that it made. It
    /// can be opened any number of times, until what it left is pruned or newer failures have taken its place.
    ///
    /// # Errors
    ///
    /// There is no such build or step, nothing is kept of it, it has not run; a secret that it requires is missing; or what
    /// is kept of it can't be understood.
    pub async fn debug(
        &self,
        request: DebugRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> Result<DebugSession, Error> {
        let found = {
            let (builder, build, step) = (self.clone(), request.build.clone(), request.step.clone());
            self.blocking(move || builder.scene(build.as_deref(), step.as_deref())).await?
        };
        let (record, step, mut scene) = found;
        let mut differences = Vec::new();
        scene.apply(&request, &mut differences);
        let worker = LocalWorker::new(
            self.store.clone(),
            Arc::new(self.registry.clone()),
            settings(&request, std::mem::take(&mut scene.images)),
        );
        let task = internal_task(&reporter, "[internal] open a step");
        let reopened = worker
            .reopen(&scene.exec, &scene.inputs, scene.left, &request.command, &task, &cancel)
            .await
            .map_err(|error| match error {
                StepError::Lost { message } => {
                    let what =
                        format!("the files that {} stood on are not in the store any more", called(&step));
                    advise(&step, Error::because(what, message))
                }
                error => step_failed(error),
            })?;
        differences.extend_from_slice(reopened.differences());
        Ok(DebugSession {
            builder: self.clone(),
            build: record.id,
            step,
            reopened,
            differences,
            _ssh: request.ssh,
        })
    }

    fn scene(
        &self,
        build: Option<&str>,
        step: Option<&str>,
    ) -> Result<(BuildRecord, TaskRecord, Scene), Error> {
        let record = match build {
            Some(typed) => self.find_build(typed)?,
            None => self.last_failed_build()?,
        };
        let task = match step {
            Some(typed) => record.find_task(typed)?,
            None => record.failed().ok_or_else(|| no_failed_step(&record))?,
        };
        let task = task.clone();
        if task.kind != WorkKind::Step {
            return Err(Error::new(format!("{} is no step that makes files", called(&task)))
                .with_hint(format!("`bricklayer builds {}` lists the steps", record.id)));
        }
        if task.op.as_deref() == Some("local") {
            return Err(Error::new(format!(
                "{} reads a directory of this machine, and makes no files",
                called(&task)
            )));
        }
        let scene = match task.state {
            TaskState::Failed => self.left_scene(&record, &task)?,
            TaskState::Done | TaskState::Cached | TaskState::Shared => self.made_scene(&record, &task)?,
            TaskState::Pending => return Err(not_run(&record, &task, "has not run")),
            TaskState::Running => return Err(not_run(&record, &task, "still runs")),
            TaskState::Cancelled => return Err(not_run(&record, &task, "was stopped before it ended")),
        };
        Ok((record, task, scene))
    }

    /// What a RUN left when it failed.
    fn left_scene(&self, record: &BuildRecord, task: &TaskRecord) -> Result<Scene, Error> {
        let kept = self
            .store
            .failure(&record.id, task.number)
            .map_err(|e| Error::because(format!("cannot look up what {} left", called(task)), e))?;
        let Some(kept) = kept else {
            return Err(match (task.op.as_deref(), task.exit_code) {
                (None | Some("run"), Some(_)) => {
                    advise(task, Error::new(format!("what {} left is not kept any more", called(task))))
                }
                (None | Some("run"), None) => {
                    Error::new(format!("{} failed before its command ran, and left nothing", called(task)))
                }
                _ => stood_on(
                    record,
                    task,
                    Error::new(format!("{} failed, and only what a RUN leaves is kept", called(task))),
                ),
            });
        };
        let step = FailedStep::decode(&kept.description)
            .map_err(|e| Error::because(format!("cannot open {} of build {}", called(task), record.id), e))?;
        Ok(Scene {
            inputs: step.inputs(),
            exec: step.exec,
            left: Some(kept.layer),
            withheld: step.withheld.into_iter().map(|name| (name, MAYBE_SECRET)).collect(),
            images: step.images,
        })
    }

    /// What a step made.
    fn made_scene(&self, record: &BuildRecord, task: &TaskRecord) -> Result<Scene, Error> {
        let Some(key) = task.key else {
            return Err(match record.outcome {
                BuildOutcome::Running => Error::new(format!(
                    "build {} still runs, and where the files of {} are is noted at its end",
                    record.id,
                    called(task)
                )),
                _ => Error::new(format!(
                    "build {} was cut short, and where the files of {} are was not noted",
                    record.id,
                    called(task)
                ))
                .with_hint("build again: what was cached is found"),
            });
        };
        let found = self
            .store
            .find(&[key])
            .map_err(|e| Error::because(format!("cannot look up the result of {}", called(task)), e))?;
        let Some(made) = found.into_iter().next().flatten() else {
            return Err(advise(
                task,
                Error::new(format!("the files that {} made are not in the store any more", called(task))),
            ));
        };
        let (exec, withheld) = exec_of(KeyParts::decode(&made.parts).filter(|parts| parts.kind == "run"));
        let inputs = vec![Output::Snapshot(made.output)];
        Ok(Scene { exec, inputs, left: None, withheld, images: Vec::new() })
    }
}

impl Scene {
    /// Makes it what the request asks for.
    fn apply(&mut self, request: &DebugRequest, differences: &mut Vec<Difference>) {
        let exec = &mut self.exec;
        change_variables(&mut exec.env, &request.env);
        for (name, why) in &self.withheld {
            if !request.env.iter().any(|(given, _)| given == name) {
                differences.push(Difference {
                    text: format!("{name} is not set: {why}"),
                    hint: Some(format!("-e {name}=VALUE")),
                });
            }
        }
        if let Some(user) = &request.user {
            exec.user.clone_from(user);
        }
        if let Some(directory) = &request.working_dir {
            exec.cwd.clone_from(directory);
        }
        if let Some(network) = request.network {
            exec.network = network;
        }
        if let (Some(parent), None) = (&exec.cgroup_parent, &request.cgroup_parent) {
            differences.push(Difference {
                text: "it is not below the control group of the build".to_owned(),
                hint: Some(format!("--cgroup-parent {parent}")),
            });
        }
        exec.cgroup_parent.clone_from(&request.cgroup_parent);
        exec.proxy_env = request.proxy.iter().map(|(name, value)| format!("{name}={value}")).collect();
    }
}

impl DebugSession {
    /// The build's ID.
    pub fn build(&self) -> &str {
        &self.build
    }

    /// The step.
    pub fn step(&self) -> &TaskRecord {
        &self.step
    }

    /// What is not as it was for the step.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Runs the command to its end. What it writes goes to `output`, as it comes. When `cancel` is cancelled it is killed.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`], or why it can't be started.
    pub async fn run(
        self,
        stdio: Stdio,
        output: impl Fn(Stream, &[u8]) + Send + 'static,
        cancel: CancellationToken,
    ) -> Result<Exit, Error> {
        let Self { builder, reopened, _ssh, .. } = self;
        let run = move || {
            let exit = reopened.run(stdio, &output, &cancel).map_err(step_failed);
            drop(_ssh);
            exit
        };
        builder.blocking(run).await
    }
}

fn settings(request: &DebugRequest, images: Vec<ImageSource>) -> WorkerSettings {
    let mut locals = HashMap::new();
    for (name, directory) in &request.contexts {
        if name == "context" {
            locals.insert(name.clone(), directory.clone());
        }
        locals.insert(format!("context:{name}"), directory.clone());
    }
    WorkerSettings {
        locals,
        images,
        secrets: request.secrets.iter().map(|secret| (secret.id.clone(), secret.value.clone())).collect(),
        ssh: request.ssh.iter().map(|agent| (agent.id.clone(), agent.socket.clone())).collect(),
        allow_host_network: request.network == Some(Network::Host)
            || request.entitlements.contains(&Entitlement::NetworkHost),
        allow_insecure: request.entitlements.contains(&Entitlement::SecurityInsecure),
        oci_runtime: request.oci_runtime.clone(),
        ..WorkerSettings::default()
    }
}

/// A command on input 0, with the variables, the directory and the user that a record's parts have, and the names of
/// variables that are not whole in them.
fn exec_of(parts: Option<KeyParts>) -> (Exec, Vec<(String, &'static str)>) {
    let mut exec = Exec {
        root: Some(0),
        args: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: Network::Default,
        security: Security::Sandbox,
        hostname: None,
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        proxy_env: Vec::new(),
        limits: Limits::default(),
        platform: Platform::host(),
    };
    let mut withheld = Vec::new();
    for (field, value) in parts.into_iter().flat_map(|parts| parts.fields) {
        let why = if value.text.is_some() { CLIPPED } else { MAYBE_SECRET };
        let whole = value.text.filter(|_| value.digest.is_none());
        let variable = field.strip_prefix("env ").or_else(|| field.strip_prefix("build-arg "));
        match (variable, field.as_str(), whole) {
            (Some(name), _, Some(value)) => exec.env.push(format!("{name}={value}")),
            (Some(name), _, None) => withheld.push((name.to_owned(), why)),
            (None, "working directory", Some(directory)) => exec.cwd = directory,
            (None, "user", Some(user)) => exec.user = user,
            (None, "network", Some(network)) if network == "none" => exec.network = Network::None,
            _ => {}
        }
    }
    (exec, withheld)
}

/// A step as errors call it: the whole of a long name is in the record.
fn called(task: &TaskRecord) -> String {
    const LONGEST: usize = 80;
    let (name, more) = match task.name.char_indices().nth(LONGEST) {
        Some((at, _)) => (&task.name[..at], "…"),
        None => (task.name.as_str(), ""),
    };
    format!("#{} {name}{more}", task.number)
}

fn no_failed_step(record: &BuildRecord) -> Error {
    let error = match record.outcome {
        BuildOutcome::Failed => {
            Error::new(format!("no step of build {} failed: it failed before or after", record.id))
        }
        _ => Error::new(format!("no step of build {} failed", record.id)),
    };
    error.with_hint(format!("name a step: bricklayer debug {} STEP", record.id))
}

/// A step that did not come to its end.
fn not_run(record: &BuildRecord, task: &TaskRecord, how: &str) -> Error {
    let error = Error::new(format!("{} {how} in build {}", called(task), record.id));
    match record.failed().filter(|failed| failed.kind == WorkKind::Step) {
        Some(failed) => {
            error.with_hint(format!("what failed: bricklayer debug {} {}", record.id, failed.number))
        }
        None => stood_on(record, task, error),
    }
}

/// Says how what is not there any more can be had again.
fn advise(task: &TaskRecord, gone: Error) -> Error {
    gone.with_hint(match task.state {
        TaskState::Failed => format!(
            "what the newest {KEPT_FAILURES} RUNs that failed left is kept, until it is pruned: build again"
        ),
        _ => format!("build again, and then: bricklayer debug latest {}", task.number),
    })
}

/// Says which steps can be looked into instead: those that it needs.
fn stood_on(record: &BuildRecord, task: &TaskRecord, error: Error) -> Error {
    let files =
        |number: &&u64| record.numbered(**number).is_some_and(|task| task.op.as_deref() != Some("local"));
    let needed: Vec<String> = task
        .inputs
        .iter()
        .filter(files)
        .map(|number| format!("bricklayer debug {} {number}", record.id))
        .collect();
    if needed.is_empty() {
        return error;
    }
    error.with_hint(format!("what it stood on: {}", needed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(fields: &str) -> Option<KeyParts> {
        let text = format!(r#"{{"v":1,"kind":"run","instruction":"RUN x","fields":[{fields}],"inputs":[]}}"#);
        KeyParts::decode(text.as_bytes())
    }

    #[test]
    fn a_step_that_went_well_has_what_its_record_says_of_it() {
        let (exec, withheld) = exec_of(parts(
            r#"["command",{"t":"/bin/sh -c make"}], ["env A",{"t":"b"}], ["build-arg V",{"t":"1 = 2"}],
               ["env TOKEN",{"d":"12"}], ["env LONG",{"t":"abc…","d":"34"}], ["env EMPTY",{"t":""}],
               ["working directory",{"t":"/work"}], ["user",{"t":"app:1"}], ["network",{"t":"none"}],
               ["security",{"t":"insecure"}], ["cgroup parent",{"t":"x"}]"#,
        ));
        assert_eq!(exec.env, ["A=b", "V=1 = 2", "EMPTY="]);
        assert_eq!((exec.cwd.as_str(), exec.user.as_str(), exec.network), ("/work", "app:1", Network::None));
        assert_eq!(withheld, [("TOKEN".to_owned(), MAYBE_SECRET), ("LONG".to_owned(), CLIPPED)]);
        // more than a RUN has by itself is not taken from a record
        assert_eq!((exec.security, exec.cgroup_parent), (Security::Sandbox, None));
        let (host, _) = exec_of(parts(r#"["network",{"t":"host"}], ["user",{"t":"a…","d":"1"}]"#));
        assert_eq!((host.network, host.user.as_str()), (Network::Default, ""));
        let (none, withheld) = exec_of(None);
        assert_eq!((none.env.len(), none.cwd.as_str(), withheld.len()), (0, "/", 0));
    }

    #[test]
    fn a_session_can_be_moved_between_threads() {
        fn moved<T: Send>(_: impl FnOnce(Builder) -> T) {}
        moved(|builder: Builder| async move {
            let (reporter, cancel) = (Reporter::silent(), CancellationToken::new());
            let session = builder.debug(DebugRequest::default(), reporter, cancel.clone()).await?;
            session.run(Stdio::default(), |_, _| {}, cancel).await
        });
    }
}
