//! The telemetry pipeline: from intake over the bus through detection into the lake, and queries over all of it.
//!
//! ```text
//! sources ─► intake ─► bus ─┬─► detection: live series, detectors, correlation ─► DetectorEvent
//!                           │     └─ lake writer ─► silver.samples, silver.series
//!                           └─► event writer ─► bronze, silver.logs, .spans, .deployments, .quarantine
//! query ◄── live series, tables, bus (one answer, whichever of them holds the data)
//! ```
//!
//! One folder for each role. Nothing here knows how an incident is responded to; decisions are taken by pure crates
//! (`detect`, `correlate`). Guarantees: detection processes every bus offset once and in order, and each row is
//! committed to the tables exactly once, whenever the process dies. A poison record is retried, dead-lettered and
//! skipped.

#![forbid(unsafe_code)]

mod config;
pub mod consumer_groups;
pub mod detection;
pub mod intake;
pub mod lake;
pub mod metrics;
mod poison_injection;
pub mod poison_records;
pub mod query;
pub mod state;

pub use config::{CheckpointConfig, Config};
