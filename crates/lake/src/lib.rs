//! What arrived, kept in open tables that anything can read.
//!
//! ```text
//! head's chunks ──► flush ──► silver.samples  ◄── merge (many short files become few long ones)
//! label sets ─────────────► silver.series
//! the bus ──► events ──► bronze.telemetry, silver.logs, .log_templates, .spans, .deployments, .histograms, .exemplars, .quarantine
//! store, signals ─────────► gold.incidents, .enrichments, .tool_results, .service_health
//!                              │  _delta_log: txn(topic-partition, bus offset)
//!                              ▼
//!              DuckDB, Polars, Spark, Trino, and Wardroom's own queries
//! ```
//!
//! Problem: recent samples live in memory, received bodies for a day on the bus, and questions reach further back than
//! either. Model: Delta tables below one root, each partitioned by tenant and day, written in batches that end at an offset of
//! the bus. Guarantees: a batch lands once however often it is tried ([`Landed`]); when an append returns, a power cut
//! loses nothing of it; every bit of a value comes back.
//!
//! This crate alone names Delta, Arrow, Parquet and DataFusion: domain types and plain rows go in and come out.

#![forbid(unsafe_code)]

mod ask;
mod compact;
mod config;
mod copy;
mod decimal;
mod disk;
mod error;
mod events;
mod gold;
mod group;
mod histograms;
mod merge;
mod numbers;
mod pages;
mod past;
mod read;
mod remote;
mod renew;
mod repair;
mod rows;
mod run;
mod samples;
mod source;
mod spec;
mod sql;
mod table;
mod upkeep;

mod lake;

pub use ask::{About, LogFilter, NAMED, Named};
pub use config::{Config, Retention};
pub use copy::{Holds, Piece};
pub use error::Error;
pub use events::{Events, Line, Origin, Pending, Reached, Received, Written};
pub use gold::{EnrichmentFact, IncidentFact, ToolFact};
pub use histograms::Histograms;
pub use lake::{Flush, Holding, Lake, NewSeries};
pub use merge::Merged;
pub use numbers::Numbers;
pub use past::{Moment, Past};
pub use read::Stored;
pub use rows::Request;
pub use sql::{Form, Queries, QueryConfig, QueryError};
pub use table::Landed;
pub use upkeep::{Chore, Deed, Sweep};

/// The bus topic whose records the tables hold.
pub(crate) const TOPIC: &str = "telemetry";
/// Version of the tables' columns.
pub(crate) const SCHEMA_VERSION: i32 = 1;
