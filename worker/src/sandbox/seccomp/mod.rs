//! The system call filter: a table (`syscalls.txt`) made into a program for the kernel's classic BPF. Calls that need a
//! capability which a command has beyond the default ones are allowed too.
//!
//! Every way in that the machine has gets its part of the program: on x86-64 also 32-bit and x32 programs, on AArch64
//! also 32-bit ones. A call of another architecture, and a number that the table does not have, gets ENOSYS.
//!
//! ```text
//! architecture? ─▶ number in a binary tree of ranges ─▶ allow | EPERM | ENOSYS | look at an argument
//! ```

mod program;
mod table;

use std::borrow::Cow;
use std::sync::OnceLock;

use bricklayer_sys::spawn::FilterInstruction;

use super::{SandboxError, policy};

pub(super) use table::{Rule, native_number, rules_by_name};

/// The filter for commands with these capabilities on this machine; `None` on one that has no table.
pub(super) fn filter(capabilities: u64) -> Option<Cow<'static, [FilterInstruction]>> {
    static DEFAULT: OnceLock<Option<Vec<FilterInstruction>>> = OnceLock::new();
    let compile = |capabilities| program::compile(&table::sections(std::env::consts::ARCH, capabilities)?);
    if table::unlocked(capabilities) == table::unlocked(policy::default_capabilities()) {
        let filter = DEFAULT.get_or_init(|| compile(capabilities));
        return filter.as_deref().map(Cow::Borrowed);
    }
    compile(capabilities).map(Cow::Owned)
}

/// What is said where there is no table.
pub(super) fn none_for_this_machine() -> SandboxError {
    let machine = std::env::consts::ARCH;
    SandboxError::Invalid(format!("there is no system call filter for {machine}: use --security=insecure"))
}
