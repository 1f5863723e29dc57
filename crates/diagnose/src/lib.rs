//! Why: evidence in, ranked causes out. No model, no I/O, no clock.
//!
//! ```text
//! who is bad ──► who suffers from whom (call direction) ──► who is left ──► in which way ──► confidence
//! ```
//!
//! A caller whose failing call goes to a callee that is itself bad *suffers*; a caller whose call fails
//! while the callee is well is *at fault itself*. A queue that refuses work because one of its callers
//! stopped taking it suffers from that caller. What is left is ranked by how much speaks for it:
//! resources at their limit, a changed setting, a deployment shortly before, how many suffer from it.
//! Everything a cause claims points to evidence that stands in the same answer. No cause is a normal
//! answer.

#![forbid(unsafe_code)]

mod facts;
mod kind;
mod rank;
mod render;

pub use facts::{Aspect, Call, Change, Facts, LogFact, SeriesFact, SignalFact};
pub use rank::diagnose;
pub use render::{SeedAnswer, seed_answer};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of diagnosis can be configured.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// How far back deployments are looked at, in minutes (seed 002). Default 30. Since 0.1.
    pub deployment_minutes: u64,
    /// How far back error logs are looked at, in minutes (seed 002). Default 10. Since 0.1.
    pub log_minutes: u64,
    /// A cause below this confidence is not proposed, 0..1. Default 0.4. Since 0.1.
    pub min_confidence: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { deployment_minutes: 30, log_minutes: 10, min_confidence: 0.4 }
    }
}
