//! What a build reads before anything is built: the Dockerfile, ignore files, and where the contexts lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bricklayer_cache::Store;
use bricklayer_cache::root::{Kind, Root};
use bricklayer_frontend::{NamedContext, ignore};
use bricklayer_solver::event::Reporter;
use bricklayer_worker::Pins;
use tokio_util::sync::CancellationToken;

use super::context::{self, Remote};
use super::{Builder, done, internal_task};
use crate::error::Error;
use crate::request::{BuildRequest, Context, DockerfileSource, NamedContextSource};

/// A Dockerfile or ignore file in bytes, at the most.
pub(super) const TEXT_LIMIT: u64 = 64 << 20;

/// What a build reads before anything is built.
pub(super) struct Input {
    /// The Dockerfile's name, for people.
    pub(super) dockerfile: String,
    /// Its text.
    pub(super) text: Vec<u8>,
    /// The context's ignore patterns.
    pub(super) ignore: Vec<String>,
    /// The context's URL, if it is no local directory.
    pub(super) remote_context: Option<String>,
    /// What the URLs that were asked already turned out to be.
    pub(super) pins: Pins,
    /// Named contexts as the frontend takes them.
    pub(super) contexts: Vec<(String, NamedContext)>,
    /// Local directories by the names that the graph has for them.
    pub(super) locals: HashMap<String, PathBuf>,
    /// Directories that are removed when the build ends.
    _scratch: Vec<tempfile::TempDir>,
}

/// Where a Dockerfile may lie.
struct Place {
    root: Arc<Root>,
    /// What people call it.
    shown: String,
    /// The directory, as it may be typed.
    directory: Option<PathBuf>,
}

/// Reads it.
pub(super) async fn read(
    builder: &Builder,
    request: &BuildRequest,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Input, Error> {
    let store = &builder.store;
    let mut locals = HashMap::new();
    let mut scratch = Vec::new();
    let pins = Pins::default();
    let mut remote_context = None;
    let mut fetched = None;
    let place = match &request.context {
        Context::Directory(path) => {
            if !path.is_dir() {
                return Err(Error::new(format!("the context `{}` is not a directory", path.display())));
            }
            locals.insert("context".to_owned(), path.clone());
            let (root, shown) = (Arc::new(open_root(path)?), format!("`{}`", path.display()));
            Some(Place { root, shown, directory: Some(path.clone()) })
        }
        Context::Empty => {
            let dir = empty_directory(store)?;
            locals.insert("context".to_owned(), dir.path().to_owned());
            scratch.push(dir);
            None
        }
        Context::Tar(reader) => {
            let task = internal_task(reporter, "[internal] unpack the context");
            let dir = empty_directory(store)?;
            let (reader, path) = (reader.clone(), dir.path().to_owned());
            builder.blocking(move || context::unpack(&reader, &path)).await?;
            done(&task);
            let root = Arc::new(open_root(dir.path())?);
            locals.insert("context".to_owned(), dir.path().to_owned());
            scratch.push(dir);
            Some(Place { root, shown: "the archive that is the context".to_owned(), directory: None })
        }
        Context::Remote(url) => {
            remote_context = Some(url.clone());
            let shown = format!("`{}`", context::without_user(url));
            match &request.dockerfile {
                // the Dockerfile is here already, and may not need the context at all
                DockerfileSource::Text(_) | DockerfileSource::File(_) | DockerfileSource::Url(_) => None,
                source => match context::fetch(builder, request, url, &pins, reporter, cancel).await? {
                    Remote::Files(root) => Some(Place { root, shown, directory: None }),
                    Remote::Dockerfile(text) => {
                        if let DockerfileSource::PathInContext(path) = source {
                            return Err(Error::new(format!(
                                "{shown} is a file and no archive that could hold `{path}`"
                            )));
                        }
                        fetched = Some((context::without_user(url), text, None));
                        None
                    }
                },
            }
        }
    };
    if let DockerfileSource::Url(url) = &request.dockerfile {
        let shown = context::without_user(url);
        match context::fetch(builder, request, url, &pins, reporter, cancel).await? {
            Remote::Dockerfile(text) => fetched = Some((shown, text, None)),
            Remote::Files(_) => return Err(Error::new(format!("`{shown}` is an archive and no Dockerfile"))),
        }
    }
    let task = internal_task(reporter, "[internal] load build definition");
    let (dockerfile, text, beside) = match fetched {
        Some(fetched) => fetched,
        None => dockerfile(request, place.as_ref())?,
    };
    // ignore files are for local directories: whoever packed an archive or committed a tree has chosen already
    let ignore = match (&place, beside) {
        (Some(Place { directory: None, .. }), _) => Vec::new(),
        (_, Some(patterns)) => patterns,
        (Some(place), None) => ignore_file(place, ".dockerignore")?.unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    let mut contexts = Vec::new();
    for (name, source) in &request.contexts {
        let context = match source {
            NamedContextSource::Directory(path) => {
                if !path.is_dir() {
                    return Err(Error::new(format!(
                        "the context `{name}`, `{}`, is not a directory",
                        path.display()
                    )));
                }
                let local = format!("context:{name}");
                locals.insert(local.clone(), path.clone());
                let (root, shown) = (Arc::new(open_root(path)?), format!("`{}`", path.display()));
                let place = Place { root, shown, directory: Some(path.clone()) };
                let ignore = ignore_file(&place, ".dockerignore")?.unwrap_or_default();
                NamedContext::Local { name: local, ignore }
            }
            NamedContextSource::Image(reference) => NamedContext::Image(reference.clone()),
            NamedContextSource::Layout(path) => NamedContext::Layout(path.clone()),
            NamedContextSource::Remote(url) => NamedContext::Remote(url.clone()),
        };
        contexts.push((name.clone(), context));
    }
    done(&task);
    Ok(Input { dockerfile, text, ignore, remote_context, pins, contexts, locals, _scratch: scratch })
}

fn empty_directory(store: &Store) -> Result<tempfile::TempDir, Error> {
    let scratch = store.scratch().map_err(|e| Error::because("cannot make a scratch directory", e))?;
    tempfile::tempdir_in(&scratch)
        .map_err(|e| Error::because(format!("cannot make a directory in `{}`", scratch.display()), e))
}

type IgnorePatterns = Option<Vec<String>>;

/// The Dockerfile's name, its text, and the patterns of the ignore file beside it (which then replaces the context's).
fn dockerfile(
    request: &BuildRequest,
    context: Option<&Place>,
) -> Result<(String, Vec<u8>, IgnorePatterns), Error> {
    match &request.dockerfile {
        DockerfileSource::Text(text) => Ok(("Dockerfile".to_owned(), text.clone().into_bytes(), None)),
        DockerfileSource::File(path) => {
            let text = read_limited(path)
                .map_err(|e| Error::because(format!("cannot read the Dockerfile `{}`", path.display()), e))?;
            let mut beside = path.clone().into_os_string();
            beside.push(".dockerignore");
            let beside = match read_limited(Path::new(&beside)) {
                Ok(text) => Some(ignore::parse(&text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    let path = Path::new(&beside).display();
                    return Err(Error::because(format!("cannot read `{path}`"), error));
                }
            };
            Ok((path.display().to_string(), text, beside))
        }
        // it has been fetched before
        DockerfileSource::Url(url) => {
            Err(Error::new(format!("nothing was fetched from `{}`", context::without_user(url))))
        }
        DockerfileSource::InContext => in_context(context, &["Dockerfile", "dockerfile"]),
        DockerfileSource::PathInContext(path) => in_context(context, &[path]),
    }
}

fn in_context(context: Option<&Place>, names: &[&str]) -> Result<(String, Vec<u8>, IgnorePatterns), Error> {
    let Some(place) = context else {
        return Err(Error::new("there is no Dockerfile in an empty context").with_hint("name one with -f"));
    };
    for name in names {
        match place.root.read_small(name.as_ref(), TEXT_LIMIT) {
            Ok(text) => {
                let beside = ignore_file(place, &format!("{name}.dockerignore"))?;
                return Ok(((*name).to_owned(), text, beside));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                return Err(Error::because(format!("cannot read the Dockerfile in {}", place.shown), error));
            }
        }
    }
    let error = Error::new(format!("no {} in {}", names[0], place.shown));
    let other = ["Containerfile", "docker/Dockerfile", "build/Dockerfile"];
    let is_file = |name: &&&str| matches!(place.root.stat(name.as_ref()), Ok(Some(metadata)) if metadata.kind == Kind::File);
    Err(match other.iter().find(is_file) {
        Some(name) => {
            let path = place.directory.as_ref().map_or_else(|| PathBuf::from(name), |d| d.join(name));
            error.with_hint(format!("there is a {name}: pass -f {}", path.display()))
        }
        None => error.with_hint("name the Dockerfile with -f"),
    })
}

/// The patterns of an ignore file below a directory; a link in it leads nowhere outside.
fn ignore_file(place: &Place, name: &str) -> Result<IgnorePatterns, Error> {
    match place.root.read_small(name.as_ref(), TEXT_LIMIT) {
        Ok(text) => Ok(Some(ignore::parse(&text))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::because(format!("cannot read {name} in {}", place.shown), error)),
    }
}

fn open_root(directory: &Path) -> Result<Root, Error> {
    Root::open(directory).map_err(|e| Error::because(format!("cannot open `{}`", directory.display()), e))
}

/// A file that the caller named; pipes are fine, so that `-f <(…)` works.
fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(TEXT_LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_LIMIT {
        return Err(std::io::Error::other(format!("larger than {} MiB", TEXT_LIMIT >> 20)));
    }
    Ok(text)
}
