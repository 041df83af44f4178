//! The worker: runs ops on this machine.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use bricklayer_cache::Store;
use bricklayer_cache::registry::Registry;
use bricklayer_cache::store::LayerDraft;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::{Op, Selection, Source};
use bricklayer_solver::record::{Layer, Output};
use bricklayer_solver::worker::{Content, Job, Pinned, StepError, Worker};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::OnceCell;

use crate::context::ContextSet;
use crate::sandbox::Hold;
use crate::settings::WorkerSettings;
use crate::views::Views;

/// Runs the ops of one build on this machine, with results in a store.
#[derive(Clone)]
pub struct LocalWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Registry>,
    /// Set when lost layers of images were looked for: whether there were any.
    pub(crate) images_restored: Arc<OnceCell<bool>>,
}

/// What blocking work needs.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) settings: WorkerSettings,
    pub(crate) views: Views,
    pub(crate) contexts: ContextSet,
    /// Where [`Shared::mount_points`] are.
    pub(crate) mount_points: OnceLock<PathBuf>,
    told: Mutex<HashSet<String>>,
    _hold: Hold,
}

impl LocalWorker {
    /// A worker for one build.
    pub fn new(store: Store, registry: Arc<Registry>, settings: WorkerSettings) -> Self {
        let indexes = store.path().join("contexts");
        let contexts = ContextSet::new(settings.locals.clone(), Some(&indexes));
        let shared = Shared {
            views: Views::new(store.clone()),
            store,
            settings,
            contexts,
            mount_points: OnceLock::new(),
            told: Mutex::default(),
            _hold: Hold::new(),
        };
        Self { shared: Arc::new(shared), registry, images_restored: Arc::default() }
    }

    /// Keeps what was learned about local directories for the next build. To be called when a build ends, however it
    /// ends; what fails costs time only.
    pub fn save_indexes(&self) -> Result<(), crate::files::FilesError> {
        self.shared.contexts.save()
    }

    /// What was read of the build context although git ignores it.
    pub fn git_ignored(&self) -> crate::context::GitIgnored {
        self.shared.contexts.git_ignored("context")
    }

    /// A client for the file at `url`.
    pub(crate) fn client(&self, url: &str) -> Result<reqwest::Client, StepError> {
        crate::source::http::client(url, &self.shared.settings.proxy)
    }
}

impl Worker for LocalWorker {
    fn pin<'a>(&'a self, source: &'a Source, task: &'a Task) -> BoxFuture<'a, Result<Pinned, StepError>> {
        self.pin_source(source, task).boxed()
    }

    fn content<'a>(
        &'a self,
        output: &'a Output,
        selection: &'a Selection,
    ) -> BoxFuture<'a, Result<Content, StepError>> {
        let (shared, output, selection) = (Arc::clone(&self.shared), output.clone(), selection.clone());
        async move {
            let digest = || {
                let (shared, output, selection) = (Arc::clone(&shared), output.clone(), selection.clone());
                blocking(move || shared.digest(&output, &selection))
            };
            match digest().await {
                Err(StepError::Lost { .. }) if self.restore_images().await? => digest().await,
                result => result,
            }
        }
        .boxed()
    }

    fn run<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Output, StepError>> {
        async move {
            match &job.vertex.op {
                Op::Source(source) => self.fetch_source(source, job.task, &job.cancel).await,
                Op::Exec(_) | Op::File(_) => self.run_blocking(job).await,
                Op::Merge => Err(StepError::new("a merge is not run: its layers are those of its inputs")),
                Op::Diff => Err(StepError::new("diff steps are not supported")),
            }
        }
        .boxed()
    }
}

impl LocalWorker {
    async fn run_blocking(&self, job: Job<'_>) -> Result<Output, StepError> {
        check_may_mount()?;
        // the closure must own what it uses; a step's task is shared with it for as long as it runs
        let Job { vertex, inputs, commands_to_come, task, cancel, .. } = job;
        let work = || {
            let (shared, vertex, task) = (Arc::clone(&self.shared), vertex.clone(), task.clone());
            let (inputs, cancel) = (inputs.clone(), cancel.clone());
            blocking(move || {
                let snapshot = match &vertex.op {
                    Op::Exec(exec) => shared.exec(exec, &inputs, commands_to_come > 0, &task, &cancel)?,
                    Op::File(file) => shared.file(file, &inputs, &task)?,
                    _ => return Err(StepError::new("not a step that is run")),
                };
                Ok(Output::Snapshot(snapshot))
            })
        };
        match work().await {
            Err(StepError::Lost { .. }) if self.restore_images().await? => work().await,
            result => result,
        }
    }
}

impl Shared {
    /// Makes a draft a layer, with the digest of what it holds.
    pub(crate) fn commit(&self, draft: LayerDraft, task: &Task) -> Result<Layer, StepError> {
        let content = bricklayer_cache::layer::content(draft.tree())
            .map_err(|e| StepError::with_source("cannot read the new layer", e))?;
        task.sized(content.bytes);
        draft.commit(content.digest).map_err(|e| StepError::with_source("cannot keep the new layer", e))
    }

    /// An empty directory for this step.
    pub(crate) fn scratch_dir(&self) -> Result<tempfile::TempDir, StepError> {
        let scratch =
            self.store.scratch().map_err(|e| StepError::with_source("cannot make a scratch directory", e))?;
        tempfile::tempdir_in(&scratch).map_err(|e| {
            StepError::with_source(format!("cannot make a directory in `{}`", scratch.display()), e)
        })
    }

    /// What people should know about the surroundings, once a build.
    pub(crate) fn tell_once(&self, task: &Task, notes: &[String]) {
        let mut told = self.told.lock().expect("no holder panics");
        for note in notes {
            if told.insert(note.clone()) {
                task.warn(note.clone());
            }
        }
    }
}

/// Nothing can be run by a process that may not mount.
pub(crate) fn check_may_mount() -> Result<(), StepError> {
    if crate::rootless::may_mount() {
        return Ok(());
    }
    Err(StepError::new("this process may not mount: it is neither root nor in a user namespace")
        .hint("a program that uses the library calls `bricklayer::rootless::enter()` first in `main`"))
}

/// Runs work that blocks. A panic in it is an error of the step.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StepError::with_source("a step ended without a result", error)),
    }
}
