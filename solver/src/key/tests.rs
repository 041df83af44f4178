use super::*;
use crate::op::*;
use crate::platform::Platform;
use crate::record::{Layer, LayerId};

fn platform() -> Platform {
    Platform::new("linux", "arm64", "v9")
}

fn selection() -> Selection {
    Selection {
        paths: vec!["src".into(), "a*".into()],
        wildcards: true,
        exclude: vec!["*.o".into()],
        parents: false,
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A value in every field, so that a golden digest depends on all of them.
fn exec() -> Exec {
    let secret = |id: &str| SecretMount { id: id.into(), mode: 0o400, uid: 1, gid: 2, required: true };
    let mount = |target: &str, kind| Mount { target: target.into(), kind };
    Exec {
        root: Some(0),
        args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
        env: vec!["PATH=/bin".into(), "A=b".into()],
        cwd: "/src".into(),
        user: "build".into(),
        mounts: vec![
            mount("/in", MountKind::Bind { input: 1, source: "/x".into(), writable: true }),
            mount(
                "/cache",
                MountKind::Cache {
                    id: "id".into(),
                    sharing: Sharing::Locked,
                    input: Some(2),
                    source: "/y".into(),
                    mode: Some(0o700),
                    uid: Some(3),
                    gid: Some(4),
                    read_only: true,
                },
            ),
            mount("/tmp", MountKind::Tmpfs { size: Some(1 << 20) }),
            mount("/secret", MountKind::Secret(secret("s"))),
            mount("/ssh", MountKind::Ssh(secret("default"))),
        ],
        secret_env: vec![SecretEnv { id: "t".into(), variable: "TOKEN".into(), required: false }],
        network: Network::None,
        security: Security::Insecure,
        hostname: Some("host".into()),
        extra_hosts: vec![("db".into(), "10.0.0.1".into())],
        shm_size: Some(1 << 26),
        ulimits: vec![("nofile".into(), 1024, 2048)],
        cgroup_parent: Some("/build".into()),
        proxy_env: vec!["http_proxy=http://p".into()],
        limits: Limits { memory: Some(5), ..Limits::default() },
        platform: platform(),
    }
}

fn copy() -> Copy {
    Copy {
        input: 1,
        selection: selection(),
        dest: "/app/".into(),
        owner: Some(Owner { user: "1000".into(), group: Some("users".into()) }),
        mode: Some(Mode::Symbolic("u=rwX".into())),
        unpack: true,
        replace: true,
        created: Some(1_700_000_000),
    }
}

fn file() -> FileOp {
    FileOp {
        base: Some(0),
        actions: vec![
            FileAction::Copy(copy()),
            FileAction::MakeFile {
                path: "/f".into(),
                mode: Mode::Bits(0o644),
                data: b"\0text".to_vec(),
                owner: None,
                created: None,
            },
            FileAction::MakeDir { path: "/d".into(), mode: 0o755, owner: None, created: Some(-1) },
            FileAction::Remove { path: "/r".into(), allow_missing: true },
        ],
    }
}

fn image() -> ImageSource {
    ImageSource {
        reference: "docker.io/library/debian:12".into(),
        manifest: digest("manifest"),
        diff_ids: vec![digest("layer 1"), digest("layer 2")],
        platform: platform(),
    }
}

fn git() -> GitSource {
    GitSource {
        remote: "https://example.org/x.git".into(),
        reference: "main".into(),
        subdir: "lib".into(),
        checksum: Some("abc".into()),
        keep_git_dir: true,
        submodules: false,
        commit_time: false,
        by_commit: false,
    }
}

fn http() -> HttpSource {
    HttpSource { url: "https://example.org/f".into(), checksum: Some(digest("f")), filename: "f".into() }
}

fn local() -> LocalSource {
    LocalSource { name: "context".into(), ignore: vec!["*.md".into()] }
}

fn op_key(op: &Op) -> Digest {
    definition(op, None, &[])
}

/// A change by name.
type Change<'a, T> = (&'a str, &'a dyn Fn(&mut T));

/// The keys of all users' caches. If this fails, the encoding has changed: raise `VERSION`, describe the change in the
/// module's header, and only then pin the new digests.
#[test]
fn keys_are_what_they_have_always_been() {
    let files = Usage::Files(selection());
    let layer = |n: i64| Layer { id: LayerId(n), content: digest(&n.to_string()) };
    let lines = [
        ("image", op_key(&Op::Source(Source::Image(image())))),
        ("local", op_key(&Op::Source(Source::Local(local())))),
        ("http", op_key(&Op::Source(Source::Http(http())))),
        ("git", op_key(&Op::Source(Source::Git(git())))),
        ("exec", op_key(&Op::Exec(Box::new(exec())))),
        ("file", op_key(&Op::File(file()))),
        ("merge", op_key(&Op::Merge)),
        ("diff", op_key(&Op::Diff)),
        ("pinned", definition(&Op::Merge, Some(digest("pin")), &[])),
        (
            "definition",
            definition(
                &Op::Merge,
                None,
                &[
                    DefinitionInput::Local(&files, digest("l")),
                    DefinitionInput::Step(&Usage::Root, digest("s")),
                ],
            ),
        ),
        (
            "content",
            content(
                &Op::Merge,
                &[ContentInput::Files(&files, digest("f")), ContentInput::Chain(&Usage::Root, digest("c"))],
            ),
        ),
        ("chain", chain(&Snapshot { layers: vec![layer(1), layer(2)] })),
        ("empty chain", chain(&Snapshot::default())),
    ];
    let lines: Vec<String> = lines.iter().map(|(name, key)| format!("{name}: {}", key.hex())).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    image: 10d6f4ba04cfb570a1791bcadc670ba4321b2a1cfcec3972db0750129b92e3bf
    local: 36baf22a63b6a6c61af6a32c4bcc18c0f89c4e5155cf458df0997a7e4ede1379
    http: ddb0e540cfddd2b6c4c93652f19df68bf5181cf68ba703b3c68c9264a615078d
    git: 9007dfc3b7a4389f72f391e7c89209f7bb57df4752216337d05f6a68f686db66
    exec: 458edfcc84eeee254483d1ba8acb4ff27f26e033a97e3c8ec681c2d95744c27d
    file: 9bd542321fe5524156b040817cc0450e5691651b1aa255cb3b3ddee946aafb4f
    merge: bf8021154feaa762fffc08271a21df0ee5452edd578381334f7b3ea9fd8a2813
    diff: 47d94870ccd3f09e4ec312f74691df1264e24fd3d95748f5c1407e8b09b18a9d
    pinned: 9ebbe91a6a5397c04e4ef48d044dd759bca5a256f996aec346f24528917b93bd
    definition: 6147047aa24b265e72a9420f966925861b3c3e40db0423df9f4d93f742ef7b3d
    content: 95adb6e8447dc131804f31d63f6ddf9d7c9a1d0eac153276a8afdca7fe8bd403
    chain: 9e06ec63b259c8e790d8d086087f7de1a38fda1f99713c48a06503ca446448b6
    empty chain: b483acb2fe4ce765842c0f3f24feebcf8efaaf3aadcb20bd32f8c0b1099ae464
    ");
}

/// Bytes by hand, for one op: what the module's header says.
#[test]
fn the_encoding_is_as_written_down() {
    let mut encoder = Encoder::default();
    Op::Source(Source::Http(HttpSource { url: "u".into(), checksum: None, filename: "ab".into() }))
        .encode(&mut encoder);
    let expected =
        [&[1, 3][..], &[1, 0, 0, 0, 0, 0, 0, 0], b"u", &[0], &[2, 0, 0, 0, 0, 0, 0, 0], b"ab"].concat();
    assert_eq!(encoder.bytes(), expected);

    let mut encoder = start(Kind::Definition);
    Op::Merge.encode(&mut encoder);
    assert_eq!(encoder.bytes(), [b"bricklayer key".as_slice(), &[1, 0, 0, 0, 1, 4]].concat());
}

#[test]
fn what_does_not_decide_the_result_is_not_in_the_key() {
    let exec_with = |change: &dyn Fn(&mut Exec)| {
        let mut exec = exec();
        change(&mut exec);
        op_key(&Op::Exec(Box::new(exec)))
    };
    let same = exec_with(&|_| {});
    let neutral: [Change<'_, Exec>; 4] = [
        ("proxy", &|e| e.proxy_env.clear()),
        ("limits", &|e| {
            e.limits = Limits { pids: Some(9), cpuset_cpus: Some("0".into()), ..Limits::default() }
        }),
        ("addresses of hosts", &|e| e.extra_hosts[0].1 = "::1".into()),
        ("cache id and sharing", &|e| {
            let MountKind::Cache { id, sharing, .. } = &mut e.mounts[1].kind else { unreachable!() };
            *id = "other".into();
            *sharing = Sharing::Private;
        }),
    ];
    for (name, change) in neutral {
        assert_eq!(exec_with(change), same, "{name}");
    }
    let reference = ImageSource { reference: "x".into(), manifest: digest("other"), ..image() };
    assert_eq!(op_key(&Op::Source(Source::Image(reference))), op_key(&Op::Source(Source::Image(image()))));
    let ignore = LocalSource { ignore: vec![], ..local() };
    assert_eq!(op_key(&Op::Source(Source::Local(ignore))), op_key(&Op::Source(Source::Local(local()))));
}

/// One change at a time, in every field that counts: all keys differ.
#[test]
fn what_decides_the_result_is_in_the_key() {
    let mut keys: Vec<(String, Digest)> = Vec::new();
    let mut add = |name: &str, op: Op| keys.push((name.into(), op_key(&op)));

    let changes: &[Change<'_, Exec>] = &[
        ("exec", &|_| {}),
        ("root", &|e| e.root = None),
        ("another root", &|e| e.root = Some(1)),
        ("args", &|e| e.args.push(String::new())),
        ("args joined", &|e| e.args = vec!["/bin/sh".into(), "-cmake".into()]),
        ("env", &|e| e.env.swap(0, 1)),
        ("env value", &|e| e.env[1] = "A=c".into()),
        ("env moved to args", &|e| {
            let moved = e.env.remove(0);
            e.args.push(moved);
        }),
        ("cwd", &|e| e.cwd = "/".into()),
        ("user", &|e| e.user = String::new()),
        ("target", &|e| e.mounts[0].target = "/out".into()),
        ("order of mounts", &|e| e.mounts.swap(0, 1)),
        ("bind source", &|e| {
            e.mounts[0].kind = MountKind::Bind { input: 1, source: "/".into(), writable: true };
        }),
        ("bind writable", &|e| {
            e.mounts[0].kind = MountKind::Bind { input: 1, source: "/x".into(), writable: false };
        }),
        ("tmpfs", &|e| e.mounts[2].kind = MountKind::Tmpfs { size: None }),
        ("secret for ssh", &|e| {
            let MountKind::Secret(secret) = e.mounts[3].kind.clone() else { unreachable!() };
            e.mounts[3].kind = MountKind::Ssh(secret);
        }),
        ("secret id", &|e| {
            let MountKind::Secret(secret) = &mut e.mounts[3].kind else { unreachable!() };
            secret.id = "u".into();
        }),
        ("secret variable", &|e| e.secret_env[0].variable = "T".into()),
        ("network", &|e| e.network = Network::Host),
        ("security", &|e| e.security = Security::Sandbox),
        ("hostname", &|e| e.hostname = None),
        ("empty hostname", &|e| e.hostname = Some(String::new())),
        ("host names", &|e| e.extra_hosts[0].0 = "cache".into()),
        ("shm", &|e| e.shm_size = None),
        ("ulimit", &|e| e.ulimits[0].2 = 4096),
        ("cgroup parent", &|e| e.cgroup_parent = None),
        ("platform", &|e| e.platform = Platform::new("linux", "arm64", "")),
    ];
    for (name, change) in changes {
        let mut exec = exec();
        change(&mut exec);
        add(name, Op::Exec(Box::new(exec)));
    }
    let changes: &[Change<'_, Copy>] = &[
        ("copy", &|_| {}),
        ("input", &|c| c.input = 2),
        ("paths", &|c| c.selection.paths = vec!["srca*".into()]),
        ("wildcards", &|c| c.selection.wildcards = false),
        ("exclude", &|c| c.selection.exclude.clear()),
        ("parents", &|c| c.selection.parents = true),
        ("dest", &|c| c.dest = "/app".into()),
        ("no owner", &|c| c.owner = None),
        ("no group", &|c| c.owner = Some(Owner { user: "1000".into(), group: None })),
        ("mode", &|c| c.mode = Some(Mode::Bits(0))),
        ("unpack", &|c| c.unpack = false),
        ("link", &|c| c.replace = false),
        ("created", &|c| c.created = Some(0)),
    ];
    for (name, change) in changes {
        let mut copy = copy();
        change(&mut copy);
        add(name, Op::File(FileOp { base: None, actions: vec![FileAction::Copy(copy)] }));
    }
    add("file", Op::File(file()));
    add("file without base", Op::File(FileOp { base: None, ..file() }));
    add("fewer actions", Op::File(FileOp { actions: file().actions[..2].to_vec(), ..file() }));
    add("image", Op::Source(Source::Image(image())));
    add(
        "fewer layers",
        Op::Source(Source::Image(ImageSource { diff_ids: vec![digest("layer 1")], ..image() })),
    );
    add("http", Op::Source(Source::Http(http())));
    add("url", Op::Source(Source::Http(HttpSource { url: "https://example.org/g".into(), ..http() })));
    add("file name", Op::Source(Source::Http(HttpSource { filename: "g".into(), ..http() })));
    add("git", Op::Source(Source::Git(git())));
    add("subdir", Op::Source(Source::Git(GitSource { subdir: String::new(), ..git() })));
    add("keep git dir", Op::Source(Source::Git(GitSource { keep_git_dir: false, ..git() })));
    add("submodules", Op::Source(Source::Git(GitSource { submodules: true, ..git() })));
    add("commit time", Op::Source(Source::Git(GitSource { commit_time: true, ..git() })));
    add("merge", Op::Merge);
    add("diff", Op::Diff);
    let mut seen = std::collections::HashMap::new();
    for (name, key) in &keys {
        if let Some(other) = seen.insert(key, name) {
            panic!("`{name}` and `{other}` have one key");
        }
    }
}

#[test]
fn inputs_count_by_kind_usage_content_and_order() {
    let (files, other) = (Usage::Files(selection()), Usage::Files(Selection::default()));
    let (a, b) = (digest("a"), digest("b"));
    use ContentInput::{Chain, Files};
    use DefinitionInput::{Local, Step};
    let op = Op::Merge;
    let keys = [
        definition(&op, None, &[]),
        definition(&op, Some(a), &[]),
        definition(&op, None, &[Local(&files, a)]),
        definition(&op, None, &[Step(&files, a)]),
        definition(&op, None, &[Step(&other, a)]),
        definition(&op, None, &[Step(&Usage::Root, a)]),
        definition(&op, None, &[Step(&files, a), Step(&files, b)]),
        definition(&op, None, &[Step(&files, b), Step(&files, a)]),
        content(&op, &[]),
        content(&op, &[Files(&files, a)]),
        content(&op, &[Files(&other, a)]),
        content(&op, &[Chain(&files, a)]),
        content(&op, &[Chain(&Usage::Root, a)]),
        content(&op, &[Chain(&Usage::Root, a), Files(&files, b)]),
        content(&op, &[Files(&files, b), Chain(&Usage::Root, a)]),
    ];
    let different: std::collections::HashSet<Digest> = keys.into_iter().collect();
    assert_eq!(different.len(), keys.len());
}

/// Where a store keeps a layer is nobody's business.
#[test]
fn chains_are_made_of_contents() {
    let layer = |id, text: &str| Layer { id: LayerId(id), content: digest(text) };
    let of = |layers: &[Layer]| chain(&Snapshot { layers: layers.to_vec() });
    assert_eq!(of(&[layer(1, "a"), layer(2, "b")]), of(&[layer(8, "a"), layer(9, "b")]));
    assert_ne!(of(&[layer(1, "a"), layer(2, "b")]), of(&[layer(2, "b"), layer(1, "a")]));
    assert_ne!(of(&[layer(1, "a")]), of(&[layer(1, "a"), layer(1, "a")]));
}

#[test]
fn only_what_can_move_is_pinned() {
    let git = |reference: &str| Source::Git(GitSource { reference: reference.into(), ..git() });
    let cases = [
        (Source::Image(image()), false),
        (Source::Local(local()), false),
        (Source::Http(http()), false),
        (Source::Http(HttpSource { checksum: None, ..http() }), true),
        (git("main"), true),
        (git(""), true),
        (git("abcdef0"), true),
        (git(&"ab12".repeat(10)), false),
        (git(&"ab12".repeat(16)), false),
        (git(&"AB12".repeat(10)), true),
    ];
    for (source, expected) in cases {
        assert_eq!(needs_pin(&source), expected, "{source:?}");
    }
}

#[test]
fn the_whole_of_something_is_recognised() {
    let of = |paths: &[&str]| Selection {
        paths: paths.iter().map(ToString::to_string).collect(),
        ..Selection::default()
    };
    assert!(selects_everything(&of(&[""])) && selects_everything(&of(&["."])));
    let others = [
        of(&[]),
        of(&["a"]),
        of(&["", "a"]),
        Selection { wildcards: true, ..of(&["."]) },
        Selection { parents: true, ..of(&["."]) },
        Selection { exclude: vec!["a".into()], ..of(&["."]) },
    ];
    assert!(!others.iter().any(selects_everything));
}
