//! Investigates an incident: diagnoses it, selects a runbook and has its action dry-run.

use std::time::Duration;

use wardroom_diagnose::{Weights, diagnose, needs};
use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{Diagnosis, Incident, Plan, TenantId, ToolCall};
use wardroom_pipeline::detection::incident_signals::select_control;
use wardroom_respond::{Event, Workflow, unconfirmed_setting};
use wardroom_store::IncidentRow;

use super::diagnosis_facts;
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::responder::Responder;
use super::watched_signals::watched_signals;
use crate::clock;

/// Maximum number of times that diagnosis may ask for further evidence.
const MAX_ROUNDS: usize = 3;

impl Responder {
    /// Diagnoses an incident and proposes a plan. Without a plan the incident is escalated to a person.
    pub(super) async fn investigate(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Event, RespondError> {
        let diagnosis = self.diagnose_incident(&row.tenant, &workflow.incident)?;
        let no_plan = |diagnosis, reason: String| Ok(Event::NoPlan { diagnosis, reason });
        let call = match self.select_action(&diagnosis)? {
            Ok(action) => action,
            Err(reason) => return no_plan(diagnosis, reason),
        };
        let Action { call, runbook } = call;
        if !self.executor.configured() {
            let reason = format!("no executor is configured; runbook {runbook} proposes {}", describe(&call));
            return no_plan(diagnosis, reason);
        }
        let dry_run =
            match self.executor.request(&Request::DryRun { tenant: row.tenant.clone(), call: call.clone() }).await? {
                Response::DryRun { dry_run } => dry_run,
                Response::Refused { code: RefusalCode::Unavailable, detail } => {
                    return Err(wardroom_executor::ExecutorUnavailable(detail).into());
                }
                Response::Refused { detail, .. } => {
                    return no_plan(diagnosis, format!("{} cannot be executed: {detail}", describe(&call)));
                }
                _ => return Err(RespondError::Refused(OTHER_ANSWER.to_owned())),
            };
        if let Some(reason) = diagnosis.best().and_then(|best| unconfirmed_setting(best, &dry_run)) {
            return no_plan(diagnosis, reason);
        }
        let view = self.tenants.view(&row.tenant);
        let entities = &workflow.incident.entities;
        let plan = Plan {
            version: 1,
            tenant: row.tenant.clone(),
            incident: row.key.clone(),
            call,
            dry_run,
            runbook,
            control: select_control(&view.engine, entities).unwrap_or_else(|| "none".to_owned()),
            expires_at: clock::now().plus(Duration::from_secs(self.config.respond.approval_minutes * 60)),
        };
        let watched = watched_signals(&view.engine, entities);
        Ok(Event::Proposed { diagnosis, plan: Box::new(plan), watched })
    }

    /// Collects the facts about an incident, asks detection for what diagnosis still needs, and diagnoses.
    fn diagnose_incident(&self, tenant: &TenantId, incident: &Incident) -> Result<Diagnosis, RespondError> {
        let (config, weights) = (&self.config.diagnose, Weights::builtin()?);
        let view = self.tenants.view(tenant);
        let mut facts = diagnosis_facts::collect(&view.engine, incident, config);
        for _ in 0..MAX_ROUNDS {
            let needs = needs(&facts, &weights);
            if needs.is_empty() {
                break;
            }
            self.tenants.with_detectors(tenant, |detectors| {
                diagnosis_facts::answer(&needs, &view.engine, &detectors.engine, config, &mut facts);
            });
        }
        Ok(diagnose(&facts, config, &weights))
    }

    /// Returns the action for the most likely cause, or why there is none.
    fn select_action(&self, diagnosis: &Diagnosis) -> Result<Result<Action, String>, RespondError> {
        let Some(best) = diagnosis.best() else {
            return Ok(Err("no cause was found; a person must investigate".to_owned()));
        };
        let advice = best.next_checks.first().map(|check| format!("; check next: {check}")).unwrap_or_default();
        let without = |reason: String| Ok(Err(format!("{reason}{advice}")));
        if let Some(reservation) = &best.reservation {
            return without(reservation.clone());
        }
        if best.confidence < self.config.diagnose.min_confidence {
            return without(format!(
                "the most likely cause, {} at {}, is not certain enough to act on ({:.0} %)",
                best.rule,
                best.entity,
                best.confidence * 100.0
            ));
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

fn describe(call: &ToolCall) -> String {
    format!("{} {} of {}", call.tool, call.operation, call.target)
}
