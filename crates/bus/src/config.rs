//! What of the bus can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the embedded bus.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// A segment is sealed at this size, in bytes. Default 64 MiB. Since 0.1.
    pub segment_bytes: u64,
    /// Above this size of the whole log, in bytes, intake answers 503 until old segments may be
    /// dropped. Default 16 GiB. Since 0.1.
    pub limit_bytes: u64,
    /// Sealed segments are kept this long, in hours. Default 24. Since 0.1.
    pub retention_hours: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, limit_bytes: 16 << 30, retention_hours: 24 }
    }
}
