//! What the result of an effect changes: the row is finished in the transaction of the change.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{Approval, CheckResult, DryRun, IncidentState, Principal, TenantId, Timestamp, mutant};
use wardroom_respond::{EffectRequest, Event, PlanProgress, StepProgress, Workflow, watched_signals};
use wardroom_store::{Changes, EffectRow, IncidentRow, NewEffect};

use super::audit_entry::{APPROVE_REQUESTED, agent_of, audit_entry};
use super::detected_signals::DetectedSignals;
use super::effect_outcome::{ActionEnd, Performed, crash_name, finished};
use super::respond_error::RespondError;
use super::responder::Responder;
use crate::{clock, crash};

/// Pause before an executed action is recorded if there is no telemetry time yet.
const NO_TELEMETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Longest result of an effect that stands in the audit log, in bytes.
const MAX_AUDITED_BYTES: usize = 8 << 10;

/// What a result leads to.
enum Consequence {
    /// An event, to be applied as it is.
    Apply(Event),
    /// A diagnosis with or without a plan; see [`Workflow::proposed`].
    Propose(Event),
    /// The state stays: the workflow is saved with these effects. The name of the crash point and of the audit entry,
    /// and its text.
    Save(&'static str, Value, Vec<EffectRequest>),
    /// Nothing waits for the result any more.
    Nothing,
}

impl From<PlanProgress> for Consequence {
    fn from(progress: PlanProgress) -> Self {
        match progress {
            PlanProgress::Nothing => Self::Nothing,
            PlanProgress::Pending(effects) => Self::Save("plan_prepared", Value::Null, effects),
            PlanProgress::Ended(event) => Self::Propose(event),
        }
    }
}

impl Responder {
    /// Records the result of a check; the last one chooses the action.
    pub(crate) async fn finish_read(&self, effect: &EffectRow, result: CheckResult) -> Result<Performed, RespondError> {
        let text = json!(result);
        let word = if result.value.is_some() { "done" } else { "refused" };
        self.conclude_effect(effect, &text, word, |row, workflow| {
            workflow.read_finished(request_id(effect, &row.tenant), result.clone()).into()
        })
        .await
    }

    /// Proposes the plan whose dry runs have ended, or says why there is none.
    pub(crate) async fn finish_dry_run(
        &self,
        effect: &EffectRow,
        result: Result<DryRun, String>,
    ) -> Result<Performed, RespondError> {
        let expires_at = clock::now().plus(Duration::from_secs(self.config.respond.approval_minutes * 60));
        let text = match &result {
            Ok(dry_run) => json!({ "dry_run": dry_run }),
            Err(reason) => json!({ "refused": reason }),
        };
        let word = if result.is_ok() { "done" } else { "refused" };
        self.conclude_effect(effect, &text, word, |row, workflow| {
            let request_id = request_id(effect, &row.tenant);
            workflow.dry_run_finished(request_id, result.clone(), &row.tenant, expires_at).into()
        })
        .await
    }

    /// Records the end of the execution of a step, counted from 0.
    pub(crate) async fn finish_execution(
        &self,
        effect: &EffectRow,
        step: u32,
        end: ActionEnd,
    ) -> Result<Performed, RespondError> {
        self.finish_step(effect, &end, |workflow| workflow.step_executed(step, end.outcome, end.detail.clone())).await
    }

    /// Records the end of the undo of a step, counted from 0.
    pub(crate) async fn finish_undo(
        &self,
        effect: &EffectRow,
        step: u32,
        end: ActionEnd,
    ) -> Result<Performed, RespondError> {
        self.finish_step(effect, &end, |workflow| workflow.step_undone(step, end.outcome, &end.detail)).await
    }

    /// Records the end of a step or its undo, with what follows.
    async fn finish_step(
        &self,
        effect: &EffectRow,
        end: &ActionEnd,
        progress_of: impl Fn(&mut Workflow) -> StepProgress,
    ) -> Result<Performed, RespondError> {
        let view = self.tenants.view(&effect.tenant);
        let at_ms = view.engine.watermark_ms();
        if at_ms == i64::MIN {
            // No telemetry yet, so no telemetry time. The executor returns the same outcome at the next attempt.
            let reason = "there is no telemetry yet".to_owned();
            return Ok(Performed::Retry(reason, Some(NO_TELEMETRY_INTERVAL)));
        }
        let at = clock::now();
        let result = json!({ "outcome": end.outcome, "detail": end.detail });
        self.conclude_effect(effect, &result, end.outcome.as_str(), |_, workflow| match progress_of(workflow) {
            StepProgress::Nothing => Consequence::Nothing,
            StepProgress::Next(next) => {
                let decision = json!({
                    "effect": effect.kind, "outcome": end.outcome, "detail": end.detail,
                    "steps": workflow.steps, "undoing": workflow.undoing, "plan_sha256": workflow.plan_sha256,
                });
                Consequence::Save("step_ended", decision, vec![*next])
            }
            StepProgress::Executed { outcome, detail } => {
                let watched = watched_signals(&DetectedSignals(&view.engine), &workflow.incident.affected());
                Consequence::Apply(Event::Executed { outcome, detail, at_ms, at, watched })
            }
            StepProgress::Undone { undo, reason } => {
                Consequence::Apply(Event::VerificationFailed { undo: Some(undo), reason, at_ms })
            }
        })
        .await
    }

    /// Applies an approval that was found in the executor's ledger.
    pub(crate) async fn finish_probe(&self, effect: &EffectRow, approval: Approval) -> Result<Performed, RespondError> {
        self.conclude_effect(effect, &json!({ "approved_by": approval.principal }), "approved", |_, workflow| {
            let is_pending = workflow.state == IncidentState::AwaitingApproval
                && workflow.plan_sha256.as_ref() == Some(&approval.plan_sha256);
            if is_pending { Consequence::Apply(Event::Approved(approval.clone())) } else { Consequence::Nothing }
        })
        .await
    }

    /// Returns the approval that the executor's ledger has, with what the executor does not know: channel and reason of
    /// the request.
    pub(crate) async fn approval_in(
        &self,
        tenant: &TenantId,
        plan_sha256: String,
        status: &PlanStatus,
    ) -> Result<Option<Approval>, RespondError> {
        let Some(principal) = status.approved_by.clone() else { return Ok(None) };
        let is_same_plan = |entry: &AuditEntry| {
            let plan = entry.decision["plan_sha256"].as_str();
            entry.tenant == *tenant && entry.principal == principal && plan == Some(plan_sha256.as_str())
        };
        let requested = self.store.find_audit_entry(APPROVE_REQUESTED, is_same_plan).await?;
        let text = |key: &str| requested.as_ref().and_then(|entry| entry.decision[key].as_str()).map(str::to_owned);
        let channel = text("channel").unwrap_or_else(|| "recovered".to_owned());
        let reason = text("reason").unwrap_or_default();
        Ok(Some(Approval { principal, at: clock::now(), channel, plan_sha256, reason, proof: None }))
    }

    /// Finishes an effect with the change of its incident; reads the incident again while others change it.
    async fn conclude_effect(
        &self,
        effect: &EffectRow,
        result: &Value,
        word: &'static str,
        consequence_of: impl Fn(&IncidentRow, &mut Workflow) -> Consequence,
    ) -> Result<Performed, RespondError> {
        let step = format!("effect:{}-finish", crash_name(effect));
        crash::maybe_crash(&step, "before");
        loop {
            let Some(row) = self.store.incident_by_key(&effect.tenant, &effect.incident).await? else {
                return self.finish(effect, word, result).await;
            };
            let mut workflow = Workflow::read(&row.workflow)?;
            let mut changes = Changes { finish: Some(finished(effect, result)), ..Changes::default() };
            if mutant::is_enabled("finish-before-change") {
                changes.finish = None;
                self.finish(effect, word, result).await?;
            }
            let written = match consequence_of(&row, &mut workflow) {
                Consequence::Nothing => return self.finish(effect, word, result).await,
                Consequence::Save(name, decision, effects) => {
                    let decision = if decision.is_null() { effect_decision(effect, result) } else { decision };
                    self.save_progress(&row, &workflow, (name, decision), effects, changes).await
                }
                Consequence::Propose(event) => self.conclude(&row, &mut workflow, event, changes).await,
                Consequence::Apply(event) => {
                    self.apply(&row, &mut workflow, event, &Principal::wardroom(), changes).await
                }
            };
            match written {
                Ok(true) => break,
                // Changed meanwhile, for example by a service that joined.
                Ok(false) => {}
                // The incident went on without the result, for example to closed.
                Err(RespondError::Workflow(error)) => {
                    tracing::info!(effect = %effect.id, %error, "the incident no longer waits for this effect");
                    return self.finish(effect, word, result).await;
                }
                Err(error) => return Err(error),
            }
        }
        crash::maybe_crash(&step, "after");
        Ok(Performed::Finished(word))
    }

    /// Saves a workflow whose state stays, with the end of an effect and the effects that follow. Returns false if the
    /// stored incident has changed since `row` was read.
    async fn save_progress(
        &self,
        row: &IncidentRow,
        workflow: &Workflow,
        (name, decision): (&'static str, Value),
        effects: Vec<EffectRequest>,
        mut changes: Changes,
    ) -> Result<bool, RespondError> {
        let now = clock::now();
        changes.enqueue.extend(effects.into_iter().map(|effect| self.new_effect(&row.tenant, effect, now)));
        let audit = audit_entry(&row.tenant, agent_of(row.state), Some(&row.id()), name, decision, now);
        let text = serde_json::to_string(workflow)?;
        let point = format!("incident:{name}");
        crash::maybe_crash(&point, "before");
        let saved = self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?;
        crash::maybe_crash(&point, "after");
        Ok(saved)
    }

    /// Makes the row of an effect.
    pub(crate) fn new_effect(&self, tenant: &TenantId, request: EffectRequest, now: Timestamp) -> NewEffect {
        NewEffect {
            id: format!("{}{}", id_prefix(tenant), request.id),
            kind: request.data.kind().as_str().to_owned(),
            resource: request.resource,
            // The executor of this data folder has the plan in its ledger.
            queue: self.queue.clone(),
            payload: json!(request.data).to_string(),
            not_before: now.plus(request.wait),
            deadline: now.plus(request.wait).plus(request.lifetime),
        }
    }
}

/// What the audit log says about the end of an effect; the row has all of a long result.
fn effect_decision(effect: &EffectRow, result: &Value) -> Value {
    let is_short = result.to_string().len() <= MAX_AUDITED_BYTES;
    json!({ "effect": effect.id, "result": if is_short { result.clone() } else { Value::Null } })
}

/// The id of an effect as the response has asked for it.
fn request_id<'a>(effect: &'a EffectRow, tenant: &TenantId) -> &'a str {
    effect.id.strip_prefix(&id_prefix(tenant)).unwrap_or(&effect.id)
}

/// The start of the ids of a tenant's effects: keys of incidents are unique within a tenant.
fn id_prefix(tenant: &TenantId) -> String {
    format!("{}/", tenant.as_str())
}
