//! Against a real registry (Debian's docker-registry), with two clients that are not ours as readers.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bricklayer_solver::Digest;
use bricklayer_solver::platform::Platform;
use serde_json::json;

use super::testing::{image, task};
use super::{Reference, Registry, RegistryError, RegistryOptions};
use crate::archive::validate_image;
use crate::document::media;
use crate::store::{Descriptor, Store};

/// Ends with the test.
struct Running {
    child: Child,
    host: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `user` with the password `secret`, as bcrypt.
const LOGIN: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

async fn registry(dir: &Path, guarded: bool) -> Running {
    // Free now; nobody else on this machine looks for one in this range.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let mut config = json!({"version": "0.1", "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": dir.join("registry")}}, "http": {"addr": host}});
    if guarded {
        std::fs::write(dir.join("htpasswd"), LOGIN).unwrap();
        config["auth"] = json!({"htpasswd": {"realm": "test", "path": dir.join("htpasswd")}});
    }
    let path = dir.join("config.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("docker-registry: {error}: apt-get install docker-registry"));
    let running = Running { child, host };
    for _ in 0..600 {
        if TcpStream::connect(&running.host).is_ok() {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("docker-registry does not listen on {}", running.host);
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: apt-get install {program}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Two images and an index over them in a store.
fn stored(dir: &Path) -> (Store, Descriptor, Descriptor) {
    let store = Store::open(&dir.join("store")).unwrap();
    // tars of nothing, told apart by their length
    let images = [image(&[&[0; 1024], &[0; 300 << 10]]), image(&[&[0; 2048]])];
    let mut entries = Vec::new();
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        for bytes in image.layers.iter().chain([&image.config, &image.manifest]) {
            store.put_blob(&mut &bytes[..], Digest::of(bytes), bytes.len() as u64).unwrap();
        }
        entries.push(json!({"mediaType": media::MANIFEST, "digest": image.descriptor.digest, "size": image.descriptor.size,
            "platform": {"os": "linux", "architecture": architecture}}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}).to_string();
    let (digest, size) = (Digest::of(index.as_bytes()), index.len() as u64);
    store.put_blob(&mut index.as_bytes(), digest, size).unwrap();
    (store, images[0].descriptor.clone(), Descriptor { media_type: media::INDEX.to_owned(), digest, size })
}

#[tokio::test]
async fn what_is_pushed_is_read_by_others_and_by_us() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image, index) = stored(dir.path());
    let server = registry(dir.path(), false).await;
    let client = Registry::new(RegistryOptions::default()).unwrap();
    let name = |rest: &str| format!("{}/{rest}", server.host).parse::<Reference>().unwrap();
    client.push(&store, &name("team/app:1"), &image, &[], &task()).await.unwrap();
    client.push(&store, &name("team/app:all"), &index, &[], &task()).await.unwrap();

    // skopeo reads it and checks all digests
    let target = format!("oci:{}:1", dir.path().join("copy").display());
    let source = format!("docker://{}/team/app:1", server.host);
    run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &source, &target]);
    let source = format!("docker://{}/team/app:all", server.host);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
    assert_eq!(Digest::of(raw.as_bytes()), index.digest);

    // so does oci-client
    let _ = rustls::crypto::ring::default_provider().install_default();
    let other = oci_client::Client::new(oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::Http,
        ..Default::default()
    });
    let reference = format!("{}/team/app:1", server.host).parse().unwrap();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    let pulled = other.pull(&reference, &anonymous, vec![media::LAYER]).await.unwrap();
    assert_eq!(pulled.digest.as_deref(), Some(image.digest.to_string().as_str()));
    assert_eq!(pulled.layers.len(), 2);

    // and we, into a new store
    let fresh = Store::open(&dir.path().join("fresh")).unwrap();
    let pulled = client.pull(&fresh, &name("team/app:all"), &amd64(), &task()).await.unwrap();
    assert_eq!((pulled.index.as_ref(), &pulled.manifest), (Some(&index), &image));
    client.fetch_layers(&fresh, image.digest, &task()).await.unwrap();
    validate_image(&fresh, &image).unwrap();

    // to another repository of the same registry without sending a layer: mounted
    let from = [name("team/app").repository().clone()];
    let bare = Store::open(&dir.path().join("bare")).unwrap();
    let pulled = client.pull(&bare, &name("team/app:1"), &amd64(), &task()).await.unwrap();
    client.push(&bare, &name("other/app:2"), &pulled.manifest, &from, &task()).await.unwrap();
    assert!(!bare.has_blob(pulled.layers[1].digest));
    let source = format!("docker://{}/other/app:2", server.host);
    let target = format!("oci:{}:2", dir.path().join("copy").display());
    run("skopeo", &["copy", "--src-tls-verify=false", &source, &target]);

    let error = client.resolve(&name("team/app:all"), &"linux/s390x".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Platform { available, .. } if available == ["linux/amd64", "linux/arm64"])
    );
    let error = client.resolve(&name("team/app:nosuch"), &amd64()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_with_a_login_lets_us_in_with_the_stored_credentials_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image, _) = stored(dir.path());
    let server = registry(dir.path(), true).await;
    let target: Reference = format!("{}/app:1", server.host).parse().unwrap();
    let client = |auth: &str| {
        let config = dir.path().join("config.json");
        std::fs::write(&config, json!({"auths": {&server.host: {"auth": auth}}}).to_string()).unwrap();
        Registry::new(RegistryOptions { docker_config: Some(config), ..RegistryOptions::default() }).unwrap()
    };
    let nobody = Registry::new(RegistryOptions::default()).unwrap();
    let error = nobody.push(&store, &target, &image, &[], &task()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { authenticated: false, .. }), "{error}");
    // user:wrong
    let error = client("dXNlcjp3cm9uZw==").push(&store, &target, &image, &[], &task()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { authenticated: true, .. }), "{error}");
    // user:secret
    let login = client("dXNlcjpzZWNyZXQ=");
    login.push(&store, &target, &image, &[], &task()).await.unwrap();
    assert_eq!(login.resolve(&target, &amd64()).await.unwrap().manifest, image);
}
