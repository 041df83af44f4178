//! System calls for processes that may do nothing else: no allocation, no lock, no panic.
//!
//! Errors are error numbers, as the kernel gives them.

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::machine::{self, Entry};
use super::stack::Stack;
use super::{Capabilities, FilterInstruction};

pub(super) type Result<T> = std::result::Result<T, i32>;

/// One system call with number arguments (pointers as numbers).
///
/// # Safety
/// What the arguments point to must be valid for what the call does with it.
unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize> {
    // SAFETY: promised by the caller.
    let result = unsafe { machine::system_call(number, args) };
    if result >= 0 { Ok(result as usize) } else { Err(-result as i32) }
}

fn fd(fd: RawFd) -> usize {
    fd as usize
}

fn retry<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt() {
            Err(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// Starts a process at `entry`, on `stack`; it shares our memory until it executes a program or ends (see [`machine`]).
///
/// # Safety
/// `entry` makes system calls and nothing else, and does not return. Until the process has executed a program or ended
/// nobody else uses `stack`, and what `data` points to stays valid and is written by nobody.
pub(super) unsafe fn start_process(
    flags: u64,
    exit_signal: i32,
    group: Option<RawFd>,
    stack: &Stack,
    entry: Entry,
    data: *const (),
) -> Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    let mut cgroup = 0;
    if let Some(group) = group {
        flags |= CLONE_INTO_CGROUP;
        cgroup = group as u64;
    }
    let mut args = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: exit_signal as u64,
        stack: stack.lowest() as u64,
        stack_size: stack.size() as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: the place for the pidfd is valid for the call; the rest is promised by the caller.
    let pid = unsafe { machine::clone_process(&mut args, entry, data) };
    if pid < 0 {
        return Err(-pid as i32);
    }
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Ends this process, now.
pub(super) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes a number, and does not return.
        let _ = unsafe { call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

pub(super) fn write(to: RawFd, bytes: &[u8]) -> Result<usize> {
    // SAFETY: pointer and length describe `bytes`, which the call only reads.
    retry(|| unsafe { call(libc::SYS_write, [fd(to), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) })
}

pub(super) fn read(from: RawFd, buffer: &mut [u8]) -> Result<usize> {
    let (pointer, length) = (buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: pointer and length describe `buffer`, which we borrow for writing.
    retry(|| unsafe { call(libc::SYS_read, [fd(from), pointer, length, 0, 0, 0]) })
}

pub(super) fn duplicate(from: RawFd, to: RawFd) -> Result<()> {
    if from == to {
        // dup3 refuses this, and the descriptor would stay close-on-exec.
        // SAFETY: takes numbers only.
        return unsafe { call(libc::SYS_fcntl, [fd(from), libc::F_SETFD as usize, 0, 0, 0, 0]) }.map(drop);
    }
    // SAFETY: takes numbers only; the caller owns the whole descriptor table of this process.
    retry(|| unsafe { call(libc::SYS_dup3, [fd(from), fd(to), 0, 0, 0, 0]) }).map(drop)
}

/// A copy of a descriptor with a number of at least `least`, close-on-exec.
pub(super) fn duplicate_above(from: RawFd, least: RawFd) -> Result<RawFd> {
    // SAFETY: takes numbers only.
    unsafe { call(libc::SYS_fcntl, [fd(from), libc::F_DUPFD_CLOEXEC as usize, fd(least), 0, 0, 0]) }
        .map(|fd| fd as RawFd)
}

pub(super) fn close(which: RawFd) {
    // SAFETY: takes a number only; the caller opened it.
    let _ = unsafe { call(libc::SYS_close, [fd(which), 0, 0, 0, 0, 0]) };
}

pub(super) fn close_from(first: u32, on_exec: bool) -> Result<()> {
    let flags = if on_exec { libc::CLOSE_RANGE_CLOEXEC as usize } else { 0 };
    // SAFETY: takes numbers only; the caller owns the whole descriptor table of this process.
    unsafe { call(libc::SYS_close_range, [first as usize, u32::MAX as usize, flags, 0, 0, 0]) }.map(drop)
}

/// All signals blocked, or none.
pub(super) fn block_signals(block: bool) {
    let mask: u64 = if block { u64::MAX } else { 0 };
    // SAFETY: the mask is eight bytes, as the size says, and only read.
    let _ = unsafe {
        call(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, (&raw const mask) as usize, 0, size_of::<u64>(), 0, 0],
        )
    };
}

/// The kernel's `struct sigaction` with the default action; large enough for every architecture.
#[repr(C)]
struct DefaultAction([u64; 4]);

/// What every signal does becomes the default, also of those that were ignored.
pub(super) fn default_signals() {
    let action = DefaultAction([0; 4]);
    for signal in 1..=64usize {
        // SAFETY: all-zero is SIG_DFL without flags, and the call only reads it. SIGKILL and SIGSTOP are refused.
        let _ = unsafe {
            call(libc::SYS_rt_sigaction, [signal, (&raw const action) as usize, 0, size_of::<u64>(), 0, 0])
        };
    }
}

pub(super) fn set_session() -> Result<()> {
    // SAFETY: takes nothing.
    unsafe { call(libc::SYS_setsid, [0; 6]) }.map(drop)
}

/// Makes standard input the controlling terminal of this session.
pub(super) fn take_terminal() -> Result<()> {
    // SAFETY: takes numbers only.
    unsafe { call(libc::SYS_ioctl, [0, libc::TIOCSCTTY as usize, 0, 0, 0, 0]) }.map(drop)
}

pub(super) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: the name is null, which means an unnamed keyring.
    unsafe { call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]) }.map(drop)
}

pub(super) fn prctl(option: i32, value: usize) -> Result<usize> {
    // SAFETY: only used for options whose argument is a number (or, for PR_SET_NAME, a static string).
    unsafe { call(libc::SYS_prctl, [option as usize, value, 0, 0, 0, 0]) }
}

pub(super) fn ambient_raise(capability: u64) -> Result<usize> {
    // SAFETY: takes numbers only.
    unsafe {
        call(
            libc::SYS_prctl,
            [
                libc::PR_CAP_AMBIENT as usize,
                libc::PR_CAP_AMBIENT_RAISE as usize,
                capability as usize,
                0,
                0,
                0,
            ],
        )
    }
}

pub(super) fn new_cgroup_namespace() -> Result<()> {
    // SAFETY: takes a number only.
    unsafe { call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

pub(super) fn new_filesystem(kind: &CStr, attributes: u64) -> Result<RawFd> {
    const FSCONFIG_CMD_CREATE: usize = 6;
    const CLOEXEC: usize = 1;
    // SAFETY: the name is a NUL-terminated string.
    let context = unsafe { call(libc::SYS_fsopen, [kind.as_ptr() as usize, CLOEXEC, 0, 0, 0, 0]) }?;
    // SAFETY: this command takes no key and no value.
    unsafe { call(libc::SYS_fsconfig, [context, FSCONFIG_CMD_CREATE, 0, 0, 0, 0]) }?;
    // SAFETY: takes numbers only.
    let mount = unsafe { call(libc::SYS_fsmount, [context, CLOEXEC, attributes as usize, 0, 0, 0]) };
    close(context as RawFd);
    mount.map(|mount| mount as RawFd)
}

pub(super) fn clone_tree(at: RawFd, path: &CStr) -> Result<RawFd> {
    const CLONE: usize = 1;
    let flags =
        CLONE | libc::O_CLOEXEC as usize | libc::AT_EMPTY_PATH as usize | libc::AT_SYMLINK_NOFOLLOW as usize;
    // SAFETY: the path is a NUL-terminated string.
    unsafe { call(libc::SYS_open_tree, [fd(at), path.as_ptr() as usize, flags, 0, 0, 0]) }
        .map(|fd| fd as RawFd)
}

/// Puts a mount that is attached nowhere on `path` below `at` (empty: on `at` itself).
pub(super) fn attach(mount: RawFd, at: RawFd, path: &CStr) -> Result<()> {
    const FROM_EMPTY_PATH: usize = 0x4;
    const TO_EMPTY_PATH: usize = 0x40;
    let flags = FROM_EMPTY_PATH | TO_EMPTY_PATH;
    // SAFETY: both paths are NUL-terminated strings.
    unsafe {
        call(
            libc::SYS_move_mount,
            [fd(mount), c"".as_ptr() as usize, fd(at), path.as_ptr() as usize, flags, 0],
        )
    }
    .map(drop)
}

pub(super) fn make_read_only(mount: RawFd) -> Result<()> {
    let attr =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated string and `attr` has the size that is passed; both are only read.
    unsafe {
        call(
            libc::SYS_mount_setattr,
            [
                fd(mount),
                c"".as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
                (&raw const attr) as usize,
                size_of::<libc::mount_attr>(),
                0,
            ],
        )
    }
    .map(drop)
}

/// The same as the kernel's `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

pub(super) const NO_MAGIC_LINKS: u64 = 0x02;

/// `openat2`, close-on-exec.
pub(super) fn open(at: RawFd, path: *const libc::c_char, flags: i32, resolve: u64) -> Result<RawFd> {
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    // SAFETY: callers pass NUL-terminated strings; `how` has the size that is passed.
    retry(|| unsafe {
        call(
            libc::SYS_openat2,
            [fd(at), path as usize, (&raw const how) as usize, size_of::<OpenHow>(), 0, 0],
        )
    })
    .map(|fd| fd as RawFd)
}

pub(super) fn is_directory(which: RawFd) -> Result<bool> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a NUL-terminated string, and `stat` has room for what the call writes.
    unsafe {
        call(
            libc::SYS_statx,
            [
                fd(which),
                c"".as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
                libc::STATX_TYPE as usize,
                stat.as_mut_ptr() as usize,
                0,
            ],
        )
    }?;
    // SAFETY: zeroed memory is a valid `statx`, and the call has filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR)
}

pub(super) fn change_dir(to: RawFd) -> Result<()> {
    // SAFETY: takes a number only.
    unsafe { call(libc::SYS_fchdir, [fd(to), 0, 0, 0, 0, 0]) }.map(drop)
}

/// Makes the working directory the root, and forgets the old one.
pub(super) fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr() as usize;
    // SAFETY: the paths are NUL-terminated strings.
    unsafe {
        call(libc::SYS_pivot_root, [here, here, 0, 0, 0, 0])?;
        // The old root now lies on the new one, and `.` is the old one.
        call(libc::SYS_umount2, [here, libc::MNT_DETACH as usize, 0, 0, 0, 0])?;
        call(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Is the working directory below the root?
pub(super) fn working_directory_is_inside() -> bool {
    let mut buffer = [0u8; 4096];
    // SAFETY: pointer and length describe `buffer`.
    let length = unsafe { call(libc::SYS_getcwd, [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0]) };
    // The kernel gives `(unreachable)/…` for a directory outside. ERANGE: inside, and very deep.
    match length {
        Ok(_) => buffer.first() == Some(&b'/'),
        Err(error) => error == libc::ERANGE,
    }
}

pub(super) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: `limit` has the layout of `struct rlimit64`, and is only read.
    unsafe { call(libc::SYS_prlimit64, [0, resource as usize, (&raw const limit) as usize, 0, 0, 0]) }
        .map(drop)
}

pub(super) fn set_umask(mask: u32) {
    // SAFETY: takes a number only.
    let _ = unsafe { call(libc::SYS_umask, [mask as usize, 0, 0, 0, 0, 0]) };
}

/// Only of this process: it has one thread.
pub(super) fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: length and pointer describe `groups`, which is only read.
    unsafe { call(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

pub(super) fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (uid as usize, gid as usize);
    // SAFETY: take numbers only.
    unsafe {
        call(libc::SYS_setresgid, [gid, gid, gid, 0, 0, 0])?;
        call(libc::SYS_setresuid, [uid, uid, uid, 0, 0, 0])?;
    }
    Ok(())
}

/// Effective, permitted and inheritable capabilities.
pub(super) fn set_capabilities(capabilities: Capabilities) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (permitted, inheritable) = (capabilities.permitted, capabilities.inheritable);
    let data = [
        permitted as u32,
        permitted as u32,
        inheritable as u32,
        (permitted >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    // SAFETY: both have the layout of version 3 (`__user_cap_header_struct`, two `__user_cap_data_struct`), and are read.
    unsafe { call(libc::SYS_capset, [(&raw const header) as usize, (&raw const data) as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// What this process is permitted.
pub(super) fn permitted_capabilities() -> Result<u64> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    let mut data = [0u32; 6];
    // SAFETY: both have the layout of version 3, and we borrow them for writing.
    unsafe {
        call(libc::SYS_capget, [(&raw mut header) as usize, (&raw mut data) as usize, 0, 0, 0, 0])?;
    }
    let [_, low, _, _, high, _] = data;
    Ok(u64::from(low) | u64::from(high) << 32)
}

pub(super) fn install_filter(filter: &[FilterInstruction]) -> Result<()> {
    const SET_MODE_FILTER: usize = 1;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: length and pointer describe `filter` (the kernel refuses more than 4096 instructions), which is only read.
    unsafe { call(libc::SYS_seccomp, [SET_MODE_FILTER, 0, (&raw const program) as usize, 0, 0, 0]) }.map(drop)
}

/// Returns only if it fails.
pub(super) fn execute(program: &CStr, arguments: &super::Strings, environment: &super::Strings) -> i32 {
    // SAFETY: a NUL-terminated string, and two null-terminated lists of such.
    let result = unsafe {
        call(
            libc::SYS_execve,
            [program.as_ptr() as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize, 0, 0, 0],
        )
    };
    result.err().unwrap_or(libc::EINVAL)
}

/// Waits until one of `descriptors` is readable or hung up; says which.
pub(super) fn poll(descriptors: [RawFd; 2]) -> [bool; 2] {
    let [a, b] = descriptors;
    let mut list = [
        libc::pollfd { fd: a, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: b, events: libc::POLLIN, revents: 0 },
    ];
    // SAFETY: pointer and length describe `list`; no timeout, no signal mask.
    let _ = unsafe { call(libc::SYS_ppoll, [list.as_mut_ptr() as usize, list.len(), 0, 0, 0, 0]) };
    list.map(|entry| entry.revents != 0)
}

pub(super) fn kill(pidfd: RawFd, signal: i32) {
    // SAFETY: takes numbers only; no siginfo.
    let _ = unsafe { call(libc::SYS_pidfd_send_signal, [fd(pidfd), signal as usize, 0, 0, 0, 0]) };
}

/// How a child ended, and what it used.
pub(super) struct Wait {
    pub(super) code: i32,
    pub(super) status: i32,
    pub(super) cpu_time: u64,
    /// Bytes of the largest process, or 0 where it may have been this one's memory.
    pub(super) largest: u64,
}

/// Waits for a child, also for one that sends no signal when it ends.
pub(super) fn wait_for(pidfd: RawFd) -> Option<Wait> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::__WALL;
    // SAFETY: both have room for what the call writes.
    retry(|| unsafe {
        call(
            libc::SYS_waitid,
            [
                libc::P_PIDFD as usize,
                fd(pidfd),
                info.as_mut_ptr() as usize,
                options as usize,
                usage.as_mut_ptr() as usize,
                0,
            ],
        )
    })
    .ok()?;
    // SAFETY: zeroed memory is a valid value of both, and the call has filled them for an ended child.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    let micros =
        |time: libc::timeval| (time.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(time.tv_usec as u64);
    Some(Wait {
        code: info.si_code,
        // SAFETY: `waitid` fills this field for all that it reports.
        status: unsafe { info.si_status() },
        cpu_time: micros(usage.ru_utime).wrapping_add(micros(usage.ru_stime)),
        largest: largest(&usage).unwrap_or(0),
    })
}

/// The largest resident set of an ended child and the children that it waited for, in bytes, if it was not what the child
/// shared with this process before it executed a program. The kernel's counts are a little off, so it must be more by an eighth.
fn largest(child: &libc::rusage) -> Option<u64> {
    let mut own = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: there is room for what the call writes.
    unsafe { call(libc::SYS_getrusage, [libc::RUSAGE_SELF as usize, own.as_mut_ptr() as usize, 0, 0, 0, 0]) }
        .ok()?;
    // SAFETY: zeroed memory is a valid value, and the call has filled it.
    let own = unsafe { own.assume_init() }.ru_maxrss;
    let largest = (child.ru_maxrss > own.saturating_add(own / 8)).then_some(child.ru_maxrss)?;
    u64::try_from(largest).ok()?.checked_mul(1024)
}

/// The bytes of a message.
pub(super) fn send(to: RawFd, message: &super::Message) {
    // SAFETY: `Message` is plain numbers without padding; pointer and length describe it.
    let bytes = unsafe {
        std::slice::from_raw_parts(ptr::from_ref(message).cast::<u8>(), size_of::<super::Message>())
    };
    let _ = write(to, bytes);
}
