//! A name server for a private network whose host has one that only the host reaches.
//!
//! It listens inside, at a loopback address, and passes questions on to the host's. Everything is bounded: questions under
//! way, connections, sizes, waits.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::names::NameServer;

const PORT: u16 = 53;

/// Where the host reaches its name server. Called in the host's network namespace: a zone is the name of an interface.
pub(super) fn address_of(server: &NameServer) -> io::Result<SocketAddr> {
    let IpAddr::V6(address) = server.address else { return Ok((server.address, PORT).into()) };
    let zone = match &server.zone {
        Some(zone) => {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::netdevice::name_to_index(&socket, zone)?
        }
        None => 0,
    };
    Ok(SocketAddrV6::new(address, PORT, 0, zone).into())
}

/// As long as a DNS message over UDP can be.
const MESSAGE: usize = 65_535;
/// TCP connections at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Sockets that were opened inside, on the thread that was there.
#[derive(Debug)]
pub(super) struct Listening {
    /// The host's name server.
    server: SocketAddr,
    datagrams: UdpSocket,
    streams: TcpListener,
}

impl Listening {
    /// Opens the sockets in the calling thread's network namespace, at the address `inside`.
    pub(super) fn new(inside: IpAddr, server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            server,
            datagrams: UdpSocket::bind((inside, PORT))?,
            streams: TcpListener::bind((inside, PORT))?,
        })
    }

    /// Starts to answer. The calling thread is in the host's network namespace.
    pub(super) fn serve(self) -> io::Result<Resolver> {
        let upstream = UdpSocket::bind(match self.server {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        })?;
        upstream.connect(self.server)?;
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

fn connection(client: TcpStream, server: SocketAddr, connections: &Arc<AtomicUsize>) {
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
fn relay(mut client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect_timeout(&server, SILENCE)?;
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
