//! Drives each incident's workflow: asks it for the next step, carries that out, persists the change, and asks again.
//!
//! Nothing here waits for a target, the executor or a person: what the response wants done outside is written as
//! effects in the transaction of the change, and `effect_workers` performs them. All state is in the database, so a
//! restart resumes where it stopped. Every change is one transaction that checks the state it starts from, so of two
//! concurrent writers only one succeeds.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::mpsc;
use wardroom_domain::{Entity, IncidentState, Principal, TenantId, Timestamp, ToolCall, mutant};
use wardroom_edge::generate_token;
use wardroom_executor::ExecutorClient;
use wardroom_knowledge::Library;
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_pipeline::poison_records::panic_message;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_policy::Policy;
use wardroom_respond::{
    Due, Event, FinishedIncident, IncidentId, ObservedSignal, Step, Verification, VerificationProgress, Workflow,
    bad_share, signal_history, verify,
};
use wardroom_store::{Changes, IncidentRevision, IncidentRow, Store, Transition};

use super::audit_entry::{agent_of, audit_entry};
use super::detected_signals::DetectedSignals;
use super::open_incidents::{OpenIncident, OpenIncidents, TICK_INTERVAL};
use super::respond_error::RespondError;
use crate::config::Config;
use crate::metrics as names;
use crate::{clock, crash};

/// An escalated incident that did not change for this long is not diagnosed again.
const MAX_REVIEW_AGE: Duration = Duration::from_secs(30 * 60);
/// Interval between attempts to read an incident that this build cannot read.
const UNREADABLE_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of detector events that are stored at once.
const MAX_EVENTS_PER_BATCH: usize = 512;

/// The response role; cheap to clone.
#[derive(Clone)]
pub struct Responder {
    /// The whole configuration.
    pub config: Config,
    /// The state.
    pub store: Store,
    /// What detection knows.
    pub tenants: Arc<Tenants>,
    /// The client of the executor.
    pub executor: ExecutorClient,
    /// The runbooks.
    pub runbooks: Arc<Library>,
    /// Who has to approve what.
    pub policy: Arc<Policy>,
    /// Start of this process: telemetry from before may still arrive.
    pub started_at: Timestamp,
    /// Queue of the effects that this process's executor can perform: the data folder's id.
    pub queue: String,
    /// Name of this process among the workers; begins with the queue.
    pub worker: String,
}

/// How far detection has come with what was acknowledged before this start.
#[derive(Clone, Debug)]
pub struct ReplayProgress {
    /// The next offset of detection.
    pub next: Arc<AtomicU64>,
    /// End of the bus at the start.
    pub end: u64,
}

impl ReplayProgress {
    pub(crate) fn is_complete(&self) -> bool {
        self.next.load(Ordering::Acquire) >= self.end
    }
}

/// Stores detector events and steps incidents until the channel is closed. Steps wait for the replay: before that,
/// telemetry time is behind, and an action that was just carried out would look as if it had not helped for long.
pub async fn run_responder(responder: Responder, mut events: mpsc::Receiver<DetectorEvent>, replay: ReplayProgress) {
    let mut tick = tokio::time::interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut open, mut stepped_at) = (OpenIncidents::new(&responder.store), Instant::now());
    loop {
        tokio::select! {
            // Many changes within a moment cause one tick.
            () = open.wait_for_change() => tick.reset_after(TICK_INTERVAL.saturating_sub(stepped_at.elapsed())),
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
                        DetectorEvent::Decision(..) | DetectorEvent::Anomalies(..) => {}
                    }
                }
            }
            _ = tick.tick() => {
                if !replay.is_complete() {
                    continue;
                }
                stepped_at = Instant::now();
                let pause = match responder.step_incidents(&mut open, clock::now()).await {
                    Ok(()) => open.pause(),
                    Err(error) => {
                        open.mark_changed();
                        tracing::error!(%error, "reading incidents failed; retrying");
                        TICK_INTERVAL
                    }
                };
                tick.reset_after(pause);
            }
        }
    }
}

impl Responder {
    /// Steps every incident that is due. No other one is looked at.
    async fn step_incidents(&self, open: &mut OpenIncidents, now: Timestamp) -> Result<(), RespondError> {
        open.begin_tick(now);
        if open.is_outdated(&self.store) {
            self.refresh(open, now).await?;
        }
        let mut watermarks = BTreeMap::new();
        let mut watermark_of = |tenant: &TenantId| {
            let watermark = || self.tenants.view(tenant).engine.watermark_ms();
            *watermarks.entry(tenant.clone()).or_insert_with(watermark)
        };
        for id in open.schedule.due(now, &mut watermark_of) {
            // Unless it changes, it is looked at again soon: a step that failed is repeated then.
            open.schedule.set(&id, Due::at(now.plus(TICK_INTERVAL)));
            let read = match open.followed(&id) {
                Some(_) => None,
                None => self.read_incident(&id).await?,
            };
            let Some(incident) = read.as_ref().or_else(|| open.followed(&id)) else {
                open.forget(&id);
                continue;
            };
            let is_readable = incident.workflow.is_some();
            // A panic in the step of one incident must not stop the others.
            let step = AssertUnwindSafe(self.step(incident, watermark_of(&id.0))).catch_unwind().await;
            if let Err(error) = step.unwrap_or_else(|panic| Err(RespondError::Panic(panic_message(&*panic)))) {
                metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
                tracing::error!(incident = %incident.row.id(), %error, "step of an incident failed; retrying");
            }
            if !is_readable {
                open.schedule.set(&id, Due::at(now.plus(UNREADABLE_INTERVAL)));
            }
        }
        Ok(())
    }

    /// Reads the incidents that changed.
    async fn refresh(&self, open: &mut OpenIncidents, now: Timestamp) -> Result<(), RespondError> {
        let began = (Instant::now(), now);
        // One that was escalated without a plan is diagnosed again for some time.
        let review_since = now.minus(MAX_REVIEW_AGE);
        let since = open.begin_read(now);
        let found = match since {
            Some(since) => self.store.revisions_since(since).await?,
            None => self.store.unsettled_revisions(review_since).await?,
        };
        let mut known = BTreeSet::new();
        for IncidentRevision { tenant, key, state, updated_at, revision, .. } in found {
            let id = (tenant, key);
            let is_reviewed = state == IncidentState::Escalated && updated_at >= review_since;
            if state.is_settled() && !is_reviewed {
                open.forget(&id);
                continue;
            }
            if open.revision(&id) != Some(revision) {
                self.read_changed(open, &id).await?;
            }
            known.insert(id);
        }
        open.end_read(began, since.is_none().then_some(&known));
        Ok(())
    }

    /// Reads an incident that has changed, and notes when it is due.
    async fn read_changed(&self, open: &mut OpenIncidents, id: &IncidentId) -> Result<(), RespondError> {
        let Some(incident) = self.read_incident(id).await? else { return Ok(()) };
        if open.revision(id).is_none()
            && let Some(workflow) = &incident.workflow
        {
            self.adopt(&incident.row, workflow).await?;
        }
        let due = self.due_of(&incident);
        open.note(id.clone(), incident, due);
        Ok(())
    }

    /// Returns when an incident has a next step without being changed first. Servers that share a database each step
    /// what they have opened: only they have its telemetry, and its plans in their executor's ledger.
    fn due_of(&self, incident: &OpenIncident) -> Due {
        match &incident.workflow {
            Some(workflow) if !self.is_home(workflow) => Due::NEVER,
            Some(workflow) => workflow.due(&self.config.respond).or(self.escalation_due(workflow)),
            // It is read again for its error.
            None => Due::AT_ONCE,
        }
    }

    /// Whether this server has opened an incident; those of earlier versions are any server's.
    pub(crate) fn is_home(&self, workflow: &Workflow) -> bool {
        workflow.home.as_ref().is_none_or(|home| *home == self.queue)
    }

    async fn read_incident(&self, (tenant, key): &IncidentId) -> Result<Option<OpenIncident>, RespondError> {
        Ok(self.store.incident_by_key(tenant, key).await?.map(OpenIncident::new))
    }

    /// Writes the effects that an incident waits for, if they have no rows: incidents of earlier versions have none.
    async fn adopt(&self, row: &IncidentRow, workflow: &Workflow) -> Result<(), RespondError> {
        let awaited = workflow.awaited_effects();
        if awaited.is_empty()
            || !self.is_home(workflow)
            || !self.executor.configured()
            || !self.store.effects(&row.tenant, &row.key).await?.is_empty()
        {
            return Ok(());
        }
        let now = clock::now();
        let effects: Vec<_> = awaited.into_iter().map(|effect| self.new_effect(&row.tenant, effect, now)).collect();
        Ok(self.store.enqueue_effects(&row.tenant, &row.key, &effects, now, None).await?)
    }

    /// Carries out the next step of an incident.
    async fn step(&self, incident: &OpenIncident, watermark_ms: i64) -> Result<(), RespondError> {
        let row = &incident.row;
        // One that cannot be read is read again for its error.
        let Some(known) = &incident.workflow else { return Ok(Workflow::read(&row.workflow).map(drop)?) };
        let step = known.next(clock::now(), watermark_ms, &self.config.respond);
        if step == Step::Wait && known.state == IncidentState::AwaitingApproval {
            return self.escalate(row, known).await;
        }
        let mut workflow = known.clone();
        let event = match step {
            Step::Wait => return Ok(()),
            Step::StartInvestigation => Event::InvestigationStarted,
            Step::Expire => Event::Expired,
            Step::Investigate | Step::Review => return self.investigate(row, &mut workflow, watermark_ms).await,
            Step::Verify => match self.verify(row, &mut workflow, watermark_ms).await? {
                Some(event) => event,
                None => return Ok(()),
            },
        };
        self.apply(row, &mut workflow, event, &Principal::wardroom(), Changes::default()).await.map(drop)
    }

    /// Considers a diagnosis with or without a plan: proposes the plan, voids an earlier one, or notes the diagnosis.
    /// Returns false if the stored incident has changed since `row` was read.
    pub(crate) async fn conclude(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        event: Event,
        changes: Changes,
    ) -> Result<bool, RespondError> {
        let before = Workflow::read(&row.workflow).ok().as_ref().and_then(cause_of);
        let event = self.evaluate_plan(row, workflow, event).await?;
        if let Some(event) = workflow.proposed(event) {
            if matches!(event, Event::Proposed { .. }) {
                // Stored with the plan, so before it can be approved.
                workflow.undo_secret = Some(generate_token().0);
                workflow.proposed_at = Some(clock::now());
            }
            return self.apply(row, workflow, event, &Principal::wardroom(), changes).await;
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
        Ok(self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?)
    }

    /// Applies an event and persists the change with the effects that it wants. Returns false if the stored incident
    /// has changed since `row` was read.
    pub(crate) async fn apply(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        event: Event,
        principal: &Principal,
        mut changes: Changes,
    ) -> Result<bool, RespondError> {
        let change = workflow.apply(event)?;
        self.note_what_people_did(&row.tenant, workflow);
        let (now, text) = (clock::now(), serde_json::to_string(&workflow)?);
        changes.enqueue.extend(change.effects.into_iter().map(|effect| self.new_effect(&row.tenant, effect, now)));
        changes.cancel.extend(change.cancelled.iter().map(|kind| kind.as_str().to_owned()));
        (changes.finished_incident, changes.reopened) = (finished_incident(workflow)?, workflow.reopened);
        let is_late = mutant::is_enabled("effects-after-change");
        let late = if is_late { std::mem::take(&mut changes.enqueue) } else { Vec::new() };
        let transition = Transition {
            tenant: &row.tenant,
            key: &row.key,
            from: change.from,
            to: change.to,
            before: &row.workflow,
            workflow: &text,
            note: &change.note,
            at: now,
            changes: &changes,
        };
        let mut audit = audit_entry(
            &row.tenant,
            agent_of(change.to),
            Some(&row.id()),
            "transition",
            json!({
                "from": change.from, "to": change.to, "note": change.note, "plan_sha256": workflow.plan_sha256,
                "policy": workflow.policy, "proof": workflow.approval.as_ref().and_then(|approval| approval.proof),
            }),
            now,
        );
        audit.principal = principal.clone();
        audit.approved_by = workflow.approval.as_ref().map(|approval| approval.principal.clone());
        let name = format!("incident:{}-{}", change.from, change.to);
        crash::maybe_crash(&name, "before");
        let persisted = self.store.transition(&transition, &audit).await?;
        crash::maybe_crash(&name, "after");
        if is_late {
            self.store.enqueue_effects(&row.tenant, &row.key, &late, now, None).await?;
        }
        if persisted {
            let (from, to) = (change.from, change.to);
            tracing::info!(incident = %row.id(), %from, %to, note = %change.note, "incident state changed");
            count_outcomes(workflow, from, to);
            if let Some(settled_ms) = workflow.settled_ms {
                self.tenants.release_incident(&row.tenant, &row.key, settled_ms);
            }
        }
        Ok(persisted)
    }

    /// Verifies the action against the telemetry since; asks for its undo if it failed.
    async fn verify(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        now_ms: i64,
    ) -> Result<Option<Event>, RespondError> {
        let executed_ms = workflow.executed_ms.unwrap_or(now_ms);
        let control = workflow.plan.as_ref().map(|plan| plan.control.clone()).filter(|control| control != "none");
        let began_ms = workflow.incident.began_at.millis();
        let view = self.tenants.view(&row.tenant);
        let known = DetectedSignals(&view.engine);
        let observed = workflow.watched.iter().map(|watched| {
            let (interval_ms, points) = signal_history(&known, &watched.signal);
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
            control: control.as_ref().map(|service| bad_share(&known, service, began_ms, executed_ms)),
            control_since: control.as_ref().map(|service| bad_share(&known, service, executed_ms, now_ms)),
        };
        let inconclusive = |reason: &str| Ok(Some(Event::Inconclusive { reason: reason.to_owned(), at_ms: now_ms }));
        let reason = match verify(&verification, &self.config.respond) {
            VerificationProgress::Pending(_) => return Ok(None),
            VerificationProgress::Mitigated(at_ms) => return Ok(Some(Event::Mitigated { at_ms, at: clock::now() })),
            VerificationProgress::HoldPassed => return Ok(Some(Event::HoldPassed(now_ms))),
            VerificationProgress::NotAttributable => {
                return inconclusive("the control was bad too, so what followed cannot be attributed to the action");
            }
            VerificationProgress::Inconclusive => {
                return inconclusive("telemetry does not show whether the action helped");
            }
            VerificationProgress::Failed if workflow.mitigated_ms.is_some() => {
                "a watched signal was bad again within the hold"
            }
            VerificationProgress::Failed => "a watched signal was still bad at the timeout",
        };
        let Some(undo) = workflow.request_undo(reason) else {
            let (undo, reason) = (None, reason.to_owned());
            return Ok(Some(Event::VerificationFailed { undo, reason, at_ms: now_ms }));
        };
        let now = clock::now();
        let changes = Changes { enqueue: vec![self.new_effect(&row.tenant, undo, now)], ..Changes::default() };
        let decision = json!({ "reason": reason, "plan_sha256": workflow.plan_sha256 });
        let audit = audit_entry(&row.tenant, "resolver", Some(&row.id()), "undo_requested", decision, now);
        let text = serde_json::to_string(workflow)?;
        // Fails if the workflow changed meanwhile; then it is verified again.
        self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?;
        Ok(None)
    }
}

/// Returns what is kept of an incident that has ended.
pub(crate) fn finished_incident(workflow: &Workflow) -> Result<Option<String>, serde_json::Error> {
    FinishedIncident::of(workflow).as_ref().map(serde_json::to_string).transpose()
}

/// Counts approvals, and actions that ended.
fn count_outcomes(workflow: &Workflow, from: IncidentState, to: IncidentState) {
    let Some(plan) = &workflow.plan else { return };
    let count = |call: &ToolCall, outcome: &'static str| {
        let (tool, operation) = (call.tool.clone(), call.operation.clone());
        metrics::counter!(names::ACTIONS_TOTAL, "tool" => tool, "operation" => operation, "outcome" => outcome)
            .increment(1);
    };
    match (from, to) {
        (IncidentState::AwaitingApproval, IncidentState::Mitigating) => {
            let seconds = workflow.approval_seconds();
            seconds.into_iter().for_each(|seconds| metrics::histogram!(names::APPROVAL_SECONDS).record(seconds));
        }
        (IncidentState::Mitigating, _) if workflow.steps.is_empty() => {
            count(&plan.call, workflow.execution.map_or("unknown", |outcome| outcome.as_str()));
        }
        (IncidentState::Mitigating, _) => {
            plan.steps().zip(&workflow.steps).for_each(|((call, _), step)| count(call, step.outcome.as_str()));
        }
        (IncidentState::Verifying | IncidentState::Mitigated, IncidentState::Escalated) if workflow.undo.is_some() => {
            count(&plan.call, "undone");
        }
        _ => {}
    }
}

/// Entity and rule of the best cause.
fn cause_of(workflow: &Workflow) -> Option<(Entity, String)> {
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    best.map(|best| (best.entity.clone(), best.rule.clone()))
}
