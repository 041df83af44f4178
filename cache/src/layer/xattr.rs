//! Which extended attributes belong to a layer.
//!
//! | name | |
//! | --- | --- |
//! | `security.capability`, `user.*`, `trusted.*`, `system.posix_acl_access`, `system.posix_acl_default` | kept |
//! | `trusted.overlay.*`, `user.overlay.*` | overlayfs's own marks: never in an archive, never taken from one |
//! | `trusted.overlay.overlay.X` | what a step set as `trusted.overlay.X`, stored escaped by overlayfs: in the archive by its own name |
//! | `user.bricklayer.*` | what a user namespace could not give the file: it is in its owner or type instead |
//! | anything else (`security.selinux`, `security.ima`, …) | labels of this machine: left out |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::root::aside;
use crate::root::at::Xattr;

/// The mark of an opaque directory, by who mounts it.
pub(crate) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// The attribute that, with the value `y`, marks an opaque directory where overlayfs is mounted in a user namespace, or not.
pub fn opaque_mark(userns: bool) -> &'static str {
    let [trusted, user] = OPAQUE;
    if userns { user } else { trusted }
}

/// Namespaces of overlayfs.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

fn belongs(name: &[u8]) -> bool {
    if aside::is_ours(OsStr::from_bytes(name)) {
        return false;
    }
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
}

/// The name in the archive of an attribute of a tree; `None`: it stays behind.
pub fn exported(name: &OsStr) -> Option<OsString> {
    let name = name.as_bytes();
    for prefix in OVERLAY {
        if let Some(rest) = name.strip_prefix(prefix) {
            let escaped = rest.strip_prefix(b"overlay.")?;
            return Some(OsString::from_vec([prefix, escaped].concat()));
        }
    }
    belongs(name).then(|| OsStr::from_bytes(name).to_owned())
}

/// Is an attribute of an archive set on the file that is unpacked?
pub fn imported(name: &[u8]) -> bool {
    belongs(name) && !OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// What overlayfs's attributes say about a file of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// A directory that hides what lies below it.
    pub opaque: bool,
    /// An empty file that stands for a whiteout.
    pub whiteout: bool,
    /// The file's content or name is in another layer (`redirect`, `metacopy`): the tree cannot stand alone.
    pub elsewhere: bool,
}

/// Splits a tree's attributes into those of the layer, sorted, under their names in the archive, and overlayfs's marks.
pub fn split(found: Vec<Xattr>) -> (Vec<Xattr>, Marks) {
    let mut marks = Marks::default();
    let mut kept = Vec::new();
    for (name, value) in found {
        for prefix in OVERLAY {
            match name.as_bytes().strip_prefix(prefix) {
                Some(b"opaque") => marks.opaque |= value == b"y",
                Some(b"whiteout") => marks.whiteout = true,
                Some(b"redirect" | b"metacopy") => marks.elsewhere = true,
                _ => {}
            }
        }
        if let Some(name) = exported(&name) {
            kept.push((name, value));
        }
    }
    kept.sort_unstable();
    (kept, marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_overlayfs_never_come_in_and_go_out_unescaped() {
        let cases = [
            ("security.capability", Some("security.capability"), true),
            ("user.a", Some("user.a"), true),
            ("trusted.a", Some("trusted.a"), true),
            ("system.posix_acl_access", Some("system.posix_acl_access"), true),
            ("security.selinux", None, false),
            ("system.nfs4_acl", None, false),
            ("trusted.overlay.opaque", None, false),
            ("user.overlay.redirect", None, false),
            ("trusted.overlay.overlay.opaque", Some("trusted.overlay.opaque"), false),
            ("user.bricklayer.owner", None, false),
            ("user.overlayfs", Some("user.overlayfs"), true),
        ];
        for (name, out, comes_in) in cases {
            assert_eq!(exported(OsStr::new(name)).as_deref(), out.map(OsStr::new), "{name}");
            assert_eq!(imported(name.as_bytes()), comes_in, "{name}");
        }
    }
}
