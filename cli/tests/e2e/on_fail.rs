//! RUNs that failed, looked into.

use std::fs;

use crate::person::Person;
use crate::support::{Bench, wait_for};

const DOCKERFILE: &str = "FROM base\nENV A=b\nWORKDIR /work\nRUN chown 1000 /work\nUSER app\n\
    RUN --mount=type=cache,target=/cache,uid=1000 --mount=type=secret,id=s,uid=1000 --mount=type=tmpfs,target=/t \
    --mount=type=bind,target=/context echo left > file; echo cached > /cache/file; exit 3\n";

#[test]
fn a_shell_is_opened_in_what_a_failed_run_left() {
    let bench = Bench::new();
    let context = bench.context("context", &[("Dockerfile", DOCKERFILE), ("secret", "hidden")]);
    let secret = format!("id=s,src={}/secret", context.display());
    let args = ["build", "--on-fail=shell", "--secret", &secret, context.to_str().unwrap()];
    for more in [&["--progress", "tty"][..], &["--progress", "plain"], &["--oci-runtime", "runc"]] {
        let mut person = Person::start(&bench.command(&[&args[..], more].concat()));
        person.sees("exit code: 3");
        person.sees("a shell in what it left");
        person.types("echo $A; pwd; id -u; cat file /cache/file /run/secrets/s; ls /context; stty size; touch /t/x && echo wri''tten\n");
        person.sees(
            "b\r\n/work\r\n1000\r\nleft\r\ncached\r\nhiddenDockerfile  secret\r\n50 132\r\nwritten\r\n",
        );
        assert!(person.is_raw());
        person.types("exit 7\n");
        // the build's failure, not that of the shell
        assert_eq!(person.end().code(), Some(1), "{}", person.screen());
        assert!(!person.is_raw());
        wait_for("the build's failure is told", || {
            let screen = person.screen();
            screen.rsplit("exit 7").next().unwrap().contains("caused by: process `echo left")
        });
    }
    let left: Vec<_> = fs::read_dir(bench.store().join("ingest")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_shell_needs_a_terminal_and_a_shell() {
    let bench = Bench::new();
    let context = bench.context(
        "context",
        &[
            ("Dockerfile", DOCKERFILE),
            ("empty", "FROM scratch\nCOPY --from=base /bin/busybox /x\nRUN [\"/x\", \"false\"]\n"),
        ],
    );
    let context = context.to_str().unwrap();
    let refused = bench.build(&["--on-fail=shell", context]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.text.contains("--on-fail=shell: standard input is not a terminal"), "{}", refused.text);

    let file = format!("{context}/empty");
    let mut person = Person::start(&bench.command(&["build", "--on-fail=shell", "-f", &file, context]));
    person.sees("there is no shell in the files of the step");
    assert_eq!(person.end().code(), Some(1));
    assert!(!person.is_raw());
}
