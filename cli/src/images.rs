//! What is done with images that exist: load, save, pull, push, tag, list, remove, look into.

use std::io::{Read, Write};

use bricklayer_cache::store::{Descriptor, NamedImage};
use bricklayer_solver::event::Reporter;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::{Digest, Platform};

use crate::builder::Builder;
use crate::error::Error;

/// An image, as `inspect` and `history` show it.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// Names that lead to it.
    pub names: Vec<String>,
    /// The manifest.
    pub descriptor: Descriptor,
    /// The config's digest: Docker's image ID.
    pub config_digest: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
    /// Bytes of all blobs.
    pub size: u64,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar.
    Oci,
    /// What `docker load` takes.
    Docker,
}

#[expect(clippy::unused_async, unused_variables, reason = "bodies follow")]
impl Builder {
    /// Reads an OCI or Docker archive (maybe compressed) into the store; returns the names it had.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        reporter: Reporter,
    ) -> Result<Vec<NamedImage>, Error> {
        Err(Error::new("load is not there yet"))
    }

    /// Writes images of the store as an archive.
    pub async fn save(
        &self,
        names: &[String],
        format: ArchiveFormat,
        out: impl Write + Send + 'static,
    ) -> Result<(), Error> {
        Err(Error::new("save is not there yet"))
    }

    /// Fetches an image from its registry into the store, under its name.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<Platform>,
        reporter: Reporter,
    ) -> Result<NamedImage, Error> {
        Err(Error::new("pull is not there yet"))
    }

    /// Sends an image of the store to the registry that its name says.
    pub async fn push(&self, reference: &str, reporter: Reporter) -> Result<Descriptor, Error> {
        Err(Error::new("push is not there yet"))
    }

    /// Gives an image another name.
    pub async fn tag(&self, source: &str, name: &str) -> Result<NamedImage, Error> {
        Err(Error::new("tag is not there yet"))
    }

    /// The named images of the store.
    pub async fn images(&self) -> Result<Vec<ImageDetails>, Error> {
        Err(Error::new("images is not there yet"))
    }

    /// Takes a name away; the image goes when nothing needs it any more.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        Err(Error::new("rmi is not there yet"))
    }

    /// One image, by name or by (the beginning of) its ID.
    pub async fn inspect(&self, name: &str, platform: Option<Platform>) -> Result<ImageDetails, Error> {
        Err(Error::new("inspect is not there yet"))
    }
}
