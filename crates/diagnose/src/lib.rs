//! Diagnosis: evidence in, ranked causes out. No language model, no I/O, no clock.
//!
//! ```text
//! degraded services ─► explained by another service? (call direction) ─► ranking ─► kind of fault ─► confidence
//! ```
//!
//! A caller whose failing calls go to a callee that is itself degraded is *affected*; a caller whose calls fail while
//! the callee is healthy is a *candidate*. A queue that rejects work because one of its consumers stopped draining it
//! is affected by that consumer. Candidates are ranked by the evidence: resources at their limit, a changed setting, a
//! recent deployment, the number of affected callers. Every claim refers to evidence in the same result. "No cause" is
//! a valid result.

#![forbid(unsafe_code)]

mod facts;
mod kind;
mod rank;
mod render;

pub use facts::{Aspect, Call, Change, Facts, LogFact, SeriesFact, SignalFact};
pub use rank::diagnose;
pub use render::{RootCauseAnalysis, root_cause_analysis};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};

/// Settings of diagnosis.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// How far back deployments are considered, in minutes. Default 30. Since 0.1.
    pub deployment_minutes: u64,
    /// How far back error logs are considered, in minutes. Default 10. Since 0.1.
    pub log_minutes: u64,
    /// A cause below this confidence is not proposed, 0..1. Default 0.4. Since 0.1.
    pub min_confidence: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { deployment_minutes: 30, log_minutes: 10, min_confidence: 0.4 }
    }
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("diagnose.deployment-minutes", self.deployment_minutes, 0..=MAX_MINUTES);
        problems.range("diagnose.log-minutes", self.log_minutes, 0..=MAX_MINUTES);
        problems.ratio("diagnose.min-confidence", self.min_confidence);
    }
}
