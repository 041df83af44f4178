//! "Did you mean": the nearest of some names.

/// The option nearest to `text` by edit distance, if it is near (at most two edits) and not equal. Case counts for nothing
/// but the tie.
pub fn nearest<'a>(text: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const FAR: usize = 3;
    let wanted: Vec<char> = text.chars().take(100).flat_map(char::to_lowercase).collect();
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        if option == text {
            return None;
        }
        let candidate: Vec<char> = option.chars().take(100).flat_map(char::to_lowercase).collect();
        if candidate.len().abs_diff(wanted.len()) >= FAR {
            continue;
        }
        let distance = distance(&wanted, &candidate);
        // three of three letters changed is another word
        if distance < FAR && distance < wanted.len().max(1) && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, option));
        }
    }
    best.map(|(_, option)| option)
}

/// Edits between two words: letters added, removed, changed, or two neighbours swapped (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_near_names_only() {
        let names = ["COPY", "CMD", "ENV", "RUN", "WORKDIR", "ENTRYPOINT", "build", "builder"];
        let cases = [
            ("COPPY", Some("COPY")),
            ("copy", Some("COPY")),
            ("WORKDRI", Some("WORKDIR")),
            ("biuld", Some("build")),
            ("RNU", Some("RUN")),
            ("COPY", None),
            ("zzz", None),
            ("", None),
            ("x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(nearest(text, names), expected, "{text}");
        }
    }
}
