//! Plans of several steps: order, keys, undo in reverse order, and recovery of each.

use wardroom_domain::PlanStep;

use super::*;

/// The target of the second step.
const SECOND: &str = "queue";

impl TestExecutor {
    /// Declares both targets for the tenant.
    fn with_two_targets() -> Self {
        let executor = Self::new();
        let mut targets = executor.targets();
        let url = &executor.shop.control;
        targets.push(json!({ "tool": "process", "name": SECOND, "url": url, "token": "control" }));
        let alice = token_approver("alice", "main", APPROVER_TOKEN);
        executor.write_config(json!({ "approvers": [alice], "targets": targets }), 0o600);
        executor
    }

    /// Makes a plan that changes a setting of both targets.
    fn plan_of_two(&self, expires_in: Duration) -> Plan {
        let plan = self.plan("settings", expires_in);
        let call = ToolCall { target: SECOND.into(), ..plan.call.clone() };
        let Response::DryRun { dry_run } =
            self.service.handle(Request::DryRun { tenant: TenantId::main(), call: call.clone() }, Deadline::default())
        else {
            panic!("no dry run of the second step")
        };
        Plan { version: 2, further_steps: vec![PlanStep { call, dry_run }], ..plan }
    }

    fn approve_two(&self) -> (Plan, String) {
        let plan = self.plan_of_two(MINUTE);
        let hash = plan.sha256().unwrap();
        self.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
        (plan, hash)
    }

    fn execute_step(&self, hash: &str, step: u32) -> Result<PlanStatus, RefusalCode> {
        self.request(Request::Execute { plan_sha256: hash.to_owned(), step })
    }

    fn undo_step(&self, hash: &str, step: u32) -> Result<PlanStatus, RefusalCode> {
        self.request(Request::Undo { plan_sha256: hash.to_owned(), step, proof: UNDO_SECRET.to_owned() })
    }

    /// Changes the second target beside the executor.
    fn change_second(&self, plan: &Plan, key: &str) {
        let call = &plan.further_steps[0].call;
        let state = self.service.tool(&TenantId::main(), call).unwrap().state(call).unwrap();
        self.execute_directly(key, call, &state);
    }
}

#[test]
fn steps_run_in_order_with_keys_of_their_own_and_are_undone_in_reverse() {
    let mut executor = TestExecutor::with_two_targets();
    let (plan, hash) = executor.approve_two();
    assert_eq!(executor.execute_step(&hash, 1), Err(RefusalCode::Invalid), "before the first one");
    assert_eq!(executor.execute_step(&hash, 2), Err(RefusalCode::Invalid), "there is none");
    let first = executor.execute_step(&hash, 0).unwrap();
    assert_eq!((first.executed, first.idempotency_key), (Some(Outcome::Applied), Some(plan.step_key(0).unwrap())));
    executor.restart();
    let second = executor.execute_step(&hash, 1).unwrap();
    assert_eq!((second.executed, second.idempotency_key), (Some(Outcome::Applied), Some(plan.step_key(1).unwrap())));
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::Applied), "once");
    assert_eq!(executor.effects(), 2);
    assert_eq!(executor.undo_step(&hash, 0), Err(RefusalCode::Invalid), "the second one comes first");
    assert_eq!(executor.undo_step(&hash, 1).unwrap().undone, Some(Outcome::Applied));
    executor.restart();
    assert_eq!(executor.execute_step(&hash, 1).unwrap().undone, Some(Outcome::Applied), "not executed again");
    assert_eq!(executor.undo_step(&hash, 0).unwrap().undone, Some(Outcome::Applied));
    assert_eq!(executor.effects(), 4);
    let keys: Vec<String> = executor.shop.effects_since(Timestamp::default()).unwrap();
    let expected = [0, 1].map(|step| plan.step_key(step).unwrap());
    assert_eq!(keys[..2], expected);
    assert_eq!(keys[2..], [format!("{}-undo", expected[1]), format!("{}-undo", expected[0])]);
}

#[test]
fn every_step_is_covered_by_the_approval() {
    let executor = TestExecutor::with_two_targets();
    let plan = executor.plan_of_two(MINUTE);
    let refused = |plan: &Plan| executor.authorize(plan, &plan.sha256().unwrap(), APPROVER_TOKEN).unwrap_err();
    let changed = |change: fn(&mut Plan)| {
        let mut changed = plan.clone();
        change(&mut changed);
        changed
    };
    let hash = plan.sha256().unwrap();
    let other_value = changed(|plan| drop(plan.further_steps[0].call.arguments.insert("value".into(), json!(1))));
    assert_eq!(executor.authorize(&other_value, &hash, APPROVER_TOKEN), Err(RefusalCode::HashMismatch));
    for spoiled in [
        changed(|plan| plan.version = 1),
        changed(|plan| plan.further_steps.clear()),
        changed(|plan| plan.further_steps[0].call.target = "cart".into()),
        changed(|plan| plan.further_steps[0].call.target = "billing".into()),
        changed(|plan| plan.further_steps[0].call.operation = "reboot".into()),
        changed(|plan| plan.further_steps[0].dry_run.undo.as_mut().unwrap().target = "cart".into()),
    ] {
        assert_eq!(refused(&spoiled), RefusalCode::Invalid, "{spoiled:?}");
    }
    // The risk of a later step needs a second person.
    let risky = changed(|plan| plan.further_steps[0].dry_run.risk = "high".into());
    let hash = risky.sha256().unwrap();
    let status = executor.authorize(&risky, &hash, APPROVER_TOKEN).unwrap();
    assert_eq!((status.approved_by, status.approvals.len()), (None, 1));
    assert_eq!(executor.effects(), 0);
}

#[test]
fn nothing_is_begun_if_a_later_step_no_longer_fits() {
    let executor = TestExecutor::with_two_targets();
    let (plan, hash) = executor.approve_two();
    executor.change_second(&plan, "by-hand");
    let status = executor.execute_step(&hash, 0).unwrap();
    assert_eq!((status.executed, executor.effects()), (Some(Outcome::NotApplied), 1));
    assert!(status.detail.contains("step 2 of 2") && status.detail.contains("stale"), "{}", status.detail);
    // Changed between the steps: the second one is not applied, and the first one can be taken back.
    let (plan, hash) = executor.approve_two();
    assert_eq!(executor.execute_step(&hash, 0).unwrap().executed, Some(Outcome::Applied));
    executor.change_second(&plan, "again");
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::NotApplied));
    assert_eq!(executor.undo_step(&hash, 0).unwrap().undone, Some(Outcome::Applied));
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::NotApplied));
    assert_eq!(executor.effects(), 4);
}

#[test]
fn a_later_step_may_follow_although_the_plan_has_expired_meanwhile() {
    let executor = TestExecutor::with_two_targets();
    let plan = executor.plan_of_two(Duration::from_secs(3));
    let hash = plan.sha256().unwrap();
    executor.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
    assert_eq!(executor.execute_step(&hash, 0).unwrap().executed, Some(Outcome::Applied));
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::Applied));
    // But not long after.
    let (_, hash) = executor.approve_two();
    assert_eq!(executor.execute_step(&hash, 0).unwrap().executed, Some(Outcome::Applied));
    let at = clock::now().minus(31 * MINUTE);
    let (outcome, detail, plan_sha256) = (Outcome::Applied, String::new(), hash.clone());
    let entry =
        Entry::Finished { version: FORMAT_VERSION, at, plan_sha256, plan_step: 0, outcome, detail, state: None };
    executor.service.ledger().append(entry).unwrap();
    let until = executor.service.ledger().plan(&hash).unwrap().begin_until(1);
    assert!(until > clock::now(), "the plan itself has not expired");
}

#[test]
fn an_interrupted_second_step_is_asked_for_and_repeated_once() {
    let mut executor = TestExecutor::with_two_targets();
    let started = |hash: &str, plan: &Plan| Entry::Started {
        version: FORMAT_VERSION,
        at: clock::now(),
        plan_sha256: hash.to_owned(),
        plan_step: 1,
        key: plan.step_key(1).unwrap(),
    };
    // Killed before the call.
    let (plan, hash) = executor.approve_two();
    executor.execute_step(&hash, 0).unwrap();
    executor.service.ledger().append(started(&hash, &plan)).unwrap();
    executor.restart();
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::Applied));
    assert_eq!(executor.effects(), 2);
    // Killed after it.
    let mut plan = executor.plan_of_two(MINUTE);
    plan.control = "another".into();
    let hash = plan.sha256().unwrap();
    executor.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
    executor.execute_step(&hash, 0).unwrap();
    executor.service.ledger().append(started(&hash, &plan)).unwrap();
    let second = &plan.further_steps[0];
    executor.execute_directly(&plan.step_key(1).unwrap(), &second.call, &second.dry_run.precondition);
    executor.restart();
    // Another plan on the same target waits for it.
    executor.service.recover_interrupted();
    assert_eq!(executor.execute_step(&hash, 1).unwrap().executed, Some(Outcome::Applied));
    assert_eq!(executor.effects(), 4);
}
