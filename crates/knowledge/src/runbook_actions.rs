//! The checks and actions in a runbook's front matter.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use wardroom_domain::{ActionChoice, Cause, Comparison, Condition, ReadCheck, ToolCall, unfit_steps};

use crate::placeholders;

/// Maximum number of checks that read.
const MAX_READS: usize = 20;

/// A check: an operation that only reads, whose result is evidence.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunbookRead {
    /// Its name in conditions; lower case, words joined by `-`.
    pub id: String,
    /// What it answers, for people.
    pub question: String,
    /// Name of the tool.
    pub tool: String,
    /// An operation of the tool that only reads.
    pub operation: String,
    /// Name of the target.
    pub target: String,
    /// Arguments of the operation.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// An action: the first step, the steps that follow it, and when it fits.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunbookAction {
    /// Conditions on the results of checks; all of them must hold.
    #[serde(default)]
    pub when: Vec<RunbookCondition>,
    /// Name of the tool of the first step.
    pub tool: String,
    /// Operation of the first step.
    pub operation: String,
    /// Target of the first step.
    pub target: String,
    /// Arguments of the first step.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// The steps after it, in order; each on another target.
    #[serde(default)]
    pub then: Vec<ToolCall>,
}

/// A condition on the result of a check, with one comparison.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunbookCondition {
    /// The check.
    pub read: String,
    /// JSON pointer of the value in its result; empty for all of it.
    #[serde(default)]
    pub value: String,
    /// See [`Comparison::Equals`].
    pub equals: Option<Value>,
    /// See [`Comparison::NotEquals`].
    pub not_equals: Option<Value>,
    /// See [`Comparison::Above`].
    pub above: Option<f64>,
    /// See [`Comparison::AtLeast`].
    pub at_least: Option<f64>,
    /// See [`Comparison::Below`].
    pub below: Option<f64>,
    /// See [`Comparison::AtMost`].
    pub at_most: Option<f64>,
    /// See [`Comparison::Contains`].
    pub contains: Option<String>,
    /// See [`Comparison::Exists`].
    pub exists: Option<bool>,
}

/// What a runbook would do about a cause.
#[derive(Clone, Debug, PartialEq)]
pub struct RunbookProposal {
    /// What is read first.
    pub reads: Vec<ReadCheck>,
    /// The actions, preferred first.
    pub choices: Vec<ActionChoice>,
}

impl RunbookRead {
    fn call(&self) -> ToolCall {
        let Self { tool, operation, target, arguments, .. } = self.clone();
        ToolCall { tool, operation, target, arguments }
    }
}

impl RunbookAction {
    /// Returns the calls of all steps, in order.
    fn steps(&self) -> Vec<ToolCall> {
        let Self { tool, operation, target, arguments, .. } = self.clone();
        let first = ToolCall { tool, operation, target, arguments };
        std::iter::once(first).chain(self.then.iter().cloned()).collect()
    }
}

impl RunbookCondition {
    /// Returns the condition.
    ///
    /// # Errors
    /// Returns what is wrong unless there is exactly one comparison.
    fn condition(&self) -> Result<Condition, String> {
        let comparisons = [
            self.equals.clone().map(Comparison::Equals),
            self.not_equals.clone().map(Comparison::NotEquals),
            self.above.map(Comparison::Above),
            self.at_least.map(Comparison::AtLeast),
            self.below.map(Comparison::Below),
            self.at_most.map(Comparison::AtMost),
            self.contains.clone().map(Comparison::Contains),
            self.exists.map(Comparison::Exists),
        ];
        let mut given = comparisons.into_iter().flatten();
        let (Some(comparison), None) = (given.next(), given.next()) else {
            let names = "equals, not-equals, above, at-least, below, at-most, contains, exists";
            return Err(format!("needs exactly one comparison; write one of {names}"));
        };
        Ok(Condition { read: self.read.clone(), value: self.value.clone(), comparison })
    }
}

/// Checks what the format does not say, and returns the first mistake, after its field.
pub(crate) fn mistake_in(reads: &[RunbookRead], actions: &[RunbookAction]) -> Option<String> {
    if reads.len() > MAX_READS {
        return Some(format!("field reads: there are {}; at most {MAX_READS} are read", reads.len()));
    }
    let mut names = BTreeSet::new();
    for (index, read) in reads.iter().enumerate() {
        let field = format!("field reads[{index}]");
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if read.id.is_empty() || !read.id.chars().all(is_name) {
            return Some(format!("{field}.id: {:?} is no name; use lower case, digits and `-`", read.id));
        }
        if !names.insert(read.id.as_str()) {
            return Some(format!("{field}.id: {:?} is there twice; give each check a name of its own", read.id));
        }
        if let Some(unknown) = placeholders::unknown_in(&read.call()) {
            return Some(format!("{field}.{unknown}"));
        }
    }
    actions.iter().enumerate().find_map(|(index, action)| {
        mistake_in_action(action, &names).map(|mistake| format!("field actions[{index}]{mistake}"))
    })
}

fn mistake_in_action(action: &RunbookAction, reads: &BTreeSet<&str>) -> Option<String> {
    for (index, condition) in action.when.iter().enumerate() {
        let field = format!(".when[{index}]");
        if !reads.contains(condition.read.as_str()) {
            let known = reads.iter().copied().collect::<Vec<_>>().join(", ");
            let known =
                if known.is_empty() { "the runbook has no reads".to_owned() } else { format!("there are {known}") };
            return Some(format!("{field}.read: no check is called {:?}; {known}", condition.read));
        }
        if !condition.value.is_empty() && !condition.value.starts_with('/') {
            return Some(format!(
                "{field}.value: {:?} is no JSON pointer; write /{} for the field of that name",
                condition.value, condition.value
            ));
        }
        if let Err(mistake) = condition.condition() {
            return Some(format!("{field}: {mistake}"));
        }
    }
    let steps = action.steps();
    if let Some(mistake) = unfit_steps(&steps) {
        return Some(format!(".then: {mistake}"));
    }
    steps.iter().enumerate().find_map(|(index, step)| {
        let unknown = placeholders::unknown_in(step)?;
        Some(index.checked_sub(1).map_or_else(|| format!(".{unknown}"), |index| format!(".then[{index}].{unknown}")))
    })
}

/// Returns what is proposed for a cause, with the placeholders filled.
///
/// # Errors
/// Returns which placeholder has no value.
pub(crate) fn proposal(
    reads: &[RunbookRead],
    actions: &[RunbookAction],
    cause: &Cause,
) -> Result<RunbookProposal, String> {
    let reads = reads.iter().map(|read| {
        let (id, question) = (read.id.clone(), read.question.clone());
        Ok(ReadCheck { id, question, call: placeholders::fill(&read.call(), cause)? })
    });
    let choices = actions.iter().map(|action| {
        let when = action.when.iter().map(RunbookCondition::condition).collect::<Result<_, _>>()?;
        let steps = action.steps().iter().map(|step| placeholders::fill(step, cause)).collect::<Result<_, _>>()?;
        Ok(ActionChoice { when, steps })
    });
    Ok(RunbookProposal {
        reads: reads.collect::<Result<_, String>>()?,
        choices: choices.collect::<Result<_, String>>()?,
    })
}
