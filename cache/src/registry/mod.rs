//! Pull and push: the OCI distribution specification v1.1, over HTTP.
//!
//! # Who does what
//!
//! - The transport is our own, on `reqwest`: [`transport`](self) sends, follows redirects, retries; `auth` answers challenges. The crate
//!   `oci-client` was read for this and has no place for what is needed here: it follows every realm with the user's
//!   credentials, reads documents without a limit, and has neither retries, `Retry-After`, stall timeouts nor identity tokens.
//! - From `oci-client` come the media types, the envelope of error bodies, and, in tests, a second client that must be able to read what we pushed.
//! - `docker_credential` reads credentials out of a `config.json` and runs credential helpers.
//!
//! # Rules that hold everywhere
//!
//! - Bytes are believed only after their digest was computed. Documents have at most [`MAX_DOCUMENT`](crate::document::MAX_DOCUMENT)
//!   bytes, blobs the size of their descriptor.
//! - Credentials belong to one origin (scheme, host, port). A redirect, an upload location or a token service elsewhere does not get them;
//!   a token service does if it is the registry's own by name, by the built-in list or by [`RegistryOptions::token_services`].
//! - Nothing waits for ever: a transfer that does not move for [`Timing::stall`] is begun again where it broke off; attempts
//!   without progress are counted; `Retry-After` is honoured up to a cap.
//! - `urls` of foreign layers are never asked.

mod auth;
mod challenge;
mod credentials;
mod error;
mod policy;
mod pull;
mod push;
#[cfg(test)]
mod real;
mod reference;
mod retry;
mod select;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::platform::Platform;

pub use self::auth::base64;
pub use self::error::RegistryError;
pub use self::reference::{InvalidReference, Reference, Repository};
pub use self::tls::file_client;
use crate::store::{Descriptor, Store};

/// How registries are reached. Nothing here is read from the environment: the command does that.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Docker's `config.json`, for credentials. A file that does not exist counts as empty.
    pub docker_config: Option<PathBuf>,
    /// Hosts (`host[:port]`) whose certificate is not checked and that may speak plain HTTP. Loopback hosts always may.
    pub insecure: BTreeSet<String>,
    /// More certificates to trust, as PEM files.
    pub ca_certificates: Vec<PathBuf>,
    /// Token services that get a registry's credentials though they have another origin: registry host → hosts (`host[:port]`).
    pub token_services: BTreeMap<String, BTreeSet<String>>,
    /// Proxy for `http:`, as `$HTTP_PROXY` has it.
    pub http_proxy: Option<String>,
    /// Proxy for `https:`, as `$HTTPS_PROXY` has it.
    pub https_proxy: Option<String>,
    /// Where no proxy is used, as `$NO_PROXY` has it. Loopback hosts never use one.
    pub no_proxy: Option<String>,
    /// Transfers at once for one registry.
    pub connections: usize,
    /// Waiting.
    pub timing: Timing,
}

/// How long is waited for what.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes; also the time in which at least `min_rate` × `stall` bytes must come.
    pub stall: Duration,
    /// Bytes a second below which a transfer counts as stalled.
    pub min_rate: u64,
    /// For the answer after the last byte of an upload: the registry may move the blob then.
    pub settle: Duration,
    /// Before the second attempt; doubled for each further one, with jitter.
    pub backoff: Duration,
    /// Between attempts, at most.
    pub max_backoff: Duration,
    /// Attempts without progress, at most.
    pub attempts: u32,
    /// All attempts together without progress, at most.
    pub patience: Duration,
    /// `Retry-After`, at most.
    pub max_retry_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            min_rate: 4096,
            settle: Duration::from_secs(120),
            backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(5),
            attempts: 10,
            patience: Duration::from_secs(100),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            docker_config: None,
            insecure: BTreeSet::new(),
            ca_certificates: Vec::new(),
            token_services: BTreeMap::new(),
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            connections: 4,
            timing: Timing::default(),
        }
    }
}

/// A client of all registries. Cheap to clone; clones share connections, tokens and what is known about uploaded blobs.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    transport: transport::Transport,
    /// One lock for each blob that is on its way.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Blobs that are known to be in a repository.
    sent: Mutex<HashSet<String>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// What a reference stands for.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// As asked for, normalised.
    pub reference: Reference,
    /// The index that the reference names, and its bytes, where it names one.
    pub index: Option<(Descriptor, Vec<u8>)>,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// Its bytes.
    pub manifest_raw: Vec<u8>,
    /// The bytes of the image configuration.
    pub config_raw: Vec<u8>,
    /// The image configuration.
    pub config: ImageConfig,
    /// The layers as the manifest lists them, lowest first; as many as the configuration has diff IDs.
    pub layers: Vec<Descriptor>,
}

/// An image whose documents are in the store. Its layers may still have to be fetched.
#[derive(Debug, Clone)]
pub struct PulledImage {
    /// As asked for, normalised.
    pub reference: Reference,
    /// The index that the reference names, if it names one. It is in the store, too.
    pub index: Option<Descriptor>,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// The image configuration.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Registry {
    /// A client. Opens no connection and reads no file.
    ///
    /// # Errors
    /// [`RegistryError::Options`] if a proxy is none that can be used.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Self::with_clock(options, retry::Clock::default())
    }

    fn with_clock(options: RegistryOptions, clock: retry::Clock) -> Result<Self, RegistryError> {
        tls::proxies(&options)?;
        let transport = transport::Transport::new(options, clock);
        Ok(Self { inner: Arc::new(Inner { transport, locks: Mutex::default(), sent: Mutex::default() }) })
    }

    /// Asks for what the reference names, for this platform; changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Denied`], [`RegistryError::Platform`] (which lists what there is), [`RegistryError::LayerCount`],
    /// and whatever can go wrong on the way.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        self.resolve_in(None, reference, platform).await
    }

    /// Puts index, manifest and configuration into the store, and remembers for the manifest where its layers are.
    /// Nothing is transferred that is there already; for a reference with a digest that is there, the registry is not even asked.
    /// The store is not told the name: who wants that calls [`Store::tag`] after [`fetch_layers`](Self::fetch_layers).
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and [`RegistryError::Store`].
    pub async fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        _task: &Task,
    ) -> Result<PulledImage, RegistryError> {
        self.pull_into(store, reference, platform).await
    }

    /// Fetches the layers of a manifest of the store that are not there, from where the manifest was pulled.
    /// Progress is reported for each layer, by its digest.
    ///
    /// # Errors
    /// [`RegistryError::MissingBlob`] if a layer is missing and it is not known where it comes from.
    pub async fn fetch_layers(
        &self,
        store: &Store,
        manifest: Digest,
        task: &Task,
    ) -> Result<(), RegistryError> {
        self.fetch_layers_of(store, manifest, task).await
    }

    /// Fetches one blob, unless it is there. Two callers at once do it once.
    ///
    /// # Errors
    /// [`RegistryError::Digest`] and [`RegistryError::Size`] if other bytes come than the descriptor names: nothing is stored.
    pub async fn fetch_blob(
        &self,
        store: &Store,
        repository: &Repository,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), RegistryError> {
        self.fetch_one(store, repository, blob, task).await
    }

    /// Sends one blob, unless the registry has it: mounted from one of `mount_from` where that is possible, else out of the store, else
    /// fetched from one of `mount_from` first. May be called for the same blob any number of times: what is known to be there is not asked for again.
    ///
    /// # Errors
    /// [`RegistryError::MissingBlob`] if the blob is nowhere.
    pub async fn push_blob(
        &self,
        store: &Store,
        target: &Repository,
        blob: &Descriptor,
        mount_from: &[Repository],
        task: &Task,
    ) -> Result<(), RegistryError> {
        self.push_one(store, target, blob, mount_from, task).await
    }

    /// Sends a manifest or index of the store with everything that it needs and is not there yet, then gives it the reference's tag
    /// (none if the reference has only a digest). `mount_from`: as for [`push_blob`](Self::push_blob).
    ///
    /// # Errors
    /// As [`push_blob`](Self::push_blob).
    pub async fn push(
        &self,
        store: &Store,
        target: &Reference,
        image: &Descriptor,
        mount_from: &[Repository],
        task: &Task,
    ) -> Result<(), RegistryError> {
        self.push_image(store, target, image, mount_from, task).await
    }
}
