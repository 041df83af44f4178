//! Images are tried out: a command on the files of an image, in the sandbox that RUN has. What it changes is thrown away.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::store::NamedImage;
use bricklayer_solver::Platform;
use bricklayer_solver::event::{Reporter, Stream};
use bricklayer_solver::image::RunConfig;
use bricklayer_solver::op::{ImageSource, Limits, Network, Security};
use bricklayer_solver::worker::StepError;
use bricklayer_worker::sandbox::{
    self, Attached, AttachedMount, CapabilityChanges, Exit, SandboxError, Stdio, Tmpfs,
};
use bricklayer_worker::{LocalWorker, WorkerSettings, WritableRoot, overlay};
use tokio_util::sync::CancellationToken;

use crate::build::{Builder, internal_task};
use crate::error::Error;
use crate::images::{image_parts, parse};
use crate::request::PullPolicy;

/// A container: an image, and what is different from what its config says.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// A name, or the beginning of an ID.
    pub image: String,
    /// `None`: what this program runs on.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub pull: PullPolicy,
    /// Arguments; empty: those of the image (CMD).
    pub command: Vec<String>,
    /// Instead of the image's ENTRYPOINT; the image's CMD does not count then. Empty: none.
    pub entrypoint: Option<Vec<String>>,
    /// Variables; `None`: one of the image that is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// Instead of the image's WORKDIR; absolute.
    pub working_dir: Option<String>,
    /// Instead of the image's USER.
    pub user: Option<String>,
    /// What is mounted, in this order.
    pub mounts: Vec<RunMount>,
    /// The network that it sees. The host's needs no further leave: who asks for it is who would give it.
    pub network: Network,
    /// The host name; `None`: one made up.
    pub hostname: Option<String>,
    /// Lines for /etc/hosts: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of /dev/shm in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Limits of all its processes together.
    pub limits: Limits,
    /// The cgroup below which it gets its own.
    pub cgroup_parent: Option<String>,
    /// What it may do more, or less, than RUN may.
    pub capabilities: CapabilityChanges,
    /// Can it write to what is mounted only?
    pub read_only: bool,
    /// An OCI runtime (an absolute path) that it runs under; `None`: our own sandbox.
    pub oci_runtime: Option<PathBuf>,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// An absolute path inside.
    pub target: String,
    /// What is mounted there.
    pub kind: RunMountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMountKind {
    /// A file or directory of the host.
    Bind {
        /// Where, absolute.
        source: PathBuf,
        /// Can it only be read?
        read_only: bool,
        /// Is a directory made if there is nothing?
        make: bool,
    },
    /// An empty directory in memory.
    Tmpfs(Tmpfs),
}

/// A container that is ready to run.
pub struct Container {
    builder: Builder,
    root: WritableRoot,
    command: sandbox::Command,
    /// What an OCI runtime needs.
    _scratch: Option<tempfile::TempDir>,
}

impl Builder {
    /// Prepares a container: finds the image, pulls it if it is missing, and lays an empty layer on its files.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] names the image, the user or the mount that is not there.
    pub async fn container(
        &self,
        request: RunRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> Result<Container, Error> {
        let image = self.image_to_run(&request, &reporter).await?;
        let parts = image_parts(&self.store, &image.descriptor, request.platform.as_ref())?
            .ok_or_else(|| Error::new(format!("{} has no image for that platform", request.image)))?;
        let source = ImageSource {
            reference: if image.name.is_empty() { request.image.clone() } else { image.name },
            manifest: parts.manifest.digest,
            diff_ids: parts.config.rootfs.diff_ids.clone(),
            platform: parts.config.platform(),
        };
        let settings = WorkerSettings { images: vec![source.clone()], ..WorkerSettings::default() };
        let worker =
            LocalWorker::new(self.store.clone(), std::sync::Arc::new(self.registry.clone()), settings);
        // unpacking what is there says nothing that people wait for
        let task = internal_task(&Reporter::silent(), "the files of an image");
        let mut root = worker.writable_image(&source, &task, &cancel).await.map_err(step_failed)?;
        let builder = self.clone();
        self.blocking(move || {
            let mut command = command(&request, &parts.config.config, &mut root)?;
            let mut scratch = None;
            if let Some(program) = request.oci_runtime.clone() {
                let directory = builder
                    .store
                    .scratch()
                    .map_err(|e| Error::because("cannot make a scratch directory", e))
                    .and_then(|above| {
                        tempfile::tempdir_in(&above)
                            .map_err(|e| Error::because("cannot make a scratch directory", e))
                    })?;
                command.runtime = Some(sandbox::Runtime { program, scratch: directory.path().to_owned() });
                scratch = Some(directory);
            }
            Ok(Container { builder, root, command, _scratch: scratch })
        })
        .await
    }

    async fn image_to_run(&self, request: &RunRequest, reporter: &Reporter) -> Result<NamedImage, Error> {
        let known = self.find(&request.image);
        match (request.pull, known) {
            (PullPolicy::Missing | PullPolicy::Never, Ok(image)) => Ok(image),
            (PullPolicy::Never, Err(error)) => Err(error),
            (PullPolicy::Missing | PullPolicy::Always, known) => {
                // what can't be the name of an image, such as an ID, can't be pulled either
                if let (Err(unknown), Err(_)) = (known, parse(&request.image)) {
                    return Err(unknown);
                }
                self.pull(&request.image, request.platform.clone(), reporter.clone()).await
            }
        }
    }
}

impl Container {
    /// Runs it to its end. What it writes goes to `output`, as it comes. When `cancel` is cancelled it is killed.
    pub async fn run(
        self,
        stdio: Stdio,
        output: impl Fn(Stream, &[u8]) + Send + 'static,
        cancel: CancellationToken,
    ) -> Result<Exit, Error> {
        let Self { builder, root, mut command, _scratch } = self;
        command.stdio = stdio;
        let run = move || {
            let exit = sandbox::run(command, &output, &cancel).map_err(|error| match error {
                SandboxError::Cancelled => Error::Cancelled,
                error => Error::because("cannot run the container", error),
            });
            drop((root, _scratch));
            exit
        };
        builder.blocking(run).await
    }
}

/// What the sandbox is asked for.
fn command(
    request: &RunRequest,
    config: &RunConfig,
    root: &mut WritableRoot,
) -> Result<sandbox::Command, Error> {
    let args = arguments(request, config);
    if args.is_empty() {
        return Err(Error::new(format!("{} says no command, and none was given", request.image))
            .with_hint(format!("bricklayer run {} COMMAND", request.image)));
    }
    let hostname = match &request.hostname {
        Some(name) => name.clone(),
        None => made_up_name(),
    };
    let user = root.user(request.user.as_deref().unwrap_or(&config.user)).map_err(step_failed)?;
    let cwd = match request.working_dir.as_deref().unwrap_or(&config.working_dir) {
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    };
    let mounts = request.mounts.iter().map(attach).collect::<Result<Vec<_>, Error>>()?;
    Ok(sandbox::Command {
        root: root.take().map_err(step_failed)?,
        upper: Some(root.upper().map_err(step_failed)?),
        args,
        env: environment(request, config, &hostname),
        cwd,
        user,
        mounts,
        network: request.network,
        more_to_come: false,
        security: Security::Sandbox,
        capabilities: request.capabilities,
        read_only: request.read_only,
        stdio: Stdio::default(),
        runtime: None,
        hostname: Some(hostname),
        extra_hosts: request.extra_hosts.clone(),
        shm_size: request.shm_size,
        ulimits: request.ulimits.clone(),
        limits: request.limits.clone(),
        cgroup_parent: request.cgroup_parent.clone(),
    })
}

/// ENTRYPOINT and CMD, as Docker joins them.
fn arguments(request: &RunRequest, config: &RunConfig) -> Vec<String> {
    let (mut args, default) = match &request.entrypoint {
        Some(given) => (given.clone(), None),
        None => (config.entrypoint.clone().unwrap_or_default(), config.cmd.as_ref()),
    };
    match (request.command.as_slice(), default) {
        ([], Some(cmd)) => args.extend(cmd.iter().cloned()),
        (given, _) => args.extend(given.iter().cloned()),
    }
    args
}

/// The image's variables, changed as the request says; of several with one name the sandbox takes the last.
fn environment(request: &RunRequest, config: &RunConfig, hostname: &str) -> Vec<String> {
    let mut env = vec![format!("HOSTNAME={hostname}")];
    env.extend(config.env.iter().cloned());
    change_variables(&mut env, &request.env);
    env
}

/// Sets variables, and takes away those without a value.
pub(crate) fn change_variables(env: &mut Vec<String>, changes: &[(String, Option<String>)]) {
    for (name, value) in changes {
        match value {
            Some(value) => env.push(format!("{name}={value}")),
            None => env.retain(|entry| entry.split('=').next() != Some(name)),
        }
    }
}

/// As Docker: twelve hex digits.
fn made_up_name() -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    let seed = format!("{now} {}", std::process::id());
    bricklayer_solver::Digest::of(seed.as_bytes()).hex().chars().take(12).collect()
}

fn attach(mount: &RunMount) -> Result<AttachedMount, Error> {
    let what = match &mount.kind {
        RunMountKind::Bind { source, read_only, make } => {
            let fd = host_tree(source, *make)
                .map_err(|e| Error::because(format!("cannot mount `{}`", source.display()), e))?;
            Attached::Tree { fd, read_only: *read_only }
        }
        RunMountKind::Tmpfs(tmpfs) => Attached::Tmpfs(*tmpfs),
    };
    Ok(AttachedMount { target: mount.target.clone(), what })
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn host_tree(source: &Path, make: bool) -> Result<OwnedFd, Cause> {
    if make && matches!(std::fs::metadata(source), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        std::fs::create_dir_all(source)?;
    }
    Ok(overlay::host_tree(source)?)
}

/// A failure of the worker as one of ours: the message once, and why.
pub(crate) fn step_failed(error: StepError) -> Error {
    match error {
        StepError::Cancelled => Error::Cancelled,
        StepError::Failed { message, hint, source } => Error::Failed { message, hint, source },
        error => Error::new(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RunConfig {
        RunConfig {
            entrypoint: Some(vec!["/entry".to_owned()]),
            cmd: Some(vec!["default".to_owned()]),
            env: vec!["PATH=/bin".to_owned(), "A=image".to_owned()],
            ..RunConfig::default()
        }
    }

    #[test]
    fn entrypoint_and_command_are_joined_as_docker_does() {
        type Words = &'static [&'static str];
        let cases: [(Option<Words>, Words, Words); 6] = [
            (None, &[], &["/entry", "default"]),
            (None, &["x"], &["/entry", "x"]),
            (Some(&["sh"]), &[], &["sh"]),
            (Some(&["sh"]), &["-c", "y"], &["sh", "-c", "y"]),
            (Some(&[]), &["x"], &["x"]),
            (Some(&[]), &[], &[]),
        ];
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (entrypoint, command, expected) in cases {
            let request = RunRequest {
                entrypoint: entrypoint.map(strings),
                command: strings(command),
                ..RunRequest::default()
            };
            assert_eq!(arguments(&request, &config()), strings(expected), "{entrypoint:?} {command:?}");
        }
        assert_eq!(arguments(&RunRequest::default(), &RunConfig::default()), Vec::<String>::new());
    }

    #[test]
    fn variables_are_added_changed_and_taken_away() {
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let request = RunRequest {
            env: vec![pair("A", Some("run")), pair("B", Some("")), pair("PATH", None)],
            ..RunRequest::default()
        };
        assert_eq!(environment(&request, &config(), "h"), ["HOSTNAME=h", "A=image", "A=run", "B="]);
    }
}
