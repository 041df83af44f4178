//! A private network for one command: a namespace with one interface that leads to the host, which translates addresses.
//!
//! ```text
//! command's namespace                 host
//!   eth0 ───────────── veth ───────── brick7 ── forwarding, masquerading ── the host's network
//!   10.x.y.2/30                       10.x.y.1/30
//! ```
//!
//! Every command has an interface pair of its own, so commands do not see each other. Nothing has to be removed: a
//! namespace ends with its last process or descriptor, a pair with one of its ends, the rules with the process that made
//! them. What stays is that the host's interfaces forward packets, if they did not before.
//!
//! The name of the host's end is what reserves a pair of addresses, across all processes: the kernel makes no second
//! interface of one name.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use bricklayer_sys::namespace::{Namespaces, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::names;
use super::netlink::{ACK, CREATE, EXCLUSIVE, Message, NEW_LINK, REQUEST, Socket, link_head, loopback_up};
use super::packets;
use super::resolver::{Listening, Resolver};

/// What the names of the host's ends begin with.
const PREFIX: &str = "brick";

/// How many pairs there can be at once: four addresses each, a quarter of a /16.
const PAIRS: u32 = 4096;

/// Networks to take addresses from, the first that the host has no route to.
const POOLS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(10, 218, 0, 0),
    Ipv4Addr::new(172, 29, 128, 0),
    Ipv4Addr::new(10, 91, 64, 0),
    Ipv4Addr::new(192, 168, 192, 0),
    Ipv4Addr::new(172, 22, 64, 0),
    Ipv4Addr::new(100, 112, 0, 0),
];
const POOL_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 192, 0);

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// What all private networks of this process have in common.
#[derive(Debug)]
struct Shared {
    pool: Ipv4Addr,
    mtu: Option<u32>,
    /// `/etc/resolv.conf` of commands.
    resolv_conf: String,
    /// A name server of the host that only the host reaches, and that the commands' one passes questions on to.
    server: Option<IpAddr>,
    /// The rules hold as long as this is open.
    _rules: Socket,
}

/// A network namespace that is ready.
#[derive(Debug)]
pub(crate) struct Private {
    namespace: OwnedFd,
    resolv_conf: String,
    listening: Option<Listening>,
}

impl Private {
    /// The namespace, to be entered.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// `/etc/resolv.conf` for it.
    pub(crate) fn resolv_conf(&self) -> String {
        self.resolv_conf.clone()
    }

    /// Starts its name server, if it needs one; it runs until it is dropped.
    pub(crate) fn resolver(&mut self) -> io::Result<Option<Resolver>> {
        self.listening.take().map(Listening::serve).transpose()
    }
}

/// One that was made ahead: making it takes longer than all else that a command needs.
static READY: Mutex<Vec<Private>> = Mutex::new(Vec::new());

/// A private network; the error says what the kernel refused.
pub(crate) fn private() -> Result<Private, String> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    let shared = SHARED
        .get_or_init(|| Shared::new().map_err(|(step, error)| format!("{step}: {error}")))
        .as_ref()
        .map_err(Clone::clone)?;
    let ready = READY.lock().ok().and_then(|mut ready| ready.pop());
    let network = match ready {
        Some(network) => network,
        None => shared.make().map_err(|(step, error)| format!("{step}: {error}"))?,
    };
    // For the next command, while this one runs. If that fails, the next one finds out.
    let _ = std::thread::Builder::new().name("network".to_owned()).spawn(|| {
        if let Ok(network) = shared.make()
            && let Ok(mut ready) = READY.lock()
            && ready.len() < 2
        {
            ready.push(network);
        }
    });
    Ok(network)
}

/// What was tried, and how the kernel refused it.
type Failure = (&'static str, io::Error);

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| (step, error.into())
}

/// A route of `/proc/net/route`: interface, destination, mask.
fn routes() -> Vec<(String, u32, u32)> {
    let text = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| {
            // In network order, printed as a number in host order.
            u32::from_str_radix(words.get(at)?, 16).ok().map(|value| u32::from_be_bytes(value.to_ne_bytes()))
        };
        Some(((*words.first()?).to_owned(), hex(1)?, hex(7)?))
    };
    text.lines().skip(1).filter_map(parse).collect()
}

fn overlap(pool: u32, destination: u32, mask: u32) -> bool {
    let both = mask & POOL_MASK.to_bits();
    // The default route leads everywhere.
    mask != 0 && pool & both == destination & both
}

/// The first pool that no route leads to, and no name server lies in. Routes of our own pairs do not count.
fn choose_pool(routes: &[(String, u32, u32)], servers: &[IpAddr]) -> Option<Ipv4Addr> {
    let free = |pool: &Ipv4Addr| {
        let pool = pool.to_bits();
        let routed = routes
            .iter()
            .filter(|(interface, ..)| !interface.starts_with(PREFIX))
            .any(|(_, destination, mask)| overlap(pool, *destination, *mask));
        let server = servers.iter().any(
            |server| matches!(server, IpAddr::V4(server) if server.to_bits() & POOL_MASK.to_bits() == pool),
        );
        !routed && !server
    };
    POOLS.into_iter().find(free)
}

impl Shared {
    fn new() -> Result<Self, Failure> {
        let routes = routes();
        let (resolv_conf, server) = resolv_conf();
        let servers = names::name_servers(&resolv_conf);
        let pool = choose_pool(&routes, &servers).ok_or_else(|| {
            ("choose addresses", io::Error::other("the host has routes to all that are tried"))
        })?;
        let rules = packets::translate(pool, POOL_MASK, PREFIX).map_err(at("translate addresses"))?;
        let mut mtu = None;
        for (interface, destination, mask) in routes {
            if interface.starts_with(PREFIX) {
                continue;
            }
            // Answers come in there and have to be passed on.
            forward(&interface).map_err(at("forward packets"))?;
            if destination == 0 && mask == 0 {
                let text = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).unwrap_or_default();
                mtu = text.trim().parse().ok().or(mtu);
            }
        }
        Ok(Self { pool, mtu, resolv_conf, server, _rules: rules })
    }

    fn make(&self) -> Result<Private, Failure> {
        let mut host = Socket::open_route().map_err(at("open netlink"))?;
        let inside = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn({
                let server = self.server;
                move || Inside::new(server)
            })
            .map_err(at("start a thread"))?
            .join()
            .map_err(|_| ("start a thread", io::Error::other("it panicked")))??;
        let (name, slot) = self.pair(&mut host, &inside)?;
        let first = self.pool.to_bits() + slot * 4;
        let (outer, inner) = (Ipv4Addr::from_bits(first + 1), Ipv4Addr::from_bits(first + 2));

        let device = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(at("open a socket"))?;
        let index = rustix::net::netdevice::name_to_index(&device, &name).map_err(at("find an interface"))?;
        host.request(address(index, outer)).map_err(at("set the host's address"))?;
        host.request(Message::new(NEW_LINK, REQUEST | ACK, &link_head(index, true)))
            .map_err(at("bring up an interface"))?;
        forward(&name).map_err(at("forward packets"))?;

        let Inside { namespace, mut netlink, device, listening } = inside;
        let index =
            rustix::net::netdevice::name_to_index(&device, "eth0").map_err(at("find an interface"))?;
        netlink.request(address(index, inner)).map_err(at("set the command's address"))?;
        netlink
            .request(Message::new(NEW_LINK, REQUEST | ACK, &link_head(index, true)))
            .map_err(at("bring up an interface"))?;
        netlink.request(default_route(outer)).map_err(at("set a route"))?;
        Ok(Private { namespace, resolv_conf: self.resolv_conf.clone(), listening })
    }

    /// Makes an interface pair; gives the name of the host's end and its number.
    fn pair(&self, host: &mut Socket, inside: &Inside) -> Result<(String, u32), Failure> {
        static NEXT: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
        // Processes start at different places, so that they seldom meet.
        let next = NEXT.get_or_init(|| std::process::id().wrapping_mul(61).into());
        for _ in 0..PAIRS {
            let slot = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % PAIRS;
            let name = format!("{PREFIX}{slot}");
            match host.request(self.new_pair(&name, inside.namespace.as_fd())) {
                Ok(()) => return Ok((name, slot)),
                Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
                Err(error) => return Err(("make an interface", error)),
            }
        }
        Err(("make an interface", io::Error::other("all are in use")))
    }

    fn new_pair(&self, name: &str, namespace: BorrowedFd<'_>) -> Message {
        const NAME: u16 = 3;
        const MTU: u16 = 4;
        const LINK_INFO: u16 = 18;
        const INFO_KIND: u16 = 1;
        const INFO_DATA: u16 = 2;
        const PEER: u16 = 1;
        const NAMESPACE: u16 = 28;
        let mut message = Message::new(NEW_LINK, REQUEST | ACK | CREATE | EXCLUSIVE, &link_head(0, false));
        message.string(NAME, name);
        let mtu = |message: &mut Message| {
            if let Some(mtu) = self.mtu {
                message.attribute(MTU, &mtu.to_ne_bytes());
            }
        };
        mtu(&mut message);
        message.nest(LINK_INFO, |info| {
            info.string(INFO_KIND, "veth");
            info.nest(INFO_DATA, |data| {
                data.nest(PEER, |peer| {
                    peer.raw(&link_head(0, false));
                    peer.string(NAME, "eth0");
                    mtu(peer);
                    peer.attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        message
    }
}

/// What was opened in a new namespace.
struct Inside {
    namespace: OwnedFd,
    netlink: Socket,
    device: OwnedFd,
    listening: Option<Listening>,
}

impl Inside {
    /// On a thread of its own, which stays in the new namespace until it ends.
    fn new(server: Option<IpAddr>) -> Result<Self, Failure> {
        unshare(Namespaces { mount: false, uts: false, ipc: false, network: true })
            .map_err(at("make a network namespace"))?;
        loopback_up().map_err(at("bring up the loopback interface"))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            namespace: rustix::fs::openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())
                .map_err(at("open a network namespace"))?,
            netlink: Socket::open_route().map_err(at("open netlink"))?,
            device: socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(at("open a socket"))?,
            listening: server.map(Listening::new).transpose().map_err(at("start a name server"))?,
        })
    }
}

/// `/etc/resolv.conf` for commands, and the name server that their own one is to ask, if they need one: the host's may
/// be at a loopback address, and then the host itself knows better ones only if systemd-resolved runs there.
fn resolv_conf() -> (String, Option<IpAddr>) {
    let of_host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let behind = fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
    choose_servers(of_host, &behind)
}

fn choose_servers(of_host: String, behind: &str) -> (String, Option<IpAddr>) {
    match names::without_loopback(&of_host).or_else(|| names::without_loopback(behind)) {
        Some(text) => (text, None),
        None => {
            let server = names::name_servers(&of_host).into_iter().find(IpAddr::is_loopback);
            (of_host, server)
        }
    }
}

/// Lets packets that come in on an interface be passed on.
fn forward(interface: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
    if fs::read_to_string(&path)?.trim() == "1" { Ok(()) } else { fs::write(path, "1") }
}

/// `struct ifaddrmsg`, an address with 30 bits of prefix.
fn address(index: u32, address: Ipv4Addr) -> Message {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let mut head = vec![2, 30, 0, 0];
    head.extend_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(NEW_ADDRESS, REQUEST | ACK | CREATE | EXCLUSIVE, &head);
    message.attribute(LOCAL, &address.octets());
    message.attribute(ADDRESS, &address.octets());
    message
}

/// `struct rtmsg`: everything goes through `gateway`.
fn default_route(gateway: Ipv4Addr) -> Message {
    const GATEWAY: u16 = 5;
    const MAIN_TABLE: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let head = [2, 0, 0, 0, MAIN_TABLE, BOOT, 0, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(NEW_ROUTE, REQUEST | ACK | CREATE, &head);
    message.attribute(GATEWAY, &gateway.octets());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_where_the_host_has_none() {
        let route = |destination: [u8; 4], mask: [u8; 4]| {
            let bits = |address: [u8; 4]| Ipv4Addr::from(address).to_bits();
            ("eth0".to_owned(), bits(destination), bits(mask))
        };
        assert_eq!(choose_pool(&[route([0; 4], [0; 4])], &[]), Some(POOLS[0]));
        assert_eq!(choose_pool(&[route([10, 0, 0, 0], [255, 0, 0, 0])], &[]), Some(POOLS[1]));
        assert_eq!(choose_pool(&[route([10, 218, 9, 0], [255, 255, 255, 0])], &[]), Some(POOLS[1]));
        assert_eq!(choose_pool(&[route([10, 218, 64, 0], [255, 255, 255, 0])], &[]), Some(POOLS[0]));
        assert_eq!(choose_pool(&[], &[IpAddr::from([10, 218, 1, 1])]), Some(POOLS[1]));
        assert_eq!(
            choose_pool(&[route([0; 4], [128, 0, 0, 0]), route([128, 0, 0, 0], [128, 0, 0, 0])], &[]),
            None
        );
    }

    #[test]
    fn name_servers_are_ones_that_can_be_reached() {
        let choose = |host: &str, behind: &str| choose_servers(host.to_owned(), behind);
        let (local, remote) = ("nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n");
        assert_eq!(choose(remote, ""), (remote.to_owned(), None));
        assert_eq!(choose(local, remote), (remote.to_owned(), None));
        assert_eq!(choose(local, ""), (local.to_owned(), Some(IpAddr::from([127, 0, 0, 53]))));
        assert_eq!(choose("", ""), (String::new(), None));
    }

    /// Runs something in a network namespace.
    fn within<T: Send>(namespace: BorrowedFd<'_>, what: impl FnOnce() -> T + Send) -> T {
        let run = || {
            bricklayer_sys::namespace::enter_network(namespace).expect("enter");
            what()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("it runs"))
    }

    /// Needs root: a network beyond the host's is made, which knows nothing of the command's.
    #[test]
    fn packets_leave_under_the_host_s_address() {
        use std::net::{TcpListener, TcpStream};
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let shared = Shared::new().expect("rules");
        let mut host = Socket::open_route().expect("netlink");
        let mut beyond =
            std::thread::spawn(|| Inside::new(None)).join().expect("a thread").expect("a namespace");
        host.request(shared.new_pair("outer0", beyond.namespace.as_fd())).expect("a pair");
        let (near, far) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
        for (netlink, device, name, own) in
            [(&mut host, None, "outer0", near), (&mut beyond.netlink, Some(&beyond.device), "eth0", far)]
        {
            let here = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .expect("socket");
            let index = rustix::net::netdevice::name_to_index(device.unwrap_or(&here), name).expect("index");
            netlink.request(address(index, own)).expect("address");
            netlink.request(Message::new(NEW_LINK, REQUEST | ACK, &link_head(index, true))).expect("up");
        }
        forward("outer0").expect("forward");
        let network = shared.make().expect("a private network");
        let listener = within(beyond.namespace.as_fd(), || TcpListener::bind((far, 0)).expect("listen"));
        let port = listener.local_addr().expect("address").port();
        let stream = within(network.namespace(), || TcpStream::connect((far, port)).expect("connect"));
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(near));
        assert!(matches!(stream.local_addr().expect("address").ip(), IpAddr::V4(own) if own != near));
        // Nothing gets in from there, not even with a route.
        let own = stream.local_addr().expect("address").ip();
        let inside = within(network.namespace(), || TcpListener::bind((own, 0)).expect("listen"));
        let port = inside.local_addr().expect("address").port();
        beyond.netlink.request(default_route(near)).expect("a route");
        let wait = std::time::Duration::from_millis(500);
        let refused =
            within(beyond.namespace.as_fd(), || TcpStream::connect_timeout(&(own, port).into(), wait));
        assert!(refused.is_err(), "{refused:?}");
    }

    /// Needs root.
    #[test]
    fn questions_are_passed_on_to_a_server_on_loopback() {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream, UdpSocket};
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let server = Ipv4Addr::new(127, 18, 53, 53);
        let datagrams = UdpSocket::bind((server, 53)).expect("bind");
        let streams = TcpListener::bind((server, 53)).expect("bind");
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                buffer[..length].reverse();
                // The number stays in front.
                buffer[..length].rotate_right(2);
                buffer[..2].reverse();
                let _ = datagrams.send_to(&buffer[..length], from);
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = streams.accept() {
                let mut question = [0; 6];
                let _ = stream.read_exact(&mut question).and_then(|()| stream.write_all(b"\0\x03yes"));
            }
        });
        let inside = std::thread::spawn(move || Inside::new(Some(server.into()))).join().expect("a thread");
        let mut inside = inside.expect("a namespace");
        let resolver = inside.listening.take().expect("sockets").serve().expect("serve");
        let answers = within(inside.namespace.as_fd(), || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("timeout");
            let mut answers = Vec::new();
            for question in [b"\x12\x34abc", b"\x12\x34xyz"] {
                socket.send_to(question, (server, 53)).expect("send");
                let mut answer = [0; 16];
                let length = socket.recv(&mut answer).expect("an answer");
                answers.push(answer[..length].to_vec());
            }
            let mut stream = TcpStream::connect((server, 53)).expect("connect");
            stream.write_all(b"\0\x04good").expect("write");
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).expect("read");
            answers.push(answer.to_vec());
            answers
        });
        assert_eq!(answers, [&b"\x12\x34cba"[..], b"\x12\x34zyx", b"\0\x03yes"]);
        drop(resolver);
    }
}
