//! A root filesystem to write to: the layers of a snapshot with an empty one on top, which is kept, or goes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bricklayer_cache::root::Root;
use bricklayer_cache::store::LayerDraft;
use bricklayer_solver::errors::in_one_line;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::{ImageSource, Source};
use bricklayer_solver::record::{Layer, Output, Snapshot};
use bricklayer_solver::worker::StepError;
use tokio_util::sync::CancellationToken;

use crate::copied::{Copied, CopiedError, copy_of};
use crate::fuse::{Fuse, FuseError};
use crate::local_worker::{LocalWorker, Shared, blocking};
use crate::overlay;
use crate::sandbox::User;
use crate::steps::{mount_failed, mount_overlay};
use crate::users;

/// The root filesystem of a command. What is written to it is removed when this is dropped.
pub struct WritableRoot {
    /// The mount, attached nowhere; `None`: it was taken.
    root: Option<OwnedFd>,
    mount_points: PathBuf,
    lowers: Vec<PathBuf>,
    pub(crate) draft: LayerDraft,
    pub(crate) way: Way,
}

/// How what is written to a root filesystem gets into its layer.
#[derive(Debug)]
pub(crate) enum Way {
    /// The layer is overlayfs's upper directory.
    Overlay,
    /// The layer is the upper directory of fuse-overlayfs.
    Fuse(Fuse),
    /// It is written to a copy, and what was changed is moved into the layer. Why fuse-overlayfs is not used.
    Copied(Copied, String),
}

impl WritableRoot {
    /// The mount, to be attached.
    pub fn take(&mut self) -> Result<OwnedFd, StepError> {
        self.root.take().ok_or_else(|| StepError::new("the root filesystem is in use"))
    }

    /// Mounts the same files once more, when the mount that was taken is gone.
    pub(crate) fn restore(&mut self) -> Result<(), StepError> {
        let failed = "cannot mount the root filesystem";
        overlay::settle();
        match &mut self.way {
            Way::Overlay => {}
            Way::Fuse(fuse) => {
                // Its layer was tidied behind its back.
                fuse.end().map_err(|e| StepError::with_source(failed, e))?;
                let lowers: Vec<&Path> = self.lowers.iter().map(PathBuf::as_path).collect();
                let below = Root::from_fd(mount_overlay(&lowers, None)?);
                *fuse = Fuse::new(&lowers, below, self.draft.tree(), self.draft.work())
                    .map_err(|e| StepError::with_source(failed, e))?;
                self.root = Some(fuse.mount().map_err(|e| StepError::with_source(failed, e))?);
                return Ok(());
            }
            Way::Copied(copied, _) => {
                self.root = Some(copied.mount().map_err(|e| StepError::with_source(failed, e))?);
                return Ok(());
            }
        }
        // An overlay that is not synced leaves a mark there, so that nobody trusts its files after a crash of the machine.
        let mark = self.draft.work().join("work");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StepError::with_source(format!("cannot remove `{}`", mark.display()), error));
            }
            _ => {}
        }
        let lowers: Vec<&Path> = self.lowers.iter().map(PathBuf::as_path).collect();
        let lowers = above(Some(&self.mount_points), &lowers);
        self.root = Some(mount_overlay(&lowers, Some((self.draft.tree(), self.draft.work())))?);
        Ok(())
    }

    /// The layer, when the root filesystem is not mounted any more.
    pub(crate) fn into_draft(self) -> (LayerDraft, Way) {
        let Self { root, draft, way, .. } = self;
        drop(root);
        (draft, way)
    }

    /// The directory that gets the changes.
    pub fn upper(&self) -> Result<OwnedFd, StepError> {
        let failed = "cannot open the new layer";
        let upper = match &self.way {
            Way::Overlay | Way::Fuse(_) => self.draft.tree(),
            Way::Copied(copied, _) => copied.root(),
        };
        let upper = Root::open(upper).map_err(|e| StepError::with_source(failed, e))?;
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
        let mount_points = self.mount_points()?;
        let (root, way) = mount_writable(Some(mount_points), &lowers, draft.tree(), draft.work())?;
        Ok(WritableRoot {
            root: Some(root),
            mount_points: mount_points.to_owned(),
            lowers: trees,
            draft,
            way,
        })
    }

    /// Makes a draft, whose root filesystem is not mounted any more, a layer.
    pub(crate) fn commit_writable(
        &self,
        draft: LayerDraft,
        way: Way,
        task: &Task,
    ) -> Result<Layer, StepError> {
        self.commit(self.finish_writable(draft, way, task)?, task)
    }

    /// Takes over into the layer what was changed elsewhere.
    pub(crate) fn finish_writable(
        &self,
        draft: LayerDraft,
        way: Way,
        task: &Task,
    ) -> Result<LayerDraft, StepError> {
        overlay::settle();
        match way {
            Way::Overlay => {}
            Way::Fuse(fuse) => fuse.finish().map_err(|e| {
                let removed = matches!(e, FuseError::Whiteout { .. });
                unfinished(removed, "cannot take over what was changed", e)
            })?,
            Way::Copied(copied, why) => {
                self.tell_once(task, &[format!("{COPIES} ({why})")]);
                copied.finish(draft.tree()).map_err(|e| {
                    let removed = matches!(e, CopiedError::Whiteout { .. });
                    unfinished(removed, "cannot find out what was changed", e)
                })?;
            }
        }
        Ok(draft)
    }
}

fn unfinished(
    removed: bool,
    what: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> StepError {
    let failed = StepError::with_source(what, error);
    if removed { failed.hint("put the store on another filesystem with --root") } else { failed }
}

const COPIES: &str = "overlayfs can't write to the store's filesystem: each step copies its whole root filesystem, which takes \
                      time and room; fuse-overlayfs, or a store on a local disk (--root), does without";

/// Layers (lowest first) on `lowest`, if there is room for one more.
fn above<'a>(lowest: Option<&'a Path>, layers: &[&'a Path]) -> Vec<&'a Path> {
    let lowest = lowest.filter(|_| layers.len() < overlay::MAX_LAYERS);
    lowest.into_iter().chain(layers.iter().copied()).collect()
}

/// Mounts layers (lowest first) with `upper` on top, which `work` belongs to. Where overlayfs does not write to their
/// filesystem, fuse-overlayfs does; where that can't be used, it is a copy of the layers beside `upper`.
///
/// `mount_points` lies below all layers where it is an overlay: only for what a command sees.
pub(crate) fn mount_writable(
    mount_points: Option<&Path>,
    lowers: &[&Path],
    upper: &Path,
    work: &Path,
) -> Result<(OwnedFd, Way), StepError> {
    let (view, why) = match mount_by_overlay(mount_points, lowers, upper, work)? {
        Mounted::Writable(root, way) => return Ok((root, way)),
        Mounted::ReadOnly(view, why) => (view, why),
    };
    let failed = |e| StepError::with_source("cannot make a root filesystem to write to", e);
    let copied = Copied::make(&view, upper.with_file_name("copy")).map_err(failed)?;
    Ok((copied.mount().map_err(failed)?, Way::Copied(copied, why)))
}

enum Mounted {
    Writable(OwnedFd, Way),
    /// Why not fuse-overlayfs.
    ReadOnly(Root, String),
}

fn mount_by_overlay(
    mount_points: Option<&Path>,
    lowers: &[&Path],
    upper: &Path,
    work: &Path,
) -> Result<Mounted, StepError> {
    let refused = match mount_overlay(&above(mount_points, lowers), Some((upper, work))) {
        Ok(root) => return Ok(Mounted::Writable(root, Way::Overlay)),
        Err(refused) => refused,
    };
    // Where nothing can be mounted at all, that is what to tell.
    let Ok(view) = overlay::mount(lowers, None).map(Root::from_fd) else { return Err(refused) };
    let served = || -> Result<_, FuseError> {
        let mut fuse = Fuse::new(lowers, view.try_clone()?, upper, work)?;
        Ok((fuse.mount()?, fuse))
    };
    Ok(match served() {
        Ok((root, fuse)) => Mounted::Writable(root, Way::Fuse(fuse)),
        Err(error) => Mounted::ReadOnly(view, in_one_line(&error)),
    })
}

/// What lies at `inside` in layers (lowest first), as a mount to write to: what is written goes into `scratch`, an empty
/// directory, to be thrown away with it. Where overlayfs does not write there, it is fuse-overlayfs, or a copy of just that.
/// What is returned beside the mount must be held as long as it is used.
pub(crate) fn mount_for_scratch(
    lowers: &[&Path],
    inside: &Path,
    scratch: &Path,
) -> Result<(OwnedFd, Way), StepError> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for dir in [&upper, &work] {
        std::fs::create_dir(dir)
            .map_err(|e| StepError::with_source(format!("cannot make `{}`", dir.display()), e))?;
    }
    let view = match mount_by_overlay(None, lowers, &upper, &work)? {
        Mounted::Writable(mut root, way) => {
            let part = overlay::part_of(&mut root, inside).map_err(|error| mount_failed(error, inside))?;
            return Ok((part, way));
        }
        Mounted::ReadOnly(view, _) => view,
    };
    let failed = |e| StepError::with_source("cannot make a copy to write to", e);
    let upper = Root::open(&upper).map_err(|e| failed(e.into()))?;
    Ok((copy_of(&view, inside, &upper).map_err(failed)?, Way::Overlay))
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
