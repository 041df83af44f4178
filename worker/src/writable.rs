//! A root filesystem to write to: the layers of a snapshot with an empty one on top, which is kept, or goes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::Root;
use bricklayer_cache::store::LayerDraft;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::{ImageSource, Source};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::worker::StepError;
use tokio_util::sync::CancellationToken;

use crate::local_worker::{LocalWorker, Shared, blocking};
use crate::sandbox::User;
use crate::steps::mount_overlay;
use crate::users;

/// The root filesystem of a command. What is written to it is removed when this is dropped.
pub struct WritableRoot {
    /// The mount, attached nowhere.
    pub root: OwnedFd,
    pub(crate) draft: LayerDraft,
}

impl WritableRoot {
    /// The directory that gets the changes.
    pub fn upper(&self) -> Result<OwnedFd, StepError> {
        let failed = "cannot open the new layer";
        let upper = Root::open(self.draft.tree()).map_err(|e| StepError::with_source(failed, e))?;
        upper.as_fd().try_clone_to_owned().map_err(|e| StepError::with_source(failed, e))
    }

    /// Who `user[:group]` is here; empty: root.
    pub fn user(&self, user: &str) -> Result<User, StepError> {
        let root = self
            .root
            .try_clone()
            .map_err(|e| StepError::with_source("cannot open the root filesystem", e))?;
        let user = users::resolve_user(&Root::from_fd(root), user)
            .map_err(|e| StepError::with_source(format!("cannot run as user `{user}`"), e))?;
        Ok(User { uid: user.uid, gid: user.gid, groups: user.groups, home: user.home })
    }
}

impl Shared {
    /// A new layer on a snapshot. Blocking.
    pub(crate) fn writable(&self, base: &Snapshot) -> Result<WritableRoot, StepError> {
        let trees = self.views.trees(base)?;
        let draft =
            self.store.draft_layer().map_err(|e| StepError::with_source("cannot start a layer", e))?;
        let lowers: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        self.inherit_root_directory(base, &draft)?;
        let root = mount_overlay(&lowers, Some((draft.tree(), draft.work())))?;
        Ok(WritableRoot { root, draft })
    }
}

impl LocalWorker {
    /// The files of an image, which must be one of [`WorkerSettings::images`](crate::WorkerSettings::images), to be
    /// written to. Layers that are missing are pulled.
    pub async fn writable_image(
        &self,
        image: &ImageSource,
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<WritableRoot, StepError> {
        let fetched = self.fetch_source(&Source::Image(image.clone()), task, cancel).await?;
        let Output::Snapshot(snapshot) = fetched else {
            return Err(StepError::new("an image has no files"));
        };
        let writable = || {
            let (shared, snapshot) = (self.shared.clone(), snapshot.clone());
            blocking(move || shared.writable(&snapshot))
        };
        match writable().await {
            Err(StepError::Lost { .. }) if self.restore_images().await? => writable().await,
            result => result,
        }
    }
}
