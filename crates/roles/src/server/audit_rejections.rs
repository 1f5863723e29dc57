//! Writes rejected requests to the audit log.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId};
use wardroom_edge::RejectedRequest;
use wardroom_store::Store;

use crate::clock;
use wardroom_response::audit_entry;

/// Pause after each entry: at most 20 entries a second, so that a flood of requests does not fill the audit log.
const ENTRY_INTERVAL: Duration = Duration::from_millis(50);

/// Writes an audit entry for each rejected request until the channel is closed.
pub(super) async fn audit_rejections(store: Store, mut rejections: mpsc::Receiver<RejectedRequest>) {
    while let Some(rejected) = rejections.recv().await {
        let identity = rejected.identity;
        let tenant = identity.as_ref().map_or_else(TenantId::main, |identity| identity.tenant.clone());
        let decision = json!({ "path": rejected.path, "code": rejected.code });
        let mut audit: AuditEntry = audit_entry(&tenant, "edge", None, "request_refused", decision, clock::now());
        audit.principal = identity.map_or_else(Principal::anonymous, |identity| identity.principal);
        if let Err(error) = store.append_audit(&audit).await {
            tracing::error!(%error, "auditing a rejected request failed");
        }
        tokio::time::sleep(ENTRY_INTERVAL).await;
    }
}
