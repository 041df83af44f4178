//! A root filesystem in a temporary folder, and commands on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bricklayer_solver::op::{Limits, Network, Security};
use bricklayer_worker::overlay;
use bricklayer_worker::sandbox::{
    AttachedMount, CapabilityChanges, Command, Exit, SandboxError, Stdio, Stream, Tmpfs, User, run,
};
use tokio_util::sync::CancellationToken;

const BUSYBOX: &str = "/bin/busybox";

pub(crate) struct Root {
    pub(crate) folder: tempfile::TempDir,
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Root {
    /// A busybox system with the users root and app (1000).
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
        let root = Self::empty();
        let base = root.base();
        for dir in ["bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp", "srv"] {
            fs::create_dir_all(base.join(dir)).expect("make a directory");
        }
        fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::copy(BUSYBOX, base.join("bin/busybox")).expect("copy busybox");
        let list = std::process::Command::new(BUSYBOX).arg("--list").output().expect("busybox --list");
        for applet in String::from_utf8(list.stdout).expect("names").lines().filter(|name| *name != "busybox")
        {
            symlink("busybox", base.join("bin").join(applet)).expect("link");
        }
        root
    }

    /// Nothing at all in the base.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for dir in ["base", "upper", "work"] {
            fs::create_dir(folder.path().join(dir)).expect("make a directory");
        }
        fs::set_permissions(folder.path().join("upper"), fs::Permissions::from_mode(0o755)).expect("chmod");
        Self { folder }
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.path().join("upper")
    }

    /// Everything that is in the upper directory.
    pub(crate) fn changes(&self) -> Vec<String> {
        fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("read a directory") {
                let path = entry.expect("an entry").path();
                found.push(path.strip_prefix(top).expect("below").display().to_string());
                if path.symlink_metadata().expect("stat").is_dir() {
                    walk(&path, top, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.upper(), &self.upper(), &mut found);
        found.sort();
        found
    }

    /// A new upper directory for the next command, on the same base.
    pub(crate) fn fresh_upper(&self) {
        for dir in ["upper", "work"] {
            let path = self.folder.path().join(dir);
            fs::remove_dir_all(&path).expect("remove");
            fs::create_dir(&path).expect("make a directory");
        }
        fs::set_permissions(self.upper(), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// A command on this root, with everything at its default and no network.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let (base, upper, work) = (self.base(), self.upper(), self.folder.path().join("work"));
        // A volatile overlay leaves a mark that keeps it from being mounted again.
        let _ = fs::remove_dir_all(work.join("work"));
        let root = overlay::mount(&[&base], Some((&upper, &work))).expect("mount the root");
        Command {
            root,
            upper: Some(fs::File::open(&upper).expect("open upper").into()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            user: User { uid: 0, gid: 0, groups: vec![0], home: "/root".to_owned() },
            mounts: Vec::new(),
            network: Network::None,
            more_to_come: false,
            security: Security::Sandbox,
            capabilities: CapabilityChanges::default(),
            read_only: false,
            stdio: Stdio::default(),
            runtime: None,
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            limits: Limits::default(),
            cgroup_parent: None,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Command {
        self.command(&["sh", "-c", script])
    }

    /// What the script writes to standard output; it must end with code 0.
    pub(crate) fn output(&self, script: &str) -> String {
        output(self.shell(script))
    }
}

pub(crate) fn try_run(command: Command) -> Result<Ran, SandboxError> {
    let (stdout, stderr) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let collect = |stream: Stream, bytes: &[u8]| {
        let to = if stream == Stream::Stdout { &stdout } else { &stderr };
        to.lock().expect("lock").extend_from_slice(bytes);
    };
    let exit = run(command, &collect, &CancellationToken::new())?;
    let text =
        |bytes: Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.into_inner().expect("lock")).into_owned();
    Ok(Ran { stdout: text(stdout), stderr: text(stderr), exit })
}

pub(crate) fn ran(command: Command) -> Ran {
    try_run(command).unwrap_or_else(|error| {
        panic!(
            "{error}: {:?} (hint: {:?})",
            std::error::Error::source(&error).map(ToString::to_string),
            error.hint()
        )
    })
}

pub(crate) fn output(command: Command) -> String {
    let ran = ran(command);
    assert!(ran.exit.success(), "{ran:?}");
    ran.stdout
}

/// The error of a command that can't be run, with its causes.
pub(crate) fn refused(command: Command) -> String {
    let error = try_run(command).expect_err("it should be refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) fn tmpfs(target: &str) -> AttachedMount {
    AttachedMount {
        target: target.to_owned(),
        what: bricklayer_worker::sandbox::Attached::Tmpfs(Tmpfs::default()),
    }
}

/// A program that makes one system call and exits with the error number (0: none, or a small negative of the result).
#[cfg(target_arch = "x86_64")]
pub(crate) mod probe {
    /// Which way it goes into the kernel.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Way {
        Native,
        /// `int 0x80`, in a 32-bit program.
        Bits32,
        /// Native, with the bit of x32 in the number.
        X32,
    }

    pub(crate) fn program(way: Way, number: u32, args: [u32; 4]) -> Vec<u8> {
        let code = if way == Way::Bits32 { code_32(number, args) } else { code_64(way, number, args) };
        if way == Way::Bits32 { elf_32(&code) } else { elf_64(&code) }
    }

    fn code_64(way: Way, number: u32, args: [u32; 4]) -> Vec<u8> {
        let number = if way == Way::X32 { number | 0x4000_0000 } else { number };
        let mut code = Vec::new();
        // mov eax / edi / esi / edx, imm32; mov r10d, imm32
        for (opcode, value) in
            [(&[0xb8][..], number), (&[0xbf], args[0]), (&[0xbe], args[1]), (&[0xba], args[2])]
        {
            code.extend_from_slice(opcode);
            code.extend_from_slice(&value.to_le_bytes());
        }
        code.extend_from_slice(&[0x41, 0xba]);
        code.extend_from_slice(&args[3].to_le_bytes());
        // syscall; mov edi, eax; neg edi; mov eax, 231 (exit_group); syscall
        code.extend_from_slice(&[0x0f, 0x05, 0x89, 0xc7, 0xf7, 0xdf, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]);
        code
    }

    fn code_32(number: u32, args: [u32; 4]) -> Vec<u8> {
        let mut code = Vec::new();
        // mov eax / ebx / ecx / edx / esi, imm32
        for (opcode, value) in
            [(0xb8, number), (0xbb, args[0]), (0xb9, args[1]), (0xba, args[2]), (0xbe, args[3])]
        {
            code.push(opcode);
            code.extend_from_slice(&u32::to_le_bytes(value));
        }
        // int 0x80; mov ebx, eax; neg ebx; mov eax, 252 (exit_group); int 0x80
        code.extend_from_slice(&[0xcd, 0x80, 0x89, 0xc3, 0xf7, 0xdb, 0xb8, 252, 0, 0, 0, 0xcd, 0x80]);
        code
    }

    const BASE: u32 = 0x40_0000;

    fn elf_64(code: &[u8]) -> Vec<u8> {
        let (base, head) = (u64::from(BASE), 64 + 56);
        let size = head + code.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        // Executable, x86-64, version; entry, program headers, section headers; flags; sizes and counts.
        file.extend([2u16, 62].iter().flat_map(|value| value.to_le_bytes()));
        file.extend(1u32.to_le_bytes());
        file.extend([base + head, 64, 0].iter().flat_map(|value| value.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        // Loadable, readable and executable.
        file.extend([1u32, 5].iter().flat_map(|value| value.to_le_bytes()));
        file.extend([0, base, base, size, size, 4096].iter().flat_map(|value: &u64| value.to_le_bytes()));
        file.extend_from_slice(code);
        file
    }

    fn elf_32(code: &[u8]) -> Vec<u8> {
        let head = 52 + 32;
        let size = head + code.len() as u32;
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2u16, 3].iter().flat_map(|value| value.to_le_bytes()));
        file.extend([1u32, BASE + head, 52, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        file.extend([52u16, 32, 1, 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        file.extend([1u32, 0, BASE, BASE, size, size, 5, 4096].iter().flat_map(|value| value.to_le_bytes()));
        file.extend_from_slice(code);
        file
    }
}
