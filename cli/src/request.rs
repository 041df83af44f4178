//! What a build is asked for: plain data, filled by the command from its flags or by a program directly.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bricklayer_cache::store::Compression;
use bricklayer_frontend::Entitlement;
use bricklayer_solver::Platform;
use bricklayer_solver::op::{Limits, Network};
use bricklayer_worker::OnFailure;

use crate::Error;
use crate::key_agent::KeyAgent;

/// One build: a Dockerfile, a context, and where the result goes.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Where COPY and ADD find files.
    pub context: Context,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Further contexts by name (`--build-context`); they replace stages and images of that name.
    pub contexts: Vec<(String, NamedContextSource)>,
    /// Names for the image: `app`, `registry.example/app:1.2`.
    pub tags: Vec<String>,
    /// The stage to build; `None`: the last one.
    pub target: Option<String>,
    /// Build args in order; `None` as value: declared, and unset.
    pub build_args: Vec<(String, Option<String>)>,
    /// Labels for the image's config, applied last.
    pub labels: Vec<(String, String)>,
    /// What to build for; `None`: what this program runs on.
    pub platform: Option<Platform>,
    /// Run every step, whatever the records say.
    pub no_cache: bool,
    /// Run every step of these stages.
    pub no_cache_filter: Vec<String>,
    /// When to ask a registry about a base image.
    pub pull: PullPolicy,
    /// Where results go; empty: the image goes into the store.
    pub outputs: Vec<Output>,
    /// Secrets that RUN may mount.
    pub secrets: Vec<Secret>,
    /// SSH agents that RUN may mount; the one called `default` also opens repositories.
    pub ssh: Vec<SshAgent>,
    /// Files with the keys of SSH hosts that repositories may come from (`~/.ssh/known_hosts`). A host that is in none of
    /// them is believed, with a warning; one with another key is refused.
    pub known_hosts: Vec<PathBuf>,
    /// What RUNs may do beyond the sandbox.
    pub entitlements: Vec<Entitlement>,
    /// The network of RUNs that do not say.
    pub network: Network,
    /// Lines for /etc/hosts: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of /dev/shm in bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// The cgroup below which RUNs get theirs.
    pub cgroup_parent: Option<String>,
    /// Limits for each RUN.
    pub limits: Limits,
    /// An OCI runtime (an absolute path) that RUNs run under; `None`: our own sandbox.
    pub oci_runtime: Option<PathBuf>,
    /// What is done when a RUN has failed, before its files are put away (see [`Builder::debug`](crate::Builder::debug)); other
    /// steps go on meanwhile.
    pub on_failure: Option<OnFailure>,
    /// SOURCE_DATE_EPOCH, in seconds since 1970: nothing in the image is newer.
    pub source_date_epoch: Option<i64>,
    /// `HTTP_PROXY` and the like, for RUN and for downloads; never in keys or history.
    pub proxy: Vec<(String, String)>,
    /// RUN steps at the same time; `None`: as many as there are cores.
    pub jobs: Option<usize>,
    /// Where the graph is written, with state and time of each step; also when a step failed.
    pub graph: Vec<GraphFile>,
    /// Where it is written what the build's time was spent on; also when it failed.
    pub timing: Vec<TimingFile>,
    /// The store is kept below so many bytes while the build goes on and at its end, the least recently used first.
    /// What named images need or a build that runs uses stays all the same.
    pub cache_limit: Option<u64>,
}

/// A file for the graph of a build; it appears complete or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphFile {
    /// Where.
    pub path: PathBuf,
    /// In which form.
    pub form: GraphForm,
}

/// Forms of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphForm {
    /// Graphviz' language.
    Dot,
    /// A document for programs.
    Json,
    /// A picture.
    Svg,
}

/// A file that says what a build's time was spent on; it appears complete or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimingFile {
    /// Where.
    pub path: PathBuf,
    /// In which form.
    pub form: TimingForm,
}

/// Forms of a timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimingForm {
    /// A page, complete in itself.
    Html,
    /// A trace in Chrome's Trace Event Format.
    Trace,
}

/// Where COPY and ADD find files.
#[derive(Debug, Clone, Default)]
pub enum Context {
    /// A directory without files.
    #[default]
    Empty,
    /// A directory, read where it lies.
    Directory(PathBuf),
    /// A tar archive, maybe compressed.
    Tar(Reader),
    /// A git repository or an http(s) URL.
    Remote(String),
}

/// The Dockerfile.
#[derive(Debug, Clone, Default)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    #[default]
    InContext,
    /// A path below the context's root, for contexts that are not directories.
    PathInContext(String),
    /// A file; it may lie outside the context.
    File(PathBuf),
    /// The text itself.
    Text(String),
    /// A file over HTTP.
    Url(String),
}

/// A `--build-context`.
#[derive(Debug, Clone)]
pub enum NamedContextSource {
    /// A directory.
    Directory(PathBuf),
    /// An image: `docker-image://REF` (the reference alone here).
    Image(String),
    /// An OCI layout: `oci-layout://PATH[:tag|@digest]` (the path here).
    Layout(String),
    /// A git repository or an http(s) URL.
    Remote(String),
}

/// When to ask a registry about a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// When the store does not have it.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never: what the store does not have is an error.
    Never,
}

/// A secret's name and value.
#[derive(Clone)]
pub struct Secret {
    /// What `--mount=type=secret,id=…` names.
    pub id: String,
    /// The value; never in keys, records, logs or errors.
    pub value: Vec<u8>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An SSH agent that RUN may use.
#[derive(Debug, Clone)]
pub struct SshAgent {
    /// What `--mount=type=ssh,id=…` names; `default` by default.
    pub id: String,
    /// The agent's socket.
    pub socket: PathBuf,
    /// An agent of our own, which ends with the last copy of this.
    _agent: Option<Arc<KeyAgent>>,
}

impl SshAgent {
    /// An agent that runs already.
    pub fn at(id: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        Self { id: id.into(), socket: socket.into(), _agent: None }
    }

    /// Private keys in files. An agent is started for them (OpenSSH's, which has to be installed), and ends with this.
    ///
    /// # Errors
    ///
    /// Files that are no private keys, and encrypted ones.
    pub fn with_keys(id: impl Into<String>, files: &[PathBuf]) -> Result<Self, Error> {
        let agent = KeyAgent::start(files)?;
        Ok(Self { id: id.into(), socket: agent.socket(), _agent: Some(Arc::new(agent)) })
    }
}

/// Where a result goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// The image, under all names of the request, into the store.
    Image(ImageOutput),
    /// An OCI image layout.
    Oci {
        /// A tar file, or a directory.
        dest: Dest,
        /// How it is packed.
        options: ImageOptions,
    },
    /// A Docker archive, as `docker load` takes it.
    Docker {
        /// A tar file.
        dest: Dest,
        /// How it is packed.
        options: ImageOptions,
    },
    /// The root filesystem as one tar.
    Tar {
        /// A tar file.
        dest: Dest,
    },
    /// The root filesystem as files.
    Local {
        /// A directory, made if it is missing; what is in it stays unless the build has a file of that name.
        dest: PathBuf,
    },
}

/// The image into the store, and maybe to registries.
#[derive(Debug, Clone, Default)]
pub struct ImageOutput {
    /// Names; empty: the request's tags.
    pub names: Vec<String>,
    /// Push each name to its registry.
    pub push: bool,
    /// Give it the names in the store (a push by digest alone does not).
    pub store: bool,
    /// How it is packed.
    pub options: ImageOptions,
}

/// How an image is packed.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// How layers are compressed.
    pub compression: Compression,
    /// Compress layers of the base image anew, too.
    pub force_compression: bool,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
    /// Annotations of the manifest.
    pub annotations: Vec<(String, String)>,
}

/// Where bytes go.
#[derive(Clone)]
pub enum Dest {
    /// A file; it appears complete or not at all.
    File(PathBuf),
    /// A directory (OCI layouts only).
    Directory(PathBuf),
    /// The caller's writer (standard output, say).
    Writer(Arc<Mutex<dyn Write + Send>>),
}

impl fmt::Debug for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// The caller's reader (standard input, say).
#[derive(Clone)]
pub struct Reader(pub Arc<Mutex<dyn std::io::Read + Send>>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}
