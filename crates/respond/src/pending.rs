//! What a diagnosis would do, as long as its checks and dry runs are not finished.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::{ActionChoice, CheckResult, Diagnosis, DryRun, ReadCheck, ToolCall};

use crate::WatchedSignal;

/// What a diagnosis would do, before its dry runs. Persisted in the workflow: field names are the format. Earlier
/// versions have one call and nothing to check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingPlan {
    /// The diagnosis.
    pub diagnosis: Diagnosis,
    /// The first step, once the action is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<ToolCall>,
    /// The steps after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_calls: Vec<ToolCall>,
    /// The dry runs that have ended, by their step, counted from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dry_runs: BTreeMap<u32, DryRun>,
    /// The checks of the runbook, with their results as far as there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<PendingRead>,
    /// The actions of the runbook, preferred first, until one is chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<ActionChoice>,
    /// Id of the runbook that proposes it.
    pub runbook: String,
    /// Service that serves as the control, or `none`.
    pub control: String,
    /// Signals that have to become good.
    pub watched: Vec<WatchedSignal>,
    /// Number of the diagnosis.
    #[serde(default)]
    pub number: u32,
}

/// A check with its result. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingRead {
    /// The check.
    pub check: ReadCheck,
    /// Its result, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CheckResult>,
}

impl PendingPlan {
    /// Returns the steps of the chosen action, counted from 0; none before it is chosen.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u32, &ToolCall)> {
        (0..).zip(self.call.iter().chain(&self.further_calls))
    }
}
