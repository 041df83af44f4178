//! `--call`: what a Dockerfile is asked instead of being built.

use bricklayer_frontend::call::{check, methods, outline, targets};
use bricklayer_frontend::{Diagnostics, Dockerfile, render};
use bricklayer_solver::event::Reporter;
use tokio_util::sync::CancellationToken;

use super::{Builder, input, options};
use crate::error::Error;
use crate::request::BuildRequest;

/// What a Dockerfile is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Is anything wrong with it?
    Check,
    /// What can a target be given: args, secrets, agents?
    Outline,
    /// Which stages are there?
    Targets,
    /// What can be asked?
    Describe,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// For people, without colours.
    pub text: String,
    /// For people, with colours.
    pub coloured: String,
    /// For programs: the shapes of BuildKit's subrequests `frontend.lint`, `frontend.outline`, `frontend.targets`.
    pub json: String,
    /// Is nothing wrong?
    pub fine: bool,
}

impl Builder {
    /// Asks the request's Dockerfile. Nothing is built; base images' configs are fetched where they matter.
    ///
    /// # Errors
    ///
    /// [`Error::Dockerfile`] for what is wrong with it, unless that is what was asked.
    pub async fn call(&self, request: BuildRequest, call: Call, reporter: Reporter) -> Result<Answer, Error> {
        let plain = |text: String, json: String| Answer { coloured: text.clone(), text, json, fine: true };
        if call == Call::Describe {
            return Ok(plain(methods().to_text(), methods().to_json()));
        }
        let input = input::read(self, &request, &reporter, &CancellationToken::new()).await?;
        let options = options(&request, &input);
        let resolver = self.resolver(&request, &reporter);
        self.blocking(move || {
            let name = &input.dockerfile;
            let broken = |diagnostics: &Diagnostics, source: &str| Error::Dockerfile {
                name: name.clone(),
                count: diagnostics.iter().count(),
                report: render(diagnostics, name, source, false),
                coloured: render(diagnostics, name, source, true),
            };
            let parse = || {
                Dockerfile::parse(&input.text)
                    .map_err(|errors| broken(&errors, &String::from_utf8_lossy(&input.text)))
            };
            Ok(match call {
                Call::Check => {
                    let found = check(&input.text, &options, &resolver);
                    Answer {
                        text: found.to_text(false),
                        coloured: found.to_text(true),
                        json: found.to_json(),
                        fine: found.status() == 0,
                    }
                }
                Call::Outline => {
                    let file = parse()?;
                    let found = outline(&file, &options, &resolver)
                        .map_err(|errors| broken(&errors, file.source()))?;
                    plain(found.to_text(), found.to_json())
                }
                Call::Targets => {
                    let found = targets(&parse()?);
                    plain(found.to_text(), found.to_json())
                }
                Call::Describe => plain(methods().to_text(), methods().to_json()),
            })
        })
        .await
    }
}
