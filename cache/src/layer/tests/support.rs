//! What the tests share: archives made by hand, and trees as lines of text.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::layer::tar::write::{END, pad};
use crate::layer::tar::{EntryKind, Header};
use crate::layer::unpack::Mode;
use crate::layer::walk::walk;
use crate::layer::{LayerError, UnpackOptions, Unpacked, unpack};
use crate::root::{Kind, Root, at};

/// An archive that is made by hand.
#[derive(Default, Clone)]
pub(super) struct Tar {
    pub(super) bytes: Vec<u8>,
}

pub(super) const NONE: Header<'static> = Header {
    path: b"",
    kind: EntryKind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 1_000_000_000,
    link: b"",
    device: (0, 0),
    xattrs: &[],
};

impl Tar {
    pub(super) fn add(mut self, header: Header<'_>, data: &[u8]) -> Self {
        Header { size: data.len() as u64, ..header }.write(&mut self.bytes);
        self.bytes.extend_from_slice(data);
        pad(&mut self.bytes, data.len() as u64);
        self
    }

    pub(super) fn file(self, path: &str, data: &str) -> Self {
        self.add(Header { path: path.as_bytes(), ..NONE }, data.as_bytes())
    }

    pub(super) fn dir(self, path: &str, mode: u32) -> Self {
        self.add(Header { path: path.as_bytes(), kind: EntryKind::Directory, mode, ..NONE }, b"")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.add(
            Header { path: path.as_bytes(), kind: EntryKind::Symlink, link: target.as_bytes(), ..NONE },
            b"",
        )
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        self.add(
            Header { path: path.as_bytes(), kind: EntryKind::HardLink, link: target.as_bytes(), ..NONE },
            b"",
        )
    }

    /// A header block of any type with a body, for what [`Header`] would not write.
    pub(super) fn raw(
        mut self,
        typeflag: u8,
        name: &[u8],
        body: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Self {
        let start = self.bytes.len();
        Header { path: name, size: body.len() as u64, ..NONE }.write(&mut self.bytes);
        let block = &mut self.bytes[start..];
        assert_eq!(block.len(), 512);
        block[156] = typeflag;
        change(block);
        checksum(block);
        self.bytes.extend_from_slice(body);
        pad(&mut self.bytes, body.len() as u64);
        self
    }

    /// A PAX header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(b'x', b"PaxHeaders/x", &body, |_| {})
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END);
        self.bytes
    }
}

pub(super) fn checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(super) fn unpack_into(archive: &[u8], dest: &Path, mode: Mode) -> Result<Unpacked, LayerError> {
    unpack_with(archive, dest, &UnpackOptions { mode, ..UnpackOptions::default() })
}

pub(super) fn unpack_with(
    archive: &[u8],
    dest: &Path,
    options: &UnpackOptions,
) -> Result<Unpacked, LayerError> {
    unpack(archive, &Root::open(dest).unwrap(), options, &|_| {})
}

/// A line for each file of a tree: mode, owner, path, and what else there is to it.
pub(super) fn listing(tree: &Path) -> String {
    let root = Root::open(tree).unwrap();
    let mut lines = Vec::new();
    let mut inodes = std::collections::HashMap::new();
    walk(&root, &mut |visit| {
        let m = visit.metadata;
        let path = visit.path.to_string_lossy().into_owned();
        let mut line = match m.kind {
            Kind::File => {
                let data = root.read_small(visit.path, 16 << 20).unwrap();
                let text = String::from_utf8_lossy(&data).replace('\n', "\\n");
                format!(
                    "-{:04o} {}:{} {path} `{}`",
                    m.mode,
                    m.uid,
                    m.gid,
                    text.chars().take(40).collect::<String>()
                )
            }
            Kind::Directory => format!("d{:04o} {}:{} {path}/", m.mode, m.uid, m.gid),
            Kind::Symlink => {
                let target = at::read_link(visit.dir.as_fd(), visit.name).unwrap();
                format!("l     {}:{} {path} -> {}", m.uid, m.gid, target.display())
            }
            Kind::Fifo => format!("p{:04o} {}:{} {path}", m.mode, m.uid, m.gid),
            Kind::Socket => format!("s{:04o} {path}", m.mode),
            _ if m.is_whiteout() => format!("whiteout {path}"),
            Kind::CharDevice => {
                format!("c{:04o} {}:{} {path} {}:{}", m.mode, m.uid, m.gid, m.device.0, m.device.1)
            }
            Kind::BlockDevice => {
                format!("b{:04o} {}:{} {path} {}:{}", m.mode, m.uid, m.gid, m.device.0, m.device.1)
            }
        };
        for (key, value) in at::xattrs(visit.dir.as_fd(), visit.name).unwrap() {
            line += &format!(" [{}={}]", key.display(), value.escape_ascii());
        }
        if m.links > 1 && m.kind != Kind::Directory && !m.is_whiteout() {
            let first = inodes.entry(m.ino).or_insert_with(|| path.clone());
            if *first != path {
                line += &format!(" == {first}");
            }
        }
        lines.push(line);
        Ok(())
    })
    .unwrap();
    lines.join("\n")
}

pub(super) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
