//! The lake role: what went through detection goes into the tables, batch by batch.
//!
//! ```text
//! pump, between two records ── cut at offset X ──► files ──► commit txn(X) ──► sync ──► the bus may forget what is before X
//! ```
//!
//! A batch is everything between two offsets of the bus. One at a time is on its way, and while it is no
//! checkpoint is taken: so a checkpoint never says that something is in the lake which is not. After a restart the tables
//! say how far they are. Is that beyond the checkpoint, then what is read again up to there is let go
//! at that offset; either way each sample lands once. What cannot be encoded is made again from the bus ([`crate::salvage`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wardroom_domain::{Sample, TenantId};
use wardroom_head::NumberedCut;
use wardroom_lake::{Error, Flush, Lake, Landed, NewSeries, Sweep};
use wardroom_store::Stream;

use crate::checkpoint::{Checkpoints, Resumed};
use crate::metrics as names;
use crate::poison::{self, TRIES};
use crate::salvage::Salvage;
use crate::tenants::{Live, SELF, Tenant, Tenants};
use wardroom_process::{clock, heap};

/// The group on the bus that says what the lake has.
pub const GROUP: &str = "lake";
/// Late samples of a tenant that may wait for the next batch.
const LOOSE: usize = 200_000;
/// Every so many times old files are deleted.
const SWEEP: u64 = 120;
/// Longest wait between two tries.
pub const LONGEST: Duration = Duration::from_secs(30);

/// How the tables stand, for whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    reached: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Progress {
    /// Everything before this offset is in the tables, for good.
    pub fn set(&self, reached: u64) {
        self.reached.store(reached, Ordering::Release);
    }

    /// Everything before this offset is in the tables.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Why they cannot be written at the moment.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why they cannot be written, or that they can.
    pub fn tell(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// What becomes of what is taken in.
#[derive(Clone)]
pub enum Kept {
    /// It is forgotten with the bus: the lake is off.
    Off,
    /// The bus keeps it, for the tables cannot be opened yet; this says why.
    Away(Arc<Progress>),
    /// It goes into the tables.
    Open(Tables),
}

impl Kept {
    /// The tables, if they are open.
    pub const fn tables(&self) -> Option<&Tables> {
        if let Self::Open(tables) = self { Some(tables) } else { None }
    }

    /// Why there should be tables and are none.
    pub fn away(&self) -> Option<String> {
        if let Self::Away(progress) = self { progress.trouble() } else { None }
    }
}

/// The tables.
#[derive(Clone)]
pub struct Tables {
    /// The tables themselves.
    pub lake: Arc<Lake>,
    /// Where they say that they end; nothing before their first batch.
    pub reached: Option<u64>,
    /// How those of samples stand.
    pub progress: Arc<Progress>,
    /// How those of events stand.
    pub events: Arc<Progress>,
}

/// The lake as the pump sees it.
pub struct Keeper {
    tables: Tables,
    config: wardroom_lake::Config,
    salvage: Salvage,
    /// What head holds once detection has come to this offset is there already.
    known_to: Option<u64>,
    /// The batch on its way.
    sent: Option<(u64, oneshot::Receiver<()>)>,
    /// When the last batch was made up.
    since: Instant,
    /// Seconds after it when time and late samples were last looked at.
    looked: u64,
    samples: u64,
    /// How many make a batch.
    enough: u64,
}

impl Keeper {
    /// Goes on where the tables end. Detection starts at `next`, from the checkpoint that is `resumed`.
    pub fn new(
        tables: Tables,
        config: wardroom_lake::Config,
        salvage: Salvage,
        resumed: Option<Resumed>,
        next: u64,
    ) -> Self {
        let reached = tables.reached.unwrap_or_else(|| salvage.bus.start().min(next));
        tables.progress.set(reached);
        let known_to = known_to(tables.reached, resumed.map(|resumed| resumed.lake), next);
        // The first ones go at once: whoever tries something out finds them.
        let (since, enough) = (Instant::now(), config.flush_steps.into());
        Self { tables, config, salvage, known_to, sent: None, since, looked: 0, samples: 0, enough }
    }

    /// Where the tables end, for a checkpoint.
    pub const fn stored(&self) -> Option<u64> {
        self.tables.reached
    }

    /// The offset at which the records that are in the tables already end.
    pub const fn known_to(&self) -> Option<u64> {
        self.known_to
    }

    /// Whether a batch is on its way: then is no time for a checkpoint.
    pub const fn busy(&self) -> bool {
        self.sent.is_some() || self.known_to.is_some()
    }

    /// Counts what went through detection.
    pub fn count(&mut self, samples: usize) {
        self.samples += samples as u64;
    }

    /// Between two records: the next one is `next`.
    pub fn turn(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        if let Some(known) = self.known_to {
            if next < known {
                return;
            }
            tenants.all().iter().for_each(|(_, tenant)| drop(tenant.live().recent.cut()));
            self.known_to = None;
            self.note(tenants);
            self.begin();
        }
        if let Some((offset, done)) = &mut self.sent {
            match done.try_recv() {
                Ok(()) => {
                    self.tables.reached = Some(*offset);
                    self.tables.progress.set(*offset);
                    self.sent = None;
                    self.note(tenants);
                }
                // It is on its way yet, or the process is ending.
                Err(_) => return,
            }
        }
        if self.due(next, tenants) {
            self.send(next, tenants, checkpoints);
        }
    }

    fn due(&mut self, next: u64, tenants: &Tenants) -> bool {
        if next <= self.tables.progress.reached() {
            self.begin();
            return false;
        }
        if self.samples >= self.enough {
            return true;
        }
        // Asked for every record, so the rest is looked at once a second.
        let elapsed = self.since.elapsed();
        if elapsed.as_secs() == self.looked {
            return false;
        }
        self.looked = elapsed.as_secs();
        elapsed >= Duration::from_secs(self.config.flush_seconds)
            || tenants.all().iter().any(|(_, tenant)| tenant.live().recent.loose() > LOOSE)
    }

    fn begin(&mut self) {
        (self.samples, self.since, self.looked) = (0, Instant::now(), 0);
    }

    /// The bus and the journals may forget.
    fn note(&self, tenants: &Tenants) {
        for (_, tenant) in tenants.all() {
            let live = &mut *tenant.live();
            live.needed = live.recent.cut_at();
        }
        if let Err(error) = self.salvage.bus.commit(GROUP, self.tables.progress.reached()) {
            tracing::warn!(%error, "the bus keeps more than the lake needs");
        }
    }

    /// Makes up the batch that ends before `next`, and lets it go its way.
    fn send(&mut self, next: u64, tenants: &Tenants, checkpoints: &mut Checkpoints) {
        let samples = std::mem::take(&mut self.samples);
        self.begin();
        let tenants: Vec<_> = tenants.all().into_iter().filter(|(id, _)| id.as_str() != SELF).collect();
        // The streams must be on disk up to their ends for the batch to be read from there. All of them, before the first is
        // cut: what is cut and not sent would be in no batch.
        for (id, tenant) in &tenants {
            let live = &mut *tenant.live();
            live.recent.close();
            if let Err(error) = checkpoints.keep(id, live) {
                tracing::error!(%error, samples, "samples for the lake wait in memory for the next batch");
                return;
            }
        }
        let (mut parts, mut new) = (Vec::new(), Vec::new());
        for (id, tenant) in &tenants {
            parts.push(part(id, tenant, &mut new));
        }
        let series: u64 = parts.iter().map(|part| part.series as u64).sum();
        self.enough = (series * u64::from(self.config.flush_steps)).max(self.config.flush_samples);
        let (done, sent) = oneshot::channel();
        self.sent = Some((next, sent));
        let (lake, progress) = (Arc::clone(&self.tables.lake), Arc::clone(&self.tables.progress));
        let (salvage, from) = (self.salvage.clone(), progress.reached());
        self.salvage.runtime.spawn(async move {
            let (batch, started) = (Arc::new(Batch { offset: next, parts, new }), Instant::now());
            let (mut wait, mut broken) = (Duration::from_millis(200), 0);
            // What cannot be stored now is tried until it can: the bus keeps it, and says 503 when it is full.
            loop {
                let salvage = (broken >= TRIES).then(|| (salvage.clone(), from));
                // In a task of its own: a panic in there is a try that failed, too.
                let tried = tokio::spawn(write(Arc::clone(&lake), Arc::clone(&batch), salvage)).await;
                let error = match tried.unwrap_or_else(|panic| Err(Fault::Store(Error::Unavailable(panic.to_string()))))
                {
                    Ok(written) => break metrics::counter!(names::LAKE_SAMPLES_TOTAL).increment(written),
                    Err(Fault::Store(error)) => error,
                    Err(Fault::Batch(error)) => {
                        broken += 1;
                        error
                    }
                };
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(offset = next, %error, "a batch cannot be written to the lake; it is tried again");
                progress.tell(Some(error.to_string()));
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
            progress.tell(None);
            // What it was made of is not needed again for minutes.
            drop(batch);
            let _panicked = tokio::task::spawn_blocking(heap::give_back).await;
            metrics::gauge!(names::LAKE_FLUSH_SECONDS).set(started.elapsed().as_secs_f64());
            // Nobody waits for it any more if the process is ending.
            let _ending = done.send(());
        });
    }
}

/// The offset up to which the tables hold what head does not know to be there. A checkpoint says where the tables ended when it
/// was taken (`Some`, without one `None`); they may have gone on from the very record at which it was taken.
fn known_to(stored: Option<u64>, checkpoint: Option<Option<u64>>, next: u64) -> Option<u64> {
    let stored = stored?;
    let beyond = checkpoint.map_or(stored > next, |ended| ended.is_none_or(|ended| stored > ended));
    beyond.then_some(stored.max(next))
}

/// What one tenant adds to a batch.
struct Part {
    tenant: TenantId,
    cut: NumberedCut,
    sealed: Stream,
    series: usize,
}

fn part(whose: &TenantId, tenant: &Tenant, new: &mut Vec<NewSeries>) -> Part {
    let live = &mut *tenant.live();
    let cut = live.recent.cut();
    let series = cut.series();
    let registry = tenant.registry();
    for id in &series {
        let Some(labels) = registry.labels(*id) else { continue };
        let (number, unknown) = live.numbers.of(*id, labels);
        if unknown {
            let first_ms = live.recent.span_ms(*id).map_or(0, |(first, _)| first);
            new.push(NewSeries { tenant: whose.clone(), id: number, labels: labels.clone(), first_ms });
        }
    }
    let cut = cut.numbered(|id| live.numbers.get(id));
    Part { tenant: whose.clone(), cut, sealed: live.sealed.clone(), series: series.len() }
}

/// A batch on its way.
struct Batch {
    offset: u64,
    parts: Vec<Part>,
    new: Vec<NewSeries>,
}

impl Batch {
    /// As files, with the number of its samples.
    fn encode(&self) -> Result<(Flush, u64), Error> {
        let (mut flush, mut written) = (Flush::new(self.offset), 0);
        for part in &self.parts {
            let fetch = |address: u64, buffer: &mut [u8]| part.sealed.read(address, buffer);
            let each = |number: i64, samples: &[Sample]| {
                poison::trip_samples(samples);
                written += samples.len() as u64;
                flush.push(&part.tenant, number, samples)
            };
            let unreadable = || Error::Unavailable(format!("sealed samples of {} cannot be read", part.tenant));
            part.cut.each(&fetch, each).ok_or_else(unreadable)??;
        }
        flush.close()?;
        Ok((flush, written))
    }
}

/// Why a batch was not written.
enum Fault {
    /// No files can be made of it.
    Batch(Error),
    /// They cannot be stored now.
    Store(Error),
}

/// Writes a batch, or what can be salvaged of it from this offset of the bus on; says how many samples that were.
async fn write(lake: Arc<Lake>, batch: Arc<Batch>, salvage: Option<(Salvage, u64)>) -> Result<u64, Fault> {
    let copy = Arc::clone(&batch);
    let encoding = tokio::task::spawn_blocking(move || {
        let mut new = copy.new.clone();
        let (flush, written) = match salvage {
            Some((salvage, from)) => salvage.batch(from, copy.offset, &mut new)?,
            None => copy.encode()?,
        };
        Ok::<_, Error>((flush, written, new))
    });
    let encoded = encoding.await.unwrap_or_else(|panic| Err(Error::Unavailable(panic.to_string())));
    let (flush, written, new) = encoded.map_err(Fault::Batch)?;
    let landed = lake.flush(flush, &new, clock::now()).await.map_err(Fault::Store)?;
    Ok(if landed == Landed::Now { written } else { 0 })
}

/// Merges short files into long ones and deletes what nobody needs, for ever.
pub async fn maintain(tables: Option<Tables>, every: Duration) {
    let Some(Tables { lake, .. }) = tables else { return };
    for turn in 1_u64.. {
        tokio::time::sleep(every).await;
        if let Err(error) = look_after(&lake, (turn % SWEEP == 0).then(|| Sweep::weekly(clock::now()))).await {
            metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
            tracing::error!(%error, "the lake could not be looked after; it is tried again");
        }
    }
}

async fn look_after(lake: &Lake, sweep: Option<Sweep>) -> Result<(), Error> {
    for chore in lake.chores(sweep).await? {
        let merged = lake.carry_out(&chore).await?;
        metrics::counter!(names::LAKE_MERGED_ROWS_TOTAL).increment(merged.rows);
        metrics::counter!(names::LAKE_CHORE_FILES_TOTAL, "chore" => chore.deed.as_str()).increment(chore.files as u64);
    }
    Ok(())
}

/// Tells detection what the lake knows of its series beyond what the checkpoint says.
pub async fn learn(lake: &Lake, tenants: &Tenants, after: Option<u64>) -> Result<(), Error> {
    for (tenant, (highest, written)) in lake.series(after).await? {
        tenants.with(&tenant, |live: &mut Live| live.numbers.learn(written, highest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tables_hold_beyond_the_checkpoint_is_known() {
        for (stored, checkpoint, next, expected, why) in [
            (None, None, 5, None, "nothing was ever written"),
            (None, Some(None), 5, None, "nor when the checkpoint was taken"),
            (Some(7), None, 3, Some(7), "read again from before the end of the tables"),
            (Some(7), None, 7, None, "read from their end"),
            (Some(7), Some(Some(7)), 9, None, "head holds what came since"),
            (Some(9), Some(Some(7)), 9, Some(9), "a batch went out at the record of the checkpoint"),
            (Some(12), Some(Some(7)), 9, Some(12), "and one later"),
            (Some(9), Some(None), 9, Some(9), "the first batch of all"),
        ] {
            assert_eq!(known_to(stored, checkpoint, next), expected, "{why}");
        }
    }
}
