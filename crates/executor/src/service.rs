//! Handling of requests: authorization, execution, and recovery after a crash.
//!
//! ```text
//! authorize ─► ledger      start ─► check ─► a thread: dry run, policy ─► ledger ─► tool ─► ledger      status
//! ```
//!
//! The server may be in an attacker's hands: every request is checked against the configuration, the ledger and the
//! target. No request waits for a target, except a dry run and those that ask for that.

mod authorize;
mod execute;
mod kill_switch;
mod review;
mod runs;
#[cfg(test)]
mod tests;
mod undo;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wardroom_domain::audit_head::SignedHead;
use wardroom_domain::executor::{Confinement, Phase, PlanStatus, RefusalCode, Request, Response};
use wardroom_domain::{DryRun, TenantId, ToolCall};
use wardroom_process::{clock, crash};
use wardroom_respond::{Tool, ToolError};
use wardroom_tools::Context;
use wardroom_tools::programs::{NoPrograms, Programs};

use crate::audit_publisher::Publication;
use crate::audit_signing::AuditSigning;
use crate::config::ExecutorConfig;
use crate::config::config_file::ConfigFile;
use crate::issuer_keys::IssuerKeys;
use crate::ledger::Ledger;
use crate::plan_record::PlanRecord;
use crate::protocol::Deadline;
use crate::refusal::Refusal;
use runs::{Runs, Work};

/// Time that a request waits for the end of what it has started; below the client's timeout.
const WAIT_TIMEOUT: Duration = Duration::from_secs(45);
/// Folder of the tools in the executor's.
const TOOLS_FOLDER: &str = "tools";

/// The executor's service.
#[derive(Debug)]
pub(crate) struct Service {
    config: ConfigFile,
    folder: PathBuf,
    ledger: Mutex<Ledger>,
    audit: AuditSigning,
    /// What the kernel enforces on this process.
    pub(crate) confinement: Confinement,
    /// Starts the programs of tools.
    pub(crate) programs: Arc<dyn Programs>,
    runs: Arc<Runs>,
    /// The keys of issuers of ID tokens.
    issuer_keys: IssuerKeys,
    /// Whether the heads of the audit log are published.
    pub(crate) publication: Publication,
}

impl Service {
    pub(crate) fn open(folder: &Path, config: &Path) -> std::io::Result<Self> {
        let ledger = Ledger::open(folder)?;
        let audit = AuditSigning::open(folder, ledger.audit_head());
        Ok(Self {
            config: ConfigFile::new(config),
            folder: folder.to_owned(),
            ledger: Mutex::new(ledger),
            audit,
            confinement: Confinement::default(),
            programs: Arc::new(NoPrograms),
            runs: Arc::default(),
            issuer_keys: IssuerKeys::default(),
            publication: Publication::default(),
        })
    }

    /// Handles a request, unless it is too late for that.
    pub(crate) fn handle(self: &Arc<Self>, request: Request, deadline: Deadline) -> Response {
        let result = deadline.check().and_then(|()| self.answer(request, deadline));
        result.unwrap_or_else(|(code, detail)| Response::Refused { code, detail })
    }

    fn answer(self: &Arc<Self>, request: Request, deadline: Deadline) -> Result<Response, Refusal> {
        match request {
            Request::Ping => Ok(Response::Pong {
                confinement: self.confinement.clone(),
                unpublished: self.publication.problem(),
                configuration: self.config.version(),
            }),
            Request::Approvers => self.config().map(|config| Response::Approvers {
                approvers: config.listed(),
                settings: config.settings_without_secrets(),
            }),
            Request::DryRun { tenant, call } => {
                self.dry_run(&tenant, &call).map(|dry_run| Response::DryRun { dry_run })
            }
            Request::Read { tenant, call } => self.read(&tenant, &call),
            Request::Authorize { plan, plan_sha256, proof, undo_sha256 } => {
                self.authorize(*plan, (&plan_sha256, &proof), undo_sha256, deadline)
            }
            // What is polled for may take longer than a client waits; its plan expires.
            Request::Start { plan_sha256, step } => self.start(&plan_sha256, step, Deadline::default()),
            Request::StartUndo { plan_sha256, step, proof } => {
                self.start_undo((&plan_sha256, step), &proof, Deadline::default())
            }
            Request::Execute { plan_sha256, step } => {
                self.start(&plan_sha256, step, deadline)?;
                self.wait(&plan_sha256, step, Work::Action)
            }
            Request::Undo { plan_sha256, step, proof } => {
                self.start_undo((&plan_sha256, step), &proof, deadline)?;
                self.wait(&plan_sha256, step, Work::Undo)
            }
            Request::Settle { plan_sha256, proof } => self.settle(&plan_sha256, &proof),
            Request::Review { plan_sha256, proof } => self.review(&plan_sha256, &proof),
            Request::Status { plan_sha256, step } => Ok(self.status(&plan_sha256, step)),
            Request::StopAll { by, reason } => self.stop_all(by, reason),
            Request::Resume { proof } => self.resume(&proof),
            Request::StopState => self.stop_state(),
            Request::AuditHead => self.audit.head(&self.ledger()),
            Request::SignAudit { first, texts, hash } => self.audit.sign(&mut self.ledger(), first, &texts, hash),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the configuration. It is read at every use, so that a removed approver loses the authority at once.
    fn config(&self) -> Result<Arc<ExecutorConfig>, Refusal> {
        self.config.load().map_err(|error| (RefusalCode::Unavailable, error))
    }

    /// Loads the configuration with the keys that a proof needs. Call it before anything is locked: keys of issuers may
    /// have to be read over HTTP.
    fn config_for(&self, proof: &str) -> Result<Arc<ExecutorConfig>, Refusal> {
        let config = self.config()?;
        let Some(keys) = self.issuer_keys.keys_for(&config, proof, clock::now())? else { return Ok(config) };
        let mut own = self.config.load_own().map_err(|error| (RefusalCode::Unavailable, error))?;
        own.issuer_keys = Some(keys);
        Ok(Arc::new(own))
    }

    /// Returns the tool of a call, with its target only, if that is the tenant's.
    fn tool(&self, tenant: &TenantId, call: &ToolCall) -> Result<Box<dyn Tool>, Refusal> {
        let found = wardroom_tools::find(&call.tool).map_err(|error| (RefusalCode::Invalid, error))?;
        let config = self.config()?;
        let target = config.target_of(tenant, call).cloned();
        Ok(found.create(target.as_slice(), &self.context_of(&config)))
    }

    fn context_of(&self, config: &ExecutorConfig) -> Context {
        Context::new(config.secrets.clone(), Arc::clone(&self.programs), self.folder.join(TOOLS_FOLDER))
    }

    /// Returns what tools share; without credentials if the configuration cannot be read.
    pub(crate) fn context(&self) -> Context {
        self.config().map_or_else(|_| Context::of_descriptions(), |config| self.context_of(&config))
    }

    /// Returns the last signed head of the audit log.
    pub(crate) fn last_audit_head(&self) -> Option<SignedHead> {
        self.ledger().audit_head().cloned()
    }

    fn read(&self, tenant: &TenantId, call: &ToolCall) -> Result<Response, Refusal> {
        let tool = self.tool(tenant, call)?;
        // The guard limits the time.
        let value = tool.read(call, Duration::ZERO).map_err(refuse_tool_error)?;
        Ok(Response::Read { value })
    }

    fn dry_run(&self, tenant: &TenantId, call: &ToolCall) -> Result<DryRun, Refusal> {
        let tool = self.tool(tenant, call)?;
        with_crash_points("adapter:plan", || tool.plan(call)).map_err(refuse_tool_error)
    }

    fn status(&self, plan_sha256: &str, step: u32) -> Response {
        Response::Status { status: self.plan_status(plan_sha256, step) }
    }

    fn plan_status(&self, plan_sha256: &str, step: u32) -> PlanStatus {
        let mut status = self.ledger().plan(plan_sha256).map(|record| record.status_of(step)).unwrap_or_default();
        match self.runs.running(plan_sha256, step) {
            Some((work, progress)) => {
                status.phase = if work == Work::Action { Phase::Running } else { Phase::Undoing };
                status.progress = progress;
            }
            None => status.refused = self.runs.refused(plan_sha256, step),
        }
        status
    }

    /// Waits for the end of what was started, and returns its result.
    fn wait(&self, plan_sha256: &str, step: u32, work: Work) -> Result<Response, Refusal> {
        self.runs.wait(plan_sha256, WAIT_TIMEOUT);
        let status = self.plan_status(plan_sha256, step);
        let outcome = if work == Work::Action { status.executed } else { status.undone };
        match (outcome, &status.refused) {
            (None, Some(refused)) => Err((refused.code, refused.detail.clone())),
            _ => Ok(Response::Status { status }),
        }
    }

    /// Returns the state of an approved plan.
    fn approved_plan(&self, plan_sha256: &str) -> Result<PlanRecord, Refusal> {
        let unknown = || (RefusalCode::NotApproved, "this plan is not approved".to_owned());
        self.ledger().plan(plan_sha256).cloned().ok_or_else(unknown)
    }
}

/// Runs a call with crash points before and after it.
fn with_crash_points<T>(step: &str, call: impl FnOnce() -> T) -> T {
    crash::maybe_crash(step, "before");
    let result = call();
    crash::maybe_crash(step, "after");
    result
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
