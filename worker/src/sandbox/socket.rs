//! A Unix socket inside that leads to one outside.
//!
//! The one inside is our own: it has the mode and the owner that were asked for, whatever the one outside has, and the
//! command sees nothing of the host's file. It answers as long as its [`Forwarding`] lives.
//!
//! It is made on a thread in the command's mount namespace, and answers on one that never was there: pivot_root(2) gives
//! every thread of a namespace the new root, and there the path of the socket outside leads nowhere, or elsewhere.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// A socket that answers until this is dropped.
#[derive(Debug)]
pub(super) struct Forwarding {
    _stop: OwnedFd,
}

/// A socket that has connections wait until it is answered.
#[derive(Debug)]
pub(super) struct Bound {
    listener: UnixListener,
    outside: PathBuf,
}

/// Makes the socket `name` in `directory`, whose connections are to be passed on to `outside`.
pub(super) fn bind(directory: BorrowedFd<'_>, name: &str, outside: &Path) -> io::Result<Bound> {
    // A path through the descriptor: the directory is on a mount that has no other.
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok(Bound { listener, outside: outside.to_owned() })
}

impl Bound {
    /// Answers from now on. To be called on a thread whose root is the host's.
    pub(super) fn serve(self) -> io::Result<Forwarding> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let accept = move || accept(&self.listener, &self.outside, &stopped);
        std::thread::Builder::new().name("socket".to_owned()).spawn(accept)?;
        Ok(Forwarding { _stop: stop })
    }
}

fn accept(listener: &UnixListener, outside: &Path, stopped: &OwnedFd) {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let mut sources = [
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let [stop, connection] = sources.map(|source| !source.revents().is_empty());
        if stop {
            return;
        }
        if connection && let Ok((client, _)) = listener.accept() {
            connect(client, outside.to_owned(), &connections);
        }
    }
}

/// Passes bytes on in both directions, on threads of its own, until either side is done. One too many is hung up on.
fn connect(client: UnixStream, outside: PathBuf, connections: &Arc<AtomicUsize>) {
    let slot = Slot(connections.clone());
    if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
        return;
    }
    let relay = move || -> io::Result<()> {
        let _slot = slot;
        client.set_nonblocking(false)?;
        let server = UnixStream::connect(outside)?;
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let back = std::thread::Builder::new().name("socket".to_owned()).spawn(move || pump(&to, &from))?;
        pump(&client, &server);
        let _ = back.join();
        Ok(())
    };
    let _ = std::thread::Builder::new().name("socket".to_owned()).spawn(relay);
}

/// Gives its place back when it goes, however that comes about.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn pump(mut from: &UnixStream, mut to: &UnixStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn connections_are_passed_on_in_both_directions() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let outside = folder.path().join("agent");
        let listener = UnixListener::bind(&outside).expect("listen");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut question = String::new();
                let _ = stream.read_to_string(&mut question);
                let _ = stream.write_all(format!("answer to {question}").as_bytes());
            }
        });
        let directory = std::fs::File::open(folder.path()).expect("open");
        let bound = bind(directory.as_fd(), "inside", &outside).expect("bind");
        let forwarding = bound.serve().expect("serve");
        for question in ["one", "two"] {
            let mut stream = UnixStream::connect(folder.path().join("inside")).expect("connect");
            stream.write_all(question.as_bytes()).expect("write");
            stream.shutdown(Shutdown::Write).expect("shutdown");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            assert_eq!(answer, format!("answer to {question}"));
        }
        drop(forwarding);
    }
}
