//! How ssh is used for repositories: by a configuration of our own, with the keys of an agent and no others.
//!
//! A host's key is looked up in the user's files. One that is in none of them is believed the first time, as BuildKit
//! does, and kept for the rest of the build: whoever answers later must have the same. People are told. A key that
//! differs from the known one is refused.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// What git's ssh is configured by, for one build.
#[derive(Debug)]
pub(crate) struct Ssh {
    directory: tempfile::TempDir,
}

impl Ssh {
    /// Writes the configuration into a directory that is empty. `known_hosts` are the user's files; they may be missing.
    pub(crate) fn new(directory: tempfile::TempDir, known_hosts: &[PathBuf]) -> io::Result<Self> {
        let ssh = Self { directory };
        let mut files = vec![quoted(&ssh.new_hosts())?];
        for file in known_hosts {
            files.push(quoted(file)?);
        }
        let mut text = String::from("Host *\n");
        for (key, value) in [
            ("BatchMode", "yes"),
            ("CheckHostIP", "no"),
            ("ConnectTimeout", "30"),
            ("HashKnownHosts", "no"),
            // The user's own keys are used if they are given (--ssh), not because they lie there.
            ("IdentityFile", "none"),
            ("ServerAliveInterval", "15"),
            ("ServerAliveCountMax", "4"),
            ("StrictHostKeyChecking", "accept-new"),
            ("UpdateHostKeys", "no"),
            ("UserKnownHostsFile", &files.join(" ")),
        ] {
            let _ = writeln!(text, "{key} {value}");
        }
        fs::write(ssh.config(), text)?;
        Ok(ssh)
    }

    /// The configuration, for `ssh -F`.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    fn new_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// What people should know: hosts whose key was believed.
    pub(crate) async fn notes(&self) -> Vec<String> {
        let file = self.new_hosts();
        if !file.exists() {
            return Vec::new();
        }
        // ssh is there, so this is too.
        let listed = Command::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&listed).lines().filter_map(note).collect()
    }
}

/// Of a line of `ssh-keygen -l`: bits, fingerprint, host, type in parentheses.
fn note(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip(1);
    let (fingerprint, host, kind) = (words.next()?, words.next()?, words.next()?);
    Some(format!(
        "the key of {host} is not in ~/.ssh/known_hosts, and was believed: {fingerprint} {kind}; compare it, and add it there \
         to have it checked"
    ))
}

/// What to do about what ssh said.
pub(crate) fn hint(said: &str) -> Option<&'static str> {
    let has = |text: &str| said.contains(text);
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("Host key verification failed") {
        Some(
            "the host has another key than ~/.ssh/known_hosts says: if it was really changed, `ssh-keygen -R HOST` \
             forgets the old one",
        )
    } else if has("Permission denied (") {
        Some(
            "pass --ssh default for the keys of the agent at SSH_AUTH_SOCK, or --ssh default=FILE for a key in a file",
        )
    } else if has("cannot run ssh") || has("ssh: not found") {
        Some("install OpenSSH's client: repositories of ssh URLs are fetched by the ssh program")
    } else {
        None
    }
}

/// A path as a word of ssh's configuration (ssh_config(5)), where `%` and `${` mean something.
fn quoted(path: &Path) -> io::Result<String> {
    let odd = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("ssh's configuration cannot hold the path `{}`", path.display()),
        )
    };
    let text = path.to_str().ok_or_else(odd)?;
    if text.contains(['"', '\\', '$']) || text.chars().any(char::is_control) {
        return Err(odd());
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_the_configuration() {
        assert_eq!(quoted(Path::new("/a b/100%")).expect("quoted"), "\"/a b/100%%\"");
        for path in ["/a\"b", "/a\nb", "/${HOME}"] {
            assert!(quoted(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn keys_are_told_by_their_fingerprints() {
        let told = note("256 SHA256:abc/+ [127.0.0.1]:2222 (ED25519)").expect("a note");
        assert!(told.starts_with("the key of [127.0.0.1]:2222 is not in"), "{told}");
        assert!(told.contains("SHA256:abc/+ (ED25519)"), "{told}");
        assert_eq!(note(""), None);
    }
}
