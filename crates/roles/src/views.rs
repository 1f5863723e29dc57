//! What the API shows, made of what the roles hold.

mod letters;
mod tables;

use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_api::{
    AnomalyView, Chart, Decision, EvidenceView, IncidentDetail, IncidentSummary, PlanView, TimelineView,
};
use wardroom_detect::SignalKind;
use wardroom_diagnose::seed_answer;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{Anomaly, Approval, Identity, IncidentState, TenantId};
use wardroom_edge::Problem;
use wardroom_respond::{Event, TimelineEntry, Workflow, postmortem};
use wardroom_store::{HistoryRow, IncidentRow};

use crate::clock;
use crate::respond::{RespondError, Responder, entry, nearby};

pub(crate) use letters::Letters;
pub use letters::dead_letters;
pub(crate) use tables::Tables;

impl Responder {
    pub(crate) async fn list(
        &self,
        tenant: TenantId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<IncidentSummary>, Problem> {
        let rows = self.store.incidents(&tenant, before, limit).await.map_err(stored)?;
        rows.iter().map(|row| Ok(summary(row, &read(row)?))).collect()
    }

    pub(crate) async fn show(&self, tenant: TenantId, number: i64) -> Result<IncidentDetail, Problem> {
        let (row, workflow) = self.find(&tenant, number).await?;
        let history = self.store.history(&tenant, &row.key).await.map_err(stored)?;
        let plan = workflow.plan.as_ref().zip(workflow.plan_sha256.as_ref());
        let proposal = plan.map(|(plan, _)| {
            let action = format!("{} {} of {}", plan.call.tool, plan.call.operation, plan.call.target);
            (action, plan.runbook.clone(), plan.dry_run.risk.clone())
        });
        let proposal =
            proposal.as_ref().map(|(action, runbook, risk)| (action.as_str(), runbook.as_str(), risk.as_str()));
        let word = |outcome: Option<wardroom_domain::Outcome>| outcome.map(|outcome| outcome.as_str().to_owned());
        Ok(IncidentDetail {
            summary: summary(&row, &workflow),
            trigger: workflow.incident.trigger.clone(),
            timeline: timeline(&workflow, &history),
            hypotheses: workflow.diagnosis.iter().flat_map(|d| &d.causes).map(|cause| json!(cause)).collect(),
            evidence: evidence(&workflow),
            analysis: workflow.diagnosis.as_ref().map(|diagnosis| json!(seed_answer(diagnosis, proposal))),
            plan: plan.map(|(plan, plan_sha256)| PlanView {
                plan_sha256: plan_sha256.clone(),
                tool: plan.call.tool.clone(),
                operation: plan.call.operation.clone(),
                target: plan.call.target.clone(),
                arguments: Value::Object(plan.call.arguments.clone()),
                diff: plan.dry_run.diff.clone(),
                blast_radius: plan.dry_run.blast_radius.clone(),
                risk: plan.dry_run.risk.clone(),
                reversible: plan.dry_run.reversible,
                runbook: plan.runbook.clone(),
                control: plan.control.clone(),
                expires_at: plan.expires_at,
            }),
            plan_sha256: workflow.plan_sha256.clone(),
            approved_by: workflow.approval.as_ref().map(|approval| approval.principal.to_string()),
            execution: word(workflow.execution),
            idempotency_key: workflow
                .plan
                .as_ref()
                .filter(|_| workflow.execution.is_some())
                .and_then(|p| p.idempotency_key().ok()),
            undo: word(workflow.undo),
            outcome: workflow.outcome.clone(),
            verdict: workflow.verdict.as_ref().map(|(verdict, cause)| json!({ "verdict": verdict, "cause": cause })),
            charts: self.charts(&tenant, &workflow),
        })
    }

    pub(crate) async fn postmortem(&self, tenant: TenantId, number: i64) -> Result<String, Problem> {
        let (row, workflow) = self.find(&tenant, number).await?;
        let history = self.store.history(&tenant, &row.key).await.map_err(stored)?;
        let lines: Vec<TimelineEntry> = timeline(&workflow, &history)
            .into_iter()
            .map(|item| TimelineEntry { at: item.at, text: item.text })
            .collect();
        Ok(postmortem(&row.id(), &workflow, &lines))
    }

    /// A person's decision. What is refused is audited too.
    pub(crate) async fn decide(&self, who: Identity, number: i64, decision: Decision) -> Result<Value, Problem> {
        let action = match &decision {
            Decision::Approve { .. } => "approve",
            Decision::Reject { .. } => "reject",
            Decision::Verdict { .. } => "verdict",
            Decision::Close => "close",
        };
        let id = format!("INC-{number}");
        let decided = self.carry_out(&who, number, decision).await;
        if let Err(problem) = &decided {
            let decision = json!({ "code": problem.code() });
            let refused = AuditEntry {
                principal: who.principal.clone(),
                ..entry(&who.tenant, "resolver", Some(&id), &format!("{action}_refused"), decision, clock::now())
            };
            self.store.audit(&refused).await.map_err(stored)?;
        }
        decided
    }

    async fn carry_out(&self, who: &Identity, number: i64, decision: Decision) -> Result<Value, Problem> {
        // Authority is asked for once, however often the workflow changes meanwhile.
        let mut given: Option<Approval> = None;
        loop {
            let (row, mut workflow) = self.find(&who.tenant, number).await?;
            let event = match (&decision, &given) {
                (Decision::Approve { .. }, Some(given)) => {
                    let known = workflow.approval.as_ref().map(|approval| &approval.plan_sha256);
                    if known == Some(&given.plan_sha256) {
                        // The responder found the approval in the executor's ledger first.
                        return Ok(decided(&row, &workflow));
                    }
                    may_approve(&workflow, &given.plan_sha256)?;
                    Event::Approved(given.clone())
                }
                (Decision::Approve { plan_sha256, reason, proof, channel }, None) => {
                    may_approve(&workflow, plan_sha256)?;
                    let principal = self.authorize(&workflow, plan_sha256, proof.0.clone()).await?;
                    let (channel, plan_sha256, reason) = (channel.clone(), plan_sha256.clone(), reason.clone());
                    let approval = Approval { principal, at: clock::now(), channel, plan_sha256, reason };
                    Event::Approved(given.insert(approval).clone())
                }
                (Decision::Reject { reason }, _) => Event::Rejected(reason.clone()),
                (Decision::Close, _) => Event::Closed,
                (Decision::Verdict { verdict, cause }, _) => {
                    workflow.verdict = Some((verdict.clone(), cause.clone()));
                    if verdict == "noise" && workflow.state.may_become(IncidentState::Suppressed) {
                        Event::Noise(self.tenants.with(&who.tenant, |state| state.engine.watermark_ms()))
                    } else {
                        let decision = json!({ "verdict": verdict, "cause": cause });
                        let now = clock::now();
                        let mut audit = entry(&who.tenant, "resolver", Some(&row.id()), "verdict", decision, now);
                        audit.principal = who.principal.clone();
                        let text = serde_json::to_string(&workflow).map_err(unreadable)?;
                        let saved = self.store.save_workflow(&who.tenant, &row.key, &row.workflow, &text, &audit);
                        if saved.await.map_err(stored)? {
                            return Ok(json!({ "incident_id": row.id(), "state": row.state, "verdict": verdict }));
                        }
                        continue;
                    }
                }
            };
            let moved = self.apply(&row, &mut workflow, event, &who.principal).await.map_err(|error| match error {
                RespondError::Workflow(error) => conflict("wrong_state", error.to_string()),
                error => Problem::unavailable("not_moved", error.to_string()),
            })?;
            if moved {
                return Ok(decided(&row, &workflow));
            }
        }
    }

    /// Has the executor check the proof; what it accepts stands in its ledger.
    async fn authorize(
        &self,
        workflow: &Workflow,
        plan_sha256: &str,
        proof: String,
    ) -> Result<wardroom_domain::Principal, Problem> {
        let Some(plan) = workflow.plan.clone() else { return Err(conflict("plan_changed", "there is no plan")) };
        let request = Request::Authorize { plan: Box::new(plan), plan_sha256: plan_sha256.to_owned(), proof };
        let answer = self.executor.ask(&request).await;
        match answer.map_err(|error| Problem::unavailable("executor_unavailable", error.to_string()))? {
            Response::Status { status } => status.approved_by.ok_or_else(|| {
                Problem::unavailable("executor_unavailable", "the executor did not record the approval")
            }),
            Response::Refused { code, detail } => Err(match code {
                RefusalCode::NotAnApprover => Problem::new(forbidden(), "not_an_approver", detail),
                RefusalCode::Expired => Problem::new(gone(), "expired", detail),
                RefusalCode::AlreadyUsed => conflict("already_used", detail),
                RefusalCode::HashMismatch | RefusalCode::Stale => conflict("plan_changed", detail),
                RefusalCode::Invalid | RefusalCode::NotApproved => Problem::bad_request("invalid_plan", detail),
                RefusalCode::Unavailable => Problem::unavailable("executor_unavailable", detail),
            }),
            other => Err(Problem::unavailable("executor_unavailable", format!("unexpected answer {other:?}"))),
        }
    }

    async fn find(&self, tenant: &TenantId, number: i64) -> Result<(IncidentRow, Workflow), Problem> {
        let row = self.store.incident(tenant, number).await.map_err(stored)?;
        let row =
            row.ok_or_else(|| Problem::new(not_found(), "no_such_incident", format!("there is no INC-{number}")))?;
        let workflow = read(&row)?;
        Ok((row, workflow))
    }

    fn charts(&self, tenant: &TenantId, workflow: &Workflow) -> Vec<Chart> {
        let from_ms = workflow.incident.began_at.millis() - 120_000;
        self.tenants.with(tenant, |state| {
            let near = nearby(&state.engine, &workflow.incident.services);
            let cause = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
            let mut charts: Vec<((bool, bool), Chart)> = Vec::new();
            for (key, signal) in state.engine.signals() {
                let labels = key.labels();
                let watched = workflow.watched.iter().find(|watched| watched.signal == labels);
                let of_cause = cause.is_some_and(|cause| cause.service == key.service && key.peer.is_none());
                if !near.contains(&key.service)
                    || (watched.is_none() && !of_cause)
                    || key.kind == SignalKind::RequestRate
                {
                    continue;
                }
                let (title, unit) = match key.kind {
                    SignalKind::ErrorRatio => ("errors", "ratio"),
                    SignalKind::LatencyP99 => ("p99", "seconds"),
                    SignalKind::Cpu => ("CPU of limit", "ratio"),
                    SignalKind::Memory => ("memory of limit", "ratio"),
                    SignalKind::RequestRate => ("requests", "per_second"),
                };
                let recent = signal.history.iter().filter(|(at_ms, _)| *at_ms >= from_ms);
                let points = recent.map(|(at_ms, value)| (*at_ms as f64 / 1000.0, *value)).collect();
                let title = format!("{}: {title}", key.service);
                let chart = Chart { title, unit: unit.into(), points, bad_above: watched.map(|w| w.bad_above) };
                // What was bad first, and of that the cause.
                charts.push(((watched.is_none(), !of_cause), chart));
            }
            charts.sort_by(|a, b| (a.0, &a.1.title).cmp(&(b.0, &b.1.title)));
            charts.into_iter().map(|(_, chart)| chart).take(12).collect()
        })
    }
}

/// What whoever decided is told.
fn decided(row: &IncidentRow, workflow: &Workflow) -> Value {
    json!({ "incident_id": row.id(), "state": workflow.state,
        "execution_id": workflow.plan.as_ref().and_then(|plan| plan.idempotency_key().ok()) })
}

fn may_approve(workflow: &Workflow, plan_sha256: &str) -> Result<(), Problem> {
    if workflow.plan_sha256.as_deref() != Some(plan_sha256) {
        return Err(conflict("plan_changed", "this is not the plan that waits; look at the incident again"));
    }
    if workflow.approval.is_some() {
        return Err(conflict("already_used", "this plan was approved before"));
    }
    if workflow.plan.as_ref().is_some_and(|plan| plan.expires_at <= clock::now()) {
        return Err(Problem::new(gone(), "expired", "the plan has expired"));
    }
    if workflow.state != IncidentState::AwaitingApproval {
        return Err(conflict("wrong_state", format!("the incident is {}", workflow.state)));
    }
    Ok(())
}

pub(crate) fn anomaly_view(anomaly: Anomaly) -> AnomalyView {
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

fn summary(row: &IncidentRow, workflow: &Workflow) -> IncidentSummary {
    IncidentSummary {
        id: row.id(),
        state: row.state.to_string(),
        severity: workflow.diagnosis.as_ref().map_or(workflow.incident.severity, |d| d.severity).to_string(),
        title: workflow.incident.title.clone(),
        services: workflow.incident.services.clone(),
        began_at: workflow.incident.began_at,
        opened_at: workflow.incident.opened_at,
        updated_at: row.updated_at,
        number: row.number,
    }
}

fn evidence(workflow: &Workflow) -> Vec<EvidenceView> {
    let items = workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence);
    items
        .map(|item| EvidenceView {
            id: item.id.clone(),
            service: item.service.clone(),
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
            text: format!("{}: {}", item.service, item.summary),
        })
        .collect();
    lines.extend(history.iter().map(|row| TimelineView {
        at: row.at,
        kind: "transition".into(),
        state: Some(row.to.to_string()),
        text: row.note.clone(),
    }));
    lines.sort_by_key(|line| line.at);
    lines
}

fn read(row: &IncidentRow) -> Result<Workflow, Problem> {
    Workflow::read(&row.workflow).map_err(|error| Problem::unavailable("state_unreadable", error.to_string()))
}

fn unreadable(error: serde_json::Error) -> Problem {
    Problem::unavailable("state_unreadable", error.to_string())
}

fn stored(error: wardroom_store::Error) -> Problem {
    Problem::unavailable("state_store_unavailable", error.to_string())
}

fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(status(409), code, detail)
}

fn forbidden() -> wardroom_edge::Status {
    status(403)
}

fn gone() -> wardroom_edge::Status {
    status(410)
}

fn not_found() -> wardroom_edge::Status {
    status(404)
}

fn status(code: u16) -> wardroom_edge::Status {
    wardroom_edge::Status::from_u16(code).unwrap_or(wardroom_edge::Status::SERVICE_UNAVAILABLE)
}

/// Shared by the closures of the backend.
pub(crate) type Shared = Arc<Responder>;
