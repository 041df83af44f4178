//! Working as an ordinary user: the process becomes root of a user namespace of its own.
//!
//! | | ids inside |
//! | --- | --- |
//! | with subordinate ids (`/etc/subuid`, `/etc/subgid`, `newuidmap`) | 0 is the user, 1 and up are its subordinate ids |
//! | root without the right to mount (in a container) | those of outside |
//! | otherwise | 0 is the user, and that is all |
//!
//! The kernel moves no process with threads, so this comes first in `main`: see [`enter`].

mod ids;
mod refusal;

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use bricklayer_sys::kernel::{self, OLDEST};
use bricklayer_sys::userns::{self, EnterError, Range};

use ids::Maps;

/// The bit of `CAP_SYS_ADMIN` in `/proc/self/status` (capabilities(7)).
const SYS_ADMIN: u64 = 1 << 21;

/// As whom the process works from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// It could mount already: as root, or as root of a user namespace that somebody else made.
    Already,
    /// In a user namespace with subordinate ids, or with those of outside.
    Mapped {
        /// How many users there are.
        users: u64,
        /// How many groups there are.
        groups: u64,
    },
    /// In a user namespace with one user and one group, both 0.
    Single {
        /// Why there are no more.
        reason: String,
    },
}

/// Why an ordinary user can't build here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootlessError {
    /// The kernel is too old, or a filter hides what it has.
    #[error("Linux {release} has no {}: {OLDEST} is the oldest version that can build", missing.join(", "))]
    Kernel {
        /// The version, as `uname -r` prints it.
        release: String,
        /// The system calls that are missing.
        missing: Vec<&'static str>,
    },
    /// The process has threads.
    #[error("the process has {0} threads, and Linux gives a user namespace only to one with a single thread")]
    Threads(usize),
    /// The kernel refuses.
    #[error("cannot make a user namespace, which building as an ordinary user needs")]
    Refused {
        /// Which setting does that, and what to do.
        hint: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else failed on the way.
    #[error("cannot enter a user namespace: {step}")]
    Failed {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RootlessError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kernel { release, .. } => Some(
                if is_older(release, OLDEST) {
                    "Debian 12, Ubuntu 22.04 and RHEL 9 have newer ones"
                } else {
                    "this version has it: a system call filter hides it, as that of a container made by an old runtime"
                }
                .to_owned(),
            ),
            Self::Threads(_) => Some("enter first in `main`, before any thread is started".to_owned()),
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Failed { .. } => None,
        }
    }
}

/// Makes it possible to build as an ordinary user: moves the process into a user namespace, unless it may mount already.
///
/// To be called first in `main`, while the process has one thread (so also before an async runtime is started). The
/// process keeps its id, terminal and working directory; what it starts later is in the namespace too. It sees itself as
/// root (`geteuid` is 0), files of users that are not mapped as those of user 65534, and has no power over them.
///
/// What runs commands or makes layers needs this; checking a Dockerfile does not.
///
/// # Errors
///
/// [`RootlessError::Kernel`] if the kernel is too old for anything of ours; [`RootlessError::Refused`] if it or its settings
/// forbid user namespaces; its hint names the setting.
pub fn enter() -> Result<Entered, RootlessError> {
    check_kernel()?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 && may_mount() {
        own_mounts()?;
        return Ok(Entered::Already);
    }
    let maps = if uid == 0 { Ok(Maps::of_outside()) } else { Maps::subordinate(uid, gid) };
    let written = {
        let maps = maps.clone();
        move |pid: u32| {
            let maps = maps?;
            if uid == 0 { write_directly(pid, &maps) } else { write_by_programs(pid, &maps) }
        }
    };
    let result = userns::enter(written).map_err(|error| match error {
        EnterError::Threads(count) => RootlessError::Threads(count),
        EnterError::Refused(source) => {
            RootlessError::Refused { hint: refusal::Facts::of_host().hint(&source), source }
        }
        EnterError::Failed(step, source) => RootlessError::Failed { step: step.to_owned(), source },
    })?;
    let entered = match (result, maps) {
        (Ok(()), Ok(maps)) => Entered::Mapped { users: total(&maps.users), groups: total(&maps.groups) },
        (Ok(()), Err(reason)) | (Err(reason), _) => {
            let _ = SINGLE.set(reason.clone());
            userns::map_one(uid, gid).map_err(|error| refused_later(error, "map the user's own id"))?;
            Entered::Single { reason }
        }
    };
    // Some systems give a namespace, but no rights in it (AppArmor). Better now than in the middle of a build.
    rustix::mount::mount_change(
        c"/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(|error| refused_later(EnterError::Refused(error.into()), "change a mount"))?;
    Ok(entered)
}

fn check_kernel() -> Result<(), RootlessError> {
    let missing = kernel::missing();
    if missing.is_empty() {
        return Ok(());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Err(RootlessError::Kernel { release, missing })
}

/// Is one version (`5.10.0-46-amd64`) before another?
fn is_older(release: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).take(2).collect()
    };
    numbers(release) < numbers(than)
}

/// Why there is one id only.
static SINGLE: OnceLock<String> = OnceLock::new();

/// Where there is one id only: what a user can do to have more.
pub(crate) fn advice() -> Option<String> {
    use bricklayer_cache::root::ids;
    if !ids::in_user_namespace() || !ids::single() {
        return None;
    }
    let reason = SINGLE.get().map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some(format!(
        "commands have a single user id here{reason}, so they can't become other users, and see all files as root's; `usermod \
         --add-subuids 100000-165535 --add-subgids 100000-165535 NAME`, as root, gives a user more"
    ))
}

/// May this process make namespaces and mounts? Then it is root or in a user namespace.
pub fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|number| u64::from_str_radix(number.trim(), 16).ok());
    effective.is_some_and(|set| set & SYS_ADMIN != 0)
}

/// In a user namespace that others made (`unshare --map-root-user`) the mounts may still be those of outside.
fn own_mounts() -> Result<(), RootlessError> {
    use bricklayer_sys::namespace::{Namespaces, unshare};
    if !bricklayer_cache::root::ids::in_user_namespace() {
        return Ok(());
    }
    unshare(Namespaces { mount: true, uts: false, ipc: false, network: false })
        .map_err(|source| RootlessError::Failed { step: "make a mount namespace".to_owned(), source })
}

fn refused_later(error: EnterError, step: &str) -> RootlessError {
    match error {
        EnterError::Failed(_, source) | EnterError::Refused(source) => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                RootlessError::Refused { hint: refusal::Facts::of_host().hint(&source), source }
            }
            _ => RootlessError::Failed { step: step.to_owned(), source },
        },
        EnterError::Threads(count) => RootlessError::Threads(count),
    }
}

fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// As root outside, with the right to choose ids.
fn write_directly(pid: u32, maps: &Maps) -> Result<(), String> {
    for (file, ranges) in [("uid_map", &maps.users), ("gid_map", &maps.groups)] {
        let path = format!("/proc/{pid}/{file}");
        let lines: String = ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
            .collect();
        fs::write(&path, lines).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// As an ordinary user outside: the setuid programs look up by themselves what they may map. Both run at once.
fn write_by_programs(pid: u32, maps: &Maps) -> Result<(), String> {
    let start = |name: &'static str, ranges: &[Range]| {
        let mut arguments = vec![pid.to_string()];
        for range in ranges {
            arguments.extend([range.inside, range.outside, range.count].map(|number| number.to_string()));
        }
        let run = |program: &Path| {
            Command::new(program)
                .args(&arguments)
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::piped())
                .spawn()
        };
        let child = match run(Path::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => run(&Path::new("/usr/bin").join(name)),
            other => other,
        };
        child.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{name} is not installed (Debian: apt-get install uidmap)"),
            _ => format!("cannot run {name}: {error}"),
        })
    };
    let started =
        [("newuidmap", start("newuidmap", &maps.users)), ("newgidmap", start("newgidmap", &maps.groups))];
    let mut result = Ok(());
    for (name, child) in started {
        let ended = child.and_then(|child| {
            let output =
                child.wait_with_output().map_err(|error| format!("cannot wait for {name}: {error}"))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name} failed: {}", said.lines().next().unwrap_or("it said nothing")))
        });
        result = result.and(ended);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let older = ["4.18.0-553.el8.x86_64", "5.4.0-150-generic", "5.10.0-46-amd64", "5.11"];
        assert!(older.iter().all(|release| is_older(release, OLDEST)));
        let newer = ["5.12.0", "5.14.0-427.el9.x86_64", "5.15.0-1-generic", "6.1.0", "10.0-rc1"];
        assert!(!newer.iter().any(|release| is_older(release, OLDEST)));
    }
}
