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

/// The instruction's own shell, else one that lies where shells do.
fn find_shell(args: &[String], root: &Root) -> Option<Vec<String>> {
    let is_there = |path: &str| overlay::open_in(root.as_fd(), path.as_ref(), OFlags::PATH).is_ok();
    let own = shell_of(args);
    if own.first().is_some_and(|program| !program.starts_with('/') || is_there(program)) {
        return Some(own);
    }
    PLACES.iter().find(|path| is_there(path)).map(|path| vec![(*path).to_owned()])
}

/// The shell that a command is run by, to be talked to: the program, with the applet if it is busybox, and `-l` if it was a
/// login shell. Not with its other options: one that ends at the first failure (`-e`) is of no use. Nothing if it is no shell.
pub(super) fn shell_of(args: &[String]) -> Vec<String> {
    let name = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        SHELLS.iter().find(|shell| **shell == name).copied()
    };
    let Some((program, mut rest)) = args.split_first() else { return Vec::new() };
    let mut shell = match name(program) {
        Some(_) => vec![program.clone()],
        None => return Vec::new(),
    };
    if name(program) == Some("busybox") {
        match rest.split_first().filter(|(applet, _)| name(applet).is_some()) {
            Some((applet, others)) => {
                shell.push(applet.clone());
                rest = others;
            }
            None => return Vec::new(),
        }
    }
    // What comes after `-c` is the command.
    let letters = |word: &&String| word.starts_with('-') && !word.starts_with("--");
    let options =
        rest.iter().position(|word| letters(&word) && word.contains('c')).map_or(0, |last| last + 1);
    let mut options = rest.iter().take(options);
    if options.any(|word| word == "--login" || letters(&word) && word.contains('l')) {
        shell.push("-l".to_owned());
    }
    shell
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
        let cases: [(&[&str], &str); 10] = [
            (&["/bin/sh", "-c", "make"], "/bin/sh"),
            (&["/bin/bash", "-euxo", "pipefail", "-c", "make -l"], "/bin/bash"),
            (&["/bin/bash", "-lec", "make"], "/bin/bash -l"),
            (&["/bin/bash", "--login", "-c", "make"], "/bin/bash -l"),
            (&["/bin/bash", "build.sh", "-l"], "/bin/bash"),
            (&["/bin/python3", "-c", "print(1)"], "/bin/sh"),
            (&["make", "all"], "/bin/sh"),
            (&["/bin/zsh", "-c", "make"], "/bin/sh"),
            (&["busybox", "sh", "-c", "make"], "busybox sh"),
            (&["busybox", "wget", "-c", "url"], "/bin/sh"),
        ];
        for (args, expected) in cases {
            assert_eq!(choose(args).as_deref(), Some(expected), "{args:?}");
        }
    }
}
