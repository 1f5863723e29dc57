//! The detection role: every batch in the order of the bus, through head and detectors, into the store.
//!
//! What intake decoded comes through the queue; what is missing there (a restart, a full queue, a sender
//! that hung up) is read from the bus again. Either way each offset is processed once, in order, so that a
//! replay finds the same. Once a minute the state is written down (`checkpoint.rs`), and the bus need not
//! keep what came before.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wardroom_bus::{Bus, DeadLetters, Reason, Record};
use wardroom_correlate::{Decision, Trouble};
use wardroom_detect::{Breach, Engine, SignalKind};
use wardroom_domain::error::Failure;
use wardroom_domain::{Anomaly, Batch, Severity, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_head::Arrival;

use crate::checkpoint::{Checkpoints, Resumed};
use crate::config::Config;
use crate::findings::{Findings, Unheard};
use crate::intake::Queue;
use crate::keep::{Keeper, Tables};
use crate::salvage::Salvage;
use crate::tenants::{FAMILIES, SELF, Tenant, Tenants, topology};
use wardroom_process::clock;

use crate::{metrics as names, poison};

/// How far back the bus is replayed at a start without a checkpoint.
const REPLAY: Duration = Duration::from_secs(45 * 60);

/// Records that may be on their way from the bus to the queue at one moment, and more.
const FAR: u64 = 1024;

/// Pumps batches for ever; runs on a thread of its own.
pub struct Pump {
    /// What it is told.
    pub config: Config,
    /// Where batches are, in order.
    pub bus: Arc<dyn Bus>,
    /// What it works on.
    pub tenants: Arc<Tenants>,
    /// What intake has decoded already.
    pub queue: Arc<Queue>,
    /// What decoding may take.
    pub budget: InflateBudget,
    /// What it finds, for those who hear it.
    pub findings: Findings,
    /// The next offset: everything below has been through the detectors.
    pub next: Arc<AtomicU64>,
    /// Where records go that it cannot take.
    pub letters: Arc<DeadLetters>,
    /// Offsets that were laid aside before the start.
    pub buried: BTreeSet<u64>,
    /// For whatever has to be waited for.
    pub runtime: tokio::runtime::Handle,
    /// Where its state is written down.
    pub checkpoints: Checkpoints,
    /// Where the last checkpoint ended.
    pub resumed: Option<Resumed>,
    /// The tables, unless nothing is kept.
    pub lake: Option<Tables>,
}

impl Pump {
    /// Runs until nobody listens any more.
    pub fn run(mut self) {
        let mut next = self.first();
        let mut keeper = self.keeper(next);
        let mut taken = Instant::now();
        loop {
            self.next.store(next, Ordering::Release);
            if self.findings.due() && self.findings.tell().is_err() {
                return;
            }
            let behind = self.bus.end().saturating_sub(next);
            if let Some(keeper) = &mut keeper {
                keeper.turn(next, &self.tenants, &mut self.checkpoints);
            }
            let busy = keeper.as_ref().is_some_and(Keeper::busy);
            if !busy && taken.elapsed() >= Duration::from_secs(self.config.checkpoint.interval_seconds) {
                self.checkpoint(next, keeper.as_ref().and_then(Keeper::stored));
                taken = Instant::now();
            }
            let patience = match behind {
                // What arrives wakes it; it looks by itself for a flush that is done or due, and for what others put on the bus.
                0 => Duration::from_millis(if busy { 100 } else { 500 }),
                1..=FAR => Duration::from_millis(20),
                // Long since on the bus: what does not wait decoded is not on its way here.
                _ => Duration::ZERO,
            };
            let waiting = self.queue.take(next, patience);
            // One whose series were numbered anew meanwhile is read again.
            let waiting = waiting.filter(|(tenant, batch)| self.tenants.current(tenant, batch));
            if let Some((tenant, batch)) = waiting {
                if self.process(next, &tenant, &batch).is_err() {
                    return;
                }
                keeper.iter_mut().for_each(|keeper| keeper.count(batch.metrics.samples.len()));
                next += 1;
                self.drain(&tenant);
            } else if self.bus.end() > next {
                let (mut samples, known) = (0, keeper.as_ref().and_then(Keeper::known_to));
                match self.catch_up(next, known, &mut samples) {
                    Ok(Some(reached)) => {
                        keeper.iter_mut().for_each(|keeper| keeper.count(samples));
                        next = reached;
                        self.tenants.all().iter().for_each(|(tenant, _)| self.drain(tenant));
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "bus cannot be read; detection waits");
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            }
            if self.findings.unheard() {
                return;
            }
        }
    }

    /// Writes the state down; without it the next start reads more of the bus. What detection said up to here is
    /// stored before, since after a restart from here it is not said again.
    fn checkpoint(&mut self, next: u64, lake: Option<u64>) {
        if self.findings.settle().is_err() {
            return;
        }
        let (started, covered_ms) = (Instant::now(), self.tenants.covered_ms.load(Ordering::Acquire));
        if let Err(error) = self.checkpoints.retire(&self.config, &self.tenants) {
            tracing::error!(%error, "series that left stay in memory");
        }
        match self.checkpoints.take(next, covered_ms, lake, self.bus.as_ref(), &self.tenants) {
            Ok(size) => {
                metrics::counter!(names::CHECKPOINTS_TOTAL).increment(1);
                metrics::gauge!(names::CHECKPOINT_SECONDS).set(started.elapsed().as_secs_f64());
                metrics::gauge!(names::CHECKPOINT_BYTES).set(size as f64);
            }
            Err(error) => tracing::error!(%error, "no checkpoint; a restart reads more of the bus"),
        }
    }

    fn drain(&mut self, tenant: &TenantId) {
        let state = self.tenants.get(tenant);
        if let Err(error) = self.checkpoints.drain(tenant, &mut state.live()) {
            tracing::error!(%error, "sealed blocks cannot be written; they wait in memory");
        }
    }

    /// Where the last checkpoint ended; without one, the first record young enough to be replayed.
    fn first(&self) -> u64 {
        if let Some(Resumed { offset, covered_ms, .. }) = self.resumed {
            // Older blocks of series that fell silent are not in the journals any more: the bus has them.
            let live = Duration::from_secs(u64::from(self.config.head.recent_minutes) * 60);
            let covered_ms = covered_ms.max(clock::now().minus(live).millis());
            self.tenants.covered_ms.store(covered_ms, Ordering::Release);
            return offset;
        }
        let read = |offset| self.bus.read(offset, 1).ok().and_then(|records| records.into_iter().next());
        let mut first = first_since(read, (self.bus.start(), self.bus.end()), clock::now().minus(REPLAY));
        if let Some(reached) = self.lake.as_ref().and_then(|tables| tables.reached) {
            // What the tables lack is on the bus.
            first = first.min(reached.max(self.bus.start()));
        }
        // A record before the first may hold samples from the sender's future, also one that the bus has forgotten.
        let ahead = Duration::from_secs(self.config.sources.max_ahead_minutes * 60);
        let begun = self.bus.read(first, 1).ok().and_then(|records| Some(records.first()?.envelope.received_at));
        let covered = begun.unwrap_or_else(clock::now).plus(ahead).millis();
        let covered = if first == 0 { i64::MIN } else { covered };
        self.tenants.covered_ms.store(covered, Ordering::Release);
        first
    }

    /// The way into the tables, from this offset on.
    fn keeper(&self, next: u64) -> Option<Keeper> {
        let (tables, config) = (self.lake.clone()?, self.config.lake.clone());
        let salvage = Salvage {
            bus: Arc::clone(&self.bus),
            tenants: Arc::clone(&self.tenants),
            budget: self.budget.clone(),
            letters: Arc::clone(&self.letters),
            runtime: self.runtime.clone(),
        };
        Some(Keeper::new(tables, config, salvage, self.resumed, next))
    }

    /// Reads from the bus what does not wait decoded, and counts the samples. `None` if nobody listens any more.
    fn catch_up(
        &mut self,
        next: u64,
        known: Option<u64>,
        samples: &mut usize,
    ) -> Result<Option<u64>, wardroom_bus::Error> {
        // No further than to what waits decoded already, or to where the tables end.
        let stop = self.queue.first().into_iter().chain(known).filter(|stop| *stop > next).min();
        let gap = stop.map_or(256, |stop| (stop - next).min(256));
        let end = self.bus.end();
        let records = self.bus.read(next, gap as usize)?;
        // Everything up to where the end was is damaged: nothing to wait for.
        let mut reached = if records.is_empty() { end } else { next };
        for record in records {
            reached = record.offset + 1;
            if self.buried.contains(&record.offset) {
                continue;
            }
            match self.decode(&record) {
                Ok(batch) => {
                    if self.process(record.offset, &record.envelope.tenant, &batch).is_err() {
                        return Ok(None);
                    }
                    *samples += batch.metrics.samples.len();
                }
                Err(detail) => {
                    let reason = poison::unreadable(record.offset, detail, clock::now());
                    poison::bury(&self.letters, &self.runtime, &reason, &record, || self.findings.unheard());
                }
            }
        }
        Ok(Some(reached))
    }

    fn decode(&self, record: &Record) -> Result<Batch, String> {
        loop {
            match decode(&self.tenants, &self.budget, record) {
                // The budget is taken by requests that come in.
                Err(Failure::Retryable(_)) if !self.findings.unheard() => std::thread::sleep(Duration::from_millis(20)),
                done => return done.map_err(|error| error.to_string()),
            }
        }
    }

    /// One batch through everything. `Err` if nobody listens any more.
    fn process(&mut self, offset: u64, tenant: &TenantId, batch: &Batch) -> Result<(), Unheard> {
        if tenant.as_str() == SELF {
            let newest = batch.metrics.samples.iter().map(|sample| sample.ts_ms).max().unwrap_or_default();
            self.tenants.probed_ms.fetch_max(newest.max(0) as u64, Ordering::AcqRel);
        }
        let state = self.tenants.get(tenant);
        let judged = poison::tries(offset, || {
            // A record that trips a detector must not stop the detection of everything else.
            let judged = std::panic::catch_unwind(AssertUnwindSafe(|| judge(&self.config, &state, batch)));
            judged.map_err(|panic| {
                metrics::counter!(names::DETECT_PANICS_TOTAL).increment(1);
                poison::words(&*panic)
            })
        });
        let (anomalies, decisions) = match judged {
            Ok(found) => found,
            Err(reason) => {
                self.lay_aside(offset, &reason);
                return Ok(());
            }
        };
        self.findings.add(tenant, anomalies);
        decisions.into_iter().try_for_each(|decision| self.findings.decide(tenant, decision))
    }

    fn lay_aside(&self, offset: u64, reason: &Reason) {
        loop {
            match self.bus.read(offset, 1).map(|records| records.into_iter().find(|record| record.offset == offset)) {
                Ok(Some(record)) => {
                    return poison::bury(&self.letters, &self.runtime, reason, &record, || self.findings.unheard());
                }
                Ok(None) => return tracing::error!(offset, "a record to lay aside is not on the bus"),
                Err(error) => tracing::error!(%error, offset, "a record to lay aside cannot be read"),
            }
            if self.findings.unheard() {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// The first record of a bus, between two offsets, that was received since a moment.
pub fn first_since(read: impl Fn(u64) -> Option<Record>, (mut low, mut high): (u64, u64), since: Timestamp) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        match read(middle) {
            Some(record) if record.envelope.received_at < since => low = record.offset + 1,
            _ => high = middle,
        }
    }
    low
}

/// What a record holds, its series by their numbers.
pub fn decode(tenants: &Tenants, budget: &InflateBudget, record: &Record) -> Result<Batch, Failure> {
    let mut decoded = wardroom_sources::replay(&record.envelope, &record.body, budget)?;
    let (keys, read) = (decoded.metrics.keys(), |at: usize| decoded.metrics.labels(at));
    // What was let in once stays in.
    let found = tenants.resolve(&record.envelope.tenant, keys, &read, false);
    decoded.metrics.identify(found.ids, found.generation);
    Ok(decoded.resolve(&record.body, record.envelope.received_at))
}

/// What a batch brings to light, and what follows from it.
pub fn judge(config: &Config, tenant: &Tenant, batch: &Batch) -> (Vec<Anomaly>, Vec<Decision>) {
    poison::trip(batch);
    let state = &mut *tenant.live();
    let known = state.engine.known_series();
    let more = batch.metrics.histograms.iter().map(|(series, _)| *series);
    let more = more.chain(batch.metrics.exemplars.iter().map(|(series, _)| *series));
    if batch.metrics.runs.iter().map(|run| run.series).chain(more).any(|series| series.index() >= known) {
        let new = tenant.registry().since(known).to_vec();
        new.iter().for_each(|labels| state.engine.add_series(labels));
    }
    let known = state.engine.known_series();
    let sealed = state.sealed.clone();
    let fetch = |address: u64, buffer: &mut [u8]| sealed.read(address, buffer);
    for (id, samples) in batch.metrics.iter().filter(|(id, _)| id.index() < known) {
        for sample in samples {
            let arrival = state.recent.push(id, *sample, &fetch);
            if arrival.counts() {
                state.engine.observe(id, std::slice::from_ref(sample));
            } else if batch.again && arrival == Arrival::Repeated {
                state.recent.again(id, *sample);
            }
        }
    }
    for (id, histogram) in batch.metrics.histograms.iter().filter(|(id, _)| id.index() < known) {
        let newest_ms = state.native.entry(*id).or_insert(i64::MIN);
        if histogram.ts_ms > *newest_ms {
            *newest_ms = histogram.ts_ms;
            state.engine.histogram(*id, histogram);
        }
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
    if batch.sighting.is_some_and(|request| state.engine.knows(request)) {
        metrics::counter!(names::REPEATED_TOTAL).increment(1);
    } else {
        batch.logs.iter().for_each(|log| state.engine.log(log));
        batch.deployments.iter().for_each(|deployment| state.engine.deployment(deployment));
        batch.spans.iter().for_each(|span| state.engine.span(span));
        // Not before: a detector that trips tries again.
        batch.sighting.into_iter().for_each(|request| state.engine.note(request));
    }
    let findings = state.engine.settle();
    let mut decisions = Vec::new();
    let opening: Vec<Breach> = findings.breaches.into_iter().filter(|breach| breach.key.peer.is_none()).collect();
    if !opening.is_empty() {
        let topology = topology(&state.engine);
        for breach in opening {
            let trouble = trouble(config, &breach, &state.engine);
            decisions.extend(state.correlator.observe(&trouble, &topology));
        }
    }
    (findings.anomalies, decisions)
}

fn trouble(config: &Config, breach: &Breach, engine: &Engine) -> Trouble {
    let at = Timestamp::from_millis(breach.at_ms);
    let since = Timestamp::from_millis(breach.since_ms);
    let window = Duration::from_secs(config.correlate.deployment_minutes * 60);
    let deployments = engine.deployments(since.minus(window), at);
    Trouble {
        service: breach.key.service.clone(),
        signal: breach.key.labels().to_string(),
        words: breach.words(),
        since_ms: breach.since_ms,
        at_ms: breach.at_ms,
        severity: if breach.key.kind == SignalKind::ErrorRatio { Severity::Critical } else { Severity::High },
        errors: breach.key.kind == SignalKind::ErrorRatio,
        deployed: deployments.iter().any(|deployment| deployment.service == breach.key.service),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    mod repeats;
    mod salvage;

    use bytes::Bytes;
    use wardroom_bus::EmbeddedBus;
    use wardroom_domain::{Envelope, Principal};

    use super::*;
    use crate::poison::{POISON, TRIES};
    use crate::tenants::News;

    fn envelope(at: Timestamp) -> Envelope {
        Envelope {
            tenant: TenantId::main(),
            principal: Principal::wardroom(),
            protocol: "json_logs".into(),
            content_type: "application/json".into(),
            content_encoding: String::new(),
            received_at: at,
            refused: Vec::new(),
            events: true,
        }
    }

    /// A bus, and what detection over it works with.
    struct Rig {
        dir: tempfile::TempDir,
        runtime: tokio::runtime::Runtime,
        bus: Arc<dyn Bus>,
        config: Config,
        tenants: Arc<Tenants>,
        letters: Arc<DeadLetters>,
        next: Arc<AtomicU64>,
    }

    impl Rig {
        fn new(config: Config) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let bus = EmbeddedBus::open(&dir.path().join("bus"), wardroom_bus::Config::default()).unwrap();
            Self {
                runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
                bus: Arc::new(bus),
                tenants: Arc::new(Tenants::new(config.clone())),
                letters: Arc::new(DeadLetters::open(&dir.path().join("dead")).unwrap()),
                next: Arc::default(),
                config,
                dir,
            }
        }

        fn append(&self, header: Envelope, body: Bytes) {
            self.runtime.block_on(self.bus.append(header, body)).unwrap();
        }

        /// Lets detection run until nobody hears it any more.
        fn start(&self, lake: Option<Tables>) -> (mpsc::Receiver<News>, std::thread::JoinHandle<()>) {
            let folder = self.dir.path().join("checkpoint");
            let held = self.bus.start()..=self.bus.end();
            let (checkpoints, resumed) = Checkpoints::open(&folder, &self.config, held, &self.tenants, None).unwrap();
            let (news, heard) = mpsc::channel(16);
            let pump = Pump {
                budget: InflateBudget::new(1 << 20, 1 << 20),
                config: self.config.clone(),
                bus: Arc::clone(&self.bus),
                tenants: Arc::clone(&self.tenants),
                queue: Arc::default(),
                findings: Findings::new(news),
                next: Arc::clone(&self.next),
                letters: Arc::clone(&self.letters),
                buried: BTreeSet::new(),
                runtime: self.runtime.handle().clone(),
                checkpoints,
                resumed,
                lake,
            };
            (heard, std::thread::spawn(move || pump.run()))
        }
    }

    fn line(text: &str) -> Bytes {
        serde_json::json!({ "level": "ERROR", "message": text, "service": "a" }).to_string().into()
    }

    /// Bar 2b, in one process: tried five times, laid aside with its reason, the log moves on, and a replay lands it once.
    #[test]
    fn a_record_that_panics_is_laid_aside_and_the_log_moves_on() {
        let rig = Rig::new(Config::default());
        let mut broken = envelope(clock::now());
        broken.protocol = "no_such_source".into();
        rig.append(envelope(clock::now()), line("before"));
        rig.append(envelope(clock::now()), line(POISON));
        rig.append(broken, line("?"));
        rig.append(envelope(clock::now()), line("after"));
        let (mut heard, pumping) = rig.start(None);
        let Rig { runtime, bus, tenants, letters, next, .. } = &rig;
        let wait = |offset: u64| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while next.load(Ordering::Acquire) < offset {
                assert!(Instant::now() < deadline, "detection stands at {}", next.load(Ordering::Acquire));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait(4);
        let late = clock::now().nanos();
        let found = letters.list(&TenantId::main()).unwrap();
        let seen: Vec<_> = found.iter().map(|letter| (letter.reason.offset, letter.reason.tries)).collect();
        assert_eq!(seen, [(1, TRIES), (2, 1)]);
        let reason = &found[0].reason;
        assert!(reason.reason.contains("poison") && reason.first_try < reason.last_try, "{reason:?}");
        assert!(late - reason.last_try.nanos() < 1_000_000_000, "the log moves on within a second");
        let lines = || {
            let from = clock::now().minus(Duration::from_secs(600));
            let top = tenants.with(&TenantId::main(), |live| live.engine.templates(from, clock::now(), Severity::High));
            top.iter().map(|template| (template.template.clone(), template.count)).collect::<Vec<_>>()
        };
        assert_eq!(lines(), [("after".to_owned(), 1), ("before".to_owned(), 1)]);
        poison::HARMLESS.store(true, Ordering::Release);
        for _ in 0..2 {
            let landed = runtime.block_on(letters.replay(bus, &TenantId::main(), found[0].id)).unwrap();
            assert_eq!(landed, Some(4));
        }
        wait(5);
        assert_eq!(lines().iter().filter(|(line, count)| line == POISON && *count == 1).count(), 1, "{:?}", lines());
        assert_eq!(poison::buried(letters).unwrap(), BTreeSet::from([1, 2]));
        heard.close();
        pumping.join().unwrap();
    }
}
