//! Archives that we write are read by others, and those of others by us; what is broken is refused.

use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;

use bricklayer_solver::Digest;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::{Document, media};
use crate::layer::tar::write::{END, pad};
use crate::layer::tar::{EntryKind, Header};
use crate::registry::testing::{Image, image};
use crate::store::Store;

/// A tar of entries: files with content, `name -> target` for symbolic links, `name/` for directories.
fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in entries {
        let (path, link, kind) = match name.split_once(" -> ") {
            Some((path, target)) => (path, target, EntryKind::Symlink),
            None if name.ends_with('/') => (*name, "", EntryKind::Directory),
            None => (*name, "", EntryKind::File),
        };
        let header = Header {
            path: path.as_bytes(),
            kind,
            mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            mtime: 1_700_000_000,
            link: link.as_bytes(),
            device: (0, 0),
            xattrs: &[],
        };
        header.write(&mut out);
        out.extend_from_slice(content);
        pad(&mut out, content.len() as u64);
    }
    out.extend_from_slice(&END);
    out
}

fn sample() -> Image {
    image(&[&tar(&[("etc/", b""), ("etc/os-release", b"ID=test\n")]), &tar(&[("app", &[b'x'; 5000])])])
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    store.put_blob(&mut &bytes[..], digest, bytes.len() as u64).unwrap();
    digest
}

fn stored(image: &Image) -> (tempfile::TempDir, Store) {
    let (dir, store) = store();
    for bytes in image.layers.iter().chain([&image.config, &image.manifest]) {
        put(&store, bytes);
    }
    (dir, store)
}

fn name(text: &str) -> Option<Reference> {
    Some(text.parse().unwrap())
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
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

fn load_new(archive: &[u8]) -> Result<(tempfile::TempDir, Store, Vec<LoadedImage>), ArchiveError> {
    let (dir, store) = store();
    let images = load(&store, Cursor::new(archive))?;
    Ok((dir, store, images))
}

/// What people see of an error, digests cut.
fn text(error: &ArchiveError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

/// Why an archive is not loaded.
fn refusal(archive: &[u8]) -> String {
    text(&load_new(archive).err().expect("it is refused"))
}

macro_rules! assert_text {
    ($value:expr, @$expected:literal) => {
        insta::with_settings!({filters => [(r"([0-9a-f]{6})[0-9a-f]{58}", "$1…"), (r"`/[^`]*/([^`/]+)`", "`DIR/$1`")]}, {
            insta::assert_snapshot!($value, @$expected);
        });
    };
}

#[test]
fn what_is_saved_is_loaded_as_it_was() {
    let image = sample();
    let (_dir, store) = stored(&image);
    let images = [
        (name("app:1"), image.descriptor.clone()),
        (name("registry.example:5000/team/app:2"), image.descriptor.clone()),
    ];
    for docker in [false, true] {
        let save = || {
            let mut archive = Vec::new();
            let done = if docker {
                save_docker(&store, &images, &mut archive)
            } else {
                save_oci(&store, &images, &mut archive)
            };
            done.map(|()| archive).unwrap()
        };
        let (first, second) = (save(), save());
        assert_eq!(first, second);
        let (_dir, fresh, loaded) = load_new(&first).unwrap();
        let names = images.iter().filter_map(|(name, _)| name.clone()).collect();
        assert_eq!(loaded, [LoadedImage { names, tag: None, descriptor: image.descriptor.clone() }]);
        validate_image(&fresh, &image.descriptor).unwrap();

        let mut compressed = zstd::encode_all(&first[..], 1).unwrap();
        assert_eq!(load_new(&compressed).unwrap().2, loaded);
        compressed.clear();
        let mut gzip = flate2::write::GzEncoder::new(&mut compressed, flate2::Compression::fast());
        gzip.write_all(&first).unwrap();
        gzip.finish().unwrap();
        assert_eq!(load_new(&compressed).unwrap().2, loaded);
    }
}

/// The entries of a tar, in another order.
#[test]
fn the_order_of_entries_does_not_matter() {
    let image = sample();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": media::MANIFEST, "digest": image.descriptor.digest,
        "size": image.descriptor.size, "annotations": {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "docker.io/conformance/base:1"}}]})
    .to_string();
    let all: Vec<(String, &[u8])> = image
        .layers
        .iter()
        .chain([&image.config, &image.manifest])
        .map(|bytes| (blob_name(Digest::of(bytes)), &bytes[..]))
        .chain([("./index.json".to_owned(), index.as_bytes()), ("oci-layout".to_owned(), save::LAYOUT)])
        .collect();
    for turn in 0..all.len() {
        let mut entries: Vec<(&str, &[u8])> =
            all.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        entries.rotate_left(turn);
        let (_dir, store, loaded) = load_new(&tar(&entries)).unwrap();
        assert_eq!(loaded[0].names[0].to_string(), "docker.io/conformance/base:1");
        validate_image(&store, &loaded[0].descriptor).unwrap();
    }
}

#[test]
fn skopeo_and_umoci_read_what_is_saved() {
    let image = sample();
    let (dir, store) = stored(&image);
    let images = [(name("team/app:1"), image.descriptor.clone())];
    let at = |name: &str| dir.path().join(name).display().to_string();
    save_oci(&store, &images, std::fs::File::create(at("oci.tar")).unwrap()).unwrap();
    save_docker(&store, &images, std::fs::File::create(at("docker.tar")).unwrap()).unwrap();
    save_oci_dir(&store, &images, Path::new(&at("layout"))).unwrap();

    for (source, target) in [
        (format!("oci-archive:{}:1", at("oci.tar")), format!("oci:{}:1", at("from-oci"))),
        (format!("docker-archive:{}:team/app:1", at("docker.tar")), format!("oci:{}:1", at("from-docker"))),
        (format!("oci-archive:{}:1", at("docker.tar")), format!("oci:{}:1", at("from-docker-as-oci"))),
        (format!("oci:{}:1", at("layout")), format!("docker-archive:{}:other:2", at("skopeo.tar"))),
    ] {
        run("skopeo", &["copy", &source, &target]);
    }
    for layout in ["layout", "from-oci", "from-docker"] {
        let bundle = at(&format!("{layout}-unpacked"));
        run("umoci", &["unpack", "--image", &format!("{}:1", at(layout)), &bundle]);
        let release = std::fs::read_to_string(format!("{bundle}/rootfs/etc/os-release")).unwrap();
        assert_eq!(release, "ID=test\n");
    }

    // and the other way round: what skopeo wrote
    let (_dir, fresh) = self::store();
    let loaded = load(&fresh, std::fs::File::open(at("skopeo.tar")).unwrap()).unwrap();
    assert_eq!(loaded[0].names, [name("other:2").unwrap()]);
    validate_image(&fresh, &loaded[0].descriptor).unwrap();
    let loaded = load_dir(&fresh, Path::new(&at("from-oci")), Some("1")).unwrap();
    assert_eq!((loaded.len(), loaded[0].names.len(), loaded[0].tag.as_deref()), (1, 0, Some("1")));
    validate_image(&fresh, &loaded[0].descriptor).unwrap();
}

/// `docker save` before v25: layers by directory, equal ones as links, no digests.
fn old_docker(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let manifest = json!([{"Config": "c.json", "RepoTags": ["old:1", "<none>:<none>"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    tar(&[
        ("a/", b""),
        ("a/VERSION", b"1.0"),
        ("a/json", b"{}"),
        ("a/layer.tar", layer),
        ("b/layer.tar -> ../a/layer.tar", b""),
        ("c.json", config),
        ("manifest.json", manifest.to_string().as_bytes()),
        ("repositories", b"{}"),
    ])
}

#[test]
fn old_docker_archives_are_loaded() {
    let layer = tar(&[("file", b"content")]);
    let twice = image(&[&layer, &layer]);
    let (_dir, store, loaded) = load_new(&old_docker(&twice.config, &layer)).unwrap();
    assert_eq!(loaded[0].names, [name("old:1").unwrap()]);
    // the configuration, whose digest Docker calls the image's ID, is the same
    let raw = store.read_blob(loaded[0].descriptor.digest, 1 << 20).unwrap();
    let Document::Manifest(manifest) = Document::parse(&raw, None).unwrap() else { panic!("an index") };
    assert_eq!(manifest.config.digest, Digest::of(&twice.config));
    assert_eq!(manifest.layers, twice.blobs);
    validate_image(&store, &loaded[0].descriptor).unwrap();

    let other = image(&[&layer, &tar(&[("file", b"another")])]);
    let mut seen = vec![refusal(&old_docker(&other.config, &layer))];
    let few = image(&[&layer]);
    seen.push(refusal(&old_docker(&few.config, &layer)));
    seen.push(refusal(&old_docker(b"{", &layer)));
    assert_text!(seen.join("\n"), @"
    the archive cannot be used: layer `b/layer.tar` is sha256:01f4ab…, but the configuration says sha256:c9a093…
    the archive cannot be used: `c.json` lists 1 layers, but manifest.json 2
    `c.json` cannot be used: the document is not what the OCI image specification asks for: EOF while parsing an object at line 1 column 1
    ");
}

#[test]
fn broken_archives_are_refused_with_the_reason() {
    let image = sample();
    let index = |manifests: Value| json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let entry = json!({"mediaType": media::MANIFEST, "digest": image.descriptor.digest, "size": image.descriptor.size});
    let whole = index(json!([entry]));
    let manifest = blob_name(image.descriptor.digest);
    let long = json!({"mediaType": media::MANIFEST, "digest": image.descriptor.digest, "size": 1});
    let typed =
        json!({"mediaType": media::INDEX, "digest": image.descriptor.digest, "size": image.descriptor.size});
    let big = vec![b' '; 5 << 20];
    let named = |name: &str| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({"io.containerd.image.name": name});
        index(json!([entry]))
    };
    let bad_digest = index(json!([{"mediaType": media::MANIFEST, "digest": "sha256:../../x", "size": 1}]));
    let negative =
        index(json!([{"mediaType": media::MANIFEST, "digest": image.descriptor.digest, "size": -1}]));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no tar", vec![b'a'; 2000]),
        ("empty tar", tar(&[])),
        ("other tar", tar(&[("etc/passwd", b"x")])),
        ("index is too large", tar(&[("index.json", &big)])),
        ("index is no JSON", tar(&[("index.json", b"{")])),
        ("index is a manifest", tar(&[("index.json", &image.manifest)])),
        ("digest is a path", tar(&[("index.json", bad_digest.as_bytes())])),
        ("size is negative", tar(&[("index.json", negative.as_bytes())])),
        ("manifest is missing", tar(&[("index.json", whole.as_bytes())])),
        ("layer is missing", tar(&[("index.json", whole.as_bytes()), (&manifest, &image.manifest)])),
        ("blob is another", tar(&[("index.json", whole.as_bytes()), (&manifest, b"{}")])),
        (
            "size is another",
            tar(&[("index.json", index(json!([long])).as_bytes()), (&manifest, &image.manifest)]),
        ),
        (
            "type is another",
            tar(&[("index.json", index(json!([typed])).as_bytes()), (&manifest, &image.manifest)]),
        ),
        ("manifest.json names nothing", tar(&[("manifest.json", br#"[{"Config":"../c","Layers":[]}]"#)])),
        (
            "manifest.json links in a ring",
            tar(&[("a -> b", b""), ("b -> a", b""), ("manifest.json", br#"[{"Config":"a"}]"#)]),
        ),
    ];
    let seen: Vec<_> = cases.iter().map(|(name, archive)| format!("{name}: {}", refusal(archive))).collect();
    assert_text!(seen.join("\n"), @"
    nothing: the archive cannot be used: it has neither an index.json (OCI) nor a manifest.json (Docker)
    no tar: the archive cannot be used: malformed tar at byte 0: a header with a wrong checksum
    empty tar: the archive cannot be used: it has neither an index.json (OCI) nor a manifest.json (Docker)
    other tar: the archive cannot be used: it has neither an index.json (OCI) nor a manifest.json (Docker)
    index is too large: the archive cannot be used: index.json has 5242880 bytes, 4194304 are allowed
    index is no JSON: `index.json` cannot be used: the document is not what the OCI image specification asks for: EOF while parsing an object at line 1 column 1
    index is a manifest: the archive cannot be used: index.json is not an index
    digest is a path: `index.json` cannot be used: the document is not what the OCI image specification asks for: `../../x` is not a sha256 digest at line 1 column 107
    size is negative: `index.json` cannot be used: the document is not what the OCI image specification asks for: invalid value: integer `-1`, expected u64 at line 1 column 165
    manifest is missing: `sha256:ec1a64…` needs blob sha256:ec1a64…, which is not there
    layer is missing: `sha256:ec1a64…` needs blob sha256:ec4080…, which is not there
    blob is another: the archive cannot be used: the bytes of blob sha256:ec1a64… are sha256:44136f…
    size is another: image `sha256:ec1a64…` is not valid: it has 547 bytes, but 1 were announced
    type is another: `sha256:ec1a64…` cannot be used: the document says that it is `application/vnd.oci.image.manifest.v1+json`, but `application/vnd.oci.image.index.v1+json` was promised
    manifest.json names nothing: the archive cannot be used: it lacks `../c`, which its manifest.json names
    manifest.json links in a ring: the archive cannot be used: it lacks `a`, which its manifest.json names
    ");

    // an image that is whole, under a name that is none
    let mut archive: Vec<(String, &[u8])> = image
        .layers
        .iter()
        .chain([&image.config, &image.manifest])
        .map(|b| (blob_name(Digest::of(b)), &b[..]))
        .collect();
    let index = named("NOT/a name");
    archive.push(("index.json".to_owned(), index.as_bytes()));
    let entries: Vec<(&str, &[u8])> = archive.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    assert_text!(refusal(&tar(&entries)), @"the archive cannot be used: `NOT/a name` is not an image reference: only a-z, 0-9, `.`, `_`, `-` and `/` can stand in a repository");
}

/// An index over these images, in the store.
fn index_of(store: &Store, images: &[(&Image, &str)]) -> Descriptor {
    let entries: Vec<_> = images
        .iter()
        .map(|(image, architecture)| {
            json!({"mediaType": media::MANIFEST, "digest": image.descriptor.digest, "size": image.descriptor.size,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}).to_string();
    Descriptor {
        media_type: media::INDEX.to_owned(),
        digest: put(store, index.as_bytes()),
        size: index.len() as u64,
    }
}

#[test]
fn images_for_several_platforms_are_kept_whole_or_reduced_to_what_is_there() {
    let (one, two) = (sample(), image(&[&tar(&[("two", b"2")])]));
    let (_dir, store) = stored(&one);
    let index = index_of(&store, &[(&one, "amd64"), (&two, "arm64")]);
    let images = [(name("multi:1"), index.clone())];

    // half of it is missing: it cannot be saved, and what is missing is known
    let error = save_oci(&store, &images, &mut Vec::new()).unwrap_err();
    assert!(
        matches!(error, ArchiveError::MissingBlob { digest, .. } if digest == two.descriptor.digest),
        "{error}"
    );
    assert_eq!(missing_blobs(&store, &index).unwrap(), std::slice::from_ref(&two.descriptor));

    for bytes in two.layers.iter().chain([&two.config, &two.manifest]) {
        put(&store, bytes);
    }
    assert_eq!(missing_blobs(&store, &index).unwrap(), []);
    let mut archive = Vec::new();
    save_docker(&store, &images, &mut archive).unwrap();
    let (_dir, fresh, loaded) = load_new(&archive).unwrap();
    assert_eq!(loaded[0].descriptor, index);
    validate_image(&fresh, &index).unwrap();

    // Docker keeps the whole index, but writes the platforms that it has
    let raw = store.read_blob(index.digest, 1 << 20).unwrap();
    let top = json!({"schemaVersion": 2, "manifests": [index]}).to_string();
    let mut entries: Vec<(String, &[u8])> = one
        .layers
        .iter()
        .chain([&one.config, &one.manifest, &raw])
        .map(|b| (blob_name(Digest::of(b)), &b[..]))
        .collect();
    entries.push(("index.json".to_owned(), top.as_bytes()));
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let (_dir, fresh, loaded) = load_new(&tar(&entries)).unwrap();
    assert_eq!(loaded[0].descriptor, one.descriptor);
    validate_image(&fresh, &one.descriptor).unwrap();
}

#[test]
fn a_layout_directory_takes_more_images_and_gives_them_back_by_name() {
    let (one, two) = (sample(), image(&[&tar(&[("two", b"2")])]));
    let (dir, store) = stored(&one);
    for bytes in two.layers.iter().chain([&two.config, &two.manifest]) {
        put(&store, bytes);
    }
    let layout = dir.path().join("layout");
    save_oci_dir(&store, &[(name("app:1"), one.descriptor.clone())], &layout).unwrap();
    save_oci_dir(&store, &[(name("app:2"), two.descriptor.clone())], &layout).unwrap();
    let (_dir, fresh) = self::store();
    for (wanted, expected) in [
        ("1", &one),
        ("app:2", &two),
        ("docker.io/library/app:1", &one),
        (&two.descriptor.digest.to_string(), &two),
    ] {
        let loaded = load_dir(&fresh, &layout, Some(wanted)).unwrap();
        assert_eq!(loaded.len(), 1, "{wanted}");
        assert_eq!(loaded[0].descriptor, expected.descriptor, "{wanted}");
    }
    assert_eq!(load_dir(&fresh, &layout, None).unwrap().len(), 2);

    // the name moves on
    save_oci_dir(&store, &[(name("app:1"), two.descriptor.clone())], &layout).unwrap();
    let loaded = load_dir(&fresh, &layout, None).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].names.len(), 2);
    let left: Vec<_> = std::fs::read_dir(&layout).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let mut seen = vec![text(&load_dir(&fresh, &layout, Some("nosuch")).unwrap_err())];
    seen.push(text(&load_dir(&fresh, &dir.path().join("nowhere"), None).unwrap_err()));
    seen.push(text(&save_oci_dir(&store, &[], &dir.path().join("store")).unwrap_err()));
    // a blob that is a pipe is not waited for
    let digest = one.blobs[0].digest;
    let blob = layout.join(blob_name(digest));
    std::fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let (_dir, fresh) = self::store();
    save_oci_dir(&store, &[(name("app:3"), two.descriptor.clone())], &layout).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [one.descriptor]}).to_string();
    std::fs::write(layout.join("index.json"), index).unwrap();
    seen.push(text(&load_dir(&fresh, &layout, None).unwrap_err()));
    assert_text!(seen.join("\n"), @"
    `DIR/layout` is not an OCI image layout: it has no image `nosuch`
    `DIR/nowhere` is not an OCI image layout: it has no index.json
    `DIR/store` is not an OCI image layout: it has no index.json
    `DIR/layout` is not an OCI image layout: `blobs/sha256/ceadc3…` is not a file
    ");
}

#[test]
fn validation_finds_what_does_not_fit() {
    let layer = tar(&[("file", b"content")]);
    let (_dir, store) = store();
    let blob = json!({"mediaType": media::LAYER, "digest": put(&store, &layer), "size": layer.len()});
    let case = |config: Value, layer: Value| {
        let config = config.to_string();
        let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "layers": [layer],
            "config": {"mediaType": media::CONFIG, "digest": put(&store, config.as_bytes()), "size": config.len()}})
        .to_string();
        let (digest, size) = (put(&store, manifest.as_bytes()), manifest.len() as u64);
        validate_image(&store, &Descriptor { media_type: media::MANIFEST.to_owned(), digest, size })
    };
    let config = |diff_ids: Value| json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let right = json!([Digest::of(&layer)]);
    case(config(right.clone()), blob.clone()).unwrap();
    let mut gzip = blob.clone();
    gzip["mediaType"] = json!(media::LAYER_GZIP);
    let mut absent = blob.clone();
    absent["digest"] = json!(Digest::of(b"absent"));
    let mut short = blob.clone();
    short["size"] = json!(1);
    let mut history = config(right.clone());
    history["history"] = json!([{"created_by": "x"}, {"created_by": "y"}]);
    let mut nameless = config(right.clone());
    nameless["os"] = json!("");
    let seen: Vec<_> = [
        case(config(json!([Digest::of(b"x")])), blob.clone()),
        case(config(json!([])), blob.clone()),
        case(config(right.clone()), gzip),
        case(config(right.clone()), absent),
        case(config(right), short),
        case(history, blob.clone()),
        case(nameless, blob),
    ]
    .into_iter()
    .map(|result| text(&result.unwrap_err()))
    .collect();
    insta::with_settings!({filters => [(r"[0-9a-f]{64}", "…")]}, {
        insta::assert_snapshot!(seen.join("\n"), @"
        image `sha256:…` is not valid: layer sha256:… has diff ID sha256:…, but its configuration says sha256:…
        image `sha256:…` is not valid: it has 1 layers, but its configuration lists 0
        image `sha256:…` is not valid: layer sha256:… is not a `application/vnd.oci.image.layer.v1.tar+gzip`
        `sha256:…` needs blob sha256:…, which is not there
        image `sha256:…` is not valid: blob sha256:… of 1 bytes is sha256:… of 2048 bytes
        image `sha256:…` is not valid: its history has 2 entries with a layer, but there are 1 layers
        image `sha256:…` is not valid: its configuration lacks os, architecture or rootfs type
        ");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_a_document_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes, None);
    }

    /// A document with some bytes changed.
    #[test]
    fn damaged_documents_are_read_or_refused(at in 0..1000_usize, byte in any::<u8>(), cut in 0..1000_usize) {
        let mut raw = sample().manifest;
        let length = raw.len();
        raw[at % length] = byte;
        let _ = Document::parse(&raw, Some(media::MANIFEST));
        raw.truncate(cut % length);
        let _ = Document::parse(&raw, Some(media::MANIFEST));
    }

    /// Names of entries never leave the archive.
    #[test]
    fn names_of_entries_are_normalised(name in "[./a-c]{0,12}") {
        if let Some(name) = load::normalise(&name) {
            prop_assert!(name.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        }
    }
}

/// Archives with damage anywhere end in an image or in an error.
#[test]
fn damaged_archives_are_loaded_or_refused() {
    let image = sample();
    let (_dir, store) = stored(&image);
    let mut archive = Vec::new();
    save_docker(&store, &[(name("a:1"), image.descriptor.clone())], &mut archive).unwrap();
    let (_dir, fresh) = self::store();
    for at in (0..archive.len()).step_by(97) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x11;
        let _ = load(&fresh, Cursor::new(&damaged));
        let _ = load(&fresh, Cursor::new(&archive[..at]));
    }
}
