//! Configuration of the head: `head.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_COUNT, MAX_MINUTES};

/// Smallest maximum of the labels of a tenant's series and of the names in its events, in bytes: with less, not even a
/// few fit.
const MIN_SERIES_BYTES: u64 = 1 << 10;

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
    /// Maximum size of the names that a tenant's log lines, spans and deployments of the last two hours gave, in bytes:
    /// of services; of pairs of a service and one that it calls; of services, versions and statuses of deployments;
    /// each. Records with further names are refused. Default 8 MiB. Since 0.1.
    pub max_event_name_bytes: usize,
    /// Retention of the recent samples of a series, in minutes; older samples are read from the bus. Default 120.
    /// Since 0.1.
    pub recent_minutes: u32,
    /// Maximum number of exemplars of a tenant in memory; the oldest are evicted. Default 100000. Since 0.1.
    pub max_exemplars: usize,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        for (field, value) in [
            ("head.max-series", self.max_series),
            ("head.max-services", self.max_services),
            ("head.max-histogram-families-per-service", self.max_histogram_families_per_service),
            ("head.max-histogram-families", self.max_histogram_families),
            ("head.max-calls", self.max_calls),
            ("head.max-deployments", self.max_deployments),
        ] {
            problems.count(field, value);
        }
        problems.bytes("head.max-series-bytes", self.max_series_bytes, MIN_SERIES_BYTES);
        problems.bytes("head.max-event-name-bytes", self.max_event_name_bytes, MIN_SERIES_BYTES);
        problems.range("head.max-exemplars", self.max_exemplars as u64, 0..=MAX_COUNT);
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
            max_event_name_bytes: 8 << 20,
            recent_minutes: 120,
            max_exemplars: 100_000,
        }
    }
}
