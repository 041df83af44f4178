//! A blob on its way into the store: hashed and written by a thread of its own, so that the network does not wait for it.

use std::io::Write;

use bricklayer_solver::Digest;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::store::{Store, StoreError};

/// Pieces that may wait to be written: bounds the memory of one transfer.
const QUEUE: usize = 32;

enum Piece {
    Data(Bytes),
    End(Digest, u64),
}

/// Dropped without [`finish`](Self::finish), nothing of the blob stays.
pub(super) struct Writing {
    queue: Option<mpsc::Sender<Piece>>,
    worker: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Writing {
    pub(super) fn start(store: &Store) -> Self {
        let (queue, mut pieces) = mpsc::channel(QUEUE);
        let store = store.clone();
        let worker = tokio::task::spawn_blocking(move || {
            let mut writer = store.blob_writer()?;
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Data(bytes) => writer.write_all(&bytes).map_err(|source| StoreError::Io {
                        action: "write a blob in",
                        path: store.path().to_path_buf(),
                        source,
                    })?,
                    Piece::End(digest, size) => return writer.commit(Some((digest, size))).map(drop),
                }
            }
            Ok(())
        });
        Self { queue: Some(queue), worker: Some(worker) }
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match &self.queue {
            Some(queue) if queue.send(Piece::Data(bytes)).await.is_ok() => Ok(()),
            // the worker has ended: it says why
            _ => self.join().await,
        }
    }

    pub(super) async fn finish(mut self, digest: Digest, size: u64) -> Result<(), StoreError> {
        if let Some(queue) = self.queue.take() {
            let _ = queue.send(Piece::End(digest, size)).await;
        }
        self.join().await
    }
}

impl Writing {
    /// The end of the worker. An end without an error is one only after `End`.
    async fn join(&mut self) -> Result<(), StoreError> {
        self.queue = None;
        match self.worker.take() {
            Some(worker) => match worker.await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // the runtime shuts down: nobody waits for this any more
                    Err(_) => std::future::pending().await,
                },
            },
            None => Ok(()),
        }
    }
}
