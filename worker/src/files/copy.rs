//! COPY and ADD: puts what was selected into a root.
//!
//! - Destination: a trailing `/` (or `/.`) or a directory that exists means "into it", under the source's name; anything
//!   else is the path itself. Links in it are followed inside the root.
//! - A directory's content goes into the destination, file by file. The destination keeps its own mode and owner if it
//!   exists, but gets the source's mtime; directories below get all of the source's metadata.
//! - Directories that are made on the way, the destination among them, are 0755 and root's; an owner or the permissions of
//!   an octal mode apply to them too, but not its special bits, nor a symbolic mode, nor any mode where an archive is
//!   unpacked. Below a setgid directory they have its bit, and its group if no owner is given.
//! - Files and links in the way are replaced, files never by directories nor the other way round.
//! - Files that are hard links of each other in one source are so in the result.
//! - With `replace` (`--link`) all of this happens as if the root were empty: links and files in the way become
//!   directories, directories become files, and directories on the way get fresh metadata.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bricklayer_cache::layer::sniff;
use bricklayer_cache::layer::unpack::{Mode as UnpackMode, UnpackOptions, unpack};
use bricklayer_cache::root::{Kind, Metadata, Root, RootError, at};
use bricklayer_solver::mode::SymbolicMode;
use bricklayer_solver::pattern::clean;
use rustix::fs::{AtFlags, FileType};

use super::FilesError;
use super::content::{as_copied, copied_xattrs, hard_links};
use super::place::{self, Placed};
use super::select::Item;
use super::tree::{Entry, SourceTree};
use crate::context::index;

/// Mode of directories that nobody gave one.
const IMPLICIT_MODE: u32 = 0o755;

/// What the files of a copy become.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// Owner of everything; `None`: as in the source, and root's for directories on the way.
    pub(crate) owner: Option<(u32, u32)>,
    /// Mode of everything but links.
    pub(crate) mode: ModeChange,
    /// Modification time of directories on the way.
    pub(crate) created: (i64, u32),
    /// See [`Copy::replace`](bricklayer_solver::op::Copy::replace).
    pub(crate) replace: bool,
}

/// `--chmod`.
#[derive(Debug)]
pub(crate) enum ModeChange {
    Keep,
    Bits(u32),
    Symbolic(SymbolicMode),
}

impl Attributes {
    pub(super) fn owner(&self, metadata: &Metadata) -> (u32, u32) {
        self.owner.unwrap_or((metadata.uid, metadata.gid))
    }

    pub(super) fn mode(&self, metadata: &Metadata) -> u32 {
        match &self.mode {
            ModeChange::Keep => metadata.mode,
            ModeChange::Bits(bits) => *bits,
            ModeChange::Symbolic(mode) => mode.apply(metadata.mode, metadata.kind == Kind::Directory),
        }
    }

    /// Mode of directories on the way: the permissions of an octal mode, without its special bits.
    fn implicit_mode(&self) -> u32 {
        match self.mode {
            ModeChange::Bits(bits) => bits & 0o777,
            ModeChange::Keep | ModeChange::Symbolic(_) => IMPLICIT_MODE,
        }
    }
}

/// Writes into a root.
pub(crate) struct Writer<'a> {
    base: &'a Root,
    /// Are we root in a user namespace only?
    userns: bool,
    /// Modification times of directories, set when nothing is written into them any more.
    times: BTreeMap<PathBuf, (i64, u32)>,
    /// With `replace`: directories that are ours, so that they are taken for what is there.
    ours: HashSet<PathBuf>,
    /// The directory that was used last.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(base: &'a Root, userns: bool) -> Self {
        Self { base, userns, times: BTreeMap::new(), ours: HashSet::new(), parent: None }
    }

    /// Sets what had to wait: the directories' times.
    pub(crate) fn finish(self) -> Result<(), FilesError> {
        for (path, time) in self.times.iter().rev() {
            // It may have been removed or replaced since; no link is followed.
            match self.base.lstat(path)? {
                Some(found) if found.kind == Kind::Directory => {
                    let fd = self.base.open_dir(path)?;
                    at::fset_mtime(&fd, *time).map_err(FilesError::io("set the time of", path))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies one selected thing to `dest`; with `unpacking`, an archive is unpacked there instead.
    pub(crate) fn copy(
        &mut self,
        tree: &SourceTree,
        item: &Item,
        dest: &str,
        unpacking: bool,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        // What it stands for may have been removed since.
        self.parent = None;
        let into = dest.ends_with('/') || dest.ends_with("/.");
        let target = self.real(Path::new(&*clean(&format!("/{dest}"))), attributes)?;
        if unpacking && item.top.kind() == Kind::File {
            let (mut file, before) = place::open(tree, tree.open_parent(&item.top)?, &item.top)?;
            if sniff(&mut file).map_err(FilesError::io("read", &item.top.path))?.is_some() {
                return self.unpack(tree, item, file, &before, &target, attributes);
            }
        }
        if into {
            self.make_dirs(&target, attributes)?;
        }
        let existing = self.lstat(&target, attributes)?;
        if item.top.kind() == Kind::Directory {
            match existing {
                Some(kind) if kind != Kind::Directory => {
                    return Err(FilesError::OntoFile { from: item.source.clone(), to: target, kind });
                }
                _ => self.make_dirs(&target, attributes)?,
            }
            self.times.insert(target.clone(), item.top.metadata().mtime);
            return self.place_below(tree, item, &target, attributes);
        }
        let target = if existing == Some(Kind::Directory) { target.join(&item.name) } else { target };
        self.make_dirs(target.parent().unwrap_or(Path::new("/")), attributes)?;
        self.place(tree, item, &item.top, &target, None, attributes)
    }

    /// Where a destination really is.
    fn real(&self, dest: &Path, attributes: &Attributes) -> Result<PathBuf, FilesError> {
        if attributes.replace { Ok(dest.to_owned()) } else { Ok(self.base.resolve(dest)?) }
    }

    /// What is at a real path, as far as the copy may know.
    fn lstat(&self, path: &Path, attributes: &Attributes) -> Result<Option<Kind>, FilesError> {
        if attributes.replace && path != Path::new("/") && !self.ours.contains(path) {
            return Ok(None);
        }
        Ok(self.base.lstat(path)?.map(|found| found.kind))
    }

    /// Makes a directory and those above it, as far as they are missing.
    pub(crate) fn make_dirs(&mut self, path: &Path, attributes: &Attributes) -> Result<(), FilesError> {
        self.make_dirs_with(path, attributes.implicit_mode(), attributes)
    }

    fn make_dirs_with(&mut self, path: &Path, mode: u32, attributes: &Attributes) -> Result<(), FilesError> {
        if attributes.replace {
            let (uid, gid) = attributes.owner.unwrap_or((0, 0));
            let mut dir = self.base.open_dir(Path::new(""))?;
            let mut done = PathBuf::from("/");
            for name in path.iter().filter(|name| *name != "/") {
                done.push(name);
                if !self.ours.contains(&done) {
                    let found = at::lstat(&dir, name).map_err(FilesError::io("look at", &done))?;
                    if found.is_none_or(|found| found.kind != Kind::Directory) {
                        at::remove_all(&dir, name).map_err(FilesError::io("remove", &done))?;
                        make_dir(&dir, name).map_err(FilesError::io("make directory", &done))?;
                    }
                    at::chown(&dir, name, uid, gid).map_err(FilesError::io("change the owner of", &done))?;
                    at::chmod(&dir, name, mode).map_err(FilesError::io("change the mode of", &done))?;
                    self.times.insert(done.clone(), attributes.created);
                    self.ours.insert(done.clone());
                }
                dir = at::open_dir(&dir, name).map_err(FilesError::io("open directory", &done))?;
            }
            return Ok(());
        }
        let times = &mut self.times;
        self.base.make_dirs(path, mode, |fd, made| {
            // without an owner they are root's, but for the group that a setgid directory hands on
            if let Some((uid, gid)) = attributes.owner {
                at::fchown(fd, uid, gid).map_err(RootError::io("change the owner of", made))?;
            }
            times.insert(made.to_owned(), attributes.created);
            Ok(())
        })?;
        Ok(())
    }

    /// The directory that holds a real path, which exists.
    fn parent_of(&mut self, path: &Path) -> Result<&OwnedFd, FilesError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if self.parent.as_ref().is_none_or(|(held, _)| held != parent) {
            self.parent = Some((parent.to_owned(), self.base.open_dir(parent)?));
        }
        // Set just now.
        self.parent.as_ref().map(|(_, fd)| fd).ok_or(FilesError::NoInput(0))
    }

    /// Puts what is below a directory below `target`: first directories and what is special, then all files at once, then
    /// hard links to them.
    fn place_below(
        &mut self,
        tree: &SourceTree,
        item: &Item,
        target: &Path,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        let (mut files, mut linked) = (Vec::new(), Vec::new());
        for (found, link) in item.below.iter().zip(hard_links(item)) {
            let entry = &*found.entry;
            let to = target.join(&found.rel);
            match link {
                Some(first) => linked.push((entry, to, target.join(first))),
                None if as_copied(tree, entry).kind == Kind::File => {
                    files.push(Placed { entry, target: to, source: None })
                }
                None => self.place(tree, item, entry, &to, None, attributes)?,
            }
        }
        place::place_files(tree, self.base, &files, attributes)?;
        for (entry, to, first) in linked {
            self.place(tree, item, entry, &to, Some(first), attributes)?;
        }
        Ok(())
    }

    /// Puts one entry at `target`, whose directory exists. `link`: it is a hard link to that file.
    fn place(
        &mut self,
        tree: &SourceTree,
        item: &Item,
        entry: &Entry,
        target: &Path,
        link: Option<PathBuf>,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        let metadata = as_copied(tree, entry);
        let name = target.file_name().unwrap_or_default().to_owned();
        let dir = self.parent_of(target)?;
        let existing = at::lstat(dir, &name).map_err(FilesError::io("look at", target))?;
        if metadata.kind == Kind::Directory {
            match existing.map(|existing| existing.kind) {
                Some(Kind::Directory) => {}
                Some(kind) if !attributes.replace => {
                    return Err(FilesError::OntoFile {
                        from: entry.path.display().to_string(),
                        to: target.to_owned(),
                        kind,
                    });
                }
                existing => {
                    if existing.is_some() {
                        at::remove_all(dir, &name).map_err(FilesError::io("remove", target))?;
                    }
                    make_dir(dir, &name).map_err(FilesError::io("make directory", target))?;
                }
            }
            self.set_attributes(tree, entry, &metadata, target, &name, attributes)?;
            self.times.insert(target.to_owned(), metadata.mtime);
            if attributes.replace {
                self.ours.insert(target.to_owned());
            }
            return Ok(());
        }
        match existing.map(|existing| existing.kind) {
            None => {}
            Some(Kind::Directory) if !attributes.replace => {
                let from = if item.below.is_empty() {
                    item.source.clone()
                } else {
                    entry.path.display().to_string()
                };
                return Err(FilesError::OntoDirectory { from, to: target.to_owned() });
            }
            Some(_) => {
                at::remove_all(dir, &name).map_err(FilesError::io("remove", target))?;
            }
        }
        if let Some(first) = link {
            let (first_dir, first_name) = self.base.parent_of(&first)?;
            let dir = self.parent_of(target)?;
            return rustix::fs::linkat(&first_dir, &first_name, dir, &name, AtFlags::empty())
                .map_err(FilesError::io("link", target));
        }
        match metadata.kind {
            Kind::File => {
                let source = item.below.is_empty().then_some(item.source.as_str());
                let file = Placed { entry, target: target.to_owned(), source };
                return place::place_files(tree, self.base, &[file], attributes);
            }
            Kind::Symlink => {
                let text = tree.link_target(entry)?;
                rustix::fs::symlinkat(&text, dir, &name).map_err(FilesError::io("make link", target))?;
            }
            Kind::CharDevice if metadata.is_whiteout() => {
                // It would delete a file instead of being one.
                let refused = std::io::Error::other("a character device 0:0 can't be part of a layer");
                return Err(FilesError::io("make device", target)(refused));
            }
            Kind::Socket => {
                rustix::fs::mknodat(dir, &name, FileType::Socket, rustix::fs::Mode::empty(), 0)
                    .map_err(FilesError::io("make socket", target))?;
            }
            kind => {
                let action = if kind == Kind::Fifo { "make named pipe" } else { "make device" };
                at::make_node(dir, &name, kind, metadata.device).map_err(FilesError::io(action, target))?;
            }
        }
        self.set_attributes(tree, entry, &metadata, target, &name, attributes)?;
        let dir = self.parent_of(target)?;
        at::set_mtime(dir, &name, metadata.mtime).map_err(FilesError::io("set the time of", target))
    }

    /// Owner, mode and xattrs of anything but a regular file.
    fn set_attributes(
        &mut self,
        tree: &SourceTree,
        entry: &Entry,
        metadata: &Metadata,
        target: &Path,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        let dir = self.parent_of(target)?;
        let (uid, gid) = attributes.owner(metadata);
        at::chown(dir, name, uid, gid).map_err(FilesError::io("change the owner of", target))?;
        if metadata.kind != Kind::Symlink {
            at::chmod(dir, name, attributes.mode(metadata))
                .map_err(FilesError::io("change the mode of", target))?;
        }
        for (key, value) in copied_xattrs(tree, entry)? {
            // Best effort, as in BuildKit: the result's filesystem, or our rights, may not have it.
            let _ = at::set_xattr(dir, name, &key, &value);
        }
        Ok(())
    }

    fn unpack(
        &mut self,
        tree: &SourceTree,
        item: &Item,
        mut file: File,
        before: &Metadata,
        target: &Path,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        self.make_dirs_with(target, IMPLICIT_MODE, attributes)?;
        let dest = self.base.subroot(target)?;
        file.rewind().map_err(FilesError::io("read", &item.top.path))?;
        let options = UnpackOptions {
            mode: UnpackMode::Files,
            owner: attributes.owner,
            userns: self.userns,
            ..UnpackOptions::default()
        };
        let failed = |source| FilesError::Unpack { path: item.source.clone(), source: Box::new(source) };
        unpack(&file, &dest, &options, &|_| {}).map_err(failed)?;
        if tree.is_local() {
            let after = at::fstat(&file).map_err(FilesError::io("look at", &item.top.path))?;
            if !index::unchanged(before, &after) {
                return Err(tree.changed(&item.top));
            }
        }
        Ok(())
    }
}

/// A directory that only we can use until it has its mode.
fn make_dir(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(dir, name, rustix::fs::Mode::from_raw_mode(0o700))
}
