//! A plan: a typed tool call, what it would do, and the hash a person approves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::{canonical_json, sha256_hex};
use crate::identity::{Principal, TenantId};
use crate::time::Timestamp;

/// One operation of one tool on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ToolCall {
    /// The tool, by its registry name.
    pub tool: String,
    /// One of the tool's operations.
    pub operation: String,
    /// What it acts on: the name of a target the executor knows.
    pub target: String,
    /// The operation's arguments.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// What a tool says would happen, without doing it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DryRun {
    /// One line: what changes from what to what.
    pub diff: String,
    /// One line: who feels it.
    pub blast_radius: String,
    /// `low`, `medium` or `high`, decided by the tool, never by a caller.
    pub risk: String,
    /// Whether `undo` can bring the former state back.
    pub reversible: bool,
    /// The target's state that the plan was made against; execution refuses if it moved.
    pub precondition: String,
    /// The call that takes it back, if it can be taken back.
    pub undo: Option<ToolCall>,
}

/// A proposed action. Its SHA-256 binds everything in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Format version.
    pub version: u8,
    /// Whose.
    pub tenant: TenantId,
    /// The incident's key.
    pub incident: String,
    /// What to do.
    pub call: ToolCall,
    /// What it would do.
    pub dry_run: DryRun,
    /// The runbook it comes from, by its id.
    pub runbook: String,
    /// The service that the outcome is compared with, or `none`.
    pub control: String,
    /// After this moment nobody can approve or run it.
    pub expires_at: Timestamp,
}

impl Plan {
    /// SHA-256 over the RFC 8785 form: what is shown, approved and checked.
    ///
    /// # Errors
    /// Only for values JSON cannot hold.
    pub fn sha256(&self) -> Result<String, String> {
        Ok(sha256_hex(canonical_json(self)?.as_bytes()))
    }

    /// The key under which the target sees the action; the same on every attempt.
    ///
    /// # Errors
    /// As [`Plan::sha256`].
    pub fn idempotency_key(&self) -> Result<String, String> {
        let mut key = self.sha256()?;
        key.truncate(32);
        Ok(key)
    }
}

/// A person's yes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub principal: Principal,
    /// When.
    pub at: Timestamp,
    /// `http`, `cli` or `page`.
    pub channel: String,
    /// The hash they saw.
    pub plan_sha256: String,
    /// In their words; may be empty.
    pub reason: String,
}

/// What became of an execution or an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The target shows the effect.
    Applied,
    /// The target refused, or shows that nothing happened.
    NotApplied,
    /// Nobody can say; a person must look.
    Unknown,
}

impl Outcome {
    /// The word, as it stands in JSON.
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
                risk: "medium".into(),
                reversible: true,
                precondition: "1.0.0 pool=1 after=nothing".into(),
                undo: Some(call("settings")),
            },
            runbook: "setting-changed".into(),
            control: "mail".into(),
            expires_at: Timestamp::from_millis(1_795_255_200_000).plus(Duration::from_secs(600)),
        }
    }

    /// Every leaf of a document, as a JSON pointer.
    fn leaves(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                map.iter().for_each(|(key, inner)| leaves(inner, &format!("{at}/{key}"), found));
            }
            _ => found.push(at.to_owned()),
        }
    }

    #[test]
    fn whatever_changes_a_plan_changes_its_hash() {
        let whole = serde_json::to_value(plan()).unwrap();
        let mut pointers = Vec::new();
        leaves(&whole, "", &mut pointers);
        assert!(pointers.len() >= 20, "{pointers:?}");
        let known = plan().sha256().unwrap();
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
    fn the_key_of_a_plan_is_the_beginning_of_its_hash() {
        let (key, hash) = (plan().idempotency_key().unwrap(), plan().sha256().unwrap());
        assert!(key.len() == 32 && hash.starts_with(&key), "{key}");
    }

    #[test]
    fn an_outcome_is_written_as_it_is_called() {
        for outcome in [Outcome::Applied, Outcome::NotApplied, Outcome::Unknown] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }

    /// Hashes are persisted and approved: a build that computed another one would void every open plan.
    #[test]
    fn the_hash_of_version_1_stays() {
        insta::assert_snapshot!(plan().sha256().unwrap(), @"15ac4624c56cf36895605f7190e06b8fcc479575bd8da3f8c3c90c84bfcc1571");
    }
}
