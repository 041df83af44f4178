//! Input that wants to take all time or memory.

/// What should come of a case.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "the benchmark does not look at the text")]
pub(crate) enum Outcome {
    /// A graph.
    Graph,
    /// An error whose first line holds this.
    Error(&'static str),
}

/// A Dockerfile by name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) outcome: Outcome,
}

/// All of them, some megabytes each at the most.
pub(crate) fn cases() -> Vec<Case> {
    use Outcome::{Error, Graph};
    let numbered = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let list: Vec<(&'static str, String, Outcome)> = vec![
        (
            "${${${, 4 MB",
            format!("FROM base\nENV A={}\n", "${${${".repeat(700_000)),
            Error("unknown modifier `{`"),
        ),
        (
            "${a:-${a:-…, 4 MB",
            format!("FROM base\nENV A={}\n", "${a:-".repeat(800_000)),
            Error("nested more than 100 deep"),
        ),
        (
            "the same in FROM",
            format!("FROM {}\n", "${a:-".repeat(800_000)),
            Error("nested more than 100 deep"),
        ),
        (
            "values that double",
            format!("FROM base\nENV A=0123456789\n{}", "ENV A=$A$A\n".repeat(60)),
            Error("expand to more than 64 MiB"),
        ),
        (
            "a pattern of 5,000 stars",
            format!("FROM base\nENV A={}\nENV B=${{A//{}b/x}}\n", "a".repeat(5000), "*a".repeat(5000)),
            Error("expand to more than 64 MiB"),
        ),
        (
            "a large ENV and many RUNs",
            format!("FROM base\nENV A={}\n{}", "x".repeat(1 << 20), "RUN y\n".repeat(500)),
            Error("environments of all steps take more than 128 MiB"),
        ),
        (
            "10,000 heredocs of one RUN",
            format!(
                "FROM base\nRUN cat{}\n{}",
                numbered(10_000, &|i| format!(" <<E{i}")),
                numbered(10_000, &|i| format!("text\nE{i}\n"))
            ),
            Graph,
        ),
        (
            "10,000 heredocs of one COPY",
            format!(
                "FROM base\nCOPY{} /x/\n{}",
                numbered(10_000, &|i| format!(" <<E{i}")),
                numbered(10_000, &|i| format!("text\nE{i}\n"))
            ),
            Graph,
        ),
        (
            "10,000 RUNs with a heredoc each",
            format!("FROM base\n{}", "RUN <<E\nset -e\nx\nE\n".repeat(10_000)),
            Graph,
        ),
        (
            "10,000 heredocs that never end",
            format!("FROM base\n{}", "RUN cat <<EOF\n".repeat(10_000)),
            Error("unterminated heredoc"),
        ),
        (
            "ONBUILD, 250,000 deep",
            format!("FROM base\n{}RUN x\n", "ONBUILD ".repeat(250_000)),
            Error("ONBUILD can't stand behind ONBUILD"),
        ),
        (
            "10,000 triggers of a stage",
            format!("FROM base AS a\n{}FROM a\n", "ONBUILD RUN x\n".repeat(10_000)),
            Graph,
        ),
        ("one line of 10 MB", format!("FROM base\nRUN {}\n", "a".repeat(10 << 20)), Graph),
        ("one word of 10 MB", "x".repeat(10 << 20), Error("unknown instruction")),
        (
            "one line of 260,000 continuations",
            format!("FROM base\nRUN a {}b\n", "\\\n".repeat(260_000)),
            Graph,
        ),
        ("1,000,000 empty lines", "\n".repeat(1_000_000), Error("no instructions")),
        (
            "100,000 unknown instructions",
            format!("FROM base\n{}", "BAD\n".repeat(100_000)),
            Error("unknown instruction"),
        ),
        (
            "100,000 ARGs",
            format!("FROM base\n{}", numbered(100_000, &|i| format!("ARG a{i}=$a{}\n", i.wrapping_sub(1)))),
            Graph,
        ),
        (
            "100,000 ARGs before FROM",
            format!(
                "{}FROM base\n",
                numbered(100_000, &|i| format!("ARG a{i}=${{a{}:-x}}\n", i.wrapping_sub(1)))
            ),
            Graph,
        ),
        (
            "100,000 ARGs and a RUN behind each 100th",
            format!(
                "FROM base\n{}",
                numbered(100_000, &|i| format!("ARG a{i}=1\n{}", if i % 100 == 0 { "RUN x\n" } else { "" }))
            ),
            Error("environments of all steps"),
        ),
        (
            "100,000 variables of one ENV",
            format!("FROM base\nENV {}\n", numbered(100_000, &|i| format!("a{i}=b "))),
            Graph,
        ),
        (
            "100,000 undefined variables",
            format!("FROM base\nENV A={}\n", numbered(100_000, &|i| format!("$b{i}"))),
            Graph,
        ),
        ("100,000 sources of one COPY", format!("FROM base\nCOPY {}/x/\n", "a ".repeat(100_000)), Graph),
        (
            "JSON, 1,000,000 deep",
            format!("FROM base\nCMD {}{}\n", "[".repeat(1_000_000), "]".repeat(1_000_000)),
            Error("takes strings only"),
        ),
        ("JSON that never closes", format!("FROM base\nCMD {}\n", "[".repeat(1_000_000)), Graph),
        ("JSON of 1,000,000 strings", format!("FROM base\nCMD [{}\"\"]\n", "\"\",".repeat(1_000_000)), Graph),
        (
            "all ports, three times",
            format!("FROM base\n{}", "EXPOSE 1-65535/tcp 1-65535/udp\n".repeat(3)),
            Graph,
        ),
        (
            "colons in EXPOSE",
            format!("FROM base\nEXPOSE {}\n", "1:".repeat(1 << 16)),
            Error("EXPOSE can't use"),
        ),
        (
            "10,000 stages, each from the one before",
            format!(
                "FROM base AS s0\n{}",
                numbered(10_000, &|i| format!("FROM s{i} AS s{}\nENV e{i}=1\n", i + 1))
            ),
            Error("environments of all steps"),
        ),
        (
            "10,000 stages, each copying from the one before",
            format!(
                "FROM base AS s0\nRUN x\n{}",
                numbered(10_000, &|i| format!("FROM base AS s{}\nCOPY --from=s{i} /a /\n", i + 1))
            ),
            Graph,
        ),
        ("10,000 stages of one name", format!("{}FROM a\n", "FROM base AS a\nRUN x\n".repeat(10_000)), Graph),
        (
            "50,000 mounts of one RUN",
            format!("FROM base\nRUN {}x\n", "--mount=type=cache,target=/c ".repeat(50_000)),
            Graph,
        ),
        ("100,000 comments", format!("{}FROM base\n", "# c\n".repeat(100_000)), Graph),
        (
            "CSV of 1 MB in a mount",
            format!("FROM base\nRUN --mount={} x\n", "a=b,".repeat(250_000)),
            Error("mount"),
        ),
    ];
    list.into_iter().map(|(name, text, outcome)| Case { name, text, outcome }).collect()
}
