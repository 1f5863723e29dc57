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

mod access_backend;
mod anomalies;
mod approve_form;
mod asking;
mod audit_log;
mod autonomy;
mod autonomy_views;
mod backend;
mod backend_future;
mod dead_letters;
mod decision_routes;
mod entities;
mod health;
mod incident_lifecycle;
mod incident_list;
mod incident_notes;
mod incident_query;
mod incidents;
mod login;
mod metric_ranges;
pub mod metrics_recorder;
mod named_queries;
mod once;
mod openapi;
mod page;
mod paging;
mod passkeys;
mod plans;
mod problem_responses;
mod prometheus;
mod promql_selectors;
mod query_parameters;
mod raw_samples;
mod reference_page;
mod request;
mod request_thread;
mod requests_backend;
mod resource_views;
mod resources_backend;
mod safeguards;
mod series_views;
mod sessions;
mod source_health;
mod sql;
mod stream;
mod stream_places;
mod table_reads;
mod tokens;
mod users;
mod views;
mod warnings;

use wardroom_edge::Routes;

pub use access_backend::{
    AccessBackend, Asking, BegunLogin, LoginAnswer, LoginOptions, MayApprove, NewSession, PasskeyOptions, PasskeyView,
    PasswordLogin, PlanToApprove, UserRequest, UserView,
};
pub use autonomy_views::{AutonomyChange, AutonomyPairView};
pub use backend::{
    AnomaliesFn, ApprovalProof, Backend, Decision, DecisionRequest, Deployed, KillSwitch, MissingSamplesFn,
    SamplesPage, TablesBackend,
};
pub use backend_future::{Ask, BackendFuture};
pub use incident_query::{IncidentQuery, IncidentSort};
pub use openapi::{check_routes, document, document_mismatches};
pub use problem_responses::ProblemDocument;
pub use promql_selectors::extract_selectors;
pub use request::{NamedQuery, TableFormat};
pub use requests_backend::{Answer, KeyState, KeyedRequest, RequestsBackend};
pub use resource_views::{
    ApproverView, AuditEntryView, AuditPage, AuditVerification, BadSignalView, CreatedToken, EntityNodeView, EventView,
    OperationView, PlanPage, PlanRow, PolicyRules, RelationView, SignalView, TokenView, ToolView, TopologyView,
};
pub use resources_backend::{
    AuditQuery, ChangedIncidents, NewIncidentRequest, NewTokenRequest, PlanQuery, ResourcesBackend, SignalQuery,
    SplitRequest, StreamLimits, TopologyQuery,
};
pub use series_views::{BucketsView, ExemplarsView, HistogramView, SeriesView};
pub use views::{
    AnomalyView, ApprovalView, ChartView, CommentView, DeadLetterView, DecisionView, DeploymentView, EntityView,
    EvidenceView, HistoryView, HypothesisView, IncidentDetail, IncidentPage, IncidentSummary, PlanStepView, PlanView,
    PolicyView, SplitView, StopView, TableUsageView, TimelineView, VerdictView,
};

/// Returns every route of this crate.
pub fn routes(backend: &Backend) -> Routes {
    let routes = health::routes(backend, openapi::document_text, reference_page::reference_page)
        .merge(incident_list::routes(backend))
        .merge(incidents::routes(backend))
        .merge(incident_notes::routes(backend))
        .merge(incident_lifecycle::routes(backend))
        .merge(safeguards::routes(backend))
        .merge(autonomy::routes(backend))
        .merge(plans::routes(backend))
        .merge(anomalies::routes(backend))
        .merge(entities::routes(backend))
        .merge(raw_samples::routes(backend))
        .merge(metric_ranges::routes(backend))
        .merge(prometheus::routes(backend))
        .merge(sql::routes(backend))
        .merge(named_queries::routes(backend))
        .merge(table_reads::routes(backend))
        .merge(dead_letters::routes(backend))
        .merge(source_health::routes(backend))
        .merge(audit_log::routes(backend))
        .merge(tokens::routes(backend))
        .merge(login::routes(backend))
        .merge(sessions::routes(backend))
        .merge(users::routes(backend))
        .merge(passkeys::routes(backend))
        .merge(stream::routes(backend))
        .merge(page::routes(backend));
    warnings::report_warnings(once::handle_once(routes, &backend.requests), openapi::known_parameters)
}
