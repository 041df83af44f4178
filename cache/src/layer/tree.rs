//! The content digest of a tree.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use bricklayer_solver::Digest;

use super::LayerError;
use crate::root::Metadata;
use crate::root::at::Xattr;

/// Digest of everything that a layer's tar would hold, but no times: path, type, mode, owner, link target, device, xattrs,
/// content, whiteouts, hard links.
pub fn content_digest(tree: &Path) -> Result<Digest, LayerError> {
    let _ = tree;
    unimplemented!()
}

/// What a file's digest is made of. Change a field (the owner, say) to get the digest of the file as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Type, mode, owner, device (size, times and inode are not in the digest).
    pub metadata: Metadata,
    /// The text of a symbolic link.
    pub target: Vec<u8>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// BLAKE3 of a regular file's content.
    pub content: Option<[u8; 32]>,
}

impl FileFacts {
    /// Reads a file's facts: its content, link target and the xattrs that belong to a layer.
    pub fn read(dir: BorrowedFd<'_>, name: &OsStr, metadata: Metadata) -> Result<Self, LayerError> {
        let _ = (dir, name, metadata);
        unimplemented!()
    }

    /// Their digest: the same for a file in a tree and for a file that COPY selects.
    pub fn digest(&self) -> Digest {
        unimplemented!()
    }
}
