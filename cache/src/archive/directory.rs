//! OCI image layouts as directories.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bricklayer_solver::Digest;

use super::save::{LAYOUT, blobs_of, copy, entries, to_json};
use super::{ArchiveError, LoadedImage, oci};
use crate::document::{Document, Index, IndexEntry, MAX_DOCUMENT, media};
use crate::registry::Reference;
use crate::store::{Descriptor, Store};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 4;

/// Reads the images of an OCI image layout (a directory) into the store: all, or those that are `wanted` by name, by
/// `org.opencontainers.image.ref.name` or by digest.
///
/// # Errors
/// [`ArchiveError::Layout`] if it is none, or nothing is called that; [`ArchiveError::MissingBlob`] if it has not all of an image.
pub fn load_dir(
    store: &Store,
    layout: &Path,
    wanted: Option<&str>,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let failed = |reason: String| ArchiveError::Layout { path: layout.to_path_buf(), reason };
    let index = oci::parse_index(&read_small(layout, "index.json")?)?;
    let mut chosen: Vec<&IndexEntry> = Vec::new();
    for entry in &index.manifests {
        if wanted.is_none_or(|wanted| is_called(entry, wanted)) {
            chosen.push(entry);
        }
    }
    if let (Some(wanted), true) = (wanted, chosen.is_empty()) {
        return Err(failed(format!("it has no image `{}`", crate::document::clean(wanted))));
    }
    for entry in &chosen {
        fetch(store, layout, &entry.descriptor, 0)?;
    }
    oci::images(store, &chosen)
}

fn is_called(entry: &IndexEntry, wanted: &str) -> bool {
    let name = |key: &str| entry.annotations.get(key).map(String::as_str);
    let parsed = wanted.parse::<Reference>().ok();
    name(oci::REF_NAME) == Some(wanted)
        || entry.descriptor.digest.to_string() == wanted
        || oci::name_of(&entry.annotations).is_ok_and(|(name, _)| name.is_some() && name == parsed)
}

/// Copies a document and what it names into the store, as far as the layout has it.
fn fetch(store: &Store, layout: &Path, descriptor: &Descriptor, depth: u32) -> Result<(), ArchiveError> {
    if depth > MAX_DEPTH {
        let reason = "its indexes are nested too deeply".to_owned();
        return Err(ArchiveError::Image { what: descriptor.digest, reason });
    }
    if !fetch_blob(store, layout, descriptor)? {
        return Ok(());
    }
    match oci::read_document(store, descriptor)?.1 {
        Document::Index(index) => {
            index.manifests.iter().try_for_each(|entry| fetch(store, layout, &entry.descriptor, depth + 1))
        }
        Document::Manifest(manifest) => {
            for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
                fetch_blob(store, layout, blob)?;
            }
            Ok(())
        }
    }
}

/// False: the layout has not got it.
fn fetch_blob(store: &Store, layout: &Path, blob: &Descriptor) -> Result<bool, ArchiveError> {
    if store.has_blob(blob.digest) {
        return Ok(true);
    }
    let Some(mut file) = open(layout, &format!("blobs/sha256/{}", blob.digest.hex()))? else {
        return Ok(false);
    };
    store.put_blob(&mut file, blob.digest, blob.size).map_err(ArchiveError::store(blob.digest))?;
    Ok(true)
}

/// A regular file of the layout; none if it is not there. Never waits for one that is a pipe.
fn open(layout: &Path, name: &str) -> Result<Option<File>, ArchiveError> {
    let path = layout.join(name);
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ArchiveError::io(format!("open `{}`", path.display()))(error)),
    };
    let metadata = file.metadata().map_err(ArchiveError::io(format!("look at `{}`", path.display())))?;
    if !metadata.is_file() {
        let reason = format!("`{name}` is not a file");
        return Err(ArchiveError::Layout { path: layout.to_path_buf(), reason });
    }
    Ok(Some(file))
}

fn read_small(layout: &Path, name: &str) -> Result<Vec<u8>, ArchiveError> {
    let failed = |reason: String| ArchiveError::Layout { path: layout.to_path_buf(), reason };
    let file = open(layout, name)?.ok_or_else(|| failed(format!("it has no {name}")))?;
    let mut raw = Vec::new();
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut raw)
        .map_err(ArchiveError::io(format!("read `{}`", layout.join(name).display())))?;
    if raw.len() as u64 > MAX_DOCUMENT {
        return Err(failed(format!("{name} has more than {MAX_DOCUMENT} bytes")));
    }
    Ok(raw)
}

/// Writes images into an OCI image layout: a directory that is made, or a layout whose other images stay. An image that had one of these
/// names loses it.
///
/// # Errors
/// [`ArchiveError::MissingBlob`] as for [`save_oci`](super::save_oci); [`ArchiveError::Layout`] if the directory holds something else.
pub fn save_oci_dir(
    store: &Store,
    images: &[(Option<Reference>, Descriptor)],
    directory: &Path,
) -> Result<(), ArchiveError> {
    let blobs = blobs_of(store, images)?;
    let old = match fs::read_dir(directory) {
        Ok(mut content) => {
            if content.next().is_some() {
                oci::parse_index(&read_small(directory, "index.json")?)?.manifests
            } else {
                Vec::new()
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(ArchiveError::io(format!("open `{}`", directory.display()))(error)),
    };
    let target = directory.join("blobs/sha256");
    fs::create_dir_all(&target).map_err(ArchiveError::io(format!("make `{}`", target.display())))?;
    for blob in &blobs {
        write_blob(store, blob.digest, &target)?;
    }
    let new = entries(images);
    let mut manifests: Vec<IndexEntry> = old
        .into_iter()
        .filter(|entry| {
            let same_name = |other: &&IndexEntry| {
                let key = [oci::FULL_NAME, oci::REF_NAME]
                    .into_iter()
                    .find(|key| entry.annotations.contains_key(*key));
                match key {
                    Some(key) => entry.annotations.get(key) == other.annotations.get(key),
                    None => entry.descriptor == other.descriptor,
                }
            };
            !new.iter().any(|other| same_name(&other))
        })
        .collect();
    manifests.extend(new);
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.to_owned(),
        manifests,
        annotations: Default::default(),
    };
    replace(directory, "oci-layout", &mut |file| file.write_all(LAYOUT))?;
    let json = to_json("index.json", &index)?;
    // last: what it points at is there
    replace(directory, "index.json", &mut |file| file.write_all(&json))
}

fn write_blob(store: &Store, digest: Digest, target: &Path) -> Result<(), ArchiveError> {
    let reader = store.blob_reader(digest).map_err(ArchiveError::store(digest))?;
    let name = digest.hex();
    if fs::metadata(target.join(&name)).is_ok_and(|there| there.is_file() && there.len() == reader.size()) {
        return Ok(());
    }
    let mut reader = Some(reader);
    let mut failure = None;
    replace(target, &name, &mut |file| {
        if let Some(reader) = reader.take()
            && let Err(error) = copy(reader, digest, &mut |bytes| {
                file.write_all(bytes)
                    .map_err(ArchiveError::io(format!("write `{}`", target.join(&name).display())))
            })
        {
            failure = Some(error);
            return Err(ErrorKind::Other.into());
        }
        Ok(())
    })
    .map_err(|error| failure.unwrap_or(error))
}

/// Writes a file whole or not at all.
fn replace(
    directory: &Path,
    name: &str,
    write: &mut dyn FnMut(&mut File) -> std::io::Result<()>,
) -> Result<(), ArchiveError> {
    let path = directory.join(name);
    let failed = || ArchiveError::io(format!("write `{}`", path.display()));
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(directory).map_err(failed())?;
    write(file.as_file_mut()).map_err(failed())?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed())?;
    file.persist(&path).map_err(|error| failed()(error.error))?;
    Ok(())
}
