//! What holds for any input: the properties that the fuzz targets (`frontend/fuzz`) check, and that the tests check on every kept
//! seed. There is only in tests and fuzz targets; a property that does not hold panics.
//!
//! Where a result can be said in another, slower way, it is: lines, expansions of patterns and ignore patterns are compared with
//! second implementations, which are written for clearness and share no code with the first. No clock is looked at: work is bounded
//! by what is made (bytes, words, steps) relative to the input.

mod file;
mod ignore;
mod lines;
mod small;
mod words;

pub use file::{dockerfile, heredocs, tree};
pub use ignore::ignore;
pub use lines::lines;
pub use small::{git, json, small};
pub use words::words;

/// Something that holds for any input.
pub type Property = fn(&[u8]);

/// All properties, by the names of their fuzz targets.
pub const ALL: [(&str, Property); 9] = [
    ("dockerfile", dockerfile),
    ("git", git),
    ("heredocs", heredocs),
    ("ignore", ignore),
    ("json", json),
    ("lines", lines),
    ("small", small),
    ("tree", tree),
    ("words", words),
];

/// The seeds of a file in `frontend/fuzz/seeds`: one a line, bytes that are not printable ASCII as Rust escapes them.
pub fn read_seeds(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(unescape).collect()
}

/// The other way round.
pub fn write_seeds(seeds: &[Vec<u8>]) -> String {
    seeds.iter().map(|seed| format!("{}\n", seed.escape_ascii())).collect()
}

fn unescape(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            Some(other) => other,
            None => panic!("a seed ends in `\\`"),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// What the fuzzers found worth keeping, and everything that they once broke.
    #[test]
    fn properties_hold_for_every_seed() {
        for (name, property) in ALL {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(format!("{name}.txt"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let seeds = read_seeds(&text);
            assert!(seeds.len() > 10, "{} has only {} seeds", path.display(), seeds.len());
            for seed in seeds {
                let result = std::panic::catch_unwind(|| property(&seed));
                assert!(result.is_ok(), "{name}: {}", seed.escape_ascii());
            }
        }
    }

    proptest! {
        #[test]
        fn seeds_survive_their_file(seeds in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            prop_assert_eq!(read_seeds(&write_seeds(&seeds)), seeds);
        }

        #[test]
        fn properties_hold_for_lines_of_tokens(
            parts in proptest::collection::vec(proptest::sample::select(TOKENS.to_vec()), 0..40),
        ) {
            let text: String = parts.concat();
            for (_, property) in ALL {
                property(text.as_bytes());
            }
        }
    }

    /// What the languages are made of.
    const TOKENS: [&str; 72] = [
        "FROM ",
        "base",
        "\n",
        " AS ",
        "a",
        "b",
        " ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "LABEL ",
        "EXPOSE ",
        "80/tcp",
        "WORKDIR ",
        "/",
        "CMD ",
        "SHELL ",
        "[",
        "]",
        "\"",
        "'",
        "\\",
        "\\\n",
        "#",
        "# escape=`\n",
        "`",
        "$",
        "${",
        "}",
        ":-",
        ":+",
        "?",
        "##",
        "%%",
        "//",
        "=",
        "<<",
        "<<-",
        "EOF",
        "\nEOF\n",
        "--mount=type=",
        "cache",
        ",target=",
        "--from=",
        "--chown=",
        "1:2",
        "*",
        "**",
        "!",
        "..",
        "[^a-c]",
        "https://h/r.git",
        "git@h:r",
        "?ref=",
        "&",
        "x",
        "\t",
        "\r\n",
        "é",
        "scratch",
        "HEALTHCHECK --interval=1s CMD ",
        "VOLUME ",
        "USER ",
        "STOPSIGNAL ",
        "{",
        ",",
        "0",
        "\u{feff}",
        "# syntax=docker/dockerfile:1\n",
    ];
}
