//! Why a step ran: what went into keys, kept with the records, and the difference between two of them.
//!
//! [`KeyParts`] is the readable form of a key. It is stored in [`Record::parts`](crate::record::Record::parts) as
//! JSON with a version number; what another version wrote is not compared. It holds at most [`MAX_PARTS`] bytes:
//! lists of files are cut first, long values are clipped to what they start with and a digest.
//!
//! # Which records are compared
//!
//! A record belongs to a *family*: SHA-256 over the kind of step, its stage, and its instruction as written with runs
//! of blanks made one. The nearest of a family's newest records is the one with most parts equal; among equals the
//! newest.
//!
//! Where the instruction itself was changed, there is no family yet. So a step that ran also leaves its record under
//! its *place*: the kind, the stage and the instructions that it stands on. What was last built there is then
//! what changed.
//!
//! # Secrets
//!
//! The value of a variable whose name looks like that of a secret ([`secret::is_secret`]) is neither stored nor
//! printed, only a digest that shows whether it changed; likewise user info in URLs and the query of a URL.

mod parts;
mod reason;
pub mod secret;
#[cfg(test)]
mod tests;

use crate::digest::Digest;
use crate::graph::{Graph, Vertex, VertexId};
use crate::key::{Encode, Encoder};
use crate::op::{FileAction, Op, Source};

pub(crate) use parts::InputContent;
pub use parts::{InputParts, KeyParts, MAX_PARTS, Value};
pub(crate) use reason::may_be_among;
pub use reason::{Change, Reason, explain};

/// What kind of step it is, in one word: what the Dockerfile calls it where that is certain.
pub fn kind(op: &Op) -> &'static str {
    match op {
        Op::Source(Source::Image(_)) => "image",
        Op::Source(Source::Local(_)) => "local",
        Op::Source(Source::Http(_)) => "http",
        Op::Source(Source::Git(_)) => "git",
        Op::Exec(_) => "run",
        Op::File(file) => match file.actions.first() {
            Some(FileAction::Copy(_)) | None => "copy",
            Some(FileAction::MakeFile { .. }) => "write",
            Some(FileAction::MakeDir { .. }) => "mkdir",
            Some(FileAction::Remove { .. }) => "remove",
        },
        Op::Merge => "merge",
        Op::Diff => "diff",
    }
}

/// What ties the same instruction of different builds together.
pub fn family(vertex: &Vertex) -> Digest {
    let instruction = one_line(&vertex.info.instruction);
    digest_of(&["family", kind(&vertex.op), &vertex.info.stage, &instruction], None)
}

/// Where steps stand in their Dockerfile: the kind, the stage and the instructions below. `None` for sources.
pub(crate) struct Places {
    below: Vec<Option<Digest>>,
    place: Vec<Option<Digest>>,
}

impl Places {
    /// The places of `needed`, which lists inputs before their users.
    pub(crate) fn of(graph: &Graph, needed: &[VertexId]) -> Self {
        let size = needed.last().map_or(0, |id| id.0 as usize + 1);
        let mut places = Self { below: vec![None; size], place: vec![None; size] };
        for id in needed {
            let vertex = graph.vertex(*id);
            let base = match &vertex.op {
                Op::Exec(exec) => exec.root,
                Op::File(file) => file.base,
                Op::Source(_) | Op::Merge | Op::Diff => None,
            };
            let below =
                base.and_then(|base| vertex.inputs.get(base)).and_then(|i| places.below[i.vertex.0 as usize]);
            let (kind, stage) = (kind(&vertex.op), vertex.info.stage.as_str());
            let instruction = one_line(&vertex.info.instruction);
            if !matches!(vertex.op, Op::Source(_)) && !instruction.is_empty() {
                places.place[id.0 as usize] = Some(digest_of(&["place", kind, stage], below));
            }
            places.below[id.0 as usize] = Some(digest_of(&["below", kind, &instruction], below));
        }
        places
    }

    pub(crate) fn get(&self, id: VertexId) -> Option<Digest> {
        self.place.get(id.0 as usize).copied().flatten()
    }
}

fn digest_of(texts: &[&str], below: Option<Digest>) -> Digest {
    let mut encoder = Encoder::default();
    "bricklayer explain".encode(&mut encoder);
    texts.encode(&mut encoder);
    below.encode(&mut encoder);
    Digest::of(encoder.bytes())
}

/// Runs of blanks and line ends made one blank.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
