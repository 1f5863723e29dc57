//! Configuration of ingestion: `sources.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_BYTES, MAX_HOURS, MAX_MINUTES};

/// Smallest rate limit of a tenant, in bytes per second: with less, a tenant waits minutes for its next request.
const MIN_TENANT_BYTES_PER_SECOND: u64 = 1 << 10;

/// Limits of requests and their records.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Maximum age of a record on arrival, in hours; older records are refused as `too_old`. Default 48. Since 0.1.
    pub max_age_hours: u64,
    /// Maximum time a record may be in the future, in minutes; later records are refused as `too_new`. Default 10.
    /// Since 0.1.
    pub max_ahead_minutes: u64,
    /// Maximum number of labels of a series, and of metadata of a deployment. Default 64. Since 0.1.
    pub max_labels: usize,
    /// Maximum length of a label name, in bytes. Default 1024. Since 0.1.
    pub max_label_name_bytes: usize,
    /// Maximum length of a label value, and of the service, version and status of a record, in bytes. Default 4096.
    /// Since 0.1.
    pub max_label_value_bytes: usize,
    /// Rate limit of a tenant, in bytes per second as received; requests over it get 503 with `Retry-After`. 0 disables
    /// the limit. Default 128 MiB. Since 0.1.
    pub tenant_bytes_per_second: u64,
    /// Maximum length of a log message, in bytes. Default 64 KiB. Since 0.1.
    pub max_message_bytes: usize,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("sources.max-age-hours", self.max_age_hours, 1..=MAX_HOURS);
        problems.range("sources.max-ahead-minutes", self.max_ahead_minutes, 0..=MAX_MINUTES);
        problems.count("sources.max-labels", self.max_labels);
        if self.tenant_bytes_per_second != 0 {
            let range = MIN_TENANT_BYTES_PER_SECOND..=MAX_BYTES;
            let value = self.tenant_bytes_per_second;
            let detail = format_args!("{value} is neither 0, no limit, nor in {} to {}", range.start(), range.end());
            problems.require(range.contains(&value), "sources.tenant-bytes-per-second", detail);
        }
        for (field, value) in [
            ("sources.max-label-name-bytes", self.max_label_name_bytes),
            ("sources.max-label-value-bytes", self.max_label_value_bytes),
            ("sources.max-message-bytes", self.max_message_bytes),
        ] {
            problems.bytes(field, value, 1);
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_age_hours: 48,
            max_ahead_minutes: 10,
            max_labels: 64,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 4096,
            tenant_bytes_per_second: 128 << 20,
            max_message_bytes: 64 << 10,
        }
    }
}
