//! Named images, and `index.json`, which shows them to every reader of OCI layouts (image-spec, image-layout.md).
//!
//! The table `images` is the truth; `index.json` is written from it, whole, whenever it changes.

use std::collections::HashSet;

use bricklayer_solver::Digest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Deserialize;
use serde_json::json;

use super::blobs::{blob_row, digest_column, file_size};
use super::db::Fail;
use super::error::StoreError;
use super::layout::Layout;
use super::{Descriptor, NamedImage, Store, now_ms};

pub(super) const EMPTY_INDEX: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// The largest manifest or index that is read, in bytes: what registries accept (distribution-spec).
const MAX_MANIFEST: u64 = 4 << 20;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

impl Store {
    /// Gives `name` to a manifest or index that is in the store, with everything that it needs. Another image loses the
    /// name. Of an index, the manifests that are here must be whole, and there must be one.
    pub fn tag(&self, name: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        check_name(name)?;
        // Held from here on, so that pruning cannot take it between the look and the name.
        let needs = self.needs(descriptor.digest, Some(name))?;
        for digest in needs {
            if !self.has_blob(digest) {
                return Err(StoreError::Incomplete { name: name.to_owned(), missing: digest });
            }
        }
        let size = self.blob_size(descriptor.digest)?;
        match size {
            None => return Err(StoreError::BlobMissing { digest: descriptor.digest }),
            Some(actual) if actual != descriptor.size => {
                return Err(StoreError::SizeMismatch {
                    digest: descriptor.digest,
                    expected: descriptor.size,
                    actual,
                });
            }
            Some(_) => {}
        }
        self.inner.shared(|state| {
            let known = state.db.read("look up an image", |tx| Ok(image(tx, name)?))?;
            if known.is_some_and(|known| known.descriptor == *descriptor) {
                return Ok(());
            }
            state.db.write("name an image", |tx| {
                tx.execute(
                    "INSERT OR REPLACE INTO images (name, media_type, digest, size, created_ms) VALUES (?, ?, ?, ?, ?)",
                    params![
                        name,
                        descriptor.media_type,
                        descriptor.digest.as_bytes(),
                        descriptor.size.cast_signed(),
                        now_ms()
                    ],
                )?;
                write_index(tx, &self.inner.layout)
            })?;
            self.inner.used_unsynced(true);
            Ok(())
        })
    }

    /// What has that name.
    pub fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        let found = self.inner.state().db.read("look up an image", |tx| Ok(image(tx, name)?))?;
        if let Some(found) = &found {
            // Its use begins.
            self.has_blob(found.descriptor.digest);
        }
        Ok(found)
    }

    /// All names, in their order.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.inner.state().db.read("list images", |tx| Ok(images(tx)?))
    }

    /// Takes a name away; false: there was none. Blobs and layers go when pruning finds that nothing needs them.
    pub fn untag(&self, name: &str) -> Result<bool, StoreError> {
        self.inner.shared(|state| {
            let removed = state.db.write("remove a name", |tx| {
                let removed = tx.execute("DELETE FROM images WHERE name = ?", [name])? > 0;
                if removed {
                    write_index(tx, &self.inner.layout)?;
                }
                Ok(removed)
            })?;
            if removed {
                self.inner.used_unsynced(true);
            }
            Ok(removed)
        })
    }

    /// Remembers where blobs of a manifest can be fetched from (a repository), for layers that are not here yet.
    pub fn remember_origin(&self, manifest: Digest, repository: &str) -> Result<(), StoreError> {
        if self.origin(manifest)?.as_deref() == Some(repository) {
            return Ok(());
        }
        self.inner.state().db.write("note where an image is from", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO origins (manifest, repository, created_ms) VALUES (?, ?, ?)",
                params![manifest.as_bytes(), repository, now_ms()],
            )?;
            Ok(())
        })
    }

    /// Where that was.
    pub fn origin(&self, manifest: Digest) -> Result<Option<String>, StoreError> {
        self.inner.state().db.read("look up where an image is from", |tx| {
            Ok(tx
                .prepare_cached("SELECT repository FROM origins WHERE manifest = ?")?
                .query_one([manifest.as_bytes()], |row| row.get(0))
                .optional()?)
        })
    }

    /// All blobs that an image needs, its own included. With a name, for whoever wants to give it, what is missing is an
    /// error; otherwise it is skipped.
    fn needs(&self, root: Digest, name: Option<&str>) -> Result<HashSet<Digest>, StoreError> {
        let mut found = HashSet::new();
        let mut read = |digest: Digest| {
            if self.has_blob(digest) { self.read_blob(digest, MAX_MANIFEST).map(Some) } else { Ok(None) }
        };
        let whole = collect_needs(root, &mut found, &mut read)?;
        match name {
            Some(name) if !whole => Err(StoreError::Incomplete { name: name.to_owned(), missing: root }),
            _ => Ok(found),
        }
    }
}

/// What there is in a manifest or an index that names other blobs (OCI image-spec, manifest.md and image-index.md). The
/// fields of both, since a document that has both is refused.
#[derive(Deserialize)]
struct Document {
    config: Option<Reference>,
    layers: Option<Vec<Reference>>,
    manifests: Option<Vec<Reference>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    digest: Digest,
    #[serde(default)]
    media_type: String,
}

/// Adds to `found` what the image at `root` needs. False: the manifest is missing, or all manifests of the index are.
pub(super) fn collect_needs(
    root: Digest,
    found: &mut HashSet<Digest>,
    read: &mut dyn FnMut(Digest) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<bool, StoreError> {
    collect(root, found, read, MAX_DEPTH)
}

fn collect(
    digest: Digest,
    found: &mut HashSet<Digest>,
    read: &mut dyn FnMut(Digest) -> Result<Option<Vec<u8>>, StoreError>,
    depth: usize,
) -> Result<bool, StoreError> {
    let invalid = |what: String| StoreError::InvalidManifest { digest, what };
    if depth == 0 {
        return Err(invalid("indexes are nested too deeply".into()));
    }
    let Some(bytes) = read(digest)? else { return Ok(false) };
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    match document {
        Document { config: None, layers: None, manifests: Some(manifests) } => {
            let mut any = false;
            for manifest in manifests {
                any |= found.contains(&manifest.digest) || collect(manifest.digest, found, read, depth - 1)?;
            }
            if any {
                found.insert(digest);
            }
            Ok(any)
        }
        Document { config: Some(config), layers, manifests: None } => {
            found.insert(digest);
            found.insert(config.digest);
            let kept = layers.unwrap_or_default().into_iter().filter(|layer| !is_foreign(&layer.media_type));
            found.extend(kept.map(|layer| layer.digest));
            Ok(true)
        }
        Document { manifests: Some(_), .. } => Err(invalid("it is both an index and a manifest".into())),
        Document { .. } => Err(invalid("it has no config".into())),
    }
}

/// Does the layer's bytes come from somewhere else than the image's?
pub(super) fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
}

/// What all named images need, read without holding it.
pub(super) fn all_needs(tx: &Connection, layout: &Layout) -> Result<HashSet<Digest>, Fail> {
    Ok(needs_of(tx, layout, images(tx)?.into_iter().map(|image| image.descriptor.digest)))
}

/// What images need that were fetched from somewhere, named or not.
pub(super) fn origin_needs(tx: &Connection, layout: &Layout) -> Result<HashSet<Digest>, Fail> {
    let manifests: Vec<Digest> = tx
        .prepare_cached("SELECT manifest FROM origins")?
        .query_map([], |row| digest_column(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(needs_of(tx, layout, manifests.into_iter()))
}

/// What is missing or broken is skipped: it needs nothing.
fn needs_of(tx: &Connection, layout: &Layout, roots: impl Iterator<Item = Digest>) -> HashSet<Digest> {
    let mut found = HashSet::new();
    let mut read = |digest: Digest| {
        let row = blob_row(tx, digest).ok().flatten();
        let path = layout.blob(digest);
        let readable = row.is_some_and(|row| row.size <= MAX_MANIFEST && file_size(&path) == Some(row.size));
        Ok(if readable { std::fs::read(path).ok() } else { None })
    };
    for root in roots {
        found.insert(root);
        // A manifest that no longer can be read is damage, which whoever uses the image will find.
        let _ = collect_needs(root, &mut found, &mut read);
    }
    found
}

/// Is it a reference in normal form: registry, path, and a tag, a digest or both?
fn check_name(name: &str) -> Result<(), StoreError> {
    let invalid = || StoreError::InvalidName { name: name.chars().take(200).collect() };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/+[]".contains(&byte);
    let sound = name.len() <= 512
        && name.bytes().all(allowed)
        && name.split('/').count() >= 2
        && name.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['));
    let last = name.rsplit('/').next().unwrap_or_default();
    if sound && last.contains([':', '@']) { Ok(()) } else { Err(invalid()) }
}

fn image(tx: &Connection, name: &str) -> Result<Option<NamedImage>, rusqlite::Error> {
    tx.prepare_cached("SELECT name, media_type, digest, size, created_ms FROM images WHERE name = ?")?
        .query_one([name], named_image)
        .optional()
}

fn images(tx: &Connection) -> Result<Vec<NamedImage>, rusqlite::Error> {
    tx.prepare_cached("SELECT name, media_type, digest, size, created_ms FROM images ORDER BY name")?
        .query_map([], named_image)?
        .collect()
}

fn named_image(row: &Row<'_>) -> Result<NamedImage, rusqlite::Error> {
    Ok(NamedImage {
        name: row.get(0)?,
        descriptor: Descriptor {
            media_type: row.get(1)?,
            digest: digest_column(row, 2)?,
            size: row.get::<_, i64>(3)?.cast_unsigned(),
        },
        created_ms: row.get(4)?,
    })
}

/// Writes `index.json` anew. Inside the transaction that changes the table, so that two cannot overtake each other.
pub(super) fn write_index(tx: &Connection, layout: &Layout) -> Result<(), Fail> {
    let manifests: Vec<_> = images(tx)?
        .into_iter()
        .map(|image| {
            json!({
                "mediaType": image.descriptor.media_type,
                "digest": image.descriptor.digest,
                "size": image.descriptor.size,
                "annotations": {
                    "io.containerd.image.name": image.name,
                    "org.opencontainers.image.ref.name": image.name,
                },
            })
        })
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    layout.replace("oci/index.json", index.to_string().as_bytes())?;
    Ok(())
}
