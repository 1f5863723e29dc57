//! Names of the metrics of the response.

/// Counter: incidents opened.
pub const INCIDENTS_OPENED_TOTAL: &str = "wardroom_incidents_opened_total";
/// Counter: failed steps of incidents' responses; each is retried.
pub const RESPOND_FAILURES_TOTAL: &str = "wardroom_respond_failures_total";
/// Counter: answers of the policy about proposed plans, by `answer`.
pub const POLICY_DECISIONS_TOTAL: &str = "wardroom_policy_decisions_total";
/// Counter: attempts at effects, by kind and outcome; those with outcome `retried` have another one.
pub const EFFECTS_TOTAL: &str = "wardroom_effects_total";
/// Histogram: seconds that an attempt at an effect took, by kind: a dry run, or an action from its start to its end.
pub const EFFECT_SECONDS: &str = "wardroom_effect_seconds";
/// Counter: actions and undos that ended, by tool, operation and outcome.
pub const ACTIONS_TOTAL: &str = "wardroom_actions_total";
/// Histogram: seconds from the proposal of a plan to its approval.
pub const APPROVAL_SECONDS: &str = "wardroom_approval_seconds";
