//! Builds by the command, from the Dockerfile to the archive, on a busybox base that is made on the spot. Needs root and
//! the Debian package busybox-static.
#![cfg(feature = "cli")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store with the base image `busybox`, and a context.
struct House {
    directory: tempfile::TempDir,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let house = Self { directory };
        let archive = house.path("busybox.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/base/busybox");
        let made = Command::new(script).arg(&archive).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::create_dir(house.path("context")).unwrap();
        let said = house.run(&["load", "-q", "-i", "busybox.tar"]);
        assert!(said.out.starts_with("loaded busybox:latest@sha256:"), "{}", said.err);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("context").join(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bricklayer"));
        command.arg("--root").arg(self.path("store")).args(arguments).current_dir(self.directory.path());
        command.env_remove("BUILDKIT_PROGRESS").env_remove("SOURCE_DATE_EPOCH").env("HOME", "/nonexistent");
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: status.code(), out: text(&stdout), err: text(&stderr) }
    }

    fn build(&self, arguments: &[&str]) -> Said {
        let mut all = vec!["build", "--progress", "plain"];
        all.extend(arguments);
        all.push("context");
        self.run(&all)
    }
}

#[test]
fn a_second_build_runs_nothing_and_makes_the_same_image() {
    let house = House::new();
    house.write("data", "one");
    house.write("Dockerfile", "FROM busybox AS a\nCOPY data /data\nRUN tr a-z A-Z </data >/upper\nFROM busybox\nCOPY --from=a /upper /\n");
    let first = house.build(&["-t", "app", "--iidfile", "id1"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.err.contains("RUN tr a-z A-Z </data >/upper\n"), "{}", first.err);

    let second = house.build(&["-t", "app", "--iidfile", "id2", "--metadata-file", "meta"]);
    assert_eq!(second.code, Some(0), "{}", second.err);
    assert!(!second.err.contains("not cached"), "{}", second.err);
    let id = fs::read_to_string(house.path("id1")).unwrap();
    assert_eq!(id, fs::read_to_string(house.path("id2")).unwrap());
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(house.path("meta")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/app:latest");

    house.write("data", "two");
    let third = house.build(&["-t", "app"]);
    assert!(third.err.contains("not cached: changed: data"), "{}", third.err);
    assert!(house.build(&["-o", "files"]).code == Some(0));
    assert_eq!(fs::read_to_string(house.path("files/upper")).unwrap(), "TWO");
}

#[test]
fn a_failed_run_shows_its_lines_its_output_and_its_exit_code() {
    let house = House::new();
    house
        .write("Dockerfile", "FROM busybox\nWORKDIR /x\nRUN echo before && \\\n    exit 7\nRUN echo never\n");
    let said = house.build(&[]);
    assert_eq!(said.code, Some(1));
    let report = said.err.split_once("error: ").unwrap().1;
    let (report, hint) = report.split_once("hint: look into it: bricklayer --root ").expect("a hint");
    assert!(hint.contains("/store debug "), "{hint}");
    insta::assert_snapshot!(report, @r"
    [3/4] RUN echo before &&     exit 7 failed
      caused by: process `echo before &&     exit 7` did not complete successfully: exit code: 7
     --> context/Dockerfile:3-4
    1 |     FROM busybox
    2 |     WORKDIR /x
    3 | >>> RUN echo before && \
    4 | >>>     exit 7
    5 |     RUN echo never
    what it wrote last:
      before
    ");
    let quiet = house.run(&["build", "-q", "context"]);
    assert_eq!((quiet.code, quiet.out.as_str()), (Some(1), ""));
    assert!(quiet.err.contains("before"), "what it wrote is told with any display: {}", quiet.err);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let house = House::new();
    house.write("Dockerfile", "FROM busybox\nCOPY nothing /there\n");
    let missing = house.build(&[]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.err.contains("`nothing`") && missing.err.contains("2 | >>> COPY nothing /there"),
        "{}",
        missing.err
    );

    house.write("Dockerfile", "FROM busybox\nCOPPY a b\n");
    let wrong = house.build(&[]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("did you mean `COPY`?"), "{}", wrong.err);
}

#[test]
fn quiet_prints_the_image_id_alone() {
    let house = House::new();
    house.write("Dockerfile", "FROM busybox\nRUN echo talk\n");
    let said = house.run(&["build", "-q", "-t", "app", "context"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let inspected = house.run(&["inspect", "app"]);
    let image: serde_json::Value = serde_json::from_str(&inspected.out).unwrap();
    assert_eq!(image[0]["Id"], said.out.trim());
    assert_eq!(image[0]["RepoTags"][0], "app:latest");
    let history = house.run(&["history", "app"]);
    assert!(history.out.contains("RUN /bin/sh -c echo talk"), "{}", history.out);
}

#[test]
fn names_are_given_and_taken_and_archives_go_round() {
    let house = House::new();
    assert_eq!(house.run(&["tag", "busybox", "other:1", "r.example/x/y:2"]).code, Some(0));
    let list = house.run(&["images", "other"]);
    assert!(list.out.lines().nth(1).unwrap().starts_with("other:1 "), "{}", list.out);
    assert_eq!(house.run(&["save", "-o", "saved.tar", "other:1"]).code, Some(0));
    assert_eq!(house.run(&["rmi", "other:1"]).out, "untagged other:1\n");
    let gone = house.run(&["inspect", "other:1"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("other:1"), "{}", gone.err);
    assert!(house.run(&["load", "-q", "-i", "saved.tar"]).out.starts_with("loaded other:1@sha256:"));
    assert_eq!(house.run(&["inspect", "other:1"]).code, Some(0));
}

#[test]
fn a_dockerfile_on_standard_input_and_a_tar_on_standard_output() {
    use std::io::Write;
    let house = House::new();
    let mut child = house
        .command(&["build", "-q", "-o", "-", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"FROM busybox\nRUN echo here >/made\n").unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    fs::write(house.path("root.tar"), &done.stdout).unwrap();
    let listed = Command::new("tar").arg("-xOf").arg(house.path("root.tar")).arg("made").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "here\n");
}

#[test]
fn ctrl_c_stops_a_build_and_leaves_no_process() {
    let house = House::new();
    let mark = format!("sleep {}", 100_000 + std::process::id());
    house.write("Dockerfile", &format!("FROM busybox\nRUN echo started && {mark}\n"));
    let mut child = house
        .command(&["build", "--progress", "plain", "context"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" started")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line == "error: cancelled"), "{rest:?}");
    let left = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ").trim_end() == mark
    });
    assert_eq!(left.count(), 0);
}
