//! The bare root filesystem: as one tar, or as files in a directory of the caller.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use bricklayer_cache::layer::xattr;
use bricklayer_cache::layer::{LayerError, PackOptions, pack};
use bricklayer_cache::root::at::{self, Kind, Metadata};
use bricklayer_cache::root::{Root, RootError};
use bricklayer_cache::store::Compression;

/// Why a root filesystem could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// The tar could not be made.
    #[error("cannot write the tar")]
    Tar(#[source] LayerError),
    /// A path of the root filesystem or of the destination could not be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A file could not be written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, below the destination.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Writes what `view` shows as one tar: deterministic for the same files; `clamp` as in [`PackOptions`].
pub fn write_tar(
    view: &Root,
    out: &mut (dyn Write + Send),
    clamp: Option<i64>,
    progress: &dyn Fn(u64),
) -> Result<(), RootfsError> {
    // a merged view has no path: its descriptor has
    let path = PathBuf::from(format!("/proc/self/fd/{}", view.as_fd().as_raw_fd()));
    let options = PackOptions { compression: Compression::None, clamp, ..PackOptions::default() };
    pack(&path, out, &options, progress).map_err(RootfsError::Tar)?;
    Ok(())
}

/// Whose the written files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Those who own them in the root filesystem.
    Kept,
    /// Whoever runs this program.
    Caller,
}

/// Writes what `view` shows into a directory, which is made if it is missing. What is there stays, unless the view has
/// something of that name.
pub fn write_local(view: &Root, dest: &Path, owners: Owners) -> Result<(), RootfsError> {
    std::fs::create_dir_all(dest).map_err(io("make", dest))?;
    copy_tree(view, &Root::open(dest)?, owners)
}

/// Copies all files of one root into another.
pub(crate) fn copy_tree(from: &Root, to: &Root, owners: Owners) -> Result<(), RootfsError> {
    let mut copy = Copying { from, to, owners, links: HashMap::new() };
    copy.directory(Path::new(""))
}

/// Copies what has that name in one root, a directory with everything in it, into another. A socket is left out.
pub(crate) fn copy_entry(from: &Root, to: &Root, name: &OsStr, owners: Owners) -> Result<(), RootfsError> {
    let path = Path::new(name);
    let Some(found) = from.lstat(path)? else { return Ok(()) };
    let mut copy = Copying { from, to, owners, links: HashMap::new() };
    copy.entry(path, name, found.kind)
}

struct Copying<'a> {
    from: &'a Root,
    to: &'a Root,
    owners: Owners,
    /// The first name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copying<'_> {
    /// Copies what is in a directory. Depth is bounded by the length of paths.
    fn directory(&mut self, path: &Path) -> Result<(), RootfsError> {
        for (name, kind) in self.from.read_dir(path)? {
            let path = path.join(&name);
            self.entry(&path, &name, kind)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &OsStr, kind: Kind) -> Result<(), RootfsError> {
        let Some(metadata) = self.from.lstat(path)? else { return Ok(()) };
        let (dir, _) = self.to.parent_of(path)?;
        let existing = at::lstat(&dir, name).map_err(io("look at", path))?;
        if existing.is_some_and(|found| found.kind != Kind::Directory || kind != Kind::Directory) {
            at::remove_all(&dir, name).map_err(io("replace", path))?;
        }
        if kind != Kind::Directory && metadata.links > 1 {
            if let Some(first) = self.links.get(&(metadata.dev, metadata.ino)) {
                let (from_dir, from_name) = self.to.parent_of(first)?;
                return rustix::fs::linkat(&from_dir, &from_name, &dir, name, rustix::fs::AtFlags::empty())
                    .map_err(io("link", path));
            }
            self.links.insert((metadata.dev, metadata.ino), path.to_owned());
        }
        match metadata.kind {
            Kind::Directory => {
                if existing.is_none_or(|found| found.kind != Kind::Directory) {
                    let mode = rustix::fs::Mode::from_raw_mode(0o700);
                    rustix::fs::mkdirat(&dir, name, mode).map_err(io("make", path))?;
                }
                self.directory(path)?;
            }
            Kind::File => {
                let mut source = self.from.open_file(path)?;
                let mut file = at::create_file(&dir, name, 0o600).map_err(io("make", path))?;
                std::io::copy(&mut source, &mut file).map_err(io("write", path))?;
            }
            Kind::Symlink => {
                let target = self.from.read_link(path)?;
                rustix::fs::symlinkat(&target, &dir, name).map_err(io("make", path))?;
            }
            Kind::Socket => return Ok(()),
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => self.special(&dir, name, path, &metadata)?,
        }
        if self.owners == Owners::Kept {
            at::chown(&dir, name, metadata.uid, metadata.gid).map_err(io("change the owner of", path))?;
        }
        if kind != Kind::Symlink {
            at::chmod(&dir, name, metadata.mode).map_err(io("change the mode of", path))?;
        }
        if self.owners == Owners::Kept {
            // After the owner, whose change takes capabilities away.
            let (from, from_name) = self.from.parent_of(path)?;
            let found = at::xattrs(&from, &from_name).map_err(io("read attributes of", path))?;
            for (key, value) in xattr::split(found).0 {
                at::set_xattr(&dir, name, &key, &value).map_err(io("set an attribute of", path))?;
            }
        }
        at::set_mtime(&dir, name, metadata.mtime).map_err(io("set the time of", path))
    }

    fn special(
        &self,
        dir: impl AsFd,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), RootfsError> {
        use rustix::fs::{FileType, Mode, makedev, mknodat};
        if self.owners == Owners::Kept {
            return at::make_node(dir, name, metadata.kind, metadata.device).map_err(io("make", path));
        }
        let kind = match metadata.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = makedev(metadata.device.0, metadata.device.1);
        mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device).map_err(io("make", path))
    }
}

fn io<'a, E: Into<std::io::Error>>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> RootfsError + use<'a, E> {
    move |source| RootfsError::Io { action, path: path.to_owned(), source: source.into() }
}
