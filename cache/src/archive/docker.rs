//! Docker archives: `manifest.json` lists configurations, names and layers by the names of entries.
//!
//! Layers have no digests there, so an OCI manifest is made for each image. Its configuration stays as it is, and with it the ID that
//! Docker knows the image by.

use std::io::Read;

use bricklayer_solver::Digest;
use bricklayer_solver::image::ImageConfig;
use serde::{Deserialize, Serialize};

use super::load::Contents;
use super::oci::put_json;
use super::{ArchiveError, LoadedImage};
use crate::document::{Document, MAX_DOCUMENT, MAX_ENTRIES, Manifest, clean, media};
use crate::layer::Archive;
use crate::registry::Reference;
use crate::store::{Descriptor, Store};

/// One image of a `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// Name of the configuration's entry.
    pub(super) config: String,
    /// Names of the image.
    pub(super) repo_tags: Option<Vec<String>>,
    /// Names of the layers' entries, lowest first.
    pub(super) layers: Option<Vec<String>>,
}

fn parse(raw: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    serde_json::from_slice(raw)
        .map_err(|error| ArchiveError::Document { what: "manifest.json".to_owned(), source: error.into() })
}

fn names(entry: &Entry) -> Result<Vec<Reference>, ArchiveError> {
    let tags = entry.repo_tags.iter().flatten().filter(|tag| !tag.is_empty() && !tag.contains("<none>"));
    tags.map(|tag| tag.parse::<Reference>().map_err(|error| ArchiveError::Invalid(error.to_string())))
        .collect()
}

/// The images of a `manifest.json`.
pub(super) fn images(
    store: &Store,
    contents: &Contents,
    raw: &[u8],
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let mut images: Vec<LoadedImage> = Vec::new();
    for entry in parse(raw)? {
        let names = names(&entry)?;
        let descriptor = image(store, contents, &entry)?;
        match images.iter_mut().find(|image| image.descriptor == descriptor) {
            Some(image) => image.names.extend(names),
            None => images.push(LoadedImage { names, tag: None, descriptor }),
        }
    }
    Ok(images)
}

/// Gives images without a name those that the `manifest.json` has for their configuration.
pub(super) fn add_names(
    store: &Store,
    contents: &Contents,
    raw: &[u8],
    images: &mut [LoadedImage],
) -> Result<(), ArchiveError> {
    for entry in parse(raw)? {
        let Some((config, _)) = contents.file(&entry.config) else { continue };
        let names = names(&entry)?;
        for image in images.iter_mut().filter(|image| image.names.is_empty()) {
            let (_, document) = super::oci::read_document(store, &image.descriptor)?;
            if matches!(document, Document::Manifest(manifest) if manifest.config.digest == config) {
                image.names.clone_from(&names);
            }
        }
    }
    Ok(())
}

fn image(store: &Store, contents: &Contents, entry: &Entry) -> Result<Descriptor, ArchiveError> {
    let find = |name: &str| {
        contents.file(name).ok_or_else(|| {
            ArchiveError::Invalid(format!("it lacks `{}`, which its manifest.json names", clean(name)))
        })
    };
    let (config_digest, config_size) = find(&entry.config)?;
    let raw =
        store.read_blob(config_digest, MAX_DOCUMENT).map_err(ArchiveError::store(clean(&entry.config)))?;
    let config: ImageConfig = serde_json::from_slice(&raw)
        .map_err(|error| ArchiveError::Document { what: clean(&entry.config), source: error.into() })?;
    let names = entry.layers.as_deref().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if names.len() != diff_ids.len() || names.len() > MAX_ENTRIES {
        return Err(ArchiveError::Invalid(format!(
            "`{}` lists {} layers, but manifest.json {}",
            clean(&entry.config),
            diff_ids.len(),
            names.len()
        )));
    }
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let (digest, size) = find(name)?;
        let media_type = match kind(store, digest)? {
            // the digest of a plain tar is its diff ID; others are checked when they are unpacked
            Archive::Plain if digest != *diff_id => {
                return Err(ArchiveError::Invalid(format!(
                    "layer `{}` is {digest}, but the configuration says {diff_id}",
                    clean(name)
                )));
            }
            Archive::Plain => media::LAYER,
            Archive::Gzip => media::LAYER_GZIP,
            Archive::Zstd => media::LAYER_ZSTD,
            other => {
                let reason = format!(
                    "layer `{}` is compressed with {other:?}, which OCI images cannot have",
                    clean(name)
                );
                return Err(ArchiveError::Invalid(reason));
            }
        };
        layers.push(Descriptor { media_type: media_type.to_owned(), digest, size });
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor { media_type: media::CONFIG.to_owned(), digest: config_digest, size: config_size },
        layers,
        annotations: Default::default(),
    };
    put_json(store, media::MANIFEST, &manifest)
}

/// What a blob is compressed with.
pub(super) fn kind(store: &Store, digest: Digest) -> Result<Archive, ArchiveError> {
    let file = store.open_blob(digest).map_err(ArchiveError::store(digest))?;
    let mut start = Vec::with_capacity(6);
    file.take(6).read_to_end(&mut start).map_err(ArchiveError::io(format!("read blob {digest}")))?;
    Ok(Archive::of_magic(&start))
}
