//! What a runtime says of itself: lines of JSON with `level` and `msg` (containerd's `runc.options`, which runc, crun and
//! runsc share).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;

/// As much of a log is read.
const MOST: u64 = 64 << 10;

/// Why a command did not start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// There is no such program: 127.
    Missing(String),
    /// It can't be executed: 126.
    Refused(String),
    /// The runtime could not make the sandbox.
    Failed(String),
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// What a runtime that ended with a code other than 0 has written about a command that did not start; `None`: it did.
pub(crate) fn not_started(log: &mut File) -> Option<NotStarted> {
    let mut text = Vec::new();
    log.seek(SeekFrom::Start(0)).ok()?;
    log.take(MOST).read_to_end(&mut text).ok()?;
    verdict(&String::from_utf8_lossy(&text))
}

fn verdict(log: &str) -> Option<NotStarted> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let message = lines.rev().find(|line| matches!(line.level.as_str(), "error" | "fatal"))?.msg;
    // runc: `exec: "x": stat x: no such file or directory`; crun: "executable file `x` not found in $PATH: …"
    let about_program =
        message.contains("exec: ") || message.contains("executable") || message.contains("exec ");
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if about_program
        && has(&["not found", "no such file", "No such file", "Not a directory", "not a directory"])
    {
        return Some(NotStarted::Missing(message));
    }
    if about_program
        && has(&[
            "ermission denied",
            "not permitted",
            "xec format error",
            "is a directory",
            "Is a directory",
            "too long",
            "not executable",
        ])
    {
        return Some(NotStarted::Refused(message));
    }
    Some(NotStarted::Failed(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_say_is_understood() {
        let line =
            |level: &str, msg: &str| format!("{}\n", serde_json::json!({ "level": level, "msg": msg }));
        let missing = "runc run failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory";
        assert_eq!(verdict(&line("error", missing)), Some(NotStarted::Missing(missing.to_owned())));
        let refused = "runc run failed: unable to start container process: exec: \"/etc\": permission denied";
        assert_eq!(verdict(&line("error", refused)), Some(NotStarted::Refused(refused.to_owned())));
        let of_crun = "executable file `nope` not found in $PATH: No such file or directory";
        assert_eq!(verdict(&line("error", of_crun)), Some(NotStarted::Missing(of_crun.to_owned())));
        let other = "runc run failed: unable to apply cgroup configuration: permission denied";
        assert_eq!(verdict(&line("error", other)), Some(NotStarted::Failed(other.to_owned())));
        assert_eq!(verdict(&(line("warning", "unknown syscall") + "no JSON\n")), None);
        assert_eq!(verdict(""), None);
    }
}
