//! Shifts of a signal for the list of anomalies: one when it leaves its normal range, not one a point.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Severity, SignalId, SignalKind};
use wardroom_signals::SignalUnit;

use crate::Config;
use crate::point::Point;
use crate::series_detector::SeriesDetector;

/// A signal that left its normal range, or moved to a worse severity.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalShift {
    /// `zscore`, or `threshold` for a resource that crossed a fixed share of its limit.
    pub detector: &'static str,
    /// Telemetry's time of the point, in ms.
    pub at_ms: i64,
    /// Time of the first unusual point, in ms.
    pub since_ms: i64,
    /// Standard deviations from the mean; 0 for a threshold.
    pub z: f64,
    /// How unusual it is, 0..1.
    pub score: f64,
    /// The value, in the signal's unit.
    pub value: f64,
    /// Normal value; for a threshold the threshold.
    pub expected: f64,
    /// Severity.
    pub severity: Severity,
}

/// Share of a limit from which a threshold is critical.
const CRITICAL_SHARE: f64 = 0.95;
/// A threshold is armed again this far below it.
const REARM_SHARE: f64 = 0.05;
/// Score of a threshold.
const THRESHOLD_SCORE: f64 = 0.9;

/// What was reported of a signal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Shifts {
    detector: SeriesDetector,
    /// Severity of the threshold that is crossed, and since when (ms).
    crossed: Option<(Severity, i64)>,
}

impl Shifts {
    /// Adds a point; returns the shift that it begins or worsens. A threshold goes before a z-score.
    pub(super) fn observe(
        &mut self,
        id: &SignalId,
        unit: SignalUnit,
        point: &Point,
        config: &Config,
    ) -> Option<SignalShift> {
        let score = self.detector.observe_unusual(point.at_ms, point.value, config);
        let threshold = self.threshold(id, unit, point, config);
        threshold.or_else(|| {
            let score = score?;
            let severity = Severity::from_z_score(score.z, (config.z_warning, config.z_high, config.z_critical))?;
            let since_ms = self.detector.excursion().map_or(point.at_ms, |excursion| excursion.since_ms);
            let size = score.z.abs();
            Some(SignalShift {
                detector: "zscore",
                at_ms: point.at_ms,
                since_ms,
                z: score.z,
                // A z at the warning band scores 0.5; it approaches 1 as z grows.
                score: size / (size + config.z_warning),
                value: point.value,
                expected: score.mean,
                severity,
            })
        })
    }

    fn threshold(&mut self, id: &SignalId, unit: SignalUnit, point: &Point, config: &Config) -> Option<SignalShift> {
        let threshold = match (id.kind, id.resource.as_str()) {
            (SignalKind::Saturation, "cpu") => config.cpu,
            (SignalKind::Saturation, "memory") => config.memory,
            (SignalKind::Saturation, "disk" | "filesystem") => config.disk,
            _ => return None,
        };
        let share = match point.limit {
            Some(limit) if limit > 0.0 => point.value / limit,
            None if unit == SignalUnit::Ratio => point.value,
            _ => return None,
        };
        if share < threshold {
            self.crossed = self.crossed.filter(|_| share >= threshold - REARM_SHARE);
            return None;
        }
        let severity = if share >= CRITICAL_SHARE { Severity::Critical } else { Severity::Warning };
        if self.crossed.is_some_and(|(reported, _)| reported >= severity) {
            return None;
        }
        let since_ms = self.crossed.map_or(point.at_ms, |(_, since_ms)| since_ms);
        self.crossed = Some((severity, since_ms));
        Some(SignalShift {
            detector: "threshold",
            at_ms: point.at_ms,
            since_ms,
            z: 0.0,
            score: THRESHOLD_SCORE,
            value: point.value,
            expected: threshold * point.limit.unwrap_or(1.0),
            severity,
        })
    }
}
