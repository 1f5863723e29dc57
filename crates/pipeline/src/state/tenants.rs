//! In-memory state per tenant and its locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use wardroom_correlate::Correlator;
use wardroom_detect::Engine;
use wardroom_domain::{Batch, Labels, MetricMetadata, RefusalReason, SeriesId, TenantId};
use wardroom_files::{BlockReader, EvictedSeriesFile};
use wardroom_head::{Exemplars, RecentSamples, ResolveError, STREAM_START, SeriesRegistry};
use wardroom_lake::SeriesIds;
use wardroom_sources::{ReadLabels, ResolvedSeries};

use crate::config::Config;

/// Maximum number of metric families per tenant whose metadata is kept; metadata of further families is dropped.
pub const MAX_METADATA_FAMILIES: usize = 20_000;
/// Metric name of the heartbeat's probe.
pub const PROBE_METRIC: &str = "wardroom_probe";
/// Tenant of Wardroom's own telemetry; it is kept apart from users' data and never stored in the lake.
pub const SELF_TENANT: &str = "wardroom.self";

/// State of one tenant, in two parts with a lock each, so that intake can resolve series while detection works.
pub struct Tenant {
    registry: Mutex<SeriesRegistry>,
    live: Mutex<LiveState>,
}

/// State that detection and response work on.
pub struct LiveState {
    /// Samples of the last hours (`head.recent-minutes`).
    pub recent: RecentSamples,
    /// Blocks that `recent` has sealed and that are on disk.
    pub sealed: BlockReader,
    /// Address in the stream of sealed blocks before which the lake has everything; `u64::MAX` if the tenant is not
    /// stored in the lake.
    pub lake_committed_address: u64,
    /// Ids of the series in the lake.
    pub lake_series_ids: SeriesIds,
    /// Generation of the series ids; evicting series renumbers the rest and increments it.
    pub generation: u64,
    /// Index of evicted series.
    pub evicted: EvictedSeriesFile,
    /// The newest exemplars.
    pub exemplars: Exemplars,
    /// Series with native histograms, each with the time of its newest one in ms. The histograms themselves are in the
    /// tables and on the bus.
    pub native_newest_ms: BTreeMap<SeriesId, i64>,
    /// Metric metadata by family.
    pub metadata: BTreeMap<String, MetricMetadata>,
    /// The detectors.
    pub engine: Engine,
    /// Groups breaches into incidents.
    pub correlator: Correlator,
}

/// All tenants.
pub struct Tenants {
    config: Config,
    tenants: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
    /// Time of the last probe sample that reached detection, in ms.
    pub last_probe_ms: AtomicU64,
    /// The live series hold every sample since this time, in ms.
    pub complete_from_ms: AtomicI64,
}

impl Tenants {
    /// Creates an empty set of tenants.
    pub fn new(config: Config) -> Self {
        let complete_from_ms = AtomicI64::new(i64::MAX);
        Self { config, tenants: RwLock::default(), last_probe_ms: AtomicU64::new(0), complete_from_ms }
    }

    /// Returns a tenant, creating it if needed.
    pub fn get(&self, tenant: &TenantId) -> Arc<Tenant> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Tenant::new(&self.config, tenant))))
        })
    }

    /// Returns all tenants.
    pub fn all(&self) -> Vec<(TenantId, Arc<Tenant>)> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().map(|(id, tenant)| (id.clone(), Arc::clone(tenant))).collect()
    }

    /// Inserts or replaces a tenant.
    pub fn insert(&self, id: TenantId, tenant: Tenant) {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(tenant));
    }

    /// Runs `work` on the live state of a tenant, under its lock.
    pub fn with<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut LiveState) -> T) -> T {
        work(&mut lock(&self.get(tenant).live))
    }

    /// Returns whether the series ids of a batch are of the current generation.
    pub fn ids_are_current(&self, tenant: &TenantId, batch: &Batch) -> bool {
        batch.metrics.runs.is_empty() && batch.metrics.histograms.is_empty() && batch.metrics.exemplars.is_empty()
            || batch.metrics.generation == lock(&self.get(tenant).registry).generation()
    }

    /// Resolves the series of a request to ids; refuses series with bad labels and, if `limited`, beyond the series
    /// limit.
    pub fn resolve(&self, tenant: &TenantId, keys: &[u128], labels: &ReadLabels<'_>, limited: bool) -> ResolvedSeries {
        if keys.is_empty() {
            return ResolvedSeries::default();
        }
        let tenant = self.get(tenant);
        let mut registry = lock(&tenant.registry);
        let generation = registry.generation();
        let (ids, denied) = registry.resolve(keys, limited, labels);
        drop(registry);
        let denial = |denied| match denied {
            ResolveError::Labels(denial) => denial,
            ResolveError::SeriesLimit => {
                let detail = "the tenant's series limit is reached; drop labels or raise head.max-series";
                (RefusalReason::SeriesLimit, detail.to_owned())
            }
        };
        ResolvedSeries {
            ids,
            generation,
            refused: denied.into_iter().map(|(index, denied)| (index, denial(denied))).collect(),
        }
    }
}

impl Tenant {
    fn new(config: &Config, tenant: &TenantId) -> Self {
        let in_lake = is_stored_in_lake(config, tenant);
        let mut recent = RecentSamples::new();
        recent.enable_flushing(in_lake);
        Self {
            registry: Mutex::new(SeriesRegistry::new(config.head.clone())),
            live: Mutex::new(LiveState {
                recent,
                sealed: BlockReader::default(),
                lake_committed_address: if in_lake { STREAM_START } else { u64::MAX },
                lake_series_ids: SeriesIds::default(),
                generation: 0,
                evicted: EvictedSeriesFile::default(),
                exemplars: Exemplars::new(config.head.max_exemplars),
                native_newest_ms: BTreeMap::new(),
                metadata: BTreeMap::new(),
                engine: Engine::new(config.detect.clone(), config.entities.clone()),
                correlator: Correlator::new(config.correlate.clone(), tenant.clone()),
            }),
        }
    }

    /// Creates a tenant from checkpointed state.
    pub fn from_parts(registry: SeriesRegistry, live: LiveState) -> Self {
        Self { registry: Mutex::new(registry), live: Mutex::new(live) }
    }

    /// Renumbers the series: first the ones that `keep` retains, in order, then those registered since. Increments the
    /// generation. The registry is locked only while it is replaced, so intake is blocked briefly.
    pub fn renumber(&self, live: &mut LiveState, keep: &[bool], config: &Config, evicted: EvictedSeriesFile) {
        let (retained, generation) = (retained_series(self.registry().labels_from(0), keep), live.generation + 1);
        let mut new_registry = SeriesRegistry::load(config.head.clone(), &retained, generation);
        let new_ids = {
            let mut next = 0;
            keep.iter().map(|kept| kept.then(|| (SeriesId(next), next += 1).0)).collect::<Vec<_>>()
        };
        live.engine.renumber(keep);
        let new_id = |id: SeriesId| new_ids.get(id.index()).copied().flatten();
        live.recent.renumber(new_id);
        live.lake_series_ids.retain(keep);
        live.exemplars.renumber(new_id);
        let native = std::mem::take(&mut live.native_newest_ms).into_iter();
        live.native_newest_ms = native.filter_map(|(id, newest_ms)| Some((new_id(id)?, newest_ms))).collect();
        (live.generation, live.evicted) = (generation, evicted);
        let mut registry = self.registry();
        for labels in registry.labels_from(keep.len()) {
            new_registry.get_or_insert(labels);
        }
        *registry = new_registry;
    }

    /// Locks the live state.
    pub fn live_state(&self) -> MutexGuard<'_, LiveState> {
        lock(&self.live)
    }

    /// Locks the registry.
    pub fn registry(&self) -> MutexGuard<'_, SeriesRegistry> {
        lock(&self.registry)
    }
}

/// Returns whether telemetry of a tenant is stored in the lake.
pub fn is_stored_in_lake(config: &Config, tenant: &TenantId) -> bool {
    config.lake.enabled && tenant.as_str() != SELF_TENANT
}

/// Returns the label sets that `keep` retains.
pub fn retained_series(series: &[Labels], keep: &[bool]) -> Vec<Labels> {
    series.iter().zip(keep).filter(|(_, keep)| **keep).map(|(labels, _)| labels.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
