//! Runs ops: sources, file operations, sandboxes, exporters.

pub mod context;
pub mod files;
pub mod network;
pub mod overlay;
pub mod sandbox;
pub mod users;
