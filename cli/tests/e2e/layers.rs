//! What layers of RUNs hold: exactly what was changed.

use std::fs;

use crate::support::{Bench, tool};

/// Lists the layers of an OCI layout, as Python reads them: a line for each entry.
const LIST: &str = r#"
import json, sys, tarfile
top = sys.argv[1]
blob = lambda digest: top + "/blobs/" + digest.replace(":", "/")
load = lambda digest: json.load(open(blob(digest)))
found = load(json.load(open(top + "/index.json"))["manifests"][0]["digest"])
if "manifests" in found: found = load(found["manifests"][0]["digest"])
for number, layer in enumerate(found["layers"][int(sys.argv[2]):]):
    print("== layer", number)
    with tarfile.open(blob(layer["digest"]), errors="surrogateescape") as tar:
        for e in tar:
            kind = {b"0": "file", b"1": "hard", b"2": "link", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}[e.type]
            note = ["%o" % e.mode, "%d:%d" % (e.uid, e.gid)]
            if kind == "file": note.append("%d bytes" % e.size)
            if e.linkname: note.append("-> " + e.linkname)
            if kind in ("char", "block"): note.append("%d,%d" % (e.devmajor, e.devminor))
            note += sorted(k[13:] + "=" + v for k, v in e.pax_headers.items() if k.startswith("SCHILY.xattr."))
            print(kind, ascii(e.name), *note)
"#;

fn listed(bench: &Bench, layout: &str, from: usize) -> String {
    tool("python3", &["-c", LIST, bench.path(layout).to_str().unwrap(), &from.to_string()])
}

#[test]
fn a_layer_holds_exactly_what_was_changed() {
    let bench = Bench::new();
    let dockerfile = r#"FROM base
ADD noted.tar /d/
COPY d /d
RUN rm /d/gone && rm -r /d/tree
RUN rm -r /d/again && mkdir /d/again && echo x > /d/again/new
RUN mv /d/from /d/to && mv /d/name /d/other
RUN ln /d/first /d/second && ln -s nowhere /d/soft
RUN chmod 4750 /d/mode && chown 5:6 /d/owner && touch -d @1000000000 /d/time
RUN dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=1048575 2>/dev/null
RUN mknod /d/null c 1 3 && mknod /d/disk b 259 70000 && mkfifo /d/fifo
RUN chmod 600 /d/noted
RUN printf x > "/d/$(printf '\377\376')" && printf y > "/d/$(printf 'new\nline')"
RUN rm /d/type && mkdir /d/type && rm -r /d/back && echo f > /d/back
RUN echo a > /d/made && rm /d/made && chmod 644 /d/same && cat /d/same > /dev/null
RUN true
"#;
    let context = bench.context(
        "context",
        &[
            ("Dockerfile", dockerfile),
            ("d/gone", ""),
            ("d/tree/a/b", ""),
            ("d/again/old", ""),
            ("d/from/in", "in"),
            ("d/name", "name"),
            ("d/first", "first"),
            ("d/mode", ""),
            ("d/owner", ""),
            ("d/time", ""),
            ("d/type", ""),
            ("d/back/x", ""),
            ("d/same", ""),
        ],
    );
    // Attributes of files of a context do not count, those in an archive do.
    let noted = bench.context("archive", &[("noted", "n")]);
    rustix::fs::setxattr(noted.join("noted"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let archive = context.join("noted.tar");
    let from = ["-C", noted.to_str().unwrap(), "noted"];
    tool("tar", &[&["--xattrs", "--format=pax", "-cf", archive.to_str().unwrap()][..], &from].concat());
    let output = "type=oci,dest=out,tar=false,compression=uncompressed";
    bench.build(&["-o", output, context.to_str().unwrap()]).fine();
    insta::assert_snapshot!(listed(&bench, "out", 3), @r"
    == layer 0
    dir 'd' 755 0:0
    file 'd/.wh.gone' 0 0:0 0 bytes
    file 'd/.wh.tree' 0 0:0 0 bytes
    == layer 1
    dir 'd' 755 0:0
    dir 'd/again' 755 0:0
    file 'd/again/.wh..wh..opq' 0 0:0 0 bytes
    file 'd/again/new' 644 0:0 2 bytes
    == layer 2
    dir 'd' 755 0:0
    file 'd/.wh.from' 0 0:0 0 bytes
    file 'd/.wh.name' 0 0:0 0 bytes
    file 'd/other' 644 0:0 4 bytes
    dir 'd/to' 755 0:0
    file 'd/to/in' 644 0:0 2 bytes
    == layer 3
    dir 'd' 755 0:0
    file 'd/first' 644 0:0 5 bytes
    hard 'd/second' 644 0:0 -> d/first
    link 'd/soft' 777 0:0 -> nowhere
    == layer 4
    dir 'd' 755 0:0
    file 'd/mode' 4750 0:0 0 bytes
    file 'd/owner' 644 5:6 0 bytes
    file 'd/time' 644 0:0 0 bytes
    == layer 5
    dir 'd' 755 0:0
    file 'd/sparse' 644 0:0 1048576 bytes
    == layer 6
    dir 'd' 755 0:0
    block 'd/disk' 644 0:0 259,70000
    fifo 'd/fifo' 644 0:0
    char 'd/null' 644 0:0 1,3
    == layer 7
    dir 'd' 755 0:0
    file 'd/noted' 600 0:0 1 bytes user.note=kept
    == layer 8
    dir 'd' 755 0:0
    file 'd/new\nline' 644 0:0 1 bytes
    file 'd/\udcff\udcfe' 644 0:0 1 bytes
    == layer 9
    dir 'd' 755 0:0
    file 'd/back' 644 0:0 2 bytes
    dir 'd/type' 755 0:0
    file 'd/type/.wh..wh..opq' 0 0:0 0 bytes
    == layer 10
    dir 'd' 755 0:0
    file 'd/same' 644 0:0 0 bytes
    == layer 11
    ");
}

#[test]
fn an_image_can_have_more_layers_than_the_kernel_stacks() {
    let bench = Bench::new();
    // Six hundred and some: --link makes them without a look at what lies below.
    let mut dockerfile = "FROM base\n".to_owned();
    for number in 0..600 {
        dockerfile += &format!("COPY --link <<END /n/{number}\n{number}\nEND\n");
    }
    dockerfile += "RUN ls /n | wc -l > /count && rm /n/3 /n/590 && mv /n/4 /n/591 /\n";
    dockerfile += "RUN ls /n | wc -l >> /count; cat /4 /591 >> /count\n";
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    bench.build(&["-o", "type=local,dest=files", context]).fine();
    assert_eq!(fs::read_to_string(bench.path("files/count")).unwrap(), "600\n596\n4\n591\n");
    assert!(!bench.path("files/n/3").exists() && bench.path("files/n/599").exists());
    bench.build(&["-o", "type=oci,dest=out,tar=false,compression=uncompressed", context]).fine();
    let last = listed(&bench, "out", 601);
    insta::assert_snapshot!(last, @r"
    == layer 0
    file '4' 644 0:0 2 bytes
    file '591' 644 0:0 4 bytes
    file 'count' 644 0:0 4 bytes
    dir 'n' 755 0:0
    file 'n/.wh.3' 0 0:0 0 bytes
    file 'n/.wh.4' 0 0:0 0 bytes
    file 'n/.wh.590' 0 0:0 0 bytes
    file 'n/.wh.591' 0 0:0 0 bytes
    == layer 1
    file 'count' 644 0:0 14 bytes
    ");
}
