//! Decisions of people: approve, reject, verdict, close, reopen.

use serde_json::json;
use wardroom_api::{Decision, DecisionRequest, DecisionView};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::{PlanStatus, RefusalCode, Request, Response};
use wardroom_domain::{Approval, Identity, IncidentState, Principal, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_respond::{EffectRequest, Event, Workflow};
use wardroom_store::{Changes, IncidentRow};

use super::audit_entry::{APPROVE_REQUESTED, audit_entry};
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::responder::{Responder, finished_incident};
use crate::clock;
use crate::incident_notes::{Noted, note};
use crate::problem_responses::{conflict, store_problem, unreadable_workflow};

impl Responder {
    /// Applies a decision to an incident. Refused decisions are audited, too.
    ///
    /// # Errors
    /// Returns a problem if the decision is refused, or the state or the executor is unavailable.
    pub async fn decide(&self, caller: Identity, request: DecisionRequest) -> Result<DecisionView, Problem> {
        let (number, decision) = (request.number, &request.decision);
        let action = match decision {
            Decision::Approve { .. } => "approve",
            Decision::Reject { .. } => "reject",
            Decision::Verdict { .. } => "verdict",
            Decision::Close { .. } => "close",
            Decision::Reopen { .. } => "reopen",
            Decision::Acknowledge => "acknowledge",
            Decision::Assign { .. } => "assign",
            Decision::Comment { .. } => "comment",
            Decision::Merge { .. } => "merge",
            Decision::Suppress { .. } => "suppress",
        };
        let id = format!("INC-{number}");
        let reason = match decision {
            Decision::Approve { reason, .. }
            | Decision::Reject { reason }
            | Decision::Close { reason }
            | Decision::Reopen { reason }
            | Decision::Merge { reason, .. }
            | Decision::Suppress { reason, .. } => reason.clone(),
            Decision::Verdict { .. } | Decision::Acknowledge | Decision::Assign { .. } | Decision::Comment { .. } => {
                String::new()
            }
        };
        let result = self.apply_decision(&caller, &request).await;
        if let Err(problem) = &result {
            self.audit_refusal(&caller, Some(&id), action, (problem, &reason)).await?;
        }
        result
    }

    /// Audits that a request of a person was refused, with the reason that they gave for it.
    pub(crate) async fn audit_refusal(
        &self,
        caller: &Identity,
        id: Option<&str>,
        action: &str,
        (problem, reason): (&Problem, &str),
    ) -> Result<(), Problem> {
        let decision = json!({ "code": problem.code(), "reason": reason });
        let action = format!("{action}_refused");
        let refused = AuditEntry {
            principal: caller.principal.clone(),
            ..audit_entry(&caller.tenant, "resolver", id, &action, decision, clock::now())
        };
        self.store.append_audit(&refused).await.map_err(store_problem)
    }

    /// Retries while other writers change the incident at the same time.
    async fn apply_decision(
        &self,
        caller: &Identity,
        DecisionRequest { number, if_match, decision }: &DecisionRequest,
    ) -> Result<DecisionView, Problem> {
        // The executor is asked for authorization once, however often this retries; with whether it has enough
        // approvals.
        let mut authorized: Option<(Approval, bool)> = None;
        loop {
            let (row, mut workflow) = self.find_incident(&caller.tenant, *number).await?;
            if authorized.is_none() {
                check_revision(&row, *if_match)?;
                authorized = self.ask_approval(caller, &row, &workflow, decision).await?;
            }
            let noted = self.note(caller, &row, &mut workflow, decision).await?;
            let is_closing = matches!(decision, Decision::Merge { .. }) && workflow.state == IncidentState::Escalated;
            if let Some(noted) = noted.filter(|_| !is_closing) {
                if self.save(&row, &workflow, noted, &caller.principal).await? {
                    return Ok(decision_view(&row, &workflow));
                }
                continue;
            }
            let ending = self.ending_event(caller, &row, &workflow, decision).await?;
            let event = match (ending, decision, &authorized) {
                (Some(event), ..) => event,
                (None, Decision::Approve { .. }, Some((approval, is_enough))) => {
                    let known = workflow.approval.as_ref().map(|approval| &approval.plan_sha256);
                    if known == Some(&approval.plan_sha256) {
                        // The approval was found in the executor's ledger first.
                        return Ok(decision_view(&row, &workflow));
                    }
                    check_approvable(&workflow, &approval.plan_sha256)?;
                    if *is_enough {
                        Event::Approved(approval.clone())
                    } else if self.keep_approval(&row, &mut workflow, approval).await? {
                        return Ok(decision_view(&row, &workflow));
                    } else {
                        continue;
                    }
                }
                (None, Decision::Verdict { verdict, cause }, _) => {
                    workflow.verdict = Some((verdict.clone(), cause.clone()));
                    if verdict == "noise" && workflow.state.can_transition_to(IncidentState::Suppressed) {
                        Event::Noise(self.settle_ms(&caller.tenant, &workflow))
                    } else {
                        let decision = json!({ "verdict": verdict, "cause": cause });
                        if self.save(&row, &workflow, ("verdict", decision), &caller.principal).await? {
                            let view = decision_view(&row, &workflow);
                            return Ok(DecisionView { verdict: Some(verdict.clone()), ..view });
                        }
                        continue;
                    }
                }
                // Authorized above; notes were saved above; the others have events.
                (None, _, _) => continue,
            };
            let applied = self.apply(&row, &mut workflow, event, &caller.principal, Changes::default()).await;
            let applied = applied.map_err(|error| match error {
                RespondError::Workflow(error) => conflict("wrong_state", error.to_string()),
                error => Problem::unavailable("not_moved", error.to_string()),
            })?;
            if applied {
                if matches!(decision, Decision::Reopen { .. }) {
                    self.tenants.restore_incident(&row.tenant, workflow.incident.clone(), workflow.opened_ms);
                }
                return Ok(decision_view(&row, &workflow));
            }
        }
    }

    /// Returns the event of a decision that ends an incident, or its plan, or reopens it; `None` for any other.
    async fn ending_event(
        &self,
        caller: &Identity,
        row: &IncidentRow,
        workflow: &Workflow,
        decision: &Decision,
    ) -> Result<Option<Event>, Problem> {
        let (by, at_ms) = (caller.principal.clone(), self.settle_ms(&caller.tenant, workflow));
        Ok(Some(match decision {
            Decision::Merge { into, reason } => {
                let reason = format!("merged into INC-{into}{}{reason}", if reason.is_empty() { "" } else { ": " });
                Event::Closed { by, reason, at_ms }
            }
            Decision::Reject { reason } => Event::Rejected { by, reason: reason.clone() },
            Decision::Close { reason } => Event::Closed { by, reason: reason.clone(), at_ms },
            Decision::Reopen { reason } => {
                if let Some(other) = self.id_of(&row.tenant, workflow.incident.merged_into.as_deref()).await? {
                    let detail = format!("{} was merged into {other}; reopen that one", row.id());
                    return Err(conflict("merged", detail));
                }
                self.check_home(workflow, "reopen it there")?;
                Event::Reopened { by, reason: reason.clone(), at_ms, at: clock::now() }
            }
            Decision::Approve { .. }
            | Decision::Verdict { .. }
            | Decision::Acknowledge
            | Decision::Assign { .. }
            | Decision::Comment { .. }
            | Decision::Suppress { .. } => return Ok(None),
        }))
    }

    /// Returns an error if another server handles an incident: only that one has its telemetry.
    pub(crate) fn check_home(&self, workflow: &Workflow, remedy: &str) -> Result<(), Problem> {
        if self.is_home(workflow) {
            return Ok(());
        }
        let detail = format!("another server has the telemetry and the executor of this incident; {remedy}");
        Err(Problem::unavailable("other_server", detail))
    }

    /// Asks the executor to record an approval. Returns it, with whether the plan has enough of them then; `None` for
    /// any other decision.
    async fn ask_approval(
        &self,
        caller: &Identity,
        row: &IncidentRow,
        workflow: &Workflow,
        decision: &Decision,
    ) -> Result<Option<(Approval, bool)>, Problem> {
        let Decision::Approve { plan_sha256, reason, proof, channel } = decision else { return Ok(None) };
        check_approvable(workflow, plan_sha256)?;
        self.check_home(workflow, "approve it there")?;
        self.check_approver(caller, workflow, channel)?;
        self.audit_request(caller, row, (plan_sha256, reason, channel)).await?;
        let status = self.authorize(workflow, plan_sha256, proof.0.clone()).await?;
        let unrecorded = || Problem::unavailable("executor_unavailable", "the executor did not record the approval");
        let principal = status.approvals.last().or(status.approved_by.as_ref()).cloned().ok_or_else(unrecorded)?;
        let (channel, plan_sha256, reason) = (channel.clone(), plan_sha256.clone(), reason.clone());
        let (at, proof) = (clock::now(), status.proof);
        let approval = Approval { principal, at, channel, plan_sha256, reason, proof };
        Ok(Some((approval, status.approved_by.is_some())))
    }

    /// Notes a decision that is no transition in the workflow; `None` for any other decision.
    async fn note(
        &self,
        caller: &Identity,
        row: &IncidentRow,
        workflow: &mut Workflow,
        decision: &Decision,
    ) -> Result<Option<Noted>, Problem> {
        let into = match decision {
            Decision::Merge { into, .. } => Some(self.merge_target(row, *into).await?),
            _ => None,
        };
        note(caller, workflow, decision, into.as_ref(), clock::now())
    }

    /// Returns id and key of the incident that another one is merged into.
    async fn merge_target(&self, row: &IncidentRow, into: i64) -> Result<(String, String), Problem> {
        let bad = |detail: String| Problem::bad_request("bad_merge", format!("field into: {detail}"));
        let (target, workflow) = self.find_incident(&row.tenant, into).await?;
        if target.key == row.key {
            return Err(bad("an incident cannot be merged into itself".to_owned()));
        }
        if workflow.incident.merged_into.is_some() {
            return Err(bad(format!("{} is merged into another incident; name that one", target.id())));
        }
        Ok((target.id(), target.key))
    }

    /// Keeps one of several approvals that a plan needs.
    async fn keep_approval(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        approval: &Approval,
    ) -> Result<bool, Problem> {
        let decision = json!({
            "plan_sha256": approval.plan_sha256, "channel": approval.channel, "reason": approval.reason,
            "proof": approval.proof,
        });
        // The executor decides when there are enough.
        drop(workflow.add_approval(approval.clone()));
        self.save(row, workflow, ("approved_partly", decision), &approval.principal).await
    }

    /// Saves a workflow whose state has not changed. Returns false if it has changed since `row` was read.
    async fn save(
        &self,
        row: &IncidentRow,
        workflow: &Workflow,
        (action, decision): (&str, serde_json::Value),
        principal: &Principal,
    ) -> Result<bool, Problem> {
        let (id, now) = (row.id(), clock::now());
        let audit = audit_entry(&row.tenant, "resolver", Some(&id), action, decision, now);
        let audit = AuditEntry { principal: principal.clone(), ..audit };
        let text = serde_json::to_string(workflow).map_err(unreadable_workflow)?;
        let finished_incident = finished_incident(workflow).map_err(unreadable_workflow)?;
        let changes = Changes { finished_incident, reopened: workflow.reopened, ..Changes::default() };
        let saved = self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit);
        saved.await.map_err(store_problem)
    }

    /// Returns the telemetry time at which a person settles an incident: now, or its opening before any telemetry.
    pub(crate) fn settle_ms(&self, tenant: &TenantId, workflow: &Workflow) -> i64 {
        self.tenants.view(tenant).engine.watermark_ms().max(workflow.opened_ms)
    }

    /// Records the reason of an approval before the executor is asked for it, with an effect that looks for the
    /// approval in the executor's ledger: a crash, or a client that hangs up, may come between the ledger and the
    /// incident, and the ledger does not have the reason.
    async fn audit_request(
        &self,
        caller: &Identity,
        row: &IncidentRow,
        (plan_sha256, reason, channel): (&str, &str, &str),
    ) -> Result<(), Problem> {
        let decision = json!({ "plan_sha256": plan_sha256, "reason": reason, "channel": channel });
        let (tenant, now) = (&caller.tenant, clock::now());
        let entry = audit_entry(tenant, "resolver", Some(&row.id()), APPROVE_REQUESTED, decision, now);
        let entry = AuditEntry { principal: caller.principal.clone(), ..entry };
        let probe = EffectRequest::probe(plan_sha256, &now.nanos().to_string());
        let probe = self.new_effect(tenant, probe, now);
        self.store.enqueue_effects(tenant, &row.key, &[probe], now, Some(&entry)).await.map_err(store_problem)
    }

    /// Asks the executor to verify the proof and to record the approval in its ledger.
    async fn authorize(&self, workflow: &Workflow, plan_sha256: &str, proof: String) -> Result<PlanStatus, Problem> {
        let request =
            authorization(workflow, plan_sha256, proof).ok_or_else(|| conflict("plan_changed", "there is no plan"))?;
        let response = self.executor.request(&request).await;
        match response.map_err(|error| Problem::unavailable("executor_unavailable", error.to_string()))? {
            Response::Status { status } => Ok(status),
            Response::Refused { code, detail } => Err(refusal_problem(code, detail)),
            _ => Err(Problem::unavailable("executor_unavailable", OTHER_ANSWER)),
        }
    }
}

/// Returns the request to record an approval; `None` without a plan. An empty proof says that the policy permits the
/// plan without a person; the executor decides whether it does.
pub(crate) fn authorization(workflow: &Workflow, plan_sha256: &str, proof: String) -> Option<Request> {
    let undo_sha256 = workflow.undo_secret.as_ref().map(|secret| sha256_hex(secret.as_bytes()));
    let (plan, plan_sha256) = (Box::new(workflow.plan.clone()?), plan_sha256.to_owned());
    Some(Request::Authorize { plan, plan_sha256, proof, undo_sha256 })
}

/// Returns what the executor's refusal is to a caller.
pub fn refusal_problem(code: RefusalCode, detail: String) -> Problem {
    match code {
        RefusalCode::NotAnApprover => Problem::new(Status::FORBIDDEN, "not_an_approver", detail),
        RefusalCode::InvalidProof => Problem::new(Status::FORBIDDEN, "invalid_proof", detail),
        RefusalCode::Denied => Problem::new(Status::FORBIDDEN, "denied", detail),
        RefusalCode::Expired => Problem::new(Status::GONE, "expired", detail),
        RefusalCode::AlreadyUsed => conflict("already_used", detail),
        RefusalCode::HashMismatch | RefusalCode::Stale => conflict("plan_changed", detail),
        RefusalCode::Invalid | RefusalCode::NotApproved => Problem::bad_request("invalid_plan", detail),
        RefusalCode::Stopped => Problem::unavailable("stopped", detail),
        RefusalCode::Busy | RefusalCode::RateLimited | RefusalCode::Unavailable => {
            Problem::unavailable("executor_unavailable", detail)
        }
    }
}

/// Returns an error if the incident is not the one that the caller has read.
pub(crate) fn check_revision(row: &IncidentRow, if_match: Option<i64>) -> Result<(), Problem> {
    if if_match.is_none_or(|revision| revision == row.revision) {
        return Ok(());
    }
    let detail = format!("{} has changed since it was read, to revision {}; read it again", row.id(), row.revision);
    Err(Problem::new(Status::PRECONDITION_FAILED, "changed_since", detail))
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
