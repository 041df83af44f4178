//! RUN: mounts what the op names, runs the command in a sandbox on a new layer, and keeps the layer.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::{Root, at};
use bricklayer_cache::store::LayerDraft;
use bricklayer_solver::event::{Exited, Task};
use bricklayer_solver::op::{Exec, Mount, MountKind, Network, SecretMount, Security};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::worker::StepError;
use rustix::fs::{Mode, fchmod};
use tokio_util::sync::CancellationToken;

use super::cache::CacheMounts;
use super::failed::{FailedRun, OnFailure};
use crate::local_worker::Shared;
use crate::overlay::{self, OverlayError};
use crate::sandbox::{self, Attached, AttachedMount, Exit, Tmpfs, User};
use crate::writable::{Way, WritableRoot, mount_for_scratch};

/// What must outlive the command: guards of cache mounts, programs that serve files, and directories that are removed afterwards.
#[derive(Default)]
pub(super) struct Held {
    caches: CacheMounts,
    /// Of writable mounts.
    served: Vec<Way>,
    pub(super) scratch: Vec<tempfile::TempDir>,
}

impl Held {
    pub(super) fn new(caches: CacheMounts) -> Self {
        Self { caches, ..Self::default() }
    }
}

/// What a command gets, but for what the op says of it.
pub(super) struct Prepared {
    root: OwnedFd,
    upper: OwnedFd,
    user: User,
    mounts: Vec<AttachedMount>,
    env: Vec<String>,
    runtime: Option<sandbox::Runtime>,
}

impl Prepared {
    pub(super) fn command(self, exec: &Exec) -> sandbox::Command {
        let Self { root, upper, user, mounts, env, runtime } = self;
        sandbox::Command {
            root,
            upper: Some(upper),
            args: exec.args.clone(),
            env,
            cwd: exec.cwd.clone(),
            user,
            mounts,
            network: exec.network,
            more_to_come: false,
            security: exec.security,
            capabilities: sandbox::CapabilityChanges::default(),
            read_only: false,
            stdio: sandbox::Stdio::default(),
            runtime,
            hostname: exec.hostname.clone(),
            extra_hosts: exec.extra_hosts.clone(),
            shm_size: exec.shm_size,
            ulimits: exec.ulimits.clone(),
            limits: exec.limits.clone(),
            cgroup_parent: exec.cgroup_parent.clone(),
        }
    }
}

/// Why a command could not be run, as a step's failure.
pub(super) fn sandbox_error(error: sandbox::SandboxError) -> StepError {
    match error {
        sandbox::SandboxError::Cancelled => StepError::Cancelled,
        error => {
            let hint = error.hint();
            let failed = StepError::with_source("cannot run the command", error);
            match hint {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        }
    }
}

impl Shared {
    /// Runs a command. Blocking. `more_to_come`: another one may follow.
    pub(crate) fn exec(
        &self,
        exec: &Exec,
        inputs: &[Output],
        more_to_come: bool,
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<Snapshot, StepError> {
        self.check_entitlements(exec)?;
        let base = match exec.root {
            Some(input) => snapshot(inputs, input)?,
            None => Snapshot::default(),
        };
        let mut writable = self.writable(&base)?;
        let mut held = Held::new(self.take_caches(exec, inputs, task, cancel)?);
        let mut command = self.prepare(exec, inputs, &mut writable, &mut held)?.command(exec);
        command.more_to_come = more_to_come;
        let output = |stream, data: &[u8]| task.log(stream, data.to_vec());
        let exit = sandbox::run(command, &output, cancel).map_err(sandbox_error)?;
        task.exited(Exited {
            code: exit.code,
            peak_memory: exit.peak_memory,
            largest_process: exit.largest_process,
            cpu_time: exit.cpu_time,
        });
        self.tell_once(task, &exit.notes);
        if !exit.success() {
            // It may have failed at just that.
            self.tell_once(task, crate::rootless::advice().as_slice());
            let failure = failure(exec, &exit);
            if let Some(OnFailure(look)) = &self.settings.on_failure {
                let (writable, held) = (&mut writable, &mut held);
                look(FailedRun { shared: self, exec, inputs, writable, held, failure: &failure });
            }
            drop(held);
            self.keep_failure(exec, inputs, writable, task);
            return Err(failure);
        }
        drop(held);
        let layer = self.commit_writable(writable.draft, writable.way, task)?;
        let mut snapshot = base;
        snapshot.layers.push(layer);
        Ok(snapshot)
    }

    /// What a command gets. The caches are taken.
    pub(super) fn prepare(
        &self,
        exec: &Exec,
        inputs: &[Output],
        writable: &mut WritableRoot,
        held: &mut Held,
    ) -> Result<Prepared, StepError> {
        Ok(Prepared {
            user: writable.user(&exec.user)?,
            mounts: self.mounts(exec, inputs, held)?,
            env: self.environment(exec)?,
            runtime: self.runtime(held)?,
            upper: writable.upper()?,
            root: writable.take()?,
        })
    }

    /// What the op mounts.
    fn mounts(
        &self,
        exec: &Exec,
        inputs: &[Output],
        held: &mut Held,
    ) -> Result<Vec<AttachedMount>, StepError> {
        let mut mounts = Vec::new();
        for mount in &exec.mounts {
            if let Some(what) = self.attach(mount, inputs, held)? {
                mounts.push(AttachedMount { target: mount.target.clone(), what });
            }
        }
        Ok(mounts)
    }

    /// The op's variables, with proxies and secrets.
    fn environment(&self, exec: &Exec) -> Result<Vec<String>, StepError> {
        let mut env = exec.env.clone();
        for proxy in &exec.proxy_env {
            let name = proxy.split('=').next().unwrap_or_default();
            if !env.iter().any(|v| v.split('=').next() == Some(name)) {
                env.push(proxy.clone());
            }
        }
        for secret in &exec.secret_env {
            match self.settings.secrets.get(&secret.id) {
                Some(value) => {
                    let value = String::from_utf8(value.clone()).map_err(|_| {
                        StepError::new(format!(
                            "secret `{}` is not text: it can't be an environment variable",
                            secret.id
                        ))
                    })?;
                    env.push(format!("{}={value}", secret.variable));
                }
                None if secret.required => return Err(missing_secret(&secret.id)),
                None => {}
            }
        }
        Ok(env)
    }

    /// The root directory of a new layer looks like the one below it: overlayfs shows the upper one's metadata.
    pub(crate) fn inherit_root_directory(
        &self,
        base: &Snapshot,
        draft: &LayerDraft,
    ) -> Result<(), StepError> {
        let Some(highest) = self.views.highest(base)? else { return Ok(()) };
        let below = open_root(&highest)?;
        let upper =
            Root::open(draft.tree()).map_err(|e| StepError::with_source("cannot open the new layer", e))?;
        at::fstat(below.as_fd())
            .and_then(|below| {
                at::fchown(upper.as_fd(), below.uid, below.gid)?;
                fchmod(upper.as_fd(), Mode::from_raw_mode(below.mode))?;
                at::fset_mtime(upper.as_fd(), below.mtime)
            })
            .map_err(|e| StepError::with_source("cannot prepare the new layer", std::io::Error::from(e)))
    }

    /// The OCI runtime of this build, with a directory for one command.
    fn runtime(&self, held: &mut Held) -> Result<Option<sandbox::Runtime>, StepError> {
        let Some(program) = self.settings.oci_runtime.clone() else { return Ok(None) };
        let scratch = self.scratch_dir()?;
        let runtime = sandbox::Runtime { program, scratch: scratch.path().to_owned() };
        held.scratch.push(scratch);
        Ok(Some(runtime))
    }

    pub(super) fn check_entitlements(&self, exec: &Exec) -> Result<(), StepError> {
        let refused = |what: &str, flag: &str| {
            Err(StepError::new(format!("{what} is not allowed: {flag}")).hint(format!("pass --allow {flag}")))
        };
        match (exec.network, exec.security) {
            (Network::Host, _) if !self.settings.allow_host_network => {
                refused("the host's network", "network.host")
            }
            (_, Security::Insecure) if !self.settings.allow_insecure => {
                refused("an insecure RUN", "security.insecure")
            }
            _ => Ok(()),
        }
    }

    /// What a mount of the op is in this sandbox; `None`: an optional secret that is not there.
    fn attach(
        &self,
        mount: &Mount,
        inputs: &[Output],
        held: &mut Held,
    ) -> Result<Option<Attached>, StepError> {
        let attached = match &mount.kind {
            MountKind::Bind { input, source, writable } => {
                let output = input_output(inputs, *input)?;
                let fd = self.bind(output, source, *writable, held).map_err(|e| {
                    StepError::with_source(format!("cannot mount `{source}` at {}", mount.target), e)
                })?;
                Attached::Tree { fd, read_only: !writable }
            }
            MountKind::Cache { .. } => held.caches.attach(&mount.kind, inputs).map_err(|e| {
                StepError::with_source(format!("cannot mount the cache at {}", mount.target), e)
            })?,
            MountKind::Tmpfs { size } => Attached::Tmpfs(Tmpfs { size: *size, ..Tmpfs::default() }),
            MountKind::Secret(secret) => {
                let SecretMount { id, mode, uid, gid, required } = secret;
                match self.settings.secrets.get(id) {
                    Some(data) => {
                        Attached::SecretFile { data: data.clone(), mode: *mode, uid: *uid, gid: *gid }
                    }
                    None if *required => return Err(missing_secret(id)),
                    None => return Ok(None),
                }
            }
            MountKind::Ssh(SecretMount { id, mode, uid, gid, required }) => match self.settings.ssh.get(id) {
                Some(path) => Attached::Socket { path: path.clone(), mode: *mode, uid: *uid, gid: *gid },
                None if *required => {
                    return Err(StepError::new(format!("ssh agent `{id}` was not given"))
                        .hint(format!("pass --ssh {id}")));
                }
                None => return Ok(None),
            },
        };
        Ok(Some(attached))
    }

    /// Files of an input as a mount of their own. What is written to a writable one goes to a directory that is thrown
    /// away.
    pub(super) fn bind(
        &self,
        output: &Output,
        source: &str,
        writable: bool,
        held: &mut Held,
    ) -> Result<OwnedFd, StepError> {
        let mut inside = PathBuf::from(source);
        let lowers = match output {
            Output::Snapshot(snapshot) if !writable => return self.views.part(snapshot, &inside),
            Output::Snapshot(snapshot) => self.views.trees(snapshot)?,
            Output::Local { .. } => {
                let scratch = self.scratch_dir()?;
                let path = scratch.path().to_path_buf();
                inside = self.materialise(output, source, &path)?;
                held.scratch.push(scratch);
                if writable {
                    // It is a copy already.
                    let root = open_root(&path)?;
                    let copy = overlay::subtree(root.as_fd(), &inside);
                    return copy.map_err(|error| mount_failed(error, &inside));
                }
                vec![path]
            }
        };
        let paths: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
        if !writable {
            return overlay::part(&paths, None, &inside).map_err(|error| mount_failed(error, &inside));
        }
        let scratch = self.scratch_dir()?;
        let mounted = mount_for_scratch(&paths, &inside, scratch.path());
        held.scratch.push(scratch);
        let (mount, served) = mounted?;
        held.served.push(served);
        Ok(mount)
    }
}

pub(crate) fn mount_overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, StepError> {
    overlay::mount(lowers, upper).map_err(|error| mount_failed(error, Path::new("")))
}

/// A mount of what lies at `inside` that could not be made.
pub(crate) fn mount_failed(error: OverlayError, inside: &Path) -> StepError {
    let hint = error.hint();
    let what = match error {
        OverlayError::Path { .. } => format!("`{}` is not there", inside.display()),
        _ => "cannot mount the root filesystem".to_owned(),
    };
    let failed = StepError::with_source(what, error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

pub(super) fn open_root(path: &Path) -> Result<Root, StepError> {
    Root::open(path).map_err(|e| StepError::with_source(format!("cannot open `{}`", path.display()), e))
}

pub(super) fn input_output(inputs: &[Output], input: usize) -> Result<&Output, StepError> {
    inputs.get(input).ok_or_else(|| StepError::new(format!("the step has no input {input}")))
}

/// The snapshot of an input that must be one.
pub(crate) fn snapshot(inputs: &[Output], input: usize) -> Result<Snapshot, StepError> {
    match input_output(inputs, input)? {
        Output::Snapshot(snapshot) => Ok(snapshot.clone()),
        Output::Local { name, .. } => {
            Err(StepError::new(format!("the local directory `{name}` can't be a root filesystem")))
        }
    }
}

fn missing_secret(id: &str) -> StepError {
    StepError::new(format!("secret `{id}` was not given"))
        .hint(format!("pass --secret id={id},src=FILE or id={id},env=NAME"))
}

fn failure(exec: &Exec, exit: &Exit) -> StepError {
    // the shell form is shown as written, the exec form word by word
    let command = match exec.args.as_slice() {
        [_, flag, text] if flag == "-c" => text.clone(),
        args => args.join(" "),
    };
    let status = if let Some(reason) = &exit.not_started {
        format!("exit code: {}: {reason}", exit.code)
    } else if let Some(limit) = exit.out_of_memory {
        match limit {
            0 => "killed: out of memory".to_owned(),
            bytes if bytes < 1 << 20 => format!("killed: out of memory at {} KiB", bytes >> 10),
            bytes => format!("killed: out of memory at {} MiB", bytes >> 20),
        }
    } else if let Some(signal) = exit.signal {
        format!("exit code: {} (killed by signal {signal})", exit.code)
    } else {
        format!("exit code: {}", exit.code)
    };
    StepError::Exit { command, code: exit.code, status }
}
