//! The protocol between `serve` and the executor: one JSON object per line over a Unix socket.
//!
//! The executor does not trust the server. It verifies token, hash, expiry, single use and the state of the target
//! itself, from files that the server cannot read (ADR 012).

use serde::{Deserialize, Serialize};

use crate::identity::{Principal, TenantId};
use crate::plan::{DryRun, Outcome, Plan, ToolCall};

/// A request to the executor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Liveness check.
    Ping,
    /// List the approvers, so that the server can tell who of them cannot sign in.
    Approvers,
    /// Describe the effect of a call without executing it.
    DryRun {
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
    },
    /// Return the status of a plan.
    Status {
        /// Hash of the plan.
        plan_sha256: String,
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

/// Why the executor refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Unknown tool, operation or target, or invalid arguments.
    Invalid,
    /// The token does not belong to an approver.
    NotAnApprover,
    /// The hash of the plan is not the approved one.
    HashMismatch,
    /// The plan has expired.
    Expired,
    /// The plan was approved before; an approval counts once.
    AlreadyUsed,
    /// The plan was never approved.
    NotApproved,
    /// The target has changed since the plan was made.
    Stale,
    /// The target or the ledger is unavailable at the moment.
    Unavailable,
}

/// The executor's response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// Response to a ping.
    Pong,
    /// Response to the request for approvers.
    Approvers {
        /// The approvers of the configuration, in its order.
        approvers: Vec<ListedApprover>,
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
    /// The request was refused.
    Refused {
        /// The violated rule.
        code: RefusalCode,
        /// Explanation.
        detail: String,
    },
}
