//! Incidents on the wire: in lists, in full, and what decisions answer.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::{Cause, Timestamp};

use super::entity_view::EntityView;
use super::plan_views::{ApprovalView, PlanView, PolicyView};

/// An incident in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentSummary {
    /// Incident id, such as `INC-42`.
    pub id: String,
    /// Workflow state: `open`, `investigating`, `awaiting_approval`, `mitigating`, `verifying`, `mitigated`,
    /// `resolved`, `suppressed`, `escalated` or `closed`.
    pub state: String,
    /// Severity: `info`, `warning`, `high` or `critical`.
    pub severity: String,
    /// One line.
    pub title: String,
    /// Names of the affected entities.
    pub services: Vec<String>,
    /// Affected entities, in the order they became known.
    pub entities: Vec<EntityView>,
    /// Start of the first anomaly, in telemetry time.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    /// When the incident was opened, in telemetry time.
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Timestamp,
    /// Time of the last change.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Number of changes since the opening, as in `ETag`.
    pub revision: i64,
    /// Who works on it.
    #[schema(required)]
    pub owner: Option<String>,
    /// Who has acknowledged it.
    #[schema(required)]
    pub acknowledged_by: Option<String>,
    /// The number of the id, used as cursor.
    #[serde(skip)]
    pub number: i64,
}

/// The incident that was split, and the new one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SplitView {
    /// The incident that was split, without the entities of the new one.
    pub incident: IncidentSummary,
    /// The new incident.
    pub created: IncidentSummary,
}

/// One page of incidents, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentPage {
    /// The incidents of this page.
    pub incidents: Vec<IncidentSummary>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next: Option<i64>,
}

/// One entry of the timeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TimelineView {
    /// Time of the event.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `evidence`, `transition` or `update` (of entities, title, severity or cause).
    pub kind: String,
    /// The new state of a transition.
    #[schema(required)]
    pub state: Option<String>,
    /// One line; may quote telemetry.
    pub text: String,
}

/// One piece of evidence.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EvidenceView {
    /// Id that hypotheses refer to.
    pub id: String,
    /// Name of the observed entity.
    pub service: String,
    /// Observed entity.
    pub entity: EntityView,
    /// Time of the observation.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// One line; may quote telemetry.
    pub summary: String,
}

/// A candidate cause.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HypothesisView {
    /// Name of the entity at fault.
    pub service: String,
    /// Entity at fault.
    pub entity: EntityView,
    /// The same as `rule`.
    pub kind: String,
    /// Id of the rule that names the mechanism, such as `connection-leak` or `bad-setting`; `unknown` if none does.
    pub rule: String,
    /// Confidence, 0 to 1.
    pub confidence: f64,
    /// One or two sentences, derived from the evidence only.
    pub reasoning: String,
    /// Ids of the supporting evidence.
    pub evidence: Vec<String>,
    /// Version of the deployment shortly before, if there was one.
    #[schema(required)]
    pub deployment: Option<String>,
    /// The changed setting that explains the cause, as `[key, from, to]`.
    #[schema(required, value_type = Option<Vec<String>>)]
    pub setting: Option<(String, String, String)>,
    /// What a person should check next, most useful first.
    pub next_checks: Vec<String>,
    /// Why no action is proposed for it, if the cause allows none.
    #[schema(required)]
    pub reservation: Option<String>,
}

impl From<&Cause> for HypothesisView {
    fn from(cause: &Cause) -> Self {
        Self {
            service: cause.entity.name.clone(),
            entity: EntityView::from(&cause.entity),
            kind: cause.rule.clone(),
            rule: cause.rule.clone(),
            confidence: cause.confidence,
            reasoning: cause.reasoning.clone(),
            evidence: cause.evidence.clone(),
            deployment: cause.deployment.clone(),
            setting: cause.setting.clone(),
            next_checks: cause.next_checks.clone(),
            reservation: cause.reservation.clone(),
        }
    }
}

/// A signal around the incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChartView {
    /// Title.
    pub title: String,
    /// `ratio`, `seconds`, `per_second` or `number`.
    pub unit: String,
    /// `[seconds since the epoch, value]` pairs, oldest first.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub points: Vec<(f64, f64)>,
    /// Threshold beyond which the signal is unhealthy: above it, unless `low_is_bad`.
    #[schema(required)]
    pub bad_above: Option<f64>,
    /// Whether values below the threshold are unhealthy.
    pub low_is_bad: bool,
}

/// A person's verdict on an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VerdictView {
    /// `real`, `noise` or `wrong_cause`.
    pub verdict: String,
    /// The actual cause, if known.
    #[schema(required)]
    pub cause: Option<String>,
}

/// One incident in full.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentDetail {
    /// The fields of the list entry.
    #[serde(flatten)]
    pub summary: IncidentSummary,
    /// What opened it: `sustained_breach`, `deployment_correlation`, `person` or `split`.
    pub trigger: String,
    /// Evidence and state transitions, oldest first.
    pub timeline: Vec<TimelineView>,
    /// Candidate causes, best first.
    pub hypotheses: Vec<HypothesisView>,
    /// The evidence that hypotheses refer to.
    pub evidence: Vec<EvidenceView>,
    /// The diagnosis in the format of the analysis contract.
    #[schema(required, value_type = Option<Object>)]
    pub analysis: Option<Value>,
    /// The proposed or executed plan.
    #[schema(required)]
    pub plan: Option<PlanView>,
    /// The policy's answer about the plan.
    #[schema(required)]
    pub policy: Option<PolicyView>,
    /// SHA-256 of the plan; `approve` requires it.
    #[schema(required)]
    pub plan_sha256: Option<String>,
    /// Principal who approved the plan.
    #[schema(required)]
    pub approved_by: Option<String>,
    /// The approval of the plan.
    #[schema(required)]
    pub approval: Option<ApprovalView>,
    /// Outcome of the execution.
    #[schema(required)]
    pub execution: Option<String>,
    /// Idempotency key sent to the target.
    #[schema(required)]
    pub idempotency_key: Option<String>,
    /// Outcome of the undo.
    #[schema(required)]
    pub undo: Option<String>,
    /// Final outcome of the incident.
    #[schema(required)]
    pub outcome: Option<String>,
    /// A person's verdict.
    #[schema(required)]
    pub verdict: Option<VerdictView>,
    /// Signals of the affected services.
    pub charts: Vec<ChartView>,
    /// Comments of people, oldest first.
    pub comments: Vec<CommentView>,
    /// When it was acknowledged.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub acknowledged_at: Option<Timestamp>,
    /// The incident that it is part of.
    #[schema(required)]
    pub merged_into: Option<String>,
    /// The incident that it was split from.
    #[schema(required)]
    pub split_from: Option<String>,
    /// Until when messages about it are suppressed.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub suppressed_until: Option<Timestamp>,
}

/// A comment on an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CommentView {
    /// Who wrote it.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The text.
    pub text: String,
}

/// One entry of an incident's history.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HistoryView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `transition` of the state, `change` of anything else, or `comment`.
    pub kind: String,
    /// State before a transition; null for the opening.
    #[schema(required)]
    pub from: Option<String>,
    /// State after a transition.
    #[schema(required)]
    pub to: Option<String>,
    /// Who wrote the comment.
    #[schema(required)]
    pub by: Option<String>,
    /// One line, or the comment; may quote telemetry.
    pub text: String,
}

/// Result of a decision on an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DecisionView {
    /// Incident id, such as `INC-42`.
    pub incident_id: String,
    /// State of the incident after the decision.
    pub state: String,
    /// Idempotency key of the plan's execution; null without a plan.
    #[schema(required)]
    pub execution_id: Option<String>,
    /// The recorded verdict; absent if the decision changed the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}
