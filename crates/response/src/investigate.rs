//! Investigates an incident: diagnoses it, selects a runbook, and asks for its checks or the dry runs of its action.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardroom_diagnose::Weights;
use wardroom_domain::{Diagnosis, ToolCall};
use wardroom_knowledge::RunbookProposal;
use wardroom_respond::{
    Event, PendingPlan, PendingRead, PlanProgress, Workflow, reason_not_to_act, select_control, watched_signals,
};
use wardroom_store::{Changes, IncidentRow};

use super::audit_entry::audit_entry;
use super::detected_signals::DetectedSignals;
use super::diagnosis::diagnose_incident;
use super::respond_error::RespondError;
use super::responder::Responder;
use crate::clock;

impl Responder {
    /// Diagnoses an incident, for the first time or again, and asks for the checks of its runbook, or the dry runs of
    /// the action that it has. Without an action the result is applied at once.
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
                return self.request_plan(row, workflow, diagnosis, action).await;
            }
            Ok(Action { proposal, runbook }) => {
                let step = proposal.choices.first().and_then(|choice| choice.steps.first());
                let call = step.map(ToolCall::describe).unwrap_or_default();
                format!("no executor is configured; runbook {runbook} proposes {call}")
            }
            Err(reason) => reason,
        };
        let event = Event::NoPlan { diagnosis, reason: without_plan };
        self.conclude(row, workflow, event, Changes::default()).await.map(drop)
    }

    /// Keeps the plan in the workflow, and asks for its checks or dry runs, in one transaction.
    async fn request_plan(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        diagnosis: Diagnosis,
        action: Action,
    ) -> Result<(), RespondError> {
        let view = self.tenants.view(&row.tenant);
        let (known, entities) = (DetectedSignals(&view.engine), &workflow.incident.entities);
        let Action { proposal: RunbookProposal { reads, choices }, runbook } = action;
        let steps = choices.first().map(|choice| choice.steps.as_slice()).unwrap_or_default();
        let mut decision = json!({
            "investigation": workflow.investigations, "runbook": runbook, "call": steps.first(),
        });
        if steps.len() > 1 {
            decision["further_calls"] = json!(steps.get(1..));
        }
        let audit_action = if reads.is_empty() { "dry_run_requested" } else { "checks_requested" };
        if !reads.is_empty() {
            // Which action fits is not known yet.
            decision["call"] = Value::Null;
            decision["reads"] = json!(reads);
        }
        let pending = PendingPlan {
            control: select_control(&known, entities).unwrap_or_else(|| "none".to_owned()),
            watched: watched_signals(&known, entities),
            diagnosis,
            call: None,
            further_calls: Vec::new(),
            dry_runs: BTreeMap::new(),
            reads: reads.into_iter().map(|check| PendingRead { check, result: None }).collect(),
            choices,
            runbook,
            number: 0,
        };
        let effects = match workflow.request_plan(pending) {
            PlanProgress::Pending(effects) => effects,
            PlanProgress::Ended(event) => {
                return self.conclude(row, workflow, event, Changes::default()).await.map(drop);
            }
            PlanProgress::Nothing => Vec::new(),
        };
        let now = clock::now();
        let enqueue = effects.into_iter().map(|effect| self.new_effect(&row.tenant, effect, now)).collect();
        let changes = Changes { enqueue, ..Changes::default() };
        let audit = audit_entry(&row.tenant, "analyst", Some(&row.id()), audit_action, decision, now);
        let text = serde_json::to_string(workflow)?;
        // Fails if the workflow changed meanwhile; then it is investigated again.
        self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?;
        Ok(())
    }

    /// Returns what the runbook for the most likely cause proposes, or why there is nothing.
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
        match runbook.proposal(best) {
            Ok(proposal) => Ok(Ok(Action { proposal, runbook: runbook.id.clone() })),
            Err(reason) => without(format!("runbook {} cannot be followed: {reason}", runbook.id)),
        }
    }
}

/// What a runbook proposes.
struct Action {
    proposal: RunbookProposal,
    runbook: String,
}
