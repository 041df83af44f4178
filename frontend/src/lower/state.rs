//! What a stage is at some instruction: its root filesystem, environment, arguments and configuration. Stages built on it begin
//! with a copy, so what is big is shared until it changes.

use std::collections::HashMap;
use std::rc::Rc;

use bricklayer_solver::Platform;
use bricklayer_solver::graph::VertexId;
use bricklayer_solver::image::{History, ImageConfig};

use crate::api::ResolvedImage;
use crate::diagnostics::Span;
use crate::words::Variables;

/// Names and values in the order of their first definition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Env {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(&i) => {
                self.bytes = self.bytes + value.len() - self.list[i].1.len();
                value.clone_into(&mut self.list[i].1);
            }
            None => {
                self.bytes += name.len() + value.len() + 1;
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `NAME=value`, each.
    pub(crate) fn to_list(&self) -> Vec<String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// What a list of it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&i| self.list[i].1.as_str())
    }
}

impl FromIterator<String> for Env {
    fn from_iter<I: IntoIterator<Item = String>>(items: I) -> Self {
        let mut env = Self::default();
        for item in items {
            let (name, value) = item.split_once('=').unwrap_or((&item, ""));
            env.set(name, value);
        }
        env
    }
}

/// A stage's root filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// No file.
    Empty,
    /// A step's output.
    Step(VertexId),
    /// The files of a named context (by its place in the options), not yet made a layer.
    Context(usize),
}

/// A stage at some instruction.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) root: Root,
    /// What RUN and expansions see: ENV and ARG.
    pub(super) env: Rc<Env>,
    /// What the image keeps: ENV.
    pub(super) image_env: Rc<Env>,
    /// Declared ARGs in the order of their first declaration; those without a value are empty.
    pub(super) args: Rc<Env>,
    /// The image's configuration, without `Env`, history and layers.
    pub(super) config: Rc<ImageConfig>,
    /// What this stage adds to the history of the stage or image that it stands on.
    pub(super) history: Vec<History>,
    /// The stage that it stands on.
    pub(super) parent: Option<usize>,
    pub(super) platform: Platform,
    pub(super) base: Option<Rc<ResolvedImage>>,
    /// Where this stage's last CMD, ENTRYPOINT and HEALTHCHECK stand.
    pub(super) last_cmd: Option<Span>,
    pub(super) last_entrypoint: Option<Span>,
    pub(super) last_healthcheck: Option<Span>,
    /// Did a WORKDIR of this Dockerfile set the directory?
    pub(super) workdir_set: bool,
}

/// A string of its own, its place in a table, and what the allocator adds, in bytes.
const ENTRY: usize = 120;

/// Where programs are looked for in an image that does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl State {
    /// A stage on an image with this configuration.
    pub(super) fn new(
        root: Root,
        mut config: ImageConfig,
        platform: Platform,
        base: Option<Rc<ResolvedImage>>,
    ) -> Self {
        config.created = None;
        config.rootfs = Default::default();
        config.config.on_build.clear();
        let history = std::mem::take(&mut config.history);
        let mut image_env: Env = std::mem::take(&mut config.config.env).into_iter().collect();
        if image_env.get("PATH").is_none() && platform.os != "windows" {
            image_env.set("PATH", DEFAULT_PATH);
        }
        let image_env = Rc::new(image_env);
        Self {
            root,
            env: image_env.clone(),
            image_env,
            args: Rc::default(),
            config: Rc::new(config),
            history,
            parent: None,
            platform,
            base,
            last_cmd: None,
            last_entrypoint: None,
            last_healthcheck: None,
            workdir_set: false,
        }
    }

    /// An empty image.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            ..ImageConfig::default()
        };
        config.config.working_dir = "/".to_owned();
        Self::new(Root::Empty, config, platform.clone(), None)
    }

    /// A stage built on this one, which is number `index`.
    pub(super) fn child(&self, index: usize) -> Self {
        let mut child = Self {
            history: Vec::new(),
            parent: Some(index),
            last_cmd: None,
            last_entrypoint: None,
            last_healthcheck: None,
            config: self.config.clone(),
            base: self.base.clone(),
            platform: self.platform.clone(),
            env: self.env.clone(),
            image_env: self.image_env.clone(),
            args: self.args.clone(),
            ..*self
        };
        if !child.config.config.on_build.is_empty() {
            child.config_mut().config.on_build.clear();
        }
        child
    }

    pub(super) fn config_mut(&mut self) -> &mut ImageConfig {
        Rc::make_mut(&mut self.config)
    }

    /// What a RUN holds of its stage, in bytes: the environment, and the arguments in its step and in the history.
    pub(super) fn run_cost(&self) -> usize {
        let (env, args) = (&self.env, &self.args);
        env.bytes() + 2 * args.bytes() + ENTRY * (env.len() + args.len())
    }

    /// What copies of all that is shared take, in bytes: at most, for a stage may change none of it.
    pub(super) fn copy_cost(&self) -> usize {
        let run = &self.config.config;
        let entries = run.labels.len() + run.exposed_ports.len() + run.volumes.len();
        let envs = [&self.env, &self.image_env, &self.args];
        envs.iter().map(|env| 2 * env.bytes() + ENTRY * env.len()).sum::<usize>() + ENTRY * entries
    }

    /// The working directory, absolute.
    pub(super) fn cwd(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }
}
