//! The detection role: every batch in the order of the bus, through head and detectors, into the store.
//!
//! What intake decoded comes through the queue; what is missing there (a restart, a full queue, a sender
//! that hung up) is read from the bus again. Either way each offset is processed once, in order, so that a
//! replay finds the same.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use wardroom_bus::Bus;
use wardroom_correlate::{Correlator, Decision, Topology, Trouble};
use wardroom_detect::{Breach, Engine, SignalKind};
use wardroom_domain::{Anomaly, Batch, MetricMetadata, RefusalReason, SeriesId, Severity, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_head::{Denied, Exemplars, Recent, Registry};
use wardroom_sources::{ReadLabels, Resolved};

use crate::clock;
use crate::config::Config;
use crate::intake::Queue;
use crate::metrics as names;

/// How far back the bus is replayed at the start.
const REPLAY: Duration = Duration::from_secs(45 * 60);
/// Metric families of one tenant whose metadata is kept; further ones go undescribed.
const FAMILIES: usize = 20_000;
/// Name of the series that the heartbeat sends through.
pub(crate) const PROBE: &str = "wardroom_probe";
/// The tenant of Wardroom's own readings, kept out of everybody's data.
pub(crate) const SELF: &str = "wardroom.self";

/// What detection hands to the response.
#[derive(Debug)]
pub(crate) enum News {
    /// Unusual points, for the record.
    Anomalies(TenantId, Vec<Anomaly>),
    /// An incident opened or grew.
    Decision(TenantId, Decision),
}

/// One tenant, in two parts under a lock each: intake asks who is there while detection works.
pub(crate) struct Tenant {
    pub(crate) registry: Mutex<Registry>,
    live: Mutex<Live>,
}

/// What detection and response work on.
pub(crate) struct Live {
    pub(crate) recent: Recent,
    pub(crate) exemplars: Exemplars,
    /// Series that have native histograms; these are read from the bus.
    pub(crate) native: BTreeSet<SeriesId>,
    /// What senders say of their metrics, by family.
    pub(crate) metadata: BTreeMap<String, MetricMetadata>,
    pub(crate) engine: Engine,
    pub(crate) correlator: Correlator,
}

/// All tenants.
pub(crate) struct Tenants {
    config: Config,
    tenants: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
    /// When the last probe sample reached the detector, in ms.
    pub(crate) probed_ms: AtomicU64,
    /// Samples from this moment on went through since the start, in ms.
    pub(crate) covered_ms: AtomicI64,
}

impl Tenants {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, tenants: RwLock::default(), probed_ms: AtomicU64::new(0), covered_ms: AtomicI64::new(i64::MAX) }
    }

    /// One tenant's state.
    pub(crate) fn get(&self, tenant: &TenantId) -> Arc<Tenant> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Tenant::new(&self.config, tenant))))
        })
    }

    /// Works with what detection and response know of one tenant.
    pub(crate) fn with<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut Live) -> T) -> T {
        work(&mut lock(&self.get(tenant).live))
    }

    /// The ids of a request's series, and who may not come in.
    pub(crate) fn resolve(&self, tenant: &TenantId, keys: &[u128], labels: &ReadLabels<'_>, limited: bool) -> Resolved {
        if keys.is_empty() {
            return Resolved::default();
        }
        let (ids, denied) = lock(&self.get(tenant).registry).resolve(keys, limited, labels);
        let denial = |denied| match denied {
            Denied::Labels(denial) => denial,
            Denied::Limit => {
                let detail = "the tenant's series limit is reached; drop labels or raise head.max-series";
                (RefusalReason::SeriesLimit, detail.to_owned())
            }
        };
        (ids, denied.into_iter().map(|(at, denied)| (at, denial(denied))).collect())
    }
}

impl Tenant {
    fn new(config: &Config, tenant: &TenantId) -> Self {
        Self {
            registry: Mutex::new(Registry::new(config.head.clone())),
            live: Mutex::new(Live {
                recent: Recent::new(&config.head),
                exemplars: Exemplars::new(config.head.max_exemplars),
                native: BTreeSet::new(),
                metadata: BTreeMap::new(),
                engine: Engine::new(config.detect.clone(), config.entities.clone()),
                correlator: Correlator::new(config.correlate.clone(), tenant.clone()),
            }),
        }
    }

    /// The registry, for reading.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pumps batches for ever; runs on a thread of its own.
pub(crate) struct Pump {
    pub(crate) config: Config,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) budget: InflateBudget,
    pub(crate) news: mpsc::Sender<News>,
    /// The next offset: everything below has been through the detectors.
    pub(crate) next: Arc<AtomicU64>,
}

impl Pump {
    /// Runs until nobody listens any more.
    pub(crate) fn run(self) {
        let mut next = self.first();
        loop {
            self.next.store(next, Ordering::Release);
            let behind = self.bus.end().saturating_sub(next);
            metrics::gauge!(names::DETECT_LAG_RECORDS).set(behind as f64);
            let patience = if behind == 0 { Duration::from_millis(100) } else { Duration::from_millis(20) };
            if let Some((tenant, batch)) = self.queue.take(next, patience) {
                next += 1;
                if self.process(&tenant, &batch).is_err() {
                    return;
                }
            } else if self.bus.end() > next {
                match self.catch_up(next) {
                    Ok(Some(reached)) => next = reached,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "bus cannot be read; detection waits");
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            }
            if self.news.is_closed() {
                return;
            }
        }
    }

    /// The first record young enough to be replayed, by bisection.
    fn first(&self) -> u64 {
        let first = self.find_first();
        // A record before the first may hold samples from the sender's future.
        let ahead = Duration::from_secs(self.config.sources.max_ahead_minutes * 60);
        let covered = clock::now().minus(REPLAY).plus(ahead).millis();
        let covered = if first == self.bus.start() { i64::MIN } else { covered };
        self.tenants.covered_ms.store(covered, Ordering::Release);
        first
    }

    fn find_first(&self) -> u64 {
        let since = clock::now().minus(REPLAY);
        let (mut low, mut high) = (self.bus.start(), self.bus.end());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.bus.read(middle, 1).ok().and_then(|records| records.into_iter().next()) {
                Some(record) if record.envelope.received_at < since => low = record.offset + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn catch_up(&self, next: u64) -> Result<Option<u64>, wardroom_bus::Error> {
        // No further than to what waits decoded already.
        let gap = self.queue.first().filter(|first| *first > next).map_or(256, |first| (first - next).min(256));
        let records = self.bus.read(next, gap as usize)?;
        // Everything up to the end is damaged: nothing to wait for.
        let mut reached = if records.is_empty() { self.bus.end() } else { next };
        for record in records {
            reached = record.offset + 1;
            match wardroom_sources::replay(&record.envelope, &record.body, &self.budget) {
                Ok(mut decoded) => {
                    let tenant = &record.envelope.tenant;
                    let (keys, read) = (decoded.metrics.keys(), |at: usize| decoded.metrics.labels(at));
                    // What was let in once stays in.
                    let (ids, _) = self.tenants.resolve(tenant, keys, &read, false);
                    decoded.metrics.identify(ids);
                    if self.process(tenant, &decoded.resolve()).is_err() {
                        return Ok(None);
                    }
                }
                Err(error) => tracing::error!(offset = record.offset, %error, "bus record cannot be decoded"),
            }
        }
        Ok(Some(reached))
    }

    /// One batch through everything. `Err` if nobody listens any more.
    fn process(&self, tenant: &TenantId, batch: &Batch) -> Result<(), ()> {
        if tenant.as_str() == SELF {
            let newest = batch.metrics.samples.iter().map(|sample| sample.ts_ms).max().unwrap_or_default();
            self.tenants.probed_ms.fetch_max(newest.max(0) as u64, Ordering::AcqRel);
        }
        // A record that trips a detector must not stop the detection of everything else.
        let state = self.tenants.get(tenant);
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| self.judge(&state, batch)));
        let Ok((anomalies, decisions)) = judged else {
            metrics::counter!(names::DETECT_PANICS_TOTAL).increment(1);
            tracing::error!(%tenant, records = batch.len(), "detection panicked on a batch; it was left out");
            return Ok(());
        };
        if !anomalies.is_empty() {
            self.news.blocking_send(News::Anomalies(tenant.clone(), anomalies)).map_err(drop)?;
        }
        for decision in decisions {
            self.news.blocking_send(News::Decision(tenant.clone(), decision)).map_err(drop)?;
        }
        Ok(())
    }

    fn judge(&self, tenant: &Tenant, batch: &Batch) -> (Vec<Anomaly>, Vec<Decision>) {
        let state = &mut *lock(&tenant.live);
        let known = state.engine.known_series();
        let more = batch.metrics.histograms.iter().map(|(series, _)| *series);
        let more = more.chain(batch.metrics.exemplars.iter().map(|(series, _)| *series));
        if batch.metrics.runs.iter().map(|run| run.series).chain(more).any(|series| series.index() >= known) {
            let new = lock(&tenant.registry).since(known).to_vec();
            new.iter().for_each(|labels| state.engine.add_series(labels));
        }
        let known = state.engine.known_series();
        for (id, samples) in batch.metrics.iter().filter(|(id, _)| id.index() < known) {
            state.engine.observe(id, samples);
            samples.iter().for_each(|sample| state.recent.push(id, *sample));
        }
        for (id, histogram) in batch.metrics.histograms.iter().filter(|(id, _)| id.index() < known) {
            state.engine.histogram(*id, histogram);
            state.native.insert(*id);
        }
        for (id, exemplar) in batch.metrics.exemplars.iter().filter(|(id, _)| id.index() < known) {
            state.exemplars.push(*id, exemplar.clone());
        }
        for metadata in &batch.metadata {
            if state.metadata.get(&metadata.family) == Some(metadata) {
                continue;
            }
            if state.metadata.len() < FAMILIES || state.metadata.contains_key(&metadata.family) {
                state.metadata.insert(metadata.family.clone(), metadata.clone());
            }
        }
        batch.logs.iter().for_each(|log| state.engine.log(log));
        batch.deployments.iter().for_each(|deployment| state.engine.deployment(deployment));
        batch.spans.iter().for_each(|span| state.engine.span(span));
        let findings = state.engine.settle();
        let mut decisions = Vec::new();
        let opening: Vec<Breach> = findings.breaches.into_iter().filter(|breach| breach.key.peer.is_none()).collect();
        if !opening.is_empty() {
            let topology = topology(&state.engine);
            for breach in opening {
                let trouble = self.trouble(&breach, &state.engine);
                decisions.extend(state.correlator.observe(&trouble, &topology));
            }
        }
        (findings.anomalies, decisions)
    }

    fn trouble(&self, breach: &Breach, engine: &Engine) -> Trouble {
        let at = Timestamp::from_millis(breach.at_ms);
        let since = Timestamp::from_millis(breach.since_ms);
        let window = Duration::from_secs(self.config.correlate.deployment_minutes * 60);
        let deployments = engine.deployments(since.minus(window), at);
        Trouble {
            service: breach.key.service.clone(),
            signal: breach.key.labels().to_string(),
            words: words(breach),
            since_ms: breach.since_ms,
            at_ms: breach.at_ms,
            severity: if breach.key.kind == SignalKind::ErrorRatio { Severity::Critical } else { Severity::High },
            errors: breach.key.kind == SignalKind::ErrorRatio,
            deployed: deployments.iter().any(|deployment| deployment.service == breach.key.service),
        }
    }
}

/// A breach in a few words.
fn words(breach: &Breach) -> String {
    match breach.key.kind {
        SignalKind::ErrorRatio => format!("{:.0} % of requests fail", breach.value * 100.0),
        SignalKind::LatencyP99 => {
            format!("p99 went from {:.0} to {:.0} ms", breach.expected * 1000.0, breach.value * 1000.0)
        }
        SignalKind::Cpu => format!("CPU at {:.0} % of its limit", breach.value * 100.0),
        SignalKind::Memory => format!("memory at {:.0} % of its limit", breach.value * 100.0),
        SignalKind::RequestRate => format!("{:.1} requests/s", breach.value),
    }
}

/// Who calls whom, from client histograms and spans.
pub(crate) fn topology(engine: &Engine) -> Topology {
    let mut topology = Topology::new();
    for (key, _) in engine.signals() {
        if let Some(peer) = &key.peer {
            topology.entry(key.service.clone()).or_default().insert(peer.clone());
        }
    }
    topology
}
