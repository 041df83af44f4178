//! From the store to a registry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bytes::Bytes;
use futures_util::stream::{self, TryStreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, Response, StatusCode, Url};
use tokio_util::io::ReaderStream;

use super::auth::Scope;
use super::reference::{Reference, Repository};
use super::retry::{Failure, Retry};
use super::transport::{Call, action_of, broken, location};
use super::{Registry, RegistryError};
use crate::document::{Document, DocumentError, MAX_DOCUMENT, clean};
use crate::store::{Descriptor, Store, StoreError};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 3;
/// Bytes that are read from a blob's file at once.
const PIECE: usize = 256 << 10;

/// What became of one attempt to send a blob.
enum Sent {
    /// The registry has it now.
    Done,
    /// The registry has no such blob anywhere near, and nor has the store.
    NotHere,
}

impl Registry {
    pub(super) async fn push_one(
        &self,
        store: &Store,
        target: &Repository,
        blob: &Descriptor,
        mount_from: &[Repository],
        task: &Task,
    ) -> Result<(), RegistryError> {
        let key = format!("> {target}@{}", blob.digest);
        let lock = self.inner.lock(key.clone());
        let _alone = lock.lock().await;
        if self.inner.sent.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(());
        }
        if let Sent::NotHere = self.send_blob(store, target, blob, mount_from, task).await? {
            // A layer of a base image that nothing needed the files of: fetched only now.
            let mut last = None;
            for source in mount_from {
                match self.fetch_one(store, source, blob, task).await {
                    Ok(()) => {
                        last = None;
                        break;
                    }
                    Err(error) => last = Some(error),
                }
            }
            if let Some(error) = last {
                return Err(error);
            }
            if let Sent::NotHere = self.send_blob(store, target, blob, &[], task).await? {
                return Err(RegistryError::MissingBlob { what: target.to_string(), digest: blob.digest });
            }
        }
        self.inner.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(())
    }

    async fn send_blob(
        &self,
        store: &Store,
        target: &Repository,
        blob: &Descriptor,
        mount_from: &[Repository],
        task: &Task,
    ) -> Result<Sent, RegistryError> {
        let gate = self.inner.transport.gate(target.host());
        // The gate is never closed.
        let _turn = gate.acquire().await;
        let mut mounts = mount_from.iter().filter(|from| from.host() == target.host() && *from != target);
        let mut mount = mounts.next();
        let mut budget = self.inner.transport.budget();
        loop {
            match self.send_blob_once(store, target, blob, mount, task).await {
                Ok(Sent::NotHere) if mount.is_some() => mount = mounts.next(),
                Ok(sent) => return Ok(sent),
                Err(failure) => budget.pause(failure).await?,
            }
            // no further mount, and the first attempt without one says what there is
        }
    }

    /// Distribution-spec v1.1: "Checking if content exists", "Mounting a blob from another repository", "POST then PUT".
    async fn send_blob_once(
        &self,
        store: &Store,
        target: &Repository,
        blob: &Descriptor,
        mount: Option<&Repository>,
        task: &Task,
    ) -> Result<Sent, Failure> {
        let transport = &self.inner.transport;
        let what = format!("{target}@{}", blob.digest);
        let scope = Scope::push(target);

        let url = transport.url(target, &format!("blobs/{}", blob.digest)).await?;
        let call = Call::new(Method::HEAD, url, &scope);
        let response = transport.send(&call).await?;
        match response.status() {
            StatusCode::OK => return Ok(Sent::Done),
            StatusCode::NOT_FOUND => {}
            // some registries let one push but not look
            StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {}
            _ => return Err(transport.refusal(&call, &what, response).await),
        }

        let here = store.has_blob(blob.digest);
        let mut session = None;
        if let Some(from) = mount {
            let scope = Scope::push(target).and_pull(from);
            let mut url = transport.url(target, "blobs/uploads/").await?;
            url.query_pairs_mut()
                .append_pair("mount", &blob.digest.to_string())
                .append_pair("from", from.path());
            let mut call = Call::new(Method::POST, url, &scope);
            call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            let response = transport.send(&call).await;
            match response {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(Sent::Done),
                // "cannot mount, but upload it here"
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    session = Some(location(&response, &call.url, &call.action())?);
                }
                // whatever else it says: there is the ordinary way
                _ => {}
            }
        }
        if !here {
            return Ok(Sent::NotHere);
        }
        let session = match session {
            Some(session) => session,
            None => {
                let url = transport.url(target, "blobs/uploads/").await?;
                let mut call = Call::new(Method::POST, url, &scope);
                call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                let response = transport.send(&call).await?;
                if response.status() != StatusCode::ACCEPTED {
                    return Err(transport.refusal(&call, &what, response).await);
                }
                location(&response, &call.url, &call.action())?
            }
        };
        self.upload(store, &scope, blob, session, &what, task).await?;
        Ok(Sent::Done)
    }

    /// The whole blob in one `PUT`.
    async fn upload(
        &self,
        store: &Store,
        scope: &Scope,
        blob: &Descriptor,
        mut session: Url,
        what: &str,
        task: &Task,
    ) -> Result<(), Failure> {
        let transport = &self.inner.transport;
        session.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let action = action_of(&Method::PUT, &session);
        let failed =
            |source: StoreError| RegistryError::Store { what: what.to_owned(), source: source.into() };
        let file = store.open_blob(blob.digest).map_err(failed)?;

        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let (part, total, events) = (blob.digest.to_string(), blob.size, task.clone());
        let mut shown = 0;
        let pieces =
            ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE).inspect_ok(move |piece| {
                let now = counter.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
                if now - shown >= 1 << 20 || now == total {
                    shown = now;
                    events.progress(part.clone(), now, Some(total));
                }
            });
        let mut request = Request::new(Method::PUT, session.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        if let Some(header) = transport.authorization(scope, &session).await? {
            headers.insert(AUTHORIZATION, header);
        }
        *request.body_mut() =
            Some(if blob.size == 0 { Body::from(Bytes::new()) } else { Body::wrap_stream(pieces) });

        let response = self.watched(scope.repository.host(), request, &action, &sent, blob.size).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            status => {
                if status == StatusCode::UNAUTHORIZED {
                    transport.challenged(scope, &session, &response).await?;
                }
                let call = Call::new(Method::PUT, session, scope);
                let mut failure = transport.refusal(&call, what, response).await;
                // A session that was lost, or a token that ran out on the way: the next attempt begins with a new one.
                if matches!(status.as_u16(), 401 | 404 | 409 | 416) && failure.retry == Retry::Never {
                    failure.retry = Retry::Backoff;
                }
                Err(failure)
            }
        }
    }

    /// Sends a request with a large body: fails when the body does not move, or the answer does not come after it.
    async fn watched(
        &self,
        host: &str,
        request: Request,
        action: &str,
        sent: &AtomicU64,
        size: u64,
    ) -> Result<Response, Failure> {
        let transport = &self.inner.transport;
        let timing = &transport.options().timing;
        let client = transport.client(host, request.url())?;
        let answer = client.execute(request);
        let mut answer = std::pin::pin!(answer);
        let mut seen = 0;
        let mut since = Instant::now();
        let look = (timing.stall / 8).max(Duration::from_millis(1));
        loop {
            match tokio::time::timeout(look, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(broken(action, error)),
                Err(_) => {}
            }
            let now = sent.load(Ordering::Relaxed);
            let patience = if now >= size { timing.settle } else { timing.stall };
            // A drip counts as nothing: a stall's time must bring its bytes.
            let enough = u128::from(timing.min_rate) * timing.stall.as_millis() / 1000;
            if u128::from(now - seen) >= enough.max(1) || (now >= size && seen < size) {
                seen = now;
                since = Instant::now();
            } else if since.elapsed() >= patience {
                return Err(transport.stalled(action));
            }
        }
    }

    pub(super) async fn push_image(
        &self,
        store: &Store,
        target: &Reference,
        image: &Descriptor,
        mount_from: &[Repository],
        task: &Task,
    ) -> Result<(), RegistryError> {
        let repository = target.repository();
        // Children before parents; the last one is the image itself.
        let mut documents = Vec::new();
        collect(store, target, image, 0, &mut documents)?;

        let mut blobs: Vec<&Descriptor> = Vec::new();
        for (_, _, document) in &documents {
            if let Document::Manifest(manifest) = document {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if !blobs.iter().any(|other| other.digest == blob.digest) {
                        blobs.push(blob);
                    }
                }
            }
        }
        let connections = self.inner.transport.options().connections.max(1);
        stream::iter(blobs.into_iter().map(Ok))
            .try_for_each_concurrent(connections, |blob| {
                self.push_one(store, repository, blob, mount_from, task)
            })
            .await?;

        let last = documents.len().saturating_sub(1);
        for (at, (descriptor, raw, _)) in documents.into_iter().enumerate() {
            let digest = descriptor.digest.to_string();
            let name = match target.tag() {
                Some(tag) if at == last => tag,
                _ => &digest,
            };
            self.put_document(repository, name, &descriptor, raw.into(), &target.to_string()).await?;
        }
        Ok(())
    }

    async fn put_document(
        &self,
        repository: &Repository,
        name: &str,
        descriptor: &Descriptor,
        raw: Bytes,
        what: &str,
    ) -> Result<(), RegistryError> {
        let transport = &self.inner.transport;
        let scope = Scope::push(repository);
        let mut budget = transport.budget();
        loop {
            let attempt = async {
                let url = transport.url(repository, &format!("manifests/{name}")).await?;
                let mut call = Call::new(Method::PUT, url, &scope);
                let kind =
                    HeaderValue::from_str(&descriptor.media_type).map_err(|_| RegistryError::Document {
                        what: what.to_owned(),
                        source: DocumentError::Unsupported(clean(&descriptor.media_type)),
                    })?;
                call.headers.insert(CONTENT_TYPE, kind);
                call.body = raw.clone();
                let response = transport.send(&call).await?;
                match response.status() {
                    StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
                        match stored_as(response.headers()).filter(|stored| *stored != descriptor.digest) {
                            Some(actual) => Err(RegistryError::Digest {
                                what: what.to_owned(),
                                expected: descriptor.digest,
                                actual,
                            }
                            .into()),
                            None => Ok(()),
                        }
                    }
                    _ => Err(transport.refusal(&call, what, response).await),
                }
            };
            match attempt.await {
                Ok(()) => return Ok(()),
                Err(failure) => budget.pause(failure).await?,
            }
        }
    }
}

type Collected = (Descriptor, Vec<u8>, Document);

fn collect(
    store: &Store,
    target: &Reference,
    descriptor: &Descriptor,
    depth: u32,
    documents: &mut Vec<Collected>,
) -> Result<(), RegistryError> {
    if documents.iter().any(|(known, _, _)| known.digest == descriptor.digest) {
        return Ok(());
    }
    let what = || format!("{target} ({})", descriptor.digest);
    if !store.has_blob(descriptor.digest) {
        return Err(RegistryError::MissingBlob { what: target.to_string(), digest: descriptor.digest });
    }
    let raw = store
        .read_blob(descriptor.digest, MAX_DOCUMENT)
        .map_err(|source: StoreError| RegistryError::Store { what: what(), source: source.into() })?;
    let document = Document::parse(&raw, Some(&descriptor.media_type))
        .map_err(|source| RegistryError::Document { what: what(), source })?;
    if let Document::Index(index) = &document {
        if depth >= MAX_DEPTH {
            let kind = "an index in an index in an index".to_owned();
            return Err(RegistryError::NotAnImage { what: what(), kind });
        }
        for entry in &index.manifests {
            collect(store, target, &entry.descriptor, depth + 1, documents)?;
        }
    }
    documents.push((descriptor.clone(), raw, document));
    Ok(())
}

/// Under which digest the registry says that it keeps a manifest.
fn stored_as(headers: &HeaderMap) -> Option<Digest> {
    headers.get(HeaderName::from_static("docker-content-digest"))?.to_str().ok()?.parse().ok()
}
