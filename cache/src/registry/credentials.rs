//! Credentials out of Docker's `config.json`: `auths`, `credHelpers`, `credsStore`, identity tokens.
//!
//! Looked up strictly by host. In `auths`, a key may go on with a path (`host/team/app`), as podman writes them; the longest one that
//! the repository lies under wins. A helper that says that it has nothing is no error; a helper that fails is.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::RegistryError;
use super::reference::Repository;
use crate::document::clean;

/// Most bytes of a `config.json`.
const MAX_CONFIG: u64 = 4 << 20;
/// Time that a credential helper may take.
const HELPER_TIME: Duration = Duration::from_secs(60);

/// What a registry is told about who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nothing.
    Anonymous,
    /// User and password.
    Password(String, String),
    /// A refresh token for the token service (OAuth 2).
    Identity(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(..) => "Password(…)",
            Self::Identity(_) => "Identity(…)",
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    #[serde(default)]
    auths: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, IgnoredAny>>,
}

/// What `config` has for the repository.
pub(super) async fn find(
    config: Option<&Path>,
    repository: &Repository,
) -> Result<Credentials, RegistryError> {
    let Some(config) = config.map(Path::to_path_buf) else { return Ok(Credentials::Anonymous) };
    let failed = |reason: String| RegistryError::Credentials { host: repository.host().to_owned(), reason };
    let repository = repository.clone();
    let work = tokio::task::spawn_blocking(move || read(&config, &repository));
    match tokio::time::timeout(HELPER_TIME, work).await {
        Ok(Ok(found)) => found.map_err(failed),
        Ok(Err(_)) => Err(failed("reading them broke off".to_owned())),
        Err(_) => {
            Err(failed(format!("the credential helper did not answer within {} s", HELPER_TIME.as_secs())))
        }
    }
}

fn read(config: &PathBuf, repository: &Repository) -> Result<Credentials, String> {
    let bytes = match std::fs::metadata(config) {
        Ok(meta) if meta.len() > MAX_CONFIG => return Err(format!("`{}` is too large", config.display())),
        Ok(_) => {
            std::fs::read(config).map_err(|error| format!("cannot read `{}`: {error}", config.display()))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Credentials::Anonymous),
        Err(error) => return Err(format!("cannot read `{}`: {error}", config.display())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let keys: Keys = serde_json::from_slice(&bytes)
        .map_err(|error| format!("`{}` is not valid: {error}", config.display()))?;
    match docker_credential::get_credential_from_reader(&bytes[..], &key(&keys, repository)) {
        Ok(DockerCredential::UsernamePassword(user, password)) if user.is_empty() && password.is_empty() => {
            Ok(Credentials::Anonymous)
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Credentials::Password(user, password)),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Credentials::Identity(token)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(Credentials::Anonymous),
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if has_nothing(&stdout) || has_nothing(&stderr) =>
        {
            Ok(Credentials::Anonymous)
        }
        // what it printed on standard output is kept back: it might be half a secret
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            Err(format!("`{helper}` failed: {}", clean(stderr.trim())))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err("the credential helper that the configuration names cannot be run".to_owned())
        }
        Err(error) => Err(error.to_string().to_ascii_lowercase()),
    }
}

/// docker-credential-helpers, `credentials.NewErrCredentialsNotFound`.
fn has_nothing(text: &str) -> bool {
    text.contains("credentials not found in native keychain")
}

/// The key under which the configuration may know the repository.
fn key(keys: &Keys, repository: &Repository) -> String {
    let host =
        if repository.host() == "docker.io" { "https://index.docker.io/v1/" } else { repository.host() };
    let helped = keys.cred_helpers.as_ref().is_some_and(|helpers| helpers.contains_key(host));
    if let Some(auths) = &keys.auths
        && !helped
    {
        let mut longest = repository.to_string();
        loop {
            if auths.contains_key(&longest) {
                return longest;
            }
            match longest.rfind('/') {
                Some(slash) => longest.truncate(slash),
                None => break,
            }
        }
    }
    host.to_owned()
}
