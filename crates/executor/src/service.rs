//! What the executor answers, and why it says no.

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
use crate::ledger::{Entry, Known, Ledger, V};

/// How long a target is asked whether something was done.
const PROBED: Duration = Duration::from_secs(30);

/// The executor's service.
#[derive(Debug)]
pub(crate) struct Service {
    config: PathBuf,
    ledger: Mutex<Ledger>,
    /// One change at a time.
    acting: Mutex<()>,
}

/// A refusal on its way out.
type No = (RefusalCode, String);

impl Service {
    pub(crate) fn open(folder: &Path, config: &Path) -> std::io::Result<Self> {
        let ledger = Mutex::new(Ledger::open(folder)?);
        Ok(Self { config: config.to_owned(), ledger, acting: Mutex::new(()) })
    }

    pub(crate) fn answer(&self, request: Request) -> Response {
        let answered = match request {
            Request::Ping => Ok(Response::Pong),
            Request::DryRun { call } => self.dry_run(&call).map(|dry_run| Response::DryRun { dry_run }),
            Request::Authorize { plan, plan_sha256, proof } => self.authorize(*plan, &plan_sha256, &proof),
            Request::Execute { plan_sha256 } => self.execute(&plan_sha256),
            Request::Undo { plan_sha256 } => self.undo(&plan_sha256),
            Request::Status { plan_sha256 } => Ok(self.status(&plan_sha256)),
        };
        answered.unwrap_or_else(|(code, detail)| Response::Refused { code, detail })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Read at every use: who was taken off the list may approve no more.
    fn config(&self) -> Result<ExecutorConfig, No> {
        ExecutorConfig::load(&self.config).map_err(|error| (RefusalCode::Unavailable, error))
    }

    fn tool(&self, call: &ToolCall) -> Result<Box<dyn Tool>, No> {
        let tools = wardroom_tools::tools(&self.config()?.targets);
        let known: Vec<&str> = tools.iter().map(|tool| tool.spec().name).collect();
        let unknown = (RefusalCode::Invalid, format!("no tool is called {:?}; there are {known:?}", call.tool));
        tools.into_iter().find(|tool| tool.spec().name == call.tool).ok_or(unknown)
    }

    fn dry_run(&self, call: &ToolCall) -> Result<DryRun, No> {
        let tool = self.tool(call)?;
        around("adapter:plan", || tool.plan(call)).map_err(no)
    }

    fn status(&self, plan_sha256: &str) -> Response {
        let status = self.ledger().plan(plan_sha256).map(|known| known.status.clone()).unwrap_or_default();
        Response::Status { status }
    }

    fn authorize(&self, plan: Plan, plan_sha256: &str, proof: &str) -> Result<Response, No> {
        let config = self.config()?;
        let principal = config
            .approver(&plan.tenant, proof)
            .cloned()
            .ok_or_else(|| (RefusalCode::NotAnApprover, "the token is not an approver's of this tenant".to_owned()))?;
        let hash = plan.sha256().map_err(|error| (RefusalCode::Invalid, error))?;
        if hash != plan_sha256 {
            return Err((RefusalCode::HashMismatch, format!("the plan hashes to {hash}, approved was {plan_sha256}")));
        }
        not_expired(&plan)?;
        self.tool(&plan.call)?;
        let mut ledger = self.ledger();
        if ledger.plan(&hash).is_some() {
            return Err((RefusalCode::AlreadyUsed, "this plan was approved before".to_owned()));
        }
        let entry =
            Entry::Authorized { v: V, at: clock::now(), plan: Box::new(plan), plan_sha256: hash.clone(), principal };
        ledger.write(entry).map_err(unwritten)?;
        drop(ledger);
        Ok(self.status(&hash))
    }

    fn execute(&self, plan_sha256: &str) -> Result<Response, No> {
        let _acting = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known(plan_sha256)?;
        if known.status.executed.is_some() {
            return Ok(self.status(plan_sha256));
        }
        let plan = &known.plan;
        let tool = self.tool(&plan.call)?;
        let key = self.key(plan)?;
        let applied = if known.started && !mutant::on("forget-idempotency-key") {
            let may = || self.may_still(&known);
            self.recover(tool.as_ref(), &plan.call, &plan.dry_run.precondition, &key, may)?
        } else {
            self.may_still(&known)?;
            let state = around("adapter:probe", || tool.state(&plan.call)).map_err(no)?;
            if state != plan.dry_run.precondition && !mutant::on("forget-idempotency-key") {
                let detail =
                    format!("plan is stale: the target is at {state}, the plan saw {}", plan.dry_run.precondition);
                return self.finish(plan_sha256, &Applied { outcome: Outcome::NotApplied, detail });
            }
            let started =
                Entry::Started { v: V, at: clock::now(), plan_sha256: plan_sha256.to_owned(), key: key.clone() };
            self.ledger().write(started).map_err(unwritten)?;
            self.call(tool.as_ref(), "adapter:execute", &plan.call, &plan.dry_run.precondition, &key)
        };
        self.finish(plan_sha256, &applied)
    }

    fn finish(&self, plan_sha256: &str, applied: &Applied) -> Result<Response, No> {
        let Applied { outcome, detail } = applied.clone();
        let entry = Entry::Finished { v: V, at: clock::now(), plan_sha256: plan_sha256.to_owned(), outcome, detail };
        self.ledger().write(entry).map_err(unwritten)?;
        Ok(self.status(plan_sha256))
    }

    fn undo(&self, plan_sha256: &str) -> Result<Response, No> {
        let _acting = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known(plan_sha256)?;
        if known.status.undone.is_some() {
            return Ok(self.status(plan_sha256));
        }
        if known.status.executed != Some(Outcome::Applied) {
            return Err((RefusalCode::Invalid, "nothing was done that could be undone".to_owned()));
        }
        let Some(call) = known.plan.dry_run.undo.clone() else {
            return Err((RefusalCode::Invalid, "this plan has no way back".to_owned()));
        };
        let tool = self.tool(&call)?;
        let key = format!("{}-undo", self.key(&known.plan)?);
        let applied = if let Some(state) = &known.undo_started {
            // The way back needs no second leave.
            self.recover(tool.as_ref(), &call, state, &key, || Ok(()))?
        } else {
            let state = around("adapter:probe", || tool.state(&call)).map_err(no)?;
            let (plan_sha256, key_now, precondition) = (plan_sha256.to_owned(), key.clone(), state.clone());
            let started = Entry::UndoStarted { v: V, at: clock::now(), plan_sha256, key: key_now, precondition };
            self.ledger().write(started).map_err(unwritten)?;
            self.call(tool.as_ref(), "adapter:undo", &call, &state, &key)
        };
        let Applied { outcome, detail } = applied;
        let entry = Entry::Undone { v: V, at: clock::now(), plan_sha256: plan_sha256.to_owned(), outcome, detail };
        self.ledger().write(entry).map_err(unwritten)?;
        Ok(self.status(plan_sha256))
    }

    fn known(&self, plan_sha256: &str) -> Result<Known, No> {
        let unknown = || (RefusalCode::NotApproved, "nobody approved this plan".to_owned());
        self.ledger().plan(plan_sha256).cloned().ok_or_else(unknown)
    }

    /// Authority and expiry are checked again at the moment of execution.
    fn may_still(&self, known: &Known) -> Result<(), No> {
        not_expired(&known.plan)?;
        let approver = known.status.approved_by.as_ref();
        let still = approver.is_some_and(|who| self.config().is_ok_and(|c| c.still_approves(&known.plan.tenant, who)));
        if still { Ok(()) } else { Err((RefusalCode::NotAnApprover, "the approver may approve no more".to_owned())) }
    }

    fn key(&self, plan: &Plan) -> Result<String, No> {
        if mutant::on("forget-idempotency-key") {
            return Ok(format!("{:032x}", clock::now().nanos()));
        }
        plan.idempotency_key().map_err(|error| (RefusalCode::Invalid, error))
    }

    /// A step was started before a crash: look first. Only what surely did not happen is done again,
    /// under the same key, and only if it still may.
    fn recover(
        &self,
        tool: &dyn Tool,
        call: &ToolCall,
        state: &str,
        key: &str,
        may: impl FnOnce() -> Result<(), No>,
    ) -> Result<Applied, No> {
        Ok(match self.probe(tool, call, state, key) {
            Outcome::Applied => Applied { outcome: Outcome::Applied, detail: "found done after a restart".into() },
            Outcome::NotApplied => {
                may()?;
                self.call(tool, "adapter:execute", call, state, key)
            }
            Outcome::Unknown => {
                let detail = "after a restart the target does not say whether it was done; a person must look".into();
                Applied { outcome: Outcome::Unknown, detail }
            }
        })
    }

    fn call(&self, tool: &dyn Tool, step: &str, call: &ToolCall, state: &str, key: &str) -> Applied {
        match around(step, || tool.execute(call, state, key)) {
            Ok(applied) => applied,
            Err(ToolError::Unavailable(detail)) => Applied { outcome: self.probe(tool, call, state, key), detail },
            Err(error) => Applied { outcome: Outcome::NotApplied, detail: error.to_string() },
        }
    }

    /// Asks the target for half a minute, however long each answer takes; silence is `unknown`.
    fn probe(&self, tool: &dyn Tool, call: &ToolCall, state: &str, key: &str) -> Outcome {
        let until = Instant::now() + PROBED;
        while Instant::now() < until {
            match around("adapter:probe", || tool.probe(call, state, key)) {
                Ok(outcome) => return outcome,
                Err(error) => tracing::warn!(%error, "probe failed"),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Outcome::Unknown
    }
}

fn around<T>(step: &str, call: impl FnOnce() -> T) -> T {
    crash::reach(step, "before");
    let done = call();
    crash::reach(step, "after");
    done
}

fn not_expired(plan: &Plan) -> Result<(), No> {
    if plan.expires_at > clock::now() {
        Ok(())
    } else {
        Err((RefusalCode::Expired, format!("the plan expired at {}", plan.expires_at)))
    }
}

fn no(error: ToolError) -> No {
    let code = match error {
        ToolError::Invalid(_) => RefusalCode::Invalid,
        ToolError::Stale(_) => RefusalCode::Stale,
        ToolError::Unavailable(_) => RefusalCode::Unavailable,
    };
    (code, error.to_string())
}

fn unwritten(error: std::io::Error) -> No {
    (RefusalCode::Unavailable, format!("the ledger cannot be written: {error}"))
}
