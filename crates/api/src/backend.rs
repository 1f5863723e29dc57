//! What this crate asks of the rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Deployment, Identity, Labels, MetricMetadata, TenantId, Timestamp};
use wardroom_edge::Problem;

use crate::ask::Question;
use crate::sql::TableForm;
use crate::view::{
    AnomalyView, DeadLetterView, ExemplarsView, HoldingView, IncidentDetail, IncidentSummary, SeriesView,
};

/// An answer on its way.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send>>;

/// A person's decision on an incident.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Yes to a plan.
    Approve {
        /// The hash they saw.
        plan_sha256: String,
        /// In their words.
        reason: String,
        /// What proves it to the executor.
        proof: Proof,
        /// `http`, `cli` or `page`.
        channel: String,
    },
    /// No to a plan.
    Reject {
        /// In their words.
        reason: String,
    },
    /// Whether it was real.
    Verdict {
        /// `real`, `noise` or `wrong_cause`.
        verdict: String,
        /// The right cause.
        cause: Option<String>,
    },
    /// Done with it.
    Close,
}

/// A bearer token on its way to the executor; shows itself to nobody.
#[derive(Clone)]
pub struct Proof(pub String);

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The closures.
#[derive(Clone)]
pub struct Backend {
    /// Incidents, newest first: tenant, below this number, at most so many.
    pub incidents: Arc<dyn Fn(TenantId, i64, u32) -> Answer<Vec<IncidentSummary>> + Send + Sync>,
    /// One incident.
    pub incident: Arc<dyn Fn(TenantId, i64) -> Answer<IncidentDetail> + Send + Sync>,
    /// A decision; the answer is the JSON of the response.
    pub decide: Arc<dyn Fn(Identity, i64, Decision) -> Answer<Value> + Send + Sync>,
    /// The postmortem in Markdown.
    pub postmortem: Arc<dyn Fn(TenantId, i64) -> Answer<String> + Send + Sync>,
    /// Anomalies: tenant, since, service, after (time, id), at most so many.
    pub anomalies: Arc<AnomaliesFn>,
    /// Deployments since a moment, oldest first.
    pub deployments: Arc<dyn Fn(TenantId, Timestamp) -> Vec<Deployment> + Send + Sync>,
    /// Samples of everything retained: tenant, query, from this bus offset; with the next offset.
    pub samples: Arc<dyn Fn(TenantId, SeriesQuery, u64) -> Answer<SamplesPage> + Send + Sync>,
    /// The live series of a tenant that a query selects and that have samples in its time.
    pub series: Arc<dyn Fn(TenantId, SeriesQuery) -> Answer<Vec<Labels>> + Send + Sync>,
    /// The exemplars of the series that a query selects.
    pub exemplars: Arc<dyn Fn(TenantId, SeriesQuery) -> Answer<Vec<ExemplarsView>> + Send + Sync>,
    /// What senders said of a tenant's metrics, by family.
    pub metadata: Arc<dyn Fn(TenantId) -> BTreeMap<String, MetricMetadata> + Send + Sync>,
    /// Questions about the tables.
    pub tables: TablesBackend,
    /// What detection could not take, oldest first.
    pub dead_letters: Arc<dyn Fn(TenantId) -> Answer<Vec<DeadLetterView>> + Send + Sync>,
    /// Puts one back on the bus, once: its offset there, or nothing if there is no such letter.
    pub replay: Arc<dyn Fn(Identity, u64) -> Answer<Option<u64>> + Send + Sync>,
    /// Judges the refused records of a request at an offset again: the offset at which those that pass stand now, or
    /// nothing if none is known.
    pub redrive: Arc<dyn Fn(Identity, u64) -> Answer<Option<u64>> + Send + Sync>,
    /// Readiness: whether, and the document.
    pub ready: Arc<dyn Fn() -> (bool, Value) + Send + Sync>,
    /// Metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether credentials are asked for; without them the page asks for the approver's token.
    pub authenticated: bool,
    /// The origin check needs the page's own secret; random at each start.
    pub form_secret: Arc<str>,
}

/// The closures that answer questions about the tables.
#[derive(Clone)]
pub struct TablesBackend {
    /// The answer to a query in SQL over one tenant's rows, in this form.
    pub sql: Arc<dyn Fn(TenantId, String, TableForm) -> Answer<Vec<u8>> + Send + Sync>,
    /// How much of a tenant's each table holds.
    pub holdings: Arc<dyn Fn(TenantId) -> Answer<Vec<HoldingView>> + Send + Sync>,
    /// The questions that have a name, with their SQL.
    pub questions: Arc<[(&'static str, &'static str)]>,
    /// The answer to one of them.
    pub ask: Arc<dyn Fn(TenantId, Question, TableForm) -> Answer<Vec<u8>> + Send + Sync>,
    /// The log lines that a question's filter wants, newest first.
    pub logs: Arc<dyn Fn(TenantId, Question, TableForm) -> Answer<Vec<u8>> + Send + Sync>,
}

/// Series of one page, and the offset of the next.
pub type SamplesPage = (Vec<SeriesView>, Option<u64>);

/// See [`Backend::anomalies`].
pub type AnomaliesFn = dyn Fn(TenantId, Timestamp, Option<String>, Option<(Timestamp, String)>, u32) -> Answer<Vec<AnomalyView>>
    + Send
    + Sync;

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}
