//! Builds an image from a program, and hears what happens.
//!
//! ```text
//! testdata/base/busybox /tmp/busybox.tar
//! cargo run --example build -- /tmp/store /tmp/busybox.tar testdata/first
//! ```
#![expect(clippy::print_stdout, reason = "an example that shows what it hears")]

use std::fs::File;

use bricklayer::event::{EventKind, Reporter};
use bricklayer::{BuildRequest, Builder, BuilderOptions, CancellationToken, Context};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [store, base, context] = arguments().ok_or("usage: build STORE BASE.tar CONTEXT")?;

    let builder = Builder::open(BuilderOptions { root: store.into(), ..BuilderOptions::default() })?;
    builder.load(File::open(base)?, Reporter::silent()).await?;
    let reporter = Reporter::new(|event| {
        if let EventKind::Announced(task) = event.kind {
            println!("{}", task.name);
        }
    });
    let context = Context::Directory(context.into());
    let request = BuildRequest { context, tags: vec!["first".into()], ..BuildRequest::default() };
    let result = builder.build(request, reporter, CancellationToken::new()).await?;
    println!("{} steps, {} cached: {:?}", result.steps, result.cached, result.config);
    Ok(())
}

fn arguments() -> Option<[String; 3]> {
    std::env::args().skip(1).collect::<Vec<_>>().try_into().ok()
}
