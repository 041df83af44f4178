//! Tables of what Go's `filepath.Match` and `moby/patternmatcher` say, and a slow reference to compare with.

use proptest::prelude::*;

use super::*;

#[test]
fn globs_match_whole_names() {
    let cases = [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "abc", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("a*??b", "a☺b", false),
        ("*[\u{80}-\u{fffd}]?", "☺", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "x", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "a", false),
        ("*x", "xxx", true),
        ("[[]1", "[1", true),
        ("", "", true),
        ("", "a", false),
        ("a]", "a]", true),
        ("**", "ab", true),
        ("**", "a/b", false),
        ("a**b", "axxb", true),
        ("*/*", "a/b", true),
        ("dis[t]", "dist", true),
        ("*?", "é", true),
    ];
    for (pattern, name, expected) in cases {
        assert_eq!(glob_match(pattern, name), Ok(expected), "{pattern} on {name}");
    }
}

#[test]
fn malformed_globs_are_named() {
    for pattern in
        ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "\\", "a\\", "[a-b-c]", "a*[", "[\\"]
    {
        assert_eq!(glob_match(pattern, "a"), Err(PatternError::Syntax(pattern.to_owned())), "{pattern}");
        assert_eq!(
            Patterns::new(&[pattern]).err(),
            Some(PatternError::Syntax(pattern.to_owned())),
            "{pattern}"
        );
    }
    assert_eq!(Patterns::new(&["!"]).err(), Some(PatternError::EmptyException));
}

#[test]
fn only_unescaped_wildcards_count() {
    let cases = [
        ("a", false),
        ("a*", true),
        ("a?", true),
        ("[a", true),
        ("a]", false),
        ("a\\*", false),
        ("a\\\\*", true),
        ("a\\", false),
    ];
    for (pattern, expected) in cases {
        assert_eq!(has_wildcards(pattern), expected, "{pattern}");
    }
}

#[test]
fn names_need_not_be_utf8() {
    assert_eq!(glob_match("a?b", b"a\xffb"), Ok(true));
    assert_eq!(glob_match("a*", b"a\xff\xfe"), Ok(true));
    assert_eq!(glob_match("a[^x]b", b"a\xe2b"), Ok(true));
    assert!(Patterns::new(&["**/b\u{fffd}"]).is_ok_and(|list| !list.matches(b"b\xff")));
}

#[test]
fn paths_are_cleaned() {
    let cases = [
        ("", "."),
        (".", "."),
        ("./", "."),
        ("/", "/"),
        ("//a//b/", "/a/b"),
        ("a/./b/../c", "a/c"),
        ("a/..", "."),
        ("../../a", "../../a"),
        ("/../../a", "/a"),
        ("a/../../b", "../b"),
        ("a", "a"),
    ];
    for (path, expected) in cases {
        assert_eq!(clean(path), expected, "{path}");
    }
}

#[test]
fn lists_match_as_dockerignore_does() {
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        // patterns, what they match, what they don't
        (&["**"], &["file", "file/", "a/b", "/"], &[]),
        (&["**/"], &["file", "dir/file"], &[]),
        (&["**/**"], &["file", "dir/file"], &[]),
        (&["dir/**"], &["dir/file", "dir/dir2/file"], &["dir", "dirx/file"]),
        (&["**/dir"], &["dir", "dir/file", "x/dir", "x/dir/file"], &["xdir", "dirx"]),
        (&["**/dir2/*"], &["dir/dir2/file", "dir/dir2/dir2/file", "dir2/x"], &["dir2", "dir/dir2"]),
        (&["**/dir2/**"], &["dir/dir2/dir3/file", "dir2/x"], &["dir2"]),
        (&["**file"], &["file", "dir/file", "afile", "dir/dirafile"], &["filex"]),
        (&["**/file"], &["file", "dir/file", "dir/dir/file", "dir/file/x"], &["afile", "dir/afile"]),
        (&["**/file*"], &["file.txt", "dir/file.txt", "dir/dir/file"], &["dir/afile"]),
        (&["**/**/*.txt"], &["dir/dir/file.txt", "file.txt"], &["file.txtx"]),
        (&["a**/*.txt"], &["a/file.txt", "a/dir/file.txt", "afile.txt"], &["file.txt", "b/file.txt"]),
        (&["a/*.txt"], &["a/file.txt"], &["a/dir/file.txt"]),
        (&["a[b-d]e"], &["ace", "ace/x"], &["ae", "aae"]),
        (&["a[^b-d]e"], &["aze"], &["ace"]),
        (&["a.b"], &["a.b"], &["axb"]),
        (&["a\\*b"], &["a*b"], &["axb"]),
        (&[".*"], &[".foo", ".foo/x"], &["foo", "a/.foo"]),
        (&["abc.def"], &["abc.def"], &["abcdef", "abcZdef"]),
        (&["(x)|{1}+$^"], &["(x)|{1}+$^"], &["x"]),
        (&["/node_modules", "/**"], &[], &["node_modules", "node_modules/a", "x/node_modules"]),
        (&["./a/../b/"], &["b", "b/c"], &["a"]),
        (&["."], &[], &["a", "a/b"]),
        (&["/"], &[], &["a"]),
        (&["..", "../a"], &[], &["a"]),
        (&["", "  ", " a "], &["a"], &["b"]),
        (&["!b"], &[], &["a", "b"]),
        (&["*", "!b"], &["a", "a/b"], &["b", "b/c"]),
        (&["!b", "*"], &["a", "b"], &[]),
        (&["*", "! b/ "], &["a"], &["b"]),
        (&["docs", "!docs/README.md"], &["docs", "docs/a"], &["docs/README.md"]),
        (&["docs", "!docs/README.md", "docs/R*"], &["docs/README.md"], &["a"]),
        (&["keep", "!keep/deep"], &["keep/x", "keep"], &["keep/deep", "keep/deep/x"]),
        (
            &["temp?", "*.log", "sub/skip", "build", "*/cache", "[xy].bin"],
            &["temp1", "a.log", "sub/skip/f", "build/x/y", "sub/cache/f", "x.bin"],
            &["temp12", "sub/a.log", "sub/deep/cache/f", "sub/build/f", "z.bin"],
        ),
        (
            &["*.md", "!README*.md", "README-secret.md", "!nothing", "data", "!data/keep", "data/keep/not"],
            &["a.md", "README-secret.md", "data/drop", "data/keep/not"],
            &["README.md", "README-public.md", "data/keep/yes", "data/keep"],
        ),
        (
            &["*", "!src/app/main.c", "!lib/**/*.h", "!top"],
            &["other", "src/app/test.c", "src/x", "lib/a/b/one.c", "empty/f"],
            &["top", "src/app/main.c", "lib/a/b/one.h", "lib/two.h"],
        ),
        (
            &["**/*.pyc", "**/node_modules", "docs/**/draft.md", "logs/**"],
            &[
                "a.pyc",
                "pkg/sub/b.pyc",
                "node_modules/m",
                "app/node_modules/m/index.js",
                "docs/draft.md",
                "docs/a/b/draft.md",
                "logs/one",
                "logs/old/two",
            ],
            &["a.py", "app/index.js", "docs/a/final.md", "logs"],
        ),
    ];
    for (patterns, matching, others) in cases {
        let list = Patterns::new(patterns).expect("patterns");
        for path in *matching {
            assert!(list.matches(path), "{patterns:?} should match {path}");
        }
        for path in *others {
            assert!(!list.matches(path), "{patterns:?} should not match {path}");
        }
    }
}

#[test]
fn the_deciding_pattern_is_known() {
    let list = Patterns::new(&["*.txt", "!a.txt", "a.*"]).expect("patterns");
    assert_eq!(list.matched_by("b.txt"), Some("*.txt"));
    assert_eq!(list.matched_by("a.txt"), Some("a.*"));
    assert_eq!(list.matched_by("c"), None);
}

#[test]
fn ignore_files_lose_comments_and_blanks() {
    let text = "\u{feff}# a comment\r\n#a\n\n   b   \n #hash\nwith blank\n/rooted/\n! /x//y \n!\n";
    assert_eq!(read_ignore_file(text), ["b", "#hash", "with blank", "rooted", "!x/y", "!"]);
    let rooted = Patterns::new(&read_ignore_file("/node_modules\n/\n")).expect("patterns");
    assert!(rooted.matches("node_modules/a") && !rooted.matches("x/node_modules"));
}

#[test]
fn directories_without_exceptions_below_can_be_left_out() {
    let cases = [
        (&["a", "!b/c"][..], "a", false),
        (&["a", "!a/c"], "a", true),
        (&["a", "!a/c/d"], "a/c", true),
        (&["a", "!a/c/d"], "a/x", false),
        (&["*", "!**/*.h"], "x/y", true),
        (&["*", "!lib/**/*.h"], "lib/x", true),
        (&["*", "!lib/**/*.h"], "other", false),
        (&["*", "!a*/b"], "abc", true),
        (&["*", "!a*/b"], "abc/d", false),
        (&["*", "!a?c/b"], "abc", true),
        (&["*", "!abc"], "abc", false),
        (&["*", "!ab[c]/x"], "abc", true),
        (&["*"], "abc", false),
    ];
    for (patterns, dir, expected) in cases {
        let list = Patterns::new(patterns).expect("patterns");
        assert_eq!(list.could_reinclude_below(dir), expected, "{patterns:?} below {dir}");
    }
}

#[test]
fn hostile_patterns_take_bounded_time() {
    let pattern = "*a".repeat(200);
    assert_eq!(glob_match(&pattern, "a".repeat(4000) + "b"), Ok(false));
    let list = Patterns::new(&["**/*a".repeat(200) + "c"]).expect("a pattern");
    assert!(!list.matches("a/".repeat(1000) + "b"));
}

/// What `moby/patternmatcher` does, by the letter: each pattern against the path and each parent, the last one wins.
fn reference(patterns: &[String], path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    let mut matched = false;
    for pattern in patterns {
        let (exception, text) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let text = clean(text);
        let hit = (1..=names.len())
            .any(|count| names.get(..count).is_some_and(|names| slow(&text, &names.join("/"))));
        if hit {
            matched = !exception;
        }
    }
    matched
}

/// Backtracking over characters, with nothing compiled.
fn slow(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        if rest.is_empty() || rest == "/" {
            return true;
        }
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        return slow(rest, path)
            || path
                .match_indices('/')
                .any(|(at, _)| path.get(at + 1..).is_some_and(|path| slow(rest, path)));
    }
    let mut chars = pattern.chars();
    let Some(first) = chars.next() else { return path.is_empty() };
    let rest = chars.as_str();
    let mut path_chars = path.chars();
    match (first, path_chars.next()) {
        ('*', None) => slow(rest, path),
        ('*', Some(c)) => slow(rest, path) || (c != '/' && slow(pattern, path_chars.as_str())),
        (_, None) => false,
        ('?', Some(c)) => c != '/' && slow(rest, path_chars.as_str()),
        (first, Some(c)) => first == c && slow(rest, path_chars.as_str()),
    }
}

fn any_pattern() -> impl Strategy<Value = String> {
    let name = prop_oneof![3 => "[abc]{1,3}", 1 => Just("*".to_owned()), 1 => Just("?".to_owned()), 1 => "[abc?*]{1,3}", 1 => Just("**".to_owned())];
    (any::<bool>(), proptest::collection::vec(name, 1..4))
        .prop_map(|(exception, names)| format!("{}{}", if exception { "!" } else { "" }, names.join("/")))
        // `**name` is a case of its own, see above.
        .prop_filter("a suffix pattern", |pattern| {
            let text = pattern.trim_start_matches('!');
            !(text.starts_with("**") && !text.starts_with("**/") && text != "**")
        })
}

proptest! {
    #[test]
    fn lists_agree_with_the_reference(
        patterns in proptest::collection::vec(any_pattern(), 0..5),
        path in proptest::collection::vec("[abc]{1,3}", 1..5),
    ) {
        let list = Patterns::new(&patterns).expect("patterns");
        let path = path.join("/");
        prop_assert_eq!(list.matches(&path), reference(&patterns, &path), "{:?} on {}", patterns, path);
    }

    #[test]
    fn exceptions_are_never_missed(
        patterns in proptest::collection::vec(any_pattern(), 0..5),
        path in proptest::collection::vec("[abc]{1,3}", 2..5),
    ) {
        let list = Patterns::new(&patterns).expect("patterns");
        let (dir, full) = (path.get(..path.len() - 1).unwrap_or_default().join("/"), path.join("/"));
        if list.matches(&dir) && !list.matches(&full) {
            prop_assert!(list.could_reinclude_below(&dir), "{:?} below {}", patterns, dir);
        }
        if !list.matches(&dir) && list.matches(&full) {
            prop_assert!(list.could_match_below(&dir), "{:?} below {}", patterns, dir);
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(pattern in any::<String>(), path in any::<Vec<u8>>()) {
        if let Ok(list) = Patterns::new(&[pattern.as_str()]) {
            list.matches(&path);
            list.could_reinclude_below(&path);
        }
        if let Ok(glob) = Glob::new(&pattern) {
            glob.matches(&path);
        }
        let _ = crate::mode::parse_flag(&pattern);
    }
}
