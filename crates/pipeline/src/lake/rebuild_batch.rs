//! Rebuilds a batch of samples that cannot be encoded from the bus, without its poison records.
//!
//! Problem: the bus retains every record whose samples are not in the tables, so a batch that cannot be encoded,
//! because one of its samples makes the encoder panic or its sealed blocks are damaged, would block the bus until it is
//! full. Model: after [`MAX_ATTEMPTS`] attempts the batch's records are read from the bus again and encoded one by one;
//! records that fail are dead-lettered with their reason, the others form the batch. Errors of the object store are not
//! handled here: those are retried until they pass.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use wardroom_bus::{Bus, DeadLetterReason, DeadLetters, Record};
use wardroom_domain::{Refusal, RefusalReason, Sample, SeriesId, TenantId};
use wardroom_edge::InflateBudget;
use wardroom_lake::{Error, Flush, NewSeries};
use wardroom_process::clock;

use crate::consumer_groups;
use crate::poison_injection::panic_on_poison_sample;
use crate::poison_records::{self, MAX_ATTEMPTS};
use crate::state::tenants::{SELF_TENANT, Tenants};

/// Records read at once.
const READ_RECORDS: usize = 256;

/// Samples by tenant and lake series id, then by time in ms; of samples with one time the last one wins.
type SamplesBySeries = BTreeMap<(TenantId, i64), BTreeMap<i64, Sample>>;

/// Rebuilds batches from the bus.
#[derive(Clone)]
pub struct BatchRebuilder {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// State of all tenants, with the ids of their series in the lake.
    pub tenants: Arc<Tenants>,
    /// Memory budget of decompression.
    pub budget: InflateBudget,
    /// Store of dead letters.
    pub dead_letters: Arc<DeadLetters>,
    /// Runtime for async calls.
    pub runtime: tokio::runtime::Handle,
}

impl BatchRebuilder {
    /// Rebuilds the batch `from..to`; returns its files and the number of samples. Series that are not in the lake yet
    /// are added to `new_series`. Blocks on disk I/O.
    ///
    /// # Errors
    /// Returns an error if the bus cannot be read, or if the batch cannot be encoded although each of its records can.
    pub fn rebuild_batch(&self, from: u64, to: u64, new_series: &mut Vec<NewSeries>) -> Result<(Flush, u64), Error> {
        let unreadable = |error: wardroom_bus::Error| Error::Unavailable(error.to_string());
        let dead_lettered = self.dead_letters.offsets(consumer_groups::LAKE_SAMPLES).map_err(unreadable)?;
        let (mut all, mut next) = (SamplesBySeries::new(), from);
        while next < to {
            let records = self.bus.read(next, READ_RECORDS).map_err(unreadable)?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            let is_in_batch = |record: &&Record| {
                let is_user_data = record.envelope.tenant.as_str() != SELF_TENANT;
                record.offset < to && is_user_data && !dead_lettered.contains(&record.offset)
            };
            for record in records.iter().filter(is_in_batch) {
                let samples = self.decode_samples(record, new_series);
                if let Err(reason) = catch_panic(|| encode(to, &samples)) {
                    self.dead_letter(record, reason);
                    continue;
                }
                for (series, samples) in samples {
                    all.entry(series).or_default().extend(samples);
                }
            }
        }
        catch_panic(|| encode(to, &all)).map_err(Error::Unavailable)
    }

    /// Decodes the samples of a record.
    fn decode_samples(&self, record: &Record, new_series: &mut Vec<NewSeries>) -> SamplesBySeries {
        let mut found = SamplesBySeries::new();
        let tenant = &record.envelope.tenant;
        // Detection dead-letters records that cannot be decoded.
        let Ok(decoded) = wardroom_sources::replay(&record.envelope, &record.body, &self.budget) else { return found };
        for (index, samples) in decoded.metrics.iter() {
            let (Ok(labels), Some(first)) = (decoded.metrics.labels(index), samples.first()) else { continue };
            let state = self.tenants.get(tenant);
            let detectors = state.detectors();
            let mut live = state.live_state();
            let id: SeriesId = state.registry().get_or_insert(&labels);
            let (lake_id, is_new) = live.lake_series_ids.assign(id, &labels);
            if is_new {
                let entity = detectors.engine.entity_of_series(id).cloned().unwrap_or_default();
                let (tenant, first_ms) = (tenant.clone(), first.ts_ms);
                new_series.push(NewSeries { tenant, id: lake_id, labels, entity, first_ms });
            }
            found
                .entry((tenant.clone(), lake_id))
                .or_default()
                .extend(samples.iter().map(|sample| (sample.ts_ms, *sample)));
        }
        found
    }

    fn dead_letter(&self, record: &Record, reason: String) {
        tracing::error!(offset = record.offset, reason, "samples of a record cannot be encoded");
        let mut record = record.clone();
        // Detection has processed the record: when it is replayed, only the lake needs it.
        let (first, last, detail) = (u32::MAX, u32::MAX, String::new());
        record.envelope.refused.push(Refusal { first, last, reason: RefusalReason::AlreadyAccepted, detail });
        let (now, group) = (clock::now(), consumer_groups::LAKE_SAMPLES.to_owned());
        let (offset, tries) = (record.offset, MAX_ATTEMPTS);
        let reason = DeadLetterReason { group, offset, reason, tries, first_try: now, last_try: now };
        poison_records::dead_letter(&self.dead_letters, &self.runtime, &reason, &record, || false);
    }
}

/// Encodes samples as files; returns them with the number of samples.
fn encode(offset: u64, series: &SamplesBySeries) -> Result<(Flush, u64), Error> {
    let (mut flush, mut written) = (Flush::new(offset), 0);
    for ((tenant, lake_id), samples) in series {
        let samples: Vec<Sample> = samples.values().copied().collect();
        panic_on_poison_sample(&samples);
        written += samples.len() as u64;
        flush.push(tenant, *lake_id, &samples)?;
    }
    flush.close()?;
    Ok((flush, written))
}

/// Runs `work`; returns its error or its panic as text.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(poison_records::panic_message(&*panic)),
    }
}
