//! Asks the policy: about plans before people see them, about approvals, and what actions have earned.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use wardroom_api::{AutonomyChange, AutonomyPairView};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{
    Cause, Diagnosis, Entity, Identity, IncidentState, Plan, PolicyAnswer, PolicyDecision, Principal, TenantId,
    Timestamp,
};
use wardroom_edge::{Problem, Status};
use wardroom_policy::autonomy::{Accepted, Pair, Standing, Trial, standings};
use wardroom_policy::escalation::{due, next_due_at};
use wardroom_policy::{ActionRequest, Actor, ApprovalRequest, Autonomy, Context, Target};
use wardroom_respond::{Due, EffectRequest, Event, FinishedIncident, Workflow, change_seen, newest_reading_ms};
use wardroom_store::{AutonomyRow, Changes, IncidentRow};

use super::audit_entry::audit_entry;
use super::detected_signals::DetectedSignals;
use super::respond_error::RespondError;
use super::responder::Responder;
use crate::problem_responses::{conflict, store_problem};
use crate::{clock, metrics as names};

/// Incidents that ended longer ago say nothing about what an action has earned.
const MAX_TRIAL_AGE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Maximum number of incidents of a tenant that count.
const MAX_TRIALS: u32 = 10_000;
/// Period of the number of actions on a target.
const ACTIONS_PERIOD: Duration = Duration::from_secs(3600);

impl Responder {
    /// Returns the policy's answer about a plan.
    async fn ask_policy(
        &self,
        tenant: &TenantId,
        workflow: &Workflow,
        (diagnosis, plan): (&Diagnosis, &Plan),
    ) -> Result<PolicyDecision, RespondError> {
        let (now, settings, best) = (clock::now(), &self.config.policy, diagnosis.best());
        let cause = best.map(|best| best.rule.clone()).unwrap_or_default();
        let pair = pair_of(&cause, &plan.call.tool, &plan.call.operation);
        // What was earned by one action says nothing about a plan of several.
        let earned = self.standings(tenant).await?.remove(&pair).filter(|_| plan.step_count() == 1);
        let standing = earned.unwrap_or_default();
        let view = self.tenants.view(tenant);
        let newest_ms = newest_reading_ms(&DetectedSignals(&view.engine), &workflow.incident.affected());
        let age_ms = newest_ms.map(|newest_ms| view.engine.watermark_ms().saturating_sub(newest_ms).max(0));
        let mut decisions = Vec::new();
        for ((call, dry_run), (step, target)) in plan.steps().zip(self.targets_of(best, plan)) {
            let since = now.minus(ACTIONS_PERIOD);
            let actions = self.store.actions_since(tenant, &call.tool, &call.target, since).await?;
            let context = Context {
                confidence_percent: best.map(|best| (best.confidence * 100.0).round() as u32),
                evidence_age_seconds: age_ms.map(|age_ms| u32::try_from(age_ms / 1000).unwrap_or(u32::MAX)),
                windows: settings.windows_at(now),
                freezes: settings.freezes_at(now, &target),
                cause: cause.clone(),
                successes: standing.successes(),
                failures: standing.failures,
                autonomy: standing.level,
                actions_last_hour: actions,
                ..Context::of_dry_run(dry_run, now)
            };
            decisions.push((step, self.policy.decide(&ActionRequest::of_call(call, target, context))));
        }
        let strictest = PolicyDecision::strictest(decisions);
        strictest.ok_or_else(|| RespondError::Refused("a plan has at least one step".to_owned()))
    }

    /// Returns what each step of a plan is called, and what it changes: the first one the entity at fault, the others
    /// what their targets are called, in the same environment.
    fn targets_of(&self, best: Option<&Cause>, plan: &Plan) -> Vec<(String, Target)> {
        let steps = (0..).zip(plan.steps()).map(|(index, (call, _))| {
            let entity = match best {
                None => Entity::service(&call.target),
                Some(best) if index == 0 => best.entity.clone(),
                Some(best) => Entity { name: call.target.clone(), ..best.entity.clone() },
            };
            (plan.describe_step(index), self.config.policy.target(&entity, &call.target))
        });
        steps.collect()
    }

    /// Asks the policy about a plan that was just proposed. Returns the event to apply: a plan that is denied is none.
    pub(crate) async fn evaluate_plan(
        &self,
        row: &IncidentRow,
        workflow: &mut Workflow,
        event: Event,
    ) -> Result<Event, RespondError> {
        // A pending plan keeps its answer and its approvals; one that does not fit any more is void, and judged again.
        let is_pending = workflow.state == IncidentState::AwaitingApproval;
        let Event::Proposed { diagnosis, plan, watched } = event else { return Ok(event) };
        if is_pending {
            return Ok(Event::Proposed { diagnosis, plan, watched });
        }
        let decision = self.ask_policy(&row.tenant, workflow, (&diagnosis, &plan)).await?;
        metrics::counter!(names::POLICY_DECISIONS_TOTAL, "answer" => decision.answer.as_str()).increment(1);
        // In shadow mode no plan is carried out without a person, and none with one; see `check_approver`.
        let answer =
            if self.config.policy.shadow { decision.answer.min(PolicyAnswer::AskOne) } else { decision.answer };
        let decision = PolicyDecision { answer, ..decision };
        let rules = decision.rules.join(", ");
        let reason = format!("the policy denies {}: {} ({rules})", plan.describe(), decision.reason);
        workflow.record_policy(decision);
        Ok(match answer {
            PolicyAnswer::Deny => Event::NoPlan { diagnosis, reason },
            PolicyAnswer::AskTwo | PolicyAnswer::AskOne | PolicyAnswer::Allow => {
                Event::Proposed { diagnosis, plan, watched }
            }
        })
    }

    /// Notes what people did about an incident that has ended without its plan being carried out, as far as telemetry
    /// shows it.
    pub(crate) fn note_what_people_did(&self, tenant: &TenantId, workflow: &mut Workflow) {
        let is_over = workflow.state.is_settled() && workflow.execution.is_none() && workflow.plan.is_some();
        let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
        let Some((best, since_ms)) = best.filter(|_| is_over).zip(workflow.investigated_ms) else { return };
        let view = self.tenants.view(tenant);
        let (since, now) = (Timestamp::from_millis(since_ms), Timestamp::from_millis(view.engine.watermark_ms()));
        workflow.people_did = change_seen(&view.engine.events(since, now), &best.entity, since);
    }

    /// Returns when the next ones of the escalation route are to be asked.
    pub(crate) fn escalation_due(&self, workflow: &Workflow) -> Due {
        let is_awaiting = workflow.state == IncidentState::AwaitingApproval && workflow.approval.is_none();
        let done = usize::try_from(workflow.escalation_step).unwrap_or(usize::MAX);
        let proposed_at = workflow.proposed_at.filter(|_| is_awaiting);
        let next = proposed_at.and_then(|at| next_due_at(&self.config.policy.escalation, at, done));
        Due { at: next, ..Due::NEVER }
    }

    /// Asks the next ones of the escalation route if no person has answered for long enough: a message for each step,
    /// saved with the number of steps that are done and an audit entry. Then the plan expires, and nothing is done.
    pub(crate) async fn escalate(&self, row: &IncidentRow, workflow: &Workflow) -> Result<(), RespondError> {
        let Some(proposed_at) = workflow.proposed_at.filter(|_| workflow.approval.is_none()) else { return Ok(()) };
        let (now, route) = (clock::now(), &self.config.policy.escalation);
        let done = usize::try_from(workflow.escalation_step).unwrap_or(usize::MAX);
        let steps = due(route, proposed_at, now, done);
        if steps.is_empty() {
            return Ok(());
        }
        let mut workflow = workflow.clone();
        let mut effects = Vec::new();
        for step in steps {
            workflow.escalation_step += 1;
            let (number, recipients) = (workflow.escalation_step, step.describe());
            // Who is asked first is no news.
            if step.after_minutes > 0 {
                workflow.incident.record(now, format!("no answer; {recipients} asked for an approval"));
            }
            let message = json!({
                "kind": "approval_needed", "incident": row.id(), "title": workflow.incident.title,
                "plan_sha256": workflow.plan_sha256, "policy": workflow.policy, "step": number, "to": step,
            });
            let plan = workflow.plan_sha256.as_deref().unwrap_or_default();
            effects.push(EffectRequest::message(&row.key, &format!("{plan}:{number}"), message));
        }
        let decision = json!({ "steps": steps, "done": workflow.escalation_step, "plan_sha256": workflow.plan_sha256 });
        let audit = audit_entry(&row.tenant, "resolver", Some(&row.id()), "escalated", decision, now);
        let text = serde_json::to_string(&workflow)?;
        let enqueue = effects.into_iter().map(|effect| self.new_effect(&row.tenant, effect, now)).collect();
        let changes = Changes { enqueue, ..Changes::default() };
        // Fails if the workflow changed meanwhile; then the step is taken at the next tick.
        self.store.save_workflow(&row.tenant, &row.key, &row.workflow, &text, &changes, &audit).await?;
        Ok(())
    }

    /// Checks that the policy lets a person approve the plan of an incident.
    pub(crate) fn check_approver(&self, caller: &Identity, workflow: &Workflow, channel: &str) -> Result<(), Problem> {
        let Some(plan) = &workflow.plan else { return Ok(()) };
        if self.config.policy.shadow {
            let detail = "plans are only recorded in shadow mode; set policy.shadow to false to carry them out";
            return Err(conflict("shadow_mode", detail));
        }
        let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
        let steps = plan.steps().zip(self.targets_of(best, plan)).map(|((_, dry_run), (step, target))| {
            let request = ApprovalRequest {
                approver: Actor::person(caller.principal.clone(), caller.role),
                proposer: Principal::wardroom(),
                requester: None,
                approved_by: workflow.partial_approvals.iter().map(|approval| approval.principal.clone()).collect(),
                risk: dry_run.risk.clone(),
                channel: channel.to_owned(),
                target,
            };
            (step, self.policy.decide_approval(&request))
        });
        match PolicyDecision::strictest(steps.collect()) {
            Some(decision) if decision.answer == PolicyAnswer::Deny => {
                let detail = format!("{} ({})", decision.reason, decision.rules.join(", "));
                Err(Problem::new(Status::FORBIDDEN, "policy_denied", detail))
            }
            _ => Ok(()),
        }
    }

    /// Returns where the actions of a tenant stand, by cause.
    async fn standings(&self, tenant: &TenantId) -> Result<BTreeMap<Pair, Standing>, wardroom_store::Error> {
        let since = clock::now().minus(MAX_TRIAL_AGE);
        let finished = self.store.finished_incidents(tenant, since, MAX_TRIALS).await?;
        let trials = finished.iter().filter_map(|(at, text)| {
            let trial = serde_json::from_str::<FinishedIncident>(text).ok()?.trial()?;
            let pair = pair_of(&trial.rule, &trial.tool, &trial.operation);
            Some((pair, Trial { at: *at, agreed: trial.agreed, helped: trial.helped }))
        });
        let accepted = self.store.autonomy(tenant).await?.into_iter().map(|row| {
            let level = Autonomy::parse(&row.level).unwrap_or_default();
            (pair_of(&row.rule, &row.tool, &row.operation), Accepted { level, by: row.principal, at: row.at })
        });
        Ok(standings(trials, accepted, &self.config.policy.autonomy))
    }

    /// Lists what actions have earned, by cause.
    ///
    /// # Errors
    /// Returns a problem if the state cannot be read.
    pub async fn list_autonomy(&self, tenant: TenantId) -> Result<Vec<AutonomyPairView>, Problem> {
        let standings = self.standings(&tenant).await.map_err(store_problem)?;
        Ok(standings.into_iter().map(|(pair, standing)| pair_view(pair, &standing)).collect())
    }

    /// Accepts an offer, or takes autonomy back. Refused changes are audited, too.
    ///
    /// # Errors
    /// Returns a problem if the level is unknown or not earned, or the state cannot be written.
    pub async fn set_autonomy(&self, caller: Identity, change: AutonomyChange) -> Result<AutonomyPairView, Problem> {
        let AutonomyChange { rule, tool, operation, level } = change;
        let field = |error: String| Problem::bad_request("bad_level", format!("field level: {error}"));
        let level = Autonomy::parse(&level).map_err(field)?;
        let (now, pair) = (clock::now(), pair_of(&rule, &tool, &operation));
        let mut known = self.standings(&caller.tenant).await.map_err(store_problem)?;
        let standing = known.remove(&pair).unwrap_or_default();
        let decision = json!({
            "rule": rule, "tool": tool, "operation": operation, "from": standing.level, "level": level,
            "lower_bound": standing.lower_bound,
        });
        let allowed = standing.may_set(level);
        let action = if allowed { "autonomy_set" } else { "autonomy_refused" };
        let entry = audit_entry(&caller.tenant, "operator", None, action, decision, now);
        let entry = AuditEntry { principal: caller.principal.clone(), ..entry };
        if !allowed {
            self.store.append_audit(&entry).await.map_err(store_problem)?;
            let detail = format!(
                "{tool} {operation} has not earned {} for {rule}: at least {:.2} of {} is certain",
                level.as_str(),
                standing.lower_bound,
                standing.helped.1
            );
            return Err(conflict("not_earned", detail));
        }
        let level_text = level.as_str().to_owned();
        let row = AutonomyRow { rule, tool, operation, level: level_text, principal: caller.principal, at: now };
        self.store.set_autonomy(&caller.tenant, &row, &entry).await.map_err(store_problem)?;
        let mut known = self.standings(&caller.tenant).await.map_err(store_problem)?;
        let standing = known.remove(&pair).unwrap_or_default();
        Ok(pair_view(pair, &standing))
    }
}

fn pair_of(rule: &str, tool: &str, operation: &str) -> Pair {
    Pair { rule: rule.to_owned(), tool: tool.to_owned(), operation: operation.to_owned() }
}

fn pair_view(pair: Pair, standing: &Standing) -> AutonomyPairView {
    let Pair { rule, tool, operation } = pair;
    AutonomyPairView {
        rule,
        tool,
        operation,
        level: standing.level.as_str().to_owned(),
        agreed: [standing.agreed.0, standing.agreed.1],
        helped: [standing.helped.0, standing.helped.1],
        lower_bound: standing.lower_bound,
        offer: standing.offer.map(|level| level.as_str().to_owned()),
        last_failure: standing.last_failure,
    }
}
