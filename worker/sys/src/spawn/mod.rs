//! A command as pid 1 of a namespace of its own, under a supervisor.
//!
//! ```text
//! builder ── supervisor ── pid 1 (becomes the command)
//!    │  life pipe ▲  │ status pipe ▲
//!    └────────────┘  └─▶ builder ◀─┘
//! ```
//!
//! The supervisor does nothing but wait: for pid 1 to end (it reports how, and ends), or for the life pipe to close
//! because the builder let go of it or died, however it died; then it kills pid 1, and the kernel everything in pid 1's
//! namespace. A byte that comes through the life pipe is the number of a signal for pid 1.
//!
//! The supervisor is itself the first process of a pid namespace, and pid 1's lies within that. So if it is killed (when
//! memory is short the kernel kills all that share the builder's), the kernel kills pid 1's namespace too, and the
//! supervisor has not ended before that is empty.
//!
//! Both processes share the builder's memory, as after `vfork`: pid 1 until it executes its program, the supervisor until
//! it ends. So neither ever allocates, locks, or runs code that could; each has a stack of its own. All they need is
//! prepared in a [`Plan`]; they make system calls and nothing else.
//!
//! Changing users makes memory that cannot be dumped of it (`PR_SET_DUMPABLE`), and it stays so for the builder: otherwise
//! the command's user, if there is such a one on the host, could trace pid 1 before it has left the builder's memory.

mod child;
mod machine;
mod raw;
mod stack;
mod supervisor;

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use stack::Stack;

/// Capabilities, one bit each, as in `/proc/self/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What the command and its children can ever have.
    pub bounding: u64,
    /// What it has and uses, if it is root.
    pub permitted: u64,
    /// What survives exec through file capabilities; also the ambient set.
    pub inheritable: u64,
}

/// One instruction of a seccomp filter (Linux `struct sock_filter`).
pub type FilterInstruction = libc::sock_filter;

/// A list of strings as `execve` wants it.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const c_char>,
    // What the pointers point to.
    _strings: Vec<CString>,
}

// SAFETY: the pointers lead to heap memory that `_strings` owns and that is never changed.
unsafe impl Send for Strings {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Strings {}

impl Strings {
    /// Keeps these strings.
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        Self { pointers, _strings: strings }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// All that the two processes need to know. The namespaces of the thread that calls [`spawn`] are the command's, but for
/// pid and cgroup, which are new.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Where the program may lie, tried in this order; absolute, or relative to `cwd`.
    pub candidates: &'a [CString],
    /// The program's arguments, from its name on.
    pub arguments: &'a Strings,
    /// Its environment.
    pub environment: &'a Strings,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Does standard input become the terminal that controls it?
    pub terminal: bool,
    /// The mount that becomes `/`; attached in the thread's mount namespace.
    pub root: BorrowedFd<'a>,
    /// The directory that gets the proc filesystem.
    pub proc: BorrowedFd<'a>,
    /// What of /proc (relative) is made read-only, where it exists.
    pub proc_read_only: &'a [&'a CStr],
    /// What of /proc (relative) is hidden, where it exists.
    pub proc_masked: &'a [&'a CStr],
    /// An empty directory to hide directories with (a mount attached nowhere).
    pub mask_directory: Option<BorrowedFd<'a>>,
    /// An empty file to hide files with (a mount attached nowhere).
    pub mask_file: Option<BorrowedFd<'a>>,
    /// The `cgroup.procs` of groups to enter, before the cgroup namespace is made.
    pub enter_groups: &'a [BorrowedFd<'a>],
    /// A group of the v2 hierarchy to be born in.
    pub group: Option<BorrowedFd<'a>>,
    /// Does it get a cgroup namespace?
    pub group_namespace: bool,
    /// The directory that gets the (v2) cgroup filesystem, read-only.
    pub group_mount: Option<BorrowedFd<'a>>,
    /// Is a cgroup filesystem that can't be mounted no error?
    pub group_mount_optional: bool,
    /// May the command write to the cgroup filesystem?
    pub group_writable: bool,
    /// The working directory, absolute.
    pub cwd: &'a CStr,
    /// Resource limits: `RLIMIT_*`, soft, hard.
    pub limits: &'a [(u32, u64, u64)],
    /// The file mode creation mask.
    pub umask: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `None`: as they are, because the user namespace forbids to set them.
    pub groups: Option<&'a [u32]>,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// The system call filter.
    pub filter: Option<&'a [FilterInstruction]>,
}

/// What the processes were doing when they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is described by `what`")]
pub enum Stage {
    Supervise = 1,
    Session,
    Keyring,
    EnterGroup,
    GroupNamespace,
    MountProc,
    RestrictProc,
    MountGroups,
    PivotRoot,
    Cwd,
    Stdio,
    Limits,
    Credentials,
    Capabilities,
    Filter,
    Exec,
    Terminal,
    /// The program, or its interpreter, is a link of /proc that leads out of the sandbox.
    MagicLink,
}

impl Stage {
    const ALL: [Self; 18] = [
        Self::Supervise,
        Self::Session,
        Self::Keyring,
        Self::EnterGroup,
        Self::GroupNamespace,
        Self::MountProc,
        Self::RestrictProc,
        Self::MountGroups,
        Self::PivotRoot,
        Self::Cwd,
        Self::Stdio,
        Self::Limits,
        Self::Credentials,
        Self::Capabilities,
        Self::Filter,
        Self::Exec,
        Self::Terminal,
        Self::MagicLink,
    ];

    /// What was tried, for people.
    pub fn what(self) -> &'static str {
        match self {
            Self::Supervise => "start a process in a new pid namespace",
            Self::Session => "start a session",
            Self::Keyring => "make a session keyring",
            Self::EnterGroup => "enter a control group",
            Self::GroupNamespace => "make a cgroup namespace",
            Self::MountProc => "mount /proc",
            Self::RestrictProc => "restrict /proc",
            Self::MountGroups => "mount /sys/fs/cgroup",
            Self::PivotRoot => "change the root directory",
            Self::Cwd => "enter the working directory",
            Self::Stdio => "set up standard input and output",
            Self::Terminal => "take over the terminal",
            Self::Limits => "set resource limits",
            Self::Credentials => "change user and groups",
            Self::Capabilities => "set capabilities",
            Self::Filter => "install the system call filter",
            Self::Exec | Self::MagicLink => "execute the program",
        }
    }
}

/// What comes through the status pipe: always this many bytes at once, which the kernel never mixes or splits.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Message {
    /// [`MESSAGE_FAILED`], [`MESSAGE_ENDED`] or [`MESSAGE_STARTED`].
    kind: u32,
    /// The stage, or `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED`.
    what: u32,
    /// The error number, or the exit code or signal.
    value: i32,
    reserved: u32,
    /// Microseconds of user and system time.
    cpu_time: u64,
    /// Bytes that the largest process had in memory; 0: not known.
    largest: u64,
}

/// How soon it is noticed that a command that does not start is not wanted any more.
const CANCEL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

const MESSAGE_FAILED: u32 = 1;
const MESSAGE_ENDED: u32 = 2;
const MESSAGE_STARTED: u32 = 3;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ended by itself.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

/// How it went.
#[derive(Debug)]
pub enum Outcome {
    /// The command ran.
    Ended {
        /// How it ended.
        end: End,
        /// User and system time of pid 1 and the processes that it waited for, in microseconds.
        cpu_time: u64,
        /// The most memory (resident set) that one of these processes had, in bytes, where it is clearly more than this
        /// program itself has: until pid 1 executes its program it shares this one's memory, which counts as its own.
        largest: Option<u64>,
    },
    /// It could not be started.
    Failed {
        /// At what.
        stage: Stage,
        /// What the kernel said.
        error: io::Error,
    },
    /// The supervisor was killed from outside; the kernel has killed the command with it.
    Lost,
}

/// A running command. Dropping it kills the command.
#[derive(Debug)]
pub struct Child {
    // The order matters: letting go of `life` makes the supervisor end, which `wait` then sees.
    life: Option<OwnedFd>,
    status: OwnedFd,
    supervisor: OwnedFd,
    reaped: bool,
    /// What pid 1 or the supervisor failed at, as far as it was read.
    failed: Option<Message>,
    /// What the supervisor runs on.
    stack: Option<Stack>,
}

impl Child {
    fn new(life: OwnedFd, status: OwnedFd, supervisor: OwnedFd, stack: Stack) -> Self {
        Self { life: Some(life), status, supervisor, reaped: false, failed: None, stack: Some(stack) }
    }

    /// Returns when pid 1 uses nothing of our memory any more, nor the supervisor, but for its stack. If `cancelled` says
    /// so before, both are killed.
    fn wait_until_started(&mut self, cancelled: &dyn Fn() -> bool) {
        loop {
            match self.read(Some(&CANCEL_INTERVAL)) {
                Heard::Message(Message { kind: MESSAGE_STARTED, .. }) | Heard::End => break,
                Heard::Message(message) => self.failed = self.failed.or(Some(message)),
                Heard::Nothing if cancelled() => {
                    // It waits for pid 1 and looks at no pipe: only this ends it.
                    let _ = pidfd_send_signal(&self.supervisor, Signal::KILL);
                    self.reap();
                    break;
                }
                Heard::Nothing => {}
            }
        }
    }

    /// Readable when the command has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }

    /// Sends a signal to the command itself, which is pid 1: one that it has no handler for does nothing, but for SIGKILL
    /// and SIGSTOP. Nothing happens if it has ended.
    pub fn signal(&self, number: u8) {
        if let Some(life) = &self.life {
            // What is left of the supervisor may have closed its end.
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(life, &[number]));
        }
    }

    /// Kills the command and all its processes, soon.
    pub fn kill(&mut self) {
        self.life = None;
    }

    /// Waits until the command has ended and none of its processes is left.
    pub fn wait(&mut self) -> Outcome {
        let mut ended = None;
        while let Heard::Message(message) = self.read(None) {
            match message.kind {
                MESSAGE_FAILED => self.failed = self.failed.or(Some(message)),
                MESSAGE_ENDED => {
                    let end = if message.what == libc::CLD_EXITED as u32 {
                        End::Exited(message.value)
                    } else {
                        End::Killed(message.value)
                    };
                    let largest = Some(message.largest).filter(|bytes| *bytes > 0);
                    ended = Some(Outcome::Ended { end, cpu_time: message.cpu_time, largest });
                }
                _ => {}
            }
        }
        self.reap();
        if let Some(message) = &self.failed {
            let stage = Stage::ALL.into_iter().find(|stage| *stage as u32 == message.what);
            return Outcome::Failed {
                stage: stage.unwrap_or(Stage::Supervise),
                error: io::Error::from_raw_os_error(message.value),
            };
        }
        ended.unwrap_or(Outcome::Lost)
    }

    /// The next message. The pipe's end alone does not tell that there is none: another process that shares our
    /// descriptors until it executes its program may still have it open.
    fn read(&self, timeout: Option<&Timespec>) -> Heard {
        let entry = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut entries = [entry(self.status.as_fd()), entry(self.supervisor.as_fd())];
        let told = |entries: &[PollFd<'_>; 2]| entries.each_ref().map(|entry| !entry.revents().is_empty());
        match rustix::io::retry_on_intr(|| poll(&mut entries, timeout)) {
            Ok(0) => return Heard::Nothing,
            Ok(_) => {}
            Err(_) => return Heard::End,
        }
        if let [false, true] = told(&entries) {
            // What it said last it may have said between the looks at the two.
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = rustix::io::retry_on_intr(|| poll(&mut entries, Some(&now)));
        }
        if let [false, _] = told(&entries) {
            return Heard::End;
        }
        let mut bytes = [0; size_of::<Message>()];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.status, &mut bytes));
        if read != Ok(bytes.len()) {
            return Heard::End;
        }
        // SAFETY: `Message` is plain numbers without padding: any bytes are a valid one.
        Heard::Message(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    fn reap(&mut self) {
        if !self.reaped {
            if raw::wait_for(self.supervisor.as_raw_fd()).is_none() {
                // Somebody else waited for it. It may not be off its stack yet: this memory is better never used again.
                std::mem::forget(self.stack.take());
            }
            self.reaped = true;
        }
    }
}

/// What there is to hear of a command.
enum Heard {
    Message(Message),
    /// Not yet.
    Nothing,
    /// There will be no more.
    End,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.life = None;
        self.reap();
    }
}

/// Starts the command. Returns when the program was executed or could not be; which of both [`Child::wait`] tells. That
/// takes long where the program lies on a filesystem that does not answer: when `cancelled` says so, it is killed, and
/// is [`Outcome::Lost`].
///
/// No signal that the builder gets reaches the supervisor or the command, and neither shows up in a `wait` of the
/// program that we are part of.
pub fn spawn(plan: &Plan<'_>, cancelled: &dyn Fn() -> bool) -> io::Result<Child> {
    let group = plan.group.map(|group| group.as_raw_fd());
    supervisor::start(&|status| child::run(plan, status), group, cancelled)
}

/// A program of the host that works for the builder, and must not outlive it.
#[derive(Debug)]
pub struct Helper<'a> {
    /// Where the program may lie, tried in this order.
    pub candidates: &'a [CString],
    /// Its arguments, from its name on.
    pub arguments: &'a Strings,
    /// Its environment.
    pub environment: &'a Strings,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
}

/// Starts a program in a pid namespace of its own, and in the other namespaces of the calling thread. Like a command it
/// ends when its [`Child`] is dropped, or when we end, however that happens.
pub fn start_helper(helper: &Helper<'_>) -> io::Result<Child> {
    supervisor::start(&|status| child::run_helper(helper, status), None, &|| false)
}
