//! Git repositories, fetched by the `git` program in an environment of our own.
//!
//! What a server says is not trusted: references that look like options are refused, `--` ends options in every call,
//! hooks and configuration of the machine are off, submodules may only come over the network, and a subdirectory is
//! followed through real directories only.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bricklayer_solver::op::GitSource;
use bricklayer_solver::worker::StepError;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::ssh::{self, Ssh};

/// Output of one git command that is read at the most, in bytes: a listing of half a million refs.
const OUTPUT_LIMIT: usize = 64 << 20;

/// A `git` that works for one build.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    /// Proxy variables.
    pub(crate) proxy: Vec<(String, String)>,
    /// An SSH agent's socket.
    pub(crate) ssh_agent: Option<PathBuf>,
    /// An `Authorization` header's value for https remotes.
    pub(crate) auth_header: Option<String>,
    /// How ssh is configured.
    pub(crate) ssh: Arc<Ssh>,
}

impl Git {
    /// The commit that the source's reference is at now.
    pub(crate) async fn resolve(&self, source: &GitSource) -> Result<String, StepError> {
        check_argument("remote", &source.remote)?;
        check_argument("reference", &source.reference)?;
        let commit = if is_commit(&source.reference) {
            source.reference.to_ascii_lowercase()
        } else if source.by_commit {
            match &source.checksum {
                Some(commit) if is_commit(commit) => commit.to_ascii_lowercase(),
                _ => {
                    return Err(StepError::new(format!(
                        "`fetch-by-commit` of `{}` needs a whole commit",
                        redact(&source.remote)
                    ))
                    .hint("add `checksum=` with all 40 hex digits, or name the commit as the reference"));
                }
            }
        } else {
            let wanted = if source.reference.is_empty() { "HEAD" } else { &source.reference };
            let peeled = format!("{wanted}^{{}}");
            let listing = self
                .run(None, &["ls-remote", "--quiet", "--", &source.remote, wanted, &peeled], &source.remote)
                .await?;
            pick_reference(&String::from_utf8_lossy(&listing), wanted).ok_or_else(|| {
                let error = StepError::new(format!(
                    "no branch, tag or ref `{wanted}` in `{}`",
                    redact(&source.remote)
                ));
                let shortened = wanted.len() >= 4 && wanted.bytes().all(|b| b.is_ascii_hexdigit());
                if shortened { error.hint("a commit must be named by all its 40 hex digits") } else { error }
            })?
        };
        match &source.checksum {
            Some(expected) if !commit.starts_with(&expected.to_ascii_lowercase()) => Err(StepError::new(
                format!("`{}` is at commit {commit}, but {expected} was expected", redact(&source.remote)),
            )),
            _ => Ok(commit),
        }
    }

    /// Checks `commit` out: what the source names ends up in `tree`, which must be empty. `scratch` is an empty
    /// directory on the same filesystem.
    pub(crate) async fn checkout(
        &self,
        source: &GitSource,
        commit: &str,
        scratch: &Path,
        tree: &Path,
    ) -> Result<(), StepError> {
        let work = scratch.join("checkout");
        let failed = |what: &str, path: &Path, error: std::io::Error| {
            StepError::with_source(format!("cannot {what} `{}`", path.display()), error)
        };
        std::fs::create_dir(&work).map_err(|e| failed("make", &work, e))?;
        let at = Some(work.as_path());
        self.run(at, &["init", "--quiet", "--initial-branch=main"], &source.remote).await?;
        self.run(at, &["remote", "add", "--", "origin", &source.remote], &source.remote).await?;
        // not every server hands out commits by number: the reference itself, with its history, is the second try
        let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "origin", "--", commit];
        if let Err(first) = self.run(at, &shallow, &source.remote).await {
            let reference = if source.reference.is_empty() { "HEAD" } else { &source.reference };
            if is_commit(reference) {
                self.run(at, &["fetch", "--quiet", "--tags", "origin"], &source.remote)
                    .await
                    .map_err(|_| first)?;
            } else {
                self.run(at, &["fetch", "--quiet", "--tags", "origin", "--", reference], &source.remote)
                    .await?;
            }
        }
        self.run(at, &["checkout", "--quiet", "--force", "--detach", commit, "--"], &source.remote).await?;
        if source.submodules && work.join(".gitmodules").is_file() {
            let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"];
            self.run(at, &update, &source.remote).await?;
        }
        plain_modes(&work)?;
        let time = match source.commit_time {
            true => Some(self.commit_time(&work, commit, &source.remote).await?),
            false => None,
        };
        let root = real_subdirectory(&work, &source.subdir)?;
        let git_dir = work.join(".git");
        if source.keep_git_dir && root != work {
            std::fs::rename(&git_dir, root.join(".git")).map_err(|e| failed("move", &git_dir, e))?;
        } else if !source.keep_git_dir {
            std::fs::remove_dir_all(&git_dir).map_err(|e| failed("remove", &git_dir, e))?;
        }
        for entry in std::fs::read_dir(&root).map_err(|e| failed("list", &root, e))? {
            let entry = entry.map_err(|e| failed("list", &root, e))?;
            std::fs::rename(entry.path(), tree.join(entry.file_name()))
                .map_err(|e| failed("move", &entry.path(), e))?;
        }
        if let Some(time) = time {
            set_times(tree, time)?;
        }
        Ok(())
    }

    /// When a commit was made, in seconds since 1970.
    async fn commit_time(&self, work: &Path, commit: &str, remote: &str) -> Result<i64, StepError> {
        let printed =
            self.run(Some(work), &["show", "--no-patch", "--format=%ct", commit, "--"], remote).await?;
        let text = String::from_utf8_lossy(&printed);
        text.trim()
            .parse()
            .map_err(|_| StepError::new(format!("the commit {commit} of `{}` has no time", redact(remote))))
    }

    async fn run(&self, dir: Option<&Path>, args: &[&str], remote: &str) -> Result<Vec<u8>, StepError> {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("LC_ALL", "C")
            .env("HOME", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git")
            // a shell reads it
            .env("GIT_SSH_COMMAND", "ssh -F \"$BRICKLAYER_SSH_CONFIG\"")
            .env("BRICKLAYER_SSH_CONFIG", self.ssh.config())
            // the only case that curl, which git uses, takes for all of them
            .envs(self.proxy.iter().map(|(name, value)| (name.to_lowercase(), value)));
        if let Some(socket) = &self.ssh_agent {
            command.env("SSH_AUTH_SOCK", socket);
        }
        if let Some(header) = &self.auth_header {
            // by environment, so that it shows in no process list
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", origin(remote)))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: {header}"));
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "core.symlinks=true",
            "protocol.file.allow=never",
            "advice.detachedHead=false",
        ] {
            command.arg("-c").arg(setting);
        }
        command.args(args.iter().map(OsStr::new)).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| {
            StepError::with_source(format!("cannot run `git` for `{}`", redact(remote)), e)
                .hint("install git: repositories are fetched by the git program")
        })?;
        let (stdout, stderr) = tokio::join!(
            read_up_to(child.stdout.take(), OUTPUT_LIMIT),
            read_up_to(child.stderr.take(), OUTPUT_LIMIT)
        );
        if stdout.len() > OUTPUT_LIMIT || stderr.len() > OUTPUT_LIMIT {
            return Err(StepError::new(format!("git {} of `{}` answered too much", args[0], redact(remote))));
        }
        let status = child
            .wait()
            .await
            .map_err(|e| StepError::with_source(format!("cannot wait for git {}", args[0]), e))?;
        if !status.success() {
            let text = String::from_utf8_lossy(&stderr);
            let text: String = text.trim().chars().take(2000).collect();
            let error = StepError::new(format!(
                "git {} of `{}` failed: {}",
                args[0],
                redact(remote),
                text.replace(remote, &redact(remote))
            ));
            return Err(match ssh::hint(&text) {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        Ok(stdout)
    }
}

/// At most `limit` bytes and one more, so that the caller can tell that there were more.
async fn read_up_to(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // a pipe that breaks ends like one that is closed: the exit status says what happened
        let _ = pipe.take(limit as u64 + 1).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Nothing that git could take for an option, or a shell for more than a word.
fn check_argument(what: &str, text: &str) -> Result<(), StepError> {
    if text.starts_with('-') || text.chars().any(char::is_control) {
        return Err(StepError::new(format!("`{}` is not a git {what}", redact(text))));
    }
    Ok(())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The commit of `wanted` in an `ls-remote` listing: as a full ref, a tag, then a branch; an annotated tag's commit,
/// not the tag object.
fn pick_reference(listing: &str, wanted: &str) -> Option<String> {
    let lines: Vec<(&str, &str)> = listing.lines().filter_map(|line| line.split_once('\t')).collect();
    [
        wanted.to_owned(),
        format!("refs/{wanted}"),
        format!("refs/tags/{wanted}"),
        format!("refs/heads/{wanted}"),
    ]
    .iter()
    .flat_map(|name| [format!("{name}^{{}}"), name.clone()])
    .find_map(|name| lines.iter().find(|(_, n)| *n == name))
    .map(|(commit, _)| (*commit).to_owned())
    .filter(|commit| is_commit(commit))
}

/// Gives what git made the modes that it has for any umask: git keeps of a file only whether it can be run.
fn plain_modes(checkout: &Path) -> Result<(), StepError> {
    for entry in walkdir::WalkDir::new(checkout).min_depth(1) {
        let entry = entry.map_err(|e| StepError::with_source("cannot list the checkout", e))?;
        let failed = |e: std::io::Error| {
            StepError::with_source(format!("cannot set the mode of `{}`", entry.path().display()), e)
        };
        let metadata = entry.path().symlink_metadata().map_err(failed)?;
        if metadata.is_symlink() {
            continue;
        }
        let mode = if metadata.is_dir() || metadata.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// Gives everything below `root`, and `root` itself, one modification time.
fn set_times(root: &Path, seconds: i64) -> Result<(), StepError> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // what a directory holds comes first: nothing is made in it afterwards
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.map_err(|e| StepError::with_source("cannot list the checkout", e))?;
        rustix::fs::utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| {
            StepError::with_source(format!("cannot set the time of `{}`", entry.path().display()), e)
        })?;
    }
    Ok(())
}

/// `subdir` of a checkout, through real directories only.
fn real_subdirectory(checkout: &Path, subdir: &str) -> Result<PathBuf, StepError> {
    let mut path = checkout.to_path_buf();
    for component in Path::new(subdir).components() {
        match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) if name != ".git" => path.push(name),
            _ => {
                return Err(StepError::new(format!(
                    "`{subdir}` is not a directory below the repository's root"
                )));
            }
        }
        if !path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            return Err(StepError::new(format!("`{subdir}` is not a directory of the repository")));
        }
    }
    Ok(path)
}

/// Scheme and host of a URL, with a `/` at the end.
fn origin(remote: &str) -> String {
    let after = remote.find("://").map_or(0, |at| at + 3);
    let end = remote[after..].find('/').map_or(remote.len(), |at| after + at);
    format!("{}/", &remote[..end])
}

/// A remote without its user and password.
pub(crate) fn redact(remote: &str) -> String {
    match remote.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => remote.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_as_git_does() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listing = format!("{a}\tHEAD\n{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n");
        assert_eq!(pick_reference(&listing, "v1"), Some(c));
        assert_eq!(pick_reference(&listing, "HEAD"), Some(a.clone()));
        assert_eq!(pick_reference(&listing, "heads/v1"), Some(a));
        assert_eq!(pick_reference("--upload-pack=x\trefs/heads/x\n", "x"), None);
    }

    #[test]
    fn options_in_disguise_are_refused() {
        for text in ["--upload-pack=touch /tmp/x", "-x", "a\nb"] {
            assert!(check_argument("reference", text).is_err(), "{text}");
        }
    }

    #[test]
    fn subdirectories_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert_eq!(real_subdirectory(dir.path(), "/a//b/").unwrap(), dir.path().join("a/b"));
        for text in ["..", "a/../..", "link", "link/etc", "nothere", ".git"] {
            assert!(real_subdirectory(dir.path(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        for (name, before, after) in [("d/f", 0o600, 0o644), ("d/x", 0o700, 0o755), ("d/w", 0o666, 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).unwrap();
            plain_modes(dir.path()).unwrap();
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, after, "{name}");
        }
        assert_eq!(dir.path().join("d").metadata().unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn one_time_for_everything() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        set_times(dir.path(), 1_000_000_007).unwrap();
        for name in ["", "d", "d/f", "link"] {
            assert_eq!(dir.path().join(name).symlink_metadata().unwrap().mtime(), 1_000_000_007, "{name}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(redact("https://user:pass@host/x@y.git"), "https://host/x@y.git");
        assert_eq!(origin("https://host:1/x/y.git"), "https://host:1/");
    }
}
