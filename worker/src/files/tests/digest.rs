//! Content digests: equal exactly if the copies are.

use proptest::prelude::*;

use super::*;

fn digest(tree: &SourceTree, paths: &[&str]) -> String {
    content(tree, cp(paths, "/").selection()).expect("a digest").digest.to_string()
}

#[test]
fn the_encoding_does_not_change() {
    let source = Dir::with(&["a", "d/f", "d/sub/", "d/link -> f"]);
    source.node("d/pipe", rustix::fs::FileType::Fifo, 0o640, (0, 0));
    source.node("d/null", rustix::fs::FileType::CharacterDevice, 0o666, (1, 3));
    fs::hard_link(source.path("d/f"), source.path("d/g")).expect("a link");
    source.owner("a", 5, 6);
    let digests = [
        digest(&source.local(), &["a"]),
        digest(&source.local(), &["d"]),
        digest(&source.local(), &["*"]),
        digest(&source.snapshot(), &["a", "d"]),
        digest(&source.local(), &["nothing*"]),
    ];
    insta::assert_snapshot!(digests.join("\n"), @r"
    sha256:4ffe8b536ed3c49e133683f5e184d800d5a6ef599ab2e17e10ae3157b56497c1
    sha256:8b038ebe7ed67f62f0cd89c515dc7ebd7550b777f519b38a9c134814ae67648c
    sha256:607424bf0deefa717e9fddb45ddacd830bc67d430c10ece5662b4a4bafe52b90
    sha256:e5b043d5efbb9da692be47bebda90026a936606436c66434bca112541e3883f2
    sha256:be6e1914e8685232c91fb7b423e7e7484512f5c27e49f0441e0eee94bcfce647
    ");
}

#[test]
fn a_change_that_a_copy_shows_changes_the_digest() {
    type Change = fn(&Dir);
    let changes: &[(&str, Change, bool, bool)] = &[
        // what, how, does the digest of a context change, does that of a stage
        ("content", |dir| dir.write("d/f", "x"), true, true),
        ("mode", |dir| dir.mode("d/f", 0o600), true, true),
        ("mode of a directory", |dir| dir.mode("d/sub", 0o700), true, true),
        ("owner", |dir| dir.owner("d/f", 7, 7), false, true),
        ("owner of a link", |dir| dir.owner("d/link", 7, 7), false, true),
        ("time", |dir| dir.time("d/f", 5), false, false),
        ("time of a directory", |dir| dir.time("d/sub", 5), false, false),
        ("new file", |dir| dir.write("d/new", ""), true, true),
        ("new directory", |dir| fs::create_dir(dir.path("d/dir")).expect("a directory"), true, true),
        ("removed", |dir| fs::remove_file(dir.path("d/f")).expect("removed"), true, true),
        ("renamed", |dir| fs::rename(dir.path("d/f"), dir.path("d/e")).expect("renamed"), true, true),
        (
            "link target",
            |dir| {
                fs::remove_file(dir.path("d/link")).expect("removed");
                symlink("sub", dir.path("d/link")).expect("a link");
            },
            true,
            true,
        ),
        (
            "link becomes a file",
            |dir| {
                fs::remove_file(dir.path("d/link")).expect("removed");
                dir.write("d/link", "f");
            },
            true,
            true,
        ),
        (
            "hard link becomes a file",
            |dir| {
                fs::remove_file(dir.path("d/h")).expect("removed");
                dir.write("d/h", "f");
            },
            true,
            true,
        ),
        (
            "hard link outside",
            |dir| fs::hard_link(dir.path("d/f"), dir.path("out")).expect("a link"),
            false,
            false,
        ),
        (
            "device",
            |dir| {
                fs::remove_file(dir.path("d/dev")).expect("removed");
                dir.node("d/dev", rustix::fs::FileType::CharacterDevice, 0o600, (1, 5));
            },
            true,
            true,
        ),
        (
            "xattr",
            |dir| {
                let fd = dir.root().open_dir(Path::new("d")).expect("a directory");
                at::set_xattr(&fd, "f".as_ref(), "user.note".as_ref(), b"1").expect("an xattr");
            },
            false,
            true,
        ),
        (
            "xattr of a directory",
            |dir| {
                let fd = dir.root().open_dir(Path::new("d")).expect("a directory");
                at::set_xattr(&fd, "sub".as_ref(), "user.note".as_ref(), b"1").expect("an xattr");
            },
            false,
            true,
        ),
        ("beside", |dir| dir.write("other", "x"), false, false),
    ];
    for (what, change, local, stage) in changes {
        let source = Dir::with(&["d/f", "d/sub/x", "d/link -> f", "beside"]);
        fs::hard_link(source.path("d/f"), source.path("d/h")).expect("a link");
        source.node("d/dev", rustix::fs::FileType::CharacterDevice, 0o600, (1, 3));
        let before = (digest(&source.local(), &["d"]), digest(&source.snapshot(), &["d"]));
        change(&source);
        let after = (digest(&source.local(), &["d"]), digest(&source.snapshot(), &["d"]));
        assert_eq!((before.0 != after.0, before.1 != after.1), (*local, *stage), "{what}");
    }
}

#[test]
fn the_top_counts_where_a_mount_shows_it() {
    let source = Dir::with(&["d/f"]);
    let before = (
        digest(&source.local(), &["d"]),
        digest(&source.local(), &[""]),
        digest(&source.snapshot(), &[""]),
        digest(&source.local(), &["[d]"]),
    );
    source.mode("d", 0o700);
    assert_ne!(before.0, digest(&source.local(), &["d"]));
    assert_eq!(before.3, digest(&source.local(), &["[d]"]));
    source.mode("d", 0o755);
    source.mode("", 0o700);
    assert_eq!(before.1, digest(&source.local(), &["/"]));
    assert_ne!(before.2, digest(&source.snapshot(), &["."]));
}

#[test]
fn files_are_listed_up_to_a_bound() {
    let source = Dir::with(&["d/f", "d/sub/g", "a"]);
    let found = content(&source.local(), cp(&["d", "a"], "/").selection()).expect("a digest");
    let names: Vec<&str> = found.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names.as_slice(), found.truncated), (&["d/f", "d/sub", "d/sub/g", "a"][..], false));
    let source = Dir::new();
    for number in 0..=MAX_FILES {
        source.write(&format!("{number}"), "");
    }
    let found = content(&source.local(), cp(&["."], "/").selection()).expect("a digest");
    assert_eq!((found.files.len(), found.truncated), (MAX_FILES, true));
}

/// A small tree, in few ways, so that equal ones are met often.
fn any_tree() -> impl Strategy<Value = Vec<(usize, u8, bool)>> {
    proptest::collection::vec((0..6_usize, 0..6_u8, any::<bool>()), 0..4)
}

fn make(tree: &[(usize, u8, bool)]) -> Dir {
    const NAMES: [&str; 6] = ["a", "b", "d/a", "d/b", "d/e/a", "c"];
    let dir = Dir::with(&["d/e/"]);
    for (name, kind, flag) in tree {
        let name = NAMES[*name];
        if dir.path(name).symlink_metadata().is_ok() {
            continue;
        }
        match kind {
            0 => dir.write(name, if *flag { "1" } else { "2" }),
            1 => symlink(if *flag { "a" } else { "d" }, dir.path(name)).expect("a link"),
            2 => fs::create_dir(dir.path(name)).expect("a directory"),
            3 => {
                dir.write(name, "1");
                dir.mode(name, if *flag { 0o644 } else { 0o600 });
            }
            4 if dir.path("a").is_file() && !dir.path("a").is_symlink() => {
                fs::hard_link(dir.path("a"), dir.path(name)).expect("a link");
            }
            _ => {
                dir.write(name, "1");
                dir.owner(name, u32::from(*flag), 0);
            }
        }
    }
    dir
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn equal_digests_equal_copies(
        one in any_tree(),
        two in any_tree(),
        paths in prop::sample::select(vec![&["."][..], &["d"], &["*"], &["?"], &["*/a"], &["d", "*"]]),
        excluded in any::<bool>(),
        parents in any::<bool>(),
        stage in any::<bool>(),
    ) {
        let (one, two) = (make(&one), make(&two));
        let mut copy = cp(paths, "/x/");
        if excluded { copy = copy.exclude(&["**/b"]); }
        if parents { copy = copy.parents(); }
        let run = |dir: &Dir| {
            let tree = if stage { dir.snapshot() } else { dir.local() };
            let base = Dir::new();
            let digest = content(&tree, copy.selection()).map(|content| content.digest);
            let result = copy.clone().try_run(&tree, &base);
            prop_assert_eq!(digest.is_ok(), result.is_ok() || matches!(result, Err(FilesError::OntoFile { .. } | FilesError::OntoDirectory { .. })));
            Ok((digest.ok(), result.is_ok().then(|| base.list())))
        };
        let (digest_one, copy_one) = run(&one)?;
        let (digest_two, copy_two) = run(&two)?;
        if digest_one.is_some() && digest_one == digest_two {
            prop_assert_eq!(&copy_one, &copy_two);
        }
        // Different selections may overwrite each other into equal copies; one source may not.
        if paths == ["."] && copy_one.is_some() && copy_one == copy_two {
            prop_assert_eq!(digest_one, digest_two);
        }
    }
}
