//! Removing trees that anybody may have filled: of any depth, with directories that nobody may enter.
//!
//! Bounded recursion, so no growing number of open directories: a subdirectory that lies deeper and is not empty is
//! renamed to the top of what is being removed, and its turn comes later.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::root::at;

/// Removes whatever is at `path`; nothing there is fine. Symbolic links are not followed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(rustix::fs::unlink(path)?),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { top: top.as_fd(), moved: 0, later: Vec::new() };
    removal.empty(top.as_fd(), 0)?;
    while let Some(name) = removal.later.pop() {
        removal.directory(top.as_fd(), &name, 0)?;
    }
    Ok(rustix::fs::rmdir(path)?)
}

/// So many directories are open at once, one in the other.
const DEPTH: usize = 16;

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// How many were renamed.
    moved: u64,
    /// Names in `top`.
    later: Vec<CString>,
}

impl Removal<'_> {
    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let directory = match open_directory(parent, name) {
            Ok(directory) => directory,
            // It was moved here while the names in here were being read, and so came twice.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.empty(directory.as_fd(), depth + 1)?;
        drop(directory);
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        remove_files(directory, |name| {
            if depth < DEPTH {
                return self.directory(directory, name, depth);
            }
            self.later.push(move_up(directory, name, self.top, &mut self.moved)?);
            Ok(())
        })
    }
}

/// Removes all files and empty directories of `directory`, and gives the others to `full`.
fn remove_files(directory: BorrowedFd<'_>, mut full: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // Some filesystems do not tell types when they list names.
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => full(name)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, count: &mut u64) -> io::Result<CString> {
    if !rustix::process::geteuid().is_root() {
        // Its `..` changes, which needs the right to write in it.
        rustix::fs::chmodat(from, name, Mode::RWXU, AtFlags::empty())?;
    }
    loop {
        *count += 1;
        let target = CString::new(format!(".removed-{count}")).map_err(|_| Errno::INVAL)?;
        match at::rename_new(from, name, top, target.as_c_str()) {
            Ok(()) => return Ok(target),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a directory, and makes it one that may be emptied where this is not so.
fn open_directory<P: Arg + Copy>(at: BorrowedFd<'_>, path: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if rustix::process::geteuid().is_root() {
        return rustix::fs::openat(at, path, flags, Mode::empty());
    }
    match rustix::fs::openat(at, path, flags, Mode::empty()) {
        Ok(directory) => {
            // What belongs to somebody else says so when it is removed.
            let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
            Ok(directory)
        }
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(at, path, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(at, path, flags, Mode::empty())
        }
        Err(error) => Err(error),
    }
}

/// Bytes on disk of what is below `path`, with all its directories; each hard-linked file counts once.
pub(super) fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut linked = std::collections::HashSet::new();
    let mut total = 0;
    for entry in walkdir::WalkDir::new(path).follow_links(false) {
        // What is being removed at the same time does not count.
        let Ok(metadata) = entry.and_then(|entry| entry.metadata()) else { continue };
        let counted =
            metadata.is_dir() || metadata.nlink() == 1 || linked.insert((metadata.dev(), metadata.ino()));
        if counted {
            total += metadata.blocks() * 512;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn trees_of_any_shape_go_and_nothing_outside_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join(".removed-1/x")).unwrap();
        fs::write(tree.join("a/b/c/file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();

        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());

        std::os::unix::fs::symlink(&outside, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(fs::symlink_metadata(&tree).is_err());
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_directory(CWD, &tree).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_directory(at.as_fd(), "d").unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// Many of each, so that names that are moved to the top come while the names there are being read.
    #[test]
    fn what_is_moved_while_names_are_read_goes_once() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for wide in 0..300 {
            let mut path = tree.join(format!("w{wide}"));
            for deep in 0..=DEPTH + 2 {
                path.push(format!("d{deep}"));
            }
            fs::create_dir_all(path.join("full")).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
