//! What lasts: blobs, layers, snapshots, records, images, pruning; and moving them: registries, archives.
//!
//! - [`store`]: the directory that holds it all, used by any number of processes at once
//! - [`layer`]: a layer's two forms, tree and tar, each made from the other
//! - [`root`]: the one place that resolves paths inside a foreign root
//! - [`document`]: manifests and indexes; [`registry`]: pull and push; [`archive`]: OCI and Docker archives and layouts

pub mod archive;
pub mod document;
pub mod layer;
pub mod registry;
pub mod root;
pub mod store;

pub use store::{Store, StoreError};
