//! Somebody in front of a terminal: what a program writes there is read, what is typed reaches it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::wait_for;

/// A terminal of 50 lines of 132 characters, and a program that it controls.
pub(crate) struct Person {
    near: OwnedFd,
    /// Held, so that its modes can be looked at also when the program has ended.
    far: OwnedFd,
    pub(crate) program: Child,
    seen: Arc<Mutex<String>>,
}

impl Person {
    /// Starts a program at a terminal (with `setsid` of util-linux, which makes it the controlling one).
    pub(crate) fn start(command: &Command) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&near).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let far = ioctl_tiocgptpeer(&near, flags).unwrap();
        resize(&near, 50, 132);
        let mut outer = Command::new("setsid");
        outer.arg("--ctty").arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            outer.current_dir(directory);
        }
        let program = outer
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(far.try_clone().unwrap())
            .stdout(far.try_clone().unwrap())
            .stderr(far.try_clone().unwrap())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let mut from = std::fs::File::from(near.try_clone().unwrap());
        let to = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { near, far, program, seen }
    }

    /// Types something.
    pub(crate) fn types(&self, text: &str) {
        std::fs::File::from(self.near.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this stands on the screen.
    #[track_caller]
    pub(crate) fn sees(&self, text: &str) {
        let began = std::time::Instant::now();
        while !self.screen().contains(text) {
            let patience = std::time::Duration::from_secs(60);
            assert!(
                began.elapsed() < patience,
                "a minute went by without {text:?} on the screen: {:?}",
                self.screen()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// All that the program has written.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn resizes(&self, rows: u16, columns: u16) {
        resize(&self.near, rows, columns);
    }

    /// Does the terminal pass on what is typed as it is?
    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.far).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub(crate) fn signals(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.program);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the program's end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_for("the program ends", || {
            ended = self.program.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
