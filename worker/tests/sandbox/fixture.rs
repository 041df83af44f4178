//! A root filesystem in a temporary folder, and commands on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bricklayer_solver::op::{Limits, Network, Security};
use bricklayer_worker::overlay;
use bricklayer_worker::sandbox::{AttachedMount, Command, Exit, SandboxError, Stream, User, run};
use tokio_util::sync::CancellationToken;

const BUSYBOX: &str = "/bin/busybox";

pub(crate) struct Root {
    pub(crate) folder: tempfile::TempDir,
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Root {
    /// A busybox system with the users root and app (1000).
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
        let root = Self::empty();
        let base = root.base();
        for dir in ["bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp", "srv"] {
            fs::create_dir_all(base.join(dir)).expect("make a directory");
        }
        fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::copy(BUSYBOX, base.join("bin/busybox")).expect("copy busybox");
        let list = std::process::Command::new(BUSYBOX).arg("--list").output().expect("busybox --list");
        for applet in String::from_utf8(list.stdout).expect("names").lines().filter(|name| *name != "busybox")
        {
            symlink("busybox", base.join("bin").join(applet)).expect("link");
        }
        root
    }

    /// Nothing at all in the base.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for dir in ["base", "upper", "work"] {
            fs::create_dir(folder.path().join(dir)).expect("make a directory");
        }
        fs::set_permissions(folder.path().join("upper"), fs::Permissions::from_mode(0o755)).expect("chmod");
        Self { folder }
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.path().join("upper")
    }

    /// Everything that is in the upper directory.
    pub(crate) fn changes(&self) -> Vec<String> {
        fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("read a directory") {
                let path = entry.expect("an entry").path();
                found.push(path.strip_prefix(top).expect("below").display().to_string());
                if path.symlink_metadata().expect("stat").is_dir() {
                    walk(&path, top, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.upper(), &self.upper(), &mut found);
        found.sort();
        found
    }

    /// A new upper directory for the next command, on the same base.
    pub(crate) fn fresh_upper(&self) {
        for dir in ["upper", "work"] {
            let path = self.folder.path().join(dir);
            fs::remove_dir_all(&path).expect("remove");
            fs::create_dir(&path).expect("make a directory");
        }
        fs::set_permissions(self.upper(), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// A command on this root, with everything at its default and no network.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let (base, upper, work) = (self.base(), self.upper(), self.folder.path().join("work"));
        // A volatile overlay leaves a mark that keeps it from being mounted again.
        let _ = fs::remove_dir_all(work.join("work"));
        let root = overlay::mount(&[&base], Some((&upper, &work))).expect("mount the root");
        Command {
            root,
            upper: Some(fs::File::open(&upper).expect("open upper").into()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            user: User { uid: 0, gid: 0, groups: vec![0], home: "/root".to_owned() },
            mounts: Vec::new(),
            network: Network::None,
            security: Security::Sandbox,
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            limits: Limits::default(),
            cgroup_parent: None,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Command {
        self.command(&["sh", "-c", script])
    }

    /// What the script writes to standard output; it must end with code 0.
    pub(crate) fn output(&self, script: &str) -> String {
        output(self.shell(script))
    }
}

pub(crate) fn try_run(command: Command) -> Result<Ran, SandboxError> {
    let (stdout, stderr) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let collect = |stream: Stream, bytes: &[u8]| {
        let to = if stream == Stream::Stdout { &stdout } else { &stderr };
        to.lock().expect("lock").extend_from_slice(bytes);
    };
    let exit = run(command, &collect, &CancellationToken::new())?;
    let text =
        |bytes: Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.into_inner().expect("lock")).into_owned();
    Ok(Ran { stdout: text(stdout), stderr: text(stderr), exit })
}

pub(crate) fn ran(command: Command) -> Ran {
    try_run(command).unwrap_or_else(|error| {
        panic!(
            "{error}: {:?} (hint: {:?})",
            std::error::Error::source(&error).map(ToString::to_string),
            error.hint()
        )
    })
}

pub(crate) fn output(command: Command) -> String {
    let ran = ran(command);
    assert!(ran.exit.success(), "{ran:?}");
    ran.stdout
}

/// The error of a command that can't be run, with its causes.
pub(crate) fn refused(command: Command) -> String {
    let error = try_run(command).expect_err("it should be refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) fn tmpfs(target: &str) -> AttachedMount {
    AttachedMount {
        target: target.to_owned(),
        what: bricklayer_worker::sandbox::Attached::Tmpfs { size: None },
    }
}
