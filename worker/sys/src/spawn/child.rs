//! What pid 1 does until it becomes the command: system calls only, in an order that matters.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::raw::{self, Result};
use super::{Helper, MESSAGE_FAILED, Message, Plan, Stage, Strings};

/// How many interpreters of scripts lead to a program (the kernel stops earlier).
const MAX_INTERPRETERS: usize = 6;

/// How much of a script's first line the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: usize = 256;

/// Becomes the command, or reports why not and ends.
pub(super) fn run(plan: &Plan<'_>, status: RawFd) -> ! {
    // Above standard input, output and error, which are replaced below.
    let status = raw::duplicate_above(status, 3).unwrap_or(status);
    let (stage, error) = match prepare(plan) {
        Ok(()) => execute(plan.candidates, plan.arguments, plan.environment),
        Err(failure) => failure,
    };
    failed(status, stage, error)
}

/// Becomes a helper, or reports why not and ends.
pub(super) fn run_helper(helper: &Helper<'_>, status: RawFd) -> ! {
    let status = raw::duplicate_above(status, 3).unwrap_or(status);
    let prepared = (|| {
        raw::default_signals();
        raw::set_session()?;
        raw::set_umask(0o77);
        stdio(&helper.stdio)?;
        raw::block_signals(false);
        Ok(())
    })();
    let (stage, error) = match prepared {
        Ok(()) => execute(helper.candidates, helper.arguments, helper.environment),
        Err(error) => (Stage::Session, error),
    };
    failed(status, stage, error)
}

fn failed(status: RawFd, stage: Stage, error: i32) -> ! {
    let message = Message { kind: MESSAGE_FAILED, what: stage as u32, value: error, ..Message::default() };
    raw::send(status, &message);
    raw::exit(127)
}

fn prepare(plan: &Plan<'_>) -> std::result::Result<(), (Stage, i32)> {
    let at = |stage: Stage| move |error: i32| (stage, error);
    raw::default_signals();
    raw::set_session().map_err(at(Stage::Session))?;
    match raw::new_session_keyring() {
        // A kernel without keyrings has none to share.
        Ok(()) | Err(libc::ENOSYS) => {}
        Err(error) => return Err((Stage::Keyring, error)),
    }
    for group in plan.enter_groups {
        raw::write(group.as_raw_fd(), b"0").map_err(at(Stage::EnterGroup))?;
    }
    if plan.group_namespace {
        raw::new_cgroup_namespace().map_err(at(Stage::GroupNamespace))?;
    }
    mount_proc(plan)?;
    mount_groups(plan).map_err(at(Stage::MountGroups))?;
    raw::change_dir(plan.root.as_raw_fd()).map_err(at(Stage::PivotRoot))?;
    raw::pivot_root_here().map_err(at(Stage::PivotRoot))?;
    stdio(&plan.stdio).map_err(at(Stage::Stdio))?;
    if plan.terminal {
        raw::take_terminal().map_err(at(Stage::Terminal))?;
    }
    change_dir(plan).map_err(at(Stage::Cwd))?;
    for (resource, soft, hard) in plan.limits {
        raw::set_limit(*resource, *soft, *hard).map_err(at(Stage::Limits))?;
    }
    raw::set_umask(plan.umask);
    // While everything can still be read: a script that only exec can read is looked into as well.
    for program in plan.candidates {
        check(program)?;
    }
    credentials(plan)?;
    raw::block_signals(false);
    Ok(())
}

fn mount_proc(plan: &Plan<'_>) -> std::result::Result<(), (Stage, i32)> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let proc = raw::new_filesystem(c"proc", attributes).map_err(|error| (Stage::MountProc, error))?;
    raw::attach(proc, plan.proc.as_raw_fd(), c"").map_err(|error| (Stage::MountProc, error))?;
    for path in plan.proc_read_only {
        restrict(proc, path, read_only).map_err(|error| (Stage::RestrictProc, error))?;
    }
    for path in plan.proc_masked {
        restrict(proc, path, |proc, path| mask(plan, proc, path))
            .map_err(|error| (Stage::RestrictProc, error))?;
    }
    raw::close(proc);
    Ok(())
}

/// What does not exist needs no restriction.
fn restrict(proc: RawFd, path: &CStr, how: impl FnOnce(RawFd, &CStr) -> Result<()>) -> Result<()> {
    match how(proc, path) {
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn read_only(proc: RawFd, path: &CStr) -> Result<()> {
    let tree = raw::clone_tree(proc, path)?;
    raw::make_read_only(tree)?;
    raw::attach(tree, proc, path)?;
    raw::close(tree);
    Ok(())
}

fn mask(plan: &Plan<'_>, proc: RawFd, path: &CStr) -> Result<()> {
    let target = raw::open(proc, path.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW, raw::NO_MAGIC_LINKS)?;
    let cover = if raw::is_directory(target)? { plan.mask_directory } else { plan.mask_file };
    let cover = cover.ok_or(libc::EINVAL)?;
    let tree = raw::clone_tree(cover.as_raw_fd(), c"")?;
    raw::attach(tree, target, c"")?;
    raw::close(tree);
    raw::close(target);
    Ok(())
}

fn mount_groups(plan: &Plan<'_>) -> Result<()> {
    let Some(target) = plan.group_mount else { return Ok(()) };
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if !plan.group_writable {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let mounted = raw::new_filesystem(c"cgroup2", attributes).and_then(|groups| {
        raw::attach(groups, target.as_raw_fd(), c"")?;
        raw::close(groups);
        Ok(())
    });
    if plan.group_mount_optional { Ok(()) } else { mounted }
}

fn stdio(stdio: &[BorrowedFd<'_>; 3]) -> Result<()> {
    // First above the numbers that they are to get, so that none overwrites another.
    let copies = stdio.map(|fd| raw::duplicate_above(fd.as_raw_fd(), 3));
    for (copy, number) in copies.into_iter().zip(0..) {
        raw::duplicate(copy?, number)?;
    }
    // Before the working directory is entered: from here on nothing that was open outside survives exec.
    raw::close_from(3, true)
}

/// Links are followed, those of /proc that lead to open files are not.
fn change_dir(plan: &Plan<'_>) -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let dir = raw::open(libc::AT_FDCWD, plan.cwd.as_ptr(), flags, raw::NO_MAGIC_LINKS)?;
    raw::change_dir(dir)?;
    raw::close(dir);
    if raw::working_directory_is_inside() { Ok(()) } else { Err(libc::EXDEV) }
}

/// The filter needs CAP_SYS_ADMIN as long as setuid programs are to work, so it comes before the capabilities go. It
/// allows all that follows.
fn credentials(plan: &Plan<'_>) -> std::result::Result<(), (Stage, i32)> {
    let capabilities = |error: i32| (Stage::Capabilities, error);
    for capability in 0..64 {
        if plan.capabilities.bounding & (1 << capability) != 0 {
            continue;
        }
        match raw::prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            // There is no such capability in this kernel, nor one with a higher number.
            Err(libc::EINVAL) => break,
            Err(error) => return Err(capabilities(error)),
        }
    }
    if let Some(filter) = plan.filter {
        raw::install_filter(filter).map_err(|error| (Stage::Filter, error))?;
    }
    let keep = plan.capabilities.inheritable != 0 && plan.uid != 0;
    if keep {
        raw::prctl(libc::PR_SET_KEEPCAPS, 1).map_err(capabilities)?;
    }
    if let Some(groups) = plan.groups {
        raw::set_groups(groups).map_err(|error| (Stage::Credentials, error))?;
    }
    raw::set_ids(plan.uid, plan.gid).map_err(|error| (Stage::Credentials, error))?;
    // Never more than we have: in a user namespace or a container that is less than asked for.
    let have = raw::permitted_capabilities().map_err(capabilities)?;
    let mut sets = plan.capabilities;
    sets.permitted = if plan.uid == 0 || keep { sets.permitted & have } else { 0 };
    sets.inheritable &= sets.permitted;
    raw::set_capabilities(sets).map_err(capabilities)?;
    for capability in 0..64 {
        if sets.inheritable & (1 << capability) != 0 {
            raw::ambient_raise(capability).map_err(capabilities)?;
        }
    }
    Ok(())
}

/// Tries the candidates as a shell does: the first that can be executed; if none, the first error that is not
/// "there is no such file".
fn execute(candidates: &[CString], arguments: &Strings, environment: &Strings) -> (Stage, i32) {
    let mut failure = (Stage::Exec, libc::ENOENT);
    for program in candidates {
        let this = (Stage::Exec, raw::execute(program, arguments, environment));
        if !matches!(this.1, libc::ENOENT | libc::ENOTDIR)
            && matches!(failure.1, libc::ENOENT | libc::ENOTDIR)
        {
            failure = this;
        }
        // As with execvp: only what may lie elsewhere is looked for elsewhere.
        if !matches!(this.1, libc::ENOENT | libc::ENOTDIR | libc::EACCES) {
            return this;
        }
    }
    failure
}

/// `/proc/self/exe` is the builder's own program until exec. Neither the program nor an interpreter of a script may be
/// it, or another file behind a link of /proc.
fn check(program: &CStr) -> std::result::Result<(), (Stage, i32)> {
    let mut name = [0u8; SCRIPT_HEAD + 1];
    let mut path = program.as_ptr();
    for _ in 0..MAX_INTERPRETERS {
        let file = match raw::open(
            libc::AT_FDCWD,
            path,
            libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY,
            raw::NO_MAGIC_LINKS,
        ) {
            Ok(file) => file,
            Err(libc::ELOOP) => return Err((Stage::MagicLink, libc::ELOOP)),
            // What is wrong with it exec says best.
            Err(_) => return Ok(()),
        };
        let mut head = [0u8; SCRIPT_HEAD];
        let length = raw::read(file, &mut head);
        raw::close(file);
        let Some(line) = head.get(..length.unwrap_or(0)).and_then(|head| head.strip_prefix(b"#!")) else {
            return Ok(());
        };
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0);
        name = [0; SCRIPT_HEAD + 1];
        let interpreter = line.iter().skip_while(|byte| blank(byte)).take_while(|byte| !end(byte));
        for (to, from) in name.iter_mut().take(SCRIPT_HEAD).zip(interpreter) {
            *to = *from;
        }
        path = name.as_ptr().cast();
    }
    let _ = name;
    Ok(())
}
