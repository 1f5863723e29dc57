//! Databases of earlier versions: each that was ever released opens, with all that is in it.

use sqlx::Connection;
use wardroom_domain::{IncidentState, TenantId, Timestamp};
use wardroom_store::Store;

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
