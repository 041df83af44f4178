//! What a build does, and does not do again.

use std::fs;

use crate::support::{Bench, Printed, tool};

#[test]
fn a_second_build_runs_nothing_and_makes_the_same_image() {
    let bench = Bench::new();
    let files = [
        (
            "Dockerfile",
            "FROM base AS one\nRUN echo made > /made\nCOPY a.txt /a/\nFROM base\nCOPY --from=one /made /\nENV A=b\n",
        ),
        ("a.txt", "a\n"),
    ];
    let context = bench.context("context", &files);
    let context = context.to_str().unwrap();
    let id = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    let first = bench.build(&["-t", "app", "--iidfile", "first", context]).fine();
    assert!(first.text.contains("not cached: never built"), "{}", first.text);
    let second = bench.build(&["-t", "app", "--iidfile", "second", context]).fine();
    let (steps, cached) = second.steps();
    assert_eq!(steps, cached, "{}", second.text);
    assert!(!second.text.contains("not cached"), "{}", second.text);
    assert_eq!(id("first"), id("second"));
}

#[test]
fn only_what_changed_runs_again_and_people_see_why() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN echo first\nCOPY src /src\nRUN cat /src/b\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile), ("src/a", "1"), ("src/b", "2")]);
    let context = context.to_str().unwrap();
    bench.build(&[context]).fine();
    fs::write(bench.path("context/src/b"), "three").unwrap();
    let again = bench.build(&[context]).fine().text;
    assert!(again.contains("changed: src/b"), "{again}");
    assert!(again.contains("three"), "{again}");
    assert_eq!(again.matches("not cached").count(), 2, "{again}");
}

#[test]
fn a_step_that_ran_again_with_the_same_result_lets_the_next_one_hit() {
    let bench = Bench::new();
    let dockerfile =
        "FROM base\nRUN --mount=source=n,target=/n wc -l < /n > /count\nRUN cat /count > /copy\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile), ("n", "one line\n")]);
    let context = context.to_str().unwrap();
    bench.build(&[context]).fine();
    fs::write(bench.path("context/n"), "another line\n").unwrap();
    let again = bench.build(&[context]).fine().text;
    assert!(again.contains("changed: n"), "{again}");
    // the first RUN ran, the second did not
    assert_eq!(again.matches("not cached").count(), 1, "{again}");
}

#[test]
fn stages_that_the_target_does_not_need_are_not_built() {
    let bench = Bench::new();
    let dockerfile = "FROM registry.invalid/nothing AS unused\nRUN false\nFROM base AS used\nRUN echo used\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let text = bench.build(&[context.to_str().unwrap()]).fine().text;
    assert!(text.contains("RUN echo used") && !text.contains("registry.invalid"), "{text}");
}

#[test]
fn independent_steps_run_at_the_same_time() {
    let bench = Bench::new();
    // each of the two waits for the other: one after the other would wait until the timeout
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/meet touch /meet/{own}; \
             n=0; until [ -e /meet/{other} ]; do sleep 0.05; n=$((n+1)); [ $n -lt 600 ] || exit 1; done; echo met > /{own}\n"
        )
    };
    let dockerfile = format!(
        "FROM base AS a\n{}FROM base AS b\n{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    bench.build(&["--jobs", "2", context.to_str().unwrap()]).fine();
}

#[test]
fn a_failing_run_shows_the_lines_the_command_and_its_output() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN echo the reason >&2 && \\\n    exit 7\nRUN echo never\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let failed = bench.build(&[context.to_str().unwrap()]);
    assert_eq!(failed.code, Some(1), "{}", failed.text);
    let id = bench.run(&["builds", "-q"]).fine().stdout;
    let report = failed.text[failed.text.find("error: ").expect("a report")..].replace(id.trim(), "ID");
    let report = report.replace(bench.store().to_str().unwrap(), "STORE");
    insta::assert_snapshot!(report.trim_end(), @r"
    error: [2/3] RUN echo the reason >&2 &&     exit 7 failed
      caused by: process `echo the reason >&2 &&     exit 7` did not complete successfully: exit code: 7
     --> context/Dockerfile:2-3
    1 |     FROM base
    2 | >>> RUN echo the reason >&2 && \
    3 | >>>     exit 7
    4 |     RUN echo never
    what it wrote last:
      the reason
    hint: look into it: bricklayer --root STORE debug ID
    ");
}

#[test]
fn files_and_archives_are_written_where_they_are_wanted() {
    let bench = Bench::new();
    let dockerfile = "FROM base AS build\nRUN echo hi > /hi && ln -s hi /link\nFROM scratch\nCOPY --from=build /hi /link /out/\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    bench
        .build(&[
            "-o",
            "type=local,dest=local",
            "-o",
            "type=tar,dest=root.tar",
            "-o",
            "type=oci,dest=oci.tar",
            context,
        ])
        .fine();
    assert_eq!(fs::read_to_string(bench.path("local/out/hi")).unwrap(), "hi\n");
    let tar = crate::support::tool("tar", &["-tf", bench.path("root.tar").to_str().unwrap()]);
    assert!(tar.contains("out/hi"), "{tar}");
    let archive = format!("oci-archive:{}", bench.path("oci.tar").display());
    let inspected = crate::support::tool("skopeo", &["inspect", "--config", &archive]);
    assert!(inspected.contains("COPY /hi /link /out/"), "{inspected}");
    bench.build(&["-t", "app:1", "-o", "type=docker,dest=docker.tar", context]).fine();
    let archive = format!("docker-archive:{}:app:1", bench.path("docker.tar").display());
    crate::support::tool("skopeo", &["inspect", &archive]);
}

#[test]
fn two_processes_run_equal_steps_once() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN --mount=type=cache,target=/log sleep 0.7; echo ran >> /log/runs\nRUN --mount=type=cache,target=/log cp /log/runs /runs\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    let other = bench.context("other", &[("Dockerfile", "FROM base\nRUN sleep 0.2; echo another > /file\n")]);
    let builds = [
        bench.start_build(&["-o", "type=local,dest=one", context]),
        bench.start_build(&["-o", "type=local,dest=two", context]),
        bench.start_build(&["-o", "type=local,dest=three", other.to_str().unwrap()]),
    ];
    for build in builds {
        let done = build.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    for dest in ["one/runs", "two/runs"] {
        assert_eq!(fs::read_to_string(bench.path(dest)).unwrap(), "ran\n", "{dest}");
    }
    assert_eq!(fs::read_to_string(bench.path("three/file")).unwrap(), "another\n");
}

#[test]
fn a_cache_that_begins_with_a_stages_directory_has_its_mode_and_owner() {
    let bench = Bench::new();
    let dockerfile = "FROM base AS seed\nRUN mkdir -m 711 /s && touch /s/f && chown -R 7:8 /s\n\
        FROM base\nRUN --mount=type=cache,target=/a,from=seed,source=/s stat -c '%n %a %u:%g' /a /a/f > /seen\n\
        RUN --mount=type=cache,target=/b,from=seed stat -c '%n %a %u:%g' /b >> /seen\n\
        RUN --mount=type=cache,target=/c,uid=5 stat -c '%n %a %u:%g' /c >> /seen\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    bench.build(&["-o", "type=local,dest=out", context.to_str().unwrap()]).fine();
    let seen = fs::read_to_string(bench.path("out/seen")).unwrap();
    assert_eq!(seen, "/a 711 7:8\n/a/f 644 7:8\n/b 755 0:0\n/c 755 5:0\n");
}

#[test]
fn the_graph_is_written_also_when_the_build_fails() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN echo fine > /fine\nRUN exit 3\nRUN echo never\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    let failed = bench.build(&["--graph", "graph.json", context]);
    assert_eq!(failed.code, Some(1), "{}", failed.text);
    let graph: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(bench.path("graph.json")).unwrap()).unwrap();
    let state = |part: &str| {
        let steps = graph["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"].as_str().unwrap().contains(part)).unwrap();
        step["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(["echo fine", "exit 3", "echo never"].map(state), ["ran", "failed", "pending"]);

    let again = bench.build(&["--graph", "graph.dot", "--graph", "graph.svg", context]);
    assert_eq!(again.code, Some(1), "{}", again.text);
    for (file, word) in [("graph.dot", "cached"), ("graph.svg", "failed")] {
        let text = fs::read_to_string(bench.path(file)).unwrap();
        assert!(text.contains(word) && text.contains("RUN exit 3"), "{text}");
    }
    let wrong = bench.build(&["--graph", "graph.png", context]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.text);
    assert!(wrong.text.contains("graph.png") && wrong.text.contains(".svg"), "{}", wrong.text);
    let missing = bench.build(&["--graph", "no/such/graph.dot", context]);
    assert_eq!(missing.code, Some(2), "{}", missing.text);
    assert!(missing.text.contains("`no/such` is not a directory"), "{}", missing.text);
}

#[test]
fn the_store_is_kept_below_a_limit_without_what_the_build_uses() {
    let bench = Bench::new();
    let context = |name: &str| {
        let dockerfile = format!("FROM base\nRUN dd if=/dev/zero of=/{name} bs=1M count=8\n");
        bench.context(name, &[("Dockerfile", &dockerfile)]).to_str().unwrap().to_owned()
    };
    let (old, new) = (context("old"), context("new"));
    let runs = |context: &str| {
        let text = bench.run(&["explain", context]).fine().stdout;
        text.lines().last().unwrap().to_owned()
    };
    bench.build(&[&old]).fine();
    bench.build(&["--cache-limit", "10g", &new]).fine();
    assert_eq!(runs(&old), "2 steps, 0 would run");
    bench.build(&["--cache-limit", "1m", &new]).fine();
    assert_eq!(runs(&new), "2 steps, 0 would run", "what the build uses stays");
    assert_eq!(runs(&old), "2 steps, 1 would run");
    let wrong = bench.build(&["--cache-limit", "much", &new]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.text);
}

#[test]
fn locked_caches_are_used_one_after_the_other_whatever_their_order() {
    let bench = Bench::new();
    // each RUN must be alone with both caches; taken one by one in these orders, the two would wait for ever
    let alone = "[ ! -e /a/busy ] && touch /a/busy /b/busy && sleep 0.3 && rm /a/busy /b/busy";
    let mounts = |one: &str, two: &str| {
        format!(
            "--mount=type=cache,sharing=locked,id={one},target=/{one} --mount=type=cache,sharing=locked,id={two},target=/{two}"
        )
    };
    let dockerfile = format!(
        "FROM base AS one\nRUN {} {alone} && echo 1 > /one\nFROM base AS two\nRUN {} {alone} && echo 2 > /two\n\
         FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
        mounts("a", "b"),
        mounts("b", "a")
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    bench.build(&["--jobs", "2", context.to_str().unwrap()]).fine();
}

#[test]
fn a_key_in_a_file_can_be_used_by_a_run_and_is_not_in_the_image() {
    let bench = Bench::new();
    let key = bench.path("key");
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f", key.to_str().unwrap()]);
    let public = fs::read_to_string(bench.path("key.pub")).unwrap();
    let context = bench.context(
        "context",
        &[("Dockerfile", "FROM base\nCOPY root /\nRUN --mount=type=ssh,id=k ssh-add -L > /listed\n")],
    );
    // OpenSSH's client, with the libraries that it needs, in the places where it looks for them.
    let program = "/usr/bin/ssh-add";
    let needed = tool("ldd", &[program]);
    for file in needed.split_whitespace().filter(|word| word.starts_with('/')).chain([program]) {
        let to = context.join("root").join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let flag = format!("k={}", key.display());
    let temporary = bench.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let args = ["build", "--ssh", &flag, "-o", "type=local,dest=out", context.to_str().unwrap()];
    Printed::from(bench.command(&args).env("TMPDIR", &temporary).output().unwrap()).fine();
    assert_eq!(fs::read_to_string(bench.path("out/listed")).unwrap(), public);
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}
