//! Which addresses private networks have: some that the host has no route to.
//!
//! Four of each family for every pair of interfaces (a /30 and a /126), of which the second is the host's and the third
//! the command's. Pairs are numbered; the number is in the name of the host's interface.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the names of the host's ends begin with.
pub(super) const PREFIX: &str = "brick";

/// How many pairs there can be at once.
pub(super) const PAIRS: u32 = 4096;

/// IPv4 networks to take addresses from, the first that the host has no route to.
const POOLS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(10, 218, 0, 0),
    Ipv4Addr::new(172, 29, 128, 0),
    Ipv4Addr::new(10, 91, 64, 0),
    Ipv4Addr::new(192, 168, 192, 0),
    Ipv4Addr::new(172, 22, 64, 0),
    Ipv4Addr::new(100, 112, 0, 0),
];
/// [`PAIRS`] × 4 addresses.
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 192, 0);

/// IPv6 networks of /64 (unique local addresses, RFC 4193, with global IDs drawn once).
const POOLS_IPV6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd5c, 0x2e31, 0x97a4, 0xb1c5, 0, 0, 0, 0),
    Ipv6Addr::new(0xfdc9, 0x81d6, 0x043f, 0xb1c5, 0, 0, 0, 0),
    Ipv6Addr::new(0xfd17, 0x6ab8, 0xe25d, 0xb1c5, 0, 0, 0, 0),
];
const MASK_IPV6: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0);

/// A route of the host. IPv4 addresses are held as the highest 32 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    destination: u128,
    mask: u128,
}

impl Route {
    /// Does it lead everywhere?
    pub(super) fn is_default(&self) -> bool {
        self.mask == 0
    }

    /// Does it lead into the network? A default route leads everywhere.
    fn overlaps(&self, network: u128, mask: u128) -> bool {
        let both = self.mask & mask;
        !self.is_default() && network & both == self.destination & both
    }
}

fn wide(address: Ipv4Addr) -> u128 {
    u128::from(address.to_bits()) << 96
}

/// Routes of one family, but for those of pairs.
pub(super) fn routes(ipv6: bool) -> Vec<Route> {
    // `/proc/net` is that of the process, which need not be the thread's.
    let file = if ipv6 { "ipv6_route" } else { "route" };
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let parse = if ipv6 { parse_ipv6 } else { parse_ipv4 };
    text.lines().filter_map(parse).filter(|route| !route.interface.starts_with(PREFIX)).collect()
}

/// A line of `route`: interface, destination, …, mask (the eighth), in hexadecimal. The first line is a heading.
fn parse_ipv4(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let hex = |at: usize| {
        // In network order, printed as a number in host order.
        let value = u32::from_str_radix(words.get(at)?, 16).ok()?;
        Some(wide(Ipv4Addr::from_bits(u32::from_be_bytes(value.to_ne_bytes()))))
    };
    Some(Route { interface: (*words.first()?).to_owned(), destination: hex(1)?, mask: hex(7)? })
}

/// A line of `ipv6_route`: destination, its length, …, flags (the ninth), interface.
fn parse_ipv6(line: &str) -> Option<Route> {
    const REJECT: u32 = 0x200;
    let words: Vec<&str> = line.split_whitespace().collect();
    let hex = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
    let destination = u128::from_str_radix(words.first()?, 16).ok()?;
    let interface = *words.get(9)?;
    // The kernel's own "there is no way" is a route over the loopback interface.
    if hex(8)? & REJECT != 0 || interface == "lo" {
        return None;
    }
    let mask = u128::MAX.checked_shl(128u32.checked_sub(hex(1)?)?).unwrap_or(0);
    Some(Route { interface: interface.to_owned(), destination, mask })
}

/// Where addresses are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) network: IpAddr,
    pub(super) mask: IpAddr,
}

impl Pool {
    /// The first IPv4 network that no route leads to, and no name server lies in.
    pub(super) fn ipv4(routes: &[Route], servers: &[IpAddr]) -> Option<Self> {
        let network = first_free(POOLS.into_iter().map(IpAddr::V4), IpAddr::V4(MASK), routes, servers)?;
        Some(Self { network, mask: IpAddr::V4(MASK) })
    }

    /// The same for IPv6.
    pub(super) fn ipv6(routes: &[Route], servers: &[IpAddr]) -> Option<Self> {
        let mask = IpAddr::V6(MASK_IPV6);
        let network = first_free(POOLS_IPV6.into_iter().map(IpAddr::V6), mask, routes, servers)?;
        Some(Self { network, mask })
    }

    /// The addresses of a pair: the host's and the command's, and the length of their prefix.
    pub(super) fn pair(&self, number: u32) -> (IpAddr, IpAddr, u8) {
        match self.network {
            IpAddr::V4(network) => {
                let first = network.to_bits() + number * 4;
                (Ipv4Addr::from_bits(first + 1).into(), Ipv4Addr::from_bits(first + 2).into(), 30)
            }
            IpAddr::V6(network) => {
                let first = network.to_bits() + u128::from(number) * 4;
                (Ipv6Addr::from_bits(first + 1).into(), Ipv6Addr::from_bits(first + 2).into(), 126)
            }
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => wide(address),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn first_free(
    mut networks: impl Iterator<Item = IpAddr>,
    mask: IpAddr,
    routes: &[Route],
    servers: &[IpAddr],
) -> Option<IpAddr> {
    let mask_bits = bits(mask);
    networks.find(|network| {
        let network_bits = bits(*network);
        let same_family = |server: &&IpAddr| server.is_ipv4() == network.is_ipv4();
        !routes.iter().any(|route| route.overlaps(network_bits, mask_bits))
            && !servers.iter().filter(same_family).any(|server| bits(*server) & mask_bits == network_bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: [u8; 4], mask: [u8; 4]) -> Route {
        Route { interface: "eth0".to_owned(), destination: wide(destination.into()), mask: wide(mask.into()) }
    }

    #[test]
    fn addresses_are_taken_where_the_host_has_none() {
        let choose =
            |routes: &[Route], servers: &[IpAddr]| Pool::ipv4(routes, servers).map(|pool| pool.network);
        let pool = |number: usize| Some(IpAddr::V4(POOLS[number]));
        assert_eq!(choose(&[route([0; 4], [0; 4])], &[]), pool(0));
        assert_eq!(choose(&[route([10, 0, 0, 0], [255, 0, 0, 0])], &[]), pool(1));
        assert_eq!(choose(&[route([10, 218, 9, 0], [255, 255, 255, 0])], &[]), pool(1));
        assert_eq!(choose(&[route([10, 218, 64, 0], [255, 255, 255, 0])], &[]), pool(0));
        assert_eq!(choose(&[], &[IpAddr::from([10, 218, 1, 1])]), pool(1));
        let halves = [route([0; 4], [128, 0, 0, 0]), route([128, 0, 0, 0], [128, 0, 0, 0])];
        assert_eq!(choose(&halves, &[]), None);
    }

    #[test]
    fn routes_are_read() {
        let line = "eth0\t0000DA0A\t0102000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0";
        assert_eq!(parse_ipv4(line), Some(route([10, 218, 0, 0], [255, 255, 0, 0])));
        assert_eq!(parse_ipv4("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask"), None);
        let zero = "0".repeat(32);
        let default =
            format!("{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 1 0 00000003 eth0");
        assert!(parse_ipv6(&default).is_some_and(|route| route.is_default() && route.interface == "eth0"));
        let none = format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200       lo");
        assert_eq!(parse_ipv6(&none), None);
        let pool = POOLS_IPV6[0].octets().map(|byte| format!("{byte:02x}")).concat();
        let inside = format!("{pool} 40 {zero} 00 {zero} 00000100 1 0 00000001 vpn0");
        let routes: Vec<Route> = parse_ipv6(&inside).into_iter().collect();
        assert_eq!(Pool::ipv6(&routes, &[]).map(|pool| pool.network), Some(IpAddr::V6(POOLS_IPV6[1])));
        assert_eq!(parse_ipv6("x"), None);
    }

    #[test]
    fn the_last_pair_lies_in_the_network() {
        for pool in [Pool::ipv4(&[], &[]), Pool::ipv6(&[], &[])].into_iter().flatten() {
            for number in [0, 1, PAIRS - 1] {
                let (outer, inner, _) = pool.pair(number);
                assert_eq!(bits(outer) & bits(pool.mask), bits(pool.network));
                assert_eq!(bits(inner) & bits(pool.mask), bits(pool.network));
            }
        }
    }
}
