//! What goes in and comes out of [`lower`](crate::lower): the caller's options, what the frontend asks outside, and the result.

use bricklayer_solver::graph::{Graph, VertexId};
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::{Digest, Platform};

use crate::diagnostics::Diagnostic;

/// What the frontend must ask outside.
pub trait Resolver {
    /// The configs of images, all at once so that they can be fetched side by side; one answer a query, in order.
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>>;
}

/// An image that the Dockerfile names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageQuery {
    /// The reference as written, variables expanded.
    pub reference: String,
    /// What it is wanted for.
    pub platform: Platform,
    /// Where: a registry or the store, or an OCI layout directory.
    pub origin: ImageOrigin,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageOrigin {
    /// The store, or else a registry.
    Registry,
    /// `oci-layout://PATH[:tag|@digest]`; the path as given.
    Layout(String),
}

/// An image that was found: its manifest and config are in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// Normalised: `docker.io/library/debian:12`.
    pub reference: String,
    /// The manifest, of one platform.
    pub manifest: Digest,
    /// The config.
    pub config: ImageConfig,
}

/// Why something could not be found.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// What was tried, and on what.
    pub message: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory; the worker knows it under this name. With the patterns of its own `.dockerignore`.
    Local {
        /// The name that the worker was told it under.
        name: String,
        /// Patterns, in order.
        ignore: Vec<String>,
    },
    /// An image: `docker-image://REF`.
    Image(String),
    /// An OCI layout: `oci-layout://PATH[:tag|@digest]`.
    Layout(String),
    /// A git repository or an http(s) URL, as BuildKit takes them.
    Remote(String),
}

/// The steps that bring a context from elsewhere.
#[derive(Debug, Clone)]
pub struct RemoteContext {
    /// The steps.
    pub graph: bricklayer_solver::graph::Graph,
    /// The one that fetches: the checkout, or one file.
    pub source: bricklayer_solver::graph::VertexId,
    /// The one that yields the context's files; for a file that is an archive, what is in it.
    pub files: bricklayer_solver::graph::VertexId,
    /// The name of the file that was fetched over HTTP; `None`: it is a checkout.
    pub file: Option<String>,
}

/// What the caller wants.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Dockerfile's name, for people.
    pub dockerfile: String,
    /// `--target`; `None`: the last stage.
    pub target: Option<String>,
    /// `--build-arg`, in order. `None`: named without a value, so it is unset.
    pub build_args: Vec<(String, Option<String>)>,
    /// `--label`, applied last.
    pub labels: Vec<(String, String)>,
    /// What to build for.
    pub platform: Platform,
    /// What runs the build.
    pub build_platform: Platform,
    /// `--build-context`, by name as given.
    pub contexts: Vec<(String, NamedContext)>,
    /// The main context's `.dockerignore` patterns; `None`: the context is not a local directory but a remote.
    pub ignore: Vec<String>,
    /// Where the main context comes from, if not from a local directory.
    pub remote_context: Option<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages.
    pub no_cache_filter: Vec<String>,
    /// `--network`: for RUNs that do not say.
    pub network: bricklayer_solver::op::Network,
    /// `--allow`.
    pub entitlements: Vec<Entitlement>,
    /// `--add-host`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// Limits for every RUN.
    pub limits: bricklayer_solver::op::Limits,
    /// SOURCE_DATE_EPOCH, seconds since 1970: from `--build-arg` or else the environment.
    pub source_date_epoch: Option<i64>,
    /// Now, RFC 3339: what `created` fields say (the frontend has no clock).
    pub now: String,
}

/// What a RUN may do only if the caller allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    /// `network.host`.
    NetworkHost,
    /// `security.insecure`.
    SecurityInsecure,
}

/// A lowered Dockerfile.
#[derive(Debug, Clone)]
pub struct Build {
    /// The steps that the target needs.
    pub graph: Graph,
    /// The step whose output is the image's root filesystem; `None`: an empty image.
    pub root: Option<VertexId>,
    /// The image's config, without `rootfs`: with history, whose entries that are not `empty_layer` match the layers of the root's
    /// output one to one.
    pub config: ImageConfig,
    /// The base image that the target stage stands on, if any (for annotations).
    pub base: Option<ResolvedImage>,
}

/// What [`lower`](crate::lower()) makes of a Dockerfile.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The build.
    pub build: Build,
    /// What people should know, in the order of the file: broken rules and values that nothing uses.
    pub warnings: Vec<Diagnostic>,
    /// SOURCE_DATE_EPOCH as the build uses it: [`Options::source_date_epoch`], or else an `ARG` before the first `FROM`.
    pub source_date_epoch: Option<i64>,
}
