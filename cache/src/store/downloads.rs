//! What servers said of files that were fetched over HTTP, so that the next build can ask whether they changed.

use bricklayer_solver::Digest;
use rusqlite::{OptionalExtension as _, params};

use super::blobs::digest_column;
use super::error::StoreError;
use super::{Store, now_ms};

/// So many are remembered; the ones that were used longest ago go first.
const KEPT: i64 = 10_000;

/// A file at a URL, as it was when it was last fetched or confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDownload {
    /// The file's digest; its blob may be gone.
    pub digest: Digest,
    /// The server's `ETag`, as it was sent.
    pub etag: Option<String>,
    /// The server's `Last-Modified`, as it was sent.
    pub modified: Option<String>,
    /// When the file was fetched, in seconds since 1970.
    pub fetched: i64,
}

impl Store {
    /// Notes what the server said of a file. URLs may hold secrets: only their digests are kept.
    ///
    /// # Errors
    ///
    /// The database can't be written.
    pub fn note_download(&self, url: &str, download: &KnownDownload) -> Result<(), StoreError> {
        self.inner.state().db.write("note a download", |tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO downloads (url, digest, etag, modified, fetched, used_ms) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                Digest::of(url.as_bytes()).as_bytes(),
                download.digest.as_bytes(),
                download.etag,
                download.modified,
                download.fetched,
                now_ms()
            ])?;
            tx.prepare_cached(
                "DELETE FROM downloads WHERE url IN (SELECT url FROM downloads ORDER BY used_ms DESC LIMIT -1 OFFSET ?)",
            )?
            .execute([KEPT])?;
            Ok(())
        })
    }

    /// What was noted last.
    ///
    /// # Errors
    ///
    /// The database can't be read.
    pub fn known_download(&self, url: &str) -> Result<Option<KnownDownload>, StoreError> {
        self.inner.state().db.read("look up a download", |tx| {
            Ok(tx
                .prepare_cached("SELECT digest, etag, modified, fetched FROM downloads WHERE url = ?")?
                .query_one([Digest::of(url.as_bytes()).as_bytes()], |row| {
                    Ok(KnownDownload {
                        digest: digest_column(row, 0)?,
                        etag: row.get(1)?,
                        modified: row.get(2)?,
                        fetched: row.get(3)?,
                    })
                })
                .optional()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_server_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let url = "https://example.test/a?token=secret";
        assert_eq!(store.known_download(url).unwrap(), None);
        let first = KnownDownload {
            digest: Digest::of(b"one"),
            etag: Some("\"1\"".into()),
            modified: None,
            fetched: 7,
        };
        let second = KnownDownload { digest: Digest::of(b"two"), etag: None, ..first.clone() };
        for download in [first, second] {
            store.note_download(url, &download).unwrap();
            assert_eq!(store.known_download(url).unwrap(), Some(download));
        }
        assert_eq!(store.known_download("https://example.test/a").unwrap(), None);
        for name in ["meta.db", "meta.db-wal"] {
            let bytes = std::fs::read(dir.path().join(name)).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"secret"), "{name}");
        }
    }
}
