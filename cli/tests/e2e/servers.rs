//! An HTTP server and a git daemon on loopback, and repositories for them.

use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{Bench, tool, wait_for};

/// Serves a directory's files, all with the same `Last-Modified`, and with an `ETag` that clients may ask about; also as a proxy,
/// whatever the host that is asked for, and by tunnels to where `CONNECT` says. Its thread ends with the process.
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
                let (seen, directory) = (Arc::clone(&seen), directory.clone());
                // a client that goes away is no matter of the test
                std::thread::spawn(move || answer(stream, &directory, authorization, &seen));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The request lines so far, each with the status that was answered.
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
    let target = request.split(' ').nth(1).unwrap_or("/").to_owned();
    if request.starts_with("CONNECT ") {
        seen.lock().unwrap().push(request);
        return tunnel(stream, &target);
    }
    let path =
        target.strip_prefix("http://").map_or(&*target, |rest| rest.split_once('/').map_or("", |(_, p)| p));
    let path = path.split('?').next().unwrap_or_default();
    let header = |wanted: &str| {
        lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let (mut status, mut body) = match fs::read(directory.join(path.trim_start_matches('/'))) {
        _ if authorization.is_some_and(|wanted| header("authorization").as_deref() != Some(wanted)) => {
            ("401 Unauthorized", Vec::new())
        }
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let mut hasher = std::hash::DefaultHasher::new();
    body.hash(&mut hasher);
    let etag = format!("\"{:x}\"", hasher.finish());
    if status == "200 OK" && header("if-none-match").as_deref() == Some(&etag) {
        (status, body) = ("304 Not Modified", Vec::new());
    }
    seen.lock().unwrap().push(format!("{request} {}", &status[..3]));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Mon, 02 Jan 2006 22:04:05 GMT\r\n\
         ETag: {etag}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// Copies both ways until either side ends.
fn tunnel(mut client: TcpStream, target: &str) -> std::io::Result<()> {
    // names that nobody has are names of this machine
    let port = target.rsplit_once(':').and_then(|(host, port)| host.ends_with(".test").then_some(port));
    let target = port.map_or_else(|| target.to_owned(), |port| format!("127.0.0.1:{port}"));
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Write)
}

/// A server that speaks TLS, with a certificate by an authority of its own.
pub(crate) struct TlsServer {
    child: Child,
    address: String,
    /// The authority's certificate.
    pub(crate) authority: PathBuf,
}

impl TlsServer {
    /// Serves a directory's files.
    pub(crate) fn files(bench: &Bench, directory: &Path) -> Self {
        Self::start(bench, |certificate, key, port| {
            let script = format!(
                "import http.server, ssl, functools\n\
                 handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory={directory:?})\n\
                 server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), handler)\n\
                 context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
                 context.load_cert_chain({certificate:?}, {key:?})\n\
                 server.socket = context.wrap_socket(server.socket, server_side=True)\n\
                 server.serve_forever()\n"
            );
            let mut command = Command::new("python3");
            command.args(["-c", &script]);
            command
        })
    }

    /// A registry.
    pub(crate) fn registry(bench: &Bench) -> Self {
        Self::start(bench, |certificate, key, port| {
            let config = bench.path("tls-registry.yml");
            let storage = bench.path("tls-registry");
            let text = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: \"127.0.0.1:{port}\", tls: {{certificate: {}, key: {}}}}}\n",
                storage.display(),
                certificate.display(),
                key.display()
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(config);
            command
        })
    }

    fn start(bench: &Bench, command: impl FnOnce(&Path, &Path, u16) -> Command) -> Self {
        let (authority, certificate, key) = certificates(bench);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = command(&certificate, &key, port);
        let program = command.get_program().to_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child =
            child.unwrap_or_else(|e| panic!("{program:?}: {e}: apt-get install docker-registry python3"));
        let server = Self { child, address: format!("127.0.0.1:{port}"), authority };
        wait_for("the TLS server answers", || TcpStream::connect(&server.address).is_ok());
        server
    }

    /// Host and port, which only the proxy of [`HttpServer`] can reach; the certificate is for that host.
    pub(crate) fn address(&self) -> String {
        self.address.replace("127.0.0.1", "registry.test")
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate and key for `registry.test` by it.
fn certificates(bench: &Bench) -> (PathBuf, PathBuf, PathBuf) {
    let file = |name: &str| bench.path(&format!("tls-{name}"));
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(bench.dir.path()).output();
        let done = done.expect("openssl is missing: apt-get install openssl");
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    fs::write(file("names"), "subjectAltName=DNS:registry.test\n").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[
            &[
                "req",
                "-x509",
                "-days",
                "2",
                "-subj",
                "/CN=test authority",
                "-keyout",
                "tls-ca-key",
                "-out",
                "tls-ca",
            ],
            &key[..],
        ]
        .concat(),
    );
    openssl(
        &[&["req", "-subj", "/CN=registry.test", "-keyout", "tls-key", "-out", "tls-request"], &key[..]]
            .concat(),
    );
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "tls-request",
        "-CA",
        "tls-ca",
        "-CAkey",
        "tls-ca-key",
        "-CAcreateserial",
        "-extfile",
        "tls-names",
        "-out",
        "tls-certificate",
    ]);
    (file("ca"), file("certificate"), file("key"))
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

/// OpenSSH's server on loopback, where root gets in with one key.
pub(crate) struct SshServer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl SshServer {
    /// Its files, and the keys, go to `ssh` on the bench.
    pub(crate) fn start(bench: &Bench) -> Self {
        let dir = bench.path("ssh");
        fs::create_dir(&dir).unwrap();
        for name in ["host", "key"] {
            let key = dir.join(name);
            tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key.to_str().unwrap()]);
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/key.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nMaxStartups 100\n",
            dir.display()
        );
        fs::write(dir.join("config"), config).unwrap();
        // Debian's service makes it.
        fs::create_dir_all("/run/sshd").unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.join("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .expect("sshd is missing: apt-get install openssh-server");
        let server = Self { child, port, dir };
        wait_for("sshd answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// `ssh://…` of a path.
    pub(crate) fn url(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// The file with the key that opens it.
    pub(crate) fn key(&self) -> PathBuf {
        self.dir.join("key")
    }

    /// The line of a known_hosts file for a public key in a file of ours: `host` is the server's own.
    pub(crate) fn known_host(&self, key: &str) -> String {
        let key = fs::read_to_string(self.dir.join(key).with_extension("pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }
}

impl Drop for SshServer {
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
