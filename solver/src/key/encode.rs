//! The canonical encoding of every type that is in a key. Structs are taken apart field by field, so that a new
//! field does not compile before somebody has decided whether it is in the key.

use crate::digest::Digest;
use crate::graph::Usage;
use crate::op::{
    Copy, Exec, FileAction, FileOp, GitSource, HttpSource, ImageSource, LocalSource, Mode, Mount, MountKind,
    Network, Op, Owner, SecretEnv, SecretMount, Security, Selection, Source,
};
use crate::platform::Platform;

/// Collects the bytes of an encoding.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes bytes as they are: only for what always has the same length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Has one encoding, the same in every version of the program and on every machine; different values have different
/// ones. The module's header says what it is.
pub trait Encode {
    /// Writes it.
    fn encode(&self, to: &mut Encoder);
}

impl Encode for bool {
    fn encode(&self, to: &mut Encoder) {
        to.raw(&[u8::from(*self)]);
    }
}

impl Encode for u8 {
    fn encode(&self, to: &mut Encoder) {
        to.raw(&[*self]);
    }
}

impl Encode for u32 {
    fn encode(&self, to: &mut Encoder) {
        to.raw(&self.to_le_bytes());
    }
}

impl Encode for u64 {
    fn encode(&self, to: &mut Encoder) {
        to.raw(&self.to_le_bytes());
    }
}

impl Encode for i64 {
    fn encode(&self, to: &mut Encoder) {
        to.raw(&self.to_le_bytes());
    }
}

impl Encode for usize {
    fn encode(&self, to: &mut Encoder) {
        (*self as u64).encode(to);
    }
}

impl Encode for str {
    fn encode(&self, to: &mut Encoder) {
        bytes(self.as_bytes(), to);
    }
}

impl Encode for String {
    fn encode(&self, to: &mut Encoder) {
        self.as_str().encode(to);
    }
}

/// A list of bytes, all at once.
fn bytes(bytes: &[u8], to: &mut Encoder) {
    bytes.len().encode(to);
    to.raw(bytes);
}

impl Encode for Digest {
    fn encode(&self, to: &mut Encoder) {
        to.raw(self.as_bytes());
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, to: &mut Encoder) {
        self.len().encode(to);
        self.iter().for_each(|item| item.encode(to));
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, to: &mut Encoder) {
        self.as_slice().encode(to);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Encoder) {
        self.is_some().encode(to);
        if let Some(value) = self {
            value.encode(to);
        }
    }
}

impl<A: Encode, B: Encode, C: Encode> Encode for (A, B, C) {
    fn encode(&self, to: &mut Encoder) {
        self.0.encode(to);
        self.1.encode(to);
        self.2.encode(to);
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, to: &mut Encoder) {
        (*self).encode(to);
    }
}

impl Encode for Platform {
    fn encode(&self, to: &mut Encoder) {
        let Self { os, architecture, variant, os_version } = self;
        os.encode(to);
        architecture.encode(to);
        variant.encode(to);
        os_version.encode(to);
    }
}

impl Encode for Op {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Source(source) => {
                1u8.encode(to);
                source.encode(to);
            }
            Self::Exec(exec) => {
                2u8.encode(to);
                exec.encode(to);
            }
            Self::File(file) => {
                3u8.encode(to);
                file.encode(to);
            }
            Self::Merge => 4u8.encode(to),
            Self::Diff => 5u8.encode(to),
        }
    }
}

impl Encode for Source {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Image(ImageSource { reference: _, manifest: _, diff_ids, platform }) => {
                1u8.encode(to);
                diff_ids.encode(to);
                platform.encode(to);
            }
            Self::Local(LocalSource { name, ignore: _ }) => {
                2u8.encode(to);
                name.encode(to);
            }
            Self::Http(HttpSource { url, checksum, filename }) => {
                3u8.encode(to);
                url.encode(to);
                checksum.encode(to);
                filename.encode(to);
            }
            Self::Git(GitSource {
                remote,
                reference,
                subdir,
                checksum,
                keep_git_dir,
                submodules,
                commit_time,
                by_commit: _,
            }) => {
                (if *commit_time { 5u8 } else { 4u8 }).encode(to);
                remote.encode(to);
                reference.encode(to);
                subdir.encode(to);
                checksum.encode(to);
                keep_git_dir.encode(to);
                submodules.encode(to);
            }
        }
    }
}

impl Encode for Exec {
    fn encode(&self, to: &mut Encoder) {
        let Self {
            root,
            args,
            env,
            cwd,
            user,
            mounts,
            secret_env,
            network,
            security,
            hostname,
            extra_hosts,
            shm_size,
            ulimits,
            cgroup_parent,
            proxy_env: _,
            limits: _,
            platform,
        } = self;
        root.encode(to);
        args.encode(to);
        env.encode(to);
        cwd.encode(to);
        user.encode(to);
        mounts.encode(to);
        secret_env.encode(to);
        network.encode(to);
        security.encode(to);
        hostname.encode(to);
        extra_hosts.len().encode(to);
        extra_hosts.iter().for_each(|(name, _address)| name.encode(to));
        shm_size.encode(to);
        ulimits.encode(to);
        cgroup_parent.encode(to);
        platform.encode(to);
    }
}

impl Encode for Mount {
    fn encode(&self, to: &mut Encoder) {
        let Self { target, kind } = self;
        target.encode(to);
        kind.encode(to);
    }
}

impl Encode for MountKind {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Bind { input, source, writable } => {
                1u8.encode(to);
                input.encode(to);
                source.encode(to);
                writable.encode(to);
            }
            Self::Cache { id: _, sharing: _, input, source, mode, uid, gid, read_only } => {
                2u8.encode(to);
                input.encode(to);
                source.encode(to);
                mode.encode(to);
                uid.encode(to);
                gid.encode(to);
                read_only.encode(to);
            }
            Self::Tmpfs { size } => {
                3u8.encode(to);
                size.encode(to);
            }
            Self::Secret(secret) => {
                4u8.encode(to);
                secret.encode(to);
            }
            Self::Ssh(secret) => {
                5u8.encode(to);
                secret.encode(to);
            }
        }
    }
}

impl Encode for SecretMount {
    fn encode(&self, to: &mut Encoder) {
        let Self { id, mode, uid, gid, required } = self;
        id.encode(to);
        mode.encode(to);
        uid.encode(to);
        gid.encode(to);
        required.encode(to);
    }
}

impl Encode for SecretEnv {
    fn encode(&self, to: &mut Encoder) {
        let Self { id, variable, required } = self;
        id.encode(to);
        variable.encode(to);
        required.encode(to);
    }
}

impl Encode for Network {
    fn encode(&self, to: &mut Encoder) {
        let tag: u8 = match self {
            Self::Default => 1,
            Self::None => 2,
            Self::Host => 3,
        };
        tag.encode(to);
    }
}

impl Encode for Security {
    fn encode(&self, to: &mut Encoder) {
        let tag: u8 = match self {
            Self::Sandbox => 1,
            Self::Insecure => 2,
        };
        tag.encode(to);
    }
}

impl Encode for FileOp {
    fn encode(&self, to: &mut Encoder) {
        let Self { base, actions } = self;
        base.encode(to);
        actions.encode(to);
    }
}

impl Encode for FileAction {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Copy(Copy { input, selection, dest, owner, mode, unpack, replace, created }) => {
                1u8.encode(to);
                input.encode(to);
                selection.encode(to);
                dest.encode(to);
                owner.encode(to);
                mode.encode(to);
                unpack.encode(to);
                replace.encode(to);
                created.encode(to);
            }
            Self::MakeFile { path, mode, data, owner, created } => {
                2u8.encode(to);
                path.encode(to);
                mode.encode(to);
                bytes(data, to);
                owner.encode(to);
                created.encode(to);
            }
            Self::MakeDir { path, mode, owner, created } => {
                3u8.encode(to);
                path.encode(to);
                mode.encode(to);
                owner.encode(to);
                created.encode(to);
            }
            Self::Remove { path, allow_missing } => {
                4u8.encode(to);
                path.encode(to);
                allow_missing.encode(to);
            }
        }
    }
}

impl Encode for Selection {
    fn encode(&self, to: &mut Encoder) {
        let Self { paths, wildcards, exclude, parents } = self;
        paths.encode(to);
        wildcards.encode(to);
        exclude.encode(to);
        parents.encode(to);
    }
}

impl Encode for Owner {
    fn encode(&self, to: &mut Encoder) {
        let Self { user, group } = self;
        user.encode(to);
        group.encode(to);
    }
}

impl Encode for Mode {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Bits(bits) => {
                1u8.encode(to);
                bits.encode(to);
            }
            Self::Symbolic(text) => {
                2u8.encode(to);
                text.encode(to);
            }
        }
    }
}

impl Encode for Usage {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::Root => 1u8.encode(to),
            Self::Files(selection) => {
                2u8.encode(to);
                selection.encode(to);
            }
        }
    }
}
