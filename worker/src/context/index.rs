//! What files of a directory contained when they were last read, so that an unchanged file is not read again.
//!
//! An entry is trusted while size, mtime, ctime, inode, device and mode of the file are as they were. That says
//! "unchanged" only if every later change gives another ctime; a file whose times lie within the clock's granularity
//! of the moment it was read at could change and keep them, so such a file is not entered ([`settled`]).
//!
//! # File format, version 1
//!
//! Numbers are little endian; `bytes` is a `u32` length and that many bytes.
//!
//! ```text
//! file      = magic "brickidx", version u32, directories u32, directory*, checksum [32]
//! directory = path bytes (relative, no leading `/`, empty for the top), entries bytes
//! entries   = entry*, sorted by name
//! entry     = name bytes, size u64, mtime i64 u32, ctime i64 u32, inode u64, device u64, mode u32, content [32]
//! ```
//!
//! `content` is the BLAKE3 of the file, `checksum` that of everything before it. A file that is damaged, too large or of
//! another version is ignored. It is replaced whole (written beside and renamed), so any number of processes may use
//! it; the last writer wins.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bricklayer_cache::root::Metadata;

const MAGIC: &[u8; 8] = b"brickidx";
const VERSION: u32 = 1;
const CHECKSUM: usize = 32;

/// The largest index that is read or written, in bytes: some two million files.
const MAX_SIZE: u64 = 256 << 20;

/// BLAKE3 of a file's content.
pub type ContentHash = [u8; 32];

/// How coarse a clock that shows nanoseconds can be: the kernel's timer ticks every 10 ms at most.
const TICK_NS: i128 = 20_000_000;

/// How coarse a clock without fractions of a second can be: 2 s on FAT.
const COARSE_NS: i128 = 2_100_000_000;

/// Can a file that is changed after `now` be told from what it is now by its times? `now`: nanoseconds since 1970, taken
/// before the file was read.
pub fn settled(metadata: &Metadata, now: i128) -> bool {
    let nanoseconds =
        |(seconds, nanoseconds): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let latest = nanoseconds(metadata.ctime).max(nanoseconds(metadata.mtime));
    let granularity = if metadata.ctime.1 == 0 { COARSE_NS } else { TICK_NS };
    latest < now - granularity
}

/// Is the file behind both the same, and unchanged?
pub fn unchanged(old: &Metadata, new: &Metadata) -> bool {
    Signature::of(old) == Signature::of(new)
}

/// The name of a directory's index file.
pub fn file_name(directory: &Path) -> String {
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let hash = blake3::hash(real.as_os_str().as_bytes());
    format!("{}.idx", hash.to_hex().get(..32).unwrap_or_default())
}

/// What must be as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    ino: u64,
    dev: u64,
    mode: u32,
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        let Metadata { size, mtime, ctime, ino, dev, mode, .. } = *metadata;
        Self { size, mtime, ctime, ino, dev, mode }
    }
}

/// One file.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    name: OsString,
    signature: Signature,
    content: ContentHash,
}

impl IndexEntry {
    /// A file that had this content when it looked like this.
    pub fn new(name: &OsStr, metadata: &Metadata, content: ContentHash) -> Self {
        Self { name: name.to_owned(), signature: Signature::of(metadata), content }
    }

    /// Its name in its directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }
}

/// The files of one directory.
#[derive(Debug, Default)]
pub struct IndexDir(Vec<IndexEntry>);

impl IndexDir {
    /// What the file contained, if it has not changed since.
    pub fn lookup(&self, name: &OsStr, metadata: &Metadata) -> Option<ContentHash> {
        let at = self.0.binary_search_by(|entry| entry.name.as_os_str().cmp(name)).ok()?;
        self.0.get(at).filter(|entry| entry.signature == Signature::of(metadata)).map(|entry| entry.content)
    }

    /// All of them, sorted by name.
    pub fn into_entries(self) -> impl Iterator<Item = IndexEntry> {
        self.0.into_iter()
    }
}

/// An index as it was read.
#[derive(Debug, Default)]
pub struct Index {
    bytes: Vec<u8>,
    directories: HashMap<PathBuf, Range<usize>>,
}

impl Index {
    /// Reads an index. One that is missing, damaged or of another version is empty.
    pub fn load(path: &Path) -> Self {
        Self::read(path).unwrap_or_default()
    }

    fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        if size > MAX_SIZE {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        file.take(MAX_SIZE).read_to_end(&mut bytes).ok()?;
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        if blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        let mut reader = Reader { bytes: body, at: 0 };
        if reader.take(MAGIC.len())? != MAGIC || reader.u32()? != VERSION {
            return None;
        }
        let count = reader.u32()?;
        let mut directories = HashMap::with_capacity((count as usize).min(body.len() / 8));
        for _ in 0..count {
            let path = PathBuf::from(OsString::from_vec(reader.bytes()?.to_vec()));
            let entries = reader.bytes()?;
            directories.insert(path, reader.at - entries.len()..reader.at);
        }
        (reader.at == body.len()).then_some(())?;
        Some(Self { bytes, directories })
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// The files of a directory.
    pub fn directory(&self, path: &Path) -> IndexDir {
        let block =
            self.directories.get(path).and_then(|range| self.bytes.get(range.clone())).unwrap_or_default();
        let mut reader = Reader { bytes: block, at: 0 };
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry() {
            entries.push(entry);
        }
        IndexDir(entries)
    }

    /// Writes an index of `fresh` (directories that were looked at) and of what this one holds of other directories that
    /// `keep` accepts. What would make it too large is left out.
    pub fn save(
        &self,
        path: &Path,
        fresh: &[(PathBuf, Vec<IndexEntry>)],
        keep: impl Fn(&Path) -> bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 4096);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        let mut seen = HashMap::with_capacity(fresh.len());
        let mut block = Vec::new();
        for (directory, entries) in fresh {
            seen.insert(directory.as_path(), ());
            block.clear();
            for entry in entries {
                put_entry(&mut block, entry);
            }
            if !entries.is_empty() && put_directory(&mut bytes, directory, &block) {
                count += 1;
            }
        }
        for (directory, range) in &self.directories {
            let old = self.bytes.get(range.clone()).unwrap_or_default();
            if !seen.contains_key(directory.as_path())
                && keep(directory)
                && put_directory(&mut bytes, directory, old)
            {
                count += 1;
            }
        }
        if let Some(slot) = bytes.get_mut(count_at..count_at + 4) {
            slot.copy_from_slice(&count.to_le_bytes());
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());

        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&bytes)?;
        file.persist(path)?;
        Ok(())
    }
}

/// False: it would not fit.
fn put_directory(bytes: &mut Vec<u8>, path: &Path, entries: &[u8]) -> bool {
    let path = path.as_os_str().as_bytes();
    if (bytes.len() + path.len() + entries.len() + 8 + CHECKSUM) as u64 > MAX_SIZE {
        return false;
    }
    put_bytes(bytes, path);
    put_bytes(bytes, entries);
    true
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    // Never larger than MAX_SIZE.
    bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn put_entry(bytes: &mut Vec<u8>, entry: &IndexEntry) {
    let Signature { size, mtime, ctime, ino, dev, mode } = entry.signature;
    put_bytes(bytes, entry.name.as_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    for (seconds, nanoseconds) in [mtime, ctime] {
        bytes.extend_from_slice(&seconds.to_le_bytes());
        bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(&ino.to_le_bytes());
    bytes.extend_from_slice(&dev.to_le_bytes());
    bytes.extend_from_slice(&mode.to_le_bytes());
    bytes.extend_from_slice(&entry.content);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<(i64, u32)> {
        Some((self.array().map(i64::from_le_bytes)?, self.u32()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(usize::try_from(count).ok()?)
    }

    fn entry(&mut self) -> Option<IndexEntry> {
        let name = OsStr::from_bytes(self.bytes()?).to_owned();
        let signature = Signature {
            size: self.u64()?,
            mtime: self.time()?,
            ctime: self.time()?,
            ino: self.u64()?,
            dev: self.u64()?,
            mode: self.u32()?,
        };
        Some(IndexEntry { name, signature, content: self.array()? })
    }
}
