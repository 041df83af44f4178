//! Owners that files can't have: in a user namespace with a single id the kernel refuses every other one, and programs
//! that install files (dpkg, tar, npm) end at that.
//!
//! There the calls that change owners wait for us, and what the kernel would refuse is kept aside in an attribute of the
//! file (`bricklayer_cache::root::at`), which is its owner when the layer is packed. Commands see root's files all the same.
//!
//! ```text
//! command ── chown(path, 33, 33) ──▶ waits
//!                                     │ path read from its memory, found from its root and working directory
//!                                     ▼
//!                          owner kept aside ──▶ 0
//! ```
//!
//! A call that is not understood, or whose file is not found, the kernel does as ever: it knows the right error.
//! Whatever the command changes meanwhile, this does to a file of its root no more than root there may do.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bricklayer_cache::root::{at, ids};
use bricklayer_sys::namespace::own_root;
use bricklayer_sys::notify::{Call, Listener, WAIT, listen};
use bricklayer_sys::spawn::FilterInstruction;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::seccomp::native_number;

/// The longest path (`PATH_MAX`), with its end.
const PATH_MAX: usize = 4096;

/// `CAP_CHOWN`.
const CHOWN: u64 = 1;

/// Flags of fchownat(2).
const NO_FOLLOW: u64 = 0x100;
const EMPTY_PATH: u64 = 0x1000;

/// "As it is", of an id.
const UNCHANGED: u32 = u32::MAX;

/// The numbers of the calls on this machine; some do not have all.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    chown: Option<u32>,
    lchown: Option<u32>,
    fchown: Option<u32>,
    fchownat: Option<u32>,
}

impl Numbers {
    fn of_machine() -> Self {
        let number = |name| native_number(name).map(|(_, number)| number);
        Self {
            chown: number("chown"),
            lchown: number("lchown"),
            fchown: number("fchown"),
            fchownat: number("fchownat"),
        }
    }

    fn all(self) -> impl Iterator<Item = u32> {
        [self.chown, self.lchown, self.fchown, self.fchownat].into_iter().flatten()
    }
}

/// Where there is a single id: has the calls of all that this thread starts from now on wait. The thread itself must make
/// none of them any more. `None` where that is not needed, or not possible: then the kernel refuses such owners.
pub(super) fn intercept() -> Option<Listener> {
    if !ids::in_user_namespace() || !ids::single() {
        return None;
    }
    listen(&filter()?).ok()
}

/// In which registers a filter finds what it looks at: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

fn filter() -> Option<Vec<FilterInstruction>> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    let instruction = |code, k, jt, jf| FilterInstruction { code, jt, jf, k };
    let (architecture, _) = native_number("fchownat")?;
    let numbers: Vec<u32> = Numbers::of_machine().all().collect();
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE, 0, 0),
        instruction(JUMP_EQUAL, architecture, 1, 0),
        instruction(RETURN, ALLOW, 0, 0),
        instruction(LOAD, NUMBER, 0, 0),
    ];
    for number in numbers {
        program.extend([instruction(JUMP_EQUAL, number, 0, 1), instruction(RETURN, WAIT, 0, 0)]);
    }
    program.push(instruction(RETURN, ALLOW, 0, 0));
    Some(program)
}

/// Answers, on a thread of its own, until all that make such calls have ended.
pub(super) fn serve(listener: Listener) -> io::Result<()> {
    let open = |path: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    };
    let keeper = Keeper { listener, proc: open("/proc")?, home: open("/")?, numbers: Numbers::of_machine() };
    std::thread::Builder::new().name("owners".to_owned()).spawn(move || {
        // Without a root of its own the thread must not enter the command's: then all is as the kernel does it.
        let ours = own_root().is_ok();
        while keeper.next(ours) {}
    })?;
    Ok(())
}

/// A file as a call names it.
enum Named {
    Descriptor(u64),
    Path { base: u64, address: u64, follow: bool, may_be_empty: bool },
}

struct Keeper {
    listener: Listener,
    proc: OwnedFd,
    home: OwnedFd,
    numbers: Numbers,
}

impl Keeper {
    /// Answers one call; `false`: there will be no more.
    fn next(&self, able: bool) -> bool {
        let mut sources = [PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN)];
        match poll(&mut sources, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return true,
            Err(_) => return false,
        }
        if !sources.iter().any(|source| source.revents().contains(PollFlags::IN)) {
            return false;
        }
        // The thread that waited may have been killed since.
        let Ok(call) = self.listener.receive() else { return true };
        let answer = if able { self.answer(&call) } else { None };
        let _ = match answer {
            Some(result) => self.listener.answer(&call, result.map_err(Errno::raw_os_error)),
            None => self.listener.pass(&call),
        };
        true
    }

    /// `None`: the kernel is to do it.
    fn answer(&self, call: &Call) -> Option<Result<(), Errno>> {
        let (named, [uid, gid]) = self.meaning(call)?;
        let file = self.find(call, &named).ok()?;
        if !self.may(call) {
            return None;
        }
        let id = |number: u32| (number != UNCHANGED).then_some(number);
        match at::chown_found(&file, id(uid), id(gid)) {
            // Nothing can be kept there; the kernel has its own word for it.
            Err(Errno::OPNOTSUPP | Errno::INVAL) => None,
            result => Some(result),
        }
    }

    fn meaning(&self, call: &Call) -> Option<(Named, [u32; 2])> {
        const WORKING_DIRECTORY: u64 = -100i64 as u64; // AT_FDCWD
        let number = Some(u32::try_from(call.number).ok()?);
        let [one, two, three, four, five, _] = call.arguments;
        // The kernel looks at the low half only, too.
        let ids = |uid: u64, gid: u64| [uid as u32, gid as u32];
        let path = |base, address, follow, may_be_empty| Named::Path { base, address, follow, may_be_empty };
        if number == self.numbers.chown {
            Some((path(WORKING_DIRECTORY, one, true, false), ids(two, three)))
        } else if number == self.numbers.lchown {
            Some((path(WORKING_DIRECTORY, one, false, false), ids(two, three)))
        } else if number == self.numbers.fchown {
            Some((Named::Descriptor(one), ids(two, three)))
        } else if number == self.numbers.fchownat && five & !(NO_FOLLOW | EMPTY_PATH) == 0 {
            let named = path(one, two, five & NO_FOLLOW == 0, five & EMPTY_PATH != 0);
            Some((named, ids(three, four)))
        } else {
            None
        }
    }

    /// What the thread has at a place in /proc.
    fn of(&self, call: &Call, what: &str) -> rustix::io::Result<OwnedFd> {
        let path = format!("{}/{what}", call.thread);
        rustix::fs::openat(&self.proc, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// The file that the call names (`O_PATH`), found as the thread would find it.
    fn find(&self, call: &Call, named: &Named) -> io::Result<OwnedFd> {
        let descriptor = |number: u64| match number as i32 {
            -100 => self.of(call, "cwd"),
            number => self.of(call, &format!("fd/{number}")),
        };
        let (base, address, follow, may_be_empty) = match *named {
            Named::Descriptor(number) => {
                let file = descriptor(number)?;
                return if self.listener.waits(call) { Ok(file) } else { Err(Errno::SRCH.into()) };
            }
            Named::Path { base, address, follow, may_be_empty } => (base, address, follow, may_be_empty),
        };
        let path = self.path(call, address)?;
        let root = self.of(call, "root")?;
        let base = if path.as_bytes().starts_with(b"/") { self.of(call, "root")? } else { descriptor(base)? };
        // Otherwise all of this may be another process's.
        if !self.listener.waits(call) {
            return Err(Errno::SRCH.into());
        }
        if path.is_empty() {
            return if may_be_empty { Ok(base) } else { Err(Errno::NOENT.into()) };
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let enter = |root: &OwnedFd| -> rustix::io::Result<()> {
            rustix::process::fchdir(root)?;
            rustix::process::chroot(".")
        };
        let found = enter(&root).and_then(|()| {
            rustix::process::fchdir(&base)?;
            // What /proc has of "self" would be ours.
            rustix::fs::openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        });
        enter(&self.home)?;
        Ok(found?)
    }

    /// A string in the thread's memory.
    fn path(&self, call: &Call, address: u64) -> io::Result<CString> {
        let memory = File::from(rustix::fs::openat(
            &self.proc,
            format!("{}/mem", call.thread),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let mut bytes = vec![0; PATH_MAX];
        let length = memory.read_at(&mut bytes, address)?;
        bytes.truncate(length);
        let end = bytes.iter().position(|byte| *byte == 0).ok_or(Errno::NAMETOOLONG)?;
        bytes.truncate(end);
        CString::new(bytes).map_err(io::Error::other)
    }

    /// Has the thread the right to change owners?
    fn may(&self, call: &Call) -> bool {
        let read = || -> io::Result<String> {
            let status = rustix::fs::openat(
                &self.proc,
                format!("{}/status", call.thread),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            io::read_to_string(File::from(status))
        };
        let status = read().unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & CHOWN != 0)
    }
}
