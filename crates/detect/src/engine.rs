//! Everything of one tenant that detection remembers, and the way a batch goes through it.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::anomaly::anomaly_id;
use wardroom_domain::{Anomaly, Deployment, EntityRules, Labels, LogEntry, Sample, Severity, Timestamp};

use crate::histogram::{Bound, Increase, quantile};
use crate::logs::Logs;
use crate::signal::{Breach, Signal, SignalKey, SignalKind};
use crate::watch::{Shift, Watch};
use crate::{Config, SettingChange, TemplateCount};

/// What a batch brought to light.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Single unusual points.
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
    services: BTreeMap<String, Service>,
    signals: BTreeMap<SignalKey, Signal>,
    logs: Logs,
    deployments: Vec<Deployment>,
    watermark_ms: i64,
    dirty: BTreeSet<String>,
}

/// One series and what is made of it.
#[derive(Debug)]
struct Series {
    labels: Labels,
    service: String,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Gauge {
        watch: Watch,
    },
    Counter {
        watch: Watch,
        last: Option<(i64, f64)>,
    },
    Bucket {
        family: Family,
        bound: Bound,
        failed: bool,
        increase: Increase,
    },
    CpuSeconds {
        increase: Increase,
    },
    CpuLimit {
        value: f64,
    },
    MemoryBytes {
        value: f64,
    },
    MemoryLimit {
        value: f64,
    },
    /// `_sum` and `_count` of a histogram: its buckets tell more.
    Joined,
}

/// A histogram of one service, or of its calls to one peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Family {
    metric: String,
    peer: Option<String>,
}

#[derive(Debug, Default)]
struct Service {
    families: BTreeMap<Family, Members>,
    process: Vec<usize>,
    ticked_ms: i64,
    newest_ms: i64,
}

#[derive(Debug, Default)]
struct Members {
    series: Vec<usize>,
    since_ms: Option<i64>,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: Config, rules: EntityRules) -> Self {
        Self {
            config,
            rules,
            series: Vec::new(),
            services: BTreeMap::new(),
            signals: BTreeMap::new(),
            logs: Logs::default(),
            deployments: Vec::new(),
            watermark_ms: i64::MIN,
            dirty: BTreeSet::new(),
        }
    }

    /// Tells of a new series; ids must come in order from 0.
    pub fn add_series(&mut self, labels: &Labels) {
        let id = self.series.len();
        let service = self.rules.service_of(labels).to_owned();
        let name = labels.name();
        let listed = |names: &[String]| names.iter().any(|known| known == name);
        let role = if let (Some(metric), Some(bound)) =
            (name.strip_suffix("_bucket"), labels.get("le").and_then(Bound::parse))
        {
            let peer = self.rules.peer_of(labels).map(str::to_owned);
            let family = Family { metric: metric.to_owned(), peer };
            let failed = self.rules.failed(labels);
            let known = self.services.entry(service.clone()).or_default();
            known.families.entry(family.clone()).or_default().series.push(id);
            Role::Bucket { family, bound, failed, increase: Increase::default() }
        } else if listed(&self.config.cpu_metrics) {
            Role::CpuSeconds { increase: Increase::default() }
        } else if listed(&self.config.cpu_limit_metrics) {
            Role::CpuLimit { value: 0.0 }
        } else if listed(&self.config.memory_metrics) {
            Role::MemoryBytes { value: 0.0 }
        } else if listed(&self.config.memory_limit_metrics) {
            Role::MemoryLimit { value: 0.0 }
        } else if name.ends_with("_sum") || name.ends_with("_count") {
            Role::Joined
        } else if name.ends_with("_total") {
            Role::Counter { watch: Watch::default(), last: None }
        } else {
            Role::Gauge { watch: Watch::default() }
        };
        let process = !matches!(role, Role::Bucket { .. } | Role::Gauge { .. } | Role::Counter { .. } | Role::Joined);
        if process && !service.is_empty() {
            self.services.entry(service.clone()).or_default().process.push(id);
        }
        self.series.push(Series { labels: labels.clone(), service, role });
    }

    /// Takes one sample of a known series.
    pub fn sample(&mut self, id: usize, sample: Sample, findings: &mut Findings) {
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let Some(series) = self.series.get_mut(id) else { return };
        let at_ms = sample.ts_ms;
        self.watermark_ms = self.watermark_ms.max(at_ms);
        let mut observed = None;
        match &mut series.role {
            Role::Gauge { watch } => {
                let (mean, _) = watch.normal();
                observed = watch.observe(at_ms, sample.value, &self.config).map(|z| (z, sample.value, mean));
            }
            Role::Counter { watch, last } => {
                if let Some((before_ms, before)) = *last
                    && at_ms > before_ms
                {
                    let increase = if sample.value >= before { sample.value - before } else { sample.value };
                    let rate = increase * 1000.0 / (at_ms - before_ms) as f64;
                    let (mean, _) = watch.normal();
                    observed = watch.observe(at_ms, rate, &self.config).map(|z| (z, rate, mean));
                }
                *last = Some((at_ms, sample.value));
            }
            Role::Bucket { family, increase, .. } => {
                let members = self.services.get_mut(&series.service).and_then(|s| s.families.get_mut(family));
                let since_ms = members.map_or(at_ms, |members| *members.since_ms.get_or_insert(at_ms));
                increase.observe(at_ms, sample.value, window_ms, since_ms < at_ms);
            }
            Role::CpuSeconds { increase } => increase.observe(at_ms, sample.value, window_ms, false),
            Role::CpuLimit { value } | Role::MemoryBytes { value } | Role::MemoryLimit { value } => {
                *value = sample.value;
            }
            Role::Joined => {}
        }
        if let Some(service) = self.services.get_mut(&series.service) {
            service.newest_ms = service.newest_ms.max(at_ms);
            if service.newest_ms > service.ticked_ms && !self.dirty.contains(&series.service) {
                self.dirty.insert(series.service.clone());
            }
        }
        if let Some((z, value, mean)) = observed {
            let series = &self.series[id];
            findings.anomalies.extend(unusual(&self.config, &series.labels, &series.service, at_ms, z, value, mean));
        }
    }

    /// Takes one log line.
    pub fn log(&mut self, log: &LogEntry) {
        self.watermark_ms = self.watermark_ms.max(log.at.millis());
        self.logs.observe(log);
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

    /// Ends a batch: looks at the signals of every service that moved on.
    pub fn settle(&mut self, findings: &mut Findings) {
        for name in std::mem::take(&mut self.dirty) {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let at_ms = service.newest_ms;
            service.ticked_ms = at_ms;
            let service = &self.services[&name];
            let mut points = Vec::new();
            for (family, members) in &service.families {
                points.extend(self.join(&name, family, members, at_ms));
            }
            points.extend(self.process(&name, service, at_ms));
            for (key, value) in points {
                let signal = self.signals.entry(key.clone()).or_insert_with(|| Signal::new(Watch::default()));
                let (mean, _) = signal.watch.normal();
                let (z, breach) = signal.observe(&key, at_ms, value, &self.config);
                if let Some(z) = z {
                    let labels = key.labels();
                    findings.anomalies.extend(unusual(&self.config, &labels, &key.service, at_ms, z, value, mean));
                }
                findings.anomalies.extend(breach.as_ref().and_then(|breach| threshold(breach, z.is_some())));
                findings.breaches.extend(breach);
            }
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
                let (Role::Gauge { watch } | Role::Counter { watch, .. }) = &series.role else { return None };
                let run = watch.run.filter(|run| run.points >= points)?;
                Some((series.service.clone(), Shift { labels: series.labels.clone(), run }))
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
    fn join(&self, service: &str, family: &Family, members: &Members, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let Some(unit) = unit_seconds(&family.metric) else { return Vec::new() };
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let mut buckets: BTreeMap<Bound, f64> = BTreeMap::new();
        let (mut failed_requests, mut span) = (0.0, 0.0_f64);
        for id in &members.series {
            let Role::Bucket { bound, failed, increase, .. } = &self.series[*id].role else { continue };
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
    fn process(&self, name: &str, service: &Service, at_ms: i64) -> Vec<(SignalKey, f64)> {
        let window_ms = i64::from(self.config.window_seconds) * 1000;
        let (mut cpu, mut cpu_limit, mut memory, mut memory_limit) = (None, 0.0_f64, None, 0.0_f64);
        for id in &service.process {
            match &self.series[*id].role {
                Role::CpuSeconds { increase } => {
                    let (seconds, span) = increase.over(at_ms, window_ms);
                    if span >= f64::from(self.config.window_seconds) / 2.0 {
                        cpu = Some(cpu.unwrap_or(0.0_f64).max(seconds / span));
                    }
                }
                Role::CpuLimit { value } => cpu_limit = cpu_limit.max(*value),
                Role::MemoryBytes { value } => memory = Some(memory.unwrap_or(0.0_f64).max(*value)),
                Role::MemoryLimit { value } => memory_limit = memory_limit.max(*value),
                Role::Gauge { .. } | Role::Counter { .. } | Role::Bucket { .. } | Role::Joined => {}
            }
        }
        let share = |kind: SignalKind, used: Option<f64>, limit: f64| {
            let used = used.filter(|_| limit > 0.0)?;
            let metric = kind.as_str().to_owned();
            Some((SignalKey { service: name.to_owned(), peer: None, kind, metric }, used / limit))
        };
        [share(SignalKind::Cpu, cpu, cpu_limit), share(SignalKind::Memory, memory, memory_limit)]
            .into_iter()
            .flatten()
            .collect()
    }
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

fn unusual(
    config: &Config,
    labels: &Labels,
    service: &str,
    at_ms: i64,
    z: f64,
    value: f64,
    expected: f64,
) -> Option<Anomaly> {
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
