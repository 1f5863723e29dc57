use proptest::prelude::*;
use wardroom_domain::{Cause, DryRun, Entity, Principal, Severity, TenantId, ToolCall};

use super::*;

fn workflow() -> Workflow {
    let at = Timestamp::from_millis(1000);
    Workflow::new(Incident {
        key: "k".into(),
        title: "t".into(),
        severity: Severity::High,
        services: vec!["a".into()],
        trigger: "sustained_breach".into(),
        began_at: at,
        opened_at: at,
        ..Incident::default()
    })
}

fn diagnosis() -> Diagnosis {
    Diagnosis { causes: vec![], evidence: vec![], severity: Severity::High, impact: String::new() }
}

fn plan() -> Plan {
    Plan {
        version: 1,
        tenant: TenantId::main(),
        incident: "k".into(),
        call: ToolCall {
            tool: "process".into(),
            operation: "restart".into(),
            target: "a".into(),
            arguments: Default::default(),
        },
        dry_run: DryRun {
            diff: String::new(),
            blast_radius: String::new(),
            affected: None,
            risk: "low".into(),
            reversible: false,
            precondition: "1".into(),
            undo: None,
        },
        further_steps: Vec::new(),
        runbook: "r".into(),
        control: "none".into(),
        expires_at: Timestamp::from_millis(5000),
    }
}

fn approval() -> Approval {
    Approval {
        principal: Principal::wardroom(),
        at: Timestamp::from_millis(1),
        channel: "http".into(),
        plan_sha256: String::new(),
        reason: String::new(),
        proof: None,
    }
}

fn event(pick: u8) -> Event {
    let at = Timestamp::from_millis(7);
    let executed = |outcome| Event::Executed { outcome, detail: String::new(), at_ms: 7, at, watched: vec![] };
    match pick {
        0 => Event::InvestigationStarted,
        1 => Event::Proposed { diagnosis: diagnosis(), plan: Box::new(plan()), watched: vec![] },
        2 => Event::NoPlan { diagnosis: diagnosis(), reason: "x".into() },
        3 => Event::Approved(approval()),
        4 => Event::Rejected { by: Principal::wardroom(), reason: "x".into() },
        5 => Event::Expired,
        6 => executed(Outcome::Applied),
        7 => executed(Outcome::Unknown),
        8 => Event::Mitigated { at_ms: 8, at },
        9 => Event::HoldPassed(9),
        10 => Event::VerificationFailed { undo: None, reason: "x".into(), at_ms: 9 },
        11 => Event::Noise(9),
        12 => Event::PlanVoided { diagnosis: diagnosis(), reason: "x".into() },
        13 => Event::Inconclusive { reason: "x".into(), at_ms: 9 },
        14 => Event::Closed { by: Principal::wardroom(), reason: String::new(), at_ms: 9 },
        _ => Event::Reopened { by: Principal::wardroom(), reason: String::new(), at_ms: 10, at },
    }
}

proptest! {
    /// Random events in random order cause only transitions of the table, and no execution without an approval.
    #[test]
    fn allows_only_table_transitions_and_approved_executions(picks in prop::collection::vec(0_u8..16, 0..40)) {
        let mut workflow = workflow();
        for pick in picks {
            let before = workflow.clone();
            match workflow.apply(event(pick)) {
                Ok(change) => prop_assert!(change.from == before.state && change.from.can_transition_to(change.to)),
                Err(_) => prop_assert_eq!(&workflow, &before),
            }
            prop_assert!(workflow.execution.is_none() || workflow.approval.is_some());
            let is_approvable = workflow.state == IncidentState::AwaitingApproval;
            prop_assert!(!is_approvable || workflow.plan.is_some() && workflow.approval.is_none());
            let restored: Workflow = serde_json::from_str(&serde_json::to_string(&workflow).unwrap()).unwrap();
            prop_assert_eq!(restored, workflow.clone());
        }
    }
}

/// Workflows of every released format version stay readable.
#[test]
fn version_1_stays_readable() {
    let text = include_str!("../../tests/formats/workflow-v1.json");
    let workflow = Workflow::read(text).unwrap();
    assert_eq!((workflow.state, workflow.outcome.as_deref()), (IncidentState::Resolved, Some("resolved")));
    assert_eq!(workflow.plan.as_ref().unwrap().sha256().ok(), workflow.plan_sha256);
    let best = workflow.diagnosis.as_ref().and_then(Diagnosis::best).unwrap();
    let written_then: serde_json::Value = serde_json::from_str(text).unwrap();
    let service = &written_then["diagnosis"]["causes"][0]["service"];
    assert_eq!((Some(best.entity.name.as_str()), best.rule.as_str()), (service.as_str(), "queue-full"));
    let names: Vec<_> = workflow.incident.affected().into_iter().map(|entity| entity.name).collect();
    assert_eq!((names.len(), serde_json::json!(names)), (4, written_then["incident"]["services"].clone()));
    assert!((workflow.watched[1].limit, workflow.watched[1].low_is_bad) == (0.05, false));
    assert!(!workflow.is_reviewable() && workflow.investigated_ms.is_none());
    let written = serde_json::to_string(&workflow).unwrap();
    assert_eq!(Workflow::read(&written).unwrap(), workflow);
    let newer = written.replacen("\"version\":2", "\"version\":3", 1);
    assert!(Workflow::read(&newer).unwrap_err().to_string().contains("newer Wardroom"));
    assert!(matches!(Workflow::read("{"), Err(WorkflowReadError::Damaged(_))));
}

/// The format that this build writes.
#[test]
fn version_2_is_stable() {
    let text = include_str!("../../tests/formats/workflow-v2.json");
    let workflow = Workflow::read(text).unwrap();
    assert_eq!(serde_json::to_value(&workflow).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    let incident = &workflow.incident;
    assert!(incident.owner.is_some() && incident.acknowledged.is_some() && incident.comments.len() == 1);
    assert_eq!((incident.entities.len(), workflow.investigations, workflow.evidence), (4, 2, 3));
}

/// Every field of the old format that people see is in the new one under the same name.
#[test]
fn version_2_keeps_the_fields_of_version_1() {
    let text = include_str!("../../tests/formats/workflow-v1.json");
    let before: serde_json::Value = serde_json::from_str(text).unwrap();
    let after = serde_json::to_value(Workflow::read(text).unwrap()).unwrap();
    for (name, value) in before.as_object().unwrap() {
        if !["version", "diagnosis", "watched"].contains(&name.as_str()) {
            assert_eq!(&after[name], value, "{name}");
        }
    }
}

#[test]
fn returns_a_step_for_every_unsettled_state() {
    let mut workflow = workflow();
    let now = Timestamp::from_millis(2000);
    let next_step = |workflow: &Workflow, watermark| workflow.next(now, watermark, &Config::default());
    assert_eq!(next_step(&workflow, 1000), Step::StartInvestigation);
    workflow.apply(event(0)).unwrap();
    assert_eq!(next_step(&workflow, 1000), Step::Wait, "evidence is still arriving");
    assert_eq!(next_step(&workflow, 3000), Step::Investigate);
    workflow.apply(event(1)).unwrap();
    assert_eq!(next_step(&workflow, 3000), Step::Wait);
    assert_eq!(workflow.next(Timestamp::from_millis(6000), 3000, &Config::default()), Step::Expire);
    workflow.apply(event(3)).unwrap();
    assert_eq!(next_step(&workflow, 3000), Step::Wait);
    workflow.apply(event(6)).unwrap();
    assert_eq!(next_step(&workflow, 3000), Step::Verify);
    assert_eq!(workflow.executed_at, Some(Timestamp::from_millis(7)));
    workflow.apply(event(8)).unwrap();
    assert_eq!(next_step(&workflow, 3000), Step::Verify);
    workflow.apply(event(9)).unwrap();
    assert_eq!(next_step(&workflow, 3000), Step::Wait);
}

#[test]
fn the_first_diagnosis_waits_for_one_interval_but_not_for_ever() {
    let mut workflow = workflow();
    workflow.incident.interval_ms = 15_000;
    workflow.stored_at = Some(Timestamp::from_millis(500_000));
    workflow.apply(event(0)).unwrap();
    let next_step = |now_ms, watermark| workflow.next(Timestamp::from_millis(now_ms), watermark, &Config::default());
    assert_eq!(next_step(500_000, 15_999), Step::Wait);
    assert_eq!(next_step(500_000, 16_000), Step::Investigate);
    assert_eq!(next_step(517_000, 1000), Step::Wait);
    assert_eq!(next_step(518_000, 1000), Step::Investigate, "telemetry ended");
}

fn cause(entity: &str, rule: &str) -> Diagnosis {
    let causes = vec![Cause::new(Entity::service(entity), rule, 0.9)];
    Diagnosis { causes, ..diagnosis() }
}

fn proposal(target: &str) -> Event {
    let mut plan = plan();
    plan.call.target = target.into();
    Event::Proposed { diagnosis: cause(target, "cpu-hog"), plan: Box::new(plan), watched: vec![] }
}

/// Telemetry times in s at which an incident that opened at second 1 is diagnosed again.
fn reviews(workflow: &mut Workflow, until_second: i64) -> Vec<i64> {
    (0..until_second)
        .filter(|second| {
            let step = workflow.next(Timestamp::from_millis(2000), second * 1000, &Config::default());
            if step == Step::Review {
                workflow.record_investigation(second * 1000);
            }
            step == Step::Review
        })
        .collect()
}

#[test]
fn an_incident_is_diagnosed_again_at_fixed_times_and_on_new_evidence() {
    for first in [event(1), event(2)] {
        let mut workflow = workflow();
        workflow.apply(event(0)).unwrap();
        workflow.record_investigation(3000);
        workflow.apply(first).unwrap();
        let mut unchanged = workflow.clone();
        assert_eq!(reviews(&mut unchanged, 1000), [31, 121, 301]);
        workflow.evidence += 1;
        assert_eq!(reviews(&mut workflow, 1000), [5, 31, 121, 301]);
        workflow.evidence += 2;
        assert_eq!(reviews(&mut workflow, 1000).len(), 1);
    }
}

#[test]
fn an_approved_or_rejected_plan_is_not_reviewed() {
    for decision in [event(3), event(4), Event::Expired] {
        let mut workflow = workflow();
        workflow.apply(event(0)).unwrap();
        workflow.record_investigation(3000);
        workflow.apply(event(1)).unwrap();
        workflow.apply(decision).unwrap();
        workflow.evidence += 1;
        assert_eq!(reviews(&mut workflow, 1000), [] as [i64; 0], "{}", workflow.state);
        assert!(workflow.state != IncidentState::Escalated || workflow.apply(proposal("a")).is_err());
    }
}

#[test]
fn a_later_diagnosis_voids_a_plan_that_does_not_fit() {
    let mut pending = workflow();
    pending.apply(event(0)).unwrap();
    pending.record_investigation(3000);
    pending.apply(proposal("a")).unwrap();
    let sha256 = pending.plan_sha256.clone();

    assert_eq!(pending.review(proposal("a")), None, "the same plan stays, and with it what people were asked");
    assert_eq!((pending.state, &pending.plan_sha256), (IncidentState::AwaitingApproval, &sha256));
    let same_cause = Event::NoPlan { diagnosis: cause("a", "cpu-hog"), reason: "x".into() };
    assert_eq!(pending.review(same_cause), None);

    let other_cause = Event::NoPlan { diagnosis: cause("b", "unknown"), reason: "no runbook".into() };
    for (later, note) in [(proposal("b"), "process restart of b"), (other_cause, "no runbook")] {
        let mut workflow = pending.clone();
        let voided = workflow.review(later.clone()).unwrap();
        let change = workflow.apply(voided).unwrap();
        assert!(change.to == IncidentState::Investigating && change.note.contains(note), "{change:?}");
        assert!(workflow.plan.is_none() && workflow.plan_sha256.is_none() && workflow.undo_secret.is_none());
        assert_eq!(workflow.next(Timestamp::from_millis(2000), 40_000, &Config::default()), Step::Investigate);
        workflow.apply(later).unwrap();
        assert_ne!(workflow.plan_sha256, sha256);
    }
}

#[test]
fn a_later_diagnosis_may_propose_a_plan_for_an_escalated_incident() {
    let mut workflow = workflow();
    workflow.apply(event(0)).unwrap();
    workflow.record_investigation(3000);
    workflow.apply(event(2)).unwrap();
    let no_plan = Event::NoPlan { diagnosis: cause("a", "unknown"), reason: "x".into() };
    assert_eq!(workflow.review(no_plan), None);
    assert_eq!(workflow.diagnosis.as_ref().and_then(Diagnosis::best).unwrap().entity.name, "a");
    let proposed = workflow.review(proposal("a")).unwrap();
    assert_eq!(workflow.apply(proposed).unwrap().to, IncidentState::AwaitingApproval);
    assert_eq!(workflow.outcome, None);
}

#[test]
fn closing_settles_and_an_inconclusive_action_stays() {
    let mut workflow = workflow();
    for pick in [0, 1, 3, 6, 13] {
        workflow.apply(event(pick)).unwrap();
    }
    assert_eq!((workflow.state, workflow.undo), (IncidentState::Escalated, None));
    assert_eq!(workflow.outcome.as_deref(), Some("inconclusive"));
    workflow.apply(event(14)).unwrap();
    assert_eq!((workflow.state, workflow.settled_ms), (IncidentState::Closed, Some(9)));
}
