//! The detection engine: all detection state of one tenant, and how a batch is processed.

mod anomalies;
mod forget;
mod renumber;
mod span_state;
mod spans;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroI64;
use std::sync::MutexGuard;

use serde::{Deserialize, Serialize};
use wardroom_domain::{
    Anomaly, Deployment, EntityRules, Labels, LogEntry, RequestFingerprint, Sample, SeriesId, Severity, Timestamp,
};

use self::anomalies::{threshold_anomaly, zscore_anomaly};
use self::span_state::SpanState;
use crate::budget::Budget;
use crate::dedup::DedupCache;
use crate::deployments::Deployments;
use crate::histogram::{Bound, Increase, quantile};
use crate::logs::Logs;
use crate::series_detector::{LevelShift, SeriesDetector, ZScore};
use crate::signal::{Breach, Signal, SignalKey, SignalKind};
use crate::signals::Signals;
use crate::view::EngineView;
use crate::{Config, SettingChange, TemplateCount};

/// The result of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchFindings {
    /// Unusual points admitted by the budget.
    pub anomalies: Vec<Anomaly>,
    /// Signals in sustained breach, once per evaluation.
    pub breaches: Vec<Breach>,
    /// Records of the batch that a limit kept out of detection.
    pub limited: LimitedRecords,
}

/// Numbers of records that a limit kept out of a part of detection; they are stored all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitedRecords {
    /// Spans of services beyond the limit.
    pub span_services: u64,
    /// Durations of services and calls beyond the limit.
    pub span_families: u64,
    /// Native histograms of series beyond the limit.
    pub native_histograms: u64,
    /// Log lines without a template of their own.
    pub log_templates: u64,
}

/// The detection engine of one tenant.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rules: EntityRules,
    series: Vec<Series>,
    gauges: Vec<SeriesDetector>,
    counters: Vec<Counter>,
    buckets: Vec<Bucket>,
    cpu_seconds: Vec<Increase>,
    levels: Vec<f64>,
    service_ids: BTreeMap<String, u32>,
    services: Vec<Service>,
    /// Services to evaluate at the end of this batch.
    dirty: Vec<u32>,
    /// Unusual points of this batch.
    unusual_points: Vec<UnusualPoint>,
    points: Budget,
    shifts: Budget,
    signals: Signals,
    spans: SpanState,
    logs: Logs,
    deployments: Deployments,
    limited: LimitedRecords,
    dedup: DedupCache,
    watermark_ms: i64,
    /// The watermark at the end of the last batch.
    finished_ms: i64,
}

/// Minimum time between two evaluations of a service: a scrape may arrive in several requests.
const MIN_EVALUATION_INTERVAL_MS: i64 = 500;
/// Buckets that an evaluation may merge per millisecond since the last one, so that the cost of a service grows with
/// its samples and not with their square: services with more than 10 000 buckets are evaluated less often.
const BUCKETS_PER_MS: i64 = 20;

/// One series and its role.
#[derive(Debug)]
struct Series {
    labels: Labels,
    service: u32,
    role: SeriesRole,
}

/// How a series is used, with the index of its state. Each role has its own list, so that no state is larger than it
/// must be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum SeriesRole {
    Gauge(u32),
    Counter(u32),
    Bucket(u32),
    CpuSeconds(u32),
    CpuLimit(u32),
    MemoryBytes(u32),
    MemoryLimit(u32),
    /// `_sum` and `_count` of a histogram: ignored, its buckets are used.
    Ignored,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    detector: SeriesDetector,
    /// Newest reading; valid if `last_ms` is set.
    last: f64,
    last_ms: Option<NonZeroI64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bucket {
    family: u32,
    bound: Bound,
    failed: bool,
    /// Running sum of a delta counter; `None` for a cumulative one.
    sum: Option<f64>,
    increase: Increase,
}

/// A histogram of one service, or of its calls to one callee.
#[derive(Debug, Serialize, Deserialize)]
struct Family {
    metric: String,
    peer: Option<String>,
    buckets: Vec<u32>,
    since_ms: Option<i64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Service {
    name: String,
    families: Vec<Family>,
    /// Index in `families` by metric and callee; rebuilt if its size differs.
    #[serde(skip)]
    family_ids: BTreeMap<(String, Option<String>), u32>,
    process: Vec<SeriesRole>,
    buckets: i64,
    evaluated_ms: i64,
    newest_ms: i64,
    dirty: bool,
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
    pub fn new(config: Config, rules: EntityRules) -> Self {
        Self {
            points: Budget::new(config.points_per_second),
            shifts: Budget::new(config.shifts_per_second),
            config,
            rules,
            series: Vec::new(),
            gauges: Vec::new(),
            counters: Vec::new(),
            buckets: Vec::new(),
            cpu_seconds: Vec::new(),
            levels: Vec::new(),
            service_ids: BTreeMap::new(),
            services: Vec::new(),
            dirty: Vec::new(),
            unusual_points: Vec::new(),
            signals: Signals::default(),
            spans: SpanState::default(),
            logs: Logs::default(),
            deployments: Deployments::default(),
            limited: LimitedRecords::default(),
            dedup: DedupCache::default(),
            watermark_ms: i64::MIN,
            finished_ms: i64::MIN,
        }
    }

    /// Returns the number of series.
    pub fn known_series(&self) -> usize {
        self.series.len()
    }

    /// Adds a series; ids are assigned in call order, from 0.
    pub fn add_series(&mut self, labels: &Labels) {
        let service = self.service(self.rules.service_of(labels).to_owned());
        let name = labels.name();
        let is_named_in = |names: &[String]| names.iter().any(|known| known == name);
        // A delta counter: each value is already an increase, and is scored like a gauge.
        let delta = labels.get("__temporality__") == Some("delta");
        let role = if let (Some(metric), Some(bound)) =
            (name.strip_suffix("_bucket"), labels.get("le").and_then(Bound::parse))
        {
            let peer = self.rules.peer_of(labels).map(str::to_owned);
            SeriesRole::Bucket(self.add_bucket(service, metric, peer, bound, self.rules.is_failure(labels), delta))
        } else if is_named_in(&self.config.cpu_metrics) {
            SeriesRole::CpuSeconds(add(&mut self.cpu_seconds, Increase::default()))
        } else if is_named_in(&self.config.cpu_limit_metrics) {
            SeriesRole::CpuLimit(add(&mut self.levels, 0.0))
        } else if is_named_in(&self.config.memory_metrics) {
            SeriesRole::MemoryBytes(add(&mut self.levels, 0.0))
        } else if is_named_in(&self.config.memory_limit_metrics) {
            SeriesRole::MemoryLimit(add(&mut self.levels, 0.0))
        } else if name.ends_with("_sum") || name.ends_with("_count") {
            SeriesRole::Ignored
        } else if name.ends_with("_total") && !delta {
            SeriesRole::Counter(add(&mut self.counters, Counter::default()))
        } else {
            SeriesRole::Gauge(add(&mut self.gauges, SeriesDetector::default()))
        };
        if let SeriesRole::CpuSeconds(_)
        | SeriesRole::CpuLimit(_)
        | SeriesRole::MemoryBytes(_)
        | SeriesRole::MemoryLimit(_) = role
        {
            let service = &mut self.services[service as usize];
            if !service.name.is_empty() {
                service.process.push(role);
            }
        }
        self.series.push(Series { labels: labels.clone(), service, role });
    }

    fn service(&mut self, name: String) -> u32 {
        let services = &mut self.services;
        *self
            .service_ids
            .entry(name)
            .or_insert_with_key(|name| add(services, Service { name: name.clone(), ..Service::default() }))
    }

    fn add_bucket(
        &mut self,
        service: u32,
        metric: &str,
        peer: Option<String>,
        bound: Bound,
        failed: bool,
        delta: bool,
    ) -> u32 {
        let service = &mut self.services[service as usize];
        service.buckets += 1;
        let family = service.family(metric, peer);
        let (sum, increase) = (delta.then_some(0.0), Increase::default());
        let id = add(&mut self.buckets, Bucket { family, bound, failed, sum, increase });
        service.families[family as usize].buckets.push(id);
        id
    }

    fn observe_bucket(&mut self, id: u32, service: u32, sample: Sample) {
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let bucket = &mut self.buckets[id as usize];
        let family = &mut self.services[service as usize].families[bucket.family as usize];
        let since_ms = *family.since_ms.get_or_insert(sample.ts_ms);
        let value = match &mut bucket.sum {
            None => sample.value,
            Some(sum) => {
                *sum += sample.value.max(0.0);
                *sum
            }
        };
        bucket.increase.observe(sample.ts_ms, value, window_ms, since_ms < sample.ts_ms);
    }

    /// Adds samples of a known series, in arrival order.
    pub fn observe(&mut self, id: SeriesId, samples: &[Sample]) {
        let Some(series) = self.series.get(id.index()) else { return };
        let (role, service) = (series.role, series.service);
        let mut newest_ms = i64::MIN;
        for sample in samples {
            newest_ms = newest_ms.max(sample.ts_ms);
            self.observe_sample(id, role, service, *sample);
        }
        self.mark_updated(service, newest_ms);
    }

    /// Records that a service has newer data; it is evaluated at the end of the batch if the interval has passed.
    fn mark_updated(&mut self, service: u32, newest_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(newest_ms);
        let known = &mut self.services[service as usize];
        known.newest_ms = known.newest_ms.max(newest_ms);
        let interval_ms = MIN_EVALUATION_INTERVAL_MS.max(known.buckets / BUCKETS_PER_MS);
        if !known.dirty && known.newest_ms >= known.evaluated_ms + interval_ms {
            known.dirty = true;
            self.dirty.push(service);
        }
    }

    #[inline]
    fn observe_sample(&mut self, id: SeriesId, role: SeriesRole, service: u32, sample: Sample) {
        let (at_ms, config) = (sample.ts_ms, &self.config);
        match role {
            SeriesRole::Gauge(index) => {
                let detector = &mut self.gauges[index as usize];
                if let Some(score) = detector.observe_unusual(at_ms, sample.value, config) {
                    self.unusual_points.push(UnusualPoint { series: id.0, at_ms, value: sample.value, score });
                }
            }
            SeriesRole::Counter(index) => {
                let Counter { detector, last, last_ms } = &mut self.counters[index as usize];
                let before_ms = last_ms.map(NonZeroI64::get).filter(|before_ms| at_ms > *before_ms);
                if let Some(before_ms) = before_ms {
                    let increase = if sample.value >= *last { sample.value - *last } else { sample.value };
                    let rate = increase * 1000.0 / (at_ms - before_ms) as f64;
                    if let Some(score) = detector.observe_unusual(at_ms, rate, config) {
                        self.unusual_points.push(UnusualPoint { series: id.0, at_ms, value: rate, score });
                    }
                }
                (*last, *last_ms) = (sample.value, NonZeroI64::new(at_ms));
            }
            SeriesRole::Bucket(index) => self.observe_bucket(index, service, sample),
            SeriesRole::CpuSeconds(index) => {
                let window_ms = i64::from(config.window_seconds) * 1000;
                self.cpu_seconds[index as usize].observe(at_ms, sample.value, window_ms, false);
            }
            SeriesRole::CpuLimit(index) | SeriesRole::MemoryBytes(index) | SeriesRole::MemoryLimit(index) => {
                self.levels[index as usize] = sample.value;
            }
            SeriesRole::Ignored => {}
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

    /// Adds one log line.
    pub fn observe_log(&mut self, log: &LogEntry) {
        self.watermark_ms = self.watermark_ms.max(log.at.millis());
        let service = if log.service.is_empty() { self.rules.service_of(&log.labels) } else { &log.service };
        self.limited.log_templates += u64::from(!self.logs.observe(service, log));
    }

    /// Adds one deployment.
    pub fn observe_deployment(&mut self, deployment: &Deployment) {
        self.watermark_ms = self.watermark_ms.max(deployment.at.millis());
        self.deployments.insert(deployment);
    }

    /// Ends a batch: reports its unusual points and evaluates the signals of every service with newer data.
    pub fn finish_batch(&mut self) -> BatchFindings {
        let mut findings = BatchFindings::default();
        self.report_unusual(&mut findings);
        self.flush_spans();
        for id in std::mem::take(&mut self.dirty) {
            let service = &mut self.services[id as usize];
            service.dirty = false;
            service.evaluated_ms = service.newest_ms;
            let service = &self.services[id as usize];
            let at_ms = service.newest_ms;
            let mut points = Vec::new();
            for family in &service.families {
                points.extend(self.histogram_signals(&service.name, family, at_ms));
            }
            points.extend(self.resource_signals(service, at_ms));
            for (key, value) in points {
                let mut signal = self.signals.get_or_insert(&key);
                let (mean, _) = signal.detector.baseline();
                let (z, breach) = signal.observe(&key, at_ms, value, &self.config);
                if let Some(z) = z {
                    let point = (at_ms, z, value, mean);
                    findings.anomalies.extend(zscore_anomaly(&self.config, &key.labels(), &key.service, point));
                }
                findings.anomalies.extend(breach.as_ref().and_then(|breach| threshold_anomaly(breach, z.is_some())));
                findings.breaches.extend(breach);
            }
        }
        let before_ms = std::mem::replace(&mut self.finished_ms, self.watermark_ms);
        self.evict_old(before_ms);
        findings.limited = std::mem::take(&mut self.limited);
        findings
    }

    /// Reports unusual points within the budget, most extreme first.
    fn report_unusual(&mut self, findings: &mut BatchFindings) {
        if self.unusual_points.is_empty() {
            return;
        }
        self.points.advance(self.watermark_ms);
        self.shifts.advance(self.watermark_ms);
        self.unusual_points.sort_by(|a, b| b.score.z.abs().total_cmp(&a.score.z.abs()));
        for UnusualPoint { series, at_ms, value, score } in self.unusual_points.drain(..) {
            let band_ratio = score.z.abs() / self.config.z_warning;
            let is_admitted = (score.shift && self.shifts.try_spend(band_ratio)) || self.points.try_spend(band_ratio);
            let Some(series) = self.series.get(series as usize).filter(|_| is_admitted) else { continue };
            let service = &self.services[series.service as usize].name;
            let point = (at_ms, score.z, value, score.mean);
            findings.anomalies.extend(zscore_anomaly(&self.config, &series.labels, service, point));
        }
    }

    /// Returns the newest event time of all telemetry, in ms.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// Returns all signals.
    pub fn signals(&self) -> impl Iterator<Item = (&SignalKey, MutexGuard<'_, Signal>)> {
        self.signals.iter()
    }

    /// Returns a view for readers.
    pub fn view(&self) -> EngineView {
        EngineView {
            signals: self.signals.clone(),
            deployments: self.deployments.clone(),
            watermark_ms: self.watermark_ms,
        }
    }

    /// Returns the series in an excursion of at least `points` points with their service, most extreme first; of the
    /// services that `includes` accepts.
    pub fn level_shifts(&self, points: u32, includes: impl Fn(&str) -> bool) -> Vec<(String, LevelShift)> {
        let mut shifts: Vec<(String, LevelShift)> = self
            .series
            .iter()
            .filter_map(|series| {
                let detector = match series.role {
                    SeriesRole::Gauge(index) => &self.gauges[index as usize],
                    SeriesRole::Counter(index) => &self.counters[index as usize].detector,
                    _ => return None,
                };
                let excursion = detector.excursion().filter(|excursion| excursion.points >= points)?;
                let service = &self.services[series.service as usize].name;
                let shift = || LevelShift { labels: series.labels.clone(), excursion };
                includes(service).then(|| (service.clone(), shift()))
            })
            .collect();
        shifts.sort_by(|a, b| b.1.excursion.z().abs().total_cmp(&a.1.excursion.z().abs()));
        shifts
    }

    /// Returns the log templates at or above a severity in a time range, most frequent first; of the services that
    /// `includes` accepts.
    pub fn templates(
        &self,
        from: Timestamp,
        to: Timestamp,
        severity: Severity,
        includes: impl Fn(&str) -> bool,
    ) -> Vec<TemplateCount> {
        self.logs.most_frequent((from.millis(), to.millis()), severity, includes)
    }

    /// Returns the announced setting changes in a time range.
    pub fn setting_changes(&self, from: Timestamp, to: Timestamp) -> Vec<SettingChange> {
        self.logs.changes(from.millis(), to.millis())
    }

    /// Returns the deployments in a time range, oldest first.
    pub fn deployments(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Deployment> {
        self.deployments.between(from, to)
    }

    /// Computes rate, error ratio and p99 of one merged histogram.
    fn histogram_signals(&self, service: &str, family: &Family, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let Some(unit) = unit_seconds(&family.metric) else { return Vec::new() };
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let mut buckets: BTreeMap<Bound, f64> = BTreeMap::new();
        let (mut failed_requests, mut span) = (0.0, 0.0_f64);
        for id in &family.buckets {
            let Bucket { bound, failed, increase, .. } = &self.buckets[*id as usize];
            let (count, seconds) = increase.over_window(at_ms, window_ms);
            *buckets.entry(*bound).or_default() += count;
            span = span.max(seconds);
            if *failed && *bound == Bound::INFINITE {
                failed_requests += count;
            }
        }
        let requests = buckets.get(&Bound::INFINITE).copied().unwrap_or_default();
        let key = |kind| SignalKey {
            service: service.to_owned(),
            peer: family.peer.clone(),
            kind,
            metric: family.metric.clone(),
        };
        let mut points = Vec::new();
        if span > 0.0 {
            points.push((key(SignalKind::RequestRate), requests / span));
        }
        if requests >= self.config.min_requests {
            points.push((key(SignalKind::ErrorRatio), failed_requests / requests));
            points.extend(quantile(0.99, &buckets).map(|p99| (key(SignalKind::LatencyP99), p99 * unit)));
        }
        points
    }

    /// Computes CPU and memory use as a share of the limit, of the worst instance.
    fn resource_signals(&self, service: &Service, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let (mut cpu, mut cpu_limit, mut memory, mut memory_limit) = (None, 0.0_f64, None, 0.0_f64);
        for role in &service.process {
            match *role {
                SeriesRole::CpuSeconds(index) => {
                    let (seconds, span) = self.cpu_seconds[index as usize].over_window(at_ms, window_ms);
                    if span >= f64::from(self.config.window_seconds) / 2.0 {
                        cpu = Some(cpu.unwrap_or(0.0_f64).max(seconds / span));
                    }
                }
                SeriesRole::CpuLimit(index) => cpu_limit = cpu_limit.max(self.levels[index as usize]),
                SeriesRole::MemoryBytes(index) => {
                    memory = Some(memory.unwrap_or(0.0_f64).max(self.levels[index as usize]))
                }
                SeriesRole::MemoryLimit(index) => memory_limit = memory_limit.max(self.levels[index as usize]),
                SeriesRole::Gauge(_) | SeriesRole::Counter(_) | SeriesRole::Bucket(_) | SeriesRole::Ignored => {}
            }
        }
        let share = |kind: SignalKind, used: Option<f64>, limit: f64| {
            let used = used.filter(|_| limit > 0.0)?;
            let metric = kind.as_str().to_owned();
            Some((SignalKey { service: service.name.clone(), peer: None, kind, metric }, used / limit))
        };
        [share(SignalKind::Cpu, cpu, cpu_limit), share(SignalKind::Memory, memory, memory_limit)]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Service {
    /// Returns the index of a histogram family; adds it if it is new.
    fn family(&mut self, metric: &str, peer: Option<String>) -> u32 {
        if self.family_ids.len() != self.families.len() {
            let ids = self.families.iter().zip(0..);
            self.family_ids = ids.map(|(family, id)| ((family.metric.clone(), family.peer.clone()), id)).collect();
        }
        let families = &mut self.families;
        *self.family_ids.entry((metric.to_owned(), peer)).or_insert_with_key(|(metric, peer)| {
            let (metric, peer) = (metric.clone(), peer.clone());
            add(families, Family { metric, peer, buckets: Vec::new(), since_ms: None })
        })
    }
}

/// Appends an item and returns its index.
fn add<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    list.len() as u32 - 1
}

fn unit_seconds(metric: &str) -> Option<f64> {
    let ends_with_any = |suffixes: &[&str]| suffixes.iter().any(|suffix| metric.ends_with(suffix));
    if ends_with_any(&["_seconds", "_duration", "_latency"]) {
        Some(1.0)
    } else if ends_with_any(&["_milliseconds", "_ms", "_millis"]) {
        Some(0.001)
    } else {
        None
    }
}
