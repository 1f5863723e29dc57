//! The golden signals of a service and their breaches.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;
use wardroom_domain::labels::NAME_LABEL;

use crate::series_detector::SeriesDetector;
use crate::{Config, Excursion};

/// The kind of a golden signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// Requests per second.
    RequestRate,
    /// Failed requests, 0..1.
    ErrorRatio,
    /// 99th percentile of the duration, in seconds.
    LatencyP99,
    /// CPU share of the limit, 0..1.
    Cpu,
    /// Memory share of the limit, 0..1.
    Memory,
}

impl SignalKind {
    const ALL: [Self; 5] = [Self::RequestRate, Self::ErrorRatio, Self::LatencyP99, Self::Cpu, Self::Memory];

    /// Returns the name used in `signal:<name>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestRate => "request_rate",
            Self::ErrorRatio => "error_ratio",
            Self::LatencyP99 => "latency_p99_seconds",
            Self::Cpu => "cpu_ratio",
            Self::Memory => "memory_ratio",
        }
    }
}

/// Identifies one signal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignalKey {
    /// The service.
    pub service: String,
    /// The callee, for signals of outgoing calls; `None` for requests the service handles.
    pub peer: Option<String>,
    /// The kind of signal.
    pub kind: SignalKind,
    /// The metric family it is computed from.
    pub metric: String,
}

impl SignalKey {
    /// Returns the key with these labels, as [`SignalKey::labels`] returns them.
    pub fn from_labels(labels: &Labels) -> Option<Self> {
        let name = labels.name().strip_prefix("signal:")?;
        let kind = SignalKind::ALL.into_iter().find(|kind| kind.as_str() == name)?;
        let text = |name: &str| labels.get(name).unwrap_or_default().to_owned();
        Some(Self {
            service: text("service"),
            peer: labels.get("peer_service").map(str::to_owned),
            kind,
            metric: text("metric"),
        })
    }

    /// Returns the label set used in anomalies; the metric name starts with `signal:`.
    pub fn labels(&self) -> Labels {
        let mut pairs = vec![
            (NAME_LABEL.to_owned(), format!("signal:{}", self.kind.as_str())),
            ("service".to_owned(), self.service.clone()),
            ("metric".to_owned(), self.metric.clone()),
        ];
        pairs.extend(self.peer.iter().map(|peer| ("peer_service".to_owned(), peer.clone())));
        Labels::new(pairs)
    }
}

/// A sustained breach of one signal. Correlation may open an incident for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// The signal.
    pub key: SignalKey,
    /// Time of the first bad point, in ms.
    pub since_ms: i64,
    /// Time of the newest bad point, in ms.
    pub at_ms: i64,
    /// Newest value.
    pub value: f64,
    /// Mean before the breach.
    pub expected: f64,
    /// Values above this are bad; verification compares with it.
    pub bad_above: f64,
}

impl Breach {
    /// Returns a short description for titles.
    pub fn summary(&self) -> String {
        match self.key.kind {
            SignalKind::ErrorRatio => format!("{:.0} % of requests fail", self.value * 100.0),
            SignalKind::LatencyP99 => {
                format!("p99 went from {:.0} to {:.0} ms", self.expected * 1000.0, self.value * 1000.0)
            }
            SignalKind::Cpu => format!("CPU at {:.0} % of its limit", self.value * 100.0),
            SignalKind::Memory => format!("memory at {:.0} % of its limit", self.value * 100.0),
            SignalKind::RequestRate => format!("{:.1} requests/s", self.value),
        }
    }
}

/// The state of one signal: its detector, its history and its breach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// The z-score detector.
    pub detector: SeriesDetector,
    /// Newest points: (time in ms, value).
    pub history: VecDeque<(i64, f64)>,
    /// The consecutive bad points up to now, if any.
    bad: Option<BadRun>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct BadRun {
    points: u32,
    since_ms: i64,
    expected: f64,
    bad_above: f64,
}

impl Signal {
    pub(crate) const fn new(detector: SeriesDetector) -> Self {
        Self { detector, history: VecDeque::new(), bad: None }
    }

    /// Adds a point. Returns its z-score, if there is one, and the breach from the fifth consecutive bad point on.
    pub(crate) fn observe(
        &mut self,
        key: &SignalKey,
        at_ms: i64,
        value: f64,
        config: &Config,
    ) -> (Option<f64>, Option<Breach>) {
        let (mean, _) = self.detector.baseline();
        let warm = self.detector.count() >= config.cold_start;
        let z = self.detector.observe(at_ms, value, config);
        self.history.push_back((at_ms, value));
        while self.history.len() > config.history {
            self.history.pop_front();
        }
        let limit = self.bad.map_or_else(
            || bad_above(key.kind, mean, warm, self.detector.excursion(), config),
            |bad| Some(bad.bad_above),
        );
        self.bad = match (limit, self.bad) {
            (Some(limit), Some(bad)) if value > limit => Some(BadRun { points: bad.points + 1, ..bad }),
            (Some(limit), None) if value > limit && warm => {
                Some(BadRun { points: 1, since_ms: at_ms, expected: mean, bad_above: limit })
            }
            _ => None,
        };
        let breach = self.bad.filter(|bad| bad.points >= config.consecutive).map(|bad| Breach {
            key: key.clone(),
            since_ms: bad.since_ms,
            at_ms,
            value,
            expected: bad.expected,
            bad_above: bad.bad_above,
        });
        (z, breach)
    }

    /// Returns the time of the first bad point (ms) and the number of bad points; `None` while the signal is good.
    pub fn bad_since(&self) -> Option<(i64, u32)> {
        self.bad.map(|bad| (bad.since_ms, bad.points))
    }

    /// Returns the limit that the signal exceeds; `None` while the signal is good.
    pub fn limit(&self) -> Option<f64> {
        self.bad.map(|bad| bad.bad_above)
    }

    /// Returns the mean before the breach, or the current mean while the signal is good.
    pub fn expected(&self) -> f64 {
        self.bad.map_or_else(|| self.detector.baseline().0, |bad| bad.expected)
    }
}

/// Returns the limit of a signal; `None` if signals of this kind have none or it is not known yet.
fn bad_above(kind: SignalKind, mean: f64, warm: bool, excursion: Option<Excursion>, config: &Config) -> Option<f64> {
    let threshold = |limit: f64| limit.max(if warm { mean * (1.0 + config.effect) } else { limit });
    match kind {
        SignalKind::ErrorRatio => Some(threshold(config.error_ratio)),
        SignalKind::Cpu => Some(threshold(config.cpu)),
        SignalKind::Memory => Some(threshold(config.memory)),
        SignalKind::LatencyP99 => {
            let (mean, deviation) = excursion.map(|excursion| (excursion.mean, excursion.deviation))?;
            let floor = config.latency_floor_seconds.max(config.effect * mean).max(config.z_warning * deviation);
            Some(mean + floor)
        }
        SignalKind::RequestRate => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: SignalKind) -> SignalKey {
        SignalKey { service: "a".into(), peer: None, kind, metric: "m".into() }
    }

    fn breaches(kind: SignalKind, values: &[f64]) -> Vec<Breach> {
        let config = Config::default();
        let mut signal = Signal::new(SeriesDetector::default());
        let found =
            values.iter().zip(0..).filter_map(|(x, second)| signal.observe(&key(kind), second * 1000, *x, &config).1);
        found.collect()
    }

    #[test]
    fn a_key_is_found_by_its_labels() {
        for kind in SignalKind::ALL {
            for (service, peer) in [("a", None), ("a", Some("b")), ("", None)] {
                let key = SignalKey { service: service.into(), peer: peer.map(str::to_owned), ..key(kind) };
                assert_eq!(SignalKey::from_labels(&key.labels()), Some(key));
            }
        }
        assert_eq!(SignalKey::from_labels(&Labels::of(&[("__name__", "signal:other")])), None);
    }

    #[test]
    fn an_error_breach_needs_five_points_above_the_threshold() {
        let mut values = vec![0.0; 20];
        values.extend([0.5; 4]);
        assert!(breaches(SignalKind::ErrorRatio, &values).is_empty());
        values.push(0.5);
        let found = breaches(SignalKind::ErrorRatio, &values);
        assert_eq!((found.len(), found[0].since_ms, found[0].expected), (1, 20_000, 0.0));
    }

    #[test]
    fn latency_is_compared_with_the_baseline_before_the_breach() {
        let mut values = [0.010, 0.012].repeat(10);
        values.extend([0.9; 60]);
        let found = breaches(SignalKind::LatencyP99, &values);
        assert_eq!(found.len(), 56);
        assert!(found.iter().all(|breach| breach.expected < 0.02 && breach.bad_above < 0.2));
    }

    #[test]
    fn a_service_that_is_always_at_its_limit_is_not_in_breach() {
        assert!(breaches(SignalKind::Memory, &[0.9; 60]).is_empty());
    }
}
