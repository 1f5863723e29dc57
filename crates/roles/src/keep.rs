//! The lake role: what went through detection goes into the tables, batch by batch.
//!
//! ```text
//! pump, between two records ── cut at offset X ──► files ──► commit txn(X) ──► sync ──► the bus may forget what is before X
//! ```
//!
//! A batch is everything between two offsets of the bus. One at a time is on its way, and while it is no
//! checkpoint is taken: so a checkpoint never says that something is in the lake which is not. After a restart the tables
//! say how far they are. Is that beyond the checkpoint, then what is read again up to there is let go
//! at that offset; either way each sample lands once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wardroom_bus::Bus;
use wardroom_domain::{Labels, Sample, TenantId};
use wardroom_head::NumberedCut;
use wardroom_lake::{Error, Flush, Lake, Landed, NewSeries};
use wardroom_store::Stream;

use crate::checkpoint::Checkpoints;
use crate::detect::{Live, SELF, Tenant, Tenants};
use crate::{clock, metrics as names};

/// The group on the bus that says what the lake has.
pub(crate) const GROUP: &str = "lake";
/// Late samples of a tenant that may wait for the next batch.
const LOOSE: usize = 200_000;
/// How often the lake is looked after.
const MAINTAIN: Duration = Duration::from_secs(30);
/// Every so many times old files are deleted.
const SWEEP: u64 = 120;
/// Longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(30);

/// How the tables stand, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    reached: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Progress {
    /// Everything before this offset is in the tables.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Why they cannot be written at the moment.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The tables, and where they ended at the start.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) lake: Arc<Lake>,
    pub(crate) reached: Option<u64>,
    pub(crate) progress: Arc<Progress>,
}

/// The lake as the pump sees it.
pub(crate) struct Keeper {
    tables: Tables,
    config: wardroom_lake::Config,
    bus: Arc<dyn Bus>,
    runtime: tokio::runtime::Handle,
    /// Everything before this offset is in the tables.
    reached: u64,
    /// What is read again below this offset is there already.
    known_to: Option<u64>,
    /// The batch on its way.
    sent: Option<(u64, oneshot::Receiver<()>)>,
    /// When the last batch was made up.
    since: Instant,
    samples: u64,
    series: u64,
}

impl Keeper {
    /// Goes on where the tables end; detection starts at `next`.
    pub(crate) fn new(
        tables: Tables,
        config: wardroom_lake::Config,
        bus: Arc<dyn Bus>,
        runtime: tokio::runtime::Handle,
        next: u64,
    ) -> Self {
        let reached = tables.reached;
        let this = Self {
            tables,
            config,
            bus,
            runtime,
            reached: reached.unwrap_or(next),
            known_to: reached.filter(|reached| *reached > next),
            sent: None,
            since: Instant::now(),
            samples: 0,
            series: 1,
        };
        this.tables.progress.reached.store(this.reached, Ordering::Release);
        this
    }

    /// Everything before this offset is in the tables.
    pub(crate) const fn reached(&self) -> u64 {
        self.reached
    }

    /// The offset at which the records that are in the tables already end.
    pub(crate) const fn known_to(&self) -> Option<u64> {
        self.known_to
    }

    /// Whether a batch is on its way: then is no time for a checkpoint.
    pub(crate) const fn busy(&self) -> bool {
        self.sent.is_some() || self.known_to.is_some()
    }

    /// Counts what went through detection.
    pub(crate) fn count(&mut self, samples: usize) {
        self.samples += samples as u64;
    }

    /// Between two records: the next one is `next`.
    pub(crate) fn turn(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        if let Some(known) = self.known_to {
            if next < known {
                return;
            }
            tenants.all().iter().for_each(|(_, tenant)| drop(tenant.live().recent.cut()));
            self.known_to = None;
            self.begin();
        }
        if let Some((offset, done)) = &mut self.sent {
            match done.try_recv() {
                Ok(()) => {
                    self.reached = *offset;
                    self.sent = None;
                    self.note(tenants);
                }
                Err(oneshot::error::TryRecvError::Empty) => return,
                // The process is ending.
                Err(oneshot::error::TryRecvError::Closed) => return,
            }
        }
        if self.due(next, tenants) {
            self.send(next, tenants, checkpoints);
        }
    }

    fn due(&mut self, next: u64, tenants: &Tenants) -> bool {
        if next <= self.reached {
            self.since = Instant::now();
            return false;
        }
        self.samples >= self.series * u64::from(self.config.flush_steps)
            || self.since.elapsed() >= Duration::from_secs(self.config.flush_seconds)
            || tenants.all().iter().any(|(_, tenant)| tenant.live().recent.loose() > LOOSE)
    }

    fn begin(&mut self) {
        (self.samples, self.since) = (0, Instant::now());
    }

    /// The bus and the journals may forget.
    fn note(&self, tenants: &Tenants) {
        for (_, tenant) in tenants.all() {
            let live = &mut *tenant.live();
            live.needed = live.recent.cut_at();
        }
        self.tables.progress.reached.store(self.reached, Ordering::Release);
        if let Err(error) = self.bus.commit(GROUP, self.reached) {
            tracing::warn!(%error, "the bus keeps more than the lake needs");
        }
    }

    /// Makes up the batch that ends before `next`, and lets it go its way.
    fn send(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        let (mut parts, mut new) = (Vec::new(), Vec::new());
        for (id, tenant) in tenants.all() {
            if id.as_str() == SELF {
                continue;
            }
            match part(&id, &tenant, checkpoints, &mut new) {
                Ok(part) => parts.push(part),
                Err(error) => {
                    // The blocks wait in memory, and the next batch has them.
                    tracing::error!(%error, "samples for the lake cannot be gathered");
                    return;
                }
            }
        }
        self.series = parts.iter().map(|part| part.series as u64).sum::<u64>().max(1);
        let samples = self.samples;
        self.begin();
        let (done, sent) = oneshot::channel();
        self.sent = Some((next, sent));
        let (lake, progress) = (Arc::clone(&self.tables.lake), Arc::clone(&self.tables.progress));
        self.runtime.spawn(async move {
            let (batch, started) = (Arc::new(parts), Instant::now());
            let mut wait = Duration::from_millis(200);
            // What cannot be stored now is tried until it can: the bus keeps it, and says 503 when it is full.
            while let Err(error) = write(&lake, next, &batch, &new).await {
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(offset = next, %error, "a batch cannot be written to the lake; it is tried again");
                progress.tell(Some(error.to_string()));
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
            progress.tell(None);
            metrics::counter!(names::LAKE_SAMPLES_TOTAL).increment(samples);
            metrics::gauge!(names::LAKE_FLUSH_SECONDS).set(started.elapsed().as_secs_f64());
            // Nobody waits for it any more if the process is ending.
            let _ending = done.send(());
        });
    }
}

/// What one tenant adds to a batch.
struct Part {
    tenant: TenantId,
    cut: NumberedCut,
    sealed: Stream,
    series: usize,
}

fn part(
    id: &TenantId,
    tenant: &Tenant,
    checkpoints: &mut Checkpoints,
    new: &mut Vec<NewSeries>,
) -> Result<Part, crate::checkpoint::Error> {
    let live = &mut *tenant.live();
    // The stream must be on disk up to its end for the batch to be read from there.
    live.recent.close();
    checkpoints.keep(id, live)?;
    let cut = live.recent.cut();
    let series = cut.series();
    let mut numbers = BTreeMap::new();
    {
        let registry = tenant.registry();
        for series in &series {
            let labels = registry.labels(*series).cloned().unwrap_or_default();
            let (number, unknown) = live.numbers.of(*series, &labels);
            numbers.insert(*series, number);
            if unknown {
                let first_ms = live.recent.span_ms(*series).map_or(0, |(first, _)| first);
                new.push(NewSeries { tenant: id.clone(), id: number, labels, first_ms });
            }
        }
    }
    let count = series.len();
    let cut = cut.numbered(|series| numbers.get(&series).copied().unwrap_or_default());
    Ok(Part { tenant: id.clone(), cut, sealed: live.sealed.clone(), series: count })
}

async fn write(lake: &Lake, offset: u64, parts: &Arc<Vec<Part>>, new: &[NewSeries]) -> Result<Landed, Error> {
    let parts = Arc::clone(parts);
    let encoding = tokio::task::spawn_blocking(move || {
        let mut flush = Flush::new(offset);
        for part in parts.iter() {
            let fetch = |address: u64, buffer: &mut [u8]| part.sealed.read(address, buffer);
            let each = |number: i64, samples: &[Sample]| flush.push(&part.tenant, number, samples);
            let unreadable = || Error::Unavailable(format!("sealed samples of {} cannot be read", part.tenant));
            part.cut.each(&fetch, each).ok_or_else(unreadable)??;
        }
        Ok::<_, Error>(flush)
    });
    let flush = encoding.await.map_err(|error| Error::Unavailable(error.to_string()))??;
    lake.flush(flush, new, clock::now()).await
}

/// Merges short files into long ones and deletes what nobody needs, for ever.
pub(crate) async fn maintain(tables: Tables) {
    for turn in 1_u64.. {
        tokio::time::sleep(MAINTAIN).await;
        if turn % SWEEP == 0 {
            match tables.lake.sweep().await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "files that were merged a week ago are deleted"),
                Err(error) => tracing::error!(%error, "old files of the lake could not be deleted"),
            }
        }
        let started = Instant::now();
        match tables.lake.merge().await {
            Ok(done) if done.files_in > 0 => {
                metrics::counter!(names::LAKE_MERGED_ROWS_TOTAL).increment(done.rows);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(
                    files_in = done.files_in,
                    files_out = done.files_out,
                    rows = done.rows,
                    seconds,
                    "merged"
                );
            }
            Ok(_) => {}
            Err(error) => {
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(%error, "files of the lake could not be merged; they are tried again");
            }
        }
    }
}

/// Tells detection what the lake knows of its series beyond what the checkpoint says.
pub(crate) async fn learn(lake: &Lake, tenants: &Tenants, after: Option<u64>) -> Result<(), Error> {
    let mut written: BTreeMap<TenantId, HashMap<Labels, i64>> = BTreeMap::new();
    for (tenant, number, labels) in lake.series(after).await? {
        written.entry(tenant).or_default().insert(labels, number);
    }
    for (tenant, highest) in lake.highest().await? {
        let written = written.remove(&tenant).unwrap_or_default();
        tenants.with(&tenant, |live: &mut Live| live.numbers.learn(written, highest));
    }
    Ok(())
}
