//! Actions are started and asked for; a target that hangs holds up nothing else.

use std::net::TcpListener;
use std::time::Instant;

use wardroom_domain::executor::Phase;

use super::*;
use crate::service::runs::Work;

/// A target that accepts connections and never answers.
fn silent_target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn wait_for(executor: &TestExecutor, hash: &str, phase: Phase) -> PlanStatus {
    let started = Instant::now();
    loop {
        let status = executor.request(Request::Status { plan_sha256: hash.to_owned(), step: 0 }).unwrap();
        if status.phase == phase {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_start_returns_at_once_and_a_target_that_hangs_holds_up_no_other() {
    let executor = TestExecutor::new();
    let (_listener, url) = silent_target();
    let mut targets = executor.targets();
    targets.push(json!({ "tool": "process", "name": "stuck", "url": url, "token": "control" }));
    let alice = token_approver("alice", "main", APPROVER_TOKEN);
    executor.write_config(json!({ "approvers": [alice], "targets": targets }), 0o600);
    let (plan, hash) = executor.approve_plan("restart");
    let mut stuck = plan.clone();
    stuck.call.target = "stuck".into();
    let stuck_hash = stuck.sha256().unwrap();
    executor.authorize(&stuck, &stuck_hash, APPROVER_TOKEN).unwrap();
    let start = |hash: &str| executor.request(Request::Start { plan_sha256: hash.to_owned(), step: 0 });
    let begun = Instant::now();
    let status = start(&stuck_hash).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(start(&stuck_hash).unwrap().phase, Phase::Running, "joined");
    start(&hash).unwrap();
    let done = wait_for(&executor, &hash, Phase::Done);
    assert_eq!((done.executed, executor.effects()), (Some(Outcome::Applied), 1));
    let still = executor.request(Request::Status { plan_sha256: stuck_hash, step: 0 }).unwrap();
    assert_eq!(still.phase, Phase::Running);
    assert_eq!(still.progress.unwrap().text, "dry run");
}

#[test]
fn one_action_at_a_time_on_a_target() {
    let executor = TestExecutor::new();
    let (_, hash) = executor.approve_plan("restart");
    let resource = (TenantId::main(), "process".to_owned(), "cart".to_owned());
    let guard = executor.service.runs.begin("another plan", (Work::Action, 0), resource).unwrap().unwrap();
    assert_eq!(executor.execute(&hash), Err(RefusalCode::Busy));
    drop(guard);
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
}

#[test]
fn an_interrupted_action_is_continued_at_the_next_start_and_holds_its_target() {
    let mut executor = TestExecutor::new();
    let (plan, hash) = executor.approve_plan("rollback");
    let (_, other) = executor.approve_plan("restart");
    executor.crash_after_start(&plan, &hash);
    assert_eq!(executor.execute(&other), Err(RefusalCode::Busy), "the interrupted one first");
    executor.service.recover_interrupted();
    let done = wait_for(&executor, &hash, Phase::Done);
    assert_eq!((done.executed, executor.effects()), (Some(Outcome::Applied), 1));
}

/// A run that is refused before its effect says why, and can be started again.
#[test]
fn a_refused_run_says_why_and_can_be_started_again() {
    let executor = TestExecutor::new();
    let (_, hash) = executor.approve_plan("restart");
    // The target goes away between approval and start.
    let (listener, url) = silent_target();
    drop(listener);
    let mut targets = executor.targets();
    targets[0]["url"] = json!(url);
    let alice = token_approver("alice", "main", APPROVER_TOKEN);
    executor.write_config(json!({ "approvers": [alice.clone()], "targets": targets }), 0o600);
    executor.request(Request::Start { plan_sha256: hash.clone(), step: 0 }).unwrap();
    executor.service.runs.wait(&hash, Duration::from_secs(20));
    let status = executor.request(Request::Status { plan_sha256: hash.clone(), step: 0 }).unwrap();
    assert_eq!((status.phase, status.refused.unwrap().code), (Phase::Authorized, RefusalCode::Unavailable));
    executor.write_config(json!({ "approvers": [alice], "targets": executor.targets() }), 0o600);
    executor.request(Request::Start { plan_sha256: hash.clone(), step: 0 }).unwrap();
    let done = wait_for(&executor, &hash, Phase::Done);
    assert_eq!((done.executed, done.refused, executor.effects()), (Some(Outcome::Applied), None, 1));
}

#[test]
fn a_high_risk_takes_two_people() {
    let executor = TestExecutor::new();
    let mut targets = executor.targets();
    let policy = json!({ "entities": [{ "name": "cart", "wardroom": true }] });
    targets.truncate(1);
    let approvers = [token_approver("alice", "main", APPROVER_TOKEN), token_approver("bob", "main", "bob's token")];
    let administrators: Vec<Value> = approvers
        .into_iter()
        .map(|mut approver| {
            approver["role"] = json!("admin");
            approver
        })
        .collect();
    executor.write_config(json!({ "approvers": administrators, "targets": targets, "policy": policy }), 0o600);
    let plan = executor.plan("restart", MINUTE);
    let hash = plan.sha256().unwrap();
    let first = executor.authorize(&plan, &hash, APPROVER_TOKEN).unwrap();
    assert_eq!((first.phase, first.approved_by, first.approvals.len()), (Phase::Unknown, None, 1));
    assert_eq!(executor.execute(&hash), Err(RefusalCode::NotApproved));
    assert_eq!(executor.authorize(&plan, &hash, APPROVER_TOKEN), Err(RefusalCode::AlreadyUsed), "not the same twice");
    let second = executor.authorize(&plan, &hash, "bob's token").unwrap();
    assert_eq!((second.phase, second.approvals.len()), (Phase::Authorized, 2));
    assert_eq!(executor.execute(&hash).unwrap().executed, Some(Outcome::Applied));
    assert_eq!(executor.effects(), 1);
}
