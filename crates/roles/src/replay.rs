//! A stored stretch once more, through today's configuration: what would have been found?
//!
//! ```text
//! tables (what the bus has forgotten) ─┐
//! bus, as it was received ─────────────┴─► head ─► detectors ─► correlation ─► incidents ─► gold tables of their own
//! ```
//!
//! Problem: whoever turns a threshold wants to know what that would have changed, on his own data, before it is in force. Model:
//! the requests of the stretch, and of a while before it so that baselines are what they were, go through the very functions
//! that detection runs, in the order of the bus; what the live response told correlation (this incident is settled) is told again at
//! the moment when it was told. Guarantee: all time is the telemetry's, so the same configuration opens the same incidents, under
//! the same keys, at any speed. Nothing of the data folder changes.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wardroom_bus::ReadOnlyBus;
use wardroom_correlate::Decision;
use wardroom_domain::{Batch, Incident, IncidentState, Metrics, Run, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_lake::{IncidentFact, Lake, Moment, Past};
use wardroom_respond::Workflow;
use wardroom_store::{Store, database};

use crate::config::Config;
use crate::gold::{DAY_MS, opened};
use wardroom_pipeline::checkpoint::Checkpoints;
use wardroom_pipeline::pump::{decode, first_since, judge};
use wardroom_pipeline::tenants::Tenants;

/// Records read at once.
const READ: usize = 256;
/// How much of the tables is put in order at once.
const SLICE: Duration = Duration::from_secs(600);

/// What is to be replayed, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The data folder; a server may be running on it.
    pub data: PathBuf,
    /// Where the tables of the outcome go.
    pub out: PathBuf,
    /// Whose telemetry.
    pub tenant: TenantId,
    /// Incidents that opened from this moment on are told.
    pub from: Timestamp,
    /// Up to this moment.
    pub to: Timestamp,
    /// How long before the stretch detection begins to learn what is normal.
    pub warm_up: Duration,
    /// So many times as fast as it happened; without it as fast as possible.
    pub speed: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Incidents that opened within the stretch, in their order, each with what it was called when it happened, if it did.
    pub incidents: Vec<(Incident, Option<String>)>,
    /// Incidents that opened then and did not open now: what they were called, and their titles.
    pub missing: Vec<(String, String)>,
    /// Requests that went through, the warm-up counted in; what came from the tables counts by moments.
    pub requests: u64,
    /// Their samples.
    pub samples: u64,
    /// Unusual points found within the stretch.
    pub anomalies: u64,
    /// Requests that could not be read, or that tripped a detector; they are left out, as they were laid aside then.
    pub skipped: u64,
    /// When the oldest request was received.
    pub begun: Option<Timestamp>,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The bus cannot be read.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The tables cannot be read or written.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// What waits on disk cannot be written.
    #[error("{0}")]
    Io(String),
}

/// Runs a stretch through `config`. `tell` hears where it is.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay(
    config: &Config,
    options: &ReplayOptions,
    tell: &mut (dyn FnMut(Timestamp) + Send),
) -> Result<Replayed, ReplayError> {
    let begin = options.from.minus(options.warm_up);
    let store = Store::look(&database(&options.data)).await?;
    let (happened, endings) = told(&store, options, begin).await?;
    let mut config = config.pipeline();
    let lake_config =
        std::mem::replace(&mut config.lake, wardroom_lake::Config { enabled: false, ..Default::default() });
    let bus = ReadOnlyBus::open(&options.data.join("bus"))?;
    let mut machine = Machine::new(config, options, endings)?;
    let at = |offset: u64| bus.read(offset, 1).ok().and_then(|records| records.into_iter().next());
    let (first, held) = at(0).map_or((u64::MAX, options.to), |first| (first.offset, first.envelope.received_at));
    if first > 0
        && held > begin
        && let Some(lake) = Lake::look(&lake_config, &options.data).await?
    {
        let mut slice = begin;
        while slice < held.min(options.to) {
            let end = slice.plus(SLICE).min(held).min(options.to);
            for (received_at, batch) in machine.batches(lake.past(&options.tenant, (slice, end), first).await?) {
                machine.take(received_at, &batch, tell).await?;
            }
            slice = end;
        }
    }
    let budget = InflateBudget::new(machine.config.edge.inflate_budget_bytes, machine.config.edge.max_inflated_bytes);
    let mut next = first_since(at, (0, u64::MAX), begin);
    'bus: loop {
        let records = bus.read(next, READ)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            next = record.offset + 1;
            if record.envelope.received_at > options.to {
                break 'bus;
            }
            if record.envelope.tenant == options.tenant {
                match decode(&machine.tenants, &budget, &record) {
                    Ok(batch) => machine.take(record.envelope.received_at, &batch, tell).await?,
                    Err(_) => machine.found.skipped += 1,
                }
            }
        }
    }
    machine.finish(&happened).await
}

/// What the live response told correlation, and when: this incident takes in what began until this moment (ms).
type Ending = (Timestamp, String, i64);

/// The incidents that opened within the stretch, by their keys, with name and title; and the endings of all that matter, in the order in which they were told.
async fn told(
    store: &Store,
    options: &ReplayOptions,
    begin: Timestamp,
) -> Result<(BTreeMap<String, (String, String)>, VecDeque<Ending>), ReplayError> {
    let (mut happened, mut endings) = (BTreeMap::new(), Vec::new());
    for row in store.incidents_opened(&options.tenant, begin, options.to).await? {
        let Ok(workflow) = Workflow::read(&row.workflow) else { continue };
        if row.opened_at >= options.from {
            happened.insert(row.key.clone(), (row.id(), workflow.incident.title.clone()));
        }
        let Some(settled_ms) = workflow.settled_ms else { continue };
        let settled = [IncidentState::Resolved, IncidentState::Suppressed];
        let history = store.history(&options.tenant, &row.key).await?;
        if let Some(moved) = history.iter().find(|moved| settled.contains(&moved.to)) {
            endings.push((moved.at, row.key, settled_ms));
        }
    }
    endings.sort_by_key(|(told_at, ..)| *told_at);
    Ok((happened, endings.into()))
}

/// Detection, without anybody who listens.
struct Machine<'a> {
    config: wardroom_pipeline::Config,
    options: &'a ReplayOptions,
    tenants: Tenants,
    /// Where sealed blocks wait, so that memory does not grow with the stretch.
    blocks: Checkpoints,
    endings: VecDeque<Ending>,
    /// The first moment of the telemetry, and when that went through.
    pace: Option<(Timestamp, Instant)>,
    found: Replayed,
}

impl<'a> Machine<'a> {
    fn new(
        config: wardroom_pipeline::Config,
        options: &'a ReplayOptions,
        endings: VecDeque<Ending>,
    ) -> Result<Self, ReplayError> {
        let tenants = Tenants::new(config.clone());
        let folder = options.out.join("work");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|error| unwritten(&error))?;
        }
        let opened = Checkpoints::open(&folder, &config, 0..=0, &tenants, None);
        let (blocks, _) = opened.map_err(|error| unwritten(&error))?;
        Ok(Self { config, options, tenants, blocks, endings, pace: None, found: Replayed::default() })
    }

    /// What the tables hold of a stretch, second by second, as if it came so.
    fn batches(&self, past: Past) -> Vec<(Timestamp, Batch)> {
        let state = self.tenants.get(&self.options.tenant);
        let series: Vec<_> = past.series.iter().map(|labels| state.registry().id_of(labels)).collect();
        let batch = |Moment { samples, histograms, logs, spans, deployments }| {
            let histograms = histograms.into_iter().map(|(place, histogram)| (series[place], histogram));
            let mut metrics = Metrics { histograms: histograms.collect(), ..Metrics::default() };
            for (place, sample) in samples {
                match metrics.runs.last_mut().filter(|run: &&mut Run| run.series == series[place]) {
                    Some(run) => run.count += 1,
                    None => metrics.runs.push(Run { series: series[place], count: 1 }),
                }
                metrics.samples.push(sample);
            }
            Batch { metrics, logs, spans, deployments, ..Batch::default() }
        };
        past.seconds
            .into_iter()
            .map(|(second, moment)| (Timestamp::from_millis(second * 1000), batch(moment)))
            .collect()
    }

    /// One batch through everything.
    async fn take(
        &mut self,
        received_at: Timestamp,
        batch: &Batch,
        tell: &mut (dyn FnMut(Timestamp) + Send),
    ) -> Result<(), ReplayError> {
        self.found.begun.get_or_insert(received_at);
        self.keep_pace(received_at).await;
        tell(received_at);
        let state = self.tenants.get(&self.options.tenant);
        while let Some((_, key, settled_ms)) = self.endings.pop_front_if(|(told_at, ..)| *told_at <= received_at) {
            state.live().correlator.release(&key, settled_ms);
        }
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| judge(&self.config, &state, batch)));
        let Ok((anomalies, decisions)) = judged else {
            self.found.skipped += 1;
            return Ok(());
        };
        self.found.requests += 1;
        self.found.samples += batch.metrics.samples.len() as u64;
        if received_at >= self.options.from {
            self.found.anomalies += anomalies.len() as u64;
        }
        for decision in decisions {
            match decision {
                Decision::Opened(incident) => self.found.incidents.push((incident, None)),
                Decision::Joined { key, service } => {
                    let known = self.found.incidents.iter_mut().find(|(incident, _)| incident.key == key);
                    known.into_iter().for_each(|(incident, _)| incident.services.push(service.clone()));
                }
            }
        }
        self.blocks.drain(&self.options.tenant, &mut state.live()).map_err(|error| unwritten(&error))
    }

    /// Waits until it is time.
    async fn keep_pace(&mut self, received_at: Timestamp) {
        let Some(speed) = self.options.speed.filter(|_| received_at >= self.options.from) else { return };
        let (first, since) = *self.pace.get_or_insert((received_at, Instant::now()));
        let happened = (received_at.millis() - first.millis()).max(0) as f64 / 1000.0;
        let due = Duration::try_from_secs_f64(happened / speed).unwrap_or_default();
        tokio::time::sleep(due.saturating_sub(since.elapsed())).await;
    }

    /// Writes the outcome down and says what it is.
    async fn finish(mut self, happened: &BTreeMap<String, (String, String)>) -> Result<Replayed, ReplayError> {
        let (from, to) = (self.options.from, self.options.to);
        self.found.incidents.retain(|(incident, _)| (from..=to).contains(&incident.opened_at));
        for (incident, name) in &mut self.found.incidents {
            *name = happened.get(&incident.key).map(|(name, _)| name.clone());
        }
        let again = |key: &String| self.found.incidents.iter().any(|(incident, _)| incident.key == *key);
        self.found.missing = happened.iter().filter(|(key, _)| !again(key)).map(|(_, told)| told.clone()).collect();
        drop(self.blocks);
        std::fs::remove_dir_all(self.options.out.join("work")).map_err(|error| unwritten(&error))?;
        let lake = Lake::open(&wardroom_lake::Config::default(), &self.options.out).await?;
        for day in from.millis().div_euclid(DAY_MS)..=to.millis().div_euclid(DAY_MS) {
            let opened_then = |fact: &IncidentFact| fact.opened_at.millis().div_euclid(DAY_MS) == day;
            let facts = self
                .found
                .incidents
                .iter()
                .map(|(incident, name)| IncidentFact { id: name.clone(), ..opened(incident) });
            let facts: Vec<_> = facts.filter(opened_then).collect();
            lake.conclude(&self.options.tenant, day, &facts, to).await?;
        }
        Ok(self.found)
    }
}

fn unwritten(error: &dyn std::fmt::Display) -> ReplayError {
    ReplayError::Io(format!("what waits on disk cannot be written: {error}"))
}
