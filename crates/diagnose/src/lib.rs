//! Diagnosis: evidence in, ranked causes out. No language model, no I/O, no clock.
//!
//! ```text
//! facts ─► suspects (levels, what dependencies explain) ─► features ─► weights ─► ranking ─► rule ─► cause
//!   ▲                                                                               │
//!   └────────────── needs: what would make the ranking surer ◄──────────────────────┘
//! ```
//!
//! The ranking is general: size and onset of the shifts of each entity's signals against their own past, direction of
//! calls and uses (a symptom of a caller is explained by its callee's), saturation of what it runs on or uses, lost
//! availability, restarts, changes shortly before, log templates. The weights of these features are a data file that
//! is fitted by a command. *How* an entity fails is named by the rules of `rules/`; `unknown` is one of them.
//!
//! Unknown is not healthy: an entity without signals of its own is neither at fault nor acquitted, and a cause that
//! depends on one carries a reservation. Every claim cites evidence in the same result; "no cause" is a valid result.

#![forbid(unsafe_code)]

mod facts;
mod kind;
mod need;
mod shift;

mod explanation;
mod levels;
mod suspect;

mod features;
mod weights;

mod evidence;
mod rank;
mod render;
mod rule;
mod rules;

pub use facts::{Facts, SignalFact, TemplateFact};
pub use features::{FEATURES, Features};
pub use kind::{direction_of, unit_of};
pub use need::Need;
pub use rank::{Indicator, Ranked, diagnose, indicators, needs, rank};
pub use render::{RootCauseAnalysis, root_cause_analysis};
pub use rule::Rule;
pub use rules::RULES;
pub use shift::{Normal, SignalShift, difference_floor, median, quantile};
pub use weights::{Calibration, Weights, WeightsError};

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
