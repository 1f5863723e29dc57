//! Configuration of the bus.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_BYTES, MAX_HOURS};

/// Smallest segment, and smallest size of waiting requests, in bytes: larger requests are always refused.
const MIN_SEGMENT_BYTES: u64 = 4 << 10;

/// Settings of the embedded bus.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Size at which a segment is closed, in bytes. Default 64 MiB. Since 0.1.
    pub segment_bytes: u64,
    /// Maximum size of the whole log, in bytes. Above it, intake returns 503 until old segments may be dropped. Default
    /// 16 GiB. Since 0.1.
    pub limit_bytes: u64,
    /// When a request is acknowledged: `fsync`, once its data is on disk; `os`, once the operating system has it, so
    /// that a power cut may lose acknowledged requests. Default fsync. Since 0.1.
    pub durability: Durability,
    /// Maximum size of requests waiting to be written, in bytes; further ones get 503. Default 64 MiB. Since
    /// 0.1.
    pub pending_bytes: usize,
    /// Retention of closed segments, in hours. Default 24. Since 0.1.
    pub retention_hours: u64,
    /// Retention of requests with log lines, spans or deployments, in hours. They are archived when their segment is
    /// dropped; at most `limit-bytes` are kept, the oldest are deleted first. Default 168. Since 0.1.
    #[serde(rename = "rest-hours")]
    pub archive_hours: u64,
}

/// When a request is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Once it is on disk.
    Fsync,
    /// Once the operating system has it.
    Os,
}

impl Durability {
    /// Returns what an acknowledged append survives.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "survives-power-loss",
            Self::Os => "survives-process-crash",
        }
    }
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("bus.limit-bytes", self.limit_bytes, MIN_SEGMENT_BYTES..=MAX_BYTES);
        let largest = self.limit_bytes.clamp(MIN_SEGMENT_BYTES, MAX_BYTES);
        problems.range("bus.segment-bytes", self.segment_bytes, MIN_SEGMENT_BYTES..=largest);
        problems.bytes("bus.pending-bytes", self.pending_bytes, MIN_SEGMENT_BYTES);
        problems.range("bus.retention-hours", self.retention_hours, 1..=MAX_HOURS);
        problems.range("bus.rest-hours", self.archive_hours, 0..=MAX_HOURS);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            limit_bytes: 16 << 30,
            durability: Durability::Fsync,
            pending_bytes: 64 << 20,
            retention_hours: 24,
            archive_hours: 7 * 24,
        }
    }
}
