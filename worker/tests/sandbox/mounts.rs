//! Mounts, and what they leave behind: nothing.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use bricklayer_cache::layer::xattr::opaque_mark;
use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_worker::overlay::{self, Way};
use bricklayer_worker::sandbox::{Attached, AttachedMount, Tmpfs};

use crate::fixture::{Root, output, ran, refused, tmpfs};

/// Every way in which this kernel can make a mount: a kernel before 6.15 has the last only.
static WAYS: std::sync::LazyLock<Vec<Way>> = std::sync::LazyLock::new(|| match Way::of_kernel() {
    Way::Descriptors => vec![Way::Descriptors, Way::Options],
    Way::Options => vec![Way::Options],
});

fn tree(folder: &Path, path: &str, target: &str, read_only: bool) -> AttachedMount {
    let fd = overlay::part(&[folder], None, Path::new(path)).expect("a part");
    AttachedMount { target: target.to_owned(), what: Attached::Tree { fd, read_only } }
}

#[test]
fn mount_points_leave_no_trace() {
    let root = Root::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("f"), "file\n").expect("write");
    let mut command = root.shell("cat /ctx/f /etc/x/f /new/deep/f; touch /new/deep/er/y; cat /run/secrets/s");
    command.mounts = vec![
        tree(folder.path(), "/", "/ctx", true),
        tree(folder.path(), "f", "/etc/x/f", true),
        tree(folder.path(), "f", "/new/deep/f", true),
        tmpfs("/new/deep/er"),
        AttachedMount {
            target: "/run/secrets/s".to_owned(),
            what: Attached::SecretFile { data: b"secret\n".to_vec(), mode: 0o400, uid: 0, gid: 0 },
        },
    ];
    assert_eq!(output(command), "file\nfile\nfile\nsecret\n");
    assert_eq!(root.changes(), Vec::<String>::new());
}

#[test]
fn what_a_command_makes_beside_mount_points_stays() {
    let root = Root::new();
    let mut command = root.shell("echo kept > /new/kept; rm -rf /other; mkdir -p /etc/own; chmod 700 /home");
    command.mounts = vec![tmpfs("/new/deep"), tmpfs("/home/app/cache")];
    let ran = ran(command);
    assert_eq!(ran.exit.code, 0, "{ran:?}");
    assert_eq!(root.changes(), ["etc", "etc/own", "home", "new", "new/kept"]);
    assert_eq!(fs::metadata(root.upper().join("home")).expect("stat").mode() & 0o777, 0o700);
}

#[test]
fn times_of_directories_stay_as_they_were() {
    let root = Root::new();
    let old = |path: &Path| {
        let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())
            .expect("set times");
    };
    old(&root.base().join("srv"));
    old(&root.upper());
    let mut command = root.shell("stat -c %Y /srv; chmod 750 /srv");
    command.mounts = vec![tmpfs("/srv/at"), tmpfs("/at-top")];
    assert_eq!(output(command), "1000000000\n");
    for path in [root.upper(), root.upper().join("srv")] {
        assert_eq!(fs::metadata(&path).expect("stat").mtime(), 1_000_000_000, "{}", path.display());
    }
}

#[test]
fn a_changed_mount_point_is_not_followed() {
    // The command puts links where the parents of mount points were: what lies behind them must stay.
    let outside = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(outside.path().join("at")).expect("make a directory");
    let root = Root::new();
    let mut command = root.shell(&format!("mv /stub /moved && ln -s {} /stub", outside.path().display()));
    command.mounts = vec![AttachedMount {
        target: "/stub/at".to_owned(),
        what: Attached::SecretFile { data: Vec::new(), mode: 0o400, uid: 0, gid: 0 },
    }];
    let _ = ran(command);
    assert!(outside.path().join("at").is_dir());
}

#[test]
fn missing_system_directories_are_made_and_stay() {
    let root = Root::empty();
    fs::create_dir(root.base().join("bin")).expect("make a directory");
    fs::copy("/bin/busybox", root.base().join("bin/busybox")).expect("copy busybox");
    output(root.command(&["/bin/busybox", "true"]));
    assert_eq!(root.changes(), ["dev", "proc", "sys"]);
}

#[test]
fn system_mounts_are_not_committed() {
    let root = Root::new();
    root.output("touch /dev/left /dev/shm/left; mkdir /dev/leftdir; echo x > /tmp/kept");
    assert_eq!(root.changes(), ["tmp", "tmp/kept"]);
}

#[test]
fn read_only_mounts_refuse_and_writable_ones_take() {
    let root = Root::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = root.shell("(echo x > /ro/f) 2>/dev/null && echo written; echo y > /rw/g; mount -o remount,rw /ro 2>/dev/null && echo remounted; true");
    command.mounts = vec![tree(folder.path(), "/", "/ro", true), {
        // A cache mount: the directory itself, writable.
        let flags =
            rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let fd = rustix::mount::open_tree(rustix::fs::CWD, folder.path(), flags).expect("clone");
        AttachedMount { target: "/rw".to_owned(), what: Attached::Tree { fd, read_only: false } }
    }];
    assert_eq!(output(command), "");
    assert_eq!(fs::read_to_string(folder.path().join("g")).expect("read"), "y\n");
    assert!(!folder.path().join("f").exists());
}

#[test]
fn mounts_can_lie_in_mounts_and_hide_what_is_there() {
    let root = Root::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("f"), "f\n").expect("write");
    let mut command = root.shell("find /t | sort; cat /t/f; ls -A /etc");
    command.mounts =
        vec![tmpfs("/t"), tree(folder.path(), "f", "/t/f", true), tmpfs("/t/sub"), tmpfs("/etc")];
    assert_eq!(output(command), "/t\n/t/f\n/t/sub\nf\n");
}

#[test]
fn a_tmpfs_has_its_size() {
    let root = Root::new();
    let mut command =
        root.shell("dd if=/dev/zero of=/t/big bs=1k count=128 2>/dev/null && echo fits || echo full");
    command.mounts = vec![AttachedMount {
        target: "/t".to_owned(),
        what: Attached::Tmpfs(Tmpfs { size: Some(64 << 10), ..Tmpfs::default() }),
    }];
    assert_eq!(output(command), "full\n");
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let root = Root::new();
    let mut command = root.shell("stat -c '%a %u:%g' /covered /new /given");
    let covered = root.base().join("covered");
    fs::create_dir(&covered).expect("a directory");
    fs::set_permissions(&covered, fs::Permissions::from_mode(0o750)).expect("its mode");
    let given = Attached::Tmpfs(Tmpfs { mode: Some(0o711), ..Tmpfs::default() });
    command.mounts =
        vec![tmpfs("/covered"), tmpfs("/new"), AttachedMount { target: "/given".to_owned(), what: given }];
    assert_eq!(output(command), "750 0:0\n1777 0:0\n711 0:0\n");
}

#[test]
fn secrets_have_mode_and_owner_and_can_not_be_changed() {
    let root = Root::new();
    let mut command =
        root.shell("stat -c '%a %u:%g' /run/s; (echo x > /run/s) 2>/dev/null && echo changed; cat /run/s");
    command.mounts = vec![AttachedMount {
        target: "/run/s".to_owned(),
        what: Attached::SecretFile { data: b"value".to_vec(), mode: 0o440, uid: 1000, gid: 2000 },
    }];
    assert_eq!(output(command), "440 1000:2000\nvalue");
}

#[test]
fn a_mount_on_the_root_or_in_proc_is_refused() {
    let root = Root::new();
    for target in ["/", "/srv/..", "/proc", "/proc/sys", "/srv/../proc/made"] {
        let mut command = root.shell("true");
        command.mounts = vec![tmpfs(target)];
        assert!(refused(command).starts_with(&format!("mount on {target}: ")));
        assert_eq!(root.changes(), Vec::<String>::new());
    }
}

#[test]
fn the_image_s_own_names_stay_as_they_were() {
    let root = Root::new();
    fs::write(root.base().join("etc/hosts"), "from the image\n").expect("write");
    fs::set_permissions(root.base().join("etc/hosts"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(
        root.output(
            "grep -c 'from the image' /etc/hosts; (echo x > /etc/hosts) 2>/dev/null && echo written; true"
        ),
        "0\n"
    );
    assert_eq!(root.changes(), Vec::<String>::new());
}

#[test]
fn subtrees_do_not_leave_their_root() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("in")).expect("make a directory");
    std::os::unix::fs::symlink("/", folder.path().join("root")).expect("link");
    std::os::unix::fs::symlink("/proc/self/root", folder.path().join("magic")).expect("link");
    let below = tempfile::tempdir().expect("a temporary folder");
    let one: &[&Path] = &[folder.path()];
    let two = &[below.path(), folder.path()];
    for (way, lowers) in WAYS.iter().copied().flat_map(|way| [(way, one), (way, two)]) {
        let entries = |path: &str| {
            let part =
                overlay::part_by(way, lowers, None, Path::new(path)).map_err(|error| error.to_string())?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&part));
            let mut names: Vec<_> = fs::read_dir(path)
                .expect("read a directory")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            Ok::<_, String>(names.join(" "))
        };
        let top = Ok("in magic root".to_owned());
        assert_eq!(entries(""), top, "{way:?}");
        assert_eq!(entries("/"), top, "{way:?}");
        assert_eq!(entries("root"), top, "{way:?}");
        assert_eq!(entries("../../.."), top, "{way:?}");
        assert_eq!(entries("root/in/../.."), top, "{way:?}");
        assert_eq!(entries("in"), Ok(String::new()), "{way:?}");
        assert_eq!(entries("magic"), Err("magic".to_owned()), "{way:?}");
        assert_eq!(entries("nothere"), Err("nothere".to_owned()), "{way:?}");
    }
}

/// A mount shows in no table, not even in that of the thread that made it, and is gone with its descriptor: the upper
/// directory can be mounted again at once.
#[test]
fn mounts_are_attached_nowhere() {
    let table = || fs::read_to_string("/proc/thread-self/mountinfo").expect("read");
    for way in WAYS.iter().copied() {
        let root = Root::empty();
        let (base, upper, work) = (root.base(), root.upper(), root.folder.path().join("work"));
        for content in ["first", "second"] {
            let mount = overlay::part_by(way, &[&base], Some((&upper, &work)), Path::new("")).expect("mount");
            let folder = root.folder.path().to_str().expect("a name").to_owned();
            assert!(!table().contains(&folder) && !table().contains("workdir=W"), "{way:?}: {}", table());
            let file = rustix::fs::openat(
                &mount,
                content,
                rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
                rustix::fs::Mode::RUSR,
            );
            drop(file.expect("make a file"));
            drop(mount);
            fs::remove_dir_all(work.join("work")).expect("remove the mark of a volatile overlay");
        }
        assert_eq!(root.changes(), ["first", "second"], "{way:?}");
    }
}

/// Layers whose names would be several options.
#[test]
fn names_of_layers_may_have_any_character() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layers: Vec<_> = ["a:b,c", r"d\,upperdir=e", " f\n"].map(|name| folder.path().join(name)).into();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir(layer).expect("make a directory");
        fs::write(layer.join("top"), number.to_string()).expect("write");
    }
    let paths: Vec<&Path> = layers.iter().map(|path| path.as_path()).collect();
    for way in WAYS.iter().copied() {
        let mount = overlay::part_by(way, &paths, None, Path::new("")).expect("mount");
        assert_eq!(read(&mount, "top").as_deref(), Some("2"), "{way:?}");
    }
}

/// So many layers, lowest first; each has a file `top` and one of its own.
fn layers(folder: &Path, count: usize) -> Vec<std::path::PathBuf> {
    let layers: Vec<_> = (0..count).map(|n| folder.join(format!("a-long-name-for-layer-{n}"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir(layer).expect("make a directory");
        for name in ["top", &format!("of-{number}")] {
            fs::write(layer.join(name), number.to_string()).expect("write");
        }
    }
    layers
}

fn read(root: &OwnedFd, name: &str) -> Option<String> {
    let flags = rustix::fs::OFlags::RDONLY;
    let file = rustix::fs::openat(root, name, flags, rustix::fs::Mode::empty()).ok()?;
    std::io::read_to_string(fs::File::from(file)).ok()
}

#[test]
fn many_layers_are_laid_on_each_other_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layers = layers(folder.path(), overlay::MAX_LAYERS + 1);
    let paths: Vec<&Path> = layers.iter().map(|path| path.as_path()).collect();
    for (way, count) in
        WAYS.iter().copied().flat_map(|way| [2, 500, 501, 600, overlay::MAX_LAYERS].map(|count| (way, count)))
    {
        let mount = overlay::part_by(way, &paths[..count], None, Path::new("")).expect("mount");
        assert_eq!(read(&mount, "top"), Some((count - 1).to_string()), "{way:?}");
        assert_eq!(read(&mount, "of-0").as_deref(), Some("0"), "{way:?}");
        assert_eq!(read(&mount, &format!("of-{count}")), None, "{way:?}");
    }
    let error = overlay::mount(&paths, None).expect_err("too many");
    assert_eq!(error.to_string(), "1000 layers: overlayfs takes at most 999");
}

#[test]
fn deep_stacks_are_changed_like_flat_ones() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layers = layers(folder.path(), 600);
    let whiteout = |at: usize, name: &str| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, layers[at].join(name), kind, rustix::fs::Mode::empty(), 0)
            .expect("mknod");
    };
    // Below, above and across the place where the stack is parted (500).
    for (at, hidden) in [(100, "of-50"), (550, "of-520"), (599, "of-3")] {
        whiteout(at, hidden);
    }
    for (at, name) in [(10, "old"), (590, "new")] {
        fs::create_dir(layers[at].join("dir")).expect("make a directory");
        fs::write(layers[at].join("dir").join(name), name).expect("write");
    }
    let opaque = opaque_mark(in_user_namespace());
    rustix::fs::setxattr(layers[590].join("dir"), opaque, b"y", rustix::fs::XattrFlags::empty())
        .expect("set");

    let root = Root::new();
    let mut paths: Vec<&Path> = layers.iter().map(|path| path.as_path()).collect();
    let base = root.base();
    paths.insert(0, &base);
    let upper = root.upper();
    let mut command = root.shell(
        "ls | grep -c ^of-; ls dir; cat top; echo; rm of-1 of-540 && rm -r dir && mkdir dir && touch dir/x && \
         mv of-2 moved && chmod 600 of-10 && ln of-599 link && ls | grep -c ^of-",
    );
    let work = root.folder.path().join("deep");
    fs::create_dir(&work).expect("make a directory");
    command.root = overlay::mount(&paths, Some((&upper, &work))).expect("mount the root");
    assert_eq!(output(command), "597\nnew\n599\n594\n");
    assert_eq!(
        root.changes(),
        ["dir", "dir/x", "link", "moved", "of-1", "of-10", "of-2", "of-540", "of-599"].map(str::to_owned)
    );
    let kind = |name: &str| fs::symlink_metadata(upper.join(name)).expect("stat").file_type();
    assert!(["of-1", "of-2", "of-540"].iter().all(|name| kind(name).is_char_device()));
    let mut value = [0; 1];
    assert_eq!(rustix::fs::getxattr(upper.join("dir"), opaque, &mut value).ok(), Some(1));
}

#[test]
fn a_socket_has_a_mode_and_an_owner_of_its_own() {
    let root = Root::new();
    let outside = root.folder.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&outside).expect("listen");
    let mut command = root.shell("stat -c '%a %u:%g %F' /run/agent");
    command.mounts = vec![AttachedMount {
        target: "/run/agent".to_owned(),
        what: Attached::Socket { path: outside.clone(), mode: 0o600, uid: 1000, gid: 2000 },
    }];
    assert_eq!(output(command), "600 1000:2000 socket\n");
    assert_eq!(root.changes(), Vec::<String>::new());
    assert_ne!(fs::metadata(&outside).expect("stat").uid(), 1000);
}
