//! Interfaces, addresses and routes, as messages of the kernel's routing service (rtnetlink(7)).

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{ACK, CREATE, EXCLUSIVE, Message, NEW_LINK, REQUEST, link_head};

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// What belongs to an address family, as an attribute of a link.
const AF_SPEC: u16 = 26;

/// `AF_INET` and `AF_INET6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A pair of connected interfaces: `name` here, `eth0` in `namespace`. Neither gives itself addresses.
pub(super) fn pair(name: &str, mtu: Option<u32>, namespace: BorrowedFd<'_>) -> Message {
    const NAME: u16 = 3;
    const MTU: u16 = 4;
    const LINK_INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    const PEER: u16 = 1;
    const NAMESPACE: u16 = 28;
    let mut message = Message::new(NEW_LINK, REQUEST | ACK | CREATE | EXCLUSIVE, &link_head(0, false));
    message.string(NAME, name);
    let common = |message: &mut Message| {
        if let Some(mtu) = mtu {
            message.attribute(MTU, &mtu.to_ne_bytes());
        }
    };
    common(&mut message);
    message.nest(LINK_INFO, |info| {
        info.string(INFO_KIND, "veth");
        info.nest(INFO_DATA, |data| {
            data.nest(PEER, |peer| {
                peer.raw(&link_head(0, false));
                peer.string(NAME, "eth0");
                common(peer);
                peer.attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    message
}

/// Keeps an interface from making IPv6 addresses by itself: we give it all that it needs, and ours need no second of
/// waiting whether somebody else has them.
pub(super) fn no_own_addresses(index: u32) -> Message {
    const ADDRESS_GENERATION: u16 = 8;
    const NONE: u8 = 1;
    let mut message = Message::new(NEW_LINK, REQUEST | ACK, &link_head(index, false));
    message.nest(AF_SPEC, |families| {
        families.nest(u16::from(IPV6), |ipv6| {
            ipv6.attribute(ADDRESS_GENERATION, &[NONE]);
        });
    });
    message
}

/// Brings an interface up, and lets IPv4 packets that come in there be passed on. The switch in /proc does the same, but a
/// write to it spins for as long as anybody on the host changes anything about networks.
pub(super) fn up_to_forward(index: u32) -> Message {
    const CONFIGURATION: u16 = 1;
    const FORWARDING: u16 = 1;
    let mut message = up(index);
    message.nest(AF_SPEC, |families| {
        families.nest(u16::from(IPV4), |ipv4| {
            ipv4.nest(CONFIGURATION, |configuration| {
                configuration.attribute(FORWARDING, &1_u32.to_ne_bytes());
            });
        });
    });
    message
}

/// Brings an interface up.
pub(super) fn up(index: u32) -> Message {
    Message::new(NEW_LINK, REQUEST | ACK, &link_head(index, true))
}

/// Gives an interface an address (`struct ifaddrmsg`) with so many bits of prefix.
pub(super) fn address(index: u32, address: IpAddr, prefix: u8) -> Message {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    /// Usable at once, without asking around whether somebody else has it.
    const NO_DETECTION: u8 = 2;
    let flags = if address.is_ipv6() { NO_DETECTION } else { 0 };
    let mut head = vec![family(address), prefix, flags, 0];
    head.extend_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(NEW_ADDRESS, REQUEST | ACK | CREATE | EXCLUSIVE, &head);
    message.attribute(LOCAL, &octets(address));
    message.attribute(ADDRESS, &octets(address));
    message
}

/// Everything goes through `gateway` (`struct rtmsg`).
pub(super) fn default_route(gateway: IpAddr) -> Message {
    const GATEWAY: u16 = 5;
    const MAIN_TABLE: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let head = [family(gateway), 0, 0, 0, MAIN_TABLE, BOOT, 0, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(NEW_ROUTE, REQUEST | ACK | CREATE, &head);
    message.attribute(GATEWAY, &octets(gateway));
    message
}
