//! What the flags of `build` mean: from [`BuildArgs`] and the surroundings to a [`BuildRequest`].

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use bricklayer::frontend::Entitlement;
use bricklayer::op::Network;
use bricklayer::{
    BuildRequest, Context, DockerfileSource, GraphFile, GraphForm, NamedContextSource, Platform, PullPolicy,
    Reader, Secret, SshAgent, TimingFile, TimingForm,
};

use super::args::BuildArgs;
use super::csv;
use super::environment::{Environment, PROXIES};
use super::limits::limits;
use super::output::{Outputs, outputs};
use super::usage::Usage;
use super::values::{boolean, host, name_and_value, size, ulimit};

/// A Dockerfile on standard input may have this many bytes.
const LARGEST_DOCKERFILE: u64 = 16 << 20;
/// A secret may have this many bytes, as BuildKit has it.
const LARGEST_SECRET: u64 = 500 * 1024;
/// Docker's config.json may have this many bytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// A build as the flags ask for it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// For the library.
    pub(crate) request: BuildRequest,
    /// Registries that are insecure, by `-o`.
    pub(crate) insecure: Vec<String>,
    /// An output goes to standard output, so nothing else may.
    pub(crate) stdout_taken: bool,
}

/// Makes a request of the flags.
pub(crate) fn request(args: &BuildArgs, environment: &Environment) -> Result<Asked, Usage> {
    refuse_what_is_not_there(args)?;
    let (context, dockerfile) = context(args, environment)?;
    let annotations = args
        .annotations
        .iter()
        .map(|text| {
            let (name, value) = name_and_value("--annotation", text)?;
            match name.split_once(':') {
                None => Ok((name, value)),
                Some(("manifest", name)) => Ok((name.to_owned(), value)),
                Some((kind, _)) => {
                    Err(Usage::unsupported(format!("--annotation `{text}`: an annotation of the {kind}")))
                }
            }
        })
        .collect::<Result<Vec<_>, Usage>>()?;
    let Outputs { outputs, insecure, stdout: stdout_taken } =
        outputs(&args.outputs, args.push, &annotations, &args.tags, environment)?;
    let mut build_args = build_args(args, environment)?;
    let source_date_epoch = source_date_epoch(&mut build_args, environment)?;
    let proxy = proxies(&build_args, environment)?;
    let request = BuildRequest {
        context,
        dockerfile,
        contexts: args
            .build_contexts
            .iter()
            .map(|text| named_context(text, environment))
            .collect::<Result<_, _>>()?,
        tags: args.tags.clone(),
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels: args.labels.iter().map(|text| label(text)).collect::<Result<_, _>>()?,
        platform: platform(default_platform(args.platform.as_deref(), environment))?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        pull: pull(args.pull.as_deref())?,
        outputs,
        secrets: args.secrets.iter().map(|text| secret(text, environment)).collect::<Result<_, _>>()?,
        ssh: args.ssh.iter().map(|text| ssh(text, environment)).collect::<Result<_, _>>()?,
        known_hosts: known_hosts(environment),
        entitlements: args.allow.iter().map(|text| entitlement(text)).collect::<Result<_, _>>()?,
        network: network(args.network.as_deref())?,
        extra_hosts: args.add_hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        shm_size: args.shm_size.as_deref().map(|text| size("--shm-size", text)).transpose()?,
        ulimits: args.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
        limits: limits(&args.limits)?,
        oci_runtime: oci_runtime(args.oci_runtime.as_deref(), environment)?,
        on_failure: None,
        source_date_epoch,
        proxy,
        jobs: match args.jobs {
            Some(0) => return Err(Usage::new("--jobs 0: at least one step must be able to run")),
            jobs => jobs,
        },
        graph: args.graph.iter().map(|path| graph(path, environment)).collect::<Result<_, _>>()?,
        timing: args.timing.iter().map(|path| timing(path, environment)).collect::<Result<_, _>>()?,
        cache_limit: cache_limit(args.cache_limit.as_deref(), environment)?,
    };
    Ok(Asked { request, insecure, stdout_taken })
}

/// Where OpenSSH keeps them.
fn known_hosts(environment: &Environment) -> Vec<PathBuf> {
    let Some(home) = environment.get("HOME").map(Path::new).filter(|home| home.is_absolute()) else {
        return Vec::new();
    };
    ["known_hosts", "known_hosts2"].map(|name| home.join(".ssh").join(name)).into()
}

fn cache_limit(typed: Option<&str>, environment: &Environment) -> Result<Option<u64>, Usage> {
    match (typed, environment.setting("BRICKLAYER_CACHE_LIMIT")) {
        (Some(text), _) => size("--cache-limit", text).map(Some),
        (None, Some(text)) => size("BRICKLAYER_CACHE_LIMIT", text).map(Some),
        (None, None) => Ok(None),
    }
}

/// A file for the graph; its name says the form.
fn graph(typed: &Path, environment: &Environment) -> Result<GraphFile, Usage> {
    let form = match typed.extension().and_then(|extension| extension.to_str()) {
        Some("dot" | "gv") => GraphForm::Dot,
        Some("json") => GraphForm::Json,
        Some("svg") => GraphForm::Svg,
        _ => {
            return Err(Usage::new(format!("--graph `{}`: the name does not say the form", typed.display()))
                .hint("a name that ends in .dot, .json or .svg"));
        }
    };
    Ok(GraphFile { path: in_directory("--graph", typed, environment)?, form })
}

/// A file for where the time went; its name says the form.
pub(crate) fn timing(typed: &Path, environment: &Environment) -> Result<TimingFile, Usage> {
    let form = match typed.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => TimingForm::Html,
        Some("json") => TimingForm::Trace,
        _ => {
            return Err(Usage::new(format!(
                "--timing `{}`: the name does not say the form",
                typed.display()
            ))
            .hint("a name that ends in .html or .json"));
        }
    };
    Ok(TimingFile { path: in_directory("--timing", typed, environment)?, form })
}

/// The path of a file that is written after the build. That its directory is missing is said now.
fn in_directory(flag: &str, typed: &Path, environment: &Environment) -> Result<PathBuf, Usage> {
    let path = environment.path(typed);
    if let Some(directory) = path.parent()
        && !directory.is_dir()
    {
        let (typed, shown) = (typed.display(), environment.shown(directory));
        return Err(Usage::new(format!("{flag} `{typed}`: `{}` is not a directory", shown.display())));
    }
    Ok(path)
}

/// Flags that Docker has and this builder has not: said, never ignored. What asks for the way it is anyway passes.
fn refuse_what_is_not_there(args: &BuildArgs) -> Result<(), Usage> {
    let given: [(&str, bool); 11] = [
        ("--cache-from", !args.cache_from.is_empty()),
        ("--cache-to", !args.cache_to.is_empty()),
        ("--attest", !args.attest.is_empty()),
        ("--policy", !args.policy.is_empty()),
        ("--device", !args.device.is_empty()),
        ("--security-opt", !args.security_opt.is_empty()),
        ("--squash", args.squash),
        ("--compress", args.compress),
        ("--builder", args.builder.as_deref().is_some_and(|name| !matches!(name, "" | "default"))),
        ("--isolation", args.isolation.as_deref().is_some_and(|name| !matches!(name, "" | "default"))),
        ("--load", args.load),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
        let usage = Usage::unsupported(flag);
        return Err(match *flag {
            "--load" => usage.hint("the image goes into bricklayer's store anyway; for Docker: -o type=docker,dest=- | docker load"),
            "--compress" => usage.hint("the context is read where it lies, and nothing is sent"),
            _ => usage,
        });
    }
    for (flag, value) in [("--provenance", &args.provenance), ("--sbom", &args.sbom)] {
        if let Some(value) = value
            && !matches!(boolean(flag, value), Ok(false))
        {
            return Err(Usage::unsupported(format!("{flag}={value}"))
                .hint(format!("{flag}=false is how it is anyway")));
        }
    }
    for (flag, value) in [("--rm", &args.rm), ("--force-rm", &args.force_rm)] {
        if let Some(value) = value
            && flag == "--rm"
            && !boolean(flag, value)?
        {
            return Err(
                Usage::unsupported("--rm=false").hint("steps leave no containers behind that could be kept")
            );
        }
    }
    Ok(())
}

/// Is this argument of the kind that BuildKit takes as a URL?
fn is_remote(text: &str) -> bool {
    const PREFIXES: [&str; 6] = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
    PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// Is it a file over HTTP, and no repository?
fn is_file_url(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    (text.starts_with("http://") || text.starts_with("https://")) && !path.ends_with(".git")
}

/// The context, and the Dockerfile that belongs to it.
///
/// `-f` is taken from the current directory and may lie outside the context; where the context is no directory, it is
/// a path in it.
fn context(args: &BuildArgs, environment: &Environment) -> Result<(Context, DockerfileSource), Usage> {
    let file = args.file.as_deref();
    if file == Some("") {
        return Err(Usage::new("-f is empty"));
    }
    let url = file.filter(|path| is_remote(path) && !environment.path(path).exists());
    if let Some(url) = url.filter(|url| !is_file_url(url)) {
        return Err(Usage::unsupported(format!("-f `{url}`: a Dockerfile in a repository"))
            .hint("make the repository the context, and name the file in it"));
    }
    if args.context == "-" {
        if file == Some("-") {
            return Err(Usage::new("both the context and the Dockerfile are to come from standard input"));
        }
        return standard_input(file, environment);
    }
    let directory = environment.path(&args.context);
    if !directory.exists() && is_remote(&args.context) {
        let dockerfile = match file {
            None => DockerfileSource::InContext,
            Some("-") => DockerfileSource::Text(dockerfile_text(&environment.stdin())?),
            Some(url) if is_file_url(url) => DockerfileSource::Url(url.to_owned()),
            Some(path) => DockerfileSource::PathInContext(path.to_owned()),
        };
        return Ok((Context::Remote(args.context.clone()), dockerfile));
    }
    if args.context.is_empty() {
        return Err(Usage::new("the context is empty").hint("`.` is the current directory"));
    }
    match std::fs::metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let usage = Usage::new(format!("the context `{}` is not a directory", args.context));
            return Err(usage.hint(format!("a Dockerfile is named with -f: build -f {} .", args.context)));
        }
        Err(error) => {
            return Err(Usage::new(format!("cannot read the context `{}`", args.context)).because(error));
        }
    }
    let dockerfile = match file {
        Some("-") => DockerfileSource::Text(dockerfile_text(&environment.stdin())?),
        Some(_) if let Some(url) = url => DockerfileSource::Url(url.to_owned()),
        Some(path) => {
            let found = environment.path(path);
            match std::fs::metadata(&found) {
                Ok(metadata) if metadata.is_dir() => {
                    return Err(Usage::new(format!("-f `{path}` is a directory"))
                        .hint(format!("such as -f {}", Path::new(path).join("Dockerfile").display())));
                }
                Ok(_) => DockerfileSource::File(environment.shown(&found)),
                Err(error) => {
                    let usage = Usage::new(format!("cannot read the Dockerfile `{path}`")).because(error);
                    return Err(match directory.join(path).is_file() {
                        true => usage.hint(format!(
                            "-f counts from the current directory: -f {}",
                            Path::new(&args.context).join(path).display()
                        )),
                        false => usage,
                    });
                }
            }
        }
        None => DockerfileSource::File(environment.shown(&default_dockerfile(&directory, &args.context)?)),
    };
    Ok((Context::Directory(directory), dockerfile))
}

fn default_dockerfile(directory: &Path, typed: &str) -> Result<PathBuf, Usage> {
    for name in ["Dockerfile", "dockerfile"] {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let usage = Usage::new(format!("there is no Dockerfile in `{typed}`"));
    for name in ["Containerfile", "docker/Dockerfile", "Dockerfile.dev"] {
        if directory.join(name).is_file() {
            return Err(usage.hint(format!("name it: -f {}", Path::new(typed).join(name).display())));
        }
    }
    Err(usage.hint("name it with -f FILE"))
}

/// `-` as context: a tar, or else a Dockerfile that has no context.
fn standard_input(
    file: Option<&str>,
    environment: &Environment,
) -> Result<(Context, DockerfileSource), Usage> {
    let Reader(stdin) = environment.stdin();
    let mut head = Vec::new();
    {
        let mut stdin = stdin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (&mut *stdin)
            .take(512)
            .read_to_end(&mut head)
            .map_err(|e| Usage::new("cannot read standard input").because(e))?;
    }
    if head.is_empty() {
        return Err(Usage::new("standard input is empty, but the context `-` is to be read from it"));
    }
    let tar = is_archive(&head);
    let whole = std::io::Cursor::new(head).chain(Shared(stdin));
    let reader = Reader(std::sync::Arc::new(std::sync::Mutex::new(whole)));
    if tar {
        let dockerfile = match file {
            Some(url) if is_file_url(url) => DockerfileSource::Url(url.to_owned()),
            Some(path) => DockerfileSource::PathInContext(path.to_owned()),
            None => DockerfileSource::InContext,
        };
        return Ok((Context::Tar(reader), dockerfile));
    }
    if let Some(file) = file {
        return Err(Usage::new(format!("-f `{file}`: standard input is no tar archive that could hold it")));
    }
    Ok((Context::Empty, DockerfileSource::Text(dockerfile_text(&reader)?)))
}

struct Shared(std::sync::Arc<std::sync::Mutex<dyn Read + Send>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(buffer)
    }
}

/// By the magic numbers of tar (POSIX ustar, at 257), gzip, bzip2, xz and zstd.
fn is_archive(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
        || [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]
            .iter()
            .any(|magic| head.starts_with(magic))
}

fn dockerfile_text(Reader(reader): &Reader) -> Result<String, Usage> {
    let mut bytes = Vec::new();
    let mut reader = reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    (&mut *reader)
        .take(LARGEST_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Usage::new("cannot read the Dockerfile from standard input").because(e))?;
    if bytes.len() as u64 > LARGEST_DOCKERFILE {
        return Err(Usage::new("the Dockerfile on standard input is larger than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| Usage::new("the Dockerfile on standard input is not UTF-8"))
}

pub(crate) fn named_context(
    text: &str,
    environment: &Environment,
) -> Result<(String, NamedContextSource), Usage> {
    let (name, value) = name_and_value("--build-context", text)?;
    let source = if let Some(image) = value.strip_prefix("docker-image://") {
        NamedContextSource::Image(image.to_owned())
    } else if let Some(path) = value.strip_prefix("oci-layout://") {
        NamedContextSource::Layout(environment.path(path).display().to_string())
    } else if value.starts_with("target:") || value.starts_with("input:") {
        return Err(Usage::unsupported(format!("--build-context `{text}`")));
    } else {
        let path = environment.path(&value);
        if !path.exists() && is_remote(&value) {
            NamedContextSource::Remote(value)
        } else {
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => NamedContextSource::Directory(path),
                Ok(_) => {
                    return Err(Usage::new(format!(
                        "--build-context `{text}`: `{value}` is not a directory"
                    )));
                }
                Err(error) => {
                    let usage =
                        Usage::new(format!("--build-context `{text}`: cannot read `{value}`")).because(error);
                    return Err(
                        usage.hint("an image is written docker-image://REF, a layout oci-layout://DIR[:TAG]")
                    );
                }
            }
        }
    };
    Ok((name, source))
}

fn build_args(args: &BuildArgs, environment: &Environment) -> Result<Vec<(String, Option<String>)>, Usage> {
    args.build_args
        .iter()
        .map(|text| match text.split_once('=') {
            Some(("", _)) => Err(Usage::new(format!("--build-arg `{text}` has no name"))),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None if text.is_empty() => Err(Usage::new("--build-arg is empty")),
            None => Ok((text.clone(), environment.get(text).map(str::to_owned))),
        })
        .collect()
}

/// From `--build-arg`, or else from the environment; what comes from there becomes a build arg too, as with buildx.
fn source_date_epoch(
    build_args: &mut Vec<(String, Option<String>)>,
    environment: &Environment,
) -> Result<Option<i64>, Usage> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if !build_args.iter().any(|(name, _)| name == NAME)
        && let Some(value) = environment.setting(NAME)
    {
        build_args.push((NAME.to_owned(), Some(value.to_owned())));
    }
    let value =
        build_args.iter().rev().find(|(name, _)| name == NAME).and_then(|(_, value)| value.as_deref());
    match value {
        None | Some("") => Ok(None),
        Some(value) => value.trim().parse().map(Some).map_err(|_| {
            Usage::new(format!("{NAME} `{value}` is not a number"))
                .hint("seconds since 1970, such as the output of `git log -1 --format=%ct`")
        }),
    }
}

/// Proxies for RUN and ADD: those of Docker's config.json, and above them those given as build args.
pub(crate) fn proxies(
    build_args: &[(String, Option<String>)],
    environment: &Environment,
) -> Result<Vec<(String, String)>, Usage> {
    let mut proxies: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        proxies.retain(|(known, _)| known != name);
        proxies.push((name.to_owned(), value.to_owned()));
    };
    if let Some(path) = environment.docker_config() {
        for (name, value) in config_proxies(&path)? {
            set(&name, &value);
            set(&name.to_lowercase(), &value);
        }
    }
    for (name, value) in build_args {
        if let Some(value) = value
            && PROXIES.contains(&name.to_uppercase().as_str())
            && (*name == name.to_uppercase() || *name == name.to_lowercase())
        {
            set(name, value);
        }
    }
    Ok(proxies)
}

/// `proxies.default` of Docker's config.json (docs.docker.com, "Use a proxy server with the Docker CLI").
fn config_proxies(path: &Path) -> Result<Vec<(String, String)>, Usage> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        Usage::new(format!("cannot read Docker's configuration `{}`", path.display())).because(error)
    };
    let text = match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(LARGEST_CONFIG).read_to_string(&mut text).map_err(|e| broken(e.into()))?;
            text
        }
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(broken(error.into())),
    };
    let config: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(e.into()))?;
    // in the order of `PROXIES`
    let keys = ["httpProxy", "httpsProxy", "ftpProxy", "noProxy", "allProxy"];
    let default = &config["proxies"]["default"];
    Ok(PROXIES
        .iter()
        .zip(keys)
        .filter_map(|(name, key)| Some(((*name).to_owned(), default[key].as_str()?.to_owned())))
        .collect())
}

fn label(text: &str) -> Result<(String, String), Usage> {
    // Docker takes a label without a value
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if !text.trim().is_empty() => Ok((text.to_owned(), String::new())),
        _ => Err(Usage::new(format!("--label `{text}` has no name"))),
    }
}

/// The OCI runtime as typed, or that of the environment: a path, or a name that is looked for in PATH.
pub(crate) fn oci_runtime(typed: Option<&Path>, environment: &Environment) -> Result<Option<PathBuf>, Usage> {
    const VARIABLE: &str = "BRICKLAYER_OCI_RUNTIME";
    let (what, name) = match (typed, environment.setting(VARIABLE)) {
        (Some(typed), _) => ("--oci-runtime", typed),
        (None, Some(name)) => (VARIABLE, Path::new(name)),
        (None, None) => return Ok(None),
    };
    let fail = |why: &str| Usage::new(format!("{what} `{}`: {why}", name.display()));
    let is_program = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        let path = environment.path(name);
        return if is_program(&path) { Ok(Some(path)) } else { Err(fail("there is no such program")) };
    }
    let directories =
        environment.get("PATH").unwrap_or_default().split(':').filter(|dir| dir.starts_with('/'));
    let found = directories.map(|directory| Path::new(directory).join(name)).find(|path| is_program(path));
    found.map(Some).ok_or_else(|| {
        fail("there is no such program in PATH").hint("such as runc or crun: apt-get install runc")
    })
}

/// The platform as typed, or that of the environment.
pub(crate) fn default_platform<'a>(typed: Option<&'a str>, environment: &'a Environment) -> Option<&'a str> {
    typed.or_else(|| environment.setting("DOCKER_DEFAULT_PLATFORM"))
}

/// One platform.
pub(crate) fn platform(text: Option<&str>) -> Result<Option<Platform>, Usage> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.contains(',') {
        return Err(Usage::unsupported(format!(
            "--platform `{text}`: building for several platforms at once"
        )));
    }
    text.parse().map(Some).map_err(|error| Usage::new("--platform").because(error))
}

pub(crate) fn pull(text: Option<&str>) -> Result<PullPolicy, Usage> {
    match text {
        None | Some("missing" | "false") => Ok(PullPolicy::Missing),
        Some("always" | "true") => Ok(PullPolicy::Always),
        Some("never") => Ok(PullPolicy::Never),
        Some(other) => Err(Usage::new(format!("--pull `{other}` is no policy"))
            .suggest(other, &["always", "missing", "never"])),
    }
}

pub(crate) fn network(text: Option<&str>) -> Result<Network, Usage> {
    match text {
        None | Some("" | "default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Usage::new(format!("--network `{other}` is no network"))
            .suggest(other, &["default", "none", "host"])),
    }
}

pub(crate) fn entitlement(text: &str) -> Result<Entitlement, Usage> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        "device" => Err(Usage::unsupported("--allow `device`")),
        other => Err(Usage::new(format!("--allow `{other}` is no entitlement"))
            .suggest(other, &["network.host", "security.insecure"])),
    }
}

/// `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`. The value is read now, so that a missing file is an error
/// before the build starts.
pub(crate) fn secret(text: &str, environment: &Environment) -> Result<Secret, Usage> {
    const KEYS: [&str; 5] = ["id", "src", "source", "env", "type"];
    let fail = |why: String| Usage::new(format!("--secret `{text}`: {why}"));
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for (key, value) in csv::pairs("--secret", text)? {
        let value = value.ok_or_else(|| fail(format!("`{key}` needs a value")))?;
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => variable = Some(value),
            "type" if matches!(value.as_str(), "file" | "env") => kind = Some(value),
            "type" => {
                return Err(fail(format!("there is no type `{value}`")).suggest(&value, &["file", "env"]));
            }
            other => return Err(fail(format!("there is no key `{other}`")).suggest(other, &KEYS)),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| fail("the id is missing".to_owned()))?;
    if source.is_some() && variable.is_some() {
        return Err(fail("src and env exclude each other".to_owned()));
    }
    // as buildx: with type=env, src is a variable; without both, the variable named like the secret, else the file
    let (variable, file) = match (kind.as_deref(), source, variable) {
        (Some("file"), None, Some(_)) => return Err(fail("type=file and env exclude each other".to_owned())),
        (Some("env"), source, variable) => (Some(variable.or(source).unwrap_or_else(|| id.clone())), None),
        (_, Some(source), _) => (None, Some(source)),
        (_, None, Some(variable)) => (Some(variable), None),
        (Some(_), None, None) => (None, Some(id.clone())),
        (None, None, None) if environment.get(&id).is_some() => (Some(id.clone()), None),
        (None, None, None) => (None, Some(id.clone())),
    };
    let value = match (variable, file) {
        (Some(variable), _) => environment
            .get(&variable)
            .ok_or_else(|| fail(format!("the environment variable `{variable}` is not set")))?
            .as_bytes()
            .to_vec(),
        (None, file) => {
            let file = file.unwrap_or_default();
            let mut value = Vec::new();
            File::open(environment.path(&file))
                .and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut value))
                .map_err(|error| fail(format!("cannot read `{file}`")).because(error))?;
            value
        }
    };
    if value.len() as u64 > LARGEST_SECRET {
        return Err(fail("a secret may not be larger than 500 KiB".to_owned()));
    }
    Ok(Secret { id, value })
}

/// `default`, `NAME` (the agent of SSH_AUTH_SOCK), `NAME=SOCKET` or `NAME=KEY[,KEY…]`.
pub(crate) fn ssh(text: &str, environment: &Environment) -> Result<SshAgent, Usage> {
    let fail = |why: String| Usage::new(format!("--ssh `{text}`: {why}"));
    let (id, path) = match text.split_once('=') {
        Some((id, path)) => (id, Some(path)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err(
            fail("the name is missing".to_owned()).hint("--ssh default, --ssh NAME=SOCKET or --ssh NAME=KEY")
        );
    }
    let paths: Vec<PathBuf> = match path {
        Some(paths) => paths.split(',').map(|path| environment.path(path)).collect(),
        None => vec![environment.setting("SSH_AUTH_SOCK").map(|path| environment.path(path)).ok_or_else(
            || {
                fail("SSH_AUTH_SOCK is not set".to_owned())
                    .hint("start an agent: eval $(ssh-agent) && ssh-add, or name a key: --ssh NAME=FILE")
            },
        )?],
    };
    for path in &paths {
        let metadata = std::fs::metadata(path)
            .map_err(|error| fail(format!("cannot read `{}`", path.display())).because(error))?;
        if metadata.file_type().is_socket() {
            return match paths.as_slice() {
                [socket] => Ok(SshAgent::at(id, socket)),
                _ => Err(fail(format!("`{}` is an agent's socket, which goes alone", path.display()))),
            };
        }
    }
    SshAgent::with_keys(id, &paths).map_err(|error| {
        let mut failed = fail(error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            failed = failed.because(source.to_string());
        }
        match error.hint() {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    })
}

#[cfg(test)]
mod tests;
