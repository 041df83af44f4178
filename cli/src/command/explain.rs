//! `bricklayer explain`: what a build with the same flags would do. The answer goes to standard output.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use bricklayer::{Builder, Explanation, Fate};

use super::args::{Answer, ExplainArgs, Global};
use super::display::{Display, Progress, one_line};
use super::environment::Environment;
use super::errors::Failure;
use super::flags::{Asked, request};
use super::usage::Usage;
use super::{builder_options, cancel_on_interrupt, print, progress, renderer, say};

/// Explains.
pub(crate) async fn explain(
    args: &ExplainArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    let build = &args.build;
    for (flag, given) in [("--check", build.check), ("--call", build.call.is_some())] {
        if given {
            return Err(Usage::new(format!("{flag} asks another question than `explain`"))
                .hint(format!("that is `bricklayer build {flag}`"))
                .into());
        }
    }
    if !build.graph.is_empty() {
        return Err(Usage::new("--graph: nothing runs that would have a state and a time")
            .hint("--format json has the steps; `bricklayer build --graph` has how they went")
            .into());
    }
    if !build.timing.is_empty() {
        return Err(Usage::new("--timing: nothing runs that would take time").into());
    }
    let Asked { request, insecure, .. } = request(build, environment)?;
    // what is fetched and hashed meanwhile is shown to those who ask for it; the answer is what matters
    let progress = match (build.progress, build.quiet) {
        (None, false) => Progress::None,
        (typed, quiet) => progress(typed, quiet, environment)?,
    };
    let mut options = builder_options(global, environment)?;
    options.insecure_registries.extend(insecure);
    let builder = Builder::open(options)?;
    let display = Display::start(renderer(progress, environment)?);
    let explanation = builder.explain(request, display.reporter(), cancel_on_interrupt()).await;
    display.finish();
    let explanation = explanation?;
    match args.format {
        Answer::Json => {
            let text =
                serde_json::to_string_pretty(&explanation).context("cannot write the answer as JSON")?;
            print(&format!("{text}\n"))?;
        }
        Answer::Text => {
            for warning in &explanation.warnings {
                say(&format!("{}\n", warning.trim_end()));
            }
            print(&text(&explanation, environment.stdout_colours()))?;
        }
    }
    Ok(())
}

/// A line for each step, its reasons below it, and a sum. Colours are those of a build's display.
fn text(explanation: &Explanation, colours: bool) -> String {
    let style = |text: String, code: &str| match (colours, code) {
        (true, code) if !code.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        _ => text,
    };
    let names: HashMap<u32, &str> =
        explanation.steps.iter().map(|step| (step.id, step.name.as_str())).collect();
    let mut text = String::new();
    let (mut run, mut depend) = (0, 0);
    // as a build counts: a context is read, not run
    let count = explanation.steps.iter().filter(|step| step.fate != Fate::Nothing).count();
    for step in &explanation.steps {
        let (word, colour, below) = match &step.fate {
            Fate::Cached => ("cached", "34", Vec::new()),
            Fate::WouldRun(reasons) => {
                run += 1;
                ("would run", "32", reasons.iter().map(ToString::to_string).collect())
            }
            Fate::Depends(on) => {
                depend += 1;
                let on = names.get(on).copied().unwrap_or("a step before it");
                ("may run", "33", vec![format!("depends on what this makes: {on}")])
            }
            // a local directory, a merge
            _ => ("-", "", Vec::new()),
        };
        let _ = writeln!(text, "{}  {}", style(format!("{word:<9}"), colour), one_line(&step.name));
        for line in below {
            let _ = writeln!(text, "{:<9}    {}", "", style(one_line(&line), "2"));
        }
    }
    let steps = match count {
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    };
    let _ = match depend {
        0 => writeln!(text, "{steps}, {run} would run"),
        _ => writeln!(text, "{steps}, {run} would run, {depend} may run"),
    };
    text
}

#[cfg(test)]
mod tests {
    use bricklayer::{ExplainedStep, Reason};

    use super::*;

    fn some() -> Explanation {
        let step = |id, name: &str, fate| ExplainedStep {
            id,
            name: name.into(),
            stage: "build".into(),
            location: None,
            fate,
        };
        Explanation {
            steps: vec![
                step(0, "[internal] load build context", Fate::Nothing),
                step(1, "[build 1/3] FROM base", Fate::Cached),
                step(
                    2,
                    "[build 2/3] COPY \x1b[2Jsrc /src",
                    Fate::WouldRun(vec![
                        Reason::NeverBuilt,
                        Reason::Instruction { before: "COPY a /src".into(), now: "COPY src /src".into() },
                    ]),
                ),
                step(3, "[build 3/3] RUN make", Fate::Depends(2)),
            ],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn for_people() {
        insta::assert_snapshot!(text(&some(), false), @"
        -          [internal] load build context
        cached     [build 1/3] FROM base
        would run  [build 2/3] COPY src /src
                     never built
                     instruction changed: COPY a /src → COPY src /src
        may run    [build 3/3] RUN make
                     depends on what this makes: [build 2/3] COPY src /src
        3 steps, 1 would run, 1 may run
        ");
    }

    #[test]
    fn colours_are_those_of_a_build() {
        insta::assert_snapshot!(text(&some(), true).replace('\x1b', "^["), @"
        -          [internal] load build context
        ^[[34mcached   ^[[0m  [build 1/3] FROM base
        ^[[32mwould run^[[0m  [build 2/3] COPY src /src
                     ^[[2mnever built^[[0m
                     ^[[2minstruction changed: COPY a /src → COPY src /src^[[0m
        ^[[33mmay run  ^[[0m  [build 3/3] RUN make
                     ^[[2mdepends on what this makes: [build 2/3] COPY src /src^[[0m
        3 steps, 1 would run, 1 may run
        ");
    }

    #[test]
    fn for_programs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&some()).unwrap(), @r#"
        {
          "steps": [
            {
              "id": 0,
              "name": "[internal] load build context",
              "stage": "build",
              "state": "nothing"
            },
            {
              "id": 1,
              "name": "[build 1/3] FROM base",
              "stage": "build",
              "state": "cached"
            },
            {
              "id": 2,
              "name": "[build 2/3] COPY \u001b[2Jsrc /src",
              "stage": "build",
              "state": "would-run",
              "reasons": [
                {
                  "text": "never built",
                  "reason": "never-built"
                },
                {
                  "text": "instruction changed: COPY a /src → COPY src /src",
                  "reason": "instruction",
                  "before": "COPY a /src",
                  "now": "COPY src /src"
                }
              ]
            },
            {
              "id": 3,
              "name": "[build 3/3] RUN make",
              "stage": "build",
              "state": "depends",
              "dependsOn": 2
            }
          ],
          "warnings": []
        }
        "#);
    }
}
