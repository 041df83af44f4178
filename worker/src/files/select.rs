//! What a [`Selection`] selects in a [`SourceTree`]. Keys, copies and mounts all ask here, so they can't disagree.
//!
//! - Paths are cleaned with the tree's top as root: neither `..` nor a link leads out of it.
//! - A path with wildcards stands for all names that match, in order; one that matches nothing for none. The names in
//!   front of the first wildcard must be there and are followed if they are links, those behind are not.
//! - What is selected is followed if it is a link; a directory then means what it holds. Links below it are kept.
//! - With `parents` a path stands for itself below a base (the top, or what is in front of `/./`), and the directories
//!   between them come along.
//! - `exclude` is relative to the directory that is copied (with `parents`, to the base). A file that is selected itself
//!   is not excluded, as in BuildKit.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bricklayer_cache::root::Kind;
use bricklayer_solver::op::Selection;
use bricklayer_solver::pattern::{Glob, Patterns, Verdict, clean, has_wildcards};

use super::FilesError;
use super::tree::{Entry, Lookup, SourceTree};

/// One thing that is selected.
#[derive(Debug)]
pub(crate) struct Item {
    /// What the instruction calls it.
    pub(crate) source: String,
    /// The name that it gets in a directory: the last component of the path that selected it.
    pub(crate) name: OsString,
    /// What it is, links followed.
    pub(crate) top: Arc<Entry>,
    /// If that is a directory: what is selected below it, directories before what they hold, sorted by name.
    pub(crate) below: Vec<Found>,
    /// Was it selected by its own path, not by a wildcard?
    pub(crate) literal: bool,
}

/// Something below a selected directory.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path below the directory.
    pub(crate) rel: PathBuf,
    /// What it is.
    pub(crate) entry: Arc<Entry>,
}

/// All that `selection` selects, in order.
pub(crate) fn select(tree: &SourceTree, selection: &Selection) -> Result<Vec<Item>, FilesError> {
    let exclude = Patterns::new(&selection.exclude)?;
    let mut items = Vec::new();
    for path in &selection.paths {
        if selection.parents {
            items.extend(with_parents(tree, path, selection.wildcards, &exclude)?);
            continue;
        }
        let inner = inside(path);
        if !selection.wildcards || !has_wildcards(&inner) {
            items.push(item(tree, path, Path::new(&inner), &exclude, true)?);
            continue;
        }
        for matched in expand(tree, &inner)? {
            items.push(item(tree, &matched.display().to_string(), &matched, &exclude, false)?);
        }
    }
    Ok(items)
}

/// A path as seen from the tree's top: clean, relative, empty for the top itself.
fn inside(path: &str) -> String {
    clean(&format!("/{path}")).trim_start_matches('/').to_owned()
}

fn item(
    tree: &SourceTree,
    source: &str,
    path: &Path,
    exclude: &Patterns,
    literal: bool,
) -> Result<Item, FilesError> {
    let top = existing(tree, source, path, true)?;
    let below = if top.kind() == Kind::Directory {
        walk(tree, &top, Path::new(""), &Filter { include: None, exclude })?
    } else {
        Vec::new()
    };
    let name = path.file_name().unwrap_or_default().to_owned();
    Ok(Item { source: source.to_owned(), name, top, below, literal })
}

/// What must be there.
fn existing(tree: &SourceTree, source: &str, path: &Path, follow: bool) -> Result<Arc<Entry>, FilesError> {
    let (path, place) = match tree.look_up(path, follow)? {
        Lookup::Found(entry) => return Ok(entry),
        Lookup::Missing => (source.to_owned(), tree.place().to_owned()),
        Lookup::Ignored(pattern) => {
            return Err(FilesError::Ignored {
                path: source.to_owned(),
                place: tree.place().to_owned(),
                pattern,
            });
        }
    };
    Err(FilesError::NotFound { path, place })
}

/// The paths that match a pattern, sorted.
fn expand(tree: &SourceTree, pattern: &str) -> Result<Vec<PathBuf>, FilesError> {
    let mut prefix = PathBuf::new();
    let mut names = pattern.split('/').peekable();
    while let Some(name) = names.next_if(|name| !has_wildcards(name)) {
        prefix.push(name);
    }
    let entry = existing(tree, &prefix.display().to_string(), &prefix, true)?;
    let mut found = vec![(prefix, entry)];
    for name in names {
        let glob = Glob::new(name)?;
        let mut matched = Vec::new();
        for (path, entry) in found.iter().filter(|(_, entry)| entry.kind() == Kind::Directory) {
            for below in &tree.directory(entry)?.entries {
                if glob.matches(below.name().as_bytes()) && (!below.hidden || tree.shows_anything(below)?) {
                    matched.push((path.join(below.name()), Arc::clone(below)));
                }
            }
        }
        found = matched;
    }
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

/// What `--parents` selects by one path: an item for the base, with what matches below it.
fn with_parents(
    tree: &SourceTree,
    source: &str,
    wildcards: bool,
    exclude: &Patterns,
) -> Result<Vec<Item>, FilesError> {
    let (base, path) = source.split_once("/./").unwrap_or(("", source));
    let (base, path) = (inside(base), inside(path));
    let make =
        |top, below, literal| Item { source: source.to_owned(), name: OsString::new(), top, below, literal };
    if wildcards && (has_wildcards(&base) || has_wildcards(&path)) {
        let bases = if has_wildcards(&base) { expand(tree, &base)? } else { vec![PathBuf::from(base)] };
        let include = Patterns::new(&[if path.is_empty() { "**" } else { &path }])?;
        let mut items = Vec::new();
        for base in bases {
            let top = existing(tree, source, &base, true)?;
            if top.kind() != Kind::Directory {
                continue;
            }
            // with nothing in it too: the destination is made all the same
            let below = walk(tree, &top, Path::new(""), &Filter { include: Some(&include), exclude })?;
            items.push(make(top, below, false));
        }
        return Ok(items);
    }
    let top = existing(tree, source, Path::new(&base), true)?;
    if top.kind() != Kind::Directory {
        return Err(FilesError::NotFound { path: source.to_owned(), place: tree.place().to_owned() });
    }
    let filter = Filter { include: None, exclude };
    let mut below = Vec::new();
    if path.is_empty() {
        below = walk(tree, &top, Path::new(""), &filter)?;
    }
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut rel = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        rel.push(name);
        let last = index + 1 == names.len();
        // Directories on the way are made as directories, so links to them are followed; the end is taken as it is.
        let entry = existing(tree, source, &top.path.join(&rel), !last)?;
        below.push(Found { rel: rel.clone(), entry: Arc::clone(&entry) });
        if last && entry.kind() == Kind::Directory {
            below.extend(walk(tree, &entry, &rel, &filter)?);
        }
    }
    Ok(vec![make(top, below, true)])
}

struct Filter<'a> {
    /// Only what matches.
    include: Option<&'a Patterns>,
    /// Only what does not match.
    exclude: &'a Patterns,
}

/// What the filter's lists say of a directory.
#[derive(Clone, Default)]
struct State {
    include: Verdict,
    exclude: Verdict,
}

/// One entry of a directory that was walked.
struct Step {
    found: Found,
    included: bool,
    descend: bool,
}

/// What the filter leaves of all that is below `top`; paths get `prefix` in front. Directories are read in parallel.
fn walk(
    tree: &SourceTree,
    top: &Arc<Entry>,
    prefix: &Path,
    filter: &Filter<'_>,
) -> Result<Vec<Found>, FilesError> {
    let walked = Mutex::new((HashMap::new(), None));
    let mut state =
        State { exclude: filter.exclude.verdict(prefix.as_os_str().as_bytes()), ..State::default() };
    if let Some(include) = filter.include {
        state.include = include.verdict(prefix.as_os_str().as_bytes());
    }
    rayon::scope(|scope| visit(scope, tree, Arc::clone(top), prefix.to_owned(), state, filter, &walked));
    let (mut directories, error) = walked.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = error {
        return Err(error);
    }

    // Depth first, in order. Directories that are not included themselves wait for something in them that is.
    let mut found = Vec::new();
    let mut waiting: Vec<Found> = Vec::new();
    let mut stack: Vec<std::vec::IntoIter<Step>> =
        vec![directories.remove(prefix).unwrap_or_default().into_iter()];
    // Which level of the stack put something into `waiting`.
    let mut waits: Vec<bool> = vec![false];
    while let Some(level) = stack.last_mut() {
        let Some(step) = level.next() else {
            stack.pop();
            if waits.pop() == Some(true) {
                waiting.pop();
            }
            continue;
        };
        if step.included {
            found.append(&mut waiting);
            waits.fill(false);
            found.push(step.found.clone());
        }
        if step.descend {
            stack.push(directories.remove(&step.found.rel).unwrap_or_default().into_iter());
            waits.push(!step.included);
            if !step.included {
                waiting.push(step.found);
            }
        }
    }
    Ok(found)
}

type Walked = Mutex<(HashMap<PathBuf, Vec<Step>>, Option<FilesError>)>;

fn visit<'scope>(
    scope: &rayon::Scope<'scope>,
    tree: &'scope SourceTree,
    entry: Arc<Entry>,
    rel: PathBuf,
    state: State,
    filter: &'scope Filter<'scope>,
    walked: &'scope Walked,
) {
    let directory = match tree.directory(&entry) {
        Ok(directory) => directory,
        Err(error) => {
            walked.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(error);
            return;
        }
    };
    let mut steps = Vec::with_capacity(directory.entries.len());
    for entry in &directory.entries {
        let rel = rel.join(entry.name());
        let bytes = rel.as_os_str().as_bytes();
        let is_dir = entry.kind() == Kind::Directory;
        let exclude = filter.exclude.below(&state.exclude, bytes);
        let excluded = exclude.matched();
        if excluded && !(is_dir && filter.exclude.could_reinclude_below(bytes)) {
            continue;
        }
        let (include, wanted, wanted_below) = match filter.include {
            None => (Verdict::default(), true, true),
            Some(list) => {
                let verdict = list.below(&state.include, bytes);
                let wanted = verdict.matched();
                (verdict, wanted, wanted || (is_dir && list.could_match_below(bytes)))
            }
        };
        let included = wanted && !excluded && !entry.hidden;
        let descend = is_dir && wanted_below;
        if !included && !descend {
            continue;
        }
        if descend {
            let (entry, rel, state) = (Arc::clone(entry), rel.clone(), State { include, exclude });
            scope.spawn(move |scope| visit(scope, tree, entry, rel, state, filter, walked));
        }
        steps.push(Step { found: Found { rel, entry: Arc::clone(entry) }, included, descend });
    }
    walked.lock().unwrap_or_else(PoisonError::into_inner).0.insert(rel, steps);
}
