//! Input that wants to take all time or memory ends in an error, or in a graph, soon. No time is asserted: what takes too long
//! hangs the test, and what takes too much memory kills it.

mod common;

use bricklayer_frontend::syntax::Tree;
use bricklayer_frontend::{Dockerfile, Lowered, lower};
use common::{Images, options};

fn build(text: &str) -> Result<Lowered, String> {
    let tree = Tree::parse(text.as_bytes());
    assert!(tree.write() == text.as_bytes());
    Dockerfile::parse(text.as_bytes())
        .and_then(|file| lower(&file, &options(), &Images))
        .map_err(|errors| errors.to_string())
}

fn error(text: &str) -> String {
    build(text).map(|_| ()).unwrap_err().lines().next().unwrap_or_default().chars().take(200).collect()
}

#[test]
fn nesting() {
    assert!(
        error(&format!("FROM base\nENV A={}\n", "${${${".repeat(1 << 20))).contains("unknown modifier `{`")
    );
    assert!(
        error(&format!("FROM base\nENV A={}\n", "${a:-".repeat(1 << 20)))
            .contains("nested more than 100 deep")
    );
    assert!(error(&format!("FROM {}\n", "${a:-".repeat(1 << 20))).contains("nested more than 100 deep"));
    assert!(
        error(&format!("FROM base\n{}RUN x\n", "ONBUILD ".repeat(1 << 18)))
            .contains("ONBUILD can't stand behind ONBUILD")
    );
    assert!(build(&format!("FROM base\nCMD {}\n", "[".repeat(1 << 20))).is_ok());
    assert!(error(&format!("FROM base\nEXPOSE {}\n", "1:".repeat(1 << 16))).contains("EXPOSE can't use"));
}

#[test]
fn doubling() {
    let mut text = "FROM base\nENV A=0123456789\n".to_owned();
    for _ in 0..60 {
        text.push_str("ENV A=$A$A\n");
    }
    assert!(error(&text).contains("expand to more than 64 MiB"));
    let mut text = format!("FROM base\nENV A={}\n", "x".repeat(1 << 20));
    text.push_str(&"RUN y\n".repeat(500));
    assert!(error(&text).contains("environments of all steps take more than 128 MiB"));
    let mut text = "FROM base\n".to_owned();
    text.push_str(&"EXPOSE 1-65535/tcp 1-65535/udp\n".repeat(3));
    assert!(build(&text).is_ok());
}

#[test]
fn patterns() {
    let stars = "*a".repeat(5000);
    let text = format!("FROM base\nENV A={}\nENV B=${{A//{stars}b/x}}\n", "a".repeat(5000));
    assert!(error(&text).contains("expand to more than 64 MiB"));
}

#[test]
fn heredocs() {
    let mut text = "FROM base\nRUN cat".to_owned();
    for i in 0..10_000 {
        text.push_str(&format!(" <<E{i}"));
    }
    text.push('\n');
    for i in 0..10_000 {
        text.push_str(&format!("text\nE{i}\n"));
    }
    assert!(build(&text).is_ok());
    let unterminated = "FROM base\n".to_owned() + &"RUN cat <<EOF\n".repeat(10_000);
    assert!(error(&unterminated).contains("unterminated heredoc"));
    let mut text = "FROM base\nCOPY".to_owned();
    for i in 0..5_000 {
        text.push_str(&format!(" <<E{i}"));
    }
    text.push_str(" /x/\n");
    for i in 0..5_000 {
        text.push_str(&format!("E{i}\n"));
    }
    assert!(build(&text).is_ok());
}

#[test]
fn long_lines_and_many() {
    assert!(error(&"x".repeat(1 << 22)).contains("unknown instruction"));
    assert!(error(&"\n".repeat(1 << 20)).contains("no instructions"));
    assert!(build(&format!("FROM base\nRUN {}\n", "a".repeat(1 << 22))).is_ok());
    assert!(build(&format!("FROM base\nRUN a {}b\n", "\\\n".repeat(1 << 18))).is_ok());
    assert!(error(&format!("FROM base\n{}", "BAD\n".repeat(100_000))).contains("unknown instruction"));
    assert!(build(&format!("FROM base\nENV {}\n", "a=b ".repeat(100_000))).is_ok());
    assert!(build(&format!("FROM base\nCOPY {}/x/\n", "a ".repeat(100_000))).is_ok());
}

#[test]
fn many_stages() {
    let mut text = "FROM base AS s0\n".to_owned();
    for i in 1..20_000 {
        text.push_str(&format!("FROM s{} AS s{i}\nENV e{i}=1\n", i - 1));
    }
    let result = build(&text);
    assert!(
        result.is_ok() || result.as_ref().is_err_and(|e| e.contains("environments")),
        "{:?}",
        result.err()
    );
    let mut text = "FROM base AS s0\nRUN x\n".to_owned();
    for i in 1..5_000 {
        text.push_str(&format!("FROM base AS s{i}\nCOPY --from=s{} /a /\n", i - 1));
    }
    assert!(build(&text).is_ok());
}
