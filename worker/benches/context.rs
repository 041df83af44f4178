//! A context of 50,000 files: its digest with and without an index, and its copy. `cargo bench -p bricklayer-worker`.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use bricklayer_cache::root::Root;
use bricklayer_solver::op::{Copy, FileAction, FileOp, LocalSource, Selection};
use bricklayer_worker::context::ContextSet;
use bricklayer_worker::files::{Apply, apply, content};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const DIRECTORIES: usize = 500;
const FILES: usize = 100;

fn digest(context: &Path, indexes: Option<&Path>) {
    let set = ContextSet::new([("context".to_owned(), context.to_owned())], indexes);
    let ignore = ["node_modules", "**/*.pyc", ".git"].map(str::to_owned).to_vec();
    let tree = set.tree(&LocalSource { name: "context".into(), ignore }).expect("a context");
    let selection = Selection { paths: vec![".".into()], wildcards: true, ..Selection::default() };
    black_box(content(&tree, &selection).expect("a digest"));
    set.save().expect("saved");
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let context = dir.path().join("context");
    for directory in 0..DIRECTORIES {
        let path = context.join(format!("src/part{}/module{directory}", directory % 20));
        fs::create_dir_all(&path).expect("directories");
        for file in 0..FILES {
            let text = format!("file {file} of {directory}\n").repeat(1 + file * 2);
            fs::write(path.join(format!("source_file_{file}.rs")), text).expect("a file");
        }
    }
    let indexes = dir.path().join("indexes");
    std::thread::sleep(std::time::Duration::from_millis(100));
    digest(&context, Some(&indexes));

    let mut group = criterion.benchmark_group("50,000 files");
    group.sample_size(10);
    group.bench_function("digest, nothing known", |bencher| bencher.iter(|| digest(&context, None)));
    group.bench_function("digest, unchanged since the last build", |bencher| {
        bencher.iter(|| digest(&context, Some(&indexes)));
    });
    group.bench_function("digest, one file changed", |bencher| {
        bencher.iter_batched(
            || fs::write(context.join("src/part0/module0/source_file_0.rs"), "changed").expect("a file"),
            |()| digest(&context, Some(&indexes)),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("copy", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir_in(dir.path()).expect("a directory"),
            |to| {
                let set = ContextSet::new([("context".to_owned(), context.clone())], None);
                let tree =
                    set.tree(&LocalSource { name: "context".into(), ignore: Vec::new() }).expect("a context");
                let copy = Copy {
                    input: 0,
                    selection: Selection { paths: vec![".".into()], wildcards: true, ..Selection::default() },
                    dest: "/app/".into(),
                    owner: None,
                    mode: None,
                    unpack: false,
                    replace: false,
                    created: None,
                };
                let op = FileOp { base: None, actions: vec![FileAction::Copy(copy)] };
                let root = Root::open(to.path()).expect("a root");
                apply(&op, &root, &[Some(&tree)], Apply { now: 0, userns: false }).expect("copied");
                to
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(context, benches);
criterion_main!(context);
