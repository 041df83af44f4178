//! Records of builds that never were: events told to a recorder, and read again.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use bricklayer_solver::event::{Exited, Outcome, Reporter, Stream, Task, TaskInfo, TaskKind};
use bricklayer_solver::graph::VertexId;

use super::*;
use crate::build::{BuildResult, Builder, BuilderOptions};
use crate::error::Error;
use crate::request::{BuildRequest, Context};

struct Bench {
    _dir: tempfile::TempDir,
    builder: Builder,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let options = BuilderOptions { root: dir.path().join("store"), ..BuilderOptions::default() };
    Bench { builder: Builder::open(options).unwrap(), _dir: dir }
}

impl Bench {
    fn start(&self) -> Recorder {
        let request = BuildRequest {
            context: Context::Remote("https://user:secret@host/repo.git#main".into()),
            tags: vec!["app".into()],
            ..BuildRequest::default()
        };
        Recorder::start(&self.builder, &request, Reporter::silent())
    }

    fn only(&self) -> BuildRecord {
        let mut builds = self.builder.builds().unwrap();
        assert_eq!(builds.len(), 1);
        builds.remove(0)
    }
}

fn step(recorder: &Recorder, name: &str, vertex: u32) -> Task {
    let (kind, vertex) = (TaskKind::Step, Some(VertexId(vertex)));
    recorder.reporter().task(TaskInfo { name: name.into(), kind, vertex, location: None })
}

fn logs(record: &BuildRecord) -> Vec<(u64, Stream, Vec<u8>)> {
    let mut log = record.log().unwrap();
    let mut pieces = Vec::new();
    while let Some(event) = log.next_event().unwrap() {
        if let LogEventKind::Wrote(piece) = event.kind {
            pieces.push((event.task, piece.stream, log.read(piece).unwrap()));
        }
    }
    pieces
}

#[test]
fn a_build_is_told_again_with_its_logs_whole() {
    let bench = bench();
    let recorder = bench.start();
    let id = recorder.id().unwrap().to_owned();
    let (base, make) = (step(&recorder, "[1/2] FROM base", 0), step(&recorder, "[2/2] RUN make", 1));
    base.cached();
    make.start();
    make.missed(vec!["changed: src/main.c".into()]);
    let every_byte: Vec<u8> = (0..=255).collect();
    let much = vec![b'x'; 3 << 20];
    make.log(Stream::Stdout, every_byte.clone());
    make.log(Stream::Stderr, b"{\"us\":1}\n".to_vec());
    make.log(Stream::Stdout, much.clone());
    make.progress("layer", 10, Some(20));
    make.progress("layer", 20, Some(20));
    make.progress("other", 5, None);
    make.sized(100);
    make.sized(11);
    make.warn("careful");
    let cpu_time = Some(Duration::from_millis(5));
    make.exited(Exited { code: 7, peak_memory: Some(1 << 20), largest_process: Some(1 << 19), cpu_time });
    make.finish(Outcome::Failed("exit code: 7".into()));
    assert_eq!(recorder.place_of(VertexId(1)).unwrap().step, 2);
    let ended = recorder.end(&Err(Error::new("it failed"))).unwrap();

    let record = bench.only();
    assert_eq!(record, ended);
    assert_eq!((record.id.as_str(), record.outcome), (id.as_str(), BuildOutcome::Failed));
    assert_eq!(record.error.as_deref(), Some("it failed"));
    assert_eq!(record.asked.context, "https://host/repo.git#main", "no password");
    assert_eq!((record.steps, record.cached), (2, 1));
    let [base, make] = record.tasks.as_slice() else { panic!("{:?}", record.tasks) };
    assert_eq!((base.number, base.state), (1, TaskState::Cached));
    assert_eq!((make.number, make.state, make.exit_code), (2, TaskState::Failed, Some(7)));
    assert_eq!((make.peak_memory, make.largest_process), (Some(1 << 20), Some(1 << 19)));
    assert_eq!((make.cpu_us, make.moved, make.bytes), (Some(5000), 25, 111));
    assert_eq!(make.reasons, ["changed: src/main.c"]);
    assert_eq!(make.warnings, ["careful"]);
    assert_eq!(record.failed().unwrap().number, 2);

    let pieces = logs(&record);
    assert_eq!(pieces[0], (2, Stream::Stdout, every_byte));
    assert_eq!(pieces[1], (2, Stream::Stderr, b"{\"us\":1}\n".to_vec()));
    let rest: Vec<u8> = pieces[2..].iter().flat_map(|(_, _, data)| data.clone()).collect();
    assert!(rest == much, "{} of {}", rest.len(), much.len());
}

#[test]
fn a_build_can_be_read_while_it_goes_on_and_after_a_kill() {
    let bench = bench();
    let recorder = bench.start();
    let make = step(&recorder, "[1/1] RUN make", 0);
    make.start();
    make.log(Stream::Stdout, b"first".to_vec());
    let record = bench.only();
    assert_eq!(record.outcome, BuildOutcome::Running);
    assert_eq!(record.tasks[0].state, TaskState::Running);
    let mut log = record.log().unwrap();
    assert!(matches!(log.next_event().unwrap().unwrap().kind, LogEventKind::Named(_)));
    assert!(matches!(log.next_event().unwrap().unwrap().kind, LogEventKind::Wrote(_)));
    assert_eq!(log.next_event().unwrap(), None);
    make.log(Stream::Stderr, b"second".to_vec());
    let Some(LogEvent { kind: LogEventKind::Wrote(piece), .. }) = log.next_event().unwrap() else {
        panic!("a reader sees what came since");
    };
    assert_eq!((piece.stream, log.read(piece).unwrap()), (Stream::Stderr, b"second".to_vec()));

    // as a kill leaves it: the lock is gone, nothing was written at the end
    let directory = record.directory.clone();
    let events = fs::read(directory.join("events")).unwrap();
    drop((make, recorder));
    fs::remove_file(directory.join("record.json")).unwrap();
    let header = 1 + events.iter().position(|byte| *byte == b'\n').unwrap();
    for length in header..=events.len() {
        fs::write(directory.join("events"), &events[..length]).unwrap();
        let record = bench.only();
        assert_eq!(record.outcome, BuildOutcome::Killed, "{length}");
        assert!(record.tasks.iter().all(|task| task.state != TaskState::Running));
        logs(&record);
    }
    assert_eq!(logs(&bench.only()).len(), 2);
    fs::write(directory.join("events"), &events[..header - 1]).unwrap();
    assert_eq!(bench.only().outcome, BuildOutcome::Unreadable);
    fs::write(directory.join("events"), b"").unwrap();
    assert_eq!(bench.builder.builds().unwrap(), [], "it had not begun");
}

#[test]
fn a_build_that_nobody_waits_for_any_more_was_cancelled() {
    let bench = bench();
    drop(bench.start());
    assert_eq!(bench.only().outcome, BuildOutcome::Cancelled);
}

#[test]
fn late_events_and_failures_to_write_do_no_harm() {
    let bench = bench();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let reporter = Reporter::new(move |event| listener.lock().unwrap().push(event));
    let recorder = Recorder::start(&bench.builder, &BuildRequest::default(), reporter);
    let make = step(&recorder, "RUN make", 0);
    let directory = bench.only().directory;
    recorder.end(&Ok(BuildResult::default())).unwrap();
    make.log(Stream::Stdout, b"late".to_vec());
    drop(make);
    assert_eq!(logs(&bench.only()), []);
    assert_eq!(told.lock().unwrap().len(), 3, "the caller hears all of it");

    // where no record can be kept, the build goes on and says so
    let builds = directory.parent().unwrap();
    fs::remove_dir_all(builds).unwrap();
    fs::write(builds, "in the way").unwrap();
    told.lock().unwrap().clear();
    let listener = Arc::clone(&told);
    let reporter = Reporter::new(move |event| listener.lock().unwrap().push(event));
    let recorder = Recorder::start(&bench.builder, &BuildRequest::default(), reporter);
    assert_eq!(recorder.id(), None);
    step(&recorder, "RUN make", 0).finish(Outcome::Done);
    assert_eq!(recorder.end(&Ok(BuildResult::default())), None);
    let events = told.lock().unwrap();
    assert!(format!("{events:?}").contains("keep a record of the build"), "{events:?}");
}

#[test]
fn a_full_disk_ends_the_record_and_not_the_build() {
    let bench = bench();
    let recorder = bench.start();
    let make = step(&recorder, "RUN make", 0);
    make.start();
    recorder.write_events_to(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    make.log(Stream::Stdout, b"lost".to_vec());
    make.log(Stream::Stdout, b"lost, too".to_vec());
    make.finish(Outcome::Done);
    let record = recorder.end(&Ok(BuildResult::default())).unwrap();
    assert_eq!(record.outcome, BuildOutcome::Done);
    assert!(record.incomplete.as_ref().unwrap().contains("No space left"), "{:?}", record.incomplete);
    assert_eq!(bench.only(), record);
    assert_eq!(logs(&record), [], "what was written before can be read");
}

#[test]
fn damage_and_newer_versions_are_named() {
    let bench = bench();
    bench.start().end(&Ok(BuildResult::default())).unwrap();
    let directory = bench.only().directory;
    let text = fs::read_to_string(directory.join("record.json")).unwrap();
    let cases = [
        (
            text.replace("\"version\":1", "\"version\":2"),
            "has version 2, this program knows versions up to 1",
        ),
        (text[..text.len() / 2].to_owned(), "cannot read"),
        (String::new(), "cannot read"),
        (text.replace("\"tasks\":[]", "\"tasks\":7"), "cannot read"),
    ];
    for (text, expected) in cases {
        fs::write(directory.join("record.json"), &text).unwrap();
        let record = bench.only();
        assert_eq!(record.outcome, BuildOutcome::Unreadable);
        let error = record.error.unwrap();
        assert!(error.contains(expected) && error.contains("record.json"), "{error}");
        assert!(bench.builder.find_build("latest").is_err());
    }
}

#[test]
fn events_that_something_else_wrote_are_refused() {
    let bench = bench();
    drop(bench.start());
    let directory = bench.only().directory;
    fs::remove_file(directory.join("record.json")).unwrap();
    let header = fs::read(directory.join("events")).unwrap();
    let refused: [&[u8]; 4] = [
        b"{\"us\":1,\"task\":1,\"event\":\"log\",\"stream\":\"out\",\"bytes\":99999999999}\n",
        b"not json\n",
        b"{\"us\":1,\"task\":1,\"event\":\"no such event\"}\n",
        b"{\"us\":-1,\"task\":1,\"event\":\"started\"}\n",
    ];
    for line in refused {
        let mut file = fs::File::create(directory.join("events")).unwrap();
        file.write_all(&header).unwrap();
        file.write_all(line).unwrap();
        let record = bench.only();
        assert_eq!(record.outcome, BuildOutcome::Unreadable, "{}", String::from_utf8_lossy(line));
    }
    // events of tasks that were never announced
    let mut file = fs::File::create(directory.join("events")).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(b"{\"us\":1,\"task\":9,\"event\":\"started\"}\n").unwrap();
    assert_eq!(bench.only().tasks, []);
}

#[test]
fn builds_and_steps_are_found_by_what_people_type() {
    let bench = bench();
    let error = |result: Result<BuildRecord, Error>| result.unwrap_err().to_string();
    assert_eq!(error(bench.builder.find_build("latest")), "there is no record of any build");
    let mut ids = Vec::new();
    for _ in 0..3 {
        // the order of builds of one millisecond is nobody's concern
        std::thread::sleep(Duration::from_millis(2));
        let recorder = bench.start();
        ids.push(recorder.id().unwrap().to_owned());
        for name in ["[build 1/2] RUN make", "[build 2/2] RUN make install", "[2/2] COPY --from=build /out /"]
        {
            step(&recorder, name, 0).finish(Outcome::Done);
        }
        recorder.end(&Ok(BuildResult::default())).unwrap();
    }
    let id = |typed: &str| bench.builder.find_build(typed).unwrap().id;
    assert_eq!(bench.builder.builds().unwrap().len(), 3);
    assert_eq!(
        [id("latest"), id("-1"), id("-2"), id("-3")],
        [&ids[2], &ids[2], &ids[1], &ids[0]].map(String::clone)
    );
    assert_eq!(id(&ids[1]), ids[1]);
    assert_eq!(id(&ids[1][..7].to_uppercase()), ids[1]);
    assert_eq!(error(bench.builder.find_build("-4")), "no build `-4`: the records go back to -3");
    for wrong in ["", "-0", "0", "../..", "no-such-id"] {
        assert_eq!(
            error(bench.builder.find_build(wrong)).split(':').next().unwrap(),
            format!("no build `{wrong}`")
        );
    }

    let record = bench.builder.find_build("latest").unwrap();
    let number = |typed: &str| record.find_task(typed).map(|task| task.number).map_err(|e| e.to_string());
    assert_eq!(number("2"), Ok(2));
    assert_eq!(number("#3"), Ok(3));
    assert_eq!(number("install"), Ok(2));
    assert_eq!(number("copy"), Ok(3));
    assert_eq!(number("[build 1/2] RUN make"), Ok(1), "a whole name");
    assert_eq!(number("run make").unwrap_err(), "`run make` is a part of 2 names");
    assert_eq!(number("").unwrap_err(), format!("build {} has no step ``", record.id));
    assert_eq!(number("9").unwrap_err(), format!("build {} has no step 9", record.id));
}
