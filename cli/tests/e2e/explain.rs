//! What would happen is said before it happens, and is what happens.

use std::fs;

use crate::support::Bench;

const DOCKERFILE: &str = "FROM base AS build\nRUN echo first > /first\nCOPY src /src\nRUN cat /src/b > /b\nFROM base\nCOPY --from=build /b /b\n";

fn context(bench: &Bench) -> String {
    let files = [("Dockerfile", DOCKERFILE), ("src/a", "1\n"), ("src/b", "2\n")];
    bench.context("context", &files).to_str().unwrap().to_owned()
}

/// The base image is what busybox of this machine makes it.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("@sha256:");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push_str("@…");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

#[test]
fn a_first_build_a_second_one_and_one_with_a_changed_file() {
    let bench = Bench::new();
    let context = context(&bench);
    let before = bench.run(&["explain", &context]).fine().stdout;
    insta::assert_snapshot!(without_digests(&before), @"
    would run  [build 1/4] FROM docker.io/library/base:latest@…
                 never built
    would run  [build 2/4] RUN echo first > /first
                 never built
    -          [internal] load build context
    would run  [build 3/4] COPY src /src
                 never built
    would run  [build 4/4] RUN cat /src/b > /b
                 never built
    would run  [stage-1 2/2] COPY --from=build /b /b
                 never built
    5 steps, 5 would run
    ");
    // nothing was built by asking
    assert_eq!(bench.run(&["explain", &context]).fine().stdout, before);

    bench.build(&[&context]).fine();
    let built = bench.run(&["explain", &context]).fine().stdout;
    insta::assert_snapshot!(without_digests(&built), @"
    cached     [build 1/4] FROM docker.io/library/base:latest@…
    cached     [build 2/4] RUN echo first > /first
    -          [internal] load build context
    cached     [build 3/4] COPY src /src
    cached     [build 4/4] RUN cat /src/b > /b
    cached     [stage-1 2/2] COPY --from=build /b /b
    5 steps, 0 would run
    ");

    fs::write(bench.path("context/src/b"), "three\n").unwrap();
    let changed = bench.run(&["explain", "-t", "app", &context]).fine().stdout;
    insta::assert_snapshot!(without_digests(&changed), @"
    cached     [build 1/4] FROM docker.io/library/base:latest@…
    cached     [build 2/4] RUN echo first > /first
    -          [internal] load build context
    would run  [build 3/4] COPY src /src
                 changed: src/b
    may run    [build 4/4] RUN cat /src/b > /b
                 depends on what this makes: [build 3/4] COPY src /src
    may run    [stage-1 2/2] COPY --from=build /b /b
                 depends on what this makes: [build 3/4] COPY src /src
    5 steps, 1 would run, 2 may run
    ");
    assert!(!bench.run(&["images"]).fine().stdout.contains("app"), "nothing gets a name");

    // and so it is
    let again = bench.build(&[&context]).fine().text;
    assert!(again.contains("not cached: changed: src/b"), "{again}");
}

#[test]
fn flags_of_build_count_and_programs_get_json() {
    let bench = Bench::new();
    let context = context(&bench);
    bench.build(&[&context]).fine();
    let text = bench.run(&["explain", "--no-cache", "--format", "json", &context]).fine().stdout;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let steps = answer["steps"].as_array().unwrap();
    let first = steps.iter().find(|step| step["name"].as_str().unwrap().contains("RUN echo first")).unwrap();
    assert_eq!(first["state"], "would-run", "{text}");
    assert_eq!(first["reasons"][0]["reason"], "no-cache", "{text}");
    assert_eq!(first["location"]["first"], 2, "{text}");

    let target = bench.run(&["explain", "--target", "build", &context]).fine().stdout;
    assert!(!target.contains("COPY --from"), "{target}");
}

#[test]
fn what_a_build_refuses_is_refused() {
    let bench = Bench::new();
    let files = [("Dockerfile", "FROM base\nCOPY missing /\n")];
    let context = bench.context("context", &files).to_str().unwrap().to_owned();
    let missing = bench.run(&["explain", &context]);
    assert_eq!(missing.code, Some(1), "{}", missing.text);
    assert!(missing.text.contains("missing") && missing.text.contains("Dockerfile:2"), "{}", missing.text);
    let call = bench.run(&["explain", "--check", &context]);
    assert_eq!(call.code, Some(2), "{}", call.text);
}
