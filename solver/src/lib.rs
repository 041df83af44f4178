//! The build graph and what decides when its steps run: ops, cache keys, the scheduler, and why a step ran.
//!
//! This crate knows no container and no disk format. Whoever runs ops implements [`worker::Worker`], whoever keeps
//! records implements [`record::RecordStore`]; so the scheduler is tested with fakes, without root.
//!
//! The crate also holds the words that all others share: [`digest::Digest`], [`platform::Platform`],
//! [`image::ImageConfig`], and the pattern languages ([`pattern`], [`mode`]) that ops are written in.

pub mod digest;
pub mod errors;
pub mod event;
pub mod explain;
pub mod graph;
pub mod image;
pub mod key;
pub mod mode;
pub mod op;
pub mod pattern;
pub mod platform;
pub mod record;
pub mod schedule;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timing;
pub mod worker;

pub use digest::Digest;
pub use platform::Platform;
