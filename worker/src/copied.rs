//! A writable copy of merged files, and what was changed in it: for a store on a filesystem that overlayfs does not write
//! to (a network filesystem, an overlay of a container, a kernel that lets no ordinary user do it).
//!
//! The copy lies beside the new layer, on the same filesystem. What is new or changed afterwards is moved from there into
//! the layer; what is gone becomes a whiteout; a directory is in the layer if its owner, mode, time or attributes
//! changed, or if something in it is. A file counts as changed if its inode or its time of change (`ctime`) is another
//! one, which no program can set.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::layer::xattr;
use bricklayer_cache::root::at::{self, Xattr};
use bricklayer_cache::root::{Kind, Metadata, Root, RootError};

use crate::export::{Owners, RootfsError, copy_entry, copy_tree};
use crate::overlay;

/// Why files could not be copied or compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopiedError {
    /// The copy could not be made.
    #[error("cannot copy the files, which overlayfs does not write to here")]
    Copy(#[source] RootfsError),
    /// A path of the copy or of the layer could not be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store's filesystem does not take what stands for a file that was removed: it is an overlay itself.
    #[error("cannot note that `{}` was removed: the store's filesystem keeps such notes for itself", path.display())]
    Whiteout {
        /// The file, below the root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, below the root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(rustix::io::Errno) -> CopiedError + use<'a> {
    move |source| CopiedError::Io { action, path: path.to_owned(), source: source.into() }
}

/// What a file was when it was copied.
#[derive(Debug)]
struct Before {
    metadata: Metadata,
    /// Of a directory.
    xattrs: Vec<Xattr>,
}

/// A copy that was made.
#[derive(Debug)]
pub(crate) struct Copied {
    root: PathBuf,
    before: HashMap<PathBuf, Before>,
}

impl Copied {
    /// Copies what `view` shows into `root`, a directory that is made for it.
    pub(crate) fn make(view: &Root, root: PathBuf) -> Result<Self, CopiedError> {
        std::fs::create_dir(&root).map_err(|source| CopiedError::Io {
            action: "make",
            path: root.clone(),
            source,
        })?;
        let copy = Root::open(&root)?;
        copy_tree(view, &copy, Owners::Kept).map_err(CopiedError::Copy)?;
        like(&copy, Path::new(""), view)?;
        let mut before = HashMap::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(directory) = todo.pop() {
            for (name, _) in copy.read_dir(&directory)? {
                let path = directory.join(name);
                let Some(metadata) = copy.lstat(&path)? else { continue };
                let is_directory = metadata.kind == Kind::Directory;
                let xattrs = if is_directory { attributes(&copy, &path)? } else { Vec::new() };
                before.insert(path.clone(), Before { metadata, xattrs });
                if is_directory {
                    todo.push(path);
                }
            }
        }
        Ok(Self { root, before })
    }

    /// The copy's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The copy as a mount that is attached nowhere.
    pub(crate) fn mount(&self) -> Result<OwnedFd, CopiedError> {
        let root = Root::open(&self.root)?;
        overlay::subtree(root.as_fd(), Path::new("/")).map_err(|error| CopiedError::Io {
            action: "mount",
            path: self.root.clone(),
            source: io::Error::other(error),
        })
    }

    /// Moves what was changed into `layer`, an empty directory on the same filesystem.
    pub(crate) fn finish(self, layer: &Path) -> Result<(), CopiedError> {
        let (copy, layer) = (Root::open(&self.root)?, Root::open(layer)?);
        let mut moving = Moving { copy: &copy, layer: &layer, made: BTreeMap::new() };
        let mut seen = HashSet::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(directory) = todo.pop() {
            for (name, _) in copy.read_dir(&directory)? {
                let path = directory.join(name);
                let Some(now) = copy.lstat(&path)? else { continue };
                match self.before.get(&path) {
                    Some(old) if old.metadata.kind == Kind::Directory && now.kind == Kind::Directory => {
                        if !same_directory(old, &now) || old.xattrs != attributes(&copy, &path)? {
                            moving.directory(&path)?;
                        }
                        seen.insert(path.clone());
                        todo.push(path);
                    }
                    Some(old) if unchanged(&old.metadata, &now) => drop(seen.insert(path)),
                    old => {
                        moving.take(&path)?;
                        if old.is_some() {
                            seen.insert(path);
                        }
                    }
                }
            }
        }
        for (path, _) in self.before.iter().filter(|(path, _)| !seen.contains(*path)) {
            // What lay in something that is gone is gone with it.
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent == Path::new("") || (seen.contains(parent) && is_directory(&copy, parent)?) {
                moving.whiteout(path)?;
            }
        }
        moving.finish()?;
        like(&layer, Path::new(""), &copy)
    }
}

/// Copies the file or directory that `inside` leads to in `view` into `scratch`, an empty directory on another mount; the
/// copy as a mount that is attached nowhere.
pub(crate) fn copy_of(view: &Root, inside: &Path, scratch: &Root) -> Result<OwnedFd, CopiedError> {
    let mounted = |root: &Root, path: &Path| {
        overlay::subtree(root.as_fd(), path).map_err(|error| CopiedError::Io {
            action: "mount",
            path: inside.to_owned(),
            source: io::Error::other(error),
        })
    };
    let real = view.resolve(inside)?;
    let Some(name) = real.file_name() else {
        copy_tree(view, scratch, Owners::Kept).map_err(CopiedError::Copy)?;
        like(scratch, Path::new(""), view)?;
        return mounted(scratch, Path::new("/"));
    };
    if let Some(found) = view.lstat(&real)?.filter(|found| found.kind == Kind::Socket) {
        // Nobody listens at a socket of a layer: another one is as good.
        let make = || {
            let (kind, mode) = (rustix::fs::FileType::Socket, rustix::fs::Mode::empty());
            rustix::fs::mknodat(scratch.as_fd(), name, kind, mode, 0)?;
            at::chown(scratch.as_fd(), name, found.uid, found.gid)?;
            at::chmod(scratch.as_fd(), name, found.mode)
        };
        make().map_err(io("make", inside))?;
        return mounted(scratch, Path::new(name));
    }
    let parent = view.subroot(real.parent().unwrap_or(Path::new("")))?;
    copy_entry(&parent, scratch, name, Owners::Kept).map_err(CopiedError::Copy)?;
    mounted(scratch, Path::new(name))
}

fn is_directory(root: &Root, path: &Path) -> Result<bool, CopiedError> {
    Ok(root.lstat(path)?.is_some_and(|found| found.kind == Kind::Directory))
}

fn same_directory(old: &Before, now: &Metadata) -> bool {
    let what = |of: &Metadata| (of.mode, of.uid, of.gid, of.mtime);
    what(&old.metadata) == what(now)
}

fn unchanged(old: &Metadata, now: &Metadata) -> bool {
    (old.kind, old.dev, old.ino, old.ctime) == (now.kind, now.dev, now.ino, now.ctime)
}

/// The attributes of a directory that belong to a layer.
fn attributes(root: &Root, path: &Path) -> Result<Vec<Xattr>, CopiedError> {
    let found = at::fxattrs(root.open_dir(path)?).map_err(io("read attributes of", path))?;
    Ok(xattr::split(found).0)
}

/// Gives a directory of `to` owner, mode, attributes and time of the one in `from`.
fn like(to: &Root, path: &Path, from: &Root) -> Result<(), CopiedError> {
    let (source, target) = (from.open_dir(path)?, to.open_dir(path)?);
    let metadata = at::fstat(&source).map_err(io("look at", path))?;
    at::fchown(&target, metadata.uid, metadata.gid).map_err(io("change the owner of", path))?;
    rustix::fs::fchmod(&target, rustix::fs::Mode::from_raw_mode(metadata.mode))
        .map_err(io("change the mode of", path))?;
    for (key, value) in attributes(from, path)? {
        let dot = OsStr::new(".");
        at::set_xattr(&target, dot, &key, &value).map_err(io("set an attribute of", path))?;
    }
    at::fset_mtime(&target, metadata.mtime).map_err(io("set the time of", path))
}

struct Moving<'a> {
    copy: &'a Root,
    layer: &'a Root,
    /// Directories that were made in the layer, and their times.
    made: BTreeMap<PathBuf, (i64, u32)>,
}

impl Moving<'_> {
    /// Makes a directory of the copy, and those above it, in the layer too.
    fn directory(&mut self, path: &Path) -> Result<(), CopiedError> {
        if path == Path::new("") || self.made.contains_key(path) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.directory(parent)?;
        let name = path.file_name().unwrap_or_default();
        rustix::fs::mkdirat(self.layer.open_dir(parent)?, name, rustix::fs::Mode::from_raw_mode(0o700))
            .map_err(io("make", path))?;
        like(self.layer, path, self.copy)?;
        let found = self.copy.lstat(path)?;
        self.made.insert(path.to_owned(), found.map_or((0, 0), |found| found.mtime));
        Ok(())
    }

    /// Moves a file, or a directory with all that is in it, into the layer.
    fn take(&mut self, path: &Path) -> Result<(), CopiedError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.directory(parent)?;
        let name = path.file_name().unwrap_or_default();
        rustix::fs::renameat(self.copy.open_dir(parent)?, name, self.layer.open_dir(parent)?, name)
            .map_err(io("move", path))
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), CopiedError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.directory(parent)?;
        let (directory, name) = (self.layer.open_dir(parent)?, path.file_name().unwrap_or_default());
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
        rustix::fs::mknodat(directory, name, kind, mode, 0)
            .map_err(|source| CopiedError::Whiteout { path: path.to_owned(), source: source.into() })
    }

    /// Gives directories their times, which what was put into them has changed.
    fn finish(self) -> Result<(), CopiedError> {
        for (path, mtime) in self.made.iter().rev() {
            at::fset_mtime(self.layer.open_dir(path)?, *mtime).map_err(io("set the time of", path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use bricklayer_cache::layer::content_digest;
    use bricklayer_solver::Digest;

    use super::*;
    use crate::fuse::Fuse;
    use crate::writable::{Way, mount_writable};

    fn lower(root: &Path) {
        for directory in ["kept/below", "gone/deep", "emptied", "opaque/old", "to-file", "moved/in"] {
            fs::create_dir_all(root.join(directory)).expect("mkdir");
        }
        let files =
            ["kept/a", "kept/below/b", "gone/deep/c", "emptied/d", "opaque/old/e", "to-file/f", "moved/in/g"];
        for file in files.iter().chain(&["same-time", "mode", "to-dir", "to-link", "linked", "untouched"]) {
            fs::write(root.join(file), file).expect("write");
        }
        fs::hard_link(root.join("linked"), root.join("linked-too")).expect("link");
        symlink("kept", root.join("way")).expect("symlink");
        at::set_xattr(open(&root.join("kept")), OsStr::new("."), OsStr::new("user.note"), b"x")
            .expect("xattr");
    }

    fn open(path: &Path) -> OwnedFd {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("open")
    }

    /// What a command might do.
    fn change(root: &Path) {
        let path = |name: &str| root.join(name);
        fs::write(path("kept/a"), "changed").expect("write");
        fs::write(path("way/new"), "through a link").expect("write");
        fs::remove_dir_all(path("gone")).expect("remove");
        fs::remove_file(path("emptied/d")).expect("remove");
        fs::remove_dir_all(path("opaque")).expect("remove");
        fs::create_dir_all(path("opaque/new")).expect("mkdir");
        fs::remove_dir_all(path("to-file")).expect("remove");
        fs::write(path("to-file"), "file").expect("write");
        fs::remove_file(path("to-dir")).expect("remove");
        fs::create_dir_all(path("to-dir/x")).expect("mkdir");
        fs::remove_file(path("to-link")).expect("remove");
        symlink("mode", path("to-link")).expect("symlink");
        fs::create_dir_all(path("moved/to")).expect("mkdir");
        fs::rename(path("moved/in/g"), path("moved/to/g")).expect("rename");
        fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o4711)).expect("chmod");
        fs::set_permissions(path("kept/below"), fs::Permissions::from_mode(0o2750)).expect("chmod");
        std::os::unix::fs::chown(path("emptied"), Some(12), Some(34)).expect("chown");
        // as large as before, and as old
        let before = fs::metadata(path("same-time")).and_then(|found| found.modified()).expect("time");
        fs::write(path("same-time"), "SAME-TIME").expect("write");
        let file = fs::File::options().write(true).open(path("same-time")).expect("open");
        file.set_modified(before).expect("time");
        fs::hard_link(path("untouched"), path("new-name")).expect("link");
    }

    /// What is seen when a layer lies on the lower one.
    fn merged(lower: &Path, layer: &Path) -> Digest {
        let view = overlay::mount(&[lower, layer], None).expect("mount");
        content_digest(&PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()))).expect("digest")
    }

    fn at(root: &OwnedFd) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()))
    }

    /// Needs root, and Debian's fuse-overlayfs.
    #[test]
    fn other_ways_layers_show_what_an_overlay_s_shows() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["lower", "copied/tree", "served/tree", "served/work", "overlaid/tree", "overlaid/work"] {
            fs::create_dir_all(path(name)).expect("mkdir");
        }
        let below = path("lower");
        lower(&below);
        let (copied, served, overlaid) = (path("copied/tree"), path("served/tree"), path("overlaid/tree"));

        let (root, way) =
            mount_writable(None, &[&below], &overlaid, &path("overlaid/work")).expect("an overlay");
        assert!(matches!(way, Way::Overlay), "{way:?}");
        change(&at(&root));
        drop(root);

        let view = overlay::mount(&[&below], None).expect("mount");
        let copy = Copied::make(&Root::from_fd(view), path("copied/copy")).expect("copy");
        change(copy.root());
        copy.finish(&copied).expect("a layer");

        let view = Root::from_fd(overlay::mount(&[&below], None).expect("mount"));
        let mut fuse = Fuse::new(&[&below], view, &served, &path("served/work")).expect("fuse-overlayfs");
        let root = fuse.mount().expect("mount");
        change(&at(&root));
        drop(root);
        fuse.finish().expect("a layer");

        let expected = merged(&below, &overlaid);
        assert_ne!(expected, content_digest(&below).expect("digest"));
        for layer in [&copied, &served] {
            assert_eq!(merged(&below, layer), expected, "{}", layer.display());
            // and no more is in it than what was changed
            for unchanged in ["way", "kept/below/b"] {
                assert!(fs::symlink_metadata(layer.join(unchanged)).is_err(), "{unchanged}");
            }
            let left = Command::new("find").arg(layer).args(["-name", ".wh.*"]).output().expect("find");
            assert_eq!(String::from_utf8_lossy(&left.stdout), "");
        }
        // What a digest has of a layer of its own is the same as well.
        let digest = |layer: &Path| content_digest(layer).expect("digest");
        assert_eq!(digest(&served), digest(&overlaid));
    }

    /// Needs root.
    #[test]
    fn where_nothing_else_writes_it_is_a_copy() {
        let directory = tempfile::tempdir().expect("directory");
        // A path that fuse-overlayfs can't be given.
        let path = |name: &str| directory.path().join("a:b").join(name);
        for name in ["lower", "tree"] {
            fs::create_dir_all(path(name)).expect("mkdir");
        }
        // overlayfs wants its work directory on the filesystem of the upper one
        let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
        let (_, way) =
            mount_writable(None, &[&path("lower")], &path("tree"), elsewhere.path()).expect("a copy");
        assert!(
            matches!(&way, Way::Copied(_, why) if why.contains("can't be given these layers")),
            "{way:?}"
        );
    }

    /// Needs root.
    #[test]
    fn nothing_changed_makes_an_empty_layer() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("lower")).expect("mkdir");
        fs::create_dir_all(path("draft/tree")).expect("mkdir");
        lower(&path("lower"));
        let view = overlay::mount(&[&path("lower")], None).expect("mount");
        let copied = Copied::make(&Root::from_fd(view), path("draft/copy")).expect("copy");
        copied.finish(&path("draft/tree")).expect("finish");
        assert_eq!(fs::read_dir(path("draft/tree")).expect("list").count(), 0);
    }
}
