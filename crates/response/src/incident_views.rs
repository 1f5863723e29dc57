//! Incidents and anomalies as views of the API.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wardroom_api::{
    AnomalyView, ApprovalView, ChartView, CommentView, EntityView, EvidenceView, HypothesisView, IncidentDetail,
    IncidentSummary, PlanStepView, PlanView, PolicyView, TimelineView, VerdictView,
};
use wardroom_diagnose::root_cause_analysis;
use wardroom_domain::{Anomaly, Approval, Comment, Entity, Plan, PolicyDecision, SignalId, SignalKind, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_respond::{TimelineEntry, Workflow, postmortem};
use wardroom_store::{HistoryRow, IncidentRow};

use crate::problem_responses::{store_problem, unreadable_workflow};
use crate::responder::Responder;

/// Maximum number of charts of one incident.
const MAX_CHARTS: usize = 12;
/// Charts start this long before the incident, in ms.
const CHART_LEAD_MS: i64 = 120_000;

impl Responder {
    /// Returns one incident in detail.
    ///
    /// # Errors
    /// Returns a problem if there is no such incident, or the state cannot be read.
    pub async fn detail(&self, tenant: TenantId, number: i64) -> Result<IncidentDetail, Problem> {
        let (row, workflow) = self.find_incident(&tenant, number).await?;
        let history = self.store.history(&tenant, &row.key).await.map_err(store_problem)?;
        let plan = workflow.plan.as_ref().zip(workflow.plan_sha256.as_ref());
        let proposal = plan.map(|(plan, _)| (plan.describe(), plan.runbook.clone(), plan.risk().to_owned()));
        let proposal =
            proposal.as_ref().map(|(action, runbook, risk)| (action.as_str(), runbook.as_str(), risk.as_str()));
        let text = |outcome: Option<wardroom_domain::Outcome>| outcome.map(|outcome| outcome.as_str().to_owned());
        Ok(IncidentDetail {
            summary: summary(&row, &workflow),
            trigger: workflow.incident.trigger.clone(),
            timeline: timeline(&workflow, &history),
            hypotheses: workflow.diagnosis.iter().flat_map(|d| &d.causes).map(HypothesisView::from).collect(),
            evidence: evidence(&workflow),
            analysis: workflow.diagnosis.as_ref().map(|diagnosis| json!(root_cause_analysis(diagnosis, proposal))),
            plan: plan.map(|(plan, plan_sha256)| plan_view(plan, plan_sha256, &workflow)),
            policy: policy_view(&workflow),
            plan_sha256: workflow.plan_sha256.clone(),
            approved_by: workflow.approval.as_ref().map(|approval| approval.principal.to_string()),
            approval: workflow.approval.as_ref().map(approval_view),
            execution: text(workflow.execution),
            idempotency_key: workflow
                .plan
                .as_ref()
                .filter(|_| workflow.execution.is_some())
                .and_then(|p| p.idempotency_key().ok()),
            undo: text(workflow.undo),
            outcome: workflow.outcome.clone(),
            verdict: workflow
                .verdict
                .as_ref()
                .map(|(verdict, cause)| VerdictView { verdict: verdict.clone(), cause: cause.clone() }),
            charts: self.charts(&tenant, &workflow),
            comments: workflow.incident.comments.iter().map(comment_view).collect(),
            acknowledged_at: workflow.incident.acknowledged.as_ref().map(|seen| seen.at),
            merged_into: self.id_of(&tenant, workflow.incident.merged_into.as_deref()).await?,
            split_from: self.id_of(&tenant, workflow.incident.split_from.as_deref()).await?,
            suppressed_until: workflow.incident.suppressed_until,
        })
    }

    /// Returns the postmortem of an incident in Markdown.
    ///
    /// # Errors
    /// As for [`Self::detail`].
    pub async fn postmortem(&self, tenant: TenantId, number: i64) -> Result<String, Problem> {
        let (row, workflow) = self.find_incident(&tenant, number).await?;
        let history = self.store.history(&tenant, &row.key).await.map_err(store_problem)?;
        let lines: Vec<TimelineEntry> = timeline(&workflow, &history)
            .into_iter()
            .map(|line| TimelineEntry { at: line.at, text: line.text })
            .collect();
        Ok(postmortem(&row.id(), &workflow, &lines))
    }

    /// Returns the id of the incident with a key.
    pub(crate) async fn id_of(&self, tenant: &TenantId, key: Option<&str>) -> Result<Option<String>, Problem> {
        let Some(key) = key else { return Ok(None) };
        let row = self.store.incident_by_key(tenant, key).await.map_err(store_problem)?;
        Ok(row.map(|row| row.id()))
    }

    /// Reads an incident and its workflow.
    pub(crate) async fn find_incident(
        &self,
        tenant: &TenantId,
        number: i64,
    ) -> Result<(IncidentRow, Workflow), Problem> {
        let row = self.store.incident(tenant, number).await.map_err(store_problem)?;
        let missing = || Problem::new(Status::NOT_FOUND, "no_such_incident", format!("there is no INC-{number}"));
        let row = row.ok_or_else(missing)?;
        let workflow = read_workflow(&row)?;
        Ok((row, workflow))
    }

    /// Returns charts of the watched signals, of the cause's signals and of what is bad at the affected entities.
    fn charts(&self, tenant: &TenantId, workflow: &Workflow) -> Vec<ChartView> {
        let from_ms = workflow.incident.began_at.millis() - CHART_LEAD_MS;
        let view = self.tenants.view(tenant);
        let graph = view.engine.graph();
        let affected: BTreeSet<Entity> = workflow.incident.affected().iter().map(|it| graph.canonical(it)).collect();
        let cause = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
        let cause = cause.map(|cause| graph.canonical(&cause.entity));
        let mut charts: Vec<((bool, bool), ChartView)> = Vec::new();
        for (id, signal) in view.engine.signals() {
            let entity = graph.canonical(&id.entity);
            let is_cause = cause.as_ref() == Some(&entity) && id.peer.is_none() && id.kind != SignalKind::Other;
            if id.kind == SignalKind::Traffic || !is_cause && !affected.contains(&entity) {
                continue;
            }
            let labels = id.labels();
            let watched = workflow.watched.iter().find(|watched| watched.signal == labels);
            let bad = signal.bad();
            if watched.is_none() && bad.is_none() && !is_cause {
                continue;
            }
            let limit = watched.map(|watched| (watched.limit, watched.low_is_bad));
            let limit = limit.or(bad.map(|bad| (bad.limit, bad.low_is_bad)));
            let recent = signal.history.iter().filter(|(at_ms, _)| *at_ms >= from_ms);
            let points: Vec<_> = recent.map(|(at_ms, value)| (*at_ms as f64 / 1000.0, *value)).collect();
            let chart = ChartView {
                title: chart_title(id),
                unit: chart_unit(id.kind, &points).to_owned(),
                points,
                bad_above: limit.map(|(limit, _)| limit),
                low_is_bad: limit.is_some_and(|(_, low_is_bad)| low_is_bad),
            };
            // Watched signals first, of those the cause first.
            charts.push(((watched.is_none(), !is_cause), chart));
        }
        charts.sort_by(|a, b| (a.0, &a.1.title).cmp(&(b.0, &b.1.title)));
        charts.into_iter().map(|(_, chart)| chart).take(MAX_CHARTS).collect()
    }
}

fn chart_title(id: &SignalId) -> String {
    let calls = id.peer.as_ref().map_or_else(String::new, |peer| format!(", calls to {peer}"));
    let resource = if id.resource.is_empty() { String::new() } else { format!(" of {}", id.resource) };
    format!("{}{calls}: {}{resource}", id.entity, id.kind)
}

/// The unit of a signal's values, as far as its kind tells: a saturation is a share if none of its values is above 1.
fn chart_unit(kind: SignalKind, points: &[(f64, f64)]) -> &'static str {
    match kind {
        SignalKind::Availability | SignalKind::Errors | SignalKind::Saturation
            if points.iter().all(|(_, value)| *value <= 1.0) =>
        {
            "ratio"
        }
        SignalKind::Latency | SignalKind::Freshness | SignalKind::Expiry => "seconds",
        SignalKind::Traffic | SignalKind::Logs => "per_second",
        SignalKind::Availability
        | SignalKind::Errors
        | SignalKind::Saturation
        | SignalKind::Queue
        | SignalKind::Restarts
        | SignalKind::Other => "number",
    }
}

/// Converts an anomaly.
pub fn anomaly_view(anomaly: Anomaly) -> AnomalyView {
    AnomalyView {
        id: anomaly.id,
        series: anomaly.series,
        service: anomaly.service,
        detector: anomaly.detector,
        score: anomaly.score,
        z: anomaly.z,
        severity: anomaly.severity.to_string(),
        value: anomaly.value,
        expected: anomaly.expected,
        at: anomaly.at,
    }
}

pub(crate) fn summary(row: &IncidentRow, workflow: &Workflow) -> IncidentSummary {
    IncidentSummary {
        id: row.id(),
        state: row.state.to_string(),
        severity: workflow.diagnosis.as_ref().map_or(workflow.incident.severity, |d| d.severity).to_string(),
        title: workflow.incident.title.clone(),
        services: workflow.incident.services.clone(),
        entities: workflow.incident.affected().iter().map(EntityView::from).collect(),
        began_at: workflow.incident.began_at,
        opened_at: workflow.incident.opened_at,
        updated_at: row.updated_at,
        revision: row.revision,
        owner: workflow.incident.owner.as_ref().map(ToString::to_string),
        acknowledged_by: workflow.incident.acknowledged.as_ref().map(|seen| seen.by.to_string()),
        number: row.number,
    }
}

fn comment_view(comment: &Comment) -> CommentView {
    CommentView { by: comment.by.to_string(), at: comment.at, text: comment.text.clone() }
}

pub(crate) fn plan_view(plan: &Plan, plan_sha256: &str, workflow: &Workflow) -> PlanView {
    let results = workflow.steps.iter().map(Some).chain(std::iter::repeat(None));
    let steps = (1..).zip(plan.steps().zip(results)).map(|(number, ((call, dry_run), result))| PlanStepView {
        number,
        tool: call.tool.clone(),
        operation: call.operation.clone(),
        target: call.target.clone(),
        arguments: Value::Object(call.arguments.clone()),
        diff: dry_run.diff.clone(),
        blast_radius: dry_run.blast_radius.clone(),
        risk: dry_run.risk.clone(),
        reversible: dry_run.reversible,
        outcome: result.map(|result| result.outcome.as_str().to_owned()),
        detail: result.map(|result| result.detail.clone()),
        undo: result.and_then(|result| result.undo).map(|undo| undo.as_str().to_owned()),
    });
    PlanView {
        plan_sha256: plan_sha256.to_owned(),
        document: json!(plan),
        tool: plan.call.tool.clone(),
        operation: plan.call.operation.clone(),
        target: plan.call.target.clone(),
        arguments: Value::Object(plan.call.arguments.clone()),
        diff: plan.diff(),
        blast_radius: plan.blast_radius(),
        risk: plan.risk().to_owned(),
        reversible: plan.is_reversible(),
        steps: if plan.step_count() > 1 { steps.collect() } else { Vec::new() },
        runbook: plan.runbook.clone(),
        control: plan.control.clone(),
        expires_at: plan.expires_at,
    }
}

pub(crate) fn policy_view(workflow: &Workflow) -> Option<PolicyView> {
    let PolicyDecision { answer, rules, reason, policy_sha256 } = workflow.policy.clone()?;
    let partial_approvals = workflow.partial_approvals.iter().map(approval_view).collect();
    Some(PolicyView { answer: answer.as_str().to_owned(), rules, reason, policy_sha256, partial_approvals })
}

pub(crate) fn approval_view(approval: &Approval) -> ApprovalView {
    let Approval { principal, at, channel, reason, proof, .. } = approval.clone();
    ApprovalView { by: principal.to_string(), at, channel, reason, proof: proof.map(|proof| proof.as_str().to_owned()) }
}

fn evidence(workflow: &Workflow) -> Vec<EvidenceView> {
    let items = workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence);
    items
        .map(|item| EvidenceView {
            id: item.id.clone(),
            service: item.entity.name.clone(),
            entity: EntityView::from(&item.entity),
            at: item.at,
            summary: item.summary.clone(),
        })
        .collect()
}

fn timeline(workflow: &Workflow, history: &[HistoryRow]) -> Vec<TimelineView> {
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    let cited = workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence);
    let cited = cited.filter(|item| best.is_some_and(|best| best.evidence.contains(&item.id)));
    let mut lines: Vec<TimelineView> = cited
        .map(|item| TimelineView {
            at: item.at,
            kind: "evidence".into(),
            state: None,
            text: format!("{}: {}", item.entity, item.summary),
        })
        .collect();
    lines.extend(history.iter().map(|row| TimelineView {
        at: row.at,
        kind: "transition".into(),
        state: Some(row.to.to_string()),
        text: row.note.clone(),
    }));
    lines.extend(workflow.incident.history.iter().map(|change| TimelineView {
        at: change.at,
        kind: "update".into(),
        state: None,
        text: change.text.clone(),
    }));
    lines.sort_by_key(|line| line.at);
    lines
}

pub(crate) fn read_workflow(row: &IncidentRow) -> Result<Workflow, Problem> {
    Workflow::read(&row.workflow).map_err(unreadable_workflow)
}
