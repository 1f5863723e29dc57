//! What each series is used for.

use std::num::NonZeroI64;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, MetricMetadata};
use wardroom_signals::{Part, SeriesMeaning};

use crate::series_detector::SeriesDetector;

/// Index of the watch of a series that is not watched for events.
pub(super) const NOT_WATCHED: u32 = u32::MAX;

/// One series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) usage: Usage,
}

/// How a series is used. Kept small: there is one for each series.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    /// Number of its entity.
    pub(super) entity: u32,
    /// The detector of the series itself.
    pub(super) role: SeriesRole,
    /// Index of the first of its parts of signals.
    pub(super) first_part: u32,
    /// Number of its parts of signals.
    pub(super) parts: u16,
    /// Whether it tells about the monitoring itself.
    pub(super) is_internal: bool,
    /// Index of what it is watched for, or [`NOT_WATCHED`].
    pub(super) watch: u32,
}

/// The detector of a series, with the index of its state. Each role has its own list, so that no state is larger than
/// it must be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum SeriesRole {
    /// Its values are scored.
    Gauge(u32),
    /// Its rate is scored.
    Counter(u32),
    /// Not scored by itself: a part of a signal, or of a histogram.
    None,
}

/// The detector that a series needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detector {
    Gauge,
    Counter,
    None,
}

/// State of the rate of a counter.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Counter {
    pub(super) detector: SeriesDetector,
    /// Newest reading; valid if `last_ms` is set.
    last: f64,
    last_ms: Option<NonZeroI64>,
}

impl Counter {
    /// Adds a reading; returns the rate per second since the one before. A stale marker ends the series.
    #[inline]
    pub(super) fn rate(&mut self, at_ms: i64, value: f64) -> Option<f64> {
        if value.is_nan() {
            self.last_ms = None;
            return None;
        }
        let before_ms = self.last_ms.map(NonZeroI64::get).filter(|before_ms| at_ms > *before_ms);
        let rate = before_ms.map(|before_ms| {
            let increase = if value >= self.last { value - self.last } else { value };
            increase * 1000.0 / (at_ms - before_ms) as f64
        });
        (self.last, self.last_ms) = (value, NonZeroI64::new(at_ms));
        rate
    }
}

/// Returns the detector of a series: parts of signals are judged as signals, except values, which are scored as well.
pub(super) fn detector_of(labels: &Labels, metadata: Option<&MetricMetadata>, meaning: &SeriesMeaning) -> Detector {
    if !meaning.uses.is_empty() {
        let is_value = |part: Part| matches!(part, Part::Value | Part::Free | Part::Quantile(_));
        return if meaning.uses.iter().any(|usage| is_value(usage.part)) { Detector::Gauge } else { Detector::None };
    }
    let name = labels.name();
    // A delta counter: each value is already an increase, and is scored like a gauge.
    let is_delta = labels.get("__temporality__") == Some("delta");
    match metadata.map(|metadata| metadata.kind) {
        _ if name.ends_with("_bucket") && labels.get("le").is_some() => Detector::None,
        Some("histogram" | "gaugehistogram" | "info" | "stateset") => Detector::None,
        Some("gauge") => Detector::Gauge,
        Some("counter") if !is_delta => Detector::Counter,
        _ if name.ends_with("_sum") || name.ends_with("_count") => Detector::None,
        _ if name.ends_with("_total") && !is_delta => Detector::Counter,
        _ => Detector::Gauge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_marker_ends_a_counter() {
        let mut counter = Counter::default();
        assert_eq!(counter.rate(1000, 5.0), None);
        assert_eq!(counter.rate(2000, 7.0), Some(2.0));
        assert_eq!(counter.rate(3000, 1.0), Some(1.0), "a reset");
        assert_eq!(counter.rate(4000, f64::NAN), None);
        assert_eq!(counter.rate(5000, 900.0), None, "the first reading of a new series");
    }

    #[test]
    fn metadata_says_more_than_the_name() {
        let detector = |name: &str, kind: Option<&'static str>| {
            let metadata = kind.map(|kind| MetricMetadata {
                family: name.to_owned(),
                kind,
                help: String::new(),
                unit: String::new(),
            });
            let labels = Labels::of(&[("__name__", name)]);
            detector_of(&labels, metadata.as_ref(), &SeriesMeaning::default())
        };
        assert_eq!(detector("depth", None), Detector::Gauge);
        assert_eq!(detector("sent_total", None), Detector::Counter);
        assert_eq!(detector("sent_total", Some("gauge")), Detector::Gauge);
        assert_eq!(detector("sent", Some("counter")), Detector::Counter);
        assert_eq!(detector("items_count", None), Detector::None);
        assert_eq!(detector("items_count", Some("gauge")), Detector::Gauge);
    }
}
