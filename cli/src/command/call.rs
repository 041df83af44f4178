//! `--check` and `--call`: questions about a Dockerfile. The answer goes to standard output.

use bricklayer::event::Reporter;
use bricklayer::{BuildRequest, Builder, Call as Method};

use super::args::BuildArgs;
use super::csv;
use super::environment::Environment;
use super::errors::Failure;
use super::print;
use super::usage::Usage;
use super::values::boolean;

const METHODS: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    json: bool,
    /// Exit code 0 whatever a check found.
    ignore_status: bool,
}

impl Call {
    /// What the flags ask; `None`: a build.
    pub(crate) fn of(args: &BuildArgs) -> Result<Option<Self>, Usage> {
        match (&args.call, args.check) {
            (Some(text), false) => Self::parse(text),
            (None, true) => Self::parse("check"),
            (Some(_), true) => Err(Usage::new("--check and --call exclude each other")),
            (None, false) => Ok(None),
        }
    }

    /// `METHOD[,format=text|json][,ignorestatus=true]`
    fn parse(text: &str) -> Result<Option<Self>, Usage> {
        let fail = |why: String| Usage::new(format!("--call `{text}`: {why}"));
        let (mut name, mut json, mut ignore_status) = (None, false, false);
        for (key, value) in csv::pairs("--call", text)? {
            match (key.as_str(), value.as_deref()) {
                ("format", Some("text")) => json = false,
                ("format", Some("json")) => json = true,
                ("format", other) => {
                    let other = other.unwrap_or_default();
                    return Err(
                        fail(format!("there is no format `{other}`")).suggest(other, &["text", "json"])
                    );
                }
                ("ignorestatus", value) => {
                    ignore_status = value.map_or(Ok(true), |value| boolean("--call ignorestatus", value))?;
                }
                (_, None) if name.is_none() => name = Some(key),
                ("method", Some(value)) if name.is_none() => name = Some(value.to_owned()),
                _ => {
                    return Err(
                        fail(format!("there is no key `{key}`")).suggest(&key, &["format", "ignorestatus"])
                    );
                }
            }
        }
        let method = match name.as_deref() {
            Some("build") => return Ok(None),
            Some("check" | "lint") => Method::Check,
            Some("outline") => Method::Outline,
            Some("targets") => Method::Targets,
            Some("subrequests.describe") => Method::Describe,
            other => {
                let other = other.unwrap_or_default();
                return Err(fail(format!("there is no method `{other}`")).suggest(other, &METHODS));
            }
        };
        Ok(Some(Self { method, json, ignore_status }))
    }

    /// Asks the library, and prints what it says.
    pub(crate) async fn answer(
        self,
        builder: &Builder,
        request: BuildRequest,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let answer = builder.call(request, self.method, Reporter::silent()).await?;
        let text = match (self.json, environment.stdout_colours()) {
            (true, _) => &answer.json,
            (false, true) => &answer.coloured,
            (false, false) => &answer.text,
        };
        print(&format!("{}\n", text.trim_end()))?;
        if answer.fine || self.ignore_status { Ok(()) } else { Err(Failure::Findings) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_formats_and_status() {
        let call = |method, json, ignore_status| Some(Call { method, json, ignore_status });
        let cases = [
            ("build", None),
            ("check", call(Method::Check, false, false)),
            ("lint", call(Method::Check, false, false)),
            ("check,format=json,ignorestatus=true", call(Method::Check, true, true)),
            ("check,ignorestatus", call(Method::Check, false, true)),
            ("method=outline,format=text", call(Method::Outline, false, false)),
            ("targets,format=json", call(Method::Targets, true, false)),
            ("subrequests.describe", call(Method::Describe, false, false)),
        ];
        for (text, expected) in cases {
            assert_eq!(Call::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "chekc", "check,outline", "check,format=yaml", "check,format", "check,x=y"] {
            assert!(Call::parse(text).is_err(), "{text}");
        }
    }
}
