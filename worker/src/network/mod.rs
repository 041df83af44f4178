//! The network that a command sees.

pub mod names;
pub(crate) mod netlink;
