//! Writing through `fuse-overlayfs` (<https://github.com/containers/fuse-overlayfs>), for a store on a filesystem that the
//! kernel's overlayfs does not write to: nothing is copied but what is changed.
//!
//! The filesystem is mounted here, attached nowhere, like every other; the program gets the open `/dev/fuse` as its
//! standard input, and ends with the last that uses the mount. It is given paths below its working directory, so that no
//! path needs to be escaped in its options.
//!
//! | it leaves in the upper directory | overlayfs has |
//! | --- | --- |
//! | a character device 0:0 | the same |
//! | `.wh.NAME`, where it may make no device | a character device 0:0 |
//! | `.wh..wh..opq` in a directory, `user.fuseoverlayfs.opaque` on it | `trusted.overlay.opaque` or `user.overlay.opaque`, if it hides something |
//! | `user.fuseoverlayfs.origin` on a file | nothing |
//!
//! A command can't make files or attributes of such names: the program refuses them.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bricklayer_cache::layer::xattr::opaque_mark;
use bricklayer_cache::root::at::{self, Kind};
use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_cache::root::{Root, RootError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::overlay;

const PROGRAM: &str = "fuse-overlayfs";

/// Where it is looked for after `PATH`.
const PLACES: &str = "/usr/bin:/usr/local/bin:/bin";

/// The longest argument that Linux passes on (`MAX_ARG_STRLEN`), and some room.
const MAX_OPTIONS: usize = (128 << 10) - 64;

/// How long it may take to end when nothing uses its files any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// What its whiteouts begin with, and the mark of an opaque directory.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What its attributes begin with.
const ATTRIBUTES: &[u8] = b"user.fuseoverlayfs.";

/// Why fuse-overlayfs can't be used, or what it left can't.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FuseError {
    /// There is no such program.
    #[error("{PROGRAM} is not installed")]
    Missing,
    /// The layers can't be named to it.
    #[error("{PROGRAM} can't be given these layers: {0}")]
    Layers(&'static str),
    /// A system call failed.
    #[error("{PROGRAM} cannot be used: cannot {action}")]
    Start {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It gave up.
    #[error("{PROGRAM} failed: {said}")]
    Failed {
        /// What it said last.
        said: String,
    },
    /// Something still uses its files.
    #[error("{PROGRAM} has not ended in {} seconds: something uses its files", PATIENCE.as_secs())]
    Busy,
    /// A path of the layer could not be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What it left could not be changed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, below the root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store's filesystem does not take what stands for a file that was removed: it is an overlay itself.
    #[error("cannot note that `{}` was removed: the store's filesystem keeps such notes for itself", path.display())]
    Whiteout {
        /// The file, below the root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn start<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> FuseError {
    move |source| FuseError::Start { action, source: source.into() }
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(Errno) -> FuseError + use<'a> {
    move |source| FuseError::Io { action, path: path.to_owned(), source: source.into() }
}

/// A filesystem that the program serves.
#[derive(Debug)]
pub(crate) struct Fuse {
    /// Its root; what is handed out are clones.
    root: Option<OwnedFd>,
    server: Server,
    /// What the layers show without the upper directory.
    below: Root,
    upper: PathBuf,
}

/// The program; killed when this is dropped.
#[derive(Debug)]
struct Server {
    child: Child,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fuse {
    /// Layers (lowest first), which show `below`, with `upper` on top, which `work` belongs to; both lie in a directory of
    /// ours.
    pub(crate) fn new(lowers: &[&Path], below: Root, upper: &Path, work: &Path) -> Result<Self, FuseError> {
        let program = program().ok_or(FuseError::Missing)?;
        probe(work)?;
        let empty = upper.with_file_name("empty");
        let lowers = if lowers.is_empty() {
            match std::fs::create_dir(&empty) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(start("make an empty directory")(error));
                }
                _ => &[&*empty],
            }
        } else {
            lowers
        };
        let (directory, options) = options(lowers, upper, work)?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::CLOEXEC.bits().cast_signed())
            .open("/dev/fuse")
            .map_err(start("open /dev/fuse"))?;
        let root = mount(&device).map_err(start("mount a FUSE filesystem"))?;
        let log = upper.with_file_name("fuse-overlayfs.log");
        let said = File::create(&log).map_err(start("make a file for what fuse-overlayfs says"))?;
        let child = Command::new(program)
            .args(["-f", "-o", &options, "/dev/fd/0"])
            .current_dir(directory)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::from(device))
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(start("start fuse-overlayfs"))?;
        let mut fuse =
            Self { root: Some(root), server: Server { child, log }, below, upper: upper.to_owned() };
        // Waits for its first answer. The device is its alone by now: if it ends, this fails.
        match fuse.mount().and_then(|root| rustix::fs::fstat(&root).map_err(start("look at its files"))) {
            Ok(_) => Ok(fuse),
            Err(_) => Err(FuseError::Failed { said: fuse.server.last_words() }),
        }
    }

    /// Its files, as a mount that is attached nowhere.
    pub(crate) fn mount(&mut self) -> Result<OwnedFd, FuseError> {
        let root = self.root.as_mut().ok_or(FuseError::Busy)?;
        overlay::part_of(root, Path::new("/"))
            .map_err(|error| start("clone the mount")(io::Error::other(error)))
    }

    /// Waits until all is written; no mount may be in use any more.
    pub(crate) fn end(&mut self) -> Result<(), FuseError> {
        drop(self.root.take());
        let pid = Pid::from_child(&self.server.child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(start("wait for fuse-overlayfs"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = rustix::time::Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(FuseError::Busy),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(start("wait for fuse-overlayfs")(error)),
            }
        }
        let status = self.server.child.wait().map_err(start("wait for fuse-overlayfs"))?;
        if status.success() {
            return Ok(());
        }
        Err(FuseError::Failed { said: self.server.last_words() })
    }

    /// Ends it, and makes the upper directory one of overlayfs.
    pub(crate) fn finish(mut self) -> Result<(), FuseError> {
        self.end()?;
        translate(&Root::open(&self.upper)?, &self.below)
    }
}

impl Server {
    /// What it said last.
    fn last_words(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(said.get(said.len().saturating_sub(1024)..).unwrap_or_default());
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        last.map_or_else(|| "it said nothing".to_owned(), |line| line.trim().to_owned())
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(PLACES.split(':'))
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(PROGRAM))
        .find(|program| program.is_file())
}

/// In a store on fuse-overlayfs itself, a whiteout is one of that filesystem, and what is put in its place afterwards fails.
fn probe(work: &Path) -> Result<(), FuseError> {
    let failed = start("make, remove and replace a whiteout in the store");
    let directory = match rustix::fs::open(work, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(directory) => directory,
        Err(error) => return Err(failed(error)),
    };
    let name = c"whiteout";
    match rustix::fs::mknodat(&directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => {}
        // It makes files then.
        Err(Errno::PERM) => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let replace = || -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
        rustix::fs::mkdirat(&directory, name, Mode::RWXU)?;
        rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)
    };
    replace().map_err(failed)
}

/// The directory that holds everything, and the options with paths in there.
fn options(lowers: &[&Path], upper: &Path, work: &Path) -> Result<(PathBuf, String), FuseError> {
    let all = || lowers.iter().copied().chain([upper, work]);
    let shared = |path: &Path| all().all(|other| other.starts_with(path) && other != path);
    let directory = upper
        .ancestors()
        .find(|path| path.is_absolute() && shared(path))
        .ok_or(FuseError::Layers("they have no directory in common"))?;
    let names: Option<Vec<&str>> = lowers.iter().rev().map(|path| inside(directory, path)).collect();
    let odd = FuseError::Layers("a path has characters that mean something in its options");
    let (Some(names), Some(upper), Some(work)) = (names, inside(directory, upper), inside(directory, work))
    else {
        return Err(odd);
    };
    let options = format!("lowerdir={},upperdir={upper},workdir={work}", names.join(":"));
    if options.len() > MAX_OPTIONS {
        return Err(FuseError::Layers("there are too many"));
    }
    Ok((directory.to_owned(), options))
}

/// A path below `directory`, if it has none of the characters that mean something in options.
fn inside<'a>(directory: &Path, path: &'a Path) -> Option<&'a str> {
    let path = path.strip_prefix(directory).ok()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let names = path.components().all(|part| matches!(part, Component::Normal(_)));
    if names && path.as_os_str().as_bytes().iter().all(plain) { path.to_str() } else { None }
}

/// Mounts what the device's other side serves (fuse(4), Linux's `fs/fuse/inode.c`).
fn mount(device: &File) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    let number = device.as_raw_fd().to_string();
    // We are root, or root of a user namespace.
    let options =
        [("source", PROGRAM), ("fd", &number), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")];
    for (key, value) in options {
        fsconfig_set_string(context, key, value)?;
    }
    for flag in [c"default_permissions", c"allow_other"] {
        fsconfig_set_flag(context, flag)?;
    }
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOATIME)
}

/// Makes the program's notes those that overlayfs would have left on what `below` shows.
fn translate(root: &Root, below: &Root) -> Result<(), FuseError> {
    // With each directory: does one above it hide what lies below?
    let mut todo = vec![(PathBuf::new(), false)];
    while let Some((path, hidden)) = todo.pop() {
        let directory = root.open_dir(&path)?;
        let before = at::fstat(&directory).map_err(io("look at", &path))?;
        let mut opaque = strip(&directory, OsStr::new("."), &path)?;
        let mut touched = false;
        let mut directories = Vec::new();
        for (name, kind) in at::read_dir(&directory).map_err(io("read", &path))? {
            let here = path.join(&name);
            if let Some(removed) = name.as_bytes().strip_prefix(WHITEOUT) {
                rustix::fs::unlinkat(&directory, &name, AtFlags::empty()).map_err(io("remove", &here))?;
                touched = true;
                opaque |= name.as_bytes() == OPAQUE;
                // It makes a device `.wh..opq` as well, which means nothing.
                if kind == Kind::File && name.as_bytes() != OPAQUE {
                    whiteout(&directory, &path, OsStr::from_bytes(removed))?;
                }
            } else if kind == Kind::Directory {
                directories.push(here);
            } else if kind == Kind::File {
                strip(&directory, &name, &here)?;
            }
        }
        // It marks all directories that are made; overlayfs those that hide something.
        let key = OsStr::new(opaque_mark(in_user_namespace()));
        if opaque && !hidden && below.lstat(&path)?.is_some() {
            at::set_xattr(&directory, OsStr::new("."), key, b"y")
                .map_err(io("set an attribute of", &path))?;
        } else if opaque {
            at::remove_xattr(&directory, OsStr::new("."), key)
                .map_err(io("remove an attribute of", &path))?;
        }
        if touched {
            at::fset_mtime(&directory, before.mtime).map_err(io("set the time of", &path))?;
        }
        todo.extend(directories.into_iter().map(|directory| (directory, hidden || opaque)));
    }
    Ok(())
}

/// Removes the program's attributes; was the mark of an opaque directory there?
fn strip(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool, FuseError> {
    let found = at::xattrs(directory, name).map_err(io("read attributes of", path))?;
    let mut opaque = false;
    for (key, value) in found {
        if let Some(what) = key.as_bytes().strip_prefix(ATTRIBUTES) {
            opaque |= what == b"opaque" && value == b"y";
            at::remove_xattr(directory, name, &key).map_err(io("remove an attribute of", path))?;
        } else if key == opaque_mark(in_user_namespace()) {
            opaque |= value == b"y";
        }
    }
    Ok(opaque)
}

fn whiteout(directory: &OwnedFd, path: &Path, name: &OsStr) -> Result<(), FuseError> {
    let kind = FileType::CharacterDevice;
    match rustix::fs::mknodat(directory, name, kind, Mode::empty(), 0) {
        // It was made anew.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(FuseError::Whiteout { path: path.join(name), source: source.into() }),
    }
}
