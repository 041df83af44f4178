//! A RUN that failed, looked into: `--on-fail=shell`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bricklayer::{Error, FailedRun, OnFailure, StepError};

use super::args::BuildArgs;
use super::attach::Attachment;
use super::display::{Standstill, one_line};
use super::environment::Environment;
use super::errors::Failure;
use super::say;
use super::usage::Usage;

/// A shell needs somebody who types, and a terminal that nothing else has.
pub(crate) fn check(args: &BuildArgs, stdout_taken: bool, environment: &Environment) -> Result<(), Usage> {
    if args.on_fail.is_none() {
        return Ok(());
    }
    let fail = |what: &str| Err(Usage::new(format!("--on-fail=shell: {what}")));
    match (environment.stdin_terminal, environment.stdout_terminal, stdout_taken) {
        (false, ..) => fail("standard input is not a terminal"),
        (_, false, _) => fail("standard output is not a terminal"),
        (.., true) => fail("an output goes to standard output"),
        _ if args.context == "-" || args.file.as_deref() == Some("-") => {
            fail("standard input is read for the build")
        }
        _ => Ok(()),
    }
}

/// Opens a shell for the first RUN that fails; steps that fail beside it are told only.
pub(crate) fn shell_on_failure(standstill: Standstill) -> OnFailure {
    let opened = AtomicBool::new(false);
    OnFailure(Arc::new(move |mut failed: FailedRun<'_>| {
        if opened.swap(true, Ordering::Relaxed) {
            return;
        }
        let still = standstill.begin();
        say(&format!(
            "\n{}\na shell in what it left, with its mounts and variables; the build fails when it ends\n",
            one_line(&failed.failure().to_string())
        ));
        let open = |failed: &mut FailedRun<'_>| {
            let (attachment, stdio) = Attachment::new(true, true)?;
            match failed.shell(stdio, &attachment.output(), &attachment.cancel()) {
                Err(StepError::Cancelled) => attachment.end(Err(Error::Cancelled)),
                Err(error) => {
                    drop(attachment);
                    Err(anyhow::Error::from(error).context("cannot open a shell").into())
                }
                Ok(exit) => attachment.end(Ok(exit)),
            }
        };
        match open(&mut failed) {
            Ok(_) | Err(Failure::Ended(_)) => say("\n"),
            // the build's own failure is told afterwards
            Err(failure) => say(&failure.render(false)),
        }
        drop(still);
    }))
}
