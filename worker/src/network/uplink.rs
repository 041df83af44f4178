//! The way out of an ordinary user: a network namespace that `pasta` (<https://passt.top>) connects to the host's network.
//!
//! ```text
//! command's namespace        our namespace                          host's namespace
//!   eth0 ──── veth ──── brick7 ── translation ── eth0 (tap) ─────── pasta ── sockets of an ordinary program
//! ```
//!
//! A process may set up networks in the namespaces that belong to its user namespace, and the host's does not. So the host
//! of commands' networks is a namespace of our own; in there everything is as it is as root.
//!
//! pasta leaves the host's loopback alone: no port is forwarded in either direction, and the gateway's address is the
//! gateway's. It finds its namespace by a path, in a mount namespace of its own, which has a path that Debian's AppArmor
//! profile for pasta allows. It ends with the last [`Hold`](super::Hold), or with us.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bricklayer_sys::mount::make_private;
use bricklayer_sys::namespace::{Namespaces, unshare};
use bricklayer_sys::spawn::{Child, Helper, Strings, start_helper};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::pipe::{PipeFlags, pipe_with};

use super::netlink::{Socket, loopback_up};
use super::packets;

/// Where pasta sees the namespace.
const NAMESPACE: &str = "/run/user/0/netns/bricklayer";
/// What it writes its process id to when the network is there.
const READY: &str = "/tmp/bricklayer.pid";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the program is looked for after `PATH`.
const PLACES: &str = "/usr/bin:/usr/local/bin:/bin";

/// The namespace, and the program that connects it.
#[derive(Debug)]
pub(super) struct Uplink {
    namespace: OwnedFd,
    /// Its rules hold as long as this is open.
    rules: Socket,
    _pasta: Child,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoUplink {
    /// What failed.
    pub(crate) reason: String,
    /// What the user can do.
    pub(crate) hint: String,
}

const CHOOSE: &str = "or choose with --network=host (the host's own network) or --network=none";

impl NoUplink {
    fn missing() -> Self {
        Self {
            reason: "an ordinary user's private network needs the program `pasta`, which is not installed"
                .to_owned(),
            hint: format!("install it (Debian: apt-get install passt), {CHOOSE}"),
        }
    }

    fn failed(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let hint = if reason.contains("tun") {
            format!("/dev/net/tun must be there and writable by everybody, as udev makes it; {CHOOSE}")
        } else {
            format!("see whether `pasta` itself works here, {CHOOSE}")
        };
        Self { reason, hint }
    }
}

impl Uplink {
    /// The namespace, to be entered.
    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Starts pasta, and waits until the network is there.
    pub(super) fn start() -> Result<Arc<Self>, NoUplink> {
        let candidates = programs();
        if candidates.is_empty() {
            return Err(NoUplink::missing());
        }
        let (namespace, rules) = apart(new_namespace).map_err(at("make a network namespace"))?;
        let pasta = {
            let namespace = &namespace;
            std::thread::scope(|scope| {
                let panicked = |_| Err(NoUplink::failed("the thread that starts pasta panicked"));
                scope.spawn(|| start_pasta(&candidates, namespace)).join().unwrap_or_else(panicked)
            })?
        };
        Ok(Arc::new(Self { namespace, rules, _pasta: pasta }))
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.rules.close_later();
    }
}

fn at(step: &'static str) -> impl Fn(io::Error) -> NoUplink {
    move |error| NoUplink::failed(format!("cannot {step}: {error}"))
}

/// Does something on a thread of its own, which is in other namespaces afterwards, so it ends.
fn apart<T: Send + 'static>(what: fn() -> io::Result<T>) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("network".to_owned()).spawn(what)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread for it panicked")))
}

fn new_namespace() -> io::Result<(OwnedFd, Socket)> {
    unshare(Namespaces { mount: false, uts: false, ipc: false, network: true })?;
    loopback_up()?;
    let mut rules = packets::open()?;
    packets::ignore_invalid(&mut rules, "bricklayer-uplink")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok((rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?, rules))
}

/// On a thread that is to end afterwards, and still is in the host's network.
fn start_pasta(candidates: &[CString], namespace: &OwnedFd) -> Result<Child, NoUplink> {
    unshare(Namespaces { mount: true, uts: false, ipc: false, network: false })
        .map_err(at("make a mount namespace"))?;
    let ready = places(namespace).map_err(at("show pasta its namespace"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| at("open /dev/null")(error.into()))?;
    let (said, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| at("make a pipe")(error.into()))?;
    let words = [
        "pasta",
        "--foreground",
        "--quiet",
        "--config-net",
        "--netns-only",
        "--netns",
        NAMESPACE,
        "--pid",
        READY,
        // Nothing on the host or in here is reachable through it but by the way out.
        "--tcp-ports",
        "none",
        "--udp-ports",
        "none",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        "--no-map-gw",
    ];
    let arguments = Strings::new(words.iter().filter_map(|word| CString::new(*word).ok()).collect());
    let helper = Helper {
        candidates,
        arguments: &arguments,
        environment: &Strings::new(Vec::new()),
        stdio: [null.as_fd(), null.as_fd(), stderr.as_fd()],
    };
    let pasta = start_helper(&helper).map_err(at("start pasta"))?;
    drop(stderr);
    wait(&ready, &said).map_err(NoUplink::failed)?;
    Ok(pasta)
}

/// Where pasta may lie.
fn programs() -> Vec<CString> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(PLACES.split(':')).filter(|directory| directory.starts_with('/'));
    directories
        .map(|directory| Path::new(directory).join("pasta"))
        .filter(|program| program.is_file())
        .filter_map(|program| CString::new(program.into_os_string().into_encoded_bytes()).ok())
        .collect()
}

/// Makes the paths that pasta is given, in the calling thread's own mount namespace; gives the pipe that pasta writes to.
fn places(namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    make_private(root.as_fd())?;
    for directory in ["/run", "/tmp"] {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", directory, "tmpfs", flags, c"mode=755,size=64k")?;
    }
    let path = Path::new(NAMESPACE);
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::File::create(path)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), NAMESPACE)?;
    rustix::fs::mknodat(CWD, READY, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    // Open for writing as well, so that it is never at its end.
    Ok(rustix::fs::open(READY, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Waits for pasta's process id, or for what it says as it ends.
fn wait(ready: &OwnedFd, said: &OwnedFd) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let mut words = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut sources = [PollFd::new(ready, PollFlags::IN), PollFd::new(said, PollFlags::IN)];
        match poll(&mut sources, Some(&timeout)) {
            Ok(0) => return Err("pasta has not set up the network in 20 seconds".to_owned()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for pasta: {error}")),
        }
        let [is_ready, spoke] = sources.map(|source| !source.revents().is_empty());
        if is_ready {
            return Ok(());
        }
        if spoke {
            let mut buffer = [0; 1024];
            match rustix::io::retry_on_intr(|| rustix::io::read(said, &mut buffer)) {
                Ok(0) | Err(_) => return Err(last_words(&words)),
                Ok(length) if words.len() < 16 << 10 => {
                    words.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                Ok(_) => {}
            }
        }
    }
}

/// What pasta said last that means something.
fn last_words(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    // Where there is no system log.
    let said = text.lines().rfind(|line| !line.trim().is_empty() && !line.contains("syslog"));
    match said {
        Some(line) => format!("pasta could not set up the network: {}", line.trim()),
        None => "pasta ended without a word".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pasta_says_is_told() {
        let said = b"Failed to send 45 bytes to syslog\nFailed to open tun socket in namespace\n\n";
        let error = NoUplink::failed(last_words(said));
        assert_eq!(
            error.reason,
            "pasta could not set up the network: Failed to open tun socket in namespace"
        );
        assert!(error.hint.contains("/dev/net/tun"), "{}", error.hint);
        assert_eq!(last_words(b""), "pasta ended without a word");
    }
}
