//! Audit entries that Wardroom writes.

use serde_json::Value;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, Principal, TenantId, Timestamp};

/// Action of the entry with the reason of an approval, written before the executor is asked for it.
pub(crate) const APPROVE_REQUESTED: &str = "approve_requested";

/// Builds an audit entry with Wardroom itself as the principal.
pub fn audit_entry(
    tenant: &TenantId,
    agent: &str,
    incident_id: Option<&str>,
    action: &str,
    decision: Value,
    at: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at,
        tenant: tenant.clone(),
        principal: Principal::wardroom(),
        agent: agent.to_owned(),
        incident_id: incident_id.map(str::to_owned),
        action: action.to_owned(),
        decision,
        approved_by: None,
    }
}

/// Returns the agent name that the audit contract assigns to transitions into a state.
pub(crate) const fn agent_of(state: IncidentState) -> &'static str {
    use IncidentState as S;
    match state {
        S::Open => "sentinel",
        S::Investigating | S::AwaitingApproval => "analyst",
        _ => "resolver",
    }
}
