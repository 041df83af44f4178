//! tar → tree: OCI image-spec `layer.md`, "Applying Changesets"; and the unpacking of ADD.
//!
//! One thread decompresses and hashes, the calling one makes the files. Everything is done relative to descriptors of
//! directories below the destination; links on the way to an entry are resolved by [`place`] inside of it, an entry's own
//! name never is. What is remembered of an archive (times of directories, whiteouts) has a budget.

mod below;
mod files;
mod place;
mod stream;

use std::io::Read;
use std::path::PathBuf;

use bricklayer_solver::Digest;

use super::LayerError;
use super::tar::TarReader;
use crate::root::Root;

/// What an archive is unpacked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A layer, into an empty directory: whiteouts become those of overlayfs.
    #[default]
    Layer,
    /// Files, into a directory that may hold some (ADD): whiteout names are ordinary names, the archive's root entry changes
    /// nothing. Links are resolved as if the directory were the root.
    Files,
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// As what.
    pub mode: Mode,
    /// The trees under a layer, lowest first: directories that the archive implies take their metadata from there,
    /// links on the way to an entry are followed there, and hard links may point there.
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
    /// Did something come from the layers below (metadata of an implied directory, a link on the way, a hard link's
    /// file, names that a whole-root whiteout hides)? Then the tree is right on these layers only.
    pub used_below: bool,
}

/// Unpacks an archive, compressed or not (its first bytes tell), into `dest`; nothing outside of it is touched.
/// `progress` gets the bytes of the uncompressed stream so far, on the calling thread.
///
/// Owners, modes, xattrs and times are set as the archive has them, whatever the umask; times of directories at the end.
/// On an error `dest` holds part of the archive.
///
/// # Errors
///
/// - [`LayerError::Malformed`] and [`LayerError::Refused`] for archives that are broken or unsafe,
/// - [`LayerError::TooLarge`] and [`LayerError::TooManyEntries`] at the limits of `options`,
/// - [`LayerError::Read`] if the reader fails or its compression is broken,
/// - [`LayerError::Io`] if a file cannot be made.
pub fn unpack(
    reader: impl Read + Send,
    dest: &Root,
    options: &UnpackOptions,
    progress: &dyn Fn(u64),
) -> Result<Unpacked, LayerError> {
    let mut extractor = files::Extractor::new(dest, options)?;
    let (entries, stream) = stream::with_decoded(reader, options.max_size, progress, |source| {
        let mut tar = TarReader::new(source);
        let mut entries = 0;
        while let Some(entry) = tar.next_entry()? {
            entries += 1;
            if entries > options.max_entries {
                return Err(LayerError::TooManyEntries { limit: options.max_entries });
            }
            extractor.entry(&entry, &mut tar)?;
        }
        tar.drain()?;
        Ok(entries)
    })?;
    let used_below = extractor.finish()?;
    Ok(Unpacked { diff_id: stream.digest, tar_size: stream.size, entries, used_below })
}
