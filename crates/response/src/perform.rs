//! Performs one effect: asks the executor, follows an action to its end, and hands the result to the incident.

use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::executor::{Phase, PlanStatus, RefusalCode, Request, Response};
use wardroom_domain::{Approval, CheckResult, DryRun, Outcome, Principal, Timestamp, ToolCall};
use wardroom_respond::{EffectData, Workflow};
use wardroom_store::EffectRow;

use super::audit_entry::audit_entry;
use super::decisions::authorization;
use super::effect_outcome::{ActionEnd, Performed, crash_name, finished};
use super::respond_error::{OTHER_ANSWER, RespondError};
use super::responder::Responder;
use crate::{clock, crash};

/// Pauses between questions for the status of a running action: the first …
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// … and the longest.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before the next attempt at an action that is stopped, rate limited or waits for another one.
const BLOCKED_INTERVAL: Duration = Duration::from_secs(2);
/// An approval that was asked for may be recorded for this long after the request, and is looked for …
const PROBE_DURATION: Duration = Duration::from_secs(75);
/// … at this interval.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A response of the executor to a request about a plan.
enum Answer {
    Status(PlanStatus),
    Refused(RefusalCode, String),
}

/// What can be done about an action that has not ended.
enum Attempt {
    Ended(ActionEnd),
    Retry(Performed),
}

impl Responder {
    /// Performs an effect whose lease this process has.
    pub(crate) async fn perform(&self, effect: &EffectRow) -> Result<Performed, RespondError> {
        let data = match serde_json::from_str::<EffectData>(&effect.payload) {
            Ok(data) => data,
            Err(error) => {
                tracing::error!(effect = %effect.id, %error, "an effect cannot be read by this build");
                return self.finish(effect, "unreadable", &json!({ "error": error.to_string() })).await;
            }
        };
        match data {
            EffectData::Read { call } => match self.read_target(effect, call).await? {
                Ok(result) => self.finish_read(effect, result).await,
                Err(retry) => Ok(retry),
            },
            EffectData::DryRun { call } => match self.dry_run(effect, call).await? {
                Ok(result) => self.finish_dry_run(effect, result).await,
                Err(retry) => Ok(retry),
            },
            EffectData::Execution { plan_sha256, step } => {
                let start = Request::Start { plan_sha256: plan_sha256.clone(), step };
                let plan_step = (plan_sha256, step);
                match self.follow(effect, start, plan_step, Phase::Running, |status| status.executed).await? {
                    Attempt::Ended(end) => self.finish_execution(effect, step, end).await,
                    Attempt::Retry(retry) => Ok(retry),
                }
            }
            EffectData::Undo { plan_sha256, step, proof } => {
                let start = Request::StartUndo { plan_sha256: plan_sha256.clone(), step, proof };
                let plan_step = (plan_sha256, step);
                match self.follow(effect, start, plan_step, Phase::Undoing, |status| status.undone).await? {
                    Attempt::Ended(end) => self.finish_undo(effect, step, end).await,
                    Attempt::Retry(retry) => Ok(retry),
                }
            }
            EffectData::Authorization { plan_sha256 } => self.authorize_by_policy(effect, plan_sha256).await,
            EffectData::Probe { plan_sha256 } => self.probe(effect, plan_sha256).await,
            EffectData::Settle { plan_sha256, proof } => {
                match self.ask(&Request::Settle { plan_sha256, proof }).await {
                    Ok(Answer::Status(_)) => self.finish(effect, "done", &json!({})).await,
                    Ok(Answer::Refused(code, detail)) if !code.is_retryable() => {
                        self.finish(effect, "refused", &json!({ "refused": detail })).await
                    }
                    // The executor refuses an undo by itself once the time for it is over.
                    _ if is_over(effect) => self.finish(effect, "expired", &json!({})).await,
                    Ok(Answer::Refused(_, detail)) => Ok(Performed::Retry(detail, None)),
                    Err(error) => Ok(Performed::Retry(error.to_string(), None)),
                }
            }
            EffectData::Message { message } => {
                let (tenant, now) = (&effect.tenant, clock::now());
                let row = self.store.incident_by_key(tenant, &effect.incident).await?;
                let id = row.map(|row| row.id());
                let entry = audit_entry(tenant, "resolver", id.as_deref(), "message", message, now);
                self.store.append_audit(&entry).await?;
                self.finish(effect, "done", &json!({})).await
            }
        }
    }

    /// Asks the target what a call would change: the dry run, or why there is none.
    async fn dry_run(
        &self,
        effect: &EffectRow,
        call: ToolCall,
    ) -> Result<Result<Result<DryRun, String>, Performed>, RespondError> {
        let reason = match self.executor.request(&Request::DryRun { tenant: effect.tenant.clone(), call }).await {
            Ok(Response::DryRun { dry_run }) => return Ok(Ok(Ok(dry_run))),
            Ok(Response::Refused { code, detail }) if !code.is_retryable() => return Ok(Ok(Err(detail))),
            Ok(Response::Refused { detail, .. }) => detail,
            Ok(_) => return Err(RespondError::Refused(OTHER_ANSWER.to_owned())),
            Err(error) => error.to_string(),
        };
        Ok(if is_over(effect) { Ok(Err(reason)) } else { Err(Performed::Retry(reason, None)) })
    }

    /// Asks a target a question that changes nothing: the answer, or why there is none.
    async fn read_target(
        &self,
        effect: &EffectRow,
        call: ToolCall,
    ) -> Result<Result<CheckResult, Performed>, RespondError> {
        let result = |value, error| CheckResult { at: clock::now(), value, error };
        let reason = match self.executor.request(&Request::Read { tenant: effect.tenant.clone(), call }).await {
            Ok(Response::Read { value }) => return Ok(Ok(result(Some(value), None))),
            Ok(Response::Refused { code, detail }) if !code.is_retryable() => {
                return Ok(Ok(result(None, Some(detail))));
            }
            Ok(Response::Refused { detail, .. }) => detail,
            Ok(_) => return Err(RespondError::Refused(OTHER_ANSWER.to_owned())),
            Err(error) => error.to_string(),
        };
        Ok(if is_over(effect) { Ok(result(None, Some(reason))) } else { Err(Performed::Retry(reason, None)) })
    }

    /// Starts a step of a plan or its undo, or joins it, and follows it to its end.
    async fn follow(
        &self,
        effect: &EffectRow,
        start: Request,
        (plan_sha256, step): (String, u32),
        running: Phase,
        outcome: fn(&PlanStatus) -> Option<Outcome>,
    ) -> Result<Attempt, RespondError> {
        let ended = |outcome, detail| Ok(Attempt::Ended(ActionEnd { outcome, detail }));
        let give_up = |reason: String| {
            let detail = format!("the executor did not report an outcome in time: {reason}; a person must check");
            ended(Outcome::Unknown, detail)
        };
        let mut request = start;
        let mut pause = FIRST_POLL_INTERVAL;
        loop {
            let status = match self.ask(&request).await {
                Ok(Answer::Status(status)) => status,
                Ok(Answer::Refused(code, detail)) if code.is_retryable() => return Ok(blocked(effect, code, detail)),
                Ok(Answer::Refused(_, detail)) => return ended(Outcome::NotApplied, detail),
                Err(error) if is_over(effect) => return give_up(error.to_string()),
                Err(RespondError::Executor(error)) => {
                    return Ok(Attempt::Retry(Performed::Retry(error.to_string(), None)));
                }
                Err(error) => return Err(error),
            };
            if let Some(outcome) = outcome(&status) {
                return ended(outcome, status.detail);
            }
            if status.phase != running {
                // The run ended before it had an effect, or the executor was restarted and does not run it.
                return match status.refused {
                    Some(refused) if refused.code.is_retryable() => Ok(blocked(effect, refused.code, refused.detail)),
                    Some(refused) => ended(Outcome::NotApplied, refused.detail),
                    None if is_over(effect) => give_up(status.detail),
                    None => Ok(Attempt::Retry(Performed::Retry("the executor does not run it".to_owned(), None))),
                };
            }
            if is_over(effect) {
                let progress = status.progress.map_or(status.detail, |progress| progress.text);
                return give_up(format!("it is still running: {progress}"));
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(MAX_POLL_INTERVAL);
            request = Request::Status { plan_sha256: plan_sha256.clone(), step };
        }
    }

    /// Asks the executor to authorize a plan that the policy permits without a person. If the executor's own policy
    /// does not, a person is still asked.
    async fn authorize_by_policy(&self, effect: &EffectRow, plan_sha256: String) -> Result<Performed, RespondError> {
        let Some(row) = self.store.incident_by_key(&effect.tenant, &effect.incident).await? else {
            return self.finish(effect, "done", &json!({})).await;
        };
        let workflow = Workflow::read(&row.workflow)?;
        let is_pending = workflow.plan_sha256.as_ref() == Some(&plan_sha256);
        let request = authorization(&workflow, &plan_sha256, String::new()).filter(|_| is_pending);
        let Some(request) = request else { return self.finish(effect, "done", &json!({})).await };
        match self.ask(&request).await {
            Ok(Answer::Status(status)) => {
                let (channel, reason) = ("policy".to_owned(), "the policy permits it".to_owned());
                let (principal, at, proof) = (Principal::wardroom(), clock::now(), status.proof);
                let approval = Approval { principal, at, channel, plan_sha256, reason, proof };
                self.finish_probe(effect, approval).await
            }
            Ok(Answer::Refused(code, detail)) if !code.is_retryable() => {
                self.finish(effect, "refused", &json!({ "refused": detail })).await
            }
            _ if is_over(effect) => self.finish(effect, "expired", &json!({})).await,
            Ok(Answer::Refused(_, detail)) => Ok(Performed::Retry(detail, None)),
            Err(error) => Ok(Performed::Retry(error.to_string(), None)),
        }
    }

    /// Looks for an approval in the executor's ledger that this process, or one before it, did not hear of.
    async fn probe(&self, effect: &EffectRow, plan_sha256: String) -> Result<Performed, RespondError> {
        let status = match self.ask(&Request::Status { plan_sha256: plan_sha256.clone(), step: 0 }).await? {
            Answer::Status(status) => status,
            Answer::Refused(_, detail) => return Ok(Performed::Retry(detail, None)),
        };
        match self.approval_in(&effect.tenant, plan_sha256, &status).await? {
            Some(approval) => self.finish_probe(effect, approval).await,
            None if clock::now() < effect.created_at.plus(PROBE_DURATION) => {
                Ok(Performed::Retry("not approved".to_owned(), Some(PROBE_INTERVAL)))
            }
            None => self.finish(effect, "not_approved", &json!({})).await,
        }
    }

    /// Sends a request about a plan to the executor.
    async fn ask(&self, request: &Request) -> Result<Answer, RespondError> {
        match self.executor.request(request).await? {
            Response::Status { status } => Ok(Answer::Status(status)),
            Response::Refused { code, detail } => Ok(Answer::Refused(code, detail)),
            _ => Err(RespondError::Refused(OTHER_ANSWER.to_owned())),
        }
    }

    /// Finishes an effect whose result changes nothing.
    pub(crate) async fn finish(
        &self,
        effect: &EffectRow,
        word: &'static str,
        result: &Value,
    ) -> Result<Performed, RespondError> {
        let step = format!("effect:{}-finish", crash_name(effect));
        crash::maybe_crash(&step, "before");
        self.store.finish_effect(&finished(effect, result), clock::now()).await?;
        crash::maybe_crash(&step, "after");
        Ok(Performed::Finished(word))
    }
}

/// An action that may be tried later, or is given up.
fn blocked(effect: &EffectRow, code: RefusalCode, detail: String) -> Attempt {
    if is_over(effect) {
        // Nothing was done: the executor refused it.
        return Attempt::Ended(ActionEnd { outcome: Outcome::NotApplied, detail });
    }
    let after = (code != RefusalCode::Unavailable).then_some(BLOCKED_INTERVAL);
    Attempt::Retry(Performed::Retry(detail, after))
}

/// Whether an effect is given up.
fn is_over(effect: &EffectRow) -> bool {
    let now: Timestamp = clock::now();
    now >= effect.deadline
}
