//! Decisions of people: approve, reject, verdict, close.

use serde_json::json;
use wardroom_api::{Decision, DecisionView};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{Approval, Identity, IncidentState, Principal, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_respond::{Event, Workflow};
use wardroom_store::IncidentRow;

use super::audit_entry::{APPROVE_REQUESTED, audit_entry};
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::responder::Responder;
use crate::clock;
use crate::problem_responses::{conflict, store_problem, unreadable_workflow};

impl Responder {
    /// Applies a decision to an incident. Refused decisions are audited, too.
    pub(crate) async fn decide(
        &self,
        caller: Identity,
        number: i64,
        decision: Decision,
    ) -> Result<DecisionView, Problem> {
        let action = match &decision {
            Decision::Approve { .. } => "approve",
            Decision::Reject { .. } => "reject",
            Decision::Verdict { .. } => "verdict",
            Decision::Close { .. } => "close",
        };
        let id = format!("INC-{number}");
        let reason = match &decision {
            Decision::Approve { reason, .. } | Decision::Reject { reason } | Decision::Close { reason } => {
                reason.clone()
            }
            Decision::Verdict { .. } => String::new(),
        };
        let result = self.apply_decision(&caller, number, decision).await;
        if let Err(problem) = &result {
            let decision = json!({ "code": problem.code(), "reason": reason });
            let action = format!("{action}_refused");
            let refused = AuditEntry {
                principal: caller.principal.clone(),
                ..audit_entry(&caller.tenant, "resolver", Some(&id), &action, decision, clock::now())
            };
            self.store.append_audit(&refused).await.map_err(store_problem)?;
        }
        result
    }

    /// Retries while other writers change the incident at the same time.
    async fn apply_decision(
        &self,
        caller: &Identity,
        number: i64,
        decision: Decision,
    ) -> Result<DecisionView, Problem> {
        // The executor is asked for authorization once, however often this retries.
        let mut authorized: Option<Approval> = None;
        loop {
            let (row, mut workflow) = self.find_incident(&caller.tenant, number).await?;
            let event = match (&decision, &authorized) {
                (Decision::Approve { .. }, Some(approval)) => {
                    let known = workflow.approval.as_ref().map(|approval| &approval.plan_sha256);
                    if known == Some(&approval.plan_sha256) {
                        // The responder found the approval in the executor's ledger first.
                        return Ok(decision_view(&row, &workflow));
                    }
                    check_approvable(&workflow, &approval.plan_sha256)?;
                    Event::Approved(approval.clone())
                }
                (Decision::Approve { plan_sha256, reason, proof, channel }, None) => {
                    check_approvable(&workflow, plan_sha256)?;
                    self.audit_request(caller, &row, (plan_sha256, reason, channel)).await?;
                    let principal = self.authorize(&workflow, plan_sha256, proof.0.clone()).await?;
                    let (channel, plan_sha256, reason) = (channel.clone(), plan_sha256.clone(), reason.clone());
                    let approval = Approval { principal, at: clock::now(), channel, plan_sha256, reason };
                    Event::Approved(authorized.insert(approval).clone())
                }
                (Decision::Reject { reason }, _) => {
                    Event::Rejected { by: caller.principal.clone(), reason: reason.clone() }
                }
                (Decision::Close { reason }, _) => {
                    let at_ms = self.settle_ms(&caller.tenant, &workflow);
                    Event::Closed { by: caller.principal.clone(), reason: reason.clone(), at_ms }
                }
                (Decision::Verdict { verdict, cause }, _) => {
                    workflow.verdict = Some((verdict.clone(), cause.clone()));
                    if verdict == "noise" && workflow.state.can_transition_to(IncidentState::Suppressed) {
                        Event::Noise(self.settle_ms(&caller.tenant, &workflow))
                    } else {
                        let decision = json!({ "verdict": verdict, "cause": cause });
                        let (id, now) = (row.id(), clock::now());
                        let mut audit = audit_entry(&caller.tenant, "resolver", Some(&id), "verdict", decision, now);
                        audit.principal = caller.principal.clone();
                        let text = serde_json::to_string(&workflow).map_err(unreadable_workflow)?;
                        let saved = self.store.save_workflow(&caller.tenant, &row.key, &row.workflow, &text, &audit);
                        if saved.await.map_err(store_problem)? {
                            let view = decision_view(&row, &workflow);
                            return Ok(DecisionView { verdict: Some(verdict.clone()), ..view });
                        }
                        continue;
                    }
                }
            };
            let applied = self.apply(&row, &mut workflow, event, &caller.principal).await;
            let applied = applied.map_err(|error| match error {
                RespondError::Workflow(error) => conflict("wrong_state", error.to_string()),
                error => Problem::unavailable("not_moved", error.to_string()),
            })?;
            if applied {
                return Ok(decision_view(&row, &workflow));
            }
        }
    }

    /// Returns the telemetry time at which a person settles an incident: now, or its opening before any telemetry.
    fn settle_ms(&self, tenant: &TenantId, workflow: &Workflow) -> i64 {
        self.tenants.view(tenant).engine.watermark_ms().max(workflow.opened_ms)
    }

    /// Records the reason of an approval before the executor is asked for it: the responder may find the approval in
    /// the executor's ledger first, in this process or after a crash, and the ledger does not have the reason.
    async fn audit_request(
        &self,
        caller: &Identity,
        row: &IncidentRow,
        (plan_sha256, reason, channel): (&str, &str, &str),
    ) -> Result<(), Problem> {
        let decision = json!({ "plan_sha256": plan_sha256, "reason": reason, "channel": channel });
        let entry = audit_entry(&caller.tenant, "resolver", Some(&row.id()), APPROVE_REQUESTED, decision, clock::now());
        let entry = AuditEntry { principal: caller.principal.clone(), ..entry };
        self.store.append_audit(&entry).await.map_err(store_problem)
    }

    /// Asks the executor to verify the approver's token and to record the approval in its ledger.
    async fn authorize(&self, workflow: &Workflow, plan_sha256: &str, proof: String) -> Result<Principal, Problem> {
        let Some(plan) = workflow.plan.clone() else { return Err(conflict("plan_changed", "there is no plan")) };
        let undo_sha256 = workflow.undo_secret.as_ref().map(|secret| sha256_hex(secret.as_bytes()));
        let (plan, plan_sha256) = (Box::new(plan), plan_sha256.to_owned());
        let request = Request::Authorize { plan, plan_sha256, proof, undo_sha256 };
        let response = self.executor.request(&request).await;
        match response.map_err(|error| Problem::unavailable("executor_unavailable", error.to_string()))? {
            Response::Status { status } => status.approved_by.ok_or_else(|| {
                Problem::unavailable("executor_unavailable", "the executor did not record the approval")
            }),
            Response::Refused { code, detail } => Err(match code {
                RefusalCode::NotAnApprover => Problem::new(Status::FORBIDDEN, "not_an_approver", detail),
                RefusalCode::Expired => Problem::new(Status::GONE, "expired", detail),
                RefusalCode::AlreadyUsed => conflict("already_used", detail),
                RefusalCode::HashMismatch | RefusalCode::Stale => conflict("plan_changed", detail),
                RefusalCode::Invalid | RefusalCode::NotApproved => Problem::bad_request("invalid_plan", detail),
                RefusalCode::Unavailable => Problem::unavailable("executor_unavailable", detail),
            }),
            _ => Err(Problem::unavailable("executor_unavailable", OTHER_ANSWER)),
        }
    }
}

fn decision_view(row: &IncidentRow, workflow: &Workflow) -> DecisionView {
    DecisionView {
        incident_id: row.id(),
        state: workflow.state.to_string(),
        execution_id: workflow.plan.as_ref().and_then(|plan| plan.idempotency_key().ok()),
        verdict: None,
    }
}

/// Returns an error unless the plan with this hash can be approved now.
fn check_approvable(workflow: &Workflow, plan_sha256: &str) -> Result<(), Problem> {
    if workflow.plan_sha256.as_deref() != Some(plan_sha256) {
        return Err(conflict("plan_changed", "this is not the pending plan; read the incident again"));
    }
    if workflow.approval.is_some() {
        return Err(conflict("already_used", "this plan was approved before"));
    }
    if workflow.plan.as_ref().is_some_and(|plan| plan.expires_at <= clock::now()) {
        return Err(Problem::new(Status::GONE, "expired", "the plan has expired"));
    }
    if workflow.state != IncidentState::AwaitingApproval {
        return Err(conflict("wrong_state", format!("the incident is {}", workflow.state)));
    }
    Ok(())
}
