//! tree → tar → blob: OCI image-spec `layer.md`, "Representing Changes".
//!
//! The calling thread walks the tree and writes the tar; [`blocks`] cuts it into blocks of a fixed size, hashes it, and
//! has the blocks compressed on all cores. Order, headers and blocks depend on the tree and the options alone.
//!
//! - Entries are sorted by their path's components; a directory comes before what is in it. The root gets an entry
//!   (`./`) only if it is not 0755 0:0 or has xattrs.
//! - Times are whole seconds, as in the layers of Docker and BuildKit.
//! - Overlay whiteouts become `.wh.NAME`, opaque directories get a `.wh..wh..opq`, with time 0 and owner 0:0.
//! - Files with several names in the tree are hard links to the first one. Sockets are left out; holes are written as zeros.

mod blocks;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;

use super::LayerError;
use super::tar::write::{END, pad};
use super::tar::{EntryKind, Header};
use super::walk::{Visit, walk};
use super::xattr::{self, Marks};
use crate::root::at::Xattr;
use crate::root::{Kind, Metadata, Root, at};
use crate::store::Compression;

pub use blocks::TarSink;

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
///
/// # Errors
///
/// - [`LayerError::Changed`] names a file that was written to meanwhile,
/// - [`LayerError::Unpackable`] one that no tar can hold (a name that begins with `.wh.`),
/// - [`LayerError::Io`] one that cannot be read; [`LayerError::Write`] is a failure of `out`.
pub fn pack(
    tree: &Path,
    out: &mut (dyn Write + Send),
    options: &PackOptions,
    progress: &dyn Fn(u64),
) -> Result<Tarred, LayerError> {
    let root = Root::open(tree)?;
    pack_with(out, options, progress, |sink| tree_into(&root, options, sink))
}

/// Packs what `fill` writes: whole tar entries, in their order. The end of the archive is added here.
pub fn pack_with(
    out: &mut (dyn Write + Send),
    options: &PackOptions,
    progress: &dyn Fn(u64),
    fill: impl FnOnce(&mut TarSink<'_>) -> Result<(), LayerError>,
) -> Result<Tarred, LayerError> {
    blocks::compress(out, options.compression, options.level, progress, |sink| {
        fill(sink)?;
        sink.push(&END)
    })
}

fn tree_into(root: &Root, options: &PackOptions, sink: &mut TarSink<'_>) -> Result<(), LayerError> {
    let mut packer = Packer { root, options, sink, links: HashMap::new(), header: Vec::new() };
    packer.root_entry()?;
    walk(root, &mut |visit| packer.entry(visit))
}

struct Packer<'a, 'b> {
    root: &'a Root,
    options: &'a PackOptions,
    sink: &'a mut TarSink<'b>,
    /// The first path of each file that has several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    header: Vec<u8>,
}

impl Packer<'_, '_> {
    fn name(&self, path: &Path) -> PathBuf {
        self.root.name().join(path)
    }

    fn root_entry(&mut self) -> Result<(), LayerError> {
        let metadata = at::fstat(self.root.as_fd()).map_err(LayerError::io("look at", self.root.name()))?;
        let found =
            at::fxattrs(self.root.as_fd()).map_err(LayerError::io("read xattrs of", self.root.name()))?;
        let (xattrs, _) = xattr::split(found);
        if (metadata.mode, metadata.uid, metadata.gid) == (0o755, 0, 0) && xattrs.is_empty() {
            return Ok(());
        }
        let xattrs = in_bytes(xattrs);
        self.header(&self.describe(b"./", EntryKind::Directory, &metadata, &xattrs))
    }

    fn describe<'a>(
        &self,
        path: &'a [u8],
        kind: EntryKind,
        metadata: &Metadata,
        xattrs: &'a [(Vec<u8>, Vec<u8>)],
    ) -> Header<'a> {
        let seconds = metadata.mtime.0;
        Header {
            path,
            kind,
            mode: if kind == EntryKind::Symlink { 0o777 } else { metadata.mode },
            uid: metadata.uid,
            gid: metadata.gid,
            size: if kind == EntryKind::File { metadata.size } else { 0 },
            mtime: self.options.clamp.map_or(seconds, |clamp| seconds.min(clamp)),
            link: b"",
            device: metadata.device,
            xattrs,
        }
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), LayerError> {
        self.header.clear();
        header.write(&mut self.header);
        self.sink.push(&self.header)
    }

    /// A whiteout, or the mark of an opaque directory.
    fn mark(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.header(&Header {
            path,
            kind: EntryKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
        })
    }

    fn entry(&mut self, visit: &Visit<'_>) -> Result<(), LayerError> {
        let path = visit.path.as_os_str().as_bytes();
        let metadata = &visit.metadata;
        let dir = visit.dir.as_fd();
        if visit.name.as_bytes().starts_with(b".wh.") {
            let what = "its name begins with `.wh.`, which stands for a removed file there";
            return Err(LayerError::Unpackable { path: self.name(visit.path), what });
        }
        if metadata.is_whiteout() {
            return self.mark(&whiteout(path));
        }
        let fail = |action| {
            let path = self.root.name().join(visit.path);
            move |source: rustix::io::Errno| LayerError::Io { action, path, source: source.into() }
        };
        let kind = match metadata.kind {
            Kind::Socket => return Ok(()),
            Kind::File => EntryKind::File,
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink,
            Kind::Fifo => EntryKind::Fifo,
            Kind::CharDevice => EntryKind::CharDevice,
            Kind::BlockDevice => EntryKind::BlockDevice,
        };
        if metadata.links > 1 && kind != EntryKind::Directory {
            let identity = (metadata.dev, metadata.ino);
            if let Some(first) = self.links.get(&identity) {
                let link = first.clone();
                let header =
                    Header { link: &link, ..self.describe(path, EntryKind::HardLink, metadata, &[]) };
                return self.header(&header);
            }
            self.links.insert(identity, path.to_vec());
        }
        let file = match kind {
            EntryKind::File => Some(at::open_file(dir, visit.name).map_err(fail("open"))?),
            _ => None,
        };
        let found = match &file {
            Some((file, _)) => at::fxattrs(file),
            None => at::xattrs(dir, visit.name),
        };
        let (xattrs, marks) = xattr::split(found.map_err(fail("read xattrs of"))?);
        let xattrs = in_bytes(xattrs);
        let Marks { opaque, whiteout: is_whiteout, elsewhere } = marks;
        if elsewhere {
            let what = "overlayfs keeps its content in another layer (redirect or metacopy)";
            return Err(LayerError::Unpackable { path: self.name(visit.path), what });
        }
        match (kind, file) {
            (EntryKind::File, Some((file, opened))) => {
                if is_whiteout && metadata.size == 0 {
                    return self.mark(&whiteout(path));
                }
                if (opened.dev, opened.ino, opened.size) != (metadata.dev, metadata.ino, metadata.size) {
                    return Err(LayerError::Changed { path: self.name(visit.path) });
                }
                self.header(&self.describe(path, kind, metadata, &xattrs))?;
                self.content(&file, metadata, visit.path)
            }
            (EntryKind::Symlink, _) => {
                let target = at::read_link(dir, visit.name).map_err(fail("read link"))?;
                let target = target.into_os_string().into_vec();
                self.header(&Header { link: &target, ..self.describe(path, kind, metadata, &xattrs) })
            }
            _ => {
                self.header(&self.describe(path, kind, metadata, &xattrs))?;
                if opaque && kind == EntryKind::Directory {
                    self.mark(&[path, b"/.wh..wh..opq"].concat())?;
                }
                Ok(())
            }
        }
    }

    fn content(&mut self, file: &File, before: &Metadata, path: &Path) -> Result<(), LayerError> {
        let read = self.sink.push_from(&mut file.take(before.size));
        let count = read.map_err(|error| match error {
            LayerError::Read(source) => LayerError::Io { action: "read", path: self.name(path), source },
            other => other,
        })?;
        let after = at::fstat(file).map_err(|source| LayerError::Io {
            action: "look at",
            path: self.name(path),
            source: source.into(),
        })?;
        if count != before.size || after.size != before.size || after.mtime != before.mtime {
            return Err(LayerError::Changed { path: self.name(path) });
        }
        self.header.clear();
        pad(&mut self.header, count);
        self.sink.push(&self.header)
    }
}

fn in_bytes(xattrs: Vec<Xattr>) -> Vec<(Vec<u8>, Vec<u8>)> {
    xattrs.into_iter().map(|(key, value)| (key.into_vec(), value)).collect()
}

/// `a/b` → `a/.wh.b`.
fn whiteout(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = path.split_at(at);
    [parent, b".wh.", name].concat()
}
