//! Execution of an approved plan, and its recovery after a crash.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_domain::mutant;
use wardroom_domain::{DryRun, Outcome, Plan, Principal, TenantId, ToolCall};
use wardroom_process::clock;
use wardroom_respond::{Applied, Run, Tool, ToolError};

use super::runs::Work;
use super::{Service, refuse_ledger_error, refuse_tool_error, with_crash_points};
use crate::ledger::{Entry, FORMAT_VERSION};
use crate::plan_record::PlanRecord;
use crate::policy_check::{self, StepFacts};
use crate::protocol::Deadline;
use crate::refusal::Refusal;

/// Timeout of probing a target for the outcome of a call.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to read the state of a target after an action.
const STATE_ATTEMPTS: u32 = 3;
/// Period of a target's limit of actions.
const ACTIONS_PERIOD: Duration = Duration::from_secs(3600);

/// A call with what it needs.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) plan_sha256: &'a str,
    pub(super) tool: &'a dyn Tool,
    /// Crash point of the call.
    pub(super) crash_point: &'a str,
    pub(super) call: &'a ToolCall,
    pub(super) precondition: &'a str,
    pub(super) key: &'a str,
}

impl Service {
    /// Begins a step. What can be refused without asking the target is refused at once.
    pub(super) fn start(
        self: &Arc<Self>,
        plan_sha256: &str,
        step: u32,
        deadline: Deadline,
    ) -> Result<Response, Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        let (known, ..) = record.step(step)?;
        if known.executed.is_some() {
            return Ok(self.status(plan_sha256, step));
        }
        if known.started_at.is_none() {
            self.check_stop()?;
            record.check_order(step)?;
            self.check_authority(&record, step)?;
            if record.break_glass.is_none() {
                // Of those that follow, too: a plan should not stop halfway for an hour.
                for (_, _, call) in record.numbered().filter(|(number, ..)| *number >= step) {
                    self.check_rate(&record.plan.tenant, call)?;
                }
            }
        }
        let work = (Work::Action, step);
        self.spawn(&record, work, move |service, plan_sha256| service.execute(plan_sha256, step, deadline))?;
        Ok(self.status(plan_sha256, step))
    }

    /// Runs work of a step in a thread, unless it is running already.
    pub(super) fn spawn(
        self: &Arc<Self>,
        record: &PlanRecord,
        (work, step): (Work, u32),
        run: impl FnOnce(&Self, &str) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let (_, call, _) = record.step(step)?;
        let resource = (record.plan.tenant.clone(), call.tool.clone(), call.target.clone());
        let hash = record.plan_sha256.clone();
        self.check_interrupted(record, call)?;
        let Some(guard) = self.runs.begin(&hash, (work, step), resource)? else { return Ok(()) };
        let service = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("action".into()).spawn(move || {
            let result = run(&service, &hash);
            if let Err((code, detail)) = &result {
                tracing::warn!(plan_sha256 = hash, ?code, detail, "an action was refused");
            }
            guard.end(result);
        });
        spawned.map(drop).map_err(|error| (RefusalCode::Unavailable, format!("no thread for the action: {error}")))
    }

    /// Continues what a crash has interrupted: asks the targets whether the calls took effect.
    pub(crate) fn recover_interrupted(self: &Arc<Self>) {
        let mut interrupted: Vec<(PlanRecord, u32)> = Vec::new();
        for record in self.ledger().plans() {
            let open = record.numbered().filter(|(_, step, _)| step.started_at.is_some() && step.executed.is_none());
            interrupted.extend(open.map(|(step, ..)| (record.clone(), step)));
        }
        for (record, step) in interrupted {
            tracing::warn!(plan_sha256 = record.plan_sha256, step, "an action was interrupted; its target is asked");
            let (work, deadline) = ((Work::Action, step), Deadline::default());
            let spawned =
                self.spawn(&record, work, move |service, plan_sha256| service.execute(plan_sha256, step, deadline));
            if let Err((_, detail)) = spawned {
                tracing::warn!(plan_sha256 = record.plan_sha256, detail, "recovery was not started");
            }
        }
    }

    /// Checks that no action of another plan on the target of a call was interrupted and is not recovered. One that has
    /// expired is never repeated, so it holds nothing up.
    fn check_interrupted(&self, record: &PlanRecord, call: &ToolCall) -> Result<(), Refusal> {
        let now = clock::now();
        let is_interrupted = |other: &&PlanRecord| {
            other.plan.tenant == record.plan.tenant
                && other.plan_sha256 != record.plan_sha256
                && other.numbered().any(|(step, known, theirs)| {
                    known.started_at.is_some()
                        && known.executed.is_none()
                        && other.begin_until(step) > now
                        && (&theirs.tool, &theirs.target) == (&call.tool, &call.target)
                })
        };
        match self.ledger().plans().find(is_interrupted) {
            Some(other) => {
                let hash = &other.plan_sha256;
                let detail = format!("plan {hash} was interrupted on {}; it is recovered first", call.target);
                Err((RefusalCode::Busy, detail))
            }
            None => Ok(()),
        }
    }

    fn execute(&self, plan_sha256: &str, step: u32, deadline: Deadline) -> Result<(), Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        let (known, call, dry_run) = record.step(step)?;
        if known.executed.is_some() {
            return Ok(());
        }
        let plan = &record.plan;
        let tool = self.tool(&plan.tenant, call)?;
        let tool = tool.as_ref();
        let key = self.idempotency_key(plan, step)?;
        let precondition = dry_run.precondition.as_str();
        let this = Step { plan_sha256, tool, crash_point: "adapter:execute", call, precondition, key: &key };
        let applied = if known.started_at.is_some() && !mutant::is_enabled("forget-idempotency-key") {
            self.recover(&this, || self.check_authority(&record, step))?
        } else {
            // What the plan says is not taken from the server: a dry run is made again, immediately before the action.
            self.runs.progress(plan_sha256, "dry run");
            let found = with_crash_points("adapter:probe", || tool.plan(call)).map_err(refuse_tool_error)?;
            let is_stale = found != *dry_run && !mutant::is_enabled("forget-idempotency-key");
            let stale = is_stale.then(|| describe_difference(dry_run, &found));
            let stale = if stale.is_none() && step == 0 { self.find_stale_step(&record)? } else { stale };
            if let Some(detail) = stale {
                return self.finish((plan_sha256, step), &Applied::new(Outcome::NotApplied, detail), None);
            }
            self.check_authority(&record, step)?;
            self.check_policy(&record, step, &found)?;
            let started = Entry::Started {
                version: FORMAT_VERSION,
                at: clock::now(),
                plan_sha256: plan_sha256.to_owned(),
                plan_step: step,
                key: key.clone(),
            };
            deadline.check()?;
            self.append_effect(started)?;
            self.call(&this)
        };
        let state = match (&dry_run.undo, applied.outcome) {
            (Some(undo), Outcome::Applied) => state_after(&this, undo),
            _ => None,
        };
        self.finish((plan_sha256, step), &applied, state)
    }

    /// Looks for a later step whose dry run, made now, differs from the plan: better nothing is done than a part.
    fn find_stale_step(&self, record: &PlanRecord) -> Result<Option<String>, Refusal> {
        let plan = &record.plan;
        for (step, (call, dry_run)) in (0..).zip(plan.steps()).skip(1) {
            let found = self.dry_run(&plan.tenant, call)?;
            if found != *dry_run {
                return Ok(Some(format!("{}: {}", plan.describe_step(step), describe_difference(dry_run, &found))));
            }
        }
        Ok(None)
    }

    fn finish(
        &self,
        (plan_sha256, plan_step): (&str, u32),
        applied: &Applied,
        state: Option<String>,
    ) -> Result<(), Refusal> {
        let Applied { outcome, detail, .. } = applied.clone();
        let entry = Entry::Finished {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: plan_sha256.to_owned(),
            plan_step,
            outcome,
            detail,
            state,
        };
        self.ledger().append(entry).map_err(refuse_ledger_error)
    }

    /// Asks the policy about a step, with the dry run that was made now, and those after it, and compares the approvals
    /// with what it asks for.
    fn check_policy(&self, record: &PlanRecord, step: u32, found: &DryRun) -> Result<(), Refusal> {
        let (config, now, plan) = (self.config()?, clock::now(), &record.plan);
        if config.policy.shadow {
            let detail = "the executor's policy.shadow is on: what Wardroom would do is recorded, and nothing is done";
            return Err((RefusalCode::Denied, detail.to_owned()));
        }
        let facts = policy_check::facts_of(plan).skip_while(|facts| facts.step < step).map(|facts| StepFacts {
            dry_run: if facts.step == step { found } else { facts.dry_run },
            actions_last_hour: self.ledger().actions_since(&plan.tenant, facts.call, now.minus(ACTIONS_PERIOD)),
            ..facts
        });
        let decision = policy_check::decide(&config, plan, facts, record.break_glass.is_some(), now)?;
        let people = record.approvals.iter().filter(|approval| approval.principal != Principal::wardroom()).count();
        match decision.answer.approvals() {
            _ if mutant::is_enabled("ignore-policy") => Ok(()),
            None => Err((RefusalCode::Denied, policy_check::describe(&decision))),
            Some(needed) if people < needed && record.break_glass.is_none() => {
                let detail = format!("{people} of {needed} approvals; {}", policy_check::describe(&decision));
                Err((RefusalCode::NotApproved, detail))
            }
            Some(_) => Ok(()),
        }
    }

    /// Checks that the target has not had its number of actions within the period.
    fn check_rate(&self, tenant: &TenantId, call: &ToolCall) -> Result<(), Refusal> {
        let config = self.config()?;
        let Some(allowed) = config.target_of(tenant, call).map(|target| target.actions_per_hour) else {
            return Err((RefusalCode::Invalid, format!("target {:?} is not declared for this tenant", call.target)));
        };
        let done = self.ledger().actions_since(tenant, call, clock::now().minus(ACTIONS_PERIOD));
        if done < allowed as usize {
            return Ok(());
        }
        let detail = format!(
            "{done} actions on {} within an hour, and its actions-per-hour is {allowed}; the plan waits",
            call.target
        );
        Err((RefusalCode::RateLimited, detail))
    }

    pub(super) fn idempotency_key(&self, plan: &Plan, step: u32) -> Result<String, Refusal> {
        if mutant::is_enabled("forget-idempotency-key") {
            return Ok(format!("{:032x}", clock::now().nanos()));
        }
        plan.step_key(step).map_err(|error| (RefusalCode::Invalid, error))
    }

    /// Recovers a call that was started before a crash: probes the target, and repeats the call, with the same
    /// idempotency key, only if it certainly was not applied and `authorized` still succeeds.
    pub(super) fn recover(
        &self,
        step: &Step<'_>,
        authorized: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Applied, Refusal> {
        self.runs.progress(step.plan_sha256, "asking the target whether the interrupted call took effect");
        Ok(match self.probe(step) {
            Outcome::Applied => Applied::new(Outcome::Applied, "found applied after a restart"),
            Outcome::NotApplied => {
                authorized()?;
                let found =
                    with_crash_points("adapter:probe", || step.tool.state(step.call)).map_err(refuse_tool_error)?;
                if found != step.precondition && !mutant::is_enabled("forget-idempotency-key") {
                    return Ok(Applied::new(Outcome::NotApplied, describe_change(step.precondition, &found)));
                }
                self.check_stop()?;
                self.call(step)
            }
            Outcome::Unknown => {
                let detail =
                    "after a restart the target does not report whether the call was applied; a person must check";
                Applied::new(Outcome::Unknown, detail)
            }
        })
    }

    /// Calls the tool, and follows it to its end; if the target is unavailable, probes for the outcome.
    pub(super) fn call(&self, step: &Step<'_>) -> Applied {
        let Step { plan_sha256, tool, crash_point, call, precondition, key } = *step;
        let progress = |text: &str| self.runs.progress(plan_sha256, text);
        progress("running");
        let run = Run { timeout: tool.spec().timeout, progress: &progress, ..Run::new(precondition, key) };
        match with_crash_points(crash_point, || tool.execute(call, &run)) {
            Ok(applied) => applied,
            Err(ToolError::Unavailable(detail)) => {
                progress("asking the target whether the call took effect");
                Applied::new(self.probe(step), detail)
            }
            Err(error) => Applied::new(Outcome::NotApplied, error.to_string()),
        }
    }

    /// Probes the target until it reports an outcome; `Unknown` after [`PROBE_TIMEOUT`].
    fn probe(&self, step: &Step<'_>) -> Outcome {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        while Instant::now() < deadline {
            let probed = with_crash_points("adapter:probe", || step.tool.probe(step.call, step.precondition, step.key));
            match probed {
                Ok(outcome) => return outcome,
                Err(error) => tracing::warn!(%error, "probe failed; retrying"),
            }
            std::thread::sleep(PROBE_INTERVAL);
        }
        Outcome::Unknown
    }
}

/// Returns the state that an action left, as far as its undo is concerned; `None` if it cannot be read, or if something
/// else has changed the target since.
fn state_after(step: &Step<'_>, undo: &ToolCall) -> Option<String> {
    let Step { tool, call, precondition, key, .. } = *step;
    for attempt in 0..STATE_ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PROBE_INTERVAL);
        }
        // Read first: if the last change is then still ours, the state is the one that it left.
        let state = tool.state(undo).and_then(|state| {
            let outcome = tool.probe(call, precondition, key)?;
            Ok((outcome == Outcome::Applied).then_some(state))
        });
        match state {
            Ok(state) => return state,
            Err(error) => tracing::warn!(%error, "reading the state after an action failed"),
        }
    }
    None
}

/// Says how a dry run made now differs from the one in a plan.
fn describe_difference(planned: &DryRun, found: &DryRun) -> String {
    if planned.precondition == found.precondition {
        return "plan is stale: a dry run made now has another result; a new plan is needed".to_owned();
    }
    describe_change(&planned.precondition, &found.precondition)
}

fn describe_change(planned: &str, found: &str) -> String {
    format!("plan is stale: the target is at {found}, the plan expects {planned}")
}
