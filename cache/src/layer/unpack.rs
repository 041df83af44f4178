//! tar → tree.

use std::io::Read;
use std::path::PathBuf;

use bricklayer_solver::Digest;

use super::LayerError;
use crate::root::Root;

/// What an archive is unpacked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A layer, into an empty directory: whiteouts become those of overlayfs.
    #[default]
    Layer,
    /// Files, into a directory that may hold some (ADD): whiteout names are ordinary names, the archive's root entry changes
    /// nothing.
    Files,
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// As what.
    pub mode: Mode,
    /// The trees under a layer, lowest first: directories that the archive implies take their metadata from there, and
    /// hard links may point there.
    pub below: Vec<PathBuf>,
    /// In a user namespace: opaque directories are marked with `user.overlay.opaque`, device nodes are left out.
    pub userns: bool,
    /// Owner of everything, instead of what the archive says.
    pub owner: Option<(u32, u32)>,
    /// How large the uncompressed archive may be, in bytes.
    pub max_size: u64,
    /// How many entries it may have.
    pub max_entries: u64,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Layer,
            below: Vec::new(),
            userns: false,
            owner: None,
            max_size: 1 << 40,
            max_entries: 10_000_000,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// sha256 of the uncompressed stream, all of it.
    pub diff_id: Digest,
    /// Length of the uncompressed stream in bytes.
    pub tar_size: u64,
    /// Entries in the archive.
    pub entries: u64,
    /// Did something come from the layers below (metadata of an implied directory, a hard link's file)? Then the tree
    /// is right on these layers only.
    pub used_below: bool,
}

/// Unpacks an archive, compressed or not (its first bytes tell), into `dest`; nothing outside of it is touched. `progress` gets
/// the bytes of the uncompressed stream as they are read.
///
/// On an error `dest` holds part of the archive.
pub fn unpack(
    reader: impl Read + Send,
    dest: &Root,
    options: &UnpackOptions,
    progress: &dyn Fn(u64),
) -> Result<Unpacked, LayerError> {
    let _ = (reader, dest, options, progress);
    unimplemented!()
}
