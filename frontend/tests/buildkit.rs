//! Thousands of small Dockerfiles, each with what BuildKit's own frontend made of it (its code as of August 2026, run once; the
//! results are testdata/frontend/buildkit.jsonl): whether it fails, the image's configuration and history, the warnings, the commands.
//!
//! A case with `refused` is one that BuildKit takes and that is an error here, for the reason that stands there; `more` are warnings
//! that BuildKit does not give.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bricklayer_frontend::{
    Dockerfile, Entitlement, ImageQuery, Lowered, Options, ResolveError, ResolvedImage, Resolver, lower,
};
use bricklayer_solver::Digest;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::op::Op;
use serde_json::{Value, json};

mod common;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    dockerfile: String,
    #[serde(default)]
    args: BTreeMap<String, String>,
    target: Option<String>,
    #[serde(default)]
    onbuild: Vec<String>,
    #[serde(default)]
    fails: bool,
    refused: Option<String>,
    #[serde(default)]
    config: serde_json::Map<String, Value>,
    #[serde(default)]
    history: Vec<String>,
    author: Option<String>,
    #[serde(default)]
    warnings: BTreeSet<(String, String)>,
    #[serde(default)]
    more: BTreeSet<(String, String)>,
    #[serde(default)]
    runs: Vec<Value>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The project's own rules.
const OWN: [&str; 3] = ["UnusedBuildArg", "HeredocWithoutErrexit", "CopyDestinationSlash"];

/// `base`, `rich` (with something in every field) and `trigger` (with the case's ONBUILD instructions), with any tag.
struct Images<'a>(&'a [String]);

impl Resolver for Images<'_> {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        queries.iter().map(|query| self.image(&query.reference)).collect()
    }
}

impl Images<'_> {
    fn image(&self, reference: &str) -> Result<ResolvedImage, ResolveError> {
        let short = ["index.docker.io/", "docker.io/", "library/"]
            .iter()
            .fold(reference, |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest));
        let mut config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![Digest::of(b"base")];
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let run = &mut config.config;
        if short.starts_with("rich") {
            run.env = strings(&["PATH=/bin", "A=1", "B="]);
            run.cmd = Some(strings(&["base", "cmd"]));
            run.entrypoint = Some(strings(&["base", "entry"]));
            run.working_dir = "/work".into();
            run.user = "app".into();
            run.labels.insert("l".into(), "1".into());
            run.exposed_ports.insert("1/tcp".into(), json!({}));
            run.volumes.insert("/v".into(), json!({}));
        } else if short.starts_with("trigger") {
            run.on_build = self.0.to_vec();
        } else if !short.starts_with("base") {
            return Err(ResolveError { message: format!("the image {reference} is nowhere"), source: None });
        }
        Ok(ResolvedImage { reference: reference.to_owned(), manifest: Digest::of(b"manifest"), config })
    }
}

fn build(case: &Case) -> Result<Lowered, String> {
    let options = Options {
        target: case.target.clone(),
        build_args: case.args.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
        entitlements: vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure],
        ..common::options()
    };
    Dockerfile::parse(case.dockerfile.as_bytes())
        .and_then(|file| lower(&file, &options, &Images(&case.onbuild)))
        .map_err(|errors| errors.to_string())
}

/// What is not as it was recorded.
fn problems(case: &Case) -> Vec<String> {
    let lowered = match (build(case), case.fails || case.refused.is_some()) {
        (Err(_), true) => return Vec::new(),
        (Ok(_), true) => return vec!["must fail, and does not".to_owned()],
        (Err(error), false) => return vec![format!("must not fail: {error}")],
        (Ok(lowered), false) => lowered,
    };
    let image = &lowered.build.config;
    let mut config = serde_json::to_value(&image.config).unwrap();
    let config = config.as_object_mut().unwrap();
    config.retain(|name, value| {
        let empty = value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({});
        !empty && name != "ArgsEscaped" && *value != json!([PATH])
    });
    let history: Vec<String> = image
        .history
        .iter()
        .map(|entry| format!("{}{}", if entry.empty_layer { "" } else { "+" }, entry.created_by))
        .collect();
    let warnings: BTreeSet<(String, String)> = lowered
        .warnings
        .iter()
        .filter_map(|warning| Some((warning.rule?, &warning.message)))
        .filter(|(rule, _)| !OWN.contains(rule))
        .map(|(rule, text)| (rule.to_owned(), text.split(" (did you mean").next().unwrap().to_owned()))
        .collect();
    let mut runs: Vec<Value> = (lowered.build.graph.vertices())
        .filter_map(|(_, vertex)| match &vertex.op {
            Op::Exec(exec) => {
                let mut env: Vec<&String> = exec.env.iter().filter(|entry| *entry != PATH).collect();
                env.sort();
                Some(json!([exec.args, env, exec.cwd, exec.user]))
            }
            _ => None,
        })
        .collect();
    let mut expected_runs = case.runs.clone();
    for list in [&mut runs, &mut expected_runs] {
        list.sort_by_key(Value::to_string);
    }
    let expected_warnings: BTreeSet<_> = case.warnings.union(&case.more).cloned().collect();
    let pairs = [
        (json!(config), json!(case.config)),
        (json!(history), json!(case.history)),
        (json!(image.author), json!(case.author.clone().unwrap_or_default())),
        (json!(warnings), json!(expected_warnings)),
        (json!(runs), json!(expected_runs)),
    ];
    pairs
        .iter()
        .filter(|(got, wanted)| got != wanted)
        .map(|(got, wanted)| format!("got    {got}\n  wanted {wanted}"))
        .collect()
}

#[test]
fn dockerfiles_mean_what_buildkit_makes_of_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frontend/buildkit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 4000, "only {} cases in {}", cases.len(), path.display());
    let refused = cases.iter().filter(|case| case.refused.is_some()).count();
    assert!(refused < 60, "{refused} cases are refused that BuildKit takes");
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| match &problems(case)[..] {
            [] => None,
            problems => Some(format!("{:?} {:?}\n  {}", case.dockerfile, case.args, problems.join("\n  "))),
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[test]
fn a_case_that_is_not_met_is_told() {
    let case = |text: &str| serde_json::from_str::<Case>(text).unwrap();
    assert!(
        problems(&case(r#"{"dockerfile":"FROM base\nENV a=b\n","history":["ENV a=b"]}"#))[0].contains("a=b")
    );
    assert_eq!(
        problems(&case(r#"{"dockerfile":"FROM base\nRUN x\n","history":["+RUN /bin/sh -c x # buildkit"]}"#))
            .len(),
        1
    );
    assert_eq!(problems(&case(r#"{"dockerfile":"FROM base\n","fails":true}"#)), ["must fail, and does not"]);
    assert!(problems(&case(r#"{"dockerfile":"FROM nowhere\n"}"#))[0].starts_with("must not fail"));
}
