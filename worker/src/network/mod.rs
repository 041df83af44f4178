//! The network that a command sees.
//!
//! - [`names`]: `/etc/hosts` and `/etc/resolv.conf`
//! - `private`: a network namespace with a way out, and nothing left of it when it is gone
//! - `packets`: the translation of addresses, as rules of nftables
//! - `resolver`: a name server for it, where the host's can't be reached
//! - `netlink`: how the kernel is told

pub mod names;
pub(crate) mod netlink;
mod packets;
pub(crate) mod private;
pub(crate) mod resolver;
