//! A name server for a private network whose host has one at a loopback address only.
//!
//! It listens inside, at the very address that the host's `resolv.conf` names (which is loopback there too, and free), and
//! passes questions on to the host's. Everything is bounded: questions under way, connections, sizes, waits.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

const PORT: u16 = 53;
/// As long as a DNS message over UDP can be.
const MESSAGE: usize = 65_535;
/// TCP connections at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Sockets that were opened inside, on the thread that was there.
#[derive(Debug)]
pub(super) struct Listening {
    server: IpAddr,
    datagrams: UdpSocket,
    streams: TcpListener,
}

impl Listening {
    /// Opens the sockets in the calling thread's network namespace.
    pub(super) fn new(server: IpAddr) -> io::Result<Self> {
        Ok(Self {
            server,
            datagrams: UdpSocket::bind((server, PORT))?,
            streams: TcpListener::bind((server, PORT))?,
        })
    }

    /// Starts to answer. The calling thread is in the host's network namespace.
    pub(super) fn serve(self) -> io::Result<Resolver> {
        let upstream = UdpSocket::bind(match self.server {
            IpAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
            IpAddr::V6(_) => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)),
        })?;
        upstream.connect((self.server, PORT))?;
        for socket in [&self.datagrams, &upstream] {
            socket.set_nonblocking(true)?;
        }
        self.streams.set_nonblocking(true)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || pass_on(&self, &upstream, &stopped))?;
        Ok(Resolver { _stop: stop })
    }
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    _stop: OwnedFd,
}

fn pass_on(inside: &Listening, upstream: &UdpSocket, stopped: &OwnedFd) {
    // Questions get numbers of our own, so that those of two programs do not collide. A number is used again after all
    // others were, so this holds 65536 questions at most.
    let mut asked: HashMap<u16, (SocketAddr, [u8; 2])> = HashMap::new();
    let mut next = 0u16;
    let connections = Arc::new(AtomicUsize::new(0));
    let mut buffer = vec![0u8; MESSAGE];
    loop {
        let mut sources = [
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(inside.datagrams.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(upstream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(inside.streams.as_fd(), PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let [stop, question, answer, stream] = sources.map(|source| !source.revents().is_empty());
        if stop {
            return;
        }
        if question
            && let Ok((length, from)) = inside.datagrams.recv_from(&mut buffer)
            && let Some(message) = buffer.get_mut(..length)
            && let Some(id) = message.first_chunk_mut::<2>()
        {
            next = next.wrapping_add(1);
            asked.insert(next, (from, *id));
            *id = next.to_be_bytes();
            let _ = upstream.send(message);
        }
        if answer
            && let Ok(length) = upstream.recv(&mut buffer)
            && let Some(message) = buffer.get_mut(..length)
            && let Some(id) = message.first_chunk_mut::<2>()
            && let Some((to, original)) = asked.remove(&u16::from_be_bytes(*id))
        {
            *id = original;
            let _ = inside.datagrams.send_to(message, to);
        }
        if stream && let Ok((client, _)) = inside.streams.accept() {
            connection(client, inside.server, &connections);
        }
    }
}

fn connection(client: TcpStream, server: IpAddr, connections: &Arc<AtomicUsize>) {
    if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
        connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let count = connections.clone();
    let run = move || {
        let _ = relay(&client, server);
        count.fetch_sub(1, Ordering::Relaxed);
    };
    if std::thread::Builder::new().name("resolver".to_owned()).spawn(run).is_err() {
        connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Question and answer in turn: each a length of two bytes and a message (RFC 1035, section 4.2.2).
fn relay(mut client: &TcpStream, server: IpAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect_timeout(&(server, PORT).into(), SILENCE)?;
    client.set_nonblocking(false)?;
    for stream in [client, &upstream] {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
    }
    let mut message = Vec::new();
    loop {
        receive(&mut client, &mut message)?;
        upstream.write_all(&message)?;
        receive(&mut upstream, &mut message)?;
        client.write_all(&message)?;
    }
}

fn receive(from: &mut impl Read, message: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    message.clear();
    message.extend_from_slice(&length);
    message.resize(2 + usize::from(u16::from_be_bytes(length)), 0);
    from.read_exact(message.get_mut(2..).unwrap_or_default())
}
