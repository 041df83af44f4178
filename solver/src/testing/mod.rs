//! Fakes of what the solver stands on, and the suite that every [`RecordStore`](crate::record::RecordStore) must pass.
//! Only with the feature `testing`.

mod memory;
pub mod suite;
mod worker;

pub use memory::MemoryRecords;
pub use worker::{FakeWorker, Happening};
