//! Runs ops: sources, file operations, sandboxes, exporters.

pub mod network;
pub mod overlay;
pub mod sandbox;
