//! What goes over the wire.

use serde::Serialize;
use serde_json::Value;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, Sample, Timestamp};

/// An incident in a list.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentSummary {
    /// `INC-42`.
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// How bad.
    pub severity: String,
    /// One line.
    pub title: String,
    /// Services affected.
    pub services: Vec<String>,
    /// When trouble began.
    pub began_at: Timestamp,
    /// When it was opened, by the telemetry's time.
    pub opened_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The number, for cursors.
    #[serde(skip)]
    pub number: i64,
}

/// One line of a timeline.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineView {
    /// When.
    pub at: Timestamp,
    /// `evidence` or `transition`.
    pub kind: String,
    /// The state reached, for transitions.
    pub state: Option<String>,
    /// One line; may quote telemetry.
    pub text: String,
}

/// One piece of evidence.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceView {
    /// What causes point to.
    pub id: String,
    /// Of which service.
    pub service: String,
    /// When.
    pub at: Timestamp,
    /// One line; may quote telemetry.
    pub summary: String,
}

/// A plan, as a person should see it: facts from the executor's dry run only.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// What an approval binds.
    pub plan_sha256: String,
    /// The tool.
    pub tool: String,
    /// Its operation.
    pub operation: String,
    /// On what.
    pub target: String,
    /// With what.
    pub arguments: Value,
    /// What changes.
    pub diff: String,
    /// Who feels it.
    pub blast_radius: String,
    /// `low`, `medium`, `high`.
    pub risk: String,
    /// Whether it can be taken back.
    pub reversible: bool,
    /// From which runbook.
    pub runbook: String,
    /// What the outcome is compared with.
    pub control: String,
    /// Until when it may be approved.
    pub expires_at: Timestamp,
}

/// A line for a chart.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// `ratio`, `seconds` or `per_second`.
    pub unit: String,
    /// (seconds since the epoch, value), oldest first.
    pub points: Vec<(f64, f64)>,
    /// Above this it is bad.
    pub bad_above: Option<f64>,
}

/// Everything about one incident.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentDetail {
    /// As in the list.
    #[serde(flatten)]
    pub summary: IncidentSummary,
    /// Why it opened.
    pub trigger: String,
    /// What happened when.
    pub timeline: Vec<TimelineView>,
    /// Ranked causes.
    pub hypotheses: Vec<Value>,
    /// What they point to.
    pub evidence: Vec<EvidenceView>,
    /// Seed 002's answer.
    pub analysis: Option<Value>,
    /// What is proposed.
    pub plan: Option<PlanView>,
    /// The hash of it, or null: what `approve` wants.
    pub plan_sha256: Option<String>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// How the execution ended.
    pub execution: Option<String>,
    /// What the target saw as key.
    pub idempotency_key: Option<String>,
    /// How the undo ended.
    pub undo: Option<String>,
    /// How it all ended.
    pub outcome: Option<String>,
    /// A person's judgement.
    pub verdict: Option<Value>,
    /// The signals that matter.
    pub charts: Vec<Chart>,
}

/// One anomaly.
#[derive(Clone, Debug, Serialize)]
pub struct AnomalyView {
    /// Derived, stable.
    pub id: String,
    /// The series.
    pub series: Labels,
    /// Its service.
    pub service: String,
    /// Which detector.
    pub detector: String,
    /// 0..1.
    pub score: f64,
    /// Standard deviations.
    pub z: f64,
    /// How bad.
    pub severity: String,
    /// Seen.
    pub value: f64,
    /// Expected.
    pub expected: f64,
    /// When.
    pub at: Timestamp,
}

/// A record that a consumer gave up on.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterView {
    /// Its number.
    pub id: u64,
    /// Which consumer.
    pub group: String,
    /// Where it stands on the bus.
    pub offset: u64,
    /// Why, in words; may quote telemetry.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// When first.
    pub first_try: Timestamp,
    /// When last.
    pub last_try: Timestamp,
    /// Which way it came in.
    pub protocol: String,
    /// Who sent it.
    pub principal: String,
    /// When it came.
    pub received_at: Timestamp,
    /// Size of its body.
    pub bytes: usize,
    /// Where it stands on the bus since it was replayed.
    pub replayed_as: Option<u64>,
}

/// How much of a tenant's a table of the lake holds.
#[derive(Clone, Debug, Serialize)]
pub struct HoldingView {
    /// The table.
    pub table: &'static str,
    /// Its files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Rows that retention lets go at its next turn.
    pub outdated: u64,
}

/// One series' raw samples.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesView {
    /// Its labels.
    pub labels: Labels,
    /// (ms, value as text, bits as hex).
    pub samples: Vec<(i64, String, String)>,
    /// Its native histograms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<HistogramView>,
}

impl SeriesView {
    /// What was found of a series.
    pub fn new(labels: Labels, samples: Vec<Sample>, histograms: &[NativeHistogram]) -> Self {
        let shown = |sample: Sample| (sample.ts_ms, go_g(sample.value), format!("{:016x}", sample.value.to_bits()));
        Self {
            labels,
            samples: samples.into_iter().map(shown).collect(),
            histograms: histograms.iter().map(HistogramView::from).collect(),
        }
    }
}

/// One reading of a native histogram, as it was sent; counts are absolute.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramView {
    /// Milliseconds since the epoch.
    pub ts_ms: i64,
    /// Observations.
    pub count: f64,
    /// Their sum, as bits in hex: it may be anything.
    pub sum_bits: String,
    /// Resolution, or -53 for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// Buckets above zero.
    pub positive: BucketsView,
    /// Buckets below zero.
    pub negative: BucketsView,
    /// Custom bounds.
    pub bounds: Vec<f64>,
    /// As remote_write numbers it.
    pub reset_hint: u8,
}

/// One side of a native histogram.
#[derive(Clone, Debug, Serialize)]
pub struct BucketsView {
    /// (distance to the stretch before, buckets).
    pub spans: Vec<(i32, u32)>,
    /// Absolute counts.
    pub counts: Vec<f64>,
}

impl From<&NativeHistogram> for HistogramView {
    fn from(histogram: &NativeHistogram) -> Self {
        let side = |side: &Buckets| BucketsView { spans: side.spans.clone(), counts: side.counts.clone() };
        Self {
            ts_ms: histogram.ts_ms,
            count: histogram.count,
            sum_bits: format!("{:016x}", histogram.sum.to_bits()),
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count: histogram.zero_count,
            positive: side(&histogram.positive),
            negative: side(&histogram.negative),
            bounds: histogram.bounds.clone(),
            reset_hint: histogram.reset_hint,
        }
    }
}

/// The exemplars of one series.
#[derive(Clone, Debug)]
pub struct ExemplarsView {
    /// The series' labels.
    pub series: Labels,
    /// (labels, value as text, ms), oldest first.
    pub exemplars: Vec<(Labels, String, i64)>,
}

impl ExemplarsView {
    /// What was found of a series.
    pub fn new(series: Labels, exemplars: Vec<Exemplar>) -> Self {
        let shown = |exemplar: Exemplar| (exemplar.labels, go_g(exemplar.value), exemplar.ts_ms);
        Self { series, exemplars: exemplars.into_iter().map(shown).collect() }
    }
}

/// A number as Go's `%g` writes it: shortest digits that round-trip, an exponent below 1e-4 and from
/// 1e6 on.
fn go_g(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value == 0.0 || (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123_456.5, "123456.5"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(super::go_g(value), text);
        }
    }
}
