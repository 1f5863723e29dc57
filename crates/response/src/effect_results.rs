//! What the result of an effect changes: the row is finished in the transaction of the change.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{Approval, DryRun, IncidentState, Outcome, Principal, TenantId, Timestamp};
use wardroom_respond::{EffectRequest, Event, Workflow};
use wardroom_store::{Changes, EffectRow, IncidentRow, NewEffect};

use super::audit_entry::APPROVE_REQUESTED;
use super::effect_outcome::{ActionEnd, Performed, finished};
use super::respond_error::RespondError;
use super::responder::Responder;
use super::watched_signals::watched_signals;
use crate::{clock, crash};

/// Pause before an executed action is recorded if there is no telemetry time yet.
const NO_TELEMETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a result leads to.
enum Consequence {
    /// An event, to be applied as it is.
    Apply(Event),
    /// A diagnosis with or without a plan; see [`Workflow::proposed`].
    Propose(Event),
    /// Nothing waits for the result any more.
    Nothing,
}

impl Responder {
    /// Proposes the plan whose dry run has ended, or says why there is none.
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
            let request_id = effect.id.strip_prefix(&id_prefix(&row.tenant)).unwrap_or(&effect.id);
            let event = workflow.dry_run_finished(request_id, result.clone(), &row.tenant, expires_at);
            event.map_or(Consequence::Nothing, Consequence::Propose)
        })
        .await
    }

    /// Records the end of an execution.
    pub(crate) async fn finish_execution(&self, effect: &EffectRow, end: ActionEnd) -> Result<Performed, RespondError> {
        let ActionEnd { outcome, detail } = end;
        let view = self.tenants.view(&effect.tenant);
        let at_ms = view.engine.watermark_ms();
        if at_ms == i64::MIN {
            // No telemetry yet, so no telemetry time. The executor returns the same outcome at the next attempt.
            let reason = "there is no telemetry yet".to_owned();
            return Ok(Performed::Retry(reason, Some(NO_TELEMETRY_INTERVAL)));
        }
        let at = clock::now();
        self.conclude_effect(
            effect,
            &json!({ "outcome": outcome, "detail": detail }),
            outcome.as_str(),
            |_, workflow| {
                let watched = watched_signals(&view.engine, &workflow.incident.affected());
                Consequence::Apply(Event::Executed { outcome, detail: detail.clone(), at_ms, at, watched })
            },
        )
        .await
    }

    /// Records the end of an undo.
    pub(crate) async fn finish_undo(&self, effect: &EffectRow, end: ActionEnd) -> Result<Performed, RespondError> {
        let ActionEnd { outcome, detail } = end;
        let at_ms = self.tenants.view(&effect.tenant).engine.watermark_ms();
        self.conclude_effect(
            effect,
            &json!({ "outcome": outcome, "detail": detail }),
            outcome.as_str(),
            |_, workflow| {
                let Some(reason) = workflow.undoing.clone() else { return Consequence::Nothing };
                let reason = if outcome == Outcome::Applied { reason } else { format!("{reason}; {detail}") };
                Consequence::Apply(Event::VerificationFailed { undo: Some(outcome), reason, at_ms })
            },
        )
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
        let step = format!("effect:{}-finish", effect.kind);
        crash::maybe_crash(&step, "before");
        loop {
            let Some(row) = self.store.incident_by_key(&effect.tenant, &effect.incident).await? else {
                return self.finish(effect, word, result).await;
            };
            let mut workflow = Workflow::read(&row.workflow)?;
            let changes = Changes { finish: Some(finished(effect, result)), ..Changes::default() };
            let written = match consequence_of(&row, &mut workflow) {
                Consequence::Nothing => return self.finish(effect, word, result).await,
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

/// The start of the ids of a tenant's effects: keys of incidents are unique within a tenant.
fn id_prefix(tenant: &TenantId) -> String {
    format!("{}/", tenant.as_str())
}
