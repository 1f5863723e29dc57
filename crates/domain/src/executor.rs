//! The protocol between `serve` and the executor: one JSON object per line over a Unix socket.
//!
//! The executor does not trust the server. It verifies token, hash, expiry, single use and the state of the target
//! itself, from files that the server cannot read (ADR 012).

use serde::{Deserialize, Serialize};

use crate::audit_head::SignedHead;
use crate::identity::{Principal, TenantId};
use crate::plan::{DryRun, Outcome, Plan, ToolCall};

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
    /// Record the approval of a plan.
    Authorize {
        /// The plan as shown to the approver.
        plan: Box<Plan>,
        /// The approved hash.
        plan_sha256: String,
        /// The approver's bearer token.
        proof: String,
        /// SHA-256 of a secret of the server, in hex. The approval covers the plan's undo; the caller that requests it
        /// proves with the secret that the approval is theirs.
        #[serde(default)]
        undo_sha256: Option<String>,
    },
    /// Execute an authorised plan. Idempotent.
    Execute {
        /// Hash of the plan.
        plan_sha256: String,
    },
    /// Undo an executed plan. Idempotent.
    Undo {
        /// Hash of the plan.
        plan_sha256: String,
        /// The secret of the approval, or the bearer token of an approver.
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
    /// Return the status of a plan.
    Status {
        /// Hash of the plan.
        plan_sha256: String,
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

/// The status of a plan in the executor's ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Approver, if approved.
    pub approved_by: Option<Principal>,
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
    /// Id of their token in `wardroom token list`.
    pub token_id: String,
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
    /// The token does not belong to an approver.
    NotAnApprover,
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
    /// The target or the ledger is unavailable at the moment.
    Unavailable,
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
    /// Response to all requests about a plan.
    Status {
        /// Current status in the ledger.
        status: PlanStatus,
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
