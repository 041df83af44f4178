//! Why the kernel refuses a user namespace, as far as its settings tell.

use std::fs;
use std::io;

use rustix::io::Errno;

/// What the host says about user namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Debian's switch, `kernel.unprivileged_userns_clone`.
    clone: Option<u64>,
    /// Ubuntu's, `kernel.apparmor_restrict_unprivileged_userns`.
    apparmor: Option<u64>,
    /// `user.max_user_namespaces`.
    most: Option<u64>,
    /// Is a seccomp filter on this process, as in a container?
    filtered: bool,
    /// Is `/` something else than the root of its mount namespace?
    chroot: bool,
}

impl Facts {
    pub(super) fn of_host() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filtered =
            status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
        // In a chroot the first line of the mount table that is seen is not that of `/`.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let has_root = mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"));
        Self {
            clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            most: number("/proc/sys/user/max_user_namespaces"),
            filtered,
            chroot: !mounts.is_empty() && !has_root,
        }
    }

    /// Which setting it is, and what to do.
    pub(super) fn hint(&self, error: &io::Error) -> String {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if self.clone == Some(0) {
            return "this system keeps them from ordinary users: as root, `sysctl -w kernel.unprivileged_userns_clone=1`"
                .to_owned();
        }
        if self.most == Some(0) {
            return "this system allows none: as root, `sysctl -w user.max_user_namespaces=65536`".to_owned();
        }
        match errno {
            Some(Errno::NOSPC | Errno::USERS) => {
                "there are too many already, or too many inside each other: raise user.max_user_namespaces".to_owned()
            }
            _ if self.apparmor.is_some_and(|value| value != 0) => {
                "AppArmor keeps them from programs without a profile that says `userns,`: as root, write such a profile \
                 for this program, or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
                    .to_owned()
            }
            Some(Errno::NOSYS | Errno::INVAL) => "this kernel was built without user namespaces".to_owned(),
            _ if self.filtered => {
                "a seccomp filter is on this process, as in a container: start the container with `--security-opt \
                 seccomp=unconfined --security-opt apparmor=unconfined`, or build as root of the host"
                    .to_owned()
            }
            _ if self.chroot => "the kernel makes none in a chroot: build outside of it, or as root".to_owned(),
            _ => "a security module or a container may forbid them; build as root".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let permission = io::Error::from_raw_os_error(Errno::PERM.raw_os_error());
        let full = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        let missing = io::Error::from_raw_os_error(Errno::INVAL.raw_os_error());
        let plain = Facts::default();
        let cases = [
            (Facts { clone: Some(0), ..plain.clone() }, &permission, "kernel.unprivileged_userns_clone=1"),
            (
                Facts { most: Some(0), clone: Some(1), ..plain.clone() },
                &full,
                "user.max_user_namespaces=65536",
            ),
            (Facts { most: Some(9), ..plain.clone() }, &full, "raise user.max_user_namespaces"),
            (
                Facts { apparmor: Some(1), filtered: true, ..plain.clone() },
                &permission,
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Facts { apparmor: Some(0), filtered: true, ..plain.clone() }, &permission, "seccomp=unconfined"),
            (plain.clone(), &missing, "without user namespaces"),
            (Facts { chroot: true, ..plain.clone() }, &permission, "chroot"),
            (plain, &permission, "build as root"),
        ];
        for (facts, error, expected) in cases {
            let hint = facts.hint(error);
            assert!(hint.contains(expected), "{facts:?} {error}: {hint}");
        }
    }
}
