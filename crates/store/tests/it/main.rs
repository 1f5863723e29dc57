//! Tests of the store on a database file.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use std::time::Duration;

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
async fn opens_an_incident_once_and_allows_only_transitions_of_the_table() {
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
    assert!(!store.transition(&opened, &entry("INC-1")).await.unwrap(), "the second of two equal transitions fails");
    assert_eq!(store.history(&tenant, "k").await.unwrap().len(), 2);
    assert_eq!(store.verify_audit().await.unwrap().entries, 2);
    assert_eq!(store.incident(&tenant, 1).await.unwrap().unwrap().state, IncidentState::Investigating);
    let other = TenantId::new("other").unwrap();
    assert!(store.incident(&other, 1).await.unwrap().is_none());
    assert_eq!(store.incident_by_key(&tenant, "k").await.unwrap().map(|row| row.number), Some(1));
    assert!(store.incident_by_key(&other, "k").await.unwrap().is_none());
}

/// Regression: the approval of a plan was lost when a service joined the incident at the same moment.
#[tokio::test]
async fn rejects_a_write_based_on_an_outdated_workflow() {
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
    assert_eq!(store.verify_audit().await.unwrap().entries, 3, "a rejected write leaves no audit entry");
}

#[tokio::test]
async fn reports_the_first_altered_audit_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for _ in 0..5 {
        store.append_audit(&entry("INC-1")).await.unwrap();
    }
    assert!(store.verify_audit().await.unwrap().ok);
    let file = dir.path().join("state/wardroom.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query("UPDATE audit SET body = replace(body, 'INC-1', 'INC-2') WHERE sequence = 3")
        .execute(&pool)
        .await
        .unwrap();
    let found = store.verify_audit().await.unwrap();
    assert_eq!((found.ok, found.first_broken), (false, Some(3)));
}

#[tokio::test]
async fn keeps_the_first_revocation_time_of_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let identity =
        Identity { tenant: TenantId::main(), principal: Principal::new("alice").unwrap(), role: AccessRole::Responder };
    let token = NewToken { id: "t1".into(), sha256: "ab".into(), identity, expires_at: None };
    store.create_token(&token, Timestamp::from_millis(1), &entry("create")).await.unwrap();
    store.revoke_token("t1", Timestamp::from_millis(5), &entry("revoke")).await.unwrap();
    store.revoke_token("t1", Timestamp::from_millis(9), &entry("revoke")).await.unwrap();
    assert_eq!(store.tokens().await.unwrap()[0].revoked_at, Some(Timestamp::from_millis(5)));
    assert!(store.revoke_token("t2", Timestamp::from_millis(9), &entry("revoke")).await.is_err());
    let audited = store.verify_audit().await.unwrap();
    assert_eq!((audited.entries, audited.ok), (2, true), "one entry each for what changed something");
    let latest = store.latest_audit_entry(&entry("x").action).await.unwrap().unwrap();
    assert_eq!(latest, entry("revoke"));
    assert_eq!(store.latest_audit_entry("other").await.unwrap(), None);
}

#[tokio::test]
async fn notifies_subscribers_of_committed_incident_changes_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let mut changes = store.subscribe_incidents();
    let mut changed = || {
        let changed = changes.has_changed().unwrap();
        changes.mark_unchanged();
        changed
    };
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    assert!(changed(), "the first check");
    assert!(!changed());
    // Through a clone: the API and the responder hold their own.
    store.clone().open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap();
    assert!(changed());
    let investigated = step(&tenant, IncidentState::Open, IncidentState::Investigating);
    assert!(store.transition(&investigated, &entry("INC-1")).await.unwrap());
    assert!(changed());
    assert!(store.save_workflow(&tenant, "k", "{}", "joined", &entry("INC-1")).await.unwrap());
    assert!(changed());
    assert!(!store.save_workflow(&tenant, "k", "{}", "late", &entry("INC-1")).await.unwrap());
    assert!(!store.transition(&investigated, &entry("INC-1")).await.unwrap());
    assert_eq!(store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap(), None);
    store.append_audit(&entry("INC-1")).await.unwrap();
    store.live_incidents(now).await.unwrap();
    assert!(!changed(), "rejected writes, audit entries and reads");
}

/// A client that disconnects cancels its request; the incident may have been written nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifies_subscribers_when_the_writer_is_cancelled_during_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    let mut changes = store.subscribe_incidents();
    for index in 0..60_u32 {
        changes.mark_unchanged();
        let key = index.to_string();
        let opening = store.open_incident(&tenant, &key, now, "{}", now, entry);
        drop(tokio::time::timeout(Duration::from_micros(u64::from(index) * 100), opening).await);
        // A write waits for the cancelled transaction to end.
        store.append_audit(&entry("INC-0")).await.unwrap();
        if store.live_incidents(now).await.unwrap().iter().any(|row| row.key == key) {
            let seen = tokio::time::timeout(Duration::from_secs(10), changes.changed()).await;
            assert!(seen.is_ok(), "incident {index} was opened without a notification");
        }
    }
}
