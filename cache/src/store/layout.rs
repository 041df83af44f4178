//! Where things lie in the store's directory, and how the directory comes to be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bricklayer_solver::Digest;
use bricklayer_solver::record::LayerId;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::error::{StoreError, io_error};
use crate::root::ids;

/// The format of the directory. Raised when a program that knows only the earlier format would do harm.
pub(super) const FORMAT: i64 = 1;

/// A file that says that the trees are those of a user namespace with one id.
const ONE_ID: &str = "one-id";

/// What sandboxes mount things on where an image has nothing there.
const MOUNT_POINTS: &str = "mount-points";

/// Bytes that are kept back so that pruning has room for its notes on a full disk.
const RESERVE: u64 = 4 << 20;

const DIRECTORIES: [&str; 8] =
    ["oci", "oci/blobs", "oci/blobs/sha256", "layers", "mounts", "builds", "ingest", "leases"];

/// The paths of a store.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Finds the store at `root`, or makes an empty one.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(io_error("find", root))?;
        let layout = Self { root };
        let version = layout.root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) => {
                layout.check_owner(&version)?;
                layout.check_version(&version, &text)?;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                layout.check_owner(&layout.root)?;
                return Err(io_error("read", version)(error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => layout.create()?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StoreError::Damaged { path: version, what: "it holds no number".into() });
            }
            Err(error) => return Err(io_error("read", version)(error)),
        }
        layout.check_ids()?;
        Ok(layout)
    }

    /// With one id, owners are kept aside in attributes (`root::aside`), with more they are the files' own: trees of one kind
    /// are wrong for the other.
    fn check_ids(&self) -> Result<(), StoreError> {
        // Whoever is neither root nor in a user namespace does nothing with trees.
        if !ids::in_user_namespace() && !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let single = self.root.join(ONE_ID).exists();
        if single == ids::single() {
            return Ok(());
        }
        Err(StoreError::OtherIds { path: self.root.clone(), single })
    }

    /// Files of two users in one store would keep both from removing them.
    fn check_owner(&self, path: &Path) -> Result<(), StoreError> {
        let owner = fs::metadata(path).map_err(io_error("look at", path))?.uid();
        if owner == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        Err(StoreError::OtherOwner { path: self.root.clone() })
    }

    fn check_version(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        match text.trim().parse::<i64>() {
            Ok(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { path: self.root.clone(), found, known: FORMAT })
            }
            Ok(FORMAT) => Ok(()),
            _ => Err(StoreError::Damaged { path: path.to_owned(), what: "it holds no format number".into() }),
        }
    }

    /// Makes the directories. Several processes may do so at once; `version` is written last, so that a store
    /// whose making was cut short is completed by the next.
    fn create(&self) -> Result<(), StoreError> {
        let new = !self.root.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(io_error("create", &self.root))?;
        if !new {
            self.check_foreign_files()?;
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))
                .map_err(io_error("restrict access to", &self.root))?;
        }
        for name in DIRECTORIES {
            let path = self.root.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", path)(error));
                }
                _ => {}
            }
        }
        self.spread("ingest");
        super::lease::Gate::open(self)?.exclusive(|| self.fill())
    }

    /// Tells the filesystem (ext4) that the directories of `name` have nothing to do with each other: it spreads them over
    /// the disk. Otherwise all that builds make and remove lies in one group of inodes, and looking for a free one takes
    /// longer the more of them were removed of late. Other filesystems don't know it.
    fn spread(&self, name: &str) {
        let Ok(directory) = File::open(self.root.join(name)) else { return };
        let _ =
            ioctl_getflags(&directory).and_then(|flags| ioctl_setflags(&directory, flags | IFlags::TOPDIR));
    }

    fn fill(&self) -> Result<(), StoreError> {
        self.make_reserve();
        self.replace("oci/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = self.root.join("oci/index.json");
        if !index.exists() {
            self.replace("oci/index.json", super::images::EMPTY_INDEX)?;
        }
        if ids::single() {
            self.replace(ONE_ID, b"")?;
        }
        self.replace("version", format!("{FORMAT}\n").as_bytes())
    }

    /// A directory with other people's files is no place for a store.
    fn check_foreign_files(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.root).map_err(io_error("list", &self.root))?;
        for entry in entries {
            let name = entry.map_err(io_error("list", &self.root))?.file_name();
            let known = [
                "oci",
                "layers",
                "mounts",
                "builds",
                "contexts",
                "ingest",
                "leases",
                MOUNT_POINTS,
                "lost+found",
            ]
            .iter()
            .any(|known| name == *known)
                || name.to_string_lossy().starts_with("meta.db")
                || name == "version"
                || name == ONE_ID;
            if !known {
                let found = name.to_string_lossy().into_owned();
                return Err(StoreError::NotAStore { path: self.root.clone(), found });
            }
        }
        Ok(())
    }

    /// Replaces a small file whole: a reader sees the old bytes or the new ones, also after a power cut. The caller has the
    /// gate, so that nobody takes the draft for rubbish.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.root.join(name);
        let unique = format!("{}.{}.tmp", std::process::id(), super::lease::unique());
        let draft = self.root.join("ingest").join(unique);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&draft, &target)
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            io_error("write", target)(error)
        })
    }

    /// Keeps some space and an inode back for [`release_reserve`](Self::release_reserve). Failing is no error:
    /// the disk is full.
    pub(super) fn make_reserve(&self) {
        let path = self.reserve();
        if path.exists() {
            return;
        }
        if let Ok(file) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
            && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE).is_err()
        {
            let _ = fs::remove_file(&path);
        }
    }

    /// Gives the kept space back to the filesystem; false: there was none.
    pub(super) fn release_reserve(&self) -> bool {
        fs::remove_file(self.reserve()).is_ok()
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn mount_points(&self) -> PathBuf {
        self.root.join(MOUNT_POINTS)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("meta.db")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("oci/blobs/sha256")
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        let mut path = self.blobs();
        path.push(digest.hex());
        path
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, layer: LayerId) -> PathBuf {
        self.root.join("layers").join(layer.0.to_string())
    }

    pub(super) fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    pub(super) fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    pub(super) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(super) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    fn reserve(&self) -> PathBuf {
        self.root.join("leases/.reserve")
    }

    /// Opens one of the permanent lock files.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.root.join("leases").join(name);
        let open =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        // The file is permanent: only the first process ever needs an inode for it.
        open()
            .or_else(|error| if self.release_reserve() { open() } else { Err(error) })
            .map_err(io_error("open", &path))
    }
}
