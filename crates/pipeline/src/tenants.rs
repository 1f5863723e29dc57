//! What detection keeps of each tenant, and who may touch it when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use wardroom_correlate::{Correlator, Decision, Topology};
use wardroom_detect::Engine;
use wardroom_domain::{Anomaly, Batch, Labels, MetricMetadata, RefusalReason, SeriesId, TenantId};
use wardroom_head::{Denied, Exemplars, Recent, Registry, START};
use wardroom_lake::Numbers;
use wardroom_sources::{ReadLabels, Resolved};
use wardroom_store::{Retired, Stream};

use crate::config::Config;

/// Metric families of one tenant whose metadata is kept; further ones go undescribed.
pub const FAMILIES: usize = 20_000;
/// Name of the series that the heartbeat sends through.
pub const PROBE: &str = "wardroom_probe";
/// The tenant of Wardroom's own readings, kept out of everybody's data.
pub const SELF: &str = "wardroom.self";

/// What detection hands to the response.
#[derive(Debug)]
pub enum News {
    /// Unusual points, for the record.
    Anomalies(TenantId, Vec<Anomaly>),
    /// An incident opened or grew.
    Decision(TenantId, Decision),
    /// Asks to be told when everything before it is stored.
    Settled(tokio::sync::oneshot::Sender<()>),
}

/// One tenant, in two parts under a lock each: intake asks who is there while detection works.
pub struct Tenant {
    registry: Mutex<Registry>,
    live: Mutex<Live>,
}

/// What detection and response work on.
pub struct Live {
    /// The samples of the live hours.
    pub recent: Recent,
    /// The blocks that `recent` has sealed, as far as they are on disk.
    pub sealed: Stream,
    /// The lake has what stands before this address of the stream.
    pub needed: u64,
    /// What the lake calls the series.
    pub numbers: Numbers,
    /// In which numbering the series stand here.
    pub generation: u64,
    /// Series that left.
    pub retired: Retired,
    /// The newest exemplars.
    pub exemplars: Exemplars,
    /// Series that have native histograms, each with the time of its newest; the histograms themselves are in the tables and on the bus.
    pub native: BTreeMap<SeriesId, i64>,
    /// What senders say of their metrics, by family.
    pub metadata: BTreeMap<String, MetricMetadata>,
    /// The detectors.
    pub engine: Engine,
    /// What joins breaches to incidents.
    pub correlator: Correlator,
}

/// All tenants.
pub struct Tenants {
    config: Config,
    tenants: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
    /// When the last probe sample reached the detector, in ms.
    pub probed_ms: AtomicU64,
    /// Samples from this moment on went through since the start, in ms.
    pub covered_ms: AtomicI64,
}

impl Tenants {
    /// None yet.
    pub fn new(config: Config) -> Self {
        Self { config, tenants: RwLock::default(), probed_ms: AtomicU64::new(0), covered_ms: AtomicI64::new(i64::MAX) }
    }

    /// One tenant's state.
    pub fn get(&self, tenant: &TenantId) -> Arc<Tenant> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Tenant::new(&self.config, tenant))))
        })
    }

    /// Every tenant there is.
    pub fn all(&self) -> Vec<(TenantId, Arc<Tenant>)> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().map(|(id, tenant)| (id.clone(), Arc::clone(tenant))).collect()
    }

    /// Puts a tenant's state in force.
    pub fn put(&self, id: TenantId, tenant: Tenant) {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(tenant));
    }

    /// Works with what detection and response know of one tenant.
    pub fn with<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut Live) -> T) -> T {
        work(&mut lock(&self.get(tenant).live))
    }

    /// Whether the ids of a batch mean what they meant.
    pub fn current(&self, tenant: &TenantId, batch: &Batch) -> bool {
        batch.metrics.runs.is_empty() && batch.metrics.histograms.is_empty() && batch.metrics.exemplars.is_empty()
            || batch.metrics.generation == lock(&self.get(tenant).registry).generation()
    }

    /// The ids of a request's series, and who may not come in.
    pub fn resolve(&self, tenant: &TenantId, keys: &[u128], labels: &ReadLabels<'_>, limited: bool) -> Resolved {
        if keys.is_empty() {
            return Resolved::default();
        }
        let tenant = self.get(tenant);
        let mut registry = lock(&tenant.registry);
        let generation = registry.generation();
        let (ids, denied) = registry.resolve(keys, limited, labels);
        drop(registry);
        let denial = |denied| match denied {
            Denied::Labels(denial) => denial,
            Denied::Limit => {
                let detail = "the tenant's series limit is reached; drop labels or raise head.max-series";
                (RefusalReason::SeriesLimit, detail.to_owned())
            }
        };
        Resolved { ids, generation, denied: denied.into_iter().map(|(at, denied)| (at, denial(denied))).collect() }
    }
}

impl Tenant {
    fn new(config: &Config, tenant: &TenantId) -> Self {
        let mut recent = Recent::new();
        recent.gather(kept(config, tenant));
        Self {
            registry: Mutex::new(Registry::new(config.head.clone())),
            live: Mutex::new(Live {
                recent,
                sealed: Stream::default(),
                needed: if kept(config, tenant) { START } else { u64::MAX },
                numbers: Numbers::default(),
                generation: 0,
                retired: Retired::default(),
                exemplars: Exemplars::new(config.head.max_exemplars),
                native: BTreeMap::new(),
                metadata: BTreeMap::new(),
                engine: Engine::new(config.detect.clone(), config.entities.clone()),
                correlator: Correlator::new(config.correlate.clone(), tenant.clone()),
            }),
        }
    }

    /// State that was saved.
    pub fn resumed(registry: Registry, live: Live) -> Self {
        Self { registry: Mutex::new(registry), live: Mutex::new(live) }
    }

    /// Numbers the series anew: those of the ones known to detection that stay, in order, then whoever came since.
    /// Intake is held up only for the exchange.
    pub fn renumber(&self, live: &mut Live, keep: &[bool], config: &Config, retired: Retired) {
        let (stay, generation) = (stay(self.registry().since(0), keep), live.generation + 1);
        let mut fresh = Registry::load(config.head.clone(), &stay, generation);
        let place = {
            let mut next = 0;
            keep.iter().map(|stays| stays.then(|| (SeriesId(next), next += 1).0)).collect::<Vec<_>>()
        };
        live.engine.renumber(keep);
        let place = |id: SeriesId| place.get(id.index()).copied().flatten();
        live.recent.renumber(place);
        live.numbers.renumber(keep);
        live.exemplars.renumber(place);
        let native = std::mem::take(&mut live.native).into_iter();
        live.native = native.filter_map(|(id, at)| Some((place(id)?, at))).collect();
        (live.generation, live.retired) = (generation, retired);
        let mut registry = self.registry();
        for labels in registry.since(keep.len()) {
            fresh.id_of(labels);
        }
        *registry = fresh;
    }

    /// What detection and response work on.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// The registry.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

/// Whether what a tenant sends goes into the lake.
pub fn kept(config: &Config, tenant: &TenantId) -> bool {
    config.lake.enabled && tenant.as_str() != SELF
}

/// Those that stay of the series that detection knows.
pub fn stay(series: &[Labels], keep: &[bool]) -> Vec<Labels> {
    series.iter().zip(keep).filter(|(_, keep)| **keep).map(|(labels, _)| labels.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who calls whom, from client histograms and spans.
pub fn topology(engine: &Engine) -> Topology {
    let mut topology = Topology::new();
    for (key, _) in engine.signals() {
        if let Some(peer) = &key.peer {
            topology.entry(key.service.clone()).or_default().insert(peer.clone());
        }
    }
    topology
}
