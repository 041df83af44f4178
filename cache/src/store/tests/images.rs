//! Names, `index.json`, and the layers of images.

use std::process::Command;

use bricklayer_solver::image::{ImageConfig, RootFs};
use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn descriptor(store: &Store, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = put(store, bytes);
    Descriptor { media_type: media_type.into(), digest, size: bytes.len() as u64 }
}

fn tar(name: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, name, &b"hello"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn config(diff_ids: &[Digest]) -> ImageConfig {
    ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: RootFs { diff_ids: diff_ids.to_vec(), ..RootFs::default() },
        ..ImageConfig::default()
    }
}

/// An image of one layer.
fn image(store: &Store, name: &str) -> Descriptor {
    let tar = tar(name);
    let layer = descriptor(store, LAYER, &tar);
    let config = serde_json::to_vec(&config(&[Digest::of(&tar)])).unwrap();
    let config = descriptor(store, "application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    descriptor(store, MANIFEST, manifest.to_string().as_bytes())
}

fn index(store: &Store) -> Value {
    serde_json::from_slice(&fs::read(store.path().join("oci/index.json")).unwrap()).unwrap()
}

#[test]
fn index_json_follows_the_names() {
    let (_dir, store) = store();
    let empty = index(&store);
    let (a, b) = (image(&store, "a"), image(&store, "b"));
    store.tag("docker.io/library/app:1", &a).unwrap();
    store.tag("docker.io/library/app:2", &a).unwrap();
    store.tag("docker.io/library/app:1", &b).unwrap();
    let other = Store::open(store.path()).unwrap();
    let names: Vec<_> =
        other.images().unwrap().into_iter().map(|image| (image.name, image.descriptor)).collect();
    assert_eq!(
        names,
        [("docker.io/library/app:1".into(), b.clone()), ("docker.io/library/app:2".into(), a.clone())]
    );
    assert_eq!(other.image("docker.io/library/app:1").unwrap().unwrap().descriptor, b);
    let listed = index(&other);
    let entry = |name: &str, image: &Descriptor| {
        json!({"mediaType": MANIFEST, "digest": image.digest, "size": image.size,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}})
    };
    assert_eq!(
        listed["manifests"],
        json!([entry("docker.io/library/app:1", &b), entry("docker.io/library/app:2", &a)])
    );
    assert!(other.untag("docker.io/library/app:1").unwrap());
    assert!(!other.untag("docker.io/library/app:1").unwrap());
    assert!(other.untag("docker.io/library/app:2").unwrap());
    assert_eq!(index(&store), empty);
}

#[test]
fn the_layout_is_one_that_skopeo_reads() {
    let (_dir, store) = store();
    let app = image(&store, "app");
    store.tag("docker.io/library/app:1", &app).unwrap();
    store.tag("example.com:5000/team/other:2", &image(&store, "other")).unwrap();
    let reference = format!("oci:{}:docker.io/library/app:1", store.path().join("oci").display());
    let output = Command::new("skopeo")
        .args(["inspect", &reference])
        .output()
        .expect("this test needs Debian's skopeo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["Digest"], json!(app.digest));
}

#[test]
fn only_whole_images_get_names_and_only_names_are_names() {
    let (_dir, store) = store();
    let whole = image(&store, "a");
    let missing = Digest::of(b"missing");
    let gone = json!({"digest": missing, "size": 1, "mediaType": "x"});
    let documents = [
        ("missing config", json!({"config": gone, "layers": []})),
        ("missing layer", json!({"config": whole, "layers": [gone]})),
        ("both", json!({"config": whole, "layers": [], "manifests": []})),
        ("neither", json!({})),
        ("index of nothing", json!({"manifests": [gone]})),
        ("no digest", json!({"config": {"digest": "sha256:../../x", "size": 1}})),
    ];
    let mut seen = Vec::new();
    for (case, document) in documents {
        let image = descriptor(&store, MANIFEST, document.to_string().as_bytes());
        let error = store.tag("docker.io/library/a:1", &image).expect_err(case);
        seen.push(format!("{case}: {error}"));
    }
    for name in ["", "a:1", "/a:1", "x/../a:1", "x//a:1", "x/a", "x/a b:1", "x/\u{e4}:1"] {
        let error = store.tag(name, &whole).expect_err(name);
        assert!(matches!(error, StoreError::InvalidName { .. }), "{name}: {error}");
    }
    let wrong = Descriptor { size: whole.size + 1, ..whole };
    seen.push(format!("wrong size: {}", store.tag("x/a:1", &wrong).unwrap_err()));
    assert_eq!(store.images().unwrap(), []);
    insta::with_settings!({filters => [(r"(sha256:[0-9a-f]{8})[0-9a-f]+", "$1…")]}, {
        insta::assert_snapshot!(seen.join("\n"), @"
        missing config: cannot name `docker.io/library/a:1`: the image needs sha256:ffa63583…, which is not in the store
        missing layer: cannot name `docker.io/library/a:1`: the image needs sha256:ffa63583…, which is not in the store
        both: sha256:1d810402… is not an image manifest or index: it is both an index and a manifest
        neither: sha256:44136fa3… is not an image manifest or index: it has no config
        index of nothing: cannot name `docker.io/library/a:1`: the image needs sha256:9a2fb503…, which is not in the store
        no digest: sha256:bd2d96ef… is not an image manifest or index: `../../x` is not a sha256 digest at line 1 column 36
        wrong size: blob sha256:5f1eee48… has 397 bytes, but 398 were expected
        ");
    });
}

#[test]
fn an_index_may_lack_manifests_but_not_parts_of_them() {
    let (_dir, store) = store();
    let (here, gone) =
        (image(&store, "a"), json!({"digest": Digest::of(b"gone"), "size": 1, "mediaType": MANIFEST}));
    let index = descriptor(
        &store,
        "application/vnd.oci.image.index.v1+json",
        json!({"manifests": [here, gone]}).to_string().as_bytes(),
    );
    store.tag("docker.io/library/a:1", &index).unwrap();
}

#[test]
fn layers_of_an_image_are_known_by_what_lies_below_them() {
    let (_dir, store) = store();
    let (a, b, c) = (tar("a"), tar("b"), tar("c"));
    let blobs = [descriptor(&store, LAYER, &a), descriptor(&store, LAYER, &b), descriptor(&store, LAYER, &c)];
    let ids = [Digest::of(&a), Digest::of(&b), Digest::of(&c)];
    let first =
        store.image_layers(&config(&[ids[0], ids[2]]), &[blobs[0].clone(), blobs[2].clone()]).unwrap();
    let again = Store::open(store.path())
        .unwrap()
        .image_layers(&config(&[ids[0], ids[2]]), &[blobs[0].clone(), blobs[2].clone()]);
    assert_eq!(again.unwrap(), first);
    let second =
        store.image_layers(&config(&[ids[1], ids[2]]), &[blobs[1].clone(), blobs[2].clone()]).unwrap();
    assert_ne!(first.layers[1].id, second.layers[1].id, "another layer below");
    assert_eq!(first.layers[1].content, second.layers[1].content, "the same files");
}

#[test]
fn layers_that_cannot_be_are_refused() {
    let (_dir, store) = store();
    let tar = tar("a");
    let blob = descriptor(&store, LAYER, &tar);
    let one = config(&[Digest::of(&tar)]);
    let with = |change: &dyn Fn(&mut Descriptor)| {
        let mut blob = blob.clone();
        change(&mut blob);
        blob
    };
    let absent = Digest::of(b"absent");
    let foreign = with(&|blob| {
        blob.media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        blob.digest = absent;
    });
    let cases = [
        ("too few", vec![]),
        ("too many", vec![blob.clone(), blob.clone()]),
        ("size", vec![with(&|blob| blob.size += 1)]),
        ("type", vec![with(&|blob| blob.media_type = "application/wasm".into())]),
        ("foreign", vec![foreign]),
    ];
    let mut seen = Vec::new();
    for (case, blobs) in cases {
        seen.push(format!("{case}: {}", store.image_layers(&one, &blobs).expect_err(case)));
    }
    insta::with_settings!({filters => [(r"(sha256:[0-9a-f]{8})[0-9a-f]+", "$1…")]}, {
        insta::assert_snapshot!(seen.join("\n"), @"
        too few: image has 0 layers, but its config has 1 diff IDs
        too many: image has 2 layers, but its config has 1 diff IDs
        size: blob sha256:ebebd24a… has 2048 bytes, but 2049 were expected
        type: layer sha256:ebebd24a… is of unknown type `application/wasm`
        foreign: layer sha256:5ad38304… is of type `application/vnd.docker.image.rootfs.foreign.diff.tar.gzip`, which may not be distributed with its image
        ");
    });
}

#[test]
fn a_layer_to_be_fetched_names_its_blob_until_it_is_there() {
    let (_dir, store) = store();
    let tar = tar("a");
    let blob = Descriptor { media_type: LAYER.into(), digest: Digest::of(&tar), size: tar.len() as u64 };
    let layers = store.image_layers(&config(&[Digest::of(&tar)]), std::slice::from_ref(&blob)).unwrap();
    let layer = layers.layers[0];
    store.put(&[Digest::of(b"key")], &record(&[layer])).unwrap();
    assert!(store.find(&[Digest::of(b"key")]).unwrap()[0].is_some(), "it can be fetched");
    let error = store.layer_tree(layer.id, &[]).unwrap_err();
    assert!(matches!(error, StoreError::BlobMissing { digest } if digest == blob.digest), "{error}");
    put(&store, &tar);
    let tree = store.layer_tree(layer.id, &[]).unwrap();
    assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "hello");
}

#[test]
fn a_false_diff_id_is_found_out_and_harms_only_its_image() {
    let (_dir, store) = store();
    let (good, evil) = (tar("good"), tar("evil"));
    let claimed = config(&[Digest::of(&good)]);
    let evil = descriptor(&store, LAYER, &evil);
    let bad = store.image_layers(&claimed, std::slice::from_ref(&evil)).unwrap().layers[0];
    let error = store.layer_tree(bad.id, &[]).unwrap_err();
    assert!(matches!(error, StoreError::DiffIdMismatch { .. }), "{error}");
    let bad = store.image_layers(&claimed, &[evil]).unwrap().layers[0];
    let error = store.layer_blob(bad.id, Compression::None, false, None, &|_| {}).unwrap_err();
    assert!(matches!(error, StoreError::DiffIdMismatch { .. }), "{error}");
    // The image that the diff ID belongs to.
    let good = descriptor(&store, LAYER, &good);
    let victim = store.image_layers(&claimed, std::slice::from_ref(&good)).unwrap().layers[0];
    let tree = store.layer_tree(victim.id, &[]).unwrap();
    assert!(tree.join("good").exists());
    let packed = store.layer_blob(victim.id, Compression::None, false, None, &|_| {}).unwrap();
    assert_eq!(packed.blob, good);
}

#[test]
fn a_layer_is_packed_once_and_found_by_its_diff_id() {
    let (_dir, store) = store();
    let made = layer(&store, "text");
    let packed = store.layer_blob(made.id, Compression::Gzip, false, None, &|_| {}).unwrap();
    assert_eq!(
        store.layer_blob(made.id, Compression::Zstd, false, None, &|_| {}).unwrap(),
        packed,
        "any will do"
    );
    let zstd = store.layer_blob(made.id, Compression::Zstd, true, None, &|_| {}).unwrap();
    assert_eq!(zstd.diff_id, packed.diff_id);
    assert!(zstd.blob.media_type.ends_with("+zstd"));
    let clamped = store.layer_blob(made.id, Compression::Gzip, true, Some(0), &|_| {}).unwrap();
    assert_ne!(clamped.diff_id, packed.diff_id);
    assert_eq!(store.layer_info(made.id).unwrap().blobs.len(), 3);
    let found = store.image_layers(&config(&[packed.diff_id]), &[packed.blob]).unwrap();
    assert_eq!(found.layers, [made], "an image that was built here needs no unpacking");
    let clamped = store.image_layers(&config(&[clamped.diff_id]), &[clamped.blob]).unwrap();
    assert_ne!(clamped.layers, [made], "its tree has other times");
}

#[test]
fn a_layer_of_an_image_keeps_its_diff_id_with_any_compression() {
    let (_dir, store) = store();
    let tar = tar("a");
    let blob = descriptor(&store, LAYER, &tar);
    let layer = store.image_layers(&config(&[Digest::of(&tar)]), &[blob]).unwrap().layers[0];
    store.layer_tree(layer.id, &[]).unwrap();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = store.layer_blob(layer.id, compression, true, Some(0), &|_| {}).unwrap();
        assert_eq!(packed.diff_id, Digest::of(&tar));
        assert!(store.has_blob(packed.blob.digest));
    }
}
