//! Several processes on one store, some of which are killed: this test binary, started again as `worker`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::db::Db;
use super::super::layout::Layout;
use super::super::lease::{Gate, Lease};
use super::*;

const JOB: &str = "BRICKLAYER_TEST_JOB";
const ROOT: &str = "BRICKLAYER_TEST_ROOT";

fn start(job: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::processes::worker", "--nocapture"])
        .env(JOB, job)
        .env(ROOT, root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child process does; nothing in the ordinary run of the tests.
#[test]
fn worker() {
    let (Ok(job), Some(root)) = (std::env::var(JOB), std::env::var_os(ROOT).map(PathBuf::from)) else {
        return;
    };
    match job.as_str() {
        "write" => write_for_ever(&root),
        "steps" => run_steps(&root),
        "hold" => hold(&root),
        other => panic!("no job `{other}`"),
    }
}

fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize % 5000)
}

fn write_for_ever(root: &Path) {
    let store = Store::open(root).unwrap();
    for number in u64::from(std::process::id()) << 20.. {
        put(&store, &content(number));
        let draft = store.draft_layer().unwrap();
        for name in 0..20 {
            fs::write(draft.tree().join(name.to_string()), content(name)).unwrap();
        }
        // As overlayfs leaves it.
        fs::create_dir(draft.work().join("work")).unwrap();
        fs::set_permissions(draft.work().join("work"), fs::Permissions::from_mode(0o000)).unwrap();
        let made = draft.commit(Digest::of(&number.to_le_bytes())).unwrap();
        store.put(&[Digest::of(&number.to_le_bytes()), Digest::of(b"last")], &record(&[made])).unwrap();
        if number % 4 == 0 {
            store.sync().unwrap();
        }
    }
}

#[test]
fn nothing_half_written_is_seen_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut made = 0;
    for round in 0..12_u64 {
        let mut child = start("write", &root);
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 150));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(&root).unwrap();
        assert_eq!(ingest(&root), [""; 0], "round {round}");
        assert_eq!(
            fs::read_dir(root.join("leases"))
                .unwrap()
                .filter(|lease| { !lease.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.') })
                .count(),
            1,
            "only this one's lease is left"
        );
        for entry in fs::read_dir(root.join("oci/blobs/sha256")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let digest = Digest::from_hex(&name).unwrap();
            if store.has_blob(digest) {
                store.verify_blob(digest).unwrap();
            }
        }
        let last = Digest::of(b"last");
        if let Some(record) = &store.find(&[last]).unwrap()[0] {
            made += 1;
            for layer in &record.output.layers {
                let tree = store.layer_tree(layer.id, &[]).unwrap();
                for name in 0..20 {
                    assert_eq!(fs::read(tree.join(name.to_string())).unwrap(), content(name));
                }
            }
        }
    }
    assert!(made > 0, "some round got as far as a record");
}

const STEPS: u64 = 40;

/// Runs steps that all the processes have in common, as the solver does: look, lock, look again, run.
fn run_steps(root: &Path) {
    let store = Store::open(root).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for step in 0..STEPS {
        let key = Digest::of(&step.to_le_bytes());
        if store.find(&[key]).unwrap()[0].is_some() {
            continue;
        }
        let _guard = runtime.block_on(store.lock(key, &|_| {})).unwrap();
        if store.find(&[key]).unwrap()[0].is_some() {
            continue;
        }
        let ran = fs::OpenOptions::new().append(true).create(true).open(root.with_extension("ran")).unwrap();
        (&ran).write_all(&step.to_le_bytes()).unwrap();
        let made = layer(&store, &step.to_string());
        store.put(&[key], &record(&[made])).unwrap();
    }
    store.sync().unwrap();
}

#[test]
fn the_tables_of_a_new_store_are_made_once_however_many_open_it() {
    const MANY: usize = 8;
    for _ in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("store")).unwrap();
        let barrier = std::sync::Barrier::new(MANY);
        std::thread::scope(|scope| {
            for _ in 0..MANY {
                scope.spawn(|| {
                    barrier.wait();
                    Db::open(&layout).map(drop).unwrap();
                });
            }
        });
    }
}

/// Each looks at the leases of the others, also at one that is being made.
#[test]
fn a_lease_is_taken_whoever_else_takes_one_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open(&dir.path().join("store")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let gate = Gate::open(&layout).unwrap();
                (0..1000).for_each(|_| drop(Lease::take(&layout, &gate).unwrap()));
            });
        }
    });
}

#[test]
fn equal_steps_run_once_across_processes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..4).map(|_| start("steps", &root)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let ran = fs::read(root.with_extension("ran")).unwrap();
    assert_eq!(ran.len() as u64, STEPS * 8);
}

/// Makes or finds layers, and looks whether what it found stays.
fn hold(root: &Path) {
    for round in 0..60_u64 {
        let store = Store::open(root).unwrap();
        let key = Digest::of(&(round % 7).to_le_bytes());
        let found = match &store.find(&[key]).unwrap()[0] {
            Some(record) => record.output.clone(),
            None => {
                let made = Snapshot { layers: vec![layer(&store, "a"), layer(&store, "b")] };
                store.put(&[key], &record(&made.layers)).unwrap();
                made
            }
        };
        let blob = put(&store, &round.to_le_bytes());
        std::thread::sleep(Duration::from_millis(3));
        for layer in found.layers {
            assert!(store.layer_tree(layer.id, &[]).unwrap().join("file").exists());
        }
        assert!(store.has_blob(blob));
    }
}

#[test]
fn pruning_takes_nothing_that_another_process_uses() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root).unwrap();
    let mut children: Vec<_> = (0..3).map(|_| start("hold", &root)).collect();
    let mut pruned = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        let options = PruneOptions { all: true, ..PruneOptions::default() };
        pruned += store.prune(&options).unwrap().removed.len();
        std::thread::sleep(Duration::from_millis(2));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(pruned > 0);
    store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("oci/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_key_is_waited_for_and_its_holder_named() {
    let (_dir, store) = store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let key = Digest::of(b"key");
        let other = Store::open(store.path()).unwrap();
        let guard = store.lock(key, &|_| {}).await.unwrap();
        assert!(store.lock(Digest::of(b"another"), &|_| {}).await.is_ok());
        let told = Mutex::new(Vec::new());
        let waiting = |who| told.lock().unwrap().push(who);
        let gave_up = tokio::time::timeout(Duration::from_millis(30), other.lock(key, &waiting)).await;
        assert!(gave_up.is_err(), "it is held");
        assert_eq!(*told.lock().unwrap(), ["another build of this process"]);
        let (second, ()) = tokio::join!(other.lock(key, &|_| {}), async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(guard);
        });
        assert!(second.is_ok());
    });
}

#[test]
fn cache_mounts_are_shared_as_asked_and_appear_filled() {
    use bricklayer_solver::op::Sharing::{Locked, Private, Shared};
    let (_dir, store) = store();
    let other = Store::open(store.path()).unwrap();
    let fill: Fill<'_> = &|path| Ok(fs::write(path.join("seed"), "")?);
    let first = store.cache_mount_with("../../id", Shared, fill).unwrap();
    assert!(first.fresh && first.path.join("seed").exists());
    assert_eq!(first.path.parent(), Some(store.path().join("mounts").as_path()));
    let second = other.cache_mount("../../id", Shared).unwrap();
    assert!(!second.fresh);
    assert_eq!(second.path, first.path);
    assert!(other.try_cache_mount("../../id", Locked, fill).unwrap().is_err());
    let private = other.cache_mount("../../id", Private).unwrap();
    assert_ne!(private.path, first.path);
    drop((first, second));
    let locked = other.try_cache_mount("../../id", Locked, fill).unwrap().ok().unwrap();
    assert!(!locked.fresh);
    assert!(store.try_cache_mount("../../id", Shared, fill).unwrap().is_err());
    drop(locked);

    let failing: Fill<'_> = &|_| Err("no seed".into());
    let error = store.cache_mount_with("new", Shared, failing).err().unwrap();
    assert_eq!(error.to_string(), "cannot fill the cache mount `new`");
    assert!(store.cache_mount_with("new", Shared, fill).unwrap().fresh);
}
