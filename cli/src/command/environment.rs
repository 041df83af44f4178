//! What the command knows of its surroundings: variables, the current directory, its standard streams. The only place
//! that asks; everything else is given this, so that tests can give something else.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bricklayer::Reader;

use super::usage::Usage;

/// See the module's description.
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    root_user: bool,
    /// Is standard input a terminal?
    pub(crate) stdin_terminal: bool,
    /// Is standard error a terminal?
    pub(crate) stderr_terminal: bool,
    /// Is standard output a terminal?
    pub(crate) stdout_terminal: bool,
    stdin: Arc<Mutex<dyn Read + Send>>,
}

impl Environment {
    /// That of the process.
    pub(crate) fn of_process() -> Self {
        // variables that are not UTF-8 can be no build arg and no setting of ours
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            variables,
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            root_user: rustix::process::geteuid().is_root(),
            stdin_terminal: std::io::stdin().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
            stdout_terminal: std::io::stdout().is_terminal(),
            stdin: Arc::new(Mutex::new(std::io::stdin())),
        }
    }

    /// A variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable that says something: one that is empty counts as not set.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A path as typed, from the current directory. `.` means nothing in it; `..` stays, since it may follow a link, and
    /// so does a slash at the end, which says that it is a directory.
    pub(crate) fn path(&self, typed: impl AsRef<Path>) -> PathBuf {
        let joined = self.directory.join(typed);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    /// A path as people should see it: below the current directory without that directory.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.directory) {
            Ok(below) if below != Path::new("") => below.to_owned(),
            _ => path.to_owned(),
        }
    }

    /// Standard input.
    pub(crate) fn stdin(&self) -> Reader {
        Reader(self.stdin.clone())
    }

    /// Where the store is if nobody says.
    pub(crate) fn default_root(&self) -> Result<PathBuf, Usage> {
        if self.root_user {
            return Ok(PathBuf::from("/var/lib/bricklayer"));
        }
        // the specification of XDG says that a relative path is to be ignored
        let data = self.setting("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        data.or_else(|| Some(self.home()?.join(".local/share")))
            .map(|data| data.join("bricklayer"))
            .ok_or_else(|| {
                Usage::new("neither XDG_DATA_HOME nor HOME is set, so there is no place for the store")
                    .hint("say where with --root or BRICKLAYER_ROOT")
            })
    }

    /// Docker's config.json, if there is a place for one.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        match self.setting("DOCKER_CONFIG") {
            Some(directory) => Some(self.path(directory).join("config.json")),
            None => Some(self.home()?.join(".docker/config.json")),
        }
    }

    /// Proxies that this process itself is to use: `HTTPS_PROXY` and the like, as set.
    pub(crate) fn proxies(&self) -> Vec<(String, String)> {
        PROXIES
            .iter()
            .flat_map(|name| [(*name).to_owned(), name.to_lowercase()])
            .filter_map(|name| Some((name.clone(), self.setting(&name)?.to_owned())))
            .collect()
    }

    /// Are colours wanted on standard output?
    pub(crate) fn stdout_colours(&self) -> bool {
        use std::io::IsTerminal as _;
        std::io::stdout().is_terminal() && self.setting("NO_COLOR").is_none()
    }

    /// Are colours wanted on standard error? (<https://no-color.org>)
    pub(crate) fn colours(&self) -> bool {
        self.stderr_terminal && self.setting("NO_COLOR").is_none() && self.get("TERM") != Some("dumb")
    }

    fn home(&self) -> Option<PathBuf> {
        self.setting("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// One for tests.
    #[cfg(test)]
    pub(crate) fn fake(directory: &Path, variables: &[(&str, &str)], stdin: &[u8]) -> Self {
        Self {
            variables: variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            directory: directory.to_owned(),
            root_user: false,
            stdin_terminal: false,
            stderr_terminal: false,
            stdout_terminal: false,
            stdin: Arc::new(Mutex::new(std::io::Cursor::new(stdin.to_vec()))),
        }
    }
}

/// The variables that name proxies; each also in lower case.
pub(crate) const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_lies_where_the_page_says() {
        let root = |variables: &[(&str, &str)]| {
            Environment::fake(Path::new("/"), variables, b"")
                .default_root()
                .ok()
                .map(|p| p.display().to_string())
        };
        assert_eq!(root(&[("HOME", "/home/x")]).unwrap(), "/home/x/.local/share/bricklayer");
        assert_eq!(root(&[("HOME", "/home/x"), ("XDG_DATA_HOME", "/data")]).unwrap(), "/data/bricklayer");
        assert_eq!(
            root(&[("HOME", "/home/x"), ("XDG_DATA_HOME", "rel")]).unwrap(),
            "/home/x/.local/share/bricklayer"
        );
        assert_eq!(root(&[]), None);
        let mut environment = Environment::fake(Path::new("/"), &[], b"");
        environment.root_user = true;
        assert_eq!(environment.default_root().unwrap(), Path::new("/var/lib/bricklayer"));
    }
}
