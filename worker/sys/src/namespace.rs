//! Moving one thread into namespaces of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Which namespaces a thread leaves for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// Mounts. The thread's root and working directory become its own too.
    pub mount: bool,
    /// Host name.
    pub uts: bool,
    /// System V IPC and POSIX message queues.
    pub ipc: bool,
    /// Network; the new one has a loopback interface that is down.
    pub network: bool,
}

/// Moves the calling thread, and only it, into new namespaces. There is no way back: the thread is to end afterwards.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let mut flags = 0;
    for (wanted, flag) in [
        (namespaces.mount, libc::CLONE_NEWNS),
        (namespaces.uts, libc::CLONE_NEWUTS),
        (namespaces.ipc, libc::CLONE_NEWIPC),
        (namespaces.network, libc::CLONE_NEWNET),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    // SAFETY: the call reads no memory of ours. None of these flags makes a descriptor table or address space private to
    // the thread, so what other code assumes to be shared by all threads stays shared; CLONE_NEWNS makes the thread's
    // root and working directory its own, which only changes how this thread resolves paths.
    let result = unsafe { libc::unshare(flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread, and only it, a root and a working directory of its own, for chroot(2) and chdir(2).
pub fn own_root() -> io::Result<()> {
    // SAFETY: the call reads no memory of ours; it only changes how this thread resolves paths.
    let result = unsafe { libc::unshare(libc::CLONE_FS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread, and only it, into the network namespace that `namespace` refers to.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call reads no memory of ours, and the descriptor is open.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread, which must have a mount namespace and so a root of its own, into the mount namespace that
/// `namespace` refers to. The one that it leaves ends if nobody else is in it.
pub fn enter_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call reads no memory of ours, and the descriptor is open. The kernel refuses it if other threads share
    // our root and working directory.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the host name of the calling thread's UTS namespace.
pub fn set_host_name(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`, which the call only reads.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Threads that leave a namespace which ends with that: the kernel takes milliseconds for it.
static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Runs `work` on a thread that has a mount namespace of its own, a copy of the caller's, and with it a root and a working
/// directory of its own. The namespace ends soon after this returns, unless `work` keeps it; [`settle`] waits for that.
pub fn in_own_mounts<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (give, take) = mpsc::sync_channel(1);
    let run = move || {
        let entered = || {
            let home = std::fs::File::open("/proc/thread-self/ns/mnt")?;
            unshare(Namespaces { mount: true, uts: false, ipc: false, network: false })?;
            Ok(home)
        };
        match entered() {
            Ok(home) => {
                let _ = give.send(Ok(work()));
                // A thread is joined before the kernel is done with its namespace: not so when it has left it.
                let _ = enter_mounts(home.as_fd());
            }
            Err(error) => drop(give.send(Err(error))),
        }
    };
    let thread = std::thread::Builder::new().name("mount".to_owned()).spawn(run)?;
    let result = take.recv().map_err(|_| io::Error::other("the thread panicked"));
    let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
    ending.retain(|thread| !thread.is_finished());
    ending.push(thread);
    result?
}

/// Waits until the namespaces of [`in_own_mounts`] that were left have ended, and with them what was mounted there.
pub fn settle() {
    let ending = std::mem::take(&mut *ENDING.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in ending {
        let _ = thread.join();
    }
}
