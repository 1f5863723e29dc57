//! A diagnosis: ranked causes and the evidence for each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::severity::Severity;
use crate::time::Timestamp;

/// The kinds of failure that the rule-based diagnosis distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// Connections are not released until the pool is exhausted.
    ConnectionLeak,
    /// CPU usage is at its limit.
    CpuHog,
    /// Memory grows towards its limit.
    MemoryLeak,
    /// A changed setting.
    BadSetting,
    /// The service itself is slow or fails, and none of its dependencies explains it.
    SlowDependency,
    /// A consumer falls behind until its queue is full.
    QueueFull,
}

impl CauseKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::ConnectionLeak, Self::CpuHog, Self::MemoryLeak, Self::BadSetting, Self::SlowDependency, Self::QueueFull];

    /// Returns the JSON spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLeak => "connection-leak",
            Self::CpuHog => "cpu-hog",
            Self::MemoryLeak => "memory-leak",
            Self::BadSetting => "bad-setting",
            Self::SlowDependency => "slow-dependency",
            Self::QueueFull => "queue-full",
        }
    }
}

impl std::fmt::Display for CauseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One observation with a stable id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `anomaly:…`, `deployment:…`, `log:…`, `edge:…`: unique within the incident.
    pub id: String,
    /// The service concerned.
    pub service: String,
    /// Time of the observation.
    pub at: Timestamp,
    /// One-line summary. May quote telemetry: untrusted text.
    pub summary: String,
}

/// One candidate cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// The service at fault.
    pub service: String,
    /// Kind of failure.
    pub kind: CauseKind,
    /// Confidence, 0..1.
    pub confidence: f64,
    /// Explanation in one or two sentences, based only on the evidence below.
    pub reasoning: String,
    /// Ids of the [`Evidence`] in the same diagnosis.
    pub evidence: Vec<String>,
    /// A deployment of the service shortly before, if any.
    pub deployment: Option<String>,
    /// A changed setting that explains the failure: (key, old value, new value).
    pub setting: Option<(String, String, String)>,
}

/// Ranked causes of an incident, best first. An empty list is a valid result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Causes, best first; may be empty.
    pub causes: Vec<Cause>,
    /// The evidence that the causes refer to.
    pub evidence: Vec<Evidence>,
    /// Severity of the impact on users.
    pub severity: Severity,
    /// Description of the impact.
    pub impact: String,
}

impl Diagnosis {
    /// Returns the best cause.
    pub fn best(&self) -> Option<&Cause> {
        self.causes.first()
    }
}
