//! Who may undo what, when, and from which state of the target.

use super::*;
use crate::service::execute::Step;

impl TestExecutor {
    /// Approves and executes a plan; returns its hash.
    fn execute_plan(&self, operation: &str) -> String {
        let (_, hash) = self.approve_plan(operation);
        assert_eq!(self.execute(&hash).unwrap().executed, Some(Outcome::Applied));
        hash
    }

    fn settle(&self, hash: &str, proof: &str) -> Result<PlanStatus, RefusalCode> {
        self.request(Request::Settle { plan_sha256: hash.to_owned(), proof: proof.to_owned() })
    }

    /// Calls the target directly, like a person with its credential.
    fn change_by_hand(&self, key: &str, operation: &str, arguments: Value) {
        let arguments = arguments.as_object().cloned().unwrap();
        let call = ToolCall { tool: "process".into(), operation: operation.into(), target: "cart".into(), arguments };
        let state = self.service.tool(&TenantId::main(), &call).unwrap().state(&call).unwrap();
        self.execute_directly(key, &call, &state);
    }

    /// Returns why an undo was refused.
    fn undo_refusal(&self, hash: &str) -> (RefusalCode, String) {
        let undo = Request::Undo { plan_sha256: hash.to_owned(), step: 0, proof: UNDO_SECRET.to_owned() };
        match self.service.handle(undo, Deadline::default()) {
            Response::Refused { code, detail } => (code, detail),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_execution_is_undone_once() {
    let mut executor = TestExecutor::new();
    let hash = executor.execute_plan("rollback");
    let undone = executor.undo(&hash).unwrap();
    assert_eq!((undone.undone, executor.effects()), (Some(Outcome::Applied), 2));
    assert_eq!((executor.undo(&hash).unwrap(), executor.effects()), (undone.clone(), 2));
    executor.restart();
    assert_eq!((executor.undo(&hash).unwrap(), executor.effects()), (undone, 2), "the ledger is read again");
}

#[test]
fn an_undo_needs_the_secret_of_its_approval_or_an_approver() {
    let mut executor = TestExecutor::new();
    let hash = executor.execute_plan("settings");
    let other = executor.approve_plan("restart").1;
    for proof in ["", "null", &sha256_hex(UNDO_SECRET.as_bytes()), OTHER_TOKEN, &hash, &other] {
        assert_eq!(executor.undo_with(&hash, proof), Err(RefusalCode::NotAnApprover), "{proof}");
        assert_eq!(executor.settle(&hash, proof), Err(RefusalCode::NotAnApprover), "{proof}");
    }
    // The approval is no authority once its approver is none; another approver is.
    executor.configure(&["bob"], 0o600);
    assert_eq!(executor.undo(&hash), Err(RefusalCode::NotAnApprover));
    assert_eq!(executor.undo_with(&hash, APPROVER_TOKEN), Err(RefusalCode::NotAnApprover));
    executor.restart();
    assert_eq!(executor.effects(), 1);
    let undone = executor.undo_with(&hash, "another token").unwrap();
    assert_eq!((undone.undone, executor.effects()), (Some(Outcome::Applied), 2));
    let ledger = std::fs::read_to_string(executor.dir.path().join("executor/ledger.jsonl")).unwrap();
    assert!(
        ledger.lines().any(|line| line.contains("undo_started") && line.contains("\"principal\":\"bob\"")),
        "{ledger}"
    );
    assert!(!ledger.contains(UNDO_SECRET) && !ledger.contains("another token"), "{ledger}");
}

#[test]
fn an_undo_is_refused_after_the_incident_is_settled_or_the_time_is_over() {
    let mut executor = TestExecutor::new();
    let hash = executor.execute_plan("settings");
    executor.settle(&hash, UNDO_SECRET).unwrap();
    executor.settle(&hash, UNDO_SECRET).unwrap();
    executor.restart();
    assert_eq!(executor.undo(&hash), Err(RefusalCode::Expired));
    assert_eq!(executor.undo_with(&hash, APPROVER_TOKEN), Err(RefusalCode::Expired), "an approver, too");
    let hash = executor.execute_plan("rollback");
    // As if it had been executed 61 minutes ago.
    executor
        .service
        .ledger()
        .append(Entry::Finished {
            version: FORMAT_VERSION,
            at: clock::now().minus(61 * MINUTE),
            plan_sha256: hash.clone(),
            plan_step: 0,
            outcome: Outcome::Applied,
            detail: String::new(),
            state: None,
        })
        .unwrap();
    let (code, detail) = executor.undo_refusal(&hash);
    assert!(code == RefusalCode::Expired && detail.contains("60 min"), "{detail}");
    assert_eq!(executor.effects(), 2);
    assert_eq!(executor.settle("unknown", UNDO_SECRET), Err(RefusalCode::NotApproved));
}

#[test]
fn an_undo_does_not_overwrite_what_somebody_changed_since() {
    let mut executor = TestExecutor::new();
    let hash = executor.execute_plan("settings");
    executor.change_by_hand("by-hand", "settings", json!({ "key": "pool_size", "value": 12 }));
    let (code, detail) = executor.undo_refusal(&hash);
    assert_eq!(code, RefusalCode::Stale);
    assert!(detail.contains("pool_size=7") && detail.contains("pool_size=12"), "what differs: {detail}");
    // The same setting, set to the same value again, by another person; a restart; after a crash of the executor.
    let hash = executor.execute_plan("settings");
    executor.change_by_hand("again", "settings", json!({ "key": "pool_size", "value": 7 }));
    assert_eq!(executor.undo_refusal(&hash).0, RefusalCode::Stale);
    let hash = executor.execute_plan("rollback");
    executor.change_by_hand("restarted", "restart", json!({}));
    executor.restart();
    assert_eq!(executor.undo_refusal(&hash).0, RefusalCode::Stale);
    assert_eq!(executor.effects(), 6);
}

/// Plans that were executed before the ledger recorded the state after the action.
#[test]
fn an_undo_is_refused_if_the_state_after_the_action_is_unknown() {
    let mut executor = TestExecutor::new();
    let (plan, hash) = executor.approve_plan("rollback");
    executor.execute_directly(&plan.idempotency_key().unwrap(), &plan.call, &plan.dry_run.precondition);
    let (plan_sha256, outcome, detail) = (hash.clone(), Outcome::Applied, String::new());
    let entry =
        Entry::Finished { version: 1, at: clock::now(), plan_sha256, plan_step: 0, outcome, detail, state: None };
    executor.service.ledger().append(entry).unwrap();
    executor.restart();
    let (code, detail) = executor.undo_refusal(&hash);
    assert!(code == RefusalCode::Stale && detail.contains("a person must check"), "{detail}");
    assert_eq!(executor.effects(), 1);
}

/// A person changes the target between the start of a retried step and its repetition.
#[test]
fn a_retry_after_a_crash_checks_the_whole_state_again() {
    let mut executor = TestExecutor::new();
    let (plan, hash) = executor.approve_plan("settings");
    let precondition = plan.dry_run.precondition.replace("pool_size=", "pool_size=1");
    let key = plan.idempotency_key().unwrap();
    // The last operation is the one of the plan, so the call was not applied; but the value is another one.
    let tool = executor.service.tool(&TenantId::main(), &plan.call).unwrap();
    let (tool, call) = (tool.as_ref(), &plan.call);
    let step =
        Step { plan_sha256: &hash, tool, crash_point: "adapter:execute", call, precondition: &precondition, key: &key };
    let applied = executor.service.recover(&step, || Ok(())).unwrap();
    assert_eq!((applied.outcome, executor.effects()), (Outcome::NotApplied, 0));
    assert!(applied.detail.contains("stale"), "{}", applied.detail);
    executor.crash_after_start(&plan, &hash);
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
}
