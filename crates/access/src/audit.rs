//! Entries of the audit log about who enters.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId, Timestamp};
use wardroom_process::clock;
use wardroom_store::Store;

/// Refused logins that are audited in a second; more are logged only, so that a flood does not fill the audit log.
const REFUSALS_PER_SECOND: u32 = 10;

/// Makes an entry of now.
pub(crate) fn entry(tenant: &TenantId, principal: &Principal, action: &str, decision: Value) -> AuditEntry {
    AuditEntry {
        at: clock::now(),
        tenant: tenant.clone(),
        principal: principal.clone(),
        agent: "operator".to_owned(),
        incident_id: None,
        action: action.to_owned(),
        decision,
        approved_by: None,
    }
}

/// Audits refused logins, at a limited rate.
#[derive(Debug, Default)]
pub(crate) struct RefusalAudit {
    /// The second, and the entries in it.
    current: Mutex<(i64, u32)>,
}

impl RefusalAudit {
    /// Writes an entry about a refused login.
    pub(crate) async fn note(&self, store: &Store, tenant: &TenantId, decision: Value) {
        if !self.admits(clock::now()) {
            tracing::warn!(%decision, "a login was refused");
            return;
        }
        let entry = entry(tenant, &Principal::anonymous(), "login_refused", decision);
        if let Err(error) = store.append_audit(&entry).await {
            tracing::error!(%error, "auditing a refused login failed");
        }
    }

    fn admits(&self, now: Timestamp) -> bool {
        let second = now.millis() / 1000;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != second {
            *current = (second, 0);
        }
        current.1 = current.1.saturating_add(1);
        current.1 <= REFUSALS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_limited() {
        let audit = RefusalAudit::default();
        let admitted = (0..1000).filter(|index| audit.admits(Timestamp::from_millis(index * 3))).count();
        assert_eq!(admitted, 30, "in three seconds");
    }
}
