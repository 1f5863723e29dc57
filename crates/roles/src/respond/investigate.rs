//! Investigates an incident: diagnoses it, selects a runbook and has its action dry-run.

use std::time::Duration;

use wardroom_diagnose::diagnose;
use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{Plan, ToolCall};
use wardroom_respond::{Event, Workflow};
use wardroom_store::IncidentRow;

use super::diagnosis_facts;
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::responder::Responder;
use crate::clock;

impl Responder {
    /// Diagnoses an incident and proposes a plan. Without a plan the incident is escalated to a person.
    pub(super) async fn investigate(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Event, RespondError> {
        let services = &workflow.incident.services;
        let (view, began_at) = (self.tenants.view(&row.tenant), workflow.incident.began_at);
        let connected = view.call_graph.connected_to(services);
        let details = self.tenants.with_detectors(&row.tenant, |detectors| {
            diagnosis_facts::read_details(&detectors.engine, &connected, began_at, &self.config.diagnose)
        });
        let facts = diagnosis_facts::collect_facts(&view, details, &connected, began_at, &self.config.diagnose);
        let watched = diagnosis_facts::watched_signals(&view, services);
        let control = diagnosis_facts::select_control(&view, services);
        let diagnosis = diagnose(&facts, &self.config.diagnose);
        let no_plan = |diagnosis, reason: String| Ok(Event::NoPlan { diagnosis, reason });
        let Some(best) = diagnosis.best().filter(|best| best.confidence >= self.config.diagnose.min_confidence) else {
            return no_plan(diagnosis, "no cause is confident enough to act on; a person must investigate".into());
        };
        let Some(runbook) = self.runbooks.for_diagnosis(&diagnosis)? else {
            let reason = format!("no runbook matches {} at {}", best.kind, best.service);
            return no_plan(diagnosis, reason);
        };
        let Some(call) = runbook.action(best) else {
            let reason = format!("runbook {} needs parameters that the diagnosis does not have", runbook.id);
            return no_plan(diagnosis, reason);
        };
        if !self.executor.configured() {
            return no_plan(
                diagnosis,
                format!("no executor is configured; runbook {} proposes {}", runbook.id, describe(&call)),
            );
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
        let plan = Plan {
            version: 1,
            tenant: row.tenant.clone(),
            incident: row.key.clone(),
            call,
            dry_run,
            runbook: runbook.id.clone(),
            control: control.unwrap_or_else(|| "none".to_owned()),
            expires_at: clock::now().plus(Duration::from_secs(self.config.respond.approval_minutes * 60)),
        };
        Ok(Event::Proposed { diagnosis, plan: Box::new(plan), watched })
    }
}

fn describe(call: &ToolCall) -> String {
    format!("{} {} of {}", call.tool, call.operation, call.target)
}
