//! The uncompressed stream, made in a thread of its own: decompressed, counted, hashed, and handed over in chunks.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bricklayer_solver::Digest;
use sha2::{Digest as _, Sha256};

use crate::layer::LayerError;
use crate::layer::compression::decoder;
use crate::layer::tar::read::from_io;

const CHUNK: usize = 256 << 10;
/// Chunks on the way: so much may the decoder be ahead.
const AHEAD: usize = 8;

/// What went through.
pub(super) struct Stream {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Calls `consume` with the uncompressed bytes of `reader`. They are hashed as far as `consume` has them read.
pub(super) fn with_decoded<T>(
    reader: impl Read + Send,
    limit: u64,
    progress: &dyn Fn(u64),
    consume: impl FnOnce(&mut dyn Read) -> Result<T, LayerError>,
) -> Result<(T, Stream), LayerError> {
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(AHEAD);
        let (give_back, spare) = sync_channel(AHEAD + 2);
        let worker = std::thread::Builder::new()
            .name("unpack".into())
            .spawn_scoped(scope, move || decode(reader, limit, &send, &spare))
            .map_err(LayerError::Read)?;
        let mut chunks =
            Chunks { receive, give_back, current: Vec::new(), at: 0, total: 0, progress, failure: None };
        let result = consume(&mut chunks);
        // The decoder ends when nobody takes its chunks.
        drop(chunks);
        let stream = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((result?, stream))
    })
}

type Chunk = Result<Vec<u8>, LayerError>;

/// Runs in the thread, until the stream's end, an error, or nobody listens.
fn decode(reader: impl Read, limit: u64, send: &SyncSender<Chunk>, spare: &Receiver<Vec<u8>>) -> Stream {
    let mut hasher = Sha256::new();
    let mut size = 0_u64;
    let failed = |error: LayerError| {
        // If nobody listens, nobody misses it.
        let _ = send.send(Err(error));
    };
    match decoder(reader) {
        Ok((_, mut stream)) => loop {
            let mut chunk = spare.try_recv().unwrap_or_default();
            chunk.clear();
            let read = stream.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
            size += chunk.len() as u64;
            if size > limit {
                failed(LayerError::TooLarge { limit });
                break;
            }
            hasher.update(&chunk);
            let last = chunk.len() < CHUNK;
            // What came before an error is used: the error of the tar is the better one.
            if !chunk.is_empty() && send.send(Ok(chunk)).is_err() {
                break;
            }
            match read {
                Ok(_) if last => break,
                Ok(_) => {}
                Err(error) => {
                    failed(from_io(error));
                    break;
                }
            }
        },
        Err(error) => failed(from_io(error)),
    }
    Stream { digest: Digest::from_bytes(hasher.finalize().into()), size }
}

/// The receiving end.
struct Chunks<'a> {
    receive: Receiver<Chunk>,
    give_back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    total: u64,
    progress: &'a dyn Fn(u64),
    failure: Option<io::ErrorKind>,
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.at == self.current.len() {
            if let Some(kind) = self.failure {
                return Err(kind.into());
            }
            match self.receive.recv() {
                Ok(Ok(chunk)) => {
                    self.total += chunk.len() as u64;
                    (self.progress)(self.total);
                    let used = std::mem::replace(&mut self.current, chunk);
                    self.at = 0;
                    // A full or closed channel only means that the buffer is freed here.
                    let _ = self.give_back.try_send(used);
                }
                Ok(Err(error)) => {
                    self.failure = Some(io::ErrorKind::Other);
                    return Err(io::Error::other(error));
                }
                Err(_) => return Ok(0),
            }
        }
        let mut rest = self.current.get(self.at..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
