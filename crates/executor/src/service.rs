//! Handling of requests: authorization, execution, and recovery after a crash.
//!
//! The server may be in an attacker's hands: every request is checked against the configuration, the ledger and the
//! target.

#[cfg(test)]
mod tests;
mod undo;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wardroom_domain::executor::{Confinement, RefusalCode, Request, Response};
use wardroom_domain::{DryRun, Outcome, Plan, TenantId, ToolCall};
use wardroom_respond::{Applied, Tool, ToolError};

use wardroom_domain::mutant;
use wardroom_process::{clock, crash};

use wardroom_tools::Target;

use crate::audit_signing::AuditSigning;
use crate::config::ExecutorConfig;
use crate::ledger::{Entry, FORMAT_VERSION, Ledger, PlanRecord};
use crate::protocol::Deadline;

/// Timeout of probing a target for the outcome of a call.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to read the state of a target after an action.
const STATE_ATTEMPTS: u32 = 3;
/// Format version of the plans that this build checks.
const PLAN_VERSION: u8 = 1;
/// Longest time until a plan expires: the server chooses the time, and an approval must not be good for years.
const MAX_PLAN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Period of a target's limit of actions.
const ACTIONS_PERIOD: Duration = Duration::from_secs(3600);

/// The executor's service.
#[derive(Debug)]
pub(crate) struct Service {
    config: PathBuf,
    ledger: Mutex<Ledger>,
    audit: AuditSigning,
    /// What the kernel enforces on this process.
    pub(crate) confinement: Confinement,
    /// Serialises executions and undos.
    execution_lock: Mutex<()>,
}

/// Code and explanation of a refused request.
type Refusal = (RefusalCode, String);

impl Service {
    pub(crate) fn open(folder: &Path, config: &Path) -> std::io::Result<Self> {
        let ledger = Ledger::open(folder)?;
        let audit = AuditSigning::open(folder, ledger.audit_head());
        let ledger = Mutex::new(ledger);
        let (config, confinement) = (config.to_owned(), Confinement::default());
        Ok(Self { config, ledger, audit, confinement, execution_lock: Mutex::new(()) })
    }

    /// Handles a request, unless it is too late for that.
    pub(crate) fn handle(&self, request: Request, deadline: Deadline) -> Response {
        let result = deadline.check().and_then(|()| self.answer(request, deadline));
        result.unwrap_or_else(|(code, detail)| Response::Refused { code, detail })
    }

    fn answer(&self, request: Request, deadline: Deadline) -> Result<Response, Refusal> {
        match request {
            Request::Ping => Ok(Response::Pong { confinement: self.confinement.clone() }),
            Request::Approvers => self.config().map(|config| Response::Approvers {
                approvers: config.listed(),
                settings: config.settings_without_secrets(),
            }),
            Request::DryRun { tenant, call } => {
                self.dry_run(&tenant, &call).map(|dry_run| Response::DryRun { dry_run })
            }
            Request::Authorize { plan, plan_sha256, proof, undo_sha256 } => {
                self.authorize(*plan, (&plan_sha256, &proof), undo_sha256, deadline)
            }
            Request::Execute { plan_sha256 } => self.execute(&plan_sha256, deadline),
            Request::Undo { plan_sha256, proof } => self.undo(&plan_sha256, &proof, deadline),
            Request::Settle { plan_sha256, proof } => self.settle(&plan_sha256, &proof),
            Request::Status { plan_sha256 } => Ok(self.status(&plan_sha256)),
            Request::AuditHead => self.audit.head(&self.ledger()),
            Request::SignAudit { first, texts, hash } => self.audit.sign(&mut self.ledger(), first, &texts, hash),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the configuration. It is read at every use, so that a removed approver loses the authority at once.
    fn config(&self) -> Result<ExecutorConfig, Refusal> {
        ExecutorConfig::load(&self.config).map_err(|error| (RefusalCode::Unavailable, error))
    }

    /// Returns the tool of a call, with the targets of the tenant only.
    fn tool(&self, tenant: &TenantId, call: &ToolCall) -> Result<Box<dyn Tool>, Refusal> {
        let tools = wardroom_tools::tools(&self.config()?.targets_of(tenant));
        let available: Vec<&str> = tools.iter().map(|tool| tool.spec().name).collect();
        let unknown = format!("there is no tool {:?}; available: {}", call.tool, available.join(", "));
        tools.into_iter().find(|tool| tool.spec().name == call.tool).ok_or((RefusalCode::Invalid, unknown))
    }

    fn dry_run(&self, tenant: &TenantId, call: &ToolCall) -> Result<DryRun, Refusal> {
        let tool = self.tool(tenant, call)?;
        with_crash_points("adapter:plan", || tool.plan(call)).map_err(refuse_tool_error)
    }

    fn status(&self, plan_sha256: &str) -> Response {
        let status = self.ledger().plan(plan_sha256).map(|record| record.status.clone()).unwrap_or_default();
        Response::Status { status }
    }

    fn authorize(
        &self,
        plan: Plan,
        (plan_sha256, proof): (&str, &str),
        undo_sha256: Option<String>,
        deadline: Deadline,
    ) -> Result<Response, Refusal> {
        let config = self.config()?;
        let principal = config.authenticate(&plan.tenant, proof).cloned().ok_or_else(|| {
            (RefusalCode::NotAnApprover, "the token does not belong to an approver of this tenant".to_owned())
        })?;
        let hash = plan.sha256().map_err(|error| (RefusalCode::Invalid, error))?;
        if hash != plan_sha256 {
            return Err((
                RefusalCode::HashMismatch,
                format!("the hash of the plan is {hash}, the approved hash is {plan_sha256}"),
            ));
        }
        check_expiry(&plan)?;
        self.check_plan(&plan)?;
        let mut ledger = self.ledger();
        if ledger.plan(&hash).is_some() {
            return Err((RefusalCode::AlreadyUsed, "this plan was approved before".to_owned()));
        }
        let entry = Entry::Authorized {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan: Box::new(plan),
            plan_sha256: hash.clone(),
            principal,
            undo_sha256,
        };
        deadline.check()?;
        ledger.append(entry).map_err(refuse_ledger_error)?;
        drop(ledger);
        Ok(self.status(&hash))
    }

    /// Checks what a plan would do, without contacting its target: call and undo are allowed for the tenant, and the
    /// undo acts on nothing else.
    fn check_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        let invalid = |detail: String| Err((RefusalCode::Invalid, detail));
        if plan.version != PLAN_VERSION {
            return invalid(format!("the plan has format {}; this build checks {PLAN_VERSION}", plan.version));
        }
        if plan.expires_at > clock::now().plus(MAX_PLAN_LIFETIME) {
            let hours = MAX_PLAN_LIFETIME.as_secs() / 3600;
            return invalid(format!("the plan expires in more than {hours} h; lower respond.approval-minutes"));
        }
        let tool = self.tool(&plan.tenant, &plan.call)?;
        tool.check(&plan.call).map_err(refuse_tool_error)?;
        let Some(undo) = &plan.dry_run.undo else { return Ok(()) };
        if (&undo.tool, &undo.target) != (&plan.call.tool, &plan.call.target) {
            return invalid("the undo of the plan acts on another target than the plan".to_owned());
        }
        tool.check(undo).map_err(refuse_tool_error)
    }

    fn execute(&self, plan_sha256: &str, deadline: Deadline) -> Result<Response, Refusal> {
        let _guard = self.execution_lock.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.check()?;
        let record = self.approved_plan(plan_sha256)?;
        if record.status.executed.is_some() {
            return Ok(self.status(plan_sha256));
        }
        let plan = &record.plan;
        let tool = self.tool(&plan.tenant, &plan.call)?;
        let key = self.idempotency_key(plan)?;
        let applied = if record.started_at.is_some() && !mutant::is_enabled("forget-idempotency-key") {
            let authorized = || self.check_authority(&record);
            self.recover(tool.as_ref(), &plan.call, &plan.dry_run.precondition, &key, authorized)?
        } else {
            self.check_authority(&record)?;
            self.check_rate(&plan.tenant, &plan.call)?;
            // What the plan says is not taken from the server: a dry run is made again, immediately before the action.
            let found = with_crash_points("adapter:probe", || tool.plan(&plan.call)).map_err(refuse_tool_error)?;
            if found != plan.dry_run && !mutant::is_enabled("forget-idempotency-key") {
                let detail = describe_difference(&plan.dry_run, &found);
                return self.finish(plan_sha256, &Applied { outcome: Outcome::NotApplied, detail }, None);
            }
            let started = Entry::Started {
                version: FORMAT_VERSION,
                at: clock::now(),
                plan_sha256: plan_sha256.to_owned(),
                key: key.clone(),
            };
            deadline.check()?;
            self.ledger().append(started).map_err(refuse_ledger_error)?;
            self.call(tool.as_ref(), "adapter:execute", &plan.call, &plan.dry_run.precondition, &key)
        };
        let state = match (&plan.dry_run.undo, applied.outcome) {
            (Some(undo), Outcome::Applied) => state_after(tool.as_ref(), plan, undo, &key),
            _ => None,
        };
        self.finish(plan_sha256, &applied, state)
    }

    fn finish(&self, plan_sha256: &str, applied: &Applied, state: Option<String>) -> Result<Response, Refusal> {
        let Applied { outcome, detail } = applied.clone();
        let entry = Entry::Finished {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: plan_sha256.to_owned(),
            outcome,
            detail,
            state,
        };
        self.ledger().append(entry).map_err(refuse_ledger_error)?;
        Ok(self.status(plan_sha256))
    }

    /// Returns the state of an approved plan.
    fn approved_plan(&self, plan_sha256: &str) -> Result<PlanRecord, Refusal> {
        let unknown = || (RefusalCode::NotApproved, "this plan is not approved".to_owned());
        self.ledger().plan(plan_sha256).cloned().ok_or_else(unknown)
    }

    /// Checks expiry and the approver's authority again, immediately before the execution.
    fn check_authority(&self, record: &PlanRecord) -> Result<(), Refusal> {
        check_expiry(&record.plan)?;
        self.check_approver(record)
    }

    /// Checks that the principal who approved a plan is still an approver of its tenant.
    fn check_approver(&self, record: &PlanRecord) -> Result<(), Refusal> {
        let config = self.config()?;
        let approver = record.status.approved_by.as_ref();
        if approver.is_some_and(|approver| config.is_approver(&record.plan.tenant, approver)) {
            Ok(())
        } else {
            Err((RefusalCode::NotAnApprover, "the approver is no longer configured".to_owned()))
        }
    }

    /// Checks that the target has not had its number of actions within the period.
    fn check_rate(&self, tenant: &TenantId, call: &ToolCall) -> Result<(), Refusal> {
        let targets = self.config()?.targets_of(tenant);
        let is_target = |target: &&Target| target.tool == call.tool && target.name == call.target;
        let Some(allowed) = targets.iter().find(is_target).map(|target| target.actions_per_hour) else {
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
        Err((RefusalCode::Unavailable, detail))
    }

    fn idempotency_key(&self, plan: &Plan) -> Result<String, Refusal> {
        if mutant::is_enabled("forget-idempotency-key") {
            return Ok(format!("{:032x}", clock::now().nanos()));
        }
        plan.idempotency_key().map_err(|error| (RefusalCode::Invalid, error))
    }

    /// Recovers a call that was started before a crash: probes the target, and repeats the call, with the same
    /// idempotency key, only if it certainly was not applied and `authorized` still succeeds.
    fn recover(
        &self,
        tool: &dyn Tool,
        call: &ToolCall,
        state: &str,
        key: &str,
        authorized: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Applied, Refusal> {
        Ok(match self.probe(tool, call, state, key) {
            Outcome::Applied => Applied { outcome: Outcome::Applied, detail: "found applied after a restart".into() },
            Outcome::NotApplied => {
                authorized()?;
                let found = with_crash_points("adapter:probe", || tool.state(call)).map_err(refuse_tool_error)?;
                if found != state && !mutant::is_enabled("forget-idempotency-key") {
                    let detail = describe_change(state, &found);
                    return Ok(Applied { outcome: Outcome::NotApplied, detail });
                }
                self.call(tool, "adapter:execute", call, state, key)
            }
            Outcome::Unknown => {
                let detail =
                    "after a restart the target does not report whether the call was applied; a person must check"
                        .into();
                Applied { outcome: Outcome::Unknown, detail }
            }
        })
    }

    /// Calls the tool; if the target is unavailable, probes for the outcome.
    fn call(&self, tool: &dyn Tool, step: &str, call: &ToolCall, state: &str, key: &str) -> Applied {
        match with_crash_points(step, || tool.execute(call, state, key)) {
            Ok(applied) => applied,
            Err(ToolError::Unavailable(detail)) => Applied { outcome: self.probe(tool, call, state, key), detail },
            Err(error) => Applied { outcome: Outcome::NotApplied, detail: error.to_string() },
        }
    }

    /// Probes the target until it reports an outcome; `Unknown` after [`PROBE_TIMEOUT`].
    fn probe(&self, tool: &dyn Tool, call: &ToolCall, state: &str, key: &str) -> Outcome {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        while Instant::now() < deadline {
            match with_crash_points("adapter:probe", || tool.probe(call, state, key)) {
                Ok(outcome) => return outcome,
                Err(error) => tracing::warn!(%error, "probe failed; retrying"),
            }
            std::thread::sleep(PROBE_INTERVAL);
        }
        Outcome::Unknown
    }
}

/// Runs a call with crash points before and after it.
fn with_crash_points<T>(step: &str, call: impl FnOnce() -> T) -> T {
    crash::maybe_crash(step, "before");
    let result = call();
    crash::maybe_crash(step, "after");
    result
}

/// Returns the state that an action left, as far as its undo is concerned; `None` if it cannot be read, or if something
/// else has changed the target since.
fn state_after(tool: &dyn Tool, plan: &Plan, undo: &ToolCall, key: &str) -> Option<String> {
    for attempt in 0..STATE_ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PROBE_INTERVAL);
        }
        // Read first: if the last change is then still ours, the state is the one that it left.
        let state = tool.state(undo).and_then(|state| {
            let outcome = tool.probe(&plan.call, &plan.dry_run.precondition, key)?;
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

fn check_expiry(plan: &Plan) -> Result<(), Refusal> {
    if plan.expires_at > clock::now() {
        Ok(())
    } else {
        Err((RefusalCode::Expired, format!("the plan expired at {}", plan.expires_at)))
    }
}

fn refuse_tool_error(error: ToolError) -> Refusal {
    let code = match error {
        ToolError::Invalid(_) => RefusalCode::Invalid,
        ToolError::Stale(_) => RefusalCode::Stale,
        ToolError::Unavailable(_) => RefusalCode::Unavailable,
    };
    (code, error.to_string())
}

fn refuse_ledger_error(error: std::io::Error) -> Refusal {
    (RefusalCode::Unavailable, format!("the ledger cannot be written: {error}"))
}
