//! Requests to the kernel's routing and packet filter interfaces: netlink messages, written by hand.
//!
//! Every message is `nlmsghdr` (length, type, flags, sequence, port), a fixed head, and attributes (`nlattr`: length,
//! type, value, padded to four bytes; they nest). Numbers are in host order unless said otherwise.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const NESTED: u16 = 0x8000;

/// A message under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this type with its fixed head.
    pub(crate) fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(head);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a string, with its NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = self.bytes.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self
    }

    /// Adds bytes as they are (the head of a message inside an attribute).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_ne_bytes();
        for (place, value) in [(0, length), (8, sequence.to_ne_bytes())] {
            if let Some(place) = self.bytes.get_mut(place..place + 4) {
                place.copy_from_slice(&value);
            }
        }
        &self.bytes
    }
}

/// A connection to one of the kernel's netlink services, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one of the services; their number is a protocol number.
    pub(crate) fn open(service: rustix::net::Protocol) -> io::Result<Self> {
        Self::open_service(Some(service))
    }

    /// Opens the routing service.
    pub(crate) fn open_route() -> io::Result<Self> {
        // It has number 0, which is the default.
        Self::open_service(None)
    }

    fn open_service(service: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, service)?;
        // The kernel always answers; this only bounds the wait if it does not.
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(std::time::Duration::from_secs(10)),
        )?;
        Ok(Self { fd, sequence: 0 })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// Sends a message (with [`ACK`]) and waits for the kernel's answer to it.
    pub(crate) fn request(&mut self, mut message: Message) -> io::Result<()> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(message.finish(sequence))?;
        self.acknowledged(sequence)
    }

    /// Sends several messages at once, which the kernel takes as a whole or not at all; waits for the answer to each
    /// that asks for one.
    pub(crate) fn batch(&mut self, messages: Vec<(Message, bool)>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut asked = Vec::new();
        for (mut message, answer) in messages {
            self.sequence += 1;
            bytes.extend_from_slice(message.finish(self.sequence));
            if answer {
                asked.push(self.sequence);
            }
        }
        self.send(&bytes)?;
        for sequence in asked {
            self.acknowledged(sequence)?;
        }
        Ok(())
    }

    /// Waits for `NLMSG_ERROR` (also used for "no error") with this sequence number.
    fn acknowledged(&self, sequence: u32) -> io::Result<()> {
        const ERROR: u16 = 2;
        let mut buffer = [0u8; 8192];
        loop {
            let (_, length) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(head) = rest.first_chunk::<20>() {
                let word = |at: usize| {
                    let mut bytes = [0; 4];
                    bytes.copy_from_slice(&head[at..at + 4]);
                    u32::from_ne_bytes(bytes)
                };
                let size = word(0) as usize;
                let kind = u16::from_ne_bytes([head[4], head[5]]);
                if kind == ERROR {
                    let error = word(16) as i32;
                    // A refusal may carry the number of another message: that of the batch as a whole.
                    if error != 0 {
                        return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
                    }
                    if word(8) == sequence {
                        return Ok(());
                    }
                }
                let next = size.max(16).next_multiple_of(4);
                rest = rest.get(next..).unwrap_or_default();
            }
        }
    }
}

/// `struct ifinfomsg`.
pub(crate) fn link_head(index: u32, up: bool) -> [u8; 16] {
    const UP: u32 = 1;
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        head[8..12].copy_from_slice(&UP.to_ne_bytes());
        head[12..16].copy_from_slice(&UP.to_ne_bytes());
    }
    head
}

pub(crate) const NEW_LINK: u16 = 16;

/// Brings up the loopback interface of the calling thread's network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let mut socket = Socket::open_route()?;
    // Loopback is always the first interface.
    socket.request(Message::new(NEW_LINK, REQUEST | ACK, &link_head(1, true)))
}
