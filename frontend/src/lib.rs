//! Dockerfile text to build graph: bytes → logical lines → typed instructions with spans → lint → graph.
//!
//! Pure: no file, no network, no clock. What must be asked outside is asked through [`Resolver`].
//!
//! [`Dockerfile::parse`] reads the text, [`lower()`] makes the graph of the wanted stage, [`render`] shows what was wrong.

#![allow(
    clippy::result_large_err,
    reason = "an error ends the work on its line, so that its size does not count"
)]

pub mod call;
pub mod diagnostics;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod ignore;
pub mod instruction;
pub mod lint;
pub mod syntax;

mod api;
mod directive;
mod dockerfile;
mod duration;
mod git;
mod lines;
mod lower;
mod reference;
mod source;
mod split;
mod suggest;
mod text;
mod words;

pub use api::{
    Build, Entitlement, ImageOrigin, ImageQuery, Lowered, NamedContext, Options, RemoteContext, ResolveError,
    ResolvedImage, Resolver,
};
pub use diagnostics::{Diagnostic, Diagnostics, Severity, Span, render};
pub use directive::Directive;
pub use dockerfile::{Dockerfile, Stage};
pub use lines::Comment;
pub use lower::{lower, remote_context};
pub use suggest::nearest;
