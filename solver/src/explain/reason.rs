//! The difference between what a step is now and what it was.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::parts::{InputParts, KeyParts, Value};
use crate::digest::Digest;
use crate::record::Record;

/// How many differences are listed; more are only counted.
const MAX_REASONS: usize = 8;
/// How much of a value is shown, in characters.
const MAX_SHOWN: usize = 100;

/// One reason why a step ran. Its `Display` is the line that people see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// No record of the instruction.
    NeverBuilt,
    /// Somebody asked not to use the cache for it.
    NoCache,
    /// There was a result of exactly this, but its files are gone from the store.
    Pruned,
    /// The instruction was written differently.
    Instruction {
        /// What it was.
        before: String,
        /// What it is.
        now: String,
    },
    /// A field of the op: `build-arg VERSION`, `env PATH`, `user`. `None`: there is none.
    Field {
        /// Its name.
        name: String,
        /// What it was.
        before: Option<Value>,
        /// What it is.
        now: Option<Value>,
    },
    /// The base image, or another image that files come from.
    Image {
        /// Its reference, with an arrow if that is another one.
        reference: String,
        /// What its manifest was.
        before: Digest,
        /// What it is.
        now: Digest,
    },
    /// Files of a local directory or of another step.
    Files {
        /// What happened to them.
        change: Change,
        /// The first of them by name.
        first: String,
        /// How many more there are.
        more: usize,
        /// The step that they come from, if not from a local directory.
        from: Option<String>,
    },
    /// Files that the step uses, but the list of files does not reach that far.
    SomeFiles {
        /// The directory or step that they come from.
        from: String,
    },
    /// A step before it made something else than last time.
    EarlierStep {
        /// Its name.
        name: String,
    },
    /// Differences that are not listed.
    More {
        /// How many.
        count: usize,
    },
}

/// What happened to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Content, mode or owner are others.
    Changed,
    /// They were not there.
    Added,
    /// They are not there.
    Removed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
        })
    }
}

/// A value on one line, without control characters, not too long.
fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        out.push('…');
    }
    if out.is_empty() { "(empty)".into() } else { out }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBuilt => f.write_str("never built"),
            Self::NoCache => f.write_str("the cache is not to be used"),
            Self::Pruned => f.write_str("result pruned"),
            Self::Instruction { before, now } => {
                let (before, now) = around_difference(before, now);
                write!(f, "instruction changed: {before} → {now}")
            }
            Self::Field { name, before, now } => {
                let name = shown(name);
                match (before.as_ref().map(|v| v.text.as_deref()), now.as_ref().map(|v| v.text.as_deref())) {
                    (Some(Some(before)), Some(Some(now))) => {
                        let (before, now) = around_difference(before, now);
                        if before == now {
                            return write!(f, "{name} changed: {now}, in what is not shown");
                        }
                        write!(f, "{name}: {before} → {now}")
                    }
                    (None, Some(Some(now))) => write!(f, "{name} is new: {}", shown(now)),
                    (Some(Some(before)), None) => write!(f, "{name} is gone; it was {}", shown(before)),
                    (None, Some(None)) => write!(f, "{name} is new (value not shown)"),
                    (Some(None), None) => write!(f, "{name} is gone"),
                    _ => write!(f, "{name} changed (value not shown)"),
                }
            }
            Self::Image { reference, before, now } => {
                write!(
                    f,
                    "base image {}: sha256:{}… → sha256:{}…",
                    shown(reference),
                    before.short(),
                    now.short()
                )
            }
            Self::Files { change, first, more, from } => {
                write!(f, "{change}: {}", shown(first))?;
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                match from {
                    Some(step) => write!(f, ", from {}", shown(step)),
                    None => Ok(()),
                }
            }
            Self::SomeFiles { from } => write!(f, "changed: files of {}", shown(from)),
            Self::EarlierStep { name } => write!(f, "an earlier step made something else: {}", shown(name)),
            Self::More { count } => write!(f, "and {count} more differences"),
        }
    }
}

/// Both texts on one line, cut so that the first difference can be seen.
fn around_difference(before: &str, now: &str) -> (String, String) {
    let same = before.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    if same < MAX_SHOWN * 2 / 3 {
        return (shown(before), shown(now));
    }
    let cut =
        |text: &str| format!("…{}", shown(&text.chars().skip(same - MAX_SHOWN / 3).collect::<String>()));
    (cut(before), cut(now))
}

/// Why a step that is `now` has no result, given earlier records of the same instruction (`family`, newest first)
/// or else the last one from the same place.
pub fn explain(family: &[Record], now: &KeyParts) -> Vec<Reason> {
    let nearest = family
        .iter()
        .filter_map(|record| KeyParts::decode(&record.parts))
        .filter(|parts| parts.kind == now.kind)
        // `max_by_key` takes the last of equals: from the oldest to the newest
        .rev()
        .max_by_key(|parts| likeness(parts, now));
    match nearest {
        None => vec![Reason::NeverBuilt],
        Some(before) => {
            let mut reasons = differences(&before, now);
            if reasons.is_empty() && now.inputs.iter().all(|input| input.digest.is_some()) {
                reasons.push(Reason::Pruned);
            }
            if reasons.len() > MAX_REASONS {
                let count = reasons.split_off(MAX_REASONS - 1).len();
                reasons.push(Reason::More { count });
            }
            reasons
        }
    }
}

/// Whether one of these records may be the result, as far as inputs are known: of what is known, nothing differs.
pub(crate) fn may_be_among(family: &[Record], now: &KeyParts) -> bool {
    let mut earlier = family.iter().filter_map(|record| KeyParts::decode(&record.parts));
    earlier.any(|before| before.kind == now.kind && differences(&before, now).is_empty())
}

/// How many parts are equal, less those that are there no more; inputs count most, since they are most of a result.
fn likeness(before: &KeyParts, now: &KeyParts) -> i64 {
    let old: HashMap<&str, &Value> =
        before.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let new: HashSet<&str> = now.fields.iter().map(|(name, _)| name.as_str()).collect();
    let fields = now.fields.iter().map(|(name, value)| i64::from(old.get(name.as_str()) == Some(&value)));
    let gone = old.keys().map(|name| i64::from(!new.contains(name)));
    let inputs = before.inputs.iter().zip(&now.inputs).map(|(a, b)| {
        i64::from(a.digest == b.digest && a.digest.is_some()) * 4 + i64::from(a.label == b.label) * 2
    });
    fields.sum::<i64>() - gone.sum::<i64>()
        + inputs.sum::<i64>()
        + i64::from(before.instruction == now.instruction)
}

fn differences(before: &KeyParts, now: &KeyParts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let rewritten = before.instruction != now.instruction;
    if rewritten {
        reasons
            .push(Reason::Instruction { before: before.instruction.clone(), now: now.instruction.clone() });
    }
    // what an instruction says by itself is not told a second time
    let told = [
        "command",
        "sources",
        "destination",
        "owner",
        "mode",
        "image",
        "URL",
        "repository",
        "reference",
        "file",
        "content",
        "directory",
    ];
    let fields = field_differences(&before.fields, &now.fields);
    reasons.extend(fields.into_iter().filter(|reason| match reason {
        Reason::Field { name, .. } => {
            let bare = name.split_once(". ").map_or(name.as_str(), |(_, bare)| bare);
            !(rewritten && (told.contains(&bare) || bare.starts_with("mount ")))
        }
        _ => true,
    }));
    for (number, input) in now.inputs.iter().enumerate() {
        if let Some(old) = before.inputs.get(number) {
            input_difference(old, input, &mut reasons);
        }
    }
    if before.inputs.len() != now.inputs.len() && !rewritten {
        let count = |inputs: &[InputParts]| Some(Value::shown(inputs.len().to_string()));
        let (before, now) = (count(&before.inputs), count(&now.inputs));
        reasons.push(Reason::Field { name: "number of inputs".into(), before, now });
    }
    reasons
}

fn field_differences(before: &[(String, Value)], now: &[(String, Value)]) -> Vec<Reason> {
    let old: HashMap<&str, &Value> = before.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let new: HashMap<&str, &Value> = now.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let digest =
        |value: Option<&&Value>| value.and_then(|value| value.text.as_deref()?.parse::<Digest>().ok());
    let mut reasons = Vec::new();
    for (name, value) in now {
        let was = old.get(name.as_str()).copied();
        if was == Some(value) {
            continue;
        }
        match (name.as_str(), digest(old.get("manifest")), digest(new.get("manifest"))) {
            ("manifest", Some(before), Some(now)) => {
                let text = |fields: &HashMap<&str, &Value>| fields.get("image").and_then(|v| v.text.clone());
                let reference = renamed(&text(&old).unwrap_or_default(), &text(&new).unwrap_or_default());
                reasons.push(Reason::Image { reference, before, now });
            }
            // told with the manifest
            ("image" | "layers", Some(before), Some(now)) if before != now => {}
            _ => reasons.push(Reason::Field {
                name: name.clone(),
                before: was.cloned(),
                now: Some(value.clone()),
            }),
        }
    }
    for (name, value) in before {
        if !new.contains_key(name.as_str()) {
            reasons.push(Reason::Field { name: name.clone(), before: Some(value.clone()), now: None });
        }
    }
    // what people set themselves comes first
    reasons.sort_by_key(|reason| match reason {
        Reason::Field { name, .. } if name.starts_with("build-arg ") => 0,
        _ => 1,
    });
    reasons
}

fn renamed(before: &str, now: &str) -> String {
    if before == now { now.to_owned() } else { format!("{before} → {now}") }
}

fn input_difference(before: &InputParts, now: &InputParts, reasons: &mut Vec<Reason>) {
    if now.digest.is_none() || before.digest == now.digest {
        return;
    }
    if let (Some(old), Some(new)) = (before.image, now.image)
        && old != new
    {
        reasons.push(Reason::Image { reference: renamed(&before.label, &now.label), before: old, now: new });
        return;
    }
    if before.files.is_empty() && now.files.is_empty() {
        reasons.push(match now.local {
            true => Reason::SomeFiles { from: now.label.clone() },
            false => Reason::EarlierStep { name: now.label.clone() },
        });
        return;
    }
    let listed = file_differences(before, now);
    if listed.is_empty() {
        reasons.push(Reason::SomeFiles { from: now.label.clone() });
    }
    reasons.extend(listed);
}

fn file_differences(before: &InputParts, now: &InputParts) -> Vec<Reason> {
    let old: HashMap<&str, &str> = before.files.iter().map(|(p, d)| (p.as_str(), d.as_str())).collect();
    let new: HashMap<&str, &str> = now.files.iter().map(|(p, d)| (p.as_str(), d.as_str())).collect();
    // lists are sorted by path, so what lies behind the end of a cut one says nothing
    let end = |input: &InputParts| {
        input.truncated.then(|| input.files.last().map(|(path, _)| path.clone())).flatten()
    };
    let (old_end, new_end) = (end(before), end(now));
    let within = |path: &str, end: &Option<String>| end.as_deref().is_none_or(|end| path <= end);
    let mut found: [(Change, Vec<&str>); 3] =
        [(Change::Changed, Vec::new()), (Change::Added, Vec::new()), (Change::Removed, Vec::new())];
    for (path, digest) in &now.files {
        match old.get(path.as_str()) {
            Some(was) if was != digest => found[0].1.push(path),
            None if within(path, &old_end) => found[1].1.push(path),
            _ => {}
        }
    }
    found[2].1.extend(
        before
            .files
            .iter()
            .map(|(path, _)| path.as_str())
            .filter(|path| !new.contains_key(path) && within(path, &new_end)),
    );
    let from = (!now.local).then(|| now.label.clone());
    // a directory changes with what is in it; it is only named if nothing else is
    found
        .into_iter()
        .filter_map(|(change, paths)| {
            let first = (*paths.first()?).to_owned();
            Some(Reason::Files { change, first, more: paths.len() - 1, from: from.clone() })
        })
        .collect()
}
