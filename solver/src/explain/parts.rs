//! The readable form of a key.

use serde::{Deserialize, Serialize};

use super::{kind, one_line, secret};
use crate::digest::Digest;
use crate::graph::{Graph, Usage, VertexId};
use crate::key::{Encode, Encoder};
use crate::op::{Copy, Exec, FileAction, Mode, MountKind, Op, Owner, Source};
use crate::worker::{Content, Pinned};

/// How large encoded parts may be, in bytes.
pub const MAX_PARTS: usize = 1 << 20;
/// Above this, a value is clipped, in bytes.
const MAX_VALUE: usize = 2 << 10;
/// Of how many fields and inputs parts are made at most; the rest is one digest.
const MAX_FIELDS: usize = 2_000;
const FORMAT: u32 = 1;

/// What went into a step's key, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    #[serde(rename = "v")]
    format: u32,
    /// `run`, `copy`, `image`, …
    pub kind: String,
    /// The instruction as written, on one line.
    pub instruction: String,
    /// What the op says, by name, in a fixed order.
    pub fields: Vec<(String, Value)>,
    /// What it works on.
    pub inputs: Vec<InputParts>,
}

/// One thing that an op says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Value {
    /// What can be shown: all of it if there is no digest; `None`: nothing.
    #[serde(default, rename = "t", skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The start of a digest of the whole value, where `text` is not all of it.
    #[serde(default, rename = "d", skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputParts {
    /// The step's name, an image's reference, or a local directory's name.
    pub label: String,
    /// The manifest, if it is an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Is it a directory of the caller?
    #[serde(default)]
    pub local: bool,
    /// Its part of the content key; `None`: not known before the input was made.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The files that were selected, by path, each with the start of its digest, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<(String, String)>,
    /// Were there more files than `files` lists?
    #[serde(default)]
    pub truncated: bool,
}

/// What is known of an input's content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InputContent<'a> {
    /// A selection that was read.
    Files(&'a Content),
    /// The chain of its layers.
    Chain(Digest),
    /// Nothing yet.
    Unknown,
}

impl Value {
    /// A value that may be shown.
    pub fn shown(text: impl Into<String>) -> Self {
        let whole = text.into();
        let (text, hidden) = secret::hide_user_info(&whole);
        if !hidden && text.len() <= MAX_VALUE {
            return Self { text: Some(text), digest: None };
        }
        let end = (0..=MAX_VALUE.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let shown = if text.len() > MAX_VALUE { format!("{}…", &text[..end]) } else { text };
        Self { text: Some(shown), digest: Some(short(&Digest::of(whole.as_bytes()))) }
    }

    /// A value that may not be shown.
    pub fn hidden(name: &str, text: &str) -> Self {
        let mut encoder = Encoder::default();
        name.encode(&mut encoder);
        text.encode(&mut encoder);
        Self { text: None, digest: Some(short(&Digest::of(encoder.bytes()))) }
    }
}

fn short(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(16);
    hex
}

impl KeyParts {
    /// The parts of a step's key. `inputs` has an item for each input of the vertex.
    pub(crate) fn of(graph: &Graph, id: VertexId, pin: Option<&Pinned>, inputs: &[InputContent<'_>]) -> Self {
        let vertex = graph.vertex(id);
        let mut fields = Fields { list: Vec::new() };
        match &vertex.op {
            Op::Source(source) => fields.source(source, pin),
            Op::Exec(exec) => fields.exec(exec, &vertex.info.build_args),
            Op::File(file) => {
                let many = file.actions.len() > 1;
                for (number, action) in file.actions.iter().enumerate() {
                    fields.action(action, &if many { format!("{}. ", number + 1) } else { String::new() });
                }
            }
            Op::Merge | Op::Diff => {}
        }
        let mut fields = fields.list;
        if fields.len() > MAX_FIELDS {
            let rest = serde_json::to_string(&fields.split_off(MAX_FIELDS)).unwrap_or_default();
            fields.push(("further fields".into(), Value::hidden("", &rest)));
        }
        let inputs = vertex.inputs.iter().zip(inputs).map(|(input, content)| {
            let from = graph.vertex(input.vertex);
            let (label, image, local) = match &from.op {
                Op::Source(Source::Image(image)) => (image.reference.clone(), Some(image.manifest), false),
                Op::Source(Source::Local(local)) => (local.name.clone(), None, true),
                _ => (from.info.name.clone(), None, false),
            };
            let mut parts =
                InputParts { label, image, local, digest: None, files: Vec::new(), truncated: false };
            match content {
                InputContent::Files(content) => {
                    parts.digest = Some(content.digest);
                    parts.files = content.files.iter().map(|(path, d)| (path.clone(), short(d))).collect();
                    parts.files.sort();
                    parts.truncated = content.truncated;
                }
                InputContent::Chain(digest) => parts.digest = Some(*digest),
                InputContent::Unknown => {}
            }
            debug_assert!(matches!(input.usage, Usage::Files(_)) || parts.files.is_empty() || local);
            parts
        });
        let inputs = inputs.take(MAX_FIELDS).collect();
        let instruction = Value::shown(one_line(&vertex.info.instruction)).text.unwrap_or_default();
        Self { format: FORMAT, kind: kind(&vertex.op).into(), instruction, fields, inputs }
    }

    /// The bytes to store: at most [`MAX_PARTS`], or none if even the names of the fields alone are more.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = serde_json::to_vec(self).unwrap_or_default();
        if encoded.len() <= MAX_PARTS {
            return encoded;
        }
        let mut parts = self.clone();
        // half the lists until they fit: at most some twenty rounds, and only for huge contexts
        while parts.inputs.iter().any(|input| !input.files.is_empty()) {
            for input in parts.inputs.iter_mut().filter(|input| !input.files.is_empty()) {
                input.files.truncate(input.files.len() / 2);
                input.truncated = true;
            }
            let encoded = serde_json::to_vec(&parts).unwrap_or_default();
            if encoded.len() <= MAX_PARTS {
                return encoded;
            }
        }
        for (name, value) in &mut parts.fields {
            if let Some(text) = value.text.take_if(|text| text.len() > 64) {
                value.digest.get_or_insert_with(|| Value::hidden(name, &text).digest.unwrap_or_default());
            }
        }
        let encoded = serde_json::to_vec(&parts).unwrap_or_default();
        if encoded.len() <= MAX_PARTS { encoded } else { Vec::new() }
    }

    /// What [`encode`](Self::encode) wrote; `None` if it was another version, or something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_PARTS {
            return None;
        }
        serde_json::from_slice(bytes).ok().filter(|parts: &Self| parts.format == FORMAT)
    }
}

struct Fields {
    list: Vec<(String, Value)>,
}

impl Fields {
    fn push(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.list.push((name.into(), Value::shown(text)));
    }

    /// A field that is left out where it says nothing.
    fn some(&mut self, name: impl Into<String>, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.push(name, text);
        }
    }

    fn flag(&mut self, name: impl Into<String>, is_set: bool) {
        self.some(name, is_set.then_some("yes"));
    }

    fn source(&mut self, source: &Source, pin: Option<&Pinned>) {
        match source {
            Source::Image(image) => {
                self.push("image", &image.reference);
                self.push("manifest", image.manifest.to_string());
                let mut encoder = Encoder::default();
                image.diff_ids.encode(&mut encoder);
                self.push("layers", Digest::of(encoder.bytes()).to_string());
                self.push("platform", image.platform.to_string());
            }
            Source::Local(local) => self.push("directory", &local.name),
            Source::Http(http) => {
                // what a query holds is often a signature
                match http.url.split_once('?') {
                    Some((url, query)) => {
                        self.push("URL", url);
                        self.list.push(("query of the URL".into(), Value::hidden("query", query)));
                    }
                    None => self.push("URL", &http.url),
                }
                self.some("checksum", http.checksum.map(|c| c.to_string()));
                self.push("file name", &http.filename);
            }
            Source::Git(git) => {
                self.push("repository", &git.remote);
                self.push("reference", &git.reference);
                self.some("subdirectory", (!git.subdir.is_empty()).then_some(&git.subdir));
                self.some("checksum", git.checksum.as_ref());
                self.flag("keep-git-dir", git.keep_git_dir);
                self.flag("submodules", git.submodules);
                self.flag("times of the commit", git.commit_time);
            }
        }
        if let Some(pin) = pin {
            self.list.push((
                "what it is now".into(),
                Value { text: Value::shown(&pin.label).text, digest: Some(short(&pin.key)) },
            ));
        }
    }

    fn exec(&mut self, exec: &Exec, build_args: &[String]) {
        self.push("command", exec.args.join(" "));
        for variable in &exec.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let word = if build_args.iter().any(|arg| arg == name) { "build-arg" } else { "env" };
            let shown =
                if secret::is_secret(name) { Value::hidden(name, value) } else { Value::shown(value) };
            self.list.push((format!("{word} {name}"), shown));
        }
        self.push("working directory", &exec.cwd);
        self.push("user", &exec.user);
        for mount in &exec.mounts {
            let text = match &mount.kind {
                MountKind::Bind { source, writable, .. } => {
                    format!("bind from {source}{}", if *writable { ", writable" } else { "" })
                }
                MountKind::Cache { source, mode, uid, gid, read_only, input, .. } => {
                    let said = [
                        input.map(|_| format!(" from {source}")),
                        mode.map(|mode| format!(" mode={mode:o}")),
                        uid.map(|uid| format!(" uid={uid}")),
                        gid.map(|gid| format!(" gid={gid}")),
                        read_only.then(|| " readonly".to_owned()),
                    ];
                    format!("cache{}", said.into_iter().flatten().collect::<String>())
                }
                MountKind::Tmpfs { size } => {
                    size.map_or("tmpfs".into(), |size| format!("tmpfs of {size} bytes"))
                }
                MountKind::Secret(s) => {
                    format!("secret {} {:o} {}:{} required={}", s.id, s.mode, s.uid, s.gid, s.required)
                }
                MountKind::Ssh(s) => {
                    format!("ssh {} {:o} {}:{} required={}", s.id, s.mode, s.uid, s.gid, s.required)
                }
            };
            self.push(format!("mount {}", mount.target), text);
        }
        for secret in &exec.secret_env {
            self.push(
                format!("secret variable {}", secret.variable),
                format!("{} required={}", secret.id, secret.required),
            );
        }
        self.push("network", format!("{:?}", exec.network).to_lowercase());
        self.push("security", format!("{:?}", exec.security).to_lowercase());
        self.some("host name", exec.hostname.as_ref());
        let hosts: Vec<&str> = exec.extra_hosts.iter().map(|(name, _)| name.as_str()).collect();
        self.some("extra hosts", (!hosts.is_empty()).then(|| hosts.join(" ")));
        self.some("shm size", exec.shm_size.map(|size| size.to_string()));
        for (name, soft, hard) in &exec.ulimits {
            self.push(format!("ulimit {name}"), format!("{soft}:{hard}"));
        }
        self.some("cgroup parent", exec.cgroup_parent.as_ref());
        self.push("platform", exec.platform.to_string());
    }

    fn action(&mut self, action: &FileAction, number: &str) {
        let owner_text = |owner: &Owner| match &owner.group {
            Some(group) => format!("{}:{group}", owner.user),
            None => owner.user.clone(),
        };
        let mode_text = |mode: &Mode| match mode {
            Mode::Bits(bits) => format!("{bits:o}"),
            Mode::Symbolic(text) => text.clone(),
        };
        let name = |text: &str| format!("{number}{text}");
        match action {
            FileAction::Copy(Copy { input: _, selection, dest, owner, mode, unpack, replace, created }) => {
                self.push(name("sources"), selection.paths.join(" "));
                self.push(name("destination"), dest);
                self.some(name("owner"), owner.as_ref().map(owner_text));
                self.some(name("mode"), mode.as_ref().map(mode_text));
                self.flag(name("wildcards"), selection.wildcards);
                self.flag(name("parents"), selection.parents);
                self.some(
                    name("exclude"),
                    (!selection.exclude.is_empty()).then(|| selection.exclude.join(" ")),
                );
                self.flag(name("unpack"), *unpack);
                self.flag(name("link"), *replace);
                self.some(name("time"), created.map(|time| time.to_string()));
            }
            FileAction::MakeFile { path, mode, data, owner, created } => {
                self.push(name("file"), path);
                self.push(name("mode"), mode_text(mode));
                let digest = Some(short(&Digest::of(data)));
                let text = Some(format!("{} bytes", data.len()));
                self.list.push((name("content"), Value { text, digest }));
                self.some(name("owner"), owner.as_ref().map(owner_text));
                self.some(name("time"), created.map(|time| time.to_string()));
            }
            FileAction::MakeDir { path, mode, owner, created } => {
                self.push(name("directory"), path);
                self.push(name("mode"), format!("{mode:o}"));
                self.some(name("owner"), owner.as_ref().map(owner_text));
                self.some(name("time"), created.map(|time| time.to_string()));
            }
            FileAction::Remove { path, allow_missing } => {
                self.push(name("removed"), path);
                self.flag(name("may be missing"), *allow_missing);
            }
        }
    }
}
