//! What of the head can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of the live series of one tenant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Most series a tenant may have; samples of further ones are refused. Default 150000. Since 0.1.
    pub max_series: usize,
    /// How long the samples of a series are kept at hand, in minutes; older ones are read from the bus.
    /// Default 120. Since 0.1.
    pub recent_minutes: u32,
    /// Exemplars of a tenant kept at hand, the newest. Default 100000. Since 0.1.
    pub max_exemplars: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_series: 150_000, recent_minutes: 120, max_exemplars: 100_000 }
    }
}
