//! From a registry into the store.

use std::sync::{Arc, PoisonError};

use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::platform::Platform;
use bytes::Bytes;
use futures_util::stream::{self, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::auth::Scope;
use super::reference::{Reference, Repository};
use super::retry::{Failure, Retry};
use super::transport::{Call, Pulse};
use super::write::Writing;
use super::{PulledImage, Registry, RegistryError, Resolved, select};
use crate::document::{Document, DocumentError, MAX_DOCUMENT, Manifest, clean};
use crate::store::{Descriptor, Store, StoreError};

const DOCUMENTS: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json",
);
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A document with the bytes that it was read from.
struct Fetched {
    descriptor: Descriptor,
    raw: Vec<u8>,
    document: Document,
}

/// Where documents are looked up first.
#[derive(Clone, Copy)]
enum Local<'a> {
    Store(&'a Store),
    Nowhere,
}

impl Registry {
    pub(super) async fn resolve_in(
        &self,
        store: Option<&Store>,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        let local = store.map_or(Local::Nowhere, Local::Store);
        let repository = reference.repository();
        let what = reference.to_string();
        let top = self.document(local, reference, &what).await?;
        let mut index = None;
        let mut current = top;
        // An index may list indexes; nobody goes deeper than this.
        for _ in 0..3 {
            let Document::Index(list) = &current.document else { break };
            let entry = select::select(list, platform).map_err(|available| RegistryError::Platform {
                what: what.clone(),
                wanted: platform.to_string(),
                available,
            })?;
            let promised = entry.descriptor.clone();
            let child = self.child(local, repository, &promised, &what).await?;
            let parent = std::mem::replace(&mut current, child);
            index.get_or_insert((parent.descriptor, parent.raw));
        }
        let Document::Manifest(manifest) = current.document else {
            return Err(RegistryError::NotAnImage { what, kind: current.descriptor.media_type });
        };
        if !manifest.is_image() {
            let kind = clean(manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type));
            return Err(RegistryError::NotAnImage { what, kind });
        }
        let config_raw = self.config(local, repository, &manifest, &what).await?;
        let config: ImageConfig =
            serde_json::from_slice(&config_raw).map_err(|error| RegistryError::Document {
                what: format!("{repository}@{}", manifest.config.digest),
                source: error.into(),
            })?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(RegistryError::LayerCount { what, layers, diff_ids });
        }
        Ok(Resolved {
            reference: reference.clone(),
            index,
            manifest: current.descriptor,
            manifest_raw: current.raw,
            config_raw,
            config,
            layers: manifest.layers,
        })
    }

    pub(super) async fn pull_into(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<PulledImage, RegistryError> {
        let resolved = self.resolve_in(Some(store), reference, platform).await?;
        let failed =
            |source: StoreError| RegistryError::Store { what: reference.to_string(), source: source.into() };
        let put = |digest: Digest, mut bytes: &[u8]| -> Result<(), StoreError> {
            if store.has_blob(digest) {
                return Ok(());
            }
            let size = bytes.len() as u64;
            store.put_blob(&mut bytes, digest, size)
        };
        // what is pointed at first
        put(Digest::of(&resolved.config_raw), &resolved.config_raw).map_err(failed)?;
        put(resolved.manifest.digest, &resolved.manifest_raw).map_err(failed)?;
        let origin = reference.repository().to_string();
        store.remember_origin(resolved.manifest.digest, &origin).map_err(failed)?;
        if let Some((index, raw)) = &resolved.index {
            put(index.digest, raw).map_err(failed)?;
            store.remember_origin(index.digest, &origin).map_err(failed)?;
        }
        Ok(PulledImage {
            reference: resolved.reference,
            index: resolved.index.map(|(index, _)| index),
            manifest: resolved.manifest,
            config: resolved.config,
            layers: resolved.layers,
        })
    }

    /// What a reference names: asked for by digest if it has one, else by tag.
    async fn document(
        &self,
        local: Local<'_>,
        reference: &Reference,
        what: &str,
    ) -> Result<Fetched, RegistryError> {
        let repository = reference.repository();
        if let Some(digest) = reference.digest() {
            return match from_store(local, digest, what)? {
                Some(found) => Ok(found),
                None => self.get_document(repository, &digest.to_string(), Some(digest), what).await,
            };
        }
        let tag = reference.tag().unwrap_or("latest");
        if let Local::Store(_) = local
            && let Some(digest) = self.head_document(repository, tag).await?
            && let Some(found) = from_store(local, digest, what)?
        {
            return Ok(found);
        }
        self.get_document(repository, tag, None, what).await
    }

    /// An entry of an index.
    async fn child(
        &self,
        local: Local<'_>,
        repository: &Repository,
        promised: &Descriptor,
        what: &str,
    ) -> Result<Fetched, RegistryError> {
        let what = format!("{what} ({})", promised.digest);
        if promised.size > MAX_DOCUMENT {
            return Err(RegistryError::Document {
                what,
                source: DocumentError::TooLarge { size: promised.size },
            });
        }
        let mut found = match from_store(local, promised.digest, &what)? {
            Some(found) => found,
            None => {
                let digest = promised.digest;
                self.get_document(repository, &digest.to_string(), Some(digest), &what).await?
            }
        };
        if found.descriptor.size != promised.size {
            let actual = found.descriptor.size;
            return Err(RegistryError::Size { what, expected: promised.size, actual });
        }
        // the index says what it is, the document has to agree
        found.document = Document::parse(&found.raw, Some(&promised.media_type))
            .map_err(|source| RegistryError::Document { what, source })?;
        found.descriptor.media_type.clone_from(&promised.media_type);
        Ok(found)
    }

    /// The digest that a tag has now, if the registry says so.
    async fn head_document(
        &self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let url = self.inner.transport.url(repository, &format!("manifests/{tag}")).await?;
        let scope = Scope::pull(repository);
        let mut call = Call::new(Method::HEAD, url, &scope);
        call.headers.insert(ACCEPT, DOCUMENTS);
        // Whatever goes wrong here is told by the GET that follows.
        match self.inner.transport.send(&call).await {
            Ok(response) if response.status() == StatusCode::OK => Ok(content_digest(response.headers())),
            _ => Ok(None),
        }
    }

    async fn get_document(
        &self,
        repository: &Repository,
        name: &str,
        expected: Option<Digest>,
        what: &str,
    ) -> Result<Fetched, RegistryError> {
        let scope = Scope::pull(repository);
        let mut budget = self.inner.transport.budget();
        let mut wrong = 0;
        loop {
            let failure = match self.get_document_once(&scope, name, expected, what).await {
                Ok(found) => return Ok(found),
                // bytes may be damaged on the way once
                Err(Failure { error: error @ RegistryError::Digest { .. }, .. }) if wrong == 0 => {
                    wrong += 1;
                    Failure::passing(error)
                }
                Err(failure) => failure,
            };
            budget.pause(failure).await?;
        }
    }

    async fn get_document_once(
        &self,
        scope: &Scope,
        name: &str,
        expected: Option<Digest>,
        what: &str,
    ) -> Result<Fetched, Failure> {
        let transport = &self.inner.transport;
        let url = transport.url(&scope.repository, &format!("manifests/{name}")).await?;
        let mut call = Call::new(Method::GET, url, scope);
        call.headers.insert(ACCEPT, DOCUMENTS);
        let response = transport.send(&call).await?;
        if response.status() != StatusCode::OK {
            return Err(transport.refusal(&call, what, response).await);
        }
        let promised = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let claimed = content_digest(response.headers());
        let raw = transport.read_all(response, MAX_DOCUMENT, what).await?;
        let actual = Digest::of(&raw);
        if let Some(expected) = expected.or(claimed).filter(|expected| *expected != actual) {
            return Err(RegistryError::Digest { what: what.to_owned(), expected, actual }.into());
        }
        let document = Document::parse(&raw, promised.as_deref())
            .map_err(|source| RegistryError::Document { what: what.to_owned(), source })?;
        let descriptor = Descriptor {
            media_type: document.media_type().to_owned(),
            digest: actual,
            size: raw.len() as u64,
        };
        Ok(Fetched { descriptor, raw, document })
    }

    async fn config(
        &self,
        local: Local<'_>,
        repository: &Repository,
        manifest: &Manifest,
        what: &str,
    ) -> Result<Vec<u8>, RegistryError> {
        let config = &manifest.config;
        let what = format!("{what} (configuration {})", config.digest);
        if config.size > MAX_DOCUMENT {
            return Err(RegistryError::Document {
                what,
                source: DocumentError::TooLarge { size: config.size },
            });
        }
        if let Local::Store(store) = local
            && store.has_blob(config.digest)
            && let Ok(raw) = store.read_blob(config.digest, MAX_DOCUMENT)
            && raw.len() as u64 == config.size
        {
            return Ok(raw);
        }
        let scope = Scope::pull(repository);
        let mut budget = self.inner.transport.budget();
        let mut wrong = 0;
        loop {
            let failure = match self.config_once(&scope, config, &what).await {
                Ok(raw) => return Ok(raw),
                Err(Failure { error: error @ RegistryError::Digest { .. }, .. }) if wrong == 0 => {
                    wrong += 1;
                    Failure::passing(error)
                }
                Err(failure) => failure,
            };
            budget.pause(failure).await?;
        }
    }

    async fn config_once(&self, scope: &Scope, config: &Descriptor, what: &str) -> Result<Vec<u8>, Failure> {
        let transport = &self.inner.transport;
        let url = transport.url(&scope.repository, &format!("blobs/{}", config.digest)).await?;
        let call = Call::new(Method::GET, url, scope);
        let response = transport.send(&call).await?;
        if response.status() != StatusCode::OK {
            return Err(transport.refusal(&call, what, response).await);
        }
        let raw = transport.read_all(response, MAX_DOCUMENT, what).await?;
        let actual = Digest::of(&raw);
        if actual != config.digest {
            return Err(
                RegistryError::Digest { what: what.to_owned(), expected: config.digest, actual }.into()
            );
        }
        if raw.len() as u64 != config.size {
            let actual = raw.len() as u64;
            return Err(RegistryError::Size { what: what.to_owned(), expected: config.size, actual }.into());
        }
        Ok(raw)
    }

    pub(super) async fn fetch_layers_of(
        &self,
        store: &Store,
        manifest: Digest,
        task: &Task,
    ) -> Result<(), RegistryError> {
        let failed =
            |source: StoreError| RegistryError::Store { what: manifest.to_string(), source: source.into() };
        let raw = store.read_blob(manifest, MAX_DOCUMENT).map_err(failed)?;
        let document = Document::parse(&raw, None)
            .map_err(|source| RegistryError::Document { what: manifest.to_string(), source })?;
        let Document::Manifest(document) = document else {
            let kind = document.media_type().to_owned();
            return Err(RegistryError::NotAnImage { what: manifest.to_string(), kind });
        };
        let mut missing: Vec<Descriptor> = Vec::new();
        for layer in document.layers {
            if !store.has_blob(layer.digest) && !missing.iter().any(|other| other.digest == layer.digest) {
                missing.push(layer);
            }
        }
        let Some(first) = missing.first() else { return Ok(()) };
        let origin = store.origin(manifest).map_err(failed)?;
        let Some(repository) = origin.and_then(|origin| origin.parse::<Repository>().ok()) else {
            return Err(RegistryError::MissingBlob { what: manifest.to_string(), digest: first.digest });
        };
        let connections = self.inner.transport.options().connections.max(1);
        stream::iter(missing.iter().map(Ok))
            .try_for_each_concurrent(connections, |layer| self.fetch_one(store, &repository, layer, task))
            .await
    }

    pub(super) async fn fetch_one(
        &self,
        store: &Store,
        repository: &Repository,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), RegistryError> {
        let lock = self.inner.lock(format!("< {}", blob.digest));
        let _alone = lock.lock().await;
        if store.has_blob(blob.digest) {
            return Ok(());
        }
        let gate = self.inner.transport.gate(repository.host());
        // The gate is never closed.
        let _turn = gate.acquire().await;
        self.download(store, repository, blob, task).await
    }

    async fn download(
        &self,
        store: &Store,
        repository: &Repository,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), RegistryError> {
        let what = format!("{repository}@{}", blob.digest);
        let scope = Scope::pull(repository);
        let mut budget = self.inner.transport.budget();
        let mut wrong = 0;
        loop {
            let mut transfer = Transfer { writing: Writing::start(store), done: 0, ranges: true, shown: 0 };
            let mut furthest = 0;
            loop {
                let failure = match self.transfer(&scope, blob, &what, &mut transfer, task).await {
                    Ok(()) => break,
                    Err(failure) => failure,
                };
                // a drip is progress, too, but not one that earns patience
                let moved = transfer.done.saturating_sub(furthest);
                if moved > 0 && !matches!(failure.error, RegistryError::Stalled { .. }) {
                    budget.progressed();
                }
                furthest = transfer.done;
                budget.pause(failure).await?;
            }
            match transfer.writing.finish(blob.digest, blob.size).await {
                Ok(()) => return Ok(()),
                Err(StoreError::DigestMismatch { actual, .. }) => {
                    let error = RegistryError::Digest { what: what.clone(), expected: blob.digest, actual };
                    if wrong > 0 {
                        return Err(error);
                    }
                    wrong += 1;
                    budget.pause(Failure::passing(error)).await?;
                }
                Err(source) => return Err(RegistryError::Store { what, source: source.into() }),
            }
        }
    }

    /// One request for what is still missing of a blob.
    async fn transfer(
        &self,
        scope: &Scope,
        blob: &Descriptor,
        what: &str,
        transfer: &mut Transfer,
        task: &Task,
    ) -> Result<(), Failure> {
        if transfer.done == blob.size && blob.size > 0 {
            return Ok(());
        }
        let transport = &self.inner.transport;
        let url = transport.url(&scope.repository, &format!("blobs/{}", blob.digest)).await?;
        let mut call = Call::new(Method::GET, url, scope);
        let resume = transfer.done > 0 && transfer.ranges;
        if resume && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", transfer.done)) {
            call.headers.insert(RANGE, range);
        }
        let mut response = transport.send(&call).await?;
        // bytes of the answer that we have already
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT
                if resume && range_start(response.headers()) == Some(transfer.done) =>
            {
                0
            }
            StatusCode::OK => {
                if let Some(actual) = response.content_length().filter(|length| *length != blob.size) {
                    let what = what.to_owned();
                    return Err(RegistryError::Size { what, expected: blob.size, actual }.into());
                }
                transfer.done
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resume => {
                transfer.ranges = false;
                return Err(transport.refusal(&call, what, response).await)
                    .map_err(|failure: Failure| Failure { error: failure.error, retry: Retry::Backoff });
            }
            _ => return Err(transport.refusal(&call, what, response).await),
        };
        let part = blob.digest.to_string();
        let action = call.action();
        let mut pulse = Pulse::new();
        while let Some(mut bytes) = pulse.next(transport, &mut response, &action).await? {
            let known = skip.min(bytes.len() as u64);
            skip -= known;
            // `known` is at most the length
            let new = bytes.split_off(usize::try_from(known).unwrap_or(bytes.len()));
            if new.is_empty() {
                continue;
            }
            let length = new.len() as u64;
            if transfer.done + length > blob.size {
                let actual = transfer.done + length;
                return Err(RegistryError::Size { what: what.to_owned(), expected: blob.size, actual }.into());
            }
            transfer.write(new).await.map_err(|source: StoreError| RegistryError::Store {
                what: what.to_owned(),
                source: source.into(),
            })?;
            if transfer.done - transfer.shown >= 256 << 10 || transfer.done == blob.size {
                transfer.shown = transfer.done;
                task.progress(part.clone(), transfer.done, Some(blob.size));
            }
        }
        if transfer.done < blob.size {
            let source = "the connection ended too early".into();
            return Err(Failure::passing(RegistryError::Transport { action, source }));
        }
        Ok(())
    }
}

/// A blob on its way.
struct Transfer {
    writing: Writing,
    /// Bytes that were given to the store.
    done: u64,
    /// Does the server understand `Range`, as far as we know?
    ranges: bool,
    /// Bytes that people were told of.
    shown: u64,
}

impl Transfer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        self.writing.write(bytes).await?;
        self.done += length;
        Ok(())
    }
}

impl super::Inner {
    /// The lock of one piece of work: whoever comes second finds it done.
    pub(super) fn lock(&self, name: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // those that nobody holds any more
        if locks.len() > 1000 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(name).or_default())
    }
}

fn from_store(local: Local<'_>, digest: Digest, what: &str) -> Result<Option<Fetched>, RegistryError> {
    let Local::Store(store) = local else { return Ok(None) };
    if !store.has_blob(digest) {
        return Ok(None);
    }
    // A damaged blob is as good as none: it is fetched again.
    let Ok(raw) = store.read_blob(digest, MAX_DOCUMENT) else { return Ok(None) };
    let document = Document::parse(&raw, None)
        .map_err(|source| RegistryError::Document { what: what.to_owned(), source })?;
    let descriptor =
        Descriptor { media_type: document.media_type().to_owned(), digest, size: raw.len() as u64 };
    Ok(Some(Fetched { descriptor, raw, document }))
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// Where a partial answer begins (`bytes 5-9/10`).
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
