//! Runs ops: sources, file operations, sandboxes, exporters.

pub mod overlay;
pub mod sandbox;
