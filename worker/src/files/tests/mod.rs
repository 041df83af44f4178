//! Copies on temporary directories. These tests need root: they change owners and make devices.

mod add;
mod copy;
mod digest;
mod faults;
mod selection;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bricklayer_cache::root::Root;
use bricklayer_solver::op::{Copy, FileAction, FileOp, Mode, Owner, Selection};

use super::*;

/// A directory to fill.
pub(super) struct Dir(pub(super) tempfile::TempDir);

impl Dir {
    pub(super) fn new() -> Self {
        let dir = Self(tempfile::tempdir().expect("a temporary directory"));
        dir.mode("", 0o755);
        dir
    }

    /// With files: `path/` is a directory, `path -> target` a link, anything else a file that holds its own name's last
    /// part.
    pub(super) fn with(files: &[&str]) -> Self {
        let dir = Self::new();
        for file in files {
            if let Some((path, target)) = file.split_once(" -> ") {
                dir.parents(path);
                symlink(target, dir.path(path)).expect("a link");
            } else if let Some(path) = file.strip_suffix('/') {
                dir.directory(path);
            } else {
                let name = file.rsplit('/').next().unwrap_or(file);
                dir.write(file, name);
            }
        }
        dir
    }

    /// Whatever the umask.
    fn directory(&self, path: &str) {
        if path.is_empty() || self.path(path).is_dir() {
            return;
        }
        self.parents(path);
        fs::create_dir(self.path(path)).expect("a directory");
        self.mode(path, 0o755);
    }

    fn parents(&self, path: &str) {
        self.directory(path.rsplit_once('/').map_or("", |(parent, _)| parent));
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.parents(path);
        let new = !self.path(path).exists();
        fs::write(self.path(path), content).expect("a file");
        if new {
            self.mode(path, 0o644);
        }
    }

    pub(super) fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).expect("a mode");
    }

    pub(super) fn owner(&self, path: &str, uid: u32, gid: u32) {
        std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid)).expect("these tests need root");
    }

    pub(super) fn time(&self, path: &str, seconds: i64) {
        let (dir, name) = self.root().parent_of(Path::new(path)).expect("a parent");
        at::set_mtime(dir, &name, (seconds, 5)).expect("a time");
    }

    pub(super) fn node(&self, path: &str, kind: rustix::fs::FileType, mode: u32, device: (u32, u32)) {
        let device = rustix::fs::makedev(device.0, device.1);
        let bits = rustix::fs::Mode::from_raw_mode(mode);
        rustix::fs::mknodat(rustix::fs::CWD, self.path(path), kind, bits, device)
            .expect("these tests need root");
        self.mode(path, mode);
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(super) fn mtime(&self, path: &str) -> i64 {
        fs::symlink_metadata(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).mtime()
    }

    pub(super) fn root(&self) -> Root {
        Root::open(self.0.path()).expect("a root")
    }

    pub(super) fn local(&self) -> SourceTree {
        self.ignoring(&[])
    }

    pub(super) fn ignoring(&self, patterns: &[&str]) -> SourceTree {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        SourceTree::local(self.0.path(), &patterns, None).expect("a context")
    }

    pub(super) fn snapshot(&self) -> SourceTree {
        SourceTree::snapshot(self.root(), "stage build")
    }

    /// Everything in it, sorted: `mode uid:gid path [content | -> target | kind] [= first hard link]`; the owner is left
    /// out if it is root.
    pub(super) fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut inodes = std::collections::HashMap::new();
        for entry in walkdir::WalkDir::new(self.0.path()).min_depth(1).sort_by_file_name() {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            let path =
                entry.path().strip_prefix(self.0.path()).expect("inside").to_string_lossy().into_owned();
            let owner = match (metadata.uid(), metadata.gid()) {
                (0, 0) => String::new(),
                (uid, gid) => format!(" {uid}:{gid}"),
            };
            let kind = metadata.file_type();
            let mut line = format!("{:o}{owner} {path}", metadata.mode() & 0o7777);
            if kind.is_dir() {
                line.push('/');
            } else if kind.is_symlink() {
                line = format!(
                    "link{owner} {path} -> {}",
                    fs::read_link(entry.path()).expect("a link").display()
                );
            } else if kind.is_file() {
                let content = fs::read(entry.path()).expect("content");
                line.push_str(&format!(
                    " {:?}",
                    String::from_utf8_lossy(content.get(..40).unwrap_or(&content))
                ));
                if let Some(first) = inodes.get(&metadata.ino()) {
                    line.push_str(&format!(" = {first}"));
                } else {
                    inodes.insert(metadata.ino(), path);
                }
            } else if kind.is_fifo() {
                line.push_str(" pipe");
            } else if kind.is_socket() {
                line.push_str(" socket");
            } else {
                let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
                line.push_str(&format!(" {}{major}:{minor}", if kind.is_block_device() { 'b' } else { 'c' }));
            }
            lines.push(line);
        }
        lines
    }

    #[track_caller]
    pub(super) fn assert(&self, expected: &[&str]) {
        assert_eq!(self.list(), expected);
    }
}

/// A COPY, as the frontend lowers it.
#[derive(Clone)]
pub(super) struct Cp(Copy);

pub(super) fn cp(sources: &[&str], dest: &str) -> Cp {
    let selection = Selection {
        paths: sources.iter().map(|source| (*source).to_owned()).collect(),
        wildcards: true,
        ..Selection::default()
    };
    Cp(Copy {
        input: 0,
        selection,
        dest: dest.into(),
        owner: None,
        mode: None,
        unpack: false,
        replace: false,
        created: None,
    })
}

impl Cp {
    pub(super) fn chown(mut self, owner: &str) -> Self {
        let (user, group) =
            owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group.to_owned())));
        self.0.owner = Some(Owner { user: user.into(), group });
        self
    }
    pub(super) fn chmod(mut self, mode: &str) -> Self {
        self.0.mode = Some(mode::parse_flag(mode).expect("a mode"));
        self
    }
    pub(super) fn exclude(mut self, patterns: &[&str]) -> Self {
        self.0.selection.exclude = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self
    }
    pub(super) fn parents(mut self) -> Self {
        self.0.selection.parents = true;
        self
    }
    pub(super) fn link(mut self) -> Self {
        self.0.replace = true;
        self
    }
    pub(super) fn add(mut self) -> Self {
        self.0.unpack = true;
        self
    }
    pub(super) fn created(mut self, time: i64) -> Self {
        self.0.created = Some(time);
        self
    }
    pub(super) fn selection(&self) -> &Selection {
        &self.0.selection
    }
    pub(super) fn action(self) -> FileAction {
        FileAction::Copy(self.0)
    }

    /// Runs it into `base`.
    pub(super) fn try_run(self, tree: &SourceTree, base: &Dir) -> Result<(), FilesError> {
        run(vec![self.action()], Some(tree), base)
    }

    #[track_caller]
    pub(super) fn run(self, tree: &SourceTree, base: &Dir) {
        self.try_run(tree, base).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}

pub(super) const NOW: i64 = 1_700_000_000;

pub(super) fn run(actions: Vec<FileAction>, tree: Option<&SourceTree>, base: &Dir) -> Result<(), FilesError> {
    let op = FileOp { base: None, actions };
    apply(&op, &base.root(), &[tree], Apply { now: NOW, userns: false })
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[track_caller]
pub(super) fn fails(result: Result<(), FilesError>) -> String {
    chain(&result.expect_err("an error"))
}
