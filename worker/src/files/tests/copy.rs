//! The rules of COPY, most of them cases of the conformance suite.

use super::*;

#[test]
fn a_file_goes_to_a_path_or_into_a_directory() {
    let source = Dir::with(&["in/a.txt", "in/b.txt", "tool.sh"]);
    source.mode("tool.sh", 0o750);
    let tree = source.local();
    let base = Dir::new();
    cp(&["in/a.txt"], "/made/by/slash/").run(&tree, &base);
    cp(&["in/b.txt"], "/made/by/slash").run(&tree, &base);
    cp(&["in/b.txt"], "/made/by").run(&tree, &base);
    cp(&["in/a.txt"], "/").run(&tree, &base);
    cp(&["in/b.txt"], "/made/.").run(&tree, &base);
    cp(&["tool.sh"], "/./one/./other.sh").run(&tree, &base);
    cp(&["tool.sh"], "/new/.").run(&tree, &base);
    cp(&["in/a.txt"], "/../../up").run(&tree, &base);
    base.assert(&[
        "644 a.txt \"a.txt\"",
        "755 made/",
        "644 made/b.txt \"b.txt\"",
        "755 made/by/",
        "644 made/by/b.txt \"b.txt\"",
        "755 made/by/slash/",
        "644 made/by/slash/a.txt \"a.txt\"",
        "644 made/by/slash/b.txt \"b.txt\"",
        "755 new/",
        "750 new/tool.sh \"tool.sh\"",
        "755 one/",
        "750 one/other.sh \"tool.sh\"",
        "644 up \"a.txt\"",
    ]);
}

#[test]
fn a_directory_means_its_content() {
    let source = Dir::with(&["d/f", "d/e/g", "d/empty/", "d/.hidden"]);
    source.mode("d/empty", 0o711);
    source.mode("d", 0o700);
    let tree = source.local();
    for (number, spelling) in
        ["d", "d/", "d/.", "./d", "/d/", "d/../d/", "../d", "/../../d"].iter().enumerate()
    {
        let base = Dir::new();
        cp(&[spelling], &format!("/{number}")).run(&tree, &base);
        let lines: Vec<String> =
            base.list().iter().map(|line| line.replace(&format!(" {number}/"), " ")).collect();
        assert_eq!(
            lines,
            ["755 ", "644 .hidden \".hidden\"", "755 e/", "644 e/g \"g\"", "711 empty/", "644 f \"f\""],
            "{spelling}"
        );
    }
    let base = Dir::new();
    cp(&["."], "/").run(&tree, &base);
    assert_eq!(base.list().first().map(String::as_str), Some("700 d/"));
}

#[test]
fn directories_are_merged_file_by_file() {
    let source = Dir::new();
    for (path, content) in [
        ("one/keep", "1"),
        ("one/both", "1"),
        ("one/sub/keep", "1"),
        ("one/sub/both", "1"),
        ("two/both", "2"),
        ("two/new", "2"),
        ("two/sub/both", "2"),
        ("two/sub/new", "2"),
    ] {
        source.write(path, content);
    }
    source.mode("one", 0o700);
    source.mode("two", 0o700);
    source.mode("one/sub", 0o750);
    source.mode("two/sub", 0o711);
    source.mode("two/both", 0o444);
    source.time("two", 1_000_000_000);
    source.time("two/sub", 1_100_000_000);
    let base = Dir::new();
    let tree = source.local();
    cp(&["one"], "/d").run(&tree, &base);
    cp(&["two"], "/d").run(&tree, &base);
    base.assert(&[
        "755 d/",
        "444 d/both \"2\"",
        "644 d/keep \"1\"",
        "644 d/new \"2\"",
        "711 d/sub/",
        "644 d/sub/both \"2\"",
        "644 d/sub/keep \"1\"",
        "644 d/sub/new \"2\"",
    ]);
    assert_eq!((base.mtime("d"), base.mtime("d/sub")), (1_000_000_000, 1_100_000_000));
}

#[test]
fn several_sources_in_one_copy() {
    let source = Dir::new();
    for (path, content) in
        [("a.txt", "a"), ("lib/x", "x"), ("lib/common", "1"), ("lib2/common", "2"), ("b.txt", "b")]
    {
        source.write(path, content);
    }
    let (base, tree) = (Dir::new(), source.local());
    cp(&["a.txt", "lib", "b.txt", "lib2/"], "/out/").run(&tree, &base);
    // BuildKit: no slash, so both are the file; the last one stays.
    cp(&["a.txt", "b.txt"], "/w").run(&tree, &base);
    base.assert(&[
        "755 out/",
        "644 out/a.txt \"a\"",
        "644 out/b.txt \"b\"",
        "644 out/common \"2\"",
        "644 out/x \"x\"",
        "644 w \"b\"",
    ]);
}

#[test]
fn a_file_replaces_files_with_mode_and_owner() {
    let source = Dir::with(&["one", "two"]);
    source.mode("one", 0o400);
    source.mode("two", 0o755);
    let (base, tree) = (Dir::new(), source.local());
    cp(&["one"], "/conf").chown("5:6").run(&tree, &base);
    base.assert(&["400 5:6 conf \"one\""]);
    cp(&["two"], "/conf").run(&tree, &base);
    base.assert(&["755 conf \"two\""]);
}

#[test]
fn owners_apply_to_all_that_is_made() {
    let source = Dir::with(&["a", "d/f", "d/sub/g", "d/link -> f"]);
    source.mode("d/sub", 0o750);
    let (base, tree) = (Dir::new(), source.local());
    cp(&["d"], "/both").chown("1234:5678").run(&tree, &base);
    cp(&["a"], "/user/only/a").chown("42").run(&tree, &base);
    cp(&["a"], "/user/").chown("0:7").run(&tree, &base);
    cp(&["a"], "/user/only/").chown("1:1").run(&tree, &base);
    base.assert(&[
        "755 1234:5678 both/",
        "644 1234:5678 both/f \"f\"",
        "link 1234:5678 both/link -> f",
        "750 1234:5678 both/sub/",
        "644 1234:5678 both/sub/g \"g\"",
        "755 42:42 user/",
        "644 0:7 user/a \"a\"",
        "755 42:42 user/only/",
        "644 1:1 user/only/a \"a\"",
    ]);
}

#[test]
fn owners_by_name_are_those_of_the_destination() {
    let source = Dir::with(&["a"]);
    let base = Dir::new();
    base.write("etc/passwd", "app:x:1000:1001::/:\n");
    base.write("etc/group", "extra:x:2000:\n");
    let tree = source.local();
    cp(&["a"], "/1").chown("app:extra").run(&tree, &base);
    cp(&["a"], "/2").chown("app").run(&tree, &base);
    cp(&["a"], "/3").chown("nosuch").run(&tree, &base);
    cp(&["a"], "/4").chown("app:nosuch").run(&tree, &base);
    let list = base.list();
    assert_eq!(
        list.get(..4),
        Some(
            &[
                "644 1000:2000 1 \"a\"".into(),
                "644 1000:1001 2 \"a\"".into(),
                "644 3 \"a\"".into(),
                "644 1000:1001 4 \"a\"".into()
            ][..]
        )
    );
    let error = fails(cp(&["a"], "/5").chown("99999999999").try_run(&tree, &base));
    assert_eq!(
        error,
        "cannot resolve owner: user or group number `99999999999` is out of range: at most 4294967294"
    );
}

#[test]
fn octal_modes_apply_to_all_that_is_made() {
    let source = Dir::with(&["a", "d/x", "d/s/y", "d/link -> x"]);
    source.mode("d/x", 0o600);
    let (base, tree) = (Dir::new(), source.local());
    cp(&["a"], "/exist/a").run(&tree, &base);
    cp(&["a"], "/made/deep/a").chmod("640").run(&tree, &base);
    cp(&["d"], "/d/").chmod("0755").run(&tree, &base);
    cp(&["d"], "/exist").chmod("700").run(&tree, &base);
    cp(&["a"], "/suid").chmod("4711").chown("3:4").run(&tree, &base);
    cp(&["a"], "/zero").chmod("0").run(&tree, &base);
    base.assert(&[
        "755 d/",
        "link d/link -> x",
        "755 d/s/",
        "755 d/s/y \"y\"",
        "755 d/x \"x\"",
        "755 exist/",
        "644 exist/a \"a\"",
        "link exist/link -> x",
        "700 exist/s/",
        "700 exist/s/y \"y\"",
        "700 exist/x \"x\"",
        "640 made/",
        "640 made/deep/",
        "640 made/deep/a \"a\"",
        "4711 3:4 suid \"a\"",
        "0 zero \"a\"",
    ]);
}

#[test]
fn special_bits_are_not_for_directories_on_the_way() {
    let source = Dir::with(&["a", "d/s/f"]);
    let (base, tree) = (Dir::new(), source.local());
    cp(&["a"], "/n1/n2/a").chmod("4755").run(&tree, &base);
    cp(&["d"], "/n3/d").chmod("3750").run(&tree, &base);
    base.assert(&[
        "755 n1/",
        "755 n1/n2/",
        "4755 n1/n2/a \"a\"",
        "750 n3/",
        "750 n3/d/",
        "3750 n3/d/s/",
        "3750 n3/d/s/f \"f\"",
    ]);
}

#[test]
fn directories_on_the_way_inherit_a_setgid_bit() {
    let source = Dir::with(&["a", "d/s/f"]);
    let (base, tree) = (Dir::with(&["shared/"]), source.local());
    base.owner("shared", 0, 7);
    base.mode("shared", 0o2775);
    cp(&["a"], "/shared/n/a").run(&tree, &base);
    cp(&["d"], "/shared/d").run(&tree, &base);
    cp(&["a"], "/shared/o/a").chown("3:4").run(&tree, &base);
    base.assert(&[
        "2775 0:7 shared/",
        "2755 0:7 shared/d/",
        "755 shared/d/s/",
        "644 shared/d/s/f \"f\"",
        "2755 0:7 shared/n/",
        "644 shared/n/a \"a\"",
        "2755 3:4 shared/o/",
        "644 3:4 shared/o/a \"a\"",
    ]);
}

#[test]
fn symbolic_modes_apply_to_each_entry() {
    let source = Dir::with(&["plain", "d/exec", "d/data", "d/sub/in"]);
    for (path, mode) in [("plain", 0o640), ("d/exec", 0o700), ("d/data", 0o600), ("d/sub", 0o750)] {
        source.mode(path, mode);
    }
    let (base, tree) = (Dir::new(), source.local());
    cp(&["d"], "/wide/").chmod("u=rwX,go=rX").run(&tree, &base);
    cp(&["d"], "/own/").chmod("go=").run(&tree, &base);
    cp(&["plain"], "/plus/f").chmod("+x").run(&tree, &base);
    base.assert(&[
        "755 own/",
        "600 own/data \"data\"",
        "700 own/exec \"exec\"",
        "700 own/sub/",
        "600 own/sub/in \"in\"",
        "755 plus/",
        "751 plus/f \"plain\"",
        "755 wide/",
        "644 wide/data \"data\"",
        "755 wide/exec \"exec\"",
        "755 wide/sub/",
        "644 wide/sub/in \"in\"",
    ]);
}

#[test]
fn modes_are_kept_bit_by_bit() {
    let source = Dir::with(&["suid", "sgid", "ro", "open", "sticky/f", "setgid/f", "rodir/f"]);
    for (path, mode) in [
        ("suid", 0o4755),
        ("sgid", 0o2750),
        ("ro", 0o400),
        ("open", 0o666),
        ("sticky", 0o1777),
        ("setgid", 0o2775),
        ("rodir", 0o555),
    ] {
        source.mode(path, mode);
    }
    let base = Dir::new();
    cp(&["."], "/").run(&source.local(), &base);
    base.assert(&[
        "666 open \"open\"",
        "400 ro \"ro\"",
        "555 rodir/",
        "644 rodir/f \"f\"",
        "2775 setgid/",
        "644 setgid/f \"f\"",
        "2750 sgid \"sgid\"",
        "1777 sticky/",
        "644 sticky/f \"f\"",
        "4755 suid \"suid\"",
    ]);
}

#[test]
fn a_context_loses_owners_and_attributes_a_stage_keeps_them() {
    let source = Dir::with(&["d/f", "d/link -> f", "d/sub/x"]);
    source.owner("d", 7, 7);
    source.owner("d/f", 1000, 2000);
    source.owner("d/link", 5, 6);
    source.owner("d/sub", 8, 9);
    source.mode("d/sub", 0o2711);
    source.mode("d/f", 0o4755);
    let root = source.root();
    let (dir, name) = root.parent_of(Path::new("d/f")).expect("a parent");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    at::set_xattr(&dir, &name, "security.capability".as_ref(), capability).expect("these tests need root");
    at::set_xattr(&dir, &name, "user.note".as_ref(), b"1").expect("xattrs in the temporary directory");
    let dir_fd = root.open_dir(Path::new("d")).expect("a directory");
    at::set_xattr(&dir_fd, "sub".as_ref(), "user.dir".as_ref(), b"2").expect("xattrs");
    let xattrs = |base: &Dir, path: &str| -> Vec<String> {
        let (dir, name) = base.root().parent_of(Path::new(path)).expect("a parent");
        at::xattrs(dir, &name)
            .expect("xattrs")
            .into_iter()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect()
    };

    let base = Dir::new();
    cp(&["d"], "/").run(&source.local(), &base);
    base.assert(&["4755 f \"f\"", "link link -> f", "2711 sub/", "644 sub/x \"x\""]);
    assert!(xattrs(&base, "f").is_empty() && xattrs(&base, "sub").is_empty());

    let base = Dir::new();
    cp(&["d"], "/kept").run(&source.snapshot(), &base);
    cp(&["d/f"], "/one/f").run(&source.snapshot(), &base);
    cp(&["d"], "/owned").chown("9:9").run(&source.snapshot(), &base);
    base.assert(&[
        "755 kept/",
        "4755 1000:2000 kept/f \"f\"",
        "link 5:6 kept/link -> f",
        "2711 8:9 kept/sub/",
        "644 kept/sub/x \"x\"",
        "755 one/",
        "4755 1000:2000 one/f \"f\"",
        "755 9:9 owned/",
        "4755 9:9 owned/f \"f\"",
        "link 9:9 owned/link -> f",
        "2711 9:9 owned/sub/",
        "644 9:9 owned/sub/x \"x\"",
    ]);
    for path in ["kept/f", "one/f", "owned/f"] {
        assert_eq!(xattrs(&base, path), ["security.capability", "user.note"], "{path}");
    }
    assert_eq!(xattrs(&base, "kept/sub"), ["user.dir"]);
}

#[test]
fn hard_links_stay_within_one_source() {
    let source = Dir::with(&["d/one", "d/sub/", "d/other"]);
    fs::hard_link(source.path("d/one"), source.path("d/two")).expect("a link");
    fs::hard_link(source.path("d/one"), source.path("d/sub/three")).expect("a link");
    fs::hard_link(source.path("d/other"), source.path("outside")).expect("a link");
    for tree in [source.local(), source.snapshot()] {
        let base = Dir::new();
        cp(&["d", "d/one"], "/d/").chmod("600").run(&tree, &base);
        base.assert(&[
            "600 d/",
            "600 d/one \"one\"",
            "600 d/other \"other\"",
            "600 d/sub/",
            "600 d/sub/three \"one\"",
            "600 d/two \"one\" = d/sub/three",
        ]);
        let base = Dir::new();
        cp(&["d"], "/d").run(&tree, &base);
        base.assert(&[
            "755 d/",
            "644 d/one \"one\"",
            "644 d/other \"other\"",
            "755 d/sub/",
            "644 d/sub/three \"one\" = d/one",
            "644 d/two \"one\" = d/one",
        ]);
    }
}

#[test]
fn special_files_are_kept() {
    use rustix::fs::FileType;
    let source = Dir::with(&["file"]);
    source.node("pipe", FileType::Fifo, 0o640, (0, 0));
    source.node("null", FileType::CharacterDevice, 0o666, (1, 3));
    source.node("disk", FileType::BlockDevice, 0o600, (7, 300));
    source.node("sock", FileType::Socket, 0o755, (0, 0));
    let base = Dir::new();
    cp(&["."], "/").run(&source.local(), &base);
    base.assert(&["600 disk b7:300", "644 file \"file\"", "666 null c1:3", "640 pipe pipe", "755 sock \"\""]);
    let base = Dir::new();
    cp(&["."], "/").run(&source.snapshot(), &base);
    base.assert(&[
        "600 disk b7:300",
        "644 file \"file\"",
        "666 null c1:3",
        "640 pipe pipe",
        "755 sock socket",
    ]);
    let base = Dir::new();
    cp(&["pipe"], "/p").run(&source.local(), &base);
    base.assert(&["640 p pipe"]);
    source.node("gone", FileType::CharacterDevice, 0o600, (0, 0));
    let error = fails(cp(&["."], "/").try_run(&source.local(), &Dir::new()));
    assert_eq!(error, "cannot make device `/gone`: a character device 0:0 can't be part of a layer");
}

#[test]
fn times_are_kept_and_made_directories_get_the_given_one() {
    let source = Dir::with(&["d/old", "d/sub/inner", "d/link -> old"]);
    for (path, time) in [
        ("d/old", 1_000_000_000),
        ("d/sub/inner", 1),
        ("d/link", 1_100_000_000),
        ("d/sub", 1_300_000_000),
        ("d", 1_200_000_000),
    ] {
        source.time(path, time);
    }
    let (base, tree) = (Dir::new(), source.local());
    cp(&["d"], "/way/to/d").created(77).run(&tree, &base);
    cp(&["d/old"], "/single").run(&tree, &base);
    cp(&["d/old"], "/other/single").run(&tree, &base);
    for (path, time) in [
        ("way", 77),
        ("way/to", 77),
        ("way/to/d", 1_200_000_000),
        ("way/to/d/old", 1_000_000_000),
        ("way/to/d/sub", 1_300_000_000),
        ("way/to/d/sub/inner", 1),
        ("way/to/d/link", 1_100_000_000),
        ("single", 1_000_000_000),
        ("other", NOW),
    ] {
        assert_eq!(base.mtime(path), time, "{path}");
    }
}

#[test]
fn links_in_the_destination_are_followed_inside_the_root() {
    let source = Dir::with(&["a", "d/x"]);
    let base = Dir::with(&[
        "data -> /srv",
        "srv/",
        "usr/rel -> ../opt/real",
        "opt/real/",
        "opt/file",
        "flink -> opt/file",
        "out -> ../../../../../opt/new/dir",
        "conf/a -> /opt/file",
    ]);
    let tree = source.local();
    cp(&["a"], "/data/").run(&tree, &base);
    cp(&["a"], "/data/named").run(&tree, &base);
    cp(&["d"], "/usr/rel").run(&tree, &base);
    cp(&["a"], "/flink").run(&tree, &base);
    cp(&["a"], "/out/").run(&tree, &base);
    // The name below a directory is replaced, not followed.
    cp(&["a"], "/conf").run(&tree, &base);
    base.assert(&[
        "755 conf/",
        "644 conf/a \"a\"",
        "link data -> /srv",
        "link flink -> opt/file",
        "755 opt/",
        "644 opt/file \"a\"",
        "755 opt/new/",
        "755 opt/new/dir/",
        "644 opt/new/dir/a \"a\"",
        "755 opt/real/",
        "644 opt/real/x \"x\"",
        "link out -> ../../../../../opt/new/dir",
        "755 srv/",
        "644 srv/a \"a\"",
        "644 srv/named \"a\"",
        "755 usr/",
        "link usr/rel -> ../opt/real",
    ]);
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let source = Dir::with(&["d/f", "e/f/x", "g/l/x"]);
    let base = Dir::with(&["etc/passwd", "f", "h/f/", "l -> etc"]);
    let tree = source.local();
    assert_eq!(
        fails(cp(&["d"], "/etc/passwd").try_run(&tree, &base)),
        "cannot copy directory `d` onto `/etc/passwd`, which is a regular file"
    );
    assert_eq!(
        fails(cp(&["e"], "/").try_run(&tree, &base)),
        "cannot copy directory `e/f` onto `/f`, which is a regular file"
    );
    assert_eq!(
        fails(cp(&["g"], "/").try_run(&tree, &base)),
        "cannot copy directory `g/l` onto `/l`, which is a symbolic link"
    );
    assert_eq!(
        fails(cp(&["d"], "/h").try_run(&tree, &base)),
        "cannot replace directory `/h/f` by `d/f`, which is no directory"
    );
    assert_eq!(fails(cp(&["d/f"], "/f/").try_run(&tree, &base)), "`/f` is a regular file, not a directory");
}

#[test]
fn link_replaces_what_is_in_the_way() {
    let source = Dir::with(&["a", "d/x", "d/y/z"]);
    source.mode("d/y", 0o710);
    let base = Dir::with(&["srv/", "data -> /srv", "tmp/keep", "root/", "opt/old", "f", "y/old/"]);
    base.mode("tmp", 0o1777);
    base.mode("root", 0o700);
    base.owner("root", 5, 5);
    let tree = source.local();
    cp(&["a"], "/data/a").link().run(&tree, &base);
    cp(&["a"], "/tmp/a").link().run(&tree, &base);
    cp(&["a"], "/root/sub/a").link().run(&tree, &base);
    cp(&["a"], "/opt").link().run(&tree, &base);
    cp(&["d"], "/f").link().run(&tree, &base);
    cp(&["a", "d"], "/two/").link().chown("3:4").run(&tree, &base);
    cp(&["d"], "/").link().run(&tree, &base);
    base.assert(&[
        "755 data/",
        "644 data/a \"a\"",
        "755 f/",
        "644 f/x \"x\"",
        "710 f/y/",
        "644 f/y/z \"z\"",
        "644 opt \"a\"",
        "755 root/",
        "755 root/sub/",
        "644 root/sub/a \"a\"",
        "755 srv/",
        "755 tmp/",
        "644 tmp/a \"a\"",
        "644 tmp/keep \"keep\"",
        "755 3:4 two/",
        "644 3:4 two/a \"a\"",
        "644 3:4 two/x \"x\"",
        "710 3:4 two/y/",
        "644 3:4 two/y/z \"z\"",
        "644 x \"x\"",
        "710 y/",
        "755 y/old/",
        "644 y/z \"z\"",
    ]);
}

#[test]
fn odd_names_are_copied_byte_by_byte() {
    let source = Dir::new();
    let names: [&[u8]; 10] = [
        b"with blank",
        b"quote'\"s",
        b"dollar$HOME",
        b"#hash",
        b"back\\slash",
        b"...",
        b"new\nline",
        b"not \xff\xfe utf-8",
        b"-dash",
        "日本".as_bytes(),
    ];
    for name in names {
        fs::write(source.0.path().join("d").join(std::ffi::OsStr::from_bytes(name)), name)
            .or_else(|_| {
                fs::create_dir_all(source.path("d"))?;
                fs::write(source.0.path().join("d").join(std::ffi::OsStr::from_bytes(name)), name)
            })
            .expect("a file");
    }
    let long = "n".repeat(255);
    let deep = format!("d/{}", vec!["l".repeat(100); 8].join("/"));
    source.write(&format!("d/{long}"), "long");
    source.write(&format!("{deep}/file"), "deep");
    let base = Dir::new();
    cp(&["d"], "/d").run(&source.local(), &base);
    for name in names {
        let path = base.0.path().join("d").join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(path).ok().as_deref(), Some(name), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(base.read(&format!("d/{long}")), "long");
    assert_eq!(base.read(&format!("{deep}/file")), "deep");
}

#[test]
fn large_and_sparse_files_are_copied_whole() {
    let source = Dir::new();
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    source.write("large", &large);
    let sparse = fs::File::create(source.path("sparse")).expect("a file");
    sparse.set_len(8 << 30).expect("a size");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 4 << 30).expect("data");
    let base = Dir::new();
    cp(&["."], "/").run(&source.local(), &base);
    assert_eq!(fs::read(base.path("large")).expect("content"), large);
    let copied = fs::metadata(base.path("sparse")).expect("metadata");
    assert_eq!(copied.len(), 8 << 30);
    assert!(copied.blocks() * 512 < 50 << 20, "{} blocks", copied.blocks());
    let mut middle = [0; 8];
    let file = fs::File::open(base.path("sparse")).expect("a file");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut middle, (4 << 30) - 1).expect("data");
    assert_eq!(&middle, b"\0middle\0");
}

#[test]
fn other_actions_make_and_remove() {
    let base = Dir::with(&["old/x", "link -> old", "there/"]);
    base.owner("there", 9, 9);
    base.write("etc/passwd", "app:x:1000:1000::/:\n");
    let owner = |user: &str| Some(Owner { user: user.into(), group: None });
    let make_dir =
        |path: &str, owner, created| FileAction::MakeDir { path: path.into(), mode: 0o755, owner, created };
    let make_file = |path: &str, mode, owner| FileAction::MakeFile {
        path: path.into(),
        mode,
        data: b"text\n".to_vec(),
        owner,
        created: Some(50),
    };
    run(
        vec![
            make_dir("/new/one", owner("app"), Some(60)),
            make_dir("/there/sub", owner("5"), None),
            make_dir("/link/through", None, None),
            make_file("/new/file", Mode::Bits(0o640), owner("3")),
            make_file("/link/x", Mode::Symbolic("a+x".into()), None),
            make_file("/far/away", Mode::Bits(0o4755), owner("3")),
        ],
        None,
        &base,
    )
    .expect("made");
    base.assert(&[
        "755 etc/",
        "644 etc/passwd \"app:x:1000:1000::/:\\n\"",
        "755 3:3 far/",
        "4755 3:3 far/away \"text\\n\"",
        "link link -> old",
        "755 1000:1000 new/",
        "640 3:3 new/file \"text\\n\"",
        "755 1000:1000 new/one/",
        "755 old/",
        "755 old/through/",
        "755 old/x \"text\\n\"",
        "755 9:9 there/",
        "755 5:5 there/sub/",
    ]);
    assert_eq!(
        (base.mtime("new"), base.mtime("new/one"), base.mtime("new/file"), base.mtime("there/sub")),
        (60, 60, 50, NOW)
    );
    let remove = |path: &str, allow_missing| FileAction::Remove { path: path.into(), allow_missing };
    run(vec![remove("/new", false), remove("/link", false), remove("/nothing/at/all", true)], None, &base)
        .expect("removed");
    assert!(!base.path("new").exists() && base.path("old/x").exists() && !base.path("link").is_symlink());
    assert_eq!(
        fails(run(vec![remove("/nothing", false)], None, &base)),
        "cannot remove `/nothing`: not found"
    );
    assert_eq!(
        fails(run(vec![make_dir("/etc/passwd/x", None, None)], None, &base)),
        "`/etc/passwd` is a regular file, not a directory"
    );
    assert_eq!(
        fails(run(vec![make_file("/etc", Mode::Bits(0o644), None)], None, &base)),
        "cannot replace directory `/etc` by `/etc`, which is no directory"
    );
    assert_eq!(fails(run(vec![cp(&["a"], "/").action()], None, &base)), "file operation has no input 0");
}

#[test]
fn a_mount_shows_what_is_not_ignored() {
    let source = Dir::with(&["f", "sub/x", "sub/y", "link -> sub", "secret"]);
    source.mode("sub", 0o750);
    source.owner("f", 5, 5);
    let tree = source.ignoring(&["secret", "sub/y"]);
    let base = Dir::new();
    assert_eq!(materialise(&tree, "/", &base.root()).expect("a mount"), Path::new(""));
    base.assert(&["644 f \"f\"", "link link -> sub", "750 sub/", "644 sub/x \"x\""]);
    let base = Dir::new();
    assert_eq!(materialise(&tree, "../../link", &base.root()).expect("a mount"), Path::new(""));
    base.assert(&["644 x \"x\""]);
    assert_eq!(fs::metadata(base.0.path()).expect("metadata").mode() & 0o777, 0o750);
    let base = Dir::new();
    assert_eq!(materialise(&tree, "/sub/../f", &base.root()).expect("a mount"), Path::new("f"));
    base.assert(&["644 f \"f\""]);
    let error = materialise(&tree, "sub/nothere", &base.root()).map(drop);
    assert_eq!(fails(error), "`sub/nothere` not found in the context");
}
