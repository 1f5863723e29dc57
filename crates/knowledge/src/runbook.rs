//! The runbook format.

use serde::Deserialize;
use wardroom_domain::Cause;

use crate::error::Error;
use crate::runbook_actions::{RunbookAction, RunbookProposal, RunbookRead, mistake_in, proposal};

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
    /// Checks that people make before acting.
    pub checks: Vec<String>,
    /// Checks that Wardroom makes before it chooses an action; their results are evidence.
    #[serde(default)]
    pub reads: Vec<RunbookRead>,
    /// Actions, preferred first; placeholders are filled from the diagnosis.
    pub actions: Vec<RunbookAction>,
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
        if let Some(mistake) = mistake_in(&runbook.reads, &runbook.actions) {
            return Err(invalid(mistake));
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

    /// Returns its checks and actions with the placeholders filled.
    ///
    /// # Errors
    /// Returns which placeholder the diagnosis has no value for.
    pub fn proposal(&self, cause: &Cause) -> Result<RunbookProposal, String> {
        proposal(&self.reads, &self.actions, cause)
    }
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

    /// A runbook with two checks, and two actions of which the second one has three steps.
    const WITH_CHECKS: &str = r#"---
id: connections
title: Connections run out
causes: [pool-exhausted]
symptoms: [s]
checks: [c]
reads:
  - id: idle
    question: "How many connections are idle?"
    tool: query_prometheus
    operation: instant
    target: metrics
    arguments: { query: 'sum(idle{service="{{service}}"})' }
actions:
  - when:
      - { read: idle, value: /result/0/value/1, above: 50 }
      - { read: idle, value: /result, exists: true }
    tool: exec
    operation: release
    target: "{{service}}-pool"
  - tool: process
    operation: restart
    target: "{{service}}"
    then:
      - { tool: exec, operation: warm, target: "{{service}}-cache" }
---
text"#;

    #[test]
    fn checks_and_steps_are_filled_from_the_cause() {
        let runbook = Runbook::parse("x.md", WITH_CHECKS).unwrap();
        let cause = Cause::new(wardroom_domain::Entity::service("cart"), "pool-exhausted", 0.9);
        let proposal = runbook.proposal(&cause).unwrap();
        assert_eq!(proposal.reads[0].call.arguments["query"], r#"sum(idle{service="cart"})"#);
        let [first, second] = proposal.choices.as_slice() else { panic!("{:?}", proposal.choices) };
        assert_eq!((first.when.len(), first.steps.len(), first.steps[0].target.as_str()), (2, 1, "cart-pool"));
        assert_eq!(first.when[0].describe(), "idle/result/0/value/1 above 50");
        let targets: Vec<&str> = second.steps.iter().map(|step| step.target.as_str()).collect();
        assert_eq!((second.when.len(), targets), (0, vec!["cart", "cart-cache"]));
    }

    #[test]
    fn mistakes_in_checks_and_steps_name_field_and_remedy() {
        let mistakes = [
            ("read: idle, value: /result/0", "read: busy, value: /result/0", "actions[0].when[0].read: no check"),
            (
                "value: /result, exists",
                "value: result, exists",
                "actions[0].when[1].value: \"result\" is no JSON pointer",
            ),
            ("above: 50", "above: 50, below: 60", "actions[0].when[0]: needs exactly one comparison"),
            (", above: 50", "", "actions[0].when[0]: needs exactly one comparison"),
            ("- id: idle", "- id: Idle now", "reads[0].id: \"Idle now\" is no name"),
            (
                "tool: exec, operation: warm, target: \"{{service}}-cache\"",
                "tool: process, operation: warm, target: \"{{service}}\"",
                "actions[1].then: two steps act on process",
            ),
            ("\"{{service}}-cache\"", "\"{{servce}}-cache\"", "actions[1].then[0].target: {{servce}} is not known"),
            ("sum(idle{service=\"{{service}}\"})", "{{x}}", "reads[0].arguments.query: {{x}} is not known"),
        ];
        for (text, wrong, expected) in mistakes {
            assert!(WITH_CHECKS.contains(text), "{text}");
            let error = Runbook::parse("x.md", &WITH_CHECKS.replacen(text, wrong, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
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
