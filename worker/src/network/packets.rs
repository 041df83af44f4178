//! Rules for packets (nftables), spoken to the kernel directly.
//!
//! The tables belong to the socket that made them (`NFT_TABLE_F_OWNER`): when that is closed, because the process ended,
//! however it ended, the kernel removes tables and rules. Nobody else can change them. (To remove them takes until no packet
//! can be on its way through them, 10 to 20 ms, which [`Socket::close_later`] leaves to the kernel.)
//!
//! ```text
//! table ip bricklayer-PID-RANDOM {          and the same for ip6
//!     chain postrouting { type nat hook postrouting priority 100
//!         ip saddr POOL oifname != "brick*" masquerade }
//!     chain forward { type filter hook forward priority -300; policy accept
//!         iifname "brick*" oifname "brick*" drop
//!         iifname != "brick*" oifname "brick*" ct state invalid,new drop
//!         iifname "brick*" counter }
//!     chain passed { type filter hook forward priority 300; policy accept
//!         iifname "brick*" counter }
//! }
//! ```
//!
//! A packet counts as passed on only if no table of the host drops it, which no rule of ours could prevent. The two
//! counters tell whether one did.

use std::io;
use std::net::IpAddr;

use super::addresses::Pool;
use super::netlink::{ACK, Attributes, CREATE, DUMP, EXCLUSIVE, Message, NESTED, REQUEST, Socket};

const SUBSYSTEM: u16 = 10;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub(super) const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
pub(super) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
pub(super) const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const APPEND: u16 = 0x800;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
/// `NFPROTO_INET`.
const BOTH: u8 = 1;
const OWNER: u32 = 2;

const HOOK_INPUT: u32 = 1;
pub(super) const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_SOURCE_NAT: i32 = 100;
/// Before and after what filters of other people run at, which is 0.
const PRIORITY_FIRST: i32 = -300;
const PRIORITY_LAST: i32 = 300;

const REGISTER: u32 = 1;
pub(super) const META_IN_NAME: u32 = 6;
pub(super) const META_OUT_NAME: u32 = 7;
pub(super) const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;
/// `NF_CT_STATE_INVALID_BIT`.
const INVALID: u32 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const NEW: u32 = 8;

/// `struct nfgenmsg`.
pub(super) fn head(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn word(message: &mut Message, kind: u16, value: u32) {
    message.attribute(kind, &value.to_be_bytes());
}

/// One step of a rule: a name and its parameters.
fn expression(message: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    message.nest(1 | NESTED, |element| {
        element.string(1, name);
        element.nest(2 | NESTED, fill);
    });
}

fn compare(message: &mut Message, how: u32, with: &[u8]) {
    expression(message, "cmp", |cmp| {
        word(cmp, 1, REGISTER);
        word(cmp, 2, how);
        cmp.nest(3 | NESTED, |data| {
            data.attribute(1, with);
        });
    });
}

/// Does the interface's name begin with `prefix`, or not?
pub(super) fn interface(message: &mut Message, which: u32, how: u32, prefix: &str) {
    expression(message, "meta", |meta| {
        word(meta, 1, REGISTER);
        word(meta, 2, which);
    });
    compare(message, how, prefix.as_bytes());
}

fn and(message: &mut Message, mask: &[u8]) {
    expression(message, "bitwise", |bitwise| {
        word(bitwise, 1, REGISTER);
        word(bitwise, 2, REGISTER);
        word(bitwise, 3, u32::try_from(mask.len()).unwrap_or(0));
        bitwise.nest(4 | NESTED, |data| {
            data.attribute(1, mask);
        });
        bitwise.nest(5 | NESTED, |data| {
            data.attribute(1, &vec![0; mask.len()]);
        });
    });
}

pub(super) fn verdict(message: &mut Message, verdict: u32) {
    expression(message, "immediate", |immediate| {
        word(immediate, 1, 0);
        immediate.nest(2 | NESTED, |data| {
            data.nest(2 | NESTED, |code| word(code, 1, verdict));
        });
    });
}

pub(super) fn counter(message: &mut Message) {
    expression(message, "counter", |_| {});
}

/// What a batch is made of, for one family.
struct Table<'a> {
    family: u8,
    name: &'a str,
    messages: Vec<(Message, bool)>,
}

impl<'a> Table<'a> {
    fn new(family: u8, name: &'a str) -> Self {
        let mut message = Message::new(NEW_TABLE, REQUEST | ACK | CREATE | EXCLUSIVE, &head(family, 0));
        message.string(1, name);
        word(&mut message, 2, OWNER);
        Self { family, name, messages: vec![(message, true)] }
    }

    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        let mut message = Message::new(NEW_CHAIN, REQUEST | ACK | CREATE, &head(self.family, 0));
        message.string(1, self.name);
        message.string(3, name);
        message.nest(4 | NESTED, |at| {
            word(at, 1, hook);
            word(at, 2, priority as u32);
        });
        message.string(7, kind);
        self.messages.push((message, true));
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Message)) {
        let mut message = Message::new(NEW_RULE, REQUEST | ACK | CREATE | APPEND, &head(self.family, 0));
        message.string(1, self.name);
        message.string(2, chain);
        message.nest(4 | NESTED, fill);
        self.messages.push((message, true));
    }
}

/// Several changes that the kernel makes together or not at all.
pub(super) fn transaction(socket: &mut Socket, changes: Vec<(Message, bool)>) -> io::Result<()> {
    let mut messages = vec![(Message::new(BATCH_BEGIN, REQUEST, &head(0, SUBSYSTEM)), false)];
    messages.extend(changes);
    messages.push((Message::new(BATCH_END, REQUEST, &head(0, SUBSYSTEM)), false));
    socket.batch(messages)
}

pub(super) fn open() -> io::Result<Socket> {
    Socket::open(rustix::net::netlink::NETFILTER)
}

/// A name that no other process has for its tables, also not one that another pid namespace gave our number to.
pub(super) fn table_name() -> String {
    let mut random = [0; 4];
    // Without randomness there is still the number.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("bricklayer-{}-{:08x}", std::process::id(), u32::from_ne_bytes(random))
}

/// Lets what comes from `pools` out under the host's own address, and nothing in but answers. Holds as long as the socket
/// is open. `prefix` is what the names of the interfaces to commands begin with.
pub(super) fn translate(socket: &mut Socket, name: &str, pools: &[Pool], prefix: &str) -> io::Result<()> {
    transaction(socket, pools.iter().flat_map(|pool| table(name, pool, prefix)).collect())
}

fn table(name: &str, pool: &Pool, prefix: &str) -> Vec<(Message, bool)> {
    let mut table = Table::new(family(pool), name);
    table.chain("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SOURCE_NAT);
    table.chain("forward", "filter", HOOK_FORWARD, PRIORITY_FIRST);
    table.chain("passed", "filter", HOOK_FORWARD, PRIORITY_LAST);
    table.rule("postrouting", |rule| {
        let (network, mask, offset) = match (pool.network, pool.mask) {
            (IpAddr::V4(network), IpAddr::V4(mask)) => {
                (network.octets().to_vec(), mask.octets().to_vec(), 12)
            }
            (network, mask) => (octets(network), octets(mask), 8),
        };
        expression(rule, "payload", |payload| {
            const NETWORK_HEADER: u32 = 1;
            word(payload, 1, REGISTER);
            word(payload, 2, NETWORK_HEADER);
            word(payload, 3, offset);
            word(payload, 4, u32::try_from(network.len()).unwrap_or(0));
        });
        and(rule, &mask);
        compare(rule, EQUAL, &network);
        interface(rule, META_OUT_NAME, NOT_EQUAL, prefix);
        expression(rule, "masq", |_| {});
    });
    table.rule("forward", |rule| {
        interface(rule, META_IN_NAME, EQUAL, prefix);
        interface(rule, META_OUT_NAME, EQUAL, prefix);
        verdict(rule, DROP);
    });
    table.rule("forward", |rule| {
        interface(rule, META_IN_NAME, NOT_EQUAL, prefix);
        interface(rule, META_OUT_NAME, EQUAL, prefix);
        drop_in_state(rule, INVALID | NEW);
    });
    for chain in ["forward", "passed"] {
        table.rule(chain, |rule| {
            interface(rule, META_IN_NAME, EQUAL, prefix);
            counter(rule);
        });
    }
    table.messages
}

/// Drops packets that are to a connection what `states` says.
fn drop_in_state(rule: &mut Message, states: u32) {
    expression(rule, "ct", |ct| {
        const STATE: u32 = 0;
        word(ct, 1, REGISTER);
        word(ct, 2, STATE);
    });
    and(rule, &states.to_ne_bytes());
    compare(rule, NOT_EQUAL, &[0; 4]);
    verdict(rule, DROP);
}

/// Keeps a network namespace from answering what belongs to no connection. Holds as long as the socket is open. Some
/// versions of pasta send segments without any flag, which are taken for the namespace's own, and it would reset the
/// connection that it only passes on.
pub(super) fn ignore_invalid(socket: &mut Socket, name: &str) -> io::Result<()> {
    let mut table = Table::new(BOTH, name);
    table.chain("input", "filter", HOOK_INPUT, PRIORITY_FIRST);
    table.rule("input", |rule| drop_in_state(rule, INVALID));
    transaction(socket, table.messages)
}

fn family(pool: &Pool) -> u8 {
    if pool.network.is_ipv4() { IPV4 } else { IPV6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// How many packets from commands were to be passed on, and how many of them the host's filters let through.
pub(super) fn counts(socket: &mut Socket, name: &str, pool: &Pool) -> io::Result<(u64, u64)> {
    let mut question = Message::new(GET_RULE, REQUEST | DUMP, &head(family(pool), 0));
    question.string(1, name);
    let rules = socket.dump(&question)?;
    let of = |chain: &[u8]| {
        let in_chain = |rule: &&[u8]| Attributes::find(rule, 2) == Some(chain);
        rules.iter().filter_map(|(_, rule)| rule.get(4..)).filter(in_chain).filter_map(packets).sum()
    };
    Ok((of(b"forward\0"), of(b"passed\0")))
}

/// The number that a rule's counter stands at.
fn packets(rule: &[u8]) -> Option<u64> {
    Attributes(Attributes::find(rule, 4)?).find_map(|(_, step)| {
        let is_counter = Attributes::find(step, 1)?.starts_with(b"counter\0");
        let number = Attributes::find(Attributes::find(step, 2)?, 2).filter(|_| is_counter)?;
        Some(u64::from_be_bytes(*number.first_chunk()?))
    })
}
