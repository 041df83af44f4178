//! Ops: the five kinds of work. What decides the result is in the op; what people see of a step is in
//! [`StepInfo`](crate::graph::StepInfo), and what only helps to run it is marked "not in the key".
//!
//! The same five as BuildKit's LLB (`solver/pb/ops.proto`): Source, Exec, File, Merge, Diff.
//!
//! What is needed to run a command again is also written down (serde): whoever does it gives the document a version, and
//! raises that when a field here changes.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// One unit of work. Inputs are numbered as the vertex lists them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// Brings files from outside.
    Source(Source),
    /// Runs a command on a root filesystem.
    Exec(Box<Exec>),
    /// Copies, makes and removes files.
    File(FileOp),
    /// Lays the layers of all inputs on each other, first input lowest.
    Merge,
    /// What input 1 changed over input 0 (LLB; no Dockerfile instruction makes one).
    Diff,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The layers of an image, already pinned by the frontend.
    Image(ImageSource),
    /// A directory of the caller, read where it lies.
    Local(LocalSource),
    /// One file over HTTP.
    Http(HttpSource),
    /// A checkout of a git repository.
    Git(GitSource),
}

/// An image, pinned to its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The normalised reference, for people (not in the key).
    pub reference: String,
    /// The manifest (of one platform); it and the config are in the store already, its layers perhaps not (not in the key).
    pub manifest: Digest,
    /// The diff IDs of the config: what the key is made of.
    pub diff_ids: Vec<Digest>,
    /// What it is for.
    pub platform: Platform,
}

/// A directory that the caller named: the build context (`context`) or a `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalSource {
    /// The name that the worker was told the directory under.
    pub name: String,
    /// `.dockerignore` patterns, in order, comments removed (see [`crate::pattern`]). They decide what is seen,
    /// not the key: a key holds the digest of what was selected.
    pub ignore: Vec<String>,
}

/// One file over HTTP; the result is a directory that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpSource {
    /// `http://` or `https://`, no user info (that is taken from secrets).
    pub url: String,
    /// What the file must hash to.
    pub checksum: Option<Digest>,
    /// The name that the file gets: one path component.
    pub filename: String,
}

/// A checkout of a git repository; the result is a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GitSource {
    /// The remote's URL, without credentials.
    pub remote: String,
    /// Branch, tag, commit or full ref; empty: the remote's default branch.
    pub reference: String,
    /// The directory of the repository that becomes the root; empty: all of it.
    pub subdir: String,
    /// A commit that `reference` must resolve to (a prefix will do).
    pub checksum: Option<String>,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Check out submodules.
    pub submodules: bool,
    /// Files have the commit's time, not that of the checkout.
    pub commit_time: bool,
    /// `checksum` is the whole commit: it is fetched by its number, and no reference is looked up (not in the key).
    pub by_commit: bool,
}

/// A command in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The input that is the root filesystem; `None`: an empty one (`FROM scratch`).
    pub root: Option<usize>,
    /// The program and its arguments; the program is looked up in `PATH` inside the root filesystem.
    pub args: Vec<String>,
    /// `NAME=value`, in order; all ENV and ARG in scope.
    pub env: Vec<String>,
    /// An absolute path inside the root filesystem; made if it is missing.
    pub cwd: String,
    /// `user[:group]` by name or number; empty: root.
    pub user: String,
    /// In the order in which they are mounted.
    pub mounts: Vec<Mount>,
    /// Secrets that become environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// The network that the command sees.
    pub network: Network,
    /// How far the command is locked in.
    pub security: Security,
    /// The host name inside; `None`: `buildkitsandbox`, as programs and recorded results expect.
    pub hostname: Option<String>,
    /// `--add-host`: name and address. Names are in the key, addresses are not.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of /dev/shm in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// Proxy variables, added to the environment (not in the key).
    pub proxy_env: Vec<String>,
    /// Resource limits (not in the key).
    pub limits: Limits,
    /// What the command runs as, for programs of another architecture.
    pub platform: Platform,
}

/// Something mounted into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// An absolute path inside the root filesystem, never `/`.
    pub target: String,
    /// What is mounted there.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum MountKind {
    /// Files of an input. What is written to a writable one is thrown away.
    Bind {
        /// Which input.
        input: usize,
        /// A path below its root; `/`: all of it.
        source: String,
        /// May the command write (to a private copy)?
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which one; opaque, never a path.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// What it holds when it is new; `None`: nothing.
        input: Option<usize>,
        /// A path below the input's root.
        source: String,
        /// Mode of a new one's root directory.
        mode: Option<u32>,
        /// Owner of a new one's root directory.
        uid: Option<u32>,
        /// Group of a new one's root directory.
        gid: Option<u32>,
        /// May the command only read?
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// In bytes; `None`: no limit of its own.
        size: Option<u64>,
    },
    /// A secret as a file.
    Secret(SecretMount),
    /// An SSH agent's socket.
    Ssh(SecretMount),
}

/// A secret or a socket: who may read it. Its value is never in the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretMount {
    /// The name that the caller gave it.
    pub id: String,
    /// Mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Without it the step fails; otherwise the file is just missing.
    pub required: bool,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretEnv {
    /// The secret's name.
    pub id: String,
    /// The variable's name.
    pub variable: String,
    /// Without it the step fails.
    pub required: bool,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Everybody has one of their own while it is in use.
    Private,
    /// One after the other.
    Locked,
}

/// The network that a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// A private one with a way out.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's; needs `--allow network.host`.
    Host,
}

/// How far a command is locked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Security {
    /// Docker's defaults.
    #[default]
    Sandbox,
    /// All capabilities, no seccomp; needs `--allow security.insecure`.
    Insecure,
}

/// Resource limits of a command. 0 or `None`: not limited.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1: no limit on swap.
    pub memory_swap: Option<i64>,
    /// CPU time per period, both in microseconds.
    pub cpu_quota: Option<(u64, u64)>,
    /// Docker's relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPUs to run on, `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Files that are copied, made and removed, in this order; the result is one layer on the base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileOp {
    /// The input that is changed; `None`: an empty directory.
    pub base: Option<usize>,
    /// What is done.
    pub actions: Vec<FileAction>,
}

/// One thing that a file op does. All paths are absolute, inside the base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileAction {
    /// COPY and ADD.
    Copy(Copy),
    /// Writes a file (a heredoc).
    MakeFile {
        /// Where; a trailing `/` or an existing directory is not looked for: this is the file's path.
        path: String,
        /// Mode bits.
        mode: Mode,
        /// Content.
        data: Vec<u8>,
        /// Owner; `None`: 0:0.
        owner: Option<Owner>,
        /// Modification time in seconds since 1970; `None`: now.
        created: Option<i64>,
    },
    /// Makes a directory with its missing parents; one that exists is left alone, a file in its place is an error.
    MakeDir {
        /// Where.
        path: String,
        /// Mode bits of what is made.
        mode: u32,
        /// Owner of what is made, parents too; `None`: 0:0.
        owner: Option<Owner>,
        /// Modification time in seconds since 1970; `None`: now.
        created: Option<i64>,
    },
    /// Removes a path (LLB; no Dockerfile instruction makes one).
    Remove {
        /// What.
        path: String,
        /// Is it no error if there is none?
        allow_missing: bool,
    },
}

/// COPY and ADD of files that another step or a local directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    /// The input that they come from.
    pub input: usize,
    /// Which.
    pub selection: Selection,
    /// Where to. A trailing `/` means a directory, as does one that exists; anything else is the file's path.
    pub dest: String,
    /// Owner; `None`: 0:0 for a local source, as in the source otherwise.
    pub owner: Option<Owner>,
    /// Mode; `None`: as in the source.
    pub mode: Option<Mode>,
    /// Archives: unpack (ADD) or copy (COPY).
    pub unpack: bool,
    /// `--link`: links and files in the way of the destination are replaced, directories' metadata too.
    pub replace: bool,
    /// Modification time of directories that are made, in seconds since 1970; `None`: now.
    pub created: Option<i64>,
}

/// Which files of a source: what COPY, ADD and bind mounts select. The same rules find the files to hash and those to copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// Paths below the source's root, cleaned, without leading `/`; empty or `.`: the root itself.
    pub paths: Vec<String>,
    /// Are `paths` patterns (Go's `filepath.Match`; with `parents` also `**`)? One that matches nothing is then no error.
    pub wildcards: bool,
    /// `--exclude` patterns, relative to each source directory.
    pub exclude: Vec<String>,
    /// `--parents`: keep the path below the source's root, or below the `/./` in it.
    pub parents: bool,
}

/// `--chown`: user and group as written, names resolved in the base's /etc/passwd and /etc/group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Name or number.
    pub user: String,
    /// Name or number; `None`: the user's own group (names), the user's number (numbers).
    pub group: Option<String>,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Octal: 0 to 0o7777, for files and directories alike.
    Bits(u32),
    /// Symbolic, such as `u=rwX,go=rX`, checked by the frontend with [`crate::mode::parse`].
    Symbolic(String),
}
