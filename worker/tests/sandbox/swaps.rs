//! Directories that somebody else changes while they are mounted, or mounted in: what is a directory in one moment is a
//! link that leads outside in the next (CVE-2024-23651 and its kin). A cache mount that builds share is such a directory.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bricklayer_worker::overlay;
use bricklayer_worker::sandbox::{Attached, AttachedMount};
use rustix::fs::RenameFlags;

use crate::fixture::{Root, tmpfs, try_run};

/// How often each of both states has to be met: by a whole command, and by a look.
const COMMANDS: usize = 10;
const LOOKS: usize = 1000;
/// After how many tries that is given up.
const TRIES: usize = 50_000;

/// `shared/sel` is a directory and a link to a directory outside, in turns, for as long as this lives.
struct Swapped {
    folder: tempfile::TempDir,
    over: Arc<AtomicBool>,
    swapping: Option<JoinHandle<()>>,
}

impl Swapped {
    /// `link`: the link's text, made of the path outside.
    fn new(link: impl Fn(&str) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for directory in ["shared/sel", "outside"] {
            fs::create_dir_all(path(directory)).expect("make a directory");
        }
        fs::write(path("shared/sel/which"), "inside\n").expect("write");
        fs::write(path("outside/which"), "outside\n").expect("write");
        symlink(link(path("outside").to_str().expect("text")), path("shared/other")).expect("link");
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (File::open(path("shared")).expect("open"), Arc::clone(&over));
        let swapping = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&shared, "sel", &shared, "other", RenameFlags::EXCHANGE)
                    .expect("swap");
            }
        });
        Self { folder, over, swapping: Some(swapping) }
    }

    fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// When something was last made or removed outside, which no program can set back.
    fn changed(&self) -> (i64, i64) {
        let found = fs::metadata(self.outside()).expect("stat");
        (found.ctime(), found.ctime_nsec())
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(swapping) = self.swapping.take() {
            let _ = swapping.join();
        }
    }
}

/// Links that lead to the directory outside for whoever follows them as the host would.
const LINKS: [fn(&str) -> String; 2] = [str::to_owned, |path| format!("../../../../../../../..{path}")];

#[test]
fn what_is_mounted_is_what_was_found() {
    for link in LINKS {
        let swapped = Swapped::new(link);
        let shared = File::open(swapped.shared()).expect("open");
        let (mut found, mut missing) = (0, 0);
        for _ in 0..TRIES {
            match overlay::subtree(shared.as_fd(), Path::new("/sel")) {
                // In the shared directory there is nothing where the link leads.
                Err(_) => missing += 1,
                Ok(mount) => {
                    let which = rustix::fs::openat(
                        &mount,
                        "which",
                        rustix::fs::OFlags::RDONLY,
                        rustix::fs::Mode::empty(),
                    );
                    let which = std::io::read_to_string(File::from(which.expect("open"))).expect("read");
                    assert_eq!(which, "inside\n");
                    found += 1;
                }
            }
            if found >= LOOKS && missing >= LOOKS {
                break;
            }
            // Others want the processors, too: the thread that swaps must get on.
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        assert!(found >= LOOKS && missing >= LOOKS, "{found} times a directory, {missing} times a link");
    }
}

#[test]
fn mount_points_are_made_inside_whatever_is_swapped_meanwhile() {
    for link in LINKS {
        let swapped = Swapped::new(link);
        let before = swapped.changed();
        let root = Root::new();
        let (mut directory, mut followed) = (0, 0);
        for _ in 0..TRIES {
            let mut command = root.shell("grep -c ' /c/sel/new ' /proc/self/mountinfo");
            let shared = File::open(swapped.shared()).expect("open");
            command.mounts = vec![
                AttachedMount {
                    target: "/c".to_owned(),
                    what: Attached::Tree {
                        fd: overlay::subtree(shared.as_fd(), Path::new("/")).expect("a mount"),
                        read_only: false,
                    },
                },
                tmpfs("/c/sel/new"),
            ];
            let ran = try_run(command).expect("it runs");
            match ran.stdout.as_str() {
                "1\n" => directory += 1,
                "0\n" => followed += 1,
                _ => panic!("{ran:?}"),
            }
            assert_eq!(swapped.changed(), before, "a mount point was made outside");
            if directory >= COMMANDS && followed >= COMMANDS {
                break;
            }
        }
        assert!(directory >= COMMANDS && followed >= COMMANDS, "{directory} directories, {followed} links");
        // Nothing of it stays.
        swapped.over.store(true, Ordering::Relaxed);
        let left: Vec<_> = ["sel", "other"]
            .iter()
            .filter_map(|name| fs::read_dir(swapped.shared().join(name)).ok())
            .flatten()
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(left.iter().all(|name| name == "which"), "{left:?}");
        assert_eq!(root.changes(), Vec::<String>::new());
    }
}
