//! What becomes of sound archives.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::roundtrip::{mknod, set_xattr};
use super::support::{NONE, Tar, listing, unpack_into, unpack_with};
use crate::layer::tar::{EntryKind, Header};
use crate::layer::unpack::Mode;
use crate::layer::{Archive, LayerError, UnpackOptions, Unpacked, sniff};

fn layer_on(below: &[&Path], archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, LayerError>) {
    let dest = tempfile::tempdir().unwrap();
    let below = below.iter().map(|path| PathBuf::from(*path)).collect();
    let result = unpack_with(archive, dest.path(), &UnpackOptions { below, ..UnpackOptions::default() });
    (dest, result)
}

/// A lower layer with a merged /usr, as Debian has it.
fn lower() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    fs::create_dir_all(at("usr/bin")).unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    fs::create_dir_all(at("var/lib/app")).unwrap();
    fs::set_permissions(at("var/lib/app"), fs::Permissions::from_mode(0o2770)).unwrap();
    chown(at("var/lib/app"), Some(33), Some(44)).unwrap();
    fs::set_permissions(at("var/lib/app"), fs::Permissions::from_mode(0o2770)).unwrap();
    set_xattr(&at("var/lib/app"), "user.kept", b"1");
    fs::write(at("var/lib/app/data"), "lower\n").unwrap();
    chown(at("var/lib/app/data"), Some(7), Some(8)).unwrap();
    tree
}

#[test]
fn implied_directories_and_hard_links_come_from_below() {
    let lower = lower();
    let archive = Tar::default()
        .file("bin/tool", "through the link of a lower layer")
        .link("var/lib/app/again", "var/lib/app/data")
        .file("new/dir/file", "x")
        .end();
    let (dest, result) = layer_on(&[lower.path()], &archive);
    assert!(result.unwrap().used_below);
    insta::assert_snapshot!(listing(dest.path()), @r"
    d0755 0:0 new/
    d0755 0:0 new/dir/
    -0644 0:0 new/dir/file `x`
    d0755 0:0 usr/
    d0755 0:0 usr/bin/
    -0644 0:0 usr/bin/tool `through the link of a lower layer`
    d0755 0:0 var/
    d0755 0:0 var/lib/
    d2770 33:44 var/lib/app/ [user.kept=1]
    -0644 7:8 var/lib/app/again `lower\n`
    -0644 7:8 var/lib/app/data `lower\n` == var/lib/app/again
    ");
    // An upper layer may hide what is below.
    let middle = tempfile::tempdir().unwrap();
    fs::create_dir_all(middle.path().join("var/lib")).unwrap();
    mknod(&middle.path().join("var/lib/app"), FileType::CharacterDevice, (0, 0));
    let archive = Tar::default().file("var/lib/app/x", "").end();
    let (dest, result) = layer_on(&[lower.path(), middle.path()], &archive);
    assert!(result.is_ok());
    assert_eq!(fs::metadata(dest.path().join("var/lib/app")).unwrap().permissions().mode() & 0o7777, 0o755);
    let archive = Tar::default().link("h", "var/lib/app/data").end();
    let (_dest, result) = layer_on(&[lower.path(), middle.path()], &archive);
    insta::assert_snapshot!(result.unwrap_err(), @"archive entry `h` is refused: a hard link to a file that does not exist");
}

#[test]
fn whiteouts_are_about_lower_layers_only() {
    let archive = Tar::default()
        .file("a", "stays")
        .file(".wh.a", "")
        .file(".wh.gone", "")
        .dir("d", 0o755)
        .file("d/new", "x")
        .file("d/.wh..wh..opq", "")
        .file(".wh.e", "")
        .dir("e", 0o700)
        .end();
    let (dest, result) = layer_on(&[], &archive);
    assert!(!result.unwrap().used_below);
    insta::assert_snapshot!(listing(dest.path()), @"
    -0644 0:0 a `stays`
    d0755 0:0 d/ [trusted.overlay.opaque=y]
    -0644 0:0 d/new `x`
    d0700 0:0 e/ [trusted.overlay.opaque=y]
    whiteout gone
    ");
}

/// A8: the kernel ignores the mark at a layer's root, so each name is hidden by itself.
#[test]
fn an_opaque_root_hides_every_name_below() {
    let lower = lower();
    let archive = Tar::default().file(".wh..wh..opq", "").dir("usr", 0o755).file("new", "x").end();
    let (dest, result) = layer_on(&[lower.path()], &archive);
    assert!(result.unwrap().used_below);
    insta::assert_snapshot!(listing(dest.path()), @"
    whiteout bin
    -0644 0:0 new `x`
    d0755 0:0 usr/ [trusted.overlay.opaque=y]
    whiteout var
    ");
}

#[test]
fn the_root_directory_is_that_of_the_layer_below_or_of_its_entry() {
    let lower = tempfile::tempdir().unwrap();
    fs::set_permissions(lower.path(), fs::Permissions::from_mode(0o555)).unwrap();
    chown(lower.path(), Some(3), Some(4)).unwrap();
    let (dest, _) = layer_on(&[lower.path()], &Tar::default().end());
    let found = fs::metadata(dest.path()).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o555, 3, 4));
    let (dest, _) = layer_on(&[lower.path()], &Tar::default().dir("./", 0o711).end());
    let found = fs::metadata(dest.path()).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.mtime()), (0o711, 0, 1_000_000_000));
}

/// ADD into a directory that holds files.
#[test]
fn files_are_merged_into_what_is_there() {
    let dest = tempfile::tempdir().unwrap();
    let at = |path: &str| dest.path().join(path);
    fs::create_dir_all(at("dir")).unwrap();
    fs::write(at("dir/f"), "old").unwrap();
    fs::write(at("dir/stay"), "stay").unwrap();
    symlink("dir/stay", at("link")).unwrap();
    fs::write(at("gone"), "file").unwrap();
    fs::create_dir_all(at("full/of/files")).unwrap();
    symlink("/dir", at("data")).unwrap();
    fs::set_permissions(dest.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let archive = Tar::default()
        .dir("./", 0o700)
        .dir("./dir/", 0o711)
        .file("dir/f", "new")
        .file("link", "a file now")
        .symlink("gone", "elsewhere")
        .file("full", "a file")
        .file("data/through", "t")
        .file(".wh.name", "ordinary")
        .add(Header { path: b"setuid", mode: 0o4755, uid: 12, gid: 34, ..NONE }, b"s")
        .add(Header { path: b"pipe", kind: EntryKind::Fifo, mode: 0o620, ..NONE }, b"")
        .end();
    unpack_into(&archive, dest.path(), Mode::Files).unwrap();
    assert_eq!(fs::metadata(dest.path()).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(
        fs::metadata(at("dir")).unwrap().mtime(),
        1_000_000_000,
        "times of directories are set at the end"
    );
    insta::assert_snapshot!(listing(dest.path()), @"
    -0644 0:0 .wh.name `ordinary`
    l     0:0 data -> /dir
    d0711 0:0 dir/
    -0644 0:0 dir/f `new`
    -0644 0:0 dir/stay `stay`
    -0644 0:0 dir/through `t`
    -0644 0:0 full `a file`
    l     0:0 gone -> elsewhere
    -0644 0:0 link `a file now`
    p0620 0:0 pipe
    -4755 12:34 setuid `s`
    ");

    let options = UnpackOptions { mode: Mode::Files, owner: Some((7, 8)), ..UnpackOptions::default() };
    unpack_with(&Tar::default().file("new/owned", "x").end(), dest.path(), &options).unwrap();
    let owner = |path: &str| fs::metadata(at(path)).map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!((owner("new"), owner("new/owned")), ((7, 8), (7, 8)));
}

#[test]
fn content_alone_tells_an_archive() {
    let tar = Tar::default().file("f", "x").end();
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, data).unwrap();
        encoder.finish().unwrap()
    };
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut bzip2, &tar).unwrap();
    let python = "import lzma, sys; sys.stdout.buffer.write(lzma.compress(sys.stdin.buffer.read()))";
    let xz = super::interop::run("python3", &["-c", python], &tar);
    let zstd = zstd::encode_all(&*tar, 1).unwrap();
    let cases: Vec<(&str, Vec<u8>, Option<Archive>)> = vec![
        ("tar", tar.clone(), Some(Archive::Plain)),
        ("gzip", gzip(&tar), Some(Archive::Gzip)),
        ("two gzip members", [gzip(&tar[..700]), gzip(&tar[700..])].concat(), Some(Archive::Gzip)),
        ("bzip2", bzip2.finish().unwrap(), Some(Archive::Bzip2)),
        ("xz", xz, Some(Archive::Xz)),
        ("zstd", zstd, Some(Archive::Zstd)),
        ("gzip of a text", gzip(b"text"), None),
        ("broken gzip", gzip(&tar)[..30].to_vec(), None),
        ("text", b"hello".to_vec(), None),
        ("nothing", Vec::new(), None),
        ("zeros", vec![0; 10_240], None),
        ("zip", b"PK\x03\x04rest".repeat(100), None),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(sniff(&mut &*bytes).unwrap(), expected, "{name}");
        if expected.is_some() {
            let dest = tempfile::tempdir().unwrap();
            let unpacked = unpack_into(&bytes, dest.path(), Mode::Files).unwrap();
            assert_eq!(unpacked.tar_size, tar.len() as u64, "{name}");
            assert_eq!(unpacked.diff_id, bricklayer_solver::Digest::of(&tar), "{name}");
            assert_eq!(fs::read(dest.path().join("f")).unwrap(), b"x", "{name}");
        }
    }
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk on fire"))
        }
    }
    assert_eq!(sniff(&mut Broken).unwrap_err().to_string(), "disk on fire");
}
