//! One command in one fresh set of namespaces, on a root filesystem of its own.
//!
//! The caller resolves everything that has a name (images, users, secrets) and hands over descriptors and numbers. What
//! the command may do is fixed here (see the tables in each module), not inherited from the process that builds.

mod capabilities;
mod cgroup;
mod devices;
mod error;
mod follow;
mod launch;
mod limits;
mod oci;
mod owners;
mod policy;
mod rootfs;
mod seccomp;
mod socket;
mod stdio;
mod stub;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use bricklayer_solver::event::Stream;
use bricklayer_solver::op::{Limits, Network, Security};
use tokio_util::sync::CancellationToken;

pub use capabilities::{CapabilityChanges, UnknownCapability};
pub use error::SandboxError;
pub use oci::Runtime;
pub use stdio::{Control, Size, Stdio};

/// What is to be run, and in which surroundings.
#[derive(Debug)]
pub struct Command {
    /// A writable mount that is attached nowhere ([`crate::overlay::mount`]).
    pub root: OwnedFd,
    /// The upper directory of `root`: mount points that were made only to mount on are removed from it afterwards.
    pub upper: Option<OwnedFd>,
    /// The program and its arguments; the program is looked up in `PATH` inside `root`.
    pub args: Vec<String>,
    /// `NAME=value`; of several with one name the last counts. `PATH` and `HOME` are added when they are missing.
    pub env: Vec<String>,
    /// An absolute path inside `root`; made, for `user`, if it is missing.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// What else is mounted, in this order.
    pub mounts: Vec<AttachedMount>,
    /// The network that it sees.
    pub network: Network,
    /// Will another command with such a network follow? Then it is made while this one runs.
    pub more_to_come: bool,
    /// How far it is locked in.
    pub security: Security,
    /// What it may do more, or less, than `security` says.
    pub capabilities: CapabilityChanges,
    /// May it write to what is mounted, and to nothing else?
    pub read_only: bool,
    /// Where its standard input, output and error lead.
    pub stdio: Stdio,
    /// An OCI runtime that makes the sandbox; `None`: we do.
    pub runtime: Option<Runtime>,
    /// The host name inside; `None`: [`HOSTNAME`].
    pub hostname: Option<String>,
    /// More lines for /etc/hosts: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of /dev/shm in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Resource limits of the process: name as in `--ulimit`, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Limits of all its processes together.
    pub limits: Limits,
    /// The control group below which its own is made.
    pub cgroup_parent: Option<String>,
}

/// The host name that a command sees when the caller names none. Recorded results and programs expect this one.
pub const HOSTNAME: &str = "buildkitsandbox";

/// `TERM` of a command with a terminal whose environment has none.
pub const DEFAULT_TERM: &str = "xterm";

/// `PATH` of a command whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who runs a command, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `gid` is added.
    pub groups: Vec<u32>,
    /// Home directory: `HOME` if the environment has none. Empty: `/`.
    pub home: String,
}

/// Something mounted into the sandbox.
#[derive(Debug)]
pub struct AttachedMount {
    /// An absolute path inside the root; made if it is missing, and removed afterwards if it was.
    pub target: String,
    /// What is mounted there.
    pub what: Attached,
}

/// What is mounted.
#[derive(Debug)]
pub enum Attached {
    /// A file or directory: a mount that is attached nowhere ([`crate::overlay::subtree`]).
    Tree {
        /// The mount.
        fd: OwnedFd,
        /// May the command only read?
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs(Tmpfs),
    /// A file in memory that the command can't change.
    SecretFile {
        /// Its content.
        data: Vec<u8>,
        /// Mode bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A Unix socket that leads to one outside.
    Socket {
        /// The socket outside.
        path: PathBuf,
        /// Mode bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// An empty directory in memory; by default as RUN has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tmpfs {
    /// In bytes; `None`: the kernel's default, half of the memory.
    pub size: Option<u64>,
    /// Mode bits of the directory; `None`: those of the directory that it covers, or 1777 where there is none.
    pub mode: Option<u32>,
    /// May the command only read?
    pub read_only: bool,
    /// Can programs in it be executed?
    pub programs: bool,
}

impl Default for Tmpfs {
    fn default() -> Self {
        Self { size: None, mode: None, read_only: false, programs: true }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// The exit code, or 128 + the signal. 127: there is no such program, 126: it can't be executed.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why the program could not be started at all: `exec: "/no/such/program": no such file`.
    pub not_started: Option<String>,
    /// It was killed because it used more memory than its limit (in bytes; 0: than the machine had).
    pub out_of_memory: Option<u64>,
    /// The most memory that it used, in bytes, where that is known.
    pub peak_memory: Option<u64>,
    /// The most memory that one of its processes had, in bytes, where that is known: more than what the builder itself has.
    pub largest_process: Option<u64>,
    /// User and system time of all its processes.
    pub cpu_time: Option<Duration>,
    /// What people should know about the surroundings, such as a network that is not private; each to be shown once.
    pub notes: Vec<String>,
}

impl Exit {
    /// Did it end with code 0?
    pub fn success(&self) -> bool {
        self.code == 0 && self.signal.is_none() && self.not_started.is_none()
    }
}

/// As long as one of these lives, what commands have in common stays for the next one: a private network that is ready, the
/// rules for all of them, directories for control groups. It goes with the last one. Worth having where several commands run
/// one after another; nothing is made before the first one.
#[derive(Debug)]
pub struct Hold {
    _networks: crate::network::Hold,
    _groups: cgroup::Hold,
}

impl Hold {
    /// Holds what is there.
    #[expect(clippy::new_without_default, reason = "it counts")]
    pub fn new() -> Self {
        Self { _networks: crate::network::Hold::new(), _groups: cgroup::Hold::new() }
    }
}

/// Runs a command and waits for its end. Blocks; to be called on a thread that may block.
///
/// `output` gets what the command writes, as it comes, in pieces of any size, on the calling thread. When `cancel` is
/// cancelled the command and all it started are killed. At the return none of its processes and mounts is left.
pub fn run(
    command: Command,
    output: &dyn Fn(Stream, &[u8]),
    cancel: &CancellationToken,
) -> Result<Exit, SandboxError> {
    if cancel.is_cancelled() {
        return Err(SandboxError::Cancelled);
    }
    let _hold = Hold::new();
    launch::launch(command, cancel)?.follow(output, cancel)
}
