//! What of the response can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the response.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Time of telemetry between opening and diagnosis, so that the culprit's own signals are in,
    /// in seconds. Default 2. Since 0.1.
    pub settle_seconds: f64,
    /// Good samples of every watched signal before `mitigated`. Default 20. Since 0.1.
    pub good_samples: u32,
    /// Time without a breach before `resolved`, in seconds; doubled without a control. Default 90. Since 0.1.
    pub hold: u64,
    /// An action that has not helped by then is undone, in seconds. Default 120. Since 0.1.
    pub verify_timeout: u64,
    /// A plan nobody approved by then is void, in minutes. Default 30. Since 0.1.
    pub approval_minutes: u64,
    /// Consecutive bad samples that are a breach. Default 5. Since 0.1.
    pub breach_samples: u32,
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
