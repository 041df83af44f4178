//! One request after another: base URL of a registry, credentials, redirects, stalls, errors as values.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Body, Method, Request, Response, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::auth::{Answers, Scope};
use super::policy::{self, Origin};
use super::reference::Repository;
use super::retry::{Budget, Clock, Failure, Retry, retry_after};
use super::tls::{Clients, Trust};
use super::{RegistryError, RegistryOptions};
use crate::document::clean;

/// Redirects that one request follows.
const MAX_REDIRECTS: usize = 5;
/// Most bytes of an error's body that are read.
const MAX_ERROR: u64 = 64 << 10;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Transport {
    options: RegistryOptions,
    clients: Clients,
    answers: Answers,
    bases: Mutex<HashMap<String, Url>>,
    gates: Mutex<HashMap<String, Arc<Semaphore>>>,
    clock: Clock,
}

/// One request to a registry.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) scope: &'a Scope,
    pub(super) headers: HeaderMap,
    /// The body, if it is small: it is sent again after a challenge.
    pub(super) body: Bytes,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: Url, scope: &'a Scope) -> Self {
        Self { method, url, scope, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn action(&self) -> String {
        action_of(&self.method, &self.url)
    }
}

/// `GET https://host/path`: what people are told. A query may hold signatures.
pub(super) fn action_of(method: &Method, url: &Url) -> String {
    format!("{method} {}", shown(url))
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    clean(url.as_str())
}

/// An error status as a failure: passing for 408, 429 and 5xx.
pub(super) fn passing_status(
    action: &str,
    status: StatusCode,
    message: Option<String>,
    after: Option<Duration>,
) -> Failure {
    let retry = match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Retry::Never,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            after.map_or(Retry::Backoff, Retry::After)
        }
        status if status.is_server_error() => after.map_or(Retry::Backoff, Retry::After),
        _ => Retry::Never,
    };
    Failure {
        error: RegistryError::Status { action: action.to_owned(), status: status.as_u16(), message },
        retry,
    }
}

impl Transport {
    pub(super) fn new(options: RegistryOptions, clock: Clock) -> Self {
        Self {
            options,
            clients: Clients::default(),
            answers: Answers::default(),
            bases: Mutex::default(),
            gates: Mutex::default(),
            clock,
        }
    }

    pub(super) fn options(&self) -> &RegistryOptions {
        &self.options
    }

    pub(super) fn budget(&self) -> Budget {
        Budget::new(&self.options.timing, &self.clock)
    }

    /// Bounds the transfers at once for one registry.
    pub(super) fn gate(&self, host: &str) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.options.connections.max(1)));
        Arc::clone(gates.entry(host.to_owned()).or_insert_with(new))
    }

    fn lenient(&self, host: &str) -> bool {
        policy::is_loopback(host) || self.options.insecure.contains(host)
    }

    /// `<base>/v2/<path>/<rest>` of a repository.
    pub(super) async fn url(&self, repository: &Repository, rest: &str) -> Result<Url, RegistryError> {
        let base = self.base(repository.host()).await?;
        // path and rest are made of characters that need no escaping
        base.join(&format!("/v2/{}/{rest}", repository.path())).map_err(|_| RegistryError::Options {
            option: repository.to_string(),
            reason: "it does not make a URL".to_owned(),
        })
    }

    /// `https://host`, or for lenient hosts whatever answers.
    async fn base(&self, host: &str) -> Result<Url, RegistryError> {
        if let Some(known) = self.bases.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            return Ok(known.clone());
        }
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let with = |scheme: &str| {
            format!("{scheme}://{server}").parse::<Url>().map_err(|_| RegistryError::Options {
                option: host.to_owned(),
                reason: "it does not make a URL".to_owned(),
            })
        };
        let https = with("https")?;
        let base = if !self.lenient(host) {
            https
        } else {
            let http = with("http")?;
            // This machine's registries mostly speak HTTP, others named as insecure mostly TLS with a home-made certificate.
            let (first, second) = if policy::is_loopback(host) { (http, https) } else { (https, http) };
            if self.speaks(host, &first).await {
                first
            } else if self.speaks(host, &second).await {
                second
            } else {
                // not known: asked again next time
                return Ok(first);
            }
        };
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), base.clone());
        Ok(base)
    }

    /// Does a server answer there in this protocol? Asks without credentials.
    async fn speaks(&self, host: &str, base: &Url) -> bool {
        let Ok(url) = base.join("/v2/") else { return false };
        let request = Request::new(Method::GET, url);
        let Ok(client) = self.client(host, request.url()) else { return false };
        let patience = self.options.timing.connect.min(self.options.timing.stall);
        match timeout(patience, client.execute(request)).await {
            // Go's TLS server answers plain HTTP with 400
            Ok(Ok(response)) => response.status() != StatusCode::BAD_REQUEST,
            Ok(Err(error)) if base.scheme() == "http" => {
                // a server that resets or is not there yet is not one that speaks TLS
                !error_chain_has(&error, "invalid HTTP") && !error.is_connect()
            }
            _ => false,
        }
    }

    pub(super) fn client(&self, host: &str, url: &Url) -> Result<&reqwest::Client, RegistryError> {
        let target = match (url.host_str(), url.port()) {
            (Some(name), Some(port)) => format!("{name}:{port}"),
            (Some(name), None) => name.to_owned(),
            (None, _) => host.to_owned(),
        };
        let trust = match url.scheme() {
            "http" => Trust::Plain,
            _ if self.lenient(&target) => Trust::Unchecked,
            _ => Trust::Checked,
        };
        self.clients.get(trust, &self.options)
    }

    /// Sends one request as it is; waits for the head of the answer.
    pub(super) async fn execute(
        &self,
        host: &str,
        request: Request,
        action: &str,
    ) -> Result<Response, Failure> {
        let client = self.client(host, request.url())?;
        let patience = self.options.timing.stall;
        match timeout(patience, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(action, error)),
            Err(_) => Err(self.stalled(action)),
        }
    }

    pub(super) fn stalled(&self, action: &str) -> Failure {
        let seconds = self.options.timing.stall.as_secs();
        Failure::passing(RegistryError::Stalled { action: action.to_owned(), seconds })
    }

    /// Sends a request with what the registry wants to know, follows redirects (`GET` and `HEAD`), and returns any answer but
    /// a challenge that can be answered.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let registry = self.base(call.scope.repository.host()).await?;
        let origin = Origin::of(&registry);
        let mut url = call.url.clone();
        let mut action = call.action();
        let mut challenged = false;
        let mut hops = 0;
        loop {
            let own = origin.is_some() && Origin::of(&url) == origin;
            let known =
                origin.as_ref().filter(|_| own).and_then(|origin| self.answers.get(origin, call.scope));
            let mut request = Request::new(call.method.clone(), url.clone());
            *request.headers_mut() = call.headers.clone();
            if let Some(header) = known.as_ref().and_then(|known| known.header.clone()) {
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            if !call.body.is_empty() {
                *request.body_mut() = Some(Body::from(call.body.clone()));
            }
            let response = self.execute(call.scope.repository.host(), request, &action).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && own && !challenged {
                challenged = true;
                self.answer(&registry, call.scope, &response, known.as_ref()).await?;
                continue;
            }
            let follows = matches!(call.method, Method::GET | Method::HEAD)
                && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(response);
            }
            let next = location(&response, &url, &action)?;
            hops += 1;
            if hops > MAX_REDIRECTS {
                let target = shown(&next);
                return Err(RegistryError::Redirect {
                    action,
                    target,
                    reason: "there were too many redirects",
                }
                .into());
            }
            url = next;
            action = action_of(&call.method, &url);
        }
    }

    async fn answer(
        &self,
        registry: &Url,
        scope: &Scope,
        response: &Response,
        used: Option<&super::auth::Authorization>,
    ) -> Result<(), Failure> {
        let headers: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .take(8)
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        self.answers.answer(self, registry, scope, &headers, used).await?;
        Ok(())
    }

    /// The header that a request to `url` may carry, if one is known: for bodies that cannot be sent twice.
    pub(super) async fn authorization(
        &self,
        scope: &Scope,
        url: &Url,
    ) -> Result<Option<reqwest::header::HeaderValue>, Failure> {
        let origin = Origin::of(&self.base(scope.repository.host()).await?);
        Ok(origin
            .filter(|origin| Origin::of(url).as_ref() == Some(origin))
            .and_then(|origin| self.answers.get(&origin, scope))
            .and_then(|known| known.header))
    }

    /// After a `401` to a request whose body cannot be sent twice: answers the challenge, so that the next attempt carries it.
    pub(super) async fn challenged(
        &self,
        scope: &Scope,
        url: &Url,
        response: &Response,
    ) -> Result<(), Failure> {
        let registry = self.base(scope.repository.host()).await?;
        let Some(origin) = Origin::of(&registry).filter(|origin| Origin::of(url).as_ref() == Some(origin))
        else {
            return Ok(());
        };
        let used = self.answers.get(&origin, scope);
        self.answer(&registry, scope, response, used.as_ref()).await
    }

    /// An answer with an error status, as a failure.
    pub(super) async fn refusal(&self, call: &Call<'_>, what: &str, response: Response) -> Failure {
        let status = response.status();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, SystemTime::now()));
        let message = self.error_text(response).await;
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { what: what.to_owned(), message }.into(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let base = self.base(call.scope.repository.host()).await.ok();
                let known = base
                    .and_then(|base| Origin::of(&base))
                    .and_then(|origin| self.answers.get(&origin, call.scope));
                if let Some(realm) = known.as_ref().and_then(|known| known.withheld.clone()) {
                    return RegistryError::Realm {
                        host: call.scope.repository.host().to_owned(),
                        realm,
                        reason: "it is not known to belong to the registry, so it was not given the credentials",
                    }
                    .into();
                }
                let authenticated = known.is_some_and(|known| known.authenticated);
                RegistryError::Denied { what: what.to_owned(), message, authenticated }.into()
            }
            _ => passing_status(&call.action(), status, message, after),
        }
    }

    /// What the server says about an error, for people (distribution-spec, "Error Codes").
    pub(super) async fn error_text(&self, response: Response) -> Option<String> {
        let body = self.read_all(response, MAX_ERROR, "read the error").await.ok()?;
        let envelope: oci_client::errors::OciEnvelope = serde_json::from_slice(&body).ok()?;
        let first = envelope.errors.into_iter().next()?;
        let text = if first.message.is_empty() { format!("{:?}", first.code) } else { first.message };
        Some(clean(&text))
    }

    /// A small body, whole.
    pub(super) async fn read_all(
        &self,
        mut response: Response,
        limit: u64,
        action: &str,
    ) -> Result<Vec<u8>, Failure> {
        let too_large = |size| {
            let source = crate::document::DocumentError::TooLarge { size };
            Failure::from(RegistryError::Document { what: action.to_owned(), source })
        };
        if let Some(size) = response.content_length().filter(|size| *size > limit) {
            return Err(too_large(size));
        }
        let mut body = Vec::new();
        let mut pulse = Pulse::new();
        while let Some(bytes) = pulse.next(self, &mut response, action).await? {
            if body.len() as u64 + bytes.len() as u64 > limit {
                return Err(too_large(body.len() as u64 + bytes.len() as u64));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }
}

/// Watches that a body moves: bytes within [`Timing::stall`](super::Timing::stall), and not just a drip of them.
#[derive(Debug)]
pub(super) struct Pulse {
    since: Instant,
    bytes: u64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// The next piece of the body; none at its end.
    pub(super) async fn next(
        &mut self,
        transport: &Transport,
        response: &mut Response,
        action: &str,
    ) -> Result<Option<Bytes>, Failure> {
        let timing = &transport.options.timing;
        let left = timing.stall.saturating_sub(self.since.elapsed()).max(timing.stall / 4);
        let piece = match timeout(left, response.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(broken(action, error)),
            Err(_) => return Err(transport.stalled(action)),
        };
        self.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.since.elapsed() >= timing.stall {
            if piece.is_some()
                && u128::from(self.bytes) * 1000 < u128::from(timing.min_rate) * timing.stall.as_millis()
            {
                return Err(transport.stalled(action));
            }
            *self = Self { since: Instant::now(), bytes: 0 };
        }
        Ok(piece)
    }
}

/// A request that got no answer, or a body that broke off.
pub(super) fn broken(action: &str, error: reqwest::Error) -> Failure {
    let retry = match () {
        () if error.is_builder() => Retry::Never,
        () if error.is_connect() => Retry::Unreachable,
        () => Retry::Backoff,
    };
    // the URL is in `action`, and its query is not for people
    let source = Box::new(error.without_url());
    Failure { error: RegistryError::Transport { action: action.to_owned(), source }, retry }
}

/// Where an answer points to, if we may go there.
pub(super) fn location(response: &Response, from: &Url, action: &str) -> Result<Url, Failure> {
    let refused =
        |target: String, reason| RegistryError::Redirect { action: action.to_owned(), target, reason };
    let value = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(value) = value.filter(|value| value.len() <= 16 << 10) else {
        return Err(refused(String::new(), "it does not say where").into());
    };
    let target = from.join(value).map_err(|_| refused(clean(value), "it is not a URL"))?;
    policy::judge_target(from, &target).map_err(|reason| refused(shown(&target), reason))?;
    Ok(target)
}

fn error_chain_has(error: &reqwest::Error, text: &str) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        if error.to_string().contains(text) {
            return true;
        }
        next = error.source();
    }
    false
}
