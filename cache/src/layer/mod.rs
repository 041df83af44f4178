//! A layer's two forms, each made from the other: a *tree* that overlayfs mounts, and a *tar* as OCI's image-spec
//! `layer.md` defines it.
//!
//! A tree is what overlayfs leaves in an upper directory: a whiteout is a character device 0:0, an opaque directory
//! carries the xattr `trusted.overlay.opaque=y` (`user.overlay.opaque` in a user namespace).
