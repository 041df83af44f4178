//! Faults of registries (scoreboard C), each against a real socket on loopback.

use std::time::Duration;

use bricklayer_solver::platform::Platform;
use serde_json::json;

use super::testing::{Fault, Image, Server, client, image, impatient, task};
use super::*;
use crate::document::media;

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// The chain of messages, with what differs from run to run taken out.
fn text(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

macro_rules! assert_text {
    ($value:expr, @$expected:literal) => {
        insta::with_settings!({filters => [(r"127\.0\.0\.1:\d+", "HOST"), (r"sha256:([0-9a-f]{6})[0-9a-f]+", "sha256:$1…")]}, {
            insta::assert_snapshot!($value, @$expected);
        });
    };
}

fn sample() -> Image {
    image(&[b"first layer", &[7; 100_000]])
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// Pulls `x:1` from `server` into a new store and checks that all of it is there.
async fn pull(server: &Server, registry: &Registry, image: &Image) -> Result<(), RegistryError> {
    let (_dir, store) = store();
    let pulled = registry.pull(&store, &server.reference("x:1"), &amd64(), &task()).await?;
    assert_eq!(pulled.manifest, image.descriptor);
    registry.fetch_layers(&store, pulled.manifest.digest, &task()).await?;
    for (blob, bytes) in image.blobs.iter().zip(&image.layers) {
        assert_eq!(store.read_blob(blob.digest, 1 << 20).unwrap(), *bytes);
    }
    Ok(())
}

async fn served(image: &Image) -> Server {
    let server = Server::start().await;
    server.put_image("x", "1", image);
    server
}

/// C1, C2: server errors that pass.
#[tokio::test]
async fn server_errors_that_pass_are_sat_out() {
    let image = sample();
    for (line, times, status) in [
        ("GET /v2/x/blobs", 1, 503),
        ("GET /v2/x/blobs", 3, 503),
        ("GET /v2/x/blobs", 8, 500),
        ("GET /v2/x/manifests", 3, 502),
        ("GET /v2/x/manifests", 1, 408),
    ] {
        let server = served(&image).await;
        server.status(line, times, status);
        let (registry, pauses) = client(impatient());
        pull(&server, &registry, &image).await.unwrap();
        let waited: Duration = pauses.lock().unwrap().iter().sum();
        assert!(waited < Duration::from_secs(60), "{line} {status} ×{times}: {waited:?}");
    }
}

#[tokio::test]
async fn errors_that_stay_are_told_with_what_the_server_says() {
    let image = sample();
    let server = served(&image).await;
    let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way"}]}"#.to_vec();
    server.fault("GET /v2/x/manifests/1", 1, Fault::Answer(403, Vec::new(), body));
    server.status("GET /v2/x/manifests/2", 100, 500);
    server.status("GET /v2/x/manifests/3", 1, 418);
    let (registry, _) = client(impatient());
    let mut seen = Vec::new();
    for name in ["x:1", "x:2", "x:3", "x:nosuch", "nosuch"] {
        seen.push(text(&registry.resolve(&server.reference(name), &amd64()).await.unwrap_err()));
    }
    assert_text!(seen.join("\n"), @"
    access to `HOST/x:1` was refused: no�[31m way
    cannot GET http://HOST/v2/x/manifests/2: the server answered 500
    cannot GET http://HOST/v2/x/manifests/3: the server answered 418
    `HOST/x:nosuch` was not found: manifest unknown
    `HOST/nosuch:latest` was not found: manifest unknown
    ");
}

/// C3: the server says how long to wait.
#[tokio::test]
async fn retry_after_is_honoured() {
    let image = sample();
    for line in ["GET /v2/x/manifests", "GET /v2/x/blobs"] {
        let server = served(&image).await;
        server.fault(line, 6, Fault::Answer(429, vec![("retry-after", "3".to_owned())], Vec::new()));
        let (registry, pauses) = client(impatient());
        pull(&server, &registry, &image).await.unwrap();
        let pauses = pauses.lock().unwrap();
        assert_eq!(pauses.iter().filter(|pause| **pause >= Duration::from_secs(3)).count(), 6, "{pauses:?}");
    }
    let server = served(&image).await;
    server.fault("GET", 1, Fault::Answer(200, Vec::new(), Vec::new()));
    server.fault("manifests", 9, Fault::Answer(429, vec![("retry-after", "86400".to_owned())], Vec::new()));
    let (registry, _) = client(impatient());
    let error = registry.resolve(&server.reference("x:1"), &amd64()).await.unwrap_err();
    assert_text!(text(&error), @"cannot GET http://HOST/v2/x/manifests/1: the server asks to wait 86400 s");
}

/// C4: a connection that breaks again and again, but each time further on.
#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let layer: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let image = image(&[&layer]);
    let digest = image.blobs[0].digest;
    for times in [2, 20] {
        let server = served(&image).await;
        server.fault(&format!("GET /v2/x/blobs/{digest}"), times, Fault::Reset(40_000));
        let (registry, _) = client(impatient());
        pull(&server, &registry, &image).await.unwrap();
        let ranges: Vec<_> =
            server.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
        assert_eq!(ranges.len(), times, "{ranges:?}");
        assert!(ranges.iter().all(|range| range != "bytes=0-"), "{ranges:?}");
    }
}

/// C5: cut bodies, and servers that know no `Range`.
#[tokio::test]
async fn cut_bodies_are_completed_with_or_without_range() {
    let image = sample();
    let big = format!("GET /v2/x/blobs/{}", image.blobs[1].digest);
    let server = served(&image).await;
    server.fault(&big, 1, Fault::Truncate(50_000));
    let (registry, _) = client(impatient());
    pull(&server, &registry, &image).await.unwrap();
    assert_eq!(server.count(&big), 2);

    let server = served(&image).await;
    server.fault(&big, 1, Fault::Truncate(50_000));
    server.fault(&big, 1, Fault::NoRange);
    pull(&server, &registry, &image).await.unwrap();

    let server = served(&image).await;
    server.fault(&big, 1, Fault::Truncate(50_000));
    server.status(&big, 1, 416);
    pull(&server, &registry, &image).await.unwrap();
    assert_eq!(server.count(&big), 3);

    // a partial answer to another question than ours
    let server = served(&image).await;
    server.fault(&big, 1, Fault::Truncate(50_000));
    let range = vec![("content-range", "bytes 0-99999/100000".to_owned())];
    server.fault(&big, 1, Fault::Answer(206, range, vec![7; 100_000]));
    pull(&server, &registry, &image).await.unwrap();
}

/// C6: bytes that were damaged on the way, once or always.
#[tokio::test]
async fn wrong_bytes_are_fetched_again_once() {
    let image = sample();
    let big = format!("GET /v2/x/blobs/{}", image.blobs[1].digest);
    let config = "GET /v2/x/blobs/sha256";
    for line in [big.as_str(), config, "GET /v2/x/manifests"] {
        let server = served(&image).await;
        server.fault(line, 1, Fault::Flip);
        let (registry, _) = client(impatient());
        pull(&server, &registry, &image).await.unwrap();

        let server = served(&image).await;
        server.fault(line, 100, Fault::Flip);
        let error = pull(&server, &registry, &image).await.unwrap_err();
        assert!(matches!(error, RegistryError::Digest { .. }), "{line}: {error}");
    }
}

/// C7: nothing comes, or next to nothing.
#[tokio::test]
async fn transfers_that_do_not_move_are_begun_again() {
    let image = sample();
    let big = format!("GET /v2/x/blobs/{}", image.blobs[1].digest);
    for fault in [Fault::Hang(0), Fault::Hang(1000), Fault::Drip] {
        for line in [big.as_str(), "GET /v2/x/manifests"] {
            let server = served(&image).await;
            server.fault(line, 1, fault.clone());
            let (registry, _) = client(impatient());
            pull(&server, &registry, &image).await.unwrap();
        }
    }
    // a server that never does better is given up
    let server = served(&image).await;
    server.fault(&big, 1000, Fault::Hang(10));
    let mut options = impatient();
    options.timing.attempts = 3;
    let (registry, _) = client(options);
    let error = pull(&server, &registry, &image).await.unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    assert_eq!(server.count(&big), 3);
}

/// C8: what is too large is refused before it is read.
#[tokio::test]
async fn sizes_are_bounded() {
    let server = Server::start().await;
    let huge = vec![b' '; 5 << 20];
    server.put_manifest("x", "1", media::MANIFEST, &huge);
    let announced =
        vec![("content-length", "300000000".to_owned()), ("content-type", media::MANIFEST.to_owned())];
    server.fault("GET /v2/x/manifests/2", 1, Fault::Answer(200, announced, vec![b' '; 100]));
    let config = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "layers": [],
        "config": {"mediaType": media::CONFIG, "digest": Digest::of(b"x"), "size": 10_u64 << 30}});
    server.put_manifest("x", "3", media::MANIFEST, config.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [{"mediaType": media::MANIFEST,
        "digest": Digest::of(b"x"), "size": u64::MAX, "platform": {"os": "linux", "architecture": "amd64"}}]});
    server.put_manifest("x", "4", media::INDEX, index.to_string().as_bytes());
    let (registry, _) = client(impatient());
    let mut seen = Vec::new();
    for tag in ["x:1", "x:2", "x:3", "x:4"] {
        seen.push(text(&registry.resolve(&server.reference(tag), &amd64()).await.unwrap_err()));
    }
    assert_text!(seen.join("\n"), @"
    `HOST/x:1` cannot be used: the document has 5242880 bytes, 4194304 are allowed
    `HOST/x:2` cannot be used: the document has 300000000 bytes, 4194304 are allowed
    `HOST/x:3 (configuration sha256:2d7116…)` cannot be used: the document has 10737418240 bytes, 4194304 are allowed
    `HOST/x:4 (sha256:2d7116…)` cannot be used: the document has 18446744073709551615 bytes, 4194304 are allowed
    ");
    assert_eq!(server.count("blobs"), 0);
}

/// A22, A23: blobs that are longer or shorter than their descriptor says.
#[tokio::test]
async fn blobs_have_the_size_of_their_descriptor() {
    let image = sample();
    let (_dir, store) = store();
    let server = served(&image).await;
    let (registry, _) =
        client(RegistryOptions { timing: Timing { attempts: 2, ..Timing::default() }, ..impatient() });
    for wrong in [99_999, 100_001] {
        let blob = Descriptor { size: wrong, ..image.blobs[1].clone() };
        let repository = server.reference("x").repository().clone();
        let error = registry.fetch_blob(&store, &repository, &blob, &task()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Size { .. }), "{error}");
        assert!(!store.has_blob(blob.digest));
    }
}

/// C9: redirects.
#[tokio::test]
async fn redirects_are_followed_with_care() {
    let image = sample();
    let elsewhere = Server::start().await;
    elsewhere.put_blob("there", &image.layers[1]);
    let digest = image.blobs[1].digest;
    let big = format!("GET /v2/x/blobs/{digest}");
    let to = |target: String| Fault::Answer(307, vec![("location", target)], Vec::new());

    let dir = tempfile::tempdir().unwrap();
    let server = served(&image).await;
    server.guard("Basic dXNlcjpzZWNyZXQ=", "Basic realm=\"x\"");
    let options = RegistryOptions { docker_config: Some(login(&dir, &server, "user:secret")), ..impatient() };
    server.fault(&big, 1, to(format!("http://{}/v2/there/blobs/{digest}?signature=1", elsewhere.host())));
    let (registry, _) = client(options);
    pull(&server, &registry, &image).await.unwrap();
    assert_eq!(elsewhere.count("GET /v2/there/blobs"), 1);
    assert!(elsewhere.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));

    let mut seen = Vec::new();
    for target in [
        format!("/v2/x/blobs/{digest}"),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/".to_owned(),
    ] {
        let server = served(&image).await;
        server.fault("GET /v2/x/blobs", 100, to(target));
        let (registry, _) = client(impatient());
        seen.push(text(&pull(&server, &registry, &image).await.unwrap_err()));
    }
    assert_text!(seen.join("\n"), @"
    cannot GET http://HOST/v2/x/blobs/sha256:2c4b10…: refused to follow the server to `http://HOST/v2/x/blobs/sha256:2c4b10…`: there were too many redirects
    cannot GET http://HOST/v2/x/blobs/sha256:656d0b…: refused to follow the server to `file:///etc/passwd`: it is neither http nor https
    cannot GET http://HOST/v2/x/blobs/sha256:656d0b…: refused to follow the server to `http://169.254.169.254/`: it is an address of this machine or link
    ");
}

/// C10: other documents than those that were asked for.
#[tokio::test]
async fn documents_are_those_that_were_asked_for() {
    let image = sample();
    let server = Server::start().await;
    server.put_image("x", "1", &image);
    let asked = Digest::of(b"another");
    let headers = vec![("content-type", media::MANIFEST.to_owned())];
    server.fault(&format!("manifests/{asked}"), 9, Fault::Answer(200, headers, image.manifest.clone()));
    let both = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": image.blobs[0], "layers": [], "manifests": []});
    server.put_manifest("x", "both", media::MANIFEST, both.to_string().as_bytes());
    server.put_manifest("x", "type", media::INDEX, &image.manifest);
    server.put_manifest("x", "none", media::MANIFEST, b"<html>");
    server.put_manifest(
        "x",
        "one",
        "application/vnd.docker.distribution.manifest.v1+json",
        br#"{"schemaVersion":1,"fsLayers":[]}"#,
    );
    let chart = json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": asked, "size": 2}, "layers": []});
    server.put_manifest("x", "chart", media::MANIFEST, chart.to_string().as_bytes());
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
            .to_string();
    let digest = server.put_blob("x", config.as_bytes());
    let few = json!({"schemaVersion": 2, "config": {"mediaType": media::CONFIG, "digest": digest, "size": config.len()}, "layers": image.blobs});
    server.put_manifest("x", "few", media::MANIFEST, few.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": media::MANIFEST, "digest": asked, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}]});
    server.put_manifest("x", "other", media::INDEX, index.to_string().as_bytes());

    let (registry, _) = client(impatient());
    let mut seen = Vec::new();
    for name in [&format!("x@{asked}"), "x:both", "x:type", "x:none", "x:one", "x:chart", "x:few", "x:other"]
    {
        seen.push(text(&registry.resolve(&server.reference(name), &amd64()).await.unwrap_err()));
    }
    assert_text!(seen.join("\n"), @"
    `HOST/x@sha256:ae448a…`: sha256:7e8b45… came, but sha256:ae448a… was asked for
    `HOST/x:both` cannot be used: the document is a manifest and an index at once
    `HOST/x:type` cannot be used: the document says that it is `application/vnd.oci.image.manifest.v1+json`, but `application/vnd.oci.image.index.v1+json` was promised
    `HOST/x:none` cannot be used: the document is not what the OCI image specification asks for: expected value at line 1 column 1
    `HOST/x:one` cannot be used: `image manifest schema 1` is not supported
    `HOST/x:chart` is not a container image but `application/vnd.cncf.helm.config.v1+json`
    `HOST/x:few` has 2 layers, but its configuration lists 0
    `HOST/x:other` is not there for linux/amd64: it has linux/s390x
    ");
}

/// A config.json with one login.
fn login(dir: &tempfile::TempDir, server: &Server, user_and_password: &str) -> PathBuf {
    let path = dir.path().join(format!("config-{}.json", server.host().replace(':', "-")));
    let (user, password) = user_and_password.split_once(':').unwrap();
    let config = json!({"auths": {server.host(): {"username": user, "password": password}}});
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// C11: who gets the stored credentials.
#[tokio::test]
async fn credentials_go_to_the_registry_and_its_token_service_only() {
    let image = sample();
    let dir = tempfile::tempdir().unwrap();

    // the token service is the registry itself
    let server = served(&image).await;
    server.guard("Bearer t0ken", &format!("Bearer realm=\"http://{}/token\",service=\"s\"", server.host()));
    let options = RegistryOptions { docker_config: Some(login(&dir, &server, "user:secret")), ..impatient() };
    let (registry, _) = client(options.clone());
    pull(&server, &registry, &image).await.unwrap();
    let asked: Vec<_> = server.seen().into_iter().filter(|seen| seen.target.starts_with("/token")).collect();
    assert_eq!(asked.len(), 1, "one token serves all");
    assert_eq!(asked[0].headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    insta::assert_snapshot!(asked[0].target, @"/token?scope=repository%3Ax%3Apull&service=s&account=user");

    // another port is another service: asked, but not told
    let other = Server::start().await;
    let server = served(&image).await;
    server.guard("Bearer t0ken", &format!("Bearer realm=\"http://{}/token\"", other.host()));
    let options = RegistryOptions { docker_config: Some(login(&dir, &server, "user:secret")), ..impatient() };
    let (registry, _) = client(options.clone());
    pull(&server, &registry, &image).await.unwrap();
    assert!(other.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));

    // ... unless the user says that it belongs there
    let services = BTreeMap::from([(server.host(), BTreeSet::from([other.host()]))]);
    let (registry, _) = client(RegistryOptions { token_services: services, ..options.clone() });
    pull(&server, &registry, &image).await.unwrap();
    assert_eq!(other.seen().last().unwrap().headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");

    // a service that wants credentials that it does not get
    other.status("/token", 9, 401);
    let (registry, _) = client(options);
    let error = registry.resolve(&server.reference("x:1"), &amd64()).await.unwrap_err();
    assert_text!(format!("{}\nhint: {}", text(&error), error.hint().unwrap()), @"
    `HOST` names the token service `http://HOST/token`, which is refused: it is not known to belong to the registry, so it was not given the credentials, and it asks for some
    hint: if this token service belongs to the registry, name it among the registry's token services
    ");

    // credentials of another registry, or none at all
    let (registry, _) =
        client(RegistryOptions { docker_config: Some(login(&dir, &other, "user:secret")), ..impatient() });
    let server = served(&image).await;
    server.guard("Basic dXNlcjpzZWNyZXQ=", "Basic realm=\"x\"");
    let error = registry.resolve(&server.reference("x:1"), &amd64()).await.unwrap_err();
    assert_text!(format!("{}\nhint: {}", text(&error), error.hint().unwrap()), @"
    access to `HOST/x` was refused
    hint: log in with `docker login HOST`, or check the name
    ");
    assert!(server.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));

    // wrong ones
    let (registry, _) =
        client(RegistryOptions { docker_config: Some(login(&dir, &server, "user:wrong")), ..impatient() });
    let error = registry.resolve(&server.reference("x:1"), &amd64()).await.unwrap_err();
    assert_text!(format!("{}\nhint: {}", text(&error), error.hint().unwrap()), @"
    access to `HOST/x:1` was refused: authentication required
    hint: the stored credentials do not allow this; check the name and the account
    ");

    // a token service of the link
    let server = served(&image).await;
    server.guard("Bearer t0ken", "Bearer realm=\"http://169.254.169.254/token\"");
    let (registry, _) = client(impatient());
    let error = registry.resolve(&server.reference("x:1"), &amd64()).await.unwrap_err();
    assert_text!(text(&error), @"`HOST` names the token service `http://169.254.169.254/token`, which is refused: it is a bare address, or one of this machine or link");
}

/// Puts the image into a new store.
fn stored(image: &Image) -> (tempfile::TempDir, Store) {
    let (dir, store) = store();
    for bytes in image.layers.iter().chain([&image.config, &image.manifest]) {
        store.put_blob(&mut &bytes[..], Digest::of(bytes), bytes.len() as u64).unwrap();
    }
    (dir, store)
}

fn assert_pushed(server: &Server, path: &str, image: &Image) {
    assert_eq!(server.manifest(path, "1").as_ref(), Some(&image.manifest));
    for (blob, bytes) in image.blobs.iter().zip(&image.layers) {
        assert_eq!(server.blob(path, blob.digest).as_ref(), Some(bytes));
    }
    assert!(server.blob(path, Digest::of(&image.config)).is_some());
}

/// C12, C13: faults of pushes.
#[tokio::test]
async fn pushes_withstand_faults() {
    let image = sample();
    let (_dir, store) = stored(&image);
    let answer = |status, headers| Fault::Answer(status, headers, Vec::new());
    let wait = || vec![("retry-after", "1".to_owned())];
    for (line, times, fault) in [
        ("POST /v2/y/blobs", 1, answer(500, vec![])),
        ("PUT /v2/y/blobs", 1, answer(500, vec![])),
        ("PUT /v2/y/blobs", 1, answer(429, wait())),
        ("PUT /v2/y/blobs", 1, answer(401, vec![("www-authenticate", "Bearer realm=\"/token\"".to_owned())])),
        ("PUT /v2/y/blobs", 1, answer(404, vec![])),
        ("PUT /v2/y/blobs", 1, Fault::ResetUpload),
        ("PUT /v2/y/blobs", 4, Fault::ResetUpload),
        ("HEAD /v2/y/blobs", 2, Fault::ResetUpload),
        ("PUT /v2/y/manifests", 1, answer(500, vec![])),
        ("PUT /v2/y/manifests", 1, Fault::ResetUpload),
        ("PUT /v2/y/blobs", 1, Fault::Hang(0)),
    ] {
        let server = Server::start().await;
        server.fault(line, times, fault.clone());
        let (registry, pauses) = client(impatient());
        let target = server.reference("y:1");
        let result = registry.push(&store, &target, &image.descriptor, &[], &task()).await;
        result.unwrap_or_else(|error| panic!("{line} {fault:?}: {}", text(&error)));
        assert_pushed(&server, "y", &image);
        let waited: Duration = pauses.lock().unwrap().iter().sum();
        assert!(waited < Duration::from_secs(60), "{line} {fault:?}: {waited:?}");
    }
}

#[tokio::test]
async fn a_push_sends_nothing_twice() {
    let image = sample();
    let (_dir, store) = stored(&image);
    let server = Server::start().await;
    let target = server.reference("y:1");
    let (registry, _) = client(impatient());
    // early, while the build runs; twice at once
    let early = || async {
        registry.push_blob(&store, target.repository(), &image.blobs[1], &[], &task()).await.unwrap();
    };
    tokio::join!(early(), early());
    registry.push(&store, &target, &image.descriptor, &[], &task()).await.unwrap();
    assert_eq!(server.count("PUT /v2/y/blobs"), 3);
    assert_eq!(server.count("HEAD /v2/y/blobs"), 3);

    // another process finds them there
    let (registry, _) = client(impatient());
    registry.push(&store, &target, &image.descriptor, &[], &task()).await.unwrap();
    assert_eq!(server.count("PUT /v2/y/blobs"), 3);
}

#[tokio::test]
async fn blobs_are_mounted_from_where_they_came() {
    let image = sample();
    let server = served(&image).await;
    let from = server.reference("x").repository().clone();
    // only the documents are in the store: base layers were never needed
    let (_dir, store) = store();
    let (registry, _) = client(impatient());
    let pulled = registry.pull(&store, &server.reference("x:1"), &amd64(), &task()).await.unwrap();
    let target = server.reference("y:1");
    registry.push(&store, &target, &pulled.manifest, std::slice::from_ref(&from), &task()).await.unwrap();
    assert_pushed(&server, "y", &image);
    assert_eq!(server.count("GET /v2/x/blobs"), 1, "the configuration only");

    // where mounting is refused, they are fetched and sent
    let target = server.reference("z:1");
    server.refuse_mounts();
    registry.push(&store, &target, &pulled.manifest, std::slice::from_ref(&from), &task()).await.unwrap();
    assert_pushed(&server, "z", &image);

    // to another registry, likewise
    let other = Server::start().await;
    let (_dir, fresh) = self::store();
    let pulled = registry.pull(&fresh, &server.reference("x:1"), &amd64(), &task()).await.unwrap();
    registry.push(&fresh, &other.reference("y:1"), &pulled.manifest, &[from], &task()).await.unwrap();
    assert_pushed(&other, "y", &image);

    // and what is nowhere is named
    let (_dir, fresh) = self::store();
    let pulled = registry.pull(&fresh, &server.reference("x:1"), &amd64(), &task()).await.unwrap();
    let target = Server::start().await.reference("y:1");
    let error = registry.push(&fresh, &target, &pulled.manifest, &[], &task()).await.unwrap_err();
    assert!(matches!(error, RegistryError::MissingBlob { .. }), "{error}");
}

/// C14: an upload location elsewhere gets the blob, not the credentials.
#[tokio::test]
async fn upload_locations_elsewhere_get_no_credentials() {
    let image = sample();
    let (dir, store) = stored(&image);
    let elsewhere = Server::start().await;
    let server = Server::start().await;
    server.guard("Basic dXNlcjpzZWNyZXQ=", "Basic realm=\"x\"");
    server.uploads_go_to(&elsewhere.host());
    let options = RegistryOptions { docker_config: Some(login(&dir, &server, "user:secret")), ..impatient() };
    let (registry, _) = client(options);
    registry.push(&store, &server.reference("y:1"), &image.descriptor, &[], &task()).await.unwrap();
    assert_eq!(elsewhere.count("PUT /v2/y/blobs"), 3);
    assert!(elsewhere.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
    assert!(server.seen().iter().any(|seen| seen.headers.contains_key("authorization")));
}

/// What is in the store is not asked for again.
#[tokio::test]
async fn a_second_pull_transfers_nothing() {
    let image = sample();
    let server = served(&image).await;
    let (_dir, store) = store();
    let (registry, _) = client(impatient());
    for _ in 0..2 {
        registry.pull(&store, &server.reference("x:1"), &amd64(), &task()).await.unwrap();
        registry.fetch_layers(&store, image.descriptor.digest, &task()).await.unwrap();
    }
    assert_eq!(server.count("GET /v2/x/manifests"), 1);
    assert_eq!(server.count("HEAD /v2/x/manifests"), 2);
    assert_eq!(server.count("GET /v2/x/blobs"), 3);
    let before = server.seen().len();
    let pinned = server.reference("x").with_digest(image.descriptor.digest);
    registry.pull(&store, &pinned, &amd64(), &task()).await.unwrap();
    assert_eq!(server.seen().len(), before, "a digest that is here needs no registry");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_given_up_soon() {
    let (registry, pauses) = client(impatient());
    let error = registry.resolve(&"127.0.0.1:1/x".parse().unwrap(), &amd64()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Transport { .. }), "{error}");
    assert_eq!(pauses.lock().unwrap().len(), 2);
}
