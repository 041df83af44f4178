//! The mount tree that a command sees, put together on a thread that has a mount namespace of its own.
//!
//! Every filesystem is made detached and attached by descriptor, so no path of the root filesystem is ever resolved by
//! the kernel on its own, and what a root filesystem has in place of /proc, /sys or /dev is found out before anything is
//! mounted there. The thread's own root stays the host's; only the command's becomes the new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bricklayer_solver::op::Security;
use bricklayer_sys::mount::{Attributes, make_private, set_attributes};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::socket::{self, Bound};
use super::stdio::{Size, Terminal};
use super::stub::{Missing, Place, Stubs, Want, place};
use super::{Attached, AttachedMount, SandboxError, Tmpfs, User, policy};

/// What has to be mounted, but for /proc and the cgroup filesystem, which only pid 1 can.
pub(super) struct Request<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) mounts: Vec<AttachedMount>,
    pub(super) security: Security,
    pub(super) shm_size: u64,
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
    pub(super) cwd: &'a str,
    pub(super) user: &'a User,
    /// Is the root filesystem read-only in the end?
    pub(super) read_only: bool,
    /// The size of the terminal that the command gets.
    pub(super) terminal: Option<Size>,
    /// Must device files be disabled by the mounts, because no control group says which may be opened?
    pub(super) no_devices: bool,
}

/// Where files in memory are attached meanwhile: a directory of the host that is always there, that nothing of ours looks
/// into, and that goes with the host's mounts when the root changes. Not `/`: what is mounted there would go instead of
/// the host's own root.
const APART: &str = "/proc/self/ns";

/// The finished tree.
pub(super) struct Tree {
    /// The directory for /proc.
    pub(super) proc: OwnedFd,
    /// The directory for the cgroup filesystem.
    pub(super) groups: Option<OwnedFd>,
    /// An empty directory.
    pub(super) mask_directory: OwnedFd,
    /// An empty file.
    pub(super) mask_file: OwnedFd,
    /// What leads outside, for as long as the command runs.
    pub(super) sockets: Vec<Bound>,
    /// The terminal that was asked for.
    pub(super) terminal: Option<Terminal>,
}

fn failed(step: &str) -> impl FnOnce(Errno) -> SandboxError {
    move |error| SandboxError::setup(step, error)
}

/// For files of ours.
pub(super) const NO_SUID_DEV: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

const NO_SUID_DEV_EXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new filesystem that is attached nowhere.
pub(super) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, SandboxError> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), c"source", kind)?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(failed(&format!("make a {kind} filesystem")))
}

pub(super) fn clone_tree(at: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(at, path, flags)
}

pub(super) fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", at, c"", flags)
}

pub(super) fn open_path(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Builds the tree in the calling thread's mount namespace, which must be its own.
pub(super) fn build(request: Request<'_>, stubs: &mut Stubs) -> Result<Tree, SandboxError> {
    let root = request.root;
    let host = rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the root directory"))?;
    make_private(host.as_fd()).map_err(|error| SandboxError::setup("make mounts private", error))?;
    if request.no_devices {
        set_attributes(root, Attributes::NO_DEVICES, false)
            .map_err(|error| SandboxError::setup("disable devices", error))?;
    }
    let scratch = Scratch::new(open_path(CWD, APART).map_err(failed("open /proc"))?.as_fd())?;
    attach(root, host.as_fd()).map_err(failed("attach the root filesystem"))?;

    let proc = system_directory(root, "proc")?;
    let sys = system_directory(root, "sys")?;
    let dev = system_directory(root, "dev")?;

    let mask_directory = scratch.cover_directory()?;
    let mask_file = scratch.cover_file()?;

    let terminal = devices(dev.as_fd(), &request)?;
    let groups = system(&request, sys.as_fd(), mask_directory.as_fd(), mask_file.as_fd())?;

    let mut context = Context::new(root, &scratch, request.no_devices);
    for fd in [&proc, &sys] {
        context.forbid(fd.as_fd())?;
    }
    context.files(request.hosts, request.resolv_conf, stubs)?;
    for mount in request.mounts {
        context.mount(mount, stubs)?;
    }
    context.working_directory(request.cwd, request.user, stubs)?;
    if request.read_only {
        // Last: mount points were made in it, and what is mounted on them keeps its own attributes.
        set_attributes(root, Attributes::READ_ONLY, false)
            .map_err(|error| SandboxError::setup("make the root filesystem read-only", error))?;
    }
    Ok(Tree { proc, groups, mask_directory, mask_file, sockets: context.sockets, terminal })
}

/// A directory of the root filesystem that a system filesystem goes on: a real one. If there is none it is made, and
/// stays.
pub(super) fn system_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, SandboxError> {
    let step = format!("open /{name} in the root filesystem");
    let directory = match open_path(root, name) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))
                .map_err(failed(&format!("make /{name} in the root filesystem")))?;
            open_path(root, name).map_err(failed(&step))?
        }
        other => other.map_err(failed(&step))?,
    };
    let stat = rustix::fs::fstat(&directory).map_err(failed(&step))?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(directory),
        FileType::Symlink => "a symbolic link",
        FileType::RegularFile => "a file",
        _ => "a special file",
    };
    Err(SandboxError::NotADirectory { path: format!("/{name}"), found })
}

/// Files in memory, on a filesystem that the command does not see as a whole.
pub(super) struct Scratch {
    root: OwnedFd,
    next: std::cell::Cell<u32>,
}

impl Scratch {
    /// Attached at `at`, which the command is not to reach: before Linux 6.15 no part of a mount that is attached nowhere
    /// can be cloned.
    pub(super) fn new(at: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        let attributes = NO_SUID_DEV_EXEC;
        let root = filesystem("tmpfs", &[("mode", "0700")], attributes)?;
        attach(root.as_fd(), at).map_err(failed("attach a filesystem in memory"))?;
        Ok(Self { root, next: std::cell::Cell::new(0) })
    }

    fn name(&self, kind: &str) -> String {
        let number = self.next.get();
        self.next.set(number + 1);
        format!("{kind}{number}")
    }

    /// An empty directory to hide others with: a mount that is read-only, and attached, so that it can be cloned.
    fn cover_directory(&self) -> Result<OwnedFd, SandboxError> {
        let name = self.name("directory");
        rustix::fs::mkdirat(&self.root, &name, Mode::from_raw_mode(0o755))
            .map_err(failed("make a directory"))?;
        self.cover(&name)
    }

    /// The same, an empty file.
    fn cover_file(&self) -> Result<OwnedFd, SandboxError> {
        let name = self.write("file", b"", 0o444, 0, 0)?;
        self.cover(&name)
    }

    fn cover(&self, name: &str) -> Result<OwnedFd, SandboxError> {
        let cover = self.read_only(name)?;
        open_path(self.root.as_fd(), name)
            .and_then(|place| attach(cover.as_fd(), place.as_fd()))
            .map_err(failed("attach an empty file"))?;
        Ok(cover)
    }

    /// A file with this content, as a mount that is read-only.
    fn file(&self, kind: &str, data: &[u8], mode: u32, uid: u32, gid: u32) -> Result<OwnedFd, SandboxError> {
        let name = self.write(kind, data, mode, uid, gid)?;
        self.read_only(&name)
    }

    /// Makes a file; gives its name.
    fn write(&self, kind: &str, data: &[u8], mode: u32, uid: u32, gid: u32) -> Result<String, SandboxError> {
        let name = self.name(kind);
        let write = || -> rustix::io::Result<()> {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.root, &name, flags, Mode::from_raw_mode(0o600))?;
            let mut rest = data;
            while !rest.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
                rest = rest.get(written..).unwrap_or_default();
            }
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))
        };
        write().map_err(failed("write a file in memory"))?;
        Ok(name)
    }

    /// A socket that leads to `outside`, as a mount.
    fn socket(&self, outside: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<(OwnedFd, Bound)> {
        let name = self.name("socket");
        let root = self.root.as_fd();
        let bound = socket::bind(root, &name, outside)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(root, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(root, &name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
        Ok((clone_tree(root, &name)?, bound))
    }

    fn read_only(&self, name: &str) -> Result<OwnedFd, SandboxError> {
        let tree = clone_tree(self.root.as_fd(), name).map_err(failed("clone a mount"))?;
        set_attributes(tree.as_fd(), Attributes::READ_ONLY, false)
            .map_err(|error| SandboxError::setup("make a mount read-only", error))?;
        Ok(tree)
    }
}

/// /dev, and the terminal of the command, which is /dev/console as well.
fn devices(dev: BorrowedFd<'_>, request: &Request<'_>) -> Result<Option<Terminal>, SandboxError> {
    let attributes = if request.no_devices {
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
    } else {
        MountAttrFlags::MOUNT_ATTR_NOSUID
    };
    let tmpfs = filesystem("tmpfs", &[("mode", "0755"), ("size", "65536k")], attributes)?;
    let root = tmpfs.as_fd();
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))
            .map_err(failed("make a directory in /dev"))?;
    }
    for (name, target) in policy::DEVICE_LINKS {
        rustix::fs::symlinkat(target, root, name).map_err(failed("make a link in /dev"))?;
    }
    let mut from_host = Vec::new();
    for (name, major, minor) in policy::DEVICES {
        let made = if request.no_devices {
            Err(Errno::PERM)
        } else {
            let device: Dev = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(root, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
        };
        match made {
            // Our umask may have taken bits away.
            Ok(()) => rustix::fs::chmodat(root, name, Mode::from_raw_mode(0o666), AtFlags::empty())
                .map_err(failed("set the mode of a device"))?,
            Err(Errno::PERM) => from_host.push((name, major, minor)),
            Err(error) => return Err(SandboxError::setup(format!("make /dev/{name}"), error)),
        }
    }
    attach(root, dev).map_err(failed("mount /dev"))?;
    for (name, major, minor) in from_host {
        let bind = || -> rustix::io::Result<()> {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o666))?);
            let device = clone_tree(CWD, &format!("/dev/{name}"))?;
            // The host's, and really this device.
            let stat = rustix::fs::fstat(&device)?;
            let is = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(major, minor);
            if !is {
                return Err(Errno::NODEV);
            }
            attach(device.as_fd(), open_path(root, name)?.as_fd())
        };
        bind().map_err(failed(&format!("bind /dev/{name}")))?;
    }
    if request.security == Security::Insecure {
        super::devices::make(root)?;
    }
    let pts = filesystem(
        "devpts",
        &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
    // The group may not be mapped in a user namespace.
    .or_else(|_| {
        filesystem(
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620")],
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
    })?;
    let terminal = match request.terminal {
        Some(size) => {
            let made = Terminal::of(pts.as_fd(), size);
            Some(made.map_err(|error| SandboxError::setup("make a terminal", error))?)
        }
        None => None,
    };
    let size = request.shm_size.to_string();
    let shm = filesystem("tmpfs", &[("mode", "1777"), ("size", &size)], NO_SUID_DEV_EXEC)?;
    let mqueue = filesystem("mqueue", &[], NO_SUID_DEV_EXEC)?;
    for (name, mount) in [("pts", pts), ("shm", shm), ("mqueue", mqueue)] {
        let target = open_path(root, name).map_err(failed("open a directory in /dev"))?;
        attach(mount.as_fd(), target.as_fd()).map_err(failed(&format!("mount /dev/{name}")))?;
    }
    if let Some(terminal) = &terminal {
        let console = || -> rustix::io::Result<()> {
            // Whoever runs the command may open its terminal anew.
            rustix::fs::fchown(&terminal.its, Some(Uid::from_raw(request.user.uid)), None)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(root, "console", flags, Mode::from_raw_mode(0o600))?);
            let name = rustix::pty::ptsname(&terminal.ours, Vec::new())?;
            let number = name.to_str().ok().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
            let pts = open_path(root, "pts")?;
            let device = clone_tree(pts.as_fd(), number)?;
            attach(device.as_fd(), open_path(root, "console")?.as_fd())
        };
        console().map_err(failed("make /dev/console"))?;
    }
    Ok(terminal)
}

/// /sys; gives the directory for the cgroup filesystem.
fn system(
    request: &Request<'_>,
    sys: BorrowedFd<'_>,
    mask_directory: BorrowedFd<'_>,
    mask_file: BorrowedFd<'_>,
) -> Result<Option<OwnedFd>, SandboxError> {
    let mut attributes = NO_SUID_DEV_EXEC;
    if request.security == Security::Sandbox {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mount = match filesystem("sysfs", &[], attributes) {
        // In a user namespace with the host's network: only the owner of a network may show it. What the host shows then
        // is what there is, read-only.
        Err(SandboxError::Setup { source, .. })
            if source.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
        {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let host = open_tree(CWD, "/sys", flags).map_err(failed("clone the host's /sys"))?;
            set_attributes(host.as_fd(), Attributes::READ_ONLY, true)
                .map_err(|error| SandboxError::setup("make /sys read-only", error))?;
            host
        }
        other => other?,
    };
    attach(mount.as_fd(), sys).map_err(failed("mount /sys"))?;
    for path in policy::sys_masked(request.security) {
        let target = match open_path(mount.as_fd(), path) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(SandboxError::setup(format!("open /sys/{path}"), error)),
        };
        let stat = rustix::fs::fstat(&target).map_err(failed("look at a directory of /sys"))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let cover = if is_directory { mask_directory } else { mask_file };
        clone_tree(cover, "")
            .and_then(|cover| attach(cover.as_fd(), target.as_fd()))
            .map_err(failed(&format!("hide /sys/{path}")))?;
    }
    match open_path(mount.as_fd(), "fs/cgroup") {
        Ok(groups) => Ok(Some(groups)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(SandboxError::setup("open /sys/fs/cgroup", error)),
    }
}

/// Mounts things on a root filesystem.
pub(super) struct Context<'a> {
    root: BorrowedFd<'a>,
    scratch: &'a Scratch,
    no_devices: bool,
    /// Where nothing is made: the directory below /proc would be hidden, and left behind in the layer.
    forbidden: Vec<(u64, u64)>,
    /// What leads outside, for as long as the command runs.
    pub(super) sockets: Vec<Bound>,
}

impl<'a> Context<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, scratch: &'a Scratch, no_devices: bool) -> Self {
        Self { root, scratch, no_devices, forbidden: Vec::new(), sockets: Vec::new() }
    }

    /// Nothing is made in this directory.
    pub(super) fn forbid(&mut self, directory: BorrowedFd<'_>) -> Result<(), SandboxError> {
        let stat = rustix::fs::fstat(directory).map_err(failed("look at a system directory"))?;
        self.forbidden.push((stat.st_dev, stat.st_ino));
        Ok(())
    }

    /// Mounts /etc/hosts and /etc/resolv.conf with these contents.
    pub(super) fn files(
        &mut self,
        hosts: String,
        resolv_conf: String,
        stubs: &mut Stubs,
    ) -> Result<(), SandboxError> {
        for (target, content) in [("/etc/hosts", hosts), ("/etc/resolv.conf", resolv_conf)] {
            let what = Attached::SecretFile { data: content.into_bytes(), mode: 0o644, uid: 0, gid: 0 };
            self.mount(AttachedMount { target: target.to_owned(), what }, stubs)?;
        }
        Ok(())
    }

    /// Makes the working directory if it is missing.
    pub(super) fn working_directory(
        &self,
        cwd: &str,
        user: &User,
        stubs: &mut Stubs,
    ) -> Result<(), SandboxError> {
        let keep = Missing::Keep { uid: user.uid, gid: user.gid };
        match place(self.root, cwd, Want::Directory, keep, &self.forbidden, stubs) {
            Ok(_) => Ok(()),
            // It may lie in /proc, which is not there yet: pid 1 finds out.
            Err(error) if error.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => Ok(()),
            Err(source) => Err(SandboxError::Cwd { path: cwd.to_owned(), source }),
        }
    }

    fn mount(&mut self, mount: AttachedMount, stubs: &mut Stubs) -> Result<(), SandboxError> {
        let AttachedMount { target, what } = mount;
        let (tree, want) = self.tree(&target, what)?;
        self.put(&target, tree, want, stubs)
    }

    /// The same, but what would lie in the directory `above` is given back, with whether it is a directory.
    pub(super) fn mount_unless_below(
        &mut self,
        mount: AttachedMount,
        above: BorrowedFd<'_>,
        stubs: &mut Stubs,
    ) -> Result<Option<(OwnedFd, bool)>, SandboxError> {
        let AttachedMount { target, what } = mount;
        let (tree, want) = self.tree(&target, what)?;
        if self.is_below(&target, above) {
            return Ok(Some((tree, want == Want::Directory)));
        }
        self.put(&target, tree, want, stubs)?;
        Ok(None)
    }

    /// Does a path lead into a directory, as far as it exists?
    fn is_below(&self, path: &str, above: BorrowedFd<'_>) -> bool {
        let id = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        let wanted = id(above);
        Path::new(path).ancestors().skip(1).any(|ancestor| {
            let found = crate::overlay::open_in(self.root, ancestor, OFlags::PATH);
            found.is_ok_and(|found| wanted.is_some() && id(found.as_fd()) == wanted)
        })
    }

    /// The mode bits of a directory that is there.
    fn directory_mode(&self, path: &str) -> Option<u32> {
        let found = crate::overlay::open_in(self.root, Path::new(path), OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(stat.st_mode & 0o7777)
    }

    /// What is to be mounted, as a mount that is attached nowhere.
    fn tree(&mut self, target: &str, what: Attached) -> Result<(OwnedFd, Want), SandboxError> {
        let fail = |source: io::Error| SandboxError::Mount { target: target.to_owned(), source };
        let tree = match what {
            Attached::Tree { fd, read_only } => {
                let mut add = Attributes::default();
                if read_only {
                    add = add | Attributes::READ_ONLY;
                }
                if self.no_devices {
                    add = add | Attributes::NO_DEVICES;
                }
                set_attributes(fd.as_fd(), add, true).map_err(fail)?;
                // A clone hears of what happens to the original, and tells it what happens here.
                make_private(fd.as_fd()).map_err(fail)?;
                fd
            }
            Attached::Tmpfs(Tmpfs { size, mode, read_only, programs }) => {
                let size = size.map(|size| size.to_string());
                let mode = mode.or_else(|| self.directory_mode(target)).unwrap_or(0o1777);
                let mode = format!("{:o}", mode & 0o7777);
                let mut options = vec![("mode", mode.as_str())];
                if let Some(size) = &size {
                    options.push(("size", size));
                }
                let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
                for (wanted, attribute) in [
                    (self.no_devices, MountAttrFlags::MOUNT_ATTR_NODEV),
                    (read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
                    (!programs, MountAttrFlags::MOUNT_ATTR_NOEXEC),
                ] {
                    if wanted {
                        attributes |= attribute;
                    }
                }
                filesystem("tmpfs", &options, attributes)?
            }
            Attached::SecretFile { data, mode, uid, gid } => {
                self.scratch.file("secret", &data, mode, uid, gid)?
            }
            Attached::Socket { path, mode, uid, gid } => {
                let (tree, bound) = self.scratch.socket(&path, mode, uid, gid).map_err(fail)?;
                self.sockets.push(bound);
                tree
            }
        };
        let stat = rustix::fs::fstat(&tree).map_err(|error| fail(error.into()))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok((tree, if is_directory { Want::Directory } else { Want::File }))
    }

    /// Attaches a mount.
    fn put(&self, target: &str, tree: OwnedFd, want: Want, stubs: &mut Stubs) -> Result<(), SandboxError> {
        let fail = |source: io::Error| SandboxError::Mount { target: target.to_owned(), source };
        let Place { fd, path } =
            place(self.root, target, want, Missing::Stub, &self.forbidden, stubs).map_err(fail)?;
        if path.is_empty() || path.first().is_some_and(|first| first == "proc") {
            return Err(fail(io::Error::from_raw_os_error(Errno::PERM.raw_os_error())));
        }
        attach(tree.as_fd(), fd.as_fd()).map_err(|error| fail(error.into()))
    }
}
