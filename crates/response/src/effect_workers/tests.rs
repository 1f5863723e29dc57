//! Effects against an executor that answers, refuses, takes its time, or hangs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{
    ActionChoice, Batch, Cause, Comparison, Condition, Diagnosis, DryRun, Entity, Incident, IncidentState, Labels,
    LogEntry, Outcome, Principal, ReadCheck, Severity, TenantId, Timestamp, ToolCall,
};
use wardroom_executor::ExecutorClient;
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_pipeline::detection::evaluate::evaluate;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_respond::{Event, PendingPlan, PendingRead, PlanProgress, Workflow};
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
    /// Steps of plans that the target refuses, counted from 0.
    refused_steps: Arc<Mutex<Vec<u64>>>,
    /// Undos that were started, by step.
    undone_steps: Arc<Mutex<Vec<u64>>>,
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
        let step = request["step"].as_u64().unwrap_or_default();
        let response = match request["op"].as_str().unwrap() {
            "dry_run" if request["call"]["target"] == STUCK => {
                std::thread::sleep(Duration::from_secs(600));
                return;
            }
            "dry_run" => {
                let is_setting = request["call"]["operation"] == "settings";
                let dry_run = DryRun {
                    diff: "restarted".into(),
                    blast_radius: "one".into(),
                    affected: Some(1),
                    risk: "low".into(),
                    reversible: is_setting,
                    precondition: "1".into(),
                    undo: is_setting.then(|| serde_json::from_value(request["call"].clone()).unwrap()),
                };
                json!({ "answer": "dry_run", "dry_run": dry_run })
            }
            "read" if request["call"]["operation"] == "restart" => {
                json!({ "answer": "refused", "code": "invalid", "detail": "it changes its target" })
            }
            "read" => json!({ "answer": "read", "value": { "idle": 60 } }),
            "start_undo" => {
                self.undone_steps.lock().unwrap().push(step);
                json!({ "answer": "status", "status": { "phase": "undone", "executed": "applied", "undone": "applied",
                    "detail": "set back" } })
            }
            "status" if self.refused_steps.lock().unwrap().contains(&step) => json!({ "answer": "status", "status": {
                "phase": "done", "executed": "not_applied", "detail": "refused by the target" } }),
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
        self.investigate_with(target, vec![], vec![choice(&[("restart", target)])]).await;
    }

    /// Opens an incident whose plan waits for its checks, or for the dry runs of its first action.
    async fn investigate_with(&self, key: &str, reads: Vec<PendingRead>, choices: Vec<ActionChoice>) {
        let (responder, tenant, now) = (&self.responder, TenantId::main(), clock::now());
        let incident = Incident {
            key: key.into(),
            title: format!("{key}: slow responses"),
            severity: Severity::High,
            services: vec![key.into()],
            entities: vec![Entity::service(key)],
            trigger: "sustained_breach".into(),
            began_at: now,
            opened_at: now,
            ..Incident::default()
        };
        responder.open_incident(&tenant, incident).await.unwrap();
        let row = responder.store.incident_by_key(&tenant, key).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        if workflow.state == IncidentState::Open {
            // The response's loop, if it runs, may be faster.
            let (event, none) = (Event::InvestigationStarted, Changes::default());
            responder.apply(&row, &mut workflow, event, &Principal::wardroom(), none).await.unwrap();
        }
        let row = responder.store.incident_by_key(&tenant, key).await.unwrap().unwrap();
        let mut workflow = Workflow::read(&row.workflow).unwrap();
        assert_eq!(workflow.state, IncidentState::Investigating);
        workflow.record_investigation(now.millis());
        let causes = vec![Cause::new(Entity::service(key), "cpu-hog", 0.9)];
        let pending = PendingPlan {
            diagnosis: Diagnosis { causes, evidence: vec![], severity: Severity::High, impact: String::new() },
            call: None,
            further_calls: vec![],
            dry_runs: BTreeMap::new(),
            reads,
            choices,
            runbook: "r".into(),
            control: "none".into(),
            watched: vec![],
            number: 0,
        };
        let PlanProgress::Pending(effects) = workflow.request_plan(pending) else { panic!("nothing is asked for") };
        let enqueue = effects.into_iter().map(|effect| responder.new_effect(&tenant, effect, now)).collect();
        let changes = Changes { enqueue, ..Changes::default() };
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

    /// Counts the audit entries of an action.
    async fn audited(&self, action: &str) -> usize {
        let count = AtomicUsize::new(0);
        let is_counted = |_: &AuditEntry| {
            count.fetch_add(1, Ordering::SeqCst);
            false
        };
        self.responder.store.find_audit_entry(action, is_counted).await.unwrap();
        count.load(Ordering::SeqCst)
    }

    async fn effect(&self, key: &str, kind: &str) -> EffectRow {
        let effects = self.responder.store.effects(&TenantId::main(), key).await.unwrap();
        effects.into_iter().find(|effect| effect.kind == kind).unwrap()
    }
}

/// An action of calls of the tool `process`, as (operation, target).
fn choice(steps: &[(&str, &str)]) -> ActionChoice {
    ActionChoice { when: vec![], steps: steps.iter().map(|(operation, target)| call(operation, target)).collect() }
}

fn call(operation: &str, target: &str) -> ToolCall {
    let arguments = serde_json::Map::new();
    ToolCall { tool: "process".into(), operation: operation.into(), target: target.into(), arguments }
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

/// A check chooses the action of two steps; the second one fails, and the first one is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_takes_back_the_one_before() {
    let setup = setup().await;
    let workers = setup.spawn_workers();
    let read = |id: &str, operation: &str| PendingRead {
        check: ReadCheck { id: id.into(), question: "How many are idle?".into(), call: call(operation, "db") },
        result: None,
    };
    let reads = vec![read("idle", "activity"), read("mistaken", "restart")];
    let many = Condition { read: "idle".into(), value: "/idle".into(), comparison: Comparison::Above(50.0) };
    let two = ActionChoice { when: vec![many], ..choice(&[("settings", "web"), ("settings", "queue")]) };
    setup.executor.refused_steps.lock().unwrap().push(1);
    setup.investigate_with("web", reads, vec![two, choice(&[("restart", "web")])]).await;
    let proposed = setup.await_state("web", IncidentState::AwaitingApproval).await;
    let plan = proposed.plan.as_ref().unwrap();
    assert_eq!(plan.describe(), "process settings of web, then process settings of queue");
    let evidence = &proposed.diagnosis.as_ref().unwrap().evidence;
    assert!(evidence[0].summary.contains("idle") && evidence[1].summary.contains("it changes its target"));
    let (row, _) = setup.responder.find_incident(&TenantId::main(), 1).await.unwrap();
    let view = setup.responder.detail(TenantId::main(), row.number).await.unwrap();
    assert_eq!(view.plan.unwrap().steps.len(), 2);
    setup.approve("web").await;
    let ended = setup.await_state("web", IncidentState::Escalated).await;
    assert_eq!((ended.execution, ended.undo), (Some(Outcome::NotApplied), Some(Outcome::Applied)));
    assert_eq!(setup.executor.undone_steps.lock().unwrap().as_slice(), [0]);
    let effects = setup.responder.store.effects(&TenantId::main(), "web").await.unwrap();
    let mut kinds: Vec<&str> = effects.iter().map(|effect| effect.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["dry_run", "dry_run", "execution", "execution", "read", "read", "settle", "undo"]);
    let steps = setup.responder.detail(TenantId::main(), row.number).await.unwrap().plan.unwrap().steps;
    let outcomes: Vec<_> = steps.iter().map(|step| (step.outcome.as_deref(), step.undo.as_deref())).collect();
    assert_eq!(outcomes, [(Some("applied"), Some("applied")), (Some("not_applied"), None)]);
    for (action, count) in [("plan_prepared", 3), ("step_ended", 2)] {
        let found = setup.audited(action).await;
        assert_eq!(found, count, "{action}");
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
