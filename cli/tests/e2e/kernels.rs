//! Builds as on older kernels (`testdata/kernels/as`): the same images, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rootless::Person;
use crate::support::{Bench, Printed, wait_for};

/// The newest kernel that takes no layers by descriptor.
const OLDER: &str = "6.12";

fn older() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kernels/as")
}

/// The command of a bench as on a kernel of this version.
fn under(bench: &Bench, version: &str, args: &[&str]) -> Command {
    let usual = bench.command(args);
    let mut command = Command::new(older());
    command.arg(version).arg(usual.get_program()).args(usual.get_args());
    command
        .current_dir(bench.dir.path())
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(mut command: Command) -> Printed {
    command.output().expect("python3 is missing: apt-get install python3").into()
}

/// Every kind of mount, and what is written to those that may be written to.
const ALL_MOUNTS: &str = "\
FROM base AS files
RUN mkdir -p /deep/er && echo one > /deep/er/one
RUN echo two > /deep/two && ln -s /deep/er /link
FROM scratch AS nothing
COPY note /
FROM base
RUN --mount=from=files,source=/deep,target=/mnt cat /mnt/two /mnt/er/one > /read && ! touch /mnt/x
RUN --mount=from=files,source=link/one,target=/mnt/file cat /mnt/file >> /read
RUN --mount=from=files,target=/mnt,rw echo x > /mnt/deep/x && rm -r /mnt/deep/er && ls /mnt/deep >> /read
RUN --mount=from=files,source=/deep/er,target=/mnt,rw ls /mnt >> /read && rm /mnt/one
RUN --mount=from=nothing,target=/mnt cat /mnt/note >> /read
RUN --mount=target=/mnt cat /mnt/note >> /read
RUN --mount=source=note,target=/mnt,rw echo more >> /mnt && cat /mnt >> /read
RUN --mount=type=cache,target=/cache echo kept > /cache/a
RUN --mount=type=cache,target=/cache cat /cache/a >> /read
RUN --mount=type=tmpfs,target=/t echo t > /t/t && cat /t/t >> /read
RUN --mount=type=secret,id=word,target=/word cat /word >> /read
RUN mount > /dev/null; rm /bin/vi; cat /read
COPY --from=files /deep /deep
";

#[test]
fn images_are_the_same_on_older_kernels() {
    let (new, old) = (Bench::new(), Bench::new());
    let build = |bench: &Bench, version: &str| {
        let context = bench.context("context", &[("Dockerfile", ALL_MOUNTS), ("note", "note\n")]);
        fs::write(bench.path("word"), "secret\n").unwrap();
        let secret = format!("id=word,src={}", bench.path("word").display());
        let args = ["build", "--progress", "plain", "--secret", &secret, "--iidfile", "id"];
        output(under(bench, version, &[&args[..], &[context.to_str().unwrap()]].concat())).fine();
        fs::read_to_string(bench.path("id")).unwrap()
    };
    assert_eq!(build(&old, OLDER), build(&new, "99.0"));
    let files = format!("type=local,dest={}", old.path("files").display());
    let context = old.path("context").display().to_string();
    output(under(&old, OLDER, &["build", "--progress", "quiet", "-o", &files, &context])).fine();
    let read = fs::read_to_string(old.path("files/read")).unwrap();
    assert_eq!(read, "two\none\none\ntwo\nx\none\nnote\nnote\nnote\nmore\nkept\nt\nsecret\n");
}

#[test]
fn a_killed_build_leaves_no_mount_on_an_older_kernel() {
    let bench = Bench::new();
    let text = "FROM base\nRUN --mount=from=base,source=/bin,target=/mnt,rw echo started; sleep 600\n";
    let context = bench.context("context", &[("Dockerfile", text)]);
    let args = ["build", "--progress", "plain", context.to_str().unwrap()];
    let mut child =
        under(&bench, OLDER, &args).stderr(fs::File::create(bench.path("log")).unwrap()).spawn().unwrap();
    wait_for("the command runs", || {
        fs::read_to_string(bench.path("log")).unwrap().lines().any(|line| line.ends_with(" started"))
    });
    let store = bench.store().display().to_string();
    let ours = || {
        // In the table of any process: a namespace that nobody is in is gone.
        let tables = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("mountinfo"));
        tables.filter_map(|table| fs::read_to_string(table).ok()).any(|table| table.contains(&store))
    };
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(&store) && !host.contains("upperdir=U"), "{host}");
    // SIGKILL
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("no process has mounts of the store", || !ours());
    let again = bench.context("again", &[("Dockerfile", "FROM base\nRUN echo again\n")]);
    output(under(&bench, OLDER, &["build", again.to_str().unwrap()])).fine();
}

#[test]
fn ordinary_users_build_on_older_kernels() {
    for kind in ["mapped", "single"] {
        let person = Person::new(kind);
        let text = "FROM base\nRUN --network=none --mount=from=base,source=/bin,target=/mnt,rw rm /mnt/vi && test -e /bin/vi\n\
                    RUN --network=none rm /bin/vi && mkdir -p /new && ! test -e /bin/vi\n";
        person.bench.context("context", &[("Dockerfile", text)]);
        // The filter comes before the user: newuidmap is a setuid program.
        let usual = person.command(&["./bricklayer", "build", "--progress", "plain", "context"]);
        let mut command = Command::new(older());
        command.arg(OLDER).arg(usual.get_program()).args(usual.get_args()).stdin(Stdio::null());
        Printed::from(command.output().unwrap()).fine();
    }
}

#[test]
fn a_kernel_that_is_too_old_is_named_before_anything_is_done() {
    let bench = Bench::empty();
    let context = bench.context("context", &[("Dockerfile", "FROM scratch\n")]);
    let printed = output(under(&bench, "5.11", &["build", context.to_str().unwrap()]));
    assert_eq!(printed.code, Some(1), "{}", printed.text);
    let expected = " has no mount_setattr: 5.12 is the oldest version that can build\nhint: ";
    assert!(printed.text.starts_with("error: Linux ") && printed.text.contains(expected), "{}", printed.text);
    assert!(!bench.store().exists());
    let printed = output(under(&bench, "5.2", &["build", context.to_str().unwrap()]));
    assert!(
        printed.text.contains(" has no clone3, close_range, openat2, mount_setattr: "),
        "{}",
        printed.text
    );
}
