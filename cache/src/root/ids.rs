//! Which ids this process may give to files. Asked once: a process that enters a user namespace does that first.

use std::sync::OnceLock;

/// The maps of this process's user namespace (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Maps {
    /// First id and count.
    users: Vec<(u32, u32)>,
    groups: Vec<(u32, u32)>,
}

fn parse(text: &str) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse);
        Some((words.next()?.ok()?, words.nth(1)?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn maps() -> &'static Maps {
    static MAPS: OnceLock<Maps> = OnceLock::new();
    MAPS.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| parse(&text)).unwrap_or_default();
        Maps { users: read("/proc/self/uid_map"), groups: read("/proc/self/gid_map") }
    })
}

/// Are we in a user namespace other than the first one? There device nodes can't be made, and overlayfs keeps its marks
/// in `user.` attributes.
pub fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // The first one maps all ids to themselves.
    *ANSWER.get_or_init(|| {
        std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
    })
}

fn holds(ranges: &[(u32, u32)], id: u32) -> bool {
    ranges.iter().any(|&(first, count)| id >= first && id - first < count)
}

/// Can a file belong to this user and this group?
pub fn mapped(uid: u32, gid: u32) -> bool {
    let maps = maps();
    holds(&maps.users, uid) && holds(&maps.groups, gid)
}

/// Is there one user only?
pub fn single() -> bool {
    // What can't be read (without /proc) says nothing.
    !maps().users.is_empty() && maps().users.iter().map(|&(_, count)| u64::from(count)).sum::<u64>() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let text = "         0       1000          1\n         1     100000      65536\n";
        let ranges = parse(text);
        assert_eq!(ranges, [(0, 1), (1, 65536)]);
        for (id, there) in [(0, true), (1, true), (65536, true), (65537, false), (u32::MAX, false)] {
            assert_eq!(holds(&ranges, id), there, "{id}");
        }
        assert!(holds(&parse("0 0 4294967295\n"), 4_294_967_294));
        assert_eq!(parse("a b c\n1 2\n"), []);
    }
}
