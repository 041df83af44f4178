//! `--call=subrequests.describe`: what can be asked.

use serde::Serialize;

use super::{json, table};

/// A question, as BuildKit describes its subrequests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Method {
    /// Its name, with `frontend.` before it.
    pub name: &'static str,
    /// The version of the shape of its result.
    pub version: &'static str,
    /// Always `rpc`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is asked.
    pub description: &'static str,
    /// The forms of its result.
    pub metadata: Vec<Form>,
}

/// A form of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Form {
    /// `result.json` or `result.txt`.
    pub name: &'static str,
}

/// Everything that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

/// What can be asked.
pub fn methods() -> Methods {
    let method = |name, description| Method {
        name,
        version: "1.0.0",
        kind: "rpc",
        description,
        metadata: ["result.json", "result.txt"].map(|name| Form { name }).to_vec(),
    };
    Methods(vec![
        method("frontend.outline", "What a target can be given: arguments, secrets, agents"),
        method("frontend.targets", "The stages that can be built"),
        method("frontend.lint", "What is wrong with the Dockerfile"),
        method("frontend.subrequests.describe", "What can be asked"),
    ])
}

impl Methods {
    /// A table.
    pub fn to_text(&self) -> String {
        let mut rows = vec![vec!["NAME", "VERSION", "DESCRIPTION"]];
        for method in &self.0 {
            let name = method.name.strip_prefix("frontend.").unwrap_or(method.name);
            rows.push(vec![name, method.version, method.description]);
        }
        table(&rows, 1)
    }

    /// The shape of BuildKit's subrequest `frontend.subrequests.describe`.
    pub fn to_json(&self) -> String {
        json(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each() {
        insta::assert_snapshot!(methods().to_text(), @"
        NAME                 VERSION DESCRIPTION
        outline              1.0.0   What a target can be given: arguments, secrets, agents
        targets              1.0.0   The stages that can be built
        lint                 1.0.0   What is wrong with the Dockerfile
        subrequests.describe 1.0.0   What can be asked
        ");
        assert!(methods().to_json().contains("\"name\": \"frontend.outline\""));
    }
}
