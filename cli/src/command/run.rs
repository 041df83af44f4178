//! `bricklayer run`.

use std::io::Read;
use std::path::Path;

use bricklayer::{CapabilityChanges, Error, Exit, RunRequest};

use super::args::{Global, RunArgs};
use super::attach::Attachment;
use super::display::one_line;
use super::environment::Environment;
use super::errors::Failure;
use super::flags::{default_platform, network, oci_runtime, platform, proxies, pull};
use super::images::{open, start};
use super::limits::limits;
use super::usage::Usage;
use super::values::{host, size, ulimit};
use super::{mounts, say, until_released};

/// `--env-file` may have this many bytes.
const LARGEST_ENV_FILE: u64 = 1 << 20;

/// Runs a command in a container.
pub(crate) async fn run(args: &RunArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    conclude(&container(args, global, environment).await.map_err(not_made)?)
}

/// Why a container can't be made or run.
pub(crate) fn not_made(failure: Failure) -> Failure {
    match failure {
        // as told, while it was made ready
        Failure::Library(error) if matches!(*error, Error::Cancelled) => Failure::Library(error),
        Failure::Ended(code) => Failure::Ended(code),
        failure => Failure::Container(Box::new(failure)),
    }
}

async fn container(args: &RunArgs, global: &Global, environment: &Environment) -> Result<Exit, Failure> {
    let request = request(args, environment)?;
    if args.tty && args.interactive && !environment.stdin_terminal {
        return Err(Usage::new("-t -i: standard input is not a terminal")
            .hint("-i alone passes on what comes in, -t alone gives a terminal that nobody types at")
            .into());
    }
    let builder = open(global, environment)?;
    let display = start(&args.display, environment)?;
    let (cancel, interrupts) = until_released();
    let container = builder.container(request, display.reporter(), cancel.clone()).await;
    display.finish();
    // what was cancelled until now is not run; from here on signals are the container's
    let container = container?;
    if cancel.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    interrupts.abort();
    let (attachment, stdio) = Attachment::new(args.interactive, args.tty)?;
    let exit = container.run(stdio, attachment.output(), attachment.cancel()).await;
    attachment.end(exit)
}

/// What is told of an end, and the exit code.
pub(crate) fn conclude(exit: &Exit) -> Result<(), Failure> {
    for note in &exit.notes {
        say(&format!("warning: {}\n", one_line(note)));
    }
    if let Some(reason) = &exit.not_started {
        say(&format!("error: {}\n", one_line(reason)));
    }
    match exit.out_of_memory {
        Some(0) => say("killed: out of memory\n"),
        Some(bytes) => say(&format!("killed: out of memory at {} MiB\n", bytes >> 20)),
        None => {}
    }
    match u8::try_from(exit.code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::Ended(code)),
        Err(_) => Err(Failure::Ended(u8::MAX)),
    }
}

/// What the flags ask for.
pub(crate) fn request(args: &RunArgs, environment: &Environment) -> Result<RunRequest, Usage> {
    refuse_what_is_not_there(args)?;
    let (image, command) = args
        .words
        .split_first()
        .ok_or_else(|| Usage::new("the image is missing").hint("bricklayer run IMAGE"))?;
    check_working_dir(args.workdir.as_deref())?;
    let mut capabilities = CapabilityChanges::default();
    for (flag, names, change) in [
        ("--cap-add", &args.cap_add, CapabilityChanges::add as fn(&mut _, &str) -> _),
        ("--cap-drop", &args.cap_drop, CapabilityChanges::drop),
    ] {
        for name in names {
            change(&mut capabilities, name).map_err(|error| {
                let known: Vec<&str> = CapabilityChanges::names().collect();
                Usage::new(flag)
                    .because(error)
                    .suggest(&name.to_ascii_uppercase().replace("CAP_", ""), &known)
            })?;
        }
    }
    let mut mounts = Vec::new();
    for text in &args.volumes {
        mounts.push(mounts::volume(text, environment)?);
    }
    for text in &args.mounts {
        mounts.push(mounts::mount(text, environment)?);
    }
    for text in &args.tmpfs {
        mounts.push(mounts::tmpfs(text)?);
    }
    if let Some(name) = args.hostname.as_deref() {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
            return Err(Usage::new(format!("--hostname `{name}` is no host name")));
        }
    }
    Ok(RunRequest {
        image: image.clone(),
        platform: platform(default_platform(args.platform.as_deref(), environment))?,
        pull: pull(args.pull.as_deref())?,
        command: command.to_vec(),
        entrypoint: args.entrypoint.as_ref().map(|program| match program.as_str() {
            "" => Vec::new(),
            program => vec![program.to_owned()],
        }),
        env: variables(args, environment)?,
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        mounts,
        network: network(
            args.network.as_deref().map(|name| if name == "bridge" { "default" } else { name }),
        )?,
        hostname: args.hostname.clone(),
        extra_hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        shm_size: args.shm_size.as_deref().map(|text| size("--shm-size", text)).transpose()?,
        ulimits: args.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        limits: limits(&args.limits)?,
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
        capabilities,
        read_only: args.read_only,
        oci_runtime: oci_runtime(args.oci_runtime.as_deref(), environment)?,
    })
}

/// `-w`
pub(crate) fn check_working_dir(typed: Option<&str>) -> Result<(), Usage> {
    match typed {
        Some(directory) if !directory.starts_with('/') => {
            Err(Usage::new(format!("-w `{directory}` is not an absolute path")))
        }
        _ => Ok(()),
    }
}

/// Flags that Docker has and this command has not.
fn refuse_what_is_not_there(args: &RunArgs) -> Result<(), Usage> {
    let given: [(&str, bool, Option<&str>); 13] = [
        ("--detach", args.detach, Some("a container runs in the foreground and ends with this command")),
        ("--publish", !args.publish.is_empty(), Some("--network host, and the ports are the host's")),
        ("--publish-all", args.publish_all, Some("--network host, and the ports are the host's")),
        ("--privileged", args.privileged, Some("--cap-add ALL gives all capabilities")),
        ("--device", !args.device.is_empty(), None),
        ("--gpus", args.gpus.is_some(), None),
        ("--security-opt", !args.security_opt.is_empty(), None),
        ("--name", args.name.is_some(), Some("nothing is left of a container that could be named")),
        ("--restart", args.restart.is_some(), None),
        ("--init", args.init, None),
        ("--pid", args.pid.is_some(), None),
        ("--ipc", args.ipc.is_some(), None),
        ("--userns", args.userns.is_some(), None),
    ];
    match given.into_iter().find(|(_, given, _)| *given) {
        Some((flag, _, Some(hint))) => Err(Usage::unsupported(flag).hint(hint)),
        Some((flag, ..)) => Err(Usage::unsupported(flag)),
        None => Ok(()),
    }
}

/// Proxies of Docker's config.json, then files, then flags: what comes later counts.
fn variables(args: &RunArgs, environment: &Environment) -> Result<Vec<(String, Option<String>)>, Usage> {
    let mut variables: Vec<_> =
        proxies(&[], environment)?.into_iter().map(|(name, value)| (name, Some(value))).collect();
    for path in &args.env_file {
        for line in read_env_file(path, environment)?.lines() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                variables.push(variable(&format!("--env-file `{}`", path.display()), line, environment)?);
            }
        }
    }
    for text in &args.env {
        variables.push(variable("-e", text, environment)?);
    }
    Ok(variables)
}

/// `NAME=VALUE`, or `NAME`: as it is in this environment, and not there if it is not.
pub(crate) fn variable(
    what: &str,
    text: &str,
    environment: &Environment,
) -> Result<(String, Option<String>), Usage> {
    match text.split_once('=') {
        Some(("", _)) => Err(Usage::new(format!("{what}: `{text}` has no name"))),
        None if text.trim().is_empty() => Err(Usage::new(format!("{what}: a variable has no name"))),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((text.to_owned(), environment.get(text).map(str::to_owned))),
    }
}

fn read_env_file(path: &Path, environment: &Environment) -> Result<String, Usage> {
    let fail = |why: &str| Usage::new(format!("--env-file `{}`{why}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(environment.path(path))
        .and_then(|file| file.take(LARGEST_ENV_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(" can't be read").because(error))?;
    if bytes.len() as u64 > LARGEST_ENV_FILE {
        return Err(fail(" is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| fail(" is not UTF-8"))
}
