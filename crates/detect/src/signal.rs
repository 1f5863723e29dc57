//! The golden signals of a service, and when one of them is in breach.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;
use wardroom_domain::labels::NAME;

use crate::watch::Watch;
use crate::{Config, Run};

/// What is measured of a service or of one of its calls.
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
    /// The word, as it stands in signal names.
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

/// Which signal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignalKey {
    /// Of which service.
    pub service: String,
    /// As seen by its calls to this one; `None` for what it serves itself.
    pub peer: Option<String>,
    /// What.
    pub kind: SignalKind,
    /// The metric family it is made of.
    pub metric: String,
}

impl SignalKey {
    /// As a label set, for anomalies: the name starts with `signal:`.
    pub fn labels(&self) -> Labels {
        let mut pairs = vec![
            (NAME.to_owned(), format!("signal:{}", self.kind.as_str())),
            ("service".to_owned(), self.service.clone()),
            ("metric".to_owned(), self.metric.clone()),
        ];
        pairs.extend(self.peer.iter().map(|peer| ("peer_service".to_owned(), peer.clone())));
        Labels::new(pairs)
    }
}

/// A sustained breach: what may open an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Of which signal.
    pub key: SignalKey,
    /// When it began, in ms.
    pub since_ms: i64,
    /// The point that made it sustained, in ms.
    pub at_ms: i64,
    /// The newest value.
    pub value: f64,
    /// What was normal before.
    pub expected: f64,
    /// Values above this are bad; verification measures against it.
    pub bad_above: f64,
}

impl Breach {
    /// It in a few words.
    pub fn words(&self) -> String {
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

/// One signal: its watch, its history, and its breach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// z-score and runs.
    pub watch: Watch,
    /// Newest points, in ms.
    pub history: VecDeque<(i64, f64)>,
    /// Consecutive bad points: how many, since when, and what was normal before.
    bad: Option<Bad>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bad {
    points: u32,
    since_ms: i64,
    expected: f64,
    bad_above: f64,
}

impl Signal {
    pub(crate) const fn new(watch: Watch) -> Self {
        Self { watch, history: VecDeque::new(), bad: None }
    }

    /// Takes a point: the z-score, if there is one, and the breach it is in from the fifth bad point on.
    pub(crate) fn observe(
        &mut self,
        key: &SignalKey,
        at_ms: i64,
        value: f64,
        config: &Config,
    ) -> (Option<f64>, Option<Breach>) {
        let (mean, _) = self.watch.normal();
        let warm = self.watch.count() >= config.cold_start;
        let z = self.watch.observe(at_ms, value, config);
        self.history.push_back((at_ms, value));
        while self.history.len() > config.history {
            self.history.pop_front();
        }
        let limit = self
            .bad
            .map_or_else(|| bad_above(key.kind, mean, warm, self.watch.run(), config), |bad| Some(bad.bad_above));
        self.bad = match (limit, self.bad) {
            (Some(limit), Some(bad)) if value > limit => Some(Bad { points: bad.points + 1, ..bad }),
            (Some(limit), None) if value > limit && warm => {
                Some(Bad { points: 1, since_ms: at_ms, expected: mean, bad_above: limit })
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

    /// Since when it is bad, and how many points; `None` while it is good.
    pub fn bad_since(&self) -> Option<(i64, u32)> {
        self.bad.map(|bad| (bad.since_ms, bad.points))
    }

    /// Above which value it is bad, while it is bad.
    pub fn limit(&self) -> Option<f64> {
        self.bad.map(|bad| bad.bad_above)
    }

    /// What was normal before the bad stretch, or is normal now.
    pub fn expected(&self) -> f64 {
        self.bad.map_or_else(|| self.watch.normal().0, |bad| bad.expected)
    }
}

/// Above which value a signal is bad; `None` if it is not one that may be.
fn bad_above(kind: SignalKind, mean: f64, warm: bool, run: Option<Run>, config: &Config) -> Option<f64> {
    let threshold = |limit: f64| limit.max(if warm { mean * (1.0 + config.effect) } else { limit });
    match kind {
        SignalKind::ErrorRatio => Some(threshold(config.error_ratio)),
        SignalKind::Cpu => Some(threshold(config.cpu)),
        SignalKind::Memory => Some(threshold(config.memory)),
        SignalKind::LatencyP99 => {
            let (mean, deviation) = run.map(|run| (run.mean, run.deviation))?;
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
        let mut signal = Signal::new(Watch::default());
        let feed = values.iter().zip(0..).filter_map(|(x, at)| signal.observe(&key(kind), at * 1000, *x, &config).1);
        feed.collect()
    }

    #[test]
    fn errors_need_five_points_above_the_threshold() {
        let mut values = vec![0.0; 20];
        values.extend([0.5; 4]);
        assert!(breaches(SignalKind::ErrorRatio, &values).is_empty());
        values.push(0.5);
        let found = breaches(SignalKind::ErrorRatio, &values);
        assert_eq!((found.len(), found[0].since_ms, found[0].expected), (1, 20_000, 0.0));
    }

    #[test]
    fn latency_is_measured_against_the_time_before() {
        let mut values = [0.010, 0.012].repeat(10);
        values.extend([0.9; 60]);
        let found = breaches(SignalKind::LatencyP99, &values);
        assert_eq!(found.len(), 56);
        assert!(found.iter().all(|breach| breach.expected < 0.02 && breach.bad_above < 0.2));
    }

    #[test]
    fn a_service_that_always_sits_at_its_limit_is_not_in_breach() {
        assert!(breaches(SignalKind::Memory, &[0.9; 60]).is_empty());
    }
}
