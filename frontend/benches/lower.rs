//! Parsing and lowering a Dockerfile of 10,000 lines with 200 stages, and a tenth and four times of that: time should grow with the
//! length.

use bricklayer_frontend::syntax::Tree;
use bricklayer_frontend::{Dockerfile, ImageQuery, Options, ResolveError, ResolvedImage, Resolver, lower};
use bricklayer_solver::image::ImageConfig;
use bricklayer_solver::op::Network;
use bricklayer_solver::{Digest, Platform};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

struct Images;

impl Resolver for Images {
    fn images(&self, queries: &[ImageQuery]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let answer = |query: &ImageQuery| {
            let mut config =
                ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
            config.rootfs.diff_ids = vec![Digest::of(b"layer")];
            Ok(ResolvedImage {
                reference: query.reference.clone(),
                manifest: Digest::of(b"manifest"),
                config,
            })
        };
        queries.iter().map(answer).collect()
    }
}

/// A Dockerfile of about `stages` × 50 lines, as people write them: variables, continuations, copies between stages, heredocs.
fn dockerfile(stages: usize) -> String {
    let mut text = "ARG TAG=1\n".to_owned();
    for stage in 0..stages {
        let base = if stage % 2 == 0 { "base:$TAG".to_owned() } else { format!("s{}", stage - 1) };
        text.push_str(&format!("FROM {base} AS s{stage}\nARG VERSION=1.{stage}\nENV HOME=/home/app PATH=/opt/$VERSION/bin:$PATH\n"));
        text.push_str("WORKDIR /app\nCOPY package.json package-lock.json ./\n");
        for line in 0..8 {
            text.push_str(&format!("RUN --mount=type=cache,target=/root/.cache apt-get update && \\\n    apt-get install -y \\\n    # what is needed\n    package-{line} && rm -rf /var/lib/apt\n"));
        }
        text.push_str(
            "RUN <<EOF\nset -e\nmake\nmake install\nEOF\nCOPY <<EOF /etc/conf\nversion=$VERSION\nEOF\n",
        );
        if stage > 0 {
            text.push_str(&format!("COPY --from=s{} --chown=app:app /app/out /app/in{stage}\n", stage - 1));
        }
        text.push_str("LABEL a=b c=\"${VERSION:-none}\"\nEXPOSE 8080\nUSER app\nCMD [\"run\", \"me\"]\n");
    }
    text
}

fn options() -> Options {
    let platform: Platform = "linux/amd64".parse().expect("a platform");
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

fn bench(c: &mut Criterion) {
    let options = options();
    let mut group = c.benchmark_group("dockerfile");
    for stages in [20, 200, 800] {
        let text = dockerfile(stages);
        group.throughput(Throughput::Elements(text.lines().count() as u64));
        group.bench_with_input(BenchmarkId::new("parse", stages), &text, |b, text| {
            b.iter(|| Dockerfile::parse(text.as_bytes()).expect("a Dockerfile"));
        });
        group.bench_with_input(BenchmarkId::new("parse and lower", stages), &text, |b, text| {
            // giving the memory back is not measured
            b.iter_with_large_drop(|| {
                let file = Dockerfile::parse(text.as_bytes()).expect("a Dockerfile");
                lower(&file, &options, &Images).expect("a graph")
            });
        });
        group.bench_with_input(BenchmarkId::new("syntax tree", stages), &text, |b, text| {
            b.iter(|| Tree::parse(text.as_bytes()));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
