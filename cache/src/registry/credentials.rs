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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `config` has for each repository, with the secrets shown.
    async fn found(config: &str, repositories: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let mut seen = Vec::new();
        for repository in repositories {
            let found = match find(Some(&path), &repository.parse().unwrap()).await {
                Ok(Credentials::Anonymous) => "nothing".to_owned(),
                Ok(Credentials::Password(user, password)) => format!("{user} {password}"),
                Ok(Credentials::Identity(token)) => format!("token {token}"),
                Err(error) => error.to_string().replace(&dir.path().display().to_string(), "DIR"),
            };
            seen.push(format!("{repository}: {found}"));
        }
        seen.join("\n")
    }

    #[tokio::test]
    async fn credentials_are_found_by_host_and_longest_path() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "r.example": {"auth": "aG9zdDpwdw=="},
            "r.example/team": {"auth": "dGVhbTpwdw=="},
            "r.example:5000": {"username": "port", "password": "pw"},
            "https://old.example/v2/": {"auth": "b2xkOnB3"},
            "token.example": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"},
            "empty.example": {}},
            "credHelpers": {"helped.example": "bricklayer-test-nosuch"}}"#;
        let seen = found(
            config,
            &[
                "alpine",
                "r.example/app",
                "r.example/team/app",
                "r.example/teamwork/app",
                "r.example:5000/team/app",
                "r.example:6000/app",
                "evil-r.example/app",
                "old.example/app",
                "token.example/app",
                "empty.example/app",
                "helped.example/app",
            ],
        )
        .await;
        insta::assert_snapshot!(seen, @"
        alpine: hub pw
        r.example/app: host pw
        r.example/team/app: team pw
        r.example/teamwork/app: host pw
        r.example:5000/team/app: port pw
        r.example:6000/app: nothing
        evil-r.example/app: nothing
        old.example/app: old pw
        token.example/app: token refresh
        empty.example/app: nothing
        helped.example/app: cannot get credentials for `helped.example`: the credential helper that the configuration names cannot be run
        ");
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_read_is_an_error_and_none_is_not() {
        let mut seen = Vec::new();
        for config in ["", "{}", "{", r#"{"auths": null}"#, r#"{"auths": {"r.example": {"auth": "!"}}}"#] {
            seen.push(found(config, &["r.example/app"]).await);
        }
        insta::assert_snapshot!(seen.join("\n"), @"
        r.example/app: nothing
        r.example/app: nothing
        r.example/app: cannot get credentials for `r.example`: `DIR/config.json` is not valid: EOF while parsing an object at line 1 column 1
        r.example/app: nothing
        r.example/app: cannot get credentials for `r.example`: unable to decode credential
        ");
        let nowhere = Path::new("/nonexistent/config.json");
        assert_eq!(find(Some(nowhere), &"a".parse().unwrap()).await.unwrap(), Credentials::Anonymous);
        assert_eq!(find(None, &"a".parse().unwrap()).await.unwrap(), Credentials::Anonymous);
    }
}
