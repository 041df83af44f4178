//! What a tree is packed to.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::FileType;

use super::roundtrip::{mknod, set_xattr};
use crate::layer::pack::pack_with;
use crate::layer::tar::TarReader;
use crate::layer::{LayerError, PackOptions, content_digest, pack};
use crate::store::Compression;

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(tar);
    std::iter::from_fn(|| reader.next_entry().unwrap())
        .map(|entry| String::from_utf8(entry.path).unwrap())
        .collect()
}

const PLAIN: PackOptions = PackOptions { compression: Compression::None, level: None, clamp: None };

#[test]
fn an_empty_tree_is_an_empty_tar() {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut tar = Vec::new();
    let packed = pack(tree.path(), &mut tar, &PLAIN, &|_| {}).unwrap();
    assert_eq!(tar, [0; 1024]);
    assert_eq!(packed.tar_size, 1024);
    // What everybody calls the empty layer.
    assert_eq!(
        packed.diff_id.to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn parents_come_first_and_the_root_only_if_it_is_special() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    fs::create_dir_all(at("b/c")).unwrap();
    fs::write(at("b/c/f"), "").unwrap();
    fs::write(at("b-a"), "").unwrap();
    mknod(&at("b/gone"), FileType::CharacterDevice, (0, 0));
    set_xattr(&at("b"), "trusted.overlay.opaque", b"y");
    set_xattr(&at("b"), "trusted.overlay.origin", b"x");
    fs::write(at("x"), "").unwrap();
    set_xattr(&at("x"), "trusted.overlay.whiteout", b"");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let list = || {
        let mut tar = Vec::new();
        pack(tree.path(), &mut tar, &PLAIN, &|_| {}).unwrap();
        names(&tar).join(" ")
    };
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(list(), "b/ b/.wh..wh..opq b/c/ b/c/f b/.wh.gone b-a .wh.x");
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(list().starts_with("./ b/ "));
}

#[test]
fn sockets_are_left_out() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "").unwrap();
    let before = content_digest(tree.path()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    let mut tar = Vec::new();
    pack(tree.path(), &mut tar, &PLAIN, &|_| {}).unwrap();
    assert_eq!(names(&tar), ["file"]);
    assert_eq!(content_digest(tree.path()).unwrap(), before);
}

#[test]
fn what_no_layer_can_hold_is_named() {
    let fails = |make: &dyn Fn(&std::path::Path)| {
        let tree = tempfile::tempdir().unwrap();
        make(tree.path());
        let error = pack(tree.path(), &mut io::sink(), &PLAIN, &|_| {}).unwrap_err().to_string();
        error.replace(&tree.path().display().to_string(), "TREE")
    };
    insta::assert_snapshot!(fails(&|tree| fs::write(tree.join(".wh.x"), "").unwrap()), @"`TREE/.wh.x` cannot be part of a layer: its name begins with `.wh.`, which stands for a removed file there");
    insta::assert_snapshot!(fails(&|tree| {
        fs::create_dir(tree.join("moved")).unwrap();
        set_xattr(&tree.join("moved"), "trusted.overlay.redirect", b"/old");
    }), @"`TREE/moved` cannot be part of a layer: overlayfs keeps its content in another layer (redirect or metacopy)");
}

#[test]
fn a_file_that_grows_while_it_is_read_is_named() {
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("log");
    fs::write(&file, vec![b'x'; 5 << 20]).unwrap();
    // Progress is told after each block: here in the middle of the file.
    let grow = |_| fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
    let error = pack(tree.path(), &mut io::sink(), &PLAIN, &grow).unwrap_err();
    assert!(matches!(&error, LayerError::Changed { path } if *path == file), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_failing_writer_is_the_error_that_is_told() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = PackOptions { compression, ..PLAIN };
        let error = pack_with(&mut Full(1000), &options, &|_| {}, |sink| {
            (0..200_000_u64).try_for_each(|number| {
                sink.push(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(8))
            })
        });
        assert!(
            matches!(&error, Err(LayerError::Write(source)) if source.kind() == io::ErrorKind::StorageFull),
            "{error:?}"
        );
    }
}

#[test]
fn times_are_clamped() {
    let tree = tempfile::tempdir().unwrap();
    for (name, seconds) in [("old", 1000), ("new", 2_000_000_000), ("ancient", -5)] {
        let file = fs::File::create(tree.path().join(name)).unwrap();
        crate::root::at::fset_mtime(&file, (seconds, 999)).unwrap();
    }
    let mut tar = Vec::new();
    pack(tree.path(), &mut tar, &PackOptions { clamp: Some(5000), ..PLAIN }, &|_| {}).unwrap();
    let mut reader = TarReader::new(&*tar);
    let times: Vec<_> = std::iter::from_fn(|| reader.next_entry().unwrap())
        .filter(|entry| !entry.path.starts_with(b"./"))
        .map(|entry| entry.mtime)
        .collect();
    assert_eq!(times, [(-5, 0), (5000, 0), (1000, 0)]);
}

/// Golden: this digest is part of cache keys that people have on disk. If it changes, the version in the encoding
/// must change with it.
#[test]
fn content_digests_are_pinned() {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    insta::assert_snapshot!(content_digest(tree.path()).unwrap(), @"sha256:fef21af3cfdef4f250c185ddf1fc2d499a152f2d0aac389118481cd2c96c328e");
    fs::create_dir(at("d")).unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("d/f"), "content").unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(at("d/f"), at("d/g")).unwrap();
    std::os::unix::fs::symlink("d", at("l")).unwrap();
    mknod(&at("w"), FileType::CharacterDevice, (0, 0));
    set_xattr(&at("d"), "trusted.overlay.opaque", b"y");
    set_xattr(&at("d/f"), "user.a", b"b");
    insta::assert_snapshot!(content_digest(tree.path()).unwrap(), @"sha256:1c7380406c7261c67fbb874d06c44fe71e59c9e7318ffe2178d31b0b6f9bbc2b");
}

/// Each of these changes the content digest; times, inode numbers and overlayfs's notes do not.
#[test]
fn content_digests_see_what_a_layer_holds() {
    use std::os::unix::fs::chown;
    type Change = (&'static str, fn(&std::path::Path));
    let make = |change: Option<&Change>| {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/f"), "content").unwrap();
        fs::write(at("d/g"), "content").unwrap();
        if let Some((_, change)) = change {
            change(tree.path());
        }
        content_digest(tree.path()).unwrap()
    };
    let plain = make(None);
    let same: [Change; 3] = [
        ("time", |tree| {
            crate::root::at::fset_mtime(fs::File::open(tree.join("d/f")).unwrap(), (5, 5)).unwrap()
        }),
        ("inode", |tree| {
            fs::rename(tree.join("d/f"), tree.join("x")).unwrap();
            fs::copy(tree.join("x"), tree.join("d/f")).map(drop).unwrap();
            fs::remove_file(tree.join("x")).unwrap();
        }),
        ("notes", |tree| set_xattr(&tree.join("d"), "trusted.overlay.impure", b"y")),
    ];
    for change in &same {
        assert_eq!(make(Some(change)), plain, "{}", change.0);
    }
    let differ: [Change; 11] = [
        ("content", |tree| fs::write(tree.join("d/f"), "Content").unwrap()),
        ("mode", |tree| fs::set_permissions(tree.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("setuid", |tree| fs::set_permissions(tree.join("d/f"), fs::Permissions::from_mode(0o4644)).unwrap()),
        ("owner", |tree| chown(tree.join("d/f"), Some(1), None).unwrap()),
        ("group", |tree| chown(tree.join("d/f"), None, Some(1)).unwrap()),
        ("xattr", |tree| set_xattr(&tree.join("d/f"), "user.a", b"")),
        ("name", |tree| fs::rename(tree.join("d/f"), tree.join("d/e")).unwrap()),
        ("opaque", |tree| set_xattr(&tree.join("d"), "trusted.overlay.opaque", b"y")),
        ("whiteout", |tree| mknod(&tree.join("w"), FileType::CharacterDevice, (0, 0))),
        ("hard link", |tree| {
            fs::remove_file(tree.join("d/g")).unwrap();
            fs::hard_link(tree.join("d/f"), tree.join("d/g")).unwrap();
        }),
        ("type", |tree| {
            fs::remove_file(tree.join("d/g")).unwrap();
            std::os::unix::fs::symlink("content", tree.join("d/g")).unwrap();
        }),
    ];
    let mut seen = std::collections::HashSet::from([plain]);
    for change in &differ {
        assert!(seen.insert(make(Some(change))), "{}", change.0);
    }
}
