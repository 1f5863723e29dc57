//! Wire types of samples, histograms and exemplars.

use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, Sample};

/// Raw samples of one series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesView {
    /// Labels of the series.
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// `[milliseconds since the epoch, value as text, IEEE 754 bits as hex]`.
    #[schema(value_type = Vec<Vec<Value>>)]
    pub samples: Vec<(i64, String, String)>,
    /// Native histograms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<HistogramView>,
}

impl SeriesView {
    /// Converts the samples of a series.
    pub fn new(labels: Labels, samples: Vec<Sample>, histograms: &[NativeHistogram]) -> Self {
        let sample_row =
            |sample: Sample| (sample.ts_ms, format_like_go(sample.value), format!("{:016x}", sample.value.to_bits()));
        Self {
            labels,
            samples: samples.into_iter().map(sample_row).collect(),
            histograms: histograms.iter().map(HistogramView::from).collect(),
        }
    }
}

/// A native histogram sample, as received; counts are absolute.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HistogramView {
    /// Milliseconds since the epoch.
    pub ts_ms: i64,
    /// Number of observations.
    pub count: f64,
    /// Sum of the observations, as IEEE 754 bits in hex: it may be NaN or infinite.
    pub sum_bits: String,
    /// Resolution; -53 means custom bucket bounds.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Buckets above zero.
    pub positive: BucketsView,
    /// Buckets below zero.
    pub negative: BucketsView,
    /// Custom bucket bounds.
    pub bounds: Vec<f64>,
    /// Counter reset hint, numbered as in remote_write.
    pub reset_hint: u8,
}

/// One side of a native histogram.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BucketsView {
    /// `[gap to the previous span, number of buckets]`.
    #[schema(value_type = Vec<Vec<i64>>)]
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
    /// Labels of the series.
    pub series: Labels,
    /// (labels, value as text, milliseconds since the epoch), oldest first.
    pub exemplars: Vec<(Labels, String, i64)>,
}

impl ExemplarsView {
    /// Converts the exemplars of a series.
    pub fn new(series: Labels, exemplars: Vec<Exemplar>) -> Self {
        let exemplar_row = |exemplar: Exemplar| (exemplar.labels, format_like_go(exemplar.value), exemplar.ts_ms);
        Self { series, exemplars: exemplars.into_iter().map(exemplar_row).collect() }
    }
}

/// Formats a number like Go's `%g`: the shortest digits that round-trip, with an exponent below 1e-4 and from 1e6.
fn format_like_go(value: f64) -> String {
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
    fn numbers_are_formatted_like_go() {
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
            assert_eq!(super::format_like_go(value), text);
        }
    }
}
