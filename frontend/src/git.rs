//! Git repositories and URLs as sources: what ADD and contexts take.
//!
//! A repository is `git@host:path`, `ssh://…`, `git://…`, or `http(s)://….git`, with `#ref[:subdir]` or a query (`?branch=`, `?tag=`,
//! `?ref=`, `?subdir=`, `?checksum=` or `?commit=`, `?submodules=`, `?keep-git-dir=`, `?mtime=`, `?fetch-by-commit=`) behind it. Any other `http(s)://` is a file.

use bricklayer_solver::op::GitSource;

/// Why a text that names a repository can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GitError {
    #[error("the query of a git URL knows no `{0}`")]
    UnknownQuery(String),
    #[error("the query `{0}` of a git URL needs a value")]
    NoValue(String),
    #[error("the query `{0}` of a git URL is given twice")]
    Twice(String),
    #[error("`{1}` is no value for the query `{0}` of a git URL")]
    BadValue(String, String),
    #[error("the git URL names two different {0}")]
    Conflict(&'static str),
    #[error("the URL holds credentials")]
    Credentials,
}

/// A repository, and what its URL says about how to check it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitReference {
    pub(crate) source: GitSource,
    /// `?keep-git-dir=`, if it is there.
    pub(crate) keep_git_dir: Option<bool>,
}

/// The repository that `text` names; `Ok(None)`: it names none.
pub(crate) fn parse(text: &str) -> Result<Option<GitReference>, GitError> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    let (rest, fragment) = match text.split_once('#') {
        Some((rest, fragment)) => (rest, fragment),
        None => (text, ""),
    };
    let (remote, query) = match rest.split_once('?') {
        Some((remote, query)) => (remote, query),
        None => (rest, ""),
    };
    match remote.split_once("://") {
        Some((scheme, address)) => match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" if remote.ends_with(".git") => {
                if has_credentials(address) {
                    return Err(GitError::Credentials);
                }
            }
            "ssh" | "git" => {
                // the user of an SSH URL is part of the address, a password is not
                let host = address.split('/').next().unwrap_or_default();
                if host.split_once('@').is_some_and(|(user, _)| user.contains(':')) {
                    return Err(GitError::Credentials);
                }
            }
            _ => return Ok(None),
        },
        None if is_scp_style(remote) => {}
        None => return Ok(None),
    }
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut found = GitReference {
        source: GitSource {
            remote: remote.to_owned(),
            reference: decode(reference),
            subdir: clean_subdir(&decode(subdir)),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            commit_time: false,
            by_commit: false,
        },
        keep_git_dir: None,
    };
    load_query(&mut found, query)?;
    Ok(Some(found))
}

fn load_query(found: &mut GitReference, query: &str) -> Result<(), GitError> {
    let mut seen: Vec<String> = Vec::new();
    let (mut tag, mut branch) = (None, None);
    let set = |slot: &mut String, value: String, what| {
        if !slot.is_empty() && *slot != value {
            return Err(GitError::Conflict(what));
        }
        *slot = value;
        Ok(())
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), decode(value));
        if seen.contains(&key) {
            return Err(GitError::Twice(key));
        }
        seen.push(key.clone());
        let boolean = |value: &str| match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(GitError::BadValue(key.clone(), value.to_owned())),
        };
        let source = &mut found.source;
        match key.as_str() {
            "submodules" => source.submodules = boolean(&value)?,
            "keep-git-dir" => found.keep_git_dir = Some(boolean(&value)?),
            "fetch-by-commit" => source.by_commit = boolean(&value)?,
            "ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime" if value.is_empty() => {
                return Err(GitError::NoValue(key));
            }
            "ref" => set(&mut source.reference, value, "refs")?,
            "tag" => tag = Some(prefixed("refs/tags/", value)),
            "branch" => branch = Some(prefixed("refs/heads/", value)),
            "subdir" => set(&mut source.subdir, clean_subdir(&value), "subdirectories")?,
            "checksum" | "commit" => source.checksum = Some(value),
            "mtime" if matches!(value.as_str(), "checkout" | "commit") => {
                source.commit_time = value == "commit";
            }
            "mtime" => return Err(GitError::BadValue(key, value)),
            _ => return Err(GitError::UnknownQuery(key)),
        }
    }
    for reference in [tag, branch].into_iter().flatten() {
        set(&mut found.source.reference, reference, "refs")?;
    }
    Ok(())
}

fn prefixed(prefix: &str, value: String) -> String {
    if value.starts_with(prefix) { value } else { format!("{prefix}{value}") }
}

/// `user@host:path`.
fn is_scp_style(text: &str) -> bool {
    let word = |part: &str, more: &[u8]| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    text.split_once('@').is_some_and(|(user, rest)| {
        word(user, b"-_")
            && rest.split_once(':').is_some_and(|(host, path)| word(host, b"-.") && !path.is_empty())
    })
}

/// A directory below the repository's root, without `..`.
fn clean_subdir(path: &str) -> String {
    let rooted = format!("/{path}");
    bricklayer_solver::pattern::clean(&rooted).trim_start_matches('/').to_owned()
}

fn has_credentials(address: &str) -> bool {
    address.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
}

/// Percent-decoding; what is no valid escape stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let hex =
            text.get(i + 1..i + 3).filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(decoded) => {
                out.push(decoded);
                i += 3;
            }
            None => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Is it a file over HTTP (and no repository)?
pub(crate) fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Does a URL hold a user or a password?
pub(crate) fn url_has_credentials(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, address)| has_credentials(address))
}

/// The name that a file from `url` gets: the last part of its path.
pub(crate) fn file_name(url: &str) -> String {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = decode(path);
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("" | "." | "..") | None => "__unnamed__".to_owned(),
        Some(name) => name.replace('\0', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
            Ok(Some(r)) => {
                let s = r.source;
                format!(
                    "{} ref={} dir={} sum={} sub={} keep={:?}",
                    s.remote,
                    s.reference,
                    s.subdir,
                    s.checksum.unwrap_or_default(),
                    s.submodules,
                    r.keep_git_dir
                )
            }
        }
    }

    #[test]
    fn repositories() {
        let cases = [
            (
                "https://example.test/a/b.git",
                "https://example.test/a/b.git ref= dir= sum= sub=true keep=None",
            ),
            (
                "https://example.test/b.git#v1:sub/../dir",
                "https://example.test/b.git ref=v1 dir=dir sum= sub=true keep=None",
            ),
            (
                "git@example.test:a/b.git#:../../x",
                "git@example.test:a/b.git ref= dir=x sum= sub=true keep=None",
            ),
            ("ssh://git@example.test/b", "ssh://git@example.test/b ref= dir= sum= sub=true keep=None"),
            (
                "https://example.test/b.git?tag=v1&subdir=s%2Ft&commit=abc&submodules=false&keep-git-dir",
                "https://example.test/b.git ref=refs/tags/v1 dir=s/t sum=abc sub=false keep=Some(true)",
            ),
            ("https://example.test/b.git?branch=x#y", "the git URL names two different refs"),
            ("https://example.test/b.git?what=x", "the query of a git URL knows no `what`"),
            ("https://example.test/b.git?tag", "the query `tag` of a git URL needs a value"),
            ("https://u:p@example.test/b.git", "the URL holds credentials"),
            ("https://example.test/b.tar", "none"),
            ("github.com/a/b", "none"),
            ("./git@x:y", "none"),
            ("a.txt", "none"),
            ("C:\\x", "none"),
            ("a@b", "none"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn file_names() {
        let cases = [
            ("https://example.test/a/b.tar.gz?x=/y", "b.tar.gz"),
            ("https://example.test/a%20b/c%20d", "c d"),
            ("https://example.test/a/b/", "b"),
            ("https://example.test", "__unnamed__"),
            ("https://example.test/..", "__unnamed__"),
            ("https://example.test/x%2f..", "__unnamed__"),
        ];
        for (url, expected) in cases {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }
}
