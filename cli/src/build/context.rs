//! Contexts that are not directories: an archive, a git repository, a file over HTTP.
//!
//! An archive is unpacked into a directory of the store that is gone when the build ends. A remote context is brought by
//! the steps that the build has for it too, so that the Dockerfile that is read here is of the commit, or of the
//! download, that COPY takes files from; the records then answer for the second look.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use bricklayer_cache::layer::unpack::Mode;
use bricklayer_cache::layer::{self, UnpackOptions};
use bricklayer_cache::root::{Root, RootError};
use bricklayer_frontend::remote_context;
use bricklayer_solver::event::Reporter;
use bricklayer_solver::graph::VertexId;
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::schedule::{Solver, SolverOptions};
use bricklayer_solver::worker::Worker;
use bricklayer_worker::{LocalWorker, Pins, snapshot_view};
use tokio_util::sync::CancellationToken;

use super::{Builder, base_settings};
use crate::error::Error;
use crate::request::{BuildRequest, Reader};

/// Unpacks an archive, compressed or not, into an empty directory. What is no archive, or breaks off, is an error: it is
/// never taken for something else after files were written. Blocking.
pub(super) fn unpack(reader: &Reader, directory: &Path) -> Result<(), Error> {
    let root = Root::open(directory)
        .map_err(|e| Error::because(format!("cannot open `{}`", directory.display()), e))?;
    let options = UnpackOptions { mode: Mode::Files, ..UnpackOptions::default() };
    let mut reader = reader.0.lock().unwrap_or_else(PoisonError::into_inner);
    let unpacked = layer::unpack(&mut *reader, &root, &options, &|_| {})
        .map_err(|e| Error::because("cannot unpack the archive that is the context", e))?;
    match unpacked.entries {
        0 => Err(Error::new("the archive that is the context is empty")),
        _ => Ok(()),
    }
}

/// What is at a URL.
pub(super) enum Remote {
    /// One file that is no archive: the Dockerfile.
    Dockerfile(Vec<u8>),
    /// A checkout, or what was in an archive.
    Files(Arc<Root>),
}

/// Brings the context at `url`; what it turned out to be is noted in `pins`.
pub(super) async fn fetch(
    builder: &Builder,
    request: &BuildRequest,
    url: &str,
    pins: &Pins,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Remote, Error> {
    let steps = remote_context(url, &request.build_args, request.no_cache, request.source_date_epoch)
        .map_err(|diagnostic| Error::new(diagnostic.message))?;
    let worker = LocalWorker::new(
        builder.store.clone(),
        Arc::new(builder.registry.clone()),
        base_settings(builder, request, pins.clone()),
    );
    let solver = Solver::new(
        Arc::new(worker) as Arc<dyn Worker>,
        Arc::new(builder.store.clone()),
        SolverOptions { no_cache: request.no_cache, ..SolverOptions::default() },
        reporter.clone(),
    );
    let graph = Arc::new(steps.graph);
    let solve = async |vertex: VertexId| -> Result<Arc<Root>, Error> {
        let solved = match solver.solve(Arc::clone(&graph), vertex, cancel.clone(), |_, _| {}).await {
            Ok(solved) => solved,
            Err(_) if cancel.is_cancelled() => return Err(Error::Cancelled),
            Err(failed) => {
                return Err(Error::Step {
                    step: failed.name,
                    location: failed.location,
                    text: String::new(),
                    log: failed.log,
                    place: None,
                    source: failed.error,
                });
            }
        };
        let Output::Snapshot(snapshot) = solved.output else {
            return Err(Error::new(format!("the context `{}` has no files", without_user(url))));
        };
        view(builder, snapshot).await
    };
    let Some(file) = steps.file else { return Ok(Remote::Files(solve(steps.source).await?)) };
    let downloaded = solve(steps.source).await?;
    let shown = without_user(url);
    let text = builder
        .blocking(move || {
            let failed = |e: RootError| Error::because(format!("cannot read what `{shown}` sent"), e);
            let mut content = downloaded.open_file(file.as_ref()).map_err(failed)?;
            let archive = layer::sniff(&mut content)
                .map_err(|e| Error::because(format!("cannot read what `{shown}` sent"), e))?;
            match archive {
                Some(_) => Ok(None),
                None => {
                    downloaded.read_small(file.as_ref(), super::input::TEXT_LIMIT).map(Some).map_err(failed)
                }
            }
        })
        .await?;
    match text {
        Some(text) => Ok(Remote::Dockerfile(text)),
        None => Ok(Remote::Files(solve(steps.files).await?)),
    }
}

async fn view(builder: &Builder, snapshot: Snapshot) -> Result<Arc<Root>, Error> {
    let store = builder.store.clone();
    builder
        .blocking(move || {
            snapshot_view(&store, &snapshot)
                .map_err(|e| Error::because("cannot look into the context that was fetched", e))
        })
        .await
}

/// A URL as it may be shown: without user and password.
pub(crate) fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, address)) => {
            let end = address.find(['/', '?', '#']).unwrap_or(address.len());
            let (authority, path) = address.split_at(end);
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Mutex;

    use super::*;

    fn reader(bytes: Vec<u8>) -> Reader {
        Reader(Arc::new(Mutex::new(Cursor::new(bytes))))
    }

    /// One ustar entry: a file, or a link if `target` is given.
    fn entry(name: &str, target: Option<&str>, data: &[u8]) -> Vec<u8> {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", data.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, if target.is_some() { b"2" } else { b"0" });
        put(157, target.unwrap_or_default().as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn archives_are_unpacked_and_what_is_none_is_refused() {
        let end = vec![0; 1024];
        let whole = [entry("a/b", None, b"hello"), end.clone()].concat();
        let dir = tempfile::tempdir().unwrap();
        unpack(&reader(whole.clone()), dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b")).unwrap(), b"hello");

        for bytes in [Vec::new(), end, b"FROM scratch\n".repeat(60), whole[..515].to_vec()] {
            let dir = tempfile::tempdir().unwrap();
            assert!(unpack(&reader(bytes.clone()), dir.path()).is_err(), "{} bytes", bytes.len());
        }
    }

    /// CVE-2026-44517: a link `Dockerfile` to somewhere, and then what breaks the archive.
    #[test]
    fn nothing_is_written_through_a_link_of_a_broken_archive() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("victim");
        let broken = [
            entry("Dockerfile", Some(target.to_str().unwrap()), b""),
            entry("Dockerfile/x", None, b"x"),
            b"FROM scratch\n".repeat(100),
        ]
        .concat();
        let dir = tempfile::tempdir().unwrap();
        unpack(&reader(broken), dir.path()).unwrap_err();
        assert!(!target.exists());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(without_user("https://u:p@host/x@y?z"), "https://host/x@y?z");
        assert_eq!(without_user("git@host:x"), "git@host:x");
    }
}
