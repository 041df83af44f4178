//! The subcommands on images that exist.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use bricklayer::{ArchiveFormat, Builder, ImageDetails};
use serde_json::{Value, json};

use super::args::{
    Archive, DisplayArgs, Format, Global, HistoryArgs, ImagesArgs, InspectArgs, LoadArgs, PullArgs, PushArgs,
    RmiArgs, SaveArgs, TagArgs,
};
use super::display::{Display, bytes, one_line};
use super::environment::Environment;
use super::errors::Failure;
use super::flags::{default_platform, platform};
use super::table::{Table, age};
use super::usage::Usage;
use super::{builder_options, print, progress, renderer};

pub(crate) fn open(global: &Global, environment: &Environment) -> Result<Builder, Failure> {
    Ok(Builder::open(builder_options(global, environment)?)?)
}

pub(crate) fn start(args: &DisplayArgs, environment: &Environment) -> Result<Display, Usage> {
    let progress = progress(args.progress, args.quiet, environment)?;
    Ok(Display::start(renderer(progress, environment)?))
}

/// `bricklayer images`
pub(crate) async fn images(
    args: &ImagesArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    let mut images = open(global, environment)?.images().await?;
    images.sort_by(|a, b| a.names.cmp(&b.names));
    if !args.names.is_empty() {
        for image in &mut images {
            image.names.retain(|name| args.names.iter().any(|pattern| fits(pattern, name)));
        }
        images.retain(|image| !image.names.is_empty());
    }
    let id = |image: &ImageDetails| match args.no_trunc {
        true => image.config_digest.to_string(),
        false => image.config_digest.short(),
    };
    let mut text = String::new();
    if args.quiet {
        let mut ids: Vec<String> = images.iter().map(id).collect();
        ids.dedup();
        for id in ids {
            text += &format!("{id}\n");
        }
    } else if args.format == Format::Json {
        for image in &images {
            text += &format!("{}\n", summary(image));
        }
    } else {
        let mut table = Table::new(&["NAME", "IMAGE ID", "CREATED", "SIZE"]);
        for image in &images {
            let created = age(image.config.created.as_deref(), SystemTime::now());
            let names = if image.names.is_empty() { vec!["<none>".to_owned()] } else { image.names.clone() };
            for name in names {
                table.row([familiar(&name).to_owned(), id(image), created.clone(), bytes(image.size)]);
            }
        }
        text = table.to_string();
    }
    print(&text)?;
    Ok(())
}

/// A name as people write it: without `docker.io/library/`.
fn familiar(name: &str) -> &str {
    name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name)
}

/// Does `*` in `pattern` make it fit the name, with or without registry and tag?
fn fits(pattern: &str, name: &str) -> bool {
    let short = familiar(name);
    let without_tag = |name: &str| match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => rest.to_owned(),
        _ => name.to_owned(),
    };
    [name.to_owned(), short.to_owned(), without_tag(name), without_tag(short)]
        .iter()
        .any(|form| glob(pattern, form))
}

/// `*` stands for any text; everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn summary(image: &ImageDetails) -> Value {
    json!({
        "Names": image.names,
        "ID": image.config_digest,
        "Digest": image.descriptor.digest,
        "Created": image.config.created,
        "Size": image.size,
        "Platform": image.config.platform().to_string(),
    })
}

/// `bricklayer inspect`
pub(crate) async fn inspect(
    args: &InspectArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    let platform = platform(args.platform.as_deref())?;
    let builder = open(global, environment)?;
    let mut all = Vec::new();
    for name in &args.images {
        all.push(inspection(&builder.inspect(name, platform.clone()).await?));
    }
    let text = serde_json::to_string_pretty(&all).context("cannot write the images as JSON")?;
    print(&format!("{text}\n"))?;
    Ok(())
}

/// An image in the form of `docker image inspect`, so that filters written for that work; `Layers` is ours.
fn inspection(image: &ImageDetails) -> Value {
    let config = &image.config;
    json!({
        "Id": image.config_digest,
        "RepoTags": image.names.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
        "RepoDigests": repo_digests(image),
        "Created": config.created,
        "Author": config.author.clone(),
        "Os": config.os,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Size": image.size,
        "Config": config.config,
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Descriptor": image.descriptor,
        "Layers": image.layers,
    })
}

fn repo_digests(image: &ImageDetails) -> Vec<String> {
    let mut all: Vec<String> = image
        .names
        .iter()
        .map(|name| {
            let repository = match name.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => repository,
                _ => name,
            };
            format!("{}@{}", familiar(repository), image.descriptor.digest)
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

/// `bricklayer history`
pub(crate) async fn history(
    args: &HistoryArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    let image = open(global, environment)?.inspect(&args.image, platform(args.platform.as_deref())?).await?;
    print(&history_text(&image, args, SystemTime::now()))?;
    Ok(())
}

/// Newest first, as Docker has it. The sizes are those of the layers' blobs.
fn history_text(image: &ImageDetails, args: &HistoryArgs, now: SystemTime) -> String {
    let mut layers = image.layers.iter();
    let rows: Vec<(Option<&str>, String, Option<u64>, &str)> = image
        .config
        .history
        .iter()
        .map(|entry| {
            let size = if entry.empty_layer { None } else { layers.next().map(|layer| layer.size) };
            (entry.created.as_deref(), one_line(&entry.created_by), size, entry.comment.as_str())
        })
        .collect();
    if args.format == Format::Json {
        return rows
            .iter()
            .rev()
            .map(|(created, by, size, comment)| {
                let row = json!({ "Created": created, "CreatedBy": by, "Size": size.unwrap_or(0), "Empty": size.is_none(), "Comment": comment });
                format!("{row}\n")
            })
            .collect();
    }
    const LONGEST: usize = 60;
    let mut table = Table::new(&["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for (created, by, size, comment) in rows.into_iter().rev() {
        let by = match args.no_trunc || by.chars().count() <= LONGEST {
            true => by,
            false => by.chars().take(LONGEST - 1).chain(['…']).collect(),
        };
        let size = size.map_or("-".to_owned(), bytes);
        table.row([age(created, now), by, size, one_line(comment)]);
    }
    table.to_string()
}

/// `bricklayer tag`
pub(crate) async fn tag(args: &TagArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    for name in &args.names {
        builder.tag(&args.image, name).await?;
    }
    Ok(())
}

/// `bricklayer rmi`
pub(crate) async fn rmi(args: &RmiArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    for name in &args.names {
        builder.remove(name).await?;
        print(&format!("untagged {}\n", one_line(name)))?;
    }
    Ok(())
}

/// `bricklayer pull`
pub(crate) async fn pull(args: &PullArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let platform = platform(default_platform(args.platform.as_deref(), environment))?;
    let builder = open(global, environment)?;
    for name in &args.names {
        let display = start(&args.display, environment)?;
        let pulled = builder.pull(name, platform.clone(), display.reporter()).await;
        display.finish();
        let image = pulled?;
        print(&format!("{}@{}\n", image.name, image.descriptor.digest))?;
    }
    Ok(())
}

/// `bricklayer push`
pub(crate) async fn push(args: &PushArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let builder = open(global, environment)?;
    for name in &args.names {
        let display = start(&args.display, environment)?;
        let pushed = builder.push(name, display.reporter()).await;
        display.finish();
        print(&format!("{}@{}\n", one_line(name), pushed?.digest))?;
    }
    Ok(())
}

/// `bricklayer load`
pub(crate) async fn load(args: &LoadArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let file = match args.input.as_deref().filter(|path| *path != Path::new("-")) {
        None => None,
        Some(typed) => Some(File::open(environment.path(typed)).map_err(|error| {
            Usage::new(format!("cannot read the archive `{}`", typed.display())).because(error)
        })?),
    };
    let builder = open(global, environment)?;
    let display = start(&args.display, environment)?;
    let loaded = match file {
        None => builder.load(std::io::stdin(), display.reporter()).await,
        Some(file) => builder.load(file, display.reporter()).await,
    };
    display.finish();
    let loaded = match &args.input {
        Some(typed) => loaded.with_context(|| format!("cannot load `{}`", typed.display()))?,
        None => loaded?,
    };
    for image in loaded {
        print(&format!("loaded {}@{}\n", familiar(&image.name), image.descriptor.digest))?;
    }
    Ok(())
}

/// `bricklayer save`
pub(crate) async fn save(args: &SaveArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let format = match args.format {
        Archive::Oci => ArchiveFormat::Oci,
        Archive::Docker => ArchiveFormat::Docker,
    };
    let builder = open(global, environment)?;
    let Some(typed) = args.output.as_deref().filter(|path| *path != Path::new("-")) else {
        if environment.stdout_terminal {
            return Err(Usage::new("an archive would be written to the terminal")
                .hint("name a file with -o FILE, or send standard output somewhere")
                .into());
        }
        builder.save(&args.names, format, std::io::stdout()).await?;
        return Ok(());
    };
    // complete under its name, or not there
    let path = environment.path(typed);
    let context = || format!("cannot write the archive `{}`", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    let file = tempfile::Builder::new()
        .prefix(".bricklayer-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(context)?;
    let out = file.as_file().try_clone().with_context(context)?;
    builder.save(&args.names, format, out).await?;
    file.persist(&path).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bricklayer::Digest;
    use bricklayer::cache::store::Descriptor;

    use super::*;

    fn image() -> ImageDetails {
        let blob = |text: &str, size| Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            digest: Digest::of(text.as_bytes()),
            size,
        };
        let config = r#"{"created":"2023-11-14T22:00:00Z","architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["sh"],
            "Healthcheck":{"Test":["CMD","x"]}},"rootfs":{"type":"layers","diff_ids":[]},"history":[
            {"created":"2023-11-01T00:00:00Z","created_by":"base"},
            {"created":"2023-11-14T22:00:00Z","created_by":"ENV A=b","empty_layer":true,"comment":"note"},
            {"created":"2023-11-14T22:00:00Z","created_by":"RUN /bin/sh -c make\u001b[2J a very long command line that goes on and on and on"}]}"#;
        ImageDetails {
            names: vec!["docker.io/library/app:latest".into(), "r.example:5000/x/app:1".into()],
            descriptor: blob("manifest", 500),
            manifest: blob("manifest", 500),
            config_digest: Digest::of(b"config"),
            config: serde_json::from_str(config).unwrap(),
            layers: vec![blob("a", 1_000_000), blob("b", 2048)],
            size: 1_002_548,
            created_ms: 0,
        }
    }

    #[test]
    fn inspect_has_dockers_form() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&inspection(&image())).unwrap(), @r#"
        {
          "Architecture": "amd64",
          "Author": "",
          "Config": {
            "Cmd": [
              "sh"
            ],
            "Env": [
              "A=b"
            ],
            "Healthcheck": {
              "Test": [
                "CMD",
                "x"
              ]
            }
          },
          "Created": "2023-11-14T22:00:00Z",
          "Descriptor": {
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "size": 500
          },
          "Id": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
          "Layers": [
            {
              "digest": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "size": 1000000
            },
            {
              "digest": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "size": 2048
            }
          ],
          "Os": "linux",
          "RepoDigests": [
            "app@sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "r.example:5000/x/app@sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f"
          ],
          "RepoTags": [
            "app:latest",
            "r.example:5000/x/app:1"
          ],
          "RootFS": {
            "Layers": [],
            "Type": "layers"
          },
          "Size": 1002548,
          "Variant": ""
        }
        "#);
    }

    #[test]
    fn history_is_newest_first_and_has_the_layers_sizes() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let mut args =
            HistoryArgs { image: "app".into(), no_trunc: false, platform: None, format: Format::Table };
        insta::assert_snapshot!(history_text(&image(), &args, now), @"
        CREATED          CREATED BY                                                     SIZE     COMMENT
        13 minutes ago   RUN /bin/sh -c make a very long command line that goes on a…   2.05kB
        13 minutes ago   ENV A=b                                                        -        note
        13 days ago      base                                                           1.00MB
        ");
        args.format = Format::Json;
        insta::assert_snapshot!(history_text(&image(), &args, now), @r#"
        {"Comment":"","Created":"2023-11-14T22:00:00Z","CreatedBy":"RUN /bin/sh -c make a very long command line that goes on and on and on","Empty":false,"Size":2048}
        {"Comment":"note","Created":"2023-11-14T22:00:00Z","CreatedBy":"ENV A=b","Empty":true,"Size":0}
        {"Comment":"","Created":"2023-11-01T00:00:00Z","CreatedBy":"base","Empty":false,"Size":1000000}
        "#);
    }

    #[test]
    fn patterns_fit_names_with_and_without_registry_and_tag() {
        let name = "docker.io/library/debian:12";
        for pattern in ["debian", "debian:12", "deb*", "*:12", "docker.io/library/debian", "*", "d*a*:*"] {
            assert!(fits(pattern, name), "{pattern}");
        }
        for pattern in ["ebian", "debian:1", "deb", "*x*", "debian:12*x"] {
            assert!(!fits(pattern, name), "{pattern}");
        }
        assert!(fits("r.example:5000/app", "r.example:5000/app:1"));
        assert!(!fits("aa*aa", "aaa"), "the parts of a pattern do not share letters");
    }
}
