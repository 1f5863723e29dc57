use std::sync::Arc;

use wardroom_correlate::Decision;
use wardroom_domain::{AccessRole, Cause, DryRun, Incident, Severity, Timestamp, ToolCall};
use wardroom_executor::ExecutorClient;
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_policy::{Config as PolicyConfig, Freeze, Policy, TargetRule, escalation::Step};
use wardroom_store::Store;

use super::*;

async fn responder(folder: &tempfile::TempDir, policy: PolicyConfig) -> Responder {
    let config = wardroom_config::Config { policy, ..Default::default() };
    Responder {
        store: Store::open(&folder.path().join("wardroom.db")).await.unwrap(),
        tenants: Arc::new(Tenants::new(config.pipeline())),
        executor: ExecutorClient::new(None),
        runbooks: Arc::new(Library::load(&config.knowledge).unwrap()),
        policy: Arc::new(Policy::builtin().unwrap()),
        config,
        started_at: clock::now(),
        queue: "folder".to_owned(),
        worker: "folder:1".to_owned(),
    }
}

/// Opens an incident, and proposes a plan for it as after a dry run. Returns the incident as stored.
async fn propose(responder: &Responder, risk: &str) -> (IncidentRow, Workflow) {
    let incident = Incident {
        key: "k".into(),
        title: "cart: requests fail".into(),
        entities: vec![Entity::service("cart")],
        ..Incident::default()
    };
    let tenant = TenantId::main();
    let opened = DetectorEvent::Decision(tenant.clone(), Box::new(Decision::Opened(incident)));
    responder.store_events(&[opened]).await.unwrap();
    let (row, mut workflow) = responder.find_incident(&tenant, 1).await.unwrap();
    let wardroom = Principal::wardroom();
    let started = Event::InvestigationStarted;
    assert!(responder.apply(&row, &mut workflow, started, &wardroom, Changes::default()).await.unwrap());
    let (row, mut workflow) = responder.find_incident(&tenant, 1).await.unwrap();
    let causes = vec![Cause::new(Entity::service("cart"), "connection-leak", 0.9)];
    let (evidence, impact) = (Vec::new(), String::new());
    let diagnosis = Diagnosis { causes, evidence, severity: Severity::Critical, impact };
    let (tool, operation, target) = ("process".into(), "restart".into(), "cart".into());
    let plan = Plan {
        version: 1,
        tenant: tenant.clone(),
        incident: row.key.clone(),
        call: ToolCall { tool, operation, target, arguments: serde_json::Map::new() },
        dry_run: DryRun {
            diff: "cart is restarted".into(),
            blast_radius: "cart".into(),
            affected: Some(1),
            risk: risk.into(),
            reversible: true,
            precondition: "1".into(),
            undo: None,
        },
        further_steps: Vec::new(),
        runbook: "r".into(),
        control: "none".into(),
        expires_at: clock::now().plus(Duration::from_secs(600)),
    };
    let proposed = Event::Proposed { diagnosis, plan: Box::new(plan), watched: Vec::new() };
    assert!(responder.conclude(&row, &mut workflow, proposed, Changes::default()).await.unwrap());
    responder.find_incident(&tenant, 1).await.unwrap()
}

fn person(name: &str, role: AccessRole) -> Identity {
    Identity { tenant: TenantId::main(), principal: Principal::new(name).unwrap(), role }
}

#[tokio::test]
async fn a_freeze_denies_the_plan_and_the_reason_stands_in_incident_and_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    let (from, to) = (clock::now().minus(hour), clock::now().plus(hour));
    let freeze = Freeze { name: "sale".into(), from, to, environments: Vec::new(), owners: Vec::new() };
    let responder = responder(&folder, PolicyConfig { freezes: vec![freeze], ..PolicyConfig::default() }).await;
    let (row, workflow) = propose(&responder, "low").await;
    assert_eq!((row.state, workflow.plan), (IncidentState::Escalated, None));
    let decision = workflow.policy.unwrap();
    assert_eq!((decision.answer, decision.rules.as_slice()), (PolicyAnswer::Deny, &["change-freeze".to_owned()][..]));
    let history = responder.store.history(&row.tenant, &row.key).await.unwrap();
    let note = &history.last().unwrap().note;
    assert!(note.contains("a change freeze is in force (change-freeze)"), "{note}");
    let denied = |entry: &AuditEntry| entry.decision["policy"]["answer"] == "deny";
    assert!(responder.store.find_audit_entry("transition", denied).await.unwrap().is_some());
}

#[tokio::test]
async fn the_answer_is_stored_with_the_plan_and_says_who_may_approve() {
    let folder = tempfile::tempdir().unwrap();
    let wardroom = TargetRule { name: Some("cart".into()), wardroom: Some(true), ..TargetRule::default() };
    let responder = responder(&folder, PolicyConfig { entities: vec![wardroom], ..PolicyConfig::default() }).await;
    let (row, mut workflow) = propose(&responder, "low").await;
    assert_eq!(row.state, IncidentState::AwaitingApproval);
    let decision = workflow.policy.clone().unwrap();
    assert_eq!((decision.answer, decision.rules[0].as_str()), (PolicyAnswer::AskTwo, "two-people-may-act"));
    assert!(decision.rules.contains(&"wardroom-needs-two".to_owned()), "{decision:?}");
    let refused = |workflow: &Workflow, caller: &Identity| {
        responder.check_approver(caller, workflow, "cli").err().map(|problem| problem.code())
    };
    let (root, ada) = (person("root", AccessRole::Admin), person("ada", AccessRole::Admin));
    assert_eq!(
        refused(&workflow, &person("alice", AccessRole::Responder)),
        Some("policy_denied"),
        "administrators only"
    );
    assert_eq!(refused(&workflow, &root), None);
    let approval = |caller: &Identity| wardroom_domain::Approval {
        principal: caller.principal.clone(),
        at: clock::now(),
        channel: "cli".into(),
        plan_sha256: workflow.plan_sha256.clone().unwrap(),
        reason: String::new(),
        proof: None,
    };
    let (first, again, second) = (approval(&root), approval(&root), approval(&ada));
    assert_eq!(workflow.add_approval(first), None, "one of two");
    assert_eq!(refused(&workflow, &root), Some("policy_denied"), "one person counts once");
    assert_eq!(workflow.add_approval(again), None);
    assert_eq!(refused(&workflow, &ada), None);
    assert!(matches!(workflow.add_approval(second), Some(Event::Approved(_))));
}

#[tokio::test]
async fn without_an_answer_the_next_of_the_route_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let step = |after_minutes, role: &str| Step { after_minutes, role: Some(role.into()), ..Step::default() };
    let route = vec![step(0, "responder"), step(10, "admin")];
    let responder = responder(&folder, PolicyConfig { escalation: route, ..PolicyConfig::default() }).await;
    let (row, workflow) = propose(&responder, "low").await;
    let messages = async || {
        let effects = responder.store.effects(&row.tenant, &row.key).await.unwrap();
        effects.into_iter().filter(|effect| effect.kind == "message").map(|effect| effect.payload).collect::<Vec<_>>()
    };
    responder.escalate(&row, &workflow).await.unwrap();
    assert_eq!(messages().await.len(), 1);
    let (row, mut workflow) = responder.find_incident(&row.tenant, 1).await.unwrap();
    responder.escalate(&row, &workflow).await.unwrap();
    assert_eq!(messages().await.len(), 1, "the second step is not due");
    workflow.proposed_at = Some(Timestamp::from_millis(clock::now().millis() - 11 * 60_000));
    responder.escalate(&row, &workflow).await.unwrap();
    let messages = messages().await;
    assert!(messages.len() == 2 && messages.iter().any(|message| message.contains("admin")), "{messages:?}");
    let (_, workflow) = responder.find_incident(&row.tenant, 1).await.unwrap();
    assert_eq!(workflow.escalation_step, 2);
    assert!(workflow.incident.history.last().unwrap().text.contains("no answer; role admin"));
    let escalated = |entry: &AuditEntry| entry.decision["done"] == 2;
    assert!(responder.store.find_audit_entry("escalated", escalated).await.unwrap().is_some());
}
