//! Writing archives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use bricklayer_solver::Digest;
use bricklayer_solver::platform::Platform;
use serde_json::json;

use super::oci::{FULL_NAME, REF_NAME, read_config, read_document};
use super::{ArchiveError, docker};
use crate::document::{Document, Index, IndexEntry, Manifest, media};
use crate::layer::tar::write::{END, pad};
use crate::layer::tar::{EntryKind, Header};
use crate::registry::Reference;
use crate::store::{Descriptor, Store};

/// Content of the file `oci-layout` (image-spec v1.1 image-layout.md, "oci-layout file").
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 4;

/// Writes images as an OCI image layout in a tar: the same bytes for the same images. An image with several names is given
/// once for each; a name of `None` writes it without one.
///
/// # Errors
/// [`ArchiveError::MissingBlob`] if a layer is not in the store (see [`missing_blobs`]). What was written by then is no archive.
pub fn save_oci(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    writer: impl Write,
) -> Result<(), ArchiveError> {
    let blobs = blobs_of(store, images)?;
    let mut tar = Tar { writer };
    tar.file("oci-layout", LAYOUT)?;
    tar.file("index.json", &index_json(images)?)?;
    tar.blobs(store, &blobs)?;
    tar.end()
}

/// Writes images as a Docker archive (`docker load`), which is an OCI image layout as well. Of an image for several platforms, Docker's
/// part names the one for this machine, else the first.
///
/// # Errors
/// As [`save_oci`].
pub fn save_docker(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    writer: impl Write,
) -> Result<(), ArchiveError> {
    let blobs = blobs_of(store, images)?;
    let manifest = manifest_json(store, images)?;
    let mut tar = Tar { writer };
    tar.file("oci-layout", LAYOUT)?;
    tar.file("index.json", &index_json(images)?)?;
    tar.file("manifest.json", &manifest)?;
    tar.blobs(store, &blobs)?;
    tar.end()
}

/// The blobs that an image needs and the store has not: layers that were never fetched, images of an index for other platforms.
///
/// # Errors
/// [`ArchiveError::Document`] and [`ArchiveError::Image`] for a manifest that cannot be read.
pub fn missing_blobs(store: &Store, image: &Descriptor) -> Result<Vec<Descriptor>, ArchiveError> {
    let mut all = Vec::new();
    collect(store, image, 0, &mut BTreeSet::new(), &mut all)?;
    all.retain(|blob| !store.has_blob(blob.digest));
    Ok(all)
}

/// The entries of an `index.json` for these images.
pub(super) fn entries(images: &[(Option<Reference>, Descriptor)]) -> Vec<IndexEntry> {
    images
        .iter()
        .map(|(name, descriptor)| {
            let mut annotations = BTreeMap::new();
            if let Some(name) = name {
                annotations.insert(FULL_NAME.to_owned(), name.to_string());
                annotations.extend(name.tag().map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
            }
            IndexEntry { descriptor: descriptor.clone(), platform: None, annotations }
        })
        .collect()
}

fn index_json(images: &[(Option<Reference>, Descriptor)]) -> Result<Vec<u8>, ArchiveError> {
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.to_owned(),
        manifests: entries(images),
        annotations: BTreeMap::new(),
    };
    to_json("index.json", &index)
}

pub(super) fn to_json(what: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, ArchiveError> {
    serde_json::to_vec(value)
        .map_err(|error| ArchiveError::Document { what: what.to_owned(), source: error.into() })
}

fn manifest_json(store: &Store, images: &[(Option<Reference>, Descriptor)]) -> Result<Vec<u8>, ArchiveError> {
    let mut list: Vec<(Digest, docker::Entry, serde_json::Value)> = Vec::new();
    for (name, descriptor) in images {
        let name = name.as_ref().map(Reference::familiar).filter(|name| !name.contains('@'));
        if let Some((_, entry, _)) = list.iter_mut().find(|(digest, ..)| *digest == descriptor.digest) {
            entry.repo_tags.get_or_insert_default().extend(name);
            continue;
        }
        let (what, manifest) = one_image(store, descriptor, 0)?;
        let config = read_config(store, what, &manifest)?;
        let file = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        let sources: BTreeMap<String, _> = config
            .rootfs
            .diff_ids
            .iter()
            .zip(&manifest.layers)
            .map(|(diff_id, layer)| (diff_id.to_string(), json!(layer)))
            .collect();
        let entry = docker::Entry {
            config: file(manifest.config.digest),
            repo_tags: name.map(|name| vec![name]),
            layers: Some(manifest.layers.iter().map(|layer| file(layer.digest)).collect()),
        };
        list.push((descriptor.digest, entry, json!(sources)));
    }
    let list: Vec<_> = list
        .into_iter()
        .map(|(_, entry, sources)| {
            json!({"Config": entry.config, "RepoTags": entry.repo_tags, "Layers": entry.layers, "LayerSources": sources})
        })
        .collect();
    to_json("manifest.json", &list)
}

/// The manifest that stands for an image where only one can.
fn one_image(store: &Store, descriptor: &Descriptor, depth: u32) -> Result<(Digest, Manifest), ArchiveError> {
    let what = descriptor.digest;
    match read_document(store, descriptor)?.1 {
        Document::Manifest(manifest) => Ok((what, manifest)),
        Document::Index(_) if depth > MAX_DEPTH => Err(too_deep(what)),
        Document::Index(index) => {
            let host = Platform::host();
            let images = || index.manifests.iter().filter(|entry| !entry.is_attestation());
            let entry =
                images().find(|entry| entry.platform.as_ref() == Some(&host)).or_else(|| images().next());
            let entry = entry
                .ok_or_else(|| ArchiveError::Image { what, reason: "its index lists no image".to_owned() })?;
            one_image(store, &entry.descriptor, depth + 1)
        }
    }
}

fn too_deep(what: Digest) -> ArchiveError {
    ArchiveError::Image { what, reason: "its indexes are nested too deeply".to_owned() }
}

/// All blobs that these images need, each once; all are there.
pub(super) fn blobs_of(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
) -> Result<Vec<Descriptor>, ArchiveError> {
    let mut all = Vec::new();
    let mut known = BTreeSet::new();
    for (_, descriptor) in images {
        collect(store, descriptor, 0, &mut known, &mut all)?;
    }
    match all.iter().find(|blob| !store.has_blob(blob.digest)) {
        Some(blob) => {
            let what = images.iter().find_map(|(name, _)| name.as_ref()).map(ToString::to_string);
            let what = what.unwrap_or_else(|| "the image".to_owned());
            Err(ArchiveError::MissingBlob { what, digest: blob.digest })
        }
        None => Ok(all),
    }
}

fn collect(
    store: &Store,
    descriptor: &Descriptor,
    depth: u32,
    known: &mut BTreeSet<Digest>,
    all: &mut Vec<Descriptor>,
) -> Result<(), ArchiveError> {
    if depth > MAX_DEPTH {
        return Err(too_deep(descriptor.digest));
    }
    if !known.insert(descriptor.digest) {
        return Ok(());
    }
    all.push(descriptor.clone());
    if !store.has_blob(descriptor.digest) {
        // whoever needs it finds it in the list
        return Ok(());
    }
    match read_document(store, descriptor)?.1 {
        Document::Index(index) => {
            for entry in &index.manifests {
                collect(store, &entry.descriptor, depth + 1, known, all)?;
            }
        }
        Document::Manifest(manifest) => {
            for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
                if known.insert(blob.digest) {
                    all.push(blob.clone());
                }
            }
        }
    }
    Ok(())
}

/// A tar whose entries belong to nobody and were written at the beginning of 1970.
struct Tar<W> {
    writer: W,
}

impl<W: Write> Tar<W> {
    fn header(&mut self, path: &str, kind: EntryKind, size: u64) -> Result<(), ArchiveError> {
        let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
        let header = Header {
            path: path.as_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size,
            mtime: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
        };
        let mut block = Vec::new();
        header.write(&mut block);
        self.write(&block)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.writer.write_all(bytes).map_err(ArchiveError::io("write the archive"))
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let mut padding = Vec::new();
        pad(&mut padding, size);
        self.write(&padding)
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<(), ArchiveError> {
        self.header(path, EntryKind::File, content.len() as u64)?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    fn blobs(&mut self, store: &Store, blobs: &[Descriptor]) -> Result<(), ArchiveError> {
        self.header("blobs", EntryKind::Directory, 0)?;
        self.header("blobs/sha256", EntryKind::Directory, 0)?;
        for blob in blobs {
            let reader = store.blob_reader(blob.digest).map_err(ArchiveError::store(blob.digest))?;
            let size = reader.size();
            self.header(&format!("blobs/sha256/{}", blob.digest.hex()), EntryKind::File, size)?;
            let writer = &mut self.writer;
            let mut copied = 0;
            copy(reader, blob.digest, &mut |bytes| {
                copied += bytes.len() as u64;
                writer.write_all(bytes).map_err(ArchiveError::io("write the archive"))
            })?;
            if copied != size {
                let reason = format!("blob {} ended after {copied} of {size} bytes", blob.digest);
                return Err(ArchiveError::Image { what: blob.digest, reason });
            }
            self.pad(size)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), ArchiveError> {
        self.write(&END)?;
        self.writer.flush().map_err(ArchiveError::io("write the archive"))
    }
}

/// All bytes of a blob, in pieces.
pub(super) fn copy(
    mut reader: impl Read,
    digest: Digest,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::io(format!("read blob {digest}"))(error)),
        }
    }
}
