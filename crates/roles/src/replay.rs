//! Replays a time range of stored telemetry through the current configuration: what would have been detected?
//!
//! ```text
//! tables (what the bus has dropped) ─┐
//! bus, as received ──────────────────┴─► live series ─► detectors ─► correlation ─► incidents ─► separate gold tables
//! ```
//!
//! Problem: before a threshold is changed, its effect on existing data should be known. Model: the requests of the
//! range, and of a warm-up before it so that baselines are learnt, go through the same functions as in detection, in
//! bus order. What the response reported to correlation at the time (an incident is settled) is reported again at the
//! same time. Guarantee: all time is telemetry time, so the same configuration opens the same incidents with the same
//! keys at any speed. The data folder is only read.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wardroom_bus::ReadOnlyBus;
use wardroom_correlate::Decision;
use wardroom_domain::{Batch, Incident, IncidentState, Metrics, SeriesRun, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_lake::{IncidentFact, Lake, ReplaySecond, ReplayWindow};
use wardroom_pipeline::detection::bus_records::{decode_record, first_offset_since};
use wardroom_pipeline::detection::evaluate::evaluate;
use wardroom_pipeline::state::checkpoint::Checkpoints;
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_respond::Workflow;
use wardroom_response::opened_incident_fact;
use wardroom_store::Store;

use crate::config::Config;
use crate::gold_writer::DAY_MS;
use crate::state_database::open_existing_state;

/// Records read at once.
const READ_RECORDS: usize = 256;
/// Time range of the tables that is read and sorted at once.
const LAKE_WINDOW: Duration = Duration::from_secs(600);

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The data folder; a server may be running on it.
    pub data: PathBuf,
    /// Folder for the resulting tables.
    pub out: PathBuf,
    /// The tenant.
    pub tenant: TenantId,
    /// Start of the range: incidents that open from here on are reported.
    pub from: Timestamp,
    /// End of the range, inclusive.
    pub to: Timestamp,
    /// Time before the range from which detection learns baselines.
    pub warm_up: Duration,
    /// Speed as a multiple of real time; as fast as possible without it.
    pub speed: Option<f64>,
}

/// Result of a replay.
#[derive(Clone, Debug, Default)]
pub struct ReplayReport {
    /// Incidents that opened within the range, in order, each with the id of the original incident, if there was one.
    pub incidents: Vec<(Incident, Option<String>)>,
    /// Ids and titles of original incidents that did not open in the replay.
    pub missing: Vec<(String, String)>,
    /// Requests processed, including the warm-up; of the tables each second counts as one.
    pub requests: u64,
    /// Samples in them.
    pub samples: u64,
    /// Anomalies within the range.
    pub anomalies: u64,
    /// Requests that could not be decoded or made a detector panic (dead-lettered originally, too).
    pub skipped: u64,
    /// Time of arrival of the oldest request.
    pub oldest_request_at: Option<Timestamp>,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Reading the bus failed.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// Reading or writing tables failed.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// Reading the store failed.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// The state database cannot be opened.
    #[error(transparent)]
    State(#[from] crate::state_database::StateDatabaseError),
    /// Writing temporary files failed.
    #[error("{0}")]
    Io(String),
}

/// Replays a time range with `config`. `report_progress` receives the time of each request.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay(
    config: &Config,
    options: &ReplayOptions,
    report_progress: &mut (dyn FnMut(Timestamp) + Send),
) -> Result<ReplayReport, ReplayError> {
    let begin = options.from.minus(options.warm_up);
    let store = open_existing_state(&options.data).await?;
    let (originals, releases) = read_original_incidents(&store, options, begin).await?;
    let mut config = config.pipeline();
    let lake_config =
        std::mem::replace(&mut config.lake, wardroom_lake::Config { enabled: false, ..Default::default() });
    let bus = ReadOnlyBus::open(&options.data.join("bus"))?;
    let mut detection = ReplayDetection::new(config, options, releases)?;
    let read = |offset: u64| bus.read(offset, 1).ok().and_then(|records| records.into_iter().next());
    let first = read(0).map(|first| (first.offset, first.envelope.received_at));
    let (first_offset, bus_from) = first.unwrap_or((u64::MAX, options.to));
    if first_offset > 0
        && bus_from > begin
        && let Some(lake) = Lake::open_read_only(&lake_config, &options.data).await?
    {
        let mut from = begin;
        while from < bus_from.min(options.to) {
            let to = from.plus(LAKE_WINDOW).min(bus_from).min(options.to);
            let window = lake.read_replay_window(&options.tenant, (from, to), first_offset).await?;
            for (received_at, batch) in detection.batches(window) {
                detection.process(received_at, &batch, report_progress).await?;
            }
            from = to;
        }
    }
    let edge = &detection.config.edge;
    let budget = InflateBudget::new(edge.inflate_budget_bytes, edge.max_inflated_bytes);
    let mut next = first_offset_since(read, (0, u64::MAX), begin);
    'bus: loop {
        let records = bus.read(next, READ_RECORDS)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            next = record.offset + 1;
            if record.envelope.received_at > options.to {
                break 'bus;
            }
            if record.envelope.tenant == options.tenant {
                match decode_record(&detection.tenants, &budget, &record) {
                    Ok(batch) => detection.process(record.envelope.received_at, &batch, report_progress).await?,
                    Err(_) => detection.report.skipped += 1,
                }
            }
        }
    }
    detection.finish(&originals).await
}

/// The response released an incident from correlation: time of the release, key of the incident, and the time until
/// which the incident takes in breaches, in ms.
type Release = (Timestamp, String, i64);

/// Reads the original incidents of the range, by key, with id and title; and the releases of all that matter, ordered
/// by time.
async fn read_original_incidents(
    store: &Store,
    options: &ReplayOptions,
    begin: Timestamp,
) -> Result<(BTreeMap<String, (String, String)>, VecDeque<Release>), ReplayError> {
    let (mut originals, mut releases) = (BTreeMap::new(), Vec::new());
    for row in store.incidents_opened(&options.tenant, begin, options.to).await? {
        let Ok(workflow) = Workflow::read(&row.workflow) else { continue };
        // A replay opens what findings open.
        if row.opened_at >= options.from && !workflow.incident.is_made_by_person() {
            originals.insert(row.key.clone(), (row.id(), workflow.incident.title.clone()));
        }
        let Some(settled_ms) = workflow.settled_ms else { continue };
        let settled = [IncidentState::Resolved, IncidentState::Suppressed, IncidentState::Closed];
        let history = store.history(&options.tenant, &row.key).await?;
        if let Some(transition) = history.iter().rfind(|transition| settled.contains(&transition.to)) {
            releases.push((transition.at, row.key, settled_ms));
        }
    }
    releases.sort_by_key(|(released_at, ..)| *released_at);
    Ok((originals, releases.into()))
}

/// Detection for a replay, without a response.
struct ReplayDetection<'a> {
    config: wardroom_pipeline::Config,
    options: &'a ReplayOptions,
    tenants: Tenants,
    /// Sealed blocks go to temporary files, so that memory does not grow with the range.
    blocks: Checkpoints,
    releases: VecDeque<Release>,
    /// Time of the first request within the range, and when it was processed, for [`ReplayOptions::speed`].
    pace_start: Option<(Timestamp, Instant)>,
    report: ReplayReport,
}

impl<'a> ReplayDetection<'a> {
    fn new(
        config: wardroom_pipeline::Config,
        options: &'a ReplayOptions,
        releases: VecDeque<Release>,
    ) -> Result<Self, ReplayError> {
        let tenants = Tenants::new(config.clone());
        let folder = options.out.join("work");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|error| temporary_files_error(&error))?;
        }
        let opened = Checkpoints::open(&folder, &config, 0..=0, &tenants, None);
        let (blocks, _) = opened.map_err(|error| temporary_files_error(&error))?;
        Ok(Self { config, options, tenants, blocks, releases, pace_start: None, report: ReplayReport::default() })
    }

    /// Converts rows of the tables into one batch for each second.
    fn batches(&self, window: ReplayWindow) -> Vec<(Timestamp, Batch)> {
        let state = self.tenants.get(&self.options.tenant);
        let series: Vec<_> = window.series.iter().map(|labels| state.registry().get_or_insert(labels)).collect();
        let batch = |ReplaySecond { samples, histograms, logs, spans, deployments }| {
            let histograms = histograms.into_iter().map(|(index, histogram)| (series[index], histogram));
            let mut metrics = Metrics { histograms: histograms.collect(), ..Metrics::default() };
            for (index, sample) in samples {
                match metrics.runs.last_mut().filter(|run: &&mut SeriesRun| run.series == series[index]) {
                    Some(run) => run.count += 1,
                    None => metrics.runs.push(SeriesRun { series: series[index], count: 1 }),
                }
                metrics.samples.push(sample);
            }
            Batch { metrics, logs, spans, deployments, ..Batch::default() }
        };
        let seconds = window.seconds.into_iter();
        seconds.map(|(second, rows)| (Timestamp::from_millis(second * 1000), batch(rows))).collect()
    }

    /// Evaluates a batch.
    async fn process(
        &mut self,
        received_at: Timestamp,
        batch: &Batch,
        report_progress: &mut (dyn FnMut(Timestamp) + Send),
    ) -> Result<(), ReplayError> {
        self.report.oldest_request_at.get_or_insert(received_at);
        self.wait_for_replay_speed(received_at).await;
        report_progress(received_at);
        let state = self.tenants.get(&self.options.tenant);
        while let Some((_, key, settled_ms)) = self.releases.pop_front_if(|(at, ..)| *at <= received_at) {
            state.detectors().correlator.release(&key, settled_ms);
        }
        let evaluated = std::panic::catch_unwind(AssertUnwindSafe(|| evaluate(&self.config, &state, batch)));
        let Ok((anomalies, decisions)) = evaluated else {
            self.report.skipped += 1;
            return Ok(());
        };
        self.report.requests += 1;
        self.report.samples += batch.metrics.samples.len() as u64;
        if received_at >= self.options.from {
            self.report.anomalies += anomalies.len() as u64;
        }
        for decision in decisions {
            match decision {
                Decision::Opened(incident) => self.report.incidents.push((incident, None)),
                Decision::Joined { key, entity } => {
                    if let Some(incident) = self.report_incident(&key) {
                        incident.add_entity(&entity);
                    }
                }
                Decision::Updated { key, title, severity } => {
                    if let Some(incident) = self.report_incident(&key) {
                        (incident.title, incident.severity) = (title, severity);
                    }
                }
            }
        }
        let flushed = self.blocks.flush_blocks_if_large(&self.options.tenant, &mut state.live_state());
        flushed.map_err(|error| temporary_files_error(&error))
    }

    fn report_incident(&mut self, key: &str) -> Option<&mut Incident> {
        self.report.incidents.iter_mut().map(|(incident, _)| incident).find(|incident| incident.key == key)
    }

    /// Waits until a request is due at the replay's speed.
    async fn wait_for_replay_speed(&mut self, received_at: Timestamp) {
        let Some(speed) = self.options.speed.filter(|_| received_at >= self.options.from) else { return };
        let (first, since) = *self.pace_start.get_or_insert((received_at, Instant::now()));
        let elapsed_seconds = (received_at.millis() - first.millis()).max(0) as f64 / 1000.0;
        let due = Duration::try_from_secs_f64(elapsed_seconds / speed).unwrap_or_default();
        tokio::time::sleep(due.saturating_sub(since.elapsed())).await;
    }

    /// Completes the report and writes its incidents to gold tables.
    async fn finish(mut self, originals: &BTreeMap<String, (String, String)>) -> Result<ReplayReport, ReplayError> {
        let (from, to) = (self.options.from, self.options.to);
        self.report.incidents.retain(|(incident, _)| (from..=to).contains(&incident.opened_at));
        for (incident, id) in &mut self.report.incidents {
            *id = originals.get(&incident.key).map(|(id, _)| id.clone());
        }
        let opened_again = |key: &String| self.report.incidents.iter().any(|(incident, _)| incident.key == *key);
        let missing = originals.iter().filter(|(key, _)| !opened_again(key)).map(|(_, original)| original.clone());
        self.report.missing = missing.collect();
        drop(self.blocks);
        std::fs::remove_dir_all(self.options.out.join("work")).map_err(|error| temporary_files_error(&error))?;
        let lake = Lake::open(&wardroom_lake::Config::default(), &self.options.out).await?;
        for day in from.millis().div_euclid(DAY_MS)..=to.millis().div_euclid(DAY_MS) {
            let is_of_day = |fact: &IncidentFact| fact.opened_at.millis().div_euclid(DAY_MS) == day;
            let incidents = self.report.incidents.iter();
            let facts =
                incidents.map(|(incident, id)| IncidentFact { id: id.clone(), ..opened_incident_fact(incident) });
            let facts: Vec<_> = facts.filter(is_of_day).collect();
            lake.write_incidents(&self.options.tenant, day, &facts, to).await?;
        }
        Ok(self.report)
    }
}

fn temporary_files_error(error: &dyn std::fmt::Display) -> ReplayError {
    ReplayError::Io(format!("writing temporary files failed: {error}"))
}
