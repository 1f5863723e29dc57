//! What of the ways in can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of what a request may hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Records older than this when they arrive are refused as `too_old`, in hours. Default 48. Since 0.1.
    pub max_age_hours: u64,
    /// Records further in the future than this are refused as `too_new`, in minutes. Default 10. Since 0.1.
    pub max_ahead_minutes: u64,
    /// Most labels on one record. Default 64. Since 0.1.
    pub max_labels: usize,
    /// Longest label name, in bytes. Default 1024. Since 0.1.
    pub max_label_name_bytes: usize,
    /// Longest label value, in bytes. Default 4096. Since 0.1.
    pub max_label_value_bytes: usize,
    /// Bytes that one tenant may append in a second, as received; over it requests are answered 503 until the
    /// rate allows them. 0 for no limit. Default 128 MiB. Since 0.1.
    pub tenant_bytes_per_second: u64,
    /// Longest log message, in bytes. Default 64 KiB. Since 0.1.
    pub max_message_bytes: usize,
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
