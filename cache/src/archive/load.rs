//! Reading archives.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bricklayer_solver::Digest;

use super::{ArchiveError, LoadedImage, docker, oci};
use crate::document::{MAX_DOCUMENT, clean};
use crate::layer::LayerError;
use crate::layer::compression::decoder;
use crate::layer::tar::{Entry, EntryKind, TarReader};
use crate::store::{Store, StoreError};

/// Entries of an archive at most: bounds the map of names.
const MAX_ENTRIES: usize = 100_000;

/// What an archive holds, by the names of its entries.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// `index.json`, `manifest.json`, `oci-layout`.
    pub(super) documents: BTreeMap<String, Vec<u8>>,
    /// All other files: they are blobs of the store.
    files: BTreeMap<String, (Digest, u64)>,
    /// Links to other entries (Docker before v25 writes equal layers as links).
    links: BTreeMap<String, String>,
}

impl Contents {
    /// The blob of a file, through links.
    pub(super) fn file(&self, name: &str) -> Option<(Digest, u64)> {
        let mut name = normalise(name)?;
        for _ in 0..8 {
            if let Some(found) = self.files.get(&name) {
                return Some(*found);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

/// Reads all images of an archive into the store. The tar may be compressed (gzip, zstd, xz, bzip2) and have its entries in any
/// order; memory use does not grow with it.
///
/// # Errors
/// [`ArchiveError::Invalid`] if it is no archive of images, or damaged; [`ArchiveError::MissingBlob`] if it has not all of an
/// image. Blobs that were read by then stay in the store until they are pruned.
pub fn load(store: &Store, reader: impl Read) -> Result<Vec<LoadedImage>, ArchiveError> {
    let (_, stream) = decoder(reader).map_err(ArchiveError::io("read the archive"))?;
    let contents = read(store, TarReader::new(stream))?;
    let docker_images = || match contents.documents.get("manifest.json") {
        Some(raw) => docker::images(store, &contents, raw).map(Some),
        None => Ok(None),
    };
    let Some(raw) = contents.documents.get("index.json") else {
        return docker_images()?.ok_or_else(|| {
            ArchiveError::Invalid(
                "it has neither an index.json (OCI) nor a manifest.json (Docker)".to_owned(),
            )
        });
    };
    let index = oci::parse_index(raw)?;
    let mut images = oci::images(store, &index.manifests.iter().collect::<Vec<_>>())?;
    // Docker's own form has both; some writers of it name the images in one place only.
    if images.iter().any(|image| image.names.is_empty())
        && let Some(raw) = contents.documents.get("manifest.json")
    {
        docker::add_names(store, &contents, raw, &mut images)?;
    }
    Ok(images)
}

fn read<R: Read>(store: &Store, mut tar: TarReader<R>) -> Result<Contents, ArchiveError> {
    let mut contents = Contents::default();
    let mut count = 0;
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(ArchiveError::Invalid(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(normalise) else { continue };
        match entry.kind {
            EntryKind::File => read_file(store, &mut tar, &entry, name, &mut contents)?,
            EntryKind::Symlink | EntryKind::HardLink => {
                let Ok(target) = std::str::from_utf8(&entry.link) else { continue };
                let target = match (entry.kind, name.rsplit_once('/')) {
                    (EntryKind::Symlink, Some((parent, _))) => normalise(&format!("{parent}/{target}")),
                    _ => normalise(target),
                };
                if let Some(target) = target {
                    contents.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    Ok(contents)
}

fn read_file<R: Read>(
    store: &Store,
    tar: &mut TarReader<R>,
    entry: &Entry,
    name: String,
    contents: &mut Contents,
) -> Result<(), ArchiveError> {
    if entry.sparse.is_some() {
        return Err(ArchiveError::Invalid(format!("`{}` is a sparse file", clean(&name))));
    }
    if matches!(name.as_str(), "index.json" | "manifest.json" | "oci-layout") {
        if entry.size > MAX_DOCUMENT {
            return Err(ArchiveError::Invalid(format!(
                "{name} has {} bytes, {MAX_DOCUMENT} are allowed",
                entry.size
            )));
        }
        let mut raw = Vec::new();
        copy(tar, &mut |bytes| {
            raw.extend_from_slice(bytes);
            Ok(())
        })?;
        contents.documents.insert(name, raw);
        return Ok(());
    }
    // Docker's own notes from before v1.10, which `manifest.json` replaced
    let last = name.rsplit('/').next().unwrap_or(&name);
    if matches!(last, "repositories" | "VERSION" | "json") {
        return Ok(());
    }
    let promised = name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
    if let Some(digest) = promised.filter(|digest| store.has_blob(*digest)) {
        contents.files.insert(name, (digest, entry.size));
        return Ok(());
    }
    let mut writer = store.blob_writer().map_err(ArchiveError::store(clean(&name)))?;
    copy(tar, &mut |bytes| {
        writer.write_all(bytes).map_err(ArchiveError::io(format!("write `{}` into the store", clean(&name))))
    })?;
    let written =
        writer.commit(promised.map(|digest| (digest, entry.size))).map_err(|error| match error {
            StoreError::DigestMismatch { expected, actual } => {
                ArchiveError::Invalid(format!("the bytes of blob {expected} are {actual}"))
            }
            source => ArchiveError::Store { what: clean(&name), source: source.into() },
        })?;
    contents.files.insert(name, written);
    Ok(())
}

/// The rest of the entry's data.
fn copy<R: Read>(
    tar: &mut TarReader<R>,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match tar.read_data(&mut buffer).map_err(broken)? {
            0 => return Ok(()),
            count => sink(buffer.get(..count).unwrap_or_default())?,
        }
    }
}

fn broken(error: LayerError) -> ArchiveError {
    match error {
        LayerError::Read(source) => ArchiveError::Io { action: "read the archive".to_owned(), source },
        error => ArchiveError::Invalid(error.to_string()),
    }
}

/// A name without `.` and `..`; none if it leaves the archive. It is never used as a path.
pub(super) fn normalise(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
