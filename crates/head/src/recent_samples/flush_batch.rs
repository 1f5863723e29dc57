//! The samples pushed since the last flush, handed to the lake.
//!
//! Taking a batch seals every open chunk, so all samples since the last batch are either in blocks of one contiguous
//! span of the stream or in the list of late samples. The span is read sequentially once and the chains are followed
//! in memory, because 200 000 small reads would dominate the cost of a flush.

use std::num::NonZeroU64;
use std::ops::Range;

use wardroom_domain::{Sample, SeriesId};

use crate::recent_samples::block_stream::{self, ChainReader, ReadAt};

/// Size of one read from the stream, in bytes.
const READ_CHUNK_BYTES: usize = 1 << 20;

/// The samples pushed since the last flush. Stays valid while more blocks are appended to the stream.
#[derive(Debug)]
pub struct FlushBatch {
    /// Address of the newest block of each series that has one in `span`.
    newest_blocks: Vec<(SeriesId, NonZeroU64)>,
    /// Part of the stream that holds the blocks.
    span: Range<u64>,
    /// Late samples by series and time; in order of arrival where both are equal.
    late: Vec<(SeriesId, Sample)>,
}

impl FlushBatch {
    pub(crate) fn new(
        newest_blocks: Vec<(SeriesId, NonZeroU64)>,
        span: Range<u64>,
        mut late: Vec<(SeriesId, Sample)>,
    ) -> Self {
        // A stable sort: of two samples with equal time the later arrival stays last.
        late.sort_by_key(|(id, sample)| (*id, sample.ts_ms));
        Self { newest_blocks, span, late }
    }

    /// Replaces each series id by a key that stays valid when ids are renumbered. Series are then visited in key order.
    #[must_use]
    pub fn with_keys(self, key: impl Fn(SeriesId) -> i64) -> KeyedFlushBatch {
        let newest_blocks = self.newest_blocks.into_iter().map(|(id, address)| (key(id), address)).collect();
        let late = self.late.into_iter().map(|(id, sample)| (key(id), sample)).collect();
        let mut batch = KeyedFlushBatch { newest_blocks, span: self.span, late };
        batch.newest_blocks.sort_unstable_by_key(|(key, _)| *key);
        batch.late.sort_by_key(|(key, _)| *key);
        batch
    }

    /// Returns the series that have samples in the batch, ascending.
    pub fn series(&self) -> Vec<SeriesId> {
        let mut all: Vec<_> =
            self.newest_blocks.iter().map(|(id, _)| *id).chain(self.late.iter().map(|(id, _)| *id)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A flush batch whose series are identified by stable keys instead of ids.
#[derive(Debug)]
pub struct KeyedFlushBatch {
    newest_blocks: Vec<(i64, NonZeroU64)>,
    span: Range<u64>,
    late: Vec<(i64, Sample)>,
}

impl KeyedFlushBatch {
    /// Calls `visit` with the samples of each series, ascending by time and with unique times (the last arrival wins).
    /// Returns `None` if the stream cannot be read.
    ///
    /// # Errors
    /// Returns the first error of `visit`.
    pub fn for_each_series<E>(
        &self,
        read_at: &ReadAt<'_>,
        mut visit: impl FnMut(i64, &[Sample]) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let blocks = self.load(read_at)?;
        let span = block_stream::read_from_memory(self.span.start, &blocks);
        let (mut newest_blocks, mut late) = (self.newest_blocks.iter().peekable(), self.late.as_slice());
        let (mut chain, mut samples) = (ChainReader::new(None, i64::MIN), Vec::new());
        while let Some(key) =
            [newest_blocks.peek().map(|(key, _)| *key), late.first().map(|(key, _)| *key)].into_iter().flatten().min()
        {
            chain.restart(newest_blocks.next_if(|(other, _)| *other == key).map(|(_, newest)| *newest));
            chain.read_down_to(self.span.start, &span)?;
            samples.clear();
            chain.append_to(&mut samples);
            let (own, others) = late.split_at(late.partition_point(|(other, _)| *other == key));
            late = others;
            for (_, sample) in own {
                match samples.binary_search_by_key(&sample.ts_ms, |other| other.ts_ms) {
                    Ok(index) => samples[index] = *sample,
                    Err(index) => samples.insert(index, *sample),
                }
            }
            if let Err(error) = visit(key, &samples) {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    fn load(&self, read_at: &ReadAt<'_>) -> Option<Vec<u8>> {
        let size = usize::try_from(self.span.end - self.span.start).ok()?;
        let (mut blocks, mut got) = (vec![0; size], 0);
        while got < size {
            let end = size.min(got + READ_CHUNK_BYTES);
            let count = read_at(self.span.start + got as u64, &mut blocks[got..end])?;
            if count == 0 {
                return None;
            }
            got += count;
        }
        Some(blocks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::recent_samples::block_stream::read_from_memory;
    use crate::recent_samples::{RecentSamples, STREAM_START};

    use super::*;

    proptest! {
        /// Every sample pushed is in exactly one batch, unless a later sample with the same time replaced it before.
        #[test]
        fn every_sample_is_flushed_exactly_once(
            pushes in prop::collection::vec((0_u32..4, 0_i64..120, prop::bool::weighted(0.1)), 1..400),
            flush_steps in prop::collection::btree_set(0_usize..400, 1..6),
        ) {
            let (mut recent, mut persisted) = (RecentSamples::new(), Vec::new());
            recent.enable_flushing(true);
            let mut expected_all: BTreeMap<(u32, i64), f64> = BTreeMap::new();
            let (mut unflushed, mut out) = (BTreeMap::new(), Vec::new());
            let mut take = |recent: &mut RecentSamples, persisted: &mut Vec<u8>, unflushed: &mut BTreeMap<(u32, i64), f64>| {
                let batch = recent.take_flush_batch();
                persisted.extend(recent.unpersisted_blocks().1);
                recent.mark_persisted();
                let mut got = BTreeMap::new();
                let series = batch.series();
                let batch = batch.with_keys(|id| i64::from(9 - id.0));
                let mut before = i64::MIN;
                let done = batch.for_each_series(&read_from_memory(STREAM_START, persisted), |number, samples| {
                    assert!(std::mem::replace(&mut before, number) < number);
                    assert!(samples.windows(2).all(|pair| pair[0].ts_ms < pair[1].ts_ms));
                    got.extend(samples.iter().map(|sample| ((9 - number as u32, sample.ts_ms), sample.value)));
                    Ok::<_, ()>(())
                });
                assert_eq!(done, Some(Ok(())));
                assert_eq!(series.len(), got.keys().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>().len());
                out.push((got, std::mem::take(unflushed)));
            };
            for (step, (id, ts, late)) in pushes.iter().enumerate() {
                let ts_ms = if *late { *ts } else { step as i64 * 100 + ts };
                let value = (step / 3) as f64;
                recent.push(SeriesId(*id), Sample { ts_ms, value }, &read_from_memory(STREAM_START, &persisted));
                if expected_all.insert((*id, ts_ms), value) != Some(value) {
                    unflushed.insert((*id, ts_ms), value);
                }
                if step % 7 == 0 {
                    persisted.extend(recent.unpersisted_blocks().1);
                    recent.mark_persisted();
                }
                if step % 31 == 0 {
                    let mut bytes = Vec::new();
                    recent.save(&mut bytes).unwrap();
                    recent = RecentSamples::load(&bytes).unwrap().0;
                }
                if flush_steps.contains(&step) {
                    take(&mut recent, &mut persisted, &mut unflushed);
                }
            }
            take(&mut recent, &mut persisted, &mut unflushed);
            take(&mut recent, &mut persisted, &mut unflushed);
            prop_assert!(out.last().unwrap().0.is_empty(), "no sample is flushed twice");
            for (got, expected) in out {
                prop_assert_eq!(got, expected);
            }
            // Flushing does not change what queries read.
            for id in 0..4 {
                let all = recent.range(SeriesId(id), i64::MIN, i64::MAX).read_all(&read_from_memory(STREAM_START, &persisted)).unwrap();
                let all: BTreeMap<_, _> = all.iter().map(|sample| ((id, sample.ts_ms), sample.value)).collect();
                let expected: BTreeMap<_, _> = expected_all.range((id, i64::MIN)..=(id, i64::MAX)).map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(all, expected);
            }
        }
    }
}
