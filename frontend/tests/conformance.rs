//! The cases of `testdata/conformance`, as far as the frontend decides them: the image's configuration, its history word for word,
//! how many layers it has, and which Dockerfiles are refused. Files are the worker's part.
//!
//! A case is one text file: `key: value` lines, then `-- path --` sections that become files; NAME.expected.json beside it is what
//! BuildKit made of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bricklayer_frontend::{
    Dockerfile, Entitlement, ImageOrigin, ImageQuery, NamedContext, Options, ResolveError, ResolvedImage,
    Resolver, ignore, lower, render,
};
use bricklayer_solver::graph::{Graph, VertexId};
use bricklayer_solver::image::{History, ImageConfig};
use bricklayer_solver::op::{FileAction, Network, Op};
use bricklayer_solver::{Digest, Platform};
use serde_json::{Value, json};

/// Cases that fail only when the build runs: a file is missing, a command fails, a secret is not given.
const FAIL_WHEN_RUN: &[&str] = &[
    "copy-directory-onto-file-fails",
    "copy-from-missing-path-fails",
    "copy-missing-source",
    "copy-parents-missing-fails",
    "dockerignore-copy-of-ignored-fails",
    "mount-bind-missing-source-fails",
    "mount-secret-required-fails",
    "run-exit-code-fails",
    "run-failure-shows-the-command",
    "run-heredoc-fails",
    "run-missing-program-fails",
    "run-output-is-shown",
    "user-unknown-fails",
];

struct Case {
    name: String,
    keys: Vec<(String, String)>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (mut keys, mut files, mut current) = (Vec::new(), BTreeMap::new(), None::<String>);
        for line in text.split_inclusive('\n') {
            let section = line.strip_prefix("-- ").and_then(|rest| rest.trim_end().strip_suffix(" --"));
            if let Some(name) = section {
                files.insert(name.to_owned(), Vec::new());
                current = Some(name.to_owned());
            } else if let Some(name) = &current {
                files.get_mut(name).unwrap().extend_from_slice(line.as_bytes());
            } else if let Some((key, value)) = line.split_once(':')
                && !line.starts_with('#')
            {
                keys.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut case = Self { name, keys, files };
        if !case.files.contains_key(case.dockerfile()) {
            case.prepare();
        }
        case
    }

    /// Some Dockerfiles have bytes that a text file can't show; a script writes them.
    fn prepare(&mut self) {
        let folder =
            std::env::temp_dir().join(format!("bricklayer-case-{}-{}", std::process::id(), self.name));
        std::fs::create_dir_all(folder.join("context")).unwrap();
        let script = String::from_utf8(self.files["prepare.sh"].clone()).unwrap();
        let status = Command::new("sh").args(["-euc", &script]).current_dir(&folder).status().unwrap();
        assert!(status.success(), "{}: prepare.sh failed", self.name);
        let name = self.dockerfile().to_owned();
        let text = std::fs::read(folder.join(&name)).unwrap();
        self.files.insert(name, text);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    fn dockerfile(&self) -> &str {
        self.one("file").unwrap_or("Dockerfile")
    }

    fn options(&self) -> Options {
        let pair = |text: &str| text.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let ignore_file = [format!("{}.dockerignore", self.dockerfile()), "context/.dockerignore".to_owned()];
        let patterns =
            ignore_file.iter().find_map(|name| self.files.get(name)).map(|text| ignore::parse(text));
        let host: Platform = "linux/amd64".parse().unwrap();
        Options {
            dockerfile: self.dockerfile().to_owned(),
            target: self.one("target").map(str::to_owned),
            build_args: self.all("build-arg").map(pair).map(|(name, value)| (name, Some(value))).collect(),
            labels: self.all("label").map(pair).collect(),
            platform: self.one("platform").map_or(host.clone(), |text| text.parse().unwrap()),
            build_platform: host,
            contexts: self
                .all("build-context")
                .map(pair)
                .map(|(name, folder)| {
                    let ignored = self.files.get(&format!("{folder}/.dockerignore"));
                    let ignore = ignored.map(|text| ignore::parse(text)).unwrap_or_default();
                    (name.clone(), NamedContext::Local { name, ignore })
                })
                .collect(),
            ignore: patterns.unwrap_or_default(),
            remote_context: None,
            no_cache: self.one("no-cache").is_some(),
            no_cache_filter: Vec::new(),
            network: Network::Default,
            entitlements: self
                .all("allow")
                .map(|name| match name {
                    "network.host" => Entitlement::NetworkHost,
                    "security.insecure" => Entitlement::SecurityInsecure,
                    other => panic!("{other}"),
                })
                .collect(),
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            limits: Default::default(),
            source_date_epoch: self
                .all("env")
                .find_map(|text| text.strip_prefix("SOURCE_DATE_EPOCH=")?.parse().ok()),
            now: "2024-01-01T00:00:00Z".to_owned(),
        }
    }
}

/// Knows the base image of the cases, and nothing else.
struct Base;

impl Resolver for Base {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        queries
            .iter()
            .map(|query| {
                if query.reference != "conformance/base:1" || query.origin != ImageOrigin::Registry {
                    let message = format!("the image {} is not in the store", query.reference);
                    return Err(ResolveError { message, source: None });
                }
                let mut config = ImageConfig {
                    os: "linux".into(),
                    architecture: "amd64".into(),
                    ..ImageConfig::default()
                };
                config.config.env =
                    vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()];
                config.config.cmd = Some(vec!["sh".into()]);
                config.config.working_dir = "/".into();
                config.rootfs.diff_ids = vec![Digest::of(b"base")];
                config.history =
                    vec![History { created_by: "conformance base".into(), ..History::default() }];
                let reference = "docker.io/conformance/base:1".to_owned();
                Ok(ResolvedImage { reference, manifest: Digest::of(b"manifest"), config })
            })
            .collect()
    }
}

/// How many layers a step's output has, and whether the base image is below them.
fn layers(graph: &Graph, root: Option<VertexId>) -> (usize, bool) {
    let Some(root) = root else { return (0, false) };
    let vertex = graph.vertex(root);
    let below = |input: usize| layers(graph, Some(vertex.inputs[input].vertex));
    let on_top =
        |below: Option<(usize, bool)>| below.map_or((1, false), |(count, on_base)| (count + 1, on_base));
    match &vertex.op {
        Op::Source(_) => (0, true),
        Op::Exec(exec) => on_top(exec.root.map(below)),
        Op::File(file) => on_top(file.base.map(below)),
        Op::Merge => {
            let (lower, on_base) = below(0);
            (lower + (1..vertex.inputs.len()).map(|i| below(i).0).sum::<usize>(), on_base)
        }
        Op::Diff => panic!("no Dockerfile makes a diff"),
    }
}

fn check(case: &Case, folder: &Path) -> Result<(), String> {
    let text = &case.files[case.dockerfile()];
    let shown =
        |d: &bricklayer_frontend::Diagnostics| render(d, "Dockerfile", &String::from_utf8_lossy(text), false);
    let result =
        Dockerfile::parse(text).and_then(|file| lower(&file, &case.options(), &Base)).map_err(|d| shown(&d));
    if let Some(wanted) = case.one("fails") {
        return match result {
            Err(error) if error.to_lowercase().contains(&wanted.to_lowercase()) => Ok(()),
            Err(error) => Err(format!("the error must contain {wanted:?}:\n{error}")),
            Ok(_) if FAIL_WHEN_RUN.contains(&case.name.as_str()) => Ok(()),
            Ok(_) => Err("must fail, and does not".to_owned()),
        };
    }
    let lowered = result?;
    let expected = std::fs::read_to_string(folder.join(format!("{}.expected.json", case.name)))
        .map_err(|e| e.to_string())?;
    let expected: Value = serde_json::from_str(&expected).map_err(|e| e.to_string())?;
    let config = &lowered.build.config;
    let mut run = serde_json::to_value(&config.config).map_err(|e| e.to_string())?;
    let run = run.as_object_mut().ok_or("no object")?;
    run.remove("ArgsEscaped");
    run.retain(|_, value| {
        !(value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({}))
    });
    let history: Vec<Value> = config
        .history
        .iter()
        .filter(|entry| entry.created_by != "conformance base")
        .map(|entry| json!([entry.created_by, entry.empty_layer]))
        .collect();
    let (count, on_base) = layers(&lowered.build.graph, lowered.build.root);
    let non_empty = config.history.iter().filter(|entry| !entry.empty_layer).count() - usize::from(on_base);
    let got = [
        ("config", Value::Object(run.clone())),
        ("history", Value::Array(history)),
        ("layers", json!(count)),
        ("on_base", json!(on_base)),
        ("platform", json!(config.platform().to_string())),
        ("author", if config.author.is_empty() { Value::Null } else { json!(config.author) }),
    ];
    let mut problems = Vec::new();
    for (key, value) in got {
        let wanted = expected.get(key).cloned().unwrap_or(Value::Null);
        if wanted != value {
            problems.push(format!("{key}:\n  expected {wanted}\n  got      {value}"));
        }
    }
    if non_empty != count {
        problems.push(format!("{non_empty} entries of history for {count} layers"));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance")
}

#[test]
fn all_cases() {
    let folder = folder();
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "case"))
        .collect();
    names.sort();
    assert!(names.len() > 200, "only {} cases in {}", names.len(), folder.display());
    let failed: Vec<String> = names
        .iter()
        .map(|path| Case::read(path))
        .filter_map(|case| check(&case, &folder).err().map(|problem| format!("{}: {problem}", case.name)))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), names.len(), failed.join("\n\n"));
}

#[test]
fn a_case_that_is_not_met_is_told() {
    let path = folder().join("env-uses-earlier-values.case");
    let mut case = Case::read(&path);
    case.files.insert("Dockerfile".to_owned(), b"FROM conformance/base:1\nENV abc=other\n".to_vec());
    let problem = check(&case, &folder()).unwrap_err();
    assert!(
        problem.contains("config:") && problem.contains("abc=hello") && problem.contains("layers:"),
        "{problem}"
    );
    let mut case = Case::read(&folder().join("unknown-flag-fails.case"));
    case.files.insert("Dockerfile".to_owned(), b"FROM scratch\n".to_vec());
    assert_eq!(check(&case, &folder()).unwrap_err(), "must fail, and does not");
}

/// The worker needs these to be as they are: what an action copies, and where to.
#[test]
fn copies_are_selected_as_written() {
    let text = b"FROM scratch\nCOPY a *.txt b /out/\nCOPY --parents ./x/./y/* .\n";
    let case = Case::read(&folder().join("copy-missing-source.case"));
    let lowered = lower(&Dockerfile::parse(text).unwrap(), &case.options(), &Base).unwrap();
    let mut copies = Vec::new();
    for (_, vertex) in lowered.build.graph.vertices() {
        let Op::File(file) = &vertex.op else { continue };
        for action in &file.actions {
            let FileAction::Copy(copy) = action else { continue };
            copies.push((copy.selection.paths.join(" "), copy.selection.wildcards, copy.dest.clone()));
        }
    }
    let expected =
        [("a", false, "/out/"), ("*.txt", true, "/out/"), ("b", false, "/out/"), ("x/./y/*", true, "/")];
    assert_eq!(
        copies,
        expected.map(|(paths, wildcards, dest)| (paths.to_owned(), wildcards, dest.to_owned()))
    );
}

/// Names of steps stand on screens, in logs and in records.
#[test]
fn names_of_steps_hold_no_values_that_look_like_secrets() {
    let text = b"FROM scratch\nARG VERSION=1.2\nARG NPM_TOKEN=tok123\nENV DB_PASS=$NPM_TOKEN AUTHOR=me\n\
                 RUN echo $VERSION $NPM_TOKEN ${DB_PASS} $AUTHOR $UNSET_KEY\nCOPY $NPM_TOKEN /$VERSION\nWORKDIR /$DB_PASS\n";
    let case = Case::read(&folder().join("copy-missing-source.case"));
    let lowered = lower(&Dockerfile::parse(text).unwrap(), &case.options(), &Base).unwrap();
    let names: Vec<&str> = lowered.build.graph.vertices().map(|(_, vertex)| &*vertex.info.name).collect();
    assert!(
        names.iter().any(|name| name.ends_with("RUN echo 1.2 **** **** me $UNSET_KEY"))
            && names.iter().any(|name| name.ends_with("COPY **** /1.2"))
            && !names.concat().contains("tok123"),
        "{names:?}"
    );
    let command = lowered.build.graph.vertices().find_map(|(_, vertex)| match &vertex.op {
        Op::Exec(exec) => Some(exec.env.join(" ")),
        _ => None,
    });
    assert!(command.is_some_and(|env| env.contains("DB_PASS=tok123")), "the command has the value");
}
