//! tree → tar → blob.

use std::io::Write;
use std::path::Path;

use bricklayer_solver::Digest;

use super::LayerError;
use crate::store::Compression;

/// How a tree is packed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// With what the tar is compressed.
    pub compression: Compression,
    /// How hard: 1 to 9 for gzip, 1 to 22 for zstd; `None`: what is best for most.
    pub level: Option<i32>,
    /// No file is newer than this (seconds since 1970).
    pub clamp: Option<i64>,
}

/// A tar that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tarred {
    /// sha256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Its length in bytes.
    pub tar_size: u64,
}

/// Packs a layer's tree: the same bytes for the same tree and options, whatever the number of cores. `progress` gets the
/// bytes of tar done so far, on the calling thread.
pub fn pack(
    tree: &Path,
    out: &mut (dyn Write + Send),
    options: &PackOptions,
    progress: &dyn Fn(u64),
) -> Result<Tarred, LayerError> {
    let _ = (tree, out, options, progress);
    unimplemented!()
}
