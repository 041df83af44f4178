//! What leaves a build: the image (config, manifest, layer blobs) and the bare root filesystem (a tar, files).

mod image;
mod rootfs;

pub use image::{Assembled, ImageExport, assemble};
pub use rootfs::{Owners, RootfsError, write_local, write_tar};
pub(crate) use rootfs::{copy_entry, copy_tree};
