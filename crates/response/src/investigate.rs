//! Investigates an incident: diagnoses it, selects a runbook's action and asks for its dry run.

use serde_json::json;
use wardroom_diagnose::Weights;
use wardroom_domain::{Diagnosis, ToolCall};
use wardroom_pipeline::detection::incident_signals::select_control;
use wardroom_respond::{Event, PendingPlan, Workflow, reason_not_to_act};
use wardroom_store::{Changes, IncidentRow};

use super::audit_entry::audit_entry;
use super::diagnosis::diagnose_incident;
use super::respond_error::RespondError;
use super::responder::Responder;
use super::watched_signals::watched_signals;
use crate::clock;

impl Responder {
    /// Diagnoses an incident, for the first time or again, and asks for the dry run of the action that its runbook has.
    /// Without an action the result is applied at once.
    pub(crate) async fn investigate(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        watermark_ms: i64,
    ) -> Result<(), RespondError> {
        let diagnosis = {
            let tenant = self.tenants.get(&row.tenant);
            diagnose_incident(&tenant, &workflow.incident, &self.config.diagnose, &Weights::builtin()?)
        };
        workflow.record_investigation(watermark_ms);
        let without_plan = match self.select_action(&diagnosis)? {
            Ok(action) if self.executor.configured() => {
                return self.request_dry_run(row, workflow, diagnosis, action).await;
            }
            Ok(Action { call, runbook }) => {
                let ToolCall { tool, operation, target, .. } = call;
                format!("no executor is configured; runbook {runbook} proposes {tool} {operation} of {target}")
            }
            Err(reason) => reason,
        };
        let event = Event::NoPlan { diagnosis, reason: without_plan };
        self.conclude(row, workflow, event, Changes::default()).await.map(drop)
    }

    /// Keeps the plan in the workflow, and asks for its dry run, in one transaction.
    async fn request_dry_run(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        diagnosis: Diagnosis,
        action: Action,
    ) -> Result<(), RespondError> {
        let view = self.tenants.view(&row.tenant);
        let entities = &workflow.incident.entities;
        let Action { call, runbook } = action;
        let decision = json!({ "investigation": workflow.investigations, "runbook": runbook, "call": call });
        let pending = PendingPlan {
            control: select_control(&view.engine, entities).unwrap_or_else(|| "none".to_owned()),
            watched: watched_signals(&view.engine, entities),
            diagnosis,
            call,
            runbook,
            number: 0,
        };
        let effect = workflow.request_dry_run(pending);
        let now = clock::now();
        let changes = Changes { enqueue: vec![self.new_effect(&row.tenant, effect, now)], ..Changes::default() };
        let audit = audit_entry(&row.tenant, "analyst", Some(&row.id()), "dry_run_requested", decision, now);
        let text = serde_json::to_string(workflow)?;
        // Fails if the workflow changed meanwhile; then it is investigated again.
        self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?;
        Ok(())
    }

    /// Returns the action for the most likely cause, or why there is none.
    fn select_action(&self, diagnosis: &Diagnosis) -> Result<Result<Action, String>, RespondError> {
        let Some(best) = diagnosis.best() else {
            return Ok(Err("no cause was found; a person must investigate".to_owned()));
        };
        let advice = best.next_checks.first().map(|check| format!("; check next: {check}")).unwrap_or_default();
        let without = |reason: String| Ok(Err(format!("{reason}{advice}")));
        if let Some(reason) = reason_not_to_act(best, self.config.diagnose.min_confidence) {
            return without(reason);
        }
        let Some(runbook) = self.runbooks.for_diagnosis(diagnosis)? else {
            return without(format!("no runbook is for {} at {}", best.rule, best.entity));
        };
        let Some(call) = runbook.action(best) else {
            return without(format!("runbook {} needs parameters that the diagnosis does not have", runbook.id));
        };
        Ok(Ok(Action { call, runbook: runbook.id.clone() }))
    }
}

/// An action and the runbook that proposes it.
struct Action {
    call: ToolCall,
    runbook: String,
}
