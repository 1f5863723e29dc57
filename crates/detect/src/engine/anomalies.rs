//! Anomalies of unusual points and of breaches.

use wardroom_domain::anomaly::anomaly_id;
use wardroom_domain::{Anomaly, Labels, Severity, Timestamp};

use crate::Config;
use crate::signal::{Breach, SignalKind};

/// Returns the anomaly of an unusual point: time in ms, z-score, value and expected value.
pub(super) fn zscore_anomaly(
    config: &Config,
    labels: &Labels,
    service: &str,
    point: (i64, f64, f64, f64),
) -> Option<Anomaly> {
    let (at_ms, z, value, expected) = point;
    let severity = Severity::from_z_score(z, (config.z_warning, config.z_high, config.z_critical))?;
    let at = Timestamp::from_millis(at_ms);
    Some(Anomaly {
        id: anomaly_id("zscore", labels, at),
        series: labels.clone(),
        service: service.to_owned(),
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

/// Returns the anomaly of a threshold breach: a warning, critical from 95 % of a resource limit on.
pub(super) fn threshold_anomaly(breach: &Breach, has_z: bool) -> Option<Anomaly> {
    if breach.key.peer.is_some() || (breach.key.kind == SignalKind::LatencyP99 && has_z) {
        return None;
    }
    let labels = breach.key.labels();
    let at = Timestamp::from_millis(breach.at_ms);
    let is_critical = breach.value >= 0.95 && matches!(breach.key.kind, SignalKind::Cpu | SignalKind::Memory);
    Some(Anomaly {
        id: anomaly_id("threshold", &labels, at),
        series: labels,
        service: breach.key.service.clone(),
        detector: "threshold".into(),
        score: 0.9,
        z: 0.0,
        severity: if is_critical { Severity::Critical } else { Severity::Warning },
        value: breach.value,
        expected: breach.bad_above,
        at,
    })
}
