//! A registry on loopback that misbehaves on demand, and small images to move.
//!
//! It keeps blobs, manifests and uploads in memory, answers one request a connection, and writes down every request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bricklayer_solver::Digest;
use bricklayer_solver::event::{Reporter, Task, TaskInfo, TaskKind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::retry::Clock;
use super::{Reference, Registry, RegistryOptions, Timing};
use crate::document::media;
use crate::store::Descriptor;

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An answer of this status with these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The connection is closed after so many bytes of the body.
    Truncate(usize),
    /// Nothing comes any more after so many bytes of the body.
    Hang(usize),
    /// One byte at a time.
    Drip,
    /// One bit of the body is wrong.
    Flip,
    /// `Range` is not understood.
    NoRange,
    /// The connection is reset while the request's body is being read.
    ResetUpload,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path with query.
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

#[derive(Debug, Default)]
struct State {
    /// `path@digest` → bytes
    blobs: HashMap<String, Vec<u8>>,
    /// `path@tag or digest` → type and bytes
    manifests: HashMap<String, (String, Vec<u8>)>,
    faults: Vec<(String, usize, Fault)>,
    seen: Vec<Seen>,
    uploads: usize,
    /// A header that every request must have, and the challenge for those that do not.
    guard: Option<(String, String)>,
    /// Where uploads are sent to, if elsewhere.
    upload_host: Option<String>,
    mounts: bool,
}

/// The registry.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(Mutex::new(State { mounts: true, ..State::default() })),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                // A client that goes away is none of our business.
                tokio::spawn(async move { server.serve(stream).await.ok() });
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub(crate) fn put_blob(&self, path: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state().blobs.insert(format!("{path}@{digest}"), bytes.to_vec());
        digest
    }

    pub(crate) fn put_manifest(&self, path: &str, name: &str, kind: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        for name in [name, &digest] {
            self.state().manifests.insert(format!("{path}@{name}"), (kind.to_owned(), bytes.to_vec()));
        }
    }

    pub(crate) fn blob(&self, path: &str, digest: Digest) -> Option<Vec<u8>> {
        self.state().blobs.get(&format!("{path}@{digest}")).cloned()
    }

    pub(crate) fn manifest(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        self.state().manifests.get(&format!("{path}@{name}")).map(|found| found.1.clone())
    }

    /// The next `times` requests whose line (`GET /v2/…`) holds `line` go wrong.
    pub(crate) fn fault(&self, line: &str, times: usize, fault: Fault) {
        self.state().faults.push((line.to_owned(), times, fault));
    }

    pub(crate) fn status(&self, line: &str, times: usize, status: u16) {
        self.fault(line, times, Fault::Answer(status, Vec::new(), Vec::new()));
    }

    /// Requests must carry this `Authorization`.
    pub(crate) fn guard(&self, authorization: &str, challenge: &str) {
        self.state().guard = Some((authorization.to_owned(), challenge.to_owned()));
    }

    pub(crate) fn uploads_go_to(&self, host: &str) {
        self.state().upload_host = Some(host.to_owned());
    }

    pub(crate) fn refuse_mounts(&self) {
        self.state().mounts = false;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|seen| seen.line().contains(line)).count()
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some((mut seen, mut rest)) = read_head(&mut stream).await? else { return Ok(()) };
        let line = seen.line();
        let fault = {
            let mut state = self.state();
            let found = state
                .faults
                .iter_mut()
                .find(|(wanted, times, _)| line.contains(wanted.as_str()) && *times > 0);
            found.map(|(_, times, fault)| {
                *times -= 1;
                fault.clone()
            })
        };
        let length: usize = seen.headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        if matches!(fault, Some(Fault::ResetUpload)) {
            self.state().seen.push(seen);
            return reset(stream);
        }
        while rest.len() < length {
            let mut buffer = vec![0; 64 << 10];
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            rest.extend_from_slice(&buffer[..count]);
        }
        seen.body = rest;
        let ignore_range = matches!(fault, Some(Fault::NoRange));
        if ignore_range {
            seen.headers.remove("range");
        }
        let (status, headers, mut body) = match &fault {
            Some(Fault::Answer(status, headers, body)) => {
                (*status, headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(), body.clone())
            }
            _ => self.answer(&seen),
        };
        let head_only = seen.method == "HEAD";
        self.state().seen.push(seen);
        if matches!(fault, Some(Fault::Flip)) && !body.is_empty() {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| name == "content-length") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        if head_only {
            return stream.shutdown().await;
        }
        match fault {
            Some(Fault::Reset(after)) => {
                stream.write_all(&body[..after.min(body.len())]).await?;
                stream.flush().await?;
                // what was sent must arrive before the reset
                tokio::time::sleep(Duration::from_millis(30)).await;
                reset(stream)
            }
            Some(Fault::Truncate(after)) => {
                stream.write_all(&body[..after.min(body.len())]).await?;
                stream.shutdown().await
            }
            Some(Fault::Hang(after)) => {
                stream.write_all(&body[..after.min(body.len())]).await?;
                std::future::pending().await
            }
            Some(Fault::Drip) => {
                for byte in body {
                    stream.write_all(&[byte]).await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stream.shutdown().await
            }
            _ => {
                stream.write_all(&body).await?;
                stream.shutdown().await
            }
        }
    }

    fn answer(&self, seen: &Seen) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut state = self.state();
        let plain = |status: u16| (status, Vec::new(), Vec::new());
        if let Some((authorization, challenge)) = &state.guard
            && seen.target.starts_with("/v2/")
            && seen.headers.get("authorization") != Some(authorization)
        {
            let body =
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_vec();
            return (401, vec![("www-authenticate".to_owned(), challenge.clone())], body);
        }
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        if path == "/v2/" {
            return plain(200);
        }
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3A", ":").replace("%2F", "/")))
            .collect();
        let path = path.trim_start_matches("/v2/");
        let get = matches!(seen.method.as_str(), "GET" | "HEAD");
        if let Some((repository, name)) = path.split_once("/manifests/") {
            let key = format!("{repository}@{name}");
            if get {
                let Some((kind, bytes)) = state.manifests.get(&key) else {
                    return not_found("manifest unknown");
                };
                let digest = Digest::of(bytes).to_string();
                let headers = vec![
                    ("content-type".to_owned(), kind.clone()),
                    ("docker-content-digest".to_owned(), digest),
                    ("content-length".to_owned(), bytes.len().to_string()),
                ];
                return (200, headers, bytes.clone());
            }
            let kind = seen.headers.get("content-type").cloned().unwrap_or_default();
            drop(state);
            self.put_manifest(repository, name, &kind, &seen.body);
            return plain(201);
        }
        if let Some((repository, _)) = path.split_once("/blobs/uploads/") {
            if seen.method == "POST" {
                if let (Some(mount), Some(from), true) = (query.get("mount"), query.get("from"), state.mounts)
                    && let Some(bytes) = state.blobs.get(&format!("{from}@{mount}")).cloned()
                {
                    state.blobs.insert(format!("{repository}@{mount}"), bytes);
                    return plain(201);
                }
                state.uploads += 1;
                let host =
                    state.upload_host.as_ref().map(|host| format!("http://{host}")).unwrap_or_default();
                let location = format!("{host}/v2/{repository}/blobs/uploads/{}?state=x", state.uploads);
                return (202, vec![("location".to_owned(), location)], Vec::new());
            }
            let digest = Digest::of(&seen.body);
            if query.get("digest") != Some(&digest.to_string()) {
                return plain(400);
            }
            drop(state);
            self.put_blob(repository, &seen.body);
            return plain(201);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            let Some(bytes) = state.blobs.get(&format!("{repository}@{digest}")) else {
                return not_found("blob unknown");
            };
            let start = seen
                .headers
                .get("range")
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            return match start {
                Some(start) => {
                    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                    (206, vec![("content-range".to_owned(), range)], bytes[start..].to_vec())
                }
                None => (200, vec![("content-length".to_owned(), bytes.len().to_string())], bytes.clone()),
            };
        }
        if path.starts_with("/token") || seen.target.starts_with("/token") {
            return (200, Vec::new(), br#"{"token":"t0ken","expires_in":300}"#.to_vec());
        }
        not_found("page unknown")
    }
}

fn not_found(message: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let body = json!({"errors": [{"code": "UNKNOWN", "message": message}]});
    (404, Vec::new(), body.to_string().into_bytes())
}

fn reset(stream: TcpStream) -> std::io::Result<()> {
    let socket = rustix::fd::AsFd::as_fd(&stream);
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
    Ok(())
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<(Seen, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok(Some((Seen { method, target, headers, body: Vec::new() }, bytes[end + 4..].to_vec())))
}

/// A registry client whose pauses take a millisecond and are written down.
pub(crate) fn client(options: RegistryOptions) -> (Registry, Arc<Mutex<Vec<Duration>>>) {
    let pauses = Arc::default();
    (Registry::with_clock(options, Clock::recording(Arc::clone(&pauses))).unwrap(), pauses)
}

/// As the default, but a transfer that does not move is noticed soon.
pub(crate) fn impatient() -> RegistryOptions {
    let timing = Timing {
        stall: Duration::from_millis(300),
        settle: Duration::from_millis(600),
        min_rate: 4096,
        ..Timing::default()
    };
    RegistryOptions { timing, ..RegistryOptions::default() }
}

pub(crate) fn task() -> Task {
    Reporter::silent().task(TaskInfo {
        name: "test".to_owned(),
        kind: TaskKind::Internal,
        vertex: None,
        location: None,
    })
}

/// An image with these layers (uncompressed tars), as documents and blobs.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) descriptor: Descriptor,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) blobs: Vec<Descriptor>,
}

pub(crate) fn image(layers: &[&[u8]]) -> Image {
    let describe = |kind: &str, bytes: &[u8]| Descriptor {
        media_type: kind.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    let blobs: Vec<_> = layers.iter().map(|layer| describe(media::LAYER, layer)).collect();
    let diff_ids: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST,
        "config": describe(media::CONFIG, &config), "layers": blobs})
    .to_string()
    .into_bytes();
    Image {
        descriptor: describe(media::MANIFEST, &manifest),
        layers: layers.iter().map(|layer| layer.to_vec()).collect(),
        manifest,
        config,
        blobs,
    }
}

impl Server {
    pub(crate) fn put_image(&self, path: &str, tag: &str, image: &Image) {
        for bytes in image.layers.iter().chain([&image.config]) {
            self.put_blob(path, bytes);
        }
        self.put_manifest(path, tag, media::MANIFEST, &image.manifest);
    }
}
