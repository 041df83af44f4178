//! Records and logs, read again. They are our own files, but whoever can write to the store can damage them: what is read is
//! bounded, and what can't be understood is an error that names the file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bricklayer_cache::store::BuildDirectory;
use bricklayer_solver::event::Stream;

use super::collect::{Collector, counts};
use super::journal::{self, Entry, Header, LONGEST_PIECE, What, read_line};
use super::{BuildOutcome, BuildRecord, TaskState, VERSION};
use crate::error::Error;

/// `record.json` in bytes, at the most.
const LARGEST_RECORD: u64 = 64 << 20;

/// The record of a build; of one that goes on or was killed, as far as its events say.
pub(super) fn record(directory: &BuildDirectory) -> Result<BuildRecord, Error> {
    if let Some(record) = finished(directory)? {
        return Ok(record);
    }
    let live = directory.is_live();
    // it may have ended meanwhile
    if !live && let Some(record) = finished(directory)? {
        return Ok(record);
    }
    from_events(directory, live)
}

/// `record.json`, if it is there.
fn finished(directory: &BuildDirectory) -> Result<Option<BuildRecord>, Error> {
    let path = directory.path.join("record.json");
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(LARGEST_RECORD).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, error)),
    }
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(&bytes).map_err(|e| unreadable(&path, e))?;
    check_version(&path, version)?;
    let mut record: BuildRecord = serde_json::from_slice(&bytes).map_err(|e| unreadable(&path, e))?;
    record.directory.clone_from(&directory.path);
    record.id.clone_from(&directory.id);
    Ok(Some(record))
}

fn check_version(path: &Path, version: u32) -> Result<(), Error> {
    if version > VERSION {
        return Err(Error::new(format!(
            "`{}` has version {version}, this program knows versions up to {VERSION}",
            path.display()
        )));
    }
    Ok(())
}

fn unreadable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::because(format!("cannot read `{}`", path.display()), error)
}

fn from_events(directory: &BuildDirectory, live: bool) -> Result<BuildRecord, Error> {
    let mut events = BuildLog::open(&directory.path)?;
    let header = events.header()?;
    let mut collector = Collector::default();
    while events.entry(|entry| collector.add(entry.us, entry.task, &entry.what))? {}
    let mut duration_us = collector.last_us;
    if live {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let started = directory.started_ms.unsigned_abs().saturating_mul(1000);
        duration_us = u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(started).max(duration_us);
    }
    let mut tasks = collector.into_tasks();
    if !live {
        for task in tasks.iter_mut().filter(|task| task.state == TaskState::Running) {
            task.state = TaskState::Cancelled;
            task.ended_us.get_or_insert(duration_us);
        }
    }
    let (steps, cached) = counts(&tasks);
    Ok(BuildRecord {
        version: VERSION,
        id: directory.id.clone(),
        started_ms: directory.started_ms,
        duration_us,
        outcome: if live { BuildOutcome::Running } else { BuildOutcome::Killed },
        error: None,
        asked: header,
        image: None,
        manifest: None,
        steps,
        cached,
        tasks,
        incomplete: None,
        directory: directory.path.clone(),
    })
}

/// Something of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// The task's number.
    pub task: u64,
    /// When, in microseconds since the build started.
    pub time_us: u64,
    /// What.
    pub kind: LogEventKind,
}

/// What happened, as far as it concerns logs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEventKind {
    /// The task has this name.
    Named(String),
    /// It wrote something; [`BuildLog::read`] gives it.
    Wrote(LogPiece),
    /// Its command ended with this exit code.
    Exited(i32),
    /// It has ended; with this error if it failed.
    Ended(Option<String>),
}

/// A piece of a log, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPiece {
    /// Where the command wrote it.
    pub stream: Stream,
    offset: u64,
    length: u32,
}

/// The logs of a build, in the order in which they were written. It can be read while the build goes on.
#[derive(Debug)]
pub struct BuildLog {
    path: PathBuf,
    file: BufReader<File>,
    /// Behind the last event that was read whole.
    at: u64,
    line: Vec<u8>,
}

impl BuildLog {
    /// Opens the log of a build.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("events");
        let file = File::open(&path).map_err(|e| unreadable(&path, e))?;
        Ok(Self { path, file: BufReader::with_capacity(64 << 10, file), at: 0, line: Vec::new() })
    }

    /// The first line; what comes next is events.
    fn header(&mut self) -> Result<super::Asked, Error> {
        let whole = read_line(&mut self.file, &mut self.line).map_err(|e| unreadable(&self.path, e))?;
        if !whole {
            return Err(Error::new(format!("`{}` ends before it begins", self.path.display())));
        }
        let header: Header<'_> = serde_json::from_slice(&self.line).map_err(|e| unreadable(&self.path, e))?;
        check_version(&self.path, header.version)?;
        self.at = self.line.len() as u64 + 1;
        Ok(header.asked)
    }

    /// Reads an event and steps over the bytes that belong to it. False: there is no whole one (yet).
    fn entry(&mut self, told: impl FnOnce(&Entry<'_>)) -> Result<bool, Error> {
        let Self { path, file, at, line } = self;
        let failed = |e: io::Error| unreadable(path, e);
        if !read_line(file, line).map_err(failed)? {
            file.seek(SeekFrom::Start(*at)).map_err(failed)?;
            return Ok(false);
        }
        let entry: Entry<'_> = serde_json::from_slice(line).map_err(|e| unreadable(path, e))?;
        let mut end = *at + line.len() as u64 + 1;
        if let What::Log { bytes, .. } = entry.what {
            if bytes > LONGEST_PIECE as u64 {
                return Err(Error::new(format!("`{}` has a piece of {bytes} bytes", path.display())));
            }
            // with the line end behind them; they may not all be there yet
            file.seek_relative(bytes.cast_signed()).map_err(failed)?;
            if file.fill_buf().map_err(failed)?.first() != Some(&b'\n') {
                file.seek(SeekFrom::Start(*at)).map_err(failed)?;
                return Ok(false);
            }
            file.consume(1);
            end += bytes + 1;
        }
        told(&entry);
        *at = end;
        Ok(true)
    }

    /// The next event that concerns logs. `None`: there is no more, as yet.
    ///
    /// # Errors
    ///
    /// The file can't be read, or holds something else.
    pub fn next_event(&mut self) -> Result<Option<LogEvent>, Error> {
        if self.at == 0 {
            self.header()?;
        }
        loop {
            let mut event = None;
            let start = self.at;
            let mut log = None;
            let more = self.entry(|entry| {
                let kind = match &entry.what {
                    What::Announced { name, .. } => LogEventKind::Named(name.clone().into_owned()),
                    What::Log { stream, bytes } => {
                        log = Some((*stream, u32::try_from(*bytes).unwrap_or(0)));
                        return event = Some((entry.task, entry.us, None));
                    }
                    What::Exited { code, .. } => LogEventKind::Exited(*code),
                    What::Failed { error } => LogEventKind::Ended(Some(error.clone().into_owned())),
                    What::Done | What::Cached | What::Cancelled => LogEventKind::Ended(None),
                    What::Started
                    | What::Sized { .. }
                    | What::Waiting { .. }
                    | What::Missed { .. }
                    | What::Warning { .. } => {
                        return;
                    }
                };
                event = Some((entry.task, entry.us, Some(kind)));
            })?;
            if !more {
                return Ok(None);
            }
            if let Some((task, time_us, kind)) = event {
                let kind = match (kind, log) {
                    (Some(kind), _) => kind,
                    (None, Some((stream, length))) => {
                        let stream = match stream {
                            journal::Stream::Out => Stream::Stdout,
                            journal::Stream::Err => Stream::Stderr,
                        };
                        let offset = start + self.line.len() as u64 + 1;
                        LogEventKind::Wrote(LogPiece { stream, offset, length })
                    }
                    (None, None) => continue,
                };
                return Ok(Some(LogEvent { task, time_us, kind }));
            }
        }
    }

    /// The bytes of a piece, just as they were written.
    pub fn read(&self, piece: LogPiece) -> Result<Vec<u8>, Error> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; piece.length as usize];
        let file = self.file.get_ref();
        file.read_exact_at(&mut bytes, piece.offset).map_err(|e| unreadable(&self.path, e))?;
        Ok(bytes)
    }
}

impl BuildRecord {
    /// Does the build go on, now?
    pub fn goes_on(&self) -> bool {
        let Self { id, started_ms, directory: path, .. } = self;
        let directory = BuildDirectory { id: id.clone(), started_ms: *started_ms, path: path.clone() };
        self.outcome == BuildOutcome::Running && directory.is_live()
    }

    /// Opens its logs.
    ///
    /// # Errors
    ///
    /// They are not there any more, or can't be read.
    pub fn log(&self) -> Result<BuildLog, Error> {
        BuildLog::open(&self.directory)
    }
}
