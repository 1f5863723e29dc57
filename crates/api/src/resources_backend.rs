//! The closures behind the resources that are read as a whole: entities, signals, plans, the audit log, tokens and what
//! the server is made of.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;
use wardroom_domain::{AccessRole, Identity, Principal, Severity, TenantId, Timestamp};

use crate::backend_future::Ask;
use crate::resource_views::{
    ApproverView, AuditEntryView, AuditPage, AuditVerification, CreatedToken, EntityNodeView, EventView, PlanPage,
    PolicyRules, SignalView, TokenView, ToolView, TopologyView,
};
use crate::views::{HistoryView, IncidentSummary, SplitView};

/// The part of the graph of entities around some of them.
#[derive(Clone, Debug)]
pub struct TopologyQuery {
    /// Id or name of an entity; the whole graph if `None`.
    pub entity: Option<String>,
    /// Maximum number of relations to an entity of the answer.
    pub hops: u32,
    /// Maximum number of entities.
    pub limit: usize,
}

/// Which signals are asked for; what is `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct SignalQuery {
    /// Name of the entity.
    pub entity: Option<String>,
    /// Kind, such as `errors`.
    pub kind: Option<String>,
    /// Only those that are bad now.
    pub bad: bool,
}

/// Which plans are asked for.
#[derive(Clone, Debug)]
pub struct PlanQuery {
    /// Only plans that wait for an approval.
    pub pending: bool,
    /// `next` of the previous page.
    pub cursor: Option<i64>,
    /// Maximum number of plans.
    pub limit: u32,
}

/// Which entries of the audit log are asked for, newest first; what is `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The action.
    pub action: Option<String>,
    /// Who acted.
    pub principal: Option<String>,
    /// Id of the incident.
    pub incident: Option<String>,
    /// `next` of the previous page.
    pub cursor: Option<i64>,
    /// Maximum number of entries.
    pub limit: u32,
}

/// An incident that a person opens.
#[derive(Clone, Debug)]
pub struct NewIncidentRequest {
    /// One line.
    pub title: String,
    /// Names or ids of the affected entities; at least one.
    pub entities: Vec<String>,
    /// Severity.
    pub severity: Severity,
    /// The first comment; may be empty.
    pub description: String,
    /// When it began; the newest time of the telemetry if `None`.
    pub began_at: Option<Timestamp>,
}

/// What a person splits off an incident.
#[derive(Clone, Debug)]
pub struct SplitRequest {
    /// Number of the incident.
    pub number: i64,
    /// The revision that the incident must have; any if `None`.
    pub if_match: Option<i64>,
    /// Names or ids of its entities.
    pub entities: Vec<String>,
    /// Ids of its evidence, whose entities are split off, too.
    pub evidence: Vec<String>,
    /// Title of the new incident; made from its entities if `None`.
    pub title: Option<String>,
    /// Free text for the timeline and the audit log; may be empty.
    pub reason: String,
}

/// Maximum numbers of open streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of all callers.
    pub total: usize,
    /// Of one tenant.
    pub per_tenant: usize,
    /// Of one principal.
    pub per_principal: usize,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewTokenRequest {
    /// The principal that it authenticates.
    pub principal: Principal,
    /// Its role.
    pub role: AccessRole,
    /// Its tenant; the caller's if `None`.
    pub tenant: Option<TenantId>,
    /// Lifetime in seconds; unlimited if `None`.
    pub lifetime_s: Option<u64>,
}

/// Incidents that changed, each with its tenant, and the position for the next question.
pub type ChangedIncidents = (i64, Vec<(TenantId, IncidentSummary)>);

/// The closures behind the further resources.
#[derive(Clone)]
pub struct ResourcesBackend {
    /// Returns the history of an incident, oldest first.
    pub history: Ask<(TenantId, i64), Vec<HistoryView>>,
    /// Opens an incident by hand.
    pub create_incident: Ask<(Identity, NewIncidentRequest), IncidentSummary>,
    /// Splits an incident.
    pub split_incident: Ask<(Identity, SplitRequest), SplitView>,
    /// Returns the events from a time until before another, oldest first.
    pub events: Ask<(TenantId, Timestamp, Timestamp), Vec<EventView>>,
    /// Returns the entities that are known.
    pub entities: Ask<TenantId, Vec<EntityNodeView>>,
    /// Returns entities and their relations.
    pub topology: Ask<(TenantId, TopologyQuery), TopologyView>,
    /// Returns signals with their newest value.
    pub signals: Ask<(TenantId, SignalQuery), Vec<SignalView>>,
    /// Returns a page of plans, newest first.
    pub plans: Ask<(TenantId, PlanQuery), PlanPage>,
    /// Returns the rules of the policy.
    pub policy: Ask<(), PolicyRules>,
    /// Returns the targets of tools that the executor has for a tenant, without secrets.
    pub targets: Ask<TenantId, Vec<Value>>,
    /// Describes every tool of this build.
    pub tools: Ask<(), Vec<ToolView>>,
    /// Returns the approvers of a tenant.
    pub approvers: Ask<TenantId, Vec<ApproverView>>,
    /// Returns a page of the audit log.
    pub audit: Ask<(TenantId, AuditQuery), AuditPage>,
    /// Returns one entry of the audit log.
    pub audit_entry: Ask<(TenantId, i64), Option<AuditEntryView>>,
    /// Returns entries of the audit log from a sequence number on, oldest first, and the number to go on at.
    pub export_audit: Ask<(TenantId, i64), (Vec<AuditEntryView>, Option<i64>)>,
    /// Verifies the chain of the audit log.
    pub verify_audit: Ask<(), AuditVerification>,
    /// Lists tokens without their secrets.
    pub tokens: Ask<Identity, Vec<TokenView>>,
    /// Creates a token.
    pub create_token: Ask<(Identity, NewTokenRequest), CreatedToken>,
    /// Revokes a token.
    pub revoke_token: Ask<(Identity, String), ()>,
    /// Lists the tenants that the caller may know of.
    pub tenants: Ask<Identity, Vec<String>>,
    /// Returns the configuration in force, without secrets.
    pub configuration: Ask<Identity, Value>,
    /// Returns the incidents of all tenants that changed after a position; only the position without one.
    pub changed_incidents: Ask<Option<i64>, ChangedIncidents>,
    /// Returns the tenants with telemetry, each with the newest time of it in ms.
    pub live_tenants: Ask<(), Vec<(TenantId, i64)>>,
    /// Maximum numbers of open streams.
    pub stream_limits: StreamLimits,
    /// Changes when an incident was written by this process.
    pub incident_changes: watch::Receiver<u64>,
    /// Returns whether the credential of a request is still valid.
    pub is_valid: Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>,
    /// True when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for ResourcesBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourcesBackend").finish_non_exhaustive()
    }
}
