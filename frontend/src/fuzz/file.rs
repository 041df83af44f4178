//! Whole files.

use bricklayer_solver::graph::Usage;
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::op::{Network, Op};
use bricklayer_solver::{Digest, Platform};

use crate::diagnostics::render;
use crate::instruction::Kind;
use crate::syntax::Tree;
use crate::{
    Dockerfile, Entitlement, ImageQuery, Lowered, Options, ResolveError, ResolvedImage, Resolver, call, lower,
};

/// The tree writes back what it was made of, and its tokens tile the file.
pub fn tree(data: &[u8]) {
    let tree = Tree::parse(data);
    assert!(tree.write() == data);
    let mut position = 0;
    for token in tree.nodes().iter().flat_map(|node| &node.tokens) {
        assert!(token.span.start == position && token.span.end > position);
        position = token.span.end;
    }
    assert_eq!(position, data.len());
}

/// Heredocs are as they stand in the file.
pub fn heredocs(data: &[u8]) {
    tree(data);
    let Ok(file) = Dockerfile::parse(data) else { return };
    let text = file.source();
    let mut before = 0;
    for instruction in file.instructions() {
        assert!(instruction.span.start >= before && instruction.span.end >= instruction.span.start);
        before = instruction.span.end;
        let heredocs = match &instruction.kind {
            Kind::Run(run) => &run.command.heredocs,
            _ => continue,
        };
        let mut position = instruction.span.start;
        for heredoc in heredocs {
            assert!(heredoc.span.start >= position && heredoc.end.end <= instruction.span.end);
            position = heredoc.end.end;
            assert_eq!(&text[heredoc.span.start..heredoc.span.end], heredoc.content);
            let end = &text[heredoc.end.start..heredoc.end.end];
            assert_eq!(if heredoc.strip_tabs { end.trim_start_matches('\t') } else { end }, heredoc.name);
            let stripped = heredoc.text();
            assert!(stripped.len() <= heredoc.content.len());
            assert!(!heredoc.strip_tabs || stripped.split('\n').all(|line| !line.starts_with('\t')));
        }
    }
}

/// Knows every image; the names say what it is.
struct Images;

impl Resolver for Images {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let answer = |query: &ImageQuery| {
            if query.reference.contains("none") {
                return Err(ResolveError { message: "not there".to_owned(), source: None });
            }
            let mut config =
                ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
            config.rootfs.diff_ids = vec![Digest::of(b"layer")];
            if query.reference.contains("trigger") {
                config.config.on_build =
                    vec!["COPY --from=a / /t".to_owned(), "ARG t=$a".to_owned(), "RUN <<E\nx\nE".to_owned()];
            }
            Ok(ResolvedImage {
                reference: query.reference.clone(),
                manifest: Digest::of(b"manifest"),
                config,
            })
        };
        queries.iter().map(answer).collect()
    }
}

/// Any file ends in a graph that is whole, or in errors that say where; so do `--call`'s answers, and all of them print.
pub fn dockerfile(data: &[u8]) {
    let options = options();
    let shown = String::from_utf8_lossy(data);
    let file = match Dockerfile::parse(data) {
        Ok(file) => file,
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(!error.message.is_empty());
                assert!(error.span.is_none_or(|span| span.start <= span.end && span.end <= data.len()));
            }
            assert!(!render(&errors, "Dockerfile", &shown, false).is_empty());
            return;
        }
    };
    match lower(&file, &options, &Images) {
        Ok(lowered) => whole(&lowered),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(!render(&errors, "Dockerfile", file.source(), false).is_empty());
        }
    }
    let check = call::check(data, &options, &Images);
    assert!(!check.to_json().is_empty() && check.status() <= 1);
    if let Ok(outline) = call::outline(&file, &options, &Images) {
        assert!(!outline.to_json().is_empty());
    }
    let targets = call::targets(&file);
    assert_eq!(targets.targets.len(), file.stages().len());
    assert!(!targets.to_text().is_empty() && !targets.to_json().is_empty());
}

/// Inputs come before what uses them, the root is there, and the history has an entry for every layer.
fn whole(lowered: &Lowered) {
    let build = &lowered.build;
    for (id, vertex) in build.graph.vertices() {
        for input in &vertex.inputs {
            assert!(input.vertex.0 < id.0);
            if let (Usage::Files(_), Op::Merge) = (&input.usage, &vertex.op) {
                panic!("a merge takes whole inputs");
            }
        }
    }
    assert!(build.root.is_none_or(|root| (root.0 as usize) < build.graph.len()));
    let layers = build.config.history.iter().filter(|entry| !entry.empty_layer).count();
    assert!(build.root.is_some() || layers == 0);
}

fn options() -> Options {
    let platform = "linux/amd64".parse::<Platform>().expect("a platform");
    Options {
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        build_args: vec![("given".to_owned(), Some("1 $x".to_owned()))],
        labels: Vec::new(),
        platform: platform.clone(),
        build_platform: platform,
        contexts: Vec::new(),
        ignore: vec!["ignored".to_owned()],
        remote_context: None,
        no_cache: false,
        no_cache_filter: Vec::new(),
        network: Network::Default,
        entitlements: vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure],
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        limits: Default::default(),
        source_date_epoch: None,
        now: "2024-01-01T00:00:00Z".to_owned(),
    }
}
