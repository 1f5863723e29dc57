//! Everything of one tenant that detection remembers, and the way a batch goes through it.

mod renumber;
mod spans;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroI64;

use serde::{Deserialize, Serialize};
use wardroom_domain::anomaly::anomaly_id;
use wardroom_domain::{
    Anomaly, Deployment, EntityRules, Labels, LogEntry, Sample, SeriesId, Severity, Sighting, Timestamp,
};

use self::spans::Spans;
use crate::budget::Budget;
use crate::histogram::{Bound, Increase, quantile};
use crate::logs::Logs;
use crate::seen::Seen;
use crate::signal::{Breach, Signal, SignalKey, SignalKind};
use crate::watch::{Glance, Shift, Watch};
use crate::{Config, SettingChange, TemplateCount};

/// What a batch brought to light.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Unusual points, as far as the budget goes.
    pub anomalies: Vec<Anomaly>,
    /// Signals in sustained breach, each time they were looked at.
    pub breaches: Vec<Breach>,
}

/// The detector of one tenant.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rules: EntityRules,
    series: Vec<Series>,
    gauges: Vec<Watch>,
    counters: Vec<Counter>,
    buckets: Vec<Bucket>,
    cpu_seconds: Vec<Increase>,
    levels: Vec<f64>,
    service_ids: BTreeMap<String, u32>,
    services: Vec<Service>,
    /// Services that moved on in this batch.
    dirty: Vec<u32>,
    /// Unusual points of this batch.
    unusual: Vec<Unusual>,
    points: Budget,
    shifts: Budget,
    signals: BTreeMap<SignalKey, Signal>,
    spans: Spans,
    logs: Logs,
    deployments: Vec<Deployment>,
    seen: Seen,
    watermark_ms: i64,
}

/// Least time between two looks at a service's signals: a scrape may come in several requests.
const TICK_MS: i64 = 500;
/// Buckets that a look may join for each millisecond between two looks, so that what a service costs grows
/// with its samples and not with their square: above 10 000 buckets it is looked at less often.
const BUCKETS_PER_MS: i64 = 20;

/// One series and what is made of it.
#[derive(Debug)]
struct Series {
    labels: Labels,
    service: u32,
    role: Role,
}

/// Where a series' state stands: each kind in a list of its own, so that none is larger than it must be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Role {
    Gauge(u32),
    Counter(u32),
    Bucket(u32),
    CpuSeconds(u32),
    CpuLimit(u32),
    MemoryBytes(u32),
    MemoryLimit(u32),
    /// `_sum` and `_count` of a histogram: its buckets tell more.
    Joined,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    watch: Watch,
    /// The newest reading; before the first there is none.
    last: f64,
    last_ms: Option<NonZeroI64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bucket {
    family: u32,
    bound: Bound,
    failed: bool,
    /// What is counted from one export to the next, added up.
    sum: Option<f64>,
    increase: Increase,
}

/// A histogram of one service, or of its calls to one peer.
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
    process: Vec<Role>,
    buckets: i64,
    ticked_ms: i64,
    newest_ms: i64,
    dirty: bool,
}

/// A point far from its series' past.
#[derive(Clone, Copy, Debug)]
struct Unusual {
    series: u32,
    at_ms: i64,
    value: f64,
    glance: Glance,
}

impl Engine {
    /// An engine that has seen nothing.
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
            unusual: Vec::new(),
            signals: BTreeMap::new(),
            spans: Spans::default(),
            logs: Logs::default(),
            deployments: Vec::new(),
            seen: Seen::default(),
            watermark_ms: i64::MIN,
        }
    }

    /// How many series it was told of.
    pub fn known_series(&self) -> usize {
        self.series.len()
    }

    /// Tells of a new series; ids must come in order from 0.
    pub fn add_series(&mut self, labels: &Labels) {
        let service = self.service(self.rules.service_of(labels).to_owned());
        let name = labels.name();
        let listed = |names: &[String]| names.iter().any(|known| known == name);
        // Each value is what was counted since the one before: it is watched as it is.
        let delta = labels.get("__temporality__") == Some("delta");
        let role = if let (Some(metric), Some(bound)) =
            (name.strip_suffix("_bucket"), labels.get("le").and_then(Bound::parse))
        {
            let peer = self.rules.peer_of(labels).map(str::to_owned);
            Role::Bucket(self.add_bucket(service, metric, peer, bound, self.rules.failed(labels), delta))
        } else if listed(&self.config.cpu_metrics) {
            Role::CpuSeconds(add(&mut self.cpu_seconds, Increase::default()))
        } else if listed(&self.config.cpu_limit_metrics) {
            Role::CpuLimit(add(&mut self.levels, 0.0))
        } else if listed(&self.config.memory_metrics) {
            Role::MemoryBytes(add(&mut self.levels, 0.0))
        } else if listed(&self.config.memory_limit_metrics) {
            Role::MemoryLimit(add(&mut self.levels, 0.0))
        } else if name.ends_with("_sum") || name.ends_with("_count") {
            Role::Joined
        } else if name.ends_with("_total") && !delta {
            Role::Counter(add(&mut self.counters, Counter::default()))
        } else {
            Role::Gauge(add(&mut self.gauges, Watch::default()))
        };
        if let Role::CpuSeconds(_) | Role::CpuLimit(_) | Role::MemoryBytes(_) | Role::MemoryLimit(_) = role {
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
        let families = &mut service.families;
        let known = families.iter().position(|family| family.metric == metric && family.peer == peer);
        let family = known.unwrap_or_else(|| {
            families.push(Family { metric: metric.to_owned(), peer, buckets: Vec::new(), since_ms: None });
            families.len() - 1
        });
        let (sum, increase) = (delta.then_some(0.0), Increase::default());
        let id = add(&mut self.buckets, Bucket { family: family as u32, bound, failed, sum, increase });
        families[family].buckets.push(id);
        id
    }

    fn put_bucket(&mut self, id: u32, service: u32, sample: Sample) {
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

    /// Takes samples of a known series, in the order they came.
    pub fn observe(&mut self, id: SeriesId, samples: &[Sample]) {
        let Some(series) = self.series.get(id.index()) else { return };
        let (role, service) = (series.role, series.service);
        let mut newest_ms = i64::MIN;
        for sample in samples {
            newest_ms = newest_ms.max(sample.ts_ms);
            self.sample(id, role, service, *sample);
        }
        self.moved_on(service, newest_ms);
    }

    /// A service has something newer; it is looked at when the batch ends, if enough time went by.
    fn moved_on(&mut self, service: u32, newest_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(newest_ms);
        let known = &mut self.services[service as usize];
        known.newest_ms = known.newest_ms.max(newest_ms);
        let tick_ms = TICK_MS.max(known.buckets / BUCKETS_PER_MS);
        if !known.dirty && known.newest_ms >= known.ticked_ms + tick_ms {
            known.dirty = true;
            self.dirty.push(service);
        }
    }

    #[inline]
    fn sample(&mut self, id: SeriesId, role: Role, service: u32, sample: Sample) {
        let (at_ms, config) = (sample.ts_ms, &self.config);
        match role {
            Role::Gauge(at) => {
                let watch = &mut self.gauges[at as usize];
                if let Some(glance) = watch.glance(at_ms, sample.value, config) {
                    self.unusual.push(Unusual { series: id.0, at_ms, value: sample.value, glance });
                }
            }
            Role::Counter(at) => {
                let Counter { watch, last, last_ms } = &mut self.counters[at as usize];
                let before_ms = last_ms.map(NonZeroI64::get).filter(|before_ms| at_ms > *before_ms);
                if let Some(before_ms) = before_ms {
                    let increase = if sample.value >= *last { sample.value - *last } else { sample.value };
                    let rate = increase * 1000.0 / (at_ms - before_ms) as f64;
                    if let Some(glance) = watch.glance(at_ms, rate, config) {
                        self.unusual.push(Unusual { series: id.0, at_ms, value: rate, glance });
                    }
                }
                (*last, *last_ms) = (sample.value, NonZeroI64::new(at_ms));
            }
            Role::Bucket(at) => self.put_bucket(at, service, sample),
            Role::CpuSeconds(at) => {
                let window_ms = i64::from(config.window_seconds) * 1000;
                self.cpu_seconds[at as usize].observe(at_ms, sample.value, window_ms, false);
            }
            Role::CpuLimit(at) | Role::MemoryBytes(at) | Role::MemoryLimit(at) => {
                self.levels[at as usize] = sample.value;
            }
            Role::Joined => {}
        }
    }

    /// Whether a request of logs, spans or deployments was here within a day.
    pub fn knows(&self, request: Sighting) -> bool {
        self.seen.knows(request.fingerprint, request.received_at.millis())
    }

    /// Remembers a request of which everything was taken.
    pub fn note(&mut self, request: Sighting) {
        self.seen.note(request.fingerprint, request.received_at.millis());
    }

    /// Takes one log line.
    pub fn log(&mut self, log: &LogEntry) {
        self.watermark_ms = self.watermark_ms.max(log.at.millis());
        if log.service.is_empty() {
            self.logs.observe(self.rules.service_of(&log.labels), log);
        } else {
            self.logs.observe(&log.service, log);
        }
    }

    /// Takes one deployment.
    pub fn deployment(&mut self, deployment: &Deployment) {
        self.watermark_ms = self.watermark_ms.max(deployment.at.millis());
        if !self.deployments.contains(deployment) {
            self.deployments.push(deployment.clone());
        }
        let excess = self.deployments.len().saturating_sub(10_000);
        self.deployments.drain(..excess);
    }

    /// Ends a batch: says what was unusual in it, and looks at the signals of every service that moved on.
    pub fn settle(&mut self) -> Findings {
        let mut findings = Findings::default();
        self.tell_unusual(&mut findings);
        self.settle_spans();
        for id in std::mem::take(&mut self.dirty) {
            let service = &mut self.services[id as usize];
            service.dirty = false;
            service.ticked_ms = service.newest_ms;
            let service = &self.services[id as usize];
            let at_ms = service.newest_ms;
            let mut points = Vec::new();
            for family in &service.families {
                points.extend(self.join(&service.name, family, at_ms));
            }
            points.extend(self.process(service, at_ms));
            for (key, value) in points {
                let signal = self.signals.entry(key.clone()).or_insert_with(|| Signal::new(Watch::default()));
                let (mean, _) = signal.watch.normal();
                let (z, breach) = signal.observe(&key, at_ms, value, &self.config);
                if let Some(z) = z {
                    let point = (at_ms, z, value, mean);
                    findings.anomalies.extend(unusual(&self.config, &key.labels(), &key.service, point));
                }
                findings.anomalies.extend(breach.as_ref().and_then(|breach| threshold(breach, z.is_some())));
                findings.breaches.extend(breach);
            }
        }
        findings
    }

    /// Spends the budget on the farthest points first.
    fn tell_unusual(&mut self, findings: &mut Findings) {
        if self.unusual.is_empty() {
            return;
        }
        self.points.advance(self.watermark_ms);
        self.shifts.advance(self.watermark_ms);
        self.unusual.sort_by(|a, b| b.glance.z.abs().total_cmp(&a.glance.z.abs()));
        for Unusual { series, at_ms, value, glance } in self.unusual.drain(..) {
            let times = glance.z.abs() / self.config.z_warning;
            let told = (glance.shift && self.shifts.take(times)) || self.points.take(times);
            let Some(series) = self.series.get(series as usize).filter(|_| told) else { continue };
            let service = &self.services[series.service as usize].name;
            let point = (at_ms, glance.z, value, glance.mean);
            findings.anomalies.extend(unusual(&self.config, &series.labels, service, point));
        }
    }

    /// The newest moment of any telemetry, in ms.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// All signals.
    pub fn signals(&self) -> impl Iterator<Item = (&SignalKey, &Signal)> {
        self.signals.iter()
    }

    /// One signal.
    pub fn signal(&self, key: &SignalKey) -> Option<&Signal> {
        self.signals.get(key)
    }

    /// Series of a service that have been unusual for at least `points` points, farthest first.
    pub fn shifts(&self, points: u32) -> Vec<(String, Shift)> {
        let mut shifts: Vec<(String, Shift)> = self
            .series
            .iter()
            .filter_map(|series| {
                let watch = match series.role {
                    Role::Gauge(at) => &self.gauges[at as usize],
                    Role::Counter(at) => &self.counters[at as usize].watch,
                    _ => return None,
                };
                let run = watch.run().filter(|run| run.points >= points)?;
                let service = self.services[series.service as usize].name.clone();
                Some((service, Shift { labels: series.labels.clone(), run }))
            })
            .collect();
        shifts.sort_by(|a, b| b.1.run.z().abs().total_cmp(&a.1.run.z().abs()));
        shifts
    }

    /// Templates at or above a severity in a stretch of time, most frequent first.
    pub fn templates(&self, from: Timestamp, to: Timestamp, severity: Severity) -> Vec<TemplateCount> {
        self.logs.top(from.millis(), to.millis(), severity)
    }

    /// Announced setting changes in a stretch of time.
    pub fn setting_changes(&self, from: Timestamp, to: Timestamp) -> Vec<SettingChange> {
        self.logs.changes(from.millis(), to.millis())
    }

    /// Deployments in a stretch of time.
    pub fn deployments(&self, from: Timestamp, to: Timestamp) -> Vec<Deployment> {
        self.deployments.iter().filter(|deployment| (from..=to).contains(&deployment.at)).cloned().collect()
    }

    /// Rate, error ratio and p99 of one joined histogram.
    fn join(&self, service: &str, family: &Family, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let Some(unit) = unit_seconds(&family.metric) else { return Vec::new() };
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let mut buckets: BTreeMap<Bound, f64> = BTreeMap::new();
        let (mut failed_requests, mut span) = (0.0, 0.0_f64);
        for id in &family.buckets {
            let Bucket { bound, failed, increase, .. } = &self.buckets[*id as usize];
            let (count, seconds) = increase.over(at_ms, window_ms);
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

    /// CPU and memory share of the limit, the worst instance's.
    fn process(&self, service: &Service, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let (mut cpu, mut cpu_limit, mut memory, mut memory_limit) = (None, 0.0_f64, None, 0.0_f64);
        for role in &service.process {
            match *role {
                Role::CpuSeconds(at) => {
                    let (seconds, span) = self.cpu_seconds[at as usize].over(at_ms, window_ms);
                    if span >= f64::from(self.config.window_seconds) / 2.0 {
                        cpu = Some(cpu.unwrap_or(0.0_f64).max(seconds / span));
                    }
                }
                Role::CpuLimit(at) => cpu_limit = cpu_limit.max(self.levels[at as usize]),
                Role::MemoryBytes(at) => memory = Some(memory.unwrap_or(0.0_f64).max(self.levels[at as usize])),
                Role::MemoryLimit(at) => memory_limit = memory_limit.max(self.levels[at as usize]),
                Role::Gauge(_) | Role::Counter(_) | Role::Bucket(_) | Role::Joined => {}
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

/// Puts something at the end of a list and says where.
fn add<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    list.len() as u32 - 1
}

fn unit_seconds(metric: &str) -> Option<f64> {
    let has = |suffixes: &[&str]| suffixes.iter().any(|suffix| metric.ends_with(suffix));
    if has(&["_seconds", "_duration", "_latency"]) {
        Some(1.0)
    } else if has(&["_milliseconds", "_ms", "_millis"]) {
        Some(0.001)
    } else {
        None
    }
}

fn unusual(config: &Config, labels: &Labels, service: &str, point: (i64, f64, f64, f64)) -> Option<Anomaly> {
    let (at_ms, z, value, expected) = point;
    let severity = Severity::of_z(z, (config.z_warning, config.z_high, config.z_critical))?;
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

/// The anomaly of a threshold breach (seed 003: a warning, critical from 95 % on).
fn threshold(breach: &Breach, has_z: bool) -> Option<Anomaly> {
    if breach.key.peer.is_some() || (breach.key.kind == SignalKind::LatencyP99 && has_z) {
        return None;
    }
    let labels = breach.key.labels();
    let at = Timestamp::from_millis(breach.at_ms);
    let critical = breach.value >= 0.95 && matches!(breach.key.kind, SignalKind::Cpu | SignalKind::Memory);
    Some(Anomaly {
        id: anomaly_id("threshold", &labels, at),
        series: labels,
        service: breach.key.service.clone(),
        detector: "threshold".into(),
        score: 0.9,
        z: 0.0,
        severity: if critical { Severity::Critical } else { Severity::Warning },
        value: breach.value,
        expected: breach.bad_above,
        at,
    })
}
