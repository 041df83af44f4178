//! The directories of builds: who lives, what is kept, what pruning takes.

use super::*;

/// A build that has ended, with `size` bytes in its directory.
fn ended(store: &Store, size: usize) -> BuildDirectory {
    let build = store.start_build().unwrap();
    fs::write(build.directory.path.join("record.json"), vec![b'x'; size]).unwrap();
    build.directory
}

#[test]
fn a_build_lives_as_long_as_its_file_is_open() {
    let (_dir, store) = store();
    let other = Store::open(store.path()).unwrap();
    let build = store.start_build().unwrap();
    let seen = other.builds().unwrap();
    assert_eq!(seen, std::slice::from_ref(&build.directory));
    assert!(seen[0].is_live() && build.directory.is_live());
    assert!(
        seen[0].id.len() == 8 && seen[0].id.starts_with(|c: char| c.is_ascii_lowercase()),
        "{}",
        seen[0].id
    );
    drop(build);
    assert!(!seen[0].is_live());
}

#[test]
fn the_newest_are_kept_and_those_that_live() {
    let (dir, store) = store();
    let live = store.start_build().unwrap();
    let builds: Vec<_> = (0..30).map(|_| ended(&store, 10)).collect();
    store.trim_builds_to(31, None).unwrap();
    assert_eq!(store.builds().unwrap().len(), 31);
    store.trim_builds_to(5, None).unwrap();
    let mut left: Vec<String> = store.builds().unwrap().into_iter().map(|build| build.id).collect();
    let mut expected: Vec<String> = builds[25..].iter().map(|build| build.id.clone()).collect();
    expected.push(live.directory.id.clone());
    // some began in the same millisecond
    left.sort();
    expected.sort();
    assert_eq!(left.len(), 6);
    assert!(left.contains(&live.directory.id));
    let root = store.path().to_owned();
    drop(store);
    assert_eq!(ingest(&root), [""; 0], "nothing of the others is left");
    drop(dir);
}

#[test]
fn large_ones_go_when_they_are_too_many_but_never_the_newest() {
    let (_dir, store) = store();
    for _ in 0..4 {
        ended(&store, 100_000);
        // names sort by milliseconds
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let all = store.builds().unwrap();
    store.trim_builds_to(100, Some(250_000)).unwrap();
    assert_eq!(store.builds().unwrap(), all[..2]);
    store.trim_builds_to(100, Some(1)).unwrap();
    assert_eq!(store.builds().unwrap(), all[..1]);
}

#[test]
fn pruning_the_cache_takes_ended_builds_and_nothing_else_does() {
    let (_dir, store) = store();
    let live = store.start_build().unwrap();
    let going_on = live.directory.clone();
    let build = ended(&store, 5000);
    let usage = store.usage().unwrap();
    let entry = usage.entries.iter().find(|entry| entry.id == build.id).unwrap();
    assert!(entry.kind == UsageKind::Build && entry.size >= 5000 && !entry.in_use, "{entry:?}");
    assert!(usage.entries.iter().any(|entry| entry.id == going_on.id && entry.in_use));
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().removed, []);
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    let report = store.prune(&all).unwrap();
    assert_eq!(report.removed.iter().map(|entry| &entry.id).collect::<Vec<_>>(), [&build.id]);
    assert_eq!(report.bytes + report.left, usage.total);
    assert_eq!(store.builds().unwrap(), [going_on]);
    drop(live);
}

#[test]
fn a_store_of_an_earlier_program_gets_the_directory() {
    let (_dir, store) = store();
    fs::remove_dir(store.path().join("builds")).unwrap();
    assert_eq!(store.builds().unwrap(), []);
    store.usage().unwrap();
    let build = store.start_build().unwrap();
    // what others put there is none of ours
    fs::write(store.path().join("builds/notes.txt"), "x").unwrap();
    fs::create_dir(store.path().join("builds/1700000000000-../x")).unwrap_err();
    assert_eq!(store.builds().unwrap(), [build.directory]);
}
