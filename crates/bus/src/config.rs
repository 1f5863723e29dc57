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
    /// When a sender is told "yes": `fsync`, once its data is on the disk; `os`, once the system has it, so that a
    /// power cut may lose what was acknowledged. Default fsync. Since 0.1.
    pub durability: Durability,
    /// Requests that wait for the disk, in bytes; further ones are answered 503. Default 64 MiB. Since 0.1.
    pub pending_bytes: usize,
    /// Sealed segments are kept this long, in hours. Default 24. Since 0.1.
    pub retention_hours: u64,
    /// Requests of log lines, spans and deployments are kept this long, in hours, beside the log once their segment is gone; at
    /// most `limit-bytes` of them, the oldest go first. Default 168. Since 0.1.
    pub rest_hours: u64,
}

/// When a sender is told "yes".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Once it is on the disk.
    Fsync,
    /// Once the system has it.
    Os,
}

impl Durability {
    /// What it survives.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "power-loss",
            Self::Os => "process-crash",
        }
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
            rest_hours: 7 * 24,
        }
    }
}
