//! Effects: written with a change, leased, finished with a change.

use std::time::Duration;

use wardroom_domain::{IncidentState, TenantId, Timestamp};
use wardroom_store::{Changes, Error, FinishedEffect, NewEffect, Store, Transition, Worker};

use crate::{entry, step};

pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const ONE: Worker<'_> = Worker { name: "one", queue: "" };
const TWO: Worker<'_> = Worker { name: "two", queue: "" };

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn effect(id: &str, resource: &str) -> NewEffect {
    NewEffect {
        id: id.into(),
        kind: "execution".into(),
        resource: resource.into(),
        queue: String::new(),
        payload: "{\"plan\":1}".into(),
        not_before: at(100),
        deadline: at(900_000),
    }
}

pub(crate) fn finished(id: &str, fencing: i64) -> FinishedEffect {
    FinishedEffect { id: id.into(), fencing, result: "{}".into() }
}

pub(crate) async fn open_incident(store: &Store) -> TenantId {
    let tenant = TenantId::main();
    store.open_incident(&tenant, "k", at(1), "{}", at(1), entry).await.unwrap();
    tenant
}

async fn enqueue(store: &Store, effects: &[NewEffect]) -> TenantId {
    let tenant = open_incident(store).await;
    store.enqueue_effects(&tenant, "k", effects, at(50), None).await.unwrap();
    tenant
}

async fn states(store: &Store, tenant: &TenantId) -> Vec<(String, String)> {
    let effects = store.effects(tenant, "k").await.unwrap();
    effects.into_iter().map(|effect| (effect.id, effect.state)).collect()
}

pub(crate) async fn an_effect_is_written_with_its_transition_or_not_at_all(store: Store) {
    let tenant = open_incident(&store).await;
    let changes = Changes { enqueue: vec![effect("e1", "web")], ..Changes::default() };
    let opened = Transition { changes: &changes, ..step(&tenant, IncidentState::Open, IncidentState::Investigating) };
    let outdated = Transition { before: "other", ..opened.clone() };
    assert!(!store.transition(&outdated, &entry("INC-1")).await.unwrap());
    assert_eq!(states(&store, &tenant).await, []);
    assert!(store.transition(&opened, &entry("INC-1")).await.unwrap());
    assert_eq!(states(&store, &tenant).await, [("e1".to_owned(), "ready".to_owned())]);
    // Wanted again, as after a crash of the writer: there is one row.
    assert!(store.save_workflow(&tenant, "k", "{}", "{}", &changes, &entry("INC-1")).await.unwrap());
    assert_eq!(states(&store, &tenant).await.len(), 1);
    let invalid = NewEffect { kind: "other".into(), ..effect("e2", "") };
    let changes = Changes { enqueue: vec![invalid], ..Changes::default() };
    assert!(store.save_workflow(&tenant, "k", "{}", "more", &changes, &entry("INC-1")).await.is_err());
    assert_eq!(store.incident(&tenant, 1).await.unwrap().unwrap().workflow, "{}", "all or nothing");
}

pub(crate) async fn an_effect_is_leased_by_one_worker_and_again_when_the_lease_is_over(store: Store) {
    enqueue(&store, &[effect("e1", "")]).await;
    assert_eq!(store.lease_effects(ONE, 10, at(99), LEASE).await.unwrap(), [], "not due");
    assert_eq!(store.next_effect_at("").await.unwrap(), Some(at(100)));
    let first = store.lease_effects(ONE, 10, at(100), LEASE).await.unwrap().remove(0);
    assert_eq!((first.fencing, first.attempts, first.payload.as_str()), (1, 1, "{\"plan\":1}"));
    assert_eq!(store.lease_effects(TWO, 10, at(101), LEASE).await.unwrap(), []);
    assert_eq!(store.next_effect_at("").await.unwrap(), Some(at(30_100)));
    assert!(store.extend_effect("e1", 1, at(60_000)).await.unwrap());
    assert_eq!(store.lease_effects(TWO, 10, at(30_100), LEASE).await.unwrap(), [], "extended");
    let second = store.lease_effects(TWO, 10, at(60_000), LEASE).await.unwrap().remove(0);
    assert_eq!((second.fencing, second.attempts), (2, 2));
    assert!(store.retry_effect("e1", 2, at(70_000), "the target is down").await.unwrap());
    assert_eq!(store.lease_effects(ONE, 10, at(69_999), LEASE).await.unwrap(), []);
    let third = store.lease_effects(ONE, 10, at(70_000), LEASE).await.unwrap().remove(0);
    assert_eq!((third.fencing, third.result.as_deref()), (3, Some("the target is down")));
    assert!(store.finish_effect(&finished("e1", 3), at(70_001)).await.unwrap());
    assert_eq!(store.lease_effects(ONE, 10, at(9_000_000), LEASE).await.unwrap(), []);
    assert_eq!(store.next_effect_at("").await.unwrap(), None);
    store.delete_effects_before(at(70_002)).await.unwrap();
    assert_eq!(store.effects(&TenantId::main(), "k").await.unwrap(), []);
}

pub(crate) async fn an_older_fencing_token_changes_nothing(store: Store) {
    let tenant = enqueue(&store, &[effect("e1", "")]).await;
    store.lease_effects(ONE, 1, at(100), LEASE).await.unwrap();
    store.lease_effects(TWO, 1, at(40_000), LEASE).await.unwrap();
    assert!(!store.finish_effect(&finished("e1", 1), at(40_001)).await.unwrap());
    assert!(!store.extend_effect("e1", 1, at(99_000)).await.unwrap());
    assert!(!store.retry_effect("e1", 1, at(40_002), "late").await.unwrap());
    let row = store.effects(&tenant, "k").await.unwrap().remove(0);
    assert_eq!((row.state.as_str(), row.fencing, row.result), ("leased", 2, None));
    assert!(store.finish_effect(&finished("e1", 2), at(40_003)).await.unwrap());
    assert!(!store.finish_effect(&finished("e1", 2), at(40_004)).await.unwrap(), "once");
}

pub(crate) async fn a_change_that_finishes_an_effect_of_another_worker_is_refused(store: Store) {
    let tenant = enqueue(&store, &[effect("e1", "")]).await;
    store.lease_effects(ONE, 1, at(100), LEASE).await.unwrap();
    store.lease_effects(TWO, 1, at(40_000), LEASE).await.unwrap();
    let late = Changes { finish: Some(finished("e1", 1)), enqueue: vec![effect("e2", "")], ..Changes::default() };
    let opened = step(&tenant, IncidentState::Open, IncidentState::Investigating);
    let error = store.transition(&Transition { changes: &late, ..opened.clone() }, &entry("INC-1")).await.unwrap_err();
    assert!(matches!(error, Error::StaleLease(_)), "{error}");
    assert_eq!(store.incident(&tenant, 1).await.unwrap().unwrap().state, IncidentState::Open);
    assert_eq!((store.history(&tenant, "k").await.unwrap().len(), states(&store, &tenant).await.len()), (1, 1));
    assert_eq!(store.error(), None, "the database works");
    let right = Changes { finish: Some(finished("e1", 2)), ..late };
    assert!(store.transition(&Transition { changes: &right, ..opened }, &entry("INC-1")).await.unwrap());
    let found = states(&store, &tenant).await;
    assert!(found.contains(&("e1".to_owned(), "done".to_owned())) && found.len() == 2, "{found:?}");
}

pub(crate) async fn effects_of_one_resource_are_leased_one_at_a_time(store: Store) {
    enqueue(&store, &[effect("a1", "web"), effect("a2", "web"), effect("b1", "db"), effect("c1", "")]).await;
    let ids = |effects: Vec<wardroom_store::EffectRow>| effects.into_iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(store.lease_effects(ONE, 10, at(100), LEASE).await.unwrap()), ["a1", "b1", "c1"]);
    assert_eq!(ids(store.lease_effects(TWO, 10, at(101), LEASE).await.unwrap()), [""; 0], "web is in use");
    assert!(store.finish_effect(&finished("a1", 1), at(102)).await.unwrap());
    assert_eq!(ids(store.lease_effects(TWO, 10, at(103), LEASE).await.unwrap()), ["a2"]);
    // A worker that died does not hold its resource indefinitely.
    assert_eq!(ids(store.lease_effects(ONE, 10, at(30_103), LEASE).await.unwrap()), ["a2", "b1", "c1"]);
}

pub(crate) async fn a_cancelled_effect_cannot_be_finished(store: Store) {
    let tenant = enqueue(&store, &[effect("e1", "web"), effect("e2", "web")]).await;
    store.lease_effects(ONE, 1, at(100), LEASE).await.unwrap();
    let changes = Changes { cancel: vec!["execution".into()], ..Changes::default() };
    assert!(store.save_workflow(&tenant, "k", "{}", "{}", &changes, &entry("INC-1")).await.unwrap());
    assert_eq!(states(&store, &tenant).await.into_iter().map(|it| it.1).collect::<Vec<_>>(), ["cancelled"; 2]);
    assert!(!store.finish_effect(&finished("e1", 1), at(101)).await.unwrap());
    assert_eq!(store.lease_effects(TWO, 10, at(99_000), LEASE).await.unwrap(), []);
}

pub(crate) async fn leases_of_a_process_that_has_ended_are_given_back(store: Store) {
    enqueue(&store, &[effect("e1", "web"), effect("e2", "db")]).await;
    let [before, other] = ["folder:1", "another:1"].map(|name| Worker { name, queue: "" });
    assert_eq!(store.lease_effects(before, 1, at(100), LEASE).await.unwrap().len(), 1);
    assert_eq!(store.lease_effects(other, 1, at(100), LEASE).await.unwrap().len(), 1);
    assert_eq!(store.release_effects("folder:", "folder:2").await.unwrap(), 1);
    let again = store.lease_effects(Worker { name: "folder:2", queue: "" }, 9, at(101), LEASE).await.unwrap();
    assert_eq!((again.len(), again[0].fencing), (1, 2), "the other process still runs");
    assert!(!store.finish_effect(&finished(&again[0].id, 1), at(102)).await.unwrap());
}

pub(crate) async fn an_effect_of_a_queue_is_taken_by_its_workers_only(store: Store) {
    enqueue(&store, &[NewEffect { queue: "here".into(), ..effect("e1", "") }]).await;
    assert_eq!(store.lease_effects(Worker { queue: "there", ..ONE }, 9, at(100), LEASE).await.unwrap(), []);
    assert_eq!(store.next_effect_at("there").await.unwrap(), None);
    assert_eq!(store.lease_effects(Worker { queue: "here", ..ONE }, 9, at(100), LEASE).await.unwrap().len(), 1);
}

pub(crate) async fn a_finished_incident_is_kept_once(store: Store) {
    let tenant = open_incident(&store).await;
    for (body, reopened) in [("first", 0), ("second", 0), ("third", 1), ("fourth", 1)] {
        let changes = Changes { finished_incident: Some(body.into()), reopened, ..Changes::default() };
        assert!(store.save_workflow(&tenant, "k", "{}", "{}", &changes, &entry("INC-1")).await.unwrap());
    }
    let bodies = |rows: Vec<(Timestamp, String)>| rows.into_iter().map(|(_, body)| body).collect::<Vec<_>>();
    assert_eq!(
        bodies(store.finished_incidents(&tenant, at(0), 10).await.unwrap()),
        ["second", "fourth"],
        "one of each end"
    );
    assert!(store.finished_incidents(&TenantId::new("other").unwrap(), at(0), 10).await.unwrap().is_empty());
}
