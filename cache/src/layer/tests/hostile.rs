//! Archives that want out of their directory, or more memory than they should get.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::support::{NONE, Tar, listing, unpack_into, unpack_with};
use crate::layer::tar::{EntryKind, Header};
use crate::layer::unpack::Mode;
use crate::layer::{PackOptions, UnpackOptions, pack};
use crate::root::Root;

/// A destination beside files that must not change.
struct House {
    dir: tempfile::TempDir,
    before: String,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::create_dir(dir.path().join("dest")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        let before = listing(&dir.path().join("outside"));
        Self { dir, before }
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }

    /// What became of an archive, with the parts that differ between runs cut out.
    fn unpack(&self, archive: &[u8], mode: Mode) -> String {
        let result = unpack_into(archive, &self.dest(), mode);
        assert_eq!(listing(&self.dir.path().join("outside")), self.before, "something outside changed");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2, "something appeared outside");
        let text = match result {
            Ok(_) => listing(&self.dest()),
            Err(error) => format!("error: {error}"),
        };
        text.replace(&self.dir.path().display().to_string(), "HERE")
            .replace(self.dir.path().strip_prefix("/").unwrap().to_str().unwrap(), "HERE")
    }
}

fn canary_symlink(outside: &str) -> Tar {
    Tar::default().symlink("out", outside)
}

/// A1 to A7, A9 to A11 of reliability tests: each archive in both modes.
#[test]
fn nothing_leads_outside() {
    let dots = "../".repeat(12);
    type Make = Box<dyn Fn(&str) -> Tar>;
    let cases: Vec<(&str, Make)> = vec![
        (
            "A1 dots",
            Box::new({
                let dots = dots.clone();
                move |_| Tar::default().file(&format!("{dots}tmp/x"), "x")
            }),
        ),
        ("A1 inner dots", Box::new(|_| Tar::default().file("a/b/../../c", "x"))),
        ("A1 absolute", Box::new(|_| Tar::default().file("/etc/x", "x"))),
        ("A2 link out", Box::new(|outside| canary_symlink(outside).file("out/canary", "dead"))),
        (
            "A2 relative link",
            Box::new({
                let dots = dots.clone();
                move |outside| {
                    Tar::default().symlink("out", &format!("{dots}{outside}")).file("out/canary", "dead")
                }
            }),
        ),
        (
            "A2 link chain",
            Box::new(|outside| {
                Tar::default().symlink("a", "b").symlink("b", outside).file("a/canary", "dead")
            }),
        ),
        ("A2 loop", Box::new(|_| Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "dead"))),
        ("A3 directory over link", Box::new(|outside| canary_symlink(outside).dir("out", 0o777))),
        (
            "A3 file over link",
            Box::new(|outside| Tar::default().symlink("f", &format!("{outside}/canary")).file("f", "new")),
        ),
        ("A4 hard link out", Box::new(|outside| Tar::default().link("h", &format!("{outside}/canary")))),
        ("A4 hard link up", Box::new(|_| Tar::default().link("h", "../outside/canary"))),
        ("A4 hard link through link", Box::new(|outside| canary_symlink(outside).link("h", "out/canary"))),
        ("A4 hard link to directory", Box::new(|_| Tar::default().dir("d", 0o755).link("h", "d"))),
        (
            "A5 hard link to link",
            Box::new(|outside| {
                Tar::default().symlink("s", &format!("{outside}/canary")).link("h", "s").file("h", "dead")
            }),
        ),
        ("A7 whiteout below link", Box::new(|outside| canary_symlink(outside).file("out/.wh.canary", ""))),
        ("A7 opaque below link", Box::new(|outside| canary_symlink(outside).file("out/.wh..wh..opq", ""))),
        ("A9 root is a link", Box::new(|outside| Tar::default().symlink("./", outside))),
        ("A9 root is a file", Box::new(|_| Tar::default().file(".", "x"))),
        (
            "A10 whiteout device",
            Box::new(|_| Tar::default().add(Header { path: b"w", kind: EntryKind::CharDevice, ..NONE }, b"")),
        ),
        (
            "A11 overlay xattrs",
            Box::new(|_| {
                let xattrs = [
                    "trusted.overlay.opaque",
                    "user.overlay.redirect",
                    "trusted.overlay.overlay.x",
                    "security.selinux",
                    "user.ok",
                ];
                let xattrs: Vec<_> =
                    xattrs.iter().map(|key| (key.as_bytes().to_vec(), b"y".to_vec())).collect();
                Tar::default().add(
                    Header { path: b"d", kind: EntryKind::Directory, mode: 0o755, xattrs: &xattrs, ..NONE },
                    b"",
                )
            }),
        ),
    ];
    let mut seen = String::new();
    for (name, make) in cases {
        for mode in [Mode::Layer, Mode::Files] {
            let house = House::new();
            let archive = make(&house.outside()).end();
            seen += &format!("{name}, {mode:?}: {}\n", house.unpack(&archive, mode).replace('\n', "; "));
        }
    }
    insta::assert_snapshot!(seen, @"
    A1 dots, Layer: error: archive entry `../../../../../../../../../../../../tmp/x` is refused: it leads out of the archive with `..`
    A1 dots, Files: error: archive entry `../../../../../../../../../../../../tmp/x` is refused: it leads out of the archive with `..`
    A1 inner dots, Layer: -0644 0:0 c `x`
    A1 inner dots, Files: -0644 0:0 c `x`
    A1 absolute, Layer: d0755 0:0 etc/; -0644 0:0 etc/x `x`
    A1 absolute, Files: d0755 0:0 etc/; -0644 0:0 etc/x `x`
    A2 link out, Layer: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 link out, Files: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 relative link, Layer: l     0:0 out -> ../../../../../../../../../../../../HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 relative link, Files: l     0:0 out -> ../../../../../../../../../../../../HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 link chain, Layer: l     0:0 a -> b; l     0:0 b -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 link chain, Files: l     0:0 a -> b; l     0:0 b -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/canary `dead`
    A2 loop, Layer: error: archive entry `a` is refused: too many links
    A2 loop, Files: error: archive entry `a` is refused: too many links
    A3 directory over link, Layer: d0777 0:0 out/ [trusted.overlay.opaque=y]
    A3 directory over link, Files: d0777 0:0 out/
    A3 file over link, Layer: -0644 0:0 f `new`
    A3 file over link, Files: -0644 0:0 f `new`
    A4 hard link out, Layer: error: archive entry `h` is refused: a hard link to a file that does not exist
    A4 hard link out, Files: error: archive entry `h` is refused: a hard link to a file that does not exist
    A4 hard link up, Layer: error: archive entry `h` is refused: a hard link that leads out of the archive
    A4 hard link up, Files: error: archive entry `h` is refused: a hard link that leads out of the archive
    A4 hard link through link, Layer: error: archive entry `h` is refused: a hard link to a file that does not exist
    A4 hard link through link, Files: error: archive entry `h` is refused: a hard link to a file that does not exist
    A4 hard link to directory, Layer: error: archive entry `h` is refused: a hard link to a directory
    A4 hard link to directory, Files: error: archive entry `h` is refused: a hard link to a directory
    A5 hard link to link, Layer: -0644 0:0 h `dead`; l     0:0 s -> HERE/outside/canary
    A5 hard link to link, Files: -0644 0:0 h `dead`; l     0:0 s -> HERE/outside/canary
    A7 whiteout below link, Layer: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; whiteout HERE/outside/canary
    A7 whiteout below link, Files: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/.wh.canary ``
    A7 opaque below link, Layer: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/ [trusted.overlay.opaque=y]
    A7 opaque below link, Files: l     0:0 out -> HERE/outside; d0755 0:0 tmp/; d0755 0:0 HERE/; d0755 0:0 HERE/outside/; -0644 0:0 HERE/outside/.wh..wh..opq ``
    A9 root is a link, Layer: error: archive entry `./` is refused: the root as something else than a directory
    A9 root is a link, Files: error: archive entry `./` is refused: the root as something else than a directory
    A9 root is a file, Layer: error: archive entry `.` is refused: the root as something else than a directory
    A9 root is a file, Files: error: archive entry `.` is refused: the root as something else than a directory
    A10 whiteout device, Layer: error: archive entry `w` is refused: a character device 0:0, which overlayfs takes for a whiteout
    A10 whiteout device, Files: error: archive entry `w` is refused: a character device 0:0, which overlayfs takes for a whiteout
    A11 overlay xattrs, Layer: d0755 0:0 d/ [user.ok=y]
    A11 overlay xattrs, Files: d0755 0:0 d/ [user.ok=y]
    ");
}

/// A6, A14, A15, A17: refused with the reason, before memory or disk is spent on it.
#[test]
fn what_is_refused() {
    let name = |name: &'static str| Tar::default().file(name, "");
    let field = |at: usize, value: &'static [u8]| {
        Tar::default().raw(b'0', b"f", b"", move |block| block[at..at + value.len()].copy_from_slice(value))
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("A6 whiteout of nothing", name(".wh.").end()),
        ("A6 whiteout of .", name("d/.wh..").end()),
        ("A6 whiteout of ..", name("d/.wh...").end()),
        ("A6 aufs", name(".wh..wh.plnk").end()),
        ("A6 below a whiteout", name(".wh.d/f").end()),
        ("A6 directory as a whiteout", Tar::default().dir(".wh.d", 0o755).end()),
        (
            "A14 PAX header",
            Tar::default()
                .raw(b'x', b"x", b"", |block| block[124..135].copy_from_slice(b"00400000000"))
                .end(),
        ),
        (
            "A14 long name",
            Tar::default()
                .raw(b'L', b"x", b"", |block| block[124..135].copy_from_slice(b"00400000000"))
                .end(),
        ),
        (
            "A14 many small headers",
            (0..3000).fold(Tar::default(), |tar, _| tar.pax(&[("comment", b"x")])).end(),
        ),
        (
            "A14 sparse map 0.1",
            Tar::default()
                .pax(&[
                    ("GNU.sparse.map", "0,0,".repeat(70_000).trim_end_matches(',').as_bytes()),
                    ("GNU.sparse.size", b"1"),
                ])
                .file("f", "")
                .end(),
        ),
        (
            "A14 sparse map 1.0",
            Tar::default()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")])
                .file("f", &format!("{:<512}", "99999999\n"))
                .end(),
        ),
        (
            "A14 sparse map overlaps",
            Tar::default()
                .pax(&[("GNU.sparse.map", b"0,4,2,4"), ("GNU.sparse.size", b"8")])
                .file("f", "12345678")
                .end(),
        ),
        (
            "A14 sparse map too far",
            Tar::default()
                .pax(&[("GNU.sparse.map", b"4,8"), ("GNU.sparse.size", b"8")])
                .file("f", "12345678")
                .end(),
        ),
        (
            "A14 sparse map and data differ",
            Tar::default()
                .pax(&[("GNU.sparse.map", b"0,4"), ("GNU.sparse.size", b"8")])
                .file("f", "12345678")
                .end(),
        ),
        ("A15 negative size", field(124, &[0xff; 12]).end()),
        ("A15 negative PAX size", Tar::default().pax(&[("size", b"-1")]).file("f", "").end()),
        ("A15 2^63", field(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).end()),
        ("A15 beyond 2^63", field(124, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]).end()),
        ("A15 cut off in data", field(124, b"00000001000").bytes),
        ("A15 cut off in a header", Tar::default().file("f", "").bytes[..300].to_vec()),
        ("A15 header without entry", Tar::default().pax(&[("path", b"x")]).end()),
        ("A15 NUL", Tar::default().pax(&[("path", b"a\0b")]).file("f", "").end()),
        ("A15 NUL in a target", Tar::default().pax(&[("linkpath", b"a\0b")]).symlink("f", "x").end()),
        ("A15 unknown type", Tar::default().raw(b'Z', b"f", b"", |_| {}).end()),
        ("A15 broken PAX", Tar::default().raw(b'x', b"x", b"99 a=b\n", |_| {}).file("f", "").end()),
        ("A15 checksum", {
            let mut bytes = Tar::default().file("f", "").end();
            bytes[0] = b'g';
            bytes
        }),
        ("A17 uid 2^32", Tar::default().pax(&[("uid", b"4294967296")]).file("f", "").end()),
        ("A17 uid 2^32-1", Tar::default().pax(&[("uid", b"4294967295")]).file("f", "").end()),
        ("A17 gid 2^32", field(116, &[0x80, 0, 0, 1, 0, 0, 0, 0]).end()),
        ("A17 negative", Tar::default().pax(&[("gid", b"-1")]).file("f", "").end()),
        ("A28 long name", name(Box::leak("n".repeat(256).into_boxed_str())).end()),
        ("A28 long path", Tar::default().pax(&[("path", "n/".repeat(2100).as_bytes())]).file("f", "").end()),
    ];
    let mut seen = String::new();
    for (name, archive) in cases {
        let house = House::new();
        let text = house.unpack(&archive, Mode::Layer);
        seen += &format!(
            "{name}: {}\n",
            text.replace(&"n".repeat(200), "n…")
                .replace(&"n/".repeat(100), "n…")
                .chars()
                .take(160)
                .collect::<String>()
        );
        assert!(text.starts_with("error: "), "{name}: {text}");
    }
    insta::assert_snapshot!(seen, @r"
    A6 whiteout of nothing: error: archive entry `.wh.` is refused: a whiteout of an impossible name
    A6 whiteout of .: error: archive entry `d/.wh..` is refused: a whiteout of an impossible name
    A6 whiteout of ..: error: archive entry `d/.wh...` is refused: a whiteout of an impossible name
    A6 aufs: error: archive entry `.wh..wh.plnk` is refused: a whiteout of an impossible name
    A6 below a whiteout: error: archive entry `.wh.d/f` is refused: something below a whiteout
    A6 directory as a whiteout: error: archive entry `.wh.d/` is refused: a whiteout that is no regular file
    A14 PAX header: error: malformed tar at byte 0: extended headers of more than 1 MiB
    A14 long name: error: malformed tar at byte 0: extended headers of more than 1 MiB
    A14 many small headers: error: malformed tar at byte 0: extended headers of more than 1 MiB
    A14 sparse map 0.1: error: malformed tar at byte 0: a broken map of a sparse file
    A14 sparse map 1.0: error: malformed tar at byte 0: a broken map of a sparse file
    A14 sparse map overlaps: error: malformed tar at byte 0: a broken map of a sparse file
    A14 sparse map too far: error: malformed tar at byte 0: a broken map of a sparse file
    A14 sparse map and data differ: error: malformed tar at byte 0: a sparse file whose map does not match its data
    A15 negative size: error: archive entry `f` is refused: a negative size
    A15 negative PAX size: error: archive entry `f` is refused: a negative size
    A15 2^63: error: archive entry `f` is refused: a size beyond 2^63
    A15 beyond 2^63: error: malformed tar at byte 0: the size is no number
    A15 cut off in data: error: malformed tar at byte 512: the archive is cut off
    A15 cut off in a header: error: malformed tar at byte 0: the archive is cut off
    A15 header without entry: error: malformed tar at byte 0: an extended header without an entry
    A15 NUL: error: archive entry `a\u{0}b` is refused: NUL in a path
    A15 NUL in a target: error: archive entry `f` is refused: NUL in a path
    A15 unknown type: error: archive entry `f` is refused: an unknown type of entry
    A15 broken PAX: error: malformed tar at byte 0: a broken PAX header
    A15 checksum: error: malformed tar at byte 0: a header with a wrong checksum
    A17 uid 2^32: error: archive entry `f` is refused: an owner beyond 2^32 - 2
    A17 uid 2^32-1: error: archive entry `f` is refused: an owner beyond 2^32 - 2
    A17 gid 2^32: error: archive entry `f` is refused: an owner beyond 2^32 - 2
    A17 negative: error: archive entry `f` is refused: an owner beyond 2^32 - 2
    A28 long name: error: archive entry `n…` is refused: a name of more than 255 bytes
    A28 long path: error: archive entry `n…` is refused: a path of more than 4095 bytes
    ");
}

/// A16: the PAX size wins over the header's; what looks like an entry inside of the data stays data.
#[test]
fn a_size_record_hides_no_entry() {
    let inner = Tar::default().file("smuggled", "x").bytes;
    let archive = Tar::default()
        .pax(&[("size", inner.len().to_string().as_bytes())])
        .raw(b'0', b"f", &inner, |block| block[124..135].copy_from_slice(b"00000000000"))
        .file("last", "")
        .end();
    let house = House::new();
    house.unpack(&archive, Mode::Layer);
    let names: Vec<_> = fs::read_dir(house.dest()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::metadata(house.dest().join("f")).unwrap().size(), inner.len() as u64);
}

/// A27: reading stops at the limits, and what one limit lets through the other one counts.
#[test]
fn bombs_end_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    let tar = Tar::default().add(Header { path: b"zeros", ..NONE }, &zeros).end();
    let mut bomb = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut bomb, flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    encoder.finish().unwrap();
    let house = House::new();
    let limits = UnpackOptions { max_size: 8 << 20, ..UnpackOptions::default() };
    let error = unpack_with(&bomb, &house.dest(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "archive is larger than 8388608 bytes when unpacked");
    // Also after the archive's end, and before any file was made.
    let mut padded = Tar::default().file("f", "x").end();
    padded.extend_from_slice(&zeros);
    let error = unpack_with(&padded, &house.dest(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "archive is larger than 8388608 bytes when unpacked");

    let many = (0..20).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), "")).end();
    let limits = UnpackOptions { max_entries: 19, ..UnpackOptions::default() };
    let error = unpack_with(&many, &house.dest(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "archive has more than 19 entries");
}

/// A28: deep paths, names of any bytes, and entries that are there twice.
#[test]
fn odd_but_sound_archives() {
    let house = House::new();
    let deep = vec!["d".repeat(50); 70].join("/");
    let archive = Tar::default()
        .pax(&[("path", format!("{deep}/f").as_bytes())])
        .file("x", "deep")
        .pax(&[("path", b"\xff\xfe\n\x01")])
        .file("x", "odd")
        .file("twice", "one")
        .file("twice", "two")
        .dir("d", 0o700)
        .file("d", "now a file")
        .dir("d", 0o750)
        .end();
    unpack_into(&archive, &house.dest(), Mode::Layer).unwrap();
    let root = Root::open(&house.dest()).unwrap();
    assert_eq!(root.read_small(Path::new(&format!("{deep}/f")), 10).unwrap(), b"deep");
    assert_eq!(root.read_small(Path::new(super::support::os(b"\xff\xfe\n\x01")), 10).unwrap(), b"odd");
    assert_eq!(root.read_small(Path::new("twice"), 10).unwrap(), b"two");
    let mut blob = Vec::new();
    pack(&house.dest(), &mut blob, &PackOptions::default(), &|_| {}).unwrap();
    assert!(root.remove_all(Path::new(&"d".repeat(50))).unwrap());
}

/// Whatever the bytes are, unpacking ends without a panic and touches nothing outside.
#[test]
fn damaged_archives_never_panic() {
    use proptest::prelude::*;
    let sound = Tar::default()
        .dir("d", 0o755)
        .pax(&[("SCHILY.xattr.user.x", b"y"), ("mtime", b"1.5"), ("path", b"d/long")])
        .file("f", "data")
        .symlink("l", "/outside")
        .file("l/canary", "x")
        .link("h", "d/long")
        .file("d/.wh.x", "")
        .end();
    let house = House::new();
    symlink(house.outside(), house.dest().join("out")).unwrap();
    let flips = proptest::collection::vec((0..sound.len(), any::<u8>(), any::<bool>()), 1..6);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(flips in flips, length in 0..=sound.len())| {
        let mut bytes = sound[..length].to_vec();
        for (at, value, fix) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            // With a right checksum more of the damage is looked at.
            let block = at / 512 * 512;
            if fix && let Some(block) = bytes.get_mut(block..block + 512) {
                super::support::checksum(block);
            }
        }
        for mode in [Mode::Files, Mode::Layer] {
            let _ = house.unpack(&bytes, mode);
        }
    });
}
