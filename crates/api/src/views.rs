//! Wire types of the responses.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_domain::{Cause, Deployment, Entity, Labels, Timestamp};

/// What an incident, a cause or an observation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EntityView {
    /// Kind, such as `service`, `database` or `node`.
    pub kind: String,
    /// Cluster; empty if unknown.
    pub cluster: String,
    /// Deployment environment; empty if unknown.
    pub environment: String,
    /// Namespace; empty if unknown.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl EntityView {
    /// Returns the id of the entity: all of its fields.
    pub fn id(&self) -> String {
        let Self { kind, cluster, environment, namespace, name } = self;
        format!("{kind}/{cluster}/{environment}/{namespace}/{name}")
    }
}

impl From<&Entity> for EntityView {
    fn from(entity: &Entity) -> Self {
        let Entity { kind, cluster, environment, namespace, name } = entity.clone();
        Self { kind: kind.as_str().to_owned(), cluster, environment, namespace, name }
    }
}

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

/// One incident in full.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentDetail {
    /// The fields of the list entry.
    #[serde(flatten)]
    pub summary: IncidentSummary,
    /// The anomaly that opened the incident.
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

/// One deployment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeploymentView {
    /// When it began to run.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of what was deployed.
    pub service: String,
    /// Version that is running now.
    pub version: String,
    /// `success`, or what the sender said.
    pub status: String,
    /// Further fields of the event.
    #[schema(value_type = BTreeMap<String, String>)]
    pub metadata: Labels,
    /// What was deployed.
    pub entity: EntityView,
}

impl DeploymentView {
    /// Converts a deployment.
    pub fn new(entity: &Entity, deployment: &Deployment) -> Self {
        let Deployment { at, service, version, status, metadata } = deployment.clone();
        Self { at, service, version, status, metadata, entity: EntityView::from(entity) }
    }

    /// Returns the text by which deployments are ordered: by time first.
    pub(crate) fn key(&self) -> String {
        let Self { entity, service, version, .. } = self;
        format!("{:020}.{}/{}/{service}@{version}", self.at.nanos().max(0), entity.kind, entity.namespace)
    }
}

/// One anomaly.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnomalyView {
    /// Stable id, derived from series, detector and time.
    pub id: String,
    /// Labels of the series.
    #[schema(value_type = BTreeMap<String, String>)]
    pub series: Labels,
    /// Service.
    pub service: String,
    /// Name of the detector.
    pub detector: String,
    /// Score, 0 to 1.
    pub score: f64,
    /// Deviation, in standard deviations.
    pub z: f64,
    /// Severity.
    pub severity: String,
    /// Observed value.
    pub value: f64,
    /// Expected value.
    pub expected: f64,
    /// Time of the sample.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// A dead letter: a record that a consumer could not process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetterView {
    /// Number of the dead letter.
    pub id: u64,
    /// Consumer group.
    pub group: String,
    /// Offset of the record on the bus.
    pub offset: u64,
    /// Error message; may quote telemetry.
    pub reason: String,
    /// Number of attempts.
    pub tries: u32,
    /// Time of the first attempt.
    #[schema(value_type = String, format = DateTime)]
    pub first_try: Timestamp,
    /// Time of the last attempt.
    #[schema(value_type = String, format = DateTime)]
    pub last_try: Timestamp,
    /// Ingest protocol.
    pub protocol: String,
    /// Principal of the sender.
    pub principal: String,
    /// Time of receipt.
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// Size of the body, in bytes.
    pub bytes: usize,
    /// Offset of the replayed record on the bus, if it was replayed.
    #[schema(required)]
    pub replayed_as: Option<u64>,
}

/// A tenant's usage of a lake table.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TableUsageView {
    /// Name of the table.
    pub table: &'static str,
    /// Number of data files.
    pub files: usize,
    /// Rows.
    pub rows: u64,
    /// Size of the files, in bytes.
    pub bytes: u64,
    /// Rows older than the retention, deleted by the next maintenance run.
    pub outdated: u64,
}
