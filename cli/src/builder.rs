//! The builder: a store, and what is done with it.

use std::path::PathBuf;

use bricklayer_cache::Store;
use bricklayer_cache::store::Descriptor;
use bricklayer_solver::Digest;
use bricklayer_solver::event::Reporter;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::request::BuildRequest;

/// Where a [`Builder`] keeps things and how it reaches others.
#[derive(Debug, Clone, Default)]
pub struct BuilderOptions {
    /// The store's directory; made if it is missing.
    pub root: PathBuf,
    /// Docker's config.json, for credentials; `None`: no credentials.
    pub docker_config: Option<PathBuf>,
    /// Registries (`host[:port]`) that are spoken to over HTTP, or HTTPS without checking the certificate.
    /// Loopback addresses need not be listed.
    pub insecure_registries: Vec<String>,
    /// `HTTPS_PROXY` and the like, for registries.
    pub proxy: Vec<(String, String)>,
}

/// Builds images, and keeps them in a store. Cheap to clone.
#[derive(Clone)]
pub struct Builder {
    store: Store,
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct BuildResult {
    /// The manifest's descriptor, unless only files were asked for.
    pub image: Option<Descriptor>,
    /// The config's digest: Docker's image ID.
    pub config: Option<Digest>,
    /// Normalised names that it got.
    pub names: Vec<String>,
    /// Warnings about the Dockerfile, one text each.
    pub warnings: Vec<String>,
    /// Steps of the graph that were needed.
    pub steps: usize,
    /// How many of them did not have to run.
    pub cached: usize,
}

impl Builder {
    /// Opens the store.
    pub fn open(options: BuilderOptions) -> Result<Self, Error> {
        let store = Store::open(&options.root)
            .map_err(|e| Error::because(format!("cannot open the store `{}`", options.root.display()), e))?;
        Ok(Self { store })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Builds. Ends soon after `cancel`, with [`Error::Cancelled`] and nothing left behind.
    pub async fn build(
        &self,
        _request: BuildRequest,
        _reporter: Reporter,
        _cancel: CancellationToken,
    ) -> Result<BuildResult, Error> {
        Err(Error::new("building is not there yet").with_hint("wait"))
    }
}
