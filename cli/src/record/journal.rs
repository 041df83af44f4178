//! The file `events`: what happened in a build, in the order in which it was told.
//!
//! It is a line of JSON for each event, with the microseconds since the start of the build (`us`) and the number of the task.
//! The first line is a [`Header`]. A line that says `"event":"log"` is followed by as many bytes as it says, just as the command
//! wrote them, and a line end. A file that was cut short ends in the middle of an event, and counts up to there.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::{Asked, Place, WorkKind};

/// The longest line that is read: a file that something else wrote must not fill memory.
const LONGEST_LINE: u64 = 16 << 20;

/// The longest piece of a log that is written under one line, in bytes.
pub(super) const LONGEST_PIECE: usize = 1 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header<'a> {
    pub(super) version: u32,
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    pub(super) started_ms: i64,
    pub(super) process: u32,
    #[serde(flatten)]
    pub(super) asked: Asked,
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    /// When, in microseconds since the build started.
    pub(super) us: u64,
    /// The task's number.
    pub(super) task: u64,
    #[serde(flatten, borrow)]
    pub(super) what: What<'a>,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum What<'a> {
    Announced {
        #[serde(borrow)]
        name: Cow<'a, str>,
        kind: WorkKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vertex: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<Place>,
    },
    Started,
    Waiting {
        #[serde(borrow)]
        on: Cow<'a, str>,
    },
    Cached,
    Sized {
        bytes: u64,
    },
    Missed {
        #[serde(borrow)]
        reasons: Cow<'a, [String]>,
    },
    Log {
        stream: Stream,
        bytes: u64,
    },
    Warning {
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    #[serde(rename_all = "camelCase")]
    Exited {
        code: i32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peak_memory: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        largest_process: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
    },
    Done,
    Failed {
        #[serde(borrow)]
        error: Cow<'a, str>,
    },
    Cancelled,
}

/// Where a command wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stream {
    #[serde(rename = "out")]
    Out,
    #[serde(rename = "err")]
    Err,
}

/// Adds a line to `buffer`.
pub(super) fn write<T: Serialize>(buffer: &mut Vec<u8>, line: &T) {
    let before = buffer.len();
    // strings and numbers only: there is nothing that JSON can't say, and memory takes everything
    if serde_json::to_writer(&mut *buffer, line).is_err() {
        buffer.truncate(before);
        return;
    }
    buffer.push(b'\n');
}

/// Reads a line without its end into `line`; false: there is no whole one any more.
pub(super) fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    from.take(LONGEST_LINE).read_until(b'\n', line)?;
    Ok(line.pop() == Some(b'\n'))
}
