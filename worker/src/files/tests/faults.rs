//! Files that change while they are used, and hostile trees.

use super::*;

#[test]
fn a_file_that_changed_after_it_was_hashed_is_named() {
    let source = Dir::with(&["d/f", "d/g"]);
    for change in [
        (|dir| dir.write("d/f", "other")) as fn(&Dir),
        |dir| fs::remove_file(dir.path("d/f")).expect("removed"),
        |dir| {
            fs::remove_file(dir.path("d/f")).expect("removed");
            symlink("g", dir.path("d/f")).expect("a link");
        },
        |dir| {
            fs::remove_file(dir.path("d/f")).expect("removed");
            dir.node("d/f", rustix::fs::FileType::Fifo, 0o644, (0, 0));
        },
    ] {
        let tree = source.local();
        content(&tree, cp(&["d"], "/").selection()).expect("a digest");
        change(&source);
        let error = fails(cp(&["d"], "/").try_run(&tree, &Dir::new()));
        assert_eq!(error, "`d/f` in the context was changed while the build read it");
        let _ = fs::remove_file(source.path("d/f"));
        source.write("d/f", "f");
    }
}

#[test]
fn a_change_within_the_clock_s_granularity_is_found_by_content() {
    let source = Dir::with(&["f"]);
    let tree = source.local();
    content(&tree, cp(&["f"], "/").selection()).expect("a digest");
    // What a write in the same tick would leave: other content, the same metadata. Found entries are what the tree
    // remembers, so a tree that remembers another content for the same metadata stands for it.
    let entry = match tree.look_up(Path::new("f"), true).expect("an entry") {
        tree::Lookup::Found(entry) => entry,
        _ => panic!("f is there"),
    };
    assert!(entry.unsettled().is_some(), "written just now");
    let twin = Dir::with(&["f"]);
    twin.write("f", "g");
    let other = twin.local();
    content(&other, cp(&["f"], "/").selection()).expect("a digest");
    let hash = match other.look_up(Path::new("f"), true).expect("an entry") {
        tree::Lookup::Found(entry) => entry.unsettled(),
        _ => None,
    };
    let tree = source.local();
    tree.pretend(Path::new("f"), hash.expect("a hash"));
    let error = fails(cp(&["f"], "/").try_run(&tree, &Dir::new()));
    assert_eq!(error, "`f` in the context was changed while the build read it");
}

#[test]
fn nothing_outside_is_read_or_written() {
    let outside = Dir::with(&["secret", "target/"]);
    let up = format!("../../../../../../../..{}", outside.0.path().display());
    let source = Dir::new();
    symlink(outside.path("secret"), source.path("abs")).expect("a link");
    symlink(format!("{up}/secret"), source.path("up")).expect("a link");
    symlink(outside.0.path(), source.path("dir")).expect("a link");
    source.write("f", "f");
    source.write("d/link/evil", "evil");
    for tree in [source.local(), source.snapshot()] {
        for path in ["abs", "up", "dir/secret", "dir", "../../../../etc/hostname"] {
            assert!(fails(cp(&[path], "/x").try_run(&tree, &Dir::new())).contains("not found"), "{path}");
        }
        let base = Dir::new();
        symlink(outside.path("target"), base.path("link")).expect("a link");
        symlink(&up, base.path("up")).expect("a link");
        cp(&["f"], "/link/f").run(&tree, &base);
        cp(&["f"], "/up/secret").run(&tree, &base);
        cp(&["f"], "/../../../x").run(&tree, &base);
        assert!(fails(cp(&["d"], "/").try_run(&tree, &base)).contains("`/link`, which is a symbolic link"));
        cp(&["d"], "/").link().run(&tree, &base);
    }
    outside.assert(&["644 secret \"secret\"", "755 target/"]);
}

#[test]
fn deep_trees_are_no_problem() {
    let source = Dir::new();
    let deep = vec!["d"; 1000].join("/");
    source.write(&format!("{deep}/f"), "deep");
    let base = Dir::new();
    let tree = source.local();
    content(&tree, cp(&["."], "/").selection()).expect("a digest");
    cp(&["."], "/").run(&tree, &base);
    assert_eq!(base.read(&format!("{deep}/f")), "deep");
}
