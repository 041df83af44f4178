//! Cache mounts of a RUN: taken all together, filled when they are new, and given back when the command has ended.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bricklayer_cache::root::{Root, at};
use bricklayer_cache::store::CacheMount;
use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::{Exec, MountKind};
use bricklayer_solver::record::Output;
use bricklayer_solver::worker::StepError;
use rustix::fs::{Mode, fchmod};
use tokio_util::sync::CancellationToken;

use super::exec::{Held, input_output, open_root};
use crate::export::{Owners, copy_tree};
use crate::local_worker::Shared;
use crate::overlay;
use crate::sandbox::Attached;

/// Between two looks at a mount that somebody else has.
const PAUSE: Duration = Duration::from_millis(20);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The cache mounts of a step, by what they are. One that a step mounts twice is taken once.
#[derive(Default)]
pub(super) struct CacheMounts(HashMap<String, CacheMount>);

impl CacheMounts {
    /// The directory of a mount: what one step writes, the others see.
    pub(super) fn attach(&self, mount: &MountKind, inputs: &[Output]) -> Result<Attached, StepError> {
        let MountKind::Cache { id, read_only, .. } = mount else {
            return Err(StepError::new("not a cache mount"));
        };
        let cache = self
            .0
            .get(&identity(mount, inputs)?)
            .ok_or_else(|| StepError::new(format!("cache `{id}` was not taken")))?;
        let fd = overlay::subtree(open_root(&cache.path)?.as_fd(), Path::new("/"))
            .map_err(|e| StepError::with_source(format!("cannot open cache `{id}`"), e))?;
        Ok(Attached::Tree { fd, read_only: *read_only })
    }
}

impl Shared {
    /// Takes all cache mounts of a step, or none: while one of them is in use elsewhere nothing is held, so two steps that
    /// want the same mounts in another order never wait for each other. Blocking.
    pub(super) fn take_caches(
        &self,
        exec: &Exec,
        inputs: &[Output],
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<CacheMounts, StepError> {
        let mounts: Vec<&MountKind> = exec
            .mounts
            .iter()
            .map(|mount| &mount.kind)
            .filter(|kind| matches!(kind, MountKind::Cache { .. }))
            .collect();
        let mut told = false;
        loop {
            let mut taken = CacheMounts::default();
            let mut busy = None;
            for mount in &mounts {
                let MountKind::Cache { id, sharing, .. } = mount else { continue };
                let identity = identity(mount, inputs)?;
                if taken.0.contains_key(&identity) {
                    continue;
                }
                let fill = |dir: &Path| self.fill(mount, inputs, dir).map_err(Cause::from);
                let cache = self
                    .store
                    .try_cache_mount(&identity, *sharing, &fill)
                    .map_err(|e| StepError::with_source(format!("cache `{id}` can't be used"), e))?;
                match cache {
                    Ok(cache) => drop(taken.0.insert(identity, cache)),
                    Err(holder) => {
                        busy = Some((id, holder));
                        break;
                    }
                }
            }
            let Some((id, holder)) = busy else { return Ok(taken) };
            drop(taken);
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            if !told {
                task.waiting(format!("cache `{id}`, which {holder} has"));
                told = true;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Puts into a new cache what it starts with, and sets its owner and mode.
    fn fill(&self, mount: &MountKind, inputs: &[Output], dir: &Path) -> Result<(), StepError> {
        let MountKind::Cache { id, input, source, mode, uid, gid, .. } = mount else { return Ok(()) };
        let root = open_root(dir)?;
        let failed = |e: rustix::io::Errno| {
            StepError::with_source(format!("cannot prepare cache `{id}`"), std::io::Error::from(e))
        };
        let (mut owner, mut bits) = ((0, 0), 0o755);
        if let Some(input) = input {
            let mut scratch = Held::default();
            let from =
                Root::from_fd(self.bind(input_output(inputs, *input)?, source, false, &mut scratch)?);
            let found = at::fstat(from.as_fd()).map_err(failed)?;
            (owner, bits) = ((found.uid, found.gid), found.mode);
            copy_tree(&from, &root, Owners::Kept)
                .map_err(|e| StepError::with_source(format!("cannot fill cache `{id}`"), e))?;
        }
        // what is given counts for all of them: an owner alone has the usual mode
        if mode.is_some() || uid.is_some() || gid.is_some() {
            owner = (uid.unwrap_or(0), gid.unwrap_or(0));
            bits = mode.unwrap_or(0o755);
        }
        at::fchown(root.as_fd(), owner.0, owner.1).map_err(failed)?;
        fchmod(root.as_fd(), Mode::from_raw_mode(bits)).map_err(failed)
    }
}

/// Which cache a mount is: other files or another owner to start with make another one, as in BuildKit.
fn identity(mount: &MountKind, inputs: &[Output]) -> Result<String, StepError> {
    let MountKind::Cache { id, input, source, mode, uid, gid, .. } = mount else { return Ok(String::new()) };
    let seed = input.map(|input| input_output(inputs, input)).transpose()?;
    if seed.is_none() && mode.is_none() && uid.is_none() && gid.is_none() {
        return Ok(id.clone());
    }
    let seed = match seed {
        None => String::new(),
        Some(Output::Local { name, .. }) => format!("local {name}"),
        Some(Output::Snapshot(snapshot)) => {
            let mut bytes = Vec::new();
            for layer in &snapshot.layers {
                bytes.extend_from_slice(layer.content.as_bytes());
            }
            Digest::of(&bytes).hex()
        }
    };
    Ok(format!("{id}\0{source}\0{mode:?}\0{uid:?}\0{gid:?}\0{seed}"))
}
