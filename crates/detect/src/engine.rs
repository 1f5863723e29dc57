//! The detection engine: all detection state of one tenant, and how a batch is processed.
//!
//! ```text
//! add_series ─► Catalog ─► Usage: detector of the series, parts of signals, watch for events
//! observe ────► detector, parts, watch            (the only step for each sample)
//! span, observe_log, histogram, observe_deployment
//! finish_batch ─► complete points ─► Signals ─► findings, shifts; events; eviction
//! ```

mod anomalies;
mod batch_findings;
mod dense_indices;
mod entities;
mod feed;
mod forget;
mod judging;
mod log_lines;
mod renumber;
mod saved_state;
mod series;
mod span_state;
mod spans;
mod stalls;
mod state;
#[cfg(test)]
mod tests;

use std::sync::MutexGuard;

use wardroom_domain::{
    Entity, Event, Labels, MetricMetadata, RequestFingerprint, Sample, SeriesId, Severity, SignalId, Timestamp,
};
use wardroom_signals::EntityGraph;

pub use self::batch_findings::{BatchFindings, LimitedRecords};
use self::series::{Counter, Detector, NOT_WATCHED, Series, SeriesRole, Usage, detector_of};
use self::state::UnusualPoint;
pub use self::state::{Engine, EngineSize};
use crate::TemplateCount;
use crate::evaluation::Signal;
use crate::events::watches_of;
use crate::series_detector::{LevelShift, SeriesDetector};
use crate::view::EngineView;

impl Engine {
    /// Returns the number of series.
    pub fn known_series(&self) -> usize {
        self.series.len()
    }

    /// Returns how much the engine holds.
    pub fn size(&self) -> EngineSize {
        EngineSize { series: self.series.len(), signals: self.signals.len(), entities: self.entities.list().len() }
    }

    /// Adds a series; ids are assigned in call order, from 0. `metadata` is that of its family, if the sender gave any.
    pub fn add_series(&mut self, labels: &Labels, metadata: Option<&MetricMetadata>) {
        let meaning = self.catalog.meaning(labels, metadata);
        let role = match detector_of(labels, metadata, &meaning) {
            Detector::Gauge => SeriesRole::Gauge(add(&mut self.gauges, SeriesDetector::default())),
            Detector::Counter => SeriesRole::Counter(add(&mut self.counters, Counter::default())),
            Detector::None => SeriesRole::None,
        };
        let (entity, is_internal) = (meaning.entity.clone().unwrap_or_default(), meaning.is_internal);
        let first_part = self.parts.len() as u32;
        if !meaning.uses.is_empty() {
            self.parts.extend(self.points.add_series(&meaning.uses, labels));
        }
        let parts = u16::try_from(self.parts.len() - first_part as usize).unwrap_or(u16::MAX);
        if !entity.is_empty() {
            self.graph.observe(&entity, &meaning.aliases, &meaning.relations, self.now_ms());
        }
        let watches = watches_of(labels, &meaning, self.catalog.version_of(labels));
        let watch = self.inferred.watch(watches, &meaning.instance).unwrap_or(NOT_WATCHED);
        let entity = self.entities.id(&entity);
        let usage = Usage { entity, role, first_part, parts, is_internal, watch };
        self.series.push(Series { labels: labels.clone(), usage });
    }

    /// Starts a batch that arrived at a time; `None` if it has none. Telemetry's times are capped by it.
    pub fn begin_batch(&mut self, received_at: Option<Timestamp>) {
        self.cap_ms = received_at.map_or(i64::MAX, Timestamp::millis);
        self.points.begin_batch(self.cap_ms);
        self.arrived_ms = received_at.map(Timestamp::millis);
    }

    /// Adds samples of a known series, in arrival order.
    pub fn observe(&mut self, id: SeriesId, samples: &[Sample]) {
        let Some(series) = self.series.get(id.index()) else { return };
        let Usage { entity, role, first_part, parts, watch, .. } = series.usage;
        let parts = first_part as usize..first_part as usize + usize::from(parts);
        let mut newest: Option<Sample> = None;
        for sample in samples {
            self.observe_sample(id, role, *sample);
            for index in parts.clone() {
                self.points.observe(self.parts[index], sample.ts_ms, sample.value);
            }
            newest = newest.filter(|newest| newest.ts_ms >= sample.ts_ms).or(Some(*sample));
        }
        let Some(newest) = newest else { return };
        if watch != NOT_WATCHED {
            self.watched.push((watch, newest.ts_ms.min(self.cap_ms), newest.value));
        }
        self.advance(entity, newest.ts_ms);
    }

    #[inline]
    fn observe_sample(&mut self, id: SeriesId, role: SeriesRole, sample: Sample) {
        let (at_ms, config) = (sample.ts_ms, &self.config);
        let scored = match role {
            SeriesRole::Gauge(index) => {
                let score = self.gauges[index as usize].observe_unusual(at_ms, sample.value, config);
                score.map(|score| (sample.value, score))
            }
            SeriesRole::Counter(index) => {
                let counter = &mut self.counters[index as usize];
                let rate = counter.rate(at_ms, sample.value);
                rate.and_then(|rate| Some((rate, counter.detector.observe_unusual(at_ms, rate, config)?)))
            }
            SeriesRole::None => None,
        };
        if let Some((value, score)) = scored {
            self.unusual_points.push(UnusualPoint { series: id.0, at_ms, value, score });
        }
    }

    /// Records that an entity has telemetry of a time.
    fn advance(&mut self, entity: u32, at_ms: i64) {
        let at_ms = at_ms.min(self.cap_ms);
        self.entities.touch(entity, at_ms);
        self.advance_watermark(at_ms);
    }

    fn advance_watermark(&mut self, at_ms: i64) {
        // A repeated request is no sign that anything new arrives.
        if let Some(arrived_ms) = self.arrived_ms.take() {
            self.stalls.observe(arrived_ms, self.watermark_ms);
        }
        self.watermark_ms = self.watermark_ms.max(at_ms.min(self.cap_ms));
    }

    /// Returns the time to report relations with: telemetry's, or that of arrival before there is any.
    const fn now_ms(&self) -> i64 {
        match (self.watermark_ms, self.cap_ms) {
            (i64::MIN, i64::MAX) => 0,
            (i64::MIN, cap_ms) => cap_ms,
            (watermark_ms, _) => watermark_ms,
        }
    }

    /// Returns whether a request of logs, spans or deployments was already processed.
    pub fn is_duplicate(&self, request: RequestFingerprint) -> bool {
        self.dedup.contains(request.hash, request.received_at.millis())
    }

    /// Records a fully processed request, for deduplication.
    pub fn remember_request(&mut self, request: RequestFingerprint) {
        self.dedup.insert(request.hash, request.received_at.millis());
    }

    /// Judges the points that the batch completed.
    pub fn finish_batch(&mut self) -> BatchFindings {
        let mut findings = BatchFindings::default();
        self.report_unusual(&mut findings);
        for (watch, at_ms, value) in self.watched.drain(..) {
            self.inferred.observe(watch, (at_ms, value), &mut self.events);
        }
        self.judge_points(&mut findings);
        let before_ms = std::mem::replace(&mut self.finished_ms, self.watermark_ms);
        self.evict_old(before_ms);
        findings.limited = std::mem::take(&mut self.limited);
        findings
    }

    /// Returns the newest event time of all telemetry, in ms.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// Returns all signals.
    pub fn signals(&self) -> impl Iterator<Item = (&SignalId, MutexGuard<'_, Signal>)> {
        self.signals.iter()
    }

    /// Returns which entities are known, and how they depend on each other.
    pub const fn graph(&self) -> &EntityGraph {
        &self.graph
    }

    /// Returns a view for readers.
    pub fn view(&self) -> EngineView {
        EngineView {
            signals: self.signals.clone(),
            events: self.events.clone(),
            graph: self.graph.clone(),
            watermark_ms: self.watermark_ms,
        }
    }

    /// Returns the series in an excursion of at least `points` points with their entity, most extreme first; of the
    /// entities that `includes` accepts.
    pub fn level_shifts(&self, points: u32, includes: impl Fn(&Entity) -> bool) -> Vec<(Entity, LevelShift)> {
        let excursion = |series: &Series| {
            let detector = match series.usage.role {
                SeriesRole::Gauge(index) => &self.gauges[index as usize],
                SeriesRole::Counter(index) => &self.counters[index as usize].detector,
                SeriesRole::None => return None,
            };
            detector.excursion().filter(|excursion| excursion.points >= points)
        };
        let shifted = self.series.iter().filter_map(|series| Some((series, excursion(series)?)));
        let mut shifts: Vec<(Entity, LevelShift)> = shifted
            .filter_map(|(series, excursion)| {
                let entity = self.entities.get(series.usage.entity);
                let is_internal = series.usage.is_internal;
                let shift = || LevelShift { labels: series.labels.clone(), excursion, is_internal };
                includes(entity).then(|| (entity.clone(), shift()))
            })
            .collect();
        shifts.sort_by(|a, b| b.1.excursion.z().abs().total_cmp(&a.1.excursion.z().abs()));
        shifts
    }

    /// Returns the log templates at or above a severity in a time range, most frequent first; of the entities that
    /// `includes` accepts.
    pub fn templates(
        &self,
        from: Timestamp,
        to: Timestamp,
        severity: Severity,
        includes: impl Fn(&Entity) -> bool,
    ) -> Vec<TemplateCount> {
        self.logs.most_frequent((from.millis(), to.millis()), severity, includes)
    }

    /// Returns what a series is about; `None` if it is not known here.
    pub fn entity_of_series(&self, id: SeriesId) -> Option<&Entity> {
        self.series.get(id.index()).map(|series| self.entities.get(series.usage.entity))
    }

    /// Returns the events in a time range, oldest first.
    pub fn events(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Event> {
        self.events.between(from, to)
    }
}

/// Appends an item and returns its index.
fn add<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    list.len() as u32 - 1
}
