//! Steps that bring files: the contexts, images, and what a stage holds for others.

use std::rc::Rc;

use bricklayer_solver::Platform;
use bricklayer_solver::graph::{Graph, Input, StepInfo, Usage, VertexId};
use bricklayer_solver::op::{
    Copy, FileAction, FileOp, HttpSource, ImageSource, LocalSource, Op, Selection, Source,
};

use super::Lowering;
use super::run::at;
use super::state::Root;
use crate::api::{NamedContext, RemoteContext, ResolvedImage};
use crate::diagnostics::Diagnostic;
use crate::git;
use crate::instruction::Word;

impl Lowering<'_> {
    /// The build context.
    pub(super) fn main_context(&mut self) -> Result<VertexId, Diagnostic> {
        match &self.options.remote_context {
            None => {
                let source = LocalSource { name: "context".to_owned(), ignore: self.options.ignore.clone() };
                Ok(self.source(Source::Local(source), MAIN_CONTEXT.to_owned()))
            }
            Some(url) => {
                let url = url.clone();
                self.remote_context(&url, MAIN_CONTEXT, true)
            }
        }
    }

    /// A context that is a git repository or a file over HTTP, which is unpacked if it is an archive and `unpack` says so.
    fn remote_context(&mut self, url: &str, name: &str, unpack: bool) -> Result<VertexId, Diagnostic> {
        let (build_args, no_cache) = (&self.options.build_args, self.options.no_cache);
        let steps = remote_steps(&mut self.graph, url, name, build_args, no_cache, self.epoch)?;
        Ok(if unpack { steps.files } else { steps.source })
    }

    /// A named context's files.
    pub(super) fn context_files(&mut self, context: usize) -> Result<VertexId, Diagnostic> {
        let (name, kind) = &self.options.contexts[context];
        let shown = format!("[context {name}] load from client");
        match kind {
            NamedContext::Local { name, ignore } => {
                let source = LocalSource { name: name.clone(), ignore: ignore.clone() };
                Ok(self.source(Source::Local(source), shown))
            }
            NamedContext::Remote(url) => {
                let (url, name) = (url.clone(), format!("[context {name}]"));
                self.remote_context(&url, &name, false)
            }
            // images are resolved as such and never get here
            NamedContext::Image(_) | NamedContext::Layout(_) => Err(Diagnostic::error_outside(format!(
                "the context `{name}` is an image and has no files of its own"
            ))),
        }
    }

    /// A named context's files as a layer, and what the history says about it.
    pub(super) fn context_as_root(&mut self, context: usize) -> (VertexId, String) {
        let name = self.options.contexts[context].0.clone();
        let text = format!("COPY --from={name} / / # buildkit");
        match self.context_files(context) {
            Ok(files) => {
                let selection = Selection { paths: vec![".".to_owned()], ..Selection::default() };
                (self.copied(files, selection, false, format!("[context {name}] COPY / /")), text)
            }
            Err(error) => {
                self.errors.push(error);
                (self.nothing(), text)
            }
        }
    }

    /// The files of a stage or image that others copy or mount.
    pub(super) fn files_of(
        &mut self,
        source: usize,
        user: usize,
        word: &Word,
    ) -> Result<VertexId, Diagnostic> {
        if self.stages[source].file.is_none() && self.stages[source].state.is_none() {
            self.lower_stage(source);
        }
        let Some(state) = &self.stages[source].state else {
            let (later, label) = (&self.stages[source].label, &self.stages[user].label);
            let message = if source > user {
                format!("the stage `{later}` comes later than `{label}`, which uses it")
            } else {
                format!("the stage `{later}` can't be used")
            };
            return Err(Diagnostic::error(message, word.span).label("expected an earlier stage"));
        };
        match state.root {
            Root::Empty => Ok(self.nothing()),
            Root::Step(vertex) => Ok(vertex),
            Root::Context(context) => self.context_files(context).map_err(|error| at(error, word)),
        }
    }

    /// A step that holds no file.
    fn nothing(&mut self) -> VertexId {
        let info = StepInfo { name: "[internal] no files".to_owned(), ..StepInfo::default() };
        self.graph.add(Op::File(FileOp { base: None, actions: Vec::new() }), Vec::new(), info)
    }

    /// A step that copies to the root of an empty directory.
    fn copied(&mut self, from: VertexId, selection: Selection, unpack: bool, name: String) -> VertexId {
        copied(&mut self.graph, from, selection, unpack, name, self.epoch)
    }

    fn source(&mut self, source: Source, name: String) -> VertexId {
        add_source(&mut self.graph, self.options.no_cache, source, name)
    }

    /// The layers of an image that a stage stands on.
    pub(super) fn image_vertex(
        &mut self,
        index: usize,
        image: &Rc<ResolvedImage>,
        platform: &Platform,
    ) -> VertexId {
        let prefix = self.step_prefix(index);
        let stage = &self.stages[index];
        let source = ImageSource {
            reference: image.reference.clone(),
            manifest: image.manifest,
            diff_ids: image.config.rootfs.diff_ids.clone(),
            platform: platform.clone(),
        };
        let info = StepInfo {
            name: format!("{prefix}FROM {}@{}", image.reference, image.manifest),
            stage: stage.label.clone(),
            instruction: stage.file.map(|file| file.instruction.text.clone()).unwrap_or_default(),
            location: stage.file.map(|file| bricklayer_solver::graph::Location {
                file: self.options.dockerfile.clone(),
                first: file.instruction.lines.0,
                last: file.instruction.lines.1,
            }),
            platform: Some(platform.clone()),
            no_cache: false,
            ..StepInfo::default()
        };
        self.graph.add(Op::Source(Source::Image(source)), Vec::new(), info)
    }
}

/// The steps that bring a context which is not on this machine.
struct RemoteSteps {
    /// The checkout, or the file `context` that was downloaded.
    source: VertexId,
    /// The context's files: a downloaded archive is unpacked for that.
    files: VertexId,
}

/// The steps for the context at `url`; `name` stands before it in what people see.
fn remote_steps(
    graph: &mut Graph,
    url: &str,
    name: &str,
    build_args: &[(String, Option<String>)],
    no_cache: bool,
    epoch: Option<i64>,
) -> Result<RemoteSteps, Diagnostic> {
    // this old spelling is taken for contexts only
    let full = if url.starts_with("github.com/") {
        format!("https://{}", with_git_suffix(url))
    } else {
        url.to_owned()
    };
    let shown = |reason: String| {
        Diagnostic::error_outside(format!("the context `{}` can't be used: {reason}", without_user(url)))
    };
    let label = format!("{name} {}", without_user(url));
    match git::parse(&full) {
        Err(error) => Err(shown(error.to_string())),
        Ok(Some(mut found)) => {
            found.source.keep_git_dir = found.keep_git_dir.unwrap_or_else(|| {
                let wanted = build_args.iter().rfind(|(name, _)| name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
                wanted.is_some_and(|(_, v)| matches!(v.as_deref(), Some("1" | "true")))
            });
            let source = add_source(graph, no_cache, Source::Git(found.source), label);
            Ok(RemoteSteps { source, files: source })
        }
        Ok(None) if git::is_http(&full) => {
            if git::url_has_credentials(&full) {
                return Err(shown("the URL holds credentials".to_owned()));
            }
            let filename = REMOTE_FILE.to_owned();
            let http = HttpSource { url: full, checksum: None, filename: filename.clone() };
            let source = add_source(graph, no_cache, Source::Http(http), label);
            let selection = Selection { paths: vec![filename], ..Selection::default() };
            let files = copied(graph, source, selection, true, name.to_owned(), epoch);
            Ok(RemoteSteps { source, files })
        }
        Ok(None) => Err(shown("it is neither a git repository nor an HTTP address".to_owned())),
    }
}

/// The name that a downloaded context gets, as in BuildKit.
const REMOTE_FILE: &str = "context";

/// What brings the main context from `url`, a git repository or an HTTP address: the steps that a lowered Dockerfile
/// has for it too, for whoever needs its files before there is a Dockerfile. `epoch`: seconds since 1970, as in
/// [`Options`](crate::Options).
///
/// # Errors
///
/// If `url` is neither, or holds credentials.
pub fn remote_context(
    url: &str,
    build_args: &[(String, Option<String>)],
    no_cache: bool,
    epoch: Option<i64>,
) -> Result<RemoteContext, Diagnostic> {
    let mut graph = Graph::new();
    let steps = remote_steps(&mut graph, url, MAIN_CONTEXT, build_args, no_cache, epoch)?;
    let file = (steps.source != steps.files).then(|| REMOTE_FILE.to_owned());
    Ok(RemoteContext { graph, source: steps.source, files: steps.files, file })
}

/// What people see of the main context.
const MAIN_CONTEXT: &str = "[internal] load build context";

fn add_source(graph: &mut Graph, no_cache: bool, source: Source, name: String) -> VertexId {
    let info = StepInfo { name, no_cache, ..StepInfo::default() };
    graph.add(Op::Source(source), Vec::new(), info)
}

fn copied(
    graph: &mut Graph,
    from: VertexId,
    selection: Selection,
    unpack: bool,
    name: String,
    created: Option<i64>,
) -> VertexId {
    let copy = Copy {
        input: 0,
        selection: selection.clone(),
        dest: "/".to_owned(),
        owner: None,
        mode: None,
        unpack,
        replace: false,
        created,
    };
    let op = Op::File(FileOp { base: None, actions: vec![FileAction::Copy(copy)] });
    let info = StepInfo { name, ..StepInfo::default() };
    graph.add(op, vec![Input { vertex: from, usage: Usage::Files(selection) }], info)
}

/// A URL without its password; the user of an SSH URL is part of its address.
pub(super) fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, address)) if scheme.eq_ignore_ascii_case("ssh") => {
            let end = address.find('/').unwrap_or(address.len());
            match address[..end]
                .rsplit_once('@')
                .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
            {
                Some((user, host)) => format!("{scheme}://{user}@{host}{}", &address[end..]),
                None => url.to_owned(),
            }
        }
        _ => without_user(url),
    }
}

/// A URL as it may be shown.
pub(super) fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, address)) => {
            let end = address.find('/').unwrap_or(address.len());
            match address[..end].rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{host}{}", &address[end..]),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    }
}

/// `github.com/a/b#ref` with `.git` where git wants it.
fn with_git_suffix(url: &str) -> String {
    let end = url.find(['#', '?']).unwrap_or(url.len());
    let (path, rest) = url.split_at(end);
    if path.ends_with(".git") { url.to_owned() } else { format!("{path}.git{rest}") }
}
