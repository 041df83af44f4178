//! A RUN that failed, looked into: another command on the files that it left, in the same surroundings.

use std::fmt;
use std::sync::Arc;

use bricklayer_cache::root::Root;
use bricklayer_solver::event::Stream;
use bricklayer_solver::op::Exec;
use bricklayer_solver::record::Output;
use bricklayer_solver::worker::StepError;
use rustix::fs::OFlags;
use tokio_util::sync::CancellationToken;

use super::exec::{Held, sandbox_error};
use crate::local_worker::Shared;
use crate::overlay;
use crate::sandbox::{self, Exit, Stdio};
use crate::writable::WritableRoot;

/// What is done when a RUN has failed, before its files are put away. Called on a thread that may block; the step's failure is told
/// when it returns.
#[derive(Clone)]
pub struct OnFailure(pub Arc<dyn Fn(FailedRun<'_>) + Send + Sync>);

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailure")
    }
}

/// A RUN that failed.
pub struct FailedRun<'a> {
    pub(super) shared: &'a Shared,
    pub(super) exec: &'a Exec,
    pub(super) inputs: &'a [Output],
    pub(super) writable: &'a mut WritableRoot,
    pub(super) held: &'a mut Held,
    pub(super) failure: &'a StepError,
}

/// Programs that can be talked to.
const SHELLS: [&str; 9] = ["sh", "bash", "ash", "dash", "zsh", "ksh", "mksh", "fish", "busybox"];

/// Where a shell may lie when the instruction's own is none.
const PLACES: [&str; 5] = ["/bin/sh", "/bin/bash", "/usr/bin/sh", "/bin/ash", "/busybox/sh"];

impl FailedRun<'_> {
    /// How it failed.
    pub fn failure(&self) -> &StepError {
        self.failure
    }

    /// Runs a shell where the command ran: on the files as it left them, with its mounts, user, variables, working
    /// directory and network. Blocks until it ends.
    ///
    /// # Errors
    ///
    /// [`StepError::Failed`] where the files have no shell.
    pub fn shell(
        &mut self,
        stdio: Stdio,
        output: &dyn Fn(Stream, &[u8]),
        cancel: &CancellationToken,
    ) -> Result<Exit, StepError> {
        self.writable.restore()?;
        let args = shell(&self.exec.args, &self.writable.view()?)?;
        let prepared = self.shared.prepare(self.exec, self.inputs, self.writable, self.held)?;
        let mut command = prepared.command(self.exec);
        command.args = args;
        command.stdio = stdio;
        sandbox::run(command, output, cancel).map_err(sandbox_error)
    }
}

/// A shell to talk to.
///
/// # Errors
///
/// There is none, and where it was looked for.
pub(super) fn shell(args: &[String], root: &Root) -> Result<Vec<String>, StepError> {
    find_shell(args, root).ok_or_else(|| {
        StepError::new("there is no shell in the files of the step")
            .hint(format!("looked for {}", PLACES.join(", ")))
    })
}

/// The instruction's own shell, as far as it goes before `-c`; else one that lies where shells do.
fn find_shell(args: &[String], root: &Root) -> Option<Vec<String>> {
    let is_there = |path: &str| overlay::open_in(root.as_fd(), path.as_ref(), OFlags::PATH).is_ok();
    let own: Vec<String> = args.iter().take_while(|arg| *arg != "-c").cloned().collect();
    if let Some(program) = own.first().filter(|_| own.len() < args.len()) {
        let name = program.rsplit('/').next().unwrap_or_default();
        if SHELLS.contains(&name) && (!program.starts_with('/') || is_there(program)) {
            return Some(own);
        }
    }
    PLACES.iter().find(|path| is_there(path)).map(|path| vec![(*path).to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_s_shell_is_taken_if_it_is_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("bin")).expect("make a directory");
        let choose = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            find_shell(&args, &Root::open(folder.path()).expect("open")).map(|args| args.join(" "))
        };
        assert_eq!(choose(&["/bin/sh", "-c", "make"]), None);
        for name in ["sh", "bash", "python3"] {
            std::fs::write(folder.path().join("bin").join(name), "").expect("write");
        }
        let cases: [(&[&str], &str); 6] = [
            (&["/bin/sh", "-c", "make"], "/bin/sh"),
            (&["/bin/bash", "-o", "pipefail", "-c", "make"], "/bin/bash -o pipefail"),
            (&["/bin/python3", "-c", "print(1)"], "/bin/sh"),
            (&["make", "all"], "/bin/sh"),
            (&["/bin/zsh", "-c", "make"], "/bin/sh"),
            (&["busybox", "sh", "-c", "make"], "busybox sh"),
        ];
        for (args, expected) in cases {
            assert_eq!(choose(args).as_deref(), Some(expected), "{args:?}");
        }
    }
}
