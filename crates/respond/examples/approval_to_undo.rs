//! A plan from approval through execution to its undo, since verification failed:
//! `cargo run -p wardroom-respond --example approval_to_undo`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_domain::{
    Approval, Diagnosis, DryRun, Incident, Outcome, Plan, Principal, Severity, TenantId, Timestamp, ToolCall,
};
use wardroom_respond::{Config, Event, Workflow};

fn main() {
    let at = Timestamp::from_millis(1_795_255_200_000);
    let mut workflow = Workflow::new(Incident {
        key: "key".into(),
        title: "web: slow responses".into(),
        severity: Severity::High,
        services: vec!["web".into()],
        trigger: "sustained_breach".into(),
        began_at: at,
        opened_at: at,
        ..Incident::default()
    });
    let call = ToolCall {
        tool: "process".into(),
        operation: "rollback".into(),
        target: "web".into(),
        arguments: Default::default(),
    };
    let dry_run = DryRun {
        diff: "web goes from version 1.1.0 to 1.0.0".into(),
        blast_radius: "web and its callers".into(),
        affected: None,
        risk: "medium".into(),
        reversible: true,
        precondition: "1.1.0".into(),
        undo: Some(call.clone()),
    };
    let plan = Plan {
        version: 1,
        tenant: TenantId::main(),
        incident: "key".into(),
        call,
        dry_run,
        further_steps: Vec::new(),
        runbook: "slow-since-release".into(),
        control: "none".into(),
        expires_at: at.plus(std::time::Duration::from_secs(600)),
    };
    let approval = Approval {
        principal: Principal::new("alice").unwrap(),
        at,
        channel: "cli".into(),
        plan_sha256: plan.sha256().unwrap(),
        reason: "looks right".into(),
        proof: None,
    };
    let diagnosis = Diagnosis { causes: vec![], evidence: vec![], severity: Severity::High, impact: String::new() };
    let reason = "the signals did not become good before the timeout".to_owned();
    for event in [
        Event::InvestigationStarted,
        Event::Proposed { diagnosis, plan: Box::new(plan), watched: vec![] },
        Event::Approved(approval),
        Event::Executed {
            outcome: Outcome::Applied,
            detail: "rollback done".into(),
            at_ms: at.millis(),
            at,
            watched: vec![],
        },
        Event::VerificationFailed { undo: Some(Outcome::Applied), reason, at_ms: at.millis() },
    ] {
        let step = workflow.next(at, at.millis() + 60_000, &Config::default());
        let change = workflow.apply(event).unwrap();
        // A role would write the effects with the change, and workers would perform them.
        let effects: Vec<&str> = change.effects.iter().map(|effect| effect.data.kind().as_str()).collect();
        println!("{step:?}: {} -> {}: {}; wants {effects:?}", change.from, change.to, change.note);
    }
}
