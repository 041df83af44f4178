//! Reading a tar, entry by entry.

use std::io::{self, Read};
use std::path::PathBuf;

use super::{BLOCK, Entry, EntryKind, Segment, number, pax, sparse};
use crate::layer::LayerError;

/// How many bytes of extended headers and long names one entry may have.
pub const MAX_HEADER: u64 = 1 << 20;

/// How long a path or a link's target may be, in bytes: what Linux takes (`PATH_MAX` with its NUL).
pub const MAX_PATH: usize = 4095;

/// Reads a tar from a stream.
pub struct TarReader<R> {
    source: R,
    /// Bytes taken from the source.
    offset: u64,
    /// Bytes of the current entry's data that were not read yet.
    data: u64,
    /// Padding after the data.
    padding: u64,
    done: bool,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<i64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseRecords,
}

/// `GNU.sparse.*` records.
#[derive(Default)]
struct SparseRecords {
    major: Option<i64>,
    minor: Option<i64>,
    name: Option<Vec<u8>>,
    size: Option<i64>,
    map: Option<Vec<Segment>>,
    pending_offset: Option<i64>,
}

impl<R: Read> TarReader<R> {
    /// Reads from `source`, which is uncompressed.
    pub fn new(source: R) -> Self {
        Self { source, offset: 0, data: 0, padding: 0, done: false }
    }

    /// The next entry; `None`: the archive ended. What was not read of the data of the one before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        if self.done {
            return Ok(None);
        }
        self.skip_data()?;
        let start = self.offset;
        let malformed = |what| LayerError::Malformed { offset: start, what };
        let mut extended = Extended::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut header_bytes = 0_u64;
        loop {
            let Some(block) = self.header_block()? else {
                if self.offset > start && header_bytes > 0 {
                    return Err(malformed("an extended header without an entry"));
                }
                self.done = true;
                return Ok(None);
            };
            let kind = field(&block, 156, 1)[0];
            let size =
                number::parse(field(&block, 124, 12)).ok_or_else(|| malformed("the size is no number"))?;
            match kind {
                b'x' | b'g' | b'L' | b'K' => {
                    let size = u64::try_from(size).map_err(|_| malformed("the size is negative"))?;
                    header_bytes = header_bytes.saturating_add(size).saturating_add(BLOCK as u64);
                    if header_bytes > MAX_HEADER {
                        return Err(malformed("extended headers of more than 1 MiB"));
                    }
                    let body = self.body(size)?;
                    match kind {
                        b'x' => extended = extended_header(&body).map_err(malformed)?,
                        // Defaults for all later entries: nobody honours them in a layer, and neither do peers.
                        b'g' => drop(pax::records(&body).ok_or_else(|| malformed("a broken PAX header"))?),
                        b'L' => long_path = Some(until_nul(&body).to_vec()),
                        _ => long_link = Some(until_nul(&body).to_vec()),
                    }
                }
                _ => {
                    if long_path.is_some() {
                        extended.path = long_path;
                    }
                    if long_link.is_some() {
                        extended.link = long_link;
                    }
                    return self.entry(start, &block, kind, size, extended).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        start: u64,
        block: &[u8; BLOCK],
        typeflag: u8,
        header_size: i64,
        extended: Extended,
    ) -> Result<Entry, LayerError> {
        let malformed = |what| LayerError::Malformed { offset: start, what };
        let mut path = extended.path.unwrap_or_else(|| header_path(block));
        if let Some(name) = &extended.sparse.name {
            path.clone_from(name);
        }
        let refused = |what| LayerError::Refused { path: shown(&path), what };
        let link = extended.link.unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec());
        for text in [&path, &link] {
            if text.contains(&0) {
                return Err(refused("NUL in a path"));
            }
            if text.len() > MAX_PATH {
                return Err(refused("a path of more than 4095 bytes"));
            }
        }
        let kind = match typeflag {
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(refused("an unknown type of entry")),
        };
        let number =
            |at, length, what| number::parse(field(block, at, length)).ok_or_else(|| malformed(what));
        let id = |record: Option<i64>, at, what| {
            let value = record.map_or_else(|| number(at, 8, what), Ok)?;
            // 2^32 - 1 means "unchanged" to chown, so it is no id.
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| refused("an owner beyond 2^32 - 2"))
        };
        let device_number = |at, what| {
            let value = number(at, 8, what)?;
            u32::try_from(value).map_err(|_| refused("a device number beyond 2^32 - 1"))
        };
        let uid = id(extended.uid, 108, "the owner is no number")?;
        let gid = id(extended.gid, 116, "the group is no number")?;
        let mode = (number(100, 8, "the mode is no number")? & 0o7777) as u32;
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => (number(136, 12, "the time is no number")?, 0),
        };
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => (
                device_number(329, "the device is no number")?,
                device_number(337, "the device is no number")?,
            ),
            _ => (0, 0),
        };
        let stored = extended.size.unwrap_or(header_size);
        let stored = u64::try_from(stored).map_err(|_| refused("a negative size"))?;
        if stored > i64::MAX as u64 - BLOCK as u64 {
            return Err(refused("a size beyond 2^63"));
        }
        // Other kinds have no data, whatever their size says (as Go's reader has it).
        self.set_data(if kind == EntryKind::File || typeflag == b'S' { stored } else { 0 });
        let mut size = self.data;
        let map = if typeflag == b'S' {
            let real = number(483, 12, "the size of a sparse file is no number")?;
            size = u64::try_from(real).map_err(|_| malformed("the size of a sparse file is negative"))?;
            Some(self.old_sparse_map(block, start)?)
        } else if kind == EntryKind::File {
            let records = extended.sparse;
            let real = records.size.map(u64::try_from).transpose();
            let real = real.map_err(|_| malformed("the size of a sparse file is negative"))?;
            match (records.major.unwrap_or(0), records.minor.unwrap_or(0), records.map) {
                (1, 0, _) => {
                    size = real.ok_or_else(|| malformed("a sparse file without a size"))?;
                    Some(self.sparse_map_in_data(start)?)
                }
                (0, 0 | 1, Some(map)) => {
                    size = real.unwrap_or(size);
                    Some(map)
                }
                (0, 0 | 1, None) => None,
                _ => return Err(refused("an unknown format of sparse file")),
            }
        } else {
            None
        };
        let sparse = match map {
            Some(map) => {
                let map =
                    sparse::check(map, size).ok_or_else(|| malformed("a broken map of a sparse file"))?;
                if map.iter().map(|segment| segment.length).sum::<u64>() != self.data {
                    return Err(malformed("a sparse file whose map does not match its data"));
                }
                Some(map)
            }
            None => None,
        };
        Ok(Entry {
            offset: start,
            path,
            kind,
            mode,
            uid,
            gid,
            size,
            mtime,
            link,
            device,
            xattrs: extended.xattrs,
            sparse,
        })
    }

    fn set_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Reads on in the current entry's data; 0: it is at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let wanted = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.read_some(buffer)?;
        if count == 0 {
            return Err(LayerError::Malformed { offset: self.offset, what: "the archive is cut off" });
        }
        self.data -= count as u64;
        Ok(count)
    }

    /// How much of the current entry's data was not read yet.
    pub fn data_left(&self) -> u64 {
        self.data
    }

    /// Reads what follows the archive, to the end of the stream.
    pub fn drain(&mut self) -> Result<(), LayerError> {
        let mut buffer = vec![0; 64 << 10];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), LayerError> {
        let mut buffer = [0; 16 << 10];
        while self.data > 0 {
            self.read_data(&mut buffer)?;
        }
        let padding = self.padding as usize;
        self.padding = 0;
        if let Some(buffer) = buffer.get_mut(..padding) {
            // Archives cut off in the last padding are found, and Go reads them.
            self.read_full(buffer)?;
        }
        Ok(())
    }

    /// A header block that is no zero block; `None`: two zero blocks, or the end of the stream.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        for zeros in 0..2 {
            let at = self.offset;
            let mut block = [0; BLOCK];
            match self.read_full(&mut block)? {
                0 => return Ok(None),
                BLOCK => {}
                _ => return Err(LayerError::Malformed { offset: at, what: "the archive is cut off" }),
            }
            if block.iter().any(|byte| *byte != 0) {
                if zeros > 0 {
                    return Err(LayerError::Malformed {
                        offset: at,
                        what: "data after the end of the archive",
                    });
                }
                if !checksum_matches(&block) {
                    return Err(LayerError::Malformed { offset: at, what: "a header with a wrong checksum" });
                }
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The body of an extended header with its padding; `size` was checked.
    fn body(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        let at = self.offset;
        self.set_data(size);
        let mut body = vec![0; self.data as usize];
        let got = self.read_full(&mut body)?;
        if got < body.len() {
            return Err(LayerError::Malformed { offset: at, what: "the archive is cut off" });
        }
        self.data = 0;
        self.skip_data()?;
        Ok(body)
    }

    fn old_sparse_map(&mut self, block: &[u8; BLOCK], start: u64) -> Result<Vec<Segment>, LayerError> {
        let malformed = |what| LayerError::Malformed { offset: start, what };
        let broken = || malformed("a broken map of a sparse file");
        let mut map = Vec::new();
        sparse::old_fields(field(block, 386, 96), &mut map).ok_or_else(broken)?;
        let mut more = field(block, 482, 1)[0] != 0;
        while more {
            let mut block = [0; BLOCK];
            if self.read_full(&mut block)? < BLOCK {
                return Err(malformed("the archive is cut off"));
            }
            let before = map.len();
            sparse::old_fields(field(&block, 0, 504), &mut map).ok_or_else(broken)?;
            more = field(&block, 504, 1)[0] != 0;
            if more && map.len() == before {
                return Err(broken());
            }
        }
        Ok(map)
    }

    /// Format 1.0: the map is at the start of the data, as decimal lines, padded to a block.
    fn sparse_map_in_data(&mut self, start: u64) -> Result<Vec<Segment>, LayerError> {
        let broken = || LayerError::Malformed { offset: start, what: "a broken map of a sparse file" };
        let mut block = [0; BLOCK];
        let mut at = BLOCK;
        let mut blocks = 0;
        let mut line = |reader: &mut Self| -> Result<i64, LayerError> {
            let mut digits = Vec::new();
            loop {
                if at == BLOCK {
                    blocks += 1;
                    if reader.data < BLOCK as u64 || blocks * BLOCK as u64 > MAX_HEADER {
                        return Err(broken());
                    }
                    if reader.read_full(&mut block)? < BLOCK {
                        return Err(LayerError::Malformed { offset: start, what: "the archive is cut off" });
                    }
                    reader.data -= BLOCK as u64;
                    at = 0;
                }
                let byte = block.get(at).copied().unwrap_or(0);
                at += 1;
                match byte {
                    b'\n' => return number::decimal(&digits).ok_or_else(broken),
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                    _ => return Err(broken()),
                }
            }
        };
        let count = line(self)?;
        if count as usize > sparse::MAX_SEGMENTS {
            return Err(broken());
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let (offset, length) = (line(self)?, line(self)?);
            sparse::push(&mut map, offset, length).ok_or_else(broken)?;
        }
        Ok(map)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            match self.source.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from_io(error)),
            }
        }
    }

    /// Fills `buffer` as far as the stream goes.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }
}

/// A failure of the stream; one of ours that went through `io::Error` is unwrapped.
pub(crate) fn from_io(error: io::Error) -> LayerError {
    error.downcast::<LayerError>().unwrap_or_else(LayerError::Read)
}

/// The start of a name, for a message: on one line, and nothing that a terminal would obey.
pub(crate) fn shown(path: &[u8]) -> PathBuf {
    let text = String::from_utf8_lossy(path.get(..200).unwrap_or(path));
    let mut out = String::new();
    for character in text.chars() {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out.into()
}

/// Part of a header block; the callers' numbers are constants within it.
fn field(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    &block[at..at + length]
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of all bytes, those of the checksum taken as blanks; old programs summed signed bytes.
fn checksum_matches(block: &[u8; BLOCK]) -> bool {
    let Some(claimed) = number::parse(field(block, 148, 8)) else { return false };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    claimed == unsigned || claimed == signed
}

/// The name in a header block, with the prefix of the formats that have one.
fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(field(block, 0, 100));
    let prefix = match field(block, 257, 8) {
        b"ustar\x0000" if field(block, 508, 4) == b"tar\0" => until_nul(field(block, 345, 131)),
        magic if magic.starts_with(b"ustar\0") => until_nul(field(block, 345, 155)),
        b"ustar  \0" => {
            // GNU has times here. Go before 1.8 wrote a prefix in such headers all the same.
            let times = [field(block, 345, 12), field(block, 357, 12)];
            let text = until_nul(field(block, 345, 155));
            let is_time = times.iter().all(|time| number::parse(time).is_some());
            if is_time || !text.is_ascii() { b"" } else { text }
        }
        _ => b"",
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn extended_header(body: &[u8]) -> Result<Extended, &'static str> {
    let mut found = Extended::default();
    for (key, value) in pax::records(body).ok_or("a broken PAX header")? {
        let decimal = || number::decimal(value).ok_or("a PAX number that is none");
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if !name.is_empty() {
                found.xattrs.retain(|(known, _)| known != name);
                found.xattrs.push((name.to_vec(), value.to_vec()));
            }
            continue;
        }
        // No value: the header block's own holds.
        let empty = value.is_empty();
        match key {
            b"path" => found.path = (!empty).then(|| value.to_vec()),
            b"linkpath" => found.link = (!empty).then(|| value.to_vec()),
            b"size" => found.size = if empty { None } else { Some(decimal()?) },
            b"uid" => found.uid = if empty { None } else { Some(decimal()?) },
            b"gid" => found.gid = if empty { None } else { Some(decimal()?) },
            b"mtime" if empty => found.mtime = None,
            b"mtime" => found.mtime = Some(number::time(value).ok_or("a PAX time that is none")?),
            b"GNU.sparse.major" => found.sparse.major = Some(decimal()?),
            b"GNU.sparse.minor" => found.sparse.minor = Some(decimal()?),
            b"GNU.sparse.name" => found.sparse.name = (!empty).then(|| value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => found.sparse.size = Some(decimal()?),
            b"GNU.sparse.map" => {
                found.sparse.map = Some(sparse::list(value).ok_or("a broken map of a sparse file")?);
            }
            b"GNU.sparse.offset" => found.sparse.pending_offset = Some(decimal()?),
            b"GNU.sparse.numbytes" => {
                let offset = found.sparse.pending_offset.take();
                let map = found.sparse.map.get_or_insert_default();
                offset
                    .and_then(|offset| sparse::push(map, offset, decimal().ok()?))
                    .ok_or("a broken map of a sparse file")?;
            }
            _ => {}
        }
    }
    Ok(found)
}
