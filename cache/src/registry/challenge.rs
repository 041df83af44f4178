//! `WWW-Authenticate`, as registries use it (RFC 9110 §11.6.1; token authentication of the distribution project).

/// One challenge that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from a token service.
    Bearer {
        /// URL of the service.
        realm: String,
        /// What the service knows the registry as.
        service: Option<String>,
        /// What the token must be good for, words with blanks between.
        scope: Option<String>,
    },
    /// User and password.
    Basic,
}

/// All challenges of one header value that we can answer; others are passed over.
///
/// Total: whatever does not follow the grammar ends the parsing, and what was read before counts.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.get(..8192).unwrap_or(header);
    while let Some((scheme, after)) = token(skip(rest, b" \t,")) {
        let mut parameters = Vec::new();
        rest = after;
        // `name = value` belongs to the scheme; a token that no `=` follows is the next scheme
        while let Some((name, value, after)) = parameter(skip(rest, b" \t,")) {
            parameters.push((name.to_ascii_lowercase(), value));
            rest = after;
        }
        let mut take = |wanted: &str| {
            parameters
                .iter()
                .position(|(name, _)| name == wanted)
                .map(|at| parameters.swap_remove(at).1)
                .filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = take("realm") {
                found.push(Challenge::Bearer { realm, service: take("service"), scope: take("scope") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else {
            // `Negotiate <token68>`: the token is no parameter and no scheme
            rest = rest.split_once(',').map_or("", |(_, next)| next);
        }
    }
    found
}

fn skip<'a>(text: &'a str, what: &[u8]) -> &'a str {
    text.trim_start_matches(|c: char| u8::try_from(c).is_ok_and(|b| what.contains(&b)))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = token(text)?;
    let rest = skip(skip(rest, b" \t").strip_prefix('=')?, b" \t");
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => return Some((name, value, quoted.get(at + 1..).unwrap_or_default())),
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        return None;
    }
    let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
    let (value, rest) = rest.split_at(end);
    Some((name, value.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let seen: Vec<_> = [
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
            r#"Basic realm="Registry""#,
            "Basic",
            r#"bearer service="a, b" , REALM = "http://x/\"y\"""#,
            r#"Negotiate abc==, Basic realm="x", Bearer realm=https://t/token"#,
            "Bearer",
            "Bearer realm=",
            r#"Bearer realm="https://unfinished"#,
            r#"Digest realm="x", nonce="y", Basic"#,
            "\u{0}\u{fe}=,,,=",
        ]
        .iter()
        .map(|header| format!("{:?}", parse(header)))
        .collect();
        insta::assert_snapshot!(seen.join("\n"), @r#"
        [Bearer { realm: "https://auth.docker.io/token", service: Some("registry.docker.io"), scope: Some("repository:library/alpine:pull") }]
        [Basic]
        [Basic]
        [Bearer { realm: "http://x/\"y\"", service: Some("a, b"), scope: None }]
        [Basic, Bearer { realm: "https://t/token", service: None, scope: None }]
        []
        []
        []
        [Basic]
        []
        "#);
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in r#"([ -~]|Bearer |realm=|"|,|\\|é){0,60}"#) {
            parse(&header);
        }
    }
}
