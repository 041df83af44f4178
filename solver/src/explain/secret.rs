//! Which values are not to be shown.

/// Words that mark a secret wherever they stand in a name.
const ANYWHERE: &[&str] =
    &["password", "passwd", "pword", "passphrase", "secret", "token", "credential", "apikey"];
/// Words that mark a secret where they are a word of their own, or the end of one.
const WORDS: &[&str] = &["key", "keys", "auth", "pwd", "pass", "creds", "pat"];
/// Words that say that it is none.
const ALLOWED: &[&str] = &["public"];
/// Names that only look like secrets.
const ALLOWED_NAMES: &[&str] = &["pwd", "oldpwd"];

/// Does the name of a variable look like that of a secret? Errs on the side of yes.
///
/// ```
/// use bricklayer_solver::explain::secret::is_secret;
/// assert!(is_secret("AWS_SECRET_ACCESS_KEY") && is_secret("npmToken") && is_secret("DB_PASS"));
/// assert!(!is_secret("PUBLIC_KEY") && !is_secret("KEYBOARD") && !is_secret("PWD"));
/// ```
pub fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = || lower.split(|c: char| !c.is_ascii_alphanumeric());
    if ALLOWED_NAMES.contains(&lower.as_str()) || words().any(|word| ALLOWED.contains(&word)) {
        return false;
    }
    ANYWHERE.iter().any(|mark| lower.contains(mark))
        || words().any(|word| {
            WORDS.contains(&word)
                || ["key", "auth", "pwd"].iter().any(|end| word.len() > end.len() && word.ends_with(end))
        })
}

/// May a variable be written down? Not if its name looks like that of a secret, or a URL in its value has user info.
pub fn may_be_kept(name: &str, value: &str) -> bool {
    !is_secret(name) && !hide_user_info(value).1
}

/// `text` with the user info of each URL in it hidden, and whether there was any.
pub(super) fn hide_user_info(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len());
    let mut hidden = false;
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'`<>|;".contains(c)).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@') {
            Some(sign) => {
                out.push_str("***");
                out.push_str(&authority[sign..]);
                hidden = true;
            }
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    (out, hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_down() {
        assert!(may_be_kept("VERSION", "1.2") && may_be_kept("URL", "https://host/a@b"));
        assert!(!may_be_kept("NPM_TOKEN", "1.2") && !may_be_kept("URL", "see https://me:pass@host/"));
    }
}
