//! Everything that needs `unsafe`: the kernel interfaces that no safe crate wraps.
//!
//! - [`mount`]: `mount_setattr`
//! - [`spawn`]: a command in its own pid namespace, under a supervisor that dies with us
//!
//! Nothing here decides a policy: what is mounted, allowed and limited comes in as data.

pub mod mount;
pub mod spawn;
