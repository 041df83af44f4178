//! Making what an archive holds.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode as Permissions};
use rustix::io::Errno;

use super::place::{Directory, Place, clean, make_dir};
use super::{Mode, UnpackOptions};
use crate::layer::LayerError;
use crate::layer::tar::read::shown;
use crate::layer::tar::{Entry, EntryKind, TarReader};
use crate::layer::xattr::{imported, opaque_mark};
use crate::root::{Kind, Metadata, Root, at};

/// Data is written in pieces of this size; a piece of zeros becomes a hole.
const PIECE: usize = 128 << 10;

/// Unpacks entries one by one.
pub(super) struct Extractor<'a> {
    place: Place<'a>,
    buffer: Vec<u8>,
}

impl<'a> Extractor<'a> {
    pub(super) fn new(dest: &'a Root, options: &'a UnpackOptions) -> Result<Self, LayerError> {
        let mut place = Place::new(dest, options)?;
        if let Some(root) = place.below.root() {
            // The root directory that shows is that of the highest layer.
            let like = at::fstat(root.as_fd()).map_err(LayerError::io("look at", root.name()))?;
            let mtime = like.mtime;
            set_dir_metadata(dest, &like)?;
            copy_xattrs((root.as_fd(), OsStr::new(".")), (dest.as_fd(), OsStr::new(".")), dest.name())?;
            place.set_time(Path::new(""), mtime)?;
        }
        Ok(Self { place, buffer: vec![0; PIECE] })
    }

    /// Unpacks one entry; `tar` stands at its data.
    pub(super) fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        let refused = |what| LayerError::Refused { path: shown(&entry.path), what };
        let names = clean(&entry.path).ok_or_else(|| refused("it leads out of the archive with `..`"))?;
        let Some((last, parents)) = names.split_last() else {
            return self.root_entry(entry);
        };
        if last.len() > 255 {
            return Err(refused("a name of more than 255 bytes"));
        }
        if self.place.options.mode == Mode::Layer {
            if parents.iter().any(|name| name.starts_with(b".wh.")) {
                return Err(refused("something below a whiteout"));
            }
            if let Some(removed) = last.strip_prefix(b".wh.") {
                if entry.kind != EntryKind::File {
                    return Err(refused("a whiteout that is no regular file"));
                }
                return self.whiteout(parents, removed, &entry.path);
            }
        }
        if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
            return Err(refused("a character device 0:0, which overlayfs takes for a whiteout"));
        }
        let name = OsStr::from_bytes(last);
        if entry.kind == EntryKind::HardLink {
            return self.hard_link(parents, name, entry);
        }
        let parent = self.place.directory(parents)?;
        let path = parent.path.join(name);
        let existing = at::lstat(&*parent.fd, name).map_err(LayerError::io("look at", &path))?;
        let merge =
            existing.is_some_and(|found| found.kind == Kind::Directory) && entry.kind == EntryKind::Directory;
        if existing.is_some() && !merge {
            self.clear(&parent, name, &path)?;
        }
        let fail = |action| LayerError::io(action, &path);
        let dir = parent.fd.as_fd();
        match entry.kind {
            EntryKind::File => return self.file(&parent, name, &path, entry, tar),
            EntryKind::Directory => {
                if !merge {
                    make_dir(&parent.fd, name, 0o700).map_err(fail("make directory"))?;
                    if existing.is_some() && self.place.options.mode == Mode::Layer {
                        // A file of this layer had hidden what is below.
                        self.mark_opaque(&path)?;
                    }
                }
            }
            EntryKind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), dir, name)
                    .map_err(fail("make link"))?;
            }
            EntryKind::Fifo => at::make_node(dir, name, Kind::Fifo, (0, 0)).map_err(fail("make pipe"))?,
            EntryKind::CharDevice => {
                at::make_node(dir, name, Kind::CharDevice, entry.device).map_err(fail("make device"))?;
            }
            EntryKind::BlockDevice => {
                at::make_node(dir, name, Kind::BlockDevice, entry.device).map_err(fail("make device"))?;
            }
            EntryKind::HardLink => {}
        }
        let (uid, gid) = self.owner(entry);
        at::chown(dir, name, uid, gid).map_err(fail("change owner of"))?;
        if entry.kind != EntryKind::Symlink {
            at::chmod(dir, name, entry.mode).map_err(fail("change mode of"))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| imported(key)) {
            let key = OsStr::from_bytes(key);
            accept_missing_xattrs(at::set_xattr(dir, name, key, value), false)
                .map_err(fail("set an xattr of"))?;
        }
        if entry.kind == EntryKind::Directory {
            return self.place.set_time(&path, entry.mtime);
        }
        at::set_mtime(dir, name, entry.mtime).map_err(fail("set the time of"))
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        self.place.options.owner.unwrap_or((entry.uid, entry.gid))
    }

    /// The entry `.` or `/`: metadata of the destination itself.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != EntryKind::Directory {
            let path = shown(&entry.path);
            return Err(LayerError::Refused { path, what: "the root as something else than a directory" });
        }
        if self.place.options.mode == Mode::Files {
            return Ok(());
        }
        let root = self.place.root;
        let (uid, gid) = self.owner(entry);
        let dot = OsStr::new(".");
        let fail = |action| LayerError::io(action, root.name());
        at::chown(root.as_fd(), dot, uid, gid).map_err(fail("change owner of"))?;
        at::chmod(root.as_fd(), dot, entry.mode).map_err(fail("change mode of"))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| imported(key)) {
            let key = OsStr::from_bytes(key);
            let result = at::set_xattr(root.as_fd(), dot, key, value);
            accept_missing_xattrs(result, false).map_err(fail("set an xattr of"))?;
        }
        self.place.set_time(Path::new(""), entry.mtime)
    }

    /// Removes what has an entry's name already.
    fn clear(&mut self, parent: &Directory, name: &OsStr, path: &Path) -> Result<(), LayerError> {
        self.place.forget_open();
        at::remove_all(&*parent.fd, name).map(drop).map_err(LayerError::io("replace", path))
    }

    fn file<R: Read>(
        &mut self,
        parent: &Directory,
        name: &OsStr,
        path: &Path,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        let fail = |action| LayerError::io(action, path);
        let mut file = at::create_file(&*parent.fd, name, 0o600).map_err(fail("create"))?;
        match &entry.sparse {
            None => self.write_data(&mut file, entry.size, path, tar)?,
            Some(map) => {
                for segment in map {
                    let mut at = segment.offset;
                    let mut left = segment.length;
                    while left > 0 {
                        let piece = piece(&mut self.buffer, left);
                        let count = tar.read_data(piece)?;
                        file.write_all_at(piece.get(..count).unwrap_or_default(), at)
                            .map_err(LayerError::io("write", path))?;
                        at += count as u64;
                        left -= count as u64;
                    }
                }
                file.set_len(entry.size).map_err(LayerError::io("write", path))?;
            }
        }
        let (uid, gid) = self.owner(entry);
        at::fchown(&file, uid, gid).map_err(fail("change owner of"))?;
        // After the owner, whose change takes setuid and capabilities away.
        rustix::fs::fchmod(&file, Permissions::from_raw_mode(entry.mode)).map_err(fail("change mode of"))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| imported(key)) {
            let key = OsStr::from_bytes(key);
            let result = rustix::fs::fsetxattr(&file, key, value, rustix::fs::XattrFlags::empty());
            accept_missing_xattrs(result, true).map_err(fail("set an xattr of"))?;
        }
        at::fset_mtime(&file, entry.mtime).map_err(fail("set the time of"))
    }

    /// Writes a file's data; long stretches of zeros are left out.
    fn write_data<R: Read>(
        &mut self,
        file: &mut File,
        size: u64,
        path: &Path,
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        let mut left = size;
        let mut hole = false;
        while left > 0 {
            let piece = piece(&mut self.buffer, left);
            let mut filled = 0;
            while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                filled += tar.read_data(rest)?;
            }
            left -= filled as u64;
            hole = piece.len() == PIECE && piece.iter().all(|byte| *byte == 0);
            if hole {
                file.seek(SeekFrom::Current(filled as i64)).map_err(LayerError::io("write", path))?;
            } else {
                file.write_all(piece).map_err(LayerError::io("write", path))?;
            }
        }
        if hole {
            file.set_len(size).map_err(LayerError::io("write", path))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, parents: &[&[u8]], name: &OsStr, entry: &Entry) -> Result<(), LayerError> {
        let refused = |what| LayerError::Refused { path: shown(&entry.path), what };
        let target =
            clean(&entry.link).ok_or_else(|| refused("a hard link that leads out of the archive"))?;
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(refused("a hard link to a directory"));
        };
        let target_name = OsStr::from_bytes(target_name);
        let from = self.place.directory(target_parents)?;
        let target_path = from.path.join(target_name);
        let fail = |action| LayerError::io(action, &target_path);
        let found = match at::lstat(&*from.fd, target_name).map_err(fail("look at"))? {
            Some(found) => found,
            None => self.copy_up(&from, target_name, &target_path).and_then(|found| {
                found.ok_or_else(|| refused("a hard link to a file that does not exist"))
            })?,
        };
        if found.kind == Kind::Directory {
            return Err(refused("a hard link to a directory"));
        }
        let to = self.place.directory(parents)?;
        let path = to.path.join(name);
        if let Some(existing) = at::lstat(&*to.fd, name).map_err(LayerError::io("look at", &path))? {
            if (existing.dev, existing.ino) == (found.dev, found.ino) {
                return Ok(());
            }
            self.clear(&to, name, &path)?;
        }
        rustix::fs::linkat(&*from.fd, target_name, &*to.fd, name, AtFlags::empty())
            .map_err(LayerError::io("make hard link", &path))
    }

    /// Copies a file of a lower layer, so that it can get another name in this one.
    fn copy_up(&mut self, to: &Directory, name: &OsStr, path: &Path) -> Result<Option<Metadata>, LayerError> {
        let Some(found) = self.place.find_below(path)? else { return Ok(None) };
        let fail = |action| LayerError::io(action, path);
        let like = found.metadata;
        let dir = to.fd.as_fd();
        match like.kind {
            Kind::Directory | Kind::Socket => return Ok(None),
            Kind::File => {
                let (mut source, _) = at::open_file(&found.dir, &found.name).map_err(fail("read"))?;
                let mut copy = at::create_file(dir, name, 0o600).map_err(fail("create"))?;
                std::io::copy(&mut source, &mut copy).map_err(LayerError::io("copy", path))?;
            }
            Kind::Symlink => {
                let target = at::read_link(&found.dir, &found.name).map_err(fail("read link"))?;
                rustix::fs::symlinkat(target, dir, name).map_err(fail("make link"))?;
            }
            Kind::Fifo => at::make_node(dir, name, Kind::Fifo, (0, 0)).map_err(fail("make pipe"))?,
            Kind::CharDevice | Kind::BlockDevice => {
                at::make_node(dir, name, like.kind, like.device).map_err(fail("make device"))?;
            }
        }
        at::chown(dir, name, like.uid, like.gid).map_err(fail("change owner of"))?;
        if like.kind != Kind::Symlink {
            at::chmod(dir, name, like.mode).map_err(fail("change mode of"))?;
        }
        copy_xattrs((found.dir.as_fd(), &found.name), (dir, name), path)?;
        at::set_mtime(dir, name, like.mtime).map_err(fail("set the time of"))?;
        self.place.used_below = true;
        at::lstat(dir, name).map_err(fail("look at"))
    }

    fn whiteout(&mut self, parents: &[&[u8]], removed: &[u8], name: &[u8]) -> Result<(), LayerError> {
        if removed == b".wh..opq" {
            let path = self.place.directory(parents)?.path;
            remember(&mut self.place.budget, &path)?;
            return self.mark_opaque(&path);
        }
        if matches!(removed, b"" | b"." | b"..") || removed.starts_with(b".wh.") {
            return Err(LayerError::Refused { path: shown(name), what: "a whiteout of an impossible name" });
        }
        let path = self.place.directory(parents)?.path.join(OsStr::from_bytes(removed));
        remember(&mut self.place.budget, &path)?;
        self.place.whiteouts.insert(path);
        Ok(())
    }

    /// Marks a directory that exists in the destination, so that it hides what is below.
    fn mark_opaque(&mut self, path: &Path) -> Result<(), LayerError> {
        self.place.opaque.insert(path.to_owned());
        if path.as_os_str().is_empty() {
            // The kernel does not look for the mark at a layer's root: see `hide_all`.
            return Ok(());
        }
        let dir = self.place.open_plain(path).map_err(LayerError::io("open directory", path))?;
        let key = opaque_mark(self.place.options.userns);
        rustix::fs::fsetxattr(&dir, key, b"y", rustix::fs::XattrFlags::empty())
            .map_err(LayerError::io("mark as opaque", path))
    }

    /// The root is opaque: each name that the layers below have is hidden by itself.
    fn hide_all(&mut self) -> Result<(), LayerError> {
        for name in self.place.below.root_names()? {
            self.place.used_below = true;
            self.place.whiteouts.insert(PathBuf::from(name));
        }
        Ok(())
    }

    /// Does what has to wait for the end: whiteouts (they are about lower layers only, whatever their place in the
    /// archive), then times of directories. Says whether something came from the layers below.
    pub(super) fn finish(mut self) -> Result<bool, LayerError> {
        self.place.forget_open();
        if self.place.opaque.contains(Path::new("")) {
            self.hide_all()?;
        }
        for path in std::mem::take(&mut self.place.whiteouts) {
            let (parent, Some(name)) = (path.parent().unwrap_or(Path::new("")), path.file_name()) else {
                continue;
            };
            let fail = |action| LayerError::io(action, &path);
            let dir = match self.place.open_plain(parent) {
                Ok(dir) => dir,
                // The layer itself replaced the directory by a file: that hides it, too.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(fail("open directory of")(error)),
            };
            match at::lstat(&dir, name).map_err(fail("look at"))?.map(|found| found.kind) {
                None => {
                    rustix::fs::mknodat(dir.as_fd(), name, FileType::CharacterDevice, Permissions::empty(), 0)
                        .map_err(fail("make whiteout"))?
                }
                Some(Kind::Directory) => self.mark_opaque(&path)?,
                Some(_) => {}
            }
        }
        for (path, mtime) in &self.place.times {
            // One that was replaced later has no time to be set.
            if let Ok(dir) = self.place.open_plain(path) {
                at::fset_mtime(&dir, *mtime).map_err(LayerError::io("set the time of", path))?;
            }
        }
        Ok(self.place.used_below)
    }
}

/// Part of the buffer, at most `left` bytes.
fn piece(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let size = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    buffer.get_mut(..size).unwrap_or_default()
}

fn set_dir_metadata(dest: &Root, like: &Metadata) -> Result<(), LayerError> {
    let dot = OsStr::new(".");
    at::chown(dest.as_fd(), dot, like.uid, like.gid)
        .map_err(LayerError::io("change owner of", dest.name()))?;
    at::chmod(dest.as_fd(), dot, like.mode).map_err(LayerError::io("change mode of", dest.name()))
}

/// Filesystems without xattrs do without them; on links and special files Linux refuses those of users.
fn accept_missing_xattrs(result: rustix::io::Result<()>, must: bool) -> rustix::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if !must => Ok(()),
        other => other,
    }
}

/// Copies the xattrs that belong to a layer.
pub(super) fn copy_xattrs(
    from: (BorrowedFd<'_>, &OsStr),
    to: (BorrowedFd<'_>, &OsStr),
    path: &Path,
) -> Result<(), LayerError> {
    for (key, value) in at::xattrs(from.0, from.1).map_err(LayerError::io("read xattrs of", path))? {
        if imported(key.as_bytes()) {
            let result = at::set_xattr(to.0, to.1, &key, &value);
            accept_missing_xattrs(result, false).map_err(LayerError::io("set an xattr of", path))?;
        }
    }
    Ok(())
}

/// Takes what a remembered path costs from the budget.
pub(super) fn remember(budget: &mut usize, path: &Path) -> Result<(), LayerError> {
    let cost = path.as_os_str().len() + 96;
    *budget = budget.checked_sub(cost).ok_or_else(|| LayerError::Refused {
        path: shown(path.as_os_str().as_bytes()),
        what: "the archive has too many long names of directories and whiteouts",
    })?;
    Ok(())
}
