use super::*;
use crate::graph::{Input, StepInfo, Usage};
use crate::op::{self, Copy, Exec, FileOp, ImageSource, LocalSource, Selection};
use crate::platform::Platform;
use crate::record::{Record, Snapshot};
use crate::worker::Content;

fn exec(script: &str, env: &[&str]) -> Exec {
    Exec {
        root: Some(0),
        args: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: env.iter().map(ToString::to_string).collect(),
        cwd: "/".into(),
        user: String::new(),
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: op::Network::Default,
        security: op::Security::Sandbox,
        hostname: None,
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        proxy_env: Vec::new(),
        limits: op::Limits::default(),
        platform: Platform::new("linux", "amd64", ""),
    }
}

fn image(reference: &str, manifest: &str) -> Op {
    Op::Source(Source::Image(ImageSource {
        reference: reference.into(),
        manifest: Digest::of(manifest.as_bytes()),
        diff_ids: vec![Digest::of(manifest.as_bytes())],
        platform: Platform::new("linux", "amd64", ""),
    }))
}

fn info(instruction: &str) -> StepInfo {
    StepInfo {
        name: format!("[build 2/3] {instruction}"),
        instruction: instruction.into(),
        build_args: vec!["VERSION".into(), "API_TOKEN".into()],
        ..StepInfo::default()
    }
}

/// A RUN on an image, or on a step that made `content`.
fn run(instruction: &str, exec: Exec, base: Op, content: &str) -> KeyParts {
    let mut graph = Graph::new();
    let base = graph.add(base, vec![], info("RUN before"));
    let id = graph.add(
        Op::Exec(Box::new(exec)),
        vec![Input { vertex: base, usage: Usage::Root }],
        info(instruction),
    );
    KeyParts::of(&graph, id, None, &[InputContent::Chain(Digest::of(content.as_bytes()))])
}

fn simple(env: &[&str]) -> KeyParts {
    run("RUN make", exec("make", env), image("debian:12", "1"), "base")
}

fn content(files: &[(&str, &str)], truncated: bool) -> Content {
    Content {
        digest: Digest::of(format!("{files:?}").as_bytes()),
        files: files.iter().map(|(path, text)| (path.to_string(), Digest::of(text.as_bytes()))).collect(),
        truncated,
        bytes: 0,
    }
}

/// `COPY . /app` of a local directory, or of a stage.
fn copy(files: &[(&str, &str)], is_local: bool, truncated: bool) -> KeyParts {
    let mut graph = Graph::new();
    let source = if is_local {
        graph.add(
            Op::Source(Source::Local(LocalSource { name: "context".into(), ignore: vec![] })),
            vec![],
            info(""),
        )
    } else {
        graph.add(Op::Exec(Box::new(exec("x", &[]))), vec![], info("RUN make"))
    };
    let selection = Selection { paths: vec![String::new()], ..Selection::default() };
    let copy = Copy {
        input: 0,
        selection: selection.clone(),
        dest: "/app".into(),
        owner: None,
        mode: None,
        unpack: false,
        replace: false,
        created: None,
    };
    let op = Op::File(FileOp { base: None, actions: vec![FileAction::Copy(copy)] });
    let id =
        graph.add(op, vec![Input { vertex: source, usage: Usage::Files(selection) }], info("COPY . /app"));
    KeyParts::of(&graph, id, None, &[InputContent::Files(&content(files, truncated))])
}

fn record(parts: &KeyParts) -> Record {
    Record {
        output: Snapshot::default(),
        family: Digest::of(b""),
        parts: parts.encode(),
        created_ms: 0,
        duration_ms: 0,
    }
}

fn lines(before: &KeyParts, now: &KeyParts) -> String {
    explain(&[record(before)], now).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn files_are_named() {
    let before = copy(&[("a", "1"), ("src/main.rs", "1"), ("old", "1"), ("older", "1")], true, false);
    let now = copy(
        &[("a", "1"), ("docs/a.md", "1"), ("docs/b.md", "1"), ("docs/c.md", "1"), ("src/main.rs", "2")],
        true,
        false,
    );
    insta::assert_snapshot!(lines(&before, &now), @"
    changed: src/main.rs
    added: docs/a.md and 2 more
    removed: old and 1 more
    ");
    let stage = |text| copy(&[("bin/app", text)], false, false);
    insta::assert_snapshot!(lines(&stage("1"), &stage("2")), @"changed: bin/app, from [build 2/3] RUN make");
}

/// Behind the end of a list that was cut, nothing is known.
#[test]
fn cut_lists_claim_nothing() {
    let before = copy(&[("a", "1"), ("b", "1")], true, true);
    let now = copy(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], true, false);
    insta::assert_snapshot!(lines(&before, &now), @"changed: files of context");
    insta::assert_snapshot!(lines(&now, &before), @"changed: files of context");
    let now = copy(&[("a", "2"), ("aa", "1"), ("b", "1"), ("c", "1")], true, true);
    insta::assert_snapshot!(lines(&before, &now), @"
    changed: a
    added: aa
    ");
}

#[test]
fn variables_are_named_and_secrets_are_not_shown() {
    let before = simple(&[
        "VERSION=1.2",
        "API_TOKEN=hunter2",
        "PATH=/bin",
        "GONE=1",
        "URL=https://me:hunter2@x.org/a",
    ]);
    let now = simple(&[
        "VERSION=1.3",
        "API_TOKEN=hunter3",
        "PATH=/bin:/sbin",
        "NEW=2",
        "URL=https://me:hunter3@x.org/a",
    ]);
    insta::assert_snapshot!(lines(&before, &now), @"
    build-arg VERSION: 1.2 → 1.3
    build-arg API_TOKEN changed (value not shown)
    env PATH: /bin → /bin:/sbin
    env NEW is new: 2
    env URL changed: https://***@x.org/a, in what is not shown
    env GONE is gone; it was 1
    ");
    for parts in [before, now] {
        assert!(!String::from_utf8(parts.encode()).unwrap().contains("hunter"));
    }
    let unset = simple(&[]);
    insta::assert_snapshot!(lines(&simple(&["API_TOKEN=hunter2", "EMPTY="]), &unset), @"
    build-arg API_TOKEN is gone
    env EMPTY is gone; it was (empty)
    ");
    insta::assert_snapshot!(lines(&unset, &simple(&["API_TOKEN=hunter2", "EMPTY="])), @"
    build-arg API_TOKEN is new (value not shown)
    env EMPTY is new: (empty)
    ");
}

#[test]
fn base_images_and_earlier_steps_are_named() {
    let on = |base: Op, content: &str| run("RUN make", exec("make", &[]), base, content);
    let step = || Op::Exec(Box::new(Exec { root: None, ..exec("before", &[]) }));
    let cases = [
        ("another build of an image", on(image("debian:12", "1"), "1"), on(image("debian:12", "2"), "2")),
        ("another image", on(image("debian:12", "1"), "1"), on(image("debian:13", "2"), "2")),
        ("a step", on(step(), "1"), on(step(), "2")),
        ("a step after an image", on(image("debian:12", "1"), "1"), on(step(), "2")),
    ];
    let told: Vec<String> =
        cases.iter().map(|(name, before, now)| format!("{name}: {}", lines(before, now))).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    another build of an image: base image debian:12: sha256:6b86b273ff34… → sha256:d4735e3a265e…
    another image: base image debian:12 → debian:13: sha256:6b86b273ff34… → sha256:d4735e3a265e…
    a step: an earlier step made something else: [build 2/3] RUN before
    a step after an image: an earlier step made something else: [build 2/3] RUN before
    ");

    let mut graph = Graph::new();
    let from = |graph: &mut Graph, reference: &str, manifest: &str| {
        let id = graph.add(image(reference, manifest), vec![], info(&format!("FROM {reference}")));
        KeyParts::of(graph, id, None, &[])
    };
    let (old, new) = (from(&mut graph, "debian:12", "1"), from(&mut graph, "debian:12", "2"));
    insta::assert_snapshot!(lines(&old, &new), @"base image debian:12: sha256:6b86b273ff34… → sha256:d4735e3a265e…");
}

#[test]
fn instructions_and_everything_else() {
    let before = simple(&[]);
    let other = |change: &dyn Fn(&mut Exec)| {
        let mut exec = exec("make", &[]);
        change(&mut exec);
        run("RUN make", exec, image("debian:12", "1"), "base")
    };
    let secret = op::SecretMount { id: "npm".into(), mode: 0o400, uid: 0, gid: 0, required: false };
    let long = format!("RUN {} && b", "a ".repeat(100));
    let cases = [
        run("RUN make all", exec("make all", &[]), image("debian:12", "1"), "base"),
        run("RUN make\u{1b}[31m", exec("make", &[]), image("debian:12", "1"), "base"),
        run(&long, exec("make", &[]), image("debian:12", "1"), "base"),
        other(&|e| e.args[0] = "/bin/bash".into()),
        other(&|e| e.user = "app".into()),
        other(&|e| e.network = op::Network::None),
        other(&|e| {
            e.mounts.push(op::Mount { target: "/s".into(), kind: op::MountKind::Secret(secret.clone()) })
        }),
        other(&|_| {}),
        other(&|e| e.env = (0..20).map(|n| format!("V{n}=1")).collect()),
    ];
    let told: Vec<String> = cases.iter().map(|now| lines(&before, now)).collect();
    insta::assert_snapshot!(told.join("\n--\n"), @"
    instruction changed: RUN make → RUN make all
    --
    instruction changed: RUN make → RUN make [31m
    --
    instruction changed: RUN make → RUN a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a …
    --
    command: /bin/sh -c make → /bin/bash -c make
    --
    user: (empty) → app
    --
    network: default → none
    --
    mount /s is new: secret npm 400 0:0 required=false
    --
    result pruned
    --
    env V0 is new: 1
    env V1 is new: 1
    env V2 is new: 1
    env V3 is new: 1
    env V4 is new: 1
    env V5 is new: 1
    env V6 is new: 1
    and 13 more differences
    ");
    insta::assert_snapshot!(lines(&cases[2], &run(&format!("{long}c"), exec("make", &[]), image("debian:12", "1"), "base")), @"instruction changed: … a a a a a a a a a a a a a a && b → … a a a a a a a a a a a a a a && bc");
    let mounted = |instruction: &str| {
        let mut exec = exec(instruction, &[]);
        exec.mounts.push(op::Mount { target: "/s".into(), kind: op::MountKind::Secret(secret.clone()) });
        run(instruction, exec, image("debian:12", "1"), "base")
    };
    insta::assert_snapshot!(lines(&before, &mounted("RUN --mount=type=secret,id=npm make")), @"instruction changed: RUN make → RUN --mount=type=secret,id=npm make");
    assert_eq!(explain(&[], &before), [Reason::NeverBuilt]);
}

#[test]
fn the_nearest_record_is_compared_and_of_equals_the_newest() {
    let now = simple(&["A=1", "B=1", "C=1"]);
    let family =
        [simple(&["A=9", "B=9", "C=1"]), simple(&["A=1", "B=1", "C=2"]), simple(&["A=1", "B=1", "C=3"])];
    let family: Vec<Record> = family.iter().map(record).collect();
    insta::assert_snapshot!(explain(&family, &now)[0], @"env C: 2 → 1");

    // what an earlier one had besides is a difference, too
    let family = [simple(&["A=1", "B=1", "C=1", "D=1"]), simple(&["A=1", "B=1", "C=1"])];
    let family: Vec<Record> = family.iter().map(record).collect();
    insta::assert_snapshot!(explain(&family, &now)[0], @"result pruned");
}

/// What another version wrote, or nobody, is not compared and does no harm.
#[test]
fn foreign_parts_are_passed_over() {
    let now = simple(&[]);
    for parts in [&b""[..], b"{}", b"\xff\xfe", b"[1,2]", br#"{"v":2,"kind":"run"}"#] {
        let record = Record { parts: parts.to_vec(), ..record(&now) };
        assert_eq!(explain(&[record], &now), [Reason::NeverBuilt]);
    }
    assert_eq!(KeyParts::decode(&now.encode()), Some(now));
}

#[test]
fn parts_are_bounded() {
    let files: Vec<(String, String)> =
        (0..60_000).map(|n| (format!("some/directory/file-{n:06}"), String::new())).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let encoded = copy(&files, true, false).encode();
    assert!(encoded.len() <= MAX_PARTS && encoded.len() > MAX_PARTS / 4);
    let decoded = KeyParts::decode(&encoded).unwrap();
    assert!(decoded.inputs[0].truncated && decoded.inputs[0].files.len() > 10_000);

    let env: Vec<String> = (0..2_500).map(|n| format!("V{n}={}", "ä".repeat(1_100))).collect();
    let env: Vec<&str> = env.iter().map(String::as_str).collect();
    let (parts, other) = (simple(&env), simple(&env[1..]));
    assert!(parts.fields.len() < 2_100);
    let encoded = parts.encode();
    assert!(encoded.len() <= MAX_PARTS && KeyParts::decode(&encoded).is_some());
    assert_ne!(parts.fields, other.fields);
}

#[test]
fn names_of_secrets() {
    let secret = [
        "PASSWORD",
        "db_password",
        "MYSQL_ROOT_PASSWORD",
        "GITHUB_TOKEN",
        "NPMTOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_KEY",
        "APIKEY",
        "api-key",
        "BASIC_AUTH",
        "GOOGLE_CREDENTIALS",
        "DB_PWD",
        "DB_PASS",
        "PASSPHRASE",
    ];
    let plain = [
        "VERSION",
        "PATH",
        "PWD",
        "OLDPWD",
        "PUBLIC_KEY",
        "KEYBOARD",
        "AUTHOR",
        "COMPASS",
        "MONKEYS",
        "DEBIAN_FRONTEND",
    ];
    for name in secret {
        assert!(secret::is_secret(name), "{name}");
    }
    for name in plain {
        assert!(!secret::is_secret(name), "{name}");
    }
}

#[test]
fn user_info_in_urls_is_hidden() {
    let cases = [
        ("https://u:p@x.org/a?b=c", "https://***@x.org/a?b=c"),
        (
            "curl -u a https://tok@x.org && git clone ssh://git@h/r",
            "curl -u a https://***@x.org && git clone ssh://***@h/r",
        ),
        ("https://x.org/@scope/pkg", "https://x.org/@scope/pkg"),
        ("https://a@b@c/", "https://***@c/"),
        ("://", "://"),
        ("mail me@x.org", "mail me@x.org"),
    ];
    for (text, expected) in cases {
        assert_eq!(secret::hide_user_info(text), (expected.to_owned(), text != expected));
    }
}

#[test]
fn families_and_places() {
    let vertex = |instruction: &str, stage: &str, op: Op| crate::graph::Vertex {
        op,
        inputs: vec![],
        info: StepInfo { stage: stage.into(), ..info(instruction) },
    };
    let run = || Op::Exec(Box::new(exec("x", &[])));
    let of = |instruction, stage, op| family(&vertex(instruction, stage, op));
    let same = of("RUN make", "build", run());
    assert_eq!(of("RUN  make \n", "build", run()), same, "blanks don't count");
    assert_ne!(of("RUN make all", "build", run()), same);
    assert_ne!(of("RUN make", "test", run()), same);
    assert_ne!(of("RUN make", "build", Op::Merge), same);

    let places = |first: &str, second: &str| {
        let mut graph = Graph::new();
        let mut last = graph.add(image("debian:12", "1"), vec![], info("FROM debian:12"));
        for instruction in [first, second] {
            let op = Op::Exec(Box::new(exec(instruction, &[])));
            last = graph.add(op, vec![Input { vertex: last, usage: Usage::Root }], info(instruction));
        }
        let needed = graph.needed(last);
        let places = Places::of(&graph, &needed);
        needed.iter().map(|id| places.get(*id)).collect::<Vec<_>>()
    };
    let before = places("RUN a", "RUN b");
    assert_eq!(before[0], None, "a source has no place");
    assert_eq!(places("RUN a", "RUN c"), before, "the instruction itself is not part of its place");
    let moved = places("RUN x", "RUN b");
    assert!(moved[1] == before[1] && moved[2] != before[2], "what it stands on is");
}
