//! What a build that finds everything pays for the store: opening it, and looking up 60 keys (50 RUNs and what is around
//! them), each leading to a snapshot of up to 60 layers.

use std::hint::black_box;

use bricklayer_cache::Store;
use bricklayer_solver::Digest;
use bricklayer_solver::record::{Record, RecordStore, Snapshot};
use criterion::{Criterion, criterion_group, criterion_main};

const STEPS: u64 = 60;

fn found_again(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keys: Vec<_> = (0..STEPS).map(|step| Digest::of(&step.to_le_bytes())).collect();
    let store = Store::open(dir.path()).expect("a new store");
    let mut layers = Vec::new();
    for key in &keys {
        let draft = store.draft_layer().expect("a draft");
        layers.push(draft.commit(*key).expect("a layer"));
        let output = Snapshot { layers: layers.clone() };
        let record = Record { output, family: *key, parts: vec![0; 500], created_ms: 0, duration_ms: 0 };
        store.put(&[*key], &record).expect("a record");
    }
    store.sync().expect("a disk");
    drop(store);
    criterion.bench_function("open the store", |bencher| {
        bencher.iter(|| Store::open(black_box(dir.path())).expect("the store"));
    });
    criterion.bench_function("open the store and find 60 keys", |bencher| {
        bencher.iter(|| {
            let store = Store::open(black_box(dir.path())).expect("the store");
            let found = store.find(&keys).expect("records");
            assert!(found.iter().all(Option::is_some));
        });
    });
}

criterion_group!(benches, found_again);
criterion_main!(benches);
