//! Blobs: bytes under their SHA-256, in `oci/blobs/sha256/`.
//!
//! A blob is there if its row and its file are, and the file has the size that the row says. Whoever finds it otherwise
//! removes both and names it. Digests are checked whenever all bytes pass through here: on the way in, by
//! [`Store::read_blob`], and by [`BlobReader`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::Digest as _;

use super::Store;
use super::db::{Fail, next_seq};
use super::error::{StoreError, io_error};
use super::now_ms;

const BUFFER: usize = 256 << 10;

/// A blob up to this size needs no file if the store turns out to have it already.
pub(super) const SMALL: usize = 64 << 10;

/// A blob that is being written: bytes are hashed, and go to `ingest/` when they are more than a few. Dropped without
/// [`commit`](Self::commit), it is removed.
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    file: Option<File>,
    hasher: sha2::Sha256,
    size: u64,
}

/// What is to be known of a blob with this digest and size, to be written in the transaction that enters it.
pub(super) type Also<'a> = &'a dyn Fn(&Connection, Digest, u64) -> Result<(), Fail>;

impl BlobWriter {
    /// Checks digest and size, and makes it visible under its digest. One that is already there is left alone.
    /// Returns digest and size in bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::SizeMismatch`] and [`StoreError::DigestMismatch`] if it is not what was expected: nothing is stored.
    pub fn commit(self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        self.finish(expected, None)
    }

    /// Makes it visible under its digest; what `also` writes about it comes with it.
    pub(super) fn commit_with(self, also: Also<'_>) -> Result<(Digest, u64), StoreError> {
        self.finish(None, Some(also))
    }

    fn finish(
        mut self,
        expected: Option<(Digest, u64)>,
        also: Option<Also<'_>>,
    ) -> Result<(Digest, u64), StoreError> {
        let actual = Digest::from_bytes(self.hasher.clone().finalize().into());
        if let Some((digest, size)) = expected {
            if size != self.size {
                return Err(StoreError::SizeMismatch { digest, expected: size, actual: self.size });
            }
            if digest != actual {
                return Err(StoreError::DigestMismatch { expected: digest, actual });
            }
        }
        if !self.store.hold_known_blob(actual, self.size)? {
            self.write_out().map_err(io_error("write", &self.path))?;
            self.store.publish_blob(&self.path, actual, self.size, also)?;
        } else if let Some(also) = also {
            self.store
                .inner
                .shared(|state| state.db.write("note what a blob is", |tx| also(tx, actual, self.size)))?;
        }
        Ok((actual, self.size))
    }

    /// Writes to the file what waits.
    fn write_out(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut new = OpenOptions::new();
                new.write(true).create_new(true).mode(0o400);
                self.file.insert(new.open(&self.path)?)
            }
        };
        file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > SMALL {
            self.write_out()?;
        }
        let written = match &mut self.file {
            // Nothing waits: the file is there only when all was written out.
            Some(file) if bytes.len() >= SMALL => file.write(bytes)?,
            _ => {
                self.buffer.extend_from_slice(bytes);
                bytes.len()
            }
        };
        if let Some(bytes) = bytes.get(..written) {
            self.hasher.update(bytes);
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing at this path any more, unless the blob was known.
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a blob, and checks at its end that it was the right one: a damaged blob is removed from the store, and the last
/// read fails with [`StoreError::BlobDamaged`] inside of an [`io::Error`].
pub struct BlobReader {
    store: Store,
    file: File,
    digest: Digest,
    size: u64,
    read: u64,
    hasher: sha2::Sha256,
}

impl BlobReader {
    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn check(&mut self) -> Result<(), StoreError> {
        let actual = Digest::from_bytes(self.hasher.clone().finalize().into());
        if actual != self.digest {
            return Err(self.store.damaged(self.digest, format!("its bytes hash to {actual}")));
        }
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.file.read(buffer)?;
        if let Some(bytes) = buffer.get(..count) {
            self.hasher.update(bytes);
        }
        self.read += count as u64;
        // The last bytes are not handed out unchecked: who stops reading there must not go on with them.
        if count == 0 || self.read >= self.size {
            self.check().map_err(io::Error::other)?;
        }
        Ok(count)
    }
}

impl Store {
    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let path = self.inner.state().lease.draft("blob")?;
        let (buffer, hasher) = (Vec::new(), sha2::Sha256::new());
        Ok(BlobWriter { store: self.clone(), path, buffer, file: None, hasher, size: 0 })
    }

    /// Copies a blob in, hashing on the way: at most `size` bytes and one more are read, in blocks of 256 KiB.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`], [`StoreError::SizeMismatch`] and [`StoreError::DigestMismatch`] if `source` yields something
    /// else: nothing is stored.
    pub fn put_blob(&self, source: &mut dyn Read, digest: Digest, size: u64) -> Result<(), StoreError> {
        let mut writer = self.blob_writer()?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(StoreError::Source { digest, source }),
            };
            if count == 0 {
                break;
            }
            if count as u64 > size - writer.size {
                return Err(StoreError::TooLarge { digest, limit: size });
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            writer.write_all(bytes).map_err(io_error("write", &writer.path))?;
        }
        writer.commit(Some((digest, size)))?;
        Ok(())
    }

    /// Is it there (with the right size)? What was found stays while the lease lives.
    pub fn has_blob(&self, digest: Digest) -> bool {
        matches!(self.blob_size(digest), Ok(Some(_)))
    }

    /// The size in bytes of a blob that is there; it stays while the lease lives.
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let path = self.inner.layout.blob(digest);
        let found = self.inner.shared(|state| {
            let state = &mut *state;
            if let Some(&(size, _)) = state.lease.blobs.get(&digest) {
                return Ok(Some(size));
            }
            let row = state.db.read("look up a blob", |tx| Ok(blob_row(tx, digest)?))?;
            let Some(row) = row else { return Ok(None) };
            if file_size(&path) == Some(row.size) {
                state.lease.hold_blob(digest, row.size, row.used_ms);
                self.inner.used_unsynced(row.unsynced);
            }
            Ok(Some(row.size))
        })?;
        match found {
            Some(size) if file_size(&path) == Some(size) => Ok(Some(size)),
            Some(_) => {
                self.forget_blob(digest)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Opens a blob. Its size was checked, its bytes were not; see [`blob_reader`](Self::blob_reader).
    pub fn open_blob(&self, digest: Digest) -> Result<File, StoreError> {
        Ok(self.open_sized(digest)?.0)
    }

    /// Opens a blob for reading it whole: what leaves the store goes through here.
    pub fn blob_reader(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        let (file, size) = self.open_sized(digest)?;
        Ok(BlobReader { store: self.clone(), file, digest, size, read: 0, hasher: sha2::Sha256::new() })
    }

    /// Reads a small blob (manifest, config): verified, at most `limit` bytes.
    pub fn read_blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open_sized(digest)?;
        if size > limit {
            return Err(StoreError::TooLarge { digest, limit });
        }
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", self.inner.layout.blob(digest)))?;
        let actual = Digest::of(&bytes);
        if actual != digest {
            return Err(self.damaged(digest, format!("its bytes hash to {actual}")));
        }
        Ok(bytes)
    }

    fn open_sized(&self, digest: Digest) -> Result<(File, u64), StoreError> {
        let Some(size) = self.blob_size(digest)? else { return Err(StoreError::BlobMissing { digest }) };
        let path = self.inner.layout.blob(digest);
        Ok((File::open(&path).map_err(io_error("open", path))?, size))
    }

    /// Holds a blob of this size if the store has it.
    fn hold_known_blob(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let target = self.inner.layout.blob(digest);
        self.inner.shared(|state| {
            let known = state.db.read("look up a blob", |tx| Ok(blob_row(tx, digest)?))?;
            let row = known.filter(|row| row.size == size && file_size(&target) == Some(size));
            if let Some(row) = &row {
                state.lease.hold_blob(digest, size, row.used_ms);
                self.inner.used_unsynced(row.unsynced);
            }
            Ok(row.is_some())
        })
    }

    /// Gives the finished file at `draft` its name.
    fn publish_blob(
        &self,
        draft: &Path,
        digest: Digest,
        size: u64,
        also: Option<Also<'_>>,
    ) -> Result<(), StoreError> {
        let target = self.inner.layout.blob(digest);
        self.inner.shared(|state| {
            let state = &mut *state;
            let now = now_ms();
            state.lease.hold_blob(digest, size, now);
            state.lease.write()?;
            fs::rename(draft, &target).map_err(io_error("create", &target))?;
            state.db.write("note a blob", |tx| {
                let seq = next_seq(tx)?;
                tx.prepare_cached(
                    "INSERT INTO blobs (digest, size, unsynced, created_ms, used_ms) VALUES (?1, ?2, ?3, ?4, ?4)
                     ON CONFLICT (digest) DO UPDATE SET size = ?2, unsynced = ?3, used_ms = ?4",
                )?
                .execute(params![digest.as_bytes(), size.cast_signed(), seq, now])?;
                also.map_or(Ok(()), |also| also(tx, digest, size))
            })?;
            self.inner.used_unsynced(true);
            Ok(())
        })
    }

    /// Removes a blob whose bytes are wrong, and says so.
    pub(super) fn damaged(&self, digest: Digest, what: String) -> StoreError {
        match self.forget_blob(digest) {
            Ok(()) => StoreError::BlobDamaged { digest, what },
            Err(error) => error,
        }
    }

    /// Removes a blob that is not what it says: first its row, then its file.
    fn forget_blob(&self, digest: Digest) -> Result<(), StoreError> {
        let path = self.inner.layout.blob(digest);
        self.inner.shared(|state| {
            state.lease.blobs.remove(&digest);
            state.db.write("forget a blob", |tx| {
                tx.execute("DELETE FROM blobs WHERE digest = ?", [digest.as_bytes()])?;
                Ok(())
            })?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove", &path)(error))
                }
                _ => Ok(()),
            }
        })
    }
}

/// What the database knows of a blob.
pub(super) struct BlobRow {
    pub(super) size: u64,
    pub(super) unsynced: bool,
    pub(super) used_ms: i64,
}

pub(super) fn blob_row(tx: &Connection, digest: Digest) -> Result<Option<BlobRow>, rusqlite::Error> {
    tx.prepare_cached("SELECT size, unsynced IS NOT NULL, used_ms FROM blobs WHERE digest = ?")?
        .query_one([digest.as_bytes()], |row| {
            Ok(BlobRow {
                size: row.get::<_, i64>(0)?.cast_unsigned(),
                unsynced: row.get(1)?,
                used_ms: row.get(2)?,
            })
        })
        .optional()
}

/// The size of a regular file; `None`: there is none.
pub(super) fn file_size(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// A digest from a column; one of another length means that the database is damaged.
pub(super) fn digest_column(row: &rusqlite::Row<'_>, index: usize) -> Result<Digest, rusqlite::Error> {
    row.get::<_, [u8; 32]>(index).map(Digest::from_bytes)
}
