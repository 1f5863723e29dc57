//! What actions have earned, and the change of it, as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::Timestamp;

/// Where an action stands for a cause.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AutonomyPairView {
    /// Id of the rule that names the cause.
    pub rule: String,
    /// Tool.
    pub tool: String,
    /// Operation of the tool.
    pub operation: String,
    /// Level in force: `ask`, `night` or `automatic`.
    pub level: String,
    /// `[times that people agreed, times that a person decided]` since the last failure.
    pub agreed: [u32; 2],
    /// `[times that it helped, times that telemetry shows it]` since the last failure.
    pub helped: [u32; 2],
    /// Share of agreement and success that is certain at 95 %, the smaller one.
    pub lower_bound: f64,
    /// The level that an administrator may accept now.
    #[schema(required)]
    pub offer: Option<String>,
    /// Time of the last failure, which took back what was earned before.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_failure: Option<Timestamp>,
}

/// A change of the level of an action for a cause.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutonomyChange {
    /// Id of the rule that names the cause.
    pub rule: String,
    /// Tool.
    pub tool: String,
    /// Operation of the tool.
    pub operation: String,
    /// `ask`, `night` or `automatic`; above the level in force only as offered.
    pub level: String,
}
