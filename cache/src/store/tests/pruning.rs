//! What pruning takes and what it leaves, within one process. Each test opens the store again, so that nothing is held.

use std::time::Duration;

use super::*;

fn kinds(report: &PruneReport) -> Vec<(UsageKind, &str)> {
    report.removed.iter().map(|entry| (entry.kind, entry.id.as_str())).collect()
}

/// Sets when a layer was last used.
fn used(store: &Store, layer: Layer, ms: i64) {
    store
        .inner
        .state()
        .db
        .write("test", |tx| Ok(tx.execute("UPDATE layers SET used_ms = ? WHERE id = ?", [ms, layer.id.0])?))
        .unwrap();
}

#[test]
fn without_all_only_what_no_record_leads_to_goes() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let (cached, loose) = (layer(&store, "cached"), layer(&store, "loose"));
    store.put(&[Digest::of(b"key")], &record(&[cached])).unwrap();
    let blob = put(&store, b"loose blob");
    let held = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(kinds(&held), [], "all of it is held");
    drop(store);
    let store = Store::open(&root).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!(usage.entries.len(), 3);
    let plan = store.prune(&PruneOptions { dry_run: true, ..PruneOptions::default() }).unwrap();
    let mut report = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(plan, report);
    assert_eq!(report.bytes + report.left, usage.total);
    report.removed.sort_by_key(|entry| entry.kind);
    assert_eq!(
        kinds(&report),
        [(UsageKind::Layer, loose.id.0.to_string().as_str()), (UsageKind::Blob, &blob.to_string())]
    );
    assert!(store.find(&[Digest::of(b"key")]).unwrap()[0].is_some());
    assert!(!store.inner.layout.blob(blob).exists());
    assert!(!store.inner.layout.layer(loose.id).exists());
}

#[test]
fn the_least_recently_used_goes_first_until_it_fits() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let layers: Vec<_> = (0..4).map(|_| layer(&store, &"x".repeat(100_000))).collect();
    for (number, layer) in layers.iter().enumerate() {
        store.put(&[Digest::of(&[number as u8])], &record(&[*layer])).unwrap();
        used(&store, *layer, [3, 1, 2, 4][number]);
    }
    drop(store);
    let store = Store::open(&root).unwrap();
    let total = store.usage().unwrap().total;
    let report = store.prune(&PruneOptions { max_used: Some(total / 2), ..PruneOptions::default() }).unwrap();
    assert_eq!(report.removed.iter().map(|entry| entry.used_ms).collect::<Vec<_>>(), [1, 2]);
    assert!(report.left <= total / 2);
    let keys = [0, 1, 2, 3].map(|number| Digest::of(&[number]));
    let found: Vec<_> = store.find(&keys).unwrap().iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, false, true]);
    assert_eq!(
        store.family(Digest::of(b"family"), 9).unwrap().len(),
        4,
        "what is gone still explains misses"
    );
}

#[test]
fn only_what_is_old_goes_whatever_the_clock_does() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let (old, new, future) = (layer(&store, "old"), layer(&store, "new"), layer(&store, "future"));
    used(&store, old, now_ms() - 7_200_000);
    used(&store, future, now_ms() + 1_000_000_000);
    drop(store);
    let store = Store::open(&root).unwrap();
    let options =
        PruneOptions { all: true, older_than: Some(Duration::from_secs(3600)), ..PruneOptions::default() };
    let report = store.prune(&options).unwrap();
    assert_eq!(kinds(&report), [(UsageKind::Layer, old.id.0.to_string().as_str())]);
    assert!(store.layer_info(new.id).is_ok() && store.layer_info(future.id).is_ok());
}

#[test]
fn a_named_image_keeps_its_blobs_and_only_them() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let made = layer(&store, "text");
    let packed = store.layer_blob(made.id, Compression::Gzip, true, None, &|_| {}).unwrap();
    let other = store.layer_blob(made.id, Compression::Zstd, true, None, &|_| {}).unwrap();
    let config = put(&store, b"{}");
    let manifest =
        serde_json::json!({"config": {"digest": config, "size": 2}, "layers": [packed.blob]}).to_string();
    let digest = put(&store, manifest.as_bytes());
    let image = Descriptor { media_type: "x".into(), digest, size: manifest.len() as u64 };
    store.tag("docker.io/library/a:1", &image).unwrap();
    store.put(&[Digest::of(b"key")], &record(&[made])).unwrap();
    drop(store);

    let store = Store::open(&root).unwrap();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    let report = store.prune(&all).unwrap();
    assert_eq!(kinds(&report), [(UsageKind::Layer, "1")]);
    assert!(!store.inner.layout.layer(made.id).exists(), "the tree can be made again");
    assert!(!store.inner.layout.blob(other.blob.digest).exists());
    assert!(store.find(&[Digest::of(b"key")]).unwrap()[0].is_some(), "the record still holds");
    let tree = store.layer_tree(made.id, &[]).unwrap();
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "text");
    assert!(store.untag("docker.io/library/a:1").unwrap());
    drop(store);

    let store = Store::open(&root).unwrap();
    store.prune(&all).unwrap();
    assert_eq!(store.usage().unwrap(), Usage::default());
    assert_eq!(fs::read_dir(root.join("oci/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn cache_mounts_go_unless_they_are_in_use() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let sharing = bricklayer_solver::op::Sharing::Shared;
    let mount = store.cache_mount("pip", sharing).unwrap();
    fs::write(mount.path.join("wheel"), "x").unwrap();
    let other = Store::open(&root).unwrap();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    assert_eq!(kinds(&other.prune(&all).unwrap()), []);
    drop(mount);
    assert_eq!(kinds(&other.prune(&all).unwrap()), [(UsageKind::Mount, "pip")]);
    assert!(store.cache_mount("pip", sharing).unwrap().fresh);
}

#[test]
fn files_without_a_row_are_removed() {
    let (_dir, store) = store();
    let orphans = [
        store.path().join("layers/99"),
        store.inner.layout.blob(Digest::of(b"?")),
        store.path().join("mounts/x"),
    ];
    for path in &orphans {
        fs::write(path, "").unwrap();
    }
    store.prune(&PruneOptions::default()).unwrap();
    for path in orphans {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn the_cap_holds_during_a_build() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let old = layer(&store, &"x".repeat(300_000));
    drop(store);
    let store = Store::open(&root).unwrap();
    let kept = layer(&store, &"y".repeat(300_000));
    store.make_room(10 << 20).unwrap();
    assert!(store.layer_info(kept.id).is_ok());
    assert!(store.inner.layout.layer(old.id).exists(), "it is below the cap");
    store.make_room(500_000).unwrap();
    assert!(!store.inner.layout.layer(old.id).exists());
    store.make_room(1).unwrap();
    assert!(store.inner.layout.layer(kept.id).exists(), "it is in use");
}
