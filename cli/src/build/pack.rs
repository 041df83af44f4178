//! Layers become blobs while later steps still run, and go to registries as soon as they are blobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bricklayer_cache::registry::Repository;
use bricklayer_cache::store::{Compression, Packed};
use bricklayer_solver::event::{Outcome, Reporter, Task, TaskInfo, TaskKind};
use bricklayer_solver::record::{LayerId, Snapshot};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::Builder;
use super::room::Room;
use crate::error::Error;

/// Layers that are packed at the same time: one alone keeps all cores busy most of the time.
const AT_ONCE: usize = 2;

/// A form in which layers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) compression: Compression,
    /// Also of layers that have another form already.
    pub(super) force: bool,
}

/// Where blobs go as soon as they are there.
#[derive(Debug, Clone, Default)]
pub(super) struct PushTo {
    pub(super) repositories: Vec<Repository>,
    /// Where the layers of the base image came from.
    pub(super) mount_from: Vec<Repository>,
}

type Packing = Shared<BoxFuture<'static, Result<Packed, Arc<Error>>>>;

/// Packs layers, each once for each form.
pub(super) struct Packer {
    forms: Vec<Form>,
    push_to: PushTo,
    clamp: Option<i64>,
    reporter: Reporter,
    room: Arc<Room>,
    bound: Arc<Semaphore>,
    started: Mutex<HashMap<(LayerId, Form), Packing>>,
}

impl Packer {
    /// A packer for `forms`; each blob of the first form goes to `push_to` as well.
    pub(super) fn new(
        forms: Vec<Form>,
        push_to: PushTo,
        clamp: Option<i64>,
        reporter: Reporter,
        room: Arc<Room>,
    ) -> Self {
        Self {
            forms,
            push_to,
            clamp,
            reporter,
            room,
            bound: Arc::new(Semaphore::new(AT_ONCE)),
            started: Mutex::default(),
        }
    }

    /// Begins with the layers of a snapshot that were not begun yet.
    pub(super) fn start(&self, builder: &Builder, snapshot: &Snapshot) {
        for form in &self.forms {
            for layer in &snapshot.layers {
                drop(self.packing(builder, layer.id, *form));
            }
        }
    }

    /// The blobs of a snapshot, lowest first, when all are there (and, with a push, sent).
    pub(super) async fn packed(
        &self,
        builder: &Builder,
        snapshot: &Snapshot,
        form: Form,
    ) -> Result<Vec<Packed>, Error> {
        let mut blobs = Vec::new();
        let layers: Vec<Packing> =
            snapshot.layers.iter().map(|layer| self.packing(builder, layer.id, form)).collect();
        for (n, packing) in layers.into_iter().enumerate() {
            let packed = packing.await.map_err(|error| {
                Error::because(format!("cannot export layer {} of {}", n + 1, snapshot.layers.len()), error)
            })?;
            blobs.push(packed);
        }
        Ok(blobs)
    }

    fn packing(&self, builder: &Builder, layer: LayerId, form: Form) -> Packing {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packing) = started.get(&(layer, form)) {
            return packing.clone();
        }
        let push_to =
            if self.forms.first() == Some(&form) { self.push_to.clone() } else { PushTo::default() };
        let (room, room_of) = (Arc::clone(&self.room), builder.clone());
        let work = pack_and_push(
            builder.clone(),
            layer,
            form,
            self.clamp,
            Arc::clone(&self.bound),
            push_to,
            self.reporter.clone(),
        );
        // on the runtime, so that it goes on while nobody waits for it
        let handle = tokio::spawn(async move {
            let result = work.await;
            room.make_now_and_then(&room_of).await;
            result
        });
        let packing = async move {
            match handle.await {
                Ok(result) => result.map_err(Arc::new),
                Err(error) => Err(Arc::new(Error::because("packing ended without a result", error))),
            }
        }
        .boxed()
        .shared();
        started.insert((layer, form), packing.clone());
        packing
    }
}

async fn pack_and_push(
    builder: Builder,
    layer: LayerId,
    form: Form,
    clamp: Option<i64>,
    bound: Arc<Semaphore>,
    push_to: PushTo,
    reporter: Reporter,
) -> Result<Packed, Error> {
    let packed = {
        let _permit = bound.acquire_owned().await.map_err(|e| Error::because("cannot pack", e))?;
        let store = builder.store.clone();
        builder
            .blocking(move || {
                store
                    .layer_blob(layer, form.compression, form.force, clamp, &|_| {})
                    .map_err(|e| Error::because("cannot make the layer's blob", e))
            })
            .await?
    };
    for repository in push_to.repositories {
        let task = push_task(&reporter, &packed, &repository);
        let sent = builder
            .registry
            .push_blob(&builder.store, &repository, &packed.blob, &push_to.mount_from, &task)
            .await;
        task.finish(match &sent {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error.to_string()),
        });
        sent.map_err(|e| {
            Error::because(format!("cannot push layer {} to {repository}", packed.blob.digest), e)
        })?;
    }
    Ok(packed)
}

fn push_task(reporter: &Reporter, packed: &Packed, repository: &Repository) -> Task {
    let task = reporter.task(TaskInfo {
        name: format!("pushing layer {} to {repository}", packed.blob.digest.short()),
        kind: TaskKind::Export,
        vertex: None,
        location: None,
    });
    task.start();
    task
}
