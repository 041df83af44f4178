//! Random sequences of what builds, prunings, kills and power cuts do, against a model of what must be found.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    /// A step is run and recorded.
    Run(u8),
    /// A layer is begun and given up.
    GiveUp,
    Blob(u8),
    Sync,
    /// A file of a layer or a blob goes missing.
    Damage(u8),
    Prune {
        all: bool,
    },
    /// The process ends, and another one opens the store.
    Reopen,
    /// The machine goes down, and another one opens the store.
    Boot,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Act::Run),
        1 => Just(Act::GiveUp),
        2 => (0..6_u8).prop_map(Act::Blob),
        1 => Just(Act::Sync),
        1 => any::<u8>().prop_map(Act::Damage),
        1 => any::<bool>().prop_map(|all| Act::Prune { all }),
        2 => Just(Act::Reopen),
        1 => Just(Act::Boot),
    ]
}

#[derive(Default)]
struct Model {
    /// Key → the layer that its record leads to, and whether it is on disk.
    records: HashMap<u8, (Layer, bool)>,
}

fn check(store: &Store, model: &Model) {
    for number in 0..6 {
        let key = Digest::of(&[number]);
        let found = store.find(&[key]).unwrap().pop().flatten();
        let expected = model.records.get(&number).map(|(layer, _)| *layer);
        assert_eq!(found.map(|record| record.output.layers[0]), expected, "record {number}");
        if let Some(layer) = expected {
            let tree = store.layer_tree(layer.id, &[]).unwrap();
            assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), number.to_string());
        }
        let blob = Digest::of(&[number; 100]);
        if store.has_blob(blob) {
            assert_eq!(store.read_blob(blob, 100).unwrap(), [number; 100]);
        }
    }
    assert_eq!(ingest(store.path()), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_is_what_was_made_and_nothing_in_use_goes(acts in proptest::collection::vec(act(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut model = Model::default();
        let mut boots = 0;
        for act in acts {
            match act {
                Act::Run(number) => {
                    let made = layer(&store, &number.to_string());
                    store.put(&[Digest::of(&[number])], &record(&[made])).unwrap();
                    model.records.insert(number, (made, false));
                }
                Act::GiveUp => drop(store.draft_layer().unwrap()),
                Act::Blob(number) => {
                    put(&store, &[number; 100]);
                }
                Act::Sync => {
                    store.sync().unwrap();
                    model.records.values_mut().for_each(|(_, synced)| *synced = true);
                }
                Act::Damage(which) => {
                    let number = which % 6;
                    if which & 1 == 0 {
                        if let Some((layer, _)) = model.records.remove(&number) {
                            fs::remove_dir_all(store.inner.layout.layer(layer.id)).unwrap();
                        }
                    } else {
                        let _ = fs::remove_file(store.inner.layout.blob(Digest::of(&[number; 100])));
                    }
                }
                // Everything in the model was looked at, so it is held.
                Act::Prune { all } => {
                    store.prune(&PruneOptions { all, ..PruneOptions::default() }).unwrap();
                }
                Act::Reopen => {
                    drop(store);
                    store = Store::open(dir.path()).unwrap();
                }
                Act::Boot => {
                    drop(store);
                    store = Store::open(dir.path()).unwrap();
                    boots += 1;
                    let mut state = store.inner.state();
                    let State { db, lease, gate } = &mut *state;
                    sync::recover_in(&store.inner.layout, db, lease, gate, &format!("boot {boots}")).unwrap();
                    // The next to open it is in the boot that the machine is really in.
                    drop(state);
                    model.records.retain(|_, (_, synced)| *synced);
                    store.inner.state().db.write("test", |tx| Ok(tx.execute("UPDATE state SET boot = ?", [sync::boot_id()])?)).unwrap();
                }
            }
            check(&store, &model);
        }
    }
}
