//! Wire types of the further resources.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::{Labels, Timestamp};

use crate::views::{ApprovalView, EntityView, PlanView, PolicyView};

/// Something that happened once: a deployment, a restart, a changed setting.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Id, the same in every answer.
    pub id: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `deployment`, `restart`, `oom_kill`, `setting`, `scale`, `alert`, `ci_run`, `kubernetes`, `flag` or `chain`.
    pub kind: String,
    /// `ingest` for what a sender reported, `inferred` for what telemetry showed.
    pub source: String,
    /// What it happened to.
    pub entity: EntityView,
    /// Details, such as `version`.
    #[schema(value_type = BTreeMap<String, String>)]
    pub attributes: Labels,
}

/// An entity that telemetry names.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntityNodeView {
    /// Id: kind, cluster, environment, namespace and name.
    pub id: String,
    /// What it is.
    #[serde(flatten)]
    pub entity: EntityView,
    /// Further names.
    pub aliases: Vec<String>,
    /// When it was seen last, by the telemetry's clock.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
}

/// How one entity depends on another.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RelationView {
    /// Id of the dependent entity.
    pub from: String,
    /// `part-of`, `runs-on`, `calls` or `uses`.
    pub kind: String,
    /// Id of what it depends on.
    pub to: String,
}

/// Entities and their relations.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopologyView {
    /// The entities.
    pub entities: Vec<EntityNodeView>,
    /// Relations between them.
    pub relations: Vec<RelationView>,
    /// Whether entities were left out for their number.
    pub is_cut: bool,
}

/// A signal: what series say about one property of an entity.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SignalView {
    /// The entity.
    pub entity: EntityView,
    /// What it calls, of a signal of calls.
    #[schema(required)]
    pub peer: Option<EntityView>,
    /// Kind, such as `errors` or `latency`.
    pub kind: String,
    /// Resource, such as `cpu`; empty if there is none.
    pub resource: String,
    /// Metric that it comes from; empty for several.
    pub metric: String,
    /// The newest value.
    #[schema(required)]
    pub value: Option<f64>,
    /// Time of the newest value.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Why it is bad now; null if it is not.
    #[schema(required)]
    pub bad: Option<BadSignalView>,
}

/// Why a signal is bad.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BadSignalView {
    /// Id of the rule that found it.
    pub rule: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Beyond which value it is bad.
    pub limit: f64,
    /// Whether values below the limit are bad.
    pub low_is_bad: bool,
    /// What is usual.
    pub expected: f64,
    /// `info`, `warning`, `high` or `critical`.
    pub severity: String,
}

/// A plan of an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanRow {
    /// Id of the incident.
    pub incident_id: String,
    /// State of the incident.
    pub state: String,
    /// The plan.
    pub plan: PlanView,
    /// The policy's answer about it.
    #[schema(required)]
    pub policy: Option<PolicyView>,
    /// Its approval.
    #[schema(required)]
    pub approval: Option<ApprovalView>,
}

/// One page of plans.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanPage {
    /// Newest first.
    pub plans: Vec<PlanRow>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next: Option<i64>,
}

/// The rules of the policy.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PolicyRules {
    /// SHA-256 of their text.
    pub policy_sha256: String,
    /// Ids of the rules.
    pub rules: Vec<String>,
    /// The rules in force, in Cedar.
    pub text: String,
    /// Whether nothing is carried out, whatever the rules say.
    pub shadow: bool,
}

/// A tool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ToolView {
    /// Name, as in plans and targets.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Maximum duration of one call in seconds, unless a target declares another.
    pub timeout_seconds: u64,
    /// Maximum size of an output in bytes, unless a target declares another.
    pub output_bytes: u64,
    /// What it can do; empty if each target declares its own.
    pub operations: Vec<OperationView>,
    /// JSON Schema of the tool's own fields of a target in the executor's file.
    #[schema(value_type = Object)]
    pub settings: Value,
}

/// An operation of a tool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Name, as in plans.
    pub name: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of its arguments.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// What a mistaken execution can cost: `low`, `medium` or `high`.
    pub risk: String,
    /// Whether it changes nothing: then it needs no approval.
    pub read_only: bool,
    /// Whether a dry run offers an undo, as far as the target's state allows one.
    pub reversible: bool,
}

/// Who may approve plans.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ApproverView {
    /// Name in plans and in the audit log.
    pub principal: String,
    /// Tenant whose plans they may approve.
    pub tenant: String,
    /// What proves their approvals: `ssh` or `token`.
    pub proof: String,
    /// Fingerprint of the SSH key; empty for a token.
    pub key: String,
    /// Id of the token; empty for a key.
    pub token_id: String,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntryView {
    /// Sequence number.
    pub sequence: i64,
    /// Hash of the entry, which covers all before it.
    pub hash: String,
    /// The entry.
    #[schema(value_type = Object)]
    pub entry: Value,
    /// The text that is hashed; of an export only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// One page of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntryView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next: Option<i64>,
}

/// Whether the chain of the audit log is whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditVerification {
    /// Number of entries.
    pub entries: i64,
    /// Whether all of them are valid.
    pub ok: bool,
    /// Sequence number of the first one that is not.
    #[schema(required)]
    pub first_broken: Option<i64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// Id.
    pub id: String,
    /// Tenant.
    pub tenant: String,
    /// Principal that it authenticates.
    pub principal: String,
    /// `sender`, `viewer`, `responder` or `admin`.
    pub role: String,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// End of its validity; null for none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}

/// A new token, with its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// Id.
    pub id: String,
    /// The secret; it is shown only here.
    pub token: String,
    /// Tenant.
    pub tenant: String,
    /// Principal that it authenticates.
    pub principal: String,
    /// Role.
    pub role: String,
    /// End of its validity; null for none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}
