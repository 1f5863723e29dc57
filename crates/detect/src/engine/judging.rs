//! From complete points to findings and anomalies.

use wardroom_domain::{SignalId, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

use super::anomalies::{signal_anomaly, zscore_anomaly};
use super::spans::SPANS;
use super::{BatchFindings, Engine, UnusualPoint};
use crate::point::Point;

/// The metric of signals of logs.
const LOGS: &str = "logs";
/// Spans are no measure while metrics count the same requests: those whose newest point is at most this old, in ms.
const MEASURED_MS: i64 = 900_000;
/// Weight of series that tell about the monitoring itself, against that of others.
const INTERNAL_WEIGHT: f64 = 0.5;

impl Engine {
    /// Judges the points that are complete now.
    pub(super) fn judge_points(&mut self, findings: &mut BatchFindings) {
        for made in self.points.take_points() {
            let Some(id) = self.points.signal_id(made.group, made.slot) else { continue };
            let (unit, direction) = self.points.definition(made.group, made.slot);
            if self.is_measure(&id, made.point.at_ms) {
                self.judge(&id, (unit, direction), &made.point, findings);
            }
        }
        let mut rates = Vec::new();
        let watermark_ms = self.watermark_ms;
        self.logs.advance(watermark_ms, |entity, point| rates.push((entity.clone(), point)));
        for (entity, point) in rates.into_iter().filter(|(entity, _)| !entity.is_empty()) {
            let (resource, metric) = (String::new(), LOGS.to_owned());
            let id = SignalId { entity, peer: None, kind: SignalKind::Logs, resource, metric };
            self.judge(&id, (SignalUnit::PerSecond, Direction::High), &point, findings);
        }
    }

    fn judge(
        &mut self,
        id: &SignalId,
        (unit, direction): (SignalUnit, Direction),
        point: &Point,
        findings: &mut BatchFindings,
    ) {
        if self.stalls.overlaps(point.at_ms.saturating_sub(point.window_ms), point.at_ms) {
            self.limited.stalled_points += 1;
            return;
        }
        self.graph.touch(&id.entity, point.at_ms);
        let Some(mut signal) = self.signals.get_or_insert(id) else {
            self.limited.signals += 1;
            return;
        };
        let judgement = signal.observe(id, unit, direction, point, &self.config);
        drop(signal);
        findings.anomalies.extend(judgement.shift.map(|shift| signal_anomaly(id, &shift)));
        findings.findings.extend(judgement.findings);
    }

    /// Returns whether the points of a signal measure its entity: spans are usually sampled, so they do not where
    /// metrics count the same requests.
    fn is_measure(&mut self, id: &SignalId, at_ms: i64) -> bool {
        if !matches!(id.kind, SignalKind::Traffic | SignalKind::Errors | SignalKind::Latency) {
            return true;
        }
        let peer = id.peer.as_ref().map(|peer| self.graph.canonical(peer));
        let key = (self.graph.canonical(&id.entity), peer);
        if id.metric == SPANS {
            return self.measured.get(&key).is_none_or(|newest_ms| at_ms.saturating_sub(*newest_ms) > MEASURED_MS);
        }
        let newest_ms = self.measured.entry(key).or_insert(at_ms);
        *newest_ms = at_ms.max(*newest_ms);
        true
    }

    /// Reports unusual points within the budget, most extreme first.
    pub(super) fn report_unusual(&mut self, findings: &mut BatchFindings) {
        if self.unusual_points.is_empty() {
            return;
        }
        self.point_budget.advance(self.watermark_ms);
        self.shift_budget.advance(self.watermark_ms);
        self.unusual_points.sort_by(|a, b| b.score.z.abs().total_cmp(&a.score.z.abs()));
        for UnusualPoint { series, at_ms, value, score } in self.unusual_points.drain(..) {
            let Some(series) = self.series.get(series as usize) else { continue };
            let weight = if series.usage.is_internal { INTERNAL_WEIGHT } else { 1.0 };
            let band_ratio = weight * score.z.abs() / self.config.z_warning;
            let is_admitted =
                (score.shift && self.shift_budget.try_spend(band_ratio)) || self.point_budget.try_spend(band_ratio);
            if is_admitted {
                let entity = self.entities.get(series.usage.entity);
                let point = (at_ms, score.z, value, score.mean);
                findings.anomalies.extend(zscore_anomaly(&self.config, &series.labels, entity, point));
            }
        }
    }
}
