//! Typed instructions to graph.

use crate::api::{Lowered, Options, Resolver};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::dockerfile::Dockerfile;

/// The graph of the stage that `options` want, with everything that it needs.
///
/// # Errors
///
/// Everything that is wrong in the stages that the target reaches.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &Options,
    resolver: &dyn Resolver,
) -> Result<Lowered, Diagnostics> {
    let _ = (dockerfile, options, resolver);
    Err(Diagnostic::error_outside("this version cannot build Dockerfiles").into())
}
