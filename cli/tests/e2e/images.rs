//! Images go out, and come in again.

use crate::support::{Bench, RegistryServer, tool};

#[test]
fn an_image_is_pushed_read_by_others_and_pulled_as_a_base() {
    let bench = Bench::new();
    let registry = RegistryServer::start(&bench);
    let name = format!("{}/team/app:1", registry.address);
    let context = bench.context(
        "context",
        &[("Dockerfile", "FROM base\nRUN echo pushed > /pushed\nCMD [\"cat\", \"/pushed\"]\n")],
    );
    bench.build(&["-t", &name, "--push", context.to_str().unwrap()]).fine();

    let layout = format!("oci:{}:1", bench.path("layout").display());
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}"), &layout]);
    let image = format!("{}:1", bench.path("layout").display());
    tool("umoci", &["unpack", "--image", &image, bench.path("bundle").to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(bench.path("bundle/rootfs/pushed")).unwrap(), "pushed\n");

    // another store knows nothing of it, and pulls it
    let other = Bench::new();
    let dockerfile = format!("FROM {name}\nRUN cat /pushed > /copy\n");
    let context = other.context("context", &[("Dockerfile", &dockerfile)]);
    other.build(&["-o", "type=local,dest=out", context.to_str().unwrap()]).fine();
    assert_eq!(std::fs::read_to_string(other.path("out/copy")).unwrap(), "pushed\n");
}

#[test]
fn images_are_saved_loaded_tagged_listed_and_removed() {
    let bench = Bench::new();
    let context = bench.context("context", &[("Dockerfile", "FROM base\nRUN echo x > /x\nLABEL a=b\n")]);
    bench.build(&["-t", "app:1", context.to_str().unwrap()]).fine();
    bench.run(&["save", "-o", "app.tar", "app:1"]).fine();
    bench.run(&["tag", "app:1", "app:2"]).fine();
    let history = bench.run(&["history", "app:2"]).fine().stdout;
    assert!(history.contains("LABEL a=b"), "{history}");
    bench.run(&["rmi", "app:1"]).fine();
    let images = bench.run(&["images"]).fine().stdout;
    assert!(images.contains("app:2") && !images.contains("app:1"), "{images}");
    let other = Bench::new();
    other.run(&["load", "-i", bench.path("app.tar").to_str().unwrap()]).fine();
    let none = other.run(&["load", "--progress", "none", "-i", "/etc/passwd"]);
    assert!(none.code == Some(1) && none.text.contains("cannot load `/etc/passwd`"), "{}", none.text);
    let inspected = other.run(&["inspect", "app:1"]).fine().stdout;
    assert!(inspected.contains("\"a\": \"b\""), "{inspected}");
    let missing = other.run(&["inspect", "ap:1"]);
    assert!(!missing.ok && missing.text.contains("app:1"), "{}", missing.text);
}

#[test]
fn layers_of_a_base_that_were_pruned_are_pulled_again() {
    let bench = Bench::new();
    let registry = RegistryServer::start(&bench);
    let name = format!("{}/base:1", registry.address);
    bench.run(&["tag", "base", &name]).fine();
    bench.run(&["push", &name]).fine();

    let other = Bench::new();
    let context = other.context("context", &[("Dockerfile", &format!("FROM {name}\nRUN echo one\n"))]);
    let context = context.to_str().unwrap();
    other.build(&[context]).fine();
    // what pruning leaves of a base that no named image needs: its documents and its records
    for layer in std::fs::read_dir(other.store().join("layers")).unwrap().flatten() {
        std::fs::remove_dir_all(layer.path()).unwrap();
    }
    for blob in std::fs::read_dir(other.store().join("oci/blobs/sha256")).unwrap().flatten() {
        if blob.metadata().unwrap().len() > 100_000 {
            std::fs::remove_file(blob.path()).unwrap();
        }
    }
    std::fs::write(other.path("context/Dockerfile"), format!("FROM {name}\nRUN echo two\n")).unwrap();
    other.build(&[context]).fine();
}
