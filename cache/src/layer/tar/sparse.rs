//! Sparse files: GNU's old format and the PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").

use super::{Segment, number};

/// How many segments a file may have: a map of them is held in memory (1 MiB here).
pub(super) const MAX_SEGMENTS: usize = 65_536;

/// Checks a map: in order, not overlapping, within the file; empty segments are dropped.
pub(super) fn check(map: Vec<Segment>, size: u64) -> Option<Vec<Segment>> {
    let mut end = 0;
    for segment in &map {
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.length)?;
        if end > size {
            return None;
        }
    }
    Some(map.into_iter().filter(|segment| segment.length > 0).collect())
}

/// Adds pairs of 12-byte fields (old format). A pair of blanks or NULs ends the map.
pub(super) fn old_fields(fields: &[u8], map: &mut Vec<Segment>) -> Option<()> {
    for pair in fields.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) || length.first() == Some(&0) {
            break;
        }
        push(map, number::parse(offset)?, number::parse(length)?)?;
    }
    Some(())
}

/// `offset,length,offset,length…` (format 0.1).
pub(super) fn list(text: &[u8]) -> Option<Vec<Segment>> {
    let mut map = Vec::new();
    if text.is_empty() {
        return Some(map);
    }
    let mut numbers = text.split(|byte| *byte == b',').map(number::decimal);
    while let Some(offset) = numbers.next() {
        push(&mut map, offset?, numbers.next()??)?;
    }
    Some(map)
}

/// Adds one segment, if it can be one.
pub(super) fn push(map: &mut Vec<Segment>, offset: i64, length: i64) -> Option<()> {
    if map.len() >= MAX_SEGMENTS {
        return None;
    }
    map.push(Segment { offset: offset.try_into().ok()?, length: length.try_into().ok()? });
    Some(())
}
