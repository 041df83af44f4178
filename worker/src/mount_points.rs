//! The lowest layer below every command: what the sandbox mounts things on, where the image has nothing there.
//!
//! Without it each command without `/etc/hosts` in its image would make and remove files in its layer, and copy `/etc` up
//! for it. Nothing of it gets into a layer: all of it is covered by mounts while the command runs. Where an image has
//! something else there (a link, a file that was removed), that hides this layer, and what is missing is made and removed.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bricklayer_solver::worker::StepError;
use rustix::fs::{Timespec, Timestamps, futimens};

use crate::local_worker::Shared;

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];

const FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

impl Shared {
    /// Where it lies.
    pub(crate) fn mount_points(&self) -> Result<&Path, StepError> {
        if let Some(path) = self.mount_points.get() {
            return Ok(path);
        }
        let path: PathBuf = self
            .store
            .mount_points(fill)
            .map_err(|e| StepError::with_source("cannot make mount points", e))?;
        Ok(self.mount_points.get_or_init(|| path))
    }
}

/// The same for everybody, whenever it is made: commands see it, and `/etc` may get into their layers.
fn fill(root: &Path) -> io::Result<()> {
    for name in DIRECTORIES {
        DirBuilder::new().create(root.join(name))?;
    }
    for name in FILES {
        File::create_new(root.join(name))?;
    }
    for name in FILES {
        settle(&root.join(name), 0o644)?;
    }
    for name in DIRECTORIES {
        settle(&root.join(name), 0o755)?;
    }
    settle(root, 0o755)
}

/// Whatever the umask and the clock say.
fn settle(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(futimens(File::open(path)?, &Timestamps { last_access: epoch, last_modification: epoch })?)
}
