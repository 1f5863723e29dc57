//! Anomalies of series and of signals.

use wardroom_domain::anomaly::anomaly_id;
use wardroom_domain::{Anomaly, Entity, Labels, Severity, SignalId, Timestamp};

use crate::Config;
use crate::evaluation::SignalShift;

/// Returns the anomaly of an unusual point of a series: time in ms, z-score, value and expected value.
pub(super) fn zscore_anomaly(
    config: &Config,
    labels: &Labels,
    entity: &Entity,
    point: (i64, f64, f64, f64),
) -> Option<Anomaly> {
    let (at_ms, z, value, expected) = point;
    let severity = Severity::from_z_score(z, (config.z_warning, config.z_high, config.z_critical))?;
    let at = Timestamp::from_millis(at_ms);
    Some(Anomaly {
        id: anomaly_id("zscore", labels, at),
        series: labels.clone(),
        entity: entity.clone(),
        service: entity.name.clone(),
        detector: "zscore".into(),
        // A z of 2.5 scores 0.5; it approaches 1 as z grows.
        score: z.abs() / (z.abs() + config.z_warning),
        z,
        severity,
        value,
        expected,
        at,
    })
}

/// Returns the anomaly of a shift of a signal.
pub(super) fn signal_anomaly(id: &SignalId, shift: &SignalShift) -> Anomaly {
    let (labels, at) = (id.labels(), Timestamp::from_millis(shift.at_ms));
    Anomaly {
        id: anomaly_id(shift.detector, &labels, at),
        series: labels,
        entity: id.entity.clone(),
        service: id.entity.name.clone(),
        detector: shift.detector.into(),
        score: shift.score,
        z: shift.z,
        severity: shift.severity,
        value: shift.value,
        expected: shift.expected,
        at,
    }
}
