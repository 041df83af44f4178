//! Commands under supervision.
