//! In-memory state per tenant and its locks.
//!
//! | lock | held by | for |
//! |---|---|---|
//! | registry | intake, queries | one request's series, ids of a selection |
//! | labels | queries | copying the labels of new series |
//! | detectors | detection; response and gold tables where a view lacks something | one batch |
//! | live | detection, lake writer, queries | the samples of one batch, a few series |
//! | view | everyone | reading or replacing a pointer |
//!
//! What answers HTTP requests takes a view or the live state, never the detectors. Locks are taken in this order:
//! detectors, live, labels, registry.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use wardroom_correlate::Correlator;
use wardroom_detect::{Engine, EngineView};
use wardroom_domain::{Batch, Incident, Labels, MetricMetadata, RefusalReason, SeriesId, TenantId};
use wardroom_files::{BlockReader, EvictedSeriesFile};
use wardroom_head::{Exemplars, RecentSamples, ResolveError, STREAM_START, SeriesRegistry};
use wardroom_lake::SeriesIds;
use wardroom_sources::{EventRecords, ReadLabels, RefusalCause, ResolvedSeries};

use crate::config::Config;
use crate::state::event_entities::EventEntities;
use crate::state::limits::{count_limited, entity_refusal};

/// Maximum number of metric families per tenant whose metadata is kept; metadata of further families is dropped.
pub const MAX_METADATA_FAMILIES: usize = 20_000;
/// Series of a request that are resolved under one lock of the registry.
const SERIES_PER_LOCK: usize = 4096;
/// Series whose labels a query copies under one lock of the registry.
const LABELS_PER_LOCK: usize = 1024;
/// Metric name of the heartbeat's probe.
pub const PROBE_METRIC: &str = "wardroom_probe";
/// Tenant of Wardroom's own telemetry; it is kept apart from users' data and never stored in the lake.
pub const SELF_TENANT: &str = "wardroom.self";

/// State of one tenant, in parts with a lock each, so that intake and queries work while detection does.
pub struct Tenant {
    registry: Mutex<SeriesRegistry>,
    /// The labels of the registry's series as queries last saw them, with their generation.
    labels: Mutex<(u64, Arc<Vec<Labels>>)>,
    detectors: Mutex<Detectors>,
    live: Mutex<LiveState>,
    event_entities: Mutex<EventEntities>,
    view: RwLock<Arc<DetectionView>>,
    /// What the correlator does not know of yet, oldest first.
    incident_news: Mutex<Vec<IncidentNews>>,
}

/// What has become of an incident outside of detection. Times in ms of the telemetry.
pub(crate) enum IncidentNews {
    /// It is settled: findings that begin after this time do not belong to it.
    Released { key: String, at_ms: i64 },
    /// A person has opened, reopened or split it.
    Restored { incident: Box<Incident>, opened_ms: i64 },
}

/// State that detection works on.
pub struct Detectors {
    /// The detectors.
    pub engine: Engine,
    /// Groups findings into incidents.
    pub correlator: Correlator,
}

/// What detection knows after a batch, for readers.
#[derive(Debug, Default)]
pub struct DetectionView {
    /// Signals, events, and the graph of entities.
    pub engine: EngineView,
}

/// The samples of a tenant and what belongs to them; detection, lake writer and queries work on it.
pub struct LiveState {
    /// Samples of the last hours (`head.recent-minutes`).
    pub recent: RecentSamples,
    /// Newest time of a sample, in ms.
    pub newest_ms: i64,
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
    /// Metric metadata by family; shared with readers.
    pub metadata: Arc<BTreeMap<String, MetricMetadata>>,
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

    /// Returns what detection knows of a tenant. Waits neither for a batch of detection nor for other readers.
    pub fn view(&self, tenant: &TenantId) -> Arc<DetectionView> {
        self.get(tenant).view()
    }

    /// Marks an incident as settled from the next batch on: findings that begin after `at_ms` do not belong to it.
    pub fn release_incident(&self, tenant: &TenantId, key: &str, at_ms: i64) {
        lock(&self.get(tenant).incident_news).push(IncidentNews::Released { key: key.to_owned(), at_ms });
    }

    /// Has findings join an incident from the next batch on that a person has opened, reopened or split at `opened_ms`,
    /// a telemetry time.
    pub fn restore_incident(&self, tenant: &TenantId, incident: Incident, opened_ms: i64) {
        let incident = Box::new(incident);
        lock(&self.get(tenant).incident_news).push(IncidentNews::Restored { incident, opened_ms });
    }

    /// Runs `work` on the detectors of a tenant, under their lock: detection waits for it.
    pub fn with_detectors<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut Detectors) -> T) -> T {
        work(&mut self.get(tenant).detectors())
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
        let (ids, generation, denied) = self.get(tenant).resolve_in_parts(keys, limited, labels);
        let denial = |denied| match denied {
            ResolveError::Labels(denial) => denial,
            ResolveError::SeriesLimit => {
                let detail = "the tenant's series limit is reached; drop labels or raise head.max-series";
                count_limited("series", 1);
                (RefusalReason::SeriesLimit, detail.to_owned())
            }
            ResolveError::BytesLimit => {
                let detail = "the labels of the tenant's series are too large; shorten labels or raise \
                              head.max-series-bytes";
                count_limited("series_bytes", 1);
                (RefusalReason::SeriesLimit, detail.to_owned())
            }
            ResolveError::EntityLimit(limit) => entity_refusal(&limit),
        };
        ResolvedSeries {
            ids,
            generation,
            refused: denied.into_iter().map(|(index, denied)| (index, denial(denied))).collect(),
        }
    }
}

impl Tenants {
    /// Checks the log lines, deployments and spans of a request against the tenant's limits; returns the refused ones
    /// by their index in this order.
    pub fn admit(&self, tenant: &TenantId, events: EventRecords<'_>) -> Vec<(usize, RefusalCause)> {
        lock(&self.get(tenant).event_entities).admit(events, &self.config.head, &self.config.catalog)
    }
}

type DeniedSeries = Vec<(usize, ResolveError<RefusalCause>)>;

impl Tenant {
    /// Resolves series to ids of one generation. The registry is locked for some series at a time: decoding the labels
    /// of a large request takes long, and queries and detection wait for the lock.
    fn resolve_in_parts(
        &self,
        keys: &[u128],
        limited: bool,
        labels: &ReadLabels<'_>,
    ) -> (Vec<SeriesId>, u64, DeniedSeries) {
        'all: loop {
            let (mut ids, mut denied) = (Vec::with_capacity(keys.len()), Vec::new());
            let mut generation = None;
            for part in keys.chunks(SERIES_PER_LOCK) {
                let first = ids.len();
                let mut registry = self.registry();
                if *generation.get_or_insert(registry.generation()) != registry.generation() {
                    // Series were renumbered meanwhile; resolve all again (rare).
                    continue 'all;
                }
                let (found, refused) = registry.resolve(part, limited, |index| labels(first + index));
                drop(registry);
                ids.extend(found);
                denied.extend(refused.into_iter().map(|(index, why)| (first + index, why)));
            }
            return (ids, generation.unwrap_or_default(), denied);
        }
    }

    fn new(config: &Config, tenant: &TenantId) -> Self {
        let in_lake = is_stored_in_lake(config, tenant);
        let mut recent = RecentSamples::new();
        recent.enable_flushing(in_lake);
        let detectors = Detectors {
            engine: Engine::new(config.detect.clone(), config.catalog.clone()),
            correlator: Correlator::new(config.correlate.clone(), tenant.clone()),
        };
        let live = LiveState {
            recent,
            newest_ms: i64::MIN,
            sealed: BlockReader::default(),
            lake_committed_address: if in_lake { STREAM_START } else { u64::MAX },
            lake_series_ids: SeriesIds::default(),
            generation: 0,
            evicted: EvictedSeriesFile::default(),
            exemplars: Exemplars::new(config.head.max_exemplars),
            native_newest_ms: BTreeMap::new(),
            metadata: Arc::default(),
        };
        let registry = SeriesRegistry::new(config.head.clone(), config.series_names());
        Self::from_parts(registry, detectors, live)
    }

    /// Creates a tenant from checkpointed state.
    pub fn from_parts(registry: SeriesRegistry, detectors: Detectors, live: LiveState) -> Self {
        Self {
            registry: Mutex::new(registry),
            labels: Mutex::default(),
            view: RwLock::new(Arc::new(detectors.view())),
            detectors: Mutex::new(detectors),
            live: Mutex::new(live),
            event_entities: Mutex::default(),
            incident_news: Mutex::default(),
        }
    }

    /// Renumbers the series: first the ones that `keep` retains, in order, then those registered since. Increments the
    /// generation. The registry is locked only while it is replaced, so intake is blocked briefly.
    pub fn renumber(
        &self,
        (engine, live): (&mut Engine, &mut LiveState),
        keep: &[bool],
        config: &Config,
        evicted: EvictedSeriesFile,
    ) {
        let (retained, generation) = (retained_series(self.registry().labels_from(0), keep), live.generation + 1);
        let mut new_registry = SeriesRegistry::load(config.head.clone(), config.series_names(), &retained, generation);
        let new_ids = {
            let mut next = 0;
            keep.iter().map(|kept| kept.then(|| (SeriesId(next), next += 1).0)).collect::<Vec<_>>()
        };
        engine.renumber(keep);
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
        drop(registry);
        // Frees the labels of evicted series.
        *lock(&self.labels) = Default::default();
    }

    /// Returns the labels of all series by id, with the generation of the ids. A copy is kept, so that a query locks
    /// the registry only while it copies what is new: intake waits for that lock, and a query's thread, which has a low
    /// priority, may lose its processor while it holds it.
    pub fn series_labels(&self) -> (u64, Arc<Vec<Labels>>) {
        let (generation, series) = &mut *lock(&self.labels);
        loop {
            let registry = self.registry();
            if *generation != registry.generation() {
                (*generation, *series) = (registry.generation(), Arc::default());
            }
            let new = registry.labels_from(series.len());
            let new = new.get(..new.len().min(LABELS_PER_LOCK)).unwrap_or_default().to_vec();
            drop(registry);
            if new.is_empty() {
                return (*generation, Arc::clone(series));
            }
            Arc::make_mut(series).extend(new);
        }
    }

    /// Returns what detection knows. Waits neither for a batch of detection nor for other readers.
    pub fn view(&self) -> Arc<DetectionView> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes what detection knows now and returns it.
    pub fn publish(&self, detectors: &Detectors) -> Arc<DetectionView> {
        let view = Arc::new(detectors.view());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        view
    }

    /// Returns and removes what the correlator does not know of yet.
    pub(crate) fn take_incident_news(&self) -> Vec<IncidentNews> {
        std::mem::take(&mut lock(&self.incident_news))
    }

    /// Locks the detectors. A request over HTTP must not hold this lock; see [`Tenant::view`].
    pub fn detectors(&self) -> MutexGuard<'_, Detectors> {
        lock(&self.detectors)
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

impl Detectors {
    fn view(&self) -> DetectionView {
        DetectionView { engine: self.engine.view() }
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
