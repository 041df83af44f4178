//! Builds by an ordinary user, who exists only for the test (`testdata/rootless/as`). Needs root, and Debian's uidmap.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bricklayer::cache::layer::tar::write::{END, pad};
use bricklayer::cache::layer::tar::{EntryKind, Header};

use crate::support::{Bench, Printed, base_archive};

/// Somebody without privileges, with a home and a store there.
pub(crate) struct Person {
    pub(crate) bench: Bench,
    /// `mapped`: with subordinate ids; `single`: without.
    kind: &'static str,
}

impl Person {
    pub(crate) fn new(kind: &'static str) -> Self {
        let person = Self { bench: Bench::empty(), kind };
        fs::copy(base_archive(), person.path("base.tar")).unwrap();
        person.run(&["load", "-i", "base.tar"]).fine();
        person
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    /// Any command, in the user's home, where the program is `./bricklayer`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/rootless/as");
        let mut command = Command::new(script);
        command
            .args(["--bring", env!("CARGO_BIN_EXE_bricklayer"), "bricklayer", self.kind])
            .arg(self.bench.dir.path())
            .args(words)
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Printed {
        self.command(&[&["./bricklayer"], args].concat()).output().unwrap().into()
    }

    fn build(&self, args: &[&str]) -> Printed {
        self.run(&[&["build", "--progress", "plain"], args].concat())
    }
}

/// A tar whose files have many owners, modes, a file capability and devices. `links`: also links and pipes of others than
/// root.
fn archive(links: bool) -> Vec<u8> {
    // struct vfs_cap_data, revision 2: permitted cap_net_raw, effective
    let capability = [0x0200_0001u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    let xattrs = [(b"security.capability".to_vec(), capability), (b"user.note".to_vec(), b"kept".to_vec())];
    let entry = |path: &'static [u8], kind, mode, uid, gid| Header {
        path,
        kind,
        mode,
        uid,
        gid,
        size: 0,
        mtime: 1_600_000_000,
        link: b"",
        device: (0, 0),
        xattrs: &[],
    };
    let mut out = Vec::new();
    entry(b"dir/", EntryKind::Directory, 0o2775, 33, 44).write(&mut out);
    Header { size: 4, xattrs: &xattrs, ..entry(b"dir/ping", EntryKind::File, 0o755, 0, 0) }.write(&mut out);
    out.extend_from_slice(b"data");
    pad(&mut out, 4);
    entry(b"dir/su", EntryKind::File, 0o6755, 1, 2).write(&mut out);
    let (link, pipe) = if links { ((12, 13), (7, 8)) } else { ((0, 0), (0, 0)) };
    Header { link: b"su", ..entry(b"dir/link", EntryKind::Symlink, 0o777, link.0, link.1) }.write(&mut out);
    Header { link: b"dir/su", ..entry(b"dir/hard", EntryKind::HardLink, 0o6755, 1, 2) }.write(&mut out);
    entry(b"dir/pipe", EntryKind::Fifo, 0o622, pipe.0, pipe.1).write(&mut out);
    Header { device: (1, 7), ..entry(b"dir/full", EntryKind::CharDevice, 0o622, 3, 4) }.write(&mut out);
    Header { device: (8, 0), ..entry(b"dir/disk", EntryKind::BlockDevice, 0o660, 0, 6) }.write(&mut out);
    out.extend_from_slice(&END);
    out
}

const DOCKERFILE: &str = r#"FROM base AS one
ADD many.tar /many
RUN mkdir -p /d/sub /gone/deep /opaque/old && echo a > /d/a && ln /d/a /d/b && ln -s a /d/link && mkfifo /d/pipe \
 && cp /bin/busybox /d/su && chmod 4755 /d/su && chmod 1777 /d/sub && echo x > /gone/deep/x && echo y > /opaque/old/y
COPY --chown=1000:2000 --chmod=4711 tree /copied/
COPY --chown=app tree/f /home/app/
FROM one
RUN rm -r /gone /d/b && rm -rf /opaque && mkdir /opaque && echo new > /opaque/new && echo more >> /d/a
RUN mv /many/dir/ping /ping && chmod 600 /copied/f && touch /many/dir/su
COPY --from=one /many /again
COPY --link --chown=5:6 tree /linked
WORKDIR /work/there
USER app
WORKDIR mine
"#;

fn write_context(dir: &Path, dockerfile: &str, links: bool) {
    fs::create_dir_all(dir.join("tree/below")).unwrap();
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    fs::write(dir.join("many.tar"), archive(links)).unwrap();
    fs::write(dir.join("tree/f"), "f\n").unwrap();
    fs::write(dir.join("tree/below/g"), "g\n").unwrap();
    if links {
        std::os::unix::fs::symlink("f", dir.join("tree/l")).unwrap();
    }
}

/// The image that root builds of a Dockerfile, and the one that somebody else builds: as OCI archives.
#[track_caller]
fn both(kind: &'static str, dockerfile: &str) -> (Vec<u8>, Vec<u8>) {
    let args =
        ["--build-arg", "SOURCE_DATE_EPOCH=1500000000", "--output", "type=oci,dest=out.tar", "context"];
    let root = Bench::new();
    write_context(&root.path("context"), dockerfile, kind == "mapped");
    root.build(&args).fine();
    let person = Person::new(kind);
    write_context(&person.path("context"), dockerfile, kind == "mapped");
    let built = person.build(&args).fine();
    assert!(built.text.contains("not cached: never built"), "{}", built.text);
    // it was nobody with power who did that
    assert_ne!(fs::metadata(person.path("out.tar")).unwrap().uid(), 0);
    (fs::read(root.path("out.tar")).unwrap(), fs::read(person.path("out.tar")).unwrap())
}

/// What differs in two archives, for people.
#[track_caller]
fn assert_same((root, person): (Vec<u8>, Vec<u8>)) {
    if root == person {
        return;
    }
    let list = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("out.tar"), bytes).unwrap();
        let script = "tar xf out.tar && for b in blobs/sha256/*; do gzip -dc $b 2>/dev/null | tar --xattrs --xattrs-include=* --numeric-owner -tvvf - 2>/dev/null; done; true";
        let done = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let (root, person) = (list(&root), list(&person));
    let only = |one: &str, other: &str| -> Vec<String> {
        let others: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !others.contains(line)).map(str::to_owned).collect()
    };
    panic!("only in root's: {:#?}\nonly in the user's: {:#?}", only(&root, &person), only(&person, &root));
}

#[test]
fn the_image_is_the_one_that_root_builds() {
    let user = "RUN touch made && echo $HOME > home && chgrp extra made\n";
    let owners =
        "RUN chown -R 33:44 /d && chown 1000 /opaque && chown -h 8:9 /d/link && chown app /work/there\n";
    let (first, rest) = DOCKERFILE.split_once("WORKDIR /work").unwrap();
    assert_same(both("mapped", &format!("{first}WORKDIR /work/there\n{owners}WORKDIR /work{rest}{user}")));
}

#[test]
fn with_a_single_id_the_image_is_the_same_too() {
    let (first, _) = DOCKERFILE.split_once("WORKDIR /work").unwrap();
    // Owners that RUN changes are kept as well, by path, by descriptor and in a root of the command's own; not those of links.
    let more = "COPY --chown=0 tree/f /copied/\nCOPY --chown=9:9 tree /many/dir/\nRUN mv /copied/below/g /moved\n\
                RUN chown 33:44 /d/a && cd /d && chown -R 5:6 ../copied sub && chown 7:8 su && chmod u+s ../opaque/new && \
                chown app:extra ../opaque/new && chown 1:1 ../opaque && chown 0:0 ../opaque && touch x && chgrp 7 x\n\
                RUN mkdir -p /jail/bin && cp /bin/busybox /jail/bin/ && touch /jail/f && \
                chroot /jail /bin/busybox chown 11:12 /f\n";
    assert_same(both("single", &format!("{first}{more}WORKDIR /work\n")));
}

#[test]
fn with_a_single_id_what_cannot_be_says_what_to_do() {
    let person = Person::new("single");
    person.bench.context("context", &[("Dockerfile", "FROM base\nUSER app\nRUN true\n")]);
    let failed = person.build(&["--network=none", "context"]);
    assert_eq!(failed.code, Some(1), "{}", failed.text);
    for text in
        ["single user id", "/etc/subuid has no subordinate ids for bricklayer-single", "--add-subuids"]
    {
        assert!(failed.text.contains(text), "{text}: {}", failed.text);
    }
    // Owners are kept for those only who might change them.
    let chown = |rights: &[&str]| {
        person.run(&[&["run", "--network=none"], rights, &["base", "chown", "5", "/etc/passwd"]].concat())
    };
    chown(&[]).fine();
    let refused = chown(&["--cap-drop=CHOWN"]);
    assert!(!refused.ok && refused.text.contains("chown: /etc/passwd: "), "{}", refused.text);
    // when the user gets ids, the store is of no use, and says so
    let later = Person { kind: "mapped", ..person };
    crate::support::tool("chown", &["-R", "64321:64321", later.bench.dir.path().to_str().unwrap()]);
    let refused = later.run(&["images"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(
        refused.text.contains("was made without subordinate ids, and now there are some"),
        "{}",
        refused.text
    );
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    let person = Person::new("mapped");
    let refused = |printed: Printed| {
        assert_eq!(printed.code, Some(1), "{}", printed.text);
        assert!(printed.text.contains("belongs to another user"), "{}", printed.text);
        assert!(printed.text.contains("--root"), "{}", printed.text);
    };
    // root's, closed to others, and the user's, which root could read
    let root = Bench::new();
    fs::rename(root.store(), person.path("roots")).unwrap();
    refused(person.run(&["--root", "roots", "images"]));
    let store = person.path(".local/share/bricklayer");
    fs::rename(store, root.store()).unwrap();
    refused(root.run(&["images"]));
}

#[test]
fn a_kernel_that_makes_no_user_namespace_is_told_about() {
    let person = Person::new("mapped");
    // inside of one that may have no more below it
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && setpriv --bounding-set -all --inh-caps -all ./bricklayer du";
    let refused: Printed = person
        .command(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script])
        .output()
        .unwrap()
        .into();
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("cannot make a user namespace"), "{}", refused.text);
    assert!(refused.text.contains("sysctl -w user.max_user_namespaces"), "{}", refused.text);
}

/// What makes a network of its own the host's: a way out that leads nowhere, a web server beyond it and one on loopback,
/// and a name server on loopback. Then the words that follow are run.
const HOST: &str = r#"
ip link set lo up && ip addr add 198.51.100.7/32 dev lo
ip link add out0 type veth peer name out1 && ip link set out0 up && ip link set out1 up && ip addr add 203.0.113.2/24 dev out0
ip route add default via 203.0.113.1
mkdir -p web && echo found > web/page
echo 'nameserver 127.0.0.53' > resolv.conf && mount --bind resolv.conf /etc/resolv.conf
busybox httpd -f -p 198.51.100.7:8080 -h web & servers=$!
busybox httpd -f -p 127.0.0.1:8081 -h web & servers="$servers $!"
python3 -c '
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
while True:
    question, asker = server.recvfrom(512)
    end = question.index(b"\0", 12) + 5
    is_a = question[end - 4 : end - 2] == b"\0\1"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc6\x33\x64\x07" if is_a else b""
    head = question[:2] + b"\x81\x80\0\1\0" + bytes([is_a]) + b"\0\0\0\0"
    server.sendto(head + question[12:end] + answer, asker)
' & servers="$servers $!"
"$@"; code=$?
kill $servers
exit $code
"#;

/// Needs Debian's passt, iproute2 and python3.
#[test]
fn pasta_is_the_way_out_and_the_host_is_out_of_reach() {
    assert!(Path::new("/usr/bin/pasta").exists(), "pasta is missing: apt-get install passt");
    let person = Person::new("mapped");
    let dockerfile = "FROM base\nRUN busybox nslookup web.test && wget -qO- http://web.test:8080/page\n\
                      RUN wget -qO- http://127.0.0.1:8081/page 2>&1 || echo out of reach\n\
                      RUN --network=none ip route && echo no route\n";
    person.bench.context("context", &[("Dockerfile", dockerfile)]);
    // around the script that makes somebody an ordinary user
    let inner = person.command(&["./bricklayer", "build", "--progress", "plain", "context"]);
    let mut outer = Command::new("unshare");
    outer.args(["--net", "--mount", "sh", "-c", HOST, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let built: Printed = outer.current_dir(person.bench.dir.path()).output().unwrap().into();
    assert!(built.ok, "{}", built.text);
    for line in [" found\n", " out of reach\n", " no route\n"] {
        assert!(built.text.contains(line), "{line}: {}", built.text);
    }
    assert!(!built.text.contains("warning"), "{}", built.text);
}

#[test]
fn without_pasta_the_network_has_to_be_chosen() {
    let person = Person::new("mapped");
    person.bench.context(
        "context",
        &[("Dockerfile", "FROM base\nRUN readlink /proc/self/ns/net; wc -l < /proc/net/dev\n")],
    );
    let build = |choice: &[&str]| -> Printed {
        let build = [&["./bricklayer", "build", "--progress", "plain", "context"], choice].concat();
        let inner = person.command(&build);
        let mut outer = Command::new("unshare");
        let script = "! [ -e /usr/bin/pasta ] || mount --bind /dev/null /usr/bin/pasta; exec \"$@\"";
        outer.args(["--mount", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        outer.output().unwrap().into()
    };
    let refused = build(&[]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    for text in
        ["`pasta`, which is not installed", "apt-get install passt", "--network=host", "--network=none"]
    {
        assert!(refused.text.contains(text), "{text}: {}", refused.text);
    }
    // two lines of headings, and loopback
    let none = build(&["--network=none"]);
    assert!(none.ok && none.text.contains(" 3\n"), "{}", none.text);
    let host = build(&["--network=host", "--no-cache"]);
    // its devices come and go with the other tests' networks
    let ours = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert!(host.ok && host.text.contains(&ours), "{}", host.text);
    assert!(!none.text.contains(&ours), "{}", none.text);
}

#[test]
fn images_are_tried_out() {
    for kind in ["mapped", "single"] {
        let person = Person::new(kind);
        person
            .run(&[
                "run",
                "-v",
                "./host:/host",
                "base",
                "sh",
                "-c",
                "echo made > /host/file; touch /x && id -u",
            ])
            .fine();
        let made = person.path("host/file");
        assert_eq!(fs::read_to_string(&made).unwrap(), "made\n");
        // root inside is the user outside
        assert_eq!(fs::metadata(made).unwrap().uid(), fs::metadata(person.path("")).unwrap().uid());
        let done = person.run(&["run", "-t", "base", "sh", "-c", "tty; exit 5"]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(5), "/dev/pts/0\r\n"), "{}", done.text);
        for runtime in ["runc", "crun"] {
            let script =
                "id -u; chown 5 /etc/passwd && test -d /sys/class/net && grep -c Seccomp: /proc/self/status";
            let network = if runtime == "runc" { "--network=host" } else { "--network=none" };
            let done = person.run(&["run", network, "--oci-runtime", runtime, "base", "sh", "-c", script]);
            assert_eq!((done.code, done.stdout.as_str()), (Some(0), "0\n1\n"), "{runtime}: {}", done.text);
        }
    }
}

/// Needs Debian's bindfs, whose filesystem is one that the kernel's overlayfs does not write to, and fuse-overlayfs.
#[test]
fn a_store_that_overlayfs_does_not_write_to_will_do() {
    let bindfs = r#"bindfs "$home" "$home""#;
    let copied = on_fuse(bindfs, "mount --bind /dev/null /usr/bin/fuse-overlayfs");
    assert!(copied.contains("overlayfs can't write to the store's filesystem"), "{copied}");
    assert!(copied.contains("(fuse-overlayfs is not installed)"), "{copied}");
    // Where it is installed nothing is copied.
    let served = on_fuse(bindfs, ":");
    assert!(!served.contains("warning"), "{served}");
    // On a filesystem of its own it can't.
    let itself = r#"
        mkdir "$beside/upper" "$beside/work"
        fuse-overlayfs -o "allow_other,lowerdir=$home,upperdir=$beside/upper,workdir=$beside/work" "$home""#;
    let nested = on_fuse(itself, ":");
    assert!(nested.contains("cannot make, remove and replace a whiteout in the store"), "{nested}");
}

/// Builds in a store on a filesystem that root mounts there; `prepare` is done between that and the build.
#[track_caller]
fn on_fuse(mount: &str, prepare: &str) -> String {
    let person = Person::new("mapped");
    let dockerfile = "FROM base AS other\nRUN mkdir -p /d/sub && echo one > /d/sub/f && ln -s f /d/sub/l && chown -R 5:6 /d\n\
                      FROM base\nRUN echo a > /a && chown 5:6 /a && rm -r /home/app && mkdir /home/app\n\
                      COPY --chown=7 Dockerfile /x/\nRUN stat -c '%n %u:%g' /a /home/app /x/Dockerfile\n\
                      RUN --mount=from=other,source=/d/sub/l,target=/w/f,rw --mount=from=other,source=d,target=/w/d,rw \
                      --mount=target=/w/c,rw --mount=type=cache,target=/c --mount=from=other,target=/w/o,rw \
                      echo two | tee /w/f /w/c/Dockerfile /c/kept /w/o/new > /w/d/sub/new && rm /w/d/sub/f && cat /w/f \
                      && stat -c '%n %u:%g' /w/d/sub /w/f && echo in $(ls /w/d/sub) $(ls /w/o | head -1)\n\
                      RUN --mount=from=other,source=d,target=/w/d,rw --mount=target=/w/c --mount=type=cache,target=/c \
                      echo then $(ls /w/d/sub) $(cat /w/d/sub/f /c/kept) $(head -1 /w/c/Dockerfile)\n";
    person.bench.context("context", &[("Dockerfile", dockerfile)]);
    let build = "./bricklayer build --progress plain --network=none -t made context";
    let built = beside_fuse(&person, mount, prepare, build);
    assert!(built.ok, "{}", built.text);
    for line in [
        " /a 5:6\n",
        " /home/app 0:0\n",
        " /x/Dockerfile 7:7\n",
        " two\n",
        " /w/d/sub 5:6\n",
        " /w/f 5:6\n",
        " in l new bin\n",
        " then f l one two FROM base AS other\n",
    ] {
        assert!(built.text.contains(line), "{line}: {}", built.text);
    }
    built.text
}

/// Runs a script in a home on a filesystem that root mounts there; `prepare` is done between that and the script.
fn beside_fuse(person: &Person, mount: &str, prepare: &str, script: &str) -> Printed {
    let beside = tempfile::tempdir_in("/var/tmp").unwrap();
    let inner = person.command(&["sh", "-c", script]);
    let around = r#"
        mount=$1 prepare=$2 home=$3 beside=$4; shift 4
        eval "$mount" || exit
        eval "$prepare"
        "$@"; code=$?
        umount -l "$home"
        exit $code"#;
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "sh", "-c", around, "sh"])
        .args([mount, prepare])
        .args([person.bench.dir.path(), beside.path()])
        .arg(inner.get_program())
        .args(inner.get_args());
    outer.output().unwrap().into()
}

/// What a RUN left when it failed, looked into twice: changed, new and removed files, owners, mounts.
const LOOK: &str = r#"
    ./bricklayer build --progress plain --network=none context; echo build $?
    for round in 1 2; do
        ./bricklayer debug --build-context context=context -- sh -c '
            cat /new /etc/group /b/o | grep -c made; ls /etc/passwd /gone 2>&1; stat -c %u:%g /new; head -n 1 /ctx/Dockerfile; cat /cache/n
            echo changed > /new; rm /etc/group; exit 9'; echo debug $?
    done
    echo 'id -u; cat /new; exit 4' | ./bricklayer debug; echo shell $?"#;

#[track_caller]
fn looked_into(person: &Person, owner: &str, run: impl FnOnce(&str) -> Printed) -> String {
    let chown = if owner == "0:0" { "true" } else { "chown 5:6 /new" };
    let dockerfile = format!(
        "FROM base AS other\nRUN echo made by other > /o\nFROM base\nRUN mkdir /gone && echo x > /gone/x\n\
         RUN --mount=from=other,target=/b --mount=target=/ctx --mount=type=cache,target=/cache \
         echo made > /new && {chown} && echo made >> /etc/group && rm -r /gone && echo cached > /cache/n && exit 3\n"
    );
    person.bench.context("context", &[("Dockerfile", &dockerfile)]);
    let looked = run(LOOK);
    let once = format!(
        "3\nls: /gone: No such file or directory\n/etc/passwd\n{owner}\nFROM base AS other\ncached\ndebug 9\n"
    );
    let expected = format!("build 1\n{once}{once}0\nmade\nshell 4\n");
    let lines = |text: &str| text.lines().map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(lines(&looked.stdout), expected, "{}", looked.text);
    looked.text
}

#[test]
fn a_failed_run_is_looked_into() {
    for (kind, owner) in [("mapped", "5:6"), ("single", "0:0")] {
        let person = Person::new(kind);
        looked_into(&person, owner, |script| person.command(&["sh", "-c", script]).output().unwrap().into());
        let left: Vec<_> =
            fs::read_dir(person.path(".local/share/bricklayer/ingest")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Needs Debian's bindfs and fuse-overlayfs.
#[test]
fn a_failed_run_is_looked_into_where_overlayfs_does_not_write() {
    for (prepare, copied) in [("mount --bind /dev/null /usr/bin/fuse-overlayfs", true), (":", false)] {
        let person = Person::new("mapped");
        let bindfs = r#"bindfs "$home" "$home""#;
        let text = looked_into(&person, "5:6", |script| beside_fuse(&person, bindfs, prepare, script));
        assert_eq!(text.contains("overlayfs can't write to the store's filesystem"), copied, "{text}");
    }
}
