//! An HTTP server and a git daemon on loopback, and repositories for them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{Bench, wait_for};

/// Serves a directory's files, all with the same `Last-Modified`; its thread ends with the process.
pub(crate) struct HttpServer {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl HttpServer {
    /// `authorization`: what a request's header must be.
    pub(crate) fn start(directory: &Path, authorization: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, directory) = (Arc::clone(&requests), directory.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // a client that goes away is no matter of the test
                let _ = answer(stream, &directory, authorization, &seen);
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The request lines so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    directory: &Path,
    authorization: Option<&str>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line? {
            line if line.is_empty() => break,
            line => lines.push(line),
        }
    }
    let request = lines.first().cloned().unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(request);
    let given = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
    });
    let (status, body) = match fs::read(directory.join(path.trim_start_matches('/'))) {
        _ if authorization.is_some_and(|wanted| given.as_deref() != Some(wanted)) => {
            ("401 Unauthorized", Vec::new())
        }
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Mon, 02 Jan 2006 22:04:05 GMT\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// Serves the repositories of a bench over git's own protocol.
pub(crate) struct GitServer {
    child: Child,
    address: String,
}

impl GitServer {
    pub(crate) fn start(bench: &Bench) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // the daemon itself, and not below `git`, so that it ends when it is killed
        let programs = git(bench.dir.path(), &["--exec-path"]);
        let child = Command::new(Path::new(&programs).join("git-daemon"))
            .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", bench.path("repositories").display()))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git-daemon is missing: apt-get install git");
        let server = Self { child, address: format!("127.0.0.1:{port}") };
        wait_for("git-daemon answers", || TcpStream::connect(&server.address).is_ok());
        server
    }

    /// `git://…` of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.address)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository with one commit on `main`.
pub(crate) fn repository(bench: &Bench, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = bench.context(&format!("repositories/{name}"), files);
    git(&dir, &["init", "-q", "-b", "main"]);
    git(&dir, &["add", "."]);
    git(&dir, &["commit", "-qm", "one"]);
    dir
}

/// Runs git, with nothing of this machine's configuration.
#[track_caller]
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.test"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is missing: apt-get install git");
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
