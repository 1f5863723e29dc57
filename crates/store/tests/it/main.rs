//! Tests of the store: one suite over both databases, and what differs between them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

mod competing_workers;
mod effects;
mod effects_model;
mod identity;
mod incidents;
mod old_databases;

use std::future::Future;
use std::pin::Pin;

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, Principal, TenantId, Timestamp};
use wardroom_store::{Changes, Store, Transition};
use wardroom_testing::PostgresServer;

/// A test of the suite: it is given an empty store.
type SuiteTest = (&'static str, fn(Store) -> Pin<Box<dyn Future<Output = ()>>>);

/// What a change of an incident writes beside it in most tests.
pub(crate) static NOTHING: Changes =
    Changes { enqueue: Vec::new(), cancel: Vec::new(), finish: None, finished_incident: None, reopened: 0 };

/// Lists the tests of the suite; each runs on both databases.
macro_rules! suite {
    ($($module:ident::$test:ident),+ $(,)?) => {
        const SUITE: &[SuiteTest] =
            &[$((stringify!($test), |store: Store| Box::pin($module::$test(store)))),+];
    };
}

suite! {
    incidents::opens_an_incident_once_and_allows_only_transitions_of_the_table,
    incidents::rejects_a_write_based_on_an_outdated_workflow,
    incidents::keeps_the_first_revocation_time_of_a_token,
    incidents::notifies_subscribers_of_committed_incident_changes_only,
    incidents::finds_changed_incidents_without_reading_workflows,
    incidents::a_split_changes_both_incidents_or_none,
    incidents::stores_any_text_of_telemetry,
    incidents::concurrent_writers_number_incidents_and_entries_without_gaps,
    effects::an_effect_is_written_with_its_transition_or_not_at_all,
    effects::an_effect_is_leased_by_one_worker_and_again_when_the_lease_is_over,
    effects::an_older_fencing_token_changes_nothing,
    effects::a_change_that_finishes_an_effect_of_another_worker_is_refused,
    effects::effects_of_one_resource_are_leased_one_at_a_time,
    effects::a_cancelled_effect_cannot_be_finished,
    effects::leases_of_a_process_that_has_ended_are_given_back,
    effects::an_effect_of_a_queue_is_taken_by_its_workers_only,
    effects::a_finished_incident_is_kept_once,
    effects_model::the_model_holds,
    identity::users_are_created_once_and_changed,
    identity::a_session_has_what_its_user_and_token_are_now,
    identity::sessions_are_rotated_used_and_ended,
    identity::a_passkey_counts_on_once_for_each_use,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_on_sqlite() {
    for (name, test) in SUITE {
        let dir = tempfile::tempdir().unwrap();
        println!("{name}");
        test(open(&dir).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_on_postgres() {
    let dir = tempfile::tempdir().unwrap();
    let server = PostgresServer::start(dir.path()).unwrap();
    for (name, test) in SUITE {
        println!("{name}");
        test(open_postgres(&server, name).await).await;
    }
    let store = open_postgres(&server, SUITE[0].0).await;
    assert!(store.copy_to(&dir.path().join("copy")).await.unwrap_err().to_string().contains("pg_dump"));
    assert!(store.verify_audit().await.unwrap().ok, "it is still there");
    store.probe().await;
    assert_eq!(store.error(), None);
    let error = Store::connect_postgres(&server.url("postgres"), Some("wrong")).await.unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains("wrong"), "{error}");
}

/// An entry of the audit log.
pub(crate) fn entry(id: &str) -> AuditEntry {
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

pub(crate) async fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("state/wardroom.db")).await.unwrap()
}

/// Opens a database of its own, which is created if it does not exist.
pub(crate) async fn open_postgres(server: &PostgresServer, test: &str) -> Store {
    // PostgreSQL cuts longer names.
    let name: String = test.chars().take(60).collect();
    // It exists when a store is opened again.
    drop(server.create_database(&name));
    let store = Store::connect_postgres(&server.url(&name), Some(&server.password)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub(crate) fn step<'a>(tenant: &'a TenantId, from: IncidentState, to: IncidentState) -> Transition<'a> {
    Transition {
        tenant,
        key: "k",
        from,
        to,
        before: "{}",
        workflow: "{}",
        note: "n",
        at: Timestamp::from_millis(2),
        changes: &NOTHING,
    }
}
