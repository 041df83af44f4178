//! The system call filter: a table (`syscalls.txt`) made into a program for the kernel's classic BPF.
//!
//! Every way in that the machine has gets its part of the program: on x86-64 also 32-bit and x32 programs, on AArch64
//! also 32-bit ones. A call of another architecture, and a number that the table does not have, gets ENOSYS.
//!
//! ```text
//! architecture? ─▶ number in a binary tree of ranges ─▶ allow | EPERM | ENOSYS | look at an argument
//! ```

mod program;
mod table;

use std::sync::OnceLock;

use bricklayer_sys::spawn::FilterInstruction;

/// The filter for commands with the default capabilities on this machine; `None` on one that has no table.
pub(super) fn filter() -> Option<&'static [FilterInstruction]> {
    static FILTER: OnceLock<Option<Vec<FilterInstruction>>> = OnceLock::new();
    FILTER
        .get_or_init(|| {
            let sections = table::sections(std::env::consts::ARCH)?;
            program::compile(&sections)
        })
        .as_deref()
}
