//! The digest of what a selection finds: what cache keys are made of.
//!
//! Equal digests mean equal copies but for times. For a directory that is selected by its own path its mode, owner and
//! xattrs count too: COPY ignores them, but a mount shows them. Those of a local directory's top never count.
//!
//! # Encoding
//!
//! SHA-256 over the following; numbers are little endian, `bytes` is a `u64` length and that many bytes.
//!
//! ```text
//! selection = "bricklayer content 1\0", item*
//! item      = 1, name bytes, facts                                    (a file)
//!           | 2, 0 | 1 facts, number u64, (path bytes, entry)*        (a directory: itself perhaps, what is below it)
//! entry     = 0 facts | 1 SHA-256 of path bytes        (a further name of a file of the same item: its first path)
//! facts     = [32] as in [`bricklayer_cache::layer::tree`], of the file as it is copied
//! ```
//!
//! Paths are below the item's directory. The xattrs are those that belong to a layer.

use std::collections::HashMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bricklayer_cache::layer::tree::FileFacts;
use bricklayer_cache::layer::xattr;
use bricklayer_cache::root::at::{self, Xattr};
use bricklayer_cache::root::{Kind, Metadata};
use bricklayer_solver::Digest;
use bricklayer_solver::op::Selection;
use bricklayer_solver::worker::Content;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::FilesError;
use super::select::{Item, select};
use super::tree::{Entry, SourceTree};

/// How many files a [`Content`] lists at most.
pub const MAX_FILES: usize = 5_000;

/// The digest of what `selection` finds in `tree`, and the files that it found (with their paths in the tree).
pub fn content(tree: &SourceTree, selection: &Selection) -> Result<Content, FilesError> {
    let items = select(tree, selection)?;
    let mut hasher = Sha256::new();
    hasher.update(b"bricklayer content 1\0");
    let mut files = Vec::new();
    let mut truncated = false;
    let mut bytes = 0_u64;
    let mut count = |entry: &Entry| {
        if entry.kind() == Kind::File {
            bytes = bytes.saturating_add(entry.metadata().size);
        }
    };
    let mut list = |path: &Path, digest: &Digest| {
        if files.len() < MAX_FILES {
            files.push((path.to_string_lossy().into_owned(), *digest));
        } else {
            truncated = true;
        }
    };
    for item in &items {
        if item.top.kind() != Kind::Directory {
            let digest = entry_digest(tree, &item.top)?;
            hasher.update([1]);
            put_bytes(&mut hasher, item.name.as_bytes());
            hasher.update(digest.as_bytes());
            list(&item.top.path, &digest);
            count(&item.top);
            continue;
        }
        hasher.update([2]);
        if item.literal && !(tree.is_local() && item.top.path.as_os_str().is_empty()) {
            hasher.update([1]);
            hasher.update(entry_digest(tree, &item.top)?.as_bytes());
        } else {
            hasher.update([0]);
        }
        hasher.update((item.below.len() as u64).to_le_bytes());
        let digests = digests_below(tree, item)?;
        for (found, (link, digest)) in item.below.iter().zip(digests) {
            put_bytes(&mut hasher, found.rel.as_os_str().as_bytes());
            hasher.update([u8::from(link)]);
            hasher.update(digest.as_bytes());
            list(&found.entry.path, &digest);
            if !link {
                count(&found.entry);
            }
        }
    }
    Ok(Content { digest: Digest::from_bytes(hasher.finalize().into()), files, truncated, bytes })
}

/// The digests of what is below an item's directory, in order, and whether each is that of a hard link.
fn digests_below(tree: &SourceTree, item: &Item) -> Result<Vec<(bool, Digest)>, FilesError> {
    let links = hard_links(item);
    let work: Vec<_> = item.below.iter().zip(links).collect();
    work.into_par_iter()
        .with_min_len(16)
        .map(|(found, link)| match link {
            None => Ok((false, entry_digest(tree, &found.entry)?)),
            Some(first) => Ok((true, Digest::of(first.as_os_str().as_bytes()))),
        })
        .collect()
}

/// For each entry below an item: the first path of the same file, if it is not that one itself.
pub(crate) fn hard_links(item: &Item) -> Vec<Option<&Path>> {
    let mut first: HashMap<(u64, u64), &PathBuf> = HashMap::new();
    item.below
        .iter()
        .map(|found| {
            let metadata = found.entry.metadata();
            if metadata.kind != Kind::File || metadata.links < 2 {
                return None;
            }
            match first.entry((metadata.dev, metadata.ino)) {
                std::collections::hash_map::Entry::Occupied(path) => Some(path.get().as_path()),
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(&found.rel);
                    None
                }
            }
        })
        .collect()
}

/// What an entry is as it is copied: from a local directory without owner and xattrs, and a socket as an empty file.
pub(crate) fn as_copied(tree: &SourceTree, entry: &Entry) -> Metadata {
    let mut metadata = *entry.metadata();
    if tree.is_local() {
        metadata.uid = 0;
        metadata.gid = 0;
        if metadata.kind == Kind::Socket {
            metadata.kind = Kind::File;
            metadata.size = 0;
        }
    }
    if metadata.kind == Kind::Symlink {
        metadata.mode = 0o777;
    }
    metadata
}

/// Leaves of a file's extended attributes those that belong to a layer: the others are labels of this machine.
pub(crate) fn keep_copied(xattrs: &mut Vec<Xattr>) {
    xattrs.retain(|(name, _)| xattr::imported(name.as_bytes()));
}

/// The extended attributes of an entry that are copied.
pub(crate) fn copied_xattrs(tree: &SourceTree, entry: &Entry) -> Result<Vec<Xattr>, FilesError> {
    if tree.is_local() {
        return Ok(Vec::new());
    }
    let found = if entry.path.as_os_str().is_empty() {
        at::fxattrs(tree.root().as_fd())
    } else {
        at::xattrs(&tree.open_parent(entry)?, entry.name())
    };
    let mut xattrs = found.map_err(FilesError::io("read attributes of", &entry.path))?;
    keep_copied(&mut xattrs);
    Ok(xattrs)
}

fn entry_digest(tree: &SourceTree, entry: &Entry) -> Result<Digest, FilesError> {
    // First, since it looks at the file again.
    let content = match entry.kind() {
        Kind::File => Some(tree.content(entry)?),
        Kind::Socket if tree.is_local() => Some(*blake3::hash(b"").as_bytes()),
        _ => None,
    };
    let metadata = as_copied(tree, entry);
    let target = match metadata.kind {
        Kind::Symlink => tree.link_target(entry)?.into_os_string().into_vec(),
        _ => Vec::new(),
    };
    Ok(FileFacts { metadata, target, xattrs: copied_xattrs(tree, entry)?, content }.digest())
}

fn put_bytes(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
