//! The decoded content of one accepted request.

use serde::{Deserialize, Serialize};

use crate::histogram::{Exemplar, NativeHistogram};
use crate::labels::Labels;
use crate::sample::Sample;
use crate::severity::Severity;
use crate::span::Span;
use crate::time::Timestamp;

/// The id of a live series within its tenant: dense, in order of first appearance. Not persisted: tables store an id
/// of the label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub u32);

impl SeriesId {
    /// Returns the id as an index into per-series storage.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Consecutive samples of one series in [`Metrics::samples`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesRun {
    /// The series.
    pub series: SeriesId,
    /// Number of samples.
    pub count: u32,
}

/// The samples of one request: runs over one flat list, so that a request with thousands of series needs two
/// allocations.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Generation of the series ids.
    pub generation: u64,
    /// Runs of samples per series, in the order of the request.
    pub runs: Vec<SeriesRun>,
    /// All samples.
    pub samples: Vec<Sample>,
    /// Native histograms with their series.
    pub histograms: Vec<(SeriesId, NativeHistogram)>,
    /// Exemplars with their series. They are not records: neither counted nor refused.
    pub exemplars: Vec<(SeriesId, Exemplar)>,
}

impl Metrics {
    /// Iterates over each run's series and samples, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &[Sample])> {
        let mut rest = self.samples.as_slice();
        self.runs.iter().map(move |run| {
            let (head, tail) = rest.split_at_checked(run.count as usize).unwrap_or((rest, &[]));
            rest = tail;
            (run.series, head)
        })
    }
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Time of the record.
    pub at: Timestamp,
    /// Severity derived from the level: ERROR and above are `high`, WARN is `warning`, the rest `info`.
    pub severity: Severity,
    /// The message text.
    pub message: String,
    /// The service, if the protocol has a field for it; otherwise empty and derived from the labels.
    pub service: String,
    /// Other attributes from the sender.
    pub labels: Labels,
}

/// A deployment of a service version. Ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deployment {
    /// Time of the deployment.
    pub at: Timestamp,
    /// The deployed service.
    pub service: String,
    /// The deployed version.
    pub version: String,
    /// Status as sent: `success`, `failed`, …
    pub status: String,
    /// Other attributes from the sender.
    pub metadata: Labels,
}

/// Metadata of a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    /// Family name: the metric name without `_bucket`, `_sum` or `_count`.
    pub family: String,
    /// Prometheus metric type: `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or
    /// `unknown`.
    pub kind: &'static str,
    /// Help text from the sender.
    pub help: String,
    /// Unit; empty if the sender gives none.
    pub unit: String,
}

impl MetricMetadata {
    /// All kinds.
    pub const KINDS: [&str; 8] =
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
}

/// Why a record of an accepted request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Older than the accepted time window (ADR 010).
    TooOld,
    /// Further in the future than the accepted time window (ADR 010).
    TooNew,
    /// The tenant has reached its series limit.
    SeriesLimit,
    /// A label name or value exceeds a limit.
    LabelLimit,
    /// A value that the protocol does not allow (NaN or infinity in JSON ingest).
    BadValue,
    /// A series without a metric name, or malformed labels.
    BadLabels,
    /// A malformed record.
    Malformed,
    /// The tenant has reached a limit on services, histogram families, called services or deployments.
    EntityLimit,
    /// Accepted when the request first arrived. Set on the copy of a request that is appended again for its refused
    /// records, or for records that could not be written to a table.
    #[serde(rename = "taken")]
    AlreadyAccepted,
}

impl RefusalReason {
    /// Returns the reason as a metric label and problem code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::SeriesLimit => "series_limit",
            Self::LabelLimit => "label_limit",
            Self::BadValue => "bad_value",
            Self::BadLabels => "bad_labels",
            Self::Malformed => "malformed",
            Self::AlreadyAccepted => "taken",
            Self::EntityLimit => "entity_limit",
        }
    }

    /// Returns the reason's byte in the bus record header; never renumbered.
    pub const fn code(self) -> u8 {
        match self {
            Self::TooOld => 1,
            Self::TooNew => 2,
            Self::SeriesLimit => 3,
            Self::LabelLimit => 4,
            Self::BadValue => 5,
            Self::BadLabels => 6,
            Self::Malformed => 7,
            Self::AlreadyAccepted => 8,
            Self::EntityLimit => 9,
        }
    }

    /// Returns the reason for a byte of the bus record header.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::TooOld,
            2 => Self::TooNew,
            3 => Self::SeriesLimit,
            4 => Self::LabelLimit,
            5 => Self::BadValue,
            6 => Self::BadLabels,
            7 => Self::Malformed,
            8 => Self::AlreadyAccepted,
            9 => Self::EntityLimit,
            _ => return None,
        })
    }
}

/// A range of refused records: `first ..= last`, counted over the records of the request in order (metrics: samples,
/// then native histograms). An item on the wire that becomes several samples (an OTLP data point) counts once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// First refused record.
    pub first: u32,
    /// Last refused record.
    pub last: u32,
    /// The reason.
    pub reason: RefusalReason,
    /// Explanation for the sender: the field and the remedy. Not persisted.
    pub detail: String,
}

/// A decoded request. Only the parts that its protocol carries are filled.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Samples.
    pub metrics: Metrics,
    /// Metric metadata. Not records: neither counted nor refused.
    pub metadata: Vec<MetricMetadata>,
    /// Log records.
    pub logs: Vec<LogEntry>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Spans.
    pub spans: Vec<Span>,
    /// Identifies a repetition of the request; set only if a repetition would be counted twice.
    pub request_fingerprint: Option<RequestFingerprint>,
    /// The request was appended again because the tables lack its samples; detection may have seen them before.
    pub is_rebuild: bool,
    /// Time of arrival; `None` if it has none. Telemetry's times are capped by it, so that a clock that runs ahead
    /// moves only its own entity.
    pub received_at: Option<Timestamp>,
}

/// Identifies a request of logs or spans, to recognise that a sender repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFingerprint {
    /// Hash of the body as received.
    pub hash: u64,
    /// Time of arrival.
    pub received_at: Timestamp,
}

impl Batch {
    /// Returns the number of records (samples, native histograms, log lines, deployments, spans).
    pub fn len(&self) -> usize {
        let metrics = self.metrics.samples.len() + self.metrics.histograms.len();
        metrics + self.logs.len() + self.deployments.len() + self.spans.len()
    }

    /// Returns whether the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
