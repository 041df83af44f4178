//! Requests to the kernel's routing and packet filter interfaces: netlink messages, written by hand.
//!
//! Every message is `nlmsghdr` (length, type, flags, sequence, port), a fixed head, and attributes (`nlattr`: length,
//! type, value, padded to four bytes; they nest). Numbers are in host order unless said otherwise.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socket_with, socketpair,
};

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const NESTED: u16 = 0x8000;
pub(crate) const DUMP: u16 = 0x300;

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

    /// Has the kernel close the socket some time after this is dropped, where that takes long: it is put into the queue of
    /// a UNIX socket that is in its own queue too. So nobody can get at it any more, and the kernel's garbage collector
    /// closes all of them (on a thread of its own since Linux 6.8, before that at once). Not to be used afterwards.
    pub(crate) fn close_later(&mut self) {
        let leave = || -> rustix::io::Result<OwnedFd> {
            let (sender, queue) =
                socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let fds = [self.fd.as_fd(), queue.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(&sender, &[IoSlice::new(b"-")], &mut control, SendFlags::empty())?;
            Ok(sender)
        };
        // The collector looks for garbage when a UNIX socket is closed. That must come after ours: who closes a file last
        // waits. Where it could not be left there, dropping it takes longer.
        if let Ok(sender) = leave() {
            self.fd = sender;
        }
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

    /// Sends a question (with [`DUMP`]) and gives all that is answered: the type of each message and what follows its
    /// head. A table that changes meanwhile is asked for again.
    pub(crate) fn dump(&mut self, message: &Message) -> io::Result<Dumped> {
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence += 1;
            let sequence = self.sequence;
            self.send(message.clone().finish(sequence))?;
            if let Some(answers) = self.answers(sequence)? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("it changes all the time"))
    }

    /// `None`: the kernel says that the answer is of several states (`NLM_F_DUMP_INTR`).
    fn answers(&self, sequence: u32) -> io::Result<Option<Dumped>> {
        const DONE: u16 = 3;
        const INTERRUPTED: u16 = 0x10;
        let mut buffer = vec![0u8; 64 << 10];
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            let (_, length) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for answer in Answers(buffer.get(..length).unwrap_or_default()) {
                if answer.sequence != sequence {
                    continue;
                }
                interrupted |= answer.flags & INTERRUPTED != 0;
                match answer.kind {
                    DONE => return Ok((!interrupted).then_some(found)),
                    ERROR => return Err(answer.error().unwrap_or_else(|| io::ErrorKind::Other.into())),
                    kind => found.push((kind, answer.content.to_vec())),
                }
            }
        }
    }

    /// Waits for `NLMSG_ERROR` (also used for "no error") with this sequence number.
    fn acknowledged(&self, sequence: u32) -> io::Result<()> {
        let mut buffer = [0u8; 8192];
        loop {
            let (_, length) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for answer in Answers(buffer.get(..length).unwrap_or_default()) {
                if answer.kind != ERROR {
                    continue;
                }
                // A refusal may carry the number of another message: that of the batch as a whole.
                if let Some(error) = answer.error() {
                    return Err(error);
                }
                if answer.sequence == sequence {
                    return Ok(());
                }
            }
        }
    }
}

/// What a dump consists of: the type of each message and what follows its head.
type Dumped = Vec<(u16, Vec<u8>)>;

const ERROR: u16 = 2;

/// How often a question is asked whose answer changes while it is given.
const DUMP_ATTEMPTS: u32 = 10;

/// One message from the kernel.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows `nlmsghdr`.
    content: &'a [u8],
}

impl Answer<'_> {
    /// What an [`ERROR`] says; `None`: that there is none.
    fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(*self.content.first_chunk()?);
        (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()))
    }
}

/// The messages of one datagram.
struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *self.0.first_chunk::<16>()?;
        let size = u32::from_ne_bytes([a, b, c, d]) as usize;
        let content = self.0.get(16..size)?;
        self.0 = self.0.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16::from_ne_bytes([e, f]),
            flags: u16::from_ne_bytes([g, h]),
            sequence: u32::from_ne_bytes([i, j, k, l]),
            content,
        })
    }
}

/// Attributes one after another: type (without the flags in it) and value.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        const TYPE: u16 = 0x3fff;
        let [a, b, c, d] = *self.0.first_chunk::<4>()?;
        let size = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..size)?;
        self.0 = self.0.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first one of this type.
    pub(crate) fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
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
