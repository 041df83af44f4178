use clap::Parser;

use super::super::args::{Cli, Command};
use super::*;

/// Flags, in a directory that holds `ctx/Dockerfile`, `ctx2/Containerfile`, `secret` and `big`.
struct House {
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for folder in ["ctx", "ctx2", "empty", "lower"] {
            std::fs::create_dir(path.join(folder)).unwrap();
        }
        std::fs::write(path.join("ctx/Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(path.join("lower/dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(path.join("ctx2/Containerfile"), "FROM scratch\n").unwrap();
        std::fs::write(path.join("secret"), "hush").unwrap();
        std::fs::write(path.join("big"), vec![0; 500 * 1024 + 1]).unwrap();
        Self { directory }
    }

    fn asked(&self, flags: &[&str], variables: &[(&str, &str)], stdin: &[u8]) -> Result<Asked, Usage> {
        let mut line = vec!["bricklayer", "build"];
        line.extend(flags);
        let Command::Build(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not a build") };
        request(&args, &Environment::fake(self.directory.path(), variables, stdin))
    }

    fn ok(&self, flags: &[&str]) -> BuildRequest {
        self.asked(flags, &[("FROM_ENV", "value"), ("TOKEN", "t0k")], b"").unwrap().request
    }

    /// The message, its causes and its hint, with the folder's name taken out.
    fn wrong(&self, flags: &[&str], stdin: &[u8]) -> String {
        let usage = self.asked(flags, &[], stdin).unwrap_err();
        let mut text = usage.to_string();
        let mut source = std::error::Error::source(&usage);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        if let Some(hint) = usage.hint_text() {
            text += &format!("\n    hint: {hint}");
        }
        text.replace(&self.directory.path().display().to_string(), "DIR")
    }
}

#[test]
fn everyday_flags_are_understood() {
    let house = House::new();
    let request = house.ok(&[
        "-t",
        "app",
        "--tag",
        "r.example/app:1",
        "--target",
        "prod",
        "--build-arg",
        "A=1",
        "--build-arg",
        "B=x=y",
        "--build-arg",
        "FROM_ENV",
        "--build-arg",
        "UNSET",
        "--label",
        "l=v",
        "--label",
        "bare",
        "--platform",
        "linux/arm64/v8",
        "--no-cache-filter",
        "a,b",
        "--pull",
        "--jobs",
        "3",
        "--secret",
        "id=s,src=secret",
        "--secret",
        "id=TOKEN",
        "--secret",
        "id=t2,env=TOKEN",
        "--allow",
        "network.host,security.insecure",
        "--network",
        "none",
        "--add-host",
        "db:192.0.2.1",
        "--shm-size",
        "128m",
        "--ulimit",
        "nofile=10:20",
        "--cgroup-parent",
        "/x",
        "-m",
        "512m",
        "--memory-swap",
        "1g",
        "--cpu-quota",
        "50000",
        "-c",
        "512",
        "--cpuset-cpus",
        "0-1",
        "--pids-limit",
        "100",
        "--build-context",
        "c=ctx2",
        "--build-context",
        "i=docker-image://alpine",
        "--build-context",
        "g=https://example.com/x.git",
        "ctx",
    ]);
    assert_eq!(request.tags, ["app", "r.example/app:1"]);
    assert_eq!(request.target.as_deref(), Some("prod"));
    let args: Vec<_> = request.build_args.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
    assert_eq!(args, [("A", Some("1")), ("B", Some("x=y")), ("FROM_ENV", Some("value")), ("UNSET", None)]);
    assert_eq!(request.labels, [("l".into(), "v".into()), ("bare".into(), String::new())]);
    assert_eq!(request.platform.unwrap().to_string(), "linux/arm64");
    assert_eq!(request.no_cache_filter, ["a", "b"]);
    assert_eq!(request.pull, PullPolicy::Always);
    assert_eq!(request.jobs, Some(3));
    let secrets: Vec<_> = request.secrets.iter().map(|s| (s.id.as_str(), s.value.as_slice())).collect();
    assert_eq!(secrets, [("s", &b"hush"[..]), ("TOKEN", b"t0k"), ("t2", b"t0k")]);
    assert_eq!(request.entitlements, [Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
    assert_eq!(request.network, Network::None);
    assert_eq!(request.extra_hosts, [("db".into(), "192.0.2.1".into())]);
    assert_eq!(request.shm_size, Some(128 << 20));
    assert_eq!(request.ulimits, [("nofile".into(), 10, 20)]);
    let limits = request.limits;
    assert_eq!((limits.memory, limits.memory_swap), (Some(512 << 20), Some(1 << 30)));
    assert_eq!(
        (limits.cpu_quota, limits.cpu_shares, limits.pids),
        (Some((50_000, 100_000)), Some(512), Some(100))
    );
    assert!(matches!(&request.contexts[0].1, NamedContextSource::Directory(p) if p.ends_with("ctx2")));
    assert!(matches!(&request.contexts[1].1, NamedContextSource::Image(i) if i == "alpine"));
    assert!(matches!(&request.contexts[2].1, NamedContextSource::Remote(_)));
}

#[test]
fn resource_is_the_same_as_the_flags() {
    let house = House::new();
    let a = house.ok(&[
        "--resource",
        "memory=512m,cpu-quota=50000,cpu-period=20000",
        "--resource",
        "cpuset-cpus=0",
        "ctx",
    ]);
    let b = house.ok(&[
        "--memory",
        "512m",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "20000",
        "--cpuset-cpus",
        "0",
        "ctx",
    ]);
    assert_eq!(a.limits, b.limits);
}

#[test]
fn the_dockerfile_is_found_as_docker_finds_it() {
    let house = House::new();
    let file = |flags: &[&str]| match house.ok(flags).dockerfile {
        DockerfileSource::File(path) => path.display().to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(file(&["ctx"]), "ctx/Dockerfile");
    assert_eq!(file(&["lower"]), "lower/dockerfile");
    assert_eq!(file(&["-f", "ctx2/Containerfile", "ctx"]), "ctx2/Containerfile");
    assert_eq!(file(&["https://example.com/a.git#main"]), "InContext");
    assert_eq!(
        file(&["-f", "sub/Dockerfile", "https://example.com/a.git"]),
        r#"PathInContext("sub/Dockerfile")"#
    );
}

#[test]
fn standard_input_is_a_dockerfile_or_a_tar() {
    let house = House::new();
    let asked = house.asked(&["-"], &[], b"FROM scratch\n").unwrap().request;
    assert!(matches!(asked.context, Context::Empty));
    assert!(matches!(asked.dockerfile, DockerfileSource::Text(text) if text == "FROM scratch\n"));

    let long = "# comment\n".repeat(1000) + "FROM scratch\n";
    let asked = house.asked(&["-"], &[], long.as_bytes()).unwrap().request;
    assert!(matches!(asked.dockerfile, DockerfileSource::Text(text) if text == long));

    let mut tar = vec![0; 2048];
    tar[257..262].copy_from_slice(b"ustar");
    tar[2047] = 7;
    let asked = house.asked(&["-f", "x/Dockerfile", "-"], &[], &tar).unwrap().request;
    assert!(matches!(&asked.dockerfile, DockerfileSource::PathInContext(path) if path == "x/Dockerfile"));
    let Context::Tar(reader) = asked.context else { panic!("not a tar") };
    let mut all = Vec::new();
    reader.0.lock().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, tar, "the bytes that were looked at are not lost");

    let asked = house.asked(&["-f", "-", "ctx2"], &[], b"FROM scratch\n").unwrap().request;
    assert!(matches!(asked.context, Context::Directory(_)));
    assert!(matches!(asked.dockerfile, DockerfileSource::Text(_)));
}

#[test]
fn source_date_epoch_comes_from_the_flag_or_the_environment() {
    let house = House::new();
    let epoch = |flags: &[&str]| house.asked(flags, &[("SOURCE_DATE_EPOCH", "17")], b"").unwrap().request;
    let request = epoch(&["ctx"]);
    assert_eq!(request.source_date_epoch, Some(17));
    assert_eq!(request.build_args, [("SOURCE_DATE_EPOCH".into(), Some("17".into()))]);
    assert_eq!(epoch(&["--build-arg", "SOURCE_DATE_EPOCH=5", "ctx"]).source_date_epoch, Some(5));
    assert_eq!(house.asked(&["ctx"], &[], b"").unwrap().request.source_date_epoch, None);
}

#[test]
fn proxies_come_from_dockers_configuration_and_build_args() {
    let house = House::new();
    let config = r#"{"auths":{},"proxies":{"default":{"httpProxy":"http://c:1","noProxy":"localhost"}}}"#;
    std::fs::write(house.directory.path().join("config.json"), config).unwrap();
    let variables = [("DOCKER_CONFIG", "."), ("HTTP_PROXY", "http://not-for-run:1")];
    let asked = house.asked(&["--build-arg", "http_proxy=http://b:2", "ctx"], &variables, b"").unwrap();
    let mut proxy = asked.request.proxy;
    proxy.sort();
    let proxy: Vec<_> = proxy.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(
        proxy,
        ["HTTP_PROXY=http://c:1", "NO_PROXY=localhost", "http_proxy=http://b:2", "no_proxy=localhost"]
    );
}

#[test]
fn an_ssh_agent_is_a_socket() {
    let house = House::new();
    let socket = house.directory.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let asked = house
        .asked(&["--ssh", "default", "--ssh", "k=agent", "ctx"], &[("SSH_AUTH_SOCK", "agent")], b"")
        .unwrap();
    let agents: Vec<_> = asked.request.ssh.iter().map(|a| (a.id.as_str(), a.socket.as_path())).collect();
    assert_eq!(agents, [("default", socket.as_path()), ("k", socket.as_path())]);
}

#[test]
fn wrong_flags_are_explained() {
    let house = House::new();
    let cases: &[(&[&str], &[u8])] = &[
        (&["nowhere"], b""),
        (&[""], b""),
        (&["secret"], b""),
        (&["empty"], b""),
        (&["ctx2"], b""),
        (&["-f", "Dockerfile", "ctx"], b""),
        (&["-f", "nothing", "ctx"], b""),
        (&["-f", "ctx", "ctx"], b""),
        (&["-f", "-", "-"], b""),
        (&["-"], b""),
        (&["-f", "x", "-"], b"FROM scratch"),
        (&["--build-arg", "=x", "ctx"], b""),
        (&["--build-arg", "SOURCE_DATE_EPOCH=yesterday", "ctx"], b""),
        (&["--label", "=x", "ctx"], b""),
        (&["--platform", "linux/amd64,linux/arm64", "ctx"], b""),
        (&["--platform", "nosuch", "ctx"], b""),
        (&["--pull=sometimes", "ctx"], b""),
        (&["--network", "hots", "ctx"], b""),
        (&["--allow", "network.hosts", "ctx"], b""),
        (&["--push", "ctx"], b""),
        (&["--jobs", "0", "ctx"], b""),
        (&["--secret", "src=secret", "ctx"], b""),
        (&["--secret", "id=a,scr=secret", "ctx"], b""),
        (&["--secret", "id=a,src=none", "ctx"], b""),
        (&["--secret", "id=a,env=NONE", "ctx"], b""),
        (&["--secret", "id=a,src=big", "ctx"], b""),
        (&["--secret", "id=a,src=x,env=y", "ctx"], b""),
        (&["--ssh", "default", "ctx"], b""),
        (&["--ssh", "k=secret", "ctx"], b""),
        (&["--build-context", "x", "ctx"], b""),
        (&["--build-context", "x=alpine", "ctx"], b""),
        (&["--build-context", "x=target:y", "ctx"], b""),
        (&["--memory-swap", "1g", "ctx"], b""),
        (&["--cpu-quota", "10", "ctx"], b""),
        (&["--cpu-shares", "1", "ctx"], b""),
        (&["--cpuset-cpus", "all", "ctx"], b""),
        (&["--resource", "mem=1", "ctx"], b""),
        (&["--annotation", "index:a=b", "ctx"], b""),
        (&["--cache-from", "x", "ctx"], b""),
        (&["--load", "ctx"], b""),
        (&["--provenance", "ctx"], b""),
        (&["--sbom=true", "ctx"], b""),
        (&["--rm=false", "ctx"], b""),
        (&["--squash", "ctx"], b""),
    ];
    let shown: Vec<String> = cases
        .iter()
        .map(|(flags, stdin)| format!("{}\n  {}", flags.join(" "), house.wrong(flags, stdin)))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    nowhere
      cannot read the context `nowhere`: No such file or directory (os error 2)

      the context is empty
        hint: `.` is the current directory
    secret
      the context `secret` is not a directory
        hint: a Dockerfile is named with -f: build -f secret .
    empty
      there is no Dockerfile in `empty`
        hint: name it with -f FILE
    ctx2
      there is no Dockerfile in `ctx2`
        hint: name it: -f ctx2/Containerfile
    -f Dockerfile ctx
      cannot read the Dockerfile `Dockerfile`: No such file or directory (os error 2)
        hint: -f counts from the current directory: -f ctx/Dockerfile
    -f nothing ctx
      cannot read the Dockerfile `nothing`: No such file or directory (os error 2)
    -f ctx ctx
      -f `ctx` is a directory
        hint: such as -f ctx/Dockerfile
    -f - -
      both the context and the Dockerfile are to come from standard input
    -
      standard input is empty, but the context `-` is to be read from it
    -f x -
      -f `x`: standard input is no tar archive that could hold it
    --build-arg =x ctx
      --build-arg `=x` has no name
    --build-arg SOURCE_DATE_EPOCH=yesterday ctx
      SOURCE_DATE_EPOCH `yesterday` is not a number
        hint: seconds since 1970, such as the output of `git log -1 --format=%ct`
    --label =x ctx
      --label `=x` has no name
    --platform linux/amd64,linux/arm64 ctx
      --platform `linux/amd64,linux/arm64`: building for several platforms at once is not supported yet
    --platform nosuch ctx
      --platform: `nosuch` is not a platform: expected os/architecture, such as linux/arm64
    --pull=sometimes ctx
      --pull `sometimes` is no policy
        hint: known: always, missing, never
    --network hots ctx
      --network `hots` is no network
        hint: did you mean `host`?
    --allow network.hosts ctx
      --allow `network.hosts` is no entitlement
        hint: did you mean `network.host`?
    --push ctx
      there is no name to push the image under
        hint: give it one with -t
    --jobs 0 ctx
      --jobs 0: at least one step must be able to run
    --secret src=secret ctx
      --secret `src=secret`: the id is missing
    --secret id=a,scr=secret ctx
      --secret `id=a,scr=secret`: there is no key `scr`
        hint: did you mean `src`?
    --secret id=a,src=none ctx
      --secret `id=a,src=none`: cannot read `none`: No such file or directory (os error 2)
    --secret id=a,env=NONE ctx
      --secret `id=a,env=NONE`: the environment variable `NONE` is not set
    --secret id=a,src=big ctx
      --secret `id=a,src=big`: a secret may not be larger than 500 KiB
    --secret id=a,src=x,env=y ctx
      --secret `id=a,src=x,env=y`: src and env exclude each other
    --ssh default ctx
      --ssh `default`: SSH_AUTH_SOCK is not set
        hint: start an agent: eval $(ssh-agent) && ssh-add, or name a key: --ssh NAME=FILE
    --ssh k=secret ctx
      --ssh `k=secret`: `DIR/secret` is neither an agent's socket nor a private key
    --build-context x ctx
      --build-context `x` is not NAME=VALUE
    --build-context x=alpine ctx
      --build-context `x=alpine`: cannot read `alpine`: No such file or directory (os error 2)
        hint: an image is written docker-image://REF, a layout oci-layout://DIR[:TAG]
    --build-context x=target:y ctx
      --build-context `x=target:y` is not supported yet
    --memory-swap 1g ctx
      --memory-swap `1g` is memory and swap together
        hint: it needs --memory, and must not be less
    --cpu-quota 10 ctx
      --cpu-quota 10 in --cpu-period 100000
        hint: the quota is at least 1000, the period 1000 to 1000000 microseconds
    --cpu-shares 1 ctx
      --cpu-shares 1 is not between 2 and 262144
    --cpuset-cpus all ctx
      --cpuset-cpus `all` is not a list such as 0-3,7
    --resource mem=1 ctx
      --resource `mem=1`: there is no limit `mem`
        hint: known: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    --annotation index:a=b ctx
      --annotation `index:a=b`: an annotation of the index is not supported yet
    --cache-from x ctx
      --cache-from is not supported yet
    --load ctx
      --load is not supported yet
        hint: the image goes into bricklayer's store anyway; for Docker: -o type=docker,dest=- | docker load
    --provenance ctx
      --provenance=true is not supported yet
        hint: --provenance=false is how it is anyway
    --sbom=true ctx
      --sbom=true is not supported yet
        hint: --sbom=false is how it is anyway
    --rm=false ctx
      --rm=false is not supported yet
        hint: steps leave no containers behind that could be kept
    --squash ctx
      --squash is not supported yet
    ");
    // how it is anyway, asked for by scripts that are written for Docker
    house.ok(&["--provenance=false", "--sbom=false", "--rm", "--force-rm", "--builder", "default", "ctx"]);
}
