//! A layer's blob with another compression, and the check of what a blob is said to unpack to. The tar itself stays as it
//! is, byte for byte, and with it the diff ID.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;
use sha2::Digest as _;

use super::error::{StoreError, io_error};
use super::layers::{LayerBlob, LayerInfo, NOT_CLAMPED, commit_packed, compression_of};
use super::{Compression, Packed, Store};

const BUFFER: usize = 256 << 10;

/// The largest tar that is read, in bytes: a few kilobytes of zeros, well compressed, must not keep a machine busy for days.
const MAX_TAR: u64 = 1 << 40;

impl Store {
    /// Makes another blob of a layer from the one that it has.
    pub(super) fn recompress(
        &self,
        layer: LayerId,
        info: &LayerInfo,
        compression: Compression,
        progress: &dyn Fn(u64),
    ) -> Result<Packed, StoreError> {
        let Some(source) = info.blobs.iter().find(|blob| blob.present) else {
            return Err(StoreError::LayerMissing { layer });
        };
        let mut writer = self.blob_writer()?;
        let failed = |source| StoreError::Pack { path: self.inner.layout.blobs(), source };
        let write = |encoder: &mut dyn Write| self.copy_tar(source, encoder, progress);
        match compression {
            Compression::None => write(&mut writer)?,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut writer, flate2::Compression::default());
                write(&mut encoder)?;
                encoder.finish().map_err(|error| failed(error.into()))?;
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(&mut writer, 0).map_err(|error| failed(error.into()))?;
                write(&mut encoder)?;
                encoder.finish().map_err(|error| failed(error.into()))?;
            }
        }
        commit_packed(writer, layer, NOT_CLAMPED, compression, source.packed.diff_id)
    }

    /// Checks that a blob unpacks to the diff ID that it is said to have; a wrong claim is forgotten.
    pub(super) fn verify_claim(&self, blob: &LayerBlob) -> Result<(), StoreError> {
        if blob.verified {
            return Ok(());
        }
        self.copy_tar(blob, &mut io::sink(), &|_| {})?;
        self.inner.state().db.write("note a layer's blob", |tx| {
            super::layers::note_verified(tx, blob.packed.blob.digest, blob.packed.diff_id)?;
            Ok(())
        })
    }

    /// Copies the tar in a blob to `target`, and checks its diff ID.
    fn copy_tar(
        &self,
        blob: &LayerBlob,
        target: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), StoreError> {
        let digest = blob.packed.blob.digest;
        let failed = |source: io::Error| StoreError::Unpack { blob: digest, source: source.into() };
        let mut tar =
            decoder(self.open_blob(digest)?, &blob.packed.blob.media_type).map_err(failed)?.take(MAX_TAR);
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; BUFFER];
        let mut done = 0;
        loop {
            let count = match tar.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.verify_blob(digest)?;
                    return Err(failed(error));
                }
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            target.write_all(bytes).map_err(io_error("write", self.inner.layout.ingest()))?;
            done += count as u64;
            progress(done);
        }
        let actual = Digest::from_bytes(hasher.finalize().into());
        if actual == blob.packed.diff_id {
            return Ok(());
        }
        self.verify_blob(digest)?;
        self.forget_claim(digest, blob.packed.diff_id)?;
        Err(StoreError::DiffIdMismatch { blob: digest, expected: blob.packed.diff_id, actual })
    }
}

/// Reads the tar in a blob. Several gzip members or zstd frames in a row are one stream.
fn decoder(file: File, media_type: &str) -> io::Result<Box<dyn Read>> {
    let reader = BufReader::with_capacity(BUFFER, file);
    Ok(match compression_of(media_type) {
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Some(Compression::Zstd) => Box::new(zstd::Decoder::with_buffer(reader)?),
        Some(Compression::None) | None => Box::new(reader),
    })
}
