//! The end of a step of a plan.

use serde::{Deserialize, Serialize};
use wardroom_domain::Outcome;

/// The end of a step of a plan of several. Persisted in the workflow: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// Outcome of its execution.
    pub outcome: Outcome,
    /// Detail from the target.
    pub detail: String,
    /// Outcome of its undo, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Outcome>,
}
