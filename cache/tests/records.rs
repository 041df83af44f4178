//! The store's records pass the suite that the solver has for everybody who keeps records.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bricklayer_cache::Store;
use bricklayer_solver::Digest;
use bricklayer_solver::record::{Layer, LayerId, RecordStore};
use bricklayer_solver::testing::suite::{Harness, record_store_suite};

struct Disk {
    store: Store,
    next: AtomicU64,
    dir: tempfile::TempDir,
}

impl Disk {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        Self { store, next: AtomicU64::new(0), dir }
    }
}

impl Harness for Disk {
    fn open(&self) -> Arc<dyn RecordStore> {
        Arc::new(Store::open(self.dir.path()).expect("the same store again"))
    }

    fn layer(&self) -> Layer {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let draft = self.store.draft_layer().expect("a draft");
        fs::write(draft.tree().join("number"), number.to_string()).expect("a file");
        draft.commit(Digest::of(&number.to_le_bytes())).expect("a layer")
    }

    fn remove(&self, layer: LayerId) {
        fs::remove_dir_all(self.dir.path().join(format!("layers/{}", layer.0))).expect("the layer's tree");
    }
}

#[tokio::test]
async fn records_on_disk_pass_the_suite() {
    record_store_suite(Disk::fresh).await;
}
