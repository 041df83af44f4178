//! Names of images, as the distribution project writes them: `[host[:port]/]path[:tag][@digest]`.

/// Can `text` name an image? A name without a host is one of Docker Hub's.
pub(crate) fn is_valid(text: &str) -> bool {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    let (host, path) = split_host(name);
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let tag_is_valid = |tag: &str| {
        tag.len() <= 128
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let host_is_valid = |host: &str| {
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (host, None),
        };
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
            && match host.strip_prefix('[') {
                Some(rest) => rest.strip_suffix(']').is_some_and(|address| {
                    !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
                }),
                None => host.split('.').all(is_host_part),
            }
    };
    // 64 hex digits alone are an image's ID, not its name
    let is_id = host.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit());
    !is_id
        && path.len() <= 255
        && path.split('/').all(is_path_part)
        && tag.is_none_or(tag_is_valid)
        && host.is_none_or(host_is_valid)
}

/// Of the algorithms that BuildKit can check.
fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_host_part(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

/// Lower-case letters and digits, parted by `.`, `_`, `__` or dashes.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// The host, if the first part of the name is one: it has a dot or a port, or is `localhost`, or has a capital letter.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, name),
    }
}

/// The shortest name of an image: without Docker Hub's host, `library/` and the tag `latest`. What named contexts are found by.
pub(crate) fn familiar(text: &str) -> &str {
    let name =
        ["docker.io/", "index.docker.io/"].iter().find_map(|host| text.strip_prefix(host)).unwrap_or(text);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in [
            "debian",
            "debian:12",
            "library/debian",
            "docker.io/library/debian:12-slim",
            "localhost/x",
            "localhost:5000/a/b:t",
            "registry.invalid/no/such/image:1",
            "a__b/c.d-e--f",
            "x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "[::1]:5000/x",
            "Host/x",
        ] {
            assert!(is_valid(text), "{text}");
        }
        for text in [
            "",
            "Debian",
            "a:",
            "a/",
            "/a",
            "a b",
            "a:-t",
            "a@sha256:zz",
            "a@sha256:0123456789abcdef0123456789abcdef",
            "a@a\u{10}b:0123456789abcdef0123456789abcdef",
            "[::1 ]/x",
            "a..b",
            "-a",
            "host:x/a",
            "a:b:c",
            &"a".repeat(64),
            "$x",
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }

    #[test]
    fn familiar_names() {
        let cases = [
            ("docker.io/library/alpine:latest", "alpine"),
            ("alpine", "alpine"),
            ("library/alpine:3", "alpine:3"),
            ("docker.io/me/x", "me/x"),
            ("example.test/base:7", "example.test/base:7"),
        ];
        for (text, expected) in cases {
            assert_eq!(familiar(text), expected);
        }
    }
}
