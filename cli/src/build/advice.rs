//! What people should know of their context.

use bricklayer_worker::context::GitIgnored;

/// Less is not worth a word, in bytes.
const WORTH_A_WORD: u64 = 32 << 20;

/// Paths that are named.
const NAMED: usize = 3;

/// A warning, if at least half of what a build read is what git ignores.
pub(super) fn advice(found: &GitIgnored) -> Option<String> {
    if found.ignored < WORTH_A_WORD || found.ignored < found.read / 2 {
        return None;
    }
    let megabytes = |bytes: u64| format!("{} MB", bytes.div_ceil(1_000_000));
    let mut named: Vec<String> = found
        .paths
        .iter()
        .take(NAMED)
        .map(|(path, size)| format!("{} ({})", path.display().to_string().escape_debug(), megabytes(*size)))
        .collect();
    if let Some(more) = found.paths.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push(format!("{more} more"));
    }
    Some(format!(
        "warning: of {} that were read of the context, git ignores {}, which .dockerignore does not hide: {}",
        megabytes(found.read),
        megabytes(found.ignored),
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_large_and_most_of_it_is_worth_a_word() {
        let found = |read: u64, ignored: u64| GitIgnored {
            read: read << 20,
            ignored: ignored << 20,
            paths: ["target", "a\nb", "node_modules", "x.o", "y.o"]
                .map(|path| (path.into(), ignored << 18))
                .into(),
        };
        assert_eq!(advice(&found(100, 31)), None);
        assert_eq!(advice(&found(1000, 400)), None);
        insta::assert_snapshot!(advice(&found(1000, 800)).unwrap(), @r"warning: of 1049 MB that were read of the context, git ignores 839 MB, which .dockerignore does not hide: target (210 MB), a\nb (210 MB), node_modules (210 MB), 2 more");
    }
}
