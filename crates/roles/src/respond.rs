//! The response role: asks each incident's workflow what to do, does it, persists the move, asks again.
//!
//! The database is the only memory: a restart changes nothing but the pause. Every move is one
//! transaction that checks the state it starts from, so two movers cannot both win.

mod facts;
mod investigate;
#[cfg(test)]
mod tests;

pub(crate) use facts::nearby;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wardroom_correlate::Decision;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::{PlanStatus, RefusalCode, Request, Response};
use wardroom_domain::{Approval, Incident, Outcome, Principal, TenantId, Timestamp};
use wardroom_knowledge::Library;
use wardroom_respond::{Effect, Event, Observed, Progress, Workflow, verify};
use wardroom_store::{Changes, IncidentRow, Store, Transition};

use crate::config::Config;
use crate::metrics as names;
use crate::{clock, crash};
use wardroom_executor::ExecutorClient;
use wardroom_pipeline::poison;
use wardroom_pipeline::tenants::{News, Tenants};

/// How often every incident is asked.
const TICK: Duration = Duration::from_millis(200);
/// How often it is looked for incidents while there are none, beyond those that detection tells of.
const QUIET: Duration = Duration::from_secs(1);

/// The response role.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) executor: ExecutorClient,
    pub(crate) runbooks: Arc<Library>,
}

/// The incidents that are to be moved, as they stand in the store.
struct Unsettled {
    changes: Changes,
    rows: Vec<IncidentRow>,
}

/// What can go wrong on the way; logged, and tried again at the next tick.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RespondError {
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    #[error(transparent)]
    Executor(#[from] wardroom_executor::Unreachable),
    #[error(transparent)]
    Workflow(#[from] wardroom_respond::WorkflowError),
    #[error(transparent)]
    Unreadable(#[from] wardroom_respond::Unreadable),
    #[error("workflow JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("runbooks: {0}")]
    Knowledge(#[from] wardroom_knowledge::Error),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Panic(String),
}

/// Takes news in and moves incidents, for ever.
pub(crate) async fn run(responder: Responder, mut news: mpsc::Receiver<News>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unsettled = Unsettled { changes: responder.store.changes(), rows: Vec::new() };
    loop {
        tokio::select! {
            item = news.recv() => {
                let Some(item) = item else { return };
                let mut items = vec![item];
                while items.len() < 512 && let Ok(more) = news.try_recv() {
                    items.push(more);
                }
                // Nobody tells it twice: it waits here until it is stored, and detection behind it.
                while let Err(error) = responder.take_in(&items).await {
                    tracing::error!(%error, "news from detection could not be stored");
                    tokio::time::sleep(TICK).await;
                }
                for item in items {
                    match item {
                        // Whoever asked may be gone.
                        News::Settled(done) => drop(done.send(())),
                        News::Decision(..) => tick.reset_immediately(),
                        News::Anomalies(..) => {}
                    }
                }
            }
            _ = tick.tick() => {
                if let Err(error) = responder.round(&mut unsettled).await {
                    unsettled.changes.again();
                    tracing::error!(%error, "incidents could not be moved");
                }
                tick.reset_after(if unsettled.rows.is_empty() { QUIET } else { TICK });
            }
        }
    }
}

impl Responder {
    async fn take_in(&self, items: &[News]) -> Result<(), RespondError> {
        let mut by_tenant: std::collections::BTreeMap<TenantId, Vec<_>> = std::collections::BTreeMap::new();
        let mut decisions = Vec::new();
        for item in items {
            match item {
                News::Anomalies(tenant, anomalies) => {
                    by_tenant.entry(tenant.clone()).or_default().extend_from_slice(anomalies);
                }
                News::Decision(tenant, decision) => decisions.push((tenant, decision)),
                News::Settled(_) => {}
            }
        }
        for (tenant, decision) in decisions {
            match decision {
                Decision::Opened(incident) => self.open(tenant, incident.clone()).await?,
                Decision::Joined { key, service } => self.join(tenant, key, service).await?,
            }
        }
        for (tenant, anomalies) in by_tenant {
            self.store.add_anomalies(&tenant, &anomalies).await?;
        }
        Ok(())
    }

    async fn open(&self, tenant: &TenantId, incident: Incident) -> Result<(), RespondError> {
        let workflow = Workflow::new(incident);
        let (key, opened_at) = (workflow.incident.key.clone(), workflow.incident.opened_at);
        let text = serde_json::to_string(&workflow)?;
        let now = clock::now();
        crash::reach("incident:open", "before");
        let number = self
            .store
            .open_incident(tenant, &key, opened_at, &text, now, |id| {
                let decision = json!({ "title": workflow.incident.title, "trigger": workflow.incident.trigger });
                entry(tenant, "sentinel", Some(id), "open_incident", decision, now)
            })
            .await?;
        crash::reach("incident:open", "after");
        if let Some(number) = number {
            metrics::counter!(names::INCIDENTS_OPENED_TOTAL).increment(1);
            tracing::warn!(incident = number, title = %workflow.incident.title, "incident opened");
        }
        Ok(())
    }

    async fn join(&self, tenant: &TenantId, key: &str, service: &str) -> Result<(), RespondError> {
        loop {
            let rows = self.store.live_incidents(clock::now()).await?;
            let Some(row) = rows.into_iter().find(|row| row.key == key && row.tenant == *tenant) else { return Ok(()) };
            let mut workflow = match Workflow::read(&row.workflow) {
                Ok(workflow) => workflow,
                // Each round tells of it; detection behind this cannot wait for somebody to mend it.
                Err(error) => {
                    metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
                    tracing::error!(incident = %row.id(), service, %error, "a service cannot join an incident");
                    return Ok(());
                }
            };
            if workflow.incident.services.iter().any(|known| known == service) {
                return Ok(());
            }
            workflow.incident.services.push(service.to_owned());
            let (text, decision) = (serde_json::to_string(&workflow)?, json!({ "service": service }));
            let entry = entry(tenant, "sentinel", Some(&row.id()), "service_joined", decision, clock::now());
            // A person may decide at this very moment: then what was decided is read first.
            if self.store.save_workflow(tenant, key, &row.workflow, &text, &entry).await? {
                return Ok(());
            }
        }
    }

    async fn round(&self, unsettled: &mut Unsettled) -> Result<(), RespondError> {
        if unsettled.changes.any(clock::now()) {
            unsettled.rows = self.store.live_incidents(Timestamp::from_nanos(i64::MAX)).await?;
            unsettled.rows.retain(|row| !row.state.is_settled());
        }
        for row in &unsettled.rows {
            // An incident that makes it panic must not hold up all the others.
            let tried = AssertUnwindSafe(self.step(row)).catch_unwind().await;
            if let Err(error) = tried.unwrap_or_else(|panic| Err(RespondError::Panic(poison::words(&*panic)))) {
                metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
                tracing::error!(incident = %row.id(), %error, "incident could not be moved; trying again");
            }
        }
        Ok(())
    }

    /// One effect of one incident.
    async fn step(&self, row: &IncidentRow) -> Result<(), RespondError> {
        let mut workflow = Workflow::read(&row.workflow)?;
        let watermark_ms = self.tenants.with(&row.tenant, |state| state.engine.watermark_ms());
        let event = match workflow.next(clock::now(), watermark_ms, &self.config.respond) {
            Effect::Wait => return Ok(()),
            Effect::TakeUp => Event::TakenUp,
            Effect::Expire => Event::Expired,
            Effect::Investigate => self.investigate(row, &workflow).await?,
            Effect::AwaitApproval => match self.found_approval(&workflow).await? {
                Some(approval) => Event::Approved(approval),
                None => return Ok(()),
            },
            Effect::Execute => match self.execute(row, &workflow).await? {
                Some(event) => event,
                None => return Ok(()),
            },
            Effect::Verify => match self.verify(row, &workflow, watermark_ms).await? {
                Some(event) => event,
                None => return Ok(()),
            },
        };
        self.apply(row, &mut workflow, event, &Principal::wardroom()).await?;
        Ok(())
    }

    /// Applies an event and persists the move; `false` if somebody else changed the incident since `row` was read.
    pub(crate) async fn apply(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        event: Event,
        principal: &Principal,
    ) -> Result<bool, RespondError> {
        let step = workflow.apply(event)?;
        let (now, text) = (clock::now(), serde_json::to_string(&workflow)?);
        let transition = Transition {
            tenant: &row.tenant,
            key: &row.key,
            from: step.from,
            to: step.to,
            before: &row.workflow,
            workflow: &text,
            note: &step.note,
            at: now,
        };
        let mut audit = entry(
            &row.tenant,
            agent(step.to),
            Some(&row.id()),
            "transition",
            json!({
                "from": step.from, "to": step.to, "note": step.note, "plan_sha256": workflow.plan_sha256,
            }),
            now,
        );
        audit.principal = principal.clone();
        audit.approved_by = workflow.approval.as_ref().map(|approval| approval.principal.clone());
        let name = format!("incident:{}-{}", step.from, step.to);
        crash::reach(&name, "before");
        let moved = self.store.transition(&transition, &audit).await?;
        crash::reach(&name, "after");
        if moved {
            tracing::info!(incident = %row.id(), from = %step.from, to = %step.to, note = %step.note, "incident moved");
            if let Some(settled_ms) = workflow.settled_ms {
                self.tenants.with(&row.tenant, |state| state.correlator.release(&row.key, settled_ms));
            }
        }
        Ok(moved)
    }

    /// An approval that reached the executor although nobody here remembers it: a crash came between.
    async fn found_approval(&self, workflow: &Workflow) -> Result<Option<Approval>, RespondError> {
        let Some(plan_sha256) = workflow.plan_sha256.clone().filter(|_| self.executor.configured()) else {
            return Ok(None);
        };
        let status = self.status(Request::Status { plan_sha256: plan_sha256.clone() }).await?;
        Ok(status.approved_by.map(|principal| Approval {
            principal,
            at: clock::now(),
            channel: "recovered".into(),
            plan_sha256,
            reason: String::new(),
        }))
    }

    async fn execute(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Option<Event>, RespondError> {
        let plan_sha256 = workflow.plan_sha256.clone().unwrap_or_default();
        let status = match self.status(Request::Execute { plan_sha256 }).await {
            Ok(status) => status,
            // Refused for good: nothing was done.
            Err(RespondError::Refused(detail)) => {
                PlanStatus { executed: Some(Outcome::NotApplied), detail, ..Default::default() }
            }
            Err(error) => return Err(error),
        };
        let Some(outcome) = status.executed else { return Ok(None) };
        let (watched, at_ms) = self.tenants.with(&row.tenant, |state| {
            (facts::watched(&state.engine, &workflow.incident.services), state.engine.watermark_ms())
        });
        Ok(Some(Event::Executed { outcome, detail: status.detail, at_ms, watched }))
    }

    async fn verify(&self, row: &IncidentRow, workflow: &Workflow, now_ms: i64) -> Result<Option<Event>, RespondError> {
        let executed_ms = workflow.executed_ms.unwrap_or(now_ms);
        let control = workflow.plan.as_ref().map(|plan| plan.control.clone()).filter(|control| control != "none");
        let began_ms = workflow.incident.began_at.millis();
        let progress = self.tenants.with(&row.tenant, |state| {
            let observed: Vec<Observed<'_>> = workflow
                .watched
                .iter()
                .map(|watched| Observed { watched, points: facts::points(&state.engine, &watched.signal) })
                .collect();
            let control = control
                .as_deref()
                .map(|service| facts::bad_share(&state.engine, service, began_ms, executed_ms, &self.config.detect));
            verify(&observed, executed_ms, workflow.mitigated_ms, now_ms, control, &self.config.respond)
        });
        let reason = match progress {
            Progress::Waiting(_) => return Ok(None),
            Progress::Good(at_ms) => return Ok(Some(Event::Good(at_ms))),
            Progress::Held => return Ok(Some(Event::Held(now_ms))),
            Progress::Failed if workflow.mitigated_ms.is_some() => "it became bad again within the hold",
            Progress::Failed => "the watched signals did not become good in time",
            Progress::NotAttributable => "the control was bad too, so nothing can be put down to the action",
        };
        let undo = self.undo(workflow).await?;
        Ok(Some(Event::NotHelped { undo, reason: reason.to_owned(), at_ms: now_ms }))
    }

    /// Takes the action back, if it can be taken back.
    async fn undo(&self, workflow: &Workflow) -> Result<Option<Outcome>, RespondError> {
        let reversible = workflow.plan.as_ref().is_some_and(|plan| plan.dry_run.undo.is_some());
        let Some(plan_sha256) = workflow.plan_sha256.clone().filter(|_| reversible) else { return Ok(None) };
        let status = self.status(Request::Undo { plan_sha256 }).await?;
        Ok(status.undone)
    }

    async fn status(&self, request: Request) -> Result<PlanStatus, RespondError> {
        match self.executor.ask(&request).await? {
            Response::Status { status } => Ok(status),
            Response::Refused { code: RefusalCode::Unavailable, detail } => {
                Err(wardroom_executor::Unreachable(detail).into())
            }
            Response::Refused { detail, .. } => Err(RespondError::Refused(detail)),
            other => Err(RespondError::Refused(format!("unexpected answer {other:?}"))),
        }
    }
}

/// Which of seed 004's agents a state belongs to.
const fn agent(state: wardroom_domain::IncidentState) -> &'static str {
    use wardroom_domain::IncidentState as S;
    match state {
        S::Open => "sentinel",
        S::Investigating | S::AwaitingApproval => "analyst",
        _ => "resolver",
    }
}

/// An audit entry by Wardroom itself.
pub(crate) fn entry(
    tenant: &TenantId,
    agent: &str,
    incident_id: Option<&str>,
    action: &str,
    decision: Value,
    at: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at,
        tenant: tenant.clone(),
        principal: Principal::wardroom(),
        agent: agent.to_owned(),
        incident_id: incident_id.map(str::to_owned),
        action: action.to_owned(),
        decision,
        approved_by: None,
    }
}
