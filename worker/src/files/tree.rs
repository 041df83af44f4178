//! A tree that files are taken from: a local directory or the merged view of a snapshot.
//!
//! Each path is looked at once in the life of a [`SourceTree`], so all steps of a build that use a directory see the
//! same files, and what was hashed for a cache key is what is copied later (or the copy fails, naming the file).
//! Entries are known by their real path: relative, without links, `.` and `..`; the empty path is the top.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bricklayer_cache::layer::tree::hash_file;
use bricklayer_cache::root::{Kind, Metadata, Root, at};
use bricklayer_solver::pattern::{Patterns, Verdict};

use super::FilesError;
use crate::context::index::{self, ContentHash, Index, IndexEntry};

/// How many links are followed on the way to one path (as Linux does).
const MAX_LINKS: usize = 40;

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// A tree that files are taken from. See the [module](self) for what it promises.
#[derive(Debug)]
pub struct SourceTree {
    root: Root,
    /// What people call it: `the context`.
    place: String,
    local: Option<Local>,
    directories: Mutex<HashMap<PathBuf, Arc<Directory>>>,
    /// Entries that were looked at without reading their directory.
    singles: Mutex<HashMap<PathBuf, Arc<Entry>>>,
}

#[derive(Debug)]
struct Local {
    ignore: Patterns,
    index: Index,
    index_path: Option<PathBuf>,
    /// Was anything read that the index does not have?
    news: AtomicBool,
}

/// What a directory holds, sorted by name; what is ignored is not in it.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// One file, directory, link, …
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its real path in the tree.
    pub(crate) path: PathBuf,
    found: Metadata,
    /// A directory that is ignored, but may hold files that are not.
    pub(crate) hidden: bool,
    /// What the ignore patterns say of a directory, for those below it.
    verdict: Verdict,
    content: OnceLock<Content>,
}

/// What a file contained.
#[derive(Debug)]
struct Content {
    hash: ContentHash,
    /// What the file looked like when it was read.
    metadata: Metadata,
    /// Would a later change show in the metadata?
    settled: bool,
    /// Was it read, not recalled from the index?
    fresh: bool,
}

impl Entry {
    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.found.kind
    }

    /// What it looked like when it was read, or else when it was found.
    pub(crate) fn metadata(&self) -> &Metadata {
        self.content.get().map_or(&self.found, |content| &content.metadata)
    }

    /// The hash that a copy must have, if the metadata alone do not show a change.
    pub(crate) fn unsettled(&self) -> Option<ContentHash> {
        self.content.get().filter(|content| !content.settled).map(|content| content.hash)
    }

    /// Its last component; empty for the top.
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// What is at a path.
pub(crate) enum Lookup {
    Found(Arc<Entry>),
    Missing,
    /// It is there, but this pattern hides it.
    Ignored(String),
}

impl SourceTree {
    /// A local directory, without what `ignore` (patterns of a `.dockerignore`) hides. Owners count as 0:0, xattrs are
    /// dropped, and sockets count as empty files, as BuildKit does. `index` is the file of the directory's index.
    pub fn local(directory: &Path, ignore: &[String], index: Option<&Path>) -> Result<Self, FilesError> {
        let local = Local {
            ignore: Patterns::new(ignore)?,
            index: index.map(Index::load).unwrap_or_default(),
            index_path: index.map(Path::to_owned),
            news: AtomicBool::new(false),
        };
        Ok(Self { local: Some(local), ..Self::snapshot(Root::open(directory)?, "the context") })
    }

    /// The merged view of a snapshot: files are taken as they are, with owners and xattrs. `place` is what people call it:
    /// `stage build`.
    pub fn snapshot(root: Root, place: impl Into<String>) -> Self {
        Self {
            root,
            place: place.into(),
            local: None,
            directories: Mutex::default(),
            singles: Mutex::default(),
        }
    }

    /// The same tree, called otherwise in messages (`the context` is what a local directory is called at first).
    #[must_use]
    pub fn labelled(self, place: impl Into<String>) -> Self {
        Self { place: place.into(), ..self }
    }

    /// What people call it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The directory itself.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Is it a local directory?
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Do ignore patterns hide files of it?
    pub fn is_filtered(&self) -> bool {
        self.local.as_ref().is_some_and(|local| !local.ignore.is_empty())
    }

    /// The entry at a real path.
    fn entry(&self, path: &Path) -> Result<Lookup, FilesError> {
        if let Some(parent) = path.parent()
            && let Some(directory) = lock(&self.directories).get(parent)
        {
            let name = path.file_name().unwrap_or_default();
            let at = directory.entries.binary_search_by(|entry| entry.name().cmp(name));
            if let Some(entry) = at.ok().and_then(|at| directory.entries.get(at)) {
                return Ok(Lookup::Found(Arc::clone(entry)));
            }
        }
        if let Some(entry) = lock(&self.singles).get(path) {
            return Ok(Lookup::Found(Arc::clone(entry)));
        }
        let Some(metadata) = self.root.lstat(path)? else { return Ok(Lookup::Missing) };
        let mut verdict = Verdict::default();
        if let Some(local) = self.local.as_ref().filter(|_| !path.as_os_str().is_empty()) {
            verdict = local.ignore.verdict(path.as_os_str().as_bytes());
            let directory = metadata.kind == Kind::Directory;
            if verdict.matched()
                && !(directory && local.ignore.could_reinclude_below(path.as_os_str().as_bytes()))
            {
                return Ok(self.hidden(path));
            }
        }
        let entry = Entry {
            path: path.to_owned(),
            found: metadata,
            hidden: verdict.matched(),
            verdict,
            content: OnceLock::new(),
        };
        if let Some(local) = &self.local
            && entry.found.kind == Kind::File
            && !local.index.is_empty()
        {
            let old = local.index.directory(path.parent().unwrap_or(Path::new("")));
            entry.recall(&old);
        }
        let entry = Arc::clone(lock(&self.singles).entry(path.to_owned()).or_insert(Arc::new(entry)));
        if entry.hidden && !self.shows_anything(&entry)? {
            return Ok(self.hidden(path));
        }
        Ok(Lookup::Found(entry))
    }

    fn hidden(&self, path: &Path) -> Lookup {
        let pattern =
            self.local.as_ref().and_then(|local| local.ignore.matched_by(path.as_os_str().as_bytes()));
        Lookup::Ignored(pattern.unwrap_or_default().to_owned())
    }

    /// Is there anything in an ignored directory that is not ignored?
    pub(crate) fn shows_anything(&self, entry: &Arc<Entry>) -> Result<bool, FilesError> {
        let mut stack = vec![Arc::clone(entry)];
        while let Some(entry) = stack.pop() {
            for below in &self.directory(&entry)?.entries {
                if !below.hidden {
                    return Ok(true);
                }
                stack.push(Arc::clone(below));
            }
        }
        Ok(false)
    }

    /// What is at `path` (relative; `..` never leaves the tree); links on the way are followed inside the tree, one at
    /// the end if `follow`.
    pub(crate) fn look_up(&self, path: &Path, follow: bool) -> Result<Lookup, FilesError> {
        let mut real = PathBuf::new();
        let mut rest = parts(path);
        let mut links = 0;
        let mut entry = self.entry(&real)?;
        while let Some(name) = rest.pop() {
            if name == ".." {
                real.pop();
                entry = self.entry(&real)?;
                continue;
            }
            if !matches!(&entry, Lookup::Found(entry) if entry.kind() == Kind::Directory) {
                return Ok(if let Lookup::Ignored(_) = entry { entry } else { Lookup::Missing });
            }
            let next = real.join(&name);
            entry = self.entry(&next)?;
            match &entry {
                Lookup::Found(found) if found.kind() == Kind::Symlink && (follow || !rest.is_empty()) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let (path, place) = (path.display().to_string(), self.place.clone());
                        return Err(FilesError::Loop { path, place });
                    }
                    let target = self.root.read_link(&next)?;
                    if target.is_absolute() {
                        real = PathBuf::new();
                    }
                    rest.extend(parts(&target));
                    entry = self.entry(&real)?;
                }
                _ => real = next,
            }
        }
        Ok(entry)
    }

    /// What a directory holds.
    pub(crate) fn directory(&self, entry: &Entry) -> Result<Arc<Directory>, FilesError> {
        if let Some(directory) = lock(&self.directories).get(&entry.path) {
            return Ok(Arc::clone(directory));
        }
        let fd = self.root.open_dir(&entry.path)?;
        let names = at::read_dir(&fd).map_err(FilesError::io("read directory", &entry.path))?;
        let old = self.local.as_ref().map(|local| local.index.directory(&entry.path)).unwrap_or_default();
        let mut entries = Vec::with_capacity(names.len());
        for (name, kind) in names {
            let path = entry.path.join(&name);
            let mut verdict = Verdict::default();
            if let Some(local) = self.local.as_ref().filter(|local| !local.ignore.is_empty()) {
                let bytes = path.as_os_str().as_bytes();
                verdict = local.ignore.below(&entry.verdict, bytes);
                if verdict.matched()
                    && !(kind == Kind::Directory && local.ignore.could_reinclude_below(bytes))
                {
                    continue;
                }
            }
            if let Some(single) = lock(&self.singles).get(&path) {
                entries.push(Arc::clone(single));
                continue;
            }
            let Some(found) = at::lstat(&fd, &name).map_err(FilesError::io("look at", &path))? else {
                continue;
            };
            let hidden = verdict.matched();
            if found.kind != Kind::Directory {
                if hidden {
                    continue;
                }
                verdict = Verdict::default();
            }
            let entry = Entry { path, found, hidden, verdict, content: OnceLock::new() };
            entry.recall(&old);
            entries.push(Arc::new(entry));
        }
        let directory = Arc::new(Directory { entries });
        Ok(Arc::clone(lock(&self.directories).entry(entry.path.clone()).or_insert(directory)))
    }

    /// The files whose content was read since the tree was opened or its index written, with their sizes in bytes.
    pub(crate) fn fresh(&self) -> Vec<(PathBuf, u64)> {
        // mostly nothing was, and then no file is looked at
        if !self.local.as_ref().is_some_and(|local| local.news.load(Ordering::Relaxed)) {
            return Vec::new();
        }
        let fresh = |entry: &Arc<Entry>| {
            let content = entry.content.get().filter(|content| content.fresh)?;
            Some((entry.path.clone(), content.metadata.size))
        };
        let directories: Vec<_> = lock(&self.directories).values().cloned().collect();
        let listed = directories.iter().flat_map(|directory| directory.entries.iter().filter_map(fresh));
        let singles: Vec<_> = lock(&self.singles).values().filter_map(fresh).collect();
        // an entry may be in both
        let files: std::collections::BTreeMap<_, _> = listed.chain(singles).collect();
        files.into_iter().collect()
    }

    /// Opens the directory that holds an entry.
    pub(crate) fn open_parent(&self, entry: &Entry) -> Result<rustix::fd::OwnedFd, FilesError> {
        Ok(self.root.open_dir(entry.path.parent().unwrap_or(Path::new("")))?)
    }

    /// The text of a symbolic link.
    pub(crate) fn link_target(&self, entry: &Entry) -> Result<PathBuf, FilesError> {
        Ok(self.root.read_link(&entry.path)?)
    }

    /// BLAKE3 of a regular file's content.
    pub(crate) fn content(&self, entry: &Entry) -> Result<ContentHash, FilesError> {
        if let Some(content) = entry.content.get() {
            return Ok(content.hash);
        }
        for _ in 0..TRIES {
            let now = nanoseconds_now();
            let Ok(file) = self.root.open_file(&entry.path) else { break };
            let before = at::fstat(&file).map_err(FilesError::io("look at", &entry.path))?;
            let (hash, size) = hash_file(&file).map_err(FilesError::io("read", &entry.path))?;
            let after = at::fstat(&file).map_err(FilesError::io("look at", &entry.path))?;
            if size == after.size && index::unchanged(&before, &after) {
                let settled = self.local.is_none() || index::settled(&after, now);
                let content =
                    entry.content.get_or_init(|| Content { hash, metadata: after, settled, fresh: true });
                if let Some(local) = &self.local
                    && content.settled
                {
                    local.news.store(true, Ordering::Relaxed);
                }
                return Ok(content.hash);
            }
        }
        Err(self.changed(entry))
    }

    /// For tests: the file at `path` was read in the tick in which it was written, and held this.
    #[cfg(test)]
    pub(crate) fn pretend(&self, path: &Path, hash: ContentHash) {
        if let Ok(Lookup::Found(entry)) = self.look_up(path, true) {
            entry.content.get_or_init(|| Content {
                hash,
                metadata: entry.found,
                settled: false,
                fresh: true,
            });
        }
    }

    /// The error of a file that somebody else changes.
    pub(crate) fn changed(&self, entry: &Entry) -> FilesError {
        FilesError::Changed { path: entry.path.display().to_string(), place: self.place.clone() }
    }

    /// Writes the index, if there is one and something was read that it does not hold.
    pub fn save_index(&self) -> Result<(), FilesError> {
        let Some(local) = &self.local else { return Ok(()) };
        let Some(path) = &local.index_path else { return Ok(()) };
        if !local.news.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let ignored = |path: &Path| local.ignore.matches(path.as_os_str().as_bytes());
        let directories = lock(&self.directories).clone();
        let mut fresh: HashMap<PathBuf, Vec<IndexEntry>> = HashMap::with_capacity(directories.len());
        for (path, directory) in &directories {
            // Another build may ignore less than this one: what this one can't see stays.
            let hidden = local.index.directory(path).into_entries();
            let hidden = hidden.filter(|entry| ignored(&path.join(entry.name())));
            let seen = directory.entries.iter().filter_map(|entry| entry.remember());
            fresh.insert(path.clone(), merged(seen, hidden));
        }
        for entry in lock(&self.singles).values() {
            let parent = entry.path.parent().unwrap_or(Path::new(""));
            if let Some(new) = entry.remember().filter(|_| !directories.contains_key(parent)) {
                let entries = fresh
                    .entry(parent.to_owned())
                    .or_insert_with(|| local.index.directory(parent).into_entries().collect());
                *entries = merged(std::iter::once(new), std::mem::take(entries).into_iter());
            }
        }
        let fresh: Vec<_> = fresh.into_iter().collect();
        let gone = |path: &Path| {
            path.ancestors().zip(path.ancestors().skip(1)).any(|(path, parent)| {
                let name = path.file_name().unwrap_or_default();
                directories.get(parent).is_some_and(|directory| {
                    directory.entries.binary_search_by(|entry| entry.name().cmp(name)).is_err()
                        && !ignored(path)
                })
            })
        };
        local.index.save(path, &fresh, |path| !gone(path)).map_err(FilesError::io("write index", path))
    }
}

/// Entries sorted by name; of two with one name, that of `first`.
fn merged(
    first: impl Iterator<Item = IndexEntry>,
    second: impl Iterator<Item = IndexEntry>,
) -> Vec<IndexEntry> {
    let mut entries: Vec<_> = first.chain(second).collect();
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    entries.dedup_by(|later, earlier| later.name() == earlier.name());
    entries
}

impl Entry {
    /// Takes the content from the index, if the file is as it was.
    fn recall(&self, old: &index::IndexDir) {
        if self.found.kind == Kind::File
            && let Some(hash) = old.lookup(self.name(), &self.found)
        {
            self.content.get_or_init(|| Content { hash, metadata: self.found, settled: true, fresh: false });
        }
    }

    /// What the index should hold of it.
    fn remember(&self) -> Option<IndexEntry> {
        let content = self.content.get().filter(|content| content.settled)?;
        Some(IndexEntry::new(self.name(), &content.metadata, content.hash))
    }
}

/// The parts of a path, last first: names and `..`.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsStr::from_bytes(part).to_owned())
        .rev()
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds_now() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    }
}
