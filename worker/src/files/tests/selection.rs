//! What is selected, and what is not there.

use super::*;

fn copied(tree: &SourceTree, cp: Cp) -> Vec<String> {
    let base = Dir::new();
    cp.run(tree, &base);
    base.list()
        .into_iter()
        .map(|line| line.split_once(' ').map_or_else(String::new, |(_, rest)| rest.to_owned()))
        .collect()
}

#[test]
fn wildcards_match_as_in_go() {
    let source = Dir::with(&[
        "a.txt",
        "b.txt",
        ".dot.txt",
        "file1.md",
        "file2.md",
        "file3.md",
        "file10.md",
        "d1/inner.txt",
        "d2/other.txt",
        "d2/d3/deep.txt",
    ]);
    let tree = source.local();
    let cases: &[(&[&str], &[&str])] = &[
        (&["*.txt"], &["x/", "x/.dot.txt \".dot.txt\"", "x/a.txt \"a.txt\"", "x/b.txt \"b.txt\""]),
        (
            &["file?.md"],
            &["x/", "x/file1.md \"file1.md\"", "x/file2.md \"file2.md\"", "x/file3.md \"file3.md\""],
        ),
        (&["file[1-2].md"], &["x/", "x/file1.md \"file1.md\"", "x/file2.md \"file2.md\""]),
        (&["file[^1-2].md"], &["x/", "x/file3.md \"file3.md\""]),
        (&["*/inner.txt"], &["x/", "x/inner.txt \"inner.txt\""]),
        (&["*/*/deep.t??"], &["x/", "x/deep.txt \"deep.txt\""]),
        (
            &["d?"],
            &[
                "x/",
                "x/d3/",
                "x/d3/deep.txt \"deep.txt\"",
                "x/inner.txt \"inner.txt\"",
                "x/other.txt \"other.txt\"",
            ],
        ),
        (&["nothing*"], &[]),
        (&["a.txt/*", "*/nothing", "d1/*.md", "n*/such/*"], &[]),
        (&["nothing*", "a.tx[t]"], &["x/", "x/a.txt \"a.txt\""]),
    ];
    for (sources, expected) in cases {
        assert_eq!(copied(&tree, cp(sources, "/x/")), *expected, "{sources:?}");
    }
    assert!(matches!(cp(&["a["], "/").try_run(&tree, &Dir::new()), Err(FilesError::Pattern(_))));
}

#[test]
fn what_is_in_front_of_a_wildcard_must_be_there() {
    let source = Dir::with(&["d/f", "ignored/a.jar"]);
    let error = |tree: &SourceTree, cp: Cp| fails(cp.try_run(tree, &Dir::new()));
    let tree = source.local();
    assert_eq!(error(&tree, cp(&["no/*.jar"], "/x/")), "`no` not found in the context");
    assert_eq!(error(&tree, cp(&["d/no/*/f"], "/x/")), "`d/no` not found in the context");
    assert_eq!(error(&tree, cp(&["no/./*"], "/x/").parents()), "`no/./*` not found in the context");
    let tree = source.ignoring(&["ignored"]);
    assert_eq!(
        error(&tree, cp(&["ignored/*.jar"], "/x/")),
        "`ignored` is excluded from the context by the pattern `ignored` of .dockerignore"
    );
}

#[test]
fn wildcard_characters_can_be_taken_literally() {
    let source = Dir::with(&["arr[0].txt", "arr0.txt", "star*", "starry", "what?", "whatx"]);
    let tree = source.local();
    assert_eq!(copied(&tree, cp(&["arr[[]0].txt"], "/x/")), ["x/", "x/arr[0].txt \"arr[0].txt\""]);
    assert_eq!(copied(&tree, cp(&["arr[0].txt"], "/x/")), ["x/", "x/arr0.txt \"arr0.txt\""]);
    assert_eq!(copied(&tree, cp(&["star[*]"], "/x/")), ["x/", "x/star* \"star*\""]);
    assert_eq!(copied(&tree, cp(&["what[?]"], "/x/")), ["x/", "x/what? \"what?\""]);
    let mut plain = cp(&["star*"], "/x/");
    plain.0.selection.wildcards = false;
    assert_eq!(copied(&tree, plain), ["x/", "x/star* \"star*\""]);
}

#[test]
fn links_that_are_selected_are_followed_inside() {
    let source = Dir::with(&[
        "real.txt",
        "link.txt -> real.txt",
        "chain.txt -> link.txt",
        "realdir/inner",
        "linkdir -> realdir",
        "abs.txt -> /real.txt",
        "up -> ../../../../real.txt",
        "sub/back -> ../real.txt",
        "etcdir -> /realdir",
        "loop -> loop",
        "dangling -> nowhere",
    ]);
    let tree = source.local();
    for link in ["link.txt", "chain.txt", "abs.txt", "up", "sub/back", "chain.tx?"] {
        let name = link.rsplit('/').next().unwrap_or(link).replace('?', "t");
        assert_eq!(
            copied(&tree, cp(&[link], "/x/")),
            ["x/".to_owned(), format!("x/{name} \"real.txt\"")],
            "{link}"
        );
    }
    for link in ["linkdir", "linkdir/", "etcdir", "linkdi?"] {
        assert_eq!(copied(&tree, cp(&[link], "/x")), ["x/", "x/inner \"inner\""], "{link}");
    }
    assert_eq!(copied(&tree, cp(&["linkdir/inn*"], "/x/")), ["x/", "x/inner \"inner\""]);
    assert_eq!(copied(&tree, cp(&["link.txt"], "/renamed")), ["renamed \"real.txt\""]);
    let error = |source: &str| fails(cp(&[source], "/x").try_run(&tree, &Dir::new()));
    assert_eq!(error("loop"), "too many symbolic links on the way to `loop` in the context");
    assert_eq!(error("dangling"), "`dangling` not found in the context");
    assert_eq!(error("real.txt/x"), "`real.txt/x` not found in the context");
    let everything = copied(&tree, cp(&["."], "/"));
    assert!(
        everything.contains(&"dangling -> nowhere".to_owned())
            && everything.contains(&"loop -> loop".to_owned())
    );
}

#[test]
fn what_is_missing_is_named() {
    let source = Dir::with(&["a", "dir/a.txt"]);
    let error = |cp: Cp, tree: SourceTree| fails(cp.try_run(&tree, &Dir::new()));
    assert_eq!(error(cp(&["nothere"], "/"), source.local()), "`nothere` not found in the context");
    assert_eq!(
        error(cp(&["/opt/nothere"], "/x"), source.snapshot()),
        "`/opt/nothere` not found in stage build"
    );
    assert_eq!(error(cp(&["a", "dir/b"], "/"), source.local()), "`dir/b` not found in the context");
    assert_eq!(
        error(cp(&["dir/nothere.txt"], "/").parents(), source.local()),
        "`dir/nothere.txt` not found in the context"
    );
    let ignoring = source.ignoring(&["*.md", "a", "dir"]);
    assert_eq!(
        fails(cp(&["a"], "/").try_run(&ignoring, &Dir::new())),
        "`a` is excluded from the context by the pattern `a` of .dockerignore"
    );
    assert_eq!(
        fails(cp(&["/dir/a.txt"], "/").try_run(&ignoring, &Dir::new())),
        "`/dir/a.txt` is excluded from the context by the pattern `dir` of .dockerignore"
    );
    assert_eq!(fails(cp(&["b.md"], "/").try_run(&ignoring, &Dir::new())), "`b.md` not found in the context");
}

#[test]
fn ignored_files_are_not_there() {
    let source = Dir::with(&[
        "top",
        "other",
        "src/app/main.c",
        "src/app/test.c",
        "src/x",
        "lib/a/b/one.h",
        "lib/a/b/one.c",
        "lib/two.h",
        "empty/f",
        "link -> other",
    ]);
    source.mode("src", 0o750);
    source.mode("src/app", 0o711);
    let tree = source.ignoring(&["*", "!src/app/main.c", "!lib/**/*.h", "!top", "!link"]);
    let base = Dir::new();
    cp(&["."], "/").run(&tree, &base);
    base.assert(&[
        "755 lib/",
        "755 lib/a/",
        "755 lib/a/b/",
        "644 lib/a/b/one.h \"one.h\"",
        "644 lib/two.h \"two.h\"",
        "link link -> other",
        "750 src/",
        "711 src/app/",
        "644 src/app/main.c \"main.c\"",
        "644 top \"top\"",
    ]);
    assert_eq!(copied(&tree, cp(&["src"], "/")), ["app/", "app/main.c \"main.c\""]);
    assert_eq!(
        copied(&tree, cp(&["[^l]*", "li[b]"], "/")).len(),
        7,
        "empty and other are not there to match"
    );
    assert_eq!(copied(&tree, cp(&["src/*/*.c"], "/x/")), ["x/", "x/main.c \"main.c\""]);
    for hidden in ["empty", "link", "src/x", "src/app/test.c"] {
        assert!(fails(cp(&[hidden], "/").try_run(&tree, &Dir::new())).contains("excluded"), "{hidden}");
    }
}

#[test]
fn excludes_are_relative_to_the_directory() {
    let source = Dir::with(&[
        "src/a.txt",
        "src/b.md",
        "src/sub/c.txt",
        "src/sub/d.md",
        "src/sub/deep/e.txt",
        "src/sub/deep/keep.txt",
    ]);
    let tree = source.local();
    let all = [
        "a.txt \"a.txt\"",
        "b.md \"b.md\"",
        "sub/",
        "sub/c.txt \"c.txt\"",
        "sub/d.md \"d.md\"",
        "sub/deep/",
        "sub/deep/e.txt \"e.txt\"",
        "sub/deep/keep.txt \"keep.txt\"",
    ];
    // patterns, indices of `all` that are left out
    let cases: &[(&[&str], &[usize])] = &[
        (&["*.txt"], &[0]),
        (&["**/*.txt"], &[0, 3, 6, 7]),
        (&["*.md", "sub/*.txt"], &[1, 3]),
        (&["sub"], &[2, 3, 4, 5, 6, 7]),
        (&["sub/deep/"], &[5, 6, 7]),
        (&["none"], &[]),
        (&["sub", "!sub/deep/keep.txt"], &[3, 4, 6]),
        (&["/sub/deep"], &[]),
    ];
    for (patterns, without) in cases {
        let expected: Vec<&str> = all
            .iter()
            .enumerate()
            .filter(|(index, _)| !without.contains(index))
            .map(|(_, line)| *line)
            .collect();
        assert_eq!(copied(&tree, cp(&["src"], "/").exclude(patterns)), expected, "{patterns:?}");
    }
    assert_eq!(
        copied(&tree, cp(&["src/a.txt"], "/").exclude(&["*.txt"])),
        ["a.txt \"a.txt\""],
        "as BuildKit: not a file itself"
    );
}

#[test]
fn parents_keep_the_path() {
    let source = Dir::with(&["x/a.txt", "x/other", "y/a.txt", "x/deep/er/f", "top", "to -> x", "l -> top"]);
    source.mode("x/deep", 0o750);
    source.mode("y", 0o711);
    let tree = source.local();
    let base = Dir::new();
    cp(&["./x/a.txt", "./y/a.txt"], "/kept/").parents().run(&tree, &base);
    cp(&["x/deep/er/f", "top"], "/kept2").parents().run(&tree, &base);
    cp(&["y/a.txt"], "/owned/").parents().chown("3:4").run(&tree, &base);
    base.assert(&[
        "755 kept/",
        "755 kept/x/",
        "644 kept/x/a.txt \"a.txt\"",
        "711 kept/y/",
        "644 kept/y/a.txt \"a.txt\"",
        "755 kept2/",
        "644 kept2/top \"top\"",
        "755 kept2/x/",
        "750 kept2/x/deep/",
        "755 kept2/x/deep/er/",
        "644 kept2/x/deep/er/f \"f\"",
        "755 3:4 owned/",
        "711 3:4 owned/y/",
        "644 3:4 owned/y/a.txt \"a.txt\"",
    ]);
    assert_eq!(
        copied(&tree, cp(&["x/deep"], "/d/").parents()),
        ["d/", "d/x/", "d/x/deep/", "d/x/deep/er/", "d/x/deep/er/f \"f\""]
    );
    assert_eq!(
        copied(&tree, cp(&["to/deep/er/f"], "/").parents()),
        ["to/", "to/deep/", "to/deep/er/", "to/deep/er/f \"f\""]
    );
    assert_eq!(copied(&tree, cp(&["l"], "/").parents()), ["l -> top"]);
}

#[test]
fn parents_know_double_stars_and_pivots() {
    let source = Dir::with(&[
        "src/a.txt",
        "src/x/b.txt",
        "src/x/y/c.txt",
        "src/x/y/d.md",
        "src/z/e.bin",
        "go.mod",
        "tools/gen/go.mod",
        "l -> src",
    ]);
    let tree = source.local();
    let cases: &[(&str, &[&str])] = &[
        (
            "src/**/*.txt",
            &[
                "src/",
                "src/a.txt \"a.txt\"",
                "src/x/",
                "src/x/b.txt \"b.txt\"",
                "src/x/y/",
                "src/x/y/c.txt \"c.txt\"",
            ],
        ),
        ("**/go.mod", &["go.mod \"go.mod\"", "tools/", "tools/gen/", "tools/gen/go.mod \"go.mod\""]),
        ("./src/./**/*.md", &["x/", "x/y/", "x/y/d.md \"d.md\""]),
        ("./src/./x/*.txt", &["x/", "x/b.txt \"b.txt\""]),
        ("/src/x/./y/c.txt", &["y/", "y/c.txt \"c.txt\""]),
        ("l/./x/y/d.md", &["x/", "x/y/", "x/y/d.md \"d.md\""]),
        ("s*/./z", &["z/", "z/e.bin \"e.bin\""]),
        ("src/z/./", &["e.bin \"e.bin\""]),
        ("**/nothing", &[]),
    ];
    for (path, expected) in cases {
        assert_eq!(copied(&tree, cp(&[path], "/").parents()), *expected, "{path}");
    }
    assert_eq!(copied(&tree, cp(&["**/nothing"], "/x/").parents()), ["x/"], "the destination alone");
    assert_eq!(copied(&tree, cp(&["no*/./nothing"], "/x/").parents()), [""; 0], "without a base nothing");
    assert_eq!(
        copied(&tree, cp(&["src/**/*.txt"], "/").parents().exclude(&["src/x"])),
        ["src/", "src/a.txt \"a.txt\""],
        "excludes are relative to the base"
    );
}
