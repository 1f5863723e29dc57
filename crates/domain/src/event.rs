//! Events (D19): deployments, settings, scaling, alerts, CI runs and chain events are one type, with one way through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::entity::Entity;
use crate::labels::Labels;
use crate::time::Timestamp;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A version of something began to run.
    Deployment,
    /// A process or container started again.
    Restart,
    /// A container was killed because its memory limit was reached.
    OomKill,
    /// A setting changed.
    Setting,
    /// The number of instances changed.
    Scale,
    /// An alert of another system fired or ended.
    Alert,
    /// A CI run or job ended.
    CiRun,
    /// An event of the Kubernetes API.
    Kubernetes,
    /// A feature flag changed.
    Flag,
    /// An event of a blockchain.
    Chain,
}

impl EventKind {
    /// Returns the spelling in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Restart => "restart",
            Self::OomKill => "oom_kill",
            Self::Setting => "setting",
            Self::Scale => "scale",
            Self::Alert => "alert",
            Self::CiRun => "ci_run",
            Self::Kubernetes => "kubernetes",
            Self::Flag => "flag",
            Self::Chain => "chain",
        }
    }
}

/// One event: something that happened once, at a low rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What it happened to.
    pub entity: Entity,
    /// The kind.
    pub kind: EventKind,
    /// Who says so: `ingest` (a sender's API call), `inferred` (from metrics, traces or logs), or the protocol's name.
    pub source: String,
    /// Details: `version`, `previous_version`, `status`, `key`, `from`, `to`, `reason`, … Untrusted text.
    pub attributes: Labels,
}
