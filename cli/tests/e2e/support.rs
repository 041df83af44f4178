//! A store with a base image, contexts, and what a build printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A store of its own with the image `base`, and room for contexts.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
}

/// The base image's archive, made once for all tests of this process.
pub(crate) fn base_archive() -> &'static Path {
    static BASE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BASE.get_or_init(|| {
        assert!(rustix::process::geteuid().is_root(), "these tests mount things: run them as root");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/base/busybox");
        let done = Command::new(script).arg(&path).arg("base").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (dir, path)
    });
    path
}

/// What a command printed, and whether it ended well.
pub(crate) struct Printed {
    pub(crate) ok: bool,
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) stdout: String,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = format!("{}{stdout}", String::from_utf8_lossy(&output.stderr));
        Self { ok: output.status.success(), code: output.status.code(), text, stdout }
    }
}

impl Printed {
    /// It ended well.
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert!(self.ok, "{}", self.text);
        self
    }

    /// How many steps ran, and how many were found, as the last line says.
    #[track_caller]
    pub(crate) fn steps(&self) -> (usize, usize) {
        let line = self.text.lines().rfind(|line| line.starts_with("built")).expect("a summary");
        let numbers: Vec<usize> = line
            .rsplit_once('(')
            .expect("steps in brackets")
            .1
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        (numbers[0], numbers[1])
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self::empty();
        bench.run(&["load", "-i", base_archive().to_str().unwrap()]).fine();
        bench
    }

    /// Without a store.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::Builder::new().prefix("bricklayer-e2e-").tempdir_in("/var/tmp").unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a context: `Dockerfile` and other files.
    pub(crate) fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.path(name);
        for (file, text) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    /// The command with this store.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bricklayer"));
        command
            .arg("--root")
            .arg(self.store())
            .args(args)
            .current_dir(self.dir.path())
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Printed {
        self.command(args).output().unwrap().into()
    }

    /// `build --progress plain …`.
    pub(crate) fn build(&self, args: &[&str]) -> Printed {
        self.run(&[&["build", "--progress", "plain"], args].concat())
    }

    pub(crate) fn start_build(&self, args: &[&str]) -> Child {
        self.command(&[&["build", "--progress", "plain"], args].concat()).spawn().unwrap()
    }
}

/// Runs another program; one that is missing fails the test with what to install.
#[track_caller]
pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap_or_else(|error| {
        panic!("{program}: {error}: apt-get install busybox-static docker-registry skopeo umoci")
    });
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Debian's docker-registry on loopback.
pub(crate) struct RegistryServer {
    child: Child,
    pub(crate) address: String,
}

impl RegistryServer {
    pub(crate) fn start(bench: &Bench) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = bench.path("registry.yml");
        let storage = bench.path("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                storage.display()
            ),
        )
        .unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let server = Self { child, address };
        wait_for("the registry answers", || std::net::TcpStream::connect(&server.address).is_ok());
        server
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so; a minute at most, since the machine may be busy.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "a minute went by, and not yet: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
