//! Which ids a user may map: `/etc/subuid` and `/etc/subgid` (subuid(5)), `/etc/passwd` for the user's name.

use std::fs;
use std::process::Command;

use bricklayer_sys::userns::Range;

/// How many ranges are used at most; the kernel takes 340 in one map.
const MOST: usize = 300;

/// What is mapped: users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) users: Vec<Range>,
    pub(super) groups: Vec<Range>,
}

impl Maps {
    /// The user itself as 0, and its subordinate ids; the error says what is missing.
    pub(super) fn subordinate(uid: u32, gid: u32) -> Result<Self, String> {
        let names = names_of(uid);
        let read = |path: &str, own: u32| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let ranges = ranges(&text, &names, uid);
            if ranges.is_empty() {
                let who = names.first().cloned().unwrap_or_else(|| uid.to_string());
                return Err(format!("{path} has no subordinate ids for {who}"));
            }
            Ok(map(own, &ranges))
        };
        Ok(Self { users: read("/etc/subuid", uid)?, groups: read("/etc/subgid", gid)? })
    }

    /// All ids that there are, each as itself.
    pub(super) fn of_outside() -> Self {
        let read = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .filter_map(|line| {
                    let mut words = line.split_whitespace();
                    let inside = words.next()?.parse().ok()?;
                    let count = words.nth(1)?.parse().ok()?;
                    Some(Range { inside, outside: inside, count })
                })
                .collect()
        };
        Self { users: read("/proc/self/uid_map"), groups: read("/proc/self/gid_map") }
    }
}

/// The names of a user: what `/etc/passwd` has, else what `id` knows (from a directory service, say).
fn names_of(uid: u32) -> Vec<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let names = names_in(&passwd, uid);
    if !names.is_empty() {
        return names;
    }
    let Ok(output) = Command::new("id").arg("-un").output() else { return names };
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !name.is_empty() { vec![name] } else { names }
}

fn names_in(passwd: &str, uid: u32) -> Vec<String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    };
    passwd.lines().filter_map(entry).collect()
}

/// The ranges of a file of lines `name:first:count`, where the name may be a number: first id and count.
fn ranges(text: &str, names: &[String], uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ours = owner == number || names.iter().any(|name| name == owner);
        (ours && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    };
    let mut found: Vec<(u32, u32)> = Vec::new();
    for range in text.lines().filter_map(range) {
        // Of two entries that overlap (one by name, one by number) the kernel would refuse both.
        let apart = |other: &(u32, u32)| range.0 >= other.0 + other.1 || other.0 >= range.0 + range.1;
        if found.iter().all(apart) {
            found.push(range);
        }
    }
    found
}

/// 0 is the user's own id; the ranges follow each other from 1 on.
fn map(own: u32, ranges: &[(u32, u32)]) -> Vec<Range> {
    let mut map = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut next = 1u32;
    for &(first, count) in ranges.iter().take(MOST) {
        // The last number is none (it means "no change" to chown).
        let count = count.min((u32::MAX - 1).saturating_sub(next));
        if count == 0 {
            break;
        }
        map.push(Range { inside: next, outside: first, count });
        next += count;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user_by_name_or_number() {
        let text = "alice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:x:1\nalice:5\n\nalice:7:0\nalice:4294967295:9\nalice:100500:3\n";
        let of = |names: &[&str], uid| {
            ranges(text, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), uid)
        };
        assert_eq!(of(&["alice"], 1000), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(of(&["bob"], 1001), [(165_536, 65536)]);
        assert_eq!(of(&[], 1002), []);
        assert_eq!(names_in("root:x:0:0::/:/bin/sh\nal:x:7:7:::\nbad\nal2:x:7:1:::\n", 7), ["al", "al2"]);
    }

    #[test]
    fn the_user_is_root_inside_and_ranges_follow() {
        let range = |inside, outside, count| Range { inside, outside, count };
        assert_eq!(
            map(1000, &[(100_000, 65536), (300_000, 10)]),
            [range(0, 1000, 1), range(1, 100_000, 65536), range(65537, 300_000, 10)]
        );
        // as many as there are numbers
        let last = map(5, &[(10, 4_000_000_000), (4_000_000_010, 294_967_280), (6, 20)]).pop();
        assert_eq!(last, Some(range(4_294_967_281, 6, 13)));
    }
}
