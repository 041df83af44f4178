//! What one build tells the worker: directories, secrets, agents, what is allowed.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bricklayer_solver::op::{GitSource, HttpSource, ImageSource};

use crate::source::http::Download;
use crate::source::ssh::Ssh;

/// What branches and URLs turned out to be. Workers that share them see the same commits and files, also if the server
/// moves on meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<Known>);

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) downloads: Mutex<HashMap<HttpSource, Download>>,
    pub(crate) commits: Mutex<HashMap<GitSource, String>>,
    /// Keys of SSH hosts.
    pub(crate) hosts: Mutex<Option<Arc<Ssh>>>,
}

impl Pins {
    pub(crate) fn known(&self) -> &Known {
        &self.0
    }
}

/// What the worker may use for one build. Nothing of it is ever in a key.
#[derive(Clone, Default)]
pub struct WorkerSettings {
    /// Local directories, by the name that `Source::Local` has for them.
    pub locals: HashMap<String, PathBuf>,
    /// The images that the graph stands on: their layers are fetched again if the store lost them.
    pub images: Vec<ImageSource>,
    /// Secrets, by id.
    pub secrets: HashMap<String, Vec<u8>>,
    /// Sockets of SSH agents, by id.
    pub ssh: HashMap<String, PathBuf>,
    /// Files with the keys of SSH hosts that repositories may come from; those that are missing hold none.
    pub known_hosts: Vec<PathBuf>,
    /// `network.host` is allowed.
    pub allow_host_network: bool,
    /// `security.insecure` is allowed.
    pub allow_insecure: bool,
    /// An OCI runtime (absolute) that runs commands; `None`: our own sandbox.
    pub oci_runtime: Option<PathBuf>,
    /// What is done when a RUN has failed.
    pub on_failure: Option<crate::steps::OnFailure>,
    /// The build that a record is kept of, by its ID: what its failed RUNs left is kept under it. `None`: that goes.
    pub record: Option<String>,
    /// Proxy variables for downloads and for git (RUN gets its own with the op).
    pub proxy: Vec<(String, String)>,
    /// Files made by the build are not newer than this (seconds since 1970).
    pub source_date_epoch: Option<i64>,
    /// Shared by the workers of one build.
    pub pins: Pins,
}

impl fmt::Debug for WorkerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSettings")
            .field("locals", &self.locals)
            .field("secrets", &self.secrets.keys())
            .field("ssh", &self.ssh)
            .field("allow_host_network", &self.allow_host_network)
            .field("allow_insecure", &self.allow_insecure)
            .finish_non_exhaustive()
    }
}
