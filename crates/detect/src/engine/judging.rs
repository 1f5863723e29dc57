//! From complete points to findings and anomalies.

use wardroom_domain::{Entity, Event, EventKind, Finding, SignalId, SignalKind, Timestamp};
use wardroom_signals::{Direction, EntityGraph, SignalUnit};

use super::anomalies::{signal_anomaly, zscore_anomaly};
use super::batch_findings::BatchFindings;
use super::feed::Feed;
use super::span_state::SPANS;
use super::state::{Engine, UnusualPoint};
use crate::point::Point;
use crate::points::SignalPoint;

/// The metric of signals of logs.
const LOGS: &str = "logs";
/// Spans are no measure while metrics count the same requests: those whose newest point is at most this old, in ms.
const MEASURED_MS: i64 = 900_000;
/// The graph and the list of measured entities have a sign of each signal at this interval, in ms.
const REFRESH_MS: i64 = 60_000;
/// Resource of the number of restarts: where these are counted for some time, in ms, the reason of one is news.
const RESTARTS: &str = "restarts";
const KNOWN_MS: i64 = 180_000;
/// Time that added members have to become ready, in ms.
const SCALE_MS: i64 = 120_000;
/// Weight of series that tell about the monitoring itself, against that of others.
const INTERNAL_WEIGHT: f64 = 0.5;

impl Engine {
    /// Judges the points that are complete now.
    pub(super) fn judge_points(&mut self, findings: &mut BatchFindings) {
        for made in self.points.take_points() {
            let Some(feed) = self.feed(&made) else { continue };
            if self.is_measure(&feed.cell.id, made.point.at_ms) {
                self.evaluate(&feed, &made.point, findings);
            }
        }
        let mut rates = Vec::new();
        let watermark_ms = self.watermark_ms;
        self.logs.advance(watermark_ms, |entity, point| rates.push((entity.clone(), point)));
        for (entity, point) in rates.into_iter().filter(|(entity, _)| !entity.is_empty()) {
            let (resource, metric) = (String::new(), LOGS.to_owned());
            let id = SignalId { entity, peer: None, kind: SignalKind::Logs, resource, metric };
            let Some(cell) = self.signals.get_or_insert(id) else {
                self.limited.signals += 1;
                continue;
            };
            self.graph.touch(&cell.id.entity, point.at_ms);
            let (unit, direction) = (SignalUnit::PerSecond, Direction::High);
            self.evaluate(&Feed { cell, unit, direction, refreshed_ms: point.at_ms }, &point, findings);
        }
    }

    /// Returns the signal of a point; `None` beyond the limit of signals.
    fn feed(&mut self, made: &SignalPoint) -> Option<Feed> {
        let (key, at_ms) = ((made.group, made.slot), made.point.at_ms);
        if let Some(feed) = self.feeds.get_mut(&key) {
            if at_ms.saturating_sub(feed.refreshed_ms) < REFRESH_MS {
                return Some(feed.clone());
            }
            feed.refreshed_ms = at_ms;
        }
        let feed = match self.feeds.get(&key) {
            Some(known) => known.clone(),
            None => {
                let id = self.points.signal_id(made.group, made.slot)?;
                let (unit, direction) = self.points.definition(made.group, made.slot);
                let is_counted = id.kind == SignalKind::Restarts
                    && self.signals.is_known(&id, RESTARTS, at_ms.saturating_sub(KNOWN_MS));
                let Some(cell) = self.signals.get_or_insert(id) else {
                    self.limited.signals += 1;
                    return None;
                };
                if is_counted {
                    cell.lock().expect_events();
                }
                let feed = Feed { cell, unit, direction, refreshed_ms: at_ms };
                self.feeds.insert(key, feed.clone());
                feed
            }
        };
        let id = &feed.cell.id;
        self.graph.touch(&id.entity, at_ms);
        if is_of_requests(id.kind) && id.metric != SPANS {
            let newest_ms = self.measured.entry(measured_key(&self.graph, id)).or_insert(at_ms);
            *newest_ms = at_ms.max(*newest_ms);
        }
        Some(feed)
    }

    fn evaluate(&mut self, feed: &Feed, point: &Point, findings: &mut BatchFindings) {
        if self.stalls.overlaps(point.at_ms.saturating_sub(point.window_ms), point.at_ms) {
            self.limited.stalled_points += 1;
            return;
        }
        let Feed { cell, unit, direction, .. } = feed;
        let judgement = cell.lock().observe(&cell.id, *unit, *direction, point, &self.config);
        findings.anomalies.extend(judgement.shift.map(|shift| signal_anomaly(&cell.id, &shift)));
        let told = judgement.findings.into_iter().filter(|finding| !self.is_scaled_up(finding));
        findings.findings.extend(told);
    }

    /// Returns whether a finding says no more than that members are wanted which were added just now: they take a while
    /// to be ready.
    fn is_scaled_up(&self, finding: &Finding) -> bool {
        let Finding { signal, since_ms, at_ms, interval_ms, .. } = finding;
        if signal.kind != SignalKind::Availability || finding.value <= 0.0 {
            return false;
        }
        let near_ms = 2 * interval_ms;
        let newest_ms = since_ms.saturating_add(near_ms);
        let oldest_ms = since_ms.saturating_sub(near_ms).max(at_ms.saturating_sub(SCALE_MS));
        let number = |event: &Event, name: &str| event.attributes.get(name).and_then(|text| text.parse::<f64>().ok());
        let adds_members = |event: &Event| {
            let is_of_entity = event.kind == EventKind::Scale && event.entity == signal.entity;
            is_of_entity && number(event, "to") > number(event, "from")
        };
        let (oldest, newest) = (Timestamp::from_millis(oldest_ms), Timestamp::from_millis(newest_ms));
        newest_ms >= oldest_ms && self.events.between(oldest, newest).any(adds_members)
    }

    /// Returns whether the points of a signal measure its entity: spans are usually sampled, so they do not where
    /// metrics count the same requests.
    fn is_measure(&self, id: &SignalId, at_ms: i64) -> bool {
        if id.metric != SPANS || !is_of_requests(id.kind) {
            return true;
        }
        let newest_ms = self.measured.get(&measured_key(&self.graph, id));
        newest_ms.is_none_or(|newest_ms| at_ms.saturating_sub(*newest_ms) > MEASURED_MS)
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

const fn is_of_requests(kind: SignalKind) -> bool {
    matches!(kind, SignalKind::Traffic | SignalKind::Errors | SignalKind::Latency)
}

/// Returns whose requests a signal counts, and the called one of calls, under any of their names.
fn measured_key(graph: &EntityGraph, id: &SignalId) -> (Entity, Option<Entity>) {
    (graph.canonical(&id.entity), id.peer.as_ref().map(|peer| graph.canonical(peer)))
}
