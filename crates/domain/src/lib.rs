//! Domain types shared by all crates.
//!
//! Wardroom ingests telemetry, detects anomalies, correlates them to incidents, diagnoses the cause, proposes a plan,
//! executes it after approval and verifies the effect. Each step passes values of this crate to the next:
//!
//! ```text
//! Batch ──► Anomaly ──► Incident ──► Diagnosis ──► Plan ──► Approval ──► Outcome
//!   (sources)  (detect)   (correlate)  (diagnose)   (respond)  (a person)   (executor)
//!                                └───────────── every step ─────────────► AuditEntry
//! ```
//!
//! Nothing here does I/O, reads a clock or depends on tokio; time is passed as an argument. Persisted and transmitted
//! values carry a format version, and all data carries its tenant.

#![forbid(unsafe_code)]

pub mod anomaly;
pub mod approval_proof;
pub mod audit;
pub mod audit_head;
pub mod batch;
pub mod canonical;
pub mod config_check;
pub mod diagnosis;
pub mod entity;
pub mod entity_names;
pub mod entity_rules;
pub mod envelope;
pub mod error;
pub mod event;
pub mod executor;
pub mod finding;
pub mod health;
pub mod histogram;
pub mod identity;
pub mod incident;
pub mod labels;
pub mod matcher;
pub mod mutant;
pub mod plan;
pub mod plan_steps;
pub mod policy;
pub mod query;
mod re2;
pub mod runbook_check;
pub mod sample;
pub mod severity;
pub mod signal;
pub mod span;
pub mod time;
pub mod trace_id;
pub mod visible;

pub use anomaly::Anomaly;
pub use batch::{
    Batch, Deployment, LogEntry, MetricMetadata, Metrics, Refusal, RefusalReason, RequestFingerprint, SeriesId,
    SeriesRun,
};
pub use diagnosis::{Cause, Diagnosis, Evidence, UNKNOWN_RULE};
pub use entity::{Entity, EntityKind, Relation, RelationKind};
pub use entity_rules::{EntityRules, LabelLookup};
pub use envelope::Envelope;
pub use event::{Event, EventKind};
pub use finding::Finding;
pub use health::ServiceHealth;
pub use histogram::{Buckets, Exemplar, NativeHistogram};
pub use identity::{AccessRole, Identity, Principal, TenantId};
pub use incident::{Acknowledgement, Comment, Incident, IncidentChange, IncidentState};
pub use labels::Labels;
pub use matcher::Matcher;
pub use plan::{Approval, DryRun, Outcome, Plan, PlanStep, ToolCall};
pub use plan_steps::{MAX_PLAN_STEPS, unfit_steps};
pub use policy::{PolicyAnswer, PolicyDecision};
pub use runbook_check::{ActionChoice, CheckResult, Comparison, Condition, ReadCheck};
pub use sample::Sample;
pub use severity::Severity;
pub use signal::{SignalId, SignalKind};
pub use span::{Span, SpanKind};
pub use time::Timestamp;
pub use visible::{visible_csv, visible_json, visible_line, visible_text};
