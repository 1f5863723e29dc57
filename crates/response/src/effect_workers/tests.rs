//! Effects against an executor that answers, refuses, takes its time, or hangs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use wardroom_domain::{
    Batch, Cause, Diagnosis, DryRun, Entity, Incident, IncidentState, Labels, LogEntry, Outcome, Principal, Severity,
    TenantId, Timestamp, ToolCall,
};
use wardroom_executor::ExecutorClient;
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_pipeline::detection::evaluate::evaluate;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_respond::{Event, PendingPlan, Workflow};
use wardroom_store::{Changes, Store};

use super::*;
use crate::config::Config;
use crate::responder::run_responder;

/// A target that never answers.
const STUCK: &str = "stuck";

/// The executor's side of the socket. Answers by target; counts starts by plan.
#[derive(Clone, Default)]
struct FakeExecutor {
    starts: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Questions for the status of a plan until it has ended.
    polls_until_done: Arc<AtomicUsize>,
    /// The answer to the next starts, instead of one that runs.
    refusals: Arc<Mutex<Vec<Value>>>,
}

impl FakeExecutor {
    fn serve(&self, socket: &std::path::Path) -> ExecutorClient {
        let listener = UnixListener::bind(socket).unwrap();
        let executor = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let executor = executor.clone();
                std::thread::spawn(move || executor.answer(stream));
            }
        });
        ExecutorClient::new(Some(socket.to_owned()))
    }

    fn answer(&self, mut stream: UnixStream) {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        let running = |phase: &str| json!({ "answer": "status", "status": { "phase": phase, "detail": "" } });
        let plan = request["plan_sha256"].as_str().unwrap_or_default().to_owned();
        let response = match request["op"].as_str().unwrap() {
            "dry_run" if request["call"]["target"] == STUCK => {
                std::thread::sleep(Duration::from_secs(600));
                return;
            }
            "dry_run" => {
                let dry_run = DryRun {
                    diff: "restarted".into(),
                    blast_radius: "one".into(),
                    affected: Some(1),
                    risk: "low".into(),
                    reversible: false,
                    precondition: "1".into(),
                    undo: None,
                };
                json!({ "answer": "dry_run", "dry_run": dry_run })
            }
            "start" => {
                *self.starts.lock().unwrap().entry(plan).or_default() += 1;
                self.refusals.lock().unwrap().pop().unwrap_or_else(|| running("running"))
            }
            "status" => match self.polls_until_done.load(Ordering::SeqCst) {
                0 => json!({ "answer": "status", "status": {
                    "phase": "done", "executed": "applied", "approved_by": "alice", "detail": "restarted" } }),
                _ => {
                    self.polls_until_done.fetch_sub(1, Ordering::SeqCst);
                    running("running")
                }
            },
            _ => running("unknown"),
        };
        drop(writeln!(stream, "{response}"));
    }
}

struct Setup {
    responder: Responder,
    executor: FakeExecutor,
    _folder: tempfile::TempDir,
}

async fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let (config, executor) = (Config::default(), FakeExecutor::default());
    let responder = Responder {
        store: Store::open(&folder.path().join("wardroom.db")).await.unwrap(),
        tenants: Arc::new(Tenants::new(config.pipeline())),
        executor: executor.serve(&folder.path().join("executor.sock")),
        runbooks: Arc::new(Library::load(&config.knowledge).unwrap()),
        policy: Arc::new(wardroom_policy::Policy::builtin().unwrap()),
        config,
        started_at: clock::now(),
        queue: "folder".to_owned(),
        worker: "folder:1".to_owned(),
    };
    // Telemetry time starts.
    let log = LogEntry {
        at: clock::now(),
        severity: Severity::Info,
        message: "working".into(),
        service: "other".into(),
        labels: Labels::of(&[]),
    };
    let batch = Batch { logs: vec![log], ..Batch::default() };
    evaluate(&responder.config.pipeline(), &responder.tenants.get(&TenantId::main()), &batch);
    Setup { responder, executor, _folder: folder }
}

impl Setup {
    fn spawn_workers(&self) -> tokio::task::JoinHandle<()> {
        let replay = ReplayProgress { next: Arc::new(AtomicU64::new(0)), end: 0 };
        tokio::spawn(run_effect_workers(self.responder.clone(), replay))
    }

    /// Opens an incident whose plan for this target waits for its dry run.
    async fn investigate(&self, target: &str) {
        let (responder, tenant, now) = (&self.responder, TenantId::main(), clock::now());
        let incident = Incident {
            key: target.into(),
            title: format!("{target}: slow responses"),
            severity: Severity::High,
            services: vec![target.into()],
            entities: vec![Entity::service(target)],
            trigger: "sustained_breach".into(),
            began_at: now,
            opened_at: now,
            ..Incident::default()
        };
        responder.open_incident(&tenant, incident).await.unwrap();
        let row = responder.store.incident_by_key(&tenant, target).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        let event = Event::InvestigationStarted;
        let none = Changes::default();
        assert!(responder.apply(&row, &mut workflow, event, &Principal::wardroom(), none).await.unwrap());
        let row = responder.store.incident_by_key(&tenant, target).await.unwrap().unwrap();
        workflow.record_investigation(now.millis());
        let causes = vec![Cause::new(Entity::service(target), "cpu-hog", 0.9)];
        let pending = PendingPlan {
            diagnosis: Diagnosis { causes, evidence: vec![], severity: Severity::High, impact: String::new() },
            call: ToolCall {
                tool: "process".into(),
                operation: "restart".into(),
                target: target.into(),
                arguments: serde_json::Map::new(),
            },
            runbook: "r".into(),
            control: "none".into(),
            watched: vec![],
            number: 0,
        };
        let effect = workflow.request_dry_run(pending);
        let changes = Changes { enqueue: vec![responder.new_effect(&tenant, effect, now)], ..Changes::default() };
        let text = serde_json::to_string(&workflow).unwrap();
        let entry = crate::audit_entry::audit_entry(&tenant, "analyst", None, "test", json!({}), now);
        let saved = responder.store.save_workflow(&tenant, &row.key, &row.workflow, &text, &changes, &entry);
        assert!(saved.await.unwrap());
    }

    async fn workflow(&self, key: &str) -> Workflow {
        let row = self.responder.store.incident_by_key(&TenantId::main(), key).await.unwrap().unwrap();
        Workflow::read(&row.workflow).unwrap()
    }

    async fn await_state(&self, key: &str, state: IncidentState) -> Workflow {
        for _ in 0..1000 {
            let workflow = self.workflow(key).await;
            if workflow.state == state {
                return workflow;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{key} is not {state}: {:?}", self.responder.store.effects(&TenantId::main(), key).await);
    }

    async fn approve(&self, key: &str) {
        let row = self.responder.store.incident_by_key(&TenantId::main(), key).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        let approval = wardroom_domain::Approval {
            principal: Principal::new("alice").unwrap(),
            at: clock::now(),
            channel: "http".into(),
            plan_sha256: workflow.plan_sha256.clone().unwrap(),
            reason: String::new(),
            proof: None,
        };
        let approved = Event::Approved(approval);
        let none = Changes::default();
        assert!(self.responder.apply(&row, &mut workflow, approved, &Principal::wardroom(), none).await.unwrap());
    }

    async fn effect(&self, key: &str, kind: &str) -> EffectRow {
        let effects = self.responder.store.effects(&TenantId::main(), key).await.unwrap();
        effects.into_iter().find(|effect| effect.kind == kind).unwrap()
    }
}

/// One target never answers: its incident waits, detection's events are stored at once, and other incidents go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_hangs_holds_up_nothing_but_itself() {
    let setup = setup().await;
    let workers = setup.spawn_workers();
    let (events, receiver) = mpsc::channel(8);
    let replay = ReplayProgress { next: Arc::new(AtomicU64::new(0)), end: 0 };
    let loop_task = tokio::spawn(run_responder(setup.responder.clone(), receiver, replay));
    setup.investigate(STUCK).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(setup.effect(STUCK, "dry_run").await.state, "leased");
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let target = format!("web-{round}");
        setup.investigate(&target).await;
        let (done, stored) = tokio::sync::oneshot::channel();
        let sent = Instant::now();
        events.send(DetectorEvent::Barrier(done)).await.unwrap();
        stored.await.unwrap();
        longest = longest.max(sent.elapsed());
        setup.await_state(&target, IncidentState::AwaitingApproval).await;
    }
    assert!(longest < Duration::from_secs(2), "detection waited for {longest:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "others waited: {:?}", started.elapsed());
    let waiting = setup.workflow(STUCK).await;
    assert_eq!((waiting.state, waiting.plan.is_none()), (IncidentState::Investigating, true));
    setup.approve("web-0").await;
    setup.await_state("web-0", IncidentState::Verifying).await;
    assert_eq!(setup.effect(STUCK, "dry_run").await.state, "leased", "it still waits, and its lease is its own");
    workers.abort();
    loop_task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_is_started_once_and_followed_to_its_end() {
    let setup = setup().await;
    setup.executor.polls_until_done.store(4, Ordering::SeqCst);
    let workers = setup.spawn_workers();
    setup.investigate("web").await;
    setup.await_state("web", IncidentState::AwaitingApproval).await;
    let approved = Instant::now();
    setup.approve("web").await;
    while setup.executor.starts.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(approved.elapsed() < Duration::from_millis(500), "the execution started after {:?}", approved.elapsed());
    let workflow = setup.await_state("web", IncidentState::Verifying).await;
    assert_eq!(workflow.execution, Some(Outcome::Applied));
    let starts: Vec<usize> = setup.executor.starts.lock().unwrap().values().copied().collect();
    assert_eq!(starts, [1]);
    let effect = setup.effect("web", "execution").await;
    assert_eq!((effect.state.as_str(), effect.attempts), ("done", 1));
    assert!(effect.result.unwrap().contains("applied"));
    workers.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_or_tried_again_by_its_code() {
    let setup = setup().await;
    let workers = setup.spawn_workers();
    for (target, code, end) in
        [("busy", "unavailable", IncidentState::Verifying), ("changed", "stale", IncidentState::Escalated)]
    {
        setup.investigate(target).await;
        setup.await_state(target, IncidentState::AwaitingApproval).await;
        let refusal = json!({ "answer": "refused", "code": code, "detail": "no" });
        setup.executor.refusals.lock().unwrap().push(refusal);
        setup.approve(target).await;
        let workflow = setup.await_state(target, end).await;
        let expected = if end == IncidentState::Verifying { Outcome::Applied } else { Outcome::NotApplied };
        assert_eq!(workflow.execution, Some(expected), "{target}");
    }
    workers.abort();
}

/// A worker that was killed between the action and its record: the next process performs the row again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_leaves_its_effects_to_the_next_one() {
    let setup = setup().await;
    setup.investigate("web").await;
    let dead = Worker { name: "folder:0", queue: "folder" };
    let leased = setup.responder.store.lease_effects(dead, 9, clock::now(), Duration::from_secs(600)).await.unwrap();
    assert_eq!(leased.len(), 1);
    let workers = setup.spawn_workers();
    setup.await_state("web", IncidentState::AwaitingApproval).await;
    let effect = setup.effect("web", "dry_run").await;
    assert_eq!((effect.state.as_str(), effect.fencing), ("done", 2));
    workers.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_never_answers_is_given_up_at_the_deadline() {
    let setup = setup().await;
    setup.investigate("web").await;
    let effect = setup.effect("web", "dry_run").await;
    let late = EffectRow { deadline: Timestamp::from_millis(1), fencing: 1, ..effect };
    let worker = Worker { name: "folder:1", queue: "folder" };
    setup.responder.store.lease_effects(worker, 9, clock::now(), LEASE).await.unwrap();
    let gone = Responder { executor: ExecutorClient::new(Some("/nonexistent".into())), ..setup.responder.clone() };
    assert_eq!(gone.perform(&late).await.unwrap(), Performed::Finished("refused"));
    let workflow = setup.workflow("web").await;
    assert_eq!((workflow.state, workflow.pending), (IncidentState::Escalated, None));
    let history = setup.responder.store.history(&TenantId::main(), "web").await.unwrap();
    assert!(history.last().unwrap().note.contains("cannot be executed"), "{history:?}");
}

/// Incidents that an earlier version left have no rows of effects: whatever they wait for is asked for once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incidents_of_an_earlier_version_go_on() {
    let setup = setup().await;
    for target in ["approved", "mitigating"] {
        setup.investigate(target).await;
    }
    let workers = setup.spawn_workers();
    for target in ["approved", "mitigating"] {
        setup.await_state(target, IncidentState::AwaitingApproval).await;
    }
    workers.abort();
    setup.approve("mitigating").await;
    let (tenant, store) = (TenantId::main(), &setup.responder.store);
    // As the earlier version left them: no effects.
    for target in ["approved", "mitigating"] {
        for kind in ["dry_run", "execution"] {
            let changes = Changes { cancel: vec![kind.into()], ..Changes::default() };
            let row = store.incident_by_key(&tenant, target).await.unwrap().unwrap();
            let entry = crate::audit_entry::audit_entry(&tenant, "t", None, "t", json!({}), clock::now());
            let text = row.workflow.as_str();
            assert!(store.save_workflow(&tenant, target, text, text, &changes, &entry).await.unwrap());
        }
    }
    store.delete_effects_before(clock::now().plus(Duration::from_secs(1))).await.unwrap();
    let (_events, receiver) = mpsc::channel(8);
    let replay = ReplayProgress { next: Arc::new(AtomicU64::new(0)), end: 0 };
    let loop_task = tokio::spawn(run_responder(setup.responder.clone(), receiver, replay));
    let workers = setup.spawn_workers();
    for target in ["approved", "mitigating"] {
        let workflow = setup.await_state(target, IncidentState::Verifying).await;
        assert_eq!(workflow.execution, Some(Outcome::Applied), "{target}");
    }
    let starts: Vec<usize> = setup.executor.starts.lock().unwrap().values().copied().collect();
    assert_eq!(starts, [1, 1]);
    workers.abort();
    loop_task.abort();
}

#[test]
fn the_pause_between_attempts_doubles_up_to_half_a_minute() {
    let pauses: Vec<u128> = [0, 1, 2, 3, 8, 9, 100, i64::MAX].map(|it| backoff(it).as_millis()).into();
    assert_eq!(pauses, [200, 200, 400, 800, 25_600, 30_000, 30_000, 30_000]);
}
