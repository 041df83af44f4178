//! Everything that needs `unsafe`: the kernel interfaces that no safe crate wraps.
//!
//! - `mount`: `mount_setattr`
//! - `namespace`: moving one thread into namespaces of its own
//! - `kernel`: what must be there at all
//! - `device`: which devices the processes of a control group may open
//! - `notify`: system calls of other processes that we answer
//! - `spawn`: a command in its own pid namespace, under a supervisor that dies with us
//! - `userns`: the whole process in a user namespace, as an ordinary user
//!
//! Nothing here decides a policy: what is mounted, allowed and limited comes in as data.

pub mod device;
pub mod kernel;
pub mod mount;
pub mod namespace;
pub mod notify;
pub mod spawn;
pub mod userns;
