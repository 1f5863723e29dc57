//! Configuration of the head: `head.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};

/// Limits of the active series of one tenant, and of what detection keeps of its other telemetry.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Maximum number of active series of a tenant; samples of further series are refused. Default 150000. Since 0.1.
    pub max_series: usize,
    /// Maximum size of the labels of a tenant's active series, in bytes; samples of further series are refused. Default
    /// 256 MiB. Since 0.1.
    pub max_series_bytes: usize,
    /// Maximum number of services of a tenant: of its active series, and of its log lines, spans and deployments of the
    /// last two hours. Records of further services are refused. Default 10000. Since 0.1.
    pub max_services: usize,
    /// Maximum number of histogram families (metric and called service) of a service; further ones are refused. Default
    /// 2000. Since 0.1.
    pub max_histogram_families_per_service: usize,
    /// Maximum number of histogram families of a tenant; further ones are refused. Default 10000. Since 0.1.
    pub max_histogram_families: usize,
    /// Maximum number of pairs of a service and one that it calls: of the active histograms of a tenant, and of its
    /// spans of the last two hours that name the called service (`peer.service`). Further ones are refused. Default
    /// 10000. Since 0.1.
    pub max_calls: usize,
    /// Maximum number of different deployments of a tenant within two hours; further ones are refused. Default 10000.
    /// Since 0.1.
    pub max_deployments: usize,
    /// Retention of the recent samples of a series, in minutes; older samples are read from the bus. Default 120.
    /// Since 0.1.
    pub recent_minutes: u32,
    /// Maximum number of exemplars of a tenant in memory; the oldest are evicted. Default 100000. Since 0.1.
    pub max_exemplars: usize,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.positive("head.max-series", self.max_series);
        problems.range("head.recent-minutes", u64::from(self.recent_minutes), 1..=MAX_MINUTES);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_series: 150_000,
            max_series_bytes: 256 << 20,
            max_services: 10_000,
            max_histogram_families_per_service: 2000,
            max_histogram_families: 10_000,
            max_calls: 10_000,
            max_deployments: 10_000,
            recent_minutes: 120,
            max_exemplars: 100_000,
        }
    }
}
