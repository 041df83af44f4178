//! `-o`, `--output`: where results go.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bricklayer::cache::store::Compression;
use bricklayer::{Dest, ImageOptions, ImageOutput, Output};

use super::csv;
use super::environment::Environment;
use super::usage::Usage;
use super::values::boolean;

const TYPES: [&str; 7] = ["oci", "docker", "tar", "local", "image", "registry", "cacheonly"];
const IMAGE_KEYS: [&str; 4] = ["compression", "force-compression", "oci-mediatypes", "annotation.NAME"];
/// What BuildKit has and we do not (yet).
const UNSUPPORTED: [&str; 16] = [
    "attestation-inline",
    "attestation-prefix",
    "buildinfo",
    "compatibility-version",
    "compression-level",
    "context",
    "dangling-name-prefix",
    "mode",
    "name-canonical",
    "oci-artifact",
    "prefer-nondist-layers",
    "push-by-digest",
    "rewrite-timestamp",
    "source-date-epoch",
    "unpack",
    "unsafe-internal-store-allow-incomplete",
];

/// What `-o` values mean.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// In the order given.
    pub(crate) outputs: Vec<Output>,
    /// Hosts whose registry is insecure (`registry.insecure=true`).
    pub(crate) insecure: Vec<String>,
    /// Does one of them write to standard output?
    pub(crate) stdout: bool,
}

/// Reads the values of `-o`; `--push` and `--annotation` change those that are images.
pub(crate) fn outputs(
    values: &[String],
    push: bool,
    annotations: &[(String, String)],
    tags: &[String],
    environment: &Environment,
) -> Result<Outputs, Usage> {
    let mut all = Outputs::default();
    for value in values {
        let output = one(value, tags, environment, &mut all)?;
        all.outputs.push(output);
    }
    if push {
        let mut found = false;
        for output in &mut all.outputs {
            if let Output::Image(image) = output {
                image.push = true;
                found = true;
            }
        }
        if !found {
            all.outputs.push(Output::Image(ImageOutput {
                push: true,
                store: true,
                ..ImageOutput::default()
            }));
        }
    }
    if all.outputs.is_empty() && !annotations.is_empty() {
        all.outputs.push(Output::Image(ImageOutput { store: true, ..ImageOutput::default() }));
    }
    for output in &mut all.outputs {
        if let Output::Image(image) = output
            && image.push
            && image.names.is_empty()
            && tags.is_empty()
        {
            return Err(Usage::new("there is no name to push the image under").hint("give it one with -t"));
        }
        match output {
            Output::Image(ImageOutput { options, .. })
            | Output::Oci { options, .. }
            | Output::Docker { options, .. } => {
                options.annotations.extend(annotations.iter().cloned());
            }
            Output::Tar { .. } | Output::Local { .. } => {}
        }
    }
    Ok(all)
}

fn one(value: &str, tags: &[String], environment: &Environment, all: &mut Outputs) -> Result<Output, Usage> {
    if value.is_empty() {
        return Err(Usage::new("-o is empty").hint("such as -o type=oci,dest=app.tar, or -o DIR"));
    }
    if value == "-" {
        return Ok(Output::Tar { dest: stdout("-o -", environment, all)? });
    }
    if !value.contains('=') {
        return Ok(Output::Local { dest: environment.path(value) });
    }
    let mut fields = Fields { value, pairs: csv::pairs("-o", value)? };
    let Some(kind) = fields.take("type")? else {
        return Err(Usage::new(format!("-o `{value}` has no type")).hint(format!("type={}", TYPES.join("|"))));
    };
    let output = match kind.as_str() {
        "oci" => {
            let tar = fields.take_bool("tar")?.unwrap_or(true);
            let options = fields.image_options(false)?;
            let dest = match fields.take("dest")? {
                Some(dest) if !tar && dest != "-" => Dest::Directory(environment.path(dest)),
                _ if !tar => {
                    return Err(Usage::new(format!("-o `{value}`: tar=false needs dest=DIR")));
                }
                dest => tar_dest(value, dest, environment, all)?,
            };
            Output::Oci { dest, options }
        }
        "docker" => {
            if fields.take_bool("tar")? == Some(false) {
                return Err(Usage::new(format!("-o `{value}`: a docker archive is always a tar"))
                    .hint("type=oci has a directory form"));
            }
            let options = fields.image_options(true)?;
            let dest = fields.take("dest")?;
            if dest.is_none() {
                return Err(Usage::unsupported(format!("-o `{value}`: handing an image to Docker"))
                    .hint("-o type=docker,dest=- | docker load"));
            }
            Output::Docker { dest: tar_dest(value, dest, environment, all)?, options }
        }
        "tar" => {
            let dest = fields.take("dest")?;
            Output::Tar { dest: tar_dest(value, dest, environment, all)? }
        }
        "local" => {
            fields.expect_bool("platform-split", false)?;
            match fields.take("dest")? {
                Some(dest) if dest != "-" => Output::Local { dest: environment.path(dest) },
                _ => return Err(Usage::new(format!("-o `{value}` needs dest=DIR"))),
            }
        }
        "image" | "registry" => {
            let names = match fields.take("name")? {
                Some(names) => csv::fields("-o name", &names)?,
                None => Vec::new(),
            };
            let push = fields.take_bool("push")?.unwrap_or(kind == "registry");
            let store = fields.take_bool("store")?.unwrap_or(true);
            if fields.take_bool("registry.insecure")? == Some(true) {
                let named = if names.is_empty() { tags } else { &names };
                all.insecure.extend(named.iter().map(|name| registry_of(name)));
            }
            Output::Image(ImageOutput { names, push, store, options: fields.image_options(false)? })
        }
        "cacheonly" => Output::Image(ImageOutput::default()),
        other => {
            return Err(
                Usage::new(format!("-o `{value}`: there is no type `{other}`")).suggest(other, &TYPES)
            );
        }
    };
    fields.end(match kind.as_str() {
        "oci" => &["type", "dest", "tar"],
        "docker" | "tar" | "local" => &["type", "dest"],
        _ => &["type", "name", "push", "store", "registry.insecure"],
    })?;
    Ok(output)
}

/// The registry that a name says: the part before the first slash, if it looks like a host.
fn registry_of(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

fn tar_dest(
    value: &str,
    dest: Option<String>,
    environment: &Environment,
    all: &mut Outputs,
) -> Result<Dest, Usage> {
    match dest.as_deref() {
        None | Some("-") => stdout(&format!("-o `{value}`"), environment, all),
        Some("") => Err(Usage::new(format!("-o `{value}`: dest is empty"))),
        Some(path) => {
            let path = environment.path(path);
            if path.is_dir() {
                return Err(Usage::new(format!("-o `{value}`: `{}` is a directory", path.display()))
                    .hint("dest must name the archive; type=oci,tar=false writes a directory"));
            }
            Ok(Dest::File(path))
        }
    }
}

fn stdout(what: &str, environment: &Environment, all: &mut Outputs) -> Result<Dest, Usage> {
    if environment.stdout_terminal {
        return Err(Usage::new(format!("{what} would write an archive to the terminal"))
            .hint("name a file with dest=FILE, or send standard output somewhere"));
    }
    if all.stdout {
        return Err(Usage::new(format!("{what}: another output goes to standard output already")));
    }
    all.stdout = true;
    Ok(Dest::Writer(Arc::new(Mutex::new(std::io::stdout())) as Arc<Mutex<dyn Write + Send>>))
}

/// The fields of one `-o` that have not been understood yet.
struct Fields<'a> {
    value: &'a str,
    pairs: Vec<(String, Option<String>)>,
}

impl Fields<'_> {
    fn take(&mut self, key: &str) -> Result<Option<String>, Usage> {
        let Some(at) = self.pairs.iter().position(|(known, _)| known == key) else { return Ok(None) };
        match self.pairs.remove(at).1 {
            Some(value) => Ok(Some(value)),
            None => Err(Usage::new(format!("-o `{}`: `{key}` needs a value", self.value))),
        }
    }

    /// A flag without a value is true.
    fn take_bool(&mut self, key: &str) -> Result<Option<bool>, Usage> {
        let Some(at) = self.pairs.iter().position(|(known, _)| known == key) else { return Ok(None) };
        let (_, value) = self.pairs.remove(at);
        let what = format!("-o `{}`: {key}", self.value);
        value.map_or(Ok(true), |value| boolean(&what, &value)).map(Some)
    }

    /// A key for which there is only one way so far.
    fn expect_bool(&mut self, key: &str, only: bool) -> Result<(), Usage> {
        match self.take_bool(key)? {
            Some(value) if value != only => {
                Err(Usage::unsupported(format!("-o `{}`: {key}={value}", self.value)))
            }
            _ => Ok(()),
        }
    }

    fn image_options(&mut self, docker: bool) -> Result<ImageOptions, Usage> {
        const KINDS: [&str; 3] = ["uncompressed", "gzip", "zstd"];
        let compression = match self.take("compression")?.as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::None,
            Some("estargz") => {
                return Err(Usage::unsupported(format!("-o `{}`: compression=estargz", self.value)));
            }
            Some(other) => {
                return Err(Usage::new(format!("-o `{}`: there is no compression `{other}`", self.value))
                    .suggest(other, &KINDS));
            }
        };
        let force_compression = self.take_bool("force-compression")?.unwrap_or(false);
        let docker_media_types = !self.take_bool("oci-mediatypes")?.unwrap_or(!docker);
        let mut annotations = Vec::new();
        let mut rest = Vec::new();
        for (key, value) in std::mem::take(&mut self.pairs) {
            let name = key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest."));
            match (name, value) {
                (Some(name), Some(value)) if !name.is_empty() => annotations.push((name.to_owned(), value)),
                (_, value) => rest.push((key, value)),
            }
        }
        self.pairs = rest;
        Ok(ImageOptions { compression, force_compression, docker_media_types, annotations })
    }

    /// What is left is not understood.
    fn end(self, keys: &[&str]) -> Result<(), Usage> {
        let Some((key, _)) = self.pairs.into_iter().next() else { return Ok(()) };
        let value = self.value;
        if UNSUPPORTED.contains(&key.as_str()) || key.starts_with("annotation-") {
            return Err(Usage::unsupported(format!("-o `{value}`: `{key}`")));
        }
        let mut known = keys.to_vec();
        if !value.contains("type=tar") && !value.contains("type=local") {
            known.extend(IMAGE_KEYS);
        }
        Err(Usage::new(format!("-o `{value}`: there is no key `{key}` for this type")).suggest(&key, &known))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(values: &[&str], push: bool, tags: &[&str]) -> Result<Outputs, Usage> {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let environment = Environment::fake(Path::new("/cwd"), &[], b"");
        outputs(&owned(values), push, &[], &owned(tags), &environment)
    }

    #[test]
    fn outputs_as_docker_takes_them() {
        let cases: [(&[&str], bool); 12] = [
            (&["type=oci,dest=a.tar"], false),
            (&["type=oci,dest=dir,tar=false,compression=zstd,force-compression"], false),
            (&["type=docker,dest=/abs/a.tar"], false),
            (&["type=tar"], false),
            (&["type=local,dest=out"], false),
            (&["out/dir"], false),
            (&["-"], false),
            (&["type=image,\"name=a,b\",store=false,annotation.org.example.a=b=c"], false),
            (&["type=registry,compression=uncompressed,oci-mediatypes=false"], false),
            (&["type=cacheonly"], false),
            (&["type=oci,dest=a.tar", "type=image"], true),
            (&[], true),
        ];
        let shown: Vec<String> = cases
            .iter()
            .map(|(values, push)| {
                let outputs = parse(values, *push, &["app"]).unwrap();
                format!("{values:?}{}\n    {:?}", if *push { " --push" } else { "" }, outputs.outputs)
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        ["type=oci,dest=a.tar"]
            [Oci { dest: File("/cwd/a.tar"), options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [] } }]
        ["type=oci,dest=dir,tar=false,compression=zstd,force-compression"]
            [Oci { dest: Directory("/cwd/dir"), options: ImageOptions { compression: Zstd, force_compression: true, docker_media_types: false, annotations: [] } }]
        ["type=docker,dest=/abs/a.tar"]
            [Docker { dest: File("/abs/a.tar"), options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: true, annotations: [] } }]
        ["type=tar"]
            [Tar { dest: Writer }]
        ["type=local,dest=out"]
            [Local { dest: "/cwd/out" }]
        ["out/dir"]
            [Local { dest: "/cwd/out/dir" }]
        ["-"]
            [Tar { dest: Writer }]
        ["type=image,\"name=a,b\",store=false,annotation.org.example.a=b=c"]
            [Image(ImageOutput { names: ["a", "b"], push: false, store: false, options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [("org.example.a", "b=c")] } })]
        ["type=registry,compression=uncompressed,oci-mediatypes=false"]
            [Image(ImageOutput { names: [], push: true, store: true, options: ImageOptions { compression: None, force_compression: false, docker_media_types: true, annotations: [] } })]
        ["type=cacheonly"]
            [Image(ImageOutput { names: [], push: false, store: false, options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [] } })]
        ["type=oci,dest=a.tar", "type=image"] --push
            [Oci { dest: File("/cwd/a.tar"), options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [] } }, Image(ImageOutput { names: [], push: true, store: true, options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [] } })]
        [] --push
            [Image(ImageOutput { names: [], push: true, store: true, options: ImageOptions { compression: Gzip, force_compression: false, docker_media_types: false, annotations: [] } })]
        "#);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let cases: [&[&str]; 18] = [
            &[""],
            &["dest=a"],
            &["type=oic,dest=a"],
            &["type=oci,dst=a"],
            &["type=oci,dest"],
            &["type=oci,dest="],
            &["type=oci,dest=/"],
            &["type=oci,tar=false"],
            &["type=oci,dest=a,dest=b"],
            &["type=oci,dest=a,compression=gz"],
            &["type=oci,dest=a,compression=estargz"],
            &["type=oci,dest=a,compression-level=3"],
            &["type=oci,dest=a,force-compression=maybe"],
            &["type=local"],
            &["type=local,dest=a,platform-split=true"],
            &["type=docker"],
            &["-", "type=tar"],
            &["type=registry"],
        ];
        let shown: Vec<String> = cases
            .iter()
            .map(|values| {
                let usage = parse(values, false, &[]).unwrap_err();
                format!(
                    "{usage}{}",
                    usage.hint_text().map(|h| format!("\n    hint: {h}")).unwrap_or_default()
                )
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        -o is empty
            hint: such as -o type=oci,dest=app.tar, or -o DIR
        -o `dest=a` has no type
            hint: type=oci|docker|tar|local|image|registry|cacheonly
        -o `type=oic,dest=a`: there is no type `oic`
            hint: did you mean `oci`?
        -o `type=oci,dst=a`: there is no key `dst` for this type
            hint: did you mean `dest`?
        -o `type=oci,dest`: `dest` needs a value
        -o `type=oci,dest=`: dest is empty
        -o `type=oci,dest=/`: `/` is a directory
            hint: dest must name the archive; type=oci,tar=false writes a directory
        -o `type=oci,tar=false`: tar=false needs dest=DIR
        -o `type=oci,dest=a,dest=b`: `dest` is given twice
        -o `type=oci,dest=a,compression=gz`: there is no compression `gz`
            hint: known: uncompressed, gzip, zstd
        -o `type=oci,dest=a,compression=estargz`: compression=estargz is not supported yet
        -o `type=oci,dest=a,compression-level=3`: `compression-level` is not supported yet
        -o `type=oci,dest=a,force-compression=maybe`: force-compression: `maybe` is neither true nor false
        -o `type=local` needs dest=DIR
        -o `type=local,dest=a,platform-split=true`: platform-split=true is not supported yet
        -o `type=docker`: handing an image to Docker is not supported yet
            hint: -o type=docker,dest=- | docker load
        -o `type=tar`: another output goes to standard output already
        there is no name to push the image under
            hint: give it one with -t
        ");
    }

    #[test]
    fn an_insecure_registry_is_that_of_the_names() {
        let outputs = parse(
            &["type=registry,registry.insecure=true"],
            false,
            &["localhost:5000/a", "b/c", "r.example/d:1"],
        )
        .unwrap();
        assert_eq!(outputs.insecure, ["localhost:5000", "docker.io", "r.example"]);
    }
}
