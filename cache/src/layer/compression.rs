//! What a stream is compressed with, and reading it. The stream's first bytes tell, never a name or a media type.

use std::io::{self, BufRead, BufReader, Read};

use super::LayerError;
use super::tar::TarReader;

/// What a file is, as ADD decides: by its content alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// A tar.
    Plain,
    /// Compressed, and a tar inside.
    Gzip,
    /// Likewise.
    Zstd,
    /// Likewise.
    Bzip2,
    /// Likewise.
    Xz,
}

impl Archive {
    /// What a stream that begins with these bytes is compressed with; [`Plain`](Self::Plain): with nothing known.
    pub fn of_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Is `source` a tar, compressed or not? Reads as much of it as it takes to find the first entry. An empty tar has no
/// entry, so it is none (as for Docker and BuildKit).
///
/// # Errors
///
/// Only those of `source`: broken compression means that the file is no archive.
pub fn sniff(source: &mut dyn Read) -> io::Result<Option<Archive>> {
    let mut source = Watched { source, failure: None };
    let found = match decoder(&mut source) {
        Ok((archive, stream)) => match TarReader::new(stream).next_entry() {
            // An entry that is refused makes it a refused archive, not another kind of file.
            Ok(Some(_)) | Err(LayerError::Refused { .. }) => Some(archive),
            Ok(None) | Err(_) => None,
        },
        Err(_) => None,
    };
    match source.failure {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// Remembers an error of the source, so that it is told from one of the decoder.
struct Watched<'a> {
    source: &'a mut dyn Read,
    failure: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            if error.kind() != io::ErrorKind::Interrupted {
                self.failure = Some(error);
            }
            copy
        })
    }
}

/// Reads a stream uncompressed. All members and frames of it are read; zstd windows are capped at 128 MiB (libzstd's own
/// limit).
pub fn decoder<'a>(source: impl Read + 'a) -> io::Result<(Archive, Box<dyn Read + 'a>)> {
    let mut source = BufReader::with_capacity(128 << 10, Start::new(source)?);
    let archive = Archive::of_magic(source.fill_buf()?);
    let stream: Box<dyn Read + 'a> = match archive {
        Archive::Plain => Box::new(source),
        Archive::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Archive::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        Archive::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Archive::Xz => Box::new(lzma_rust2::XzReader::new(source, true)),
    };
    Ok((archive, stream))
}

/// A stream whose first read yields enough bytes to know its kind, however little the source gives at a time.
struct Start<R> {
    source: R,
    bytes: [u8; 6],
    at: usize,
    end: usize,
}

impl<R: Read> Start<R> {
    fn new(mut source: R) -> io::Result<Self> {
        let mut bytes = [0; 6];
        let mut end = 0;
        while let Some(rest) = bytes.get_mut(end..).filter(|rest| !rest.is_empty()) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(count) => end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { source, bytes, at: 0, end })
    }
}

impl<R: Read> Read for Start<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut start = self.bytes.get(self.at..self.end).unwrap_or_default();
        if start.is_empty() {
            return self.source.read(buffer);
        }
        let count = start.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
