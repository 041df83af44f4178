//! What the host has: hierarchies, and where in them we may make groups.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::leaf::{Leaf, new_name};
use crate::sandbox::SandboxError;

/// Where groups can be made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// Version 2: the highest directory that we may make groups in. That is the root of the hierarchy for root, and for
    /// another user what was delegated to them.
    pub(super) unified: Option<PathBuf>,
    /// Version 1: controller to mount point.
    pub(super) controllers: BTreeMap<String, PathBuf>,
    /// Version 1: all mount points.
    pub(super) legacy: Vec<PathBuf>,
    /// Version 2: the mount point.
    pub(super) unified_mount: Option<PathBuf>,
}

const CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "devices"];

impl Hierarchies {
    pub(super) fn of_host() -> &'static Self {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        FOUND.get_or_init(|| {
            let mut found =
                fs::read_to_string("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default();
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            found.unified = found.unified.and_then(|root| delegated(&root, &own_group(&own), may_write));
            found
        })
    }

    /// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some("/"), Some(point)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            let point = PathBuf::from(point);
            match kind {
                Some("cgroup2") if found.unified.is_none() => {
                    found.unified = Some(point.clone());
                    found.unified_mount = Some(point);
                }
                Some("cgroup") => {
                    found.legacy.push(point.clone());
                    for controller in options.split(',').filter(|option| CONTROLLERS.contains(option)) {
                        found.controllers.entry(controller.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// Our group of version 2, of `/proc/self/cgroup` (cgroups(7)): the line `0::/path`.
fn own_group(text: &str) -> PathBuf {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A process that was moved out of what it sees is shown as being in `/..`.
    let parts = Path::new(path).components();
    parts.filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// The highest directory on the way to our own group that we may make groups in, and move ourselves within.
fn delegated(root: &Path, own: &Path, may: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut ways: Vec<PathBuf> = own.ancestors().map(|part| root.join(part)).collect();
    ways.reverse();
    ways.into_iter().find(|directory| may(directory))
}

fn may_write(directory: &Path) -> bool {
    let may = |path: &Path| {
        // As whom we act, not as who we are.
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    };
    may(directory) && may(&directory.join("cgroup.procs"))
}

/// Hands a controller down to the groups in `base/below`, level by level. If the kernel refuses, that shows in the files that
/// are missing afterwards. `needed`: is it worth moving this process for?
pub(super) fn enable(base: &Path, below: &Path, controller: &str, needed: bool) {
    let mut levels = vec![base.to_owned()];
    for part in below.iter() {
        let next = levels.last().map(|level| level.join(part));
        levels.extend(next);
    }
    for level in &levels {
        let file = level.join("cgroup.subtree_control");
        let has = fs::read_to_string(&file)
            .is_ok_and(|text| text.split_whitespace().any(|word| word == controller));
        if has {
            continue;
        }
        let hand_down = || fs::write(&file, format!("+{controller}"));
        let done = match hand_down() {
            // A group with processes in it hands nothing down. If we are the only one, we can go.
            Err(error)
                if needed && level == base && error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) =>
            {
                step_aside(base, below).and_then(|()| hand_down())
            }
            other => other,
        };
        if done.is_err() {
            return;
        }
    }
}

/// Moves this process from `base` to a group of its own in `base/below`, if it is the only one there.
fn step_aside(base: &Path, below: &Path) -> io::Result<()> {
    static ASIDE: OnceLock<Leaf> = OnceLock::new();
    let me = std::process::id().to_string();
    let there = fs::read_to_string(base.join("cgroup.procs"))?;
    if ASIDE.get().is_some() || there.lines().any(|pid| pid != me) {
        return Err(Errno::BUSY.into());
    }
    let leaf = Leaf::make(base, below, &new_name())?;
    leaf.write("cgroup.procs", &me)?;
    // It is there as long as we are; a later process removes it.
    let _ = ASIDE.set(leaf);
    Ok(())
}

/// `--cgroup-parent` as a path below the hierarchy: a path, or a systemd slice (`a-b.slice` lies in `a.slice`).
pub(super) fn parent_path(parent: &str) -> Result<PathBuf, SandboxError> {
    let mut path = PathBuf::new();
    if let Some(slice) = parent.strip_suffix(".slice").filter(|slice| !slice.contains('/')) {
        let mut name = String::new();
        for part in slice.split('-') {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(part);
            path.push(format!("{name}.slice"));
        }
    } else {
        for part in parent.split('/').filter(|part| !part.is_empty() && *part != ".") {
            path.push(part);
        }
    }
    let bad = path.components().any(|part| !matches!(part, std::path::Component::Normal(_)));
    if bad || path.as_os_str().is_empty() || parent.contains('\0') {
        return Err(SandboxError::Invalid(format!("`{parent}` is no control group")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let hybrid = "\
24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 /somewhere /bound rw - cgroup2 cgroup2 rw
34 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
35 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
nonsense";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let names: Vec<_> = found.controllers.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "memory"]);
        let legacy = ["cpu", "memory", "systemd"].map(|name| PathBuf::from("/sys/fs/cgroup").join(name));
        assert_eq!(found.legacy, legacy);
    }

    #[test]
    fn groups_are_made_as_high_as_we_may() {
        let own =
            own_group("3:cpu:/x\n0::/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope\n");
        let (root, service) = (Path::new("/cg"), "/cg/user.slice/user-1000.slice/user@1000.service");
        let user = |path: &Path| path.starts_with(service);
        assert_eq!(delegated(root, &own, user).as_deref(), Some(Path::new(service)));
        assert_eq!(delegated(root, &own, |_| true).as_deref(), Some(root));
        assert_eq!(delegated(root, &own, |_| false), None);
        assert_eq!(own_group("0::/../../x\n"), PathBuf::from("x"));
        assert_eq!(own_group("1:name=systemd:/x\n"), PathBuf::new());
    }

    #[test]
    fn parents_are_paths_or_slices() {
        let path = |parent: &str| parent_path(parent).map_err(|error| error.to_string());
        assert_eq!(path("/a/b/"), Ok(PathBuf::from("a/b")));
        assert_eq!(path("builds-ci.slice"), Ok(PathBuf::from("builds.slice/builds-ci.slice")));
        for bad in ["", "/", "..", "a/../b"] {
            assert_eq!(path(bad), Err(format!("`{bad}` is no control group")));
        }
    }
}
