//! Options and a resolver for tests.
#![allow(dead_code, reason = "each test uses a part")]

use bricklayer_frontend::{ImageQuery, Options, ResolveError, ResolvedImage, Resolver};
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::op::Network;
use bricklayer_solver::{Digest, Platform};

/// Has `base` with any tag, for linux/amd64; `arm`, for linux/arm64; and `trigger`, with ONBUILD instructions.
pub(crate) struct Images;

impl Resolver for Images {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        queries.iter().map(|query| image(&query.reference)).collect()
    }
}

fn image(reference: &str) -> Result<ResolvedImage, ResolveError> {
    let name = reference.split(':').next().unwrap_or_default();
    let architecture = match name {
        "base" | "trigger" => "amd64",
        "arm" => "arm64",
        _ => return Err(ResolveError { message: format!("the image {reference} is nowhere"), source: None }),
    };
    let mut config =
        ImageConfig { os: "linux".into(), architecture: architecture.into(), ..ImageConfig::default() };
    config.rootfs.diff_ids = vec![Digest::of(name.as_bytes())];
    if name == "trigger" {
        config.config.on_build =
            vec!["ENV a=\"${missing?must be set}\"".to_owned(), "EXPOSE none".to_owned()];
    }
    let reference = format!("docker.io/library/{reference}");
    Ok(ResolvedImage { reference, manifest: Digest::of(b"manifest"), config })
}

pub(crate) fn options() -> Options {
    let platform: Platform = "linux/amd64".parse().unwrap();
    Options {
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        build_args: Vec::new(),
        labels: Vec::new(),
        platform: platform.clone(),
        build_platform: platform,
        contexts: Vec::new(),
        ignore: Vec::new(),
        remote_context: None,
        no_cache: false,
        no_cache_filter: Vec::new(),
        network: Network::Default,
        entitlements: Vec::new(),
        extra_hosts: Vec::new(),
        shm_size: None,
        ulimits: Vec::new(),
        cgroup_parent: None,
        limits: Default::default(),
        source_date_epoch: None,
        now: "2024-01-01T00:00:00Z".to_owned(),
    }
}
