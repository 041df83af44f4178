//! Which devices the processes of a control group (v2) may open: a small BPF program, as the kernel wants it
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`, asked at every open and mknod of a device).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A character device, or a whole major number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number; `None`: all.
    pub minor: Option<u32>,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const ACCESS_MKNOD: i32 = 1;
const TYPE_CHARACTER: i32 = 2;

/// One instruction of eBPF (Linux `struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// Everything may be made with `mknod`; only `allowed` character devices may be opened.
fn program(allowed: &[Device]) -> Vec<Instruction> {
    // r1 points to `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor.
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(AND, 2, 0, 0, 0xffff),
        // Is it asked for anything but mknod?
        instruction(AND, 3, 0, 0, !ACCESS_MKNOD),
        instruction(JUMP_NOT_EQUAL, 3, 0, 2, 0),
        instruction(MOVE, 0, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(JUMP_EQUAL, 2, 0, 2, TYPE_CHARACTER),
        instruction(MOVE, 0, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ];
    for device in allowed {
        match device.minor {
            Some(minor) => {
                code.push(instruction(JUMP_NOT_EQUAL, 4, 0, 3, device.major as i32));
                code.push(instruction(JUMP_NOT_EQUAL, 5, 0, 2, minor as i32));
            }
            None => code.push(instruction(JUMP_NOT_EQUAL, 4, 0, 2, device.major as i32)),
        }
        code.push(instruction(MOVE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes missing fields as zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface_index: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program that lets processes open `allowed` character devices and no other device. It can be attached to any
/// number of control groups.
pub fn load(allowed: &[Device]) -> io::Result<OwnedFd> {
    let code = program(allowed);
    let mut name = [0; 16];
    name[..10].copy_from_slice(b"bricklayer");
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface_index: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    // SAFETY: `attributes` has the layout of the kernel's union up to its size, and its pointers (the instructions and
    // their number, a NUL-terminated licence) are valid for the call, which only reads.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts the control group `group` (a directory of the v2 hierarchy) under a program of [`load`].
pub fn attach(program: BorrowedFd<'_>, group: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `attributes` has the layout of the kernel's union up to its size, and the call only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachAttributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
