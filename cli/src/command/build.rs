//! `bricklayer build`.

use std::path::Path;

use anyhow::Context as _;
use bricklayer::{BuildResult, Builder, Error};
use serde_json::json;

use super::args::{BuildArgs, Global};
use super::call::Call;
use super::display::{Display, Progress};
use super::environment::Environment;
use super::errors::{Failure, is_clipped};
use super::flags::{Asked, request};
use super::on_fail;
use super::usage::Usage;
use super::{builder_options, cancel_on_interrupt, live, print, progress, renderer, say};

/// Builds.
pub(crate) async fn build(
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    let call = Call::of(args)?;
    let Asked { mut request, insecure, stdout_taken } = request(args, environment)?;
    on_fail::check(args, stdout_taken, environment)?;
    let progress = progress(args.progress, args.quiet, environment)?;
    let mut options = builder_options(global, environment)?;
    options.insecure_registries.extend(insecure);
    let builder = Builder::open(options)?;
    if let Some(call) = call {
        return call.answer(&builder, request, environment).await;
    }
    let display = Display::start(renderer(progress, environment)?);
    if args.on_fail.is_some() {
        request.on_failure = Some(on_fail::shell_on_failure(display.standstill()));
    }
    let cancel = cancel_on_interrupt();
    let began = std::time::Instant::now();
    let result = builder.build(request, display.reporter(), cancel).await;
    display.finish();
    let result = result.map_err(|error| failure(error, progress, global, environment))?;
    let id = result.config.map(|digest| digest.to_string());
    if let Some(path) = &args.iidfile {
        let id = id.as_deref().ok_or_else(|| {
            Usage::new("--iidfile: the outputs are files, and an image that would have an ID was not made")
        })?;
        write_file(&environment.path(path), id.as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let mut text =
            serde_json::to_string_pretty(&metadata(&result)).context("cannot write metadata as JSON")?;
        text.push('\n');
        write_file(&environment.path(path), text.as_bytes())?;
    }
    let quiet = matches!(progress, Progress::Quiet | Progress::None);
    if !quiet && progress != Progress::Rawjson {
        say(&summary(&result, began.elapsed()));
    }
    if progress == Progress::Quiet
        && !stdout_taken
        && let Some(id) = id
    {
        print(&format!("{id}\n"))?;
    }
    Ok(())
}

/// Why the build failed; where the display did not show a step's whole log, with how it can be seen; and how what the step
/// left can be looked into.
fn failure(error: Error, progress: Progress, global: &Global, environment: &Environment) -> Failure {
    let Error::Step { place: Some(place), .. } = &error else { return error.into() };
    let shown = match progress {
        Progress::Plain | Progress::Rawjson => true,
        Progress::Auto => !live(environment),
        Progress::Tty | Progress::Quiet | Progress::None => false,
    };
    let root = global.root.as_ref().map(|root| format!("--root {} ", root.display())).unwrap_or_default();
    let mut hints = Vec::new();
    if !shown && is_clipped(&error) {
        hints.push(format!("the whole log: bricklayer {root}logs {} {}", place.build, place.step));
    }
    if place.kept {
        hints.push(format!("look into it: bricklayer {root}debug {}", place.build));
    }
    Failure::Step { error: Box::new(error), hints }
}

/// The keys of buildx's metadata file.
fn metadata(result: &BuildResult) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    if let Some(config) = result.config {
        map.insert("containerimage.config.digest".into(), json!(config));
    }
    if let Some(descriptor) = &result.image {
        map.insert("containerimage.descriptor".into(), json!(descriptor));
        map.insert("containerimage.digest".into(), json!(descriptor.digest));
    }
    if !result.names.is_empty() {
        map.insert("image.name".into(), json!(result.names.join(",")));
    }
    if !result.warnings.is_empty() {
        map.insert("buildx.build.warnings".into(), json!(result.warnings));
    }
    map.into()
}

/// What people read last.
fn summary(result: &BuildResult, took: std::time::Duration) -> String {
    let mut text = String::new();
    for warning in &result.warnings {
        text.push_str(warning.trim_end());
        text.push('\n');
    }
    let names = if result.names.is_empty() { String::new() } else { format!("{} ", result.names.join(", ")) };
    let what = match &result.config {
        Some(id) => format!("built {names}{id}"),
        None => "built".to_owned(),
    };
    let steps = match (result.steps, result.cached) {
        (1, _) => format!("1 step, {} cached", result.cached),
        (steps, cached) => format!("{steps} steps, {cached} cached"),
    };
    let took = match took.as_millis() {
        millis @ ..1000 => format!("{millis}ms"),
        _ => format!("{:.1}s", took.as_secs_f64()),
    };
    text + &format!("{what} in {took} ({steps})\n")
}

/// A file that appears whole or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), anyhow::Error> {
    let write = || {
        // a device or a pipe, such as /dev/stdout, is written to and not replaced
        if path.exists() && !path.is_file() {
            return std::fs::write(path, bytes);
        }
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".bricklayer-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use bricklayer::Digest;
    use bricklayer::cache::store::Descriptor;

    use super::*;

    fn result() -> BuildResult {
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        BuildResult {
            image: Some(Descriptor { media_type, digest: Digest::of(b"manifest"), size: 8 }),
            config: Some(Digest::of(b"config")),
            names: vec!["docker.io/library/app:latest".into(), "r.example/app:1".into()],
            warnings: vec!["warning: something".into()],
            steps: 12,
            cached: 8,
            record: None,
        }
    }

    #[test]
    fn metadata_has_buildxs_keys() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&metadata(&result())).unwrap(), @r#"
        {
          "buildx.build.warnings": [
            "warning: something"
          ],
          "containerimage.config.digest": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
          "containerimage.descriptor": {
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 8
          },
          "containerimage.digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
          "image.name": "docker.io/library/app:latest,r.example/app:1"
        }
        "#);
        assert_eq!(metadata(&BuildResult::default()), json!({}));
    }

    #[test]
    fn the_summary_names_what_was_built() {
        insta::assert_snapshot!(summary(&result(), std::time::Duration::from_millis(3210)), @"
        warning: something
        built docker.io/library/app:latest, r.example/app:1 sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910 in 3.2s (12 steps, 8 cached)
        ");
        insta::assert_snapshot!(summary(&BuildResult { steps: 1, ..BuildResult::default() }, std::time::Duration::ZERO), @"built in 0ms (1 step, 0 cached)");
    }

    #[test]
    fn files_are_written_whole_and_readable() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        for text in ["first, longer", "second"] {
            write_file(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o444, 0o444);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        let error = write_file(&directory.path().join("no/such/id"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/such/id"), "{error}");
    }
}
