//! Telemetry's way: from the bus through head and detection into the tables, and back to whoever asks.
//!
//! ```text
//! sources ─► intake ─► bus ─┬─► pump ─► head, detectors, correlation ─► News
//!                           │     └─ keep ─► silver.samples, silver.series
//!                           └─► events ─► bronze, silver.logs, .spans, .deployments, .quarantine
//! samples ◄── head, tables, bus (whoever asks does not know which)
//! ```
//!
//! One file for each pump. Nothing here knows an incident's response, and nothing decides: pure cores do. Guarantee: every offset of
//! the bus goes through detection once and in order, and each row lands in the tables once, whenever the process dies; what
//! cannot be taken is laid aside, and the rest goes on.

#![forbid(unsafe_code)]

pub mod checkpoint;
mod config;
pub mod events;
pub mod findings;
pub mod intake;
pub mod keep;
pub mod metrics;
pub mod poison;
pub mod pump;
pub mod salvage;
pub mod samples;
pub mod tenants;

pub use config::{CheckpointConfig, Config};
