//! A batch of samples that cannot be encoded: made again from the bus, without the records that are to blame.
//!
//! Problem: the bus forgets nothing that the tables lack, so a batch of which no file can be made, because a sample in it trips the
//! encoder or because the blocks it would be read from are damaged, would hold the bus up until it is full. Model: after
//! [`crate::poison::TRIES`] tries its records are read from the bus again, and each is encoded by itself; those that cannot be are
//! laid aside with their reason, the others make up the batch. What the store refuses is another matter: that is tried until it
//! takes it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use wardroom_bus::{Bus, DeadLetters, Reason, Record};
use wardroom_domain::{Refusal, RefusalReason, Sample, SeriesId, TenantId};
use wardroom_edge::InflateBudget;
use wardroom_lake::{Error, Flush, NewSeries};
use wardroom_process::clock;

use crate::keep::GROUP;
use crate::poison;
use crate::tenants::{SELF, Tenants};

/// Records read at once.
const READ: usize = 256;

/// Samples by tenant and number, of two with one time the one that came last.
type Gathered = BTreeMap<(TenantId, i64), BTreeMap<i64, Sample>>;

/// What it takes to make a batch again.
#[derive(Clone)]
pub struct Salvage {
    /// Where its records are.
    pub bus: Arc<dyn Bus>,
    /// Who knows what the lake calls their series.
    pub tenants: Arc<Tenants>,
    /// What decoding them may take.
    pub budget: InflateBudget,
    /// Where those go that are to blame.
    pub letters: Arc<DeadLetters>,
    /// For whoever has to wait.
    pub runtime: tokio::runtime::Handle,
}

impl Salvage {
    /// The batch between two offsets, as files, with the number of its samples; series that the lake has yet to hear of are added
    /// to `new`. Blocks on the disk.
    ///
    /// # Errors
    /// The bus cannot be read; or the batch cannot be encoded, though each of its records can.
    pub fn batch(&self, from: u64, to: u64, new: &mut Vec<NewSeries>) -> Result<(Flush, u64), Error> {
        let unreadable = |error: wardroom_bus::Error| Error::Unavailable(error.to_string());
        let laid_aside = self.letters.offsets(GROUP).map_err(unreadable)?;
        let (mut all, mut next) = (Gathered::new(), from);
        while next < to {
            let records = self.bus.read(next, READ).map_err(unreadable)?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            let ours = |record: &&Record| record.offset < to && record.envelope.tenant.as_str() != SELF;
            for record in records.iter().filter(ours).filter(|record| !laid_aside.contains(&record.offset)) {
                let own = self.gather(record, new);
                if let Err(reason) = attempt(|| encode(to, &own)) {
                    self.lay_aside(record, reason);
                    continue;
                }
                for (series, samples) in own {
                    all.entry(series).or_default().extend(samples);
                }
            }
        }
        attempt(|| encode(to, &all)).map_err(Error::Unavailable)
    }

    /// A record's samples.
    fn gather(&self, record: &Record, new: &mut Vec<NewSeries>) -> Gathered {
        let mut own = Gathered::new();
        let tenant = &record.envelope.tenant;
        // What cannot be decoded was laid aside by detection.
        let Ok(decoded) = wardroom_sources::replay(&record.envelope, &record.body, &self.budget) else { return own };
        for (at, samples) in decoded.metrics.iter() {
            let (Ok(labels), Some(first)) = (decoded.metrics.labels(at), samples.first()) else { continue };
            let state = self.tenants.get(tenant);
            let mut live = state.live();
            let id: SeriesId = state.registry().id_of(&labels);
            let (number, unknown) = live.numbers.of(id, &labels);
            if unknown {
                new.push(NewSeries { tenant: tenant.clone(), id: number, labels, first_ms: first.ts_ms });
            }
            own.entry((tenant.clone(), number))
                .or_default()
                .extend(samples.iter().map(|sample| (sample.ts_ms, *sample)));
        }
        own
    }

    fn lay_aside(&self, record: &Record, reason: String) {
        tracing::error!(offset = record.offset, reason, "no samples can be written of a record");
        let mut record = record.clone();
        // Detection has it: when it comes back it is for the tables.
        let mark = Refusal { first: u32::MAX, last: u32::MAX, reason: RefusalReason::Taken, detail: String::new() };
        record.envelope.refused.push(mark);
        let (now, group, tries) = (clock::now(), GROUP.to_owned(), poison::TRIES);
        let reason = Reason { group, offset: record.offset, reason, tries, first_try: now, last_try: now };
        poison::bury(&self.letters, &self.runtime, &reason, &record, || false);
    }
}

/// Files of samples, and how many these are.
fn encode(offset: u64, gathered: &Gathered) -> Result<(Flush, u64), Error> {
    let (mut flush, mut written) = (Flush::new(offset), 0);
    for ((tenant, number), samples) in gathered {
        let samples: Vec<Sample> = samples.values().copied().collect();
        poison::trip_samples(&samples);
        written += samples.len() as u64;
        flush.push(tenant, *number, &samples)?;
    }
    flush.close()?;
    Ok((flush, written))
}

/// What came of it, or why nothing did: a panic is a reason, too.
fn attempt<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(poison::words(&*panic)),
    }
}
