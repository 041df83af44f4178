//! Users and groups of a root filesystem: who a RUN runs as, and what `--chown` means.
//!
//! `/etc/passwd` and `/etc/group` of the root are read by hand (never through NSS, which would load libraries), as
//! regular files of at most 10 MiB. A line that is no entry is skipped. What consists of digits only is a number,
//! never a name, and must fit 32 bits; the largest number means "no change" to chown(2) and is refused.

use std::path::Path;

use bricklayer_cache::root::{Root, RootError};
use bricklayer_solver::op::Owner;

/// How much of each file is accepted, in bytes.
const LIMIT: u64 = 10 << 20;

/// The largest number of a user or group: 2^32 - 2.
const MAX_ID: u32 = u32::MAX - 1;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one first, each once.
    pub groups: Vec<u32>,
    /// The home directory by /etc/passwd; `/` without an entry.
    pub home: String,
}

/// Why a user or group could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// A name that is not in /etc/passwd.
    #[error("no user `{0}` in /etc/passwd of the image")]
    NoUser(String),
    /// A name that is not in /etc/group.
    #[error("no group `{0}` in /etc/group of the image")]
    NoGroup(String),
    /// Digits that are no number of a user or group.
    #[error("user or group number `{0}` is out of range: at most {MAX_ID}")]
    Range(String),
    /// One of the files can't be read.
    #[error("cannot look up a user or group")]
    File(#[from] RootError),
}

/// What a user or group is given as.
enum Id<'a> {
    Number(u32),
    Name(&'a str),
}

/// Resolves `user[:group]` as USER and RUN do; empty is root.
///
/// - A name must be in /etc/passwd; a number need not: without an entry its group is 0 and its home `/`.
/// - Without a group, the supplementary groups are those of /etc/group that list the user's name.
/// - With one, there is only that group; a name must be in /etc/group.
pub fn resolve_user(root: &Root, spec: &str) -> Result<User, UsersError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let wanted = if user.is_empty() { Id::Number(0) } else { parse(user)? };
    let passwd = read(root, "/etc/passwd")?;
    let entry = match wanted {
        Id::Number(uid) => entries(&passwd).find(|entry| entry.uid == uid),
        Id::Name(name) => Some(
            entries(&passwd)
                .find(|entry| entry.name == name)
                .ok_or_else(|| UsersError::NoUser(name.to_owned()))?,
        ),
    };
    let uid = match (&entry, wanted) {
        (_, Id::Number(uid)) => uid,
        (entry, Id::Name(_)) => entry.as_ref().map_or(0, |entry| entry.uid),
    };
    let home =
        entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    let mut user = User { uid, gid: entry.as_ref().map_or(0, |entry| entry.gid), groups: Vec::new(), home };
    match group.map(parse).transpose()? {
        Some(Id::Number(gid)) => user.gid = gid,
        Some(Id::Name(name)) => {
            let file = read(root, "/etc/group")?;
            user.gid = groups(&file)
                .find(|group| group.name == name)
                .ok_or_else(|| UsersError::NoGroup(name.to_owned()))?
                .gid;
        }
        None => {}
    }
    user.groups.push(user.gid);
    if let (None, Some(entry)) = (group, entry) {
        let file = read(root, "/etc/group")?;
        for group in groups(&file).filter(|group| group.members.split(',').any(|member| member == entry.name))
        {
            if !user.groups.contains(&group.gid) {
                user.groups.push(group.gid);
            }
        }
    }
    Ok(user)
}

/// Resolves the value of `--chown` to numbers, as BuildKit does: a user that is not in /etc/passwd is 0, a group that
/// is not in /etc/group leaves the user's own, and a lone number of a user is that of its group too.
pub fn resolve_owner(root: &Root, owner: &Owner) -> Result<(u32, u32), UsersError> {
    let (uid, own) = if owner.user.is_empty() {
        (0, 0)
    } else {
        match parse(&owner.user)? {
            Id::Number(uid) => (uid, uid),
            Id::Name(name) => {
                let passwd = read(root, "/etc/passwd")?;
                entries(&passwd)
                    .find(|entry| entry.name == name)
                    .map_or((0, 0), |entry| (entry.uid, entry.gid))
            }
        }
    };
    let gid = match owner.group.as_deref().filter(|group| !group.is_empty()).map(parse).transpose()? {
        None => own,
        Some(Id::Number(gid)) => gid,
        Some(Id::Name(name)) => {
            let file = read(root, "/etc/group")?;
            groups(&file).find(|group| group.name == name).map_or(own, |group| group.gid)
        }
    };
    Ok((uid, gid))
}

fn parse(text: &str) -> Result<Id<'_>, UsersError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Id::Name(text));
    }
    number(text).map(Id::Number).ok_or_else(|| UsersError::Range(text.chars().take(40).collect()))
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// The file's text; one that is missing is empty.
fn read(root: &Root, path: &str) -> Result<String, UsersError> {
    match root.read_small(Path::new(path), LIMIT) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(file: &str) -> impl Iterator<Item = Group<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken:x\n\
        :x:0:0::/:\n\
        4294967296:x:0:0:trap:/root:/bin/sh\n\
        77:x:0:0:trap:/root:/bin/sh\n\
        daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
        app:x:1000:1000:app:/home/app:/bin/sh\n\
        homeless:x:1001:1001\n\
        big:x:99999999999:0::/:\n\
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
    const GROUP: &str = "root:x:0:\ndaemon:x:1:\napp:x:1000:\nextra:x:2000:app,other\nmore:x:2001:other,app\n\
        approx:x:2002:apps\nwheel:x:10:root\nnogroup:x:65534:\n";

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("etc")).expect("etc");
        fs::write(dir.path().join("etc/passwd"), PASSWD).expect("passwd");
        fs::write(dir.path().join("etc/group"), GROUP).expect("group");
        let root = Root::open(dir.path()).expect("a root");
        (dir, root)
    }

    #[test]
    fn users_are_names_or_numbers() {
        let (_dir, root) = root();
        // spec, uid, gid, groups, home
        let cases: &[(&str, u32, u32, &[u32], &str)] = &[
            ("", 0, 0, &[0, 10], "/root"),
            ("root", 0, 0, &[0, 10], "/root"),
            ("0", 0, 0, &[0, 10], "/root"),
            ("app", 1000, 1000, &[1000, 2000, 2001], "/home/app"),
            ("1000", 1000, 1000, &[1000, 2000, 2001], "/home/app"),
            ("app:", 1000, 1000, &[1000, 2000, 2001], "/home/app"),
            ("app:extra", 1000, 2000, &[2000], "/home/app"),
            ("app:7", 1000, 7, &[7], "/home/app"),
            ("1000:1000", 1000, 1000, &[1000], "/home/app"),
            ("5:6", 5, 6, &[6], "/"),
            ("5", 5, 0, &[0], "/"),
            ("77", 77, 0, &[0], "/"),
            (":extra", 0, 2000, &[2000], "/root"),
            ("homeless", 1001, 1001, &[1001], "/"),
            ("4294967294", 4_294_967_294, 0, &[0], "/"),
        ];
        for (spec, uid, gid, groups, home) in cases {
            let user = resolve_user(&root, spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
            let expected = User { uid: *uid, gid: *gid, groups: groups.to_vec(), home: (*home).to_owned() };
            assert_eq!(user, expected, "{spec}");
        }
    }

    #[test]
    fn unknown_users_are_named() {
        let (_dir, root) = root();
        let cases = [
            ("nosuch", "no user `nosuch` in /etc/passwd of the image"),
            ("app:nosuch", "no group `nosuch` in /etc/group of the image"),
            ("4294967296", "user or group number `4294967296` is out of range: at most 4294967294"),
            ("4294967295", "user or group number `4294967295` is out of range: at most 4294967294"),
            ("0:4294967295", "user or group number `4294967295` is out of range: at most 4294967294"),
            ("-1", "no user `-1` in /etc/passwd of the image"),
            ("big", "no user `big` in /etc/passwd of the image"),
        ];
        for (spec, message) in cases {
            assert_eq!(resolve_user(&root, spec).expect_err(spec).to_string(), message);
        }
    }

    #[test]
    fn owners_fall_back_as_in_buildkit() {
        let (_dir, root) = root();
        let cases = [
            ("app", None, (1000, 1000)),
            ("app", Some("extra"), (1000, 2000)),
            ("daemon", Some("app"), (1, 1000)),
            ("nobody", None, (65534, 65534)),
            ("", Some("extra"), (0, 2000)),
            ("app", Some("2000"), (1000, 2000)),
            ("77", Some("extra"), (77, 2000)),
            ("root", Some("root"), (0, 0)),
            ("1234", Some("5678"), (1234, 5678)),
            ("42", None, (42, 42)),
            ("1000", None, (1000, 1000)),
            ("nosuch", None, (0, 0)),
            ("nosuch", Some("extra"), (0, 2000)),
            ("app", Some("nosuch"), (1000, 1000)),
            ("77", Some("nosuch"), (77, 77)),
            ("app", Some(""), (1000, 1000)),
        ];
        for (user, group, expected) in cases {
            let owner = Owner { user: user.into(), group: group.map(Into::into) };
            assert_eq!(resolve_owner(&root, &owner).expect("an owner"), expected, "{user}:{group:?}");
        }
        let owner = Owner { user: "4294967296".into(), group: None };
        assert!(matches!(resolve_owner(&root, &owner), Err(UsersError::Range(_))));
    }

    #[test]
    fn a_root_without_the_files_has_numbers_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("a root");
        assert_eq!(resolve_user(&root, "7").expect("a number").home, "/");
        assert!(matches!(resolve_user(&root, "root"), Err(UsersError::NoUser(_))));
        let owner = Owner { user: "root".into(), group: Some("wheel".into()) };
        assert_eq!(resolve_owner(&root, &owner).expect("an owner"), (0, 0));
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let (dir, root) = root();
        let passwd = dir.path().join("etc/passwd");
        fs::remove_file(&passwd).expect("removed");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &passwd,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .expect("a pipe");
        assert!(matches!(resolve_user(&root, "app"), Err(UsersError::File(RootError::NotAFile { .. }))));
        fs::remove_file(&passwd).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &passwd).expect("a link");
        assert!(matches!(resolve_user(&root, "app"), Err(UsersError::NoUser(_))), "resolved inside the root");
        fs::remove_file(&passwd).expect("removed");
        fs::File::create(&passwd).and_then(|file| file.set_len(1 << 30)).expect("a large file");
        assert!(matches!(resolve_user(&root, "app"), Err(UsersError::File(RootError::TooLarge { .. }))));
    }
}
