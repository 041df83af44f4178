//! What a build reads before anything is built: the Dockerfile, ignore files, and where the contexts lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bricklayer_cache::Store;
use bricklayer_cache::root::Root;
use bricklayer_frontend::{NamedContext, ignore};
use bricklayer_solver::event::Reporter;

use super::{done, internal_task};
use crate::error::Error;
use crate::request::{BuildRequest, Context, DockerfileSource, NamedContextSource};

/// A Dockerfile or ignore file in bytes, at the most.
const TEXT_LIMIT: u64 = 64 << 20;

/// What a build reads before anything is built.
pub(super) struct Input {
    /// The Dockerfile's name, for people.
    pub(super) dockerfile: String,
    /// Its text.
    pub(super) text: Vec<u8>,
    /// The context's ignore patterns.
    pub(super) ignore: Vec<String>,
    /// Named contexts as the frontend takes them.
    pub(super) contexts: Vec<(String, NamedContext)>,
    /// Local directories by the names that the graph has for them.
    pub(super) locals: HashMap<String, PathBuf>,
    /// Directories that are removed when the build ends.
    _scratch: Vec<tempfile::TempDir>,
}

/// Reads it.
pub(super) async fn read(store: &Store, request: &BuildRequest, reporter: &Reporter) -> Result<Input, Error> {
    let task = internal_task(reporter, "[internal] load build definition");
    let mut locals = HashMap::new();
    let mut scratch = Vec::new();
    let context = match &request.context {
        Context::Directory(path) => {
            if !path.is_dir() {
                return Err(Error::new(format!("the context `{}` is not a directory", path.display())));
            }
            Some(path.clone())
        }
        Context::Empty => {
            let dir = empty_directory(store)?;
            locals.insert("context".to_owned(), dir.path().to_owned());
            scratch.push(dir);
            None
        }
        Context::Tar(_) => return Err(Error::new("a tar archive as context is not supported yet")),
        Context::Remote(url) => {
            return Err(Error::new(format!("`{url}`: remote contexts are not supported yet")));
        }
    };
    if let Some(path) = &context {
        locals.insert("context".to_owned(), path.clone());
    }
    let (dockerfile, text, beside) = dockerfile(request, context.as_deref())?;
    let ignore = match (beside, &context) {
        (Some(patterns), _) => patterns,
        (None, Some(directory)) => ignore_file(directory, ".dockerignore")?.unwrap_or_default(),
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
                let ignore = ignore_file(path, ".dockerignore")?.unwrap_or_default();
                NamedContext::Local { name: local, ignore }
            }
            NamedContextSource::Image(reference) => NamedContext::Image(reference.clone()),
            NamedContextSource::Layout(path) => NamedContext::Layout(path.clone()),
            NamedContextSource::Remote(url) => NamedContext::Remote(url.clone()),
        };
        contexts.push((name.clone(), context));
    }
    done(&task);
    Ok(Input { dockerfile, text, ignore, contexts, locals, _scratch: scratch })
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
    context: Option<&Path>,
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
        DockerfileSource::InContext => in_context(context, &["Dockerfile", "dockerfile"]),
        DockerfileSource::PathInContext(path) => in_context(context, &[path]),
    }
}

fn in_context(context: Option<&Path>, names: &[&str]) -> Result<(String, Vec<u8>, IgnorePatterns), Error> {
    let Some(directory) = context else {
        return Err(Error::new("there is no Dockerfile in an empty context").with_hint("name one with -f"));
    };
    let root = open_root(directory)?;
    for name in names {
        match root.read_small(name.as_ref(), TEXT_LIMIT) {
            Ok(text) => {
                let beside = ignore_file(directory, &format!("{name}.dockerignore"))?;
                return Ok(((*name).to_owned(), text, beside));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                return Err(Error::because(
                    format!("cannot read the Dockerfile in `{}`", directory.display()),
                    error,
                ));
            }
        }
    }
    let error = Error::new(format!("no {} in `{}`", names[0], directory.display()));
    let other = ["Containerfile", "docker/Dockerfile", "build/Dockerfile"];
    Err(match other.iter().find(|name| directory.join(name).is_file()) {
        Some(name) => {
            error.with_hint(format!("there is a {name}: pass -f {}", directory.join(name).display()))
        }
        None => error.with_hint("name the Dockerfile with -f"),
    })
}

/// The patterns of an ignore file below a directory; a link in it leads nowhere outside.
fn ignore_file(directory: &Path, name: &str) -> Result<IgnorePatterns, Error> {
    match open_root(directory)?.read_small(name.as_ref(), TEXT_LIMIT) {
        Ok(text) => Ok(Some(ignore::parse(&text))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::because(format!("cannot read {name} in `{}`", directory.display()), error)),
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
