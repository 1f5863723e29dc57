//! The whole configuration: every crate's own, under its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::EntityRules;

/// Wardroom's configuration file. Every field has a default; `WARDROOM_<SECTION>__<FIELD>` overrides it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
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
    /// Diagnosis.
    pub diagnose: wardroom_diagnose::Config,
    /// Runbooks.
    pub knowledge: wardroom_knowledge::Config,
    /// Response.
    pub respond: wardroom_respond::Config,
    /// Checkpoints of detection.
    pub checkpoint: wardroom_pipeline::CheckpointConfig,
    /// Copies of the data folder.
    pub backup: BackupConfig,
    /// The dead man's switch.
    pub heartbeat: HeartbeatConfig,
}

/// Copies of the data folder, as `wardroom backup` makes them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BackupConfig {
    /// Folder they go to, each below a name of its own; none are made without it. Best another disk. Default: none. Since 0.1.
    pub to: Option<std::path::PathBuf>,
    /// How often, in hours. Default 24. Since 0.1.
    pub every_hours: u32,
    /// How many are kept; the oldest goes first. Default 7. Since 0.1.
    pub keep: u32,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self { to: None, every_hours: 24, keep: 7 }
    }
}

/// The outgoing heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HeartbeatConfig {
    /// Posted to as long as readings really reach the detector. Default: none. Since 0.1.
    pub url: Option<String>,
    /// How often, in seconds. Default 30. Since 0.1.
    pub interval_seconds: u64,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { url: None, interval_seconds: 30 }
    }
}

impl Config {
    /// What telemetry's way is told of it.
    pub fn pipeline(&self) -> wardroom_pipeline::Config {
        wardroom_pipeline::Config {
            edge: self.edge.clone(),
            sources: self.sources.clone(),
            bus: self.bus.clone(),
            lake: self.lake.clone(),
            head: self.head.clone(),
            entities: self.entities.clone(),
            detect: self.detect.clone(),
            correlate: self.correlate.clone(),
            checkpoint: self.checkpoint.clone(),
        }
    }
}
