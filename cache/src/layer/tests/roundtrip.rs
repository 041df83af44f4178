//! A tree that is packed and unpacked again is the same tree.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{FileType, Mode as Permissions, XattrFlags};

use super::support::{listing, os, unpack_into};
use crate::layer::unpack::Mode;
use crate::layer::{PackOptions, content_digest, pack};
use crate::store::Compression;

pub(super) fn mknod(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Permissions::from_raw_mode(0o600), device).unwrap();
}

pub(super) fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()).unwrap();
}

/// A tree with one of everything that a layer can hold.
pub(super) fn one_of_everything(tree: &Path) {
    fs::create_dir_all(tree.join("dir/sub")).unwrap();
    fs::write(tree.join("dir/file"), "content\n").unwrap();
    fs::set_permissions(tree.join("dir/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(tree.join("dir/file"), tree.join("dir/sub/hard")).unwrap();
    symlink("../somewhere/else", tree.join("dir/link")).unwrap();
    rustix::fs::linkat(
        rustix::fs::CWD,
        tree.join("dir/link"),
        rustix::fs::CWD,
        tree.join("dir/link2"),
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    chown(tree.join("empty"), Some(3_000_000), Some(4_294_967_294)).unwrap();
    mknod(&tree.join("fifo"), FileType::Fifo, (0, 0));
    mknod(&tree.join("null"), FileType::CharacterDevice, (1, 3));
    mknod(&tree.join("disk"), FileType::BlockDevice, (259, 70_000));
    mknod(&tree.join("dir/gone"), FileType::CharacterDevice, (0, 0));
    fs::create_dir(tree.join("opaque")).unwrap();
    set_xattr(&tree.join("opaque"), "trusted.overlay.opaque", b"y");
    fs::write(tree.join("opaque/new"), "x").unwrap();
    set_xattr(&tree.join("opaque/new"), "user.note", b"a=b\nc");
    fs::write(tree.join("cap"), "x").unwrap();
    set_xattr(&tree.join("cap"), "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let long = tree.join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&long).unwrap();
    symlink("t".repeat(300), long.join("l".repeat(255))).unwrap();
    fs::write(tree.join("ümlaut \n\\"), "u").unwrap();
    fs::write(tree.join(os(b"\xff\xfe not utf-8")), "n").unwrap();
    fs::write(tree.join("sticky"), "").unwrap();
    fs::set_permissions(tree.join("dir/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 3_000_000).unwrap();
    sparse.set_len(5_000_000).unwrap();
    let mut big = fs::File::create(tree.join("zz-big")).unwrap();
    for number in 0..300_000_u32 {
        big.write_all(&number.wrapping_mul(2_654_435_761).to_le_bytes()).unwrap();
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    one_of_everything(from.path());
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let to = to.path().join(format!("{compression:?}"));
        fs::create_dir(&to).unwrap();
        let mut blob = Vec::new();
        let packed =
            pack(from.path(), &mut blob, &PackOptions { compression, ..Default::default() }, &|_| {})
                .unwrap();
        let unpacked = unpack_into(&blob, &to, Mode::Layer).unwrap();
        assert_eq!((unpacked.diff_id, unpacked.tar_size), (packed.diff_id, packed.tar_size));
        assert_eq!(listing(&to), listing(from.path()));
        assert_eq!(content_digest(&to).unwrap(), content_digest(from.path()).unwrap());
        let mut again = Vec::new();
        pack(&to, &mut again, &PackOptions { compression, ..Default::default() }, &|_| {}).unwrap();
        assert!(again == blob, "{compression:?}: packed again, it is another blob");
        // Holes are holes again.
        use std::os::unix::fs::MetadataExt;
        assert!(fs::metadata(to.join("sparse")).unwrap().blocks() < 1000);
    }
}
