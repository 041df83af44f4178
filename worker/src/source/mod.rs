//! Where files come from: images, single files over HTTP, git repositories. Local directories are not fetched, see
//! [`crate::context`].

pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod ssh;
