//! What failed steps left: kept without reading it, bounded, the first thing to go, and never more than rubbish after a crash.

use super::*;

fn fail(store: &Store, build: &str, step: u64, text: &str) {
    let draft = store.draft_layer().unwrap();
    fs::write(draft.tree().join("file"), text).unwrap();
    draft.keep(build, step, format!("about {text}").as_bytes()).unwrap();
}

fn left(store: &Store) -> Vec<String> {
    let usage = store.usage().unwrap();
    let failures = usage.entries.iter().filter(|entry| entry.kind == UsageKind::Failure);
    let mut ids: Vec<String> = failures.map(|entry| entry.id.clone()).collect();
    ids.sort();
    ids
}

#[test]
fn it_is_found_by_build_and_step_also_by_others() {
    let (_dir, store) = store();
    fail(&store, "aaaaaaaa", 4, "four");
    fail(&store, "aaaaaaaa", 5, "five");
    let other = Store::open(store.path()).unwrap();
    let found = other.failure("aaaaaaaa", 5).unwrap().unwrap();
    assert_eq!(found.description, b"about five");
    let tree = other.layer_tree(found.layer.id, &[]).unwrap();
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "five");
    for (build, step) in [("aaaaaaaa", 6), ("bbbbbbbb", 5), ("aaaaaaaa", u64::MAX)] {
        assert_eq!(other.failure(build, step).unwrap(), None);
    }
    // equal files, and yet two layers: nobody compared them
    fail(&store, "bbbbbbbb", 5, "five");
    assert_ne!(store.failure("bbbbbbbb", 5).unwrap().unwrap().layer.content, found.layer.content);
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn only_the_newest_are_kept_and_what_is_looked_into() {
    let (_dir, store) = store();
    for step in 0..4 {
        fail(&store, "aaaaaaaa", step, "x");
    }
    let looking = Store::open(store.path()).unwrap();
    let held = looking.failure("aaaaaaaa", 1).unwrap().unwrap();
    store.trim_failures().unwrap();
    assert_eq!(left(&store).len(), 4);
    for step in 4..8 {
        fail(&store, "aaaaaaaa", step, "x");
    }
    store.trim_failures().unwrap();
    assert_eq!(left(&store), [1, 3, 4, 5, 6, 7].map(|step| format!("aaaaaaaa {step}")));
    assert!(store.inner.layout.layer(held.layer.id).exists());
    drop(looking);
    store.trim_failures().unwrap();
    assert_eq!(left(&store), [3, 4, 5, 6, 7].map(|step| format!("aaaaaaaa {step}")));
    assert_eq!(fs::read_dir(store.inner.layout.layers()).unwrap().count(), 5);
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn large_ones_go_when_they_are_too_many_but_never_the_newest() {
    let (_dir, store) = store();
    for step in 0..4 {
        fail(&store, "aaaaaaaa", step, &"x".repeat(100_000));
    }
    let steps = |steps: &[u64]| steps.iter().map(|step| format!("aaaaaaaa {step}")).collect::<Vec<_>>();
    store.trim_failures_to(5, 1 << 30).unwrap();
    assert_eq!(left(&store).len(), 4);
    store.trim_failures_to(5, 250_000).unwrap();
    assert_eq!(left(&store), steps(&[2, 3]));
    store.trim_failures_to(5, 1).unwrap();
    assert_eq!(left(&store), steps(&[3]));
    store.trim_failures_to(5, 1).unwrap();
    assert_eq!(left(&store), steps(&[3]));
    assert_eq!(ingest(store.path()), [""; 0]);
}

#[test]
fn pruning_takes_it_first_and_counts_it() {
    let (_dir, store) = store();
    let root = store.path().to_owned();
    let cached = layer(&store, &"x".repeat(100_000));
    store.put(&[Digest::of(b"key")], &record(&[cached])).unwrap();
    drop(store);
    let store = Store::open(&root).unwrap();
    fail(&store, "aaaaaaaa", 3, &"y".repeat(50_000));
    let usage = store.usage().unwrap();
    let entry = &usage.entries[0];
    assert!(entry.kind == UsageKind::Failure && entry.size >= 50_000 && !entry.in_use, "{entry:?}");
    // newer than the layer, and yet it goes first
    let options = PruneOptions { max_used: Some(usage.total - 1), ..PruneOptions::default() };
    let dry = store.prune(&PruneOptions { dry_run: true, ..options.clone() }).unwrap();
    assert!(store.failure("aaaaaaaa", 3).unwrap().is_some());
    drop(store);
    let store = Store::open(&root).unwrap();
    let report = store.prune(&options).unwrap();
    assert_eq!(report, dry);
    assert_eq!(report.removed.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [UsageKind::Failure]);
    assert_eq!(report.bytes + report.left, usage.total);
    assert_eq!(store.failure("aaaaaaaa", 3).unwrap(), None);
    // without --all it goes too, and nothing that is cached
    fail(&store, "aaaaaaaa", 3, "again");
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().removed.len(), 1);
    assert!(store.find(&[Digest::of(b"key")]).unwrap()[0].is_some());
    assert_eq!(fs::read_dir(store.inner.layout.layers()).unwrap().count(), 1);
}

#[test]
fn it_stays_while_its_build_goes_on() {
    let (_dir, store) = store();
    let build = store.start_build().unwrap();
    let id = build.directory.id.clone();
    fail(&store, &id, 3, "x");
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    assert_eq!(store.prune(&all).unwrap().removed, []);
    store.make_room(1).unwrap();
    assert_eq!(left(&store), [format!("{id} 3")]);
    drop(build);
    let removed = store.prune(&PruneOptions::default()).unwrap().removed;
    assert_eq!(removed.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [UsageKind::Failure]);
}

#[test]
fn what_is_damaged_is_not_there() {
    let (_dir, store) = store();
    fail(&store, "aaaaaaaa", 3, "x");
    fail(&store, "aaaaaaaa", 4, "x");
    let kept = store.failure("aaaaaaaa", 3).unwrap().unwrap();
    fs::remove_dir_all(store.inner.layout.layer(kept.layer.id)).unwrap();
    assert_eq!(store.failure("aaaaaaaa", 3).unwrap(), None);
    let huge = "UPDATE failures SET description = zeroblob(5000000) WHERE step = 4";
    store.inner.state().db.write("test", |tx| Ok(tx.execute_batch(huge)?)).unwrap();
    assert_eq!(store.failure("aaaaaaaa", 4).unwrap(), None);
}

#[test]
fn what_did_not_reach_the_disk_before_the_machine_went_down_is_gone() {
    let (_dir, store) = store();
    fail(&store, "aaaaaaaa", 3, "x");
    let mut state = store.inner.state();
    let State { db, lease, gate } = &mut *state;
    sync::recover_in(&store.inner.layout, db, lease, gate, "another boot").unwrap();
    drop(state);
    assert_eq!(left(&store), [""; 0]);
    assert_eq!(store.failure("aaaaaaaa", 3).unwrap(), None);
}
