//! Names of images: `[host[:port]/]path[:tag][@sha256:…]`, parsed and normalised the way Docker does it
//! (github.com/distribution/reference, grammar in its package comment).
//!
//! `alpine` is `docker.io/library/alpine:latest`. The first component is a host if it holds a `.` or a `:`, is
//! `localhost`, or has an upper-case letter. Nothing of a [`Reference`] needs escaping in a URL's path.

use std::fmt;
use std::str::FromStr;

use bricklayer_solver::Digest;

/// A repository of a registry: host and path, without tag or digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    path: String,
}

/// The name of an image. Always has a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: &'static str,
}

impl Repository {
    /// Docker Hub is `docker.io`; a port is part of the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// With a tag.
    pub fn tagged(&self, tag: &str) -> Result<Reference, InvalidReference> {
        check_tag(tag).map_err(|reason| invalid(tag, reason))?;
        Ok(Reference { repository: self.clone(), tag: Some(tag.to_owned()), digest: None })
    }

    /// With a digest.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { repository: self.clone(), tag: None, digest: Some(digest) }
    }
}

impl Reference {
    /// Host and path.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag; `latest` where the text had neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the text named. It decides, and the tag is for people, where there are both.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository and tag, at this digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Without the digest; the tag is `latest` where there was none.
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().unwrap_or_else(|| "latest".to_owned());
        Self { repository: self.repository.clone(), tag: Some(tag), digest: None }
    }

    /// As people write it: without `docker.io/`, `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => match rest.strip_prefix("library/") {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => rest.to_owned(),
            },
            None => full,
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Repository {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse_repository(text).map_err(|reason| invalid(text, reason))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|reason| invalid(text, reason))
    }
}

fn invalid(text: &str, reason: &'static str) -> InvalidReference {
    InvalidReference { text: text.chars().take(200).flat_map(char::escape_default).collect(), reason }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.len() > 1024 {
        return Err("it is too long");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse().map_err(|_| "what follows `@` is not a sha256 digest")?))
        }
        None => (text, None),
    };
    // a colon after the last slash starts a tag; one before it, a port
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let repository = parse_repository(name)?;
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { repository, tag, digest })
}

fn parse_repository(name: &str) -> Result<Repository, &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    // Docker keeps 64 hex digits for image ids
    if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hex digits are an image id, not a name");
    }
    let (host, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("docker.io", name),
    };
    check_host(host)?;
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let path =
        if host == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if path.len() > 255 {
        return Err("the name has more than 255 characters");
    }
    path.split('/').try_for_each(check_component)?;
    Ok(Repository { host: host.to_owned(), path })
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            v6.parse::<std::net::Ipv6Addr>().map_err(|_| "the host is not an IPv6 address")?;
            ("", rest)
        }
        None => match host.find(':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':').ok_or("what follows the host is not a port")?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.parse::<u16>().is_err()
        {
            return Err("the port is not a number up to 65535");
        }
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.starts_with('[') || (name.len() <= 253 && name.split('.').all(label)) {
        Ok(())
    } else {
        Err("the host is not a host name")
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(component: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if component.is_empty() {
        return Err("a part between slashes is empty");
    }
    if component.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    if !component.bytes().all(|b| word(b) || b"._-".contains(&b)) {
        return Err("only a-z, 0-9, `.`, `_`, `-` and `/` can stand in a repository");
    }
    let separated =
        |separator: &str| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    let ends = component.bytes().next().is_some_and(word) && component.bytes().last().is_some_and(word);
    if !ends || !component.split(|c: char| c.is_ascii_alphanumeric()).all(separated) {
        return Err("`.`, `_`, `__` and `-` must stand between letters or digits");
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        [first, rest @ ..] if word(*first) && rest.iter().all(|b| word(*b) || b".-".contains(b)) => {
            if tag.len() <= 128 { Ok(()) } else { Err("the tag has more than 128 characters") }
        }
        _ => Err("only letters, digits, `_`, `.` and `-` can stand in a tag, and `.` and `-` not first"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_normalised() {
        let hex = "a".repeat(64);
        let at = format!("docker.io/library/alpine@sha256:{hex}");
        let cases = [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("conformance/base:1", "docker.io/conformance/base:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:z", "localhost:5000/x/y:z"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("ghcr.io/a/b__c--d.e", "ghcr.io/a/b__c--d.e:latest"),
            ("HOST/x", "HOST/x:latest"),
            ("a:1@b", ""),
            (&format!("alpine@sha256:{hex}"), &at),
            (&format!("alpine:3@sha256:{hex}"), &format!("docker.io/library/alpine:3@sha256:{hex}")),
        ];
        for (text, expected) in cases {
            match text.parse::<Reference>() {
                Ok(reference) => {
                    assert_eq!(reference.to_string(), expected, "{text}");
                    assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
                }
                Err(_) => assert_eq!(expected, "", "{text}"),
            }
        }
    }

    #[test]
    fn familiar_names_are_short() {
        for (text, expected) in
            [("alpine", "alpine:latest"), ("a/b", "a/b:latest"), ("localhost:1/a/b:c", "localhost:1/a/b:c")]
        {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), expected);
        }
    }

    #[test]
    fn refusals_say_why() {
        let seen: Vec<String> = [
            "",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a@sha256:../../x",
            "a@md5:00",
            "localhost:99999/a",
            "-x.y/a",
            "a..b",
            "a b",
            "a\nb",
            "../a",
            &"a".repeat(64),
        ]
        .iter()
        .map(|text| text.parse::<Reference>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(seen.join("\n"), @r#"
        `` is not an image reference: the name is empty
        `Alpine` is not an image reference: the repository must be lower case
        `a//b` is not an image reference: a part between slashes is empty
        `/a` is not an image reference: a part between slashes is empty
        `a/` is not an image reference: a part between slashes is empty
        `a:` is not an image reference: the tag is empty
        `a:-x` is not an image reference: only letters, digits, `_`, `.` and `-` can stand in a tag, and `.` and `-` not first
        `a@sha256:../../x` is not an image reference: what follows `@` is not a sha256 digest
        `a@md5:00` is not an image reference: what follows `@` is not a sha256 digest
        `localhost:99999/a` is not an image reference: the port is not a number up to 65535
        `-x.y/a` is not an image reference: the host is not a host name
        `a..b` is not an image reference: `.`, `_`, `__` and `-` must stand between letters or digits
        `a b` is not an image reference: only a-z, 0-9, `.`, `_`, `-` and `/` can stand in a repository
        `a\nb` is not an image reference: only a-z, 0-9, `.`, `_`, `-` and `/` can stand in a repository
        `../a` is not an image reference: the host is not a host name
        `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` is not an image reference: 64 hex digits are an image id, not a name
        "#);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = text.parse::<Reference>();
        }

        /// The reference parser of the crate oci-spec is built from the regular expression of Docker's grammar. It
        /// does not take upper case for a host, as Docker does since 2022.
        #[test]
        fn agrees_with_oci_spec(text in "([a-z0-9.-]{1,6}(:[0-9]{1,4})?/)?[a-z0-9._/-]{0,12}(:[A-Za-z0-9_.-]{0,5})?(@sha256:[0-9a-f]{64})?") {
            let theirs = text.parse::<oci_client::Reference>();
            match text.parse::<Reference>() {
                Ok(ours) => prop_assert_eq!(ours.to_string(), theirs.unwrap().whole()),
                Err(error) => prop_assert!(theirs.is_err(), "{} but {:?}", error, theirs),
            }
        }
    }
}
