//! Configuration of the response.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_SECONDS};

/// Longest time between opening and diagnosis, in seconds: signals are kept for about that long.
const MAX_SETTLE_SECONDS: f64 = 3600.0;
/// Maximum number of consecutive samples that a decision waits for.
const MAX_SAMPLES: u32 = 1_000_000;
/// Longest time until a plan expires, in minutes: the executor refuses to record approvals that are good for longer.
const MAX_APPROVAL_MINUTES: u64 = 24 * 60;

/// Settings of the response.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Telemetry time between opening and diagnosis, so that the signals of the cause have arrived, in seconds.
    /// Default 2. Since 0.1.
    pub settle_seconds: f64,
    /// Consecutive good samples of every watched signal before `mitigated`. Default 20. Since 0.1.
    pub good_samples: u32,
    /// Time without a breach before `resolved`, in seconds; doubled without a control. Default 90. Since 0.1.
    pub hold: u64,
    /// Timeout of verification, in seconds; then the action is undone. Default 120. Since 0.1.
    pub verify_timeout: u64,
    /// Time after which a plan that was not approved expires, in minutes; at most 1440. Default 30. Since 0.1.
    pub approval_minutes: u64,
    /// Consecutive bad samples that are a breach. Default 5. Since 0.1.
    pub breach_samples: u32,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.number("respond.settle-seconds", self.settle_seconds, 0.0..=MAX_SETTLE_SECONDS);
        problems.range("respond.good-samples", self.good_samples, 1..=MAX_SAMPLES);
        problems.range("respond.breach-samples", self.breach_samples, 1..=MAX_SAMPLES);
        problems.range("respond.hold", self.hold, 1..=MAX_SECONDS);
        problems.range("respond.verify-timeout", self.verify_timeout, 1..=MAX_SECONDS);
        problems.range("respond.approval-minutes", self.approval_minutes, 0..=MAX_APPROVAL_MINUTES);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settle_seconds: 2.0,
            good_samples: 20,
            hold: 90,
            verify_timeout: 120,
            approval_minutes: 30,
            breach_samples: 5,
        }
    }
}
