//! Two processes on one PostgreSQL: each effect is performed by one of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use wardroom_domain::TenantId;
use wardroom_store::{NewEffect, Worker};
use wardroom_testing::PostgresServer;

use crate::effects::{LEASE, at, effect, finished, open_incident};
use crate::open_postgres;

const EFFECTS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_the_effects_and_perform_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = PostgresServer::start(dir.path()).unwrap();
    let stores = [open_postgres(&server, "shared").await, open_postgres(&server, "shared").await];
    let tenant: TenantId = open_incident(&stores[0]).await;
    let effects: Vec<NewEffect> =
        (0..EFFECTS).map(|number| effect(&format!("e{number}"), &format!("r{}", number % 20))).collect();
    stores[0].enqueue_effects(&tenant, "k", &effects, at(50), None).await.unwrap();
    let performed: Arc<Mutex<BTreeMap<String, Vec<&str>>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for (store, name) in stores.iter().cloned().zip(["one", "two"]) {
        let performed = Arc::clone(&performed);
        tasks.spawn(async move {
            let worker = Worker { name, queue: "" };
            while store.next_effect_at("").await.unwrap().is_some() {
                for leased in store.lease_effects(worker, 3, at(100), LEASE).await.unwrap() {
                    performed.lock().unwrap().entry(leased.id.clone()).or_default().push(name);
                    tokio::task::yield_now().await;
                    assert!(store.finish_effect(&finished(&leased.id, leased.fencing), at(101)).await.unwrap());
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let performed = performed.lock().unwrap();
    assert_eq!(performed.len(), EFFECTS);
    assert!(performed.values().all(|workers| workers.len() == 1), "{performed:?}");
    assert!(["one", "two"].iter().all(|name| performed.values().any(|workers| workers[0] == *name)), "{performed:?}");
}
