//! Handling of requests: authorization, execution, undo, and recovery after a crash.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wardroom_domain::executor::{RefusalCode, Request, Response};
use wardroom_domain::{DryRun, Outcome, Plan, ToolCall};
use wardroom_respond::{Applied, Tool, ToolError};

use wardroom_domain::mutant;
use wardroom_process::{clock, crash};

use crate::config::ExecutorConfig;
use crate::ledger::{Entry, FORMAT_VERSION, Ledger, PlanRecord};

/// Timeout of probing a target for the outcome of a call.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The executor's service.
#[derive(Debug)]
pub(crate) struct Service {
    config: PathBuf,
    ledger: Mutex<Ledger>,
    /// Serialises executions and undos.
    execution_lock: Mutex<()>,
}

/// Code and explanation of a refused request.
type Refusal = (RefusalCode, String);

impl Service {
    pub(crate) fn open(folder: &Path, config: &Path) -> std::io::Result<Self> {
        let ledger = Mutex::new(Ledger::open(folder)?);
        Ok(Self { config: config.to_owned(), ledger, execution_lock: Mutex::new(()) })
    }

    /// Handles a request.
    pub(crate) fn handle(&self, request: Request) -> Response {
        let result = match request {
            Request::Ping => Ok(Response::Pong),
            Request::Approvers => self.config().map(|config| Response::Approvers { approvers: config.listed() }),
            Request::DryRun { call } => self.dry_run(&call).map(|dry_run| Response::DryRun { dry_run }),
            Request::Authorize { plan, plan_sha256, proof } => self.authorize(*plan, &plan_sha256, &proof),
            Request::Execute { plan_sha256 } => self.execute(&plan_sha256),
            Request::Undo { plan_sha256 } => self.undo(&plan_sha256),
            Request::Status { plan_sha256 } => Ok(self.status(&plan_sha256)),
        };
        result.unwrap_or_else(|(code, detail)| Response::Refused { code, detail })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the configuration. It is read at every use, so that a removed approver loses the authority at once.
    fn config(&self) -> Result<ExecutorConfig, Refusal> {
        ExecutorConfig::load(&self.config).map_err(|error| (RefusalCode::Unavailable, error))
    }

    fn tool(&self, call: &ToolCall) -> Result<Box<dyn Tool>, Refusal> {
        let tools = wardroom_tools::tools(&self.config()?.targets);
        let available: Vec<&str> = tools.iter().map(|tool| tool.spec().name).collect();
        let unknown = (RefusalCode::Invalid, format!("unknown tool {:?}; available: {available:?}", call.tool));
        tools.into_iter().find(|tool| tool.spec().name == call.tool).ok_or(unknown)
    }

    fn dry_run(&self, call: &ToolCall) -> Result<DryRun, Refusal> {
        let tool = self.tool(call)?;
        with_crash_points("adapter:plan", || tool.plan(call)).map_err(refuse_tool_error)
    }

    fn status(&self, plan_sha256: &str) -> Response {
        let status = self.ledger().plan(plan_sha256).map(|record| record.status.clone()).unwrap_or_default();
        Response::Status { status }
    }

    fn authorize(&self, plan: Plan, plan_sha256: &str, proof: &str) -> Result<Response, Refusal> {
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
        self.tool(&plan.call)?;
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
        };
        ledger.append(entry).map_err(refuse_ledger_error)?;
        drop(ledger);
        Ok(self.status(&hash))
    }

    fn execute(&self, plan_sha256: &str) -> Result<Response, Refusal> {
        let _guard = self.execution_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.approved_plan(plan_sha256)?;
        if record.status.executed.is_some() {
            return Ok(self.status(plan_sha256));
        }
        let plan = &record.plan;
        let tool = self.tool(&plan.call)?;
        let key = self.idempotency_key(plan)?;
        let applied = if record.started && !mutant::is_enabled("forget-idempotency-key") {
            let authorized = || self.check_authority(&record);
            self.recover(tool.as_ref(), &plan.call, &plan.dry_run.precondition, &key, authorized)?
        } else {
            self.check_authority(&record)?;
            let state = with_crash_points("adapter:probe", || tool.state(&plan.call)).map_err(refuse_tool_error)?;
            if state != plan.dry_run.precondition && !mutant::is_enabled("forget-idempotency-key") {
                let detail =
                    format!("plan is stale: the target is at {state}, the plan expects {}", plan.dry_run.precondition);
                return self.finish(plan_sha256, &Applied { outcome: Outcome::NotApplied, detail });
            }
            let started = Entry::Started {
                version: FORMAT_VERSION,
                at: clock::now(),
                plan_sha256: plan_sha256.to_owned(),
                key: key.clone(),
            };
            self.ledger().append(started).map_err(refuse_ledger_error)?;
            self.call(tool.as_ref(), "adapter:execute", &plan.call, &plan.dry_run.precondition, &key)
        };
        self.finish(plan_sha256, &applied)
    }

    fn finish(&self, plan_sha256: &str, applied: &Applied) -> Result<Response, Refusal> {
        let Applied { outcome, detail } = applied.clone();
        let entry = Entry::Finished {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: plan_sha256.to_owned(),
            outcome,
            detail,
        };
        self.ledger().append(entry).map_err(refuse_ledger_error)?;
        Ok(self.status(plan_sha256))
    }

    fn undo(&self, plan_sha256: &str) -> Result<Response, Refusal> {
        let _guard = self.execution_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.approved_plan(plan_sha256)?;
        if record.status.undone.is_some() {
            return Ok(self.status(plan_sha256));
        }
        if record.status.executed != Some(Outcome::Applied) {
            return Err((
                RefusalCode::Invalid,
                "the plan has not been applied, so there is nothing to undo".to_owned(),
            ));
        }
        let Some(call) = record.plan.dry_run.undo.clone() else {
            return Err((RefusalCode::Invalid, "this plan cannot be undone".to_owned()));
        };
        let tool = self.tool(&call)?;
        let key = format!("{}-undo", self.idempotency_key(&record.plan)?);
        let applied = if let Some(state) = &record.undo_started {
            // An undo needs no second authorization.
            self.recover(tool.as_ref(), &call, state, &key, || Ok(()))?
        } else {
            let state = with_crash_points("adapter:probe", || tool.state(&call)).map_err(refuse_tool_error)?;
            let (plan_sha256, key_now, precondition) = (plan_sha256.to_owned(), key.clone(), state.clone());
            let started = Entry::UndoStarted {
                version: FORMAT_VERSION,
                at: clock::now(),
                plan_sha256,
                key: key_now,
                precondition,
            };
            self.ledger().append(started).map_err(refuse_ledger_error)?;
            self.call(tool.as_ref(), "adapter:undo", &call, &state, &key)
        };
        let Applied { outcome, detail } = applied;
        let entry = Entry::Undone {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: plan_sha256.to_owned(),
            outcome,
            detail,
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
        let approver = record.status.approved_by.as_ref();
        let authorized = approver.is_some_and(|approver| {
            self.config().is_ok_and(|config| config.is_approver(&record.plan.tenant, approver))
        });
        if authorized {
            Ok(())
        } else {
            Err((RefusalCode::NotAnApprover, "the approver is no longer configured".to_owned()))
        }
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
