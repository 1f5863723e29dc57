//! Plans, their approvals, and the stop of all actions, on the wire.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::Timestamp;

/// A step of a plan of several; the facts come from the executor's dry run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanStepView {
    /// Its number, from 1; steps are carried out in order, and undone in reverse order.
    pub number: u32,
    /// Tool.
    pub tool: String,
    /// Operation of the tool.
    pub operation: String,
    /// Target of the operation.
    pub target: String,
    /// Arguments of the operation.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// The change, as text.
    pub diff: String,
    /// Who is affected while the step runs.
    pub blast_radius: String,
    /// `low`, `medium` or `high`.
    pub risk: String,
    /// Whether the change can be undone.
    pub reversible: bool,
    /// Outcome of the execution: `applied`, `not_applied` or `unknown`; absent before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Detail from the target about the execution; absent before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Outcome of the undo, in the same words; absent if the step was not undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
}

/// A proposed or executed plan; the facts come from the executor's dry run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanView {
    /// SHA-256 of the plan; an approval is bound to it.
    pub plan_sha256: String,
    /// The plan as it is hashed: `plan_sha256` is the SHA-256 of its RFC 8785 JSON. A client that signs computes it
    /// again.
    #[schema(value_type = Object)]
    pub document: Value,
    /// Tool of the first step.
    pub tool: String,
    /// Operation of the first step.
    pub operation: String,
    /// Target of the first step.
    pub target: String,
    /// Arguments of the first step.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// The change, of all steps, as text.
    pub diff: String,
    /// Who is affected while the plan runs.
    pub blast_radius: String,
    /// `low`, `medium` or `high`: the highest of the steps.
    pub risk: String,
    /// Whether the change can be undone, in all steps.
    pub reversible: bool,
    /// The steps in order; absent for a plan of one step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PlanStepView>,
    /// Runbook that the plan follows.
    pub runbook: String,
    /// The control that the outcome is compared with.
    pub control: String,
    /// Deadline for an approval.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// The policy's answer about a plan.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PolicyView {
    /// `deny`, `ask-two`, `ask-one` or `allow`.
    pub answer: String,
    /// Ids of the rules that decided.
    pub rules: Vec<String>,
    /// Why, one line.
    pub reason: String,
    /// SHA-256 of the rules' text.
    pub policy_sha256: String,
    /// Approvals so far, while a plan needs further ones.
    pub partial_approvals: Vec<ApprovalView>,
}

/// Whether all actions are stopped.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StopView {
    /// Whether they are.
    pub stopped: bool,
    /// Id of the stop; a proof that ends it names it.
    #[schema(required)]
    pub id: Option<String>,
    /// Who has stopped them.
    #[schema(required)]
    pub by: Option<String>,
    /// Since when.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Why; may be empty.
    #[schema(required)]
    pub reason: Option<String>,
}

/// The approval of a plan by a person.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ApprovalView {
    /// Principal who approved the plan.
    pub by: String,
    /// Time of the approval.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How it reached the server: `http`, `cli` or `page`; `recovered` from the executor after a crash.
    pub channel: String,
    /// Reason that the approver gave; may be empty.
    pub reason: String,
    /// What proved it to the executor: `ssh`, a signature with the approver's key; `token`, a bearer token that the
    /// server has seen, too (weak).
    #[schema(required)]
    pub proof: Option<String>,
}
