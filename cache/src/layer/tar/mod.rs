//! Reading and writing tar entries: POSIX.1-2017 `pax` ("ustar Interchange Format", "pax Extended Header"), and what
//! GNU tar writes.
//!
//! The reader is total and bounded: whatever it is given, it yields entries or an error, and holds no more than
//! [`read::MAX_HEADER`] bytes of headers. Where two readings of a header are possible, it takes the one of Go's `archive/tar`, which all
//! other builders use: a PAX record wins over the field of the header block.

mod number;
mod pax;
pub mod read;
mod sparse;
pub mod write;

pub use read::TarReader;
pub use write::Header;

/// The unit of a tar: headers and data are padded to it.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file; its data follows.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A stretch of data in a sparse file; what lies between them is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// One entry of a tar, as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where its first header starts in the stream, in bytes.
    pub offset: u64,
    /// The name: any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner, below 2^32 - 1.
    pub uid: u32,
    /// Group, below 2^32 - 1.
    pub gid: u32,
    /// Bytes of the file as unpacked; 0 for all other kinds.
    pub size: u64,
    /// Seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link: any bytes but NUL.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.*`), in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data of a sparse file belongs: in order, not overlapping, within `size`. The archive's data is these segments one
    /// after the other.
    pub sparse: Option<Vec<Segment>>,
}
