use std::sync::Arc;

use wardroom_correlate::Decision;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{
    Approval, Batch, Cause, Diagnosis, DryRun, Incident, IncidentState, Labels, LogEntry, Outcome, Plan, Severity,
    TenantId, ToolCall,
};
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::evaluate::evaluate;
use wardroom_respond::WatchedSignal;

use super::*;
use crate::audit_entry::APPROVE_REQUESTED;

async fn responder(folder: &tempfile::TempDir) -> Responder {
    let config = Config::default();
    Responder {
        store: Store::open(&folder.path().join("wardroom.db")).await.unwrap(),
        tenants: Arc::new(Tenants::new(config.pipeline())),
        executor: ExecutorClient::new(None),
        runbooks: Arc::new(Library::load(&config.knowledge).unwrap()),
        policy: Arc::new(Policy::builtin().unwrap()),
        config,
        started_at: clock::now(),
        queue: "folder".to_owned(),
        worker: "folder:1".to_owned(),
    }
}

fn incident() -> Incident {
    Incident {
        key: "k".into(),
        title: "web: slow responses".into(),
        severity: Severity::High,
        services: vec!["web".into()],
        entities: vec![Entity::service("web")],
        trigger: "sustained_breach".into(),
        began_at: Timestamp::from_millis(1),
        opened_at: Timestamp::from_millis(1),
        ..Incident::default()
    }
}

/// Regression: a plan approved while services joined its incident was never executed, since the join overwrote the
/// workflow without the approval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    let tenant = TenantId::main();
    let opened = DetectorEvent::Decision(tenant.clone(), Box::new(Decision::Opened(incident())));
    responder.store_events(&[opened]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (responder, tenant) = (responder.clone(), tenant.clone());
        let entity = Entity::service(format!("service-{number}"));
        let joined = DetectorEvent::Decision(tenant, Box::new(Decision::Joined { key: "k".into(), entity }));
        tasks.spawn(async move { responder.store_events(&[joined]).await.unwrap() });
    }
    loop {
        let row = responder.store.incident(&tenant, 1).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        if responder
            .apply(&row, &mut workflow, Event::InvestigationStarted, &Principal::wardroom(), Changes::default())
            .await
            .unwrap()
        {
            break;
        }
    }
    tasks.join_all().await;
    let row = responder.store.incident(&tenant, 1).await.unwrap().unwrap();
    let workflow = Workflow::read(&row.workflow).unwrap();
    assert_eq!((row.state, workflow.state), (IncidentState::Investigating, IncidentState::Investigating));
    assert_eq!(workflow.incident.services.len(), 13, "{:?}", workflow.incident.services);
    assert_eq!((workflow.incident.entities.len(), workflow.evidence), (13, 12));
}

/// In an outage many entities join at once: what one batch of events adds is one change with one audit entry.
#[tokio::test]
async fn additions_of_one_batch_are_one_change() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    let tenant = TenantId::main();
    let key = "k".to_owned();
    let (title, severity) = ("db: 0 of 1 up".to_owned(), Severity::Critical);
    let decisions = [
        Decision::Opened(incident()),
        Decision::Joined { key: key.clone(), entity: Entity::service("cart") },
        Decision::Joined { key: key.clone(), entity: Entity::service("web") },
        Decision::Updated { key: key.clone(), title: title.clone(), severity },
        Decision::Updated { key, title: "web: slow responses".into(), severity: Severity::High },
    ];
    let events = decisions.map(|decision| DetectorEvent::Decision(tenant.clone(), Box::new(decision)));
    for _ in 0..2 {
        // A replay after a restart adds nothing.
        responder.store_events(&events).await.unwrap();
        let row = responder.store.incident(&tenant, 1).await.unwrap().unwrap();
        let Workflow { incident, evidence, .. } = Workflow::read(&row.workflow).unwrap();
        assert_eq!((incident.services.as_slice(), evidence), (["web".to_owned(), "cart".to_owned()].as_slice(), 2));
        assert_eq!((&incident.title, incident.severity, incident.history.len()), (&title, severity, 2));
        assert_eq!(responder.store.verify_audit().await.unwrap().entries, 2);
    }
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
    let joined = Decision::Joined { key: "odd".into(), entity: Entity::service("web") };
    let opened = Decision::Opened(incident());
    let events = [joined, opened].map(|decision| DetectorEvent::Decision(tenant.clone(), Box::new(decision)));
    responder.store_events(&events).await.unwrap();
    let row = responder.store.incident(&tenant, 2).await.unwrap().unwrap();
    assert_eq!(Workflow::read(&row.workflow).unwrap().incident.title, "web: slow responses");
}

#[tokio::test]
async fn a_recovered_approval_has_the_reason_of_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    responder.open_incident(&TenantId::main(), incident()).await.unwrap();
    let row = responder.store.live_incidents(clock::now()).await.unwrap().remove(0);
    let alice = Principal::new("alice").unwrap();
    let status = PlanStatus { approved_by: Some(alice.clone()), ..PlanStatus::default() };
    let recover = async || responder.approval_in(&row.tenant, "the plan".into(), &status).await.unwrap().unwrap();
    let unknown = recover().await;
    assert_eq!((unknown.channel.as_str(), unknown.reason.as_str()), ("recovered", ""));
    for (principal, plan, reason) in
        [("alice", "the plan", "it is slow"), ("mallory", "the plan", "mine"), ("alice", "another plan", "also slow")]
    {
        let decision = json!({ "plan_sha256": plan, "reason": reason, "channel": "cli" });
        let entry = audit_entry(&row.tenant, "resolver", Some(&row.id()), APPROVE_REQUESTED, decision, clock::now());
        let principal = Principal::new(principal).unwrap();
        responder.store.append_audit(&AuditEntry { principal, ..entry }).await.unwrap();
    }
    let approval = recover().await;
    assert_eq!((approval.channel.as_str(), approval.reason.as_str()), ("cli", "it is slow"));
    assert_eq!(approval.principal, alice);
}

/// Regression: after a restart an executed plan was verified against telemetry time before the replay, so verification
/// timed out at once.
#[tokio::test]
async fn incidents_wait_until_detection_has_caught_up() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    let opened = DetectorEvent::Decision(TenantId::main(), Box::new(Decision::Opened(incident())));
    responder.store_events(&[opened]).await.unwrap();
    let (_sender, events) = mpsc::channel(1);
    let next = Arc::new(AtomicU64::new(6));
    let replay = ReplayProgress { next: Arc::clone(&next), end: 7 };
    let task = tokio::spawn(run_responder(responder.clone(), events, replay));
    let state = async || responder.store.incident(&TenantId::main(), 1).await.unwrap().unwrap().state;
    tokio::time::sleep(TICK_INTERVAL * 3).await;
    assert_eq!(state().await, IncidentState::Open, "the last record is not replayed");
    next.store(7, Ordering::Release);
    for _ in 0..100 {
        if state().await != IncidentState::Open {
            break;
        }
        tokio::time::sleep(TICK_INTERVAL / 4).await;
    }
    assert_eq!(state().await, IncidentState::Investigating);
    task.abort();
}

/// Proposes a plan for the incident of [`incident`].
async fn propose(responder: &Responder) {
    responder.open_incident(&TenantId::main(), incident()).await.unwrap();
    let call = ToolCall {
        tool: "process".into(),
        operation: "restart".into(),
        target: "web".into(),
        arguments: serde_json::Map::new(),
    };
    let dry_run = DryRun {
        diff: String::new(),
        blast_radius: String::new(),
        affected: None,
        risk: "low".into(),
        reversible: false,
        precondition: "1".into(),
        undo: None,
    };
    let plan = Plan {
        version: 1,
        tenant: TenantId::main(),
        incident: "k".into(),
        call,
        dry_run,
        further_steps: Vec::new(),
        runbook: "r".into(),
        control: "none".into(),
        expires_at: clock::now().plus(Duration::from_secs(600)),
    };
    let causes = vec![Cause::new(Entity::service("web"), "cpu-hog", 0.9)];
    let diagnosis = Diagnosis { causes, evidence: vec![], severity: Severity::High, impact: String::new() };
    let labels = Labels::of(&[("__name__", "signal:errors"), ("entity_kind", "service"), ("service", "web")]);
    let watched =
        vec![WatchedSignal { signal: labels, expected: 0.0, limit: 0.5, low_is_bad: false, interval_ms: 1000 }];
    for event in [Event::InvestigationStarted, Event::Proposed { diagnosis, plan: Box::new(plan), watched }] {
        let (row, mut workflow) = stored(responder).await;
        workflow.record_investigation(1000);
        assert!(apply(responder, &row, &mut workflow, event).await);
    }
}

/// Applies an event that must not be outdated.
async fn apply(responder: &Responder, row: &IncidentRow, workflow: &mut Workflow, event: Event) -> bool {
    responder.apply(row, workflow, event, &Principal::wardroom(), Changes::default()).await.unwrap()
}

async fn stored(responder: &Responder) -> (IncidentRow, Workflow) {
    let row = responder.store.incident(&TenantId::main(), 1).await.unwrap().unwrap();
    let workflow = Workflow::read(&row.workflow).unwrap();
    (row, workflow)
}

/// Steps the incidents at a telemetry time.
async fn step_at(responder: &Responder, at_ms: i64) -> Workflow {
    let log = LogEntry {
        at: Timestamp::from_millis(at_ms),
        severity: Severity::Info,
        message: "working".into(),
        service: "other".into(),
        labels: Labels::of(&[]),
    };
    let batch = Batch { logs: vec![log], ..Batch::default() };
    evaluate(&responder.config.pipeline(), &responder.tenants.get(&TenantId::main()), &batch);
    responder.step_incidents(&mut OpenIncidents::new(&responder.store), clock::now()).await.unwrap();
    stored(responder).await.1
}

#[tokio::test]
async fn a_plan_that_a_later_diagnosis_does_not_confirm_is_void() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    propose(&responder).await;
    let workflow = step_at(&responder, 20_000).await;
    assert_eq!((workflow.state, workflow.investigations), (IncidentState::AwaitingApproval, 2), "not due yet");
    // Half a minute after the opening nothing points at web any more.
    let workflow = step_at(&responder, 31_000).await;
    assert_eq!((workflow.state, workflow.plan), (IncidentState::Investigating, None));
    let history = responder.store.history(&TenantId::main(), "k").await.unwrap();
    assert!(history.last().unwrap().note.starts_with("the plan is void: "), "{history:?}");
    let is_voided = |entry: &AuditEntry| entry.decision["to"] == "investigating" && entry.decision["from"] != "open";
    assert!(responder.store.find_audit_entry("transition", is_voided).await.unwrap().is_some());
    let workflow = step_at(&responder, 32_000).await;
    assert_eq!((workflow.state, workflow.outcome.as_deref()), (IncidentState::Escalated, Some("escalated")));
    let investigations = workflow.investigations;
    let workflow = step_at(&responder, 125_000).await;
    assert_eq!((workflow.state, workflow.investigations), (IncidentState::Escalated, investigations + 1));
    let workflow = step_at(&responder, 126_000).await;
    assert_eq!(workflow.investigations, investigations + 1, "once at each time");
    assert!(responder.store.find_audit_entry("diagnosis_reviewed", |_| true).await.unwrap().is_some());
}

/// Regression: without telemetry after an action nothing ended its verification, or it was undone.
#[tokio::test]
async fn verification_without_telemetry_ends_by_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let mut responder = responder(&folder).await;
    propose(&responder).await;
    let approval = Approval {
        principal: Principal::wardroom(),
        at: clock::now(),
        channel: "http".into(),
        plan_sha256: String::new(),
        reason: String::new(),
        proof: None,
    };
    let long_ago = clock::now().minus(Duration::from_secs(3600));
    let (outcome, detail) = (Outcome::Applied, String::new());
    let executed = Event::Executed { outcome, detail, at_ms: 20_000, at: long_ago, watched: vec![] };
    for event in [Event::Approved(approval), executed] {
        let (row, mut workflow) = stored(&responder).await;
        assert!(apply(&responder, &row, &mut workflow, event).await);
    }
    let workflow = step_at(&responder, 20_000).await;
    assert_eq!(workflow.state, IncidentState::Verifying, "this process has just started: telemetry may still come");
    responder.started_at = long_ago;
    let workflow = step_at(&responder, 20_000).await;
    assert_eq!((workflow.state, workflow.undo), (IncidentState::Escalated, None));
    assert_eq!(workflow.outcome.as_deref(), Some("inconclusive"));
}

/// A thousand plans that await their approval cost nothing until something is due for them: a tick looks at none.
#[tokio::test]
async fn incidents_that_await_an_approval_cost_almost_nothing() {
    const INCIDENTS: i64 = 1000;
    const TICKS: u32 = 200;
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    propose(&responder).await;
    let (row, mut workflow) = stored(&responder).await;
    // The first ones of the route are asked already.
    (workflow.proposed_at, workflow.escalation_step) = (Some(clock::now()), 1);
    let mut open = OpenIncidents::new(&responder.store);
    responder.step_incidents(&mut open, clock::now()).await.unwrap();
    for number in 0..INCIDENTS {
        let row = IncidentRow { key: format!("k{number}"), number, ..row.clone() };
        let incident = OpenIncident { row, workflow: Some(workflow.clone()) };
        let (id, due) = ((TenantId::main(), format!("k{number}")), responder.due_of(&incident));
        assert!(!due.is_past(clock::now(), 20_000) && due.at.is_some());
        open.note(id.clone(), incident, due);
        assert!(open.followed(&id).is_none(), "its workflow is not kept in memory");
    }
    let expires_at = workflow.plan.as_ref().unwrap().expires_at;
    assert_eq!(open.schedule.next_at(), Some(expires_at));
    let started = Instant::now();
    for _ in 0..TICKS {
        responder.step_incidents(&mut open, clock::now()).await.unwrap();
    }
    let tick = started.elapsed() / TICKS;
    // Looking at each of them takes several times as long in a build without optimisation.
    assert!(tick < Duration::from_millis(2), "a tick takes {tick:?}");
    assert_eq!(open.schedule.next_at(), Some(expires_at), "none was looked at");
}

/// Rewrites the stored workflow, as a change by this process.
async fn rewrite(responder: &Responder, change: impl FnOnce(&mut Workflow)) {
    let (row, mut workflow) = stored(responder).await;
    change(&mut workflow);
    let text = serde_json::to_string(&workflow).unwrap();
    let entry = audit_entry(&row.tenant, "operator", Some(&row.id()), "changed", json!({}), clock::now());
    let (store, changes) = (&responder.store, Changes::default());
    assert!(store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &entry).await.unwrap());
}

#[tokio::test]
async fn a_plan_expires_on_time_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(&folder).await;
    propose(&responder).await;
    let mut open = OpenIncidents::new(&responder.store);
    responder.step_incidents(&mut open, clock::now()).await.unwrap();
    let later = open.schedule.next_at().unwrap();
    let expires_at = clock::now().plus(Duration::from_millis(300));
    rewrite(&responder, |workflow| workflow.plan.as_mut().unwrap().expires_at = expires_at).await;
    assert!(open.is_outdated(&responder.store), "the change is noticed");
    responder.step_incidents(&mut open, clock::now()).await.unwrap();
    assert_eq!((open.schedule.next_at(), later > expires_at), (Some(expires_at), true));
    // Nothing else is needed after a restart than what is stored.
    let mut restarted = OpenIncidents::new(&responder.store);
    responder.step_incidents(&mut restarted, clock::now()).await.unwrap();
    assert_eq!(restarted.schedule, open.schedule);
    assert!(open.pause() <= Duration::from_millis(300));
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert!(!restarted.is_outdated(&responder.store), "nothing has changed; only its time has come");
    responder.step_incidents(&mut restarted, clock::now()).await.unwrap();
    let (row, workflow) = stored(&responder).await;
    assert_eq!((row.state, workflow.outcome.as_deref()), (IncidentState::Escalated, Some("escalated")));
    responder.step_incidents(&mut restarted, clock::now()).await.unwrap();
    assert_eq!(restarted.schedule.next_at(), None, "it has no further step");
    responder.step_incidents(&mut open, clock::now()).await.unwrap();
    assert_eq!(open.schedule, restarted.schedule, "the other one has not done it again");
    assert_eq!(stored(&responder).await.0.revision, row.revision);
}

/// Regression: steps are repeated by the wall clock, and after it was set back none was until the old time came again.
#[tokio::test]
async fn a_clock_that_is_set_back_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut responder = responder(&folder).await;
    propose(&responder).await;
    let long_ago = clock::now().minus(Duration::from_secs(3600));
    let (row, mut workflow) = stored(&responder).await;
    let approval = Approval {
        principal: Principal::wardroom(),
        at: clock::now(),
        channel: "http".into(),
        plan_sha256: String::new(),
        reason: String::new(),
        proof: None,
    };
    assert!(apply(&responder, &row, &mut workflow, Event::Approved(approval)).await);
    let (row, mut workflow) = stored(&responder).await;
    let (outcome, detail) = (Outcome::Applied, String::new());
    let executed = Event::Executed { outcome, detail, at_ms: 20_000, at: long_ago, watched: vec![] };
    assert!(apply(&responder, &row, &mut workflow, executed).await);
    assert_eq!(step_at(&responder, 20_000).await.state, IncidentState::Verifying);
    let mut open = OpenIncidents::new(&responder.store);
    for _ in 0..2 {
        responder.step_incidents(&mut open, clock::now()).await.unwrap();
        assert_eq!(stored(&responder).await.0.state, IncidentState::Verifying);
    }
    assert!(open.schedule.due(clock::now(), |_| i64::MIN).is_empty(), "it is looked at again a moment later");
    // Nothing changes now but the clock and what the process knows of telemetry.
    responder.started_at = long_ago;
    responder.step_incidents(&mut open, clock::now().minus(Duration::from_secs(600))).await.unwrap();
    assert_eq!(stored(&responder).await.0.state, IncidentState::Escalated);
}

#[tokio::test]
async fn the_next_of_the_route_are_asked_on_time_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut responder = responder(&folder).await;
    let step = |after_minutes| wardroom_policy::escalation::Step { after_minutes, ..Default::default() };
    responder.config.policy.escalation = vec![step(0), step(10)];
    propose(&responder).await;
    let proposed_at = clock::now();
    rewrite(&responder, |workflow| workflow.proposed_at = Some(proposed_at)).await;
    let mut open = OpenIncidents::new(&responder.store);
    for expected in [1, 1, 1] {
        responder.step_incidents(&mut open, clock::now()).await.unwrap();
        assert_eq!(stored(&responder).await.1.escalation_step, expected);
    }
    let expires_at = stored(&responder).await.1.plan.unwrap().expires_at;
    let next = Timestamp::from_millis(proposed_at.millis() + 600_000);
    assert_eq!(open.schedule.next_at(), Some(next.min(expires_at)));
    rewrite(&responder, |workflow| workflow.proposed_at = Some(proposed_at.minus(Duration::from_secs(600)))).await;
    for _ in 0..2 {
        responder.step_incidents(&mut open, clock::now()).await.unwrap();
        assert_eq!(stored(&responder).await.1.escalation_step, 2);
    }
}
