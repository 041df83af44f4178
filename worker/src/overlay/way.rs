//! What the kernel can do with mounts, found out by trying: distributions bring new things to old version numbers.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::mount::{FsOpenFlags, MountAttrFlags, fsconfig_set_fd, fsopen, open_tree};

/// How overlay mounts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Layers are passed by descriptor (`fsconfig`, Linux 6.13), and mounts that are attached nowhere can be cloned
    /// (`open_tree`, Linux 6.15).
    Descriptors,
    /// The mount is made in a mount namespace of its own, by `mount(2)` and a string of options, and cloned from there.
    Options,
}

impl Way {
    /// The quickest one that this kernel has; found out once per process.
    pub fn of_kernel() -> Self {
        static WAY: OnceLock<Way> = OnceLock::new();
        *WAY.get_or_init(|| if takes_descriptors() { Self::Descriptors } else { Self::Options })
    }

    /// Can a mount that is attached nowhere be cloned?
    pub fn clones_detached(self) -> bool {
        self == Self::Descriptors
    }
}

/// Where even the trial can't be made the answer is yes: then the mount fails as well, and says why.
fn takes_descriptors() -> bool {
    let Ok(directory) = super::tmpfs(&[("mode", "0755")], MountAttrFlags::empty()) else { return true };
    let Ok(overlay) = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return true };
    open_tree(&directory, c"", super::clone_flags()).is_ok()
        && fsconfig_set_fd(overlay.as_fd(), c"lowerdir+", directory.as_fd()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oldest kernel that can do all of it is 6.15; newer ones take the quick way.
    #[test]
    fn a_new_kernel_is_found_to_be_one() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().expect("a version"), numbers.next().unwrap_or_default());
        if version >= (6, 15) {
            assert_eq!(Way::of_kernel(), Way::Descriptors, "{release}");
        }
    }
}
