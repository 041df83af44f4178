//! What is kept of builds: `builds` and `logs`.

use std::fs;

use crate::support::{Bench, wait_for};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn logs_are_kept_whole_with_every_byte_and_both_streams() {
    let bench = Bench::new();
    let dockerfile = "FROM base\n\
        RUN printf 'a\\000\\377b\\r\\n'; echo err >&2; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf end\n\
        RUN echo other\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    bench.run(&["build", "-q", context]).fine();
    let list = json(&bench.run(&["builds", "--format", "json"]).fine().stdout);
    assert_eq!((&list["outcome"], &list["steps"], &list["cached"]), (&"done".into(), &3.into(), &0.into()));
    let id = list["id"].as_str().unwrap();

    let log = bench.command(&["logs", &id[..5], "line"]).output().unwrap();
    let mut expected = b"a\0\xffb\r\n".to_vec();
    expected.extend((0..3000).flat_map(|n| format!("line {n}\n").into_bytes()));
    expected.extend(b"end");
    // where between the two the other stream was read is the kernel's affair
    let mut written = log.stdout;
    let at = written.windows(4).position(|window| window == b"err\n").expect("the other stream");
    written.drain(at..at + 4);
    assert!(written == expected, "{} bytes, not {}", written.len(), expected.len());
    let all = bench.run(&["logs"]).fine().stdout;
    assert!(all.contains("] RUN echo other\nother\n") && all.contains("line 2999\n"), "{all}");
    let times = bench.run(&["logs", "-t", "latest", "other"]).fine().stdout;
    assert!(times.starts_with("20") && times.ends_with("Z other\n"), "{times}");

    // a step that was cached says where it ran
    bench.run(&["build", "-q", context]).fine();
    let cached = bench.run(&["logs", "-1", "echo other"]).fine();
    assert!(cached.text.contains(&format!("bricklayer logs {id} ")), "{}", cached.text);
    let missing = bench.run(&["logs", "latest", "no such step"]);
    assert_eq!(missing.code, Some(1), "{}", missing.text);
}

#[test]
fn a_failed_build_says_how_to_see_what_was_not_shown() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN seq 1 100; exit 9\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    let shown = bench.build(&[context]);
    assert!(!shown.text.contains("the whole log"), "{}", shown.text);
    let clipped = bench.run(&["build", "-q", context]);
    assert_eq!(clipped.code, Some(1));
    let hint = clipped.text.lines().find(|line| line.starts_with("hint: the whole log: ")).expect("a hint");
    // what it says does what it says
    let words: Vec<&str> = hint.split_once("bricklayer ").unwrap().1.split(' ').collect();
    assert_eq!(words[..2], ["--root", bench.store().to_str().unwrap()]);
    let whole = bench.run(&words[2..]).fine();
    assert_eq!(whole.stdout.lines().count(), 100);
    assert!(whole.text.contains("exit code: 9"), "{}", whole.text);

    let record = json(&bench.run(&["builds", "latest", "--format", "json"]).fine().stdout);
    assert_eq!(record["outcome"], "failed");
    let failed = record["tasks"].as_array().unwrap().iter().find(|task| task["state"] == "failed").unwrap();
    assert_eq!(failed["exitCode"], 9);
    assert!(failed["cpuUs"].as_u64().is_some() && failed["key"].as_str().is_some(), "{failed}");
    let page = bench.run(&["builds", "-1"]).fine().stdout;
    assert!(page.contains("failed (9)") && page.contains("not cached: never built"), "{page}");
    let filtered = bench.run(&["builds", "-q", "--filter", "outcome=done"]).fine().stdout;
    assert_eq!(filtered, "");
}

#[test]
fn builds_that_run_are_followed_and_killed_ones_are_told_as_such() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nRUN --mount=type=cache,target=/c echo one; until [ -e /c/go ]; do sleep 0.05; done; echo two\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    let mut build = bench.start_build(&[context]);
    let outcome = || {
        let list = bench.run(&["builds", "--format", "json"]).fine().stdout;
        list.lines().next().map(|line| json(line)["outcome"].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    wait_for("the RUN writes", || bench.run(&["logs"]).stdout.contains("\none\n"));
    assert_eq!(outcome(), "running");
    let du = bench.run(&["du", "-v"]).fine().stdout;
    assert!(
        du.lines().any(|line| line.starts_with("build ") && line.contains("an image or a build")),
        "{du}"
    );
    let id = bench.run(&["builds", "-q"]).fine().stdout;
    let follower = bench.command(&["logs", "--follow", id.trim()]).spawn().unwrap();
    let release = bench
        .context("release", &[("Dockerfile", "FROM base\nRUN --mount=type=cache,target=/c touch /c/go\n")]);
    bench.run(&["build", "-q", release.to_str().unwrap()]).fine();
    assert!(build.wait().unwrap().success());
    let followed = follower.wait_with_output().unwrap();
    let followed = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert!(followed.contains("one\ntwo\n"), "{followed}");
    assert_eq!(bench.run(&["builds", "-q"]).fine().stdout.lines().count(), 2);

    let endless = bench.context("endless", &[("Dockerfile", "FROM base\nRUN echo begun; sleep 1000\n")]);
    let mut build = bench.start_build(&[endless.to_str().unwrap()]);
    wait_for("the RUN writes", || bench.run(&["logs"]).stdout.contains("begun"));
    build.kill().unwrap();
    build.wait().unwrap();
    wait_for("what it started is gone, too", || outcome() == "killed");
    assert!(bench.run(&["logs"]).fine().text.contains("begun\n"));

    let pruned = bench.run(&["prune", "--all"]).fine().stdout;
    assert_eq!(pruned.matches("\nbuild ").count(), 3, "{pruned}");
    assert_eq!(bench.run(&["builds", "-q"]).fine().stdout, "");
    assert!(fs::read_dir(bench.store().join("builds")).unwrap().next().is_none());
    assert_eq!(bench.run(&["logs"]).code, Some(1));
}

#[test]
fn where_the_time_went_is_written_during_a_build_and_after_it() {
    let bench = Bench::new();
    let dockerfile = "FROM base AS one\nRUN sleep 0.2 && echo '</a><script>x</script>'\nFROM base\n\
        COPY --from=one /etc /etc2\nRUN exit 5\nRUN echo never\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let context = context.to_str().unwrap();
    let failed = bench.build(&["--timing", "page.html", "--timing", "trace.json", context]);
    assert_eq!(failed.code, Some(1), "{}", failed.text);
    let (page, trace) = (bench.path("page.html"), bench.path("trace.json"));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("failed (5)") && html.contains("&lt;script&gt;x&lt;/script&gt;"), "{html}");
    assert!(!html.contains("<script") && html.contains("RUN echo never"), "{html}");
    let events = json(&fs::read_to_string(&trace).unwrap())["traceEvents"].as_array().unwrap().clone();
    let slept = events.iter().find(|event| event["cat"] == "run");
    assert!(slept.unwrap()["dur"].as_u64().unwrap() >= 200_000, "{slept:?}");
    // the path is there, and ends with the step that failed
    let path: Vec<_> = events.iter().filter(|event| event["ph"] == "X" && event["tid"] == 1).collect();
    assert!(path.last().unwrap()["name"].as_str().unwrap().contains("RUN exit 5"), "{path:?}");

    fs::remove_file(&page).unwrap();
    bench.run(&["builds", "latest", "--timing", "page.html"]).fine();
    assert_eq!(fs::read_to_string(&page).unwrap(), html, "the record has all of it");

    for (args, expected) in [
        (vec!["build", "--timing", "t.txt", context], "a name that ends in .html or .json"),
        (vec!["build", "--timing", "no/such/t.html", context], "`no/such` is not a directory"),
        (vec!["explain", "--timing", "t.html", context], "nothing runs"),
        (vec!["builds", "--timing", "t.html"], "<BUILD"),
    ] {
        let wrong = bench.run(&args);
        assert_eq!(wrong.code, Some(2), "{}", wrong.text);
        assert!(wrong.text.contains(expected), "{}", wrong.text);
    }
}

#[test]
fn a_record_has_the_bytes_of_layers_and_contexts() {
    let bench = Bench::new();
    let dockerfile = "FROM base\nCOPY a /a\nRUN head -c 50000 /dev/zero > /x && ln /x /y && ln -s /x /z\n";
    let a = "a".repeat(1234);
    let context = bench.context("context", &[("Dockerfile", dockerfile), ("a", &a), ("unused", &a)]);
    bench.run(&["build", "-q", context.to_str().unwrap()]).fine();
    let record = json(&bench.run(&["builds", "latest", "--format", "json"]).fine().stdout);
    let bytes = |part: &str| {
        let tasks = record["tasks"].as_array().unwrap();
        tasks.iter().find(|task| task["name"].as_str().unwrap().contains(part)).unwrap()["bytes"].clone()
    };
    assert_eq!(["load build context", "COPY a", "RUN head"].map(bytes), [1234, 1234, 50_000]);
}
