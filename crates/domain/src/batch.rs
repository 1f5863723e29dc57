//! What one accepted request holds, decoded once.

use serde::{Deserialize, Serialize};

use crate::histogram::{Exemplar, NativeHistogram};
use crate::labels::Labels;
use crate::severity::Severity;
use crate::span::Span;
use crate::time::Timestamp;

/// Prometheus' staleness marker: a NaN with these bits says "this series ended".
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the staleness marker.
pub const fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One measured value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the epoch, as every metric protocol here has it.
    pub ts_ms: i64,
    /// The value; any bits a sender may send, NaN payloads included.
    pub value: f64,
}

/// The dense number of a live series within its tenant, in order of first sight. Not persisted: tables
/// carry the label set's own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub u32);

impl SeriesId {
    /// As an index into whatever is kept per series.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Samples of one series that stand next to each other in [`Metrics::samples`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which series.
    pub series: SeriesId,
    /// How many samples.
    pub count: u32,
}

/// The samples of one request: a list of runs over one flat list, so that a request of thousands of series
/// is two allocations.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// In which numbering its series stand.
    pub generation: u64,
    /// Whose samples come next, in the order of the request.
    pub runs: Vec<Run>,
    /// All samples.
    pub samples: Vec<Sample>,
    /// Native histograms, each under its series.
    pub histograms: Vec<(SeriesId, NativeHistogram)>,
    /// Exemplars, each under its series. Not records: they are neither counted nor refused.
    pub exemplars: Vec<(SeriesId, Exemplar)>,
}

impl Metrics {
    /// Each series with its samples, in the order of the request.
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
    /// When it was written.
    pub at: Timestamp,
    /// Its level in our words: ERROR and above are `high`, WARN `warning`, the rest `info`.
    pub severity: Severity,
    /// The text.
    pub message: String,
    /// The service it belongs to, where the protocol has a place for it; else empty, and the labels say it.
    pub service: String,
    /// Whatever else the sender attached.
    pub labels: Labels,
}

/// A version put into service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// When.
    pub at: Timestamp,
    /// Of which service.
    pub service: String,
    /// The version now running.
    pub version: String,
    /// `success`, `failed`, … as the sender says.
    pub status: String,
    /// Whatever else the sender attached.
    pub metadata: Labels,
}

/// What a sender says of a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    /// The family: a metric's name without `_bucket`, `_sum` or `_count`.
    pub family: String,
    /// Prometheus' word: `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or
    /// `unknown`.
    pub kind: &'static str,
    /// What it measures, in the sender's words.
    pub help: String,
    /// Its unit, if the sender names one.
    pub unit: String,
}

impl MetricMetadata {
    /// Every kind there is.
    pub const KINDS: [&str; 8] =
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
}

/// Why a record of an otherwise accepted request was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Older than the window of decision D10.
    TooOld,
    /// Further in the future than the window of decision D10.
    TooNew,
    /// The tenant's series limit is reached.
    SeriesLimit,
    /// A label name or value breaks a limit.
    LabelLimit,
    /// A value this protocol does not allow (NaN or infinity in JSON ingest).
    BadValue,
    /// A series without a metric name, or labels that are not well formed.
    BadLabels,
    /// The record's shape is wrong.
    Malformed,
    /// Taken when the request came first: what was refused then comes again, or what no table could take.
    Taken,
}

impl RefusalReason {
    /// The reason as a metric label and a problem code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::SeriesLimit => "series_limit",
            Self::LabelLimit => "label_limit",
            Self::BadValue => "bad_value",
            Self::BadLabels => "bad_labels",
            Self::Malformed => "malformed",
            Self::Taken => "taken",
        }
    }

    /// The byte that stands for it in the bus header; never renumbered.
    pub const fn code(self) -> u8 {
        match self {
            Self::TooOld => 1,
            Self::TooNew => 2,
            Self::SeriesLimit => 3,
            Self::LabelLimit => 4,
            Self::BadValue => 5,
            Self::BadLabels => 6,
            Self::Malformed => 7,
            Self::Taken => 8,
        }
    }

    /// The reason a bus header's byte stands for.
    pub const fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::TooOld,
            2 => Self::TooNew,
            3 => Self::SeriesLimit,
            4 => Self::LabelLimit,
            5 => Self::BadValue,
            6 => Self::BadLabels,
            7 => Self::Malformed,
            8 => Self::Taken,
            _ => return None,
        })
    }
}

/// A run of records left out: `first ..= last`, counted over the records of the request in order
/// (for metrics: over its samples, then its native histograms). Where one thing on the wire becomes several
/// samples (a data point of OTLP), it is counted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// First record left out.
    pub first: u32,
    /// Last record left out.
    pub last: u32,
    /// Why.
    pub reason: RefusalReason,
    /// For the sender: names the field and the remedy. Not persisted.
    pub detail: String,
}

/// A decoded request. Only the parts its protocol carries are filled.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Samples.
    pub metrics: Metrics,
    /// What the sender says of its metrics. No records: they are neither counted nor refused.
    pub metadata: Vec<MetricMetadata>,
    /// Log records.
    pub logs: Vec<LogEntry>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Spans.
    pub spans: Vec<Span>,
    /// Tells a repetition of the request, where one would count twice.
    pub sighting: Option<Sighting>,
    /// It comes again on purpose: the tables lack its samples, whether or not detection has seen them.
    pub again: bool,
}

/// A request of logs or spans, as it is recognised when a sender repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Hash of the body as received.
    pub fingerprint: u64,
    /// When it arrived.
    pub received_at: Timestamp,
}

impl Batch {
    /// Number of records (samples, native histograms, log lines, deployments, spans).
    pub fn len(&self) -> usize {
        let metrics = self.metrics.samples.len() + self.metrics.histograms.len();
        metrics + self.logs.len() + self.deployments.len() + self.spans.len()
    }

    /// Whether nothing is left in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
