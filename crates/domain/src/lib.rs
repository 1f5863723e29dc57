//! The words every other crate speaks.
//!
//! Wardroom takes telemetry in, notices what is wrong, says why, proposes what to do and proves what
//! happened. Each step hands values of this crate to the next:
//!
//! ```text
//! Batch ──► Anomaly ──► Incident ──► Diagnosis ──► Plan ──► Approval ──► Outcome
//!   (sources)  (detect)   (correlate)  (diagnose)   (respond)  (a person)   (executor)
//!                                └───────────── every step ─────────────► AuditEntry
//! ```
//!
//! Nothing here does I/O, reads a clock or knows tokio; time arrives as an argument. Whatever is
//! persisted or sent carries a version, and everything carries the tenant it belongs to.

#![forbid(unsafe_code)]

pub mod anomaly;
pub mod audit;
pub mod batch;
pub mod canonical;
pub mod diagnosis;
pub mod entity;
pub mod envelope;
pub mod error;
pub mod executor;
pub mod health;
pub mod histogram;
pub mod identity;
pub mod incident;
pub mod labels;
pub mod matcher;
pub mod mutant;
pub mod plan;
pub mod query;
pub mod severity;
pub mod span;
pub mod time;

pub use anomaly::Anomaly;
pub use batch::{
    Batch, Deployment, LogEntry, MetricMetadata, Metrics, Refusal, RefusalReason, Run, Sample, SeriesId, Sighting,
};
pub use diagnosis::{Cause, CauseKind, Diagnosis, Evidence};
pub use entity::EntityRules;
pub use envelope::Envelope;
pub use health::ServiceHealth;
pub use histogram::{Buckets, Exemplar, NativeHistogram};
pub use identity::{AccessRole, Identity, Principal, TenantId};
pub use incident::{Incident, IncidentState};
pub use labels::Labels;
pub use matcher::Matcher;
pub use plan::{Approval, DryRun, Outcome, Plan, ToolCall};
pub use severity::Severity;
pub use span::{Span, SpanKind};
pub use time::Timestamp;
