//! COPY, ADD, WORKDIR: a new layer made by file operations on the merged files of the base.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bricklayer_cache::root::Root;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::{FileOp, LocalSource, Selection};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::worker::{Content, StepError};

use super::exec::snapshot;
use crate::files::{self, Apply, SourceTree};
use crate::local_worker::Shared;
use crate::writable::{Way, mount_writable};

impl Shared {
    /// The time of what is made, in seconds since 1970.
    fn now(&self) -> i64 {
        self.settings.source_date_epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second())
    }

    /// Opens what files are read from. Blocking.
    pub(crate) fn open_source(&self, output: &Output) -> Result<Arc<SourceTree>, StepError> {
        match output {
            Output::Snapshot(snapshot) => {
                let view = self.views.view(snapshot)?;
                let root = view
                    .try_clone()
                    .map_err(|e| StepError::with_source("cannot open the files of a step", e))?;
                Ok(Arc::new(SourceTree::snapshot(root, "the files of the step")))
            }
            Output::Local { name, ignore } => {
                let source = LocalSource { name: name.clone(), ignore: ignore.to_vec() };
                self.contexts.tree(&source).map_err(file_error)
            }
        }
    }

    /// Digest of what a selection finds. Blocking.
    pub(crate) fn digest(&self, output: &Output, selection: &Selection) -> Result<Content, StepError> {
        let source = self.open_source(output)?;
        files::content(&source, selection).map_err(file_error)
    }

    /// Copies a file or directory of a source into an empty directory; returns where in there it is. Blocking.
    pub(crate) fn materialise(&self, output: &Output, path: &str, into: &Path) -> Result<PathBuf, StepError> {
        let source = self.open_source(output)?;
        let into =
            Root::open(into).map_err(|e| StepError::with_source("cannot open a scratch directory", e))?;
        files::materialise(&source, path, &into).map_err(file_error)
    }

    /// Does file operations on a new layer. Blocking.
    pub(crate) fn file(&self, op: &FileOp, inputs: &[Output], task: &Task) -> Result<Snapshot, StepError> {
        let base = match op.base {
            Some(input) => snapshot(inputs, input)?,
            None => Snapshot::default(),
        };
        let mut sources = Vec::new();
        for (number, output) in inputs.iter().enumerate() {
            sources.push(if op.base == Some(number) { None } else { Some(self.open_source(output)?) });
        }
        let trees: Vec<Option<&SourceTree>> = sources.iter().map(Option::as_deref).collect();
        let draft =
            self.store.draft_layer().map_err(|e| StepError::with_source("cannot start a layer", e))?;
        let mut way = Way::Overlay;
        let root = if base.layers.is_empty() {
            Root::open(draft.tree()).map_err(|e| StepError::with_source("cannot open the new layer", e))?
        } else {
            self.inherit_root_directory(&base, &draft)?;
            let lowers = self.views.trees(&base)?;
            let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
            let (root, how) = mount_writable(None, &lowers, draft.tree(), draft.work())?;
            way = how;
            Root::from_fd(root)
        };
        let how = Apply { now: self.now(), userns: false };
        files::apply(op, &root, &trees, how).map_err(file_error)?;
        drop(root);
        let layer = self.commit_writable(draft, way, task)?;
        let mut snapshot = base;
        snapshot.layers.push(layer);
        Ok(snapshot)
    }
}

fn file_error(error: files::FilesError) -> StepError {
    let hint = error.hint();
    let failed = StepError::with_source("cannot copy", error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}
