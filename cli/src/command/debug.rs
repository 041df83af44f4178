//! `bricklayer debug`: a shell, or another command, in what a step of a build left.

use std::path::PathBuf;

use bricklayer::event::{EventKind, Reporter};
use bricklayer::{DebugRequest, DebugSession, Error, Exit, NamedContextSource, TaskState};

use super::args::{DebugArgs, Global};
use super::attach::Attachment;
use super::display::one_line;
use super::environment::Environment;
use super::errors::{Failure, shortened};
use super::flags::{entitlement, named_context, network, oci_runtime, proxies, secret, ssh};
use super::images::open;
use super::run::{check_working_dir, conclude, not_made, variable};
use super::usage::Usage;
use super::{say, until_released};

/// `bricklayer debug`
pub(crate) async fn debug(
    args: &DebugArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    conclude(&look(args, global, environment).await.map_err(not_made)?)
}

async fn look(args: &DebugArgs, global: &Global, environment: &Environment) -> Result<Exit, Failure> {
    let request = request(args, environment)?;
    let builder = open(global, environment)?;
    // opening is silent, but for what it waits for
    let reporter = Reporter::new(|event| {
        if let EventKind::Waiting(what) = event.kind {
            say(&format!("waiting: {}\n", one_line(&what)));
        }
    });
    let (cancel, interrupts) = until_released();
    let session = builder.debug(request, reporter, cancel.clone()).await?;
    // what was cancelled until now is not run; from here on signals are the command's
    if cancel.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    interrupts.abort();
    say(&heading(&session, args.command.is_empty()));
    let terminal = environment.stdin_terminal && environment.stdout_terminal;
    let (attachment, stdio) = Attachment::new(true, terminal)?;
    let exit = session.run(stdio, attachment.output(), attachment.cancel()).await;
    attachment.end(exit)
}

/// Where the command is, if it is a shell, and what is not as in the build.
fn heading(session: &DebugSession, shell: bool) -> String {
    let step = session.step();
    let what = match (step.state, step.exit_code) {
        (TaskState::Failed, Some(code)) => format!("what it left when it failed (exit code: {code})"),
        (TaskState::Failed, None) => "what it left when it failed".to_owned(),
        _ => "the files that it made".to_owned(),
    };
    let mut text = String::new();
    if shell {
        let (build, number, name) = (session.build(), step.number, shortened(&one_line(&step.name)));
        text += &format!("build {build} #{number} {name}: {what}; what is changed here is thrown away\n");
    }
    for difference in session.differences() {
        text += &format!("not as in the build: {}", one_line(&difference.text));
        if let Some(hint) = &difference.hint {
            text += &format!(" ({})", one_line(hint));
        }
        text += "\n";
    }
    text
}

/// What the flags ask for.
fn request(args: &DebugArgs, environment: &Environment) -> Result<DebugRequest, Usage> {
    check_working_dir(args.workdir.as_deref())?;
    Ok(DebugRequest {
        build: args.build.clone(),
        step: args.step.clone(),
        command: args.command.clone(),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        env: args.env.iter().map(|text| variable("-e", text, environment)).collect::<Result<_, _>>()?,
        network: args.network.as_deref().map(|name| network(Some(name))).transpose()?,
        secrets: args.secrets.iter().map(|text| secret(text, environment)).collect::<Result<_, _>>()?,
        ssh: args.ssh.iter().map(|text| ssh(text, environment)).collect::<Result<_, _>>()?,
        contexts: args
            .build_contexts
            .iter()
            .map(|text| directory(text, environment))
            .collect::<Result<_, _>>()?,
        entitlements: args.allow.iter().map(|text| entitlement(text)).collect::<Result<_, _>>()?,
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
        oci_runtime: oci_runtime(args.oci_runtime.as_deref(), environment)?,
        proxy: proxies(&[], environment)?,
    })
}

/// A `--build-context` that is a directory: files of all others are in the store.
fn directory(text: &str, environment: &Environment) -> Result<(String, PathBuf), Usage> {
    match named_context(text, environment)? {
        (name, NamedContextSource::Directory(path)) => Ok((name, path)),
        _ => Err(Usage::new(format!("--build-context `{text}` is no directory"))
            .hint("only directories are given again: files of images and URLs are in the store")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::{Cli, Command};
    use super::*;

    fn typed(words: &[&str]) -> DebugArgs {
        let cli = Cli::try_parse_from([&["bricklayer", "debug"], words].concat()).expect("arguments");
        match cli.command {
            Command::Debug(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn builds_steps_and_commands_are_told_apart() {
        type Words = &'static [&'static str];
        let cases: [(Words, Option<&str>, Option<&str>, Words); 6] = [
            (&[], None, None, &[]),
            (&["-2"], Some("-2"), None, &[]),
            (&["k3f9", "5"], Some("k3f9"), Some("5"), &[]),
            (&["--", "cat", "-n", "x"], None, None, &["cat", "-n", "x"]),
            (&["k3f9", "--", "--", "x"], Some("k3f9"), None, &["--", "x"]),
            (&["-u", "app", "latest", "RUN make", "--", "id"], Some("latest"), Some("RUN make"), &["id"]),
        ];
        for (words, build, step, command) in cases {
            let args = typed(words);
            assert_eq!((args.build.as_deref(), args.step.as_deref()), (build, step), "{words:?}");
            assert_eq!(args.command, command, "{words:?}");
        }
    }
}
