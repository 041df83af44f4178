//! Why something could not be moved to or from a registry.

use bricklayer_solver::Digest;

use super::reference::InvalidReference;
use crate::document::DocumentError;
use crate::store::StoreError;

/// Why a registry could not do what was asked, or was not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name is no image reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The store failed.
    #[error("cannot use the store for `{what}`")]
    Store {
        /// Reference or digest.
        what: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// No answer, or one that broke off, and trying again did not help.
    #[error("cannot {action}")]
    Transport {
        /// What was tried: method and URL (without query).
        action: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered with an error.
    #[error("cannot {action}: the server answered {status}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Status {
        /// What was tried.
        action: String,
        /// HTTP status.
        status: u16,
        /// What the server said, cleaned and cut.
        message: Option<String>,
    },
    /// There is no such image, tag or blob.
    #[error("`{what}` was not found{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    NotFound {
        /// Reference, or repository and digest.
        what: String,
        /// What the server said.
        message: Option<String>,
    },
    /// The server refused access.
    #[error("access to `{what}` was refused{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Denied {
        /// The repository.
        what: String,
        /// What the server said.
        message: Option<String>,
        /// Were credentials sent?
        authenticated: bool,
    },
    /// The server asks to wait for longer than anybody wants to.
    #[error("cannot {action}: the server asks to wait {seconds} s")]
    RetryLater {
        /// What was tried.
        action: String,
        /// For how long.
        seconds: u64,
    },
    /// No bytes came for too long, or too few.
    #[error("cannot {action}: no progress for {seconds} s")]
    Stalled {
        /// What was tried.
        action: String,
        /// For how long nothing (or next to nothing) came.
        seconds: u64,
    },
    /// The server sent us somewhere where we do not go.
    #[error("cannot {action}: refused to follow the server to `{target}`: {reason}")]
    Redirect {
        /// What was tried.
        action: String,
        /// Where to (without query).
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// The server names a token service that we do not use.
    #[error("`{host}` names the token service `{realm}`, which is refused: {reason}")]
    Realm {
        /// The registry.
        host: String,
        /// The service.
        realm: String,
        /// Why not.
        reason: &'static str,
    },
    /// The credentials could not be read.
    #[error("cannot get credentials for `{host}`: {reason}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// Other bytes came than those with the digest that was asked for.
    #[error("`{what}`: {actual} came, but {expected} was asked for")]
    Digest {
        /// Where from.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A document has another size than its descriptor says.
    #[error("`{what}` has {actual} bytes, but {expected} were announced")]
    Size {
        /// Where from.
        what: String,
        /// By its descriptor.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// A manifest, index or configuration that cannot be used.
    #[error("`{what}` cannot be used")]
    Document {
        /// Where from.
        what: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// The number of layers is not the number of diff IDs.
    #[error("`{what}` has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount {
        /// The image.
        what: String,
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// The index has no image for the platform.
    #[error("`{what}` is not there for {wanted}: it has {}", available.join(", "))]
    Platform {
        /// The image.
        what: String,
        /// What was wanted.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// What was named is another kind of artifact.
    #[error("`{what}` is not a container image but `{kind}`")]
    NotAnImage {
        /// The reference.
        what: String,
        /// Its media type.
        kind: String,
    },
    /// A blob that is to be pushed is in no place that we know of.
    #[error("blob {digest} of `{what}` is not in the store, and where it came from is not known")]
    MissingBlob {
        /// The target.
        what: String,
        /// The blob.
        digest: Digest,
    },
    /// The options cannot be used (a proxy that is no URL, a certificate that cannot be read).
    #[error("registry option {option}: {reason}")]
    Options {
        /// Which.
        option: String,
        /// Why.
        reason: String,
    },
}

impl RegistryError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { authenticated: false, what, .. } => {
                let host = what.split('/').next().unwrap_or(what);
                Some(match host {
                    "docker.io" => "log in with `docker login`, or check the name".to_owned(),
                    _ => format!("log in with `docker login {host}`, or check the name"),
                })
            }
            Self::Denied { authenticated: true, .. } => {
                Some("the stored credentials do not allow this; check the name and the account".to_owned())
            }
            Self::Realm { .. } => Some(
                "if this token service belongs to the registry, name it among the registry's token services"
                    .to_owned(),
            ),
            Self::Status { status: 429, .. } | Self::RetryLater { .. } => {
                Some("the registry limits how much one may ask; log in, or wait".to_owned())
            }
            _ => None,
        }
    }
}
