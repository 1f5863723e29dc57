use wardroom_domain::{
    Approval, Cause, Diagnosis, DryRun, Entity, Incident, IncidentState, Outcome, Plan, Principal, Severity, TenantId,
    Timestamp, ToolCall,
};

use super::*;
use crate::pending::PendingPlan;
use crate::workflow::{Event, Step};
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
        call: call("web"),
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
    let EffectData::Execution { plan_sha256 } = &effect.data else { panic!("an execution") };
    assert_eq!(Some(plan_sha256), workflow.plan_sha256.as_ref());
    // What an incident of an earlier version, which has no rows, is given.
    assert_eq!(workflow.awaited_effects(), change.effects);
    assert_eq!(workflow.next(at(10_000), 10_000, &Config::default()), Step::Wait);
}

#[test]
fn a_failed_verification_waits_for_its_undo_and_then_ends_the_authority() {
    let (mut workflow, _) = approved(true);
    let (outcome, detail) = (Outcome::Applied, String::new());
    workflow.apply(Event::Executed { outcome, detail, at_ms: 10_000, at: at(10_000), watched: vec![] }).unwrap();
    assert_eq!(workflow.next(at(11_000), 11_000, &Config::default()), Step::Verify);
    let undo = workflow.request_undo("still bad").unwrap();
    let EffectData::Undo { proof, .. } = &undo.data else { panic!("an undo") };
    assert_eq!((proof.as_str(), undo.resource.as_str()), ("secret", "process:web"));
    assert_eq!(workflow.next(at(12_000), 12_000, &Config::default()), Step::Wait);
    assert_eq!(workflow.awaited_effects(), [undo]);
    let restored = Workflow::read(&serde_json::to_string(&workflow).unwrap()).unwrap();
    assert_eq!(restored, workflow);
    let undo = Some(Outcome::Applied);
    let change = workflow.apply(Event::VerificationFailed { undo, reason: "still bad".into(), at_ms: 13_000 }).unwrap();
    assert_eq!((kinds(&change.effects), workflow.undoing), (vec![EffectKind::Settle], None));
    let (mut irreversible, _) = approved(false);
    assert_eq!(irreversible.request_undo("still bad"), None);
    assert_eq!(irreversible.undoing, None);
}

#[test]
fn a_plan_waits_for_its_own_dry_run() {
    let mut workflow = investigating();
    let request = workflow.request_dry_run(pending());
    assert_eq!(workflow.next(at(20_000), 20_000, &Config::default()), Step::Wait);
    assert_eq!(workflow.awaited_effects(), std::slice::from_ref(&request));
    let tenant = TenantId::main();
    assert_eq!(workflow.dry_run_finished("dry_run:k:0", Ok(dry_run(false)), &tenant, at(9)), None, "an older one");
    let event = workflow.dry_run_finished(&request.id, Ok(dry_run(false)), &tenant, at(9)).unwrap();
    let Event::Proposed { plan, .. } = &event else { panic!("{event:?}") };
    assert_eq!((plan.call.clone(), plan.incident.as_str(), plan.expires_at), (call("web"), "k", at(9)));
    assert_eq!(workflow.dry_run_finished(&request.id, Ok(dry_run(false)), &tenant, at(9)), None, "once");
    let event = workflow.proposed(event).unwrap();
    assert_eq!(workflow.apply(event).unwrap().to, IncidentState::AwaitingApproval);
    // The next diagnosis has another number, so that its dry run is made again.
    workflow.record_investigation(31_000);
    let later = workflow.request_dry_run(pending());
    assert_ne!(later.id, request.id);
    let change = workflow.apply(Event::Rejected { by: Principal::wardroom(), reason: String::new() }).unwrap();
    assert!(change.cancelled.contains(&EffectKind::DryRun) && workflow.pending.is_none());
}

#[test]
fn without_a_dry_run_there_is_no_plan() {
    let mut workflow = investigating();
    let request = workflow.request_dry_run(pending());
    let event = workflow.dry_run_finished(&request.id, Err("no such target".into()), &TenantId::main(), at(9));
    let Some(Event::NoPlan { reason, .. }) = event else { panic!("{event:?}") };
    assert_eq!(reason, "process restart of web cannot be executed: no such target");
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
