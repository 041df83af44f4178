//! Where a server may send us, and who gets credentials: pure decisions, no I/O.
//!
//! Credentials belong to an origin (scheme, host and port). They leave it in one case only: towards a token service that
//! belongs to the registry ([`judge_realm`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use reqwest::Url;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// None for URLs other than `http:` and `https:`.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let port = match url.scheme() {
            "http" | "https" => url.port_or_known_default()?,
            _ => return None,
        };
        Some(Self { scheme: url.scheme().to_owned(), host: url.host_str()?.to_ascii_lowercase(), port })
    }

    fn secure(&self) -> bool {
        self.scheme == "https"
    }

    /// `host:port`, or only the host with the scheme's own port.
    fn name(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// What an address is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This machine.
    Loopback,
    /// This link (cloud metadata services live there).
    LinkLocal,
    /// An address without a name.
    Address,
    /// A name.
    Name,
}

fn place(host: &str) -> Place {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        return Place::Loopback;
    }
    let of_v4 = |v4: Ipv4Addr| {
        if v4.is_loopback() || v4.is_unspecified() {
            Place::Loopback
        } else if v4.is_link_local() {
            Place::LinkLocal
        } else {
            Place::Address
        }
    };
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => of_v4(v4),
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => of_v4(v4),
            None if v6.is_loopback() || v6.is_unspecified() => Place::Loopback,
            None if v6.is_unicast_link_local() => Place::LinkLocal,
            None => Place::Address,
        },
        Err(_) => Place::Name,
    }
}

/// Is this registry host (`host[:port]`) on this machine?
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    place(name) == Place::Loopback
}

/// May a request that went to `from` go on to `to` (a redirect, an upload location)?
pub(super) fn judge_target(from: &Url, to: &Url) -> Result<(), &'static str> {
    let (Some(source), Some(target)) = (Origin::of(from), Origin::of(to)) else {
        return Err("it is neither http nor https");
    };
    if source.secure() && !target.secure() {
        return Err("it leaves https");
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("it carries credentials");
    }
    match place(&target.host) {
        Place::Loopback | Place::LinkLocal if place(&source.host) != place(&target.host) => {
            Err("it is an address of this machine or link")
        }
        _ => Ok(()),
    }
}

/// May a token service be asked, and does it get the registry's credentials?
///
/// It gets them if it has the registry's origin, is named in `trusted`, is Docker Hub's for Docker Hub, or, over https on the usual port, is the
/// registry's parent domain (`registry.gitlab.com` → `gitlab.com`) or a sibling that is called like a token service
/// (`registry.example.com` → `auth.example.com`).
pub(super) fn judge_realm(
    registry: &Url,
    realm: &Url,
    trusted: Option<&BTreeSet<String>>,
) -> Result<bool, &'static str> {
    let (Some(registry), Some(service)) = (Origin::of(registry), Origin::of(realm)) else {
        return Err("it is neither http nor https");
    };
    if registry.secure() && !service.secure() {
        return Err("the registry speaks https and the token service does not");
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err("its URL carries credentials");
    }
    if registry == service {
        return Ok(true);
    }
    let named = trusted.is_some_and(|trusted| trusted.contains(&service.name()));
    if named {
        return Ok(true);
    }
    let (at, of) = (place(&service.host), place(&registry.host));
    if at != Place::Name && (of == Place::Name || (at != of && at != Place::Address)) {
        return Err("it is a bare address, or one of this machine or link");
    }
    if !service.secure() || service.port != 443 || at != Place::Name {
        return Ok(false);
    }
    Ok(belongs(&registry.host, &service.host))
}

fn belongs(registry: &str, service: &str) -> bool {
    if registry == "registry-1.docker.io" {
        return service == "auth.docker.io";
    }
    let Some((_, parent)) = registry.split_once('.').filter(|(_, parent)| parent.contains('.')) else {
        // `example.com` itself: one of its own names may be the token service
        return service.split_once('.').is_some_and(|(first, rest)| rest == registry && is_token_name(first));
    };
    service == registry
        || service == parent
        || service.split_once('.').is_some_and(|(first, rest)| rest == parent && is_token_name(first))
}

fn is_token_name(label: &str) -> bool {
    matches!(
        label,
        "auth"
            | "authn"
            | "token"
            | "tokens"
            | "login"
            | "sso"
            | "oauth"
            | "oauth2"
            | "iam"
            | "identity"
            | "id"
            | "accounts"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_hosts_are_known() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("registry.localhost:1", true),
            ("localhost.example.com", false),
            ("10.0.0.1:5000", false),
            ("127.example.com", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn redirects_are_judged() {
        let seen: Vec<_> = [
            ("https://r.example/v2/", "https://cdn.example/x"),
            ("https://r.example/v2/", "http://cdn.example/x"),
            ("http://10.0.0.1/v2/", "https://cdn.example/x"),
            ("https://r.example/v2/", "https://10.1.2.3:9000/x"),
            ("https://r.example/v2/", "https://127.0.0.1/x"),
            ("https://r.example/v2/", "https://169.254.169.254/latest"),
            ("https://r.example/v2/", "https://[::ffff:127.0.0.1]/x"),
            ("https://r.example/v2/", "https://[fe80::1]/x"),
            ("http://127.0.0.1:5000/v2/", "http://localhost:6000/x"),
            ("http://127.0.0.1:5000/v2/", "file:///etc/passwd"),
            ("https://r.example/v2/", "https://u:p@cdn.example/x"),
        ]
        .iter()
        .map(|(from, to)| format!("{from} → {to}: {:?}", judge_target(&url(from), &url(to))))
        .collect();
        insta::assert_snapshot!(seen.join("\n"), @r#"
        https://r.example/v2/ → https://cdn.example/x: Ok(())
        https://r.example/v2/ → http://cdn.example/x: Err("it leaves https")
        http://10.0.0.1/v2/ → https://cdn.example/x: Ok(())
        https://r.example/v2/ → https://10.1.2.3:9000/x: Ok(())
        https://r.example/v2/ → https://127.0.0.1/x: Err("it is an address of this machine or link")
        https://r.example/v2/ → https://169.254.169.254/latest: Err("it is an address of this machine or link")
        https://r.example/v2/ → https://[::ffff:127.0.0.1]/x: Err("it is an address of this machine or link")
        https://r.example/v2/ → https://[fe80::1]/x: Err("it is an address of this machine or link")
        http://127.0.0.1:5000/v2/ → http://localhost:6000/x: Ok(())
        http://127.0.0.1:5000/v2/ → file:///etc/passwd: Err("it is neither http nor https")
        https://r.example/v2/ → https://u:p@cdn.example/x: Err("it carries credentials")
        "#);
    }

    #[test]
    fn token_services_are_judged() {
        let trusted = BTreeSet::from(["tokens.other.example".to_owned(), "127.0.0.1:7000".to_owned()]);
        let seen: Vec<_> = [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry-1.docker.io", "https://evil.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://registry.example.com", "https://auth.example.com/t"),
            ("https://a.azurecr.io", "https://b.azurecr.io/t"),
            ("https://quay.io", "https://quay.io/v2/auth"),
            ("https://example.com", "https://auth.example.com/v2/auth"),
            ("https://example.com", "https://com/t"),
            ("https://r.example.com", "https://auth.example.com:8443/t"),
            ("https://r.example.com", "http://r.example.com/t"),
            ("https://r.example.com", "https://other.example/t"),
            ("https://r.example.com", "https://tokens.other.example/t"),
            ("https://r.example.com", "https://10.0.0.1/t"),
            ("https://r.example.com", "https://localhost/t"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/t"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:6000/t"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:7000/t"),
            ("http://127.0.0.1:5000", "http://169.254.169.254/t"),
            ("http://10.0.0.1:5000", "http://127.0.0.1:5000/t"),
            ("http://10.0.0.1:5000", "http://10.0.0.2:5000/t"),
            ("https://r.example.com", "file:///etc/passwd"),
        ]
        .iter()
        .map(|(registry, realm)| {
            let verdict = match judge_realm(&url(registry), &url(realm), Some(&trusted)) {
                Ok(true) => "with credentials".to_owned(),
                Ok(false) => "anonymously".to_owned(),
                Err(reason) => format!("refused: {reason}"),
            };
            format!("{registry} → {realm}: {verdict}")
        })
        .collect();
        insta::assert_snapshot!(seen.join("\n"), @"
        https://registry-1.docker.io → https://auth.docker.io/token: with credentials
        https://registry-1.docker.io → https://evil.docker.io/token: anonymously
        https://registry.gitlab.com → https://gitlab.com/jwt/auth: with credentials
        https://registry.example.com → https://auth.example.com/t: with credentials
        https://a.azurecr.io → https://b.azurecr.io/t: anonymously
        https://quay.io → https://quay.io/v2/auth: with credentials
        https://example.com → https://auth.example.com/v2/auth: with credentials
        https://example.com → https://com/t: anonymously
        https://r.example.com → https://auth.example.com:8443/t: anonymously
        https://r.example.com → http://r.example.com/t: refused: the registry speaks https and the token service does not
        https://r.example.com → https://other.example/t: anonymously
        https://r.example.com → https://tokens.other.example/t: with credentials
        https://r.example.com → https://10.0.0.1/t: refused: it is a bare address, or one of this machine or link
        https://r.example.com → https://localhost/t: refused: it is a bare address, or one of this machine or link
        http://127.0.0.1:5000 → http://127.0.0.1:5000/t: with credentials
        http://127.0.0.1:5000 → http://127.0.0.1:6000/t: anonymously
        http://127.0.0.1:5000 → http://127.0.0.1:7000/t: with credentials
        http://127.0.0.1:5000 → http://169.254.169.254/t: refused: it is a bare address, or one of this machine or link
        http://10.0.0.1:5000 → http://127.0.0.1:5000/t: refused: it is a bare address, or one of this machine or link
        http://10.0.0.1:5000 → http://10.0.0.2:5000/t: anonymously
        https://r.example.com → file:///etc/passwd: refused: it is neither http nor https
        ");
    }
}
