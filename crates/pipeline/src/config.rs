//! Configuration of the pipeline: the sections of the whole configuration that it reads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_SECONDS};
use wardroom_head::{NameLookup, SeriesNames};
use wardroom_signals::Catalog;

/// Configuration of all roles of the pipeline.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Ports and their limits.
    pub edge: wardroom_edge::Config,
    /// Limits of requests.
    pub sources: wardroom_sources::Config,
    /// The durable log.
    pub bus: wardroom_bus::Config,
    /// The tables.
    pub lake: wardroom_lake::Config,
    /// The live series.
    pub head: wardroom_head::Config,
    /// What series, log lines and spans are about, and what series mean.
    pub catalog: Catalog,
    /// Detection.
    pub detect: wardroom_detect::Config,
    /// Correlation.
    pub correlate: wardroom_correlate::Config,
    /// Checkpoints of detection.
    pub checkpoint: CheckpointConfig,
}

impl Config {
    /// Returns how the limits of the live series find the names that they count.
    pub fn series_names(&self) -> NameLookup {
        let catalog = self.catalog.clone();
        NameLookup::new(move |labels| SeriesNames {
            service: catalog.service_name(labels),
            called: catalog.called_name(labels).unwrap_or_default(),
        })
    }
}

/// Checkpoints of detection.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Interval between checkpoints of detection's state, in seconds; a restart reads newer records from the bus.
    /// Default 60. Since 0.1.
    pub interval_seconds: u64,
}

impl CheckpointConfig {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("checkpoint.interval-seconds", self.interval_seconds, 1..=MAX_SECONDS);
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { interval_seconds: 60 }
    }
}
