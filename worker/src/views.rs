//! Merged read views of snapshots: what the files of a list of layers look like on top of each other.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bricklayer_cache::root::Root;
use bricklayer_cache::{Store, StoreError};
use bricklayer_solver::record::{LayerId, Snapshot};
use bricklayer_solver::worker::StepError;

use crate::overlay::{self, Way};
use crate::steps::mount_failed;

/// Views that stay open for the next step: a stage's files are often read by several steps in a row.
const KEPT: usize = 16;

/// The merged, read-only view of a snapshot: for whoever reads a result. Blocking.
pub fn snapshot_view(store: &Store, snapshot: &Snapshot) -> Result<Arc<Root>, StepError> {
    Views::new(store.clone()).view(snapshot)
}

/// The views of one store. A view is a detached mount: it shows in no mount table and ends with the process.
pub(crate) struct Views {
    store: Store,
    /// Trees that are there. Our lease holds their layers, so they stay; asking the store for each layer below each step
    /// is what a long chain of steps would spend most of its time with.
    present: Mutex<HashMap<LayerId, PathBuf>>,
    recent: Mutex<VecDeque<(Vec<LayerId>, Arc<Root>)>>,
}

impl Views {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, present: Mutex::default(), recent: Mutex::default() }
    }

    /// The trees of a snapshot, lowest first; layers that are blobs only are unpacked. Blocking.
    pub(crate) fn trees(&self, snapshot: &Snapshot) -> Result<Vec<PathBuf>, StepError> {
        let ids: Vec<LayerId> = snapshot.layers.iter().map(|l| l.id).collect();
        let mut trees = Vec::with_capacity(ids.len());
        for (n, id) in ids.iter().enumerate() {
            let known = self.present.lock().expect("no holder panics").get(id).cloned();
            trees.push(match known {
                Some(tree) => tree,
                None => self.tree(&ids, n)?,
            });
        }
        Ok(trees)
    }

    fn tree(&self, ids: &[LayerId], n: usize) -> Result<PathBuf, StepError> {
        let (below, id) = (&ids[..n], ids[n]);
        let tree = self.store.layer_tree(id, below).map_err(|error| match error {
            // the solver starts over: what made it runs, or is pulled, again
            StoreError::LayerMissing { .. }
            | StoreError::BlobMissing { .. }
            | StoreError::BlobDamaged { .. } => StepError::Lost { message: error.to_string() },
            error => {
                let what = format!("cannot unpack layer {} of {}", n + 1, ids.len());
                StepError::with_source(what, error)
            }
        })?;
        self.present.lock().expect("no holder panics").insert(id, tree.clone());
        Ok(tree)
    }

    /// The files of a snapshot's highest layer: their root directory is the one that is seen of all.
    pub(crate) fn highest(&self, snapshot: &Snapshot) -> Result<Option<PathBuf>, StepError> {
        Ok(self.trees(snapshot)?.pop())
    }

    /// What a snapshot has at a path, as a read-only mount of its own that is attached nowhere. Blocking.
    pub(crate) fn part(&self, snapshot: &Snapshot, inside: &Path) -> Result<OwnedFd, StepError> {
        let made = if Way::of_kernel().clones_detached() {
            overlay::subtree(self.view(snapshot)?.as_fd(), inside)
        } else {
            let trees = self.trees(snapshot)?;
            let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
            overlay::part(&trees, None, inside)
        };
        made.map_err(|error| mount_failed(error, inside))
    }

    /// The merged, read-only view of a snapshot. Blocking.
    pub(crate) fn view(&self, snapshot: &Snapshot) -> Result<Arc<Root>, StepError> {
        let ids: Vec<LayerId> = snapshot.layers.iter().map(|l| l.id).collect();
        let found = |recent: &VecDeque<(Vec<LayerId>, Arc<Root>)>| {
            recent.iter().find(|(key, _)| *key == ids).map(|(_, view)| Arc::clone(view))
        };
        if let Some(view) = found(&self.recent.lock().expect("no view panics")) {
            return Ok(view);
        }
        let trees = self.trees(snapshot)?;
        let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        let mount = overlay::mount(&trees, None)
            .map_err(|e| StepError::with_source("cannot mount the files of a step", e))?;
        let view = Arc::new(Root::from_fd(mount));
        let mut recent = self.recent.lock().expect("no view panics");
        recent.push_back((ids, Arc::clone(&view)));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        Ok(view)
    }
}
