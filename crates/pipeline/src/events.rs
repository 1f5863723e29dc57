//! The events role: requests, and what in them has a table of its own, go from the bus into the tables.
//!
//! ```text
//! bus ──► decode ──► what came before? ──► rows ──► commit txn(X) to each table ──► sync ──► the bus may forget what is before X
//! ```
//!
//! A reader of the bus of its own: detection neither waits for it nor tells it anything. Each row bears the offset of
//! its request, so a table that is further than others after a crash lets go what it has. A request that a sender
//! repeats within a day is left out, as detection leaves it out; what came before is read from the tables.
//!
//! A record of which no rows can be made is tried five times and laid aside, and the rest goes on. A try that failed may have left
//! half a row, so everything that was not written yet is read again; where it shows only when many are written that one of them is
//! bad, they are written one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wardroom_bus::{Bus, DeadLetters, Place, Reason, Record};
use wardroom_detect::{Seen, template};
use wardroom_domain::error::Failure;
use wardroom_domain::{EntityRules, Envelope, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_lake::{Error, Events, Lake, Line, Origin, Received};
use wardroom_sources::Recorded;

use crate::config::Config;
use crate::keep::{LONGEST, Progress, Tables};
use crate::tenants::SELF;
use wardroom_process::clock;

use crate::{metrics as names, poison};

/// The group on the bus that says what these tables have.
pub const GROUP: &str = "lake-events";
/// Memory that rows may take before they are written.
const MUCH: usize = 32 << 20;
/// How long a repetition is recognised.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How soon whoever asks sees what came.
const SHOWN: Duration = Duration::from_secs(1);
/// Requests that are read in one go: their bodies lie in memory meanwhile.
const READ: usize = 32;
/// How often the bus is asked for more: each time opens a segment, for however few requests, and nothing shows sooner than `SHOWN`.
const POLL: Duration = Duration::from_millis(250);
/// How long a try that failed waits at least.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where it is on the bus, what came before, and what waits to be written.
type Begin = (u64, BTreeMap<TenantId, Seen>, Events);

/// The role.
struct Recorder {
    lake: Arc<Lake>,
    bus: Arc<dyn Bus>,
    budget: InflateBudget,
    sources: wardroom_sources::Config,
    rules: EntityRules,
    flush: Duration,
    progress: Arc<Progress>,
    letters: Arc<DeadLetters>,
    runtime: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
}

/// Records of which no rows can be made.
#[derive(Default)]
struct Hard {
    /// How often each was tried, and since when.
    tried: BTreeMap<u64, (u32, Timestamp)>,
    laid_aside: BTreeSet<u64>,
    /// Before this offset each is written by itself.
    careful_to: u64,
}

/// A record stands in the way: this one, or one of those before it.
struct Trip {
    offset: u64,
    alone: bool,
    error: String,
}

/// As long as it is there, the role goes on.
pub struct Recording(Arc<AtomicBool>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Starts the role on a thread of its own.
pub fn start(
    tables: &Tables,
    config: &Config,
    bus: &Arc<dyn Bus>,
    budget: &InflateBudget,
    letters: &Arc<DeadLetters>,
    background: &mut JoinSet<()>,
) -> Recording {
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Recorder {
        lake: Arc::clone(&tables.lake),
        bus: Arc::clone(bus),
        budget: budget.clone(),
        sources: config.sources.clone(),
        rules: config.entities.clone(),
        flush: Duration::from_secs(config.lake.flush_seconds),
        progress: Arc::clone(&tables.events),
        letters: Arc::clone(letters),
        runtime: tokio::runtime::Handle::current(),
        stop: Arc::clone(&stop),
    };
    background.spawn_blocking(move || recorder.run());
    Recording(stop)
}

impl Recorder {
    /// Runs until it is told to stop; what is not in the tables by then is on the bus.
    fn run(self) {
        let laid_aside = self.letters.offsets(GROUP);
        let laid_aside = laid_aside.inspect_err(|error| tracing::error!(%error, "what was laid aside is tried again"));
        let mut hard = Hard { laid_aside: laid_aside.unwrap_or_default(), ..Hard::default() };
        while let Some(place) = self.until_done("events cannot be read", || self.begin()) {
            if let Err(trip) = self.go_on(place, &hard) {
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(offset = trip.offset, error = trip.error, "no rows can be made of a record");
                self.note(&mut hard, trip);
            }
        }
    }

    /// Tries a record again later, or lays it aside.
    fn note(&self, hard: &mut Hard, trip: Trip) {
        if !trip.alone {
            hard.careful_to = trip.offset + 1;
            return;
        }
        let (tries, first_try) = hard.tried.entry(trip.offset).or_insert((0, clock::now()));
        *tries += 1;
        if *tries < poison::TRIES {
            return self.pause(PATIENCE / 2 * 2_u32.pow(*tries - 1));
        }
        let (group, last_try) = (GROUP.to_owned(), clock::now());
        let reason =
            Reason { group, offset: trip.offset, reason: trip.error, tries: *tries, first_try: *first_try, last_try };
        let found = self.bus.read(trip.offset, 1).map(|found| found.into_iter().next());
        match found {
            Ok(Some(record)) if record.offset == trip.offset => {
                poison::bury(&self.letters, &self.runtime, &reason, &record, || self.stopped());
            }
            other => tracing::error!(offset = trip.offset, found = other.is_ok(), "a record to lay aside is not there"),
        }
        hard.laid_aside.insert(trip.offset);
    }

    /// Reads on until it is told to stop.
    fn go_on(&self, (mut next, mut seen, mut events): Begin, hard: &Hard) -> Result<(), Trip> {
        let among = |next: u64| move |error: Error| Trip { offset: next, alone: false, error: error.to_string() };
        let (mut since, mut shown, mut fresh, mut noted) = (Instant::now(), Instant::now(), true, next);
        // Of samples only the header is of interest here, unless some of them are to be shown as refused.
        let skip = |envelope: &Envelope| !envelope.events && envelope.refused.is_empty();
        while !self.stopped() {
            if events.is_empty() {
                self.progress.set(next);
            }
            if events.bytes() >= MUCH || since.elapsed() >= self.flush {
                if next > noted && !self.flush(&mut events, next).map_err(among(next))? {
                    break;
                }
                (since, noted) = (Instant::now(), next);
            }
            if fresh && shown.elapsed() >= SHOWN {
                self.runtime.block_on(self.lake.show(events.pending(next).map_err(among(next))?));
                (shown, fresh) = (Instant::now(), false);
            }
            let end = self.bus.end();
            let read = if end > next { self.bus.follow(next, READ, &skip) } else { Ok(Vec::new()) };
            let read = read.inspect_err(|error| tracing::error!(%error, "bus cannot be read; events wait"));
            if read.as_ref().map_or(true, Vec::is_empty) {
                // What lies before the end that was there can never be read.
                next = if read.is_ok() { next.max(end) } else { next };
                std::thread::sleep(POLL);
            }
            for record in read.into_iter().flatten() {
                next = record.offset + 1;
                if record.envelope.tenant.as_str() == SELF || hard.laid_aside.contains(&record.offset) {
                    continue;
                }
                let alone = |error| Trip { offset: record.offset, alone: true, error };
                let taken = AssertUnwindSafe(|| self.take(&record, &mut seen, &mut events));
                let taken = std::panic::catch_unwind(taken).map_err(|panic| alone(poison::words(&*panic)))?;
                taken.map_err(|error| alone(error.to_string()))?;
                fresh = true;
                if record.offset < hard.careful_to {
                    if !self.flush(&mut events, next).map_err(|error| alone(error.to_string()))? {
                        return Ok(());
                    }
                    (since, noted) = (Instant::now(), next);
                }
            }
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Where the tables end, and which requests they hold.
    fn begin(&self) -> Result<Begin, Error> {
        let committed = self.bus.committed(GROUP).map_err(|error| Error::Unavailable(error.to_string()))?;
        let next = committed.unwrap_or_default().max(self.bus.start());
        let since = clock::now().minus(DAY).nanos() / 1000;
        let reached = self.runtime.block_on(self.lake.events_reached())?;
        let requests = self.runtime.block_on(self.lake.requests(next, since))?;
        let mut seen: BTreeMap<TenantId, Seen> = BTreeMap::new();
        for (tenant, requests) in requests {
            let seen = seen.entry(tenant).or_default();
            requests.iter().for_each(|request| seen.note(request.fingerprint, request.received_us / 1000));
        }
        Ok((next, seen, Events::new(reached)))
    }

    /// Takes a record with its rows.
    fn take(&self, record: &Record, seen: &mut BTreeMap<TenantId, Seen>, events: &mut Events) -> Result<(), Error> {
        let envelope = &record.envelope;
        let Place { segment, position, bytes, sha256, size } = record.place;
        let received = Received { envelope, body: &record.body, size, sha256: &sha256, segment, position, bytes };
        let mut from = Origin::new(envelope.tenant.clone(), record.offset, envelope.received_at, None);
        events.request(&from, &received)?;
        if !envelope.events {
            return Ok(());
        }
        let Recorded { fingerprint: request, histograms, exemplars, batch } = loop {
            match wardroom_sources::replay(envelope, &record.body, &self.budget) {
                Ok(decoded) => break decoded.recorded(&record.body, &self.sources, envelope.received_at),
                Err(Failure::Retryable(_)) if !self.stopped() => std::thread::sleep(PATIENCE),
                // Detection lays it aside as a dead letter.
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "a record cannot be read into the tables");
                    events.unreadable(&from, &received, &error.to_string())?;
                    return Ok(());
                }
            }
        };
        poison::trip_row(&batch);
        let received_ms = envelope.received_at.millis();
        if let Some(fingerprint) = request {
            let seen = seen.entry(envelope.tenant.clone()).or_default();
            if seen.knows(fingerprint, received_ms) {
                return Ok(());
            }
            seen.note(fingerprint, received_ms);
        }
        from.of_request(request);
        let (mut text, mut parameters) = (String::new(), Vec::new());
        for (seq, log) in (0..).zip(&batch.logs) {
            template(&log.message, &mut text, &mut parameters);
            let service = if log.service.is_empty() { self.rules.service_of(&log.labels) } else { &log.service };
            let line = Line { log, service, template: &text, parameters: &parameters };
            events.log(&from, seq, &line)?;
        }
        for (seq, span) in (0..).zip(&batch.spans) {
            events.span(&from, seq, span, self.rules.service_of(&span.labels))?;
        }
        for (seq, deployment) in (0..).zip(&batch.deployments) {
            events.deployment(&from, seq, deployment)?;
        }
        for (seq, (labels, histogram)) in (0..).zip(&histograms) {
            events.histogram(&from, seq, labels, histogram)?;
        }
        for (seq, (labels, exemplar)) in (0..).zip(&exemplars) {
            events.exemplar(&from, seq, labels, exemplar)?;
        }
        Ok(())
    }

    /// Writes what came before `next`; `false` if it was told to stop.
    fn flush(&self, events: &mut Events, next: u64) -> Result<bool, Error> {
        if !events.is_empty() {
            let written = events.finish(next, clock::now())?;
            let land = || self.runtime.block_on(self.lake.land(&written));
            if self.until_done("events cannot be written to the lake", land).is_none() {
                return Ok(false);
            }
            metrics::counter!(names::LAKE_EVENTS_TOTAL).increment(written.rows());
        }
        self.progress.set(next);
        if let Err(error) = self.bus.commit(GROUP, next) {
            tracing::warn!(%error, "the bus keeps more than the tables of events need");
        }
        Ok(true)
    }

    fn trouble(&self, what: &str, error: &Error) {
        metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
        tracing::error!(%error, "{what}");
        self.progress.tell(Some(error.to_string()));
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.stopped() {
            std::thread::sleep(PATIENCE);
        }
    }

    /// Tries until it succeeds; `None` if it is told to stop before.
    fn until_done<T>(&self, what: &str, mut work: impl FnMut() -> Result<T, Error>) -> Option<T> {
        let mut wait = 2 * PATIENCE;
        while !self.stopped() {
            match work() {
                Ok(done) => {
                    self.progress.tell(None);
                    return Some(done);
                }
                Err(error) => self.trouble(what, &error),
            }
            self.pause(wait);
            wait = (wait * 2).min(LONGEST);
        }
        None
    }
}
