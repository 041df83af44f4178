//! A step that is over, opened again: another command on the files that it left or made, with its mounts and variables.
//!
//! What the command writes to the root filesystem goes to a layer that is thrown away, so that a step can be opened any
//! number of times. A cache mount is the cache itself, as it is for the step.

use std::sync::Arc;

use bricklayer_solver::event::{Stream, Task};
use bricklayer_solver::op::{Exec, MountKind};
use bricklayer_solver::record::{Layer, Output, Snapshot};
use bricklayer_solver::worker::StepError;
use tokio_util::sync::CancellationToken;

use super::exec::{Held, input_output, sandbox_error, snapshot};
use super::failed::shell;
use crate::local_worker::{LocalWorker, Shared, blocking, check_may_mount};
use crate::sandbox::{self, Exit, Stdio};
use crate::writable::WritableRoot;

/// Something that is not as it was for the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What: `/src is not mounted: the directory was not given`.
    pub text: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// A step that is open: a command that is ready to run in its surroundings.
pub struct Reopened {
    command: sandbox::Command,
    differences: Vec<Difference>,
    // what must outlive the command
    writable: WritableRoot,
    held: Held,
}

/// Is a mount left out whose files are not in the store any more?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    IsAnError,
    IsLeftOut,
}

impl LocalWorker {
    /// Opens a step: on its root, which is the input that `exec` names, and with `left`, what it left there when it failed.
    /// `args` is run; empty: a shell. Mounts of local directories and of optional secrets that the settings do not have are
    /// left out, and said to be.
    ///
    /// # Errors
    ///
    /// Files of its root that are gone, a secret that it requires, a user or a shell that is not there, what needs to be
    /// allowed.
    pub async fn reopen(
        &self,
        exec: &Exec,
        inputs: &[Output],
        left: Option<Layer>,
        args: &[String],
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<Reopened, StepError> {
        check_may_mount()?;
        let open = |lost: Lost| {
            let shared = Arc::clone(&self.shared);
            let (exec, inputs, args) = (exec.clone(), inputs.to_vec(), args.to_vec());
            let (task, cancel) = (task.clone(), cancel.clone());
            blocking(move || shared.reopen(exec, &inputs, left, args, lost, &task, &cancel))
        };
        match open(Lost::IsAnError).await {
            Err(StepError::Lost { .. }) => {
                tokio::select! {
                    restored = self.restore_images() => restored?,
                    () = cancel.cancelled() => return Err(StepError::Cancelled),
                };
                open(Lost::IsLeftOut).await
            }
            result => result,
        }
    }
}

impl Reopened {
    /// What is not as it was for the step.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Runs the command to its end. Blocks; when `cancel` is cancelled the command is killed.
    ///
    /// # Errors
    ///
    /// [`StepError::Cancelled`], or why it can't be started.
    pub fn run(
        self,
        stdio: Stdio,
        output: &dyn Fn(Stream, &[u8]),
        cancel: &CancellationToken,
    ) -> Result<Exit, StepError> {
        let Self { mut command, writable, held, .. } = self;
        command.stdio = stdio;
        let exit = sandbox::run(command, output, cancel).map_err(sandbox_error);
        drop((writable, held));
        exit
    }
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "one command's surroundings, used once")]
    fn reopen(
        &self,
        mut exec: Exec,
        inputs: &[Output],
        left: Option<Layer>,
        args: Vec<String>,
        lost: Lost,
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<Reopened, StepError> {
        self.check_entitlements(&exec)?;
        let mut root = match exec.root {
            Some(input) => snapshot(inputs, input)?,
            None => Snapshot::default(),
        };
        root.layers.extend(left);
        let mut writable = self.writable(&root)?;
        let differences = self.leave_out_what_is_missing(&mut exec, inputs, lost)?;
        exec.args = if args.is_empty() { shell(&exec.args, &writable.view()?)? } else { args };
        let mut held = Held::new(self.take_caches(&exec, inputs, task, cancel)?);
        let command = self.prepare(&exec, inputs, &mut writable, &mut held)?.command(&exec);
        Ok(Reopened { command, differences, writable, held })
    }

    fn leave_out_what_is_missing(
        &self,
        exec: &mut Exec,
        inputs: &[Output],
        lost: Lost,
    ) -> Result<Vec<Difference>, StepError> {
        let mut differences = Vec::new();
        let mut tell = |text: String, hint: Option<String>| differences.push(Difference { text, hint });
        let mut mounts = Vec::new();
        for mount in std::mem::take(&mut exec.mounts) {
            let target = &mount.target;
            let there = match &mount.kind {
                MountKind::Bind { input, .. } | MountKind::Cache { input: Some(input), .. } => {
                    match input_output(inputs, *input)? {
                        Output::Local { name, .. } if !self.settings.locals.contains_key(name) => {
                            tell(
                                format!("{target} is not mounted: the {} was not given", people_say(name)),
                                Some(format!("--build-context {}=DIR", flag_says(name))),
                            );
                            false
                        }
                        Output::Local { name, .. } => {
                            tell(
                                format!("{target} has the files of the {} as they are now", people_say(name)),
                                None,
                            );
                            true
                        }
                        Output::Snapshot(files) => match self.views.trees(files) {
                            Err(StepError::Lost { .. }) if lost == Lost::IsLeftOut => {
                                tell(
                                    format!(
                                        "{target} is not mounted: its files are not in the store any more"
                                    ),
                                    None,
                                );
                                false
                            }
                            Err(error) => return Err(error),
                            Ok(_) => true,
                        },
                    }
                }
                MountKind::Secret(secret) if !secret.required => {
                    let there = self.settings.secrets.contains_key(&secret.id);
                    if !there {
                        tell(
                            format!("{target} is not there: secret `{}` was not given", secret.id),
                            Some(format!("--secret id={},src=FILE", secret.id)),
                        );
                    }
                    there
                }
                MountKind::Ssh(agent) if !agent.required => {
                    let there = self.settings.ssh.contains_key(&agent.id);
                    if !there {
                        tell(
                            format!("{target} is not there: ssh agent `{}` was not given", agent.id),
                            Some(format!("--ssh {}", agent.id)),
                        );
                    }
                    there
                }
                _ => true,
            };
            if there {
                mounts.push(mount);
            }
        }
        exec.mounts = mounts;
        for secret in &exec.secret_env {
            if !secret.required && !self.settings.secrets.contains_key(&secret.id) {
                tell(
                    format!("{} is not set: secret `{}` was not given", secret.variable, secret.id),
                    Some(format!("--secret id={},env=VARIABLE", secret.id)),
                );
            }
        }
        Ok(differences)
    }
}

/// A local directory, as people call it.
fn people_say(name: &str) -> String {
    match name.strip_prefix("context:") {
        Some(name) => format!("context `{name}`"),
        None => "build context".to_owned(),
    }
}

/// A local directory, as `--build-context` names it.
fn flag_says(name: &str) -> &str {
    name.strip_prefix("context:").unwrap_or(name)
}
