//! Incidents, tokens and the audit log.

use std::time::Duration;

use wardroom_domain::incident::TRANSITIONS;
use wardroom_domain::{
    AccessRole, Anomaly, Entity, Identity, IncidentState, Labels, Principal, Severity, TenantId, Timestamp,
};
use wardroom_store::{IncidentSplit, NewToken, Store, Transition};

use crate::{NOTHING, entry, open, step};

pub(crate) async fn opens_an_incident_once_and_allows_only_transitions_of_the_table(store: Store) {
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
pub(crate) async fn rejects_a_write_based_on_an_outdated_workflow(store: Store) {
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap();
    let moved = Transition { workflow: "moved", ..step(&tenant, IncidentState::Open, IncidentState::Investigating) };
    assert!(store.transition(&moved, &entry("INC-1")).await.unwrap());
    assert!(!store.save_workflow(&tenant, "k", "{}", "joined", &NOTHING, &entry("INC-1")).await.unwrap());
    assert!(store.save_workflow(&tenant, "k", "moved", "moved, joined", &NOTHING, &entry("INC-1")).await.unwrap());
    let (from, to) = (IncidentState::Investigating, IncidentState::AwaitingApproval);
    let late = Transition { before: "moved", workflow: "late", ..step(&tenant, from, to) };
    assert!(!store.transition(&late, &entry("INC-1")).await.unwrap());
    let row = store.incident(&tenant, 1).await.unwrap().unwrap();
    assert_eq!((row.state, row.workflow.as_str()), (from, "moved, joined"));
    assert_eq!(store.verify_audit().await.unwrap().entries, 3, "a rejected write leaves no audit entry");
}

pub(crate) async fn keeps_the_first_revocation_time_of_a_token(store: Store) {
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

pub(crate) async fn notifies_subscribers_of_committed_incident_changes_only(store: Store) {
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
    assert!(store.save_workflow(&tenant, "k", "{}", "joined", &NOTHING, &entry("INC-1")).await.unwrap());
    assert!(changed());
    assert!(!store.save_workflow(&tenant, "k", "{}", "late", &NOTHING, &entry("INC-1")).await.unwrap());
    assert!(!store.transition(&investigated, &entry("INC-1")).await.unwrap());
    assert_eq!(store.open_incident(&tenant, "k", now, "{}", now, entry).await.unwrap(), None);
    store.append_audit(&entry("INC-1")).await.unwrap();
    store.live_incidents(now).await.unwrap();
    assert!(!changed(), "rejected writes, audit entries and reads");
}

pub(crate) async fn a_split_changes_both_incidents_or_none(store: Store) {
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    store.open_incident(&tenant, "k", now, "whole", now, entry).await.unwrap();
    let before = store.incident(&tenant, 1).await.unwrap().unwrap();
    let split = IncidentSplit {
        before: &before,
        workflow: "rest",
        transition: Some((IncidentState::Investigating, "n")),
        changes: &NOTHING,
        new_key: "part",
        new_number: store.next_incident_number(&tenant).await.unwrap(),
        new_opened_at: Timestamp::from_millis(5),
        new_workflow: "part",
        at: Timestamp::from_millis(7),
    };
    let entries = [entry("INC-1"), entry("INC-2")];
    let write = async |split: &IncidentSplit<'_>| store.split_incident(split, [&entries[0], &entries[1]]).await;
    let closed = IncidentSplit { transition: Some((IncidentState::Closed, "n")), ..split.clone() };
    assert!(write(&closed).await.is_err(), "no transition of the table");
    assert!(!write(&IncidentSplit { new_number: 3, ..split.clone() }).await.unwrap(), "the number was taken");
    assert_eq!((split.new_number, write(&split).await.unwrap()), (2, true));
    assert!(!write(&IncidentSplit { new_number: 3, ..split.clone() }).await.unwrap(), "it has changed since");
    let rows = store.incidents(&tenant, i64::MAX, 10).await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.number, row.state, row.workflow.as_str(), row.revision)).collect();
    let (part, rest) = ((2, IncidentState::Open, "part", 0), (1, IncidentState::Investigating, "rest", 1));
    assert_eq!(found, [part, rest]);
    assert_eq!((rows[0].opened_at, rows[0].updated_at), (Timestamp::from_millis(5), Timestamp::from_millis(7)));
    assert_eq!(store.history(&tenant, "part").await.unwrap()[0].note, "split from INC-1");
    assert_eq!(store.history(&tenant, "k").await.unwrap().len(), 2);
    assert_eq!(store.verify_audit().await.unwrap().entries, 3, "a refused split leaves no audit entry");
}

pub(crate) async fn finds_changed_incidents_without_reading_workflows(store: Store) {
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(10));
    for key in ["a", "b", "k"] {
        store.open_incident(&tenant, key, now, "{}", now, entry).await.unwrap();
    }
    let revisions = async || {
        let mut found = store.unsettled_revisions(Timestamp::from_millis(5)).await.unwrap();
        found.sort();
        found.into_iter().map(|found| (found.key, found.revision)).collect::<Vec<_>>()
    };
    let of = |revisions: &[(&str, i64)]| revisions.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(revisions().await, of(&[("a", 0), ("b", 0), ("k", 0)]));
    assert!(store.save_workflow(&tenant, "b", "{}", "more", &NOTHING, &entry("INC-2")).await.unwrap());
    assert_eq!(revisions().await, of(&[("a", 0), ("b", 1), ("k", 0)]));
    for (from, to, millis) in [
        (IncidentState::Open, IncidentState::Investigating, 11),
        (IncidentState::Investigating, IncidentState::Escalated, 12),
    ] {
        let step = Transition { at: Timestamp::from_millis(millis), ..step(&tenant, from, to) };
        assert!(store.transition(&step, &entry("INC-3")).await.unwrap());
    }
    assert_eq!(revisions().await, of(&[("a", 0), ("b", 1), ("k", 2)]), "escalated a moment ago");
    let later = store.unsettled_revisions(Timestamp::from_millis(13)).await.unwrap();
    assert_eq!(later.len(), 2, "escalated long ago");
    let changed = async |since_ms: i64| {
        let found = store.revisions_since(Timestamp::from_millis(since_ms)).await.unwrap();
        found.into_iter().map(|found| (found.key, found.state, found.updated_at.millis())).collect::<Vec<_>>()
    };
    assert_eq!(changed(12).await, [("k".to_owned(), IncidentState::Escalated, 12)], "in any state");
    assert_eq!(changed(13).await, []);
    assert_eq!(changed(0).await.len(), 3);
}

/// PostgreSQL refuses a zero character in a text; telemetry may bring one.
pub(crate) async fn stores_any_text_of_telemetry(store: Store) {
    let tenant = TenantId::main();
    let anomaly = |service: &str| Anomaly {
        id: format!("id-{service}"),
        series: Labels::of(&[("service", service)]),
        entity: Entity::service(service),
        service: service.into(),
        detector: "d".into(),
        score: 1.0,
        z: 2.0,
        severity: Severity::High,
        value: 1.0,
        expected: 0.5,
        at: Timestamp::from_millis(5),
    };
    let anomalies: Vec<Anomaly> = ["a\0b", "é 漢 🦀", "it's \"quoted\" $1 ?"].map(anomaly).into();
    store.add_anomalies(&tenant, &anomalies).await.unwrap();
    store.add_anomalies(&tenant, &anomalies).await.unwrap();
    let found = store.anomalies(&tenant, Timestamp::from_millis(0), None, None, 10).await.unwrap();
    assert_eq!(found.len(), 3);
    let found = store.anomalies(&tenant, Timestamp::from_millis(0), Some("é 漢 🦀"), None, 10).await.unwrap();
    assert_eq!(found, [anomalies[1].clone()]);
    store.delete_anomalies_before(Timestamp::from_millis(6)).await.unwrap();
    assert_eq!(store.anomalies(&tenant, Timestamp::from_millis(0), None, None, 10).await.unwrap(), []);
}

pub(crate) async fn concurrent_writers_number_incidents_and_entries_without_gaps(store: Store) {
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(1));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (store, tenant) = (store.clone(), tenant.clone());
        tasks.spawn(async move {
            for incident in 0..5 {
                let key = format!("{writer}-{incident}");
                store.open_incident(&tenant, &key, now, "{}", now, entry).await.unwrap().unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut numbers: Vec<i64> =
        store.incidents(&tenant, i64::MAX, 100).await.unwrap().iter().map(|row| row.number).collect();
    numbers.reverse();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    let audited = store.verify_audit().await.unwrap();
    assert_eq!((audited.entries, audited.ok), (20, true));
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
