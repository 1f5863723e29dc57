//! Drives each incident's workflow: asks it for the next effect, performs that, persists the transition, and asks
//! again.
//!
//! All state is in the database, so a restart resumes where it stopped. Every transition is one transaction that checks
//! the state it starts from, so of two concurrent writers only one succeeds.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::{PlanStatus, RefusalCode, Request, Response};
use wardroom_domain::{Approval, Entity, IncidentState, Outcome, Principal, Timestamp};
use wardroom_edge::generate_token;
use wardroom_executor::ExecutorClient;
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_pipeline::detection::incident_signals;
use wardroom_pipeline::poison_records::panic_message;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_respond::{Effect, Event, ObservedSignal, Verification, VerificationProgress, Workflow, verify};
use wardroom_store::{IncidentRow, Store, Transition};

use super::audit_entry::{APPROVE_REQUESTED, agent_of, audit_entry};
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::watched_signals::watched_signals;
use crate::config::Config;
use crate::metrics as names;
use crate::{clock, crash};

/// Interval between steps of open incidents.
const TICK_INTERVAL: Duration = Duration::from_millis(200);
/// Interval between checks for open incidents while there are none; new ones from detection cause a tick at once.
const IDLE_TICK_INTERVAL: Duration = Duration::from_secs(1);
/// An escalated incident that did not change for this long is not diagnosed again.
const MAX_REVIEW_AGE: Duration = Duration::from_secs(30 * 60);
/// Maximum number of detector events that are stored at once.
const MAX_EVENTS_PER_BATCH: usize = 512;

/// The response role.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) executor: ExecutorClient,
    pub(crate) runbooks: Arc<Library>,
    /// Start of this process: telemetry from before may still arrive.
    pub(crate) started_at: Timestamp,
}

/// How far detection has come with what was acknowledged before this start.
#[derive(Clone, Debug)]
pub(crate) struct ReplayProgress {
    /// The next offset of detection.
    pub(crate) next: Arc<AtomicU64>,
    /// End of the bus at the start.
    pub(crate) end: u64,
}

impl ReplayProgress {
    fn is_complete(&self) -> bool {
        self.next.load(Ordering::Acquire) >= self.end
    }
}

/// Incidents that are not settled, as stored.
struct UnsettledIncidents {
    /// Changes when an incident was written.
    changes: watch::Receiver<u64>,
    /// With their workflows: reading one at every tick would cost most of a core at a thousand incidents.
    rows: Vec<(IncidentRow, Option<Workflow>)>,
}

/// Stores detector events and steps incidents until the channel is closed. Steps wait for the replay: before that,
/// telemetry time is behind, and an action that was just carried out would look as if it had not helped for long.
pub(crate) async fn run_responder(
    responder: Responder,
    mut events: mpsc::Receiver<DetectorEvent>,
    replay: ReplayProgress,
) {
    let mut tick = tokio::time::interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unsettled = UnsettledIncidents { changes: responder.store.subscribe_incidents(), rows: Vec::new() };
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let mut batch = vec![event];
                while batch.len() < MAX_EVENTS_PER_BATCH && let Ok(event) = events.try_recv() {
                    batch.push(event);
                }
                // Detection sends each event once, so storing is retried; meanwhile the channel fills and detection
                // waits.
                while let Err(error) = responder.store_events(&batch).await {
                    tracing::error!(%error, "storing detector events failed; retrying");
                    tokio::time::sleep(TICK_INTERVAL).await;
                }
                for event in batch {
                    match event {
                        // Detection may have ended meanwhile.
                        DetectorEvent::Barrier(done) => drop(done.send(())),
                        DetectorEvent::Decision(..) => tick.reset_immediately(),
                        DetectorEvent::Anomalies(..) => {}
                    }
                }
            }
            _ = tick.tick() => {
                if !replay.is_complete() {
                    continue;
                }
                if let Err(error) = responder.step_incidents(&mut unsettled).await {
                    unsettled.changes.mark_changed();
                    tracing::error!(%error, "reading incidents failed; retrying");
                }
                tick.reset_after(if unsettled.rows.is_empty() { IDLE_TICK_INTERVAL } else { TICK_INTERVAL });
            }
        }
    }
}

impl Responder {
    /// Steps every unsettled incident once.
    async fn step_incidents(&self, unsettled: &mut UnsettledIncidents) -> Result<(), RespondError> {
        // The store outlives its subscribers, so the channel is never closed.
        if unsettled.changes.has_changed().unwrap_or(true) {
            unsettled.changes.mark_unchanged();
            let mut rows = self.store.live_incidents(Timestamp::from_nanos(i64::MAX)).await?;
            // One that was escalated without a plan is diagnosed again for some time.
            let recent = clock::now().minus(MAX_REVIEW_AGE);
            let is_recent = |row: &IncidentRow| row.state == IncidentState::Escalated && row.updated_at >= recent;
            rows.retain(|row| !row.state.is_settled() || is_recent(row));
            let with_workflow = |row: IncidentRow| {
                let workflow = Workflow::read(&row.workflow).ok();
                (row, workflow)
            };
            unsettled.rows = rows.into_iter().map(with_workflow).collect();
            let is_done = |workflow: &Workflow| workflow.state.is_settled() && !workflow.is_reviewable();
            unsettled.rows.retain(|(_, workflow)| !workflow.as_ref().is_some_and(is_done));
        }
        for (row, workflow) in &unsettled.rows {
            // A panic in the step of one incident must not stop the others.
            let step_result = AssertUnwindSafe(self.step(row, workflow.as_ref())).catch_unwind().await;
            if let Err(error) = step_result.unwrap_or_else(|panic| Err(RespondError::Panic(panic_message(&*panic)))) {
                metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
                tracing::error!(incident = %row.id(), %error, "step of an incident failed; retrying");
            }
        }
        Ok(())
    }

    /// Performs the next effect of an incident.
    async fn step(&self, row: &IncidentRow, workflow: Option<&Workflow>) -> Result<(), RespondError> {
        // One that cannot be read is read again for its error.
        let workflow =
            workflow.map_or_else(|| Workflow::read(&row.workflow).map(Cow::Owned), |known| Ok(Cow::Borrowed(known)))?;
        let watermark_ms = self.tenants.view(&row.tenant).engine.watermark_ms();
        let effect = workflow.next(clock::now(), watermark_ms, &self.config.respond);
        if effect == Effect::Wait {
            return Ok(());
        }
        let mut workflow = workflow.into_owned();
        let event = match effect {
            Effect::Wait => return Ok(()),
            Effect::StartInvestigation => Event::InvestigationStarted,
            Effect::Expire => Event::Expired,
            Effect::Investigate => {
                let event = self.investigate(row, &workflow).await?;
                workflow.record_investigation(watermark_ms);
                event
            }
            Effect::Review => match self.review(row, &mut workflow, watermark_ms).await? {
                Some(event) => event,
                None => return Ok(()),
            },
            Effect::AwaitApproval => match self.recover_approval(row, &workflow).await? {
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
        if matches!(event, Event::Proposed { .. }) {
            // Stored with the plan, so before it can be approved.
            workflow.undo_secret = Some(generate_token().0);
        }
        self.apply(row, &mut workflow, event, &Principal::wardroom()).await?;
        Ok(())
    }

    /// Diagnoses an incident again. Returns the event to apply; a change of the diagnosis alone is saved here.
    async fn review(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        watermark_ms: i64,
    ) -> Result<Option<Event>, RespondError> {
        if let Some(approval) = self.recover_approval(row, workflow).await? {
            // Approved meanwhile: the plan is executed.
            return Ok(Some(Event::Approved(approval)));
        }
        let before = cause_of(workflow);
        let investigation = self.investigate(row, workflow).await?;
        workflow.record_investigation(watermark_ms);
        if let Some(event) = workflow.review(investigation) {
            return Ok(Some(event));
        }
        let (now, after) = (clock::now(), cause_of(workflow));
        if before != after
            && let Some((entity, rule)) = &after
        {
            workflow.incident.record(now, format!("the probable cause is now {rule} at {entity}"));
        }
        let decision = json!({
            "investigation": workflow.investigations, "changed": before != after,
            "cause": after.map(|(entity, rule)| json!({ "entity": entity, "rule": rule })),
        });
        let audit = audit_entry(&row.tenant, "analyst", Some(&row.id()), "diagnosis_reviewed", decision, now);
        let text = serde_json::to_string(&workflow)?;
        // Fails if the workflow changed meanwhile; then it is reviewed again.
        self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &audit).await?;
        Ok(None)
    }

    /// Applies an event and persists the transition. Returns false if the stored incident has changed since `row` was
    /// read.
    pub(crate) async fn apply(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        event: Event,
        principal: &Principal,
    ) -> Result<bool, RespondError> {
        let change = workflow.apply(event)?;
        if is_undoable(change.from) && !is_undoable(change.to) {
            self.settle(workflow).await;
        }
        let (now, text) = (clock::now(), serde_json::to_string(&workflow)?);
        let transition = Transition {
            tenant: &row.tenant,
            key: &row.key,
            from: change.from,
            to: change.to,
            before: &row.workflow,
            workflow: &text,
            note: &change.note,
            at: now,
        };
        let mut audit = audit_entry(
            &row.tenant,
            agent_of(change.to),
            Some(&row.id()),
            "transition",
            json!({
                "from": change.from, "to": change.to, "note": change.note, "plan_sha256": workflow.plan_sha256,
            }),
            now,
        );
        audit.principal = principal.clone();
        audit.approved_by = workflow.approval.as_ref().map(|approval| approval.principal.clone());
        let name = format!("incident:{}-{}", change.from, change.to);
        crash::maybe_crash(&name, "before");
        let persisted = self.store.transition(&transition, &audit).await?;
        crash::maybe_crash(&name, "after");
        if persisted {
            let (from, to) = (change.from, change.to);
            tracing::info!(incident = %row.id(), %from, %to, note = %change.note, "incident state changed");
            if let Some(settled_ms) = workflow.settled_ms {
                self.tenants.release_incident(&row.tenant, &row.key, settled_ms);
            }
        }
        Ok(persisted)
    }

    /// Returns an approval that the executor recorded before a crash of this process, if any.
    async fn recover_approval(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Option<Approval>, RespondError> {
        let Some(plan_sha256) = workflow.plan_sha256.clone().filter(|_| self.executor.configured()) else {
            return Ok(None);
        };
        let status = self.status(Request::Status { plan_sha256: plan_sha256.clone() }).await?;
        let Some(principal) = status.approved_by else { return Ok(None) };
        // What the executor does not know; see `audit_request`.
        let is_same_plan = |entry: &AuditEntry| {
            let plan = entry.decision["plan_sha256"].as_str();
            entry.tenant == row.tenant && entry.principal == principal && plan == Some(plan_sha256.as_str())
        };
        let requested = self.store.find_audit_entry(APPROVE_REQUESTED, is_same_plan).await?;
        let text = |key: &str| requested.as_ref().and_then(|entry| entry.decision[key].as_str()).map(str::to_owned);
        let channel = text("channel").unwrap_or_else(|| "recovered".to_owned());
        let reason = text("reason").unwrap_or_default();
        Ok(Some(Approval { principal, at: clock::now(), channel, plan_sha256, reason }))
    }

    /// Sends the plan to the executor for execution.
    async fn execute(&self, row: &IncidentRow, workflow: &Workflow) -> Result<Option<Event>, RespondError> {
        let plan_sha256 = workflow.plan_sha256.clone().unwrap_or_default();
        let status = match self.status(Request::Execute { plan_sha256 }).await {
            Ok(status) => status,
            // Refused permanently: nothing was executed.
            Err(RespondError::Refused(detail)) => {
                PlanStatus { executed: Some(Outcome::NotApplied), detail, ..Default::default() }
            }
            Err(error) => return Err(error),
        };
        let Some(outcome) = status.executed else { return Ok(None) };
        let view = self.tenants.view(&row.tenant);
        let watched = watched_signals(&view.engine, &workflow.incident.affected());
        let at_ms = view.engine.watermark_ms();
        if at_ms == i64::MIN {
            // No telemetry yet, so no telemetry time. The executor returns the same outcome at the next step.
            return Ok(None);
        }
        Ok(Some(Event::Executed { outcome, detail: status.detail, at_ms, at: clock::now(), watched }))
    }

    /// Verifies the action against the telemetry since; undoes it if it failed.
    async fn verify(&self, row: &IncidentRow, workflow: &Workflow, now_ms: i64) -> Result<Option<Event>, RespondError> {
        let executed_ms = workflow.executed_ms.unwrap_or(now_ms);
        let control = workflow.plan.as_ref().map(|plan| plan.control.clone()).filter(|control| control != "none");
        let began_ms = workflow.incident.began_at.millis();
        let view = self.tenants.view(&row.tenant);
        let observed = workflow.watched.iter().map(|watched| {
            let (interval_ms, points) = incident_signals::history(&view.engine, &watched.signal);
            ObservedSignal { watched, interval_ms, points }
        });
        let observed: Vec<ObservedSignal<'_>> = observed.collect();
        // Telemetry from before the start of this process may still arrive.
        let since = workflow.mitigated_at.or(workflow.executed_at).unwrap_or(self.started_at).max(self.started_at);
        let verification = Verification {
            observed: &observed,
            executed_ms,
            mitigated_ms: workflow.mitigated_ms,
            now_ms,
            waited_ms: clock::now().millis() - since.millis(),
            control: control.map(|service| incident_signals::bad_share(&view.engine, &service, began_ms, executed_ms)),
        };
        let inconclusive = |reason: &str| Ok(Some(Event::Inconclusive { reason: reason.to_owned(), at_ms: now_ms }));
        let reason = match verify(&verification, &self.config.respond) {
            VerificationProgress::Pending(_) => return Ok(None),
            VerificationProgress::Mitigated(at_ms) => return Ok(Some(Event::Mitigated { at_ms, at: clock::now() })),
            VerificationProgress::HoldPassed => return Ok(Some(Event::HoldPassed(now_ms))),
            VerificationProgress::NotAttributable => {
                return inconclusive("the control was bad too, so an improvement cannot be attributed to the action");
            }
            VerificationProgress::Inconclusive => {
                return inconclusive("telemetry does not show whether the action helped");
            }
            VerificationProgress::Failed if workflow.mitigated_ms.is_some() => {
                "a watched signal was bad again within the hold"
            }
            VerificationProgress::Failed => "a watched signal was still bad at the timeout",
        };
        let (undo, refusal) = self.undo(workflow).await?;
        let reason = refusal.map_or_else(|| reason.to_owned(), |refusal| format!("{reason}; {refusal}"));
        Ok(Some(Event::VerificationFailed { undo, reason, at_ms: now_ms }))
    }

    /// Undoes the action if it is reversible. Returns the outcome, and why it was not undone if the executor or the
    /// target refused.
    async fn undo(&self, workflow: &Workflow) -> Result<(Option<Outcome>, Option<String>), RespondError> {
        let Some((plan_sha256, proof)) = proof_of_undo(workflow) else { return Ok((None, None)) };
        match self.status(Request::Undo { plan_sha256, proof }).await {
            Ok(PlanStatus { undone: Some(Outcome::Applied), .. }) => Ok((Some(Outcome::Applied), None)),
            Ok(status) => Ok((status.undone, Some(status.detail))),
            // Refused permanently: nothing was undone.
            Err(RespondError::Refused(detail)) => Ok((Some(Outcome::NotApplied), Some(detail))),
            Err(error) => Err(error),
        }
    }

    /// Tells the executor that the action of an incident is not undone any more. If that fails, the executor still
    /// refuses an undo once the time for it is over.
    async fn settle(&self, workflow: &Workflow) {
        let Some((plan_sha256, proof)) = proof_of_undo(workflow) else { return };
        if let Err(error) = self.status(Request::Settle { plan_sha256, proof }).await {
            tracing::warn!(incident = %workflow.incident.key, %error, "settling the plan failed");
        }
    }

    /// Sends a request about a plan to the executor and returns the plan's status.
    async fn status(&self, request: Request) -> Result<PlanStatus, RespondError> {
        match self.executor.request(&request).await? {
            Response::Status { status } => Ok(status),
            Response::Refused { code: RefusalCode::Unavailable, detail } => {
                Err(wardroom_executor::ExecutorUnavailable(detail).into())
            }
            Response::Refused { detail, .. } => Err(RespondError::Refused(detail)),
            _ => Err(RespondError::Refused(OTHER_ANSWER.to_owned())),
        }
    }
}

/// Entity and rule of the best cause.
fn cause_of(workflow: &Workflow) -> Option<(Entity, String)> {
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    best.map(|best| (best.entity.clone(), best.rule.clone()))
}

/// Whether the action of an incident in this state may be undone.
const fn is_undoable(state: IncidentState) -> bool {
    matches!(state, IncidentState::Verifying | IncidentState::Mitigated)
}

/// Returns the hash of the plan and the proof of its approval if the plan can be undone. Plans of builds that stored no
/// secret have an empty proof, which the executor refuses.
fn proof_of_undo(workflow: &Workflow) -> Option<(String, String)> {
    workflow.plan.as_ref().filter(|plan| plan.dry_run.undo.is_some())?;
    Some((workflow.plan_sha256.clone()?, workflow.undo_secret.clone().unwrap_or_default()))
}
