//! The detection role: every batch in the order of the bus, through head and detectors, into the store.
//!
//! What intake decoded comes through the queue; what is missing there (a restart, a full queue, a sender
//! that hung up) is read from the bus again. Either way each offset is processed once, in order, so that a
//! replay finds the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use wardroom_bus::Bus;
use wardroom_correlate::{Correlator, Decision, Topology, Trouble};
use wardroom_detect::{Breach, Engine, Findings, SignalKind};
use wardroom_domain::{Anomaly, Batch, Labels, Severity, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_head::Head;

use crate::clock;
use crate::config::Config;
use crate::intake::Queue;
use crate::metrics as names;

/// How far back the bus is replayed at the start.
const REPLAY: Duration = Duration::from_secs(45 * 60);
/// Name of the series that the heartbeat sends through.
pub(crate) const PROBE: &str = "wardroom_probe";

/// What detection hands to the response.
#[derive(Debug)]
pub(crate) enum News {
    /// Unusual points, for the record.
    Anomalies(TenantId, Vec<Anomaly>),
    /// An incident opened or grew.
    Decision(TenantId, Decision),
}

/// The live state of one tenant.
pub(crate) struct Tenant {
    pub(crate) head: Head,
    pub(crate) engine: Engine,
    pub(crate) correlator: Correlator,
}

/// The live state of all tenants.
pub(crate) struct Tenants {
    config: Config,
    tenants: Mutex<BTreeMap<TenantId, Tenant>>,
    /// When the last probe sample reached the detector, in ms.
    pub(crate) probed_ms: AtomicU64,
}

impl Tenants {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, tenants: Mutex::default(), probed_ms: AtomicU64::new(0) }
    }

    /// Works with one tenant's state.
    pub(crate) fn with<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut Tenant) -> T) -> T {
        let mut tenants: MutexGuard<'_, _> = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let state = tenants.entry(tenant.clone()).or_insert_with(|| Tenant {
            head: Head::new(self.config.head.clone()),
            engine: Engine::new(self.config.detect.clone(), self.config.entities.clone()),
            correlator: Correlator::new(self.config.correlate.clone(), tenant.clone()),
        });
        work(state)
    }

    /// Whether a series may come in: known, or within the limit.
    pub(crate) fn admit(&self, tenant: &TenantId, labels: &Labels) -> bool {
        self.with(tenant, |state| {
            let admitted = state.head.admits(labels);
            if admitted {
                resolve(state, labels);
            }
            admitted
        })
    }
}

/// The id of a series; a new one is told to the engine, so that both count alike.
fn resolve(state: &mut Tenant, labels: &Labels) -> usize {
    let (id, new) = state.head.resolve(labels);
    if new {
        state.engine.add_series(labels);
    }
    id
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
        let records = self.bus.read(next, 256)?;
        // Everything up to the end is damaged: nothing to wait for.
        let mut reached = if records.is_empty() { self.bus.end() } else { next };
        for record in records {
            reached = record.offset + 1;
            match wardroom_sources::replay(&record.envelope, &record.body, &self.budget) {
                Ok(batch) => {
                    if self.process(&record.envelope.tenant, &batch).is_err() {
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
        let (anomalies, decisions) = self.tenants.with(tenant, |state| self.judge(state, batch));
        if !anomalies.is_empty() {
            self.news.blocking_send(News::Anomalies(tenant.clone(), anomalies)).map_err(drop)?;
        }
        for decision in decisions {
            self.news.blocking_send(News::Decision(tenant.clone(), decision)).map_err(drop)?;
        }
        Ok(())
    }

    fn judge(&self, state: &mut Tenant, batch: &Batch) -> (Vec<Anomaly>, Vec<Decision>) {
        let mut findings = Findings::default();
        for series in &batch.series {
            if series.labels.name() == PROBE {
                let newest = series.samples.iter().map(|sample| sample.ts_ms).max().unwrap_or_default();
                self.tenants.probed_ms.fetch_max(newest.max(0) as u64, Ordering::AcqRel);
            }
            let id = resolve(state, &series.labels);
            for sample in &series.samples {
                state.head.push(id, *sample);
                state.engine.sample(id, *sample, &mut findings);
            }
        }
        batch.logs.iter().for_each(|log| state.engine.log(log));
        batch.deployments.iter().for_each(|deployment| state.engine.deployment(deployment));
        state.engine.settle(&mut findings);
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

/// Who calls whom, from the client histograms.
pub(crate) fn topology(engine: &Engine) -> Topology {
    let mut topology = Topology::new();
    for (key, _) in engine.signals() {
        if let Some(peer) = &key.peer {
            topology.entry(key.service.clone()).or_default().insert(peer.clone());
        }
    }
    topology
}
