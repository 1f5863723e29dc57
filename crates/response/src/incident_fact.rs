//! Incidents as rows of the tables `gold.incidents`, `gold.enrichments` and `gold.tool_results`.

use wardroom_domain::{Incident, Outcome, Timestamp};
use wardroom_lake::{EnrichmentFact, IncidentFact, ToolFact};
use wardroom_respond::{Workflow, WorkflowReadError};
use wardroom_store::IncidentRow;

/// Converts an incident to its row. One that cannot be read by this build has none, and is logged.
pub fn incident_fact(row: &IncidentRow) -> Option<IncidentFact> {
    let log = |error: &WorkflowReadError| {
        tracing::error!(incident = %row.id(), %error, "reading an incident failed; no gold row written");
    };
    let workflow = Workflow::read(&row.workflow).inspect_err(log).ok()?;
    let incident = &workflow.incident;
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    let text = |outcome: Outcome| outcome.as_str().to_owned();
    let enrichments =
        workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence).map(|evidence| EnrichmentFact {
            id: evidence.id.clone(),
            entity: evidence.entity.clone(),
            at: evidence.at,
            summary: evidence.summary.clone(),
            cited: best.is_some_and(|best| best.evidence.contains(&evidence.id)),
        });
    let tool_results = workflow.plan.iter().zip(&workflow.plan_sha256).map(|(plan, plan_sha256)| ToolFact {
        at: workflow.executed_ms.map_or(incident.opened_at, Timestamp::from_millis),
        plan_sha256: plan_sha256.clone(),
        call: [&plan.call.tool, &plan.call.operation, &plan.call.target].map(Clone::clone),
        arguments: serde_json::Value::Object(plan.call.arguments.clone()).to_string(),
        risk: plan.dry_run.risk.clone(),
        runbook: plan.runbook.clone(),
        approved: workflow.approval.as_ref().map(|approval| (approval.principal.to_string(), approval.channel.clone())),
        outcome: workflow.execution.map(text),
        undo: workflow.undo.map(text),
    });
    Some(IncidentFact {
        id: Some(row.id()),
        state: row.state.to_string(),
        settled_at: workflow.settled_ms.map(Timestamp::from_millis),
        outcome: workflow.outcome.clone(),
        cause: best.map(|best| (best.entity.clone(), best.rule.clone(), best.confidence)),
        verdict: workflow.verdict.as_ref().map(|(verdict, _)| verdict.clone()),
        enrichments: enrichments.collect(),
        tool_results: tool_results.collect(),
        ..opened_incident_fact(incident)
    })
}

/// Returns the row of an incident that has just opened.
pub fn opened_incident_fact(incident: &Incident) -> IncidentFact {
    IncidentFact {
        key: incident.key.clone(),
        title: incident.title.clone(),
        severity: incident.severity.as_str().to_owned(),
        state: "open".to_owned(),
        entities: incident.affected(),
        trigger: incident.trigger.clone(),
        began_at: incident.began_at,
        opened_at: incident.opened_at,
        ..IncidentFact::default()
    }
}
