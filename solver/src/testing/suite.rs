//! What every store of records must do. Each function panics where it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::digest::Digest;
use crate::record::{Layer, LayerId, Record, RecordStore, Snapshot};

/// A store under test: fresh, and with a way to get at what lies behind records.
pub trait Harness {
    /// Another handle on the same store, as another process has one.
    fn open(&self) -> Arc<dyn RecordStore>;
    /// A layer that exists in the store, different from all others.
    fn layer(&self) -> Layer;
    /// Takes a layer away, as pruning and damage do.
    fn remove(&self, layer: LayerId);
}

/// Runs all of it; `fresh` makes an empty store for each part. Needs a tokio runtime with time.
pub async fn record_store_suite<H: Harness>(fresh: impl Fn() -> H) {
    finds_what_was_put(&fresh());
    replaces_by_key(&fresh());
    hides_what_is_gone(&fresh());
    families_are_newest_first(&fresh());
    one_builder_a_key(&fresh()).await;
    a_wait_can_be_given_up(&fresh()).await;
}

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn record(layers: &[Layer], family: &str, created_ms: i64) -> Record {
    Record {
        output: Snapshot { layers: layers.to_vec() },
        family: key(family),
        parts: format!("{family}\0{created_ms}").into_bytes(),
        created_ms,
        duration_ms: 7,
    }
}

fn finds_what_was_put(harness: &impl Harness) {
    let (one, other) = (harness.open(), harness.open());
    assert_eq!(one.find(&[]).unwrap(), []);
    assert_eq!(one.find(&[key("a")]).unwrap(), [None]);
    let (a, b) = (harness.layer(), harness.layer());
    let first = record(&[a, b], "f", 1);
    let empty = record(&[], "f", 2);
    one.put(&[key("a"), key("b")], &first).unwrap();
    one.put(&[key("c")], &empty).unwrap();
    let keys = [key("c"), key("x"), key("b"), key("a"), key("a")];
    let expected = [Some(empty), None, Some(first.clone()), Some(first.clone()), Some(first)];
    assert_eq!(one.find(&keys).unwrap(), expected, "in the order of the keys, twice if asked twice");
    assert_eq!(other.find(&keys).unwrap(), expected, "another handle sees the same");
    let many: Vec<Digest> = (0..10_000).map(|n| key(&n.to_string())).chain([key("a")]).collect();
    let found = one.find(&many).unwrap();
    assert_eq!((found.len(), found.iter().flatten().count()), (10_001, 1), "any number of keys at once");
}

fn replaces_by_key(harness: &impl Harness) {
    let store = harness.open();
    let (old, new) = (record(&[harness.layer()], "f", 1), record(&[harness.layer()], "f", 2));
    store.put(&[key("a"), key("b")], &old).unwrap();
    store.put(&[key("b"), key("c")], &new).unwrap();
    let found = store.find(&[key("a"), key("b"), key("c")]).unwrap();
    assert_eq!(found, [Some(old), Some(new.clone()), Some(new)]);
}

fn hides_what_is_gone(harness: &impl Harness) {
    let store = harness.open();
    let (kept, gone) = (harness.layer(), harness.layer());
    store.put(&[key("whole")], &record(&[kept], "f", 1)).unwrap();
    store.put(&[key("broken")], &record(&[kept, gone], "f", 2)).unwrap();
    harness.remove(gone.id);
    let found = store.find(&[key("whole"), key("broken")]).unwrap();
    assert!(found[0].is_some() && found[1].is_none(), "a record without all of its layers is not found");
    assert_eq!(store.family(key("f"), 9).unwrap().len(), 2, "but it still tells what was built");
    let again = record(&[kept], "f", 3);
    store.put(&[key("broken")], &again).unwrap();
    assert_eq!(store.find(&[key("broken")]).unwrap(), [Some(again)], "and it can be built anew");
}

fn families_are_newest_first(harness: &impl Harness) {
    let store = harness.open();
    for n in 0..5 {
        let layer = harness.layer();
        store.put(&[key(&format!("k{n}"))], &record(&[layer], "f", n)).unwrap();
        store.put(&[key(&format!("other{n}"))], &record(&[layer], "g", n)).unwrap();
    }
    let times =
        |limit| store.family(key("f"), limit).unwrap().iter().map(|r| r.created_ms).collect::<Vec<_>>();
    assert_eq!(times(3), [4, 3, 2]);
    assert_eq!(times(100), [4, 3, 2, 1, 0]);
    assert!(times(0).is_empty());
    assert!(store.family(key("nobody"), 3).unwrap().is_empty());
}

async fn one_builder_a_key(harness: &impl Harness) {
    let inside = Arc::new(AtomicUsize::new(0));
    let told = Arc::new(AtomicUsize::new(0));
    let held = harness.open();
    let guard = held.lock(key("a"), &|whom| panic!("waits for {whom}, though nobody has it")).await.unwrap();
    // another key is another matter
    drop(held.lock(key("b"), &|whom| panic!("waits for {whom}")).await.unwrap());
    let builders: Vec<_> = (0..4)
        .map(|_| {
            let (store, inside, told) = (harness.open(), Arc::clone(&inside), Arc::clone(&told));
            tokio::spawn(async move {
                let was_told = AtomicBool::new(false);
                let waiting = |whom: String| {
                    assert!(!whom.is_empty(), "says for whom it waits");
                    assert!(!was_told.swap(true, Ordering::SeqCst), "says it once");
                    told.fetch_add(1, Ordering::SeqCst);
                };
                let guard = store.lock(key("a"), &waiting).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have one key");
                tokio::time::sleep(Duration::from_millis(5)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(guard);
            })
        })
        .collect();
    while told.load(Ordering::SeqCst) < builders.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(guard);
    for builder in builders {
        builder.await.unwrap();
    }
}

async fn a_wait_can_be_given_up(harness: &impl Harness) {
    let store = harness.open();
    let guard = store.lock(key("a"), &|_| {}).await.unwrap();
    let other = harness.open();
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let waiting = move |_| {
        let _ = tell.lock().unwrap().take().map(|tell| tell.send(()));
    };
    let waiter = tokio::spawn(async move { drop(other.lock(key("a"), &waiting).await) });
    told.await.unwrap();
    waiter.abort();
    let _ = waiter.await;
    drop(guard);
    // who gave up does not have it
    drop(harness.open().lock(key("a"), &|_| {}).await.unwrap());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;
    use crate::testing::MemoryRecords;

    #[derive(Default)]
    struct Memory(MemoryRecords, AtomicI64);

    impl Harness for Memory {
        fn open(&self) -> Arc<dyn RecordStore> {
            Arc::new(self.0.clone())
        }
        fn layer(&self) -> Layer {
            let id = self.1.fetch_add(1, Ordering::SeqCst);
            Layer { id: LayerId(id), content: key(&id.to_string()) }
        }
        fn remove(&self, layer: LayerId) {
            self.0.lose(layer);
        }
    }

    #[tokio::test]
    async fn records_in_memory_pass() {
        record_store_suite(Memory::default).await;
    }
}
