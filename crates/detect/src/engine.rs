//! The detection engine: all detection state of one tenant, and how a batch is processed.
//!
//! ```text
//! add_series ─► Catalogue ─► Usage: detector of the series, parts of signals, watch for events
//! observe ────► detector, parts, watch            (the only step for each sample)
//! span, observe_log, histogram, observe_deployment
//! finish_batch ─► complete points ─► Signals ─► findings, shifts; events; eviction
//! ```

mod anomalies;
mod entities;
mod forget;
mod judging;
mod log_lines;
mod renumber;
mod series;
mod spans;
mod stalls;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use wardroom_domain::{
    Anomaly, Entity, Event, Finding, Labels, MetricMetadata, RequestFingerprint, Sample, SeriesId, Severity, SignalId,
    Timestamp,
};
use wardroom_signals::{Catalogue, EntityGraph, GraphLimits};

use self::entities::Entities;
use self::judging::Feed;
use self::log_lines::LogResources;
use self::series::{Counter, Detector, NOT_WATCHED, Series, SeriesRole, Usage, detector_of};
use self::spans::SpanState;
use self::stalls::Stalls;
use crate::budget::Budget;
use crate::dedup::DedupCache;
use crate::events::{Events, Inferred, watches_of};
use crate::judge::Signal;
use crate::logs::Logs;
use crate::points::{GroupIndex, PartHandle, PointMaker, SignalSlot};
use crate::series_detector::{LevelShift, SeriesDetector, ZScore};
use crate::signals::Signals;
use crate::view::EngineView;
use crate::{Config, TemplateCount};

/// The result of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchFindings {
    /// Shifts of series, admitted by the budget, and of signals.
    pub anomalies: Vec<Anomaly>,
    /// Rules that hold, once for each of their bad points.
    pub findings: Vec<Finding>,
    /// Records of the batch that a limit kept out of detection.
    pub limited: LimitedRecords,
}

/// Numbers of records that a limit kept out of a part of detection; they are stored all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitedRecords {
    /// Spans of entities beyond the limit.
    pub span_services: u64,
    /// Durations of services and calls beyond the limit.
    pub span_families: u64,
    /// Native histograms of series beyond the limit.
    pub native_histograms: u64,
    /// Log lines without a template of their own.
    pub log_templates: u64,
    /// Points of signals beyond the limit.
    pub signals: u64,
    /// Points that were not judged, because nothing arrived from any sender in their window.
    pub stalled_points: u64,
}

/// Numbers of what the engine holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSize {
    /// Series.
    pub series: usize,
    /// Signals.
    pub signals: usize,
    /// Entities of series and spans.
    pub entities: usize,
}

/// The detection engine of one tenant.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    catalogue: Catalogue,
    graph: EntityGraph,
    series: Vec<Series>,
    gauges: Vec<SeriesDetector>,
    counters: Vec<Counter>,
    /// Parts of all series, each series' in a row.
    parts: Vec<PartHandle>,
    entities: Entities,
    points: PointMaker,
    /// Unusual points of this batch.
    unusual_points: Vec<UnusualPoint>,
    /// Newest samples of this batch of series that are watched: index of the watch, time in ms, value.
    watched: Vec<(u32, i64, f64)>,
    point_budget: Budget,
    shift_budget: Budget,
    signals: Signals,
    /// The signals that points were made for, by group and slot; found again after an eviction.
    feeds: BTreeMap<(GroupIndex, SignalSlot), Feed>,
    /// Entities whose requests, or calls to another one, metrics count, with the newest point in ms: their spans are
    /// sampled, and no measure.
    measured: BTreeMap<(Entity, Option<Entity>), i64>,
    spans: SpanState,
    logs: Logs,
    log_resources: LogResources,
    events: Events,
    inferred: Inferred,
    stalls: Stalls,
    limited: LimitedRecords,
    dedup: DedupCache,
    /// Telemetry's times are capped by this time of arrival, in ms.
    cap_ms: i64,
    /// Arrival of this batch, in ms, until it has something new.
    arrived_ms: Option<i64>,
    watermark_ms: i64,
    /// The watermark at the end of the last batch.
    finished_ms: i64,
}

/// An unusual point of one series.
#[derive(Clone, Copy, Debug)]
struct UnusualPoint {
    series: u32,
    at_ms: i64,
    value: f64,
    score: ZScore,
}

impl Engine {
    /// Creates an empty engine.
    pub fn new(config: Config, catalogue: Catalogue) -> Self {
        Self {
            point_budget: Budget::new(config.points_per_second),
            shift_budget: Budget::new(config.shifts_per_second),
            points: PointMaker::new(&config),
            config,
            graph: EntityGraph::new(GraphLimits::default(), &catalogue.entity_rules().aliases),
            catalogue,
            series: Vec::new(),
            gauges: Vec::new(),
            counters: Vec::new(),
            parts: Vec::new(),
            entities: Entities::default(),
            unusual_points: Vec::new(),
            watched: Vec::new(),
            signals: Signals::default(),
            feeds: BTreeMap::new(),
            measured: BTreeMap::new(),
            spans: SpanState::default(),
            logs: Logs::default(),
            log_resources: LogResources::default(),
            events: Events::default(),
            inferred: Inferred::default(),
            stalls: Stalls::default(),
            limited: LimitedRecords::default(),
            dedup: DedupCache::default(),
            cap_ms: i64::MAX,
            arrived_ms: None,
            watermark_ms: i64::MIN,
            finished_ms: i64::MIN,
        }
    }

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
        let meaning = self.catalogue.meaning(labels, metadata);
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
        let watches = watches_of(labels, &meaning, self.catalogue.version_of(labels));
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
