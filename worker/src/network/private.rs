//! A private network for one command: a namespace with one interface that leads to the host, which translates addresses.
//!
//! ```text
//! command's namespace                 host
//!   eth0 ───────────── veth ───────── brick7 ── forwarding, masquerading ── the host's network
//!   10.x.y.2/30                       10.x.y.1/30
//!   fd…:2/126, fe80::2                fd…:1/126, fe80::1          (where the host has a way out over IPv6)
//! ```
//!
//! Every command has an interface pair of its own, so commands do not see each other. Nothing has to be removed: a
//! namespace ends with its last process or descriptor, a pair with one of its ends, the rules with the process that made
//! them. What stays is that the host's interfaces forward packets, if they did not before.
//!
//! The name of the host's end is what reserves a pair of addresses, across all processes: the kernel makes no second
//! interface of one name.
//!
//! Making a namespace takes longer than all else that a command needs, so the one for the next command is made while this
//! one runs. No namespace is ever used twice.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bricklayer_sys::namespace::{Namespaces, enter_network, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::addresses::{PAIRS, PREFIX, Pool, Route, routes};
use super::foreign::{self, Chain};
use super::names::{NameServer, Resolution, name_servers};
use super::netlink::{Socket, loopback_up};
use super::resolver::{Listening, Resolver, address_of};
use super::uplink::{NoUplink, Uplink};
use super::{forwarding, link, packets};

/// A network namespace that is ready.
#[derive(Debug)]
pub(crate) struct Private {
    namespace: OwnedFd,
    listening: Option<Listening>,
    shared: Arc<Shared>,
    /// The counters when it was handed out.
    before: Vec<(u64, u64)>,
}

impl Private {
    /// The namespace, to be entered.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// `/etc/resolv.conf` for it.
    pub(crate) fn resolv_conf(&self) -> String {
        self.shared.resolution.resolv_conf.clone()
    }

    /// Starts its name server, if it needs one; it runs until it is dropped.
    pub(crate) fn resolver(&mut self) -> io::Result<Option<Resolver>> {
        self.listening.take().map(Listening::serve).transpose()
    }

    /// What people should know when a command failed: that the host drops packets of commands, if it did since this
    /// one began (they may have been those of another).
    pub(crate) fn dropped(&self) -> Option<String> {
        let mut rules = self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let now = rules.counts(&self.shared.pools).ok()?;
        let lost = |(before, now): (&(u64, u64), &(u64, u64))| now.0 - before.0 > now.1 - before.1;
        if !self.before.iter().zip(&now).any(lost) {
            return None;
        }
        let chains = foreign::chains(&mut rules.socket).unwrap_or_default();
        let who = match chains.as_slice() {
            [] => "iptables, by its older interface".to_owned(),
            chains => chains.iter().map(Chain::to_string).collect::<Vec<_>>().join("; "),
        };
        Some(format!(
            "the host's packet filter dropped what a RUN sent ({who}): let it pass on what comes from interfaces {PREFIX}*, \
             or use --network=host"
        ))
    }
}

/// As long as one of these lives, what private networks have in common stays for the next command: addresses, rules, and
/// a namespace that is ready. With the last one it goes, and rules that were made in the host's own chains are removed.
#[derive(Debug)]
pub(crate) struct Hold(());

impl Hold {
    /// Makes nothing yet: that is for the first command that needs it.
    pub(crate) fn new() -> Self {
        state().holders += 1;
        Self(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = state();
        state.holders -= 1;
        let ended = if state.holders == 0 { std::mem::take(&mut state.shared) } else { HashMap::new() };
        let uplink = if state.holders == 0 { state.uplink.take() } else { None };
        drop(state);
        for shared in ended.into_values().flatten() {
            shared.end();
        }
        // After the networks that lead there.
        drop(uplink);
    }
}

/// All private networks of this process, by the network namespace (device and inode) that they lead to: threads may be in
/// different ones.
#[derive(Default)]
struct State {
    holders: usize,
    /// Where an ordinary user's networks lead to.
    uplink: Option<Result<Arc<Uplink>, NoUplink>>,
    shared: HashMap<(u64, u64), Result<Arc<Shared>, String>>,
}

fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    STATE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoNetwork {
    /// What the kernel refused.
    Refused(String),
    /// An ordinary user has no way out.
    NoUplink(NoUplink),
}

/// A private network that leads to the network namespace of the calling thread, or, where that is not ours to change, to
/// one of our own that has a way out of it. The caller has a [`Hold`]. `ahead`: the next one is made meanwhile.
pub(crate) fn private(ahead: bool) -> Result<Private, NoNetwork> {
    match private_here(ahead) {
        Err(_) if bricklayer_cache::root::ids::in_user_namespace() => {}
        result => return result.map_err(NoNetwork::Refused),
    }
    // Others wait meanwhile: there is one for all.
    let uplink = state().uplink.get_or_insert_with(Uplink::start).clone().map_err(NoNetwork::NoUplink)?;
    let panicked = |_| Err("the thread that makes the network panicked".to_owned());
    std::thread::scope(|scope| {
        let make = || {
            enter_network(uplink.namespace()).map_err(|error| error.to_string())?;
            private_here(ahead)
        };
        scope.spawn(make).join().unwrap_or_else(panicked)
    })
    .map_err(NoNetwork::Refused)
}

/// A private network that leads to the network namespace of the calling thread; the error says what the kernel refused.
fn private_here(ahead: bool) -> Result<Private, String> {
    let told = |(step, error): Failure| format!("{step}: {error}");
    let here = rustix::fs::stat("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
    let shared = state()
        .shared
        .entry((here.st_dev, here.st_ino))
        .or_insert_with(|| Shared::new().map(Arc::new).map_err(told))
        .clone()?;
    let (namespace, listening) = shared.take(ahead).map_err(told)?;
    let before = shared
        .rules
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .counts(&shared.pools)
        .map_err(|error| told(("read counters", error)))?;
    Ok(Private { namespace, listening, shared, before })
}

/// What was tried, and how the kernel refused it.
type Failure = (&'static str, io::Error);

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| (step, error.into())
}

/// What all private networks on one host have in common.
#[derive(Debug)]
struct Shared {
    /// IPv4, and IPv6 where there is a way out.
    pools: Vec<Pool>,
    mtu: Option<u32>,
    resolution: Resolution,
    /// Where the host reaches the name server that ours is to ask.
    server: Option<SocketAddr>,
    rules: Mutex<Rules>,
    ahead: Mutex<Ahead>,
    made: Condvar,
}

/// Namespaces that are made before they are needed.
#[derive(Debug, Default)]
struct Ahead {
    ready: Vec<Made>,
    /// How many are being made.
    coming: usize,
    maker: Option<JoinHandle<()>>,
}

type Made = (OwnedFd, Option<Listening>);

/// Our tables: they hold as long as the socket is open.
#[derive(Debug)]
struct Rules {
    socket: Socket,
    table: String,
    /// Chains of others that have rules of ours.
    opened: Vec<Chain>,
}

impl Rules {
    /// For each pool: how many packets were to be passed on, and how many were.
    fn counts(&mut self, pools: &[Pool]) -> io::Result<Vec<(u64, u64)>> {
        pools.iter().map(|pool| packets::counts(&mut self.socket, &self.table, pool)).collect()
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        foreign::close_ways(&mut self.socket, &self.table, &self.opened);
        self.socket.close_later();
    }
}

impl Shared {
    fn new() -> Result<Self, Failure> {
        let ipv4 = routes(false);
        let ipv6 = routes(true);
        // Without a way out an address would only make programs try it, and wait.
        if ipv6.iter().any(Route::is_default) {
            let with = Self::with(&ipv4, Some(&ipv6)).and_then(|shared| {
                // Whether the kernel can do all of it shows when it is done.
                let made = shared.make()?;
                shared.ahead.lock().unwrap_or_else(PoisonError::into_inner).ready.push(made);
                Ok(shared)
            });
            if let Ok(shared) = with {
                return Ok(shared);
            }
        }
        Self::with(&ipv4, None)
    }

    fn with(ipv4: &[Route], ipv6: Option<&[Route]>) -> Result<Self, Failure> {
        let none_free =
            || ("choose addresses", io::Error::other("the host has routes to all that are tried"));
        let resolution = Resolution::of_host(ipv6.is_some());
        let servers: Vec<IpAddr> =
            name_servers(&resolution.resolv_conf).into_iter().map(|server| server.address).collect();
        let mut pools = vec![Pool::ipv4(ipv4, &servers).ok_or_else(none_free)?];
        if let Some(routes) = ipv6 {
            pools.push(Pool::ipv6(routes, &servers).ok_or_else(none_free)?);
        }
        let mut rules = Rules {
            socket: packets::open().map_err(at("open netlink"))?,
            table: packets::table_name(),
            opened: Vec::new(),
        };
        packets::translate(&mut rules.socket, &rules.table, &pools, PREFIX)
            .map_err(at("translate addresses"))?;
        rules.opened = foreign::open_ways(&mut rules.socket, &rules.table, PREFIX)
            .map_err(at("read the host's rules for packets"))?;
        // Answers come in there and have to be passed on.
        for route in ipv4 {
            forwarding::ipv4(&route.interface).map_err(at("forward packets"))?;
        }
        for route in ipv6.unwrap_or_default() {
            forwarding::ipv6(&route.interface).map_err(at("forward packets"))?;
        }
        let ways_out = ipv4.iter().chain(ipv6.unwrap_or_default()).filter(|route| route.is_default());
        let forward = resolution.forward.as_ref();
        let server = forward.map(|(_, server): &(IpAddr, NameServer)| address_of(server)).transpose();
        Ok(Self {
            mtu: ways_out.filter_map(|route| mtu(&route.interface)).min(),
            server: server.map_err(at("find the name server"))?,
            pools,
            resolution,
            rules: Mutex::new(rules),
            ahead: Mutex::default(),
            made: Condvar::new(),
        })
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is ready, or a new one; with `ahead` another is made for the next command.
    fn take(self: &Arc<Self>, ahead: bool) -> Result<Made, Failure> {
        let mut others = self.ahead();
        // One that is being made will be there sooner than one that we begin with now.
        while others.ready.is_empty() && others.coming > 0 {
            others = self.made.wait(others).unwrap_or_else(PoisonError::into_inner);
        }
        let made = others.ready.pop();
        drop(others);
        let made = match made {
            Some(made) => made,
            None => self.make()?,
        };
        if ahead {
            self.make_ahead();
        }
        Ok(made)
    }

    /// For the next command, while this one runs. If that fails, the next one finds out.
    fn make_ahead(self: &Arc<Self>) {
        let mut ahead = self.ahead();
        if ahead.coming > 0 || !ahead.ready.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        let maker = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
            let made = shared.make_here();
            let mut ahead = shared.ahead();
            ahead.ready.extend(made);
            ahead.coming -= 1;
            drop(ahead);
            shared.made.notify_all();
        });
        if let Ok(maker) = maker {
            ahead.coming += 1;
            ahead.maker = Some(maker);
        }
    }

    /// Waits for what is under way. What was made ahead goes.
    fn end(&self) {
        let maker = self.ahead().maker.take();
        if let Some(maker) = maker {
            // A panic of it was ours to report when a namespace was missing.
            let _ = maker.join();
        }
        self.ahead().ready.clear();
    }

    fn make(&self) -> Result<Made, Failure> {
        let panicked = |_| ("start a thread", io::Error::other("it panicked"));
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("network".to_owned());
            let made = thread.spawn_scoped(scope, || self.make_here()).map_err(at("start a thread"))?;
            made.join().map_err(panicked)?
        })
    }

    /// Makes a namespace. On a thread that is to end afterwards: after a failure it may not be where it was.
    fn make_here(&self) -> Result<Made, Failure> {
        let mut host = Socket::open_route().map_err(at("open netlink"))?;
        let device = interfaces()?;
        let mut inside =
            Inside::new(self.resolution.forward.as_ref().map(|(address, _)| *address), self.server)?;
        let (name, number) = self.pair(&mut host, inside.namespace.as_fd())?;
        let outer = name_to_index(&device, &name).map_err(at("find an interface"))?;
        let inner = name_to_index(&inside.device, "eth0").map_err(at("find an interface"))?;
        let (mut outside, mut within, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for pool in &self.pools {
            let (own, of_command, prefix) = pool.pair(number);
            if own.is_ipv6() {
                let link_local = |last| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last));
                for (messages, index, last) in [(&mut outside, outer, 1), (&mut within, inner, 2)] {
                    messages.push(link::no_own_addresses(index));
                    messages.push(link::address(index, link_local(last), 64));
                }
            }
            outside.push(link::address(outer, own, prefix));
            within.push(link::address(inner, of_command, prefix));
            routes.push(link::default_route(own));
        }
        outside.push(link::up_to_forward(outer));
        within.push(link::up(inner));
        within.extend(routes);
        let all = |messages: Vec<_>| messages.into_iter().map(|message| (message, true)).collect();
        host.batch(all(outside)).map_err(at("set up the host's interface"))?;
        inside.netlink.batch(all(within)).map_err(at("set up the command's interface"))?;
        if self.pools.len() > 1 {
            forwarding::ipv6(&name).map_err(at("forward packets"))?;
        }
        Ok((inside.namespace, inside.listening))
    }

    /// Makes an interface pair; gives the name of the host's end and its number.
    fn pair(&self, host: &mut Socket, namespace: BorrowedFd<'_>) -> Result<(String, u32), Failure> {
        static NEXT: OnceLock<AtomicU32> = OnceLock::new();
        // Processes start at different places, so that they seldom meet.
        let next = NEXT.get_or_init(|| std::process::id().wrapping_mul(61).into());
        for _ in 0..PAIRS {
            let number = next.fetch_add(1, Ordering::Relaxed) % PAIRS;
            let name = format!("{PREFIX}{number}");
            match host.request(link::pair(&name, self.mtu, namespace)) {
                Ok(()) => return Ok((name, number)),
                Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
                Err(error) => return Err(("make an interface", error)),
            }
        }
        Err(("make an interface", io::Error::other("all are in use")))
    }
}

/// The largest packet that an interface of the host takes.
fn mtu(interface: &str) -> Option<u32> {
    // The first is that of the thread's namespace; the second is there without IPv6, too.
    let of_ipv6 = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/mtu"));
    let text = of_ipv6.or_else(|_| fs::read_to_string(format!("/sys/class/net/{interface}/mtu")));
    text.ok()?.trim().parse().ok()
}

/// A socket to ask about the interfaces of the thread's network namespace.
fn interfaces() -> Result<OwnedFd, Failure> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(at("open a socket"))
}

/// What was opened in a new namespace.
struct Inside {
    namespace: OwnedFd,
    netlink: Socket,
    device: OwnedFd,
    listening: Option<Listening>,
}

impl Inside {
    /// Makes a namespace, opens what is needed in there, and comes back. `listen`: at which address a name server is to
    /// listen, that passes questions on to `server`.
    fn new(listen: Option<IpAddr>, server: Option<SocketAddr>) -> Result<Self, Failure> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())
                .map_err(at("open a network namespace"))
        };
        let host = open()?;
        unshare(Namespaces { mount: false, uts: false, ipc: false, network: true })
            .map_err(at("make a network namespace"))?;
        loopback_up().map_err(at("bring up the loopback interface"))?;
        let listening = listen.zip(server).map(|(address, server)| Listening::new(address, server));
        let inside = Self {
            namespace: open()?,
            netlink: Socket::open_route().map_err(at("open netlink"))?,
            device: interfaces()?,
            listening: listening.transpose().map_err(at("start a name server"))?,
        };
        enter_network(host.as_fd()).map_err(at("leave a network namespace"))?;
        Ok(inside)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    /// Runs something in a network namespace.
    fn within<T: Send>(namespace: BorrowedFd<'_>, what: impl FnOnce() -> T + Send) -> T {
        let run = || {
            enter_network(namespace).expect("enter");
            what()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("it runs"))
    }

    fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(what).join().expect("it runs"))
    }

    const NEAR: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    const FAR: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    ];

    /// A host of its own: a network namespace whose only way out leads to a second one.
    struct Host {
        here: Inside,
        beyond: Inside,
        /// Tests run side by side: without one that lives as long, the last test to let go would end this one's network.
        _hold: Hold,
    }

    impl Host {
        fn new(ipv6: bool) -> Self {
            assert!(rustix::process::geteuid().is_root(), "this test needs root");
            let [mut here, mut beyond] =
                [(); 2].map(|()| apart(|| Inside::new(None, None)).expect("a namespace"));
            here.netlink.request(link::pair("up0", None, beyond.namespace.as_fd())).expect("a pair");
            for (side, name, own) in [(&mut here, "up0", NEAR), (&mut beyond, "eth0", FAR)] {
                let index = name_to_index(&side.device, name).expect("index");
                for address in own.into_iter().filter(|address| ipv6 || address.is_ipv4()) {
                    let prefix = if address.is_ipv4() { 24 } else { 64 };
                    side.netlink.request(link::address(index, address, prefix)).expect("address");
                }
                side.netlink.request(link::up(index)).expect("up");
            }
            for gateway in FAR.into_iter().filter(|address| ipv6 || address.is_ipv4()) {
                here.netlink.request(link::default_route(gateway)).expect("route");
            }
            Self { here, beyond, _hold: Hold::new() }
        }

        fn on_host<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
            within(self.here.namespace.as_fd(), what)
        }

        /// As if the last [`Hold`] went.
        fn end(&self) {
            let stat = rustix::fs::fstat(&self.here.namespace).expect("stat");
            let shared = state().shared.remove(&(stat.st_dev, stat.st_ino));
            shared.expect("a network").expect("no error").end();
        }

        /// What a command that connects to the world beyond looks like there; an error if it does not get there.
        fn seen_as(&self, network: &Private, far: IpAddr) -> io::Result<IpAddr> {
            let listener =
                within(self.beyond.namespace.as_fd(), || TcpListener::bind((far, 0)).expect("listen"));
            let to = listener.local_addr().expect("address");
            let wait = Duration::from_secs(3);
            let _stream = within(network.namespace(), || TcpStream::connect_timeout(&to, wait))?;
            Ok(listener.accept()?.1.ip())
        }
    }

    fn nft(rules: &str) -> String {
        let mut nft = std::process::Command::new("nft")
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("apt-get install nftables");
        io::Write::write_all(&mut nft.stdin.take().expect("stdin"), rules.as_bytes()).expect("write");
        let output = nft.wait_with_output().expect("nft");
        assert!(output.status.success(), "{rules}{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Needs root.
    #[test]
    fn packets_leave_under_the_host_s_address() {
        for ipv6 in [true, false] {
            let host = Host::new(ipv6);
            let (_hold, mut network) =
                (Hold::new(), host.on_host(|| private(true)).expect("a private network"));
            assert_eq!(network.shared.pools.len(), if ipv6 { 2 } else { 1 });
            for (near, far) in NEAR.into_iter().zip(FAR).take(network.shared.pools.len()) {
                assert_eq!(host.seen_as(&network, far).expect("a way out"), near);
            }
            assert_eq!(network.dropped(), None);
            // Nothing gets in from there, not even with a route.
            let mut beyond = host.beyond;
            for (near, far) in NEAR.into_iter().zip(FAR).take(network.shared.pools.len()) {
                let own = within(network.namespace(), || {
                    let socket = UdpSocket::bind((if far.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
                    socket.connect((far, 9))?;
                    Ok::<_, io::Error>(socket.local_addr()?.ip())
                })
                .expect("an address");
                let inside = within(network.namespace(), || TcpListener::bind((own, 0)).expect("listen"));
                let port = inside.local_addr().expect("address").port();
                beyond.netlink.request(link::default_route(near)).expect("a route");
                let wait = Duration::from_millis(500);
                let refused = within(beyond.namespace.as_fd(), || {
                    TcpStream::connect_timeout(&(own, port).into(), wait)
                });
                assert!(refused.is_err(), "{refused:?}");
            }
            assert!(network.resolver().expect("sockets").is_none());
        }
    }

    /// Needs root, and Debian's nftables.
    #[test]
    fn a_host_that_drops_what_is_passed_on_lets_ours_through() {
        const DOCKER: &str = "\
add table ip filter
add chain ip filter USER
add rule ip filter USER counter return
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
add rule ip filter FORWARD counter jump USER
add table ip6 filter
add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }
";
        let host = Host::new(true);
        host.on_host(|| nft(DOCKER));
        let list = || host.on_host(|| nft("list table ip filter\n") + &nft("list table ip6 filter\n"));
        let before = list();
        {
            let (_hold, network) = (Hold::new(), host.on_host(|| private(true)).expect("a private network"));
            for (near, far) in NEAR.into_iter().zip(FAR) {
                assert_eq!(host.seen_as(&network, far).expect("a way out"), near);
            }
            assert_eq!(network.dropped(), None);
            assert_eq!(list().matches("brick*").count(), 4, "{}", list());
        }
        host.end();
        assert_eq!(without_counts(&list()), without_counts(&before));
        // A process that was killed leaves its rules.
        let left =
            "insert rule ip filter FORWARD oifname \"brick*\" counter accept comment \"bricklayer-1-0\"\n";
        host.on_host(|| nft(left));
        assert!(list().contains("bricklayer-1-0"), "{}", list());
        {
            let (_hold, network) = (Hold::new(), host.on_host(|| private(true)).expect("a private network"));
            assert_eq!(host.seen_as(&network, FAR[0]).expect("a way out"), NEAR[0]);
            assert!(!list().contains("bricklayer-1-0"), "{}", list());
        }
        host.end();
        assert_eq!(without_counts(&list()), without_counts(&before));
    }

    /// Rules without what their counters stand at.
    fn without_counts(rules: &str) -> Vec<&str> {
        rules.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect()
    }

    /// Needs root, and Debian's nftables.
    #[test]
    fn a_rule_that_drops_packets_is_told_about() {
        let host = Host::new(false);
        // As firewalld does it: accepted by policy, refused by the last rule.
        host.on_host(|| {
            nft("\
add table inet firewalld
add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }
add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited
")
        });
        let (_hold, network) = (Hold::new(), host.on_host(|| private(true)).expect("a private network"));
        assert!(host.seen_as(&network, FAR[0]).is_err());
        assert_eq!(
            network.dropped().as_deref(),
            Some(
                "the host's packet filter dropped what a RUN sent (table inet firewalld, chain filter_FORWARD): let it pass \
                 on what comes from interfaces brick*, or use --network=host"
            )
        );
    }

    /// Needs root.
    #[test]
    fn no_namespace_is_used_twice_and_none_stays() {
        const MARK: &str = "/proc/sys/net/ipv4/ip_default_ttl";
        let host = Host::new(true);
        let _hold = Hold::new();
        for _ in 0..6 {
            let network = host.on_host(|| private(true)).expect("a private network");
            let found = within(network.namespace(), || {
                let found = fs::read_to_string(MARK).expect("read");
                fs::write(MARK, "77").expect("write");
                found
            });
            assert_eq!(found.trim(), "64");
        }
        let interfaces = || host.on_host(|| fs::read_to_string("/proc/thread-self/net/dev").expect("read"));
        assert!(interfaces().contains(PREFIX));
        host.end();
        // The kernel takes a namespace apart after its end, and closes the socket of the rules.
        let rules = || host.on_host(|| nft("list ruleset\n"));
        let gone = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            !interfaces().contains(PREFIX) && rules().is_empty()
        });
        assert!(gone, "{}{}", interfaces(), rules());
    }

    /// Needs root.
    #[test]
    fn questions_are_passed_on_to_a_server_that_only_the_host_reaches() {
        use std::io::{Read, Write};
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        for (server, inside) in [
            (IpAddr::from([127, 18, 53, 53]), IpAddr::from([127, 18, 53, 53])),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::from([127, 0, 0, 1])),
        ] {
            let host = Host::new(true);
            let (datagrams, streams) = host.on_host(|| {
                (UdpSocket::bind((server, 53)).expect("bind"), TcpListener::bind((server, 53)).expect("bind"))
            });
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
            let mut network =
                host.on_host(|| Inside::new(Some(inside), Some((server, 53).into()))).expect("a namespace");
            let listening = network.listening.take().expect("sockets");
            let resolver = host.on_host(|| listening.serve()).expect("serve");
            let answers = within(network.namespace.as_fd(), || {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
                socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
                let mut answers = Vec::new();
                for question in [b"\x12\x34abc", b"\x12\x34xyz"] {
                    socket.send_to(question, (inside, 53)).expect("send");
                    let mut answer = [0; 16];
                    let length = socket.recv(&mut answer).expect("an answer");
                    answers.push(answer[..length].to_vec());
                }
                let mut stream = TcpStream::connect((inside, 53)).expect("connect");
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
}
