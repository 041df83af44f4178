//! What others read in our archives, and what we read in theirs. They need GNU tar, gzip, zstd and python3.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::{listing, unpack_into};
use crate::layer::unpack::Mode;
use crate::layer::{PackOptions, pack};
use crate::store::Compression;

/// Runs a program with `input`; what it prints.
pub(super) fn run(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; install tar, gzip, zstd and python3"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // A program that has seen enough closes its input.
    let _ = writer.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", output.status);
    output.stdout
}

fn packed(tree: &Path, compression: Compression) -> Vec<u8> {
    let mut blob = Vec::new();
    pack(tree, &mut blob, &PackOptions { compression, ..Default::default() }, &|_| {}).unwrap();
    blob
}

/// More than a few blocks, some of it random, some of it text.
fn large_tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(3 << 20)
    .collect();
    fs::write(tree.path().join("noise"), noise).unwrap();
    let text: String = (0..400_000).map(|number| format!("line {number}\n")).collect();
    fs::write(tree.path().join("text"), text).unwrap();
    tree
}

#[test]
fn gzip_zstd_and_python_read_our_blobs() {
    let tree = large_tree();
    let plain = packed(tree.path(), Compression::None);
    let gzip = packed(tree.path(), Compression::Gzip);
    assert!(run("gzip", &["-dc"], &gzip) == plain, "gzip reads something else");
    let python = "import gzip, sys; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
    assert!(run("python3", &["-c", python], &gzip) == plain, "python reads something else");
    assert!(
        run("zstd", &["-dc"], &packed(tree.path(), Compression::Zstd)) == plain,
        "zstd reads something else"
    );
    // One member, for readers that stop after the first.
    let mut single = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*gzip), &mut single).unwrap();
    assert!(single == plain);
}

const LIST: &str = r#"
import sys, tarfile, io
for m in tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())):
    name = m.name.encode("utf-8", "surrogateescape")
    link = m.linkname.encode("utf-8", "surrogateescape")
    print(name, m.type, oct(m.mode), m.uid, m.gid, m.size, int(m.mtime), link, m.devmajor if m.isdev() and not m.isfifo() else 0)
"#;

#[test]
fn gnu_tar_and_python_see_the_tree_that_was_packed() {
    let tree = tempfile::tempdir().unwrap();
    super::roundtrip::one_of_everything(tree.path());
    // What stands for removed files has another name in the archive.
    fs::remove_file(tree.path().join("dir/gone")).unwrap();
    rustix::fs::removexattr(tree.path().join("opaque"), "trusted.overlay.opaque").unwrap();
    let tar = packed(tree.path(), Compression::None);
    let dest = tempfile::tempdir().unwrap();
    let dest_text = dest.path().to_str().unwrap();
    run("tar", &["-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", dest_text], &tar);
    assert_eq!(listing(dest.path()), listing(tree.path()));
    let listed = String::from_utf8(run("python3", &["-c", LIST], &tar)).unwrap();
    assert_eq!(listed.lines().count(), ours(&tar).lines().count());
    for line in listed.lines().zip(ours(&tar).lines()) {
        assert_eq!(line.0, line.1);
    }
}

/// The same lines as `LIST` prints, from our reader.
fn ours(tar: &[u8]) -> String {
    use crate::layer::tar::{EntryKind, TarReader};
    let mut reader = TarReader::new(tar);
    let mut out = String::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut path = entry.path.clone();
        if path.ends_with(b"/") {
            path.pop();
        }
        let kind = match entry.kind {
            EntryKind::File => 0,
            EntryKind::HardLink => 1,
            EntryKind::Symlink => 2,
            EntryKind::CharDevice => 3,
            EntryKind::BlockDevice => 4,
            EntryKind::Directory => 5,
            EntryKind::Fifo => 6,
        };
        let seconds = if entry.mtime.0 < 0 && entry.mtime.1 > 0 { entry.mtime.0 + 1 } else { entry.mtime.0 };
        out += &format!(
            "{} b'{kind}' 0o{:o} {} {} {} {seconds} {} {}\n",
            python_bytes(&path),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            python_bytes(&entry.link),
            if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
                entry.device.0
            } else {
                0
            }
        );
    }
    out
}

/// As python's `repr` of bytes.
fn python_bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for byte in bytes {
        text += &match byte {
            b'\\' => "\\\\".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\t' => "\\t".to_owned(),
            byte if char::from(*byte) == quote => format!("\\{quote}"),
            0x20..=0x7e => char::from(*byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        };
    }
    text.push(quote);
    text
}

/// GNU tar's formats, with sparse files in each of the ways that it writes them.
#[test]
fn we_read_what_gnu_tar_writes() {
    let tree = tempfile::tempdir().unwrap();
    super::roundtrip::one_of_everything(tree.path());
    fs::remove_file(tree.path().join("dir/gone")).unwrap();
    rustix::fs::removexattr(tree.path().join("opaque"), "trusted.overlay.opaque").unwrap();
    let from = tree.path().to_str().unwrap();
    for args in [
        &["--format=gnu", "--sparse"][..],
        &["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
    ] {
        let tar = run("tar", &[args, &["-cf", "-", "-C", from, "."]].concat(), b"");
        let dest = tempfile::tempdir().unwrap();
        unpack_into(&tar, dest.path(), Mode::Layer).unwrap();
        let mut expected = listing(tree.path());
        if args[0] == "--format=gnu" {
            // That format has no xattrs.
            expected = expected
                .lines()
                .map(|line| line.split(" [").next().unwrap_or(line))
                .collect::<Vec<_>>()
                .join("\n");
        }
        assert_eq!(listing(dest.path()), expected, "{args:?}");
    }
}
