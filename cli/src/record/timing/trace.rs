//! Chrome's Trace Event Format: the JSON object format with complete events (`"ph":"X"`) and metadata events (`"ph":"M"`),
//! times in microseconds. Each lane is a thread, and so is the critical path.

use serde_json::{Value, json};

use super::{Bar, Spent, Timing, WorkKind};

/// The thread of the critical path; lanes come behind it.
const PATH: usize = 1;

pub(super) fn trace(timing: &Timing<'_>) -> String {
    let record = timing.record;
    let mut events = vec![
        metadata("process_name", 0, json!({ "name": format!("bricklayer build {}", record.id) })),
        metadata("thread_name", PATH, json!({ "name": "critical path" })),
        metadata("thread_sort_index", PATH, json!({ "sort_index": 0 })),
    ];
    for lane in 0..timing.lanes {
        events.push(metadata("thread_name", thread(lane), json!({ "name": format!("lane {}", lane + 1) })));
        events.push(metadata("thread_sort_index", thread(lane), json!({ "sort_index": lane + 1 })));
    }
    for segment in &timing.path {
        let task = timing.bars[segment.activity].task;
        let (name, category) = match segment.spent {
            Spent::Working => (task.name.clone(), "work"),
            Spent::Waiting => (format!("waiting: {}", task.name), "wait"),
            Spent::Between if task.kind == WorkKind::Export => ("packing layers".to_owned(), "between"),
            Spent::Between => ("between steps".to_owned(), "between"),
        };
        let args = json!({ "step": task.number });
        events.push(complete(&name, category, PATH, segment.from, segment.to, args));
    }
    for bar in &timing.bars {
        if bar.waits_from < bar.begin {
            let args = json!({ "step": bar.task.number, "for": bar.task.waited_for });
            let name = format!("waiting: {}", bar.task.name);
            events.push(complete(&name, "wait", thread(bar.lane), bar.waits_from, bar.begin, args));
        }
        events.push(work(bar));
    }
    let document = json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "build": record.id,
            "startedMs": record.started_ms,
            "outcome": record.outcome,
            "context": record.asked.context,
        },
    });
    format!("{document}\n")
}

fn thread(lane: usize) -> usize {
    PATH + 1 + lane
}

fn work(bar: &Bar<'_>) -> Value {
    let task = bar.task;
    let mut args = serde_json::Map::new();
    args.insert("step".into(), json!(task.number));
    args.insert("state".into(), json!(task.state));
    args.insert("critical".into(), json!(bar.critical));
    let mut add = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            _ => false,
        };
        if !empty {
            args.insert(name.to_owned(), value);
        }
    };
    add("reasons", json!(task.reasons));
    add("error", json!(task.error));
    add("cpuUs", json!(task.cpu_us));
    add("peakMemory", json!(task.peak_memory));
    add("largestProcess", json!(task.largest_process));
    add("bytes", json!(task.bytes));
    add("moved", json!(task.moved));
    add("key", json!(task.key));
    if let Some(code) = task.exit_code {
        args.insert("exitCode".into(), json!(code));
    }
    let category = task.op.as_deref().unwrap_or(match task.kind {
        WorkKind::Export => "export",
        _ => "internal",
    });
    complete(&task.name, category, thread(bar.lane), bar.begin, bar.end, Value::Object(args))
}

fn complete(name: &str, category: &str, thread: usize, from: u64, to: u64, args: Value) -> Value {
    json!({
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": from,
        "dur": to.saturating_sub(from),
        "pid": 1,
        "tid": thread,
        "args": args,
    })
}

fn metadata(name: &str, thread: usize, args: Value) -> Value {
    json!({ "name": name, "ph": "M", "pid": 1, "tid": thread, "args": args })
}
