//! What a diagnosis would do, as long as its dry run is not finished.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Diagnosis, ToolCall};

use crate::WatchedSignal;

/// What a diagnosis would do, before its dry run. Persisted in the workflow: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingPlan {
    /// The diagnosis.
    pub diagnosis: Diagnosis,
    /// The action.
    pub call: ToolCall,
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
