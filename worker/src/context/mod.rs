//! Local directories as sources: the build context and each `--build-context`, read where they lie.
//!
//! A [`ContextSet`] knows the directories of one build by name. Each opens as a [`SourceTree`] that looks at every
//! file at most once in a build, whatever the number of steps that use it, and that has an [`index`] of the contents
//! that earlier builds read.

mod advice;
pub mod index;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use advice::GitIgnored;
use bricklayer_solver::op::LocalSource;

use crate::files::{FilesError, SourceTree};

/// The local directories of a build.
#[derive(Debug)]
pub struct ContextSet {
    /// Name → directory.
    directories: HashMap<String, PathBuf>,
    /// Where the indexes lie; `None`: there are none.
    indexes: Option<PathBuf>,
    open: Mutex<HashMap<LocalSource, Arc<SourceTree>>>,
}

impl ContextSet {
    /// The directories that may be read, by the names that the frontend knows them under. Indexes are kept as files in
    /// `indexes`, one for each directory.
    pub fn new(directories: impl IntoIterator<Item = (String, PathBuf)>, indexes: Option<&Path>) -> Self {
        Self {
            directories: directories.into_iter().collect(),
            indexes: indexes.map(Path::to_owned),
            open: Mutex::default(),
        }
    }

    /// The directory behind a source; `None`: nobody named it.
    pub fn directory(&self, name: &str) -> Option<&Path> {
        self.directories.get(name).map(PathBuf::as_path)
    }

    /// The files of a source. Asked twice, it is the same tree.
    pub fn tree(&self, source: &LocalSource) -> Result<Arc<SourceTree>, FilesError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.get(source) {
            return Ok(Arc::clone(tree));
        }
        let directory = self
            .directory(&source.name)
            .ok_or_else(|| FilesError::NoContext { name: source.name.clone() })?;
        // a scratch directory of the store is there for one build only
        let lasting = |indexes: &&Path| {
            indexes.parent().is_none_or(|store| !directory.starts_with(store.join("ingest")))
        };
        let indexes = self.indexes.as_deref().filter(lasting);
        let index = indexes.map(|indexes| indexes.join(index::file_name(directory)));
        let mut tree = SourceTree::local(directory, &source.ignore, index.as_deref())?;
        if source.name != "context" {
            tree = tree.labelled(format!("context `{}`", source.name));
        } else if indexes.is_some() {
            // which directory that was is the first thing to check when a file is missing
            tree = tree.labelled(format!("the context `{}`", directory.display()));
        }
        let tree = Arc::new(tree);
        open.insert(source.clone(), Arc::clone(&tree));
        Ok(tree)
    }

    /// What was read of the directory `name` although git ignores it.
    pub fn git_ignored(&self, name: &str) -> GitIgnored {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = open.iter().find(|(source, _)| source.name == name).map(|(_, tree)| Arc::clone(tree));
        drop(open);
        tree.map(|tree| advice::git_ignored(&tree)).unwrap_or_default()
    }

    /// Writes the indexes of all trees that read something. To be called when a build ends, however it ends. An index
    /// only saves time: one that can't be written is reported and may be ignored.
    pub fn save(&self) -> Result<(), FilesError> {
        let trees: Vec<_> =
            self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut result = Ok(());
        for tree in trees {
            if let Err(error) = tree.save_index() {
                result = Err(error);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests;
