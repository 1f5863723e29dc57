//! A plan: a typed tool call, its predicted effect, and the hash that a person approves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::approval_proof::ProofKind;
use crate::canonical::{canonical_json, sha256_hex};
use crate::identity::{Principal, TenantId};
use crate::time::Timestamp;

/// One operation of one tool on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ToolCall {
    /// Registry name of the tool.
    pub tool: String,
    /// Operation of the tool.
    pub operation: String,
    /// Name of a target in the executor configuration.
    pub target: String,
    /// Arguments of the operation.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// The predicted effect of a tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DryRun {
    /// One-line description of the change.
    pub diff: String,
    /// One-line description of who is affected.
    pub blast_radius: String,
    /// Number of instances, resources or sessions that change, as the dry run counted them; `None` if the tool cannot
    /// count them. Absent in plans that were made before it was counted, whose hash it must not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<u64>,
    /// `low`, `medium` or `high`, decided by the tool, never by the caller.
    pub risk: String,
    /// Whether `undo` can restore the previous state.
    pub reversible: bool,
    /// State of the target when the plan was made; execution is refused if it has changed.
    pub precondition: String,
    /// The call that undoes the change, if there is one.
    pub undo: Option<ToolCall>,
}

/// A step of a plan after its first one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// The tool call.
    pub call: ToolCall,
    /// Predicted effect, on the state before any step.
    pub dry_run: DryRun,
}

/// A proposed action of one step or several, carried out in order. Its SHA-256 covers all fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Format version: 1 for a plan of one step, 2 for one of several; see [`Plan::version_of`].
    pub version: u8,
    /// The tenant.
    pub tenant: TenantId,
    /// Key of the incident.
    pub incident: String,
    /// The tool call of the first step.
    pub call: ToolCall,
    /// Predicted effect of the first step.
    pub dry_run: DryRun,
    /// The steps after the first one. Absent in a plan of one step, whose hash it must not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_steps: Vec<PlanStep>,
    /// Id of the runbook.
    pub runbook: String,
    /// Service used as the control for verification, or `none`.
    pub control: String,
    /// Time from which the plan can be neither approved nor executed.
    pub expires_at: Timestamp,
}

impl Plan {
    /// Returns the SHA-256 of the RFC 8785 JSON: the hash that is shown, approved and verified.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn sha256(&self) -> Result<String, String> {
        Ok(sha256_hex(canonical_json(self)?.as_bytes()))
    }

    /// Returns the idempotency key of the first step; the same on every attempt. See [`Plan::step_key`].
    ///
    /// # Errors
    /// See [`Plan::sha256`].
    pub fn idempotency_key(&self) -> Result<String, String> {
        let mut key = self.sha256()?;
        key.truncate(32);
        Ok(key)
    }
}

/// The approval of a plan by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// The approver.
    pub principal: Principal,
    /// Time of the approval.
    pub at: Timestamp,
    /// `http`, `cli` or `page`.
    pub channel: String,
    /// The approved hash.
    pub plan_sha256: String,
    /// Reason given by the approver; may be empty.
    pub reason: String,
    /// What proved it to the executor; absent in approvals of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofKind>,
}

/// The outcome of an execution or an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The target shows the effect.
    Applied,
    /// The target refused, or shows that nothing happened.
    NotApplied,
    /// The outcome cannot be determined; a person must check.
    Unknown,
}

impl Outcome {
    /// Returns the JSON spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan() -> Plan {
        let call = |operation: &str| ToolCall {
            tool: "process".into(),
            operation: operation.into(),
            target: "web".into(),
            arguments: serde_json::json!({ "key": "pool", "value": 20 }).as_object().cloned().unwrap(),
        };
        Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call: call("settings"),
            dry_run: DryRun {
                diff: "pool goes from 1 to 20".into(),
                blast_radius: "web".into(),
                affected: None,
                risk: "medium".into(),
                reversible: true,
                precondition: "1.0.0 pool=1 after=nothing".into(),
                undo: Some(call("settings")),
            },
            further_steps: Vec::new(),
            runbook: "setting-changed".into(),
            control: "mail".into(),
            expires_at: Timestamp::from_millis(1_795_255_200_000).plus(Duration::from_secs(600)),
        }
    }

    /// Collects the JSON pointers of all values of a document.
    fn collect_leaves(value: &serde_json::Value, pointer: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                map.iter().for_each(|(key, inner)| collect_leaves(inner, &format!("{pointer}/{key}"), found));
            }
            serde_json::Value::Array(items) => {
                let numbered = items.iter().enumerate();
                numbered.for_each(|(index, inner)| collect_leaves(inner, &format!("{pointer}/{index}"), found));
            }
            _ => found.push(pointer.to_owned()),
        }
    }

    #[test]
    fn every_field_of_a_plan_is_covered_by_its_hash() {
        let Plan { call, dry_run, .. } = plan();
        let plan = Plan { version: 2, further_steps: vec![PlanStep { call, dry_run }], ..plan() };
        let whole = serde_json::to_value(&plan).unwrap();
        let mut pointers = Vec::new();
        collect_leaves(&whole, "", &mut pointers);
        assert!(pointers.len() >= 35, "{pointers:?}");
        let known = plan.sha256().unwrap();
        for pointer in pointers {
            let mut changed = whole.clone();
            let leaf = changed.pointer_mut(&pointer).unwrap();
            *leaf = match leaf.clone() {
                serde_json::Value::String(text) => format!("{text} ").into(),
                serde_json::Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
                serde_json::Value::Bool(flag) => (!flag).into(),
                other => panic!("{pointer} is {other}"),
            };
            let hash = sha256_hex(canonical_json(&changed).unwrap().as_bytes());
            assert_ne!(hash, known, "{pointer} can be changed after the approval");
        }
    }

    #[test]
    fn idempotency_key_is_a_prefix_of_the_hash() {
        let (key, hash) = (plan().idempotency_key().unwrap(), plan().sha256().unwrap());
        assert!(key.len() == 32 && hash.starts_with(&key), "{key}");
    }

    #[test]
    fn as_str_is_the_json_spelling() {
        for outcome in [Outcome::Applied, Outcome::NotApplied, Outcome::Unknown] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }

    /// Hashes are persisted and approved: a different hash would invalidate every open plan.
    #[test]
    fn hash_of_version_1_is_stable() {
        insta::assert_snapshot!(plan().sha256().unwrap(), @"15ac4624c56cf36895605f7190e06b8fcc479575bd8da3f8c3c90c84bfcc1571");
    }
}
