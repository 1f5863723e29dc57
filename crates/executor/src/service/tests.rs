//! Every reason to say no, and what is done after a crash, against the shop's real supervisor.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{TenantId, Timestamp};
use wardroom_testing::Shop;

use super::*;

const TOKEN: &str = "alice's token";

struct World {
    shop: Shop,
    service: Service,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shop = Shop::start(&dir.path().join("shop"), &["--deploy", "cart", "--deploy-at", "0s"]).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let config = dir.path().join("executor.yaml");
        let service = Service::open(&dir.path().join("executor"), &config).unwrap();
        let world = Self { shop, service, dir };
        world.configure(&["alice", "bob"], 0o600);
        world
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("executor.yaml")
    }

    /// Alice's token is her own; everybody's else is nobody's.
    fn configure(&self, approvers: &[&str], mode: u32) {
        let approver = |name: &&str| {
            let token = if *name == "alice" { TOKEN } else { "another token" };
            json!({ "principal": name, "tenant": "main", "token-sha256": sha256_hex(token.as_bytes()) })
        };
        let target = json!({ "tool": "process", "name": "cart", "url": self.shop.control, "token": "control" });
        let approvers: Vec<Value> = approvers.iter().map(approver).collect();
        let text = json!({ "approvers": approvers, "targets": [target] }).to_string();
        std::fs::write(self.config(), text).unwrap();
        std::fs::set_permissions(self.config(), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The process ends and another one takes over.
    fn restart(&mut self) {
        self.service = Service::open(&self.dir.path().join("executor"), &self.config()).unwrap();
    }

    fn plan(&self, operation: &str, expires_in: Duration) -> Plan {
        let call = ToolCall {
            tool: "process".into(),
            operation: operation.into(),
            target: "cart".into(),
            arguments: serde_json::Map::new(),
        };
        let Response::DryRun { dry_run } = self.service.answer(Request::DryRun { call: call.clone() }) else {
            panic!("no dry run of {operation}")
        };
        Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call,
            dry_run,
            runbook: "r".into(),
            control: "none".into(),
            expires_at: clock::now().plus(expires_in),
        }
    }

    fn authorize(&self, plan: &Plan, plan_sha256: &str, proof: &str) -> Result<PlanStatus, RefusalCode> {
        let (plan, plan_sha256, proof) = (Box::new(plan.clone()), plan_sha256.to_owned(), proof.to_owned());
        self.ask(Request::Authorize { plan, plan_sha256, proof })
    }

    /// A plan that alice has approved; its hash.
    fn approved(&self, operation: &str) -> (Plan, String) {
        let plan = self.plan(operation, MINUTE);
        let hash = plan.sha256().unwrap();
        let status = self.authorize(&plan, &hash, TOKEN).unwrap();
        assert_eq!(status.approved_by.unwrap().as_str(), "alice");
        (plan, hash)
    }

    fn execute(&self, hash: &str) -> Result<PlanStatus, RefusalCode> {
        self.ask(Request::Execute { plan_sha256: hash.to_owned() })
    }

    fn undo(&self, hash: &str) -> Result<PlanStatus, RefusalCode> {
        self.ask(Request::Undo { plan_sha256: hash.to_owned() })
    }

    fn ask(&self, request: Request) -> Result<PlanStatus, RefusalCode> {
        match self.service.answer(request) {
            Response::Status { status } => Ok(status),
            Response::Refused { code, detail } => {
                assert!(!detail.is_empty());
                Err(code)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Something that somebody else does.
    fn meddle(&self, key: &str, call: &ToolCall, precondition: &str) {
        let tools = wardroom_tools::tools(&ExecutorConfig::load(&self.config()).unwrap().targets);
        let done = tools[0].execute(call, precondition, key).unwrap();
        assert_eq!(done.outcome, Outcome::Applied);
    }

    /// Died between noting that the adapter is about to be called and its answer.
    fn started(&mut self, plan: &Plan, hash: &str) {
        let key = plan.idempotency_key().unwrap();
        let entry = Entry::Started { v: V, at: clock::now(), plan_sha256: hash.to_owned(), key };
        self.service.ledger().write(entry).unwrap();
        self.restart();
    }

    fn effects(&self) -> usize {
        self.shop.effects_since(Timestamp::default()).unwrap().len()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_approval_is_checked_before_it_counts_and_counts_once() {
    let world = World::new();
    assert!(matches!(world.service.answer(Request::Ping), Response::Pong));
    let plan = world.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    assert_eq!(world.execute(&hash), Err(RefusalCode::NotApproved));
    assert_eq!(world.undo(&hash), Err(RefusalCode::NotApproved));
    for wrong in ["", "another", TOKEN.trim_start_matches("a"), &sha256_hex(TOKEN.as_bytes())] {
        assert_eq!(world.authorize(&plan, &hash, wrong), Err(RefusalCode::NotAnApprover), "{wrong}");
    }
    let elsewhere = Plan { tenant: TenantId::new("other").unwrap(), ..plan.clone() };
    let refused = world.authorize(&elsewhere, &elsewhere.sha256().unwrap(), TOKEN);
    assert_eq!(refused, Err(RefusalCode::NotAnApprover), "of another tenant");
    let other = Plan { control: "mail".into(), ..plan.clone() };
    assert_eq!(world.authorize(&other, &hash, TOKEN), Err(RefusalCode::HashMismatch));
    let late = world.plan("restart", Duration::ZERO);
    assert_eq!(world.authorize(&late, &late.sha256().unwrap(), TOKEN), Err(RefusalCode::Expired));
    let mut unknown = plan.clone();
    unknown.call.tool = "shell".into();
    assert_eq!(world.authorize(&unknown, &unknown.sha256().unwrap(), TOKEN), Err(RefusalCode::Invalid));
    world.configure(&["alice"], 0o640);
    assert_eq!(world.authorize(&plan, &hash, TOKEN), Err(RefusalCode::Unavailable), "others may read the file");
    world.configure(&["alice"], 0o600);
    assert_eq!(world.ask(Request::Status { plan_sha256: hash.clone() }), Ok(PlanStatus::default()));

    let status = world.authorize(&plan, &hash, TOKEN).unwrap();
    assert_eq!(status.approved_by.unwrap().as_str(), "alice");
    assert_eq!(world.authorize(&plan, &hash, TOKEN), Err(RefusalCode::AlreadyUsed));
    assert_eq!(world.undo(&hash), Err(RefusalCode::Invalid), "nothing was done yet");
    assert_eq!(world.effects(), 0);
    let done = world.execute(&hash).unwrap();
    assert_eq!((done.executed, world.effects()), (Some(Outcome::Applied), 1));
    assert_eq!(done.idempotency_key, Some(plan.idempotency_key().unwrap()));
    assert_eq!((world.execute(&hash).unwrap(), world.effects()), (done, 1), "asked again");
    assert_eq!(world.authorize(&plan, &hash, TOKEN), Err(RefusalCode::AlreadyUsed));
    assert_eq!(world.undo(&hash), Err(RefusalCode::Invalid), "a restart has no way back");
}

#[test]
fn what_was_done_is_taken_back_once() {
    let mut world = World::new();
    let (_, hash) = world.approved("rollback");
    world.execute(&hash).unwrap();
    let back = world.undo(&hash).unwrap();
    assert_eq!((back.undone, world.effects()), (Some(Outcome::Applied), 2));
    assert_eq!((world.undo(&hash).unwrap(), world.effects()), (back.clone(), 2));
    world.restart();
    assert_eq!((world.undo(&hash).unwrap(), world.effects()), (back, 2), "the ledger remembers");
}

#[test]
fn a_target_that_moved_is_left_alone() {
    let world = World::new();
    let (plan, hash) = world.approved("restart");
    world.meddle("somebody", &plan.call, &plan.dry_run.precondition);
    let status = world.execute(&hash).unwrap();
    assert_eq!((status.executed, world.effects()), (Some(Outcome::NotApplied), 1));
    assert!(status.detail.contains("stale"), "{}", status.detail);
}

#[test]
fn authority_and_expiry_are_checked_again() {
    let world = World::new();
    let (_, hash) = world.approved("restart");
    world.configure(&["bob"], 0o600);
    assert_eq!(world.execute(&hash), Err(RefusalCode::NotAnApprover));
    world.configure(&["alice"], 0o600);
    let short = world.plan("restart", Duration::from_secs(1));
    let hash = short.sha256().unwrap();
    world.authorize(&short, &hash, TOKEN).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(world.execute(&hash), Err(RefusalCode::Expired));
    assert_eq!(world.effects(), 0);
}

#[test]
fn after_a_crash_the_target_is_asked_first() {
    let mut world = World::new();
    // It died before the call: done now, under the same key.
    let (plan, hash) = world.approved("restart");
    world.started(&plan, &hash);
    let status = world.execute(&hash).unwrap();
    assert_eq!((status.executed, world.effects()), (Some(Outcome::Applied), 1));
    // It died after the call: found, and not done again.
    let (plan, hash) = world.approved("rollback");
    world.meddle(&plan.idempotency_key().unwrap(), &plan.call, &plan.dry_run.precondition);
    world.started(&plan, &hash);
    let status = world.execute(&hash).unwrap();
    assert_eq!((status.executed, world.effects()), (Some(Outcome::Applied), 2));
    // The same on the way back.
    let undo = plan.dry_run.undo.clone().unwrap();
    let key = format!("{}-undo", plan.idempotency_key().unwrap());
    let precondition = world.service.tool(&undo).unwrap().state(&undo).unwrap();
    let entry = Entry::UndoStarted {
        v: V,
        at: clock::now(),
        plan_sha256: hash.clone(),
        key: key.clone(),
        precondition: precondition.clone(),
    };
    world.service.ledger().write(entry).unwrap();
    world.meddle(&key, &undo, &precondition);
    world.restart();
    let status = world.undo(&hash).unwrap();
    assert_eq!((status.undone, world.effects()), (Some(Outcome::Applied), 3));
    // Somebody else came between: nobody can say, and nothing is done.
    let (plan, hash) = world.approved("restart");
    world.meddle("somebody", &plan.call, &plan.dry_run.precondition);
    world.started(&plan, &hash);
    let status = world.execute(&hash).unwrap();
    assert_eq!((status.executed, world.effects()), (Some(Outcome::Unknown), 4));
    assert!(status.detail.contains("a person must look"), "{}", status.detail);
}

#[test]
fn what_did_not_happen_before_a_crash_needs_leave_to_happen_after_it() {
    let mut world = World::new();
    let (plan, hash) = world.approved("restart");
    world.started(&plan, &hash);
    world.configure(&["bob"], 0o600);
    assert_eq!((world.execute(&hash), world.effects()), (Err(RefusalCode::NotAnApprover), 0));
}
