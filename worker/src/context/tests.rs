//! What the index saves, and what it must never hide.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bricklayer_cache::root::{Kind, Metadata};
use bricklayer_solver::op::{LocalSource, Selection};
use proptest::prelude::*;

use super::index::{Index, IndexEntry, settled, unchanged};
use super::*;
use crate::files::content;

/// A context and a place for its index.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = dir.path().join("ctx").join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
            fs::write(path, file).expect("a file");
        }
        Self { dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("ctx").join(file)
    }

    fn set(&self) -> ContextSet {
        let context = ("context".to_owned(), self.dir.path().join("ctx"));
        ContextSet::new([context], Some(&self.dir.path().join("indexes")))
    }

    /// Waits until a change shows in the times of what is there.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(30));
    }

    fn digest(&self, set: &ContextSet, ignore: &[&str], path: &str) -> String {
        let ignore = ignore.iter().map(|pattern| (*pattern).to_owned()).collect();
        let tree = set.tree(&LocalSource { name: "context".into(), ignore }).expect("a tree");
        let selection = Selection { paths: vec![path.into()], ..Selection::default() };
        content(&tree, &selection).expect("a digest").digest.to_string()
    }

    /// A build: one digest, then the index is written.
    fn build(&self, ignore: &[&str]) -> String {
        let set = self.set();
        let digest = self.digest(&set, ignore, ".");
        set.save().expect("saved");
        digest
    }

    fn index_path(&self) -> PathBuf {
        self.dir.path().join("indexes").join(index::file_name(&self.dir.path().join("ctx")))
    }

    /// What the index knows of a file as it is now.
    fn knows(&self, file: &str) -> bool {
        let index = Index::load(&self.index_path());
        let path = Path::new(file);
        let root = bricklayer_cache::root::Root::open(&self.dir.path().join("ctx")).expect("a root");
        let metadata = root.lstat(path).expect("metadata").expect("a file");
        let directory = index.directory(path.parent().unwrap_or(Path::new("")));
        directory.lookup(path.file_name().unwrap_or_default(), &metadata).is_some()
    }
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let fixture = Fixture::new(&["a", "d/b", "d/e/c"]);
    fixture.settle();
    let before = fixture.build(&[]);
    assert!(fixture.knows("a") && fixture.knows("d/b") && fixture.knows("d/e/c"));
    // A planted hash shows that the index is believed.
    let index = Index::load(&fixture.index_path());
    let root = bricklayer_cache::root::Root::open(&fixture.path("")).expect("a root");
    let metadata = root.lstat(Path::new("a")).expect("metadata").expect("a file");
    let planted = IndexEntry::new("a".as_ref(), &metadata, [7; 32]);
    index.save(&fixture.index_path(), &[(PathBuf::new(), vec![planted])], |_| true).expect("saved");
    assert_ne!(fixture.digest(&fixture.set(), &[], "."), before);
    fs::remove_file(fixture.index_path()).expect("removed");
    assert_eq!(fixture.digest(&fixture.set(), &[], "."), before);
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_found() {
    let fixture = Fixture::new(&["a", "b"]);
    fixture.settle();
    let before = fixture.build(&[]);
    let old = fs::metadata(fixture.path("a")).expect("metadata");
    fs::write(fixture.path("a"), "b").expect("written");
    let file = fs::File::options().write(true).open(fixture.path("a")).expect("a file");
    file.set_modified(old.modified().expect("a time")).expect("a time");
    let new = fs::metadata(fixture.path("a")).expect("metadata");
    assert_eq!((old.len(), old.mtime_nsec(), old.ino()), (new.len(), new.mtime_nsec(), new.ino()));
    assert!(!fixture.knows("a") && fixture.knows("b"));
    assert_ne!(fixture.build(&[]), before);
}

#[test]
fn a_replaced_file_is_found() {
    let fixture = Fixture::new(&["a", "b"]);
    fixture.settle();
    let before = fixture.build(&[]);
    fs::rename(fixture.path("b"), fixture.path("a")).expect("renamed");
    fs::write(fixture.path("b"), "b").expect("written");
    assert_ne!(fixture.build(&[]), before);
}

#[test]
fn a_file_written_just_now_is_not_entered() {
    let fixture = Fixture::new(&["old"]);
    fixture.settle();
    // As new as can be, or newer: read, but not to be trusted later.
    let file = fs::File::create(fixture.path("future")).expect("a file");
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).expect("a time");
    fixture.build(&[]);
    assert!(fixture.knows("old"));
    assert!(!fixture.knows("future"));
}

#[test]
fn times_are_settled_when_the_clock_has_moved_on() {
    let second = 1_000_000_000_i128;
    let now = 1000 * second;
    let metadata = |mtime: (i64, u32), ctime: (i64, u32)| Metadata {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1,
        mtime,
        ctime,
        dev: 1,
        ino: 1,
        links: 1,
        blocks: 1,
        device: (0, 0),
    };
    let cases = [
        ((999, 900_000_000), (999, 900_000_000), true),
        ((999, 979_999_999), (999, 979_999_999), true),
        ((999, 985_000_000), (999, 985_000_000), false),
        ((1, 1), (999, 999_999_999), false),
        ((1000, 1), (1, 1), false),
        ((2000, 0), (1, 1), false),
        // A clock that shows no fractions is coarse.
        ((999, 0), (999, 0), false),
        ((998, 0), (998, 0), false),
        ((997, 0), (997, 0), true),
    ];
    for (mtime, ctime, expected) in cases {
        assert_eq!(settled(&metadata(mtime, ctime), now), expected, "{mtime:?} {ctime:?}");
    }
    let one = metadata((1, 2), (3, 4));
    for other in [
        Metadata { size: 2, ..one },
        Metadata { mtime: (1, 3), ..one },
        Metadata { ctime: (3, 5), ..one },
        Metadata { ino: 2, ..one },
        Metadata { dev: 2, ..one },
        Metadata { mode: 0o600, ..one },
    ] {
        assert!(!unchanged(&one, &other));
    }
    assert!(unchanged(&one, &Metadata { links: 2, blocks: 9, ..one }));
}

#[test]
fn a_damaged_index_is_ignored() {
    let fixture = Fixture::new(&["a", "d/b"]);
    fixture.settle();
    let before = fixture.build(&[]);
    let good = fs::read(fixture.index_path()).expect("an index");
    assert!(!Index::load(&fixture.index_path()).is_empty());
    for at in 0..good.len() {
        let mut bad = good.clone();
        if let Some(byte) = bad.get_mut(at) {
            *byte ^= 1;
        }
        fs::write(fixture.index_path(), &bad).expect("written");
        assert!(Index::load(&fixture.index_path()).is_empty(), "byte {at}");
    }
    for length in [0, 1, 8, 31, 32, 33, good.len() - 1] {
        fs::write(fixture.index_path(), good.get(..length).unwrap_or_default()).expect("written");
        assert!(Index::load(&fixture.index_path()).is_empty(), "{length} bytes");
    }
    assert_eq!(fixture.build(&[]), before);
    assert!(fixture.knows("a"), "written anew");
    fs::remove_file(fixture.index_path()).expect("removed");
    fs::create_dir(fixture.index_path()).expect("a directory in its place");
    let set = fixture.set();
    assert_eq!(fixture.digest(&set, &[], "."), before);
    assert!(set.save().expect_err("not writable").to_string().starts_with("cannot write index"));
}

#[test]
fn the_index_keeps_what_a_build_did_not_look_at() {
    let fixture = Fixture::new(&["a", "d/b", "d/e/c", "gone/x", "gone/y/z"]);
    fixture.settle();
    fixture.build(&[]);
    // Ignored by one build, so not seen; but not gone either.
    fs::write(fixture.path("new"), "new").expect("written");
    fixture.settle();
    fixture.build(&["d", "a"]);
    assert!(fixture.knows("new") && fixture.knows("a") && fixture.knows("d/b") && fixture.knows("d/e/c"));
    // Not selected, so not looked at.
    fs::write(fixture.path("d/b"), "other").expect("written");
    fixture.settle();
    let set = fixture.set();
    fixture.digest(&set, &[], "d/b");
    set.save().expect("saved");
    assert!(
        fixture.knows("d/b") && fixture.knows("d/e/c") && fixture.knows("a") && fixture.knows("gone/y/z")
    );
    // Gone.
    fs::remove_dir_all(fixture.path("gone")).expect("removed");
    fs::write(fixture.path("d/b"), "another").expect("written");
    fixture.settle();
    fixture.build(&[]);
    let index = Index::load(&fixture.index_path());
    assert_eq!(index.directory(Path::new("gone")).into_entries().count(), 0);
    assert_eq!(index.directory(Path::new("gone/y")).into_entries().count(), 0);
    assert!(fixture.knows("d/e/c"));
}

#[test]
fn all_steps_of_a_build_see_the_same_files() {
    let fixture = Fixture::new(&["a", "d/b"]);
    let set = fixture.set();
    let before = fixture.digest(&set, &[], ".");
    fs::write(fixture.path("a"), "changed").expect("written");
    fs::write(fixture.path("new"), "new").expect("written");
    assert_eq!(fixture.digest(&set, &[], "."), before, "one walk, one look");
    assert_ne!(fixture.digest(&fixture.set(), &[], "."), before);
}

#[test]
fn unknown_contexts_are_named() {
    let fixture = Fixture::new(&["a"]);
    let source = LocalSource { name: "other".into(), ignore: Vec::new() };
    let error = fixture.set().tree(&source).expect_err("unknown");
    assert_eq!(error.to_string(), "no directory is known as context `other`");
    let set = ContextSet::new([("other".to_owned(), fixture.path("nothere"))], None);
    assert!(set.tree(&source).expect_err("missing").to_string().contains("nothere"));
    let set = ContextSet::new([("other".to_owned(), fixture.path(""))], None);
    assert_eq!(set.tree(&source).expect("a tree").place(), "context `other`");
}

#[test]
fn processes_may_write_at_the_same_time() {
    let fixture = Fixture::new(&["a", "b", "c"]);
    fixture.settle();
    let path = fixture.index_path();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let set = fixture.set();
                    fixture.digest(&set, &[], ".");
                    set.save().expect("saved");
                    let _ = fs::remove_file(&path);
                    Index::load(&path);
                }
            });
        }
    });
    fixture.build(&[]);
    assert!(fixture.knows("a"));
    let left = fs::read_dir(fixture.dir.path().join("indexes")).expect("a directory").count();
    assert_eq!(left, 1, "no temporary files are left");
}

proptest! {
    #[test]
    fn any_bytes_are_an_index_or_none(mut bytes in any::<Vec<u8>>(), sealed in any::<bool>(), magic in any::<bool>()) {
        if magic {
            let mut header = b"brickidx\x01\0\0\0\x02\0\0\0".to_vec();
            header.append(&mut bytes);
            bytes = header;
        }
        if sealed {
            let checksum = blake3::hash(&bytes);
            bytes.extend_from_slice(checksum.as_bytes());
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("index");
        fs::write(&path, bytes).expect("written");
        let index = Index::load(&path);
        index.directory(Path::new(""));
    }
}

#[test]
fn what_git_ignores_is_counted_by_its_topmost_directory() {
    let files = [
        ".gitignore",
        "sub/.gitignore",
        "src/main.rs",
        "target/debug/app",
        "target/keep.txt",
        "sub/made.o",
        "sub/kept.o",
        "sub/deep/made.o",
        "notes.log",
    ];
    let fixture = Fixture::new(&files);
    fs::write(fixture.path(".gitignore"), "/target\n!target/keep.txt\n*.log\n*.o\n").expect("written");
    fs::write(fixture.path("sub/.gitignore"), "!kept.o\n").expect("written");
    fixture.settle();
    let set = fixture.set();
    fixture.digest(&set, &["notes.log"], ".");
    let found = set.git_ignored("context");
    let size = |files: &[&str]| {
        files.iter().map(|file| fs::metadata(fixture.path(file)).expect("there").len()).sum()
    };
    let ignored: [(&str, u64); 3] = [
        ("target", size(&["target/debug/app", "target/keep.txt"])),
        ("sub/deep/made.o", size(&["sub/deep/made.o"])),
        ("sub/made.o", size(&["sub/made.o"])),
    ];
    let ignored: Vec<(PathBuf, u64)> = ignored.into_iter().map(|(path, size)| (path.into(), size)).collect();
    assert_eq!(found.paths, ignored);
    assert_eq!(found.ignored, ignored.iter().map(|(_, size)| size).sum::<u64>());
    let read: u64 = size(&files) - size(&["notes.log"]);
    assert_eq!(found.read, read);
    set.save().expect("saved");

    // what an earlier build read costs nothing now
    let set = fixture.set();
    fixture.digest(&set, &["notes.log"], ".");
    assert_eq!(set.git_ignored("context"), GitIgnored::default());
}
