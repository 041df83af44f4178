//! File ops: COPY, ADD, heredocs, WORKDIR; and what COPY and mounts select in a directory or a snapshot.
//!
//! - [`tree`]: where files are taken from ([`SourceTree`])
//! - [`select`]: what a selection finds there; used by everything else
//! - [`content`]: the digest of that, for cache keys
//! - [`copy`]: what COPY and ADD do with it; [`data`]: the bytes
//!
//! All paths, of sources and of the result, are resolved by [`Root`]: nothing leads out of either.

mod content;
mod copy;
mod data;
mod error;
mod place;
mod select;
mod tree;

use std::path::{Path, PathBuf};

use bricklayer_cache::root::{Kind, Root, RootError, at};
use bricklayer_solver::mode;
use bricklayer_solver::op::{Copy, FileAction, FileOp, Mode, Owner, Selection};
use bricklayer_solver::pattern::clean;

pub use content::{MAX_FILES, content};
pub use error::FilesError;
pub use tree::SourceTree;

use crate::users::resolve_owner;
use copy::{Attributes, ModeChange, Writer};

/// How a file op is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Apply {
    /// What directories and files get as their time where the op does not say, in seconds since 1970.
    pub now: i64,
    /// Are we root in a user namespace only? Then devices of an archive are left out.
    pub userns: bool,
}

/// Carries out a file op on `base`, a writable root: the merged view of the op's base with a fresh upper directory, or
/// an empty directory. `inputs` are the op's inputs by number; those that no COPY names may be `None`.
///
/// On an error the root holds part of the result.
pub fn apply(op: &FileOp, base: &Root, inputs: &[Option<&SourceTree>], how: Apply) -> Result<(), FilesError> {
    let mut writer = Writer::new(base, how.userns);
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => {
                let tree =
                    inputs.get(copy.input).copied().flatten().ok_or(FilesError::NoInput(copy.input))?;
                copy_files(copy, base, tree, &mut writer, how)?;
            }
            FileAction::MakeFile { path, mode, data, owner, created } => {
                let attributes = attributes(base, owner.as_ref(), None, *created, false, how)?;
                make_file(base, path, mode, data, &attributes, &mut writer)?;
            }
            FileAction::MakeDir { path, mode, owner, created } => {
                let attributes =
                    attributes(base, owner.as_ref(), Some(&Mode::Bits(*mode)), *created, false, how)?;
                writer.make_dirs(Path::new(path), &attributes)?;
            }
            FileAction::Remove { path, allow_missing } => remove(base, path, *allow_missing)?,
        }
    }
    writer.finish()
}

fn attributes(
    base: &Root,
    owner: Option<&Owner>,
    mode: Option<&Mode>,
    created: Option<i64>,
    replace: bool,
    how: Apply,
) -> Result<Attributes, FilesError> {
    Ok(Attributes {
        owner: owner.map(|owner| resolve_owner(base, owner)).transpose()?,
        mode: match mode {
            None => ModeChange::Keep,
            Some(Mode::Bits(bits)) => ModeChange::Bits(*bits),
            Some(Mode::Symbolic(text)) => ModeChange::Symbolic(mode::parse(text)?),
        },
        created: (created.unwrap_or(how.now), 0),
        replace,
    })
}

fn copy_files(
    copy: &Copy,
    base: &Root,
    tree: &SourceTree,
    writer: &mut Writer<'_>,
    how: Apply,
) -> Result<(), FilesError> {
    let attributes =
        attributes(base, copy.owner.as_ref(), copy.mode.as_ref(), copy.created, copy.replace, how)?;
    for item in select::select(tree, &copy.selection)? {
        writer.copy(tree, &item, &copy.dest, copy.unpack, &attributes)?;
    }
    Ok(())
}

fn make_file(
    base: &Root,
    path: &str,
    mode: &Mode,
    bytes: &[u8],
    attributes: &Attributes,
    writer: &mut Writer<'_>,
) -> Result<(), FilesError> {
    let target = base.resolve(Path::new(&*clean(&format!("/{path}"))))?;
    writer.make_dirs(target.parent().unwrap_or(Path::new("/")), attributes)?;
    match base.lstat(&target)? {
        None => {}
        Some(found) if found.kind == Kind::Directory => {
            return Err(FilesError::OntoDirectory { from: path.to_owned(), to: target });
        }
        Some(_) => {
            base.remove_all(&target)?;
        }
    }
    let bits = match mode {
        Mode::Bits(bits) => *bits,
        Mode::Symbolic(text) => mode::parse(text)?.apply(0o644, false),
    };
    let mut file = base.create_file(&target, 0o600)?;
    std::io::Write::write_all(&mut file, bytes).map_err(FilesError::io("write", &target))?;
    let (uid, gid) = attributes.owner.unwrap_or((0, 0));
    at::fchown(&file, uid, gid).map_err(FilesError::io("change the owner of", &target))?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(bits))
        .map_err(FilesError::io("change the mode of", &target))?;
    at::fset_mtime(&file, attributes.created).map_err(FilesError::io("set the time of", &target))
}

fn remove(base: &Root, path: &str, allow_missing: bool) -> Result<(), FilesError> {
    let cleaned = clean(&format!("/{path}")).into_owned();
    if base.remove_all(Path::new(&cleaned))? || allow_missing {
        return Ok(());
    }
    Err(FilesError::NothingToRemove { path: path.to_owned() })
}

/// Copies what a bind mount of a filtered local directory is to show into `into`, an empty directory, and says where it
/// is there: the top for a directory, below it for a single file. Shares no file with the source.
pub fn materialise(tree: &SourceTree, source: &str, into: &Root) -> Result<PathBuf, FilesError> {
    let selection = Selection { paths: vec![source.to_owned()], ..Selection::default() };
    let attributes = Attributes { owner: None, mode: ModeChange::Keep, created: (0, 0), replace: false };
    let mut writer = Writer::new(into, false);
    let mut place = PathBuf::new();
    for item in select::select(tree, &selection)? {
        writer.copy(tree, &item, "/", false, &attributes)?;
        if item.top.kind() == Kind::Directory {
            if !item.top.path.as_os_str().is_empty() {
                let mode = rustix::fs::Mode::from_raw_mode(item.top.metadata().mode);
                rustix::fs::fchmod(into.as_fd(), mode)
                    .map_err(RootError::io("change the mode of", Path::new("/")))?;
            }
        } else {
            place.push(&item.name);
        }
    }
    writer.finish()?;
    Ok(place)
}

#[cfg(test)]
mod tests;
