//! Answers to challenges: Basic, or a token from a token service (distribution project, "Token Authentication
//! Specification" and its OAuth 2 variant).
//!
//! An answer is kept for an origin and the scopes that it was got for, and is sent to that origin only.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;

use super::RegistryError;
use super::challenge::{self, Challenge};
use super::credentials::{self, Credentials};
use super::policy::{self, Origin};
use super::reference::Repository;
use super::retry::Failure;
use super::transport::{Transport, action_of, passing_status};
use crate::document::clean;

/// Most bytes of a token service's answer.
const MAX_TOKEN: u64 = 1 << 20;
/// A token that does not say how long it lives, lives that long.
const DEFAULT_LIFE: u64 = 60;

/// What a request needs to be allowed to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// The repository that credentials are looked up for.
    pub(super) repository: Repository,
    words: BTreeSet<String>,
}

impl Scope {
    pub(super) fn pull(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            words: [format!("repository:{}:pull", repository.path())].into(),
        }
    }

    pub(super) fn push(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            words: [format!("repository:{}:pull,push", repository.path())].into(),
        }
    }

    /// As well as pulling from another repository of the same registry, to mount its blobs.
    pub(super) fn and_pull(mut self, other: &Repository) -> Self {
        self.words.insert(format!("repository:{}:pull", other.path()));
        self
    }
}

/// An answer to a challenge.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    /// The header; none for a registry that lets everybody in.
    pub(super) header: Option<HeaderValue>,
    /// Were the user's credentials used?
    pub(super) authenticated: bool,
    /// The token service that did not get the credentials, although there are some.
    pub(super) withheld: Option<String>,
    expires: Instant,
}

/// Answers that can be used again.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: Mutex<HashMap<(Origin, Scope), Authorization>>,
    /// One question at a time, so that parallel transfers do not all ask for the same token.
    asking: tokio::sync::Mutex<()>,
}

impl Answers {
    /// The answer that is known.
    pub(super) fn get(&self, origin: &Origin, scope: &Scope) -> Option<Authorization> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(origin.clone(), scope.clone())).filter(|found| found.expires > Instant::now()).cloned()
    }

    /// Answers the challenges of a `401` to a request that was sent with `used`.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        registry: &Url,
        scope: &Scope,
        headers: &[String],
        used: Option<&Authorization>,
    ) -> Result<Authorization, Failure> {
        let Some(origin) = Origin::of(registry) else {
            return Err(RegistryError::Redirect {
                action: "authenticate".to_owned(),
                target: clean(registry.as_str()),
                reason: "it is neither http nor https",
            }
            .into());
        };
        let _alone = self.asking.lock().await;
        if let Some(known) = self.get(&origin, scope)
            && used.is_none_or(|used| used.header != known.header)
        {
            return Ok(known);
        }
        let credentials =
            credentials::find(transport.options().docker_config.as_deref(), &scope.repository).await?;
        let challenges: Vec<Challenge> = headers.iter().flat_map(|header| challenge::parse(header)).collect();
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let answer = match (bearer.or(challenges.first()), credentials) {
            (Some(Challenge::Bearer { realm, service, scope: asked }), credentials) => {
                self.token(
                    transport,
                    registry,
                    scope,
                    realm,
                    service.as_deref(),
                    asked.as_deref(),
                    credentials,
                )
                .await?
            }
            (Some(Challenge::Basic), Credentials::Password(user, password)) => {
                let header = basic(&user, &password).ok_or_else(|| RegistryError::Credentials {
                    host: scope.repository.host().to_owned(),
                    reason: "they cannot stand in a header".to_owned(),
                })?;
                let expires = Instant::now() + Duration::from_secs(24 * 3600);
                Authorization { header: Some(header), authenticated: true, withheld: None, expires }
            }
            _ => {
                return Err(RegistryError::Denied {
                    what: scope.repository.to_string(),
                    message: None,
                    authenticated: false,
                }
                .into());
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((origin, scope.clone()), answer.clone());
        Ok(answer)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one challenge")]
    async fn token(
        &self,
        transport: &Transport,
        registry: &Url,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        asked: Option<&str>,
        credentials: Credentials,
    ) -> Result<Authorization, Failure> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<u64>,
        }

        let host = scope.repository.host();
        let refused =
            |reason| RegistryError::Realm { host: host.to_owned(), realm: clean(strip_query(realm)), reason };
        let mut url = registry.join(realm).map_err(|_| refused("it is not a URL"))?;
        let trusted = transport.options().token_services.get(host);
        let belongs = policy::judge_realm(registry, &url, trusted).map_err(refused)?;
        let mut withheld = None;
        let credentials = match credentials {
            Credentials::Anonymous => Credentials::Anonymous,
            some if belongs => some,
            _ => {
                withheld = Some(clean(strip_query(realm)));
                Credentials::Anonymous
            }
        };
        let mut scopes = scope.words.clone();
        // The server may know the repository by another name (a proxy does).
        scopes.extend(
            asked.unwrap_or_default().split(' ').filter(|w| !w.is_empty()).take(8).map(str::to_owned),
        );
        let mut fields: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", scope.as_str())).collect();
        fields.extend(service.map(|service| ("service", service)));

        let request = match &credentials {
            Credentials::Identity(refresh) => {
                fields = vec![
                    ("grant_type", "refresh_token"),
                    ("client_id", "bricklayer"),
                    ("refresh_token", refresh),
                ];
                fields.extend(service.map(|service| ("service", service)));
                let joined = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                fields.push(("scope", &joined));
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(&fields);
                let mut request = Request::new(Method::POST, url);
                request
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                *request.body_mut() = Some(form.query().unwrap_or_default().to_owned().into());
                request
            }
            Credentials::Password(user, password) => {
                fields.push(("account", user));
                url.query_pairs_mut().extend_pairs(&fields);
                let mut request = Request::new(Method::GET, url);
                let header = basic(user, password).ok_or_else(|| RegistryError::Credentials {
                    host: host.to_owned(),
                    reason: "they cannot stand in a header".to_owned(),
                })?;
                request.headers_mut().insert(AUTHORIZATION, header);
                request
            }
            Credentials::Anonymous => {
                url.query_pairs_mut().extend_pairs(&fields);
                Request::new(Method::GET, url)
            }
        };
        let authenticated = credentials != Credentials::Anonymous;
        let action = action_of(request.method(), request.url());
        let response = transport.execute(host, request, &action).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let message = transport.error_text(response).await;
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => match withheld {
                    Some(realm) => RegistryError::Realm {
                        host: host.to_owned(),
                        realm,
                        reason: "it is not known to belong to the registry, so it was not given the credentials, and it asks for some",
                    }
                    .into(),
                    None => {
                        RegistryError::Denied { what: scope.repository.to_string(), message, authenticated }.into()
                    }
                },
                _ => passing_status(&action, status, message, None),
            });
        }
        let body = transport.read_all(response, MAX_TOKEN, &action).await?;
        let broken = |reason: &'static str| RegistryError::Realm {
            host: host.to_owned(),
            realm: clean(strip_query(realm)),
            reason,
        };
        let token: Token = serde_json::from_slice(&body).map_err(|_| broken("its answer is not a token"))?;
        let text = token
            .token
            .filter(|t| !t.is_empty())
            .or(token.access_token)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| broken("its answer holds no token"))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| broken("its token cannot stand in a header"))?;
        header.set_sensitive(true);
        // a little early, so that it does not run out on the way
        let life = token.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 24 * 3600) * 9 / 10;
        Ok(Authorization {
            header: Some(header),
            authenticated,
            withheld,
            expires: Instant::now() + Duration::from_secs(life),
        })
    }
}

fn strip_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let encoded = base64(format!("{user}:{password}").as_bytes());
    let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Base 64 with padding (RFC 4648 §4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            out.push(match place <= chunk.len() {
                true => char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]),
                false => '=',
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("user:pässword?>", "dXNlcjpww6Rzc3dvcmQ/Pg=="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
