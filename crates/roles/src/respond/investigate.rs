//! From an incident to a proposal: diagnose, find the runbook, have its action dry-run.

use std::time::Duration;

use wardroom_diagnose::diagnose;
use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{Plan, ToolCall};
use wardroom_respond::{Event, Workflow};
use wardroom_store::IncidentRow;

use super::{RespondError, Responder, facts};
use crate::clock;

impl Responder {
    /// Diagnoses and proposes. "No plan" is a normal answer and goes to a person.
    pub(super) async fn investigate(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Event, RespondError> {
        let services = &workflow.incident.services;
        let (facts, watched, control) = self.tenants.with(&row.tenant, |state| {
            let engine = &state.engine;
            let facts = facts::facts(engine, services, workflow.incident.began_at, &self.config.diagnose);
            (facts, facts::watched(engine, services), facts::control(engine, services))
        });
        let diagnosis = diagnose(&facts, &self.config.diagnose);
        let no_plan = |diagnosis, reason: String| Ok(Event::NoPlan { diagnosis, reason });
        let Some(best) = diagnosis.best().filter(|best| best.confidence >= self.config.diagnose.min_confidence) else {
            return no_plan(diagnosis, "no cause is likely enough to act on; a person must look".into());
        };
        let Some(runbook) = self.runbooks.for_diagnosis(&diagnosis)? else {
            let reason = format!("no runbook is for {} at {}", best.kind, best.service);
            return no_plan(diagnosis, reason);
        };
        let Some(call) = runbook.action(best) else {
            let reason = format!("runbook {} needs something the diagnosis does not know", runbook.id);
            return no_plan(diagnosis, reason);
        };
        if !self.executor.configured() {
            return no_plan(
                diagnosis,
                format!("no executor is configured; runbook {} says {}", runbook.id, words(&call)),
            );
        }
        let dry_run = match self.executor.ask(&Request::DryRun { call: call.clone() }).await? {
            Response::DryRun { dry_run } => dry_run,
            Response::Refused { code: RefusalCode::Unavailable, detail } => {
                return Err(wardroom_executor::Unreachable(detail).into());
            }
            Response::Refused { detail, .. } => {
                return no_plan(diagnosis, format!("{} cannot be done: {detail}", words(&call)));
            }
            other => return Err(RespondError::Refused(format!("unexpected answer {other:?}"))),
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

fn words(call: &ToolCall) -> String {
    format!("{} {} of {}", call.tool, call.operation, call.target)
}
