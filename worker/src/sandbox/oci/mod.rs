//! The same sandbox under an OCI runtime (runc, crun, runsc): a bundle is described, and the runtime makes it.
//!
//! ```text
//! SCRATCH/            a filesystem in memory, seen in a mount namespace of its own only
//!   config.json       namespaces, capabilities, seccomp, limits, masks, /proc /sys /dev (runtime-spec 1.0.2)
//!   rootfs/           the root, and on it what the command mounts: attached by descriptor, so no link of an image leads a
//!                     runtime astray, and stubs are known and removed
//!   files/            secrets, sockets, /etc/hosts: what is bound into rootfs/
//!   mounts/<n>        what is mounted below /dev, which the runtime makes
//!   netns             the private network's namespace
//!   state/ log        the runtime's own
//! ```
//!
//! The runtime is process 1 of a pid namespace under our supervisor. However the builder ends, the kernel ends the runtime,
//! the command and all mounts with it; the control groups lie in one of ours, which the next process removes.

mod log;
mod profile;
mod spec;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_solver::op::{Network, Security};
use bricklayer_sys::mount::make_private;
use bricklayer_sys::namespace::{Namespaces, unshare};
use bricklayer_sys::notify::Listener;
use bricklayer_sys::spawn::{Capabilities, Child, Plan, Strings, spawn};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};
use tokio_util::sync::CancellationToken;

use super::cgroup::Group;
use super::launch::environment;
use super::owners;
use super::rootfs::{self, Context, Scratch, attach, clone_tree, filesystem, open_path, system_directory};
use super::socket::Bound;
use super::stdio::Terminal;
use super::stub::Stubs;
use super::{Command, HOSTNAME, SandboxError, policy};
use crate::network::names;
use crate::network::private::Private;

pub(super) use log::{NotStarted, not_started};

/// An OCI runtime that runs a command instead of our own code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program, absolute.
    pub program: PathBuf,
    /// An empty directory, for this command alone; nothing is left in it.
    pub scratch: PathBuf,
}

/// A runtime that was started.
pub(super) struct Started {
    pub(super) child: Child,
    /// Where its calls that change owners wait.
    pub(super) owners: Option<Listener>,
    pub(super) sockets: Vec<Bound>,
    pub(super) terminal: Option<Terminal>,
    /// What the runtime has to say of itself.
    pub(super) log: File,
}

/// What was settled before.
pub(super) struct Surroundings<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) limits: &'a [(u32, u64, u64)],
    pub(super) group: &'a Group,
    pub(super) pipes: Option<&'a [OwnedFd; 3]>,
    pub(super) network: Option<&'a Private>,
    pub(super) resolv_conf: String,
    pub(super) cancel: &'a CancellationToken,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::setup(step, error)
}

/// Starts a command under its runtime. The calling thread gets a mount namespace of its own.
pub(super) fn start(
    mut command: Command,
    with: Surroundings<'_>,
    stubs: &mut Stubs,
) -> Result<Started, SandboxError> {
    let terminal = match command.stdio.terminal {
        Some(size) => Some(Terminal::of_host(size).map_err(failed("make a terminal"))?),
        None => None,
    };
    let namespaces = Namespaces { mount: true, uts: false, ipc: false, network: false };
    unshare(namespaces).map_err(failed("make a mount namespace"))?;
    let host = open_path(CWD, "/").map_err(failed("open the root directory"))?;
    make_private(host.as_fd()).map_err(failed("make mounts private"))?;
    if let Some(hierarchy) = Group::beside_legacy() {
        hide(hierarchy)?;
    }
    let bundle = Bundle::new(&with.runtime.scratch)?;
    if let Some(network) = with.network {
        bundle.keep_network(network.namespace())?;
    }
    let log = bundle.file("log", b"")?;
    let (sockets, elsewhere) = bundle.root(&mut command, with.resolv_conf, stubs)?;
    let network = match (command.network, with.network) {
        (_, Some(_)) => spec::Network::Existing(bundle.path.join("netns")),
        (Network::None, None) => spec::Network::New,
        (Network::Default | Network::Host, None) => spec::Network::Host,
    };
    let surroundings = spec::Surroundings {
        limits: with.limits,
        // In a user namespace the command stays in the runtime's own.
        groups: with.group.path().filter(|_| !in_user_namespace()),
        unified: Group::is_unified(),
        network,
        mounts: &elsewhere,
        environment: environment(&command),
    };
    let config = spec::config(&command, &surroundings)?;
    bundle.file("config.json", &config)?;

    let (runtime, path) = (&with.runtime.program, |name: &str| bundle.path.join(name));
    let id = with.runtime.scratch.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let mut words = vec![runtime.as_os_str().to_owned()];
    words.extend(as_a_user(runtime).iter().map(Into::into));
    words.extend([
        "--root".into(),
        path("state").into(),
        "--log".into(),
        path("log").into(),
        "--log-format".into(),
        "json".into(),
        "run".into(),
        "--bundle".into(),
        bundle.path.clone().into(),
        format!("bricklayer{id}").into(),
    ]);
    let c_string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| SandboxError::Invalid("the runtime's path has a NUL byte".to_owned()))
    };
    let arguments: Vec<CString> =
        words.iter().map(|word| c_string(word.as_bytes())).collect::<Result<_, _>>()?;
    let candidates = [c_string(runtime.as_os_str().as_bytes())?];
    let cwd = c_string(bundle.path.as_os_str().as_bytes())?;
    let environment =
        Strings::new(vec![c_string(format!("PATH={}", super::DEFAULT_PATH).as_bytes())?, c"HOME=/".into()]);

    // A copy of all that the host has mounted, with the bundle: what becomes the runtime's root has to be a mount that
    // can be put on top.
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let root = open_tree(CWD, c"/", flags).map_err(failed("copy the host's mounts"))?;
    attach(root.as_fd(), host.as_fd()).map_err(failed("attach the host's mounts"))?;
    let proc = open_path(root.as_fd(), "proc").map_err(failed("open /proc"))?;
    let stdio = match (with.pipes, &terminal) {
        (_, Some(terminal)) => [terminal.its.as_fd(); 3],
        (Some(pipes), None) => pipes.each_ref().map(AsFd::as_fd),
        (None, None) => return Err(SandboxError::setup("make a terminal", io::ErrorKind::NotFound)),
    };
    let procs = with.group.procs();
    let own = with.group.of_runtime().map_err(failed("make a control group for the runtime"))?;
    let plan = Plan {
        candidates: &candidates,
        arguments: &Strings::new(arguments),
        environment: &environment,
        stdio,
        terminal: terminal.is_some(),
        root: root.as_fd(),
        proc: proc.as_fd(),
        proc_read_only: &[],
        proc_masked: &[],
        mask_directory: None,
        mask_file: None,
        enter_groups: &procs,
        group: own.as_ref().map(|own| own.as_fd()).or(with.group.unified()),
        // The runtime names groups as the host does.
        group_namespace: false,
        group_mount: None,
        group_mount_optional: true,
        group_writable: true,
        cwd: &cwd,
        limits: &[],
        umask: policy::UMASK,
        uid: 0,
        gid: 0,
        groups: None,
        capabilities: Capabilities { bounding: u64::MAX, permitted: u64::MAX, inheritable: 0 },
        filter: None,
    };
    // Last: from here on this thread's own calls of these would wait, too.
    let owners = owners::intercept();
    let child = spawn(&plan, &|| with.cancel.is_cancelled()).map_err(failed("start the supervisor"))?;
    Ok(Started { child, owners, sockets, terminal, log })
}

/// Hides a mount from the calling thread's mount namespace.
fn hide(mount: &Path) -> Result<(), SandboxError> {
    let hidden = if in_user_namespace() {
        // What was there before the user namespace can't be unmounted in it.
        let nothing = filesystem("tmpfs", &[("mode", "0755"), ("size", "0")], rootfs::NO_SUID_DEV)?;
        rustix::fs::openat(CWD, mount, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|place| attach(nothing.as_fd(), place.as_fd()))
    } else {
        unmount(mount, UnmountFlags::DETACH)
    };
    hidden.map_err(failed("hide a hierarchy of control groups"))
}

/// What a runtime has to be told in a user namespace: that it may make no control groups. It finds out the rest itself.
fn as_a_user(runtime: &Path) -> &'static [&'static str] {
    if !in_user_namespace() {
        return &[];
    }
    match runtime.file_name().and_then(|name| name.to_str()) {
        Some("crun") => &["--cgroup-manager=disabled"],
        Some("runc") => &["--rootless=true"],
        Some("runsc") => &["--ignore-cgroups"],
        _ => &[],
    }
}

/// The bundle's directory.
struct Bundle {
    path: PathBuf,
    directory: OwnedFd,
}

impl Bundle {
    fn new(path: &Path) -> Result<Self, SandboxError> {
        let target = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed("open the bundle's directory"))?;
        let attributes = rootfs::NO_SUID_DEV;
        let directory = filesystem("tmpfs", &[("mode", "0700"), ("size", "16m")], attributes)?;
        attach(directory.as_fd(), target.as_fd()).map_err(failed("mount the bundle"))?;
        for name in ["rootfs", "files", "mounts", "state"] {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700))
                .map_err(failed("make a directory of the bundle"))?;
        }
        Ok(Self { path: path.to_owned(), directory })
    }

    /// A file; open for reading.
    fn file(&self, name: &str, content: &[u8]) -> Result<File, SandboxError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(open.map_err(failed("make a file of the bundle"))?);
        io::Write::write_all(&mut file, content).map_err(failed("write a file of the bundle"))?;
        Ok(file)
    }

    fn keep_network(&self, namespace: BorrowedFd<'_>) -> Result<(), SandboxError> {
        self.file("netns", b"")?;
        let keep = || {
            let mount = clone_tree(namespace, "")?;
            attach(mount.as_fd(), open_path(self.directory.as_fd(), "netns")?.as_fd())
        };
        keep().map_err(failed("keep a network namespace"))
    }

    /// Puts the root filesystem in place, with all that is mounted on it but below /dev: that is given back, as target
    /// and source.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn root(
        &self,
        command: &mut Command,
        resolv_conf: String,
        stubs: &mut Stubs,
    ) -> Result<(Vec<Bound>, Vec<(String, PathBuf)>), SandboxError> {
        let place = open_path(self.directory.as_fd(), "rootfs").map_err(failed("open the bundle"))?;
        let root = command.root.as_fd();
        attach(root, place.as_fd()).map_err(failed("attach the root filesystem"))?;
        let proc = system_directory(root, "proc")?;
        let sys = system_directory(root, "sys")?;
        let dev = system_directory(root, "dev")?;
        let files = open_path(self.directory.as_fd(), "files").map_err(failed("open the bundle"))?;
        let scratch = Scratch::new(files.as_fd())?;
        let mut context = Context::new(root, &scratch, false);
        for fd in [&proc, &sys] {
            context.forbid(fd.as_fd())?;
        }
        let hostname = command.hostname.as_deref().unwrap_or(HOSTNAME);
        context.files(names::hosts(hostname, &command.extra_hosts), resolv_conf, stubs)?;
        let mut elsewhere = Vec::new();
        for mount in std::mem::take(&mut command.mounts) {
            let target = mount.target.clone();
            let Some((tree, is_directory)) = context.mount_unless_below(mount, dev.as_fd(), stubs)? else {
                continue;
            };
            let name = format!("mounts/{}", elsewhere.len());
            if is_directory {
                rustix::fs::mkdirat(&self.directory, &name, Mode::from_raw_mode(0o755))
                    .map_err(failed("make a directory of the bundle"))?;
            } else {
                self.file(&name, b"")?;
            }
            let place = open_path(self.directory.as_fd(), &name).map_err(failed("open the bundle"))?;
            attach(tree.as_fd(), place.as_fd()).map_err(failed("mount in the bundle"))?;
            elsewhere.push((target, self.path.join(name)));
        }
        context.working_directory(&command.cwd, &command.user, stubs)?;
        Ok((context.sockets, elsewhere))
    }
}

/// Is a command of this kind locked in?
fn sandboxed(command: &Command) -> bool {
    command.security == Security::Sandbox
}
