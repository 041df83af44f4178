//! Steps of builds that are over, looked into.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::person::Person;
use crate::support::{Bench, Printed, RegistryServer, wait_for};

const DOCKERFILE: &str = "FROM base AS other\nRUN echo from other > /o\nFROM base\nENV A=b\nARG V=1\nARG NPM_TOKEN\n\
    WORKDIR /work\nRUN chown 1000 /work && echo before > /before\nCOPY Dockerfile /copied\nUSER app\n\
    RUN --mount=type=cache,target=/cache,uid=1000 --mount=type=secret,id=s,uid=1000 --mount=type=tmpfs,target=/t \
    --mount=from=other,target=/other --mount=target=/context --network=none \
    echo left > file && echo cached > /cache/file && rm /tmp/gone 2>/dev/null; exit 3\nRUN echo never\n";

/// A build that has failed in what `dockerfile` says.
fn failed(bench: &Bench, dockerfile: &str) -> (String, Printed) {
    let context = bench.context("context", &[("Dockerfile", dockerfile), ("secret", "hidden")]);
    let secret = format!("id=s,src={}/secret", context.display());
    let args = ["--secret", &secret, "--build-arg", "NPM_TOKEN=hidden-too", context.to_str().unwrap()];
    let printed = bench.build(&args);
    assert_eq!(printed.code, Some(1), "{}", printed.text);
    (bench.run(&["builds", "-q"]).fine().stdout.lines().next().unwrap().to_owned(), printed)
}

/// What a command in it prints.
#[track_caller]
fn inside(bench: &Bench, args: &[&str], script: &str) -> String {
    bench.run(&[&["debug"], args, &["--", "sh", "-c", script]].concat()).fine().stdout
}

fn nothing_is_left(bench: &Bench) {
    let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(crate::faults::mounts_of(bench.store().to_str().unwrap()), 0);
}

#[test]
fn a_failed_run_is_opened_as_it_left_its_files_and_with_all_that_it_had() {
    let bench = Bench::new();
    let (id, printed) = failed(&bench, DOCKERFILE);
    let hint = format!("hint: look into it: bricklayer --root {} debug {id}", bench.store().display());
    assert_eq!(printed.text.lines().rfind(|line| line.starts_with("hint:")), Some(hint.as_str()));

    let script = "echo $A $V ${NPM_TOKEN-unset}; pwd; id -un; cat file /before /cache/file /other/o; ls /run/secrets /context; \
                  mount | grep -c ' /t '; wc -l < /proc/net/dev; echo changed > file; echo more >> /cache/file; exit 5";
    let opened = bench.run(&["debug", "--", "sh", "-c", script]);
    assert_eq!(opened.code, Some(5), "{}", opened.text);
    assert_eq!(
        opened.stdout, "b 1 unset\n/work\napp\nleft\nbefore\ncached\nfrom other\n1\n3\n",
        "{}",
        opened.text
    );
    insta::assert_snapshot!(opened.text.strip_suffix(&opened.stdout).unwrap(), @"
    not as in the build: NPM_TOKEN is not set: a value that may be a secret is not kept (-e NPM_TOKEN=VALUE)
    not as in the build: /run/secrets/s is not there: secret `s` was not given (--secret id=s,src=FILE)
    not as in the build: /context is not mounted: the build context was not given (--build-context context=DIR)
    ls: /run/secrets: No such file or directory
    ls: /context: No such file or directory
    ");
    // the files are as they were, a cache is the cache
    assert_eq!(inside(&bench, &[&id[..4]], "cat file /cache/file"), "left\ncached\nmore\n");
    nothing_is_left(&bench);

    // what was left out can be given again
    let context = format!("context={}", bench.path("context").display());
    let secret = format!("id=s,src={}", bench.path("context/secret").display());
    let given =
        ["--build-context", &context, "--secret", &secret, "-e", "NPM_TOKEN=given", "-u", "root", "-w", "/"];
    let all = inside(&bench, &given, "cat /run/secrets/s; ls /context; echo $NPM_TOKEN; id -u; pwd");
    assert_eq!(all, "hiddenDockerfile\nsecret\ngiven\n0\n/\n");
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let network = inside(&bench, &["--network", "host"], "readlink /proc/self/ns/net");
    assert_eq!(network.trim(), ours.to_str().unwrap());
    // no secret was written down
    let stored = fs::read(bench.store().join("meta.db")).unwrap();
    let wal = fs::read(bench.store().join("meta.db-wal")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&[stored, wal].concat()).contains("hidden"));
}

#[test]
fn a_shell_reads_what_is_typed_or_what_comes_in() {
    let bench = Bench::new();
    let (id, _) = failed(&bench, DOCKERFILE);
    for more in [&[][..], &["--oci-runtime", "runc"]] {
        let mut person = Person::start(&bench.command(&[&["debug"], more].concat()));
        person.sees(&format!("build {id} #"));
        person.sees("what it left when it failed (exit code: 3); what is changed here is thrown away\r\n");
        person.types("cat file; stty size; tty; echo x > file\n");
        person.sees("left\r\n50 132\r\n/dev/pts/0\r\n");
        assert!(person.is_raw());
        person.resizes(40, 100);
        person.types("sleep 0.2; stty size\n");
        person.sees("40 100\r\n");
        person.types("exit 7\n");
        assert_eq!(person.end().code(), Some(7), "{}", person.screen());
        assert!(!person.is_raw());
    }

    let mut command = bench.command(&["debug"]);
    command.stdin(fs::File::open(script(&bench, "cat file; tty; exit 6\n")).unwrap());
    let piped: Printed = command.output().unwrap().into();
    assert_eq!((piped.code, piped.stdout.as_str()), (Some(6), "left\nnot a tty\n"), "{}", piped.text);
    nothing_is_left(&bench);
}

fn script(bench: &Bench, text: &str) -> std::path::PathBuf {
    let path = bench.path("script");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_shell_is_that_of_the_step_or_another_or_an_error() {
    let bench = Bench::new();
    let shells = "FROM base\nSHELL [\"/bin/busybox\", \"ash\", \"-c\"]\nRUN exit 1\n";
    failed(&bench, shells);
    let ask = "tr '\\0' ' ' < /proc/$$/cmdline";
    let mut command = bench.command(&["debug"]);
    command.stdin(fs::File::open(script(&bench, ask)).unwrap());
    let printed = Printed::from(command.output().unwrap());
    assert_eq!(printed.stdout, "/bin/busybox ash ", "{}", printed.text);

    failed(&bench, "FROM scratch\nCOPY --from=base /bin/busybox /busybox\nRUN [\"/busybox\", \"false\"]\n");
    let none = bench.run(&["debug"]);
    assert_eq!(none.code, Some(125));
    assert!(none.text.contains("there is no shell in the files of the step"), "{}", none.text);
    bench.run(&["debug", "--", "/busybox", "true"]).fine();
    assert_eq!(bench.run(&["debug", "--", "nothing"]).code, Some(127));
}

#[test]
fn a_step_that_went_well_is_opened_with_the_files_that_it_made() {
    let bench = Bench::new();
    let (id, _) = failed(&bench, DOCKERFILE);
    let of = |step: &str, script: &str| inside(&bench, &[&id, step], script);
    assert_eq!(
        of("RUN chown", "cat /before; echo $A; pwd; id -u; echo x > /before; ls /copied 2>&1; true"),
        { "before\nb\n/work\n0\nls: /copied: No such file or directory\n" }
    );
    assert_eq!(of("RUN chown", "cat /before"), "before\n");
    assert_eq!(of("COPY Dockerfile", "ls /copied; ls file 2>/dev/null; true"), "/copied\n");
    assert_eq!(of("other 1/2", "ls /before 2>/dev/null; id -u"), "0\n");
    // cached ones, of a build that went well
    let context = bench.context("well", &[("Dockerfile", "FROM base AS other\nRUN echo from other > /o\n")]);
    bench.build(&[context.to_str().unwrap()]).fine();
    assert_eq!(inside(&bench, &["latest", "RUN echo from"], "cat /o"), "from other\n");
    // it is not the last that failed
    assert_eq!(inside(&bench, &[], "cat file"), "left\n");
    nothing_is_left(&bench);
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let bench = Bench::new();
    let refused = |args: &[&str]| {
        let printed = bench.run(&[&["debug"], args].concat());
        assert_eq!(printed.code, Some(125), "{}", printed.text);
        printed.text
    };
    let mut seen = refused(&[]);
    let (first, _) = failed(&bench, &DOCKERFILE.replace("id=s,", "id=s,required=true,"));
    for args in [
        &["never"][..],
        &["load build context"],
        &["load build definition"],
        &["99"],
        &[],
        &["--user", "nobody-here", "--secret", "id=s,env=HOME"],
    ] {
        seen += &refused(&[&[first.as_str()], args].concat());
    }
    let (second, _) = failed(&bench, "FROM base\nRUN echo below > /below\nCOPY nothing /\n");
    seen += &refused(&[]);
    bench.run(&["prune", "--all"]).fine();
    seen += &refused(&["no-such-build"]);
    insta::assert_snapshot!(seen.replace(&first, "ONE").replace(&second, "TWO"), @"
    error: there is no record of a build that failed
    hint: `bricklayer builds` lists the builds that were
    error: #10 [stage-1 6/6] RUN echo never has not run in build ONE
    hint: what failed: bricklayer debug ONE 9
    error: #7 [internal] load build context reads a directory of this machine, and makes no files
    error: #1 [internal] load build definition is no step that makes files
    hint: `bricklayer builds ONE` lists the steps
    error: build ONE has no step 99
    hint: its steps are 1 to 10
    error: secret `s` was not given
    hint: pass --secret id=s,src=FILE or id=s,env=NAME
    error: cannot run as user `nobody-here`
      caused by: no user `nobody-here` in /etc/passwd of the image
    error: #6 [3/3] COPY nothing / failed, and only what a RUN leaves is kept
    hint: what it stood on: bricklayer debug TWO 4
    error: there is no record of any build
    ");
}

#[test]
fn what_was_pruned_is_gone_and_says_so() {
    let bench = Bench::new();
    let (id, _) = failed(&bench, DOCKERFILE);
    let du = bench.run(&["du", "-v"]).fine().text;
    assert!(du.lines().any(|line| line.starts_with("failure") && line.contains(&id)), "{du}");
    let pruned = bench.run(&["prune"]).fine().text;
    assert!(pruned.contains(&id), "{pruned}");
    let refused = bench.run(&["debug"]);
    assert_eq!(refused.code, Some(125), "{}", refused.text);
    assert!(refused.text.contains("is not kept any more\nhint: what the newest 5 RUNs"), "{}", refused.text);
    // the steps before it are cached, and stay
    assert_eq!(inside(&bench, &["latest", "RUN chown"], "cat /before"), "before\n");
    bench.run(&["prune", "--all"]).fine();
    let refused = bench.run(&["debug"]);
    assert!(refused.text.contains("no record of a build that failed"), "{}", refused.text);
}

#[test]
fn what_is_open_stays_and_several_look_at_once() {
    let bench = Bench::new();
    failed(&bench, DOCKERFILE);
    let open = || {
        let script = "echo $$ > file && echo open && read go && cat file /before";
        let mut command = bench.command(&["debug", "--", "sh", "-c", script]);
        command.stdin(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut sessions = [open(), open()];
    for session in &mut sessions {
        let mut line = [0; 5];
        session.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"open\n");
    }
    let pruned = bench.run(&["prune", "--all"]).fine().text;
    assert!(!pruned.contains("failure"), "{pruned}");
    for mut session in sessions {
        session.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let printed = Printed::from(session.wait_with_output().unwrap()).fine();
        assert_eq!(printed.stdout, "1\nbefore\n");
    }
    assert!(bench.run(&["prune"]).fine().text.contains("failure"));
    nothing_is_left(&bench);
}

#[test]
fn a_base_that_was_lost_is_pulled_again_and_a_stage_is_left_out() {
    let origin = Bench::new();
    let registry = RegistryServer::start(&origin);
    let name = format!("{}/base:1", registry.address);
    origin.run(&["tag", "base", &name]).fine();
    origin.run(&["push", &name]).fine();

    let bench = Bench::empty();
    let dockerfile = format!(
        "FROM {name} AS other\nRUN echo other > /o\nFROM {name}\nRUN --mount=from=other,target=/b echo left > /left && cat /b/o && exit 3\n"
    );
    let (id, _) = failed(&bench, &dockerfile);
    assert_eq!(inside(&bench, &[], "cat /left /b/o"), "left\nother\n");
    // everything but what the step left goes: first the stage, then the base with its blobs
    let of = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let left = database(&bench).query_row("SELECT layer FROM failures", [], of).unwrap().to_string();
    for layer in fs::read_dir(bench.store().join("layers")).unwrap().flatten() {
        if layer.file_name().to_str() != Some(&left) {
            fs::remove_dir_all(layer.path()).unwrap();
        }
    }
    for blob in fs::read_dir(bench.store().join("oci/blobs/sha256")).unwrap().flatten() {
        if blob.metadata().unwrap().len() > 10_000 {
            fs::remove_file(blob.path()).unwrap();
        }
    }
    let opened = bench.run(&["debug", &id, "--", "sh", "-c", "cat /left && ls /b"]);
    assert_eq!((opened.code, opened.stdout.as_str()), (Some(1), "left\n"), "{}", opened.text);
    let said = "not as in the build: /b is not mounted: its files are not in the store any more\n";
    assert!(opened.text.starts_with(said), "{}", opened.text);
}

#[test]
fn only_the_newest_few_are_kept() {
    let bench = Bench::new();
    let ids: Vec<String> =
        (0..7).map(|n| failed(&bench, &format!("FROM base\nRUN echo {n} > /n; exit 1\n")).0).collect();
    for (n, id) in ids.iter().enumerate() {
        let opened = bench.run(&["debug", id, "--", "cat", "/n"]);
        match n {
            0 | 1 => assert!(opened.text.contains("not kept any more"), "{}", opened.text),
            _ => assert_eq!(opened.stdout, format!("{n}\n")),
        }
    }
    let layers = fs::read_dir(bench.store().join("layers")).unwrap().count();
    assert_eq!(layers, 6, "the base image's, and five");
}

#[test]
fn a_build_that_is_killed_or_interrupted_leaves_nothing_to_open() {
    for signal in ["-KILL", "-INT"] {
        let bench = Bench::new();
        let context = bench.context("context", &[("Dockerfile", "FROM base\nRUN echo started; sleep 60\n")]);
        let mut build = bench.start_build(&[context.to_str().unwrap()]);
        wait_for("the command runs", || bench.run(&["logs", "latest", "sleep"]).stdout.contains("started"));
        crate::support::tool("kill", &[signal, &build.id().to_string()]);
        build.wait().unwrap();
        let refused = bench.run(&["debug", "latest", "sleep"]);
        assert_eq!(refused.code, Some(125), "{}", refused.text);
        assert!(refused.text.contains("was stopped before it ended"), "{}", refused.text);
        let du = bench.run(&["du", "--format", "json"]).fine().stdout;
        assert!(!du.contains("\"failure\""), "{du}");
        wait_for("what it was writing goes", || {
            bench.run(&["du"]).fine();
            fs::read_dir(bench.store().join("ingest")).unwrap().count() == 0
        });
    }
}

fn database(bench: &Bench) -> rusqlite::Connection {
    rusqlite::Connection::open(bench.store().join("meta.db")).unwrap()
}

/// Writes over what is known of the failed step.
fn describe(bench: &Bench, description: &str) {
    database(bench).execute("UPDATE failures SET description = ?", [description.as_bytes()]).unwrap();
}

fn description(bench: &Bench) -> serde_json::Value {
    let of = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    let bytes = database(bench).query_row("SELECT description FROM failures", [], of).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn that_it_cannot_be_kept_is_said_and_the_build_fails_as_it_would_have() {
    let bench = Bench::new();
    let full = "CREATE TRIGGER full BEFORE INSERT ON failures BEGIN SELECT RAISE(ABORT, 'no room'); END";
    database(&bench).execute_batch(full).unwrap();
    let (_, printed) = failed(&bench, "FROM base\nRUN echo x > /x && exit 3\n");
    let said = "warning: what it left is not kept for `bricklayer debug`: what the step left can't be kept: ";
    assert!(printed.text.contains(said) && printed.text.contains("no room"), "{}", printed.text);
    assert!(printed.text.contains("did not complete successfully: exit code: 3"), "{}", printed.text);
    assert!(!printed.text.contains("look into it"), "{}", printed.text);
    assert_eq!(fs::read_dir(bench.store().join("layers")).unwrap().count(), 1, "the base image's");
    nothing_is_left(&bench);
}

#[test]
fn a_hostile_description_does_not_get_out() {
    let bench = Bench::new();
    failed(&bench, DOCKERFILE);
    let good = description(&bench);
    fs::write(bench.path("outside"), "outside").unwrap();
    let outside = bench.path("outside").display().to_string();
    let escape = format!("../../../../../../../..{outside}");
    let bind = |source: &str, target: &str| serde_json::json!({"target": target, "kind": {"bind": {"input": 0, "source": source, "writable": true}}});
    type Hostile<'a> = &'a dyn Fn(&mut serde_json::Value);
    let opened = |change: Hostile<'_>| {
        let mut description = good.clone();
        description["exec"]["mounts"] = serde_json::json!([]);
        change(&mut description);
        describe(&bench, &description.to_string());
        bench.run(&["debug", "--", "sh", "-c", "cat /x /x/outside; cat /outside"])
    };
    let cases: [(&str, Hostile<'_>); 12] = [
        ("a path out of a layer", &|d| d["exec"]["mounts"] = serde_json::json!([bind(&escape, "/x")])),
        ("a target out of the root", &|d| {
            d["exec"]["mounts"] = serde_json::json!([bind("/", &format!("/../..{outside}"))])
        }),
        ("the root as target", &|d| d["exec"]["mounts"] = serde_json::json!([bind("/", "/")])),
        ("a relative target", &|d| d["exec"]["mounts"] = serde_json::json!([bind("/", "x")])),
        ("an input that is not there", &|d| d["exec"]["root"] = 17.into()),
        ("a local directory as root", &|d| {
            d["inputs"][0] = serde_json::json!({"local": {"name": "/", "ignore": []}})
        }),
        ("a local directory by its path", &|d| {
            let inputs = d["inputs"].as_array_mut().unwrap();
            inputs[1] = serde_json::json!({"local": {"name": bench.dir.path(), "ignore": []}});
            let mut mount = bind("/", "/x");
            mount["kind"]["bind"]["input"] = 1.into();
            d["exec"]["mounts"] = serde_json::json!([mount]);
        }),
        (
            "a layer that is not there",
            &|d| d["inputs"][0] = serde_json::json!({"files": {"layers": [{"id": -7, "content": d["inputs"][0]["files"]["layers"][0]["content"]}]}}),
        ),
        (
            "a cache by a path",
            &|d| d["exec"]["mounts"] = serde_json::json!([{"target": "/x", "kind": {"cache": {"id": escape, "sharing": "shared", "input": null, "source": "/", "mode": null, "uid": null, "gid": null, "readOnly": false}}}]),
        ),
        ("the host's network", &|d| d["exec"]["network"] = "host".into()),
        ("an open sandbox", &|d| d["exec"]["security"] = "insecure".into()),
        ("a NUL byte", &|d| d["exec"]["cwd"] = "/\0".into()),
    ];
    let mut seen = String::new();
    for (name, hostile) in cases {
        let printed = opened(hostile);
        assert!(!printed.stdout.contains("outside"), "{name}: {}", printed.text);
        let code = printed.code.expect("it was not killed");
        let text = printed.text.lines().find(|line| line.starts_with("error")).unwrap_or("opened");
        seen += &format!("{name}: {code} {}\n", text.replace(&outside, "OUTSIDE"));
    }
    for (name, text) in
        [("no JSON", "{"), ("another version", r#"{"version": 2}"#), ("nothing in it", r#"{"version": 1}"#)]
    {
        describe(&bench, text);
        let printed = bench.run(&["debug", "--", "true"]);
        seen += &format!("{name}: {}\n", printed.text.lines().nth(1).unwrap().trim());
    }
    insta::assert_snapshot!(seen, @"
    a path out of a layer: 125 error: cannot mount `../../../../../../../..OUTSIDE` at /x
    a target out of the root: 1 opened
    the root as target: 125 error: cannot run the command
    a relative target: 1 opened
    an input that is not there: 125 error: the step has no input 17
    a local directory as root: 125 error: the local directory `/` can't be a root filesystem
    a local directory by its path: 1 opened
    a layer that is not there: 125 error: the files that #9 [stage-1 5/6] RUN --mount=type=cache,target=/cache,uid=1000 --mount=type=secret,… stood on are not in the store any more
    a cache by a path: 1 opened
    the host's network: 125 error: the host's network is not allowed: network.host
    an open sandbox: 125 error: an insecure RUN is not allowed: security.insecure
    a NUL byte: 125 error: cannot run the command
    no JSON: caused by: what was written down about the step can't be understood
    another version: caused by: what was written down about the step has version 2, this program knows version 1
    nothing in it: caused by: what was written down about the step can't be understood
    ");
    assert_eq!(fs::read_to_string(Path::new(&outside)).unwrap(), "outside");
    nothing_is_left(&bench);
}
