//! The small languages inside of instructions.

use crate::{duration, git as repository, reference, split, text};

/// A JSON form is a list of strings that JSON writes and reads back.
pub fn json(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    if let Some(Ok(strings)) = split::json(&line) {
        let total: usize = strings.iter().map(String::len).sum();
        // `\uXXXX` makes at most 3 bytes of 6
        assert!(total <= 3 * line.len(), "{total} bytes of {}", line.len());
        let written = serde_json::to_string(&strings).expect("strings are JSON");
        assert_eq!(split::json(&written), Some(Ok(strings)));
    }
}

/// A repository's URL never carries credentials, and its subdirectory never leads out of it.
pub fn git(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let name = repository::file_name(&text);
    assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..", "{name:?}");
    match repository::parse(&text) {
        Ok(Some(found)) => {
            let source = found.source;
            assert!(source.subdir.split('/').all(|name| !matches!(name, "." | "..")));
            assert!(!source.subdir.starts_with('/'));
            assert!(!source.remote.is_empty() && !source.remote.contains(['#', '?']));
            assert!(!repository::url_has_credentials(&source.remote) || !source.remote.starts_with("http"));
            // said again by a query, it is the same
            let again = repository::parse(&source.remote);
            assert!(matches!(again, Ok(Some(again)) if again.source.remote == source.remote));
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// CSV lists, sizes, signals, durations, references.
pub fn small(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    if let Some(fields) = text::csv(&line) {
        let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
        let written = fields.iter().map(quoted).collect::<Vec<_>>().join(",");
        assert_eq!(text::csv(&written), Some(fields));
    }
    if let Some(bytes) = text::bytes(&line) {
        assert_eq!(text::bytes(&bytes.to_string()), Some(bytes));
    }
    if let Some(nanoseconds) = duration::parse(&line) {
        assert_eq!(duration::parse(&duration::format(nanoseconds)), Some(nanoseconds));
    }
    if text::is_signal(&line) {
        assert!(line.len() <= 20 || line.bytes().all(|b| b.is_ascii_digit() || b == b'+'));
    }
    if reference::is_valid(&line) {
        assert!(line.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(reference::is_valid(reference::familiar(&line)) || line.contains('@'));
    }
    assert!(text::go_quote(&line).len() <= 2 + 6 * line.len());
}
