//! The content digest of a tree: everything that its tar would hold, but no times.
//!
//! # Encoding, version 1
//!
//! Numbers are little-endian; `bytes` is a `u64` length and the bytes.
//!
//! ```text
//! tree   sha256( "bricklayer tree 1\n" entry* )
//! entry  bytes(path below the root; "" for the root itself) what
//! what   'W'                    a whiteout
//!        'L' bytes(first path)  another name of a file that came before
//!        'F' digest             anything else: the digest of its facts, below
//!        'O' digest             the same, of a directory that hides what is below it
//! facts  sha256( "bricklayer file 1\n" kind mode:u32 uid:u32 gid:u32 major:u32 minor:u32 bytes(link target)
//!                count:u64 ( bytes(xattr name) bytes(xattr value) )* content )
//! kind   'f' 'd' 'l' 'p' 'c' 'b'   file, directory, symbolic link, pipe, character device, block device
//! content 0 | 1 blake3(content)    1 for files
//! ```
//!
//! Entries are in the order of the tar: depth first, names sorted by bytes, the root first. Sockets are left out. The mode of
//! a symbolic link is 0777; xattrs are those that belong to a layer, sorted by name. Changing any of this changes every cache
//! key: then the version goes up.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use bricklayer_solver::Digest;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::LayerError;
use super::walk::{Visit, walk};
use super::xattr::{self, Marks};
use crate::root::at::Xattr;
use crate::root::{Kind, Metadata, Root, at};

/// Files that are read side by side.
const BATCH: usize = 256;

/// So few files with so few bytes are read by the calling thread: handing them to others, which may have to be started
/// first, takes longer.
const FEW: usize = 32;
const LITTLE: u64 = 256 << 10;

/// Digest of everything that a layer's tar would hold, but no times: path, type, mode, owner, link target, device, xattrs,
/// content, whiteouts, hard links. Files are read in parallel on rayon's pool.
pub fn content_digest(tree: &Path) -> Result<Digest, LayerError> {
    Ok(content(tree)?.digest)
}

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeContent {
    /// Its content digest.
    pub digest: Digest,
    /// Bytes of its files, each file once whatever number of names it has.
    pub bytes: u64,
}

/// The content digest of a tree ([`content_digest`]), and what it holds in bytes.
pub fn content(tree: &Path) -> Result<TreeContent, LayerError> {
    let root = Root::open(tree)?;
    let mut hasher = Sha256::new();
    hasher.update(b"bricklayer tree 1\n");
    let metadata = at::fstat(root.as_fd()).map_err(LayerError::io("look at", tree))?;
    let found = at::fxattrs(root.as_fd()).map_err(LayerError::io("read xattrs of", tree))?;
    let (xattrs, _) = xattr::split(found);
    let facts = FileFacts { metadata, target: Vec::new(), xattrs, content: None };
    feed(&mut hasher, b"", &What::Facts { digest: facts.digest(), opaque: false });

    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut batch: Vec<Job> = Vec::new();
    let mut bytes = 0_u64;
    walk(&root, &mut |visit: &Visit<'_>| {
        let metadata = visit.metadata;
        let path = visit.path.as_os_str().as_bytes().to_vec();
        let todo = if metadata.kind == Kind::Socket {
            return Ok(());
        } else if metadata.is_whiteout() {
            Todo::Known(What::Whiteout)
        } else if metadata.links > 1 && metadata.kind != Kind::Directory {
            match links.get(&(metadata.dev, metadata.ino)) {
                Some(first) => Todo::Known(What::Link(first.clone())),
                None => {
                    links.insert((metadata.dev, metadata.ino), path.clone());
                    Todo::Read { dir: Arc::clone(visit.dir), name: visit.name.to_owned(), metadata }
                }
            }
        } else {
            Todo::Read { dir: Arc::clone(visit.dir), name: visit.name.to_owned(), metadata }
        };
        if metadata.kind == Kind::File && matches!(todo, Todo::Read { .. }) {
            bytes = bytes.saturating_add(metadata.size);
        }
        batch.push(Job { path, todo });
        if batch.len() >= BATCH { run(&root, &mut batch, &mut hasher) } else { Ok(()) }
    })?;
    run(&root, &mut batch, &mut hasher)?;
    Ok(TreeContent { digest: Digest::from_bytes(hasher.finalize().into()), bytes })
}

struct Job {
    path: Vec<u8>,
    todo: Todo,
}

enum Todo {
    Known(What),
    Read { dir: Arc<OwnedFd>, name: OsString, metadata: Metadata },
}

enum What {
    Whiteout,
    Link(Vec<u8>),
    Facts { digest: Digest, opaque: bool },
}

/// Reads a batch, in parallel if it is worth it, and hashes its entries in their order.
fn run(root: &Root, batch: &mut Vec<Job>, hasher: &mut Sha256) -> Result<(), LayerError> {
    let batch = std::mem::take(batch);
    let small = batch.len() < FEW && batch.iter().map(Job::bytes).fold(0, u64::saturating_add) < LITTLE;
    let done: Vec<(Vec<u8>, What)> = if small {
        batch.into_iter().map(|job| job.run(root)).collect::<Result<_, LayerError>>()?
    } else {
        batch.into_par_iter().map(|job| job.run(root)).collect::<Result<_, LayerError>>()?
    };
    for (path, what) in &done {
        feed(hasher, path, what);
    }
    Ok(())
}

impl Job {
    /// How many bytes it reads.
    fn bytes(&self) -> u64 {
        match &self.todo {
            Todo::Read { metadata, .. } if metadata.kind == Kind::File => metadata.size,
            _ => 0,
        }
    }

    fn run(self, root: &Root) -> Result<(Vec<u8>, What), LayerError> {
        let what = match self.todo {
            Todo::Known(what) => what,
            Todo::Read { dir, name, metadata } => {
                let path = root.name().join(OsStr::from_bytes(&self.path));
                let (facts, marks) = read_facts(dir.as_fd(), &name, metadata, &path)?;
                if marks.elsewhere {
                    let what = "overlayfs keeps its content in another layer (redirect or metacopy)";
                    return Err(LayerError::Unpackable { path, what });
                }
                if marks.whiteout && metadata.kind == Kind::File && metadata.size == 0 {
                    What::Whiteout
                } else {
                    let opaque = marks.opaque && metadata.kind == Kind::Directory;
                    What::Facts { digest: facts.digest(), opaque }
                }
            }
        };
        Ok((self.path, what))
    }
}

fn feed(hasher: &mut Sha256, path: &[u8], what: &What) {
    put(hasher, path);
    match what {
        What::Whiteout => hasher.update(b"W"),
        What::Link(first) => {
            hasher.update(b"L");
            put(hasher, first);
        }
        What::Facts { digest, opaque } => {
            hasher.update(if *opaque { b"O" } else { b"F" });
            hasher.update(digest.as_bytes());
        }
    }
}

fn put(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
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
    /// Reads a file's facts: its content, link target and the xattrs that belong to a layer. `metadata` is what `lstat` told; a
    /// file that was changed since then is [`LayerError::Changed`]. Errors name the file by `path`.
    pub fn read(
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: Metadata,
        path: &Path,
    ) -> Result<Self, LayerError> {
        read_facts(dir, name, metadata, path).map(|(facts, _)| facts)
    }

    /// Their digest: the same for a file in a tree and for a file that COPY selects.
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(b"bricklayer file 1\n");
        let metadata = &self.metadata;
        hasher.update(match metadata.kind {
            Kind::File => b"f",
            Kind::Directory => b"d",
            Kind::Symlink => b"l",
            Kind::Fifo => b"p",
            Kind::CharDevice => b"c",
            Kind::BlockDevice => b"b",
            Kind::Socket => b"s",
        });
        let mode = if metadata.kind == Kind::Symlink { 0o777 } else { metadata.mode };
        for number in [mode, metadata.uid, metadata.gid, metadata.device.0, metadata.device.1] {
            hasher.update(number.to_le_bytes());
        }
        put(&mut hasher, &self.target);
        hasher.update((self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            put(&mut hasher, name.as_bytes());
            put(&mut hasher, value);
        }
        match &self.content {
            Some(content) => {
                hasher.update([1]);
                hasher.update(content);
            }
            None => hasher.update([0]),
        }
        Digest::from_bytes(hasher.finalize().into())
    }
}

fn read_facts(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    metadata: Metadata,
    path: &Path,
) -> Result<(FileFacts, Marks), LayerError> {
    let mut target = Vec::new();
    let mut content = None;
    let found = if metadata.kind == Kind::File {
        let (file, opened) = at::open_file(dir, name).map_err(LayerError::io("open", path))?;
        let same = |now: &Metadata| {
            (now.dev, now.ino, now.size, now.mtime)
                == (metadata.dev, metadata.ino, metadata.size, metadata.mtime)
        };
        let changed = || LayerError::Changed { path: path.to_owned() };
        if !same(&opened) {
            return Err(changed());
        }
        let (hash, size) = hash_file(&file).map_err(LayerError::io("read", path))?;
        let after = at::fstat(&file).map_err(LayerError::io("look at", path))?;
        if size != metadata.size || !same(&after) {
            return Err(changed());
        }
        content = Some(hash);
        at::fxattrs(&file)
    } else {
        if metadata.kind == Kind::Symlink {
            let link = at::read_link(dir, name).map_err(LayerError::io("read link", path))?;
            target = link.into_os_string().into_vec();
        }
        at::xattrs(dir, name)
    };
    let (xattrs, marks) = xattr::split(found.map_err(LayerError::io("read xattrs of", path))?);
    Ok((FileFacts { metadata, target, xattrs, content }, marks))
}

/// BLAKE3 of what is left of a file, and how many bytes that was. Large files are hashed on all cores.
pub fn hash_file(mut file: &File) -> std::io::Result<([u8; 32], u64)> {
    const SMALL: usize = 64 << 10;
    const LARGE: usize = 4 << 20;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; SMALL];
    let mut size = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let piece = buffer.get(..filled).unwrap_or_default();
        size += filled as u64;
        if filled == LARGE {
            hasher.update_rayon(piece)
        } else {
            hasher.update(piece)
        };
        if filled < buffer.len() {
            return Ok((hasher.finalize().into(), size));
        }
        buffer.resize(LARGE, 0);
    }
}
