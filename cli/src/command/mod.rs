//! The command: what was typed becomes requests to the library, and its events and errors become text.
//!
//! - [`args`]: what can be typed; [`flags`], [`limits`], [`mounts`], [`output`], [`values`], [`csv`]: what it means
//! - [`environment`]: variables, the current directory, the standard streams; [`terminal`]: the
//!   one in front of people; [`attach`]: a command that has it
//! - [`build`] (and [`on_fail`]), [`builds`], [`call`], [`debug`], [`explain`], [`images`], [`logs`], [`room`], [`run`]: the
//!   subcommands
//! - [`display`]: a build as it runs; [`errors`]: why it failed; [`table`]: lists
//!
//! Talk goes to standard error, data to standard output. Exit code 1 is a failure, 2 wrong usage, 130 Ctrl-C;
//! `run` and `debug` end with the code of what they ran.

mod args;
mod attach;
mod build;
mod builds;
mod call;
mod csv;
mod debug;
mod display;
mod environment;
mod errors;
mod explain;
mod flags;
mod images;
mod limits;
mod logs;
mod mounts;
mod on_fail;
mod output;
mod room;
mod run;
mod table;
mod terminal;
mod usage;
mod values;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use bricklayer::BuilderOptions;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use args::{Cli, Command, Global};
use display::{Plain, Progress, Quiet, RawJson, Renderer, Tty};
use environment::Environment;
use errors::Failure;
use usage::Usage;

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are no errors; a closed stream is nothing that could be told
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let environment = Environment::of_process();
    // before there is any thread: the kernel takes the process as a whole, or not at all
    if let Err(error) = bricklayer::rootless::enter() {
        let failure = Failure::from(anyhow::Error::from(error));
        say(&failure.render(environment.colours()));
        return failure.exit_code();
    }
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .map_err(Failure::from)
        .and_then(|runtime| {
            let done = runtime.block_on(dispatch(cli, &environment));
            // what is still being written belongs to nobody any more
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.render(environment.colours()));
            failure.exit_code()
        }
    }
}

async fn dispatch(cli: Cli, environment: &Environment) -> Result<(), Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Build(args) => build::build(args, global, environment).await,
        Command::Explain(args) => explain::explain(args, global, environment).await,
        Command::Run(args) => run::run(args, global, environment).await,
        Command::Builds(args) => builds::builds(args, global, environment),
        Command::Debug(args) => debug::debug(args, global, environment).await,
        Command::Logs(args) => logs::logs(args, global, environment),
        Command::Images(args) => images::images(args, global, environment).await,
        Command::Inspect(args) => images::inspect(args, global, environment).await,
        Command::History(args) => images::history(args, global, environment).await,
        Command::Tag(args) => images::tag(args, global, environment).await,
        Command::Rmi(args) => images::rmi(args, global, environment).await,
        Command::Pull(args) => images::pull(args, global, environment).await,
        Command::Push(args) => images::push(args, global, environment).await,
        Command::Load(args) => images::load(args, global, environment).await,
        Command::Save(args) => images::save(args, global, environment).await,
        Command::Du(args) => room::du(args, global, environment),
        Command::Prune(args) => room::prune(args, global, environment),
    }
}

fn builder_options(global: &Global, environment: &Environment) -> Result<BuilderOptions, Usage> {
    let root = match &global.root {
        Some(root) if root.as_os_str().is_empty() => return Err(Usage::new("--root is empty")),
        Some(root) => environment.path(root),
        None => match environment.setting("BRICKLAYER_ROOT") {
            Some(root) => environment.path(root),
            None => environment.default_root()?,
        },
    };
    Ok(BuilderOptions {
        root,
        docker_config: environment.docker_config(),
        insecure_registries: global.insecure_registry.clone(),
        proxy: environment.proxies(),
    })
}

/// The display that was asked for, by flags or by BUILDKIT_PROGRESS.
fn progress(typed: Option<Progress>, quiet: bool, environment: &Environment) -> Result<Progress, Usage> {
    match (quiet, typed) {
        (true, None | Some(Progress::Auto | Progress::Quiet)) => Ok(Progress::Quiet),
        (true, Some(_)) => Err(Usage::new("-q and --progress exclude each other")),
        (false, Some(typed)) => Ok(typed),
        (false, None) => match environment.setting("BUILDKIT_PROGRESS") {
            None => Ok(Progress::Auto),
            Some(name) => clap::ValueEnum::from_str(name, true).map_err(|_| {
                Usage::new(format!("BUILDKIT_PROGRESS: there is no display `{name}`"))
                    .suggest(name, &["auto", "tty", "plain", "quiet", "none", "rawjson"])
            }),
        },
    }
}

/// Is standard error a terminal that a live region can be drawn on?
fn live(environment: &Environment) -> bool {
    environment.stderr_terminal && environment.get("TERM") != Some("dumb")
}

/// What draws, on standard error.
fn renderer(progress: Progress, environment: &Environment) -> Result<Box<dyn Renderer>, Usage> {
    let colours = environment.setting("NO_COLOR").is_none();
    Ok(match progress {
        Progress::Auto if live(environment) => Box::new(Tty::new(console::Term::buffered_stderr(), colours)),
        Progress::Tty if !environment.stderr_terminal => {
            return Err(Usage::new("--progress=tty: standard error is not a terminal"));
        }
        Progress::Tty => Box::new(Tty::new(console::Term::buffered_stderr(), colours)),
        Progress::Auto | Progress::Plain => Box::new(Plain::new(Box::new(std::io::stderr()), colours)),
        Progress::Quiet | Progress::None => Box::new(Quiet),
        Progress::Rawjson => Box::new(RawJson::new(Box::new(std::io::stderr()))),
    })
}

/// Ctrl-C and SIGTERM ask the build to stop; a second time they end the process at once.
fn cancel_on_interrupt() -> CancellationToken {
    until_released().0
}

/// The same, until the task that listens is aborted.
fn until_released() -> (CancellationToken, tokio::task::AbortHandle) {
    let cancel = CancellationToken::new();
    let asked = cancel.clone();
    let task = tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked.is_cancelled() {
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    (cancel, task.abort_handle())
}

/// Data, on standard output. That nobody reads on (`| head`) is no failure.
fn print(text: &str) -> Result<(), anyhow::Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Talk, on standard error. Where that is closed there is nobody to tell.
fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
