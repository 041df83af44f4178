//! Is an image what it says? For tests, and for whoever doubts.

use std::io::Read;

use bricklayer_solver::Digest;
use sha2::Digest as _;

use super::oci::{read_config, read_document};
use super::save::copy;
use super::{ArchiveError, docker};
use crate::document::{Document, Manifest, media};
use crate::layer::Archive;
use crate::layer::compression::decoder;
use crate::store::{Descriptor, Store};

/// Checks an image of the store wholly: every blob is there and has its digest and size, the media types fit, the layers unpack to
/// their diff IDs, and the history fits the layers.
///
/// # Errors
/// [`ArchiveError::Image`], [`ArchiveError::MissingBlob`] or [`ArchiveError::Document`], whatever is wrong first.
pub fn validate_image(store: &Store, image: &Descriptor) -> Result<(), ArchiveError> {
    validate(store, image, 0)
}

fn validate(store: &Store, image: &Descriptor, depth: u32) -> Result<(), ArchiveError> {
    let what = image.digest;
    if !store.has_blob(what) {
        return Err(ArchiveError::MissingBlob { what: what.to_string(), digest: what });
    }
    match read_document(store, image)?.1 {
        Document::Index(_) if depth > 4 => {
            Err(ArchiveError::Image { what, reason: "its indexes are nested too deeply".to_owned() })
        }
        Document::Index(index) => {
            index.manifests.iter().try_for_each(|entry| validate(store, &entry.descriptor, depth + 1))
        }
        Document::Manifest(manifest) => validate_manifest(store, what, &manifest),
    }
}

fn validate_manifest(store: &Store, what: Digest, manifest: &Manifest) -> Result<(), ArchiveError> {
    let invalid = |reason: String| ArchiveError::Image { what, reason };
    for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
        if !store.has_blob(blob.digest) {
            return Err(ArchiveError::MissingBlob { what: what.to_string(), digest: blob.digest });
        }
        let file = store.open_blob(blob.digest).map_err(ArchiveError::store(blob.digest))?;
        let (actual, size) = hash(file, blob.digest)?;
        if (actual, size) != (blob.digest, blob.size) {
            return Err(invalid(format!(
                "blob {} of {} bytes is {actual} of {size} bytes",
                blob.digest, blob.size
            )));
        }
    }
    if !manifest.is_image() {
        return Ok(());
    }
    let config = read_config(store, what, manifest)?;
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let kind = docker::kind(store, layer.digest)?;
        let fits = match layer.media_type.as_str() {
            media::LAYER | media::DOCKER_LAYER => kind == Archive::Plain,
            media::LAYER_GZIP | media::DOCKER_LAYER_GZIP => kind == Archive::Gzip,
            media::LAYER_ZSTD | media::DOCKER_LAYER_ZSTD => kind == Archive::Zstd,
            _ => false,
        };
        if !fits {
            return Err(invalid(format!("layer {} is not a `{}`", layer.digest, layer.media_type)));
        }
        let file = store.open_blob(layer.digest).map_err(ArchiveError::store(layer.digest))?;
        let (_, stream) =
            decoder(file).map_err(ArchiveError::io(format!("unpack layer {}", layer.digest)))?;
        let (actual, _) = hash(stream, layer.digest)?;
        if actual != *diff_id {
            return Err(invalid(format!(
                "layer {} has diff ID {actual}, but its configuration says {diff_id}",
                layer.digest
            )));
        }
    }
    let entries = config.history.iter().filter(|entry| !entry.empty_layer).count();
    if !config.history.is_empty() && entries != manifest.layers.len() {
        return Err(invalid(format!(
            "its history has {entries} entries with a layer, but there are {} layers",
            manifest.layers.len()
        )));
    }
    if config.os.is_empty() || config.architecture.is_empty() || config.rootfs.kind != "layers" {
        return Err(invalid("its configuration lacks os, architecture or rootfs type".to_owned()));
    }
    Ok(())
}

fn hash(reader: impl Read, digest: Digest) -> Result<(Digest, u64), ArchiveError> {
    let mut hasher = sha2::Sha256::new();
    let mut size = 0;
    copy(reader, digest, &mut |bytes| {
        hasher.update(bytes);
        size += bytes.len() as u64;
        Ok(())
    })?;
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}
