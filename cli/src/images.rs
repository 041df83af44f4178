//! What is done with images that exist: load, save, pull, push, tag, list, remove, look into.

use std::io::{Read, Write};

use bricklayer_cache::archive;
use bricklayer_cache::registry::Reference;
use bricklayer_cache::store::{Descriptor, NamedImage, Store, StoreError};
use bricklayer_solver::event::{Outcome, Reporter, Task, TaskInfo, TaskKind};
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::{Digest, Platform};
use serde::Deserialize;

use crate::build::Builder;
use crate::error::Error;

/// A manifest, index or config in bytes, at the most.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// An image, as `inspect` and `history` show it.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// Names that lead to it.
    pub names: Vec<String>,
    /// What the names lead to: a manifest or an index.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Descriptor,
    /// The config's digest: Docker's image ID.
    pub config_digest: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
    /// Bytes of config, manifest and all layers, as they are stored.
    pub size: u64,
    /// When it got its name, in milliseconds since 1970.
    pub created_ms: i64,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar.
    Oci,
    /// What `docker load` takes.
    Docker,
}

/// The parts of an image of one platform.
#[derive(Debug, Clone)]
pub(crate) struct ImageParts {
    pub(crate) manifest: Descriptor,
    pub(crate) config_descriptor: Descriptor,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Descriptor>,
}

/// What is needed of a manifest or index (OCI image-spec `manifest.md`, `image-index.md`).
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<IndexEntry>>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<Platform>,
}

/// Follows a manifest or index to the image for `platform` (any, if there is only one and none was asked for).
/// `None`: nothing for that platform.
pub(crate) fn image_parts(
    store: &Store,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Option<ImageParts>, Error> {
    let mut manifest = descriptor.clone();
    // an index may name an index; nothing real nests deeper
    for _ in 0..3 {
        let document: Document = read_json(store, &manifest)?;
        if let Some(entries) = document.manifests {
            let normal = |p: &Platform| Platform::new(&p.os, &p.architecture, &p.variant);
            let wanted = platform.map(normal);
            let host = Platform::host();
            let chosen = entries
                .iter()
                .find(|e| e.platform.as_ref().map(normal).as_ref() == Some(wanted.as_ref().unwrap_or(&host)))
                .or_else(|| entries.iter().find(|e| e.platform.is_none()))
                .or_else(|| entries.first().filter(|_| platform.is_none()));
            let Some(entry) = chosen else { return Ok(None) };
            manifest = entry.descriptor.clone();
            continue;
        }
        let Some(config_descriptor) = document.config else { return Ok(None) };
        let config: ImageConfig = read_json(store, &config_descriptor)?;
        // a config without a platform is for every one, as `FROM scratch` images of old builders are
        let differs = |wanted: &Platform| {
            !config.architecture.is_empty()
                && Platform::new(&wanted.os, &wanted.architecture, &wanted.variant) != {
                    let mut own = config.platform();
                    own.os_version.clear();
                    own
                }
        };
        if descriptor.digest == manifest.digest && platform.is_some_and(differs) {
            return Ok(None);
        }
        let layers = document.layers.unwrap_or_default();
        return Ok(Some(ImageParts { manifest, config_descriptor, config, layers }));
    }
    Ok(None)
}

fn read_json<T: for<'de> Deserialize<'de>>(store: &Store, descriptor: &Descriptor) -> Result<T, Error> {
    let failed = || format!("cannot read the document {}", descriptor.digest);
    let bytes =
        store.read_blob(descriptor.digest, DOCUMENT_LIMIT).map_err(|e| Error::because(failed(), e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::because(failed(), e))
}

impl Builder {
    /// Reads an OCI or Docker archive (maybe compressed) into the store; returns the images by name.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        reporter: Reporter,
    ) -> Result<Vec<NamedImage>, Error> {
        let task = export_task(&reporter, "loading an archive");
        let store = self.store.clone();
        let result = self
            .blocking(move || {
                let loaded = archive::load(&store, archive)
                    .map_err(|e| Error::because("cannot read the archive", e))?;
                let mut named = Vec::new();
                for image in loaded {
                    for name in &image.names {
                        named.push(tag(&store, &name.to_string(), &image.descriptor)?);
                    }
                    if image.names.is_empty() {
                        named.push(NamedImage {
                            name: String::new(),
                            descriptor: image.descriptor.clone(),
                            created_ms: 0,
                        });
                    }
                }
                store.sync().map_err(|e| Error::because("cannot sync the store", e))?;
                Ok(named)
            })
            .await;
        end(&task, result)
    }

    /// Writes images of the store as an archive.
    pub async fn save(
        &self,
        names: &[String],
        format: ArchiveFormat,
        mut out: impl Write + Send + 'static,
    ) -> Result<(), Error> {
        let mut images = Vec::new();
        for name in names {
            let image = self.find(name)?;
            images.push((name.parse::<Reference>().ok(), image.descriptor));
        }
        let store = self.store.clone();
        self.blocking(move || {
            for (_, descriptor) in &images {
                let missing = archive::missing_blobs(&store, descriptor)
                    .map_err(|e| Error::because("cannot look through the image", e))?;
                if let Some(blob) = missing.first() {
                    return Err(Error::new(format!("layer {} was never fetched", blob.digest))
                        .with_hint("pull the image first"));
                }
            }
            match format {
                ArchiveFormat::Oci => archive::save_oci(&store, &images, &mut out),
                ArchiveFormat::Docker => archive::save_docker(&store, &images, &mut out),
            }
            .map_err(|e| Error::because("cannot save the images", e))?;
            out.flush().map_err(|e| Error::because("cannot save the images", e))
        })
        .await
    }

    /// Fetches an image from its registry into the store, under its name.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<Platform>,
        reporter: Reporter,
    ) -> Result<NamedImage, Error> {
        let name = parse(reference)?;
        let task = export_task(&reporter, &format!("pulling {name}"));
        let pull = async {
            let platform = platform.unwrap_or_else(Platform::host);
            let failed = |e| Error::because(format!("cannot pull {name}"), e);
            let pulled = self.registry.pull(&self.store, &name, &platform, &task).await.map_err(failed)?;
            self.registry
                .fetch_layers(&self.store, pulled.manifest.digest, &task)
                .await
                .map_err(|e| Error::because(format!("cannot pull {name}"), e))?;
            let image = tag(&self.store, &pulled.reference.to_string(), &pulled.manifest)?;
            self.sync().await?;
            Ok(image)
        };
        let result = pull.await;
        end(&task, result)
    }

    /// Sends an image of the store to the registry that its name says.
    pub async fn push(&self, reference: &str, reporter: Reporter) -> Result<Descriptor, Error> {
        let name = parse(reference)?;
        let image = self.find(reference)?;
        let task = export_task(&reporter, &format!("pushing {name}"));
        let result = self
            .registry
            .push(&self.store, &name, &image.descriptor, &[], &task)
            .await
            .map_err(|e| Error::because(format!("cannot push {name}"), e))
            .map(|()| image.descriptor);
        end(&task, result)
    }

    /// Gives an image another name.
    pub async fn tag(&self, source: &str, name: &str) -> Result<NamedImage, Error> {
        let target = parse(name)?;
        let image = self.find(source)?;
        let named = tag(&self.store, &target.to_string(), &image.descriptor)?;
        self.sync().await?;
        Ok(named)
    }

    /// The named images of the store, each with all its names, newest first.
    pub async fn images(&self) -> Result<Vec<ImageDetails>, Error> {
        let mut details: Vec<ImageDetails> = Vec::new();
        for image in self.all()? {
            match details.iter_mut().find(|d| d.descriptor.digest == image.descriptor.digest) {
                Some(known) => known.names.push(image.name),
                None => details.push(self.details(image, None)?),
            }
        }
        details.sort_by_key(|d| std::cmp::Reverse(d.created_ms));
        Ok(details)
    }

    /// Takes a name away; the image goes when nothing needs it any more.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let image = self.find(name)?;
        self.store
            .untag(&image.name)
            .map_err(|e| Error::because(format!("cannot remove the name {}", image.name), e))?;
        self.sync().await
    }

    /// One image, by name or by (the beginning of) its ID.
    pub async fn inspect(&self, name: &str, platform: Option<Platform>) -> Result<ImageDetails, Error> {
        let image = self.find(name)?;
        let same = image.descriptor.digest;
        let mut details = self.details(image, platform.as_ref())?;
        details.names =
            self.all()?.into_iter().filter(|i| i.descriptor.digest == same).map(|image| image.name).collect();
        Ok(details)
    }

    /// An image of the store by name, by manifest digest, or by at least four hex digits of its ID.
    pub(crate) fn find(&self, name: &str) -> Result<NamedImage, Error> {
        let failed = |e: StoreError| Error::because(format!("cannot look up {name}"), e);
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(image) = self.store.image(&reference.to_string()).map_err(failed)?
        {
            return Ok(image);
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found: Vec<NamedImage> = Vec::new();
            for image in self.all()? {
                let parts = image_parts(&self.store, &image.descriptor, None)?;
                let matches = |digest: Digest| digest.hex().starts_with(&hex.to_ascii_lowercase());
                let hit = matches(image.descriptor.digest)
                    || parts.is_some_and(|p| matches(p.config_descriptor.digest));
                if hit && !found.iter().any(|f| f.descriptor.digest == image.descriptor.digest) {
                    found.push(image);
                }
            }
            match found.len() {
                0 => {}
                1 => return Ok(found.remove(0)),
                n => return Err(Error::new(format!("`{name}` is the beginning of {n} image IDs"))),
            }
        }
        let familiar =
            |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |r| r.familiar());
        let names: Vec<String> = self.all()?.iter().map(|image| familiar(&image.name)).collect();
        let error = Error::new(format!("no image `{name}` in the store"));
        let near = bricklayer_frontend::nearest(name, names.iter().map(String::as_str));
        Err(match near {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint("`bricklayer images` lists what is there, `bricklayer pull` fetches"),
        })
    }

    fn all(&self) -> Result<Vec<NamedImage>, Error> {
        self.store.images().map_err(|e| Error::because("cannot list the images", e))
    }

    fn details(&self, image: NamedImage, platform: Option<&Platform>) -> Result<ImageDetails, Error> {
        let parts = image_parts(&self.store, &image.descriptor, platform)?
            .ok_or_else(|| Error::new(format!("{} has no image for that platform", image.name)))?;
        let layers_size: u64 = parts.layers.iter().map(|l| l.size).sum();
        Ok(ImageDetails {
            size: layers_size + parts.manifest.size + parts.config_descriptor.size,
            names: vec![image.name],
            descriptor: image.descriptor,
            manifest: parts.manifest,
            config_digest: parts.config_descriptor.digest,
            config: parts.config,
            layers: parts.layers,
            created_ms: image.created_ms,
        })
    }
}

/// Gives an image of the store a (normalised) name.
pub(crate) fn tag(store: &Store, name: &str, descriptor: &Descriptor) -> Result<NamedImage, Error> {
    store.tag(name, descriptor).map_err(|e| Error::because(format!("cannot name the image {name}"), e))?;
    let created_ms = jiff::Timestamp::now().as_millisecond();
    Ok(NamedImage { name: name.to_owned(), descriptor: descriptor.clone(), created_ms })
}

/// A name for an image.
pub(crate) fn parse(name: &str) -> Result<Reference, Error> {
    name.parse::<Reference>().map_err(|e| Error::because(format!("`{name}` is not an image name"), e))
}

/// A task for something that leaves or enters the store.
pub(crate) fn export_task(reporter: &Reporter, name: &str) -> Task {
    let task = reporter.task(TaskInfo {
        name: name.to_owned(),
        kind: TaskKind::Export,
        vertex: None,
        location: None,
    });
    task.start();
    task
}

/// Ends a task with a result.
pub(crate) fn end<T>(task: &Task, result: Result<T, Error>) -> Result<T, Error> {
    task.finish(match &result {
        Ok(_) => Outcome::Done,
        Err(Error::Cancelled) => Outcome::Cancelled,
        Err(error) => Outcome::Failed(error.to_string()),
    });
    result
}
