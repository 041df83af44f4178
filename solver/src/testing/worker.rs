//! A worker that runs nothing: files are texts in memory, commands a handful of words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::event::{Stream, Task};
use crate::op::{FileAction, Op, Selection, Source};
use crate::record::{Layer, LayerId, Output, Snapshot};
use crate::worker::{Content, Job, Pinned, StepError, Worker};

type Files = BTreeMap<String, String>;

/// A worker for tests.
///
/// The arguments of an Exec are commands, one each: `write PATH=TEXT`, `copy FROM=TO`, `unique PATH` (another text
/// each time), `log TEXT`, `sleep MS`, `fail TEXT`, `panic TEXT`, `lose` (an input is damaged), `edit PATH=TEXT` (in the local
/// directory `context`), `hang` (until
/// cancelled), `gate NAME` (until [`open`](FakeWorker::open)). Copies of a file op put what they select under their destination. A source's output has one
/// file.
#[derive(Default)]
pub struct FakeWorker {
    contexts: Mutex<BTreeMap<String, Files>>,
    layers: Mutex<BTreeMap<LayerId, Files>>,
    pins: Mutex<BTreeMap<String, String>>,
    next: AtomicI64,
    happenings: Mutex<Vec<Happening>>,
    to_come: Mutex<Vec<usize>>,
    gates: watch::Sender<BTreeSet<String>>,
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

/// Something that the worker was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The content of a selection, by its paths.
    Read(Vec<String>),
    /// What a source is.
    Pinned(String),
    /// A step by its name started,
    Began(String),
    /// and ended.
    Ended(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Busy<'a>(&'a FakeWorker, String);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        lock(&self.0.happenings).push(Happening::Ended(self.1.clone()));
    }
}

impl FakeWorker {
    /// A worker without any context.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a file of a local directory.
    pub fn write(&self, context: &str, path: &str, text: &str) {
        lock(&self.contexts).entry(context.into()).or_default().insert(path.into(), text.into());
    }

    /// Removes a file of a local directory.
    pub fn remove(&self, context: &str, path: &str) {
        lock(&self.contexts).entry(context.into()).or_default().remove(path);
    }

    /// Lets a source (by URL or remote) be something else from now on.
    pub fn set_pin(&self, source: &str, version: &str) {
        lock(&self.pins).insert(source.into(), version.into());
    }

    /// Lets steps through that wait at a gate.
    pub fn open(&self, gate: &str) {
        self.gates.send_modify(|open| {
            open.insert(gate.into());
        });
    }

    /// What happened since this was last asked.
    pub fn take_happenings(&self) -> Vec<Happening> {
        std::mem::take(&mut *lock(&self.happenings))
    }

    /// For each command that was run since the last call: how many were to come after it.
    pub fn take_to_come(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.to_come))
    }

    /// The steps that were run since happenings were last asked, by name, in the order of their starts.
    pub fn take_runs(&self) -> Vec<String> {
        let began = |h| if let Happening::Began(name) = h { Some(name) } else { None };
        self.take_happenings().into_iter().filter_map(began).collect()
    }

    /// How many steps were running at the same time, at most.
    pub fn busiest(&self) -> usize {
        self.busiest.load(Ordering::SeqCst)
    }

    /// How many steps are running.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// The files of an output.
    pub fn files(&self, output: &Output) -> BTreeMap<String, String> {
        match output {
            Output::Local { name, .. } => lock(&self.contexts).get(name).cloned().unwrap_or_default(),
            Output::Snapshot(snapshot) => {
                let layers = lock(&self.layers);
                let mut files = Files::new();
                for layer in &snapshot.layers {
                    files.extend(layers.get(&layer.id).expect("a layer that this worker made").clone());
                }
                files
            }
        }
    }

    /// A new layer.
    pub fn layer(&self, files: BTreeMap<String, String>) -> Layer {
        let id = LayerId(self.next.fetch_add(1, Ordering::SeqCst) + 1);
        let content = Digest::of(format!("{files:?}").as_bytes());
        lock(&self.layers).insert(id, files);
        Layer { id, content }
    }

    fn select(&self, output: &Output, selection: &Selection) -> Result<Files, StepError> {
        let files = self.files(output);
        let mut found = Files::new();
        for path in &selection.paths {
            let whole = path.is_empty() || path == ".";
            let inside =
                |name: &str| name.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let hits: Files = files
                .iter()
                .filter(|(n, _)| whole || *n == path || inside(n))
                .map(|(n, t)| (n.clone(), t.clone()))
                .collect();
            if hits.is_empty() && !whole && !selection.wildcards {
                return Err(StepError::new(format!("no such file: {path}")));
            }
            found.extend(hits);
        }
        Ok(found)
    }

    async fn command(
        &self,
        job: &Job<'_>,
        command: &str,
        root: &Files,
        new: &mut Files,
    ) -> Result<(), StepError> {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let (left, right) = rest.split_once('=').unwrap_or((rest, ""));
        match word {
            "write" => drop(new.insert(left.into(), right.into())),
            "copy" => {
                let text = new.get(left).or_else(|| root.get(left)).cloned();
                let text = text.ok_or_else(|| StepError::new(format!("no such file: {left}")))?;
                new.insert(right.into(), text);
            }
            "unique" => drop(new.insert(left.into(), self.next.fetch_add(1, Ordering::SeqCst).to_string())),
            "log" => job.task.log(Stream::Stdout, format!("{rest}\n").into_bytes()),
            "sleep" => {
                let millis = rest.parse().expect("milliseconds");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(millis)) => {}
                    () = job.cancel.cancelled() => return Err(StepError::Cancelled),
                }
            }
            "fail" => return Err(StepError::new(rest)),
            "panic" => panic!("{rest}"),
            "lose" => return Err(StepError::Lost { message: "an input is damaged".into() }),
            "gate" => {
                let mut gates = self.gates.subscribe();
                tokio::select! {
                    open = gates.wait_for(|open| open.contains(rest)) => drop(open),
                    () = job.cancel.cancelled() => return Err(StepError::Cancelled),
                }
            }
            // somebody edits a file of the context meanwhile
            "edit" => drop(
                lock(&self.contexts).entry("context".into()).or_default().insert(left.into(), right.into()),
            ),
            "hang" => {
                job.cancel.cancelled().await;
                return Err(StepError::Cancelled);
            }
            other => panic!("unknown command {other}"),
        }
        Ok(())
    }
}

impl Worker for FakeWorker {
    fn pin<'a>(&'a self, source: &'a Source, _: &'a Task) -> BoxFuture<'a, Result<Pinned, StepError>> {
        async move {
            let name = match source {
                Source::Http(http) => &http.url,
                Source::Git(git) => &git.remote,
                Source::Image(_) | Source::Local(_) => panic!("is not to be pinned: {source:?}"),
            };
            lock(&self.happenings).push(Happening::Pinned(name.clone()));
            let version = lock(&self.pins)
                .get(name)
                .cloned()
                .ok_or_else(|| StepError::new(format!("no such source: {name}")))?;
            Ok(Pinned { key: Digest::of(version.as_bytes()), label: version })
        }
        .boxed()
    }

    fn content<'a>(
        &'a self,
        output: &'a Output,
        selection: &'a Selection,
    ) -> BoxFuture<'a, Result<Content, StepError>> {
        async move {
            lock(&self.happenings).push(Happening::Read(selection.paths.clone()));
            let files = self.select(output, selection)?;
            let digest = Digest::of(format!("{files:?}").as_bytes());
            let files = files.into_iter().map(|(path, text)| (path, Digest::of(text.as_bytes()))).collect();
            Ok(Content { digest, files, truncated: false, bytes: 0 })
        }
        .boxed()
    }

    fn run<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Output, StepError>> {
        async move {
            let name = job.vertex.info.name.clone();
            lock(&self.happenings).push(Happening::Began(name.clone()));
            let now = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
            self.busiest.fetch_max(now, Ordering::SeqCst);
            let _busy = Busy(self, name);
            assert_eq!(job.inputs.len(), job.vertex.inputs.len(), "a step is run with all of its inputs");
            assert_eq!(job.contents.len(), job.inputs.len(), "and with what is known of them");
            let mut files = Files::new();
            let base = match &job.vertex.op {
                Op::Source(Source::Image(image)) => {
                    let layers =
                        image.diff_ids.iter().map(|id| self.layer([("base".into(), id.to_string())].into()));
                    return Ok(Output::Snapshot(Snapshot { layers: layers.collect() }));
                }
                Op::Source(source) => {
                    let pin = job.pinned.map_or_else(|| format!("{source:?}"), |pin| pin.label.clone());
                    files.insert("source".into(), pin);
                    None
                }
                Op::Exec(exec) => {
                    lock(&self.to_come).push(job.commands_to_come);
                    let root = exec.root.map(|root| self.files(&job.inputs[root])).unwrap_or_default();
                    for command in &exec.args {
                        self.command(&job, command, &root, &mut files).await?;
                    }
                    exec.root
                }
                Op::File(file) => {
                    for action in &file.actions {
                        let FileAction::Copy(copy) = action else { panic!("only copies") };
                        let selected = self.select(&job.inputs[copy.input], &copy.selection)?;
                        let digest = Digest::of(format!("{selected:?}").as_bytes());
                        if job.contents[copy.input].as_ref().is_some_and(|content| content.digest != digest) {
                            return Err(StepError::Lost {
                                message: "a file has changed while it was copied".into(),
                            });
                        }
                        for (path, text) in selected {
                            files.insert(format!("{}/{path}", copy.dest), text);
                        }
                    }
                    file.base
                }
                Op::Diff | Op::Merge => panic!("not for this worker"),
            };
            let mut snapshot = match base.map(|base| &job.inputs[base]) {
                Some(Output::Snapshot(snapshot)) => snapshot.clone(),
                Some(Output::Local { .. }) => panic!("a local directory is no root"),
                None => Snapshot::default(),
            };
            snapshot.layers.push(self.layer(files));
            Ok(Output::Snapshot(snapshot))
        }
        .boxed()
    }
}
