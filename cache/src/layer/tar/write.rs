//! Writing headers: ustar where it can hold the entry, PAX records for what it cannot.
//!
//! Deterministic and plain, as BuildKit's layers are: no user names, times in whole seconds, PAX records sorted by key. A name
//! that is not ASCII is in a `path` record (UTF-8 by the standard; other bytes go in as they are, which Go, Python and GNU tar
//! read back unchanged).

use super::{BLOCK, EntryKind, pax};

/// What a header is made of.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The name; directories get their trailing `/` here.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data that follow; 0 unless it is a file.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Target of a link.
    pub link: &'a [u8],
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// The end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Largest numbers that 7 and 11 octal digits hold.
const SMALL: u64 = 0o7_777_777;
const LARGE: u64 = 0o77_777_777_777;

impl Header<'_> {
    /// Appends the entry's header blocks, extended ones first.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut path = self.path.to_vec();
        if self.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: &[u8]| records.push((key.into(), value.to_vec()));
        let (prefix, name) = match split(&path) {
            Some(parts) => parts,
            None => {
                record("path", &path);
                (&b""[..], cut(&path))
            }
        };
        if self.link.len() > 100 || !self.link.is_ascii() {
            record("linkpath", self.link);
        }
        for (key, value, limit) in [
            ("size", self.size, LARGE),
            ("uid", self.uid.into(), SMALL),
            ("gid", self.gid.into(), SMALL),
            ("SCHILY.devmajor", self.device.0.into(), SMALL),
            ("SCHILY.devminor", self.device.1.into(), SMALL),
        ] {
            if value > limit {
                record(key, value.to_string().as_bytes());
            }
        }
        if u64::try_from(self.mtime).is_ok_and(|mtime| mtime <= LARGE) {
        } else {
            record("mtime", self.mtime.to_string().as_bytes());
        }
        for (key, value) in self.xattrs {
            records.push(([b"SCHILY.xattr.", key.as_slice()].concat(), value.clone()));
        }
        if !records.is_empty() {
            records.sort_unstable();
            let mut body = Vec::new();
            for (key, value) in &records {
                pax::push(&mut body, key, value);
            }
            let name = [
                b"PaxHeaders.0/",
                path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b"x"),
            ];
            let name = ascii(cut(&name.concat()));
            block(out, b"", &name, b'x', &Self { size: body.len() as u64, mode: 0o644, ..EMPTY });
            out.extend_from_slice(&body);
            pad(out, body.len() as u64);
        }
        let typeflag = match self.kind {
            EntryKind::File => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        block(out, prefix, &ascii(name), typeflag, self);
    }
}

const EMPTY: Header<'static> = Header {
    path: b"",
    kind: EntryKind::File,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 0,
    link: b"",
    device: (0, 0),
    xattrs: &[],
};

/// Appends what fills the last block after `size` bytes of data.
pub fn pad(out: &mut Vec<u8>, size: u64) {
    out.resize(out.len() + (size.wrapping_neg() % BLOCK as u64) as usize, 0);
}

/// A path as a ustar header holds it: prefix and name. `None`: it is too long or not ASCII.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The last slash that leaves a name of at most 100 bytes gives the shortest prefix.
    let at = path.iter().take(156).rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (path.get(..at)?, path.get(at + 1..)?);
    (!prefix.is_empty() && !name.is_empty() && name.len() <= 100).then_some((prefix, name))
}

fn cut(name: &[u8]) -> &[u8] {
    name.get(..100).unwrap_or(name)
}

fn ascii(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if byte.is_ascii() { *byte } else { b'_' }).collect()
}

fn block(out: &mut Vec<u8>, prefix: &[u8], name: &[u8], typeflag: u8, header: &Header<'_>) {
    let start = out.len();
    let text = |out: &mut Vec<u8>, text: &[u8], width: usize| {
        let text = text.get(..width).unwrap_or(text);
        out.extend_from_slice(text);
        out.resize(out.len() + width - text.len(), 0);
    };
    // What does not fit is in a PAX record, and 0 here.
    let octal = |out: &mut Vec<u8>, value: u64, digits: usize, limit: u64| {
        let value = if value > limit { 0 } else { value };
        out.extend_from_slice(format!("{value:0digits$o}\0").as_bytes());
    };
    text(out, name, 100);
    octal(out, header.mode.into(), 7, SMALL);
    octal(out, header.uid.into(), 7, SMALL);
    octal(out, header.gid.into(), 7, SMALL);
    octal(out, header.size, 11, LARGE);
    octal(out, u64::try_from(header.mtime).unwrap_or(0), 11, LARGE);
    text(out, b"        ", 8);
    out.push(typeflag);
    let link = if header.link.len() > 100 || !header.link.is_ascii() {
        ascii(cut(header.link))
    } else {
        header.link.to_vec()
    };
    text(out, &link, 100);
    text(out, b"ustar\x0000", 8);
    text(out, b"", 64);
    octal(out, header.device.0.into(), 7, SMALL);
    octal(out, header.device.1.into(), 7, SMALL);
    text(out, prefix, 155);
    text(out, b"", 12);
    let sum: u32 = out.iter().skip(start).map(|byte| u32::from(*byte)).sum();
    if let Some(field) = out.get_mut(start + 148..start + 156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
