//! What people see of errors: every one with its lines, the place marked, what was expected, and a name that is near.

mod common;

use bricklayer_frontend::{Dockerfile, NamedContext, lower, render};
use common::{Images, options};
use insta::assert_snapshot;

fn errors_with(text: &str, options: &bricklayer_frontend::Options) -> String {
    let shown = |d| render(&d, "Dockerfile", text, false);
    match Dockerfile::parse(text.as_bytes()).and_then(|file| lower(&file, options, &Images)) {
        Ok(_) => "no error".to_owned(),
        Err(errors) => shown(errors),
    }
}

fn errors(text: &str) -> String {
    errors_with(text, &options())
}

#[test]
fn all_errors_of_a_file_are_told_at_once() {
    assert_snapshot!(errors("# escape=x\nRUN early\nFROM base AS 1st\nCOPPY a b\nCOPY --chwon=1 a /\nENV A=1 stray\nCMD [1]\nHEALTHCHECK --interval=30 CMD x\nONBUILD FROM x\nONBUILD RNU x\n"), @r"
    error: invalid escape character `x`
     --> Dockerfile:1:10
      |
    1 | # escape=x
      |          ^ expected \ or `

    error: RUN stands before the first FROM
     --> Dockerfile:2:1
      |
    2 | RUN early
      | ^^^ expected ARG or FROM

    error: `1st` can't be the name of a stage
     --> Dockerfile:3:14
      |
    3 | FROM base AS 1st
      |              ^^^ expected a letter, then letters, digits, `-`, `_` or `.`

    error: unknown instruction `COPPY`
     --> Dockerfile:4:1
      |
    4 | COPPY a b
      | ^^^^^ expected an instruction
      |
      = help: did you mean `COPY`?

    error: unknown flag `--chwon` for COPY
     --> Dockerfile:5:6
      |
    5 | COPY --chwon=1 a /
      |      ^^^^^^^^^ expected one of --chown, --chmod, --link, --exclude, --from, --parents
      |
      = help: did you mean `--chown`?

    error: `stray` has no `=`
     --> Dockerfile:6:9
      |
    6 | ENV A=1 stray
      |         ^^^^^ expected `name=value`
      |
      = help: put quotes around a value that has blanks

    error: the JSON form of CMD takes strings only
     --> Dockerfile:7:5
      |
    7 | CMD [1]
      |     ^^^ expected an array of strings
      |
      = help: put quotes around every element

    error: `30` is no duration
     --> Dockerfile:8:13
      |
    8 | HEALTHCHECK --interval=30 CMD x
      |             ^^^^^^^^^^^^^ expected a number and its unit, such as 30s or 1m30s

    error: FROM can't stand behind ONBUILD
     --> Dockerfile:9:9
      |
    9 | ONBUILD FROM x
      |         ^^^^ expected an instruction that a build can run later

    error: unknown instruction `RNU`
      --> Dockerfile:10:9
       |
    10 | ONBUILD RNU x
       |         ^^^ expected an instruction
       |
       = help: did you mean `RUN`?
    ");
}

#[test]
fn errors_of_lowering_do_not_hide_each_other() {
    assert_snapshot!(errors("FROM base\nLABEL a=\"open\nENV B=\"${x:?give x}\"\nEXPOSE 80x\nSTOPSIGNAL SIGTREM\nRUN --mount=type=cahce,target=/x y\nRUN --mount=tagret=/x y\nRUN --network=hots x\nRUN --network=host x\nRUN --security=insecure x\nRUN --device=a=b x\nCOPY --chmod=99 a /\nCOPY https://example.test/a /\nVOLUME $nope\n"), @r###"
    error: unterminated quote: expected a closing "
     --> Dockerfile:2:9
      |
    2 | LABEL a="open
      |         ^^^^^ this quote is never closed

    error: x: give x
     --> Dockerfile:3:8
      |
    3 | ENV B="${x:?give x}"
      |        ^^^^^^^^^^^^^ this variable must have a value

    error: EXPOSE can't use `80x`: `80x` is no port: expected a number up to 65535
     --> Dockerfile:4:8
      |
    4 | EXPOSE 80x
      |        ^^^ expected port[-port][/tcp|udp|sctp]

    error: `SIGTREM` is no signal
     --> Dockerfile:5:12
      |
    5 | STOPSIGNAL SIGTREM
      |            ^^^^^^^ expected a name such as SIGTERM, or a number
      |
      = help: did you mean `SIGTERM`?

    error: unknown mount type `cahce`
     --> Dockerfile:6:5
      |
    6 | RUN --mount=type=cahce,target=/x y
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected bind, cache, tmpfs, secret or ssh
      |
      = help: did you mean `cache`?

    error: unknown option `tagret` of a mount
     --> Dockerfile:7:5
      |
    7 | RUN --mount=tagret=/x y
      |     ^^^^^^^^^^^^^^^^^ expected a mount's option
      |
      = help: did you mean `target`?

    error: unknown network `hots`
     --> Dockerfile:8:5
      |
    8 | RUN --network=hots x
      |     ^^^^^^^^^^^^^^ expected default, none or host
      |
      = help: did you mean `host`?

    error: the host's network needs the entitlement network.host, which is not allowed
     --> Dockerfile:9:5
      |
    9 | RUN --network=host x
      |     ^^^^^^^^^^^^^^ not allowed
      |
      = help: allow it with `--allow network.host`

    error: a RUN without its sandbox's limits needs the entitlement security.insecure, which is not allowed
      --> Dockerfile:10:5
       |
    10 | RUN --security=insecure x
       |     ^^^^^^^^^^^^^^^^^^^ not allowed
       |
       = help: allow it with `--allow security.insecure`

    error: the device `a=b` can't be given to a RUN
      --> Dockerfile:11:5
       |
    11 | RUN --device=a=b x
       |     ^^^^^^^^^^^^ --device is not supported

    error: invalid --chmod `99`
      --> Dockerfile:12:6
       |
    12 | COPY --chmod=99 a /
       |      ^^^^^^^^^^ expected an octal number up to 07777, or a symbolic mode such as u=rwX,go=rX

    error: COPY can't take a URL as a source
      --> Dockerfile:13:6
       |
    13 | COPY https://example.test/a /
       |      ^^^^^^^^^^^^^^^^^^^^^^ expected a path
       |
       = help: use ADD

    error: the VOLUME `$nope` is empty
      --> Dockerfile:14:8
       |
    14 | VOLUME $nope
       |        ^^^^^ expected a path
    "###);
}

#[test]
fn a_place_in_a_continued_line_is_marked() {
    assert_snapshot!(errors("FROM base\nENV A=1 \\\n    # note\n    B=x${} \\\n    C=3\n"), @r"
    error: `${}` names no variable
     --> Dockerfile:4:8
      |
    4 |     B=x${} \
      |        ^^^ expected a name after `${`
    ");
}

#[test]
fn heredocs_that_never_end() {
    assert_snapshot!(errors("FROM base\nRUN cat <<EOF | sh\nsome text\n  EOF\n"), @r"
    error: unterminated heredoc: no line is `EOF`
     --> Dockerfile:2:9
      |
    2 | RUN cat <<EOF | sh
      |         ^^^^^ expected a line `EOF` before the end of the file
      |
      = note: the end marker stands alone on its line, without blanks before or behind it
    ");
}

#[test]
fn stages_and_images() {
    assert_snapshot!(errors("FROM base AS build\nFROM biuld\n"), @r"
    error: the image biuld is nowhere
     --> Dockerfile:2:6
      |
    2 | FROM biuld
      |      ^^^^^ neither a stage nor an image that can be had
      |
      = help: did you mean `build`?
    ");
    assert_snapshot!(errors("FROM Base\n"), @r"
    error: `Base` is neither a stage nor the name of an image
     --> Dockerfile:1:6
      |
    1 | FROM Base
      |      ^^^^
      |
      = help: names of images have lower-case letters only
    ");
    assert_snapshot!(errors("ARG TAG\nFROM $TAG\nFROM $TGA\nFROM $INSIDE\nARG INSIDE=1\n"), @r"
    error: the base `$TAG` is empty
     --> Dockerfile:2:6
      |
    2 | FROM $TAG
      |      ^^^^ expected an image, a stage, or `scratch`
      |
      = help: give it a value: `--build-arg TAG=…`

    error: the base `$TGA` is empty
     --> Dockerfile:3:6
      |
    3 | FROM $TGA
      |      ^^^^ expected an image, a stage, or `scratch`
      |
      = help: did you mean `$TAG`?

    error: the base `$INSIDE` is empty
     --> Dockerfile:4:6
      |
    4 | FROM $INSIDE
      |      ^^^^^^^ expected an image, a stage, or `scratch`
      |
      = help: FROM sees only what is declared before the first FROM: put `ARG INSIDE` there
    ");
    assert_snapshot!(errors("FROM base AS one\nCOPY --from=two /a /\nFROM base AS two\nFROM one\n"), @r"
    error: the stage `two` comes later than `one`, which uses it
     --> Dockerfile:2:6
      |
    2 | COPY --from=two /a /
      |      ^^^^^^^^^^ expected an earlier stage
    ");
    assert_snapshot!(errors("FROM base\nCOPY --from=7 /a /\n"), @r"
    error: there is no stage number 7
     --> Dockerfile:2:6
      |
    2 | COPY --from=7 /a /
      |      ^^^^^^^^ expected a number below 1
    ");
    assert_snapshot!(errors("FROM base\nARG s=x\nCOPY --from=$s /a /\nRUN --mount=from=$s,target=/x y\n"), @r"
    error: --from takes no variables
     --> Dockerfile:3:6
      |
    3 | COPY --from=$s /a /
      |      ^^^^^^^^^ expected the name or the number of a stage, an image, or a named context
      |
      = help: begin a stage with `FROM` and the variable, and copy from that stage

    error: `from` of a mount takes no variables
     --> Dockerfile:4:5
      |
    4 | RUN --mount=from=$s,target=/x y
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^ expected the name of a stage, an image, or a named context
      |
      = help: begin a stage with `FROM` and the variable, and mount from that stage
    ");
    assert_snapshot!(errors("FROM base AS one\nCOPY --from=onne /a /\n"), @r"
    error: the image onne is nowhere
     --> Dockerfile:2:6
      |
    2 | COPY --from=onne /a /
      |      ^^^^^^^^^^^ neither a stage nor an image that can be had
      |
      = help: did you mean `one`?
    ");
    let mut options = options();
    options.target = Some("relaese".to_owned());
    assert_snapshot!(errors_with("FROM base AS build\nFROM base AS release\n", &options), @r"
    error: the target stage `relaese` is not in the Dockerfile
     |
     = help: did you mean `release`?
    ");
}

#[test]
fn triggers_of_a_base() {
    assert_snapshot!(errors("FROM trigger\nRUN x\n"), @r###"
    error: missing: must be set
     --> Dockerfile:1:1
      |
    1 | FROM trigger
      | ^^^^^^^^^^^^ this base brings the instruction
      |
      = note: in its ONBUILD trigger `ENV a="${missing?must be set}"`

    error: EXPOSE can't use `none`: `none` is no port: expected a number up to 65535
     --> Dockerfile:1:1
      |
    1 | FROM trigger
      | ^^^^^^^^^^^^ this base brings the instruction
      |
      = note: in its ONBUILD trigger `EXPOSE none`
    "###);
}

#[test]
fn other_frontends() {
    assert_snapshot!(errors("# syntax=example/frontend:1\nFROM base\n"), @r"
    error: the frontend `example/frontend:1` can't be run
     --> Dockerfile:1:10
      |
    1 | # syntax=example/frontend:1
      |          ^^^^^^^^^^^^^^^^^^ expected docker/dockerfile, which is built in
      |
      = note: Dockerfiles are read by the builder itself; other frontends are programs that would have to be fetched and run
    ");
}

#[test]
fn nothing_to_build() {
    assert_snapshot!(errors(""), @r"error: the Dockerfile has no instructions");
    assert_snapshot!(errors("ARG a\n"), @r"error: the Dockerfile has no stage: FROM is missing");
}

#[test]
fn text_that_is_no_text() {
    let text = b"FROM base\n# caf\xe9 is fine\nENV A=caf\xe9\n";
    let error = Dockerfile::parse(text).unwrap_err();
    assert_snapshot!(render(&error, "Dockerfile", &String::from_utf8_lossy(text).replace('\u{fffd}', "?"), false), @r"
    error: the instruction is not UTF-8 text
     --> Dockerfile:3:10
      |
    3 | ENV A=caf?
      |          ^ byte 0xe9 is none of UTF-8
    ");
}

#[test]
fn sources_that_can_not_be_used() {
    assert_snapshot!(errors("FROM base\nADD https://me:pw@example.test/x /\nADD https://example.test/r.git?what=1 /\nADD --checksum=md5:x https://example.test/a /\nADD --checksum=sha256:00 a /\nCOPY a[ /\nCOPY --exclude=[ a /\nCOPY <<a/b /\nx\na/b\n"), @r"
    error: the URL `https://example.test/x` holds credentials
     --> Dockerfile:2:5
      |
    2 | ADD https://me:pw@example.test/x /
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: take them out of the URL; they are given as secrets

    error: the source `https://example.test/r.git?what=1` can't be used: the query of a git URL knows no `what`
     --> Dockerfile:3:5
      |
    3 | ADD https://example.test/r.git?what=1 /
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error: `md5:x` can't be checked
     --> Dockerfile:4:5
      |
    4 | ADD --checksum=md5:x https://example.test/a /
      |     ^^^^^^^^^^^^^^^^ expected sha256: and 64 hex digits

    error: --checksum is for URLs and git repositories
     --> Dockerfile:5:5
      |
    5 | ADD --checksum=sha256:00 a /
      |     ^^^^^^^^^^^^^^^^^^^^ `a` is neither

    error: `a[` is no pattern
     --> Dockerfile:6:6
      |
    6 | COPY a[ /
      |      ^^ a `[` is not closed, or a class is empty

    error: `[` is no pattern
     --> Dockerfile:7:6
      |
    7 | COPY --exclude=[ a /
      |      ^^^^^^^^^^^ expected a pattern as in .dockerignore

    error: the heredoc `a/b` can't be a file: its marker is no file name
     --> Dockerfile:8:6
      |
    8 | COPY <<a/b /
      |      ^^^^^ expected a marker without `/`
    ");
    let mut options = options();
    options.contexts = vec![("ctx".to_owned(), NamedContext::Remote("ftp://example.test/x".to_owned()))];
    assert_snapshot!(errors_with("FROM base\nCOPY --from=ctx a /\n", &options), @r"
    error: the context `ftp://example.test/x` can't be used: it is neither a git repository nor an HTTP address
     --> Dockerfile:2:6
      |
    2 | COPY --from=ctx a /
      |      ^^^^^^^^^^
    ");
}
