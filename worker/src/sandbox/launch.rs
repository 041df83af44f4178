//! From a [`Command`] to a running process, and to its end.
//!
//! A thread of its own enters the new namespaces, builds the mount tree there and starts the process; then it ends, and
//! the namespaces live on with the process alone.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use bricklayer_solver::op::{Network, Security};
use bricklayer_sys::namespace::{Namespaces, enter_mounts, enter_network, set_host_name, unshare};
use bricklayer_sys::notify::Listener;
use bricklayer_sys::spawn::{Child, End, Outcome, Plan, Stage, Strings, spawn};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio_util::sync::CancellationToken;

use super::cgroup::{Devices, Group};
use super::follow::{Input, Streams, follow};
use super::oci::{self, NotStarted, Runtime};
use super::socket::{Bound, Forwarding};
use super::stdio::Terminal;
use super::stub::Stubs;
use super::{
    Command, DEFAULT_PATH, DEFAULT_TERM, Exit, HOSTNAME, SandboxError, Stream, limits, owners, policy,
    rootfs, seccomp,
};
use crate::network::NoUplink;
use crate::network::private::{NoNetwork, Private, private};
use crate::network::resolver::Resolver;
use crate::network::{names, netlink};

/// A command that was started.
pub(super) struct Running {
    // The order matters: the child ends before its group is removed.
    child: Child,
    _helpers: Helpers,
    network: Option<Private>,
    streams: Streams,
    group: Group,
    /// What is removed afterwards, and from where.
    stubs: Stubs,
    upper: OwnedFd,
    program: String,
    cwd: String,
    /// The runtime that it runs under, and what that has written about itself.
    runtime: Option<(PathBuf, File)>,
    notes: Vec<String>,
}

/// What answers a command from outside, as long as it runs.
type Helpers = (Option<Resolver>, Vec<Forwarding>);

/// What the kernel is to be told in C strings, checked.
struct Words {
    candidates: Vec<CString>,
    arguments: Strings,
    environment: Strings,
    cwd: CString,
}

fn c_string(what: &str, text: &str) -> Result<CString, SandboxError> {
    CString::new(text).map_err(|_| SandboxError::Invalid(format!("{what} has a NUL byte in it")))
}

/// The environment: of several variables with one name the last counts, at the place of the first. What every command
/// has is added.
pub(super) fn environment(command: &Command) -> Vec<String> {
    complete(&command.env, &command.user.home, command.stdio.terminal.is_some())
}

fn complete(given: &[String], home: &str, has_terminal: bool) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut result: Vec<String> = Vec::with_capacity(given.len() + 3);
    let mut places = std::collections::HashMap::new();
    for entry in given {
        match places.get(&name(entry)) {
            Some(place) => {
                if let Some(old) = result.get_mut::<usize>(*place) {
                    old.clone_from(entry);
                }
            }
            None => {
                places.insert(name(entry), result.len());
                result.push(entry.clone());
            }
        }
    }
    if !places.contains_key("PATH") {
        result.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !places.contains_key("HOME") {
        result.push(format!("HOME={}", if home.is_empty() { "/" } else { home }));
    }
    if has_terminal && !places.contains_key("TERM") {
        result.push(format!("TERM={DEFAULT_TERM}"));
    }
    result
}

/// A user namespace with one mapped id has no say over groups (user_namespaces(7)).
pub(super) fn may_set_groups() -> bool {
    !std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Where a program may lie. A name with a slash is a path; others are looked for in `PATH`, as execvp(3) does.
fn candidates(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let directory =
        |part: &str| if part.is_empty() { format!("./{program}") } else { format!("{part}/{program}") };
    path.split(':').map(directory).collect()
}

impl Words {
    fn of(command: &Command) -> Result<Self, SandboxError> {
        let Some(program) = command.args.first() else {
            return Err(SandboxError::Invalid("there is no program to run".to_owned()));
        };
        if !command.cwd.starts_with('/') {
            return Err(SandboxError::Invalid(format!(
                "working directory `{}` is not absolute",
                command.cwd
            )));
        }
        let environment = environment(command);
        // An empty name is no file in every directory.
        let candidates = if program.is_empty() { Vec::new() } else { candidates(program, &environment) };
        let c_strings = |what: &str, texts: &[String]| -> Result<Vec<CString>, SandboxError> {
            texts.iter().map(|text| c_string(what, text)).collect()
        };
        Ok(Self {
            candidates: c_strings("the program's name", &candidates)?,
            arguments: Strings::new(c_strings("an argument", &command.args)?),
            environment: Strings::new(c_strings("the environment", &environment)?),
            cwd: c_string("the working directory", &command.cwd)?,
        })
    }
}

/// Starts a command.
pub(super) fn launch(mut command: Command, cancel: &CancellationToken) -> Result<Running, SandboxError> {
    let words = Words::of(&command)?;
    let limits = limits::resolve(&command.ulimits)?;
    let devices = match (&command.runtime, command.security) {
        (Some(_), _) => Devices::ByRuntime,
        (None, Security::Sandbox) => Devices::Guarded,
        (None, Security::Insecure) => Devices::All,
    };
    let group = Group::new(&command.limits, command.cgroup_parent.as_deref(), devices)?;
    let mut streams = Streams { control: command.stdio.control.take(), ..Streams::default() };
    let pipes = match command.stdio.terminal {
        Some(_) => None,
        None => Some(pipes(command.stdio.input.take(), &mut streams)?),
    };
    let upper = match command.upper.take() {
        Some(upper) => upper,
        None => command.root.try_clone().map_err(|error| SandboxError::setup("copy a descriptor", error))?,
    };
    let program = command.args.first().cloned().unwrap_or_default();
    let cwd = command.cwd.clone();
    let runtime = command.runtime.take();
    let mut stubs = Stubs::default();
    let input = command.stdio.input.take();
    let inside = Inside {
        words: &words,
        limits: &limits,
        group: &group,
        pipes: pipes.as_ref(),
        runtime: runtime.as_ref(),
        cancel,
    };
    let started = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sandbox".to_owned());
        let handle = thread
            .spawn_scoped(scope, || {
                let home = rustix::fs::open(
                    "/proc/thread-self/ns/mnt",
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(|error| SandboxError::setup("open the mount namespace", error))?;
                let started = inside.start(command, &mut stubs);
                // A thread is joined before the kernel is done with it: without this the root might still be mounted
                // for a moment after the command has ended.
                let _ = enter_mounts(home.as_fd());
                started
            })
            .map_err(|error| SandboxError::setup("start a thread", error))?;
        handle.join().map_err(|_| SandboxError::setup("start the sandbox", io::ErrorKind::Other))?
    });
    match started {
        Ok(Started { child, owners, resolver, sockets, network, terminal, log, notes }) => {
            if let Some(owners) = owners {
                owners::serve(owners)
                    .map_err(|error| SandboxError::setup("answer calls that change owners", error))?;
            }
            if let Some(Terminal { ours, its }) = terminal {
                streams.input = input.map(|from| follow_input(from, &ours, true)).transpose()?;
                streams.stdout = Some(ours);
                streams.terminal = Some(its);
            }
            let sockets: io::Result<Vec<Forwarding>> = sockets.into_iter().map(Bound::serve).collect();
            let sockets = sockets.map_err(|error| SandboxError::setup("answer on a socket", error))?;
            Ok(Running {
                child,
                _helpers: (resolver, sockets),
                network,
                streams,
                group,
                stubs,
                upper,
                program,
                cwd,
                runtime: runtime.map(|runtime| runtime.program).zip(log),
                notes,
            })
        }
        Err(error) => {
            // What was made before it failed goes too; the first failure is the one to report.
            let _ = stubs.remove(upper.as_fd());
            Err(error)
        }
    }
}

/// Makes the command's standard input, output and error pipes; our ends of them go to `streams`.
fn pipes(input: Option<OwnedFd>, streams: &mut Streams) -> Result<[OwnedFd; 3], SandboxError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| SandboxError::setup("make a pipe", error));
    let (stdin, stdin_end) = pipe()?;
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    // Without an input the other end is closed at once, and the command's input is at its end.
    if let Some(from) = input {
        streams.input = Some(follow_input(from, &stdin_end, false)?);
    }
    (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
    Ok([stdin, stdout_end, stderr_end])
}

fn follow_input(from: OwnedFd, to: &OwnedFd, terminal: bool) -> Result<Input, SandboxError> {
    to.try_clone()
        .and_then(|to| Input::new(from, to, terminal))
        .map_err(|error| SandboxError::setup("pass on the input", error))
}

/// What the thread inside the namespaces gives back.
struct Started {
    child: Child,
    /// Where its calls that change owners wait.
    owners: Option<Listener>,
    resolver: Option<Resolver>,
    sockets: Vec<Bound>,
    network: Option<Private>,
    terminal: Option<Terminal>,
    /// Of an OCI runtime.
    log: Option<File>,
    notes: Vec<String>,
}

/// What the thread inside the namespaces needs.
struct Inside<'a> {
    words: &'a Words,
    limits: &'a [(u32, u64, u64)],
    group: &'a Group,
    /// What the command reads and writes, where it has no terminal.
    pipes: Option<&'a [OwnedFd; 3]>,
    runtime: Option<&'a Runtime>,
    cancel: &'a CancellationToken,
}

impl Inside<'_> {
    fn start(&self, command: Command, stubs: &mut Stubs) -> Result<Started, SandboxError> {
        let setup = |step: &'static str| move |error: io::Error| SandboxError::setup(step, error);
        let mut notes = Vec::new();
        let mut network = match command.network {
            Network::Default => match private(command.more_to_come) {
                Ok(network) => Some(network),
                Err(NoNetwork::NoUplink(NoUplink { reason, hint })) => {
                    return Err(SandboxError::Network { reason, hint });
                }
                Err(NoNetwork::Refused(reason)) => {
                    notes.push(format!(
                        "RUN uses the host's network: no private one could be made ({reason})"
                    ));
                    None
                }
            },
            Network::None | Network::Host => None,
        };
        let own_network = command.network == Network::None;
        let resolver = match &mut network {
            Some(network) => network.resolver().map_err(setup("start a name server"))?,
            None => None,
        };
        let resolv_conf = match &network {
            Some(network) => network.resolv_conf(),
            None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        };
        if let Some(runtime) = self.runtime {
            let with = oci::Surroundings {
                runtime,
                limits: self.limits,
                group: self.group,
                pipes: self.pipes,
                network: network.as_ref(),
                resolv_conf,
                cancel: self.cancel,
            };
            let oci::Started { child, owners, sockets, terminal, log } = oci::start(command, with, stubs)?;
            return Ok(Started {
                child,
                owners,
                resolver,
                sockets,
                network,
                terminal,
                log: Some(log),
                notes,
            });
        }
        unshare(Namespaces { mount: true, uts: true, ipc: true, network: own_network })
            .map_err(setup("make namespaces"))?;
        let hostname = command.hostname.as_deref().unwrap_or(HOSTNAME);
        set_host_name(hostname.as_bytes()).map_err(setup("set the host name"))?;
        if own_network {
            netlink::loopback_up().map_err(setup("bring up the loopback interface"))?;
        }
        if let Some(network) = &network {
            enter_network(network.namespace()).map_err(setup("enter a network namespace"))?;
        }
        let sandboxed = command.security == Security::Sandbox;
        let tree = rootfs::build(
            rootfs::Request {
                root: command.root.as_fd(),
                mounts: command.mounts,
                security: command.security,
                shm_size: command.shm_size.unwrap_or(policy::SHM_SIZE),
                hosts: names::hosts(hostname, &command.extra_hosts),
                resolv_conf,
                cwd: &command.cwd,
                user: &command.user,
                read_only: command.read_only,
                terminal: command.stdio.terminal,
                no_devices: sandboxed && !self.group.guards_devices,
            },
            stubs,
        )?;
        let mut groups = command.user.groups;
        if !groups.contains(&command.user.gid) {
            // Otherwise a file that its group may not read could be read.
            groups.insert(0, command.user.gid);
        }
        let procs = self.group.procs();
        let capabilities = policy::capabilities(command.security, command.capabilities);
        let filter = if sandboxed {
            let filter = seccomp::filter(capabilities.bounding);
            Some(filter.ok_or_else(seccomp::none_for_this_machine)?)
        } else {
            None
        };
        let stdio = match (self.pipes, &tree.terminal) {
            (_, Some(terminal)) => [terminal.its.as_fd(); 3],
            (Some(pipes), None) => pipes.each_ref().map(AsFd::as_fd),
            (None, None) => return Err(SandboxError::setup("make a terminal", io::ErrorKind::NotFound)),
        };
        let plan = Plan {
            candidates: &self.words.candidates,
            arguments: &self.words.arguments,
            environment: &self.words.environment,
            stdio,
            terminal: tree.terminal.is_some(),
            root: command.root.as_fd(),
            proc: tree.proc.as_fd(),
            proc_read_only: policy::proc_read_only(command.security),
            proc_masked: policy::proc_masked(command.security),
            mask_directory: Some(tree.mask_directory.as_fd()),
            mask_file: Some(tree.mask_file.as_fd()),
            enter_groups: &procs,
            group: self.group.unified(),
            group_namespace: true,
            group_mount: tree.groups.as_ref().map(|fd| fd.as_fd()),
            // Where there is no hierarchy of version 2 the directory stays empty.
            group_mount_optional: true,
            group_writable: !sandboxed,
            cwd: &self.words.cwd,
            limits: self.limits,
            umask: policy::UMASK,
            uid: command.user.uid,
            gid: command.user.gid,
            groups: may_set_groups().then_some(&groups),
            capabilities,
            filter: filter.as_deref(),
        };
        // Last: from here on this thread's own calls of these would wait, too.
        let owners = owners::intercept();
        let child = spawn(&plan, &|| self.cancel.is_cancelled()).map_err(setup("start the supervisor"))?;
        Ok(Started {
            child,
            owners,
            resolver,
            sockets: tree.sockets,
            network,
            terminal: tree.terminal,
            log: None,
            notes,
        })
    }
}

impl Running {
    /// Passes on what it writes, and what it is to read, until it has ended.
    pub(super) fn follow(
        mut self,
        output: &dyn Fn(Stream, &[u8]),
        cancel: &CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let streams = std::mem::take(&mut self.streams);
        let signal = |number| self.child.signal(number);
        match follow(streams, self.child.ended(), &signal, output, cancel) {
            Ok(()) => self.end(),
            Err(SandboxError::Cancelled) => Err(self.cancelled()),
            Err(error) => Err(error),
        }
    }

    fn cancelled(mut self) -> SandboxError {
        self.child.kill();
        let _ = self.child.wait();
        let _ = self.stubs.remove(self.upper.as_fd());
        SandboxError::Cancelled
    }

    fn end(mut self) -> Result<Exit, SandboxError> {
        let outcome = self.child.wait();
        self.stubs
            .remove(self.upper.as_fd())
            .map_err(|error| SandboxError::setup("remove mount points", error))?;
        let mut exit = Exit { notes: self.notes, ..Exit::default() };
        match outcome {
            Outcome::Ended { end, cpu_time, largest } => {
                match end {
                    End::Exited(code) => exit.code = code,
                    End::Killed(signal) => {
                        exit.code = 128 + signal;
                        exit.signal = Some(signal);
                    }
                }
                if let Some((runtime, log)) = &mut self.runtime
                    && !exit.success()
                {
                    match oci::not_started(log) {
                        None => {}
                        Some(NotStarted::Missing(reason)) => {
                            (exit.code, exit.not_started) = (127, Some(reason));
                        }
                        Some(NotStarted::Refused(reason)) => {
                            (exit.code, exit.not_started) = (126, Some(reason));
                        }
                        Some(NotStarted::Failed(message)) => {
                            let program = runtime.display().to_string();
                            return Err(SandboxError::Runtime { program, message });
                        }
                    }
                }
                if !exit.success() {
                    exit.notes.extend(self.network.as_ref().and_then(Private::dropped));
                }
                exit.out_of_memory = self.group.out_of_memory().filter(|_| !exit.success());
                exit.peak_memory = self.group.peak_memory();
                exit.largest_process = largest;
                exit.cpu_time = self.group.cpu_time().or(Some(Duration::from_micros(cpu_time)));
                Ok(exit)
            }
            Outcome::Failed { stage: Stage::Exec | Stage::MagicLink, error } if self.runtime.is_some() => {
                let program = self.runtime.map(|(program, _)| program.display().to_string());
                Err(SandboxError::setup(format!("execute {}", program.unwrap_or_default()), error))
            }
            Outcome::Failed { stage: Stage::Exec | Stage::MagicLink, error } => {
                exit.code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                exit.not_started = Some(format!("exec: {:?}: {}", self.program, exec_error(&error)));
                Ok(exit)
            }
            Outcome::Failed { stage: Stage::Cwd, error } => {
                Err(SandboxError::Cwd { path: self.cwd, source: error })
            }
            Outcome::Failed { stage, error } => Err(SandboxError::setup(stage.what(), error)),
            Outcome::Lost => Err(SandboxError::setup(
                "keep the command under supervision",
                io::Error::other("its supervisor was killed from outside"),
            )),
        }
    }
}

fn exec_error(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "no such file, or its interpreter is missing".to_owned(),
        Some(Errno::ACCESS) => "permission denied".to_owned(),
        Some(Errno::NOEXEC) => "not a program for this machine, and no script with a `#!` line".to_owned(),
        Some(Errno::LOOP) => "it leads through a link that the sandbox does not follow".to_owned(),
        Some(Errno::TOOBIG) => "arguments and environment are too long".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_no_name_twice_and_always_path_and_home() {
        let given = ["A=1", "HOME=/h", "A=2", "B"].map(str::to_owned);
        let expected = ["A=2", "HOME=/h", "B", &format!("PATH={DEFAULT_PATH}")].map(str::to_owned);
        assert_eq!(complete(&given, "/root", false), expected);
        assert_eq!(complete(&["PATH=".to_owned()], "", true), ["PATH=", "HOME=/", "TERM=xterm"]);
    }

    #[test]
    fn programs_are_looked_for_in_path() {
        let environment = ["PATH=/a::/b".to_owned()];
        assert_eq!(candidates("x", &environment), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &environment), ["./x"]);
        assert_eq!(candidates("/x", &environment), ["/x"]);
    }
}
