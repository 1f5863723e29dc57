//! Wire types of the responses.

mod entity_view;
mod incident_views;
mod plan_views;

use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::{Deployment, Entity, Labels, Timestamp};

pub use entity_view::EntityView;
pub use incident_views::{
    ChartView, CommentView, DecisionView, EvidenceView, HistoryView, HypothesisView, IncidentDetail, IncidentPage,
    IncidentSummary, SplitView, TimelineView, VerdictView,
};
pub use plan_views::{ApprovalView, PlanStepView, PlanView, PolicyView, StopView};

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
