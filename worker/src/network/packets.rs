//! Rules for packets (nftables), spoken to the kernel directly.
//!
//! The table belongs to the socket that made it (`NFT_TABLE_F_OWNER`): when that is closed, because the process ended,
//! however it ended, the kernel removes table and rules. Nobody else can change them.
//!
//! ```text
//! table ip bricklayer-PID {
//!     chain postrouting { type nat hook postrouting priority 100
//!         ip saddr POOL oifname != "brick*" masquerade }
//!     chain forward { type filter hook forward priority 0; policy accept
//!         iifname "brick*" oifname "brick*" drop
//!         iifname != "brick*" oifname "brick*" ct state invalid,new drop }
//! }
//! ```

use std::io;
use std::net::Ipv4Addr;

use super::netlink::{ACK, CREATE, EXCLUSIVE, Message, NESTED, REQUEST, Socket};

const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const APPEND: u16 = 0x800;

const IPV4: u8 = 2;
const OWNER: u32 = 2;

const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_SOURCE_NAT: i32 = 100;

const REGISTER: u32 = 1;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const DROP: u32 = 0;
/// `NF_CT_STATE_INVALID_BIT | NF_CT_STATE_BIT(IP_CT_NEW)`.
const INVALID_OR_NEW: u32 = 1 | 8;

/// `struct nfgenmsg`.
fn head(family: u8, resource: u16) -> [u8; 4] {
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
fn interface(message: &mut Message, which: u32, how: u32, prefix: &str) {
    expression(message, "meta", |meta| {
        word(meta, 1, REGISTER);
        word(meta, 2, which);
    });
    compare(message, how, prefix.as_bytes());
}

fn and(message: &mut Message, mask: [u8; 4]) {
    expression(message, "bitwise", |bitwise| {
        word(bitwise, 1, REGISTER);
        word(bitwise, 2, REGISTER);
        word(bitwise, 3, 4);
        bitwise.nest(4 | NESTED, |data| {
            data.attribute(1, &mask);
        });
        bitwise.nest(5 | NESTED, |data| {
            data.attribute(1, &[0; 4]);
        });
    });
}

fn drop_it(message: &mut Message) {
    expression(message, "immediate", |immediate| {
        word(immediate, 1, 0);
        immediate.nest(2 | NESTED, |data| {
            data.nest(2 | NESTED, |verdict| word(verdict, 1, DROP));
        });
    });
}

fn chain(table: &str, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    let mut message = Message::new(NEW_CHAIN, REQUEST | ACK | CREATE, &head(IPV4, 0));
    message.string(1, table);
    message.string(3, name);
    message.nest(4 | NESTED, |at| {
        word(at, 1, hook);
        word(at, 2, priority as u32);
    });
    message.string(7, kind);
    message
}

fn rule(table: &str, chain: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::new(NEW_RULE, REQUEST | ACK | CREATE | APPEND, &head(IPV4, 0));
    message.string(1, table);
    message.string(2, chain);
    message.nest(4 | NESTED, fill);
    message
}

/// Lets what comes from `pool` out under the host's own address, and nothing in but answers. Holds as long as the socket
/// is open. `prefix` is what the names of the interfaces to commands begin with.
pub(super) fn translate(pool: Ipv4Addr, mask: Ipv4Addr, prefix: &str) -> io::Result<Socket> {
    let table = format!("bricklayer-{}", std::process::id());
    let mut socket = Socket::open(rustix::net::netlink::NETFILTER)?;
    let mut new_table = Message::new(NEW_TABLE, REQUEST | ACK | CREATE | EXCLUSIVE, &head(IPV4, 0));
    new_table.string(1, &table);
    word(&mut new_table, 2, OWNER);
    let messages = vec![
        (Message::new(BATCH_BEGIN, REQUEST, &head(0, SUBSYSTEM)), false),
        (new_table, true),
        (chain(&table, "postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SOURCE_NAT), true),
        (chain(&table, "forward", "filter", HOOK_FORWARD, 0), true),
        (
            rule(&table, "postrouting", |rule| {
                expression(rule, "payload", |payload| {
                    const NETWORK_HEADER: u32 = 1;
                    const SOURCE_ADDRESS: u32 = 12;
                    word(payload, 1, REGISTER);
                    word(payload, 2, NETWORK_HEADER);
                    word(payload, 3, SOURCE_ADDRESS);
                    word(payload, 4, 4);
                });
                and(rule, mask.octets());
                compare(rule, EQUAL, &pool.octets());
                interface(rule, META_OUT_NAME, NOT_EQUAL, prefix);
                expression(rule, "masq", |_| {});
            }),
            true,
        ),
        (
            rule(&table, "forward", |rule| {
                interface(rule, META_IN_NAME, EQUAL, prefix);
                interface(rule, META_OUT_NAME, EQUAL, prefix);
                drop_it(rule);
            }),
            true,
        ),
        (
            rule(&table, "forward", |rule| {
                interface(rule, META_IN_NAME, NOT_EQUAL, prefix);
                interface(rule, META_OUT_NAME, EQUAL, prefix);
                expression(rule, "ct", |ct| {
                    const STATE: u32 = 0;
                    word(ct, 1, REGISTER);
                    word(ct, 2, STATE);
                });
                and(rule, INVALID_OR_NEW.to_ne_bytes());
                compare(rule, NOT_EQUAL, &[0; 4]);
                drop_it(rule);
            }),
            true,
        ),
        (Message::new(BATCH_END, REQUEST, &head(0, SUBSYSTEM)), false),
    ];
    socket.batch(messages)?;
    Ok(socket)
}
