//! Tests of every refusal and of recovery after a crash, against the shop's real supervisor.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{Outcome, Plan, TenantId, Timestamp, ToolCall};
use wardroom_process::clock;
use wardroom_respond::Run;
use wardroom_testing::Shop;

mod asynchronous;
mod compromised_server;
mod steps;
mod undo;

use super::*;
use crate::ledger::{Entry, FORMAT_VERSION};

/// Longest time until a plan expires.
const MAX_PLAN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

const APPROVER_TOKEN: &str = "alice's token";
/// The token of the approver of tenant `other`, who owns the target `billing`.
const OTHER_TOKEN: &str = "oscar's token";
/// What the server keeps to prove that an approval is its own.
const UNDO_SECRET: &str = "the server's secret";

struct TestExecutor {
    shop: Shop,
    service: Arc<Service>,
    dir: tempfile::TempDir,
}

impl TestExecutor {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shop = Shop::start(&dir.path().join("shop"), &["--deploy", "cart", "--deploy-at", "0s"]).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let config = dir.path().join("executor.yaml");
        let service = Arc::new(Service::open(&dir.path().join("executor"), &config).unwrap());
        let executor = Self { shop, service, dir };
        executor.configure(&["alice", "bob"], 0o600);
        executor
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("executor.yaml")
    }

    /// Writes the configuration; only alice has a token that the tests use.
    fn configure(&self, approvers: &[&str], mode: u32) {
        let approver = |name: &&str| {
            let token = if *name == "alice" { APPROVER_TOKEN } else { "another token" };
            token_approver(name, "main", token)
        };
        let approvers: Vec<Value> = approvers.iter().map(approver).collect();
        self.write_config(json!({ "approvers": approvers, "targets": self.targets() }), mode);
    }

    fn targets(&self) -> Vec<Value> {
        let target = |name: &str, tenant: &str| {
            let url = &self.shop.control;
            json!({ "tool": "process", "name": name, "tenant": tenant, "url": url, "token": "control" })
        };
        vec![target("cart", "main"), target("billing", "other")]
    }

    fn write_config(&self, mut config: Value, mode: u32) {
        let oscar = token_approver("oscar", "other", OTHER_TOKEN);
        config["approvers"].as_array_mut().unwrap().push(oscar);
        std::fs::write(self.config(), config.to_string()).unwrap();
        std::fs::set_permissions(self.config(), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Opens the ledger again, like a new process.
    fn restart(&mut self) {
        self.service = Arc::new(Service::open(&self.dir.path().join("executor"), &self.config()).unwrap());
    }

    fn plan(&self, operation: &str, expires_in: Duration) -> Plan {
        let arguments = match operation {
            "settings" => json!({ "key": "pool_size", "value": 7 }).as_object().cloned().unwrap(),
            _ => serde_json::Map::new(),
        };
        let call = ToolCall { tool: "process".into(), operation: operation.into(), target: "cart".into(), arguments };
        let dry_run = Request::DryRun { tenant: TenantId::main(), call: call.clone() };
        let Response::DryRun { dry_run } = self.service.handle(dry_run, Deadline::default()) else {
            panic!("no dry run of {operation}")
        };
        Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call,
            dry_run,
            further_steps: Vec::new(),
            runbook: "r".into(),
            control: "none".into(),
            expires_at: clock::now().plus(expires_in),
        }
    }

    fn authorize(&self, plan: &Plan, plan_sha256: &str, proof: &str) -> Result<PlanStatus, RefusalCode> {
        let (plan, plan_sha256, proof) = (Box::new(plan.clone()), plan_sha256.to_owned(), proof.to_owned());
        let undo_sha256 = Some(sha256_hex(UNDO_SECRET.as_bytes()));
        self.request(Request::Authorize { plan, plan_sha256, proof, undo_sha256 })
    }

    /// Sends a request whose deadline has passed, as an executor that was stopped would read it.
    fn request_too_late(&self, request: Request) -> (RefusalCode, String) {
        let deadline = Deadline(Some(clock::now().minus(Duration::from_millis(1))));
        match self.service.handle(request, deadline) {
            Response::Refused { code, detail } => (code, detail),
            other => panic!("{other:?}"),
        }
    }

    /// Makes a plan that alice approves, and returns it with its hash.
    fn approve_plan(&self, operation: &str) -> (Plan, String) {
        let plan = self.plan(operation, MINUTE);
        let hash = plan.sha256().unwrap();
        let status = self.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
        assert_eq!(status.approved_by.unwrap().as_str(), "alice");
        (plan, hash)
    }

    fn execute(&self, hash: &str) -> Result<PlanStatus, RefusalCode> {
        self.request(Request::Execute { plan_sha256: hash.to_owned(), step: 0 })
    }

    fn undo(&self, hash: &str) -> Result<PlanStatus, RefusalCode> {
        self.undo_with(hash, UNDO_SECRET)
    }

    fn undo_with(&self, hash: &str, proof: &str) -> Result<PlanStatus, RefusalCode> {
        self.request(Request::Undo { plan_sha256: hash.to_owned(), step: 0, proof: proof.to_owned() })
    }

    fn request(&self, request: Request) -> Result<PlanStatus, RefusalCode> {
        match self.service.handle(request, Deadline::default()) {
            Response::Status { status } => Ok(status),
            Response::Refused { code, detail } => {
                assert!(!detail.is_empty());
                Err(code)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Executes a call directly on the target, bypassing the executor.
    fn execute_directly(&self, key: &str, call: &ToolCall, precondition: &str) {
        let tool = self.service.tool(&TenantId::main(), call).unwrap();
        let done = tool.execute(call, &Run::new(precondition, key)).unwrap();
        assert_eq!(done.outcome, Outcome::Applied);
    }

    /// Simulates a crash between the ledger entry before the adapter call and its result.
    fn crash_after_start(&mut self, plan: &Plan, hash: &str) {
        let key = plan.idempotency_key().unwrap();
        let entry = Entry::Started {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: hash.to_owned(),
            plan_step: 0,
            key,
        };
        self.service.ledger().append(entry).unwrap();
        self.restart();
    }

    fn effects(&self) -> usize {
        self.shop.effects_since(Timestamp::default()).unwrap().len()
    }
}

/// An approver in the weak mode.
fn token_approver(principal: &str, tenant: &str, token: &str) -> Value {
    let hash = sha256_hex(token.as_bytes());
    json!({ "principal": principal, "tenant": tenant, "proof": "token", "token-sha256": hash })
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn verifies_an_approval_and_accepts_it_once() {
    let executor = TestExecutor::new();
    assert!(matches!(executor.service.handle(Request::Ping, Deadline::default()), Response::Pong { .. }));
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    assert_eq!(executor.execute(&hash), Err(RefusalCode::NotApproved));
    assert_eq!(executor.undo(&hash), Err(RefusalCode::NotApproved));
    assert_eq!(executor.authorize(&plan, &hash, ""), Err(RefusalCode::NotApproved), "the policy asks a person");
    for wrong in ["another", APPROVER_TOKEN.trim_start_matches("a"), &sha256_hex(APPROVER_TOKEN.as_bytes())] {
        assert_eq!(executor.authorize(&plan, &hash, wrong), Err(RefusalCode::NotAnApprover), "{wrong}");
    }
    let other_tenant = Plan { tenant: TenantId::new("other").unwrap(), ..plan.clone() };
    let refused = executor.authorize(&other_tenant, &other_tenant.sha256().unwrap(), APPROVER_TOKEN);
    assert_eq!(refused, Err(RefusalCode::NotAnApprover), "of another tenant");
    let other = Plan { control: "mail".into(), ..plan.clone() };
    assert_eq!(executor.authorize(&other, &hash, APPROVER_TOKEN), Err(RefusalCode::HashMismatch));
    let late = executor.plan("restart", Duration::ZERO);
    assert_eq!(executor.authorize(&late, &late.sha256().unwrap(), APPROVER_TOKEN), Err(RefusalCode::Expired));
    let mut unknown = plan.clone();
    unknown.call.tool = "shell".into();
    assert_eq!(executor.authorize(&unknown, &unknown.sha256().unwrap(), APPROVER_TOKEN), Err(RefusalCode::Invalid));
    let long = executor.plan("restart", MAX_PLAN_LIFETIME + MINUTE);
    assert_eq!(executor.authorize(&long, &long.sha256().unwrap(), APPROVER_TOKEN), Err(RefusalCode::Invalid));
    let newer = Plan { version: 2, ..plan.clone() };
    assert_eq!(executor.authorize(&newer, &newer.sha256().unwrap(), APPROVER_TOKEN), Err(RefusalCode::Invalid));
    executor.configure(&["alice"], 0o640);
    assert_eq!(
        executor.authorize(&plan, &hash, APPROVER_TOKEN),
        Err(RefusalCode::Unavailable),
        "the file is readable by others"
    );
    executor.configure(&["alice"], 0o600);
    assert_eq!(executor.request(Request::Status { plan_sha256: hash.clone(), step: 0 }), Ok(PlanStatus::default()));

    let status = executor.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
    assert_eq!(status.approved_by.unwrap().as_str(), "alice");
    assert_eq!(executor.authorize(&plan, &hash, APPROVER_TOKEN), Err(RefusalCode::AlreadyUsed));
    assert_eq!(executor.undo(&hash), Err(RefusalCode::Invalid), "not executed yet");
    assert_eq!(executor.effects(), 0);
    let done = executor.execute(&hash).unwrap();
    assert_eq!((done.executed, executor.effects()), (Some(Outcome::Applied), 1));
    assert_eq!(done.idempotency_key, Some(plan.idempotency_key().unwrap()));
    assert_eq!((executor.execute(&hash).unwrap(), executor.effects()), (done, 1), "a second request");
    assert_eq!(executor.authorize(&plan, &hash, APPROVER_TOKEN), Err(RefusalCode::AlreadyUsed));
    assert_eq!(executor.undo(&hash), Err(RefusalCode::Invalid), "a restart cannot be undone");
}

#[test]
fn refuses_a_target_that_changed_since_the_plan() {
    let executor = TestExecutor::new();
    let (plan, hash) = executor.approve_plan("restart");
    executor.execute_directly("other", &plan.call, &plan.dry_run.precondition);
    let status = executor.execute(&hash).unwrap();
    assert_eq!((status.executed, executor.effects()), (Some(Outcome::NotApplied), 1));
    assert!(status.detail.contains("stale"), "{}", status.detail);
}

#[test]
fn checks_authority_and_expiry_before_execution() {
    let executor = TestExecutor::new();
    let (_, hash) = executor.approve_plan("restart");
    executor.configure(&["bob"], 0o600);
    assert_eq!(executor.execute(&hash), Err(RefusalCode::NotAnApprover));
    executor.configure(&["alice"], 0o600);
    let short = executor.plan("restart", Duration::from_secs(1));
    let hash = short.sha256().unwrap();
    executor.authorize(&short, &hash, APPROVER_TOKEN).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(executor.execute(&hash), Err(RefusalCode::Expired));
    assert_eq!(executor.effects(), 0);
}

#[test]
fn probes_the_target_before_retrying_after_a_crash() {
    let mut executor = TestExecutor::new();
    // Killed before the call: executed now with the same key.
    let (plan, hash) = executor.approve_plan("restart");
    executor.crash_after_start(&plan, &hash);
    let status = executor.execute(&hash).unwrap();
    assert_eq!((status.executed, executor.effects()), (Some(Outcome::Applied), 1));
    // Killed after the call: found applied and not repeated.
    let (plan, hash) = executor.approve_plan("rollback");
    executor.execute_directly(&plan.idempotency_key().unwrap(), &plan.call, &plan.dry_run.precondition);
    executor.crash_after_start(&plan, &hash);
    let status = executor.execute(&hash).unwrap();
    assert_eq!((status.executed, executor.effects()), (Some(Outcome::Applied), 2));
    // The same for an undo.
    let undo = plan.dry_run.undo.clone().unwrap();
    let key = format!("{}-undo", plan.idempotency_key().unwrap());
    let precondition = executor.service.tool(&TenantId::main(), &undo).unwrap().state(&undo).unwrap();
    let entry = Entry::UndoStarted {
        version: FORMAT_VERSION,
        at: clock::now(),
        plan_sha256: hash.clone(),
        plan_step: 0,
        key: key.clone(),
        precondition: precondition.clone(),
        principal: None,
    };
    executor.service.ledger().append(entry).unwrap();
    executor.execute_directly(&key, &undo, &precondition);
    executor.restart();
    let status = executor.undo(&hash).unwrap();
    assert_eq!((status.undone, executor.effects()), (Some(Outcome::Applied), 3));
    // Another change came in between: the outcome is unknown and nothing is executed.
    let (plan, hash) = executor.approve_plan("restart");
    executor.execute_directly("other", &plan.call, &plan.dry_run.precondition);
    executor.crash_after_start(&plan, &hash);
    let status = executor.execute(&hash).unwrap();
    assert_eq!((status.executed, executor.effects()), (Some(Outcome::Unknown), 4));
    assert!(status.detail.contains("a person must check"), "{}", status.detail);
}

#[test]
fn retry_after_a_crash_needs_a_valid_approval() {
    let mut executor = TestExecutor::new();
    let (plan, hash) = executor.approve_plan("restart");
    executor.crash_after_start(&plan, &hash);
    executor.configure(&["bob"], 0o600);
    assert_eq!((executor.execute(&hash), executor.effects()), (Err(RefusalCode::NotAnApprover), 0));
}

#[test]
fn a_target_is_reached_by_its_own_tenant_only() {
    let executor = TestExecutor::new();
    let other = TenantId::new("other").unwrap();
    let plan = executor.plan("restart", MINUTE);
    // Each tenant's approver approves a plan of their own tenant, which names the other's target.
    let of_other = Plan { tenant: other.clone(), ..plan.clone() };
    let mut of_main = plan.clone();
    of_main.call.target = "billing".into();
    for (plan, token) in [(&of_other, OTHER_TOKEN), (&of_main, APPROVER_TOKEN)] {
        let dry_run = Request::DryRun { tenant: plan.tenant.clone(), call: plan.call.clone() };
        let Response::Refused { code, detail } = executor.service.handle(dry_run, Deadline::default()) else {
            panic!("not refused")
        };
        assert_eq!(code, RefusalCode::Invalid);
        assert!(detail.contains("is not declared for this tenant") && !detail.contains("control"), "{detail}");
        assert_eq!(executor.authorize(plan, &plan.sha256().unwrap(), token), Err(RefusalCode::Invalid));
    }
    // A plan whose undo acts on something else, of another tenant or of the same.
    let mut rollback = executor.plan("rollback", MINUTE);
    rollback.dry_run.undo.as_mut().unwrap().target = "billing".into();
    assert_eq!(executor.authorize(&rollback, &rollback.sha256().unwrap(), APPROVER_TOKEN), Err(RefusalCode::Invalid));
    // The target goes to another tenant after the approval.
    let (_, hash) = executor.approve_plan("restart");
    let mut targets = executor.targets();
    targets[0]["tenant"] = json!("other");
    let alice = token_approver("alice", "main", APPROVER_TOKEN);
    executor.write_config(json!({ "approvers": [alice], "targets": targets }), 0o600);
    assert_eq!(executor.execute(&hash), Err(RefusalCode::Invalid));
    assert_eq!(executor.effects(), 0);
}

/// What a plan says about its effect, its undo and its risk is the executor's own word, not the server's.
#[test]
fn a_plan_that_the_executor_did_not_make_is_not_executed() {
    let executor = TestExecutor::new();
    let spoil: [fn(&mut DryRun); 4] = [
        |dry_run| dry_run.diff = "nothing happens".into(),
        |dry_run| dry_run.risk = "low".into(),
        |dry_run| dry_run.blast_radius = String::new(),
        |dry_run| {
            let undo = dry_run.undo.as_mut().unwrap();
            undo.operation = "settings".into();
            undo.arguments = json!({ "key": "pool_size", "value": 1 }).as_object().cloned().unwrap();
        },
    ];
    for spoil in spoil {
        let mut plan = executor.plan("rollback", MINUTE);
        spoil(&mut plan.dry_run);
        let hash = plan.sha256().unwrap();
        executor.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
        let status = executor.execute(&hash).unwrap();
        assert_eq!((status.executed, executor.effects()), (Some(Outcome::NotApplied), 0), "{:?}", plan.dry_run);
        assert!(status.detail.contains("stale"), "{}", status.detail);
    }
}

#[test]
fn a_target_has_a_limited_number_of_actions_an_hour() {
    let executor = TestExecutor::new();
    let mut targets = executor.targets();
    targets[0]["actions-per-hour"] = json!(1);
    let alice = token_approver("alice", "main", APPROVER_TOKEN);
    executor.write_config(json!({ "approvers": [alice], "targets": targets }), 0o600);
    let (_, hash) = executor.approve_plan("rollback");
    let done = executor.execute(&hash).unwrap();
    assert_eq!((done.executed, executor.effects()), (Some(Outcome::Applied), 1), "{}", done.detail);
    let (_, second) = executor.approve_plan("restart");
    assert_eq!((executor.execute(&second), executor.effects()), (Err(RefusalCode::RateLimited), 1));
    assert_eq!((executor.execute(&hash).unwrap().executed, executor.effects()), (Some(Outcome::Applied), 1));
}

/// Regression: an approval was carried out after the server had answered that the executor did not respond.
#[test]
fn nothing_is_done_after_the_deadline_of_a_request() {
    let executor = TestExecutor::new();
    let plan = executor.plan("rollback", MINUTE);
    let plan_sha256 = plan.sha256().unwrap();
    let authorize = Request::Authorize {
        plan: Box::new(plan.clone()),
        plan_sha256: plan_sha256.clone(),
        proof: APPROVER_TOKEN.to_owned(),
        undo_sha256: None,
    };
    let refused = |request: Request| {
        let (code, detail) = executor.request_too_late(request);
        assert!(code == RefusalCode::Unavailable && detail.contains("nothing was done"), "{detail}");
    };
    refused(authorize);
    assert_eq!(executor.execute(&plan_sha256), Err(RefusalCode::NotApproved), "the late approval is not recorded");
    executor.authorize(&plan, &plan_sha256, APPROVER_TOKEN).unwrap();
    refused(Request::Execute { plan_sha256: plan_sha256.clone(), step: 0 });
    assert_eq!(executor.effects(), 0);
    assert_eq!(executor.execute(&plan_sha256).unwrap().executed, Some(Outcome::Applied));
    refused(Request::Undo { plan_sha256, step: 0, proof: APPROVER_TOKEN.to_owned() });
    assert_eq!(executor.effects(), 1);
}
