//! An SSH agent for keys in files: OpenSSH's own `ssh-agent`, which ends with this process, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::Error;

/// No key is larger; a file that is is none.
const LARGEST: u64 = 64 << 10;

/// What every unencrypted key in OpenSSH's own format begins with, in base64 (PROTOCOL.key: magic, cipher `none`).
const NOT_ENCRYPTED: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";

/// Waits for the end of its standard input, which is that of the builder, and then takes the agent with it.
const SCRIPT: &str = r#"ssh-agent -D -a "$1" & agent=$!
read -r _
kill "$agent"
wait
rm -f "$1""#;

/// A running agent. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct KeyAgent {
    // The order matters: the agent ends when it is let go of, and its directory goes after it.
    life: Option<ChildStdin>,
    child: Child,
    directory: tempfile::TempDir,
}

impl KeyAgent {
    /// Starts an agent that holds the keys of these files.
    pub(crate) fn start(files: &[PathBuf]) -> Result<Self, Error> {
        let keys = files.iter().map(|file| read_key(file)).collect::<Result<Vec<_>, _>>()?;
        let failed = |error: std::io::Error| {
            let failed = Error::because("cannot start ssh-agent for a key file", error);
            failed.with_hint("install OpenSSH's client, or pass the socket of an agent: --ssh ID=SOCKET")
        };
        // Only its owner gets in.
        let directory = tempfile::Builder::new().prefix("bricklayer-ssh-").tempdir().map_err(failed)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(directory.path().join("agent"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C at a terminal is ours to handle.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (life, ready) = (child.stdin.take(), child.stdout.take());
        let agent = Self { life, child, directory };
        // It says where it listens once it does; without ssh-agent this is the end of the file.
        let mut line = String::new();
        ready.map(BufReader::new).map(|mut ready| ready.read_line(&mut line)).transpose().map_err(failed)?;
        if line.is_empty() {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        }
        for (file, key) in files.iter().zip(keys) {
            agent.add(file, &key)?;
        }
        Ok(agent)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    /// By standard input: the agent's owner need not be the only one who can read the file.
    fn add(&self, file: &Path, key: &[u8]) -> Result<(), Error> {
        let what = || format!("cannot load the key `{}`", file.display());
        let mut add = Command::new("ssh-add")
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", self.socket())
            // Nobody is asked for anything.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::because(what(), error).with_hint("install OpenSSH's client"))?;
        let written = add.stdin.take().map(|mut stdin| stdin.write_all(key)).transpose();
        let done = add.wait_with_output().map_err(|error| Error::because(what(), error))?;
        if done.status.success() && written.is_ok() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(Error::new(format!("{}: {}", what(), said.trim())))
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.child.wait();
    }
}

fn read_key(file: &Path) -> Result<Vec<u8>, Error> {
    let cannot = |error: std::io::Error| Error::because(format!("cannot read `{}`", file.display()), error);
    let metadata = std::fs::metadata(file).map_err(cannot)?;
    let mut key = Vec::new();
    if metadata.is_file() && metadata.len() <= LARGEST {
        key = std::fs::read(file).map_err(cannot)?;
    }
    let text = String::from_utf8_lossy(&key);
    let mut lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN "));
    let Some(kind) = lines.next().filter(|line| line.contains("PRIVATE KEY-----")) else {
        let wrong =
            Error::new(format!("`{}` is neither an agent's socket nor a private key", file.display()));
        return Err(wrong);
    };
    let own_format = kind.contains("OPENSSH");
    let encrypted = kind.contains("ENCRYPTED")
        || text.contains("Proc-Type: 4,ENCRYPTED")
        || own_format && !lines.next().is_some_and(|line| line.starts_with(NOT_ENCRYPTED));
    if encrypted {
        return Err(Error::new(format!("the key `{}` is encrypted", file.display()))
            .with_hint("load it into an agent, which asks for its passphrase: eval $(ssh-agent) && ssh-add FILE, then --ssh default"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keygen(arguments: &[&str]) {
        let done = Command::new("ssh-keygen").args(["-q", "-C", "test"]).args(arguments).status();
        assert!(done.expect("apt-get install openssh-client").success());
    }

    #[test]
    fn keys_of_every_kind_are_held_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| path(name).to_str().unwrap().to_owned();
        keygen(&["-t", "ed25519", "-N", "", "-f", &text("ed")]);
        keygen(&["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", &text("rsa")]);
        keygen(&["-t", "ecdsa", "-m", "PKCS8", "-N", "", "-f", &text("ec")]);
        let agent = KeyAgent::start(&[path("ed"), path("rsa"), path("ec")]).unwrap();
        let socket = agent.socket();
        let listed = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &socket).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for name in ["ed", "rsa", "ec"] {
            let public = std::fs::read_to_string(path(&format!("{name}.pub"))).unwrap();
            let key = public.split(' ').nth(1).unwrap();
            assert!(listed.contains(key), "{name}: {listed}");
        }
        drop(agent);
        assert!(!socket.parent().unwrap().exists());
        assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    }

    #[test]
    fn a_file_that_will_not_do_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let start = |name: &str| {
            let error = KeyAgent::start(&[folder.path().join(name)]).unwrap_err();
            error.to_string().replace(&folder.path().display().to_string(), "DIR")
        };
        for (name, options) in
            [("own", &[][..]), ("pem", &["-m", "PEM", "-t", "rsa"]), ("pkcs8", &["-m", "PKCS8"])]
        {
            let path = folder.path().join(name);
            keygen(&[&["-N", "secret", "-f", path.to_str().unwrap()][..], options].concat());
            assert_eq!(start(name), format!("the key `DIR/{name}` is encrypted"));
        }
        std::fs::write(folder.path().join("text"), "hello").unwrap();
        assert_eq!(start("text"), "`DIR/text` is neither an agent's socket nor a private key");
        let broken = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{NOT_ENCRYPTED}\n-----END OPENSSH PRIVATE KEY-----\n"
        );
        std::fs::write(folder.path().join("broken"), broken).unwrap();
        assert!(start("broken").starts_with("cannot load the key `DIR/broken`: "), "{}", start("broken"));
        assert_eq!(start("none"), "cannot read `DIR/none`");
    }
}
