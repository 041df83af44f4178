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
    /// The mount, attached nowhere; `None`: it was taken.
    root: Option<OwnedFd>,
    lowers: Vec<PathBuf>,
    pub(crate) draft: LayerDraft,
}

impl WritableRoot {
    /// The mount, to be attached.
    pub fn take(&mut self) -> Result<OwnedFd, StepError> {
        self.root.take().ok_or_else(|| StepError::new("the root filesystem is in use"))
    }

    /// Mounts the same files once more, when the mount that was taken is gone.
    pub(crate) fn restore(&mut self) -> Result<(), StepError> {
        // An overlay that is not synced leaves a mark there, so that nobody trusts its files after a crash of the machine.
        let mark = self.draft.work().join("work");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StepError::with_source(format!("cannot remove `{}`", mark.display()), error));
            }
            _ => {}
        }
        let lowers: Vec<&Path> = self.lowers.iter().map(PathBuf::as_path).collect();
        self.root = Some(mount_overlay(&lowers, Some((self.draft.tree(), self.draft.work())))?);
        Ok(())
    }

    /// The directory that gets the changes.
    pub fn upper(&self) -> Result<OwnedFd, StepError> {
        let failed = "cannot open the new layer";
        let upper = Root::open(self.draft.tree()).map_err(|e| StepError::with_source(failed, e))?;
        upper.as_fd().try_clone_to_owned().map_err(|e| StepError::with_source(failed, e))
    }

    /// The files.
    pub(crate) fn view(&self) -> Result<Root, StepError> {
        let failed = "cannot open the root filesystem";
        let root = self.root.as_ref().ok_or_else(|| StepError::new(failed))?;
        Ok(Root::from_fd(root.try_clone().map_err(|e| StepError::with_source(failed, e))?))
    }

    /// Who `user[:group]` is here; empty: root.
    pub fn user(&self, user: &str) -> Result<User, StepError> {
        let user = users::resolve_user(&self.view()?, user)
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
        Ok(WritableRoot { root: Some(root), lowers: trees, draft })
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
