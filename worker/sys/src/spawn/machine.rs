//! System calls without the C library, for processes that share their parent's memory.
//!
//! To copy the builder's page tables, and then the pages that it writes, costs more than all else that a command needs.
//! So the supervisor and pid 1 run in the builder's own memory, as after `vfork`, each on a stack of its own. The C
//! library's `syscall` stores errors in a variable of the thread, which such a process would share with the thread that
//! started it; the calls here store nothing.
//!
//! On a machine for which there is no code below, both are copies, as after `fork`.

use std::ffi::c_long;

/// Where a process begins.
pub(super) type Entry = unsafe extern "C" fn(*const ()) -> !;

/// One system call; what the kernel returns, errors negative.
///
/// # Safety
/// What the arguments point to must be valid for what the call does with it.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn system_call(number: c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result;
    // SAFETY: promised by the caller; the kernel changes nothing but the registers named here.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn system_call(number: c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result;
    // SAFETY: promised by the caller; the kernel changes nothing but the registers named here.
    unsafe {
        std::arch::asm!(
            "svc 0",
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, in("x8") number,
            options(nostack),
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn system_call(number: c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    // SAFETY: promised by the caller. `libc::syscall` only stores the error number, in memory of this thread.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    // SAFETY: the location is a variable of this thread.
    if result >= 0 { result as isize } else { -(unsafe { *libc::__errno_location() } as isize) }
}

/// `clone3`: a process in our memory that begins at `entry`, on the stack that `args` name. Gives its id, or a negative
/// error number.
///
/// # Safety
/// `args` and the memory that they point to are valid for the call; the stack belongs to the new process alone; `entry`
/// does nothing but system calls, and `data` is what it expects, both until it has executed a program or ended.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn clone_process(args: &mut libc::clone_args, entry: Entry, data: *const ()) -> isize {
    args.flags |= libc::CLONE_VM as u64;
    let result;
    // SAFETY: the old process goes on behind the block with what `system_call` changes; the new one never gets there,
    // and has a stack of its own, whose end is aligned to a page.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const *args, in("rsi") size_of::<libc::clone_args>(),
            in("r8") entry, in("r9") data,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn clone_process(args: &mut libc::clone_args, entry: Entry, data: *const ()) -> isize {
    args.flags |= libc::CLONE_VM as u64;
    let result;
    // SAFETY: as on x86-64.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            inlateout("x0") (&raw const *args) as isize => result,
            in("x1") size_of::<libc::clone_args>(), in("x8") libc::SYS_clone3,
            in("x9") entry, in("x10") data,
        );
    }
    result
}

/// As above, but a copy of this process.
///
/// # Safety
/// As above.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn clone_process(args: &mut libc::clone_args, entry: Entry, data: *const ()) -> isize {
    // It has a copy of the stack that we are on.
    (args.stack, args.stack_size) = (0, 0);
    let args = [&raw const *args as usize, size_of::<libc::clone_args>(), 0, 0, 0, 0];
    // SAFETY: without CLONE_VM this is like fork.
    match unsafe { system_call(libc::SYS_clone3, args) } {
        // SAFETY: promised by the caller.
        0 => unsafe { entry(data) },
        pid => pid,
    }
}
