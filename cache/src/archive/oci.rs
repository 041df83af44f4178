//! What both forms of an OCI image layout share: names of images, and whether all of an image is there.

use std::collections::BTreeMap;

use bricklayer_solver::Digest;
use bricklayer_solver::image::ImageConfig;

use super::{ArchiveError, LoadedImage};
use crate::document::{Document, Index, IndexEntry, MAX_DOCUMENT, Manifest, clean, media};
use crate::registry::Reference;
use crate::store::{Descriptor, Store};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 4;

/// containerd's annotation: the whole name.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
/// OCI's annotation: the whole name, or only the tag.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The name and the tag that an entry of an `index.json` gives its image.
pub(super) fn name_of(
    annotations: &BTreeMap<String, String>,
) -> Result<(Option<Reference>, Option<String>), ArchiveError> {
    let parse = |text: &str| {
        text.parse::<Reference>().map(Some).map_err(|error| ArchiveError::Invalid(error.to_string()))
    };
    let short = annotations.get(REF_NAME).map(String::as_str).filter(|name| !name.is_empty());
    if let Some(full) = annotations.get(FULL_NAME).filter(|name| !name.is_empty()) {
        return Ok((parse(full)?, None));
    }
    match short {
        Some(name) if name.contains(['/', ':']) => Ok((parse(name)?, None)),
        Some(tag) => Ok((None, Some(clean(tag)))),
        None => Ok((None, None)),
    }
}

/// The index of a layout.
pub(super) fn parse_index(raw: &[u8]) -> Result<Index, ArchiveError> {
    match Document::parse(raw, None) {
        Ok(Document::Index(index)) => Ok(index),
        Ok(Document::Manifest(_)) => Err(ArchiveError::Invalid("index.json is not an index".to_owned())),
        Err(source) => Err(ArchiveError::Document { what: "index.json".to_owned(), source }),
    }
}

/// The images that a layout's index lists, whole ones: each digest once, with all its names.
pub(super) fn images(store: &Store, entries: &[&IndexEntry]) -> Result<Vec<LoadedImage>, ArchiveError> {
    let mut images: Vec<(Digest, LoadedImage)> = Vec::new();
    for entry in entries {
        let (name, tag) = name_of(&entry.annotations)?;
        let digest = entry.descriptor.digest;
        let at = match images.iter().position(|(known, _)| *known == digest) {
            Some(at) => at,
            None => {
                let descriptor = settle(store, &entry.descriptor)?;
                images.push((digest, LoadedImage { names: Vec::new(), tag: None, descriptor }));
                images.len() - 1
            }
        };
        if let Some((_, image)) = images.get_mut(at) {
            image.names.extend(name.filter(|name| !image.names.contains(name)));
            image.tag = image.tag.take().or(tag);
        }
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// A document of the store, as its descriptor promises it.
pub(super) fn read_document(
    store: &Store,
    descriptor: &Descriptor,
) -> Result<(Vec<u8>, Document), ArchiveError> {
    let what = descriptor.digest;
    let raw = store.read_blob(what, MAX_DOCUMENT).map_err(ArchiveError::store(what))?;
    if raw.len() as u64 != descriptor.size {
        let reason = format!("it has {} bytes, but {} were announced", raw.len(), descriptor.size);
        return Err(ArchiveError::Image { what, reason });
    }
    let document = Document::parse(&raw, Some(&descriptor.media_type))
        .map_err(|source| ArchiveError::Document { what: what.to_string(), source })?;
    Ok((raw, document))
}

/// The configuration of an image; it fits the manifest.
pub(super) fn read_config(
    store: &Store,
    what: Digest,
    manifest: &Manifest,
) -> Result<ImageConfig, ArchiveError> {
    let config = &manifest.config;
    let raw = store.read_blob(config.digest, MAX_DOCUMENT).map_err(ArchiveError::store(config.digest))?;
    let invalid = |reason: String| ArchiveError::Image { what, reason };
    if raw.len() as u64 != config.size {
        return Err(invalid(format!(
            "its configuration has {} bytes, but {} were announced",
            raw.len(),
            config.size
        )));
    }
    let parsed: ImageConfig = serde_json::from_slice(&raw)
        .map_err(|error| ArchiveError::Document { what: config.digest.to_string(), source: error.into() })?;
    let (layers, diff_ids) = (manifest.layers.len(), parsed.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(invalid(format!("it has {layers} layers, but its configuration lists {diff_ids}")));
    }
    Ok(parsed)
}

/// The first blob that is missing of an image, if one is. What is there fits together.
fn lacks(
    store: &Store,
    descriptor: &Descriptor,
    depth: u32,
) -> Result<Option<(Digest, Digest)>, ArchiveError> {
    let what = descriptor.digest;
    if depth > MAX_DEPTH {
        return Err(ArchiveError::Image { what, reason: "its indexes are nested too deeply".to_owned() });
    }
    if !store.has_blob(what) {
        return Ok(Some((what, what)));
    }
    let (_, document) = read_document(store, descriptor)?;
    match document {
        Document::Index(index) => {
            for entry in &index.manifests {
                if let Some((parent, missing)) = lacks(store, &entry.descriptor, depth + 1)? {
                    return Ok(Some((if parent == missing { what } else { parent }, missing)));
                }
            }
        }
        Document::Manifest(manifest) => {
            for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
                if !store.has_blob(blob.digest) {
                    return Ok(Some((what, blob.digest)));
                }
                check_size(store, what, blob)?;
            }
            if manifest.is_image() {
                read_config(store, what, &manifest)?;
            }
        }
    }
    Ok(None)
}

fn check_size(store: &Store, what: Digest, blob: &Descriptor) -> Result<(), ArchiveError> {
    let file = store.open_blob(blob.digest).map_err(ArchiveError::store(blob.digest))?;
    let actual = file.metadata().map_err(ArchiveError::io(format!("look at blob {}", blob.digest)))?.len();
    if actual != blob.size {
        let reason = format!("blob {} has {actual} bytes, but {} were announced", blob.digest, blob.size);
        return Err(ArchiveError::Image { what, reason });
    }
    Ok(())
}

/// An image that is wholly there. Docker saves the index of an image with all its platforms although it writes only those that it has: then the
/// image of the only platform that is there stands for it, or a new index over those that are.
fn settle(store: &Store, descriptor: &Descriptor) -> Result<Descriptor, ArchiveError> {
    let Some((what, digest)) = lacks(store, descriptor, 0)? else { return Ok(descriptor.clone()) };
    let missing = ArchiveError::MissingBlob { what: what.to_string(), digest };
    if !store.has_blob(descriptor.digest) {
        return Err(missing);
    }
    let (_, Document::Index(index)) = read_document(store, descriptor)? else { return Err(missing) };
    let mut whole = Vec::new();
    for entry in &index.manifests {
        if lacks(store, &entry.descriptor, 1)?.is_none() {
            whole.push(entry.clone());
        }
    }
    let is_image = |entry: &&IndexEntry| !entry.is_attestation();
    match whole.iter().filter(is_image).collect::<Vec<_>>()[..] {
        [] => Err(missing),
        [only] if whole.len() == 1 => Ok(only.descriptor.clone()),
        _ => {
            let index = Index {
                schema_version: 2,
                media_type: media::INDEX.to_owned(),
                manifests: whole,
                annotations: index.annotations,
            };
            put_json(store, media::INDEX, &index)
        }
    }
}

/// Writes a document of our own into the store.
pub(super) fn put_json(
    store: &Store,
    media_type: &str,
    document: &impl serde::Serialize,
) -> Result<Descriptor, ArchiveError> {
    let raw = serde_json::to_vec(document)
        .map_err(|error| ArchiveError::Document { what: media_type.to_owned(), source: error.into() })?;
    let (digest, size) = (Digest::of(&raw), raw.len() as u64);
    if !store.has_blob(digest) {
        store.put_blob(&mut &raw[..], digest, size).map_err(ArchiveError::store(digest))?;
    }
    Ok(Descriptor { media_type: media_type.to_owned(), digest, size })
}
