//! The telemetry pipeline: from intake through the bus and detection into the lake, and queries over all of it.
//!
//! ```text
//! sources ─► intake ─► bus ─┬─► detection: live series, detectors, correlation ─► DetectorEvent
//!                           │     └─ lake writer ─► silver.samples, silver.series
//!                           └─► event writer ─► bronze, silver.logs, .spans, .deployments, .quarantine
//! query ◄── live series, tables, bus (merged into one result)
//! ```
//!
//! One folder for each role. This crate does not depend on incident response; decisions are made by pure crates
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
