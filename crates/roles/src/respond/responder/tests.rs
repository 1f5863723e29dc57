use std::sync::Arc;

use wardroom_correlate::Decision;
use wardroom_domain::{Incident, IncidentState, Severity};
use wardroom_knowledge::Library;

use super::*;

async fn responder(folder: &tempfile::TempDir) -> Responder {
    let config = Config::default();
    Responder {
        store: Store::open(&folder.path().join("wardroom.db")).await.unwrap(),
        tenants: Arc::new(Tenants::new(config.pipeline())),
        executor: ExecutorClient::new(None),
        runbooks: Arc::new(Library::load(&config.knowledge).unwrap()),
        config,
    }
}

fn incident() -> Incident {
    Incident {
        key: "k".into(),
        tenant: TenantId::main(),
        title: "web: slow responses".into(),
        severity: Severity::High,
        services: vec!["web".into()],
        trigger: "sustained_breach".into(),
        began_at: Timestamp::from_millis(1),
        opened_at: Timestamp::from_millis(1),
    }
}

/// Regression: a plan approved while services joined its incident was never executed, since the join overwrote the
/// workflow without the approval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    let tenant = TenantId::main();
    responder.store_events(&[DetectorEvent::Decision(tenant.clone(), Decision::Opened(incident()))]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (responder, tenant) = (responder.clone(), tenant.clone());
        tasks.spawn(async move { responder.add_service(&tenant, "k", &format!("service-{number}")).await.unwrap() });
    }
    loop {
        let row = responder.store.incident(&tenant, 1).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        if responder.apply(&row, &mut workflow, Event::InvestigationStarted, &Principal::wardroom()).await.unwrap() {
            break;
        }
    }
    tasks.join_all().await;
    let row = responder.store.incident(&tenant, 1).await.unwrap().unwrap();
    let workflow = Workflow::read(&row.workflow).unwrap();
    assert_eq!((row.state, workflow.state), (IncidentState::Investigating, IncidentState::Investigating));
    assert_eq!(workflow.incident.services.len(), 13, "{:?}", workflow.incident.services);
}

/// Regression: an unreadable incident (damaged, or written by a newer build) blocked all later detector events of all
/// tenants.
#[tokio::test]
async fn an_unreadable_incident_does_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    let (tenant, now) = (TenantId::main(), clock::now());
    let entry = |id: &str| audit_entry(&tenant, "sentinel", Some(id), "open_incident", json!({}), now);
    responder.store.open_incident(&tenant, "odd", now, "{\"version\": 9999}", now, entry).await.unwrap();
    let joined = Decision::Joined { key: "odd".into(), service: "web".into() };
    let opened = Decision::Opened(incident());
    let events = [DetectorEvent::Decision(tenant.clone(), joined), DetectorEvent::Decision(tenant.clone(), opened)];
    responder.store_events(&events).await.unwrap();
    let row = responder.store.incident(&tenant, 2).await.unwrap().unwrap();
    assert_eq!(Workflow::read(&row.workflow).unwrap().incident.title, "web: slow responses");
}
