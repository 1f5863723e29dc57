//! The protocol between `serve` and the executor: one JSON object per line over a Unix socket.
//!
//! The executor does not trust the server. It verifies proof, hash, expiry, single use and the state of the target
//! itself, from files that the server cannot read (ADR 012). An action is started, and then asked for: `start` →
//! `running` (progress) → `done`, so that nothing waits for a target.

use serde::{Deserialize, Serialize};

use crate::audit_head::SignedHead;
use crate::identity::{Principal, TenantId};
use crate::plan::{DryRun, Outcome, Plan, ToolCall};
use crate::time::Timestamp;

pub use crate::approval_proof::ProofKind;

/// A request to the executor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Liveness check.
    Ping,
    /// Describe the configuration: so that the server can tell who of the approvers cannot sign in, and audits changes.
    Approvers,
    /// Describe the effect of a call without executing it.
    DryRun {
        /// Tenant of the incident; only its own targets can be named.
        #[serde(default = "TenantId::main")]
        tenant: TenantId,
        /// The tool call.
        call: ToolCall,
    },
    /// Return the result of an operation that only reads. Needs no approval.
    Read {
        /// Tenant of the incident; only its own targets can be named.
        tenant: TenantId,
        /// The tool call.
        call: ToolCall,
    },
    /// Record the approval of a plan.
    Authorize {
        /// The plan as shown to the approver.
        plan: Box<Plan>,
        /// The approved hash.
        plan_sha256: String,
        /// A [`crate::approval_proof::SignedProof`] as JSON; or the bearer token of an approver who is listed with
        /// `proof: token`.
        proof: String,
        /// SHA-256 of a secret of the server, in hex. The approval covers the plan's undo; the caller that requests it
        /// proves with the secret that the approval is theirs.
        #[serde(default)]
        undo_sha256: Option<String>,
    },
    /// Begin a step of an authorised plan, and respond at once with its status. Idempotent: what is running is not
    /// begun again, and what was interrupted is recovered. A step is refused before the one before it was applied.
    Start {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
    },
    /// Begin the undo of an executed step, and respond at once. Idempotent. Steps are undone in reverse order.
    StartUndo {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
        /// As for [`Request::Undo`].
        #[serde(default)]
        proof: String,
    },
    /// [`Request::Start`], and wait for the end for as long as the client waits. Idempotent.
    Execute {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
    },
    /// [`Request::StartUndo`], and wait for the end for as long as the client waits. Idempotent.
    Undo {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
        /// The secret of the approval, or the proof of an approver.
        #[serde(default)]
        proof: String,
    },
    /// End the authority to undo a plan: its incident is settled. Idempotent.
    Settle {
        /// Hash of the plan.
        plan_sha256: String,
        /// As for an undo.
        #[serde(default)]
        proof: String,
    },
    /// Return the status of a plan, as far as one of its steps is concerned.
    Status {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
    },
    /// Refuse all effects from now on. Needs no proof: stopping is safe.
    StopAll {
        /// Who stops.
        by: Principal,
        /// Why; may be empty.
        #[serde(default)]
        reason: String,
    },
    /// End a stop of all actions.
    Resume {
        /// The proof of an approver of the tenant `main`.
        proof: String,
    },
    /// Return whether all actions are stopped.
    StopState,
    /// Confirm that an execution by break-glass was reviewed, by another person than who approved it.
    Review {
        /// Hash of the plan.
        plan_sha256: String,
        /// The proof of an approver.
        proof: String,
    },
    /// Return the last signed head of the audit log.
    AuditHead,
    /// Sign that the audit log has reached a position.
    SignAudit {
        /// Sequence number of the first entry after the last signed head.
        first: i64,
        /// The entries' texts, in order.
        texts: Vec<String>,
        /// Hash of the last of them, as the server has stored it.
        hash: String,
    },
}

/// Skips the number of the first step, which earlier versions did not send.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_first(step: &u32) -> bool {
    *step == 0
}

/// How far a step of a plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It does not have the approvals that it needs.
    #[default]
    Unknown,
    /// It has the approvals that it needed when they were given; the policy is asked again when it is started.
    Authorized,
    /// The action is running.
    Running,
    /// The action has an outcome.
    Done,
    /// The undo is running.
    Undoing,
    /// The undo has an outcome.
    Undone,
}

/// The last thing that a running action reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What the tool is doing.
    pub text: String,
    /// Since when.
    pub at: Timestamp,
}

/// Why the last run of a plan ended without an effect. The plan can be started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRun {
    /// The violated rule.
    pub code: RefusalCode,
    /// Explanation.
    pub detail: String,
}

/// A stop of all actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Id of the stop; a proof that ends it names it.
    pub id: String,
    /// Who has stopped.
    pub by: Principal,
    /// Why; may be empty.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// The status of a plan in the executor's ledger, as far as one of its steps is concerned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// How far it is.
    #[serde(default)]
    pub phase: Phase,
    /// Who approved it, the first of several; `None` until it has the approvals that it needs.
    pub approved_by: Option<Principal>,
    /// All who have approved, in order, also if that is not enough.
    #[serde(default)]
    pub approvals: Vec<Principal>,
    /// What proved the first approval.
    #[serde(default)]
    pub proof: Option<ProofKind>,
    /// Whether the plan was approved by break-glass, and that has not been reviewed.
    #[serde(default)]
    pub review_due: bool,
    /// What the running action reported last.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Why the last run ended without an effect.
    #[serde(default)]
    pub refused: Option<RefusedRun>,
    /// Outcome of the execution, if finished.
    pub executed: Option<Outcome>,
    /// Outcome of the undo, if finished.
    pub undone: Option<Outcome>,
    /// Idempotency key sent to the target.
    pub idempotency_key: Option<String>,
    /// The target's message about the last step.
    pub detail: String,
}

/// An approver, without the hash of the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedApprover {
    /// Name in plans and in the audit log.
    pub principal: Principal,
    /// Tenant whose plans they may approve.
    pub tenant: TenantId,
    /// What proves their approvals.
    #[serde(default = "token_proof")]
    pub proof: ProofKind,
    /// Id of their token in `wardroom token list`; empty for an SSH key.
    pub token_id: String,
    /// SHA-256 fingerprint of their SSH key, as `ssh-keygen -l` prints it; empty for a token.
    #[serde(default)]
    pub key: String,
}

/// What older executors, which say nothing about it, accept.
const fn token_proof() -> ProofKind {
    ProofKind::Token
}

/// What the kernel enforces on a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Version of Landlock's interface that the kernel has; 0 if files are not restricted.
    pub landlock_abi: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// Whether the process, and what it starts, can gain no privileges.
    pub no_new_privs: bool,
    /// Restrictions that this kernel does not enforce, and why.
    pub missing: Vec<String>,
}

/// Why the executor refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Unknown tool, operation or target, or invalid arguments; or an audit log that does not extend the signed one.
    Invalid,
    /// The proof does not belong to an approver.
    NotAnApprover,
    /// The signature is not valid for this plan, too old, or made for something else.
    InvalidProof,
    /// The hash of the plan is not the approved one.
    HashMismatch,
    /// The plan has expired, or the time in which it could be undone is over.
    Expired,
    /// The plan was approved before; an approval counts once.
    AlreadyUsed,
    /// The plan was never approved.
    NotApproved,
    /// The target has changed since the plan was made, or since it was executed.
    Stale,
    /// The policy forbids the action.
    Denied,
    /// All actions are stopped; it may be repeated after `wardroom resume`.
    Stopped,
    /// Another action runs on the same target; it may be repeated.
    Busy,
    /// The target has had its number of actions within the hour; it may be repeated.
    RateLimited,
    /// The target or the ledger is unavailable at the moment; it may be repeated.
    Unavailable,
}

impl RefusalCode {
    /// Returns whether the same request can succeed later.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Stopped | Self::Busy | Self::RateLimited | Self::Unavailable)
    }
}

/// The executor's response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// Response to a ping.
    Pong {
        /// What the kernel enforces on the executor.
        #[serde(default)]
        confinement: Confinement,
        /// Why a head of the audit log is not published where it should be.
        #[serde(default)]
        unpublished: Option<String>,
        /// Changes whenever what [`Request::Approvers`] returns may have changed; absent if the configuration cannot be
        /// used, and from earlier versions.
        #[serde(default)]
        configuration: Option<String>,
    },
    /// Response to the request for approvers.
    Approvers {
        /// The approvers of the configuration, in its order.
        approvers: Vec<ListedApprover>,
        /// The other settings of the configuration, without secrets, for the audit log.
        #[serde(default)]
        settings: serde_json::Value,
    },
    /// Response to a dry run.
    DryRun {
        /// Effect of the call.
        dry_run: DryRun,
    },
    /// Response to a read.
    Read {
        /// What was read.
        value: serde_json::Value,
    },
    /// Response to all requests about a plan.
    Status {
        /// Current status in the ledger.
        status: PlanStatus,
    },
    /// Response to the requests about a stop of all actions.
    StopState {
        /// The stop in force; `None` if there is none.
        stopped: Option<Stopped>,
    },
    /// Response to the requests about the audit log.
    AuditHead {
        /// The last signed head; `None` before the first.
        head: Option<Box<SignedHead>>,
    },
    /// The request was refused.
    Refused {
        /// The violated rule.
        code: RefusalCode,
        /// Explanation.
        detail: String,
    },
}
