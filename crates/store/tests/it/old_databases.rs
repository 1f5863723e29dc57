//! Databases of earlier versions: each that was ever released opens, with all that is in it.

use std::time::Duration;

use sqlx::Connection;
use wardroom_domain::{IncidentState, TenantId, Timestamp};
use wardroom_store::{NewEffect, Store, Worker};

use crate::{entry, step};

#[tokio::test]
async fn a_database_of_schema_3_opens_and_its_incident_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wardroom.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(include_str!("../samples/schema-3.sql")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let reader = Store::open_read_only(&path).await.unwrap();
    assert_eq!(reader.live_incidents(Timestamp::from_millis(0)).await.unwrap().len(), 1, "before the migration");
    reader.close().await;
    let store = Store::open(&path).await.unwrap();
    let tenant = TenantId::main();
    let row = store.incident(&tenant, 1).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.workflow.as_str(), row.revision),
        (IncidentState::AwaitingApproval, "{\"version\":2}", 0)
    );
    assert_eq!(store.data_folder_id().await.unwrap(), "0123456789abcdef0123456789abcdef");
    assert_eq!(store.tokens().await.unwrap().len(), 1);
    let mut approved = step(&tenant, IncidentState::AwaitingApproval, IncidentState::Mitigating);
    approved.before = "{\"version\":2}";
    assert!(store.transition(&approved, &entry("INC-1")).await.unwrap());
    assert_eq!(store.effects(&tenant, "k").await.unwrap(), []);
    assert_eq!(store.integrity_check().await.unwrap(), None);
}

/// Effects that are not done are performed by this build, and new kinds can be written.
#[tokio::test]
async fn a_database_of_schema_6_opens_and_its_effects_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wardroom.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(include_str!("../samples/schema-6.sql")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let store = Store::open(&path).await.unwrap();
    let (tenant, now) = (TenantId::main(), Timestamp::from_millis(5000));
    let known = store.effects(&tenant, "k").await.unwrap();
    assert_eq!((known.len(), known[0].fencing, known[0].state.as_str()), (1, 2, "ready"));
    let read = NewEffect {
        id: "main/read:k:2:idle".into(),
        kind: "read".into(),
        resource: String::new(),
        queue: "folder".into(),
        payload: "{}".into(),
        not_before: now,
        deadline: now,
    };
    store.enqueue_effects(&tenant, "k", &[read], now, None).await.unwrap();
    let worker = Worker { name: "folder:1", queue: "folder" };
    let leased = store.lease_effects(worker, 9, now, Duration::from_secs(30)).await.unwrap();
    let mut found: Vec<_> = leased.iter().map(|effect| (effect.kind.as_str(), effect.fencing)).collect();
    found.sort_unstable();
    assert_eq!(found, [("dry_run", 3), ("read", 1)]);
    assert_eq!(store.integrity_check().await.unwrap(), None);
}
