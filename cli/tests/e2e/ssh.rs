//! Repositories over SSH: with OpenSSH's server on loopback. Needs Debian's openssh-client and openssh-server.

use std::fs;
use std::process::Command;

use crate::rootless::Person;
use crate::servers::{SshServer, git, repository};
use crate::support::{Bench, Printed};

/// A build whose user's home is the bench.
fn build(bench: &Bench, args: &[&str]) -> Printed {
    let mut command = bench.command(&[&["build", "--progress", "plain"], args].concat());
    command.env("HOME", bench.dir.path()).env_remove("SSH_AUTH_SOCK").output().unwrap().into()
}

#[test]
fn a_key_opens_repositories_and_hosts_are_known() {
    let bench = Bench::new();
    let repo = repository(
        &bench,
        "closed",
        &[("a", "behind a key\n"), ("Dockerfile", "FROM base\nRUN cat /etc/it\n")],
    );
    let server = SshServer::start(&bench);
    let url = server.url(&repo);
    let dockerfile = format!("FROM base\nADD {url} /x\nADD {url}#main /y\nRUN cat /x/a /y/a\n");
    let context = bench.context("context", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    // A key that lies where keys lie is not taken if nobody gives it.
    fs::create_dir(bench.path(".ssh")).unwrap();
    fs::copy(server.key(), bench.path(".ssh/id_ed25519")).unwrap();
    let refused = build(&bench, &[context]);
    assert!(!refused.ok && refused.text.contains("Permission denied (publickey"), "{}", refused.text);
    assert!(refused.text.contains("hint: pass --ssh default for the keys of the agent"), "{}", refused.text);

    let key = format!("default={}", server.key().display());
    let believed = build(&bench, &["--ssh", &key, context]).fine().text;
    assert_eq!(believed.matches(" behind a key\n").count(), 2, "{believed}");
    assert_eq!(
        believed.matches("is not in ~/.ssh/known_hosts, and was believed: SHA256:").count(),
        1,
        "{believed}"
    );
    assert!(!bench.path(".ssh/known_hosts").exists());

    // Known, as the context, and with submodules that are at the same server.
    fs::write(bench.path(".ssh/known_hosts"), server.known_host("host")).unwrap();
    let outer = repository(&bench, "outer", &[("Dockerfile", "FROM base\nCOPY sub/a /it\nRUN cat /it\n")]);
    git(&outer, &["-c", "core.sshCommand=false", "config", "-f", ".gitmodules", "submodule.sub.path", "sub"]);
    git(&outer, &["config", "-f", ".gitmodules", "submodule.sub.url", &url]);
    let commit = git(&repo, &["rev-parse", "HEAD"]);
    git(&outer, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    git(&outer, &["add", ".gitmodules"]);
    git(&outer, &["commit", "-qm", "submodule"]);
    let known = build(&bench, &["--ssh", &key, &format!("{}#main", server.url(&outer))]).fine().text;
    assert!(known.contains(" behind a key\n") && !known.contains("warning"), "{known}");

    // Another key than the known one.
    fs::write(bench.path(".ssh/known_hosts"), server.known_host("key")).unwrap();
    let changed = build(&bench, &["--ssh", &key, "--no-cache", context]);
    assert!(!changed.ok && changed.text.contains("Host key verification failed"), "{}", changed.text);
    assert!(changed.text.contains("`ssh-keygen -R HOST`"), "{}", changed.text);
}

#[test]
fn an_agent_s_keys_open_them_for_an_ordinary_user_too() {
    let bench = Bench::empty();
    let repo = repository(&bench, "closed", &[("a", "behind a key\n")]);
    let server = SshServer::start(&bench);
    let person = Person::new("mapped");
    let dockerfile = format!("FROM base\nADD {} /x\nRUN --network=none cat /x/a\n", server.url(&repo));
    person.bench.context("context", &[("Dockerfile", &dockerfile)]);
    fs::create_dir(person.path(".ssh")).unwrap();
    fs::write(person.path(".ssh/known_hosts"), server.known_host("host")).unwrap();
    fs::copy(server.key(), person.path("key")).unwrap();
    let script = "eval $(ssh-agent) >&2 && ssh-add -q key && ./bricklayer build --progress plain --ssh default context; \
                  code=$?; kill $SSH_AGENT_PID; exit $code";
    std::os::unix::fs::chown(person.path("key"), Some(64321), Some(64321)).unwrap();
    let built: Printed = Command::output(&mut person.command(&["sh", "-c", script])).unwrap().into();
    let built = built.fine().text;
    assert!(built.contains(" behind a key\n") && !built.contains("warning"), "{built}");
}
