//! Damage, power cuts, full disks, stores of other programs.

use std::io::{Read, Seek, SeekFrom};

use super::*;

#[test]
fn what_is_no_store_of_this_program_is_refused_by_name() {
    type Change<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Change<'_>); 4] = [
        ("newer format", &|root| fs::write(root.join("version"), "7\n").unwrap()),
        ("no number", &|root| fs::write(root.join("version"), [0xff, 0xfe]).unwrap()),
        ("newer tables", &|root| {
            let db = rusqlite::Connection::open(root.join("meta.db")).unwrap();
            db.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("other files", &|root| {
            fs::remove_file(root.join("version")).unwrap();
            fs::write(root.join("thesis.tex"), "").unwrap();
        }),
    ];
    let mut seen = Vec::new();
    for (name, change) in cases {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        change(dir.path());
        let error = Store::open(dir.path()).err().expect(name);
        let text = error.to_string().replace(dir.path().to_str().unwrap(), "STORE");
        seen.push(format!("{name}: {text}\nhint: {}", error.hint().unwrap_or("-")));
    }
    insta::assert_snapshot!(seen.join("\n"), @"
    newer format: store `STORE` has format 7, this program knows formats up to 1
    hint: use the newer program, or another directory with `--root`
    no number: `STORE/version` is damaged: it holds no number
    hint: -
    newer tables: store `STORE/meta.db` has format 99, this program knows formats up to 4
    hint: use the newer program, or another directory with `--root`
    other files: `STORE` is not a store: it holds `thesis.tex`
    hint: choose an empty or new directory with `--root`
    ");
}

#[test]
fn a_store_whose_making_was_cut_short_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    for name in ["version", "meta.db", "oci/index.json"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    fs::remove_dir(dir.path().join("mounts")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, b"x");
    assert!(dir.path().join("mounts").is_dir());
}

#[test]
fn a_damaged_blob_is_named_and_forgotten() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[3] ^= 1;
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let cut = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::write(path, "").unwrap();
    };
    let read = |store: &Store, digest| store.read_blob(digest, 100).map(drop);
    let stream = |store: &Store, digest| store.verify_blob(digest);
    type Damage<'a> = &'a dyn Fn(&Path);
    type Look<'a> = &'a dyn Fn(&Store, Digest) -> Result<(), StoreError>;
    let cases: [(&str, Damage<'_>, Look<'_>, &str); 4] = [
        ("flipped, read", &flip, &read, "was damaged"),
        ("flipped, streamed", &flip, &stream, "was damaged"),
        ("cut", &cut, &read, "is not in the store"),
        ("removed", &|path| fs::remove_file(path).unwrap(), &stream, "is not in the store"),
    ];
    for (name, damage, look, expected) in cases {
        let (_dir, store) = store();
        let digest = put(&store, b"some bytes");
        damage(&store.inner.layout.blob(digest));
        let error = look(&store, digest).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&digest.to_string()), "{name}: {error}");
        assert!(!store.has_blob(digest), "{name}");
        // The next one is right again.
        put(&store, b"some bytes");
        assert_eq!(store.read_blob(digest, 100).unwrap(), b"some bytes", "{name}");
    }
}

#[test]
fn no_last_byte_of_a_damaged_blob_is_handed_out() {
    let (_dir, store) = store();
    let digest = put(&store, &[7; 1000]);
    let path = store.inner.layout.blob(digest);
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(500)).unwrap();
    file.write_all(b"x").unwrap();
    let mut reader = store.blob_reader(digest).unwrap();
    let mut bytes = Vec::new();
    // A reader that knows the size and never reads to the end.
    let error = reader.by_ref().take(1000).read_to_end(&mut bytes).unwrap_err();
    assert!(error.to_string().contains("was damaged"), "{error}");
    assert!(bytes.len() < 1000);
}

#[test]
fn a_record_whose_tree_is_gone_is_void_and_can_be_replaced() {
    let (_dir, store) = store();
    let (a, b) = (layer(&store, "a"), layer(&store, "b"));
    let key = Digest::of(b"key");
    store.put(&[key], &record(&[a, b])).unwrap();
    fs::remove_dir_all(store.inner.layout.layer(a.id)).unwrap();
    assert_eq!(store.find(&[key]).unwrap(), [None]);
    assert!(matches!(store.layer_tree(a.id, &[]), Err(StoreError::LayerMissing { layer }) if layer == a.id));
    assert_eq!(store.family(Digest::of(b"family"), 9).unwrap().len(), 1, "it still explains the miss");
    let again = record(&[layer(&store, "a"), b]);
    store.put(&[key], &again).unwrap();
    assert_eq!(store.find(&[key]).unwrap(), [Some(again)]);
}

/// Opens the store as the first process after the machine was started again.
fn after_a_boot(root: &Path) -> Store {
    let store = Store::open(root).unwrap();
    {
        let mut state = store.inner.state();
        let State { db, lease, gate } = &mut *state;
        sync::recover_in(&store.inner.layout, db, lease, gate, "another boot").unwrap();
    }
    store
}

#[test]
fn what_was_not_synced_does_not_outlive_a_power_cut() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let (old_key, new_key) = (Digest::of(b"old"), Digest::of(b"new"));
    let old = record(&[layer(&store, "old")]);
    store.put(&[old_key], &old).unwrap();
    let old_blob = put(&store, b"old blob");
    store.sync().unwrap();
    let new = layer(&store, "new");
    store.put(&[new_key], &record(&[new])).unwrap();
    let (whole, torn) = (put(&store, b"whole blob"), put(&store, b"torn blob"));
    drop(store);
    let path = root.join("oci/blobs/sha256").join(torn.hex());
    fs::remove_file(&path).unwrap();
    fs::write(&path, [0; 9]).unwrap();

    let store = after_a_boot(&root);
    assert_eq!(store.find(&[old_key, new_key]).unwrap(), [Some(old), None]);
    assert!(!root.join("layers").join(new.id.0.to_string()).exists());
    assert!(store.has_blob(old_blob));
    assert!(store.has_blob(whole), "its bytes are right");
    assert!(!store.has_blob(torn));
    assert!(!path.exists());
    let next = layer(&store, "next");
    assert!(next.id > new.id, "numbers are not used again");
}

#[test]
fn who_uses_what_is_not_on_disk_yet_syncs_it() {
    let (_dir, store) = store();
    let key = Digest::of(b"key");
    let written = record(&[layer(&store, "a")]);
    store.put(&[key], &written).unwrap();
    let root = store.path().to_owned();
    // As after a kill: never synced.
    drop(store);
    let second = Store::open(&root).unwrap();
    assert_eq!(second.find(&[key]).unwrap(), [Some(written.clone())]);
    second.sync().unwrap();
    drop(second);
    assert_eq!(after_a_boot(&root).find(&[key]).unwrap(), [Some(written)]);
}

#[test]
fn a_sync_leaves_little_for_the_next_to_read() {
    let (_dir, store) = store();
    let wal = || fs::metadata(store.path().join("meta.db-wal")).unwrap().len();
    let mut count = 0;
    while wal() <= 256 << 10 {
        count += 1;
        layer(&store, &count.to_string());
    }
    store.sync().unwrap();
    assert_eq!(wal(), 0);
    layer(&store, "one more");
    store.sync().unwrap();
    assert!(wal() > 0, "so little is not worth the wait");
}

#[test]
fn one_sync_is_enough_for_all_that_was_written() {
    let (_dir, store) = store();
    let other = Store::open(store.path()).unwrap();
    layer(&store, "a");
    layer(&other, "b");
    let wal = || fs::metadata(store.path().join("meta.db-wal")).unwrap().len();
    store.sync().unwrap();
    let synced = wal();
    other.sync().unwrap();
    assert_eq!(wal(), synced, "the other one had nothing left to write");
    layer(&other, "c");
    let written = wal();
    other.sync().unwrap();
    assert!(wal() > written);
    let left: i64 = store
        .inner
        .state()
        .db
        .read("count", |tx| {
            Ok(tx.query_one("SELECT count(*) FROM layers WHERE unsynced IS NOT NULL", [], |row| row.get(0))?)
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn nobody_waits_long_for_one_who_was_stopped_while_it_synced() {
    let (_dir, store) = store();
    layer(&store, "a");
    let stopped = store.inner.layout.lock_file(".sync").unwrap();
    rustix::fs::flock(&stopped, rustix::fs::FlockOperation::LockExclusive).unwrap();
    store.sync().unwrap();
}

#[test]
fn trees_left_by_a_forgetful_database_are_replaced() {
    let (_dir, store) = store();
    let stale = store.inner.layout.layer(LayerId(1));
    fs::create_dir_all(stale.join("stale")).unwrap();
    let made = layer(&store, "fresh");
    assert_eq!(made.id, LayerId(1));
    let tree = store.layer_tree(made.id, &[]).unwrap();
    assert_eq!(
        fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(),
        ["file"]
    );
}

/// A filesystem of its own that holds 24 MiB and 400 files. Needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = c"size=24m,nr_inodes=400";
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), options)
            .expect("this test mounts a tmpfs, so it must run as root");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn pruning_works_with_no_byte_and_no_inode_left() {
    let disk = SmallDisk::new();
    let root = disk.0.path().join("store");
    let store = Store::open(&root).unwrap();
    for number in 0..20 {
        let made = layer(&store, &"x".repeat(100_000 + number));
        store.put(&[Digest::of(&[number as u8])], &record(&[made])).unwrap();
    }
    // Fill it to the last byte and the last file.
    let mut kept = Vec::new();
    let mut file = fs::File::create(disk.0.path().join("filler")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    while let Ok(file) = fs::File::create(disk.0.path().join(format!("filler-{}", kept.len()))) {
        kept.push(file);
    }
    let error = store.put_blob(&mut &[0; 9000][..], Digest::of(&[0; 9000]), 9000).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(error.hint(), Some("free space with `bricklayer prune`"));
    drop(store);

    let store = Store::open(&root).unwrap();
    let report = store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    assert_eq!(report.removed.len(), 20);
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 0);
    assert!(store.put_blob(&mut &[0; 9000][..], Digest::of(&[0; 9000]), 9000).is_ok());
}
