//! The builder: a store and registries, and one build followed through the house.
//!
//! A build reads its Dockerfile and ignore file ([`input`]; [`context`] brings what is no directory), lowers it, asking images and files of the context through
//! [`resolve`], has the graph solved by a worker of its own, packs layers while later steps still run ([`pack`]),
//! and writes what was asked for ([`export`]).

mod advice;
mod call;
mod context;
mod explain;
mod export;
mod input;
mod pack;
mod resolve;
mod room;

pub use call::{Answer, Call};
pub(crate) use context::without_user;
pub use explain::{ExplainedStep, Explanation, Fate};
pub(crate) use export::EXPORTING;

use std::path::PathBuf;
use std::sync::Arc;

use bricklayer_cache::registry::{Reference, Registry, RegistryOptions};
use bricklayer_cache::store::{Descriptor, Store};
use bricklayer_frontend::{Build, Diagnostic, Diagnostics, Dockerfile, Entitlement, Options, lower, render};
use bricklayer_solver::event::{Outcome, Reporter, TaskInfo, TaskKind};
use bricklayer_solver::graph::{self, Graph};
use bricklayer_solver::op::{Op, Source};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::schedule::{SolveError, Solver, SolverOptions, StepReport, StepState};
use bricklayer_solver::worker::Worker;
use bricklayer_solver::{Digest, Platform};
use bricklayer_worker::{LocalWorker, Pins, WorkerSettings};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, StepPlace};
use crate::images::parse;
use crate::record::{BuildRecord, Recorder};
use crate::request::{BuildRequest, GraphFile, GraphForm, TimingFile, TimingForm};

/// Where a [`Builder`] keeps things and how it reaches others.
#[derive(Debug, Clone, Default)]
pub struct BuilderOptions {
    /// The store's directory; made if it is missing.
    pub root: PathBuf,
    /// Docker's config.json, for credentials; `None`: no credentials.
    pub docker_config: Option<PathBuf>,
    /// Registries (`host[:port]`) that are spoken to over HTTP, or HTTPS without checking the certificate.
    /// Loopback addresses need not be listed.
    pub insecure_registries: Vec<String>,
    /// `HTTPS_PROXY` and the like, for registries, downloads and git.
    pub proxy: Vec<(String, String)>,
}

/// Builds images, and keeps them in a store. Cheap to clone. Its async methods want a tokio runtime of several threads.
#[derive(Clone)]
pub struct Builder {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    /// [`BuilderOptions::proxy`], for downloads of builds that name no proxies of their own.
    proxy: Vec<(String, String)>,
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct BuildResult {
    /// The manifest's descriptor, unless only files were asked for.
    pub image: Option<Descriptor>,
    /// The config's digest: Docker's image ID.
    pub config: Option<Digest>,
    /// Normalised names that it got.
    pub names: Vec<String>,
    /// Warnings about the Dockerfile and the context, rendered for people without colours.
    pub warnings: Vec<String>,
    /// Steps of the graph that were needed, contexts not counted.
    pub steps: usize,
    /// How many of them did not have to run.
    pub cached: usize,
    /// The ID of the build's record; `None`: none could be kept.
    pub record: Option<String>,
}

impl Builder {
    /// Opens the store.
    pub fn open(options: BuilderOptions) -> Result<Self, Error> {
        let root = &options.root;
        let store = Store::open(root)
            .map_err(|e| Error::because(format!("cannot open the store `{}`", root.display()), e))?;
        let proxy = |name: &str| {
            let value = options.proxy.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            value.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let registry = Registry::new(RegistryOptions {
            docker_config: options.docker_config.clone(),
            insecure: options.insecure_registries.iter().cloned().collect(),
            http_proxy: proxy("HTTP_PROXY"),
            https_proxy: proxy("HTTPS_PROXY"),
            no_proxy: proxy("NO_PROXY"),
            ..RegistryOptions::default()
        })
        .map_err(|e| Error::because("cannot set up the registry client", e))?;
        Ok(Self { store, registry, proxy: options.proxy })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Builds. Ends soon after `cancel`, with [`Error::Cancelled`] and nothing left behind.
    ///
    /// # Errors
    ///
    /// [`Error::Dockerfile`] for what is wrong with the Dockerfile, [`Error::Step`] for the step that failed first;
    /// others name what could not be read, reached or written.
    pub async fn build(
        &self,
        request: BuildRequest,
        reporter: Reporter,
        cancel: CancellationToken,
    ) -> Result<BuildResult, Error> {
        let (caller, timing) = (reporter.clone(), request.timing.clone());
        let recorder = Recorder::start(self, &request, reporter);
        let mut result = self.build_recorded(request, &recorder, cancel).await;
        if let Ok(result) = &mut result {
            result.record = recorder.id().map(str::to_owned);
        }
        let written = match recorder.end(&result) {
            Some(record) => timing.iter().try_for_each(|file| write_timing(file, &record)),
            None if timing.is_empty() => Ok(()),
            None => Err(Error::new("cannot write the timing of a build that no record was kept of")),
        };
        match (result, written) {
            (Ok(_), Err(error)) => Err(error),
            // where the build failed, that is what its error says
            (Err(failed), Err(error)) => {
                internal_task(&caller, "[internal] write the timing")
                    .finish(Outcome::Failed(error.to_string()));
                Err(failed)
            }
            (result, Ok(())) => result,
        }
    }

    async fn build_recorded(
        &self,
        request: BuildRequest,
        recorder: &Recorder,
        cancel: CancellationToken,
    ) -> Result<BuildResult, Error> {
        let reporter = recorder.reporter();
        let names = request.tags.iter().map(|tag| parse(tag)).collect::<Result<Vec<Reference>, Error>>()?;
        let input = input::read(self, &request, reporter, &cancel).await?;
        let (build, mut result) = self.lower(&request, &input, reporter).await?;
        let targets = export::plan(&request, &names, &build, reporter)?;
        let room = Arc::clone(&targets.room);
        let built = async {
            let snapshot =
                self.solve(&request, &input, &build, &targets, recorder, &cancel, &mut result).await?;
            export::write(self, &build, &snapshot, targets, reporter, &cancel, &mut result).await?;
            self.sync().await
        }
        .await;
        // who cancels wants it to end
        if !cancel.is_cancelled() {
            room.make(self).await;
        }
        built.map(|()| result)
    }

    /// Dockerfile → graph.
    async fn lower(
        &self,
        request: &BuildRequest,
        input: &input::Input,
        reporter: &Reporter,
    ) -> Result<(Lowered, BuildResult), Error> {
        let broken = |diagnostics: &Diagnostics, source: &str| Error::Dockerfile {
            name: input.dockerfile.clone(),
            count: diagnostics.iter().count(),
            report: render(diagnostics, &input.dockerfile, source, false),
            coloured: render(diagnostics, &input.dockerfile, source, true),
        };
        let dockerfile = Dockerfile::parse(&input.text)
            .map_err(|diagnostics| broken(&diagnostics, &String::from_utf8_lossy(&input.text)))?;
        let options = options(request, input);
        let resolver = self.resolver(request, reporter);
        let lowered = tokio::task::spawn_blocking({
            let dockerfile = dockerfile.clone();
            move || lower(&dockerfile, &options, &resolver)
        })
        .await
        .map_err(|e| Error::because("reading the Dockerfile ended without a result", e))?
        .map_err(|diagnostics| broken(&diagnostics, dockerfile.source()))?;

        let warnings = lowered.warnings.iter().map(|warning| {
            render(
                &Diagnostics(vec![Diagnostic::clone(warning)]),
                &input.dockerfile,
                dockerfile.source(),
                false,
            )
        });
        let result = BuildResult { warnings: warnings.collect(), ..BuildResult::default() };
        Ok((
            Lowered {
                build: lowered.build,
                text: dockerfile.source().to_owned(),
                source_date_epoch: lowered.source_date_epoch,
            },
            result,
        ))
    }

    fn resolver(&self, request: &BuildRequest, reporter: &Reporter) -> resolve::StoreResolver {
        resolve::StoreResolver {
            store: self.store.clone(),
            registry: self.registry.clone(),
            pull: request.pull,
            reporter: reporter.clone(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Graph → snapshot. Layers that the image needs are packed as soon as they are there.
    #[expect(clippy::too_many_arguments, reason = "one build's state, used once")]
    async fn solve(
        &self,
        request: &BuildRequest,
        input: &input::Input,
        lowered: &Lowered,
        targets: &export::Targets,
        recorder: &Recorder,
        cancel: &CancellationToken,
        result: &mut BuildResult,
    ) -> Result<Snapshot, Error> {
        let Some(root) = lowered.build.root else { return Ok(Snapshot::default()) };
        let reporter = recorder.reporter();
        let (worker, solver) = self.solver(request, input, lowered, reporter, recorder.id());
        let graph = Arc::new(lowered.build.graph.clone());
        recorder.graph(&graph);
        let foundation = graph.foundation(root);
        let on_output = |vertex, output: &Output| {
            if let Output::Snapshot(snapshot) = output
                && foundation.contains(&vertex)
            {
                targets.packer.start(self, snapshot);
            }
        };
        let solved = solver.solve(Arc::clone(&graph), root, cancel.clone(), on_output).await;
        result.warnings.extend(self.advice(&worker).await);
        self.save_indexes(worker).await;
        let steps = match &solved {
            Ok(solved) => &solved.steps,
            Err(failed) => &failed.steps,
        };
        recorder.reports(steps);
        // the context is read, not run
        let run = |s: &&StepReport| {
            !matches!(lowered.build.graph.vertex(s.vertex).op, Op::Source(Source::Local(_)))
        };
        result.steps = steps.iter().filter(run).count();
        result.cached = steps.iter().filter(run).filter(|s| s.state == StepState::Cached).count();
        let written = request.graph.iter().try_for_each(|file| write_graph(file, &graph, steps));
        if let (Err(_), Err(error)) = (&solved, &written) {
            let task = internal_task(reporter, "[internal] write the graph");
            task.finish(Outcome::Failed(error.to_string()));
        }
        match solved.map(|solved| solved.output) {
            // where a step failed, that is what the build's error says
            Ok(_) if written.is_err() => written.map(|()| Snapshot::default()),
            Ok(Output::Snapshot(snapshot)) => Ok(snapshot),
            Ok(Output::Local { name, .. }) => {
                Err(Error::new(format!("the target is the local directory `{name}`")))
            }
            Err(failed) => {
                let place = recorder.place_of(failed.vertex);
                Err(lowered.step_failed(failed, place, cancel))
            }
        }
    }

    /// A solver with a worker of its own, for one build, whose record has this ID.
    fn solver(
        &self,
        request: &BuildRequest,
        input: &input::Input,
        lowered: &Lowered,
        reporter: &Reporter,
        record: Option<&str>,
    ) -> (Arc<LocalWorker>, Solver) {
        let defaults = SolverOptions::default();
        let options = SolverOptions {
            jobs: request.jobs.unwrap_or(defaults.jobs).max(1),
            no_cache: request.no_cache,
            ..defaults
        };
        let worker = Arc::new(LocalWorker::new(
            self.store.clone(),
            Arc::new(self.registry.clone()),
            WorkerSettings { record: record.map(str::to_owned), ..settings(self, request, input, lowered) },
        ));
        let solver = Solver::new(
            Arc::clone(&worker) as Arc<dyn Worker>,
            Arc::new(self.store.clone()),
            options,
            reporter.clone(),
        );
        (worker, solver)
    }

    /// What people should know of their context.
    async fn advice(&self, worker: &Arc<LocalWorker>) -> Option<String> {
        let worker = Arc::clone(worker);
        self.blocking(move || Ok(advice::advice(&worker.git_ignored()))).await.ok().flatten()
    }

    /// Keeps what the worker learned of local directories. Only time is lost if that can't be written.
    async fn save_indexes(&self, worker: Arc<LocalWorker>) {
        let _ = self.blocking(move || worker.save_indexes().map_err(|e| Error::because("index", e))).await;
    }

    /// Makes what was written durable.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let store = self.store.clone();
        self.blocking(move || store.sync().map_err(|e| Error::because("cannot sync the store", e))).await
    }

    /// Runs work that blocks on a thread that may.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::because("work on the store ended without a result", error)),
        }
    }
}

/// A lowered Dockerfile, and what is needed of its text.
pub(crate) struct Lowered {
    pub(crate) build: Build,
    pub(crate) text: String,
    pub(crate) source_date_epoch: Option<i64>,
}

impl Lowered {
    /// Why the target was not reached, with the place in the Dockerfile.
    fn step_failed(&self, failed: SolveError, place: Option<StepPlace>, cancel: &CancellationToken) -> Error {
        if cancel.is_cancelled() {
            return Error::Cancelled;
        }
        Error::Step {
            step: failed.name,
            location: failed.location,
            text: self.text.clone(),
            log: failed.log,
            place: place.map(Box::new),
            source: failed.error,
        }
    }
}

fn write_timing(file: &TimingFile, record: &BuildRecord) -> Result<(), Error> {
    let text = match file.form {
        TimingForm::Html => record.timing_html(),
        TimingForm::Trace => record.timing_trace(),
    };
    export::write_file(&file.path, |out| {
        out.write_all(text.as_bytes()).map_err(|e| Error::because("cannot write the timing", e))
    })
}

fn write_graph(file: &GraphFile, graph: &Graph, steps: &[StepReport]) -> Result<(), Error> {
    let text = match file.form {
        GraphForm::Dot => graph::dot(graph, steps),
        GraphForm::Json => graph::json(graph, steps),
        GraphForm::Svg => graph::svg(graph, steps),
    };
    export::write_file(&file.path, |out| {
        out.write_all(text.as_bytes()).map_err(|e| Error::because("cannot write the graph", e))
    })
}

fn options(request: &BuildRequest, input: &input::Input) -> Options {
    Options {
        dockerfile: input.dockerfile.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platform: request.platform.clone().unwrap_or_else(Platform::host),
        build_platform: Platform::host(),
        contexts: input.contexts.clone(),
        ignore: input.ignore.clone(),
        remote_context: input.remote_context.clone(),
        no_cache: request.no_cache,
        no_cache_filter: request.no_cache_filter.clone(),
        network: request.network,
        entitlements: request.entitlements.clone(),
        extra_hosts: request.extra_hosts.clone(),
        shm_size: request.shm_size,
        ulimits: request.ulimits.clone(),
        cgroup_parent: request.cgroup_parent.clone(),
        limits: request.limits.clone(),
        source_date_epoch: request.source_date_epoch,
        now: jiff::Timestamp::now().to_string(),
    }
}

fn settings(
    builder: &Builder,
    request: &BuildRequest,
    input: &input::Input,
    lowered: &Lowered,
) -> WorkerSettings {
    WorkerSettings {
        locals: input.locals.clone(),
        images: lowered
            .build
            .graph
            .vertices()
            .filter_map(|(_, vertex)| match &vertex.op {
                Op::Source(Source::Image(image)) => Some(image.clone()),
                _ => None,
            })
            .collect(),
        source_date_epoch: lowered.source_date_epoch,
        ..base_settings(builder, request, input.pins.clone())
    }
}

/// What a worker may use before there is a Dockerfile.
fn base_settings(builder: &Builder, request: &BuildRequest, pins: Pins) -> WorkerSettings {
    let own = |name: &str| request.proxy.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    let inherited = builder.proxy.iter().filter(|(name, _)| !own(name));
    WorkerSettings {
        locals: std::collections::HashMap::new(),
        images: Vec::new(),
        secrets: request.secrets.iter().map(|s| (s.id.clone(), s.value.clone())).collect(),
        ssh: request.ssh.iter().map(|s| (s.id.clone(), s.socket.clone())).collect(),
        known_hosts: request.known_hosts.clone(),
        // who chooses it for all RUNs allows it
        allow_host_network: request.network == bricklayer_solver::op::Network::Host
            || request.entitlements.contains(&Entitlement::NetworkHost),
        allow_insecure: request.entitlements.contains(&Entitlement::SecurityInsecure),
        oci_runtime: request.oci_runtime.clone(),
        on_failure: request.on_failure.clone(),
        record: None,
        proxy: request.proxy.iter().chain(inherited).cloned().collect(),
        source_date_epoch: None,
        pins,
    }
}

/// A task for work around the graph.
pub(crate) fn internal_task(reporter: &Reporter, name: &str) -> bricklayer_solver::event::Task {
    let task = reporter.task(TaskInfo {
        name: name.to_owned(),
        kind: TaskKind::Internal,
        vertex: None,
        location: None,
    });
    task.start();
    task
}

/// Ends an internal task that went well.
pub(crate) fn done(task: &bricklayer_solver::event::Task) {
    task.finish(Outcome::Done);
}
