use serde_json::{Value, json};

use super::*;
use crate::record::BuildOutcome;

/// A build with two stages, a wait, an export with a push inside, and names that would like to be more than names.
fn record() -> BuildRecord {
    let hostile = "[2/2] RUN echo '</title><script>alert(1)</script>' \"&\u{202e}\u{1b}[2J\n\" style=x";
    let tasks = json!([
        { "number": 1, "name": "[internal] load build definition", "kind": "internal", "state": "done",
          "startedUs": 1_000, "endedUs": 2_000 },
        { "number": 2, "name": "[internal] load build context", "kind": "step", "op": "local", "state": "done",
          "startedUs": 3_000, "endedUs": 90_000 },
        { "number": 3, "name": "[1/2] FROM base", "kind": "step", "op": "image", "state": "cached" },
        { "number": 4, "name": hostile, "kind": "step", "op": "run", "state": "done", "inputs": [3],
          "readyUs": 100_000, "startedUs": 101_000, "endedUs": 6_101_000, "waitedUs": 1_000,
          "reasons": ["changed: <b>src</b>"], "cpuUs": 9_000_000, "peakMemory": 512_000_000, "exitCode": 0 },
        { "number": 5, "name": "[other 1/1] COPY . /", "kind": "step", "op": "copy", "state": "done", "inputs": [2, 3],
          "readyUs": 100_000, "startedUs": 100_000, "endedUs": 300_000 },
        { "number": 6, "name": "[other 2/2] RUN test", "kind": "step", "op": "run", "state": "done", "inputs": [5],
          "readyUs": 300_000, "startedUs": 6_101_500, "endedUs": 8_000_000, "waitedUs": 5_801_500, "cpuUs": 1_000_000,
          "reasons": ["never built"] },
        { "number": 7, "name": "pushing layer abc to r.example/app", "kind": "export", "state": "done",
          "startedUs": 6_200_000, "endedUs": 9_500_000, "moved": 28_230_000 },
        { "number": 8, "name": "exporting and pushing the image", "kind": "export", "state": "done",
          "startedUs": 8_010_000, "endedUs": 10_000_000 },
        { "number": 9, "name": "[3/3] RUN never", "kind": "step", "op": "run", "state": "pending" },
    ]);
    let record = json!({
        "version": 1, "id": "k3f9a2xy", "startedMs": 1_700_000_000_000_i64, "durationUs": 10_020_000, "outcome": "done",
        "context": "/src/<app>", "dockerfile": "Dockerfile", "tags": ["app"], "steps": 5, "cached": 1, "tasks": tasks,
    });
    serde_json::from_value(record).unwrap()
}

#[test]
fn the_path_and_what_would_have_saved_most() {
    let record = record();
    let timing = Timing::of(&record);
    let path: Vec<String> = timing
        .path
        .iter()
        .map(|s| format!("#{} {:?} {}..{}", timing.bars[s.activity].task.number, s.spent, s.from, s.to))
        .collect();
    insta::assert_snapshot!(path.join("\n"), @"
    #1 Working 1000..2000
    #2 Between 2000..3000
    #2 Working 3000..90000
    #4 Between 90000..100000
    #4 Waiting 100000..101000
    #4 Working 101000..6101000
    #7 Between 6101000..6200000
    #7 Working 6200000..9500000
    #8 Working 9500000..10000000
    ");
    let savings: Vec<String> = timing
        .savings
        .iter()
        .map(|s| format!("{} {:?} {}", s.us, s.task.map(|task| task.number), s.text))
        .collect();
    insta::assert_snapshot!(savings.join("\n"), @"
    6000000 Some(4) it was not cached: changed: <b>src</b>
    1500000 Some(7) what is done with the result after the steps
    500000 Some(8) what is done with the result after the steps
    ");
}

#[test]
fn who_waits_for_another_build_is_seen_to_wait() {
    let mut record = record();
    record.tasks.truncate(4);
    let waiter = &mut record.tasks[3];
    (waiter.state, waiter.started_us) = (TaskState::Cached, None);
    (waiter.ready_us, waiter.waited_us, waiter.ended_us) = (Some(100_000), 6_000_000, Some(6_101_000));
    waiter.waited_for = vec!["process 4711".into()];
    let timing = Timing::of(&record);
    let last = timing.bars.last().unwrap();
    assert_eq!((last.waits_from, last.begin, last.end), (100_000, 6_100_000, 6_101_000));
    let saving = &timing.savings[0];
    assert_eq!((saving.us, saving.task), (6_000_000, None));
    assert!(saving.text.ends_with("waited for other builds: process 4711"), "{}", saving.text);
}

#[test]
fn bars_on_a_lane_do_not_overlap() {
    let record = record();
    let timing = Timing::of(&record);
    assert_eq!(timing.bars.len(), 7);
    for lane in 0..timing.lanes {
        let mut free = 0;
        for bar in timing.bars.iter().filter(|bar| bar.lane == lane) {
            assert!(free <= bar.waits_from && bar.waits_from <= bar.begin && bar.begin <= bar.end, "{bar:?}");
            free = bar.end;
        }
    }
    assert_eq!(timing.lanes, 2);
}

#[test]
fn the_page_is_complete_in_itself_and_obeys_no_name() {
    let page = record().timing_html();
    // the name is there, as text
    assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(
        page.contains("not cached: changed: &lt;b&gt;src&lt;/b&gt;") && page.contains("/src/&lt;app&gt;")
    );
    for never in
        ["<script", "<b>src", "src=", "http:", "https:", "url(", "@import", "\u{1b}", "\u{202e}", " style=x"]
    {
        assert!(!page.replace("&quot; style=x", "").contains(never), "{never}");
    }
    // what is opened is closed, in the right order
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if matches!(name, "!doctype" | "meta") => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
    // each link leads to a step
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
    }
}

#[test]
fn builds_without_times_have_a_page_too() {
    let mut empty = record();
    empty.tasks.clear();
    empty.duration_us = 0;
    empty.outcome = BuildOutcome::Failed;
    empty.error = Some("<oh>".into());
    let page = empty.timing_html();
    assert!(page.contains("Nothing took any time") && page.contains("&lt;oh&gt;"), "{page}");
    serde_json::from_str::<Value>(&empty.timing_trace()).unwrap();
    // numbers that no clock gives
    let mut odd = record();
    for (number, task) in odd.tasks.iter_mut().enumerate() {
        let most = u64::MAX - number as u64;
        (task.started_us, task.ended_us, task.waited_us) = (Some(most), Some(number as u64), most);
        (task.ready_us, task.cpu_us, task.peak_memory, task.moved) =
            (Some(most), Some(most), Some(most), most);
    }
    odd.timing_html();
    odd.duration_us = u64::MAX;
    odd.tasks[0].ended_us = None;
    odd.timing_html();
    odd.timing_trace();
}

#[test]
fn the_trace_is_what_viewers_open() {
    let trace: Value = serde_json::from_str(&record().timing_trace()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let mut lanes: HashMap<u64, u64> = HashMap::new();
    for event in events {
        assert!(event["pid"].is_u64() && event["tid"].is_u64() && event["name"].is_string(), "{event}");
        if event["ph"] == "M" {
            assert!(event["args"]["name"].is_string() || event["args"]["sort_index"].is_u64(), "{event}");
            continue;
        }
        assert_eq!(event["ph"], "X");
        // complete events of one thread lie one behind the other
        let (from, took) = (event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap());
        let free = lanes.entry(event["tid"].as_u64().unwrap()).or_default();
        assert!(*free <= from, "{event}");
        *free = from + took;
    }
    let make = events.iter().find(|event| event["args"]["cpuUs"] == 9_000_000).unwrap();
    assert_eq!(
        (&make["cat"], &make["ts"], &make["dur"]),
        (&"run".into(), &101_000.into(), &6_000_000.into())
    );
    assert_eq!(make["args"]["reasons"][0], "changed: <b>src</b>");
    assert!(events.iter().any(|event| event["cat"] == "wait" && event["args"]["step"] == 6));
}

#[test]
fn marks_on_the_axis_are_round_and_few() {
    for end in [1, 9, 11, 999, 1_234, 99_999, 10_020_000, 3_600_000_000, u64::MAX] {
        let step = html::tick(end);
        assert!(end / step <= 10, "{end} {step}");
        assert!(
            matches!(step.to_string().trim_end_matches('0'), "1" | "2" | "5") || step == u64::MAX,
            "{step}"
        );
    }
}
