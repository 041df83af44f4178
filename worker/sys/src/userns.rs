//! A user namespace for the whole process, with a mount namespace that belongs to it.
//!
//! ```text
//! process                         helper (a copy of it)
//!   starts the helper ──────────▶ waits
//!   leaves for new namespaces
//!   says so ────────────────────▶ writes the id maps, from outside
//!   goes on  ◀─────────────────── says how that went, ends
//! ```
//!
//! The process stays the one that was started: same pid, terminal, signals, exit code. The helper is there because more
//! than one id can only be mapped from outside (user_namespaces(7), "Defining user and group ID mappings").

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};

/// Ids of a user namespace that stand for ids outside: a line of `uid_map` or `gid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Why a process is not in a new user namespace.
#[derive(Debug)]
pub enum EnterError {
    /// It has more than one thread, and the kernel moves none of them.
    Threads(usize),
    /// The kernel makes no user namespace for it.
    Refused(io::Error),
    /// Something else went wrong; it may be in a namespace without ids now.
    Failed(&'static str, io::Error),
}

/// Moves the whole process, which must have one thread, into a new user namespace and a mount namespace of its own.
///
/// `write_maps` runs outside, in a copy of the process, when that has happened: it is given the process's id, and writes
/// its `uid_map` and `gid_map`. What it returns is returned (an error as text; what else it changes is lost with the
/// copy). If it fails, the process has no ids mapped, and may still map one by itself: [`map_one`].
pub fn enter(write_maps: impl FnOnce(u32) -> Result<(), String>) -> Result<Result<(), String>, EnterError> {
    let failed = |step: &'static str| move |error: io::Error| EnterError::Failed(step, error);
    let threads = fs::read_dir("/proc/self/task").map_err(failed("count threads"))?.count();
    if threads != 1 {
        return Err(EnterError::Threads(threads));
    }
    let me = std::process::id();
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe")(error.into()));
    let (wait, go) = pipe()?;
    let (answer, answer_end) = pipe()?;
    // SAFETY: there is no other thread that could hold a lock, so the copy may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(failed("start a helper")(io::Error::last_os_error())),
        0 => {
            drop((go, answer));
            help(&wait, answer_end, || write_maps(me))
        }
        helper => {
            drop((wait, answer_end));
            let entered = unshare();
            let mut text = Vec::new();
            let mut heard = Ok(0);
            let mut go = fs::File::from(go);
            if entered.is_ok() {
                heard = go.write_all(b"!").and_then(|()| fs::File::from(answer).read_to_end(&mut text));
            }
            // Without a word it ends by itself.
            drop(go);
            let _ = rustix::io::retry_on_intr(|| {
                waitpid(rustix::process::Pid::from_raw(helper), WaitOptions::empty())
            });
            entered.map_err(EnterError::Refused)?;
            heard.map_err(failed("hear from the helper"))?;
            match text.split_first() {
                Some((b'+', _)) => Ok(Ok(())),
                Some((_, text)) => Ok(Err(String::from_utf8_lossy(text).into_owned())),
                None => Ok(Err("the helper that was to write the id maps was killed".to_owned())),
            }
        }
    }
}

/// The helper: waits for the word, writes the maps, answers, and ends without running anything of the process it was
/// copied from.
fn help(wait: &OwnedFd, answer: OwnedFd, write_maps: impl FnOnce() -> Result<(), String>) -> ! {
    let mut word = [0; 1];
    if let Ok(1) = rustix::io::retry_on_intr(|| rustix::io::read(wait, &mut word)) {
        let done = catch_unwind(AssertUnwindSafe(write_maps));
        let text = match done {
            Ok(Ok(())) => "+".to_owned(),
            Ok(Err(error)) => format!("-{error}"),
            Err(_) => "-it panicked".to_owned(),
        };
        let _ = fs::File::from(answer).write_all(text.as_bytes());
    }
    // SAFETY: takes a number, and does not return.
    unsafe { libc::_exit(0) }
}

fn unshare() -> io::Result<()> {
    // SAFETY: the call reads no memory of ours, and the one thread that there is shares nothing with another.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps one user and one group of outside to 0, in the process's own new namespace. Groups can't be changed then.
pub fn map_one(uid: u32, gid: u32) -> Result<(), EnterError> {
    let write = |step: &'static str, path: &str, text: String| {
        // Written in one call, as the kernel demands.
        fs::write(path, text).map_err(|error| EnterError::Failed(step, error))
    };
    write("give up changing groups", "/proc/self/setgroups", "deny".to_owned())?;
    write("map a user id", "/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    write("map a group id", "/proc/self/gid_map", format!("0 {gid} 1\n"))
}
