//! Regular files of a copy: many at a time, since each costs a dozen system calls and nearly no computing.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::{Kind, Metadata, Root, RootError, at};
use rayon::prelude::*;
use rustix::fs::XattrFlags;

use super::content::{as_copied, keep_copied};
use super::copy::Attributes;
use super::tree::{Entry, SourceTree};
use super::{FilesError, data};
use crate::context::index;

/// Files that one thread copies before it looks for more work.
const BATCH: usize = 64;

/// One file to be copied.
pub(super) struct Placed<'a> {
    pub(super) entry: &'a Entry,
    /// Its real path in the result; the directory is there.
    pub(super) target: PathBuf,
    /// What the instruction calls it, if it was selected itself.
    pub(super) source: Option<&'a str>,
}

/// Copies files side by side on rayon's pool. Of several failures, the first in the list's order is the error.
pub(super) fn place_files(
    tree: &SourceTree,
    base: &Root,
    files: &[Placed<'_>],
    attributes: &Attributes,
) -> Result<(), FilesError> {
    let neighbours = |a: &Placed<'_>, b: &Placed<'_>| {
        a.target.parent() == b.target.parent() && a.entry.path.parent() == b.entry.path.parent()
    };
    let batches: Vec<_> = files.chunk_by(neighbours).flat_map(|group| group.chunks(BATCH)).collect();
    let failed = batches.par_iter().find_map_first(|batch| place_batch(tree, base, batch, attributes).err());
    failed.map_or(Ok(()), Err)
}

/// Files of one directory that go into one directory.
fn place_batch(
    tree: &SourceTree,
    base: &Root,
    batch: &[Placed<'_>],
    attributes: &Attributes,
) -> Result<(), FilesError> {
    let Some(first) = batch.first() else { return Ok(()) };
    let into = base.open_dir(first.target.parent().unwrap_or(Path::new("/")))?;
    let from = match tree.open_parent(first.entry) {
        Ok(from) => from,
        Err(_) if tree.is_local() => return Err(tree.changed(first.entry)),
        Err(error) => return Err(error),
    };
    for file in batch {
        let name = file.target.file_name().unwrap_or_default();
        make_room(&into, name, file, attributes.replace)?;
        place_file(tree, &from, &into, name, file, attributes)?;
    }
    Ok(())
}

/// Removes what the file replaces.
fn make_room(
    into: impl AsFd,
    name: &OsStr,
    file: &Placed<'_>,
    even_directories: bool,
) -> Result<(), FilesError> {
    let existing = at::lstat(&into, name).map_err(FilesError::io("look at", &file.target))?;
    match existing.map(|existing| existing.kind) {
        None => Ok(()),
        Some(Kind::Directory) if !even_directories => {
            let from = file.source.map_or_else(|| file.entry.path.display().to_string(), str::to_owned);
            Err(FilesError::OntoDirectory { from, to: file.target.clone() })
        }
        Some(_) => at::remove_all(&into, name).map(drop).map_err(FilesError::io("remove", &file.target)),
    }
}

/// Opens a regular file of a directory of the source; one that is not as it was found is an error.
pub(super) fn open(
    tree: &SourceTree,
    from: impl AsFd,
    entry: &Entry,
) -> Result<(File, Metadata), FilesError> {
    let (file, metadata) = match at::open_file(from, entry.name()) {
        Ok(opened) => opened,
        Err(error) if tree.is_local() && is_something_else(error) => return Err(tree.changed(entry)),
        Err(error) => return Err(RootError::io("open", &entry.path)(error).into()),
    };
    if tree.is_local() && !index::unchanged(entry.metadata(), &metadata) {
        return Err(tree.changed(entry));
    }
    Ok((file, metadata))
}

/// Is it gone, or no regular file any more?
fn is_something_else(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::ISDIR | Errno::NXIO)
}

fn place_file(
    tree: &SourceTree,
    from: impl AsFd,
    into: impl AsFd,
    name: &OsStr,
    placed: &Placed<'_>,
    attributes: &Attributes,
) -> Result<(), FilesError> {
    let Placed { entry, target, .. } = placed;
    let metadata = as_copied(tree, entry);
    let source = if entry.kind() == Kind::File { Some(open(tree, from, entry)?) } else { None };
    let mut file = at::create_file(into, name, 0o600).map_err(FilesError::io("create", target))?;
    let mut mtime = metadata.mtime;
    let mut xattrs = Vec::new();
    if let Some((mut from, before)) = source {
        let verified = match entry.unsettled() {
            Some(expected) => {
                let hash = data::copy_hashed(&mut from, before.size, &mut file);
                hash.map_err(FilesError::io("copy", target))? == expected
            }
            None => {
                data::copy(&mut from, &before, &mut file).map_err(FilesError::io("copy", target))?;
                true
            }
        };
        if tree.is_local() {
            let after = at::fstat(&from).map_err(FilesError::io("look at", &entry.path))?;
            if !verified || !index::unchanged(&before, &after) {
                return Err(tree.changed(entry));
            }
        } else {
            xattrs = at::fxattrs(&from).map_err(FilesError::io("read attributes of", &entry.path))?;
            keep_copied(&mut xattrs);
        }
        mtime = before.mtime;
    }
    // In this order: a new owner takes setuid and capabilities away.
    let (uid, gid) = attributes.owner(&metadata);
    at::fchown(&file, uid, gid).map_err(FilesError::io("change the owner of", target))?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(attributes.mode(&metadata)))
        .map_err(FilesError::io("change the mode of", target))?;
    for (key, value) in xattrs {
        // Best effort, as in BuildKit: the result's filesystem, or our rights, may not have it.
        let _ = rustix::fs::fsetxattr(&file, &key, &value, XattrFlags::empty());
    }
    at::fset_mtime(file.as_fd(), mtime).map_err(FilesError::io("set the time of", target))
}
