//! The store on a real file.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::incident::TRANSITIONS;
use wardroom_domain::{AccessRole, Identity, IncidentState, Principal, TenantId, Timestamp};
use wardroom_store::{NewToken, Store, Transition};

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

async fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("state/wardroom.db")).await.unwrap()
}

fn step<'a>(tenant: &'a TenantId, from: IncidentState, to: IncidentState) -> Transition<'a> {
    Transition { tenant, key: "k", from, to, before: "{}", workflow: "{}", note: "n", at: Timestamp::from_millis(2) }
}

#[tokio::test]
async fn an_incident_opens_once_and_moves_only_along_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let tenant = TenantId::main();
    let now = Timestamp::from_millis(1);
    assert_eq!(store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap(), Some(1));
    assert_eq!(store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap(), None);
    for from in IncidentState::ALL {
        for to in IncidentState::ALL {
            if !TRANSITIONS.contains(&(from, to)) {
                assert!(store.transition(&step(&tenant, from, to), &entry("INC-1")).await.is_err());
            }
        }
    }
    let opened = step(&tenant, IncidentState::Open, IncidentState::Investigating);
    assert!(store.transition(&opened, &entry("INC-1")).await.unwrap());
    assert!(!store.transition(&opened, &entry("INC-1")).await.unwrap(), "a second mover must lose");
    assert_eq!(store.history(&tenant, "k").await.unwrap().len(), 2);
    assert_eq!(store.audit_entries("INC-1").await.unwrap().len(), 2);
    assert_eq!(store.incident(&tenant, 1).await.unwrap().unwrap().state, IncidentState::Investigating);
    let other = TenantId::new("other").unwrap();
    assert!(store.incident(&other, 1).await.unwrap().is_none());
}

/// The approval of a plan was lost when a service joined the incident at the same moment.
#[tokio::test]
async fn nobody_writes_over_a_workflow_that_he_has_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap();
    let moved = Transition { workflow: "moved", ..step(&tenant, IncidentState::Open, IncidentState::Investigating) };
    assert!(store.transition(&moved, &entry("INC-1")).await.unwrap());
    assert!(!store.save_workflow(&tenant, "k", "{}", "joined", &entry("INC-1")).await.unwrap());
    assert!(store.save_workflow(&tenant, "k", "moved", "moved, joined", &entry("INC-1")).await.unwrap());
    let (from, to) = (IncidentState::Investigating, IncidentState::AwaitingApproval);
    let late = Transition { before: "moved", workflow: "late", ..step(&tenant, from, to) };
    assert!(!store.transition(&late, &entry("INC-1")).await.unwrap());
    let row = store.incident(&tenant, 1).await.unwrap().unwrap();
    assert_eq!((row.state, row.workflow.as_str()), (from, "moved, joined"));
    assert_eq!(store.audit_entries("INC-1").await.unwrap().len(), 3, "what was not written is not in the book");
}

#[tokio::test]
async fn an_altered_audit_row_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for _ in 0..5 {
        store.audit(&entry("INC-1")).await.unwrap();
    }
    assert!(store.verify_audit().await.unwrap().ok);
    let file = dir.path().join("state/wardroom.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query("UPDATE audit SET body = replace(body, 'INC-1', 'INC-2') WHERE sequence = 3")
        .execute(&pool)
        .await
        .unwrap();
    let verdict = store.verify_audit().await.unwrap();
    assert_eq!((verdict.ok, verdict.first_broken), (false, Some(3)));
}

#[tokio::test]
async fn tokens_are_stored_by_hash_and_revoked_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let identity =
        Identity { tenant: TenantId::main(), principal: Principal::new("alice").unwrap(), role: AccessRole::Responder };
    let token = NewToken { id: "t1".into(), sha256: "ab".into(), identity, expires_at: None };
    store.create_token(&token, Timestamp::from_millis(1)).await.unwrap();
    store.revoke_token("t1", Timestamp::from_millis(5)).await.unwrap();
    store.revoke_token("t1", Timestamp::from_millis(9)).await.unwrap();
    assert_eq!(store.tokens().await.unwrap()[0].revoked_at, Some(Timestamp::from_millis(5)));
    assert!(store.revoke_token("t2", Timestamp::from_millis(9)).await.is_err());
}
