//! Configuration of the response.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_SECONDS};

/// Longest time between opening and diagnosis, in seconds: signals are kept for about that long.
const MAX_SETTLE_SECONDS: f64 = 3600.0;
/// Maximum number of points of a signal that a decision waits for.
const MAX_POINTS: u32 = 10_000;
/// Longest time until a plan expires, in minutes: the executor refuses to record approvals that are good for longer.
const MAX_APPROVAL_MINUTES: u64 = 24 * 60;

/// Settings of the response.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Telemetry time between opening and diagnosis, so that the signals of the cause have arrived, in seconds; at
    /// least one interval of the signal that opened the incident. Default 2. Since 0.1.
    pub settle_seconds: f64,
    /// Time for which every watched signal has to be good before `mitigated`, in seconds. Default 20. Since 0.2.
    pub good_seconds: u64,
    /// Minimum number of good points in that time, by the signal's own interval. Default 3. Since 0.2.
    pub good_points: u32,
    /// Time without a breach before `resolved`, in seconds; doubled without a control, and at least five intervals of
    /// the slowest watched signal. Default 90. Since 0.1.
    pub hold: u64,
    /// Timeout of verification, in seconds; at least ten intervals of the slowest watched signal. If signals are still
    /// bad then, the action is undone. Default 120. Since 0.1.
    pub verify_timeout: u64,
    /// Time after which a plan that was not approved expires, in minutes; at most 1440. Default 30. Since 0.1.
    pub approval_minutes: u64,
    /// Time for which a signal has to be bad in the hold to be a breach, in seconds; at least two of its points. A
    /// breach takes the action back, so that it has to last as long as the improvement had to; at most half of the hold
    /// counts. Default 20. Since 0.2.
    pub breach_seconds: u64,
    /// Replaced by `good-seconds` and `good-points`; refused since 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good_samples: Option<u32>,
    /// Replaced by `breach-seconds`; refused since 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breach_samples: Option<u32>,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.number("respond.settle-seconds", self.settle_seconds, 0.0..=MAX_SETTLE_SECONDS);
        problems.range("respond.good-seconds", self.good_seconds, 1..=MAX_SECONDS);
        problems.range("respond.good-points", self.good_points, 1..=MAX_POINTS);
        problems.range("respond.breach-seconds", self.breach_seconds, 1..=MAX_SECONDS);
        problems.range("respond.hold", self.hold, 1..=MAX_SECONDS);
        problems.range("respond.verify-timeout", self.verify_timeout, 1..=MAX_SECONDS);
        problems.range("respond.approval-minutes", self.approval_minutes, 0..=MAX_APPROVAL_MINUTES);
        let replaced = "numbers of samples depend on the sender's interval; write";
        problems.require(
            self.good_samples.is_none(),
            "respond.good-samples",
            format_args!("{replaced} respond.good-seconds and respond.good-points instead"),
        );
        problems.require(
            self.breach_samples.is_none(),
            "respond.breach-samples",
            format_args!("{replaced} respond.breach-seconds instead"),
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settle_seconds: 2.0,
            good_seconds: 20,
            good_points: 3,
            hold: 90,
            verify_timeout: 120,
            approval_minutes: 30,
            breach_seconds: 20,
            good_samples: None,
            breach_samples: None,
        }
    }
}
