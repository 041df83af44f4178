use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A root beside a file that must not be reached.
fn house() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::write(at("secret"), "secret").unwrap();
    fs::create_dir_all(at("root/etc/sub")).unwrap();
    fs::write(at("root/etc/passwd"), "root:x:0:0").unwrap();
    fs::write(at("root/secret"), "inside").unwrap();
    symlink("../../../../secret", at("root/etc/up")).unwrap();
    symlink(at("secret"), at("root/etc/out")).unwrap();
    symlink("/etc", at("root/abs")).unwrap();
    symlink("loop", at("root/loop")).unwrap();
    symlink("/new/place", at("root/dangling")).unwrap();
    symlink("/proc/self/fd/0", at("root/magic")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("root/pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let root = Root::open(&at("root")).unwrap();
    (dir, root)
}

#[test]
fn links_and_dots_stay_inside() {
    let (_dir, root) = house();
    let read = |path: &str| match root.read_small(Path::new(path), 100) {
        Ok(bytes) => String::from_utf8(bytes).unwrap(),
        Err(error) => error.to_string(),
    };
    for (path, expected) in [
        ("etc/passwd", "root:x:0:0"),
        ("/abs/passwd", "root:x:0:0"),
        ("../../etc/passwd", "root:x:0:0"),
        ("etc/up", "inside"),
        ("etc/out", "cannot open `etc/out`"),
        ("etc", "`etc` is a directory, not a regular file"),
        // Does not wait for a writer.
        ("pipe", "`pipe` is a named pipe, not a regular file"),
        ("loop", "cannot look at `loop`"),
        ("magic", "cannot open `magic`"),
        ("nothing/at/all", "cannot open `nothing/at/all`"),
    ] {
        assert_eq!(read(path), expected, "{path}");
    }
    let error = root.read_small(Path::new("secret"), 5).unwrap_err();
    assert_eq!(error.to_string(), "`secret` is larger than 5 bytes");
    assert!(root.subroot(Path::new("etc")).unwrap().lstat(Path::new("../secret")).unwrap().is_none());
}

#[test]
fn real_paths() {
    let (_dir, root) = house();
    for (path, expected) in [
        ("", "/"),
        ("abs/sub/../passwd", "/etc/passwd"),
        ("etc/up", "/secret"),
        ("dangling/x", "/new/place/x"),
        ("none/../../x", "/x"),
    ] {
        assert_eq!(root.resolve(Path::new(path)).unwrap(), Path::new(expected), "{path}");
    }
    assert_eq!(root.resolve(Path::new("loop/x")).unwrap_err().to_string(), "cannot resolve `loop/x`");
}

#[test]
fn directories_are_made_through_links() {
    let (dir, root) = house();
    let mut made = Vec::new();
    root.make_dirs(Path::new("dangling/a"), 0o2775, |_, path| {
        made.push(path.display().to_string());
        Ok(())
    })
    .unwrap();
    assert_eq!(made, ["/new", "/new/place", "/new/place/a"]);
    let mode = fs::metadata(dir.path().join("root/new/place/a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o2775);
    root.make_dirs(Path::new("abs/sub"), 0o700, |_, path| panic!("{path:?} was there")).unwrap();
    let error = root.make_dirs(Path::new("etc/passwd/x"), 0o755, |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "`/etc/passwd` is a regular file, not a directory");
}

#[test]
fn removing_follows_nothing_and_knows_no_depth() {
    let (dir, root) = house();
    let mut deep = rustix::io::fcntl_dupfd_cloexec(root.as_fd(), 0).unwrap();
    // Deeper than PATH_MAX, than the limit of open files, and than a recursive removal's stack would like.
    for _ in 0..3000 {
        rustix::fs::mkdirat(&deep, "deep", Mode::from_raw_mode(0o755)).unwrap();
        at::create_file(&deep, OsStr::new("file"), 0o644).unwrap();
        deep = at::open_dir(&deep, OsStr::new("deep")).unwrap();
    }
    drop(deep);
    assert!(root.remove_all(Path::new("deep")).unwrap());
    assert!(root.remove_all(Path::new("etc/out")).unwrap());
    assert!(root.remove_all(Path::new("abs")).unwrap());
    assert!(!root.remove_all(Path::new("no/such")).unwrap());
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"secret");
    assert!(root.lstat(Path::new("etc/passwd")).unwrap().is_some());
    assert!(root.remove_all(Path::new("etc")).unwrap());
    let names: Vec<_> = root.read_dir(Path::new("")).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["dangling", "file", "loop", "magic", "pipe", "secret"]);
}

/// Needs root: the owner of a link is changed.
#[test]
fn metadata_of_links_is_their_own() {
    let (_dir, root) = house();
    let name = OsStr::new("abs");
    let before = root.stat(Path::new("etc")).unwrap().unwrap();
    at::chown(root.as_fd(), name, 7, 8).unwrap();
    at::set_mtime(root.as_fd(), name, (5, 6)).unwrap();
    at::set_xattr(root.as_fd(), name, OsStr::new("trusted.a"), &[b'v'; 1000]).unwrap();
    assert!(at::chmod(root.as_fd(), name, 0o600).is_err());
    let link = root.lstat(Path::new("abs")).unwrap().unwrap();
    assert_eq!((link.kind, link.uid, link.gid, link.mtime), (Kind::Symlink, 7, 8, (5, 6)));
    assert_eq!(at::xattrs(root.as_fd(), name).unwrap(), [("trusted.a".into(), vec![b'v'; 1000])]);
    let after = root.stat(Path::new("abs")).unwrap().unwrap();
    assert_eq!((after.uid, after.mode, after.mtime), (before.uid, before.mode, before.mtime));
}
