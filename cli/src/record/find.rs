//! Builds and steps by what a user types.

use bricklayer_cache::store::BuildDirectory;

use super::{Asked, BuildOutcome, BuildRecord, TaskRecord, TaskState, VERSION, read};
use crate::build::Builder;
use crate::error::Error;

/// Names that an error lists, at the most.
const LISTED: usize = 5;

impl Builder {
    /// The records of the builds that are kept, the newest first. One that can't be read is
    /// [`BuildOutcome::Unreadable`].
    ///
    /// # Errors
    ///
    /// The store can't be listed.
    pub fn builds(&self) -> Result<Vec<BuildRecord>, Error> {
        let directories = self.build_directories()?;
        let record = |directory: &BuildDirectory| match read::record(directory) {
            Ok(record) => Some(record),
            // one that is just beginning, or was removed meanwhile
            Err(_) if !directory.path.join("record.json").exists() && is_empty(directory) => None,
            Err(error) => Some(unreadable(directory, &error)),
        };
        Ok(directories.iter().filter_map(record).collect())
    }

    /// A build: `latest` (or `-1`), `-2` for the one before it, and so on, or the beginning of an ID.
    ///
    /// # Errors
    ///
    /// There is none, or more than one, or its record can't be read.
    pub fn find_build(&self, typed: &str) -> Result<BuildRecord, Error> {
        let directories = self.build_directories()?;
        if directories.is_empty() {
            return Err(Error::new("there is no record of any build"));
        }
        let back = match typed {
            "latest" => Some(1),
            typed => typed.strip_prefix('-').and_then(|digits| digits.parse::<usize>().ok()),
        };
        if let Some(back) = back {
            let chosen = back.checked_sub(1).and_then(|index| directories.get(index));
            return match chosen {
                Some(directory) => read::record(directory),
                None => Err(Error::new(format!(
                    "no build `{typed}`: the records go back to -{}",
                    directories.len()
                ))),
            };
        }
        let prefix = typed.to_ascii_lowercase();
        let found: Vec<&BuildDirectory> = directories
            .iter()
            .filter(|directory| !prefix.is_empty() && directory.id.starts_with(&prefix))
            .collect();
        match found.as_slice() {
            [directory] => read::record(directory),
            [] => Err(Error::new(format!("no build `{typed}`"))
                .with_hint("`bricklayer builds` lists them; `latest` is the newest")),
            several => {
                let ids: Vec<&str> =
                    several.iter().take(LISTED).map(|directory| directory.id.as_str()).collect();
                Err(Error::new(format!("`{typed}` is the beginning of {} IDs", several.len()))
                    .with_hint(format!("such as {}", ids.join(", "))))
            }
        }
    }

    /// The newest build that failed.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn last_failed_build(&self) -> Result<BuildRecord, Error> {
        let directories = self.build_directories()?;
        let mut records = directories.iter().filter_map(|directory| read::record(directory).ok());
        records.find(|record| record.outcome == BuildOutcome::Failed).ok_or_else(|| {
            Error::new("there is no record of a build that failed")
                .with_hint("`bricklayer builds` lists the builds that were")
        })
    }

    fn build_directories(&self) -> Result<Vec<BuildDirectory>, Error> {
        self.store.builds().map_err(|e| Error::because("cannot list the builds", e))
    }
}

fn is_empty(directory: &BuildDirectory) -> bool {
    std::fs::metadata(directory.path.join("events")).is_ok_and(|events| events.len() == 0)
        || !directory.path.exists()
}

fn unreadable(directory: &BuildDirectory, error: &Error) -> BuildRecord {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    BuildRecord {
        version: VERSION,
        id: directory.id.clone(),
        started_ms: directory.started_ms,
        duration_us: 0,
        outcome: BuildOutcome::Unreadable,
        error: Some(text),
        asked: Asked::default(),
        image: None,
        manifest: None,
        steps: 0,
        cached: 0,
        tasks: Vec::new(),
        incomplete: None,
        directory: directory.path.clone(),
    }
}

impl BuildRecord {
    /// A step: its number as displays show it (`5`, `#5`), its whole name, or a part of its name that no other has.
    ///
    /// # Errors
    ///
    /// There is none, or more than one.
    pub fn find_task(&self, typed: &str) -> Result<&TaskRecord, Error> {
        if let Ok(number) = typed.strip_prefix('#').unwrap_or(typed).parse::<u64>() {
            return self.numbered(number).ok_or_else(|| {
                Error::new(format!("build {} has no step {number}", self.id)).with_hint(self.numbers())
            });
        }
        let exact = self.candidates(|name| name == typed);
        let found = if exact.is_empty() {
            let part = typed.to_lowercase();
            self.candidates(|name| !part.is_empty() && name.to_lowercase().contains(&part))
        } else {
            exact
        };
        match found.as_slice() {
            [task] => Ok(task),
            [] => Err(Error::new(format!("build {} has no step `{typed}`", self.id))
                .with_hint(format!("`bricklayer builds {}` lists them", self.id))),
            several => {
                let list: Vec<String> = several
                    .iter()
                    .take(LISTED)
                    .map(|task| format!("#{} {}", task.number, task.name))
                    .collect();
                let more = several.len().saturating_sub(LISTED);
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                Err(Error::new(format!("`{typed}` is a part of {} names", several.len()))
                    .with_hint(format!("{}{more}", list.join(", "))))
            }
        }
    }

    /// The tasks whose names fit. Of several with one name (a step that was announced again), the last that did something.
    fn candidates(&self, fits: impl Fn(&str) -> bool) -> Vec<&TaskRecord> {
        let mut found: Vec<&TaskRecord> = Vec::new();
        for task in self.tasks.iter().filter(|task| fits(&task.name)) {
            match found.iter_mut().find(|other| other.name == task.name) {
                Some(other) => {
                    if task.state != TaskState::Pending {
                        *other = task;
                    }
                }
                None => found.push(task),
            }
        }
        found
    }

    fn numbers(&self) -> String {
        match (self.tasks.first(), self.tasks.last()) {
            (Some(first), Some(last)) => format!("its steps are {} to {}", first.number, last.number),
            _ => "it has no steps".to_owned(),
        }
    }
}
