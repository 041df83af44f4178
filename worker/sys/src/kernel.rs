//! What the kernel must have for anything of ours to work.

use std::io;

/// The oldest version that has all of it.
pub const OLDEST: &str = "5.12";

/// System calls that came late and are used by everything: name, number.
const NEEDED: [(&str, libc::c_long); 4] = [
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("openat2", libc::SYS_openat2),
    ("mount_setattr", libc::SYS_mount_setattr),
];

/// The needed system calls that this kernel, or a filter that we run under, does not know.
pub fn missing() -> Vec<&'static str> {
    let is_missing = |number: libc::c_long| {
        // SAFETY: the sizes are 0 and the flags no valid ones: each of these calls refuses that before it looks at a pointer
        // or closes anything.
        let result = unsafe { libc::syscall(number, 0usize, 0usize, usize::MAX, 0usize, 0usize, 0usize) };
        result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
    };
    NEEDED.iter().filter(|(_, number)| is_missing(*number)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_kernel_has_all() {
        assert_eq!(super::missing(), Vec::<&str>::new());
    }
}
