//! Control groups: one per command, for its limits, its figures, the devices that it may open, and its end.
//!
//! ```text
//! <hierarchy>/bricklayer/<name>/    each locked (flock) by the process that made it
//!   command/ runtime/               with an OCI runtime: what it makes, and the runtime itself
//! ```
//!
//! Hosts have the hierarchies of version 1, the one of version 2, or both ("hybrid"). A command always gets a group of
//! version 2 where we may make one; a controller that is asked for is used where it is. A group whose lock nobody holds
//! belonged to a process that is gone: the next one kills what is left in it and removes it.

mod host;
mod leaf;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bricklayer_cache::root::ids::in_user_namespace;
use bricklayer_solver::op::Limits;
use rustix::fs::{Mode, OFlags};

use self::host::{Hierarchies, enable, parent_path};
use self::leaf::{Leaf, new_name};
use self::settings::{Setting, settings};
use super::{SandboxError, policy};

fn not_delegated(controller: &str) -> String {
    if matches!(controller, "cpuset" | "io") && in_user_namespace() {
        // systemd's user managers have memory, pids and cpu by default.
        return format!(
            "the {controller} controller is not delegated to users here: as root, write `[Service]` and `Delegate=cpu cpuset io memory \
             pids` to /etc/systemd/system/user@.service.d/delegate.conf, and log in again"
        );
    }
    format!(
        "the {controller} controller is not available here: run as root on the host, or in a unit that it is delegated to \
         (`systemd-run --user --scope -p Delegate=yes bricklayer build …`, alone in it)"
    )
}

/// As long as one of these lives, the directories stay that groups are made in.
#[derive(Debug)]
pub(super) struct Hold(());

static HOLDERS: Mutex<usize> = Mutex::new(0);

impl Hold {
    pub(super) fn new() -> Self {
        *HOLDERS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        *holders -= 1;
        if *holders == 0 {
            leaf::remove_parents();
        }
    }
}

/// The groups of one command. They are removed when this is dropped, after everything in them was killed.
#[derive(Debug, Default)]
pub(super) struct Group {
    unified: Option<Leaf>,
    /// Version 1: controller to group.
    controllers: BTreeMap<&'static str, Leaf>,
    procs: Vec<OwnedFd>,
    /// Do the groups say which devices may be opened?
    pub(super) guards_devices: bool,
    memory_limit: Option<u64>,
    /// Version 1: groups of hierarchies that only an OCI runtime wants.
    others: Vec<Leaf>,
    /// Where the groups of version 1 are, below each hierarchy.
    below: PathBuf,
}

/// Who says which devices a command may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Devices {
    /// Nobody: all of them.
    All,
    /// Our groups.
    Guarded,
    /// An OCI runtime, in a group of its own below ours.
    ByRuntime,
}

impl Group {
    /// Makes the groups and sets the limits. A limit that can't be set is an error; that no group can be made is none
    /// if there is no limit.
    pub(super) fn new(limits: &Limits, parent: Option<&str>, devices: Devices) -> Result<Self, SandboxError> {
        Self::of(Hierarchies::of_host(), limits, parent, devices)
    }

    fn of(
        host: &Hierarchies,
        limits: &Limits,
        parent: Option<&str>,
        devices: Devices,
    ) -> Result<Self, SandboxError> {
        let below = match parent {
            Some(parent) => parent_path(parent)?,
            None => PathBuf::from("bricklayer"),
        };
        let name = new_name();
        let settings = settings(limits);
        let mut group = Self::default();
        group.memory_limit = limits.memory;
        group.below = below.join(&name);
        if let Some(base) = &host.unified {
            match Leaf::make(base, &below, &name) {
                Ok(leaf) => group.unified = Some(leaf),
                Err(error) if parent.is_some() => {
                    return Err(SandboxError::setup(
                        format!("make a control group in {}", base.join(&below).display()),
                        error,
                    ));
                }
                Err(_) => {}
            }
        }
        if let (Some(base), Some(_)) = (&host.unified, &group.unified) {
            for setting in &settings {
                enable(base, &below, setting.controller, true);
            }
            // Also without a limit, for its figures.
            enable(base, &below, "memory", false);
        }
        for setting in &settings {
            group.apply(host, &below, &name, setting)?;
        }
        match devices {
            Devices::All => {}
            Devices::Guarded => group.guards_devices = group.guard_devices(host, &below, &name),
            Devices::ByRuntime => {
                // A runtime makes a group in each hierarchy, and leaves those above it: they are to be ours. Where we may
                // not make one the runtime says what it lacks.
                for base in &host.legacy {
                    if !group.controllers.values().any(|leaf| leaf.path.starts_with(base)) {
                        let kind = if base.ends_with("cpuset") { "cpuset" } else { "" };
                        group.others.extend(Leaf::make_legacy(kind, base, &below, &name));
                    }
                }
            }
        }
        Ok(group)
    }

    fn apply(
        &mut self,
        host: &Hierarchies,
        below: &Path,
        name: &str,
        setting: &Setting,
    ) -> Result<(), SandboxError> {
        let refused = |source: Option<io::Error>, hint: String| SandboxError::Limit {
            what: setting.what,
            hint,
            source,
        };
        let out_of_range =
            |error, file: &str| refused(Some(error), format!("the value may be out of range for {file}"));
        let missing = || match setting.missing {
            Some(what) => Err(refused(None, what.to_owned())),
            None => Ok(()),
        };
        if let Some(leaf) = &self.unified {
            let file = setting.unified.file;
            if leaf.path.join(file).exists() {
                return leaf.write(file, &setting.unified.value).map_err(|error| out_of_range(error, file));
            }
            let controllers = fs::read_to_string(leaf.path.join("cgroup.controllers")).unwrap_or_default();
            if controllers.split_whitespace().any(|word| word == setting.controller) {
                return missing();
            }
        }
        let Some(base) = host.controllers.get(setting.controller) else {
            return Err(refused(None, not_delegated(setting.controller)));
        };
        let no_access = |error: io::Error| {
            refused(
                Some(error),
                format!("{} has to be writable: run as root, or without the limit", base.display()),
            )
        };
        let leaf = self.leaf(setting.controller, base, below, name).map_err(no_access)?;
        for write in &setting.legacy {
            if !leaf.path.join(write.file).exists() {
                return missing();
            }
            leaf.write(write.file, &write.value).map_err(|error| out_of_range(error, write.file))?;
        }
        Ok(())
    }

    fn leaf(&mut self, controller: &'static str, base: &Path, below: &Path, name: &str) -> io::Result<&Leaf> {
        if !self.controllers.contains_key(controller) {
            let leaf = Leaf::make_legacy(controller, base, below, name)?;
            let procs = fs::OpenOptions::new().write(true).open(leaf.path.join("cgroup.procs"))?;
            self.procs.push(procs.into());
            self.controllers.insert(controller, leaf);
        }
        self.controllers.get(controller).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn guard_devices(&mut self, host: &Hierarchies, below: &Path, name: &str) -> bool {
        if let (Some(leaf), Some(program)) = (&self.unified, device_program())
            && bricklayer_sys::device::attach(program, leaf.directory.as_fd()).is_ok()
        {
            return true;
        }
        let Some(base) = host.controllers.get("devices") else { return false };
        let Ok(leaf) = self.leaf("devices", base, below, name) else { return false };
        let mut rules = vec!["c *:* m".to_owned(), "b *:* m".to_owned()];
        for device in policy::allowed_devices() {
            let minor = device.minor.map_or("*".to_owned(), |minor| minor.to_string());
            rules.push(format!("c {}:{minor} rwm", device.major));
        }
        leaf.write("devices.deny", "a").is_ok()
            && rules.iter().all(|rule| leaf.write("devices.allow", rule).is_ok())
    }

    /// The group that an OCI runtime makes for a command, in the runtime's words: an absolute path below each hierarchy.
    /// `None`: we could not make one ourselves.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let host = Hierarchies::of_host();
        let below = if host.legacy.is_empty() {
            self.unified.as_ref()?.path.strip_prefix(host.unified_mount.as_ref()?).ok()?
        } else {
            (!self.controllers.is_empty() || !self.others.is_empty()).then_some(self.below.as_path())?
        };
        Some(Path::new("/").join(below).join("command"))
    }

    /// A group of version 2 for an OCI runtime itself, beside the one that it makes: a group that has processes hands no
    /// controllers down. `None`: the hierarchy is not used alone, or there is no group.
    pub(super) fn of_runtime(&self) -> io::Result<Option<OwnedFd>> {
        let Some(leaf) = self.unified.as_ref().filter(|_| Self::is_unified()) else { return Ok(None) };
        rustix::fs::mkdirat(&leaf.directory, "runtime", Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Some(rustix::fs::openat(&leaf.directory, "runtime", flags, Mode::empty())?))
    }

    /// Has the host nothing but the hierarchy of version 2?
    pub(super) fn is_unified() -> bool {
        let host = Hierarchies::of_host();
        host.unified_mount.is_some() && host.legacy.is_empty()
    }

    /// Where the hierarchy of version 2 is mounted, if there are such of version 1 as well: crun refuses to work beside it.
    pub(super) fn beside_legacy() -> Option<&'static Path> {
        let host = Hierarchies::of_host();
        host.unified_mount.as_deref().filter(|_| !host.legacy.is_empty())
    }

    /// The group of version 2, to be born in.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|leaf| leaf.directory.as_fd())
    }

    /// The `cgroup.procs` of the groups of version 1.
    pub(super) fn procs(&self) -> Vec<BorrowedFd<'_>> {
        self.procs.iter().map(|fd| fd.as_fd()).collect()
    }

    /// The limit that a process of the group was killed for exceeding; 0: there was none, the machine was full.
    pub(super) fn out_of_memory(&self) -> Option<u64> {
        let unified = self.unified.as_ref().and_then(|leaf| leaf.read_key("memory.events", "oom_kill"));
        let legacy =
            self.controllers.get("memory").and_then(|leaf| leaf.read_key("memory.oom_control", "oom_kill"));
        let kills = unified.unwrap_or(0) + legacy.unwrap_or(0);
        (kills > 0).then_some(self.memory_limit.unwrap_or(0))
    }

    /// The most memory that all processes together used, in bytes.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        let unified = self.unified.as_ref().and_then(|leaf| leaf.read_number("memory.peak"));
        unified.or_else(|| self.controllers.get("memory")?.read_number("memory.max_usage_in_bytes"))
    }

    /// User and system time of all processes.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let micros = self.unified.as_ref()?.read_key("cpu.stat", "usage_usec")?;
        Some(Duration::from_micros(micros))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.procs.clear();
        for leaf in self.unified.iter().chain(self.controllers.values()).chain(&self.others) {
            leaf.remove();
        }
    }
}

/// The program that guards devices, loaded once.
fn device_program() -> Option<BorrowedFd<'static>> {
    static PROGRAM: OnceLock<Option<OwnedFd>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| bricklayer_sys::device::load(&policy::allowed_devices()).ok())
        .as_ref()
        .map(|fd| fd.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_without_its_controller_is_an_error_that_says_what_to_do() {
        let limits = Limits { pids: Some(10), ..Limits::default() };
        let error =
            Group::of(&Hierarchies::default(), &limits, None, Devices::All).expect_err("no controller");
        assert_eq!(error.to_string(), "the number of processes can't be limited");
        assert!(error.hint().is_some_and(|hint| hint.contains("pids controller")), "{:?}", error.hint());
    }

    /// A folder that looks like a group: its files are there, and what is written to them can be read.
    fn group_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("write");
        }
        let directory = fs::File::open(folder.path()).expect("open").into();
        let leaf = Leaf { path: folder.path().to_owned(), directory };
        let mut group = Group::default();
        group.unified = Some(leaf);
        group.memory_limit = Some(64 << 20);
        (folder, group)
    }

    #[test]
    fn limits_and_figures_of_version_2_are_in_its_files() {
        let (folder, mut group) = group_with(&[
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("cpu.max", ""),
            ("memory.peak", "4096\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
        ]);
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(64 << 20),
            cpu_quota: Some((50_000, 100_000)),
            ..Limits::default()
        };
        for setting in settings(&limits) {
            group.apply(&Hierarchies::default(), Path::new("b"), "n", &setting).expect("apply");
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("read");
        assert_eq!(
            [read("memory.max"), read("memory.swap.max"), read("cpu.max")],
            ["67108864", "0", "50000 100000"]
        );
        assert_eq!(group.out_of_memory(), Some(64 << 20));
        assert_eq!(group.peak_memory(), Some(4096));
        assert_eq!(group.cpu_time(), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn swap_that_the_kernel_does_not_count_matters_to_who_asked() {
        let (_folder, mut group) = group_with(&[("memory.max", ""), ("cgroup.controllers", "cpu memory\n")]);
        let mut try_with = |memory_swap| {
            let limits = Limits { memory: Some(1 << 20), memory_swap, ..Limits::default() };
            let apply =
                |setting: &Setting| group.apply(&Hierarchies::default(), Path::new("b"), "n", setting);
            settings(&limits).iter().try_for_each(apply)
        };
        assert!(try_with(None).is_ok());
        let error = try_with(Some(2 << 20)).expect_err("it can't be limited");
        assert_eq!(error.to_string(), "swap can't be limited");
        assert!(error.hint().is_some_and(|hint| hint.contains("swapaccount=1")), "{:?}", error.hint());
    }
}
