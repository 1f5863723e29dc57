//! Configuration of the head: `head.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of the active series of one tenant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Maximum number of active series of a tenant; samples of further series are refused. Default 150000. Since 0.1.
    pub max_series: usize,
    /// Retention of the recent samples of a series, in minutes; older samples are read from the bus. Default 120.
    /// Since 0.1.
    pub recent_minutes: u32,
    /// Maximum number of exemplars of a tenant in memory; the oldest are evicted. Default 100000. Since 0.1.
    pub max_exemplars: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_series: 150_000, recent_minutes: 120, max_exemplars: 100_000 }
    }
}
