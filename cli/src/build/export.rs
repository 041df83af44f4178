//! Where results go: the store, registries, archives, directories.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use bricklayer_cache::archive;
use bricklayer_cache::registry::{Reference, Repository};
use bricklayer_cache::store::{Descriptor, Store, StoreError};
use bricklayer_solver::event::{Reporter, Task};
use bricklayer_solver::record::Snapshot;
use bricklayer_worker::export::{self, Assembled, ImageExport, Owners};
use bricklayer_worker::snapshot_view;
use tokio_util::sync::CancellationToken;

use super::pack::{Form, Packer, PushTo};
use super::room::Room;
use super::{BuildResult, Builder, Lowered};
use crate::error::Error;
use crate::images::{end, export_task, parse, tag};
use crate::request::{BuildRequest, Dest, ImageOptions, ImageOutput, Output};

/// Everything that is to be written, and the packer that works ahead for it.
pub(super) struct Targets {
    outputs: Vec<Output>,
    names: Vec<Reference>,
    pub(super) packer: Packer,
    pub(super) room: Arc<Room>,
}

/// Checks what is asked for before anything is built.
pub(super) fn plan(
    request: &BuildRequest,
    names: &[Reference],
    lowered: &Lowered,
    reporter: &Reporter,
) -> Result<Targets, Error> {
    let mut outputs = request.outputs.clone();
    if outputs.is_empty() {
        outputs.push(Output::Image(ImageOutput { store: true, ..ImageOutput::default() }));
    }
    let mut forms: Vec<Form> = Vec::new();
    let mut push_to: Vec<Repository> = Vec::new();
    for output in &outputs {
        let options = match output {
            Output::Image(image) => {
                let names = image_names(image, names)?;
                if image.push && names.is_empty() {
                    return Err(Error::new("a push needs a name").with_hint("pass -t REGISTRY/NAME:TAG"));
                }
                if image.push {
                    push_to.extend(names.iter().map(|name| name.repository().clone()));
                }
                Some(&image.options)
            }
            Output::Oci { options, .. } | Output::Docker { options, .. } => Some(options),
            Output::Tar { .. } | Output::Local { .. } => None,
        };
        if let Some(options) = options
            && !forms.contains(&form(options))
        {
            forms.push(form(options));
        }
    }
    let mut seen = std::collections::HashSet::new();
    push_to.retain(|repository| seen.insert(repository.to_string()));
    let push = PushTo { repositories: push_to, mount_from: base_repository(lowered).into_iter().collect() };
    let room = Arc::new(Room::new(request.cache_limit, reporter.clone()));
    let packer = Packer::new(forms, push, lowered.source_date_epoch, reporter.clone(), Arc::clone(&room));
    Ok(Targets { outputs, names: names.to_vec(), packer, room })
}

fn form(options: &ImageOptions) -> Form {
    Form { compression: options.compression, force: options.force_compression }
}

fn image_names(image: &ImageOutput, tags: &[Reference]) -> Result<Vec<Reference>, Error> {
    if image.names.is_empty() {
        Ok(tags.to_vec())
    } else {
        image.names.iter().map(|name| parse(name)).collect()
    }
}

/// Writes all that was asked for.
pub(super) async fn write(
    builder: &Builder,
    lowered: &Lowered,
    snapshot: &Snapshot,
    targets: Targets,
    reporter: &Reporter,
    cancel: &CancellationToken,
    result: &mut BuildResult,
) -> Result<(), Error> {
    let exporter = Exporter { builder, lowered, snapshot, targets: &targets };
    for output in &targets.outputs {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let task = export_task(reporter, &describe(output));
        let written = tokio::select! {
            written = exporter.output(output, &task, result) => written,
            () = cancel.cancelled() => Err(Error::Cancelled),
        };
        end(&task, written)?;
    }
    Ok(())
}

/// How the names of those tasks begin that write an output, in contrast to those that push layers for them.
pub(crate) const EXPORTING: &str = "exporting ";

fn describe(output: &Output) -> String {
    let what = match output {
        Output::Image(image) if image.push => "and pushing the image".to_owned(),
        Output::Image(_) => "the image to the store".to_owned(),
        Output::Oci { dest, .. } => format!("an OCI image layout{}", to(dest)),
        Output::Docker { dest, .. } => format!("a Docker archive{}", to(dest)),
        Output::Tar { dest } => format!("the root filesystem as a tar{}", to(dest)),
        Output::Local { dest } => format!("the root filesystem to {}", dest.display()),
    };
    format!("{EXPORTING}{what}")
}

fn to(dest: &Dest) -> String {
    match dest {
        Dest::File(path) | Dest::Directory(path) => format!(" to {}", path.display()),
        Dest::Writer(_) => String::new(),
    }
}

/// Where the base image came from.
fn base_repository(lowered: &Lowered) -> Option<Repository> {
    let base = lowered.build.base.as_ref()?;
    Some(base.reference.parse::<Reference>().ok()?.repository().clone())
}

struct Exporter<'a> {
    builder: &'a Builder,
    lowered: &'a Lowered,
    snapshot: &'a Snapshot,
    targets: &'a Targets,
}

impl Exporter<'_> {
    async fn output(&self, output: &Output, task: &Task, result: &mut BuildResult) -> Result<(), Error> {
        match output {
            Output::Image(image) => self.image(image, task, result).await,
            Output::Oci { dest, options } => {
                let assembled = self.assemble(options).await?;
                note(result, &assembled);
                let images = self.named(&assembled.manifest);
                let store = self.builder.store.clone();
                match dest {
                    Dest::Directory(path) => {
                        let path = path.clone();
                        let write = move || {
                            archive::save_oci_dir(&store, &images, &path)
                                .map_err(|e| Error::because(format!("cannot write `{}`", path.display()), e))
                        };
                        self.builder.blocking(write).await
                    }
                    dest => {
                        self.to_dest(dest, move |out| {
                            archive::save_oci(&store, &images, out)
                                .map_err(|e| Error::because("cannot save the image", e))
                        })
                        .await
                    }
                }
            }
            Output::Docker { dest, options } => {
                let assembled = self.assemble(options).await?;
                note(result, &assembled);
                let images = self.named(&assembled.manifest);
                let store = self.builder.store.clone();
                self.to_dest(dest, move |out| {
                    archive::save_docker(&store, &images, out)
                        .map_err(|e| Error::because("cannot save the image", e))
                })
                .await
            }
            Output::Tar { dest } => {
                let (store, snapshot, clamp) =
                    (self.builder.store.clone(), self.snapshot.clone(), self.lowered.source_date_epoch);
                self.to_dest(dest, move |out| {
                    let view = view(&store, &snapshot)?;
                    export::write_tar(&view, out, clamp, &|_| {})
                        .map_err(|e| Error::because("cannot write the root filesystem", e))
                })
                .await
            }
            Output::Local { dest } => {
                let (store, snapshot, dest) =
                    (self.builder.store.clone(), self.snapshot.clone(), dest.clone());
                self.builder
                    .blocking(move || {
                        let view = view(&store, &snapshot)?;
                        export::write_local(&view, &dest, Owners::Caller).map_err(|e| {
                            Error::because(
                                format!("cannot write the root filesystem to `{}`", dest.display()),
                                e,
                            )
                        })
                    })
                    .await
            }
        }
    }

    async fn image(&self, image: &ImageOutput, task: &Task, result: &mut BuildResult) -> Result<(), Error> {
        let assembled = self.assemble(&image.options).await?;
        note(result, &assembled);
        let names = image_names(image, &self.targets.names)?;
        if image.store || !image.push {
            // what a name leads to must be on disk before the name is
            self.builder.sync().await?;
            for name in &names {
                tag(&self.builder.store, &name.to_string(), &assembled.manifest)?;
            }
        }
        if image.push {
            for name in &names {
                self.builder
                    .registry
                    .push(&self.builder.store, name, &assembled.manifest, &self.origins(), task)
                    .await
                    .map_err(|e| Error::because(format!("cannot push {name}"), e))?;
            }
        }
        for name in names {
            let name = name.to_string();
            if !result.names.contains(&name) {
                result.names.push(name);
            }
        }
        Ok(())
    }

    async fn assemble(&self, options: &ImageOptions) -> Result<Assembled, Error> {
        let layers = self.targets.packer.packed(self.builder, self.snapshot, form(options)).await?;
        let base = self.lowered.build.base.as_ref();
        let mut image = ImageExport {
            config: self.lowered.build.config.clone(),
            base_history: base.map_or(0, |base| base.config.history.len()),
            layer_times: None,
            docker_media_types: options.docker_media_types,
            annotations: options.annotations.clone(),
        };
        let (store, snapshot) = (self.builder.store.clone(), self.snapshot.clone());
        // with SOURCE_DATE_EPOCH all times are given
        let given = self.lowered.source_date_epoch.is_some();
        self.builder
            .blocking(move || {
                if !given {
                    let times = snapshot.layers.iter().map(|l| Ok(store.layer_info(l.id)?.created_ms));
                    let times = times.collect::<Result<Vec<i64>, StoreError>>();
                    image.layer_times =
                        Some(times.map_err(|e| Error::because("cannot look up the layers", e))?);
                }
                export::assemble(&store, &image, &layers)
                    .map_err(|e| Error::because("cannot write the image's documents", e))
            })
            .await
    }

    /// The base image's repository: a registry may take its layers from there, and layers that were never fetched are.
    fn origins(&self) -> Vec<Repository> {
        base_repository(self.lowered).into_iter().collect()
    }

    fn named(&self, manifest: &Descriptor) -> Vec<(Option<Reference>, Descriptor)> {
        if self.targets.names.is_empty() {
            return vec![(None, manifest.clone())];
        }
        self.targets.names.iter().map(|name| (Some(name.clone()), manifest.clone())).collect()
    }

    /// Writes to the caller's writer, or to a file that appears complete or not at all.
    async fn to_dest(
        &self,
        dest: &Dest,
        write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let dest = dest.clone();
        self.builder
            .blocking(move || match dest {
                Dest::Writer(writer) => {
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    write(&mut *writer)?;
                    writer.flush().map_err(|e| Error::because("cannot write the result", e))
                }
                Dest::File(path) => write_file(&path, write),
                Dest::Directory(path) => {
                    Err(Error::new(format!("`{}`: only an OCI layout can be a directory", path.display())))
                }
            })
            .await
    }
}

/// A file that appears complete or not at all.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::because(format!("cannot write `{}`", path.display()), e);
    if path.exists() && !path.is_file() {
        // a device or a pipe is written to, not replaced
        let mut out = BufWriter::new(File::options().write(true).open(path).map_err(failed)?);
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary =
        tempfile::Builder::new().prefix(".bricklayer-").tempfile_in(parent).map_err(failed)?;
    {
        let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
        write(&mut out)?;
        out.flush().map_err(failed)?;
    }
    // a temporary file is private; the result is what any program would have written
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temporary.as_file().set_permissions(permissions).map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn view(store: &Store, snapshot: &Snapshot) -> Result<Arc<bricklayer_cache::root::Root>, Error> {
    snapshot_view(store, snapshot).map_err(|e| Error::because("cannot open the result", e))
}

fn note(result: &mut BuildResult, assembled: &Assembled) {
    result.image = Some(assembled.manifest.clone());
    result.config = Some(assembled.config.digest);
}
