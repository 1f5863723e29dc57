//! Opens an incident, moves it and verifies the audit log: `cargo run -p wardroom-store --example an_incident`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, Principal, TenantId, Timestamp};
use wardroom_store::{Changes, Store, Transition};

fn entry(id: &str) -> AuditEntry {
    AuditEntry {
        at: Timestamp::from_millis(1),
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        agent: "resolver".into(),
        incident_id: Some(id.into()),
        action: "transition".into(),
        decision: serde_json::json!({}),
        approved_by: None,
    }
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    let number = store.open_incident(&tenant, "key", now, "{}", now, entry).await.unwrap();
    let (from, to) = (IncidentState::Open, IncidentState::Investigating);
    let step = Transition {
        tenant: &tenant,
        key: "key",
        from,
        to,
        before: "{}",
        workflow: "{}",
        note: "gathering evidence",
        at: now,
        changes: &Changes::default(),
    };
    let moved = store.transition(&step, &entry("INC-1")).await.unwrap();
    println!("opened {number:?}, moved {moved}, audit {:?}", store.verify_audit().await.unwrap());
}
