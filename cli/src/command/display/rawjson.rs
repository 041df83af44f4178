//! JSON lines in the form of BuildKit's `SolveStatus` (`client/graph.go`), for programs that read
//! `docker buildx build --progress=rawjson`.
//!
//! A vertex is known by a digest there; here that is the SHA-256 of the task's number and name, which is unique
//! within a build and means nothing else. `missed` is ours: why a step had no result.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::SystemTime;

use bricklayer::Digest;
use bricklayer::event::{Event, EventKind, Outcome, Stream, TaskId};
use serde::Serialize;

use super::{Renderer, put};

/// See the module's description.
pub(crate) struct RawJson {
    out: Box<dyn Write + Send>,
    tasks: BTreeMap<TaskId, Vertex>,
    parts: BTreeMap<(TaskId, String), String>,
}

#[derive(Serialize, Default)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[&'a Vertex; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[PartStatus<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[Log<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[Warning<'a>; 1]>,
}

#[derive(Serialize, Clone)]
struct Vertex {
    digest: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missed: Vec<String>,
}

#[derive(Serialize)]
struct PartStatus<'a> {
    id: &'a str,
    vertex: &'a str,
    current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    timestamp: String,
    started: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct Log<'a> {
    vertex: &'a str,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct Warning<'a> {
    vertex: &'a str,
    level: u8,
    short: String,
}

impl RawJson {
    /// Writes to `out`.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, tasks: BTreeMap::new(), parts: BTreeMap::new() }
    }
}

fn write(out: &mut dyn Write, status: &Status<'_>) {
    if let Ok(mut line) = serde_json::to_string(status) {
        line.push('\n');
        put(out, &line);
    }
}

impl Renderer for RawJson {
    fn event(&mut self, event: &Event) {
        let Event { task: id, time, kind } = event;
        let now = timestamp(*time);
        if let EventKind::Announced(info) = kind {
            let digest = Digest::of(format!("{}\0{}", id.0, info.name).as_bytes()).to_string();
            self.tasks.insert(
                *id,
                Vertex {
                    digest,
                    name: info.name.clone(),
                    started: None,
                    completed: None,
                    cached: false,
                    error: None,
                    missed: Vec::new(),
                },
            );
        }
        let Some(vertex) = self.tasks.get_mut(id) else { return };
        let mut status = Status::default();
        match kind {
            EventKind::Announced(_) => {}
            EventKind::Started => vertex.started = Some(now),
            EventKind::Missed(reasons) => vertex.missed.clone_from(reasons),
            EventKind::Cached => {
                vertex.started.get_or_insert_with(|| now.clone());
                vertex.completed = Some(now);
                vertex.cached = true;
            }
            EventKind::Finished(outcome) => {
                vertex.completed = Some(now);
                vertex.error = match outcome {
                    Outcome::Done => None,
                    Outcome::Failed(why) => Some(why.clone()),
                    Outcome::Cancelled => Some("context canceled".to_owned()),
                };
            }
            EventKind::Progress(progress) => {
                let started = self.parts.entry((*id, progress.part.clone())).or_insert_with(|| now.clone());
                let complete = progress.total.is_some_and(|total| progress.done >= total);
                status.statuses = Some([PartStatus {
                    id: &progress.part,
                    vertex: &vertex.digest,
                    current: progress.done,
                    total: progress.total,
                    completed: complete.then(|| now.clone()),
                    timestamp: now,
                    started,
                }]);
            }
            EventKind::Log { stream, data } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                status.logs =
                    Some([Log { vertex: &vertex.digest, stream, data: base64(data), timestamp: now }]);
            }
            EventKind::Warning(text) => {
                status.warnings =
                    Some([Warning { vertex: &vertex.digest, level: 1, short: base64(text.as_bytes()) }]);
            }
            EventKind::Waiting(text) => {
                status.statuses = Some([PartStatus {
                    id: text,
                    vertex: &vertex.digest,
                    current: 0,
                    total: None,
                    timestamp: now.clone(),
                    started: &now,
                    completed: None,
                }]);
                write(&mut self.out, &status);
                return;
            }
            _ => return,
        }
        if status.statuses.is_none() && status.logs.is_none() && status.warnings.is_none() {
            status.vertexes = Some([vertex]);
        }
        write(&mut self.out, &status);
        if matches!(kind, EventKind::Cached | EventKind::Finished(_)) {
            self.parts.retain(|(task, _), _| task != id);
            self.tasks.remove(id);
        }
    }

    fn line(&mut self, _: TaskId, _: SystemTime, _: &[u8]) {}

    fn tick(&mut self, _: SystemTime) {}

    fn end(&mut self, _: SystemTime) {}
}

/// RFC 3339 in UTC.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// RFC 4648, section 4.
fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let bytes = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, play};
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn every_event_is_one_line_in_buildkits_form() {
        let mut script = Script::new();
        let a = script.step("[1/1] RUN make", 2, 2);
        script.at(0.5).missed(a, &["never built"]).start(a).at(1.0).log(a, "raw\x1b[0m\n");
        script.at(1.1).progress(a, "file", 5, 10).warning(a, "careful").waiting(a, "for somebody");
        script.at(2.0).failed(a, "exit code: 1");
        let b = script.task("b");
        script.cached(b);
        let text = play(&script, |out| Box::new(RawJson::new(out)));
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        insta::with_settings!({filters => [("sha256:([0-9a-f]{6})[0-9a-f]+", "sha256:$1")]}, {
            insta::assert_snapshot!(text, @r#"
            {"vertexes":[{"digest":"sha256:e2074d","name":"[1/1] RUN make"}]}
            {"vertexes":[{"digest":"sha256:e2074d","name":"[1/1] RUN make","missed":["never built"]}]}
            {"vertexes":[{"digest":"sha256:e2074d","name":"[1/1] RUN make","started":"2023-11-14T22:13:20.5Z","missed":["never built"]}]}
            {"logs":[{"vertex":"sha256:e2074d","stream":1,"data":"cmF3G1swbQo=","timestamp":"2023-11-14T22:13:21Z"}]}
            {"statuses":[{"id":"file","vertex":"sha256:e2074d","current":5,"total":10,"timestamp":"2023-11-14T22:13:21.1Z","started":"2023-11-14T22:13:21.1Z"}]}
            {"warnings":[{"vertex":"sha256:e2074d","level":1,"short":"Y2FyZWZ1bA=="}]}
            {"statuses":[{"id":"for somebody","vertex":"sha256:e2074d","current":0,"timestamp":"2023-11-14T22:13:21.1Z","started":"2023-11-14T22:13:21.1Z"}]}
            {"vertexes":[{"digest":"sha256:e2074d","name":"[1/1] RUN make","started":"2023-11-14T22:13:20.5Z","completed":"2023-11-14T22:13:22Z","error":"exit code: 1","missed":["never built"]}]}
            {"vertexes":[{"digest":"sha256:68be5c","name":"b"}]}
            {"vertexes":[{"digest":"sha256:68be5c","name":"b","started":"2023-11-14T22:13:22Z","completed":"2023-11-14T22:13:22Z","cached":true}]}
            "#);
        });
    }
}
