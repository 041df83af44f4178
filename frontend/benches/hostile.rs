//! How long each hostile Dockerfile takes once, from its bytes to a graph or an error, and how much memory the process needed at the most
//! meanwhile (the input not counted).

use std::time::Instant;

use bricklayer_frontend::{Dockerfile, lower};

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/hostile.rs"]
mod hostile;

/// A line of /proc/self/status, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()).unwrap_or(0)
}

#[expect(clippy::print_stdout, reason = "it is what a benchmark is for")]
fn main() {
    for case in hostile::cases() {
        // resets the highest mark
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let before = status("VmRSS");
        let began = Instant::now();
        let result = Dockerfile::parse(case.text.as_bytes())
            .and_then(|file| lower(&file, &common::options(), &common::Images));
        let took = began.elapsed();
        let result = match (result, case.outcome) {
            (Ok(_), hostile::Outcome::Graph) => "graph",
            (Err(_), hostile::Outcome::Error(_)) => "error",
            _ => "not what it should be",
        };
        let peak = status("VmHWM").saturating_sub(before) >> 10;
        println!("{:7.1} ms {peak:5} MiB  {result}  {}", took.as_secs_f64() * 1e3, case.name);
    }
}
