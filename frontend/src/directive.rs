//! Parser directives: `# name=value` comments before everything else.
//!
//! Names ignore case; blanks around name and value are dropped. The first line that is none of `syntax`, `escape` and `check` ends
//! them. A `#!` line may stand before `syntax` and `check`.

use crate::diagnostics::{Diagnostic, Span};
use crate::source::Source;

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// What stands behind the `=`.
    pub value: String,
    /// From the `#` to the end of the line.
    pub span: Span,
    /// Where the value stands.
    pub value_span: Span,
}

/// The names that mean something.
const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// All directives.
pub(crate) fn scan(source: &Source) -> Result<Vec<Directive>, Diagnostic> {
    let mut directives: Vec<Directive> = Vec::new();
    let text = source.text();
    let mut position = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut shebang = false;
    if text[position..].starts_with("#!") {
        shebang = true;
        position += text[position..].find('\n').map_or(text.len() - position, |i| i + 1);
    }
    while position < text.len() {
        let end = text[position..].find('\n').map_or(text.len(), |i| position + i);
        let Some(directive) = parse(text, position, end) else { break };
        position = end + 1;
        if let Some(earlier) = directives.iter().find(|d| d.name == directive.name) {
            return Err(Diagnostic::error(
                format!("the directive `{}` is given twice: only one can be used", directive.name),
                directive.span,
            )
            .help(format!("the first one is on line {}", source.line(earlier.span.start))));
        }
        // behind a `#!` line `escape` is a comment, as it has ever been
        if shebang && directive.name == "escape" {
            break;
        }
        directives.push(directive);
    }
    Ok(directives)
}

/// The directive that the line from `start` to `end` is.
fn parse(text: &str, start: usize, end: usize) -> Option<Directive> {
    let line = text[start..end].trim();
    let body = line.strip_prefix('#')?.trim_start();
    let (name, value) = body.split_once('=')?;
    let name = name.trim_end().to_ascii_lowercase();
    let value = value.trim();
    if value.is_empty() || !NAMES.contains(&name.as_str()) {
        return None;
    }
    let line_start = start + (text[start..end].len() - text[start..end].trim_start().len());
    let line_end = line_start + line.len();
    Some(Directive {
        name,
        value: value.to_owned(),
        span: Span::new(line_start, line_end),
        value_span: Span::new(line_end - value.len(), line_end),
    })
}

/// The escape character that the directives choose.
pub(crate) fn escape(directives: &[Directive]) -> Result<char, Diagnostic> {
    match directives.iter().find(|d| d.name == "escape") {
        None => Ok('\\'),
        Some(d) if d.value == "\\" => Ok('\\'),
        Some(d) if d.value == "`" => Ok('`'),
        Some(d) => Err(Diagnostic::error(format!("invalid escape character `{}`", d.value), d.value_span)
            .label("expected \\ or `")),
    }
}

/// Is `syntax` one that this frontend implements? The value may have words behind the image's name.
///
/// Every tag and mirror of `docker/dockerfile` and `docker/dockerfile-upstream` is; those images are never fetched.
pub(crate) fn is_builtin_syntax(syntax: &str) -> bool {
    let image = syntax.split_whitespace().next().unwrap_or_default();
    let image = image.split('@').next().unwrap_or_default();
    let name_start = image.rfind('/').map_or(0, |i| i + 1);
    let name = match image[name_start..].find(':') {
        Some(i) => &image[..name_start + i],
        None => image,
    };
    name == "dockerfile.v0"
        || ["docker/dockerfile", "docker/dockerfile-upstream"]
            .iter()
            .any(|known| name == *known || name.strip_suffix(known).is_some_and(|host| host.ends_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, String)> {
        scan(&Source::new(text.as_bytes())).unwrap().into_iter().map(|d| (d.name, d.value)).collect()
    }

    #[test]
    fn directives_stand_before_everything_else() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            (
                "# syntax=docker/dockerfile:1\n# escape=`\nFROM a",
                &[("syntax", "docker/dockerfile:1"), ("escape", "`")],
            ),
            ("  #   EsCaPe \t =   `  \t\nFROM", &[("escape", "`")]),
            ("\u{feff}# escape=`\r\n", &[("escape", "`")]),
            ("# unknown=thing\n# escape=`", &[]),
            ("\n# escape=`", &[]),
            ("FROM a\n# escape=`", &[]),
            ("#escape=\n#check=x", &[]),
            (
                "#!/usr/bin/env x\n# syntax=a\n# check=skip=all;error=true",
                &[("syntax", "a"), ("check", "skip=all;error=true")],
            ),
            ("#!/x\n# escape=`", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(names(text), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_mark_the_value() {
        let text = " # escape = x \nFROM a";
        let [d] = &scan(&Source::new(text.as_bytes())).unwrap()[..] else { panic!() };
        assert_eq!(&text[d.span.start..d.span.end], "# escape = x");
        assert_eq!(&text[d.value_span.start..d.value_span.end], "x");
        assert_eq!(escape(std::slice::from_ref(d)).unwrap_err().message, "invalid escape character `x`");
    }

    #[test]
    fn a_directive_given_twice_is_an_error() {
        let error = scan(&Source::new(b"# escape=`\n# ESCAPE=\\\n")).unwrap_err();
        assert_eq!(error.message, "the directive `escape` is given twice: only one can be used");
    }

    #[test]
    fn official_frontends_are_built_in() {
        let cases = [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile:1.7-labs@sha256:00", true),
            ("docker/dockerfile-upstream:master", true),
            ("mirror.example:5000/hub/docker/dockerfile:1", true),
            ("dockerfile.v0", true),
            ("docker/dockerfile:1 more words", true),
            ("example/buildpack", false),
            ("notdocker/dockerfile", false),
            ("docker/dockerfilex", false),
            ("", false),
        ];
        for (syntax, expected) in cases {
            assert_eq!(is_builtin_syntax(syntax), expected, "{syntax}");
        }
    }
}
