//! What telemetry's way is told: the parts of the whole configuration that it reads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::EntityRules;

/// The configuration of everybody on the way.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Ports and their limits.
    pub edge: wardroom_edge::Config,
    /// What requests may hold.
    pub sources: wardroom_sources::Config,
    /// The durable log.
    pub bus: wardroom_bus::Config,
    /// What is kept for good.
    pub lake: wardroom_lake::Config,
    /// The live series.
    pub head: wardroom_head::Config,
    /// Which label names which thing.
    pub entities: EntityRules,
    /// Detection.
    pub detect: wardroom_detect::Config,
    /// Correlation.
    pub correlate: wardroom_correlate::Config,
    /// Checkpoints of detection.
    pub checkpoint: CheckpointConfig,
}

/// Checkpoints of detection.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// How often detection writes its state down, in seconds; a restart reads what came since from the bus.
    /// Default 60. Since 0.1.
    pub interval_seconds: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { interval_seconds: 60 }
    }
}
