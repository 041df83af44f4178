//! HTTP clients: TLS by rustls with the ring provider, given to each client explicitly, roots from the system.
//!
//! Nothing process-wide is installed, and root certificates are read when the first `https:` host is asked.

use std::sync::{Arc, OnceLock};

use reqwest::{Client, NoProxy, Proxy};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{RegistryError, RegistryOptions};

/// One client for each way to trust, made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Clients {
    plain: OnceLock<Client>,
    checked: OnceLock<Client>,
    unchecked: OnceLock<Client>,
}

/// How the other side is known to be who it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// `http:`.
    Plain,
    /// By its certificate.
    Checked,
    /// Not at all: a host that was named as insecure, or one of this machine.
    Unchecked,
}

impl Clients {
    pub(super) fn get(&self, trust: Trust, options: &RegistryOptions) -> Result<&Client, RegistryError> {
        let slot = match trust {
            Trust::Plain => &self.plain,
            Trust::Checked => &self.checked,
            Trust::Unchecked => &self.unchecked,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = build(trust, options)?;
        Ok(slot.get_or_init(|| client))
    }
}

fn build(trust: Trust, options: &RegistryOptions) -> Result<Client, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused("TLS", error))?;
    let tls = match trust {
        Trust::Plain => versions.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Trust::Checked => versions.with_root_certificates(roots(options)?).with_no_client_auth(),
        Trust::Unchecked => versions
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoCheck(provider)))
            .with_no_client_auth(),
    };
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("bricklayer/", env!("CARGO_PKG_VERSION")))
        // One connection a transfer: a fault hits one blob, and no window is shared.
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(options.timing.connect)
        .pool_idle_timeout(std::time::Duration::from_secs(30))
        .no_proxy();
    for proxy in proxies(options)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| refused("HTTP client", error))
}

/// Starts a client for files on servers that are no registries, with the same TLS: certificates are checked by the
/// system's roots. `https`: the first address is `https:`, so there must be such roots.
///
/// # Errors
///
/// [`RegistryError::Options`] if TLS cannot be set up.
pub fn file_client(https: bool) -> Result<reqwest::ClientBuilder, RegistryError> {
    let roots = match roots(&RegistryOptions::default()) {
        // without roots, a redirection to `https:` fails by its certificate
        Err(_) if !https => RootCertStore::empty(),
        roots => roots?,
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused("TLS", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls))
}

/// The proxies that the options name.
pub(super) fn proxies(options: &RegistryOptions) -> Result<Vec<Proxy>, RegistryError> {
    let mut found = Vec::new();
    let exceptions = format!("localhost,127.0.0.0/8,::1,{}", options.no_proxy.as_deref().unwrap_or_default());
    for (proxy, option, make) in [
        (&options.http_proxy, "http_proxy", Proxy::http as fn(String) -> reqwest::Result<Proxy>),
        (&options.https_proxy, "https_proxy", Proxy::https),
    ] {
        let Some(url) = proxy.clone().filter(|url| !url.is_empty()) else { continue };
        // `host:port` alone is a usual way to write it
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refused(option, "only http and https proxies can be used"));
        }
        // the error of the URL parser would repeat the URL, which may carry a password
        let proxy = make(url).map_err(|_| refused(option, "it is not a URL"))?;
        found.push(proxy.no_proxy(NoProxy::from_string(&exceptions)));
    }
    Ok(found)
}

fn roots(options: &RegistryOptions) -> Result<RootCertStore, RegistryError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    for path in &options.ca_certificates {
        let option = || format!("ca_certificates: `{}`", path.display());
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| refused(option(), format!("{error:?}")))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| refused(option(), format!("{error:?}")))?;
            roots.add(certificate).map_err(|error| refused(option(), error))?;
        }
    }
    if roots.is_empty() {
        let why = system.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "install the package ca-certificates".to_owned());
        return Err(refused("ca_certificates", format!("the system has no root certificates: {why}")));
    }
    Ok(roots)
}

fn refused(option: impl Into<String>, reason: impl ToString) -> RegistryError {
    RegistryError::Options { option: option.into(), reason: reason.to_string() }
}

/// Takes every certificate, but checks that the other side has its key.
#[derive(Debug)]
struct NoCheck(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCheck {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
