//! The network that a command sees.
//!
//! - [`names`]: `/etc/hosts` and `/etc/resolv.conf`
//! - `private`: a network namespace with a way out, and nothing left of it when it is gone
//! - `addresses`, `link`: where its addresses come from, and how its interface gets them
//! - `packets`: the translation of addresses, as rules of nftables
//! - `foreign`: the host's own rules, where these would drop what is passed on
//! - `forwarding`: the host's settings for passing packets on
//! - `resolver`: a name server for it, where the host's can't be reached
//! - `netlink`: how the kernel is told
//! - `uplink`: the way out of an ordinary user, whose process may not touch the host's network

mod addresses;
mod foreign;
mod forwarding;
mod link;
pub mod names;
pub(crate) mod netlink;
mod packets;
pub(crate) mod private;
pub(crate) mod resolver;
mod uplink;

pub(crate) use private::Hold;
pub(crate) use uplink::NoUplink;
