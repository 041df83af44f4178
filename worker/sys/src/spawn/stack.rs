//! Stacks for processes that share our memory.

use std::io;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// What the deepest call of such a process needs in a debug build, several times.
const SIZE: usize = 64 << 10;

/// As large as a page is anywhere.
const GUARD: usize = 64 << 10;

/// Memory for one stack, with a part below it that nothing may touch: too deep a call ends the process, and writes nowhere.
#[derive(Debug)]
pub(super) struct Stack {
    start: *mut u8,
}

// SAFETY: plain memory that only its owner knows of.
unsafe impl Send for Stack {}
// SAFETY: nothing is read or written through a reference to it.
unsafe impl Sync for Stack {}

impl Stack {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping, where the kernel likes.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                GUARD + SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
            )
        }?;
        let stack = Self { start: start.cast() };
        // SAFETY: the lower part of what was just mapped.
        unsafe { mprotect(start, GUARD, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    pub(super) fn lowest(&self) -> *mut u8 {
        self.start.wrapping_add(GUARD)
    }

    pub(super) fn size(&self) -> usize {
        SIZE
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this size; whoever ran on it has ended, or runs in other memory.
        let _ = unsafe { munmap(self.start.cast(), GUARD + SIZE) };
    }
}
