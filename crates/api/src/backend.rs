//! The closures that the handlers call; the composition root supplies them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde_json::Value;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Deployment, Entity, Identity, Labels, MetricMetadata, Principal, TenantId, Timestamp};
use wardroom_edge::Problem;

use crate::access_backend::AccessBackend;
use crate::autonomy_views::{AutonomyChange, AutonomyPairView};
use crate::backend_future::BackendFuture;
use crate::incident_query::IncidentQuery;
use crate::request::{NamedQuery, TableFormat, if_match, parse_incident_id};
use crate::requests_backend::RequestsBackend;
use crate::resources_backend::ResourcesBackend;
use crate::series_views::{ExemplarsView, SeriesView};
use crate::views::{AnomalyView, DeadLetterView, DecisionView, IncidentDetail, IncidentPage, StopView, TableUsageView};

/// Deployments, each with what was deployed.
pub type Deployed = Vec<(Entity, Deployment)>;

/// A person's decision on an incident.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Approves a plan.
    Approve {
        /// Hash of the approved plan.
        plan_sha256: String,
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
        /// The approver's proof, verified by the executor.
        proof: ApprovalProof,
        /// `http`, `cli` or `page`.
        channel: String,
    },
    /// Rejects a plan.
    Reject {
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
    },
    /// Records whether the incident was real.
    Verdict {
        /// `real`, `noise` or `wrong_cause`.
        verdict: String,
        /// The actual cause, if known.
        cause: Option<String>,
    },
    /// Closes an escalated incident.
    Close {
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
    },
    /// Notes that the caller has seen the incident.
    Acknowledge,
    /// Notes who works on it.
    Assign {
        /// The principal; `None` for no person.
        owner: Option<Principal>,
    },
    /// Adds a comment.
    Comment {
        /// The text; not empty.
        text: String,
    },
    /// Notes that it is part of another incident, and closes it if it is escalated.
    Merge {
        /// Number of the incident that goes on.
        into: i64,
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
    },
    /// Investigates an incident again that has ended.
    Reopen {
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
    },
    /// Suppresses messages about it.
    Suppress {
        /// For how long from now, in minutes; 0 ends it.
        minutes: u32,
        /// Free text for the timeline and the audit log; may be empty.
        reason: String,
    },
}

/// A decision on an incident.
#[derive(Clone, Debug)]
pub struct DecisionRequest {
    /// Number of the incident.
    pub number: i64,
    /// The revision that the incident must have; any if `None`.
    pub if_match: Option<i64>,
    /// What is decided.
    pub decision: Decision,
}

impl DecisionRequest {
    /// Creates the request from the id in the path and the header `If-Match`.
    pub(crate) fn new(id: &str, headers: &HeaderMap, decision: Decision) -> Result<Self, Problem> {
        Ok(Self { number: parse_incident_id(id)?, if_match: if_match(headers)?, decision })
    }
}

/// A decision about all actions.
#[derive(Clone, Debug)]
pub enum KillSwitch {
    /// Returns whether they are stopped.
    Read,
    /// Stops them.
    Stop {
        /// Free text; may be empty.
        reason: String,
    },
    /// Ends the stop in force.
    Resume {
        /// The approver's proof, verified by the executor.
        proof: ApprovalProof,
    },
}

/// What proves a decision to the executor: a signed proof as JSON, or a bearer token. `Debug` does not print it.
#[derive(Clone)]
pub struct ApprovalProof(pub String);

impl std::fmt::Debug for ApprovalProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The closures behind all routes.
#[derive(Clone)]
pub struct Backend {
    /// Returns a page of incidents.
    pub incidents: Arc<dyn Fn(TenantId, IncidentQuery) -> BackendFuture<IncidentPage> + Send + Sync>,
    /// Returns one incident.
    pub incident: Arc<dyn Fn(TenantId, i64) -> BackendFuture<IncidentDetail> + Send + Sync>,
    /// Stops all actions, ends that, or says whether they are stopped.
    pub kill_switch: Arc<dyn Fn(Identity, KillSwitch) -> BackendFuture<StopView> + Send + Sync>,
    /// Records the review of an execution by break-glass: caller, number of the incident, proof.
    pub review: Arc<dyn Fn(Identity, i64, ApprovalProof) -> BackendFuture<()> + Send + Sync>,
    /// Applies a decision to an incident.
    pub decide: Arc<dyn Fn(Identity, DecisionRequest) -> BackendFuture<DecisionView> + Send + Sync>,
    /// Lists what actions have earned, by cause.
    pub autonomy: Arc<dyn Fn(TenantId) -> BackendFuture<Vec<AutonomyPairView>> + Send + Sync>,
    /// Accepts an offer of autonomy, or takes autonomy back.
    pub set_autonomy: Arc<dyn Fn(Identity, AutonomyChange) -> BackendFuture<AutonomyPairView> + Send + Sync>,
    /// Returns the postmortem in Markdown.
    pub postmortem: Arc<dyn Fn(TenantId, i64) -> BackendFuture<String> + Send + Sync>,
    /// Lists anomalies, oldest first: tenant, since, service, after (time, id), limit.
    pub anomalies: Arc<AnomaliesFn>,
    /// Lists deployments since a time with what was deployed, oldest first.
    pub deployments: Arc<dyn Fn(TenantId, Timestamp) -> Deployed + Send + Sync>,
    /// Reads raw samples of the whole retention: tenant, query, first bus offset. Returns the offset of the next page.
    pub samples: Arc<dyn Fn(TenantId, SeriesQuery, u64) -> BackendFuture<SamplesPage> + Send + Sync>,
    /// Returns the live series that a query selects and that have samples in its time range.
    pub series: Arc<dyn Fn(TenantId, SeriesQuery) -> BackendFuture<Vec<Labels>> + Send + Sync>,
    /// Returns the exemplars of the series that a query selects.
    pub exemplars: Arc<dyn Fn(TenantId, SeriesQuery) -> BackendFuture<Vec<ExemplarsView>> + Send + Sync>,
    /// Returns the metric metadata that senders reported, by family.
    pub metadata: Arc<dyn Fn(TenantId) -> BTreeMap<String, MetricMetadata> + Send + Sync>,
    /// Queries over the tables.
    pub tables: TablesBackend,
    /// Further resources.
    pub resources: ResourcesBackend,
    /// Remembers the requests with an `Idempotency-Key`.
    pub requests: RequestsBackend,
    /// Logins, users and passkeys.
    pub access: Arc<dyn AccessBackend>,
    /// Whether people reach this server by TLS, as the configuration says.
    pub is_https: bool,
    /// Lists the dead letters of detection, oldest first.
    pub dead_letters: Arc<dyn Fn(TenantId) -> BackendFuture<Vec<DeadLetterView>> + Send + Sync>,
    /// Appends a dead letter to the bus again, at most once. Returns its new offset, or `None` for an unknown id.
    pub replay_dead_letter: Arc<dyn Fn(Identity, u64) -> BackendFuture<Option<u64>> + Send + Sync>,
    /// Validates the quarantined records of the request at an offset again. Returns the offset of the records that are
    /// accepted now, or `None` if the request has no quarantined records.
    pub redrive: Arc<dyn Fn(Identity, u64) -> BackendFuture<Option<u64>> + Send + Sync>,
    /// Returns whether the server is ready, and the readiness document.
    pub readiness: Arc<dyn Fn() -> (bool, Value) + Send + Sync>,
    /// Renders the metrics in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether callers are authenticated. If not, the incident page has a field for the approver's token.
    pub authenticated: bool,
    /// Names under which users reach this server through a proxy; see the configuration of the listeners.
    pub allowed_hosts: Arc<[String]>,
    /// Key of the form tokens of the incident page (CSRF protection); random at each start.
    pub form_secret: Arc<str>,
}

/// The closures that query the tables.
#[derive(Clone)]
pub struct TablesBackend {
    /// Runs a SQL query over the rows of a tenant.
    pub sql: Arc<dyn Fn(TenantId, String, TableFormat) -> BackendFuture<Bytes> + Send + Sync>,
    /// Returns the warning for a query, by its text, whose tables lack samples that are not flushed yet.
    pub missing_samples: Arc<MissingSamplesFn>,
    /// Returns a tenant's usage of each table.
    pub usage: Arc<dyn Fn(TenantId) -> BackendFuture<Vec<TableUsageView>> + Send + Sync>,
    /// The named queries, as (name, SQL).
    pub named_queries: Arc<[(&'static str, &'static str)]>,
    /// Runs a named query.
    pub run_named_query: Arc<dyn Fn(TenantId, NamedQuery, TableFormat) -> BackendFuture<Bytes> + Send + Sync>,
    /// Returns the log lines that match the query's filter, newest first.
    pub search_logs: Arc<dyn Fn(TenantId, NamedQuery, TableFormat) -> BackendFuture<Bytes> + Send + Sync>,
}

/// One page of series, and the offset of the next page.
pub type SamplesPage = (Vec<SeriesView>, Option<u64>);

/// See [`TablesBackend::missing_samples`].
pub type MissingSamplesFn = dyn Fn(&TenantId, &str) -> Option<String> + Send + Sync;

/// See [`Backend::anomalies`].
pub type AnomaliesFn = dyn Fn(TenantId, Timestamp, Option<String>, Option<(Timestamp, String)>, u32) -> BackendFuture<Vec<AnomalyView>>
    + Send
    + Sync;

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}
