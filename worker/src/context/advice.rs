//! What a build read of a context although git ignores it: results of other builds and fetched dependencies, mostly,
//! that nobody meant to have in an image. A `.dockerignore` would spare reading them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::Root;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::files::SourceTree;

/// The longest .gitignore that is looked at, in bytes.
const LONGEST: u64 = 1 << 20;

/// What was read, and how much of it git ignores. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitIgnored {
    /// All that was read of the context and not known from an earlier build.
    pub read: u64,
    /// How much of it git ignores.
    pub ignored: u64,
    /// By the topmost file or directory that is ignored, largest first.
    pub paths: Vec<(PathBuf, u64)>,
}

/// Looks at the files of `tree` that were read since it was opened. Nothing is ignored where there is no `.gitignore`.
pub(super) fn git_ignored(tree: &SourceTree) -> GitIgnored {
    let mut rules = Rules { root: tree.root(), files: HashMap::new(), topmost: HashMap::new() };
    let (mut read, mut ignored) = (0, 0);
    let mut paths: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for (path, size) in tree.fresh() {
        read += size;
        if let Some(top) = rules.topmost(&path, false) {
            ignored += size;
            *paths.entry(top).or_default() += size;
        }
    }
    let mut paths: Vec<_> = paths.into_iter().collect();
    paths.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    GitIgnored { read, ignored, paths }
}

struct Rules<'a> {
    root: &'a Root,
    /// By directory.
    files: HashMap<PathBuf, Gitignore>,
    /// By directory: what is ignored of it and of those above, the topmost.
    topmost: HashMap<PathBuf, Option<PathBuf>>,
}

impl Rules<'_> {
    /// The topmost of `path` and the directories above it that git ignores. What is in an ignored directory can't be
    /// wanted again, so the first one decides (gitignore(5)).
    fn topmost(&mut self, path: &Path, is_dir: bool) -> Option<PathBuf> {
        let parent = path.parent()?;
        if let Some(above) = self.topmost_of_directory(parent) {
            return Some(above);
        }
        self.is_ignored(path, is_dir).then(|| path.to_owned())
    }

    fn topmost_of_directory(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.topmost.get(path) {
            return known.clone();
        }
        let topmost = self.topmost(path, true);
        self.topmost.insert(path.to_owned(), topmost.clone());
        topmost
    }

    /// The file nearest to `path` that says something of it decides.
    fn is_ignored(&mut self, path: &Path, is_dir: bool) -> bool {
        for directory in path.ancestors().skip(1) {
            let root = self.root;
            let rules = self.files.entry(directory.to_owned()).or_insert_with(|| read_rules(root, directory));
            let below = path.strip_prefix(directory).unwrap_or(path);
            let verdict = rules.matched(below, is_dir);
            if !verdict.is_none() {
                return verdict.is_ignore();
            }
        }
        false
    }
}

/// The rules of one directory, for paths relative to it. None where there is no file, or none that can be read.
fn read_rules(root: &Root, directory: &Path) -> Gitignore {
    let mut text = Vec::new();
    if let Ok(file) = root.open_file(&directory.join(".gitignore")) {
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    let mut builder = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(&text).lines() {
        // git leaves out a line that it can't read, too
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}
