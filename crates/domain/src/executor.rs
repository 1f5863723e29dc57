//! What is said over the socket between `serve` and the executor: one JSON object a line.
//!
//! The executor trusts none of it. It checks token, hash, expiry, single use and the target's state
//! by itself, from files that the sender cannot read (decision D12).

use serde::{Deserialize, Serialize};

use crate::identity::Principal;
use crate::plan::{DryRun, Outcome, Plan, ToolCall};

/// A request to the executor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Is anybody there?
    Ping,
    /// What would this call do?
    DryRun {
        /// The call.
        call: ToolCall,
    },
    /// A person approved this plan; remember it.
    Authorize {
        /// The plan as it was shown.
        plan: Box<Plan>,
        /// The hash the person approved.
        plan_sha256: String,
        /// The person's bearer token: the proof.
        proof: String,
    },
    /// Carry out an authorised plan. Asking again is safe.
    Execute {
        /// Which.
        plan_sha256: String,
    },
    /// Take an executed plan back. Asking again is safe.
    Undo {
        /// Which.
        plan_sha256: String,
    },
    /// What is known of a plan?
    Status {
        /// Which.
        plan_sha256: String,
    },
}

/// What the executor's ledger holds of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Who approved it, if anybody did.
    pub approved_by: Option<Principal>,
    /// How its execution ended, if it did.
    pub executed: Option<Outcome>,
    /// How its undo ended, if it did.
    pub undone: Option<Outcome>,
    /// The key the target saw.
    pub idempotency_key: Option<String>,
    /// The target's own words about the last step.
    pub detail: String,
}

/// Why the executor said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No such tool, operation or target, or the arguments do not fit.
    Invalid,
    /// The proof is not an approver's token.
    NotAnApprover,
    /// The plan does not hash to what was approved.
    HashMismatch,
    /// Past its expiry.
    Expired,
    /// Approved before; an approval counts once.
    AlreadyUsed,
    /// Nobody approved this.
    NotApproved,
    /// The target is no longer as the plan found it.
    Stale,
    /// The target or the ledger cannot be reached now.
    Unavailable,
}

/// The executor's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// To a ping.
    Pong,
    /// To a dry run.
    DryRun {
        /// What would happen.
        dry_run: DryRun,
    },
    /// To everything about a plan.
    Status {
        /// What the ledger holds now.
        status: PlanStatus,
    },
    /// No.
    Refused {
        /// Which rule said no.
        code: RefusalCode,
        /// For a person.
        detail: String,
    },
}
