//! The runbook format.

use serde::Deserialize;
use serde_json::{Map, Value};
use wardroom_domain::{Cause, ToolCall};

use crate::Error;

/// Whether a runbook applies to causes with a recent deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentCondition {
    /// With or without a deployment.
    #[default]
    Any,
    /// Only if the service was deployed shortly before.
    AfterDeployment,
    /// Only if the service was not deployed shortly before.
    WithoutDeployment,
}

/// A validated runbook.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Runbook {
    /// Identifier used in plans and evidence; lower case, words joined by `-`.
    pub id: String,
    /// Human-readable title.
    pub title: String,
    /// Ids of the rules of diagnosis that name the mechanisms it applies to.
    pub causes: Vec<String>,
    /// Names of the alerts that it is for, as monitoring rules spell them.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Further words by which it is found.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether the cause must, or must not, have a recent deployment.
    #[serde(default)]
    pub when: DeploymentCondition,
    /// Symptoms an operator sees.
    pub symptoms: Vec<String>,
    /// Checks to make before acting.
    pub checks: Vec<String>,
    /// Actions, preferred first; placeholders are filled from the diagnosis.
    pub actions: Vec<ToolCall>,
    /// The Markdown below the front matter.
    #[serde(skip)]
    pub text: String,
}

impl Runbook {
    /// Parses and validates a runbook.
    ///
    /// # Errors
    /// Returns an error that names the missing or invalid part.
    pub fn parse(name: &str, markdown: &str) -> Result<Self, Error> {
        let invalid = |detail: String| Error::Runbook { name: name.to_owned(), detail };
        let rest = markdown
            .strip_prefix("---\n")
            .ok_or_else(|| invalid("must begin with a line `---` and YAML front matter".into()))?;
        let (front_matter, text) =
            rest.split_once("\n---\n").ok_or_else(|| invalid("the front matter must end with a line `---`".into()))?;
        let mut runbook: Self =
            serde_saphyr::from_str(front_matter).map_err(|error| invalid(format!("front matter: {error}")))?;
        text.trim().clone_into(&mut runbook.text);
        let empty = [
            ("symptoms", runbook.symptoms.is_empty()),
            ("checks", runbook.checks.is_empty()),
            ("actions", runbook.actions.is_empty()),
            ("causes", runbook.causes.is_empty()),
        ];
        if let Some((field, _)) = empty.iter().find(|(_, empty)| *empty) {
            return Err(invalid(format!("field {field} must not be empty")));
        }
        Ok(runbook)
    }

    /// Returns whether the runbook applies to a cause.
    pub fn applies_to(&self, cause: &Cause) -> bool {
        let deployed = cause.deployment.is_some();
        let condition_holds = match self.when {
            DeploymentCondition::Any => true,
            DeploymentCondition::AfterDeployment => deployed,
            DeploymentCondition::WithoutDeployment => !deployed,
        };
        condition_holds && self.causes.contains(&cause.rule)
    }

    /// Returns its first action with the placeholders filled; `None` if a placeholder has no value.
    pub fn action(&self, cause: &Cause) -> Option<ToolCall> {
        let call = self.actions.first()?;
        let arguments = fill_placeholders(&Value::Object(call.arguments.clone()), cause)?;
        Some(ToolCall {
            tool: call.tool.clone(),
            operation: call.operation.clone(),
            target: fill_text(&call.target, cause)?.as_str()?.to_owned(),
            arguments: arguments.as_object().cloned().unwrap_or_else(Map::new),
        })
    }
}

fn fill_placeholders(value: &Value, cause: &Cause) -> Option<Value> {
    match value {
        Value::String(text) => fill_text(text, cause),
        Value::Array(items) => {
            items.iter().map(|item| fill_placeholders(item, cause)).collect::<Option<_>>().map(Value::Array)
        }
        Value::Object(map) => {
            let filled = map.iter().map(|(key, item)| Some((key.clone(), fill_placeholders(item, cause)?)));
            filled.collect::<Option<_>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.clone()),
    }
}

fn fill_text(text: &str, cause: &Cause) -> Option<Value> {
    let setting = |pick: fn(&(String, String, String)) -> &String| cause.setting.as_ref().map(pick).cloned();
    let value = match text {
        "{{service}}" => Some(cause.entity.name.clone()),
        "{{setting.key}}" => setting(|setting| &setting.0),
        "{{setting.from}}" => setting(|setting| &setting.1),
        other => Some(other.to_owned()),
    };
    value.map(Value::String)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_name_the_field() {
        let parse = |text: &str| Runbook::parse("x.md", text).unwrap_err().to_string();
        assert!(parse("# no front matter").contains("front matter"));
        let front = "---\nid: a\ntitle: A\ncauses: [cpu-hog]\nsymptoms: []\nchecks: [c]\nactions: []\n---\ntext";
        assert!(parse(front).contains("field symptoms"));
        assert!(parse("---\nid: a\nbogus: 1\n---\n").contains("bogus"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_gives_an_error_with_the_file_name(text in ".*", front in "(?s).{0,80}") {
            for text in [text, format!("---\n{front}\n---\nwords")] {
                if let Err(error) = Runbook::parse("x.md", &text) {
                    prop_assert!(error.to_string().contains("x.md"), "{error}");
                }
            }
        }
    }
}
