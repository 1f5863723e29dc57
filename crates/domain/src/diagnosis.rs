//! What is believed to be the cause, and the evidence each claim stands on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::severity::Severity;
use crate::time::Timestamp;

/// The kinds of failure Wardroom tells apart without a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// Connections are taken and not given back until none is left.
    ConnectionLeak,
    /// The processor is the limit.
    CpuHog,
    /// Memory grows towards its limit.
    MemoryLeak,
    /// A changed setting.
    BadSetting,
    /// The service itself answers slowly or with errors, and nothing it calls explains it.
    SlowDependency,
    /// A consumer falls behind until its queue refuses work.
    QueueFull,
}

impl CauseKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::ConnectionLeak, Self::CpuHog, Self::MemoryLeak, Self::BadSetting, Self::SlowDependency, Self::QueueFull];

    /// The word, as it stands in JSON.
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

/// One thing that was observed and can be looked up again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `anomaly:…`, `deployment:…`, `log:…`, `edge:…`: unique within the incident.
    pub id: String,
    /// The service it speaks about.
    pub service: String,
    /// When it was seen.
    pub at: Timestamp,
    /// One line for a person. May quote telemetry: untrusted text.
    pub summary: String,
}

/// One candidate cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// The service at fault.
    pub service: String,
    /// In which way.
    pub kind: CauseKind,
    /// 0..1.
    pub confidence: f64,
    /// Why, in one or two sentences, from the evidence below only.
    pub reasoning: String,
    /// Ids of [`Evidence`] that exist in the same diagnosis.
    pub evidence: Vec<String>,
    /// The deployment of that service shortly before, if there was one.
    pub deployment: Option<String>,
    /// A changed setting, as (key, from, to), if one explains it.
    pub setting: Option<(String, String, String)>,
}

/// The answer to "why": ranked causes, the best first. No cause at all is a normal answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Ranked, best first; may be empty.
    pub causes: Vec<Cause>,
    /// Everything the causes point to.
    pub evidence: Vec<Evidence>,
    /// How bad it is for customers.
    pub severity: Severity,
    /// Who feels it, in words.
    pub impact: String,
}

impl Diagnosis {
    /// The best cause.
    pub fn best(&self) -> Option<&Cause> {
        self.causes.first()
    }
}
