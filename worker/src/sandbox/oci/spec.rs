//! `config.json` (OCI runtime-spec 1.0.2, `config.md` and `config-linux.md`).

use std::path::{Path, PathBuf};

use bricklayer_cache::root::ids;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::super::capabilities;
use super::super::launch::may_set_groups;
use super::super::{Command, HOSTNAME, SandboxError, limits, policy, seccomp};
use super::{profile, sandboxed};

/// The network of a container.
pub(super) enum Network {
    /// A namespace that is there.
    Existing(PathBuf),
    /// One with loopback only.
    New,
    /// The host's.
    Host,
}

/// What the command itself does not say.
pub(super) struct Surroundings<'a> {
    /// Resource, soft, hard.
    pub(super) limits: &'a [(u32, u64, u64)],
    /// Where its control groups go.
    pub(super) groups: Option<PathBuf>,
    /// Are control groups of version 2 all that the host has?
    pub(super) unified: bool,
    pub(super) network: Network,
    /// Mounts below /dev: target and source.
    pub(super) mounts: &'a [(String, PathBuf)],
    pub(super) environment: Vec<String>,
}

/// The document, checked to be one.
pub(super) fn config(command: &Command, with: &Surroundings<'_>) -> Result<Vec<u8>, SandboxError> {
    let invalid = |error: serde_json::Error| {
        SandboxError::setup("describe the container", std::io::Error::other(error))
    };
    let document = document(command, with)?;
    let spec: Spec = serde_json::from_value(document).map_err(invalid)?;
    serde_json::to_vec(&spec).map_err(invalid)
}

fn document(command: &Command, with: &Surroundings<'_>) -> Result<Value, SandboxError> {
    let sets = policy::capabilities(command.security, command.capabilities);
    let root = command.user.uid == 0;
    // Never more than we have: a runtime that can't give a capability fails.
    let have = rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits());
    let names = |set: u64, when: bool| if when { capabilities::names_of(set & have) } else { Vec::new() };
    let inheritable = sets.inheritable != 0;
    let seccomp = if sandboxed(command) {
        let section = profile::section(sets.bounding);
        Some(section.ok_or_else(seccomp::none_for_this_machine)?)
    } else {
        None
    };
    let rlimits: Vec<Value> = with
        .limits
        .iter()
        .filter_map(|(number, soft, hard)| {
            let name = limits::name(*number)?.to_ascii_uppercase();
            Some(json!({ "type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard }))
        })
        .collect();
    let mut groups = command.user.groups.clone();
    if !groups.contains(&command.user.gid) {
        // Otherwise a file that its group may not read could be read.
        groups.insert(0, command.user.gid);
    }
    if !may_set_groups() {
        groups.clear();
    }
    let mut linux = json!({
        "namespaces": namespaces(&with.network),
        "resources": { "devices": devices(sandboxed(command)) },
        "maskedPaths": masked(command),
        "readonlyPaths": read_only(command),
    });
    if let Some(path) = &with.groups {
        linux["cgroupsPath"] = json!(path);
    }
    if let Some(seccomp) = seccomp {
        linux["seccomp"] = seccomp;
    }
    let mut document = json!({
        "ociVersion": "1.0.2",
        "hostname": command.hostname.as_deref().unwrap_or(HOSTNAME),
        "root": { "path": "rootfs", "readonly": command.read_only },
        "process": {
            "terminal": command.stdio.terminal.is_some(),
            "user": {
                "uid": command.user.uid,
                "gid": command.user.gid,
                "umask": policy::UMASK,
                "additionalGids": groups,
            },
            "args": command.args,
            "env": with.environment,
            "cwd": command.cwd,
            "capabilities": {
                "bounding": names(sets.bounding, true),
                "permitted": names(sets.permitted, root || inheritable),
                "effective": names(sets.permitted, root || inheritable),
                "inheritable": names(sets.inheritable, inheritable),
                "ambient": names(sets.inheritable, inheritable),
            },
            "rlimits": rlimits,
            "noNewPrivileges": false,
        },
        "mounts": mounts(command, with),
        "linux": linux,
    });
    if let Some(size) = command.stdio.terminal {
        document["process"]["consoleSize"] = json!({ "height": size.rows, "width": size.columns });
    }
    Ok(document)
}

fn namespaces(network: &Network) -> Value {
    let mut namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({ "type": kind })).collect();
    match network {
        Network::Existing(path) => namespaces.push(json!({ "type": "network", "path": path })),
        Network::New => namespaces.push(json!({ "type": "network" })),
        Network::Host => {}
    }
    json!(namespaces)
}

fn devices(guarded: bool) -> Value {
    if !guarded {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    rules.extend(policy::allowed_devices().into_iter().map(|device| {
        let mut rule = json!({ "allow": true, "type": "c", "major": device.major, "access": "rwm" });
        if let Some(minor) = device.minor {
            rule["minor"] = json!(minor);
        }
        rule
    }));
    json!(rules)
}

fn mounts(command: &Command, with: &Surroundings<'_>) -> Value {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let shm = format!("size={}", command.shm_size.unwrap_or(policy::SHM_SIZE));
    let sys = if sandboxed(command) { "ro" } else { "rw" };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if ids::mapped(0, 5) {
        pts.push("gid=5");
    }
    let foreign = ids::in_user_namespace() && matches!(with.network, Network::Host);
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    mounts.push(if foreign {
        // Only the owner of a network may show it: what the host shows is bound, with all that lies on it.
        json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", sys] })
    } else {
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys])
    });
    // With hierarchies of version 1 as well the directory stays empty.
    if foreign {
        // The host's groups, some of which the user may write to.
        mounts.push(mount(
            "/sys/fs/cgroup",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "ro", "mode=755", "size=0"],
        ));
    } else if with.unified {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", sys]));
    }
    // Whether they can be written to is decided: runtimes keep the attributes of what they bind.
    mounts.extend(with.mounts.iter().map(|(target, source): &(String, PathBuf)| {
        let source: &Path = source;
        json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"] })
    }));
    json!(mounts)
}

fn masked(command: &Command) -> Vec<String> {
    let proc =
        policy::proc_masked(command.security).iter().map(|path| format!("/proc/{}", path.to_string_lossy()));
    let sys = policy::sys_masked(command.security).iter().map(|path| format!("/sys/{path}"));
    proc.chain(sys).collect()
}

fn read_only(command: &Command) -> Vec<String> {
    let paths = policy::proc_read_only(command.security).iter();
    paths.map(|path| format!("/proc/{}", path.to_string_lossy())).collect()
}
