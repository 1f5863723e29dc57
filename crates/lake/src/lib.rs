//! The lake: telemetry in open Delta tables that any Delta reader can query.
//!
//! ```text
//!           write                           table                          read
//! samples, label sets ─► flush       ─┐                     ┌─► sample_queries, histogram_queries
//! records of the bus  ─► event_batch ─┼─► Delta tables ─────┼─► sql_engine, named_queries, log_search
//! incidents, health   ─► gold_tables ─┘        ▲            └─► replay_window
//!                                              │
//!                    maintain: sample_merge, file_join, retention, file_verification, backup_snapshot
//!
//!                    format: table schemas, rows and samples ◄─► Parquet (used by all of them)
//! ```
//!
//! - `format`: table schemas, and the encoding of rows and samples as Parquet.
//! - `table`: one Delta table on a local disk or an object store: open, append exactly once, sync, repair, vacuum.
//! - `write`: batches of samples, events and gold rows that become files of tables.
//! - `read`: samples and histograms of series, SQL, named queries, log search, and time ranges for a replay.
//! - `maintain`: merging and joining files, retention, table usage, verification, and the file list of a backup.
//! - `lake`, `config`, `error`, `damaged_files`: all tables together, their settings, their errors, and the files that
//!   do not match their checksums.
//!
//! Tables: `bronze.telemetry`; `silver.samples`, `.series`, `.logs`, `.log_templates`, `.spans`, `.events`,
//! `.histograms`, `.exemplars`, `.quarantine`; `gold.incidents`, `.enrichments`, `.tool_results`, `.service_health`,
//! `.audit_heads`. Each is partitioned by tenant and day. A commit records the bus offset at which its batch ends
//! (`txn` in `_delta_log`).
//!
//! Guarantees: a batch is committed once, however often it is retried ([`CommitOutcome`]). Once an append has returned,
//! its rows survive a power cut. Every value is read back bit for bit, or the read fails with the file that is damaged.
//!
//! Only this crate depends on Delta, Arrow, Parquet and DataFusion. Its API uses domain types and plain rows.

#![forbid(unsafe_code)]

mod config;
mod damaged_files;
mod error;
#[cfg(test)]
mod fixtures;
mod format;
mod lake;
mod maintain;
mod read;
mod table;
mod write;

pub use config::{Config, QueryConfig};
pub use damaged_files::DamagedFile;
pub use error::Error;
pub use format::row_reader::StoredRequest;
pub use format::table_schemas::names_in_queries;
pub use lake::Lake;
pub use maintain::backup_snapshot::TableSnapshot;
pub use maintain::file_verification::{TableVerification, VerificationProgress};
pub use maintain::maintenance_report::MaintenanceReport;
pub use maintain::maintenance_tasks::{MaintenanceKind, MaintenanceTask};
pub use maintain::retention::Retention;
pub use maintain::table_usage::TableUsage;
pub use read::histogram_queries::HistogramPage;
pub use read::log_search::LogFilter;
pub use read::named_queries::{NAMED_QUERIES, NamedQuery, QueryParameters};
pub use read::replay_window::{ReplaySecond, ReplayWindow};
pub use read::sample_queries::SamplePage;
pub use read::sql_engine::{OutputFormat, QueryEngine, QueryError};
pub use read::unflushed_rows::UnflushedRows;
pub use table::delta_table::CommitOutcome;
pub use table::snapshot_files::SnapshotFile;
pub use table::vacuum_policy::VacuumPolicy;
pub use write::event_batch::{CommittedOffsets, EventBatch, EventFiles, LogLine, ReceivedRequest, RequestOrigin};
pub use write::flush::{Flush, NewSeries};
pub use write::gold_tables::{EnrichmentFact, IncidentFact, ToolFact};
pub use write::pending_rows::PendingRows;
pub use write::series_ids::SeriesIds;
