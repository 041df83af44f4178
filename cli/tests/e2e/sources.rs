//! Contexts that are not directories, and ADD of what lies elsewhere: with an HTTP server and a git daemon on loopback.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::servers::{GitServer, HttpServer, TlsServer, git, repository};
use crate::support::{Bench, Printed, tool};

/// Builds with a file on standard input.
fn build_from(bench: &Bench, input: &Path, args: &[&str]) -> Printed {
    let mut command = bench.command(&[&["build", "--progress", "plain"], args].concat());
    command.stdin(Stdio::from(fs::File::open(input).unwrap())).output().unwrap().into()
}

/// Directories that builds left in the store for temporary files.
fn leftovers(bench: &Bench) -> usize {
    fs::read_dir(bench.store().join("ingest")).unwrap().count()
}

#[test]
fn a_dockerfile_on_standard_input_has_no_context() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "FROM base\nRUN echo from-stdin\n").unwrap();
    let printed = build_from(&bench, &bench.path("file"), &["-"]).fine();
    assert!(printed.text.contains("from-stdin"), "{}", printed.text);

    fs::write(bench.path("copy"), "FROM base\nCOPY a /\n").unwrap();
    let printed = build_from(&bench, &bench.path("copy"), &["-"]);
    assert!(!printed.ok && printed.text.contains('a'), "{}", printed.text);

    let context = bench.context("context", &[("a", "beside\n")]);
    let printed = build_from(&bench, &bench.path("copy"), &["-f", "-", context.to_str().unwrap()]).fine();
    assert!(printed.text.contains("COPY a /"), "{}", printed.text);
}

#[test]
fn an_archive_on_standard_input_is_the_context() {
    let bench = Bench::new();
    let files = [
        ("Dockerfile", "FROM base\nCOPY a sub/b /\nRUN cat /a /b; stat -c 'owner %u' /a\n"),
        ("other/file", "FROM base\nRUN echo the other\n"),
        ("a", "text of a\n"),
        ("sub/b", "text of b\n"),
        (".dockerignore", "a\n"),
    ];
    let context = bench.context("context", &files);
    let context = context.to_str().unwrap();
    for (flags, name) in [("-cf", "plain"), ("-czf", "gzip"), ("-cjf", "bzip2"), ("-cJf", "xz")] {
        let archive = bench.path(name);
        tool("tar", &["-C", context, "--owner=7", flags, archive.to_str().unwrap(), "."]);
        let printed = build_from(&bench, &archive, &["--no-cache", "-"]).fine().text;
        for wanted in ["text of a", "text of b", "owner 0"] {
            assert!(printed.contains(wanted), "{name}: {printed}");
        }
    }
    let printed = build_from(&bench, &bench.path("gzip"), &["-"]).fine();
    assert!(!printed.text.contains("not cached"), "{}", printed.text);
    let printed = build_from(&bench, &bench.path("gzip"), &["-f", "other/file", "-"]).fine();
    assert!(printed.text.contains("the other"), "{}", printed.text);
    let printed = build_from(&bench, &bench.path("gzip"), &["-f", "missing", "-"]);
    assert!(!printed.ok && printed.text.contains("no missing in the archive"), "{}", printed.text);
    assert_eq!(leftovers(&bench), 0);
    // a directory that is gone has no index
    assert_eq!(fs::read_dir(bench.store().join("contexts")).map_or(0, Iterator::count), 0);
}

#[test]
fn links_of_an_archive_lead_nowhere_outside() {
    let bench = Bench::new();
    let context = bench.context("context", &[("a", "a\n")]);
    std::os::unix::fs::symlink("/etc/passwd", context.join("Dockerfile")).unwrap();
    let archive = bench.path("archive.tar");
    tool("tar", &["-C", context.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    let printed = build_from(&bench, &archive, &["-"]);
    assert!(!printed.ok && !printed.text.contains("root:"), "{}", printed.text);
    assert!(printed.text.contains("no Dockerfile in the archive"), "{}", printed.text);

    // broken in the middle: an error, not a Dockerfile
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, [&whole[..1024], b"FROM base\nRUN echo taken\n".repeat(40).as_slice()].concat())
        .unwrap();
    let printed = build_from(&bench, &archive, &["-"]);
    assert!(!printed.ok && !printed.text.contains("taken"), "{}", printed.text);
    assert_eq!(leftovers(&bench), 0);
}

#[test]
fn contexts_over_http() {
    let bench = Bench::new();
    let served = bench.path("served");
    let files =
        [("Dockerfile", "FROM base\nCOPY a /\nRUN cat /a\n"), ("a", "from afar\n"), (".dockerignore", "a\n")];
    let context = bench.context("context", &files);
    fs::create_dir(&served).unwrap();
    let archive = served.join("ctx.tar.gz");
    tool("tar", &["-C", context.to_str().unwrap(), "-czf", archive.to_str().unwrap(), "."]);
    fs::write(served.join("file"), "FROM base\nRUN echo a lone file\n").unwrap();
    let server = HttpServer::start(&served, None);

    let printed = bench.build(&[&server.url("ctx.tar.gz")]).fine();
    assert!(printed.text.contains("from afar"), "{}", printed.text);
    let again = bench.build(&[&server.url("ctx.tar.gz")]).fine();
    assert!(!again.text.contains("not cached"), "{}", again.text);
    // one download a build, though both the Dockerfile and COPY need it
    assert_eq!(server.requests().iter().filter(|r| r.contains("ctx.tar.gz")).count(), 2);

    let printed = bench.build(&[&server.url("file")]).fine();
    assert!(printed.text.contains("a lone file"), "{}", printed.text);
    let printed = bench.build(&["-f", "x", &server.url("file")]);
    assert!(!printed.ok && printed.text.contains("no archive that could hold `x`"), "{}", printed.text);
    let printed = bench.build(&[&server.url("missing")]);
    assert!(!printed.ok && printed.text.contains("404"), "{}", printed.text);
}

#[test]
fn a_repository_is_the_context() {
    let bench = Bench::new();
    let files = [
        ("Dockerfile", "FROM base\nCOPY a /\nRUN cat /a\n"),
        ("a", "at the top\n"),
        ("sub/Dockerfile", "FROM base\nCOPY a /\nRUN cat /a\n"),
        ("sub/a", "further down\n"),
        ("sub/.dockerignore", "a\n"),
    ];
    let repo = repository(&bench, "app", &files);
    git(&repo, &["tag", "-a", "-m", "one", "v1"]);
    let server = GitServer::start(&bench);
    let url = server.url("app");

    let printed = bench.build(&[&url]).fine();
    assert!(printed.text.contains("at the top"), "{}", printed.text);
    let printed = bench.build(&[&format!("{url}#:sub")]).fine();
    assert!(printed.text.contains("further down"), "{}", printed.text);

    fs::write(repo.join("a"), "at the top, later\n").unwrap();
    git(&repo, &["commit", "-qam", "two"]);
    let printed = bench.build(&[&url]).fine();
    assert!(printed.text.contains("at the top, later"), "{}", printed.text);
    // another name for the first commit
    let printed = bench.build(&[&format!("{url}#v1")]).fine();
    let (steps, cached) = printed.steps();
    assert_eq!(steps, cached, "{}", printed.text);
    let printed = bench.build(&["-f", "sub/Dockerfile", "--no-cache", &format!("{url}?tag=v1")]).fine();
    assert!(printed.text.contains("at the top\n"), "{}", printed.text);

    let printed = bench.build(&[&format!("{url}#nowhere")]);
    assert!(!printed.ok && printed.text.contains("no branch, tag or ref `nowhere`"), "{}", printed.text);
    assert_eq!(leftovers(&bench), 0);
}

#[test]
fn add_of_urls() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("a.txt"), "over http\n").unwrap();
    let inside = bench.context("inside", &[("in/side", "unpacked\n")]);
    let archive = served.join("x.tar.gz");
    tool("tar", &["-C", inside.to_str().unwrap(), "-czf", archive.to_str().unwrap(), "in"]);
    let server = HttpServer::start(&served, None);
    let sum = tool("sha256sum", &[served.join("a.txt").to_str().unwrap()]);
    let sum = sum.split(' ').next().unwrap();
    let (text, packed) = (server.url("a.txt?x=y/z"), server.url("x.tar.gz"));
    let dockerfile = format!(
        "FROM base\n\
         ADD {text} /dir/\n\
         ADD --checksum=sha256:{sum} {text} /name\n\
         ADD --chmod=755 --chown=3:4 {text} /mode\n\
         ADD {packed} /packed/\n\
         ADD --unpack {packed} /unpacked/\n\
         RUN stat -c 'is %n %a %u:%g %Y' /dir/a.txt /name /mode /packed/x.tar.gz; cat /unpacked/in/side\n"
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let printed = bench.build(&[context]).fine().text;
    // the server says that all of it is of 2 January 2006, 22:04:05
    for wanted in [
        "is /dir/a.txt 600 0:0 1136239445",
        "is /name 600 0:0 1136239445",
        "is /mode 755 3:4 1136239445",
        "is /packed/x.tar.gz 600 0:0 1136239445",
        "unpacked",
    ] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    let again = bench.build(&[context]).fine().text;
    assert!(!again.contains("not cached"), "{again}");
    fs::write(served.join("a.txt"), "over http, later\n").unwrap();
    let changed = bench.build(&[context]).fine().text;
    assert!(changed.contains("changed: a.txt"), "{changed}");

    let wrong = format!("FROM base\nADD --checksum=sha256:{} {text} /x\n", "0".repeat(64));
    let context = bench.context("wrong", &[("Dockerfile", &wrong)]);
    let printed = bench.build(&[context.to_str().unwrap()]);
    assert!(!printed.ok && printed.text.contains("was expected"), "{}", printed.text);
}

#[test]
fn secrets_open_what_is_closed() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("a.txt"), "not for everybody\n").unwrap();
    let repo = repository(&bench, "closed", &[("b", "nor this\n")]);
    tool(
        "git",
        &["clone", "-q", "--bare", repo.to_str().unwrap(), served.join("closed.git").to_str().unwrap()],
    );
    git(&served.join("closed.git"), &["update-server-info"]);

    // what `x-access-token:hush` is in base 64
    let server = HttpServer::start(&served, Some("Basic eC1hY2Nlc3MtdG9rZW46aHVzaA=="));
    let dockerfile = format!(
        "FROM base\nADD {} /\nADD {} /repo/\nRUN cat /a.txt /repo/b\n",
        server.url("a.txt"),
        server.url("closed.git")
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let printed = bench.build(&[context]);
    assert!(!printed.ok, "{}", printed.text);

    fs::write(bench.path("header"), "Basic eC1hY2Nlc3MtdG9rZW46aHVzaA==\n").unwrap();
    fs::write(bench.path("token"), "hush\n").unwrap();
    let header = format!("id=HTTP_AUTH_HEADER_{},src=header", server.address);
    let token = format!("id=GIT_AUTH_TOKEN.{},src=token", server.address);
    let printed = bench.build(&["--secret", &header, "--secret", &token, context]).fine().text;
    assert!(printed.contains("not for everybody") && printed.contains("nor this"), "{printed}");
    assert!(!printed.contains("hush") && !printed.contains("eC1hY2"), "{printed}");
}

#[test]
fn add_of_repositories() {
    let bench = Bench::new();
    let repo = repository(&bench, "lib", &[("a", "one\n"), ("dir/b", "in dir\n"), ("run", "#!/bin/sh\n")]);
    git(&repo, &["update-index", "--chmod=+x", "run"]);
    git(&repo, &["commit", "-qm", "mode"]);
    let first = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["tag", "v1"]);
    git(&repo, &["checkout", "-qfb", "side"]);
    fs::write(repo.join("a"), "two\n").unwrap();
    git(&repo, &["commit", "-qam", "two"]);
    git(&repo, &["checkout", "-qf", "main"]);
    let server = GitServer::start(&bench);
    let url = server.url("lib");
    let short = &first[..12];
    let dockerfile = format!(
        "FROM base\n\
         ADD {url} /head\n\
         ADD {url}#side /branch\n\
         ADD {url}?tag=v1&checksum={short} /tag\n\
         ADD --checksum={first} {url}#{first} /commit\n\
         ADD {url}#main:dir /dir\n\
         ADD --keep-git-dir {url} /kept\n\
         RUN for i in head branch tag commit; do echo $i $(cat /$i/a); done; cat /dir/b; \\\n\
             stat -c 'is %n %a %u:%g' /head/a /head/run; \\\n\
             test -d /kept/.git && test ! -e /head/.git && echo as it should be\n"
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let printed = bench.build(&[context]).fine().text;
    for wanted in [
        "head one",
        "branch two",
        "tag one",
        "commit one",
        "in dir",
        "is /head/a 644 0:0",
        "is /head/run 755 0:0",
        "as it should be",
    ] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    let again = bench.build(&[context]).fine().text;
    assert!(!again.contains("not cached"), "{again}");

    let wrong = format!("FROM base\nADD --checksum={} {url} /x\n", "0".repeat(40));
    let context = bench.context("wrong", &[("Dockerfile", &wrong)]);
    let printed = bench.build(&[context.to_str().unwrap()]);
    assert!(!printed.ok && printed.text.contains("was expected"), "{}", printed.text);
}

#[test]
fn submodules_come_over_the_network_only() {
    let bench = Bench::new();
    let inner = repository(&bench, "inner", &[("i", "of the submodule\n")]);
    let outer = repository(&bench, "outer", &[("o", "o\n")]);
    let evil = repository(&bench, "evil", &[("e", "e\n")]);
    let server = GitServer::start(&bench);
    git(&outer, &["-c", "protocol.git.allow=always", "submodule", "add", "-q", &server.url("inner"), "sub"]);
    git(&outer, &["commit", "-qm", "submodule"]);
    let local = format!("file://{}", inner.display());
    git(&evil, &["-c", "protocol.file.allow=always", "submodule", "add", "-q", &local, "sub"]);
    git(&evil, &["commit", "-qm", "submodule"]);

    let build = |name: &str, url: String| {
        let dockerfile = format!("FROM base\nADD {url} /x\nRUN cat /x/sub/i || echo no submodule\n");
        let context = bench.context(name, &[("Dockerfile", &dockerfile)]);
        bench.build(&[context.to_str().unwrap()])
    };
    let printed = build("good", server.url("outer")).fine().text;
    assert!(printed.contains("of the submodule"), "{printed}");
    let printed = build("without", server.url("outer?submodules=false")).fine().text;
    assert!(printed.contains("no submodule"), "{printed}");
    let printed = build("bad", server.url("evil"));
    assert!(!printed.ok && !printed.text.contains("of the submodule"), "{}", printed.text);
    assert!(printed.text.contains("'file' not allowed"), "{}", printed.text);
}

#[test]
fn a_subdirectory_of_a_repository_is_no_link() {
    let bench = Bench::new();
    let repo = repository(&bench, "links", &[("a", "a\n")]);
    std::os::unix::fs::symlink("/", repo.join("proj")).unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "link"]);
    let server = GitServer::start(&bench);
    let dockerfile = format!("FROM base\nADD {}#main:proj/etc /x\n", server.url("links"));
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let printed = bench.build(&[context.to_str().unwrap()]);
    assert!(!printed.ok, "{}", printed.text);
    assert!(printed.text.contains("is not a directory of the repository"), "{}", printed.text);
}

#[test]
fn a_dockerfile_by_url() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("Dockerfile.x"), "FROM base\nCOPY . /all/\nRUN ls /all; cat /all/a\n").unwrap();
    fs::write(served.join("broken"), "FROM base\nCOPPY a /\n").unwrap();
    let server = HttpServer::start(&served, None);
    let context =
        bench.context("context", &[("a", "from the directory\n"), ("b", ""), (".dockerignore", "b\n")]);
    let url = server.url("Dockerfile.x");
    let printed = bench.build(&["-f", &url, context.to_str().unwrap()]).fine().text;
    assert!(printed.contains("from the directory") && !printed.contains(" b\n"), "{printed}");
    let printed = bench.build(&["-f", &server.url("broken"), context.to_str().unwrap()]);
    assert!(
        !printed.ok && printed.text.contains("broken:2") && printed.text.contains("COPY"),
        "{}",
        printed.text
    );
    let printed = bench.build(&["-f", &server.url("missing"), context.to_str().unwrap()]);
    assert!(!printed.ok && printed.text.contains("404"), "{}", printed.text);
    let printed = bench.build(&["-f", "https://example.test/a.git", context.to_str().unwrap()]);
    assert_eq!(printed.code, Some(2), "{}", printed.text);

    // also with a context that is none of this machine's directories
    let archive = served.join("context.tar");
    tool("tar", &["-C", context.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "a"]);
    let printed = bench.build(&["-f", &url, &server.url("context.tar")]).fine().text;
    assert!(printed.contains("from the directory"), "{printed}");
    let printed = build_from(&bench, &archive, &["-f", &url, "-"]).fine().text;
    assert!(!printed.contains("not cached: changed"), "{printed}");
}

#[test]
fn what_has_not_changed_is_not_downloaded_again() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("a.txt"), "first\n").unwrap();
    let server = HttpServer::start(&served, None);
    let dockerfile = format!("FROM base\nADD {} /\nRUN cat /a.txt\n", server.url("a.txt"));
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let statuses = || -> Vec<String> {
        server.requests().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    bench.build(&[context]).fine();
    let again = bench.build(&[context]).fine().text;
    assert!(!again.contains("not cached"), "{again}");
    assert_eq!(statuses(), ["200", "304"]);
    // the server's word is not enough for a step that needs the bytes
    bench.run(&["prune", "--all"]).fine();
    bench.run(&["load", "-i", crate::support::base_archive().to_str().unwrap()]).fine();
    let printed = bench.build(&[context]).fine().text;
    assert!(printed.contains("first"), "{printed}");
    fs::write(served.join("a.txt"), "second\n").unwrap();
    let printed = bench.build(&[context]).fine().text;
    assert!(printed.contains("second"), "{printed}");
    assert_eq!(statuses().last().unwrap(), "200");

    // a checksum needs no question at all
    let sum = tool("sha256sum", &[served.join("a.txt").to_str().unwrap()]);
    let sum = sum.split(' ').next().unwrap();
    let dockerfile = format!("FROM base\nADD --checksum=sha256:{sum} {} /\n", server.url("a.txt"));
    let context = bench.context("sum", &[("Dockerfile", &dockerfile)]);
    bench.build(&[context.to_str().unwrap()]).fine();
    let before = server.requests().len();
    let again = bench.build(&[context.to_str().unwrap()]).fine().text;
    assert!(!again.contains("not cached"), "{again}");
    assert_eq!(server.requests().len(), before);
}

#[test]
fn repositories_by_commit_and_with_its_time() {
    let bench = Bench::new();
    let repo = repository(&bench, "lib", &[("a", "one\n"), ("dir/b", "b\n")]);
    let first = git(&repo, &["rev-parse", "HEAD"]);
    let time = git(&repo, &["show", "--no-patch", "--format=%ct", "HEAD"]);
    fs::write(repo.join("a"), "two\n").unwrap();
    git(&repo, &["commit", "-qam", "two"]);
    let server = GitServer::start(&bench);
    let url = server.url("lib");
    let dockerfile = format!(
        "FROM base\n\
         ADD {url}?mtime=commit&checksum={first}&ref={first} /timed\n\
         ADD {url}?branch=main&checksum={first}&fetch-by-commit=true /first\n\
         RUN cat /first/a; stat -c 'is %n %Y' /timed/a /timed/dir /timed/dir/b\n"
    );
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let printed = bench.build(&[context.to_str().unwrap()]).fine().text;
    for wanted in [
        "one",
        &format!("is /timed/a {time}"),
        &format!("is /timed/dir {time}"),
        &format!("is /timed/dir/b {time}"),
    ] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    for (query, wanted) in [
        ("?fetch-by-commit=true".to_owned(), "needs a whole commit"),
        (format!("?checksum={}&fetch-by-commit=1", &first[..10]), "needs a whole commit"),
        (format!("#{}", &first[..10]), "all its 40 hex digits"),
    ] {
        let context = bench.context("bad", &[("Dockerfile", &format!("FROM base\nADD {url}{query} /x\n"))]);
        let printed = bench.build(&[context.to_str().unwrap()]);
        assert!(!printed.ok && printed.text.contains(wanted), "{query}: {}", printed.text);
    }
}

#[test]
fn proxies_of_the_environment_fetch_files() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("a.txt"), "by way of the proxy\n").unwrap();
    let proxy = HttpServer::start(&served, None);
    let dockerfile = "FROM base\nADD http://nowhere.test/a.txt /\nRUN cat /a.txt\n";
    let context = bench.context("context", &[("Dockerfile", dockerfile)]);
    let build = |name: &str, value: &str| -> Printed {
        let mut command = bench.command(&["build", "--progress", "plain", context.to_str().unwrap()]);
        command.env(name, value).output().unwrap().into()
    };
    let address = proxy.url("");
    let printed = build("HTTP_PROXY", &address).fine().text;
    assert!(printed.contains("by way of the proxy"), "{printed}");
    assert_eq!(proxy.requests(), ["GET http://nowhere.test/a.txt HTTP/1.1 200"]);
    // the names that curl and others use as well
    build("http_proxy", &address).fine();
    assert_eq!(proxy.requests().len(), 2);
    let printed = bench.build(&["--build-arg", &format!("HTTP_PROXY={address}"), context.to_str().unwrap()]);
    assert!(printed.ok && proxy.requests().len() == 3, "{}", printed.text);
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let bench = Bench::new();
    let served = bench.path("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("a.txt"), "over tls\n").unwrap();
    let server = TlsServer::files(&bench, &served);
    let proxy = HttpServer::start(&served, None);
    let dockerfile = format!("FROM base\nADD https://{}/a.txt /\nRUN cat /a.txt\n", server.address());
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let proxy_url = proxy.url("");
    let with = |args: &[&str], authority: Option<&Path>| -> Printed {
        let mut command = bench.command(args);
        command.env("HTTPS_PROXY", &proxy_url);
        command.envs(authority.map(|path| ("SSL_CERT_FILE", path))).output().unwrap().into()
    };
    let build = ["build", "--progress", "plain", context];
    let printed = with(&build, None);
    assert!(!printed.ok && printed.text.to_lowercase().contains("certificate"), "{}", printed.text);
    let printed = with(&build, Some(&server.authority)).fine().text;
    assert!(printed.contains("over tls"), "{printed}");
    assert!(proxy.requests().iter().all(|line| line.starts_with("CONNECT registry.test:")));

    let registry = TlsServer::registry(&bench);
    let image = format!("{}/app:1", registry.address());
    let context = bench.context("plain", &[("Dockerfile", "FROM base\nRUN echo x >/x\n")]);
    let push = ["build", "--progress", "plain", "-t", &image, "--push", context.to_str().unwrap()];
    let printed = with(&push, None);
    assert!(!printed.ok && printed.text.to_lowercase().contains("certificate"), "{}", printed.text);
    with(&push, Some(&registry.authority)).fine();
    bench.run(&["rmi", &image]).fine();
    with(&["pull", &image], Some(&registry.authority)).fine();
}
