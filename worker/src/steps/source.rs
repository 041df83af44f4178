//! FROM, ADD URL, ADD of git repositories: files from outside become layers.

use std::sync::Arc;

use bricklayer_cache::Store;
use bricklayer_cache::registry::base64;
use bricklayer_cache::root::Root;
use bricklayer_cache::store::Descriptor;
use bricklayer_solver::Digest;
use bricklayer_solver::event::{Reporter, Task, TaskInfo, TaskKind};
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::op::{GitSource, HttpSource, ImageSource, Source};
use bricklayer_solver::record::{Output, Snapshot};
use bricklayer_solver::worker::{Pinned, StepError};
use tokio_util::sync::CancellationToken;

use crate::local_worker::{LocalWorker, Shared, blocking};
use crate::source::git::redact;
use crate::source::http::{self, Download};
use crate::source::ssh::Ssh;

/// A manifest or config that is read at the most, in bytes.
const DOCUMENT_LIMIT: u64 = 4 << 20;

impl LocalWorker {
    /// What a source is now. Files over HTTP are fetched for that: their bytes are their identity.
    pub(crate) async fn pin_source(&self, source: &Source, task: &Task) -> Result<Pinned, StepError> {
        match source {
            Source::Image(image) => {
                let mut bytes = Vec::new();
                for diff_id in &image.diff_ids {
                    bytes.extend_from_slice(diff_id.as_bytes());
                }
                let label = format!("{}@{}", image.reference, image.manifest);
                Ok(Pinned { key: Digest::of(&bytes), label })
            }
            Source::Local(local) => {
                Err(StepError::new(format!("the local directory `{}` has no pin", local.name)))
            }
            Source::Http(http) => {
                // what was promised is what will be there, or the step fails
                let digest = match http.checksum {
                    Some(checksum) => checksum,
                    None => self.download(http, task, false).await?.digest,
                };
                let key = Digest::of(format!("http\0{}\0{digest}", http.filename).as_bytes());
                Ok(Pinned { key, label: digest.to_string() })
            }
            Source::Git(git) => {
                let commit = self.commit_of(git, task).await?;
                let times = if git.commit_time { "\0times" } else { "" };
                let key = Digest::of(
                    format!("git\0{commit}\0{}\0{}\0{}{times}", git.subdir, git.keep_git_dir, git.submodules)
                        .as_bytes(),
                );
                Ok(Pinned { key, label: format!("{}#{commit}", redact(&git.remote)) })
            }
        }
    }

    /// Makes a source's files layers of the store.
    pub(crate) async fn fetch_source(
        &self,
        source: &Source,
        task: &Task,
        cancel: &CancellationToken,
    ) -> Result<Output, StepError> {
        let fetch = async {
            match source {
                Source::Image(image) => self.fetch_image(image, task).await,
                Source::Local(local) => Err(StepError::new(format!("`{}` is not fetched", local.name))),
                Source::Http(http) => self.fetch_http(http, task).await,
                Source::Git(git) => self.fetch_git(git, task).await,
            }
        };
        tokio::select! {
            result = fetch => Ok(Output::Snapshot(result?)),
            () = cancel.cancelled() => Err(StepError::Cancelled),
        }
    }

    async fn fetch_image(&self, image: &ImageSource, task: &Task) -> Result<Snapshot, StepError> {
        let store = &self.shared.store;
        let failed = |what: &str| format!("cannot {what} {}", image.reference);
        let manifest = store
            .read_blob(image.manifest, DOCUMENT_LIMIT)
            .map_err(|e| StepError::with_source(failed("read the manifest of"), e))?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|e| StepError::with_source(failed("understand the manifest of"), e))?;
        let config = store
            .read_blob(manifest.config.digest, DOCUMENT_LIMIT)
            .map_err(|e| StepError::with_source(failed("read the config of"), e))?;
        let config: ImageConfig = serde_json::from_slice(&config)
            .map_err(|e| StepError::with_source(failed("understand the config of"), e))?;
        if !manifest.layers.iter().all(|layer| store.has_blob(layer.digest)) {
            self.registry
                .fetch_layers(store, image.manifest, task)
                .await
                .map_err(|e| StepError::with_source(failed("pull the layers of"), e))?;
        }
        store
            .image_layers(&config, &manifest.layers)
            .map_err(|e| StepError::with_source(failed("use the layers of"), e))
    }

    /// Fetches layers of the build's images that the store lost, once a build; says whether there were any. A record of
    /// FROM stays good when the blobs were pruned, since they can be had again.
    pub(crate) async fn restore_images(&self) -> Result<bool, StepError> {
        let restore = async {
            let mut any = false;
            for image in &self.shared.settings.images {
                let (store, wanted) = (self.shared.store.clone(), image.clone());
                let lacks = blocking(move || Ok(lacks_layers(&store, &wanted))).await?;
                if lacks {
                    let task = Reporter::silent().task(TaskInfo {
                        name: format!("pulling {} again", image.reference),
                        kind: TaskKind::Internal,
                        vertex: None,
                        location: None,
                    });
                    self.fetch_image(image, &task).await?;
                    any = true;
                }
            }
            Ok(any)
        };
        self.images_restored.get_or_try_init(|| restore).await.copied()
    }

    /// What is at a URL, asked once a build. With `bytes`, they are in the store then; without, the server may just say that what
    /// was there last time still is.
    async fn download(&self, source: &HttpSource, task: &Task, bytes: bool) -> Result<Download, StepError> {
        let store = &self.shared.store;
        let known = {
            let downloads = self.shared.settings.pins.known().downloads.lock().expect("no holder panics");
            downloads.get(source).cloned()
        };
        if let Some(known) = known
            && (!bytes || store.has_blob(known.digest))
        {
            return Ok(known);
        }
        let authorization = self.shared.http_authorization(&source.url);
        let client = self.client(&source.url)?;
        let earlier = store
            .known_download(&source.url)
            .map_err(|e| StepError::with_source(format!("cannot look up `{}`", source.url), e))?
            .filter(|earlier| !bytes || store.has_blob(earlier.digest))
            .filter(|earlier| source.checksum.is_none_or(|checksum| checksum == earlier.digest));
        let request = http::Request { source, authorization: authorization.as_deref(), earlier };
        let download = http::download(&client, store, &request, task).await?;
        self.shared
            .settings
            .pins
            .known()
            .downloads
            .lock()
            .expect("no holder panics")
            .insert(source.clone(), download.clone());
        Ok(download)
    }

    async fn fetch_http(&self, source: &HttpSource, task: &Task) -> Result<Snapshot, StepError> {
        let download = self.download(source, task, true).await?;
        let (shared, name, task) = (self.shared.clone(), source.filename.clone(), task.clone());
        blocking(move || {
            let draft =
                shared.store.draft_layer().map_err(|e| StepError::with_source("cannot start a layer", e))?;
            let mut blob = shared
                .store
                .open_blob(download.digest)
                .map_err(|e| StepError::with_source(format!("cannot read {}", download.digest), e))?;
            let failed = |e: std::io::Error| StepError::with_source(format!("cannot write `{name}`"), e);
            let root = Root::open(draft.tree())
                .map_err(|e| StepError::with_source("cannot open the new layer", e))?;
            let mut file = root
                .create_file(name.as_ref(), 0o600)
                .map_err(|e| StepError::with_source(format!("cannot make `{name}`"), e))?;
            std::io::copy(&mut blob, &mut file).map_err(failed)?;
            let modified = download.modified.unwrap_or(0).max(0);
            let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified.unsigned_abs());
            file.set_modified(modified).map_err(failed)?;
            Ok(Snapshot { layers: vec![shared.commit(draft, &task)?] })
        })
        .await
    }

    async fn commit_of(&self, source: &GitSource, task: &Task) -> Result<String, StepError> {
        if let Some(known) =
            self.shared.settings.pins.known().commits.lock().expect("no holder panics").get(source)
        {
            return Ok(known.clone());
        }
        let git = self.shared.git(source)?;
        let commit = git.resolve(source).await;
        self.shared.tell_once(task, &git.ssh.notes().await);
        let commit = commit?;
        self.shared
            .settings
            .pins
            .known()
            .commits
            .lock()
            .expect("no holder panics")
            .insert(source.clone(), commit.clone());
        Ok(commit)
    }

    async fn fetch_git(&self, source: &GitSource, task: &Task) -> Result<Snapshot, StepError> {
        let commit = self.commit_of(source, task).await?;
        let (shared, task) = (self.shared.clone(), task.clone());
        let draft =
            shared.store.draft_layer().map_err(|e| StepError::with_source("cannot start a layer", e))?;
        let scratch = shared.scratch_dir()?;
        let git = shared.git(source)?;
        let done = git.checkout(source, &commit, scratch.path(), draft.tree()).await;
        shared.tell_once(&task, &git.ssh.notes().await);
        done?;
        drop(scratch);
        blocking(move || Ok(Snapshot { layers: vec![shared.commit(draft, &task)?] })).await
    }
}

impl Shared {
    /// A secret's text.
    fn secret(&self, name: &str) -> Option<String> {
        let value = self.settings.secrets.get(name)?;
        Some(String::from_utf8_lossy(value).trim().to_owned())
    }

    /// The `Authorization` header for a URL, from the secrets that BuildKit's users give for its host:
    /// `HTTP_AUTH_HEADER_<host>`, or `HTTP_AUTH_TOKEN_<host>` as a bearer token.
    fn http_authorization(&self, url: &str) -> Option<String> {
        let host = host_of(url)?;
        self.secret(&format!("HTTP_AUTH_HEADER_{host}")).or_else(|| {
            self.secret(&format!("HTTP_AUTH_TOKEN_{host}")).map(|token| format!("Bearer {token}"))
        })
    }

    /// The same for a repository: `GIT_AUTH_HEADER.<host>` or `GIT_AUTH_TOKEN.<host>`, and without a host for all. A token is
    /// the password of `x-access-token`. What names no host never goes over a connection that is not encrypted.
    fn git_authorization(&self, remote: &str) -> Option<String> {
        let host = host_of(remote)?;
        let all = remote.starts_with("https://");
        if !all && !remote.starts_with("http://") {
            return None;
        }
        let find = |family: &str| {
            let general = || all.then(|| self.secret(family)).flatten();
            self.secret(&format!("{family}.{host}")).or_else(general)
        };
        find("GIT_AUTH_HEADER").or_else(|| {
            let token = find("GIT_AUTH_TOKEN")?;
            Some(format!("Basic {}", base64(format!("x-access-token:{token}").as_bytes())))
        })
    }

    fn git(&self, source: &GitSource) -> Result<crate::source::git::Git, StepError> {
        Ok(crate::source::git::Git {
            proxy: self.settings.proxy.clone(),
            ssh_agent: self.settings.ssh.get("default").cloned(),
            auth_header: self.git_authorization(&source.remote),
            ssh: self.hosts()?,
        })
    }

    /// How ssh is configured, the same for a whole build.
    fn hosts(&self) -> Result<Arc<Ssh>, StepError> {
        let mut hosts = self.settings.pins.known().hosts.lock().expect("no holder panics");
        if let Some(ssh) = &*hosts {
            return Ok(Arc::clone(ssh));
        }
        let ssh = Ssh::new(self.scratch_dir()?, &self.settings.known_hosts)
            .map_err(|e| StepError::with_source("cannot write a configuration for ssh", e))?;
        Ok(Arc::clone(hosts.insert(Arc::new(ssh))))
    }
}

/// Is a layer of the image known, and neither its tree nor its blob there?
fn lacks_layers(store: &Store, image: &ImageSource) -> bool {
    let manifest = store.read_blob(image.manifest, DOCUMENT_LIMIT).ok();
    let Some(manifest) = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok()) else {
        return false;
    };
    let config = store.read_blob(manifest.config.digest, DOCUMENT_LIMIT).ok();
    let Some(config) = config.and_then(|bytes| serde_json::from_slice::<ImageConfig>(&bytes).ok()) else {
        return false;
    };
    let Ok(snapshot) = store.image_layers(&config, &manifest.layers) else { return false };
    snapshot.layers.iter().any(|layer| {
        store.layer_info(layer.id).is_ok_and(|info| !info.tree && !info.blobs.iter().any(|blob| blob.present))
    })
}

/// Host and port of a URL.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// What is needed of a manifest (OCI image-spec `manifest.md`).
#[derive(serde::Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}
