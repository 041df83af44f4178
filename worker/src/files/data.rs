//! Copying a file's content: shared blocks where the filesystem can, holes kept, otherwise in the kernel.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bricklayer_cache::root::Metadata;
use rustix::io::Errno;

use crate::context::index::ContentHash;

/// Up to here one read and one write are cheaper than anything clever.
const SMALL: u64 = 128 << 10;

/// Copies all of `from`, which looked like `metadata` when it was opened, to `to`, which is new and empty.
pub(crate) fn copy(from: &mut File, metadata: &Metadata, to: &mut File) -> io::Result<()> {
    if metadata.size > SMALL {
        if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
            return Ok(());
        }
        if metadata.blocks.saturating_mul(512) < metadata.size {
            return copy_sparse(from, to);
        }
        if copy_in_kernel(from, to, metadata.size)? {
            return Ok(());
        }
    }
    copy_bytes(from, to, metadata.size, |_| {})
}

/// Copies all of `from` to `to` and says what it was.
pub(crate) fn copy_hashed(from: &mut File, size: u64, to: &mut File) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    copy_bytes(from, to, size, |bytes| {
        hasher.update(bytes);
    })?;
    Ok(*hasher.finalize().as_bytes())
}

fn copy_bytes(from: &mut File, to: &mut File, size: u64, mut seen: impl FnMut(&[u8])) -> io::Result<()> {
    // One more than expected, so that the end shows in the first read of a small file.
    let length = usize::try_from(size.saturating_add(1).clamp(512, 1 << 20)).unwrap_or(1 << 20);
    let mut buffer = vec![0; length];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        seen(bytes);
        to.write_all(bytes)?;
    }
}

/// Copies data and leaves out holes.
fn copy_sparse(from: &mut File, to: &mut File) -> io::Result<()> {
    let end = from.seek(SeekFrom::End(0))?;
    let mut at = 0;
    while at < end {
        let data = match rustix::fs::seek(&*from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data behind this place.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(&*from, rustix::fs::SeekFrom::Hole(data))?;
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        let length = hole.saturating_sub(data);
        if !copy_in_kernel(from, to, length)? {
            io::copy(&mut Read::by_ref(from).take(length), to)?;
        }
        // A file that shrinks meanwhile must not keep us here.
        at = hole.max(data + 1);
    }
    to.set_len(end)
}

/// Copies `length` bytes from here on by `copy_file_range`; false: not between these files, and nothing was copied.
fn copy_in_kernel(from: &File, to: &File, length: u64) -> io::Result<bool> {
    let mut left = length;
    while left > 0 {
        let chunk = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(from, None, to, None, chunk) {
            Ok(0) => break,
            Ok(count) => left = left.saturating_sub(count as u64),
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF | Errno::PERM)
                if left == length =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
