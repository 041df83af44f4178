//! What a command costs beyond itself: `RUN true` on a small root, from mounting the root to nothing being left. Needs
//! root, and Debian's busybox-static.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use bricklayer_solver::op::{Limits, Network, Security};
use bricklayer_worker::overlay;
use bricklayer_worker::sandbox::{CapabilityChanges, Command, Stdio, User, run};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio_util::sync::CancellationToken;

fn command(folder: &Path, network: Network) -> Command {
    let (base, upper, work) = (folder.join("base"), folder.join("upper"), folder.join("work"));
    for dir in [&upper, &work] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir(dir).expect("make a directory");
    }
    Command {
        root: overlay::mount(&[&base], Some((&upper, &work))).expect("mount"),
        upper: Some(fs::File::open(&upper).expect("open").into()),
        args: vec!["/bin/busybox".to_owned(), "true".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: User { uid: 0, gid: 0, groups: Vec::new(), home: String::new() },
        mounts: Vec::new(),
        network,
        more_to_come: true,
        security: Security::Sandbox,
        capabilities: CapabilityChanges::default(),
        read_only: false,
        stdio: Stdio::default(),
        runtime: None,
        hostname: None,
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        limits: Limits::default(),
        cgroup_parent: None,
    }
}

fn run_true(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().join("base");
    for dir in ["bin", "dev", "proc", "sys", "etc"] {
        fs::create_dir_all(base.join(dir)).expect("make a directory");
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).expect("apt-get install busybox-static");
    for (name, network) in [("none", Network::None), ("host", Network::Host), ("private", Network::Default)] {
        criterion.bench_function(&format!("run true, network {name}"), |bencher| {
            bencher.iter(|| {
                let exit = run(command(folder.path(), network), &|_, _| {}, &CancellationToken::new());
                assert!(black_box(exit).expect("run").success());
            });
        });
    }
}

criterion_group!(benches, run_true);
criterion_main!(benches);
