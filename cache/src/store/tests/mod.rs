//! What the store promises, over all its parts.

mod builds;
mod failures;
mod faults;
mod images;
mod processes;
mod pruning;
mod sequences;

use std::fs;
use std::io::Write;
use std::path::Path;

use bricklayer_solver::record::{Layer, LayerId, Record, RecordStore, Snapshot};

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// Makes a layer of one file.
fn layer(store: &Store, text: &str) -> Layer {
    let draft = store.draft_layer().unwrap();
    fs::write(draft.tree().join("file"), text).unwrap();
    draft.commit(Digest::of(text.as_bytes())).unwrap()
}

fn record(layers: &[Layer]) -> Record {
    Record {
        output: Snapshot { layers: layers.to_vec() },
        family: Digest::of(b"family"),
        parts: b"parts".to_vec(),
        created_ms: 1,
        duration_ms: 2,
    }
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    store.put_blob(&mut &*bytes, digest, bytes.len() as u64).unwrap();
    digest
}

/// Files that are being written: what is in `ingest/`, two levels deep.
fn ingest(root: &Path) -> Vec<String> {
    let list = |path: &Path| {
        fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let owners = list(&root.join("ingest"));
    owners.iter().flat_map(|owner| list(owner)).map(|path| path.display().to_string()).collect()
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing_behind() {
    let (_dir, store) = store();
    let promised = Digest::of(b"hello");
    let cases: [(&str, &[u8], u64); 4] = [
        ("same length", b"jello", 5),
        ("cut short", b"hell", 5),
        ("one byte over", b"hello!", 5),
        ("wrong size", b"hello", 6),
    ];
    let seen: Vec<String> = cases
        .iter()
        .map(|(name, bytes, size)| {
            let error = store.put_blob(&mut &**bytes, promised, *size).unwrap_err();
            format!("{name}: {error}")
        })
        .collect();
    insta::with_settings!({filters => [(r"(sha256:[0-9a-f]{8})[0-9a-f]+", "$1…")]}, {
        insta::assert_snapshot!(seen.join("\n"), @"
        same length: blob is sha256:187c9bce…, but sha256:2cf24dba… was expected
        cut short: blob sha256:2cf24dba… has 4 bytes, but 5 were expected
        one byte over: blob sha256:2cf24dba… is larger than 5 bytes
        wrong size: blob sha256:2cf24dba… has 5 bytes, but 6 were expected
        ");
    });
    assert!(!store.has_blob(promised));
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn a_blob_is_found_by_this_store_and_the_next() {
    let (_dir, store) = store();
    let digest = put(&store, b"hello");
    put(&store, b"hello");
    assert!(store.has_blob(digest));
    let other = Store::open(store.path()).unwrap();
    assert!(other.has_blob(digest));
    assert_eq!(other.read_blob(digest, 5).unwrap(), b"hello");
    assert!(matches!(other.read_blob(digest, 4), Err(StoreError::TooLarge { limit: 4, .. })));
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn a_blob_of_any_size_is_the_same_however_it_is_written() {
    let (_dir, store) = store();
    let limit = super::blobs::SMALL;
    for size in [0, 1, limit - 1, limit, limit + 1, 3 * limit + 7] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for piece in [1 + size, 1 + size / 2, 1000] {
            for _twice in 0..2 {
                let mut writer = store.blob_writer().unwrap();
                bytes.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
                assert_eq!(writer.size(), size as u64);
                assert_eq!(writer.commit(None).unwrap(), (Digest::of(&bytes), size as u64));
                assert!(
                    store.read_blob(Digest::of(&bytes), size as u64).unwrap() == bytes,
                    "{size} by {piece}"
                );
            }
        }
    }
    assert_eq!(ingest(store.path()), [""; 0]);
}

/// What overlayfs leaves in the work directories of layers may stay for a while, but does not pile up.
#[test]
fn work_directories_go_many_at_a_time_and_with_the_lease() {
    let (_dir, store) = store();
    let mut most = 0;
    for number in 0..200 {
        let draft = store.draft_layer().unwrap();
        fs::create_dir_all(draft.work().join("work/incompat/volatile")).unwrap();
        draft.commit(Digest::of(format!("{number}").as_bytes())).unwrap();
        most = most.max(ingest(store.path()).len());
    }
    // Those that another thread is removing are still there.
    assert!((1..200).contains(&most), "{most}");
    let root = store.path().to_owned();
    drop(store);
    assert_eq!(fs::read_dir(root.join("ingest")).unwrap().count(), 0);
}

#[test]
fn mount_points_are_made_once_and_found_by_all() {
    let (_dir, store) = store();
    let make = |path: &Path| fs::create_dir(path.join("etc"));
    let path = store.mount_points(make).unwrap();
    let other = Store::open(store.path()).unwrap();
    assert_eq!(other.mount_points(|_| panic!("they are there")).unwrap(), path);
    assert!(path.join("etc").is_dir());
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn a_record_leads_to_its_layers() {
    let (_dir, store) = store();
    let (a, b) = (layer(&store, "a"), layer(&store, "b"));
    let record = record(&[a, b]);
    let keys = [Digest::of(b"definition"), Digest::of(b"content")];
    store.put(&keys, &record).unwrap();
    let other = Store::open(store.path()).unwrap();
    let found = other.find(&[keys[1], Digest::of(b"none"), keys[0]]).unwrap();
    assert_eq!(found, [Some(record.clone()), None, Some(record.clone())]);
    assert_eq!(other.family(record.family, 10).unwrap(), [record]);
    let tree = other.layer_tree(b.id, &[a.id]).unwrap();
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "b");
}

#[test]
fn a_record_of_a_layer_that_is_not_there_is_refused() {
    let (_dir, store) = store();
    let missing = Layer { id: LayerId(7), content: Digest::of(b"x") };
    let error = store.put(&[Digest::of(b"key")], &record(&[missing])).unwrap_err();
    assert_eq!(error.to_string(), "layer 7 is not in the store");
    assert_eq!(store.find(&[Digest::of(b"key")]).unwrap(), [None]);
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let (_dir, store) = store();
    let draft = store.draft_layer().unwrap();
    fs::write(draft.tree().join("file"), "x").unwrap();
    drop(draft);
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"x").unwrap();
    drop(writer);
    assert_eq!(ingest(store.path()), [""; 0]);
    let root = store.path().to_owned();
    drop(store);
    assert_eq!(fs::read_dir(root.join("ingest")).unwrap().count(), 0);
}
