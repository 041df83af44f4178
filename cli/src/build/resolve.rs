//! What the frontend asks outside: configs of images.

use bricklayer_cache::archive;
use bricklayer_cache::registry::{Reference, Registry};
use bricklayer_cache::store::{Descriptor, Store};
use bricklayer_frontend::{ImageOrigin, ImageQuery, ResolveError, ResolvedImage, Resolver};
use bricklayer_solver::Platform;
use bricklayer_solver::event::{Outcome, Reporter, Task, TaskInfo, TaskKind};
use futures_util::future::join_all;

use crate::images::{ImageParts, image_parts};
use crate::request::PullPolicy;

/// Answers the frontend out of the store, registries and layouts. Its methods block, on a thread of
/// the runtime that may.
pub(super) struct StoreResolver {
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) pull: PullPolicy,
    pub(super) reporter: Reporter,
    pub(super) runtime: tokio::runtime::Handle,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Resolver for StoreResolver {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        self.runtime.block_on(join_all(queries.iter().map(|query| self.image(query))))
    }
}

impl StoreResolver {
    async fn image(&self, query: &ImageQuery) -> Result<ResolvedImage, ResolveError> {
        let task = self.reporter.task(TaskInfo {
            name: format!("[internal] load metadata for {}", query.reference),
            kind: TaskKind::Internal,
            vertex: None,
            location: None,
        });
        task.start();
        let result = match &query.origin {
            ImageOrigin::Registry => self.registry_image(query, &task).await,
            ImageOrigin::Layout(path) => self.layout_image(path, &query.platform),
        };
        result.inspect(|_| task.finish(Outcome::Done)).map_err(|source| {
            task.finish(Outcome::Failed(source.to_string()));
            ResolveError {
                message: format!("cannot resolve `{}` for {}", query.reference, query.platform),
                source: Some(source),
            }
        })
    }

    async fn registry_image(&self, query: &ImageQuery, task: &Task) -> Result<ResolvedImage, Failure> {
        let reference: Reference = query.reference.parse()?;
        let known = self.known(&reference, &query.platform)?;
        let stored = match (self.pull, known) {
            (PullPolicy::Missing | PullPolicy::Never, Some(parts)) => Some(parts),
            (PullPolicy::Never, None) => {
                return Err("the store does not have it, and nothing may be pulled".into());
            }
            (PullPolicy::Missing, None) | (PullPolicy::Always, _) => None,
        };
        if let Some(parts) = stored {
            return Ok(resolved(reference.to_string(), parts));
        }
        let pulled = self.registry.pull(&self.store, &reference, &query.platform, task).await?;
        Ok(ResolvedImage {
            reference: pulled.reference.to_string(),
            manifest: pulled.manifest.digest,
            config: pulled.config,
        })
    }

    /// What the store has under this name, for this platform.
    fn known(&self, reference: &Reference, platform: &Platform) -> Result<Option<ImageParts>, Failure> {
        let descriptor = match self.store.image(&reference.to_string())? {
            Some(image) => Some(image.descriptor),
            None => None,
        };
        let Some(descriptor) = descriptor else { return Ok(None) };
        if reference.digest().is_some_and(|digest| digest != descriptor.digest) {
            return Ok(None);
        }
        Ok(image_parts(&self.store, &descriptor, Some(platform))?)
    }

    fn layout_image(&self, path: &str, platform: &Platform) -> Result<ResolvedImage, Failure> {
        let (directory, wanted) = split_layout(path);
        let loaded = archive::load_dir(&self.store, directory.as_ref(), wanted)?;
        let descriptor: Descriptor = match loaded.as_slice() {
            [] => return Err(format!("`{directory}` has no image {}", wanted.unwrap_or_default()).into()),
            [image, ..] => image.descriptor.clone(),
        };
        let parts = image_parts(&self.store, &descriptor, Some(platform))?
            .ok_or_else(|| format!("`{directory}` has no image for {platform}"))?;
        Ok(resolved(format!("oci-layout://{path}"), parts))
    }
}

fn resolved(reference: String, parts: ImageParts) -> ResolvedImage {
    ResolvedImage { reference, manifest: parts.manifest.digest, config: parts.config }
}

/// `PATH[:tag|@digest]` → path, and the tag or digest.
fn split_layout(text: &str) -> (&str, Option<&str>) {
    if let Some((path, digest)) = text.split_once('@') {
        return (path, Some(digest));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_may_name_an_image() {
        assert_eq!(split_layout("a/b"), ("a/b", None));
        assert_eq!(split_layout("a/b:c"), ("a/b", Some("c")));
        assert_eq!(split_layout("/x:y/b"), ("/x:y/b", None));
        assert_eq!(split_layout("a@sha256:00"), ("a", Some("sha256:00")));
    }
}
