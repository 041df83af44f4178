//! Layers: trees in `layers/<id>/`, the blobs that they were or can be packed into, and the making of one from the other.
//!
//! A layer that was made here has a tree and the content digest of its files. A layer of an image is known by its chain ID
//! (OCI image-spec, config.md): by what lies under it too, since a tar may leave out directories and hard-linked files
//! that it takes from below. It has a blob, and a tree once somebody needs its files; its content digest is made from its
//! diff ID, so that nothing needs to be unpacked to have one.
//!
//! That a blob has some diff ID is a claim of the image's config until the bytes went through here. Whatever reads them
//! (unpacking, handing the blob out as a layer of a new image) computes it first; a wrong claim is forgotten.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::record::{Layer, LayerId, Snapshot};
use rusqlite::{Connection, params};
use rustix::fs::CWD;

use super::blobs::{BlobWriter, digest_column, file_size};
use super::db::{Fail, next_seq};
use super::error::{StoreError, io_error};
use super::images::is_foreign;
use super::lease::Lease;
use super::lock::{Mode, RangeLock};
use super::records::{LayerRow, layer_row};
use super::remove::remove;
use super::{Compression, Descriptor, Packed, Store, now_ms};
use crate::layer::{PackOptions, UnpackOptions, pack, unpack};
use crate::root::{Root, at};

/// In the column `clamp`: no file is newer than the end of time.
pub(super) const NOT_CLAMPED: i64 = i64::MAX;

/// A new layer that is being made: `tree()` and `work()` lie on one filesystem, in `ingest/`. Dropped without
/// [`commit`](Self::commit), it is removed.
pub struct LayerDraft {
    store: Store,
    directory: PathBuf,
    tree: PathBuf,
    work: PathBuf,
    committed: bool,
}

impl LayerDraft {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let directory = store.inner.state().lease.draft("layer")?;
        let draft = Self {
            store: store.clone(),
            tree: directory.join("tree"),
            work: directory.join("work"),
            directory,
            committed: false,
        };
        for path in [&draft.directory, &draft.tree, &draft.work] {
            DirBuilder::new().mode(0o700).create(path).map_err(io_error("create", path))?;
        }
        // Whatever the umask says.
        fs::set_permissions(&draft.tree, fs::Permissions::from_mode(0o755))
            .map_err(io_error("create", &draft.tree))?;
        Ok(draft)
    }

    /// The directory that becomes the layer (an overlay's upper directory). Empty, mode 0755.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// An empty directory beside it (an overlay's work directory).
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Makes it a layer: renamed into `layers/<id>` whole. `content` is the content digest of its tree. The lease holds
    /// it.
    pub fn commit(self, content: Digest) -> Result<Layer, StoreError> {
        self.enter(content, true, |_, _, _| Ok(()))
    }

    /// Makes it a layer, and in the same transaction whatever `also` writes about it, which is told the time.
    pub(super) fn enter(
        mut self,
        content: Digest,
        hold: bool,
        also: impl FnOnce(&Connection, LayerId, i64) -> Result<(), Fail>,
    ) -> Result<Layer, StoreError> {
        let inner = &self.store.inner;
        let id = inner.shared(|state| {
            let state = &mut *state;
            let now = now_ms();
            state.db.write("note a layer", |tx| {
                let seq = next_seq(tx)?;
                tx.prepare_cached(
                    "INSERT INTO layers (content, tree, remote, unsynced, created_ms, used_ms) VALUES (?1, 1, 0, ?2, ?3, ?3)",
                )?
                .execute(params![content.as_bytes(), seq, now])?;
                let id = LayerId(tx.last_insert_rowid());
                also(tx, id, now)?;
                if hold {
                    state.lease.hold_layer(id, now);
                    state.lease.write()?;
                }
                place(state.lease, &self.tree, &inner.layout.layer(id))?;
                Ok(id)
            })
        })?;
        inner.used_unsynced(true);
        self.committed = true;
        Ok(Layer { id, content })
    }
}

impl Drop for LayerDraft {
    fn drop(&mut self) {
        let emptied = || fs::remove_dir(&self.work).and_then(|()| fs::remove_dir(&self.directory));
        if self.committed && emptied().is_err() {
            // What an overlay leaves behind is next to nothing, and nobody should wait for its removal.
            self.store.inner.state().lease.left_over(std::mem::take(&mut self.directory));
        } else if !self.committed {
            // What stays goes with the lease.
            let _ = remove(&self.directory);
        }
    }
}

/// Renames a finished tree to where it belongs. What is there already has no row: it is left over from before a power
/// cut that the database forgot more in than the filesystem.
fn place(lease: &mut Lease, tree: &Path, target: &Path) -> Result<(), StoreError> {
    let rename = || at::rename_new(CWD, tree, CWD, target);
    rename()
        .or_else(|error| {
            if error == rustix::io::Errno::EXIST {
                // It goes with the lease.
                lease.discard(target);
                rename()
            } else {
                Err(error)
            }
        })
        .map_err(io_error("create", target))
}

/// What the store knows about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Is there a tree?
    pub tree: bool,
    /// When it was made here, or entered into the store, in milliseconds since 1970.
    pub created_ms: i64,
    /// Did it come with an image? Then its diff ID is known from elsewhere, and a tar made of its tree has another one.
    pub of_image: bool,
    /// Its forms as a blob, the ones that are in the store first.
    pub blobs: Vec<LayerBlob>,
}

/// A layer's form as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob, and the diff ID that it has or is said to have.
    pub packed: Packed,
    /// Is it in the store?
    pub present: bool,
    /// Was the diff ID computed here?
    pub verified: bool,
    clamp: i64,
}

impl Store {
    /// Starts a layer.
    pub fn draft_layer(&self) -> Result<LayerDraft, StoreError> {
        LayerDraft::new(self)
    }

    /// The layers of an image in the store, lowest first, known by their diff IDs: found, or entered as
    /// layers that have a blob and no tree yet. A blob that is not in the store is to be fetched before the layer's files
    /// are asked for. The lease holds them all.
    ///
    /// # Errors
    ///
    /// [`StoreError::LayerCount`] where the numbers of layers and diff IDs differ, [`StoreError::UnknownLayer`] and
    /// [`StoreError::ForeignLayer`] for layers that cannot be had, [`StoreError::SizeMismatch`] for a wrong descriptor.
    pub fn image_layers(&self, config: &ImageConfig, blobs: &[Descriptor]) -> Result<Snapshot, StoreError> {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != blobs.len() {
            return Err(StoreError::LayerCount { blobs: blobs.len(), diff_ids: diff_ids.len() });
        }
        let mut present = Vec::with_capacity(blobs.len());
        for blob in blobs {
            let size = self.blob_size(blob.digest)?;
            check_layer_blob(blob, size)?;
            present.push(size.is_some());
        }
        self.inner.shared(|state| {
            let state = &mut *state;
            let mut found = Vec::with_capacity(blobs.len());
            let mut missing = false;
            state.db.read("look up layers", |tx| {
                for (diff_id, chain, blob) in zip_chain(diff_ids, blobs) {
                    let layer = find_layer(tx, self, diff_id, chain, blob)?;
                    missing |= layer.is_none();
                    found.extend(layer);
                }
                Ok(())
            })?;
            if missing {
                found.clear();
                state.db.write("note layers", |tx| {
                    for ((diff_id, chain, blob), present) in zip_chain(diff_ids, blobs).zip(&present) {
                        let layer = match find_layer(tx, self, diff_id, chain, blob)? {
                            Some(layer) => layer,
                            None => enter_layer(tx, self, diff_id, chain, blob, *present)?,
                        };
                        found.push(layer);
                    }
                    Ok(())
                })?;
            }
            let mut layers = Vec::with_capacity(found.len());
            for (layer, row) in found {
                state.lease.hold_layer(layer.id, row.used_ms);
                self.inner.used_unsynced(row.unsynced);
                layers.push(layer);
            }
            Ok(Snapshot { layers })
        })
    }

    /// What is there of a layer; the lease holds it.
    pub fn layer_info(&self, layer: LayerId) -> Result<LayerInfo, StoreError> {
        let layout = &self.inner.layout;
        self.inner.shared(|state| {
            let state = &mut *state;
            let (row, blobs) = state.db.read("look up a layer", |tx| {
                Ok((layer_row(tx, layout, layer)?, layer_blobs(tx, self, layer)?))
            })?;
            let Some(row) = row else { return Err(StoreError::LayerMissing { layer }) };
            state.lease.hold_layer(layer, row.used_ms);
            self.inner.used_unsynced(row.unsynced);
            Ok(LayerInfo { tree: row.tree, created_ms: row.created_ms, of_image: row.of_image, blobs })
        })
    }

    /// The layer's tree; made from its blob, verified against its diff ID, where there is none. `below` are the
    /// layers under it (a hard link may point into them), whose trees are made first. Two callers at once do it once.
    ///
    /// # Errors
    ///
    /// [`StoreError::BlobMissing`] names a blob that has to be fetched first.
    pub fn layer_tree(&self, layer: LayerId, below: &[LayerId]) -> Result<PathBuf, StoreError> {
        let mut trees = Vec::with_capacity(below.len());
        if let Some(path) = self.present_tree(layer)? {
            return Ok(path);
        }
        for &lower in below {
            let tree = self.ensure_tree(lower, &trees)?;
            trees.push(tree);
        }
        self.ensure_tree(layer, &trees)
    }

    fn present_tree(&self, layer: LayerId) -> Result<Option<PathBuf>, StoreError> {
        let path = self.inner.layout.layer(layer);
        Ok(self.layer_info(layer)?.tree.then_some(path))
    }

    fn ensure_tree(&self, layer: LayerId, below: &[PathBuf]) -> Result<PathBuf, StoreError> {
        if let Some(path) = self.present_tree(layer)? {
            return Ok(path);
        }
        let lock = RangeLock::new(&self.inner.layout, "tree", &layer.0.to_le_bytes())?;
        lock.take(Mode::Exclusive)?;
        if let Some(path) = self.present_tree(layer)? {
            return Ok(path);
        }
        let mut blobs = self.layer_info(layer)?.blobs;
        // Bytes that were checked before are right; a claim may be wrong, and then there may be another one.
        blobs.sort_by_key(|blob| !blob.verified);
        let mut failed = None;
        for blob in blobs.iter().filter(|blob| blob.present) {
            match self.unpack_blob(layer, blob, below) {
                Ok(path) => return Ok(path),
                Err(error @ (StoreError::DiffIdMismatch { .. } | StoreError::BlobDamaged { .. })) => {
                    failed = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| match blobs.first() {
            Some(blob) => StoreError::BlobMissing { digest: blob.packed.blob.digest },
            None => StoreError::LayerMissing { layer },
        }))
    }

    fn unpack_blob(
        &self,
        layer: LayerId,
        blob: &LayerBlob,
        below: &[PathBuf],
    ) -> Result<PathBuf, StoreError> {
        let inner = &self.inner;
        let digest = blob.packed.blob.digest;
        let draft = self.draft_layer()?;
        let reader = io::BufReader::with_capacity(256 << 10, self.open_blob(digest)?);
        let failed = |source| StoreError::Unpack { blob: digest, source };
        let root = Root::open(draft.tree()).map_err(|error| failed(error.into()))?;
        let options =
            UnpackOptions { below: below.to_vec(), userns: in_user_namespace(), ..UnpackOptions::default() };
        let unpacked = match unpack(reader, &root, &options, &|_| {}) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                // A blob that is not what it says can fail in any way.
                self.verify_blob(digest)?;
                return Err(failed(error.into()));
            }
        };
        if unpacked.diff_id != blob.packed.diff_id {
            self.verify_blob(digest)?;
            self.forget_claim(digest, blob.packed.diff_id)?;
            return Err(StoreError::DiffIdMismatch {
                blob: digest,
                expected: blob.packed.diff_id,
                actual: unpacked.diff_id,
            });
        }
        let target = inner.layout.layer(layer);
        inner.shared(|state| {
            let state = &mut *state;
            state.db.write("note a layer's tree", |tx| {
                let seq = next_seq(tx)?;
                tx.prepare_cached("UPDATE layers SET tree = 1, tree_size = NULL, unsynced = ? WHERE id = ?")?
                    .execute(params![seq, layer.0])?;
                note_verified(tx, digest, blob.packed.diff_id)?;
                place(state.lease, draft.tree(), &target)?;
                Ok(())
            })
        })?;
        inner.used_unsynced(true);
        Ok(target)
    }

    /// The layer as a blob; made from its tree where there is none with this compression (any will do if `force` is
    /// false). `progress` gets bytes of tar done. `clamp`: no file is newer than this (seconds since 1970); the layers of
    /// an image that was pulled stay as they are. Two callers at once do it once.
    ///
    /// # Errors
    ///
    /// [`StoreError::BlobMissing`] names a blob that has to be fetched first.
    pub fn layer_blob(
        &self,
        layer: LayerId,
        compression: Compression,
        force: bool,
        clamp: Option<i64>,
        progress: &dyn Fn(u64),
    ) -> Result<Packed, StoreError> {
        let wanted = Wanted { compression, force, clamp: clamp.unwrap_or(NOT_CLAMPED) };
        if let Some(packed) = self.present_blob(self.layer_info(layer)?, wanted)? {
            return Ok(packed);
        }
        let key = [layer.0.to_le_bytes(), wanted.clamp.to_le_bytes()].concat();
        let lock = RangeLock::new(&self.inner.layout, "pack", &key)?;
        lock.take(Mode::Exclusive)?;
        let info = self.layer_info(layer)?;
        if let Some(packed) = self.present_blob(info.clone(), wanted)? {
            return Ok(packed);
        }
        if !info.tree {
            return Err(match info.blobs.first() {
                Some(blob) if !blob.present => StoreError::BlobMissing { digest: blob.packed.blob.digest },
                Some(_) => return self.recompress(layer, &info, compression, progress),
                None => StoreError::LayerMissing { layer },
            });
        }
        if info.of_image && info.blobs.iter().any(|blob| blob.present) {
            return self.recompress(layer, &info, compression, progress);
        }
        self.pack_tree(layer, compression, clamp, progress)
    }

    fn pack_tree(
        &self,
        layer: LayerId,
        compression: Compression,
        clamp: Option<i64>,
        progress: &dyn Fn(u64),
    ) -> Result<Packed, StoreError> {
        let tree = self.inner.layout.layer(layer);
        let mut writer = self.blob_writer()?;
        let options = PackOptions { compression, level: None, clamp };
        let tarred = pack(&tree, &mut writer, &options, progress)
            .map_err(|source| StoreError::Pack { path: tree, source: source.into() })?;
        commit_packed(writer, layer, clamp.unwrap_or(NOT_CLAMPED), compression, tarred.diff_id)
    }

    /// A blob of the layer that is there and right.
    fn present_blob(&self, info: LayerInfo, wanted: Wanted) -> Result<Option<Packed>, StoreError> {
        let mut blobs: Vec<_> = info
            .blobs
            .into_iter()
            .filter(|blob| {
                blob.present && (blob.clamp == wanted.clamp || info.of_image && blob.clamp == NOT_CLAMPED)
            })
            .collect();
        blobs.retain(|blob| {
            !wanted.force || compression_of(&blob.packed.blob.media_type) == Some(wanted.compression)
        });
        blobs.sort_by_key(|blob| {
            (!blob.verified, compression_of(&blob.packed.blob.media_type) != Some(wanted.compression))
        });
        let mut failed = None;
        for blob in blobs {
            if !self.has_blob(blob.packed.blob.digest) {
                continue;
            }
            match self.verify_claim(&blob) {
                Ok(()) => {
                    let mut packed = blob.packed;
                    if let Some(compression) = compression_of(&packed.blob.media_type)
                        .filter(|_| !is_foreign(&packed.blob.media_type))
                    {
                        packed.blob.media_type = media_type(compression).into();
                    }
                    return Ok(Some(packed));
                }
                Err(error @ (StoreError::DiffIdMismatch { .. } | StoreError::BlobDamaged { .. })) => {
                    failed = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        // Where there is a tree, the layer can still be packed.
        match failed {
            Some(error) if !info.tree => Err(error),
            _ => Ok(None),
        }
    }

    /// Forgets that `digest` is said to have this diff ID.
    pub(super) fn forget_claim(&self, digest: Digest, diff_id: Digest) -> Result<(), StoreError> {
        self.inner.state().db.write("forget a claim", |tx| {
            tx.execute(
                "DELETE FROM layer_blobs WHERE digest = ? AND diff_id = ?",
                [digest.as_bytes(), diff_id.as_bytes()],
            )?;
            Ok(())
        })
    }

    /// Reads a blob whole, and checks that it hashes to its name.
    pub fn verify_blob(&self, digest: Digest) -> Result<(), StoreError> {
        let mut reader = self.blob_reader(digest)?;
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.downcast::<StoreError>() {
                Ok(error) => error,
                Err(error) => io_error("read", self.inner.layout.blob(digest))(error),
            }),
        }
    }
}

/// Stores a blob that is a form of a layer. The diff ID was computed here.
pub(super) fn commit_packed(
    writer: BlobWriter,
    layer: LayerId,
    clamp: i64,
    compression: Compression,
    diff_id: Digest,
) -> Result<Packed, StoreError> {
    let packed = |digest, size| Packed {
        blob: Descriptor { media_type: media_type(compression).into(), digest, size },
        diff_id,
    };
    let (digest, size) = writer.commit_with(&|tx, digest, size| {
        enter_blob(tx, layer, clamp, &packed(digest, size), true)?;
        note_verified(tx, digest, diff_id)?;
        Ok(())
    })?;
    Ok(packed(digest, size))
}

#[derive(Clone, Copy)]
struct Wanted {
    compression: Compression,
    force: bool,
    clamp: i64,
}

/// Are device nodes and `trusted.` xattrs beyond the process, in a user namespace or without any rights?
fn in_user_namespace() -> bool {
    !rustix::process::geteuid().is_root() || crate::root::ids::in_user_namespace()
}

/// Each layer with its diff ID and chain ID.
fn zip_chain<'a>(
    diff_ids: &'a [Digest],
    blobs: &'a [Descriptor],
) -> impl Iterator<Item = (Digest, Digest, &'a Descriptor)> {
    let chain = diff_ids.iter().scan(None, |below: &mut Option<Digest>, &diff_id| {
        let chain = below.map_or(diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()));
        *below = Some(chain);
        Some(chain)
    });
    diff_ids.iter().copied().zip(chain).zip(blobs).map(|((diff_id, chain), blob)| (diff_id, chain, blob))
}

fn check_layer_blob(blob: &Descriptor, present: Option<u64>) -> Result<(), StoreError> {
    let Descriptor { media_type, digest, size } = blob;
    if compression_of(media_type).is_none() {
        let media_type = media_type.chars().take(100).collect();
        return Err(StoreError::UnknownLayer { digest: *digest, media_type });
    }
    match present {
        Some(actual) if actual != *size => {
            Err(StoreError::SizeMismatch { digest: *digest, expected: *size, actual })
        }
        None if is_foreign(media_type) => {
            Err(StoreError::ForeignLayer { digest: *digest, media_type: media_type.clone() })
        }
        _ => Ok(()),
    }
}

/// The layer with this chain ID, or one that was made here and packed into this diff ID. It must be there, and know the
/// blob.
fn find_layer(
    tx: &Connection,
    store: &Store,
    diff_id: Digest,
    chain: Digest,
    blob: &Descriptor,
) -> Result<Option<(Layer, LayerRow)>, Fail> {
    let mut statement = tx.prepare_cached(
        "SELECT id FROM layers WHERE chain = ?1 AND EXISTS (SELECT 1 FROM layer_blobs WHERE layer = id AND digest = ?2)
         UNION ALL
         SELECT layer FROM layer_blobs JOIN layers ON id = layer
         WHERE layer_blobs.diff_id = ?3 AND clamp = ?4 AND verified AND chain IS NULL",
    )?;
    let mut rows = statement.query(params![
        chain.as_bytes(),
        blob.digest.as_bytes(),
        diff_id.as_bytes(),
        NOT_CLAMPED
    ])?;
    while let Some(row) = rows.next()? {
        let id = LayerId(row.get(0)?);
        if let Some(row) = layer_row(tx, &store.inner.layout, id)? {
            return Ok(Some((Layer { id, content: row.content }, row)));
        }
    }
    Ok(None)
}

fn enter_layer(
    tx: &Connection,
    store: &Store,
    diff_id: Digest,
    chain: Digest,
    blob: &Descriptor,
    present: bool,
) -> Result<(Layer, LayerRow), Fail> {
    let content = Digest::of(&[b"bricklayer diff-id\0".as_slice(), diff_id.as_bytes()].concat());
    let now = now_ms();
    let id = tx
        .prepare_cached(
            "INSERT INTO layers (content, chain, diff_id, tree, remote, unsynced, created_ms, used_ms)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?6)
             ON CONFLICT (chain) DO UPDATE SET remote = MAX(remote, excluded.remote), unsynced = excluded.unsynced
             RETURNING id",
        )?
        .query_one(
            params![content.as_bytes(), chain.as_bytes(), diff_id.as_bytes(), !present, next_seq(tx)?, now],
            |row| row.get(0).map(LayerId),
        )?;
    let packed = Packed { blob: blob.clone(), diff_id };
    let verified = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM layer_blobs WHERE digest = ? AND diff_id = ? AND verified)",
        )?
        .query_one([blob.digest.as_bytes(), diff_id.as_bytes()], |row| row.get(0))?;
    enter_blob(tx, id, NOT_CLAMPED, &packed, verified)?;
    match layer_row(tx, &store.inner.layout, id)? {
        Some(row) => Ok((Layer { id, content }, row)),
        None => Err(StoreError::BlobMissing { digest: blob.digest }.into()),
    }
}

fn enter_blob(
    tx: &Connection,
    layer: LayerId,
    clamp: i64,
    packed: &Packed,
    verified: bool,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "INSERT INTO layer_blobs (layer, clamp, digest, size, media_type, diff_id, verified) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (layer, clamp, digest) DO UPDATE SET verified = MAX(verified, excluded.verified)",
    )?
    .execute(params![
        layer.0,
        clamp,
        packed.blob.digest.as_bytes(),
        packed.blob.size.cast_signed(),
        packed.blob.media_type,
        packed.diff_id.as_bytes(),
        verified
    ])?;
    Ok(())
}

pub(super) fn note_verified(tx: &Connection, digest: Digest, diff_id: Digest) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "UPDATE layer_blobs SET verified = 1 WHERE digest = ? AND diff_id = ? AND verified = 0",
    )?
    .execute([digest.as_bytes(), diff_id.as_bytes()])?;
    Ok(())
}

fn layer_blobs(tx: &Connection, store: &Store, layer: LayerId) -> Result<Vec<LayerBlob>, rusqlite::Error> {
    let mut statement = tx.prepare_cached(
        "SELECT digest, layer_blobs.size, media_type, diff_id, verified, clamp, blobs.size
         FROM layer_blobs LEFT JOIN blobs USING (digest) WHERE layer = ?",
    )?;
    let rows = statement.query_map([layer.0], |row| {
        let digest = digest_column(row, 0)?;
        let size = row.get::<_, i64>(1)?.cast_unsigned();
        let stored = row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned);
        Ok(LayerBlob {
            packed: Packed {
                blob: Descriptor { media_type: row.get(2)?, digest, size },
                diff_id: digest_column(row, 3)?,
            },
            present: stored.is_some() && file_size(&store.inner.layout.blob(digest)) == stored,
            verified: row.get(4)?,
            clamp: row.get(5)?,
        })
    })?;
    let mut blobs = rows.collect::<Result<Vec<_>, _>>()?;
    blobs.sort_by_key(|blob| !blob.present);
    Ok(blobs)
}

/// The media type of a layer that this program makes (OCI image-spec, media-types.md).
pub(super) fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

/// What a layer of this media type is compressed with; `None`: it is no layer.
pub(super) fn compression_of(media_type: &str) -> Option<Compression> {
    const TARS: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let suffix = TARS.iter().find_map(|tar| media_type.strip_prefix(tar))?;
    match suffix {
        "" => Some(Compression::None),
        "+gzip" | ".gzip" => Some(Compression::Gzip),
        "+zstd" | ".zstd" => Some(Compression::Zstd),
        _ => None,
    }
}
