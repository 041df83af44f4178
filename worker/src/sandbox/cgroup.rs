//! Control groups: one per command, for its limits, its figures, the devices that it may open, and its end.
//!
//! ```text
//! <hierarchy>/bricklayer/<name>/    each locked (flock) by the process that made it
//! ```
//!
//! Hosts have the hierarchies of version 1, the one of version 2, or both ("hybrid"). A command always gets a group of
//! version 2 where we may make one; a controller that is asked for is used where it is. A group whose lock nobody holds
//! belonged to a process that is gone: the next one kills what is left in it and removes it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bricklayer_solver::op::Limits;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::{SandboxError, policy};

/// Where the hierarchies are mounted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Hierarchies {
    /// Version 2.
    unified: Option<PathBuf>,
    /// Version 1: controller to mount point.
    controllers: BTreeMap<String, PathBuf>,
}

const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuset", "pids", "devices"];

impl Hierarchies {
    fn of_host() -> &'static Self {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        FOUND.get_or_init(|| {
            fs::read_to_string("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
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
                Some("cgroup2") if found.unified.is_none() => found.unified = Some(point),
                Some("cgroup") => {
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

/// A group of one hierarchy.
#[derive(Debug)]
struct Leaf {
    path: PathBuf,
    /// Open, and locked: a sign of life for other processes.
    directory: OwnedFd,
}

impl Leaf {
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    fn read_number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }

    /// The number after `key` in a file of lines `key number`.
    fn read_key(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

/// The groups of one command. They are removed when this is dropped, after everything in them was killed.
#[derive(Debug)]
pub(super) struct Group {
    unified: Option<Leaf>,
    /// Version 1: controller to group.
    controllers: BTreeMap<&'static str, Leaf>,
    procs: Vec<OwnedFd>,
    /// Do the groups say which devices may be opened?
    pub(super) guards_devices: bool,
    memory_limit: Option<u64>,
}

impl Group {
    /// Makes the groups and sets the limits. A limit that can't be set is an error; that no group can be made is none
    /// if there is no limit.
    pub(super) fn new(
        limits: &Limits,
        parent: Option<&str>,
        guard_devices: bool,
    ) -> Result<Self, SandboxError> {
        Self::of(Hierarchies::of_host(), limits, parent, guard_devices)
    }

    fn of(
        host: &Hierarchies,
        limits: &Limits,
        parent: Option<&str>,
        guard_devices: bool,
    ) -> Result<Self, SandboxError> {
        let below = match parent {
            Some(parent) => parent_path(parent)?,
            None => PathBuf::from("bricklayer"),
        };
        let name = new_name();
        let settings = settings(limits);
        let mut group = Self {
            unified: None,
            controllers: BTreeMap::new(),
            procs: Vec::new(),
            guards_devices: false,
            memory_limit: limits.memory,
        };
        if let Some(base) = &host.unified {
            let wanted: Vec<&str> = settings.iter().map(|setting| setting.controller).collect();
            match make_unified(base, &below, &name, &wanted) {
                Ok(leaf) => group.unified = Some(leaf),
                Err(error) if parent.is_some() => {
                    return Err(SandboxError::setup(
                        format!("make a control group in {}", below.display()),
                        error,
                    ));
                }
                Err(_) => {}
            }
        }
        for setting in &settings {
            group.apply(host, &below, &name, setting)?;
        }
        if guard_devices {
            group.guards_devices = group.guard_devices(host, &below, &name);
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
        if let Some(leaf) = &self.unified
            && leaf.path.join(setting.unified.0).exists()
        {
            return leaf.write(setting.unified.0, &setting.unified.1).map_err(|error| {
                refused(Some(error), format!("the value may be out of range for {}", setting.unified.0))
            });
        }
        if setting.only_unified {
            return Ok(());
        }
        let Some(base) = host.controllers.get(setting.controller) else {
            return Err(refused(
                None,
                format!(
                    "the {} controller is not available here: as root on the host it is, as another user it has to \
                     be delegated (`systemd-run --user --scope -p Delegate=yes …`)",
                    setting.controller
                ),
            ));
        };
        let no_access = |error: io::Error| {
            refused(
                Some(error),
                format!("{} has to be writable: run as root, or without the limit", base.display()),
            )
        };
        let leaf = self.leaf(setting.controller, base, below, name).map_err(no_access)?;
        for (file, value) in &setting.legacy {
            leaf.write(file, value)
                .map_err(|error| refused(Some(error), format!("the value may be out of range for {file}")))?;
        }
        Ok(())
    }

    fn leaf(&mut self, controller: &'static str, base: &Path, below: &Path, name: &str) -> io::Result<&Leaf> {
        if !self.controllers.contains_key(controller) {
            let leaf = make_legacy(controller, base, below, name)?;
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
        for leaf in self.unified.iter().chain(self.controllers.values()) {
            remove(&leaf.path);
        }
    }
}

/// Kills what is in a group and removes it. One that can't be removed now is removed by a later process.
fn remove(path: &Path) {
    for attempt in 0..20 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                if attempt == 0 {
                    kill_all(path);
                }
                // A killed process is in its group until the kernel is done with it.
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => return,
        }
    }
}

fn kill_all(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let Ok(text) = fs::read_to_string(path.join("cgroup.procs")) else { return };
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
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

fn new_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static ME: OnceLock<u64> = OnceLock::new();
    let me = ME.get_or_init(|| {
        let mut bytes = [0; 8];
        // Names only have to differ; a process id and a number do where there is no randomness.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
        u64::from_ne_bytes(bytes)
    });
    format!("{}-{me:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `--cgroup-parent` as a path below the hierarchy: a path, or a systemd slice (`a-b.slice` lies in `a.slice`).
fn parent_path(parent: &str) -> Result<PathBuf, SandboxError> {
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

/// One limit, for either version.
struct Setting {
    what: &'static str,
    controller: &'static str,
    /// File and value, version 2.
    unified: (&'static str, String),
    /// Files and values, version 1, in this order.
    legacy: Vec<(&'static str, String)>,
    /// Is it part of another setting in version 1?
    only_unified: bool,
}

fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |what, controller, unified, legacy| {
        settings.push(Setting { what, controller, unified, legacy, only_unified: false });
    };
    if let Some(memory) = limits.memory {
        // Without a word about swap, as much again, as Docker does.
        let both =
            limits.memory_swap.unwrap_or_else(|| i64::try_from(memory.saturating_mul(2)).unwrap_or(-1));
        add(
            "memory",
            "memory",
            ("memory.max", memory.to_string()),
            vec![("memory.limit_in_bytes", memory.to_string())],
        );
        let swap = match u64::try_from(both) {
            Ok(both) => both.saturating_sub(memory).to_string(),
            Err(_) => "max".to_owned(),
        };
        // A kernel without swap accounting has no such file; then there is nothing to limit.
        settings.push(Setting {
            what: "swap",
            controller: "memory",
            unified: ("memory.swap.max", swap),
            legacy: Vec::new(),
            only_unified: true,
        });
    }
    let mut add = |what, controller, unified, legacy| {
        settings.push(Setting { what, controller, unified, legacy, only_unified: false });
    };
    if let Some((quota, period)) = limits.cpu_quota {
        add(
            "CPU time",
            "cpu",
            ("cpu.max", format!("{quota} {period}")),
            vec![("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())],
        );
    }
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        // The two scales, as the kernel's documentation of both has them: 2..=262144 to 1..=10000.
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        add("CPU time", "cpu", ("cpu.weight", weight.to_string()), vec![("cpu.shares", shares.to_string())]);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        add("the set of CPUs", "cpuset", ("cpuset.cpus", cpus.clone()), vec![("cpuset.cpus", cpus.clone())]);
    }
    if let Some(nodes) = &limits.cpuset_mems {
        add(
            "the set of memory nodes",
            "cpuset",
            ("cpuset.mems", nodes.clone()),
            vec![("cpuset.mems", nodes.clone())],
        );
    }
    if let Some(pids) = limits.pids {
        add(
            "the number of processes",
            "pids",
            ("pids.max", pids.to_string()),
            vec![("pids.max", pids.to_string())],
        );
    }
    settings
}

/// Makes `base/below` (shared by all our processes) and in it the group `name`, locked.
fn make_leaf(base: &Path, below: &Path, name: &str) -> io::Result<Leaf> {
    let parent = base.join(below);
    fs::create_dir_all(&parent)?;
    let parent_lock = File::open(&parent)?;
    // Whoever removes groups holds this one exclusively: no group is seen between its making and its locking.
    flock(&parent_lock, FlockOperation::LockShared)?;
    let path = parent.join(name);
    fs::create_dir(&path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&path, flags, Mode::empty())?;
    flock(&directory, FlockOperation::NonBlockingLockShared)?;
    Ok(Leaf { path, directory })
}

/// Removes the groups that dead processes left in `parent`; once per process and place.
fn reap(parent: &Path) {
    static DONE: std::sync::Mutex<Vec<PathBuf>> = std::sync::Mutex::new(Vec::new());
    let Ok(mut done) = DONE.lock() else { return };
    if done.iter().any(|path| path == parent) {
        return;
    }
    done.push(parent.to_owned());
    let Ok(lock) = File::open(parent) else { return };
    // Others are busy making groups: they, or a later process, have looked or will.
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        // Only what `new_name` may have made.
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name.split('-').count() == 3 && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        });
        let Ok(directory) = File::open(entry.path()) else { continue };
        if ours && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            kill_all(&entry.path());
            remove(&entry.path());
        }
    }
}

fn make_unified(base: &Path, below: &Path, name: &str, controllers: &[&str]) -> io::Result<Leaf> {
    reap(&base.join(below));
    let leaf = make_leaf(base, below, name)?;
    // A controller is handed down level by level. Whether that worked shows in the files that are there afterwards.
    let mut level = base.to_owned();
    let mut levels = vec![level.clone()];
    for part in below.components() {
        level.push(part);
        levels.push(level.clone());
    }
    // Memory also without a limit: for its figures.
    for controller in controllers.iter().copied().chain(["memory"]) {
        for level in &levels {
            let file = level.join("cgroup.subtree_control");
            let has = fs::read_to_string(&file)
                .is_ok_and(|text| text.split_whitespace().any(|word| word == controller));
            if !has && fs::write(&file, format!("+{controller}")).is_err() {
                break;
            }
        }
    }
    Ok(leaf)
}

fn make_legacy(controller: &str, base: &Path, below: &Path, name: &str) -> io::Result<Leaf> {
    reap(&base.join(below));
    let leaf = make_leaf(base, below, name)?;
    if controller == "cpuset" {
        // Empty in a new group, and no process can enter such a one.
        let mut level = base.to_owned();
        let parts: Vec<_> =
            below.components().map(|part| part.as_os_str().to_owned()).chain([name.into()]).collect();
        for part in parts {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let ours = level.join(&part).join(file);
                if fs::read_to_string(&ours)?.trim().is_empty() {
                    fs::write(&ours, fs::read_to_string(level.join(file))?.trim())?;
                }
            }
            level.push(part);
        }
    }
    Ok(leaf)
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
        assert_eq!(names, ["cpu", "memory"]);
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

    #[test]
    fn a_limit_without_its_controller_is_an_error_that_says_what_to_do() {
        let limits = Limits { pids: Some(10), ..Limits::default() };
        let error = Group::of(&Hierarchies::default(), &limits, None, false).expect_err("no controller");
        assert_eq!(error.to_string(), "the number of processes can't be limited");
        assert!(error.hint().is_some_and(|hint| hint.contains("pids controller")), "{:?}", error.hint());
    }

    #[test]
    fn swap_follows_memory_as_in_docker() {
        let value = |memory_swap| {
            let limits = Limits { memory: Some(100), memory_swap, ..Limits::default() };
            let all = settings(&limits);
            all.iter().find(|setting| setting.unified.0 == "memory.swap.max").map(|s| s.unified.1.clone())
        };
        assert_eq!(value(None).as_deref(), Some("100"));
        assert_eq!(value(Some(100)).as_deref(), Some("0"));
        assert_eq!(value(Some(150)).as_deref(), Some("50"));
        assert_eq!(value(Some(-1)).as_deref(), Some("max"));
    }
}
