//! ADD of archives.

use std::io::Write;

use tar::{Builder, EntryType, Header};

use super::*;

/// An archive that is being written.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, name: &str, kind: EntryType, mode: u32, owner: (u64, u64), text: &str) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_234_567_890);
        let linked = matches!(kind, EntryType::Symlink | EntryType::Link);
        header.set_size(if linked { 0 } else { text.len() as u64 });
        let written = if linked {
            self.0.append_link(&mut header, name, text)
        } else {
            self.0.append_data(&mut header, name, text.as_bytes())
        };
        written.expect("an entry");
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.entry(name, EntryType::Regular, 0o644, (0, 0), text)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("an archive")
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn archives_are_unpacked_by_their_content() {
    let source = Dir::new();
    let archive = |name: &str| Archive::new().file(name, name).file(&format!("sub/{name}"), name).bytes();
    source.write("plain", archive("plain"));
    source.write("gz.txt", compressed(&archive("gz")));
    let (base, tree) = (Dir::new(), source.local());
    cp(&["plain", "gz.txt"], "/all").add().run(&tree, &base);
    cp(&["gz.txt"], "/named.txt").add().run(&tree, &base);
    cp(&["plain"], "/copied").run(&tree, &base);
    assert_eq!(fs::read(base.path("copied")).expect("a file"), archive("plain"));
    fs::remove_file(base.path("copied")).expect("removed");
    base.assert(&[
        "755 all/",
        "644 all/gz \"gz\"",
        "644 all/plain \"plain\"",
        "755 all/sub/",
        "644 all/sub/gz \"gz\"",
        "644 all/sub/plain \"plain\"",
        "755 named.txt/",
        "644 named.txt/gz \"gz\"",
        "755 named.txt/sub/",
        "644 named.txt/sub/gz \"gz\"",
    ]);
}

#[test]
fn files_that_are_no_archives_are_copied() {
    let source = Dir::with(&["text.tar.gz", "dir/f"]);
    source.write("empty.tar", "");
    source.write("notes.gz", compressed(b"hello"));
    source.write("zip.zip", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    source.write("dir/inner.tar", Archive::new().file("f", "f").bytes());
    let (base, tree) = (Dir::new(), source.local());
    cp(&["text.tar.gz", "empty.tar", "notes.gz", "zip.zip"], "/out/").add().run(&tree, &base);
    cp(&["text.tar.gz"], "/renamed").add().run(&tree, &base);
    cp(&["dir"], "/dir/").add().run(&tree, &base);
    assert_eq!(base.read("out/text.tar.gz"), "text.tar.gz");
    assert_eq!(base.read("out/empty.tar"), "");
    assert_eq!(fs::read(base.path("out/notes.gz")).ok(), Some(compressed(b"hello")));
    assert_eq!(base.read("renamed"), "text.tar.gz");
    assert!(base.path("dir/inner.tar").is_file());
}

#[test]
fn an_archive_keeps_its_metadata_and_a_chown_replaces_its_owners() {
    let source = Dir::new();
    let archive = Archive::new()
        .entry("./", EntryType::Directory, 0o700, (5, 5), "")
        .entry("./dir/", EntryType::Directory, 0o2750, (11, 12), "")
        .entry("./dir/in", EntryType::Regular, 0o644, (1000, 2000), "in")
        .entry("./f", EntryType::Regular, 0o4755, (0, 0), "f")
        .entry("./hard", EntryType::Link, 0o644, (1000, 2000), "./dir/in")
        .entry("./sym", EntryType::Symlink, 0o777, (9, 9), "dir/in")
        .entry("./pipe", EntryType::Fifo, 0o620, (0, 0), "");
    source.write("t.tar", archive.bytes());
    let tree = source.local();
    let base = Dir::with(&["tmp/"]);
    base.mode("tmp", 0o1777);
    cp(&["t.tar"], "/x/y").add().created(77).run(&tree, &base);
    cp(&["t.tar"], "/tmp").add().chown("7:8").run(&tree, &base);
    base.assert(&[
        "1777 tmp/",
        "2750 7:8 tmp/dir/",
        "644 7:8 tmp/dir/in \"in\"",
        "4755 7:8 tmp/f \"f\"",
        "644 7:8 tmp/hard \"in\" = tmp/dir/in",
        "620 7:8 tmp/pipe pipe",
        "link 7:8 tmp/sym -> dir/in",
        "755 x/",
        "755 x/y/",
        "2750 11:12 x/y/dir/",
        "644 1000:2000 x/y/dir/in \"in\"",
        "4755 x/y/f \"f\"",
        "644 1000:2000 x/y/hard \"in\" = x/y/dir/in",
        "620 x/y/pipe pipe",
        "link 9:9 x/y/sym -> dir/in",
    ]);
    assert_eq!(
        (base.mtime("x/y/f"), base.mtime("x/y/dir"), base.mtime("x")),
        (1_234_567_890, 1_234_567_890, 77)
    );
}

#[test]
fn a_chmod_is_not_for_archives() {
    let source = Dir::new();
    source.write("t.tar", Archive::new().file("f", "f").bytes());
    let (base, tree) = (Dir::new(), source.local());
    cp(&["t.tar"], "/x/y").add().chmod("700").chown("7:8").run(&tree, &base);
    base.assert(&["755 7:8 x/", "755 7:8 x/y/", "644 7:8 x/y/f \"f\""]);
}

#[test]
fn an_archive_replaces_files_and_merges_directories() {
    let source = Dir::new();
    let archive = Archive::new()
        .entry("dir", EntryType::Directory, 0o711, (21, 0), "")
        .entry("dir/f", EntryType::Regular, 0o600, (0, 0), "new")
        .file("link", "a file now")
        .entry("gone", EntryType::Symlink, 0o777, (0, 0), "elsewhere");
    source.write("t.tar", archive.bytes());
    let base = Dir::with(&["x/dir/f", "x/dir/stay", "x/target", "x/link -> target", "x/gone", "file"]);
    let tree = source.local();
    cp(&["t.tar"], "/x").add().run(&tree, &base);
    base.assert(&[
        "644 file \"file\"",
        "755 x/",
        "711 21:0 x/dir/",
        "600 x/dir/f \"new\"",
        "644 x/dir/stay \"stay\"",
        "link x/gone -> elsewhere",
        "644 x/link \"a file now\"",
        "644 x/target \"target\"",
    ]);
    assert_eq!(
        fails(cp(&["t.tar"], "/file").add().try_run(&tree, &base)),
        "`/file` is a regular file, not a directory"
    );
}

#[test]
fn an_archive_stays_inside_the_root() {
    let outside = Dir::with(&["target/"]);
    let source = Dir::new();
    let archive = Archive::new()
        .entry("var/run", EntryType::Symlink, 0o777, (0, 0), "/run")
        .file("var/run/app/pid", "1")
        .file("data/through", "t")
        .entry("up", EntryType::Symlink, 0o777, (0, 0), "../../../../srv")
        .file("up/upfile", "u")
        .file("out/evil", "e");
    source.write("t.tar", archive.bytes());
    let base = Dir::with(&["srv/", "run/", "data -> /srv"]);
    symlink(outside.path("target"), base.path("out")).expect("a link");
    cp(&["t.tar"], "/").add().run(&source.local(), &base);
    assert_eq!(
        (base.read("srv/through"), base.read("srv/upfile"), base.read("run/app/pid")),
        ("t".into(), "u".into(), "1".into())
    );
    outside.assert(&["755 target/"]);
}

#[test]
fn a_broken_archive_is_named() {
    let source = Dir::new();
    let mut bytes = Archive::new().file("a", "a").file("b", "b").bytes();
    bytes.truncate(1100);
    source.write("t.tar", bytes);
    let error = fails(cp(&["t.tar"], "/x/").add().try_run(&source.local(), &Dir::new()));
    assert!(error.starts_with("cannot unpack `t.tar`: "), "{error}");
}
