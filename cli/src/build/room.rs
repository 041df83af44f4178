//! Keeps the store below its limit while a build adds to it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bricklayer_solver::event::{Outcome, Reporter};

use super::{Builder, internal_task};
use crate::error::Error;

/// How often the store is looked at during a build: so that many small layers cost nothing.
const EVERY: Duration = Duration::from_secs(1);

/// Makes room for one build.
pub(super) struct Room {
    limit: Option<u64>,
    reporter: Reporter,
    looked: Mutex<Instant>,
}

impl Room {
    /// Room below `limit` bytes; `None`: the store may grow.
    pub(super) fn new(limit: Option<u64>, reporter: Reporter) -> Self {
        Self { limit, reporter, looked: Mutex::new(Instant::now()) }
    }

    /// Makes room if the last look is some time ago: after each layer.
    pub(super) async fn make_now_and_then(&self, builder: &Builder) {
        let due = {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            let due = looked.elapsed() >= EVERY;
            if due {
                *looked = Instant::now();
            }
            due
        };
        if due {
            self.make(builder).await;
        }
    }

    /// Makes room. That it can't be made is said, and no reason for the build to fail.
    pub(super) async fn make(&self, builder: &Builder) {
        let Some(limit) = self.limit else { return };
        let store = builder.store.clone();
        let made = builder
            .blocking(move || store.make_room(limit).map_err(|e| Error::because("cannot prune the store", e)))
            .await;
        if let Err(error) = made {
            let task = internal_task(&self.reporter, "[internal] keep the store below its limit");
            let because = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            task.finish(Outcome::Failed(format!("{error}{because}")));
        }
    }
}
