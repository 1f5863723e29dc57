use proptest::prelude::*;
use serde_json::json;
use wardroom_domain::{
    ActionChoice, Approval, Cause, CheckResult, Comparison, Condition, Diagnosis, DryRun, Entity, Incident,
    IncidentState, Outcome, Plan, PlanStep, Principal, ReadCheck, Severity, TenantId, Timestamp, ToolCall,
};

use Outcome::{Applied, NotApplied, Unknown};

use super::*;
use crate::event::Event;
use crate::pending::{PendingPlan, PendingRead};
use crate::proposal::PlanProgress;
use crate::step_progress::StepProgress;
use crate::workflow::Step;
use crate::{Config, reason_not_to_act};

fn call(target: &str) -> ToolCall {
    ToolCall {
        tool: "process".into(),
        operation: "restart".into(),
        target: target.into(),
        arguments: Default::default(),
    }
}

fn dry_run(has_undo: bool) -> DryRun {
    DryRun {
        diff: String::new(),
        blast_radius: String::new(),
        affected: None,
        risk: "low".into(),
        reversible: has_undo,
        precondition: "1".into(),
        undo: has_undo.then(|| call("web")),
    }
}

fn diagnosis() -> Diagnosis {
    let causes = vec![Cause::new(Entity::service("web"), "cpu-hog", 0.9)];
    Diagnosis { causes, evidence: vec![], severity: Severity::High, impact: String::new() }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn pending() -> PendingPlan {
    PendingPlan {
        diagnosis: diagnosis(),
        call: None,
        further_calls: vec![],
        dry_runs: Default::default(),
        reads: vec![],
        choices: vec![ActionChoice { when: vec![], steps: vec![call("web")] }],
        runbook: "r".into(),
        control: "none".into(),
        watched: vec![],
        number: 0,
    }
}

/// A workflow that is investigating, after its first diagnosis.
fn investigating() -> Workflow {
    let mut workflow = Workflow::new(Incident { key: "k".into(), opened_at: at(1000), ..Incident::default() });
    workflow.apply(Event::InvestigationStarted).unwrap();
    workflow.record_investigation(3000);
    workflow
}

fn approved(has_undo: bool) -> (Workflow, crate::StateChange) {
    let mut workflow = investigating();
    let plan = Plan {
        version: 1,
        tenant: TenantId::main(),
        incident: "k".into(),
        call: call("web"),
        dry_run: dry_run(has_undo),
        further_steps: Vec::new(),
        runbook: "r".into(),
        control: "none".into(),
        expires_at: at(500_000),
    };
    workflow.undo_secret = Some("secret".into());
    workflow.apply(Event::Proposed { diagnosis: diagnosis(), plan: Box::new(plan), watched: vec![] }).unwrap();
    let approval = Approval {
        principal: Principal::wardroom(),
        at: at(9000),
        channel: "http".into(),
        plan_sha256: workflow.plan_sha256.clone().unwrap(),
        reason: String::new(),
        proof: None,
    };
    let change = workflow.apply(Event::Approved(approval)).unwrap();
    (workflow, change)
}

fn kinds(effects: &[EffectRequest]) -> Vec<EffectKind> {
    effects.iter().map(|effect| effect.data.kind()).collect()
}

#[test]
fn an_approval_wants_the_execution_of_its_plan_and_nothing_twice() {
    let (workflow, change) = approved(false);
    assert_eq!(kinds(&change.effects), [EffectKind::Execution]);
    assert!(change.cancelled.contains(&EffectKind::Probe));
    let [effect] = change.effects.as_slice() else { panic!("one effect") };
    assert_eq!(effect.resource, "process:web");
    let EffectData::Execution { plan_sha256, step: 0 } = &effect.data else { panic!("an execution") };
    assert_eq!(Some(plan_sha256), workflow.plan_sha256.as_ref());
    // What an incident of an earlier version, which has no rows, is given.
    assert_eq!(workflow.awaited_effects(), change.effects);
    assert_eq!(workflow.next(at(10_000), 10_000, &Config::default()), Step::Wait);
}

#[test]
fn a_failed_verification_waits_for_its_undo_and_then_ends_the_authority() {
    let (mut workflow, _) = approved(true);
    let (outcome, detail) = (Applied, String::new());
    workflow.apply(Event::Executed { outcome, detail, at_ms: 10_000, at: at(10_000), watched: vec![] }).unwrap();
    assert_eq!(workflow.next(at(11_000), 11_000, &Config::default()), Step::Verify);
    let undo = workflow.request_undo("still bad").unwrap();
    let EffectData::Undo { proof, .. } = &undo.data else { panic!("an undo") };
    assert_eq!((proof.as_str(), undo.resource.as_str()), ("secret", "process:web"));
    assert_eq!(workflow.next(at(12_000), 12_000, &Config::default()), Step::Wait);
    assert_eq!(workflow.awaited_effects(), [undo]);
    let restored = Workflow::read(&serde_json::to_string(&workflow).unwrap()).unwrap();
    assert_eq!(restored, workflow);
    let undo = Some(Applied);
    let change = workflow.apply(Event::VerificationFailed { undo, reason: "still bad".into(), at_ms: 13_000 }).unwrap();
    assert_eq!((kinds(&change.effects), workflow.undoing), (vec![EffectKind::Settle], None));
    let (mut irreversible, _) = approved(false);
    assert_eq!(irreversible.request_undo("still bad"), None);
    assert_eq!(irreversible.undoing, None);
}

/// Asks for a plan; returns what it waits for.
fn request(workflow: &mut Workflow, pending: PendingPlan) -> Vec<EffectRequest> {
    let PlanProgress::Pending(requests) = workflow.request_plan(pending) else { panic!("nothing is asked for") };
    // An approval of an earlier plan may be awaited, too.
    assert!(workflow.awaited_effects().ends_with(&requests), "{requests:?}");
    let restored = Workflow::read(&serde_json::to_string(workflow).unwrap()).unwrap();
    assert_eq!(&restored, workflow);
    requests
}

fn finish_dry_run(workflow: &mut Workflow, id: &str, result: Result<DryRun, String>) -> PlanProgress {
    workflow.dry_run_finished(id, result, &TenantId::main(), at(9))
}

#[test]
fn a_plan_waits_for_its_own_dry_run() {
    let mut workflow = investigating();
    let request_id = request(&mut workflow, pending())[0].id.clone();
    assert_eq!(request_id, "dry_run:k:1");
    assert_eq!(workflow.next(at(20_000), 20_000, &Config::default()), Step::Wait);
    let older = finish_dry_run(&mut workflow, "dry_run:k:0", Ok(dry_run(false)));
    assert_eq!(older, PlanProgress::Nothing, "an older one");
    let ended = finish_dry_run(&mut workflow, &request_id, Ok(dry_run(false)));
    let PlanProgress::Ended(event) = ended else { panic!("{ended:?}") };
    let Event::Proposed { plan, .. } = &event else { panic!("{event:?}") };
    assert_eq!((plan.call.clone(), plan.incident.as_str(), plan.expires_at), (call("web"), "k", at(9)));
    assert_eq!((plan.version, plan.further_steps.len()), (1, 0));
    assert_eq!(finish_dry_run(&mut workflow, &request_id, Ok(dry_run(false))), PlanProgress::Nothing, "once");
    let event = workflow.proposed(event).unwrap();
    assert_eq!(workflow.apply(event).unwrap().to, IncidentState::AwaitingApproval);
    // The next diagnosis has another number, so that its dry run is made again.
    workflow.record_investigation(31_000);
    let later = request(&mut workflow, pending());
    assert_ne!(later[0].id, request_id);
    let change = workflow.apply(Event::Rejected { by: Principal::wardroom(), reason: String::new() }).unwrap();
    assert!(change.cancelled.contains(&EffectKind::DryRun) && workflow.pending.is_none());
    assert!(change.cancelled.contains(&EffectKind::Read));
}

/// A plan that a build of before left pending: one call, and nothing to check.
#[test]
fn a_pending_plan_of_an_earlier_version_goes_on() {
    let text = include_str!("../../tests/formats/workflow-v2-pending.json");
    let mut workflow = Workflow::read(text).unwrap();
    let written: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&workflow).unwrap(), written, "and it is written as before");
    let [request]: [EffectRequest; 1] = workflow.awaited_effects().try_into().unwrap();
    let EffectData::DryRun { call } = &request.data else { panic!("{request:?}") };
    assert_eq!(serde_json::to_value(call).unwrap(), written["pending"]["call"]);
    assert_eq!(request.id, format!("dry_run:{}:{}", workflow.incident.key, written["pending"]["number"]));
    let ended = finish_dry_run(&mut workflow, &request.id, Ok(dry_run(false)));
    let PlanProgress::Ended(Event::Proposed { plan, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((plan.call == *call, plan.version, plan.step_count()), (true, 1, 1));
}

#[test]
fn without_a_dry_run_there_is_no_plan() {
    let mut workflow = investigating();
    request(&mut workflow, pending());
    let ended = finish_dry_run(&mut workflow, "dry_run:k:1", Err("no such target".into()));
    let PlanProgress::Ended(Event::NoPlan { reason, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!(reason, "process restart of web cannot be executed: no such target");
}

fn check(id: &str) -> PendingRead {
    let check = ReadCheck { id: id.into(), question: "How many are idle?".into(), call: call("db") };
    PendingRead { check, result: None }
}

fn idle_above(limit: f64) -> Condition {
    Condition { read: "idle".into(), value: "/idle".into(), comparison: Comparison::Above(limit) }
}

/// Two checks; many idle connections want one action, fewer another one of two steps.
fn pending_with_checks() -> PendingPlan {
    let choices = vec![
        ActionChoice { when: vec![idle_above(50.0)], steps: vec![call("db")] },
        ActionChoice { when: vec![], steps: vec![call("web"), call("queue")] },
    ];
    PendingPlan { reads: vec![check("idle"), check("other")], choices, ..pending() }
}

fn read(value: Option<serde_json::Value>) -> CheckResult {
    let error = value.is_none().then(|| "refused".to_owned());
    CheckResult { at: at(4000), value, error }
}

#[test]
fn the_result_of_a_check_is_evidence_and_chooses_the_action() {
    for (idle, targets) in [(51, vec!["db"]), (50, vec!["web", "queue"])] {
        let mut workflow = investigating();
        let reads = request(&mut workflow, pending_with_checks());
        assert_eq!(kinds(&reads), [EffectKind::Read, EffectKind::Read]);
        assert_eq!((reads[0].id.as_str(), reads[0].resource.as_str()), ("read:k:1:idle", ""));
        let first = workflow.read_finished(&reads[0].id, read(Some(json!({ "idle": idle }))));
        assert_eq!(first, PlanProgress::Pending(vec![]), "the other one is awaited");
        assert_eq!(workflow.awaited_effects(), reads[1..]);
        assert_eq!(workflow.read_finished(&reads[0].id, read(None)), PlanProgress::Nothing, "once");
        // A check that no condition is about may fail.
        let PlanProgress::Pending(dry_runs) = workflow.read_finished(&reads[1].id, read(None)) else { panic!() };
        let names: Vec<&str> = dry_runs.iter().map(|request| request.resource.as_str()).collect();
        assert_eq!(names, targets.iter().map(|target| format!("process:{target}")).collect::<Vec<_>>());
        assert_eq!(workflow.awaited_effects(), dry_runs);
        let history: Vec<&str> = workflow.incident.history.iter().map(|change| change.text.as_str()).collect();
        let expected = format!("checked process restart of db: How many are idle? {{\"idle\":{idle}}}");
        assert_eq!(history[0], expected);
        let mut ended = PlanProgress::Nothing;
        // In any order.
        for request in dry_runs.iter().rev() {
            ended = finish_dry_run(&mut workflow, &request.id, Ok(dry_run(false)));
        }
        let PlanProgress::Ended(Event::Proposed { plan, diagnosis, .. }) = ended else { panic!("{ended:?}") };
        let planned: Vec<&str> = plan.steps().map(|(call, _)| call.target.as_str()).collect();
        assert_eq!((planned, plan.version), (targets.clone(), targets.len() as u8));
        let cited: Vec<&str> = diagnosis.evidence.iter().map(|item| item.id.as_str()).collect();
        assert_eq!((cited, diagnosis.causes[0].evidence.len()), (vec!["check:idle", "check:other"], 2));
        assert!(diagnosis.evidence[1].summary.contains("not known: refused"));
    }
}

/// A condition about what could not be read is neither true nor false: no action is chosen, not even the last one.
#[test]
fn without_a_result_a_person_decides() {
    for (result, expected) in [
        (read(None), "runbook r: whether idle/idle above 50 cannot be told (not known: refused); a person must decide"),
        (
            read(Some(json!({ "count": 1 }))),
            "runbook r: whether idle/idle above 50 cannot be told ({\"count\":1}); \
         a person must decide",
        ),
    ] {
        let mut workflow = investigating();
        let reads = request(&mut workflow, pending_with_checks());
        workflow.read_finished(&reads[1].id, read(None));
        let ended = workflow.read_finished(&reads[0].id, result);
        let PlanProgress::Ended(Event::NoPlan { reason, diagnosis }) = ended else { panic!("{ended:?}") };
        assert_eq!((reason.as_str(), diagnosis.evidence.len()), (expected, 2));
        assert_eq!(workflow.pending, None);
    }
    let mut workflow = investigating();
    let choices = vec![ActionChoice { when: vec![idle_above(50.0)], steps: vec![call("db")] }];
    let reads = request(&mut workflow, PendingPlan { reads: vec![check("idle")], choices, ..pending() });
    let ended = workflow.read_finished(&reads[0].id, read(Some(json!({ "idle": 1 }))));
    let PlanProgress::Ended(Event::NoPlan { reason, .. }) = ended else { panic!("{ended:?}") };
    assert!(reason.contains("no action of runbook r fits"), "{reason}");
}

/// An approved plan of these steps, by whether they have an undo.
fn approved_steps(undos: &[bool]) -> Workflow {
    let (mut workflow, _) = approved(undos[0]);
    let plan = workflow.plan.as_mut().unwrap();
    for (index, has_undo) in undos.iter().enumerate().skip(1) {
        plan.further_steps.push(PlanStep { call: call(&format!("step {index}")), dry_run: dry_run(*has_undo) });
    }
    plan.version = 2;
    workflow.plan_sha256 = plan.sha256().ok();
    workflow
}

/// Ends steps or undos as the executor would, until nothing is next; returns what was asked for and what came of it.
fn run(workflow: &mut Workflow, outcomes: &[Outcome]) -> (Vec<String>, StepProgress) {
    let mut asked = Vec::new();
    let mut progress = StepProgress::Nothing;
    for outcome in outcomes {
        let awaited = workflow.awaited_effects();
        let [effect] = awaited.as_slice() else { panic!("{awaited:?}") };
        let detail = format!("{} {}", effect.data.kind().as_str(), outcome.as_str());
        progress = match effect.data {
            EffectData::Execution { step, .. } => {
                asked.push(format!("execution {step}"));
                workflow.step_executed(step, *outcome, detail)
            }
            EffectData::Undo { step, .. } => {
                asked.push(format!("undo {step}"));
                workflow.step_undone(step, *outcome, &detail)
            }
            _ => panic!("{effect:?}"),
        };
        let restored = Workflow::read(&serde_json::to_string(workflow).unwrap()).unwrap();
        assert_eq!(&restored, workflow);
        if let StepProgress::Next(next) = &progress {
            assert_eq!(workflow.awaited_effects(), std::slice::from_ref(&**next), "what a restart would ask for");
        }
    }
    (asked, progress)
}

#[test]
fn steps_run_in_order_each_with_an_effect_of_its_own() {
    let mut workflow = approved_steps(&[true, false, true]);
    let hash = workflow.plan_sha256.clone().unwrap();
    assert_eq!(workflow.awaited_effects()[0].id, format!("execution:{hash}"));
    let StepProgress::Next(second) = workflow.step_executed(0, Applied, "done".into()) else { panic!() };
    assert_eq!((second.id, second.resource.as_str()), (format!("execution:{hash}:1"), "process:step 1"));
    assert_eq!(workflow.step_executed(0, Applied, "again".into()), StepProgress::Nothing, "it has ended");
    assert_eq!(workflow.step_executed(2, Applied, "early".into()), StepProgress::Nothing);
    let (asked, end) = run(&mut workflow, &[Applied, Applied]);
    assert_eq!(asked, ["execution 1", "execution 2"]);
    let StepProgress::Executed { outcome: Applied, detail } = end else { panic!("{end:?}") };
    assert!(detail.starts_with("step 1 applied: done; step 2 applied:"), "{detail}");
    let executed = Event::Executed { outcome: Applied, detail, at_ms: 1, at: at(1), watched: vec![] };
    let change = workflow.apply(executed).unwrap();
    assert_eq!((change.to, change.effects), (IncidentState::Verifying, vec![]));
    // It did not help: the second step has nothing to take back.
    let undo = workflow.request_undo("still bad").unwrap();
    assert_eq!((undo.id, undo.resource.as_str()), (format!("undo:{hash}:2"), "process:step 2"));
    let (asked, end) = run(&mut workflow, &[Applied, Applied]);
    assert_eq!(asked, ["undo 2", "undo 0"]);
    assert_eq!(end, StepProgress::Undone { undo: Applied, reason: "still bad".into() });
    let event = Event::VerificationFailed { undo: Some(Applied), reason: "still bad".into(), at_ms: 1 };
    let change = workflow.apply(event).unwrap();
    assert_eq!((kinds(&change.effects), workflow.undo), (vec![EffectKind::Settle], Some(Applied)));
}

#[test]
fn a_step_that_fails_takes_back_those_before() {
    /// Outcomes, what is asked for, the outcome of the plan and that of its undo.
    type Case<'a> = (&'a [Outcome], &'a [&'a str], Outcome, Option<Outcome>);
    let cases: [Case<'_>; 5] = [
        (&[NotApplied], &["execution 0"], NotApplied, None),
        (&[Applied, NotApplied, Applied], &["execution 0", "execution 1", "undo 0"], NotApplied, Some(Applied)),
        (
            &[Applied, Applied, NotApplied, Applied, Applied],
            &["execution 0", "execution 1", "execution 2", "undo 1", "undo 0"],
            NotApplied,
            Some(Applied),
        ),
        (
            &[Applied, Applied, NotApplied, Unknown],
            &["execution 0", "execution 1", "execution 2", "undo 1"],
            NotApplied,
            Some(Unknown),
        ),
        // A person must check: nothing is undone beneath it.
        (&[Applied, Unknown], &["execution 0", "execution 1"], Unknown, None),
    ];
    for (outcomes, expected, end_outcome, undo) in cases {
        let mut workflow = approved_steps(&[true, true, true]);
        let (asked, end) = run(&mut workflow, outcomes);
        assert_eq!(asked, expected);
        let StepProgress::Executed { outcome, detail } = end else { panic!("{outcomes:?}: {end:?}") };
        assert_eq!(outcome, end_outcome, "{detail}");
        let executed = Event::Executed { outcome, detail, at_ms: 1, at: at(1), watched: vec![] };
        let change = workflow.apply(executed).unwrap();
        assert_eq!((change.to, workflow.undo), (IncidentState::Escalated, undo), "{}", change.note);
        assert_eq!((kinds(&change.effects), &workflow.undoing), (vec![EffectKind::Settle], &None));
        assert_eq!(workflow.awaited_effects(), []);
    }
}

#[test]
fn steps_without_an_undo_leave_nothing_to_take_back() {
    let mut workflow = approved_steps(&[false, true]);
    let (_, end) = run(&mut workflow, &[Applied, NotApplied]);
    assert!(matches!(end, StepProgress::Executed { outcome: NotApplied, .. }), "{end:?}");
    let (mut one, _) = approved(true);
    let executed = one.step_executed(0, Applied, "done".into());
    assert_eq!(executed, StepProgress::Executed { outcome: Applied, detail: "done".into() });
    assert!(one.steps.is_empty(), "stored as before");
}

proptest! {
    /// Whatever the steps and their outcomes: what is undone was applied, in reverse order, and the end is reached.
    #[test]
    fn what_is_undone_was_applied(
        undos in prop::collection::vec(any::<bool>(), 2..6),
        outcomes in prop::collection::vec(0_u8..3, 12),
    ) {
        let mut workflow = approved_steps(&undos);
        let mut asked = Vec::new();
        for pick in outcomes {
            let awaited = workflow.awaited_effects();
            prop_assert_eq!(awaited.len(), 1);
            let outcome = [Applied, NotApplied, Unknown][usize::from(pick)];
            let progress = match awaited[0].data {
                EffectData::Execution { step, .. } => workflow.step_executed(step, outcome, String::new()),
                EffectData::Undo { step, .. } => {
                    prop_assert_eq!(workflow.steps[step as usize].outcome, Applied);
                    prop_assert!(undos[step as usize]);
                    asked.push(step);
                    workflow.step_undone(step, outcome, "")
                }
                _ => unreachable!(),
            };
            if !matches!(progress, StepProgress::Next(_)) {
                break;
            }
        }
        prop_assert!(asked.is_sorted_by(|a, b| a > b), "{:?}", asked);
    }
}

#[test]
fn a_cause_that_is_uncertain_or_reserved_is_not_acted_on() {
    let certain = Cause::new(Entity::service("web"), "cpu-hog", 0.9);
    assert_eq!(reason_not_to_act(&certain, 0.9), None);
    assert!(reason_not_to_act(&certain, 0.91).unwrap().contains("(90 %)"));
    let reserved = Cause { reservation: Some("two changes at once".into()), ..certain };
    assert_eq!(reason_not_to_act(&reserved, 0.1).as_deref(), Some("two changes at once"));
}

#[test]
fn every_kind_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = EffectKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), EffectKind::ALL.len());
    let data = EffectData::Probe { plan_sha256: "a".into() };
    assert_eq!(serde_json::to_string(&data).unwrap(), r#"{"effect":"probe","plan_sha256":"a"}"#);
}
