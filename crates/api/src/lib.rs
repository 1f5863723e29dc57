//! The HTTP API: incidents, anomalies, samples, queries, health, and the incident page.
//!
//! ```text
//! edge (guard) ─► one file per resource ─► Backend closures ─► roles
//! ```
//!
//! Each resource has one file with its routes and handlers. The data comes from a [`Backend`] of closures supplied by
//! the composition root, so this crate depends on neither store, bus nor head. Wire types (`views`) are separate from
//! domain types, converted by hand and pinned by snapshots. The page template escapes all text from telemetry.
//!
//! `openapi` builds the document that `/openapi.json` serves and compares it with the mounted routes.

#![forbid(unsafe_code)]

mod anomalies;
mod autonomy;
mod autonomy_views;
mod backend;
mod dead_letters;
mod health;
mod incidents;
pub mod metrics_recorder;
mod named_queries;
mod openapi;
mod page;
mod problem_responses;
mod prometheus;
mod promql_selectors;
mod query_parameters;
mod raw_samples;
mod request;
mod request_thread;
mod safeguards;
mod sql;
mod views;
mod warnings;

use wardroom_edge::Routes;

pub use autonomy_views::{AutonomyChange, AutonomyPairView};
pub use backend::{
    AnomaliesFn, ApprovalProof, Backend, BackendFuture, Decision, Deployed, KillSwitch, MissingSamplesFn, SamplesPage,
    TablesBackend,
};
pub use openapi::{document, document_mismatches};
pub use problem_responses::ProblemDocument;
pub use promql_selectors::extract_selectors;
pub use request::{NamedQuery, TableFormat};
pub use views::{
    AnomalyView, ApprovalView, BucketsView, ChartView, DeadLetterView, DecisionView, EntityView, EvidenceView,
    ExemplarsView, HistogramView, HypothesisView, IncidentDetail, IncidentPage, IncidentSummary, PlanView, PolicyView,
    SeriesView, StopView, TableUsageView, TimelineView, VerdictView,
};

/// Returns every route of this crate.
pub fn routes(backend: &Backend) -> Routes {
    let routes = health::routes(backend)
        .merge(incidents::routes(backend))
        .merge(safeguards::routes(backend))
        .merge(autonomy::routes(backend))
        .merge(anomalies::routes(backend))
        .merge(raw_samples::routes(backend))
        .merge(prometheus::routes(backend))
        .merge(sql::routes(backend))
        .merge(named_queries::routes(backend))
        .merge(dead_letters::routes(backend))
        .merge(page::routes(backend));
    warnings::report_warnings(routes)
}
