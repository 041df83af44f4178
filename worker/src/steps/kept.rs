//! What is kept of a RUN that failed, so that it can be looked into when its build is gone: its changes, as a layer of the
//! store, and beside it a [`FailedStep`] as JSON.
//!
//! What is written down has no secret in it: no value of a secret, no variable whose name or value looks like one, no
//! proxies, and of the command only its shell. Where local directories lie is not in it either. So whoever can write to
//! the store can name layers and caches of that store, and nothing else of the machine.

use std::sync::Arc;

use bricklayer_solver::errors::in_one_line;
use bricklayer_solver::event::Task;
use bricklayer_solver::explain::secret::may_be_kept;
use bricklayer_solver::op::{Exec, ImageSource};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::worker::StepError;
use serde::{Deserialize, Serialize};

use super::failed::shell_of;
use crate::local_worker::Shared;
use crate::writable::WritableRoot;

/// The version of the document. Another one is not read.
const VERSION: u32 = 1;

/// A document that is written, in bytes, at the most.
const LARGEST: usize = 4 << 20;

/// A RUN that failed, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedStep {
    version: u32,
    /// What was run. Of the arguments only the shell; no proxies; of the variables those that may be kept.
    pub exec: Exec,
    /// The names of the other variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
    inputs: Vec<Input>,
    /// The images of the build: their layers can be fetched again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Input {
    Files(Snapshot),
    Local { name: String, ignore: Vec<String> },
}

/// Why a document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableStep {
    /// It is none.
    #[error("what was written down about the step can't be understood")]
    Json(#[from] serde_json::Error),
    /// Another program wrote it.
    #[error("what was written down about the step has version {0}, this program knows version {VERSION}")]
    Version(u32),
    /// It is too large.
    #[error("what was written down about the step has {0} bytes, more than {LARGEST}")]
    Size(usize),
}

impl FailedStep {
    fn of(exec: &Exec, inputs: &[Output], images: &[ImageSource]) -> Self {
        let mut exec = exec.clone();
        exec.args = shell_of(&exec.args);
        exec.proxy_env.clear();
        let mut withheld = Vec::new();
        exec.env.retain(|variable| {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let kept = may_be_kept(name, value);
            if !kept {
                withheld.push(name.to_owned());
            }
            kept
        });
        let inputs = inputs.iter().map(|input| match input {
            Output::Snapshot(snapshot) => Input::Files(snapshot.clone()),
            Output::Local { name, ignore } => Input::Local { name: name.clone(), ignore: ignore.to_vec() },
        });
        Self { version: VERSION, exec, withheld, inputs: inputs.collect(), images: images.to_vec() }
    }

    fn encode(&self) -> Result<Vec<u8>, UnreadableStep> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > LARGEST { Err(UnreadableStep::Size(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads what was written down.
    ///
    /// # Errors
    ///
    /// It is something else, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableStep> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if bytes.len() > LARGEST {
            return Err(UnreadableStep::Size(bytes.len()));
        }
        let Version { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(UnreadableStep::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The results that it worked on, in their order.
    pub fn inputs(&self) -> Vec<Output> {
        let inputs = self.inputs.iter().map(|input| match input {
            Input::Files(snapshot) => Output::Snapshot(snapshot.clone()),
            Input::Local { name, ignore } => {
                Output::Local { name: name.clone(), ignore: Arc::from(ignore.as_slice()) }
            }
        });
        inputs.collect()
    }
}

impl Shared {
    /// Keeps what a RUN left when it failed. That it can't be kept is said, and does not change why the step failed.
    pub(super) fn keep_failure(&self, exec: &Exec, inputs: &[Output], writable: WritableRoot, task: &Task) {
        let Some(build) = &self.settings.record else { return };
        let keep = || -> Result<(), StepError> {
            let kept = |e| StepError::with_source("what the step left can't be kept", e);
            let description = FailedStep::of(exec, inputs, &self.settings.images).encode();
            let description = description.map_err(|e| StepError::with_source("it can't be described", e))?;
            let (draft, way) = writable.into_draft();
            let draft = self.finish_writable(draft, way, task)?;
            draft.keep(build, task.id().number(), &description).map_err(kept)
        };
        if let Err(error) = keep() {
            task.warn(format!("what it left is not kept for `bricklayer debug`: {}", in_one_line(&error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use bricklayer_solver::op::{
        Limits, Mount, MountKind, Network, SecretEnv, SecretMount, Security, Sharing,
    };
    use bricklayer_solver::record::{Layer, LayerId};
    use bricklayer_solver::{Digest, Platform};

    use super::*;

    fn exec() -> Exec {
        let secret = || SecretMount { id: "s".into(), mode: 0o400, uid: 1, gid: 2, required: false };
        let mounts = [
            MountKind::Bind { input: 1, source: "/a".into(), writable: true },
            MountKind::Cache {
                id: "npm".into(),
                sharing: Sharing::Locked,
                input: Some(0),
                source: "/".into(),
                mode: Some(0o700),
                uid: None,
                gid: Some(3),
                read_only: false,
            },
            MountKind::Tmpfs { size: Some(5) },
            MountKind::Secret(secret()),
            MountKind::Ssh(secret()),
        ];
        let target = |kind| Mount { target: "/there".into(), kind };
        Exec {
            root: Some(0),
            args: ["/bin/bash", "-o", "pipefail", "-c", "curl https://me:hidden@host | sh"]
                .map(str::to_owned)
                .into(),
            env: ["PATH=/bin", "NPM_TOKEN=hidden", "URL=https://me:hidden@host/", "N=1"]
                .map(str::to_owned)
                .into(),
            cwd: "/work".into(),
            user: "app".into(),
            mounts: mounts.map(target).into(),
            secret_env: vec![SecretEnv { id: "s".into(), variable: "S".into(), required: true }],
            network: Network::None,
            security: Security::Insecure,
            hostname: Some("h".into()),
            extra_hosts: vec![("a".into(), "1.2.3.4".into())],
            shm_size: Some(1),
            ulimits: vec![("nofile".into(), 1, 2)],
            cgroup_parent: Some("ci".into()),
            proxy_env: vec!["HTTP_PROXY=http://me:hidden@proxy".into()],
            limits: Limits { memory: Some(1), cpu_quota: Some((1, 2)), ..Limits::default() },
            platform: Platform::host(),
        }
    }

    fn inputs() -> Vec<Output> {
        let layer = Layer { id: LayerId(7), content: Digest::of(b"x") };
        vec![
            Output::Snapshot(Snapshot { layers: vec![layer] }),
            Output::Local { name: "context".into(), ignore: ["*.o".to_owned()].into() },
        ]
    }

    #[test]
    fn what_is_written_down_is_read_again_and_has_no_secret_in_it() {
        let step = FailedStep::of(&exec(), &inputs(), &[]);
        let bytes = step.encode().expect("encode");
        assert_eq!(FailedStep::decode(&bytes).expect("decode"), step);
        assert_eq!(step.inputs(), inputs());
        assert_eq!(step.exec.args, ["/bin/bash"]);
        assert_eq!(step.exec.env, ["PATH=/bin", "N=1"]);
        assert_eq!(step.withheld, ["NPM_TOKEN", "URL"]);
        let text = String::from_utf8(bytes).expect("JSON");
        assert!(!text.contains("hidden"), "{text}");
        for args in [&["make", "all"][..], &["curl", "-u", "me:hidden", "-c", "jar", "https://host"]] {
            let plain = Exec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..exec() };
            assert_eq!(FailedStep::of(&plain, &[], &[]).exec.args, Vec::<String>::new());
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let bytes = FailedStep::of(&exec(), &inputs(), &[]).encode().expect("encode");
        let text = String::from_utf8(bytes.clone()).expect("JSON");
        let mut seen = String::new();
        for (name, bytes) in [
            ("empty", Vec::new()),
            ("newer", text.replacen("\"version\":1", "\"version\":2", 1).into_bytes()),
            ("no number", text.replacen("\"version\":1", "\"version\":-1", 1).into_bytes()),
            ("another field", text.replacen("\"cwd\"", "\"cvd\"", 1).into_bytes()),
            ("deep", [b"{\"version\":1,\"exec\":".to_vec(), vec![b'['; 100_000]].concat()),
            ("large", vec![b' '; LARGEST + 1]),
        ] {
            let error = FailedStep::decode(&bytes).expect_err(name);
            seen += &format!("{name}: {error}\n");
        }
        insta::assert_snapshot!(seen, @"
        empty: what was written down about the step can't be understood
        newer: what was written down about the step has version 2, this program knows version 1
        no number: what was written down about the step can't be understood
        another field: what was written down about the step can't be understood
        deep: what was written down about the step can't be understood
        large: what was written down about the step has 4194305 bytes, more than 4194304
        ");
        // cut anywhere, or with a bit turned, it is an error or another step, and never a panic
        for at in 0..bytes.len() {
            assert!(FailedStep::decode(&bytes[..at]).is_err());
            let mut turned = bytes.clone();
            turned[at] ^= 1 << (at % 8);
            let _ = FailedStep::decode(&turned);
        }
    }
}
