//! Cache keys: what decides a step's result, as bytes, hashed.
//!
//! A key outlives the program that made it, so it is made of an encoding of its own and not of `std::hash::Hash`,
//! whose output changes between versions and machines. Changing anything below is a format change: raise [`VERSION`]
//! and pin the golden digests anew.
//!
//! # Encoding
//!
//! Everything is written in the order in which it is listed, and nothing is written without its length, so no two
//! values have the same bytes.
//!
//! | type | bytes |
//! | --- | --- |
//! | `bool` | 1 byte: 0, 1 |
//! | `u8` | 1 byte |
//! | `u32`, `u64`, `i64` | 4 or 8 bytes, little endian |
//! | `usize` (number of an input) | as `u64` |
//! | `str`, bytes | length as `u64`, the bytes |
//! | list | number of items as `u64`, the items |
//! | pair, triple | its items |
//! | `Option` | 0, or 1 and the value |
//! | [`Digest`] | its 32 bytes |
//! | enum | 1 byte as listed below, its fields |
//! | struct | its fields as listed below |
//!
//! | type | fields |
//! | --- | --- |
//! | [`Op`](crate::op::Op) | 1 Source, 2 Exec, 3 File, 4 Merge, 5 Diff |
//! | [`Source`](crate::op::Source) | 1 Image: diff_ids, platform. 2 Local: name. 3 Http: url, checksum, filename. 4 Git: remote, reference, subdir, checksum, keep_git_dir, submodules. 5 Git with the commit's times: as 4 |
//! | [`Exec`](crate::op::Exec) | root, args, env, cwd, user, mounts, secret_env, network, security, hostname, names of extra_hosts, shm_size, ulimits, cgroup_parent, platform |
//! | [`Mount`](crate::op::Mount) | target, kind |
//! | [`MountKind`](crate::op::MountKind) | 1 Bind: input, source, writable. 2 Cache: input, source, mode, uid, gid, read_only. 3 Tmpfs: size. 4 Secret. 5 Ssh |
//! | [`SecretMount`](crate::op::SecretMount) | id, mode, uid, gid, required |
//! | [`SecretEnv`](crate::op::SecretEnv) | id, variable, required |
//! | [`Network`](crate::op::Network) | 1 Default, 2 None, 3 Host |
//! | [`Security`](crate::op::Security) | 1 Sandbox, 2 Insecure |
//! | [`FileOp`](crate::op::FileOp) | base, actions |
//! | [`FileAction`](crate::op::FileAction) | 1 Copy: input, selection, dest, owner, mode, unpack, replace, created. 2 MakeFile: path, mode, data, owner, created. 3 MakeDir: path, mode, owner, created. 4 Remove: path, allow_missing |
//! | [`Selection`](crate::op::Selection) | paths, wildcards, exclude, parents |
//! | [`Owner`](crate::op::Owner) | user, group |
//! | [`Mode`](crate::op::Mode) | 1 Bits, 2 Symbolic |
//! | [`Usage`](crate::graph::Usage) | 1 Root, 2 Files: selection |
//! | [`Platform`](crate::Platform) | os, architecture, variant, os_version |
//!
//! What is in no key, because it does not decide the result or must not leak into it: names and places of steps
//! ([`StepInfo`](crate::graph::StepInfo)), proxy variables, addresses of extra hosts, values of secrets,
//! [`Limits`](crate::op::Limits), id and sharing of cache mounts, an image's reference and manifest, and the ignore patterns of a local
//! directory (a key holds what was selected). As in BuildKit, ulimits, the size of /dev/shm and the cgroup parent
//! *are* in it: a program can see them and behave otherwise.
//!
//! # Keys
//!
//! A key is the SHA-256 of the text `bricklayer key`, [`VERSION`] as `u32`, one byte that says which kind it is, and:
//!
//! | kind | | then |
//! | --- | --- | --- |
//! | 1 | definition | op; what it was pinned to, as an `Option`; list of inputs |
//! | 2 | content | op; list of inputs |
//! | 3 | chain | list of content digests of layers, lowest first |
//!
//! | input of a definition | bytes |
//! | --- | --- |
//! | a selection from a local directory | 1, usage, content digest of the selection |
//! | anything else | 2, usage, definition key of the input |
//!
//! | input of a content key | bytes |
//! | --- | --- |
//! | a selection, read | 1, usage, content digest of the selection |
//! | everything: a root filesystem, or a selection of the whole of a snapshot | 2, usage, chain of its layers |
//!
//! A step without inputs has one key, that of its definition.

use sha2::Digest as _;

use crate::digest::Digest;
use crate::graph::Usage;
use crate::op::{Op, Selection, Source};
use crate::record::Snapshot;

mod encode;
#[cfg(test)]
mod tests;

pub use encode::{Encode, Encoder};

/// The number of the encoding. Keys of different versions have nothing in common.
pub const VERSION: u32 = 1;

/// Which kind of key: see the module's table.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Definition = 1,
    Content = 2,
    Chain = 3,
}

fn start(kind: Kind) -> Encoder {
    let mut encoder = Encoder::default();
    encoder.raw(b"bricklayer key");
    VERSION.encode(&mut encoder);
    (kind as u8).encode(&mut encoder);
    encoder
}

fn finish(encoder: &Encoder) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(encoder.bytes()).into())
}

/// What a definition key knows of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionInput<'a> {
    /// The content digest of a selection from a local directory.
    Local(&'a Usage, Digest),
    /// The definition key of a step.
    Step(&'a Usage, Digest),
}

impl Encode for DefinitionInput<'_> {
    fn encode(&self, to: &mut Encoder) {
        let (tag, usage, digest) = match self {
            Self::Local(usage, digest) => (1u8, usage, digest),
            Self::Step(usage, digest) => (2u8, usage, digest),
        };
        tag.encode(to);
        usage.encode(to);
        digest.encode(to);
    }
}

/// What a content key knows of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentInput<'a> {
    /// The content digest of a selection.
    Files(&'a Usage, Digest),
    /// The chain over all layers.
    Chain(&'a Usage, Digest),
}

impl Encode for ContentInput<'_> {
    fn encode(&self, to: &mut Encoder) {
        let (tag, usage, digest) = match self {
            Self::Files(usage, digest) => (1u8, usage, digest),
            Self::Chain(usage, digest) => (2u8, usage, digest),
        };
        tag.encode(to);
        usage.encode(to);
        digest.encode(to);
    }
}

/// The key of a step by its definition: no file of another step is looked at. `pin` is what a source was found to
/// be, if its op does not say that by itself (see [`needs_pin`]).
pub fn definition(op: &Op, pin: Option<Digest>, inputs: &[DefinitionInput<'_>]) -> Digest {
    let mut encoder = start(Kind::Definition);
    op.encode(&mut encoder);
    pin.encode(&mut encoder);
    inputs.encode(&mut encoder);
    finish(&encoder)
}

/// The key of a step by the content of its inputs.
pub fn content(op: &Op, inputs: &[ContentInput<'_>]) -> Digest {
    let mut encoder = start(Kind::Content);
    op.encode(&mut encoder);
    inputs.encode(&mut encoder);
    finish(&encoder)
}

/// What stands for all files of a snapshot: equal chains, equal files.
pub fn chain(snapshot: &Snapshot) -> Digest {
    let mut encoder = start(Kind::Chain);
    (snapshot.layers.len() as u64).encode(&mut encoder);
    for layer in &snapshot.layers {
        layer.content.encode(&mut encoder);
    }
    finish(&encoder)
}

/// Must the worker be asked what this source is? Not where the op itself names the content.
pub fn needs_pin(source: &Source) -> bool {
    match source {
        Source::Image(_) | Source::Local(_) => false,
        Source::Http(http) => http.checksum.is_none(),
        Source::Git(git) => !is_commit(&git.reference),
    }
}

/// Is this a full commit ID, SHA-1 or SHA-256?
fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Is that everything there is?
pub(crate) fn selects_everything(selection: &Selection) -> bool {
    let Selection { paths, wildcards, exclude, parents } = selection;
    !wildcards
        && exclude.is_empty()
        && !parents
        && matches!(paths.as_slice(), [path] if path.is_empty() || path == ".")
}
