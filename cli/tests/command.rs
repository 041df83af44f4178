//! What the command prints for its help and for wrong usage: transcripts in `cmd/`. `TRYCMD=overwrite` writes them anew.
#![cfg(feature = "cli")]

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cmd/*.trycmd")
        .env("HOME", "/nonexistent")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100");
}
