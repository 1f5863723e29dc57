//! The recent samples of each series.
//!
//! The newest samples of a series are in its open chunk, uncompressed. A full chunk is sealed into a block, which is
//! appended to the tenant's block stream ([`block_stream`]). A sample older than the open chunk (senders retry, and
//! some are late) is held in a separate list and merged on read. Of two samples with the same time the later arrival
//! wins.

pub(crate) mod block_codec;
pub(crate) mod block_stream;
pub(crate) mod flush_batch;
pub(crate) mod mem_series;

use std::io::Write;

use wardroom_domain::{Sample, SeriesId};

use self::block_stream::ChainReader;
use self::mem_series::{MemSeries, SeriesSnapshot};

pub use self::block_stream::{ReadAt, STREAM_START};
pub use self::flush_batch::{FlushBatch, KeyedFlushBatch};

/// Capacity of the buffer of unpersisted blocks that is retained after it was persisted, in bytes.
const MAX_IDLE_PENDING_BYTES: usize = 2 << 20;
/// A late sample up to this much older than the newest still feeds detection, in ms.
const LATE_TOLERANCE_MS: i64 = 5 * 60_000;

/// The recent samples of one tenant's series, by id.
#[derive(Debug)]
pub struct RecentSamples {
    series: Vec<MemSeries>,
    /// The end of the stream that the caller has not persisted yet.
    pending: Vec<u8>,
    /// Address of the first byte of `pending`.
    pending_start: u64,
    /// The start of the stream that the caller has deleted.
    truncated: Truncation,
    /// End of the stream at the last flush.
    flushed_to: u64,
    /// Late samples since the last flush, which are in no block, in order of arrival. `None` if flushing is disabled.
    unflushed_late: Option<Vec<(SeriesId, Sample)>>,
}

/// The part of the stream that no longer exists.
#[derive(Clone, Copy, Debug)]
struct Truncation {
    /// Address of the first byte that still exists.
    before: u64,
    /// Time of the newest sample that was deleted.
    newest_ms: i64,
}

impl Truncation {
    const NONE: Self = Self { before: STREAM_START, newest_ms: i64::MIN };
}

/// How a pushed sample relates to the samples of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// Newer than all others.
    InOrder,
    /// Older than the newest by at most five minutes.
    Late,
    /// Older than the newest by more than five minutes: stored, but not fed to detection.
    TooLate,
    /// A sample with this time and value exists already.
    Duplicate,
}

impl PushOutcome {
    /// Returns whether detection processes the sample (ADR 010).
    pub const fn feeds_detection(self) -> bool {
        matches!(self, Self::InOrder | Self::Late)
    }
}

/// The samples of one series within a time range: those in memory, and the chain of blocks still to be read.
#[derive(Debug)]
pub struct RangeSamples {
    /// Whether the blocks in memory were valid.
    pending_readable: bool,
    chain: ChainReader,
    /// Address of the oldest block that still exists.
    down_to: u64,
    open_chunk: Vec<Sample>,
    late: Vec<Sample>,
    end_ms: i64,
}

impl RangeSamples {
    /// Reads the persisted blocks and returns all samples, ascending by time. Returns `None` if a block cannot be read.
    pub fn read_all(mut self, read_at: &ReadAt<'_>) -> Option<Vec<Sample>> {
        self.chain.read_down_to(self.down_to, read_at).filter(|()| self.pending_readable)?;
        let start_ms = self.chain.start_ms();
        let mut all = Vec::new();
        self.chain.append_to(&mut all);
        all.extend(self.open_chunk);
        for sample in self.late {
            match all.binary_search_by_key(&sample.ts_ms, |known| known.ts_ms) {
                Ok(index) => all[index] = sample,
                Err(index) => all.insert(index, sample),
            }
        }
        all.retain(|sample| (start_ms..=self.end_ms).contains(&sample.ts_ms));
        Some(all)
    }
}

impl Default for RecentSamples {
    fn default() -> Self {
        Self::new()
    }
}

impl RecentSamples {
    /// Creates an empty store of samples.
    pub const fn new() -> Self {
        Self {
            series: Vec::new(),
            pending: Vec::new(),
            pending_start: STREAM_START,
            truncated: Truncation::NONE,
            flushed_to: STREAM_START,
            unflushed_late: None,
        }
    }

    /// Sets whether samples pushed from now on are flushed by [`RecentSamples::take_flush_batch`].
    pub fn enable_flushing(&mut self, enabled: bool) {
        if enabled != self.unflushed_late.is_some() {
            self.unflushed_late = enabled.then(Vec::new);
            // Samples pushed before are not part of the next batch.
            self.seal_all();
            self.flushed_to = self.pending_start + self.pending.len() as u64;
        }
    }

    /// Seals the open chunk of every series, full or not.
    pub fn seal_all(&mut self) {
        self.series.iter_mut().for_each(|series| series.seal_open_chunk(self.pending_start, &mut self.pending));
    }

    /// Returns the samples pushed since the last flush. Some of their blocks may not be persisted yet.
    pub fn take_flush_batch(&mut self) -> FlushBatch {
        self.seal_all();
        let mut newest_blocks = Vec::new();
        for (series, id) in self.series.iter().zip(0..) {
            newest_blocks.extend(
                series
                    .newest_block
                    .filter(|address| address.get() >= self.flushed_to)
                    .map(|address| (SeriesId(id), address)),
            );
        }
        let from = std::mem::replace(&mut self.flushed_to, self.pending_start + self.pending.len() as u64);
        FlushBatch::new(
            newest_blocks,
            from..self.flushed_to,
            self.unflushed_late.as_mut().map(std::mem::take).unwrap_or_default(),
        )
    }

    /// Returns the end of the stream at the last flush. Later flushes need no block before it.
    pub const fn flushed_position(&self) -> u64 {
        self.flushed_to
    }

    /// Returns for each series, by id, whether it has unflushed samples; empty if flushing is disabled.
    pub fn unflushed_series(&self) -> Vec<bool> {
        let Some(unflushed_late) = &self.unflushed_late else { return Vec::new() };
        let new = |series: &MemSeries| {
            series.len > 0 || series.newest_block.is_some_and(|address| address.get() >= self.flushed_to)
        };
        let mut unflushed_series: Vec<bool> = self.series.iter().map(new).collect();
        unflushed_late.iter().for_each(|(late, _)| unflushed_series[late.index()] = true);
        unflushed_series
    }

    /// Returns the number of late samples in the next flush.
    pub fn unflushed_late_samples(&self) -> usize {
        self.unflushed_late.as_ref().map_or(0, Vec::len)
    }

    /// Adds a sample. Creates the series up to this id if needed. `read_at` reads the persisted part of the stream.
    pub fn push(&mut self, id: SeriesId, sample: Sample, read_at: &ReadAt<'_>) -> PushOutcome {
        if id.index() >= self.series.len() {
            self.series.resize_with(id.index() + 1, MemSeries::new);
        }
        let series = &mut self.series[id.index()];
        let Some(newest_ms) = series.newest_ms().filter(|newest_ms| sample.ts_ms <= *newest_ms) else {
            series.push(sample, self.pending_start, &mut self.pending);
            return PushOutcome::InOrder;
        };
        let outcome = self.classify_out_of_order(id, sample, newest_ms, read_at);
        if outcome != PushOutcome::Duplicate
            && !self.series[id.index()].insert_out_of_order(sample)
            && let Some(unflushed_late) = &mut self.unflushed_late
        {
            unflushed_late.push((id, sample));
        }
        outcome
    }

    /// Adds a sample that is stored already to the next flush.
    pub fn requeue_for_flush(&mut self, id: SeriesId, sample: Sample) {
        if let Some(unflushed_late) = &mut self.unflushed_late {
            unflushed_late.push((id, sample));
        }
    }

    /// Classifies a sample that is not newer than the newest of its series.
    #[cold]
    fn classify_out_of_order(&self, id: SeriesId, sample: Sample, newest_ms: i64, read_at: &ReadAt<'_>) -> PushOutcome {
        let known = self.range(id, sample.ts_ms, sample.ts_ms).read_all(read_at);
        let same = known.unwrap_or_default().iter().any(|known| known.value.to_bits() == sample.value.to_bits());
        match newest_ms.saturating_sub(sample.ts_ms) {
            _ if same => PushOutcome::Duplicate,
            0..=LATE_TOLERANCE_MS => PushOutcome::Late,
            _ => PushOutcome::TooLate,
        }
    }

    /// Returns the blocks that the caller has to persist, and the address of their first byte. They accumulate until
    /// [`RecentSamples::mark_persisted`].
    pub fn unpersisted_blocks(&self) -> (u64, &[u8]) {
        (self.pending_start, &self.pending)
    }

    /// Drops the blocks returned by [`RecentSamples::unpersisted_blocks`]: from now on they are read by address.
    pub fn mark_persisted(&mut self) {
        self.pending_start += self.pending.len() as u64;
        self.pending.clear();
        // A flush seals every open chunk at once, which needs far more capacity than normal operation.
        self.pending.shrink_to(MAX_IDLE_PENDING_BYTES);
    }

    /// Records that the caller deleted the stream before this address, with samples up to this time.
    pub fn truncate_before(&mut self, before: u64, newest_ms: i64) {
        self.truncated = Truncation { before: before.max(STREAM_START), newest_ms };
    }

    /// Renumbers the series: `new_id` returns the new id of a series, or `None` if it is evicted. New ids are dense and
    /// in the order of the old ones. Late samples of evicted series must have been flushed.
    pub fn renumber(&mut self, new_id: impl Fn(SeriesId) -> Option<SeriesId>) {
        if let Some(unflushed_late) = &mut self.unflushed_late {
            *unflushed_late = std::mem::take(unflushed_late)
                .into_iter()
                .filter_map(|(id, sample)| Some((new_id(id)?, sample)))
                .collect();
        }
        let mut ids = (0..).map(SeriesId);
        self.series.retain(|_| ids.next().and_then(&new_id).is_some());
        self.series.shrink_to_fit();
    }

    /// Writes the state that is not in the persisted stream.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let snapshots: Vec<SeriesSnapshot<'_>> = self.series.iter().map(MemSeries::snapshot).collect();
        postcard::to_io(&(self.pending_start, &self.pending, snapshots, self.flushed_to, &self.unflushed_late), out)
            .map(drop)
    }

    /// Restores the state written by [`RecentSamples::save`] and returns the remaining bytes. The caller repeats
    /// [`RecentSamples::truncate_before`].
    ///
    /// # Errors
    /// Returns an error if the state is truncated or invalid.
    pub fn load(bytes: &[u8]) -> Result<(Self, &[u8]), postcard::Error> {
        let (saved, after): (SavedState<'_>, _) = postcard::take_from_bytes(bytes)?;
        let (pending_start, pending, snapshots, flushed_to, unflushed_late) = saved;
        let series = snapshots.into_iter().map(MemSeries::from_snapshot).collect::<Option<_>>();
        let series = series.ok_or(postcard::Error::DeserializeBadEncoding)?;
        Ok((Self { series, pending, pending_start, truncated: Truncation::NONE, flushed_to, unflushed_late }, after))
    }

    /// Collects the samples of a series within a time range, both ends inclusive. [`RangeSamples::read_all`] returns
    /// them.
    pub fn range(&self, id: SeriesId, start_ms: i64, end_ms: i64) -> RangeSamples {
        let empty = MemSeries::new();
        let series = self.series.get(id.index()).unwrap_or(&empty);
        let is_in_range = |sample: &Sample| (start_ms..=end_ms).contains(&sample.ts_ms);
        let mut chain = ChainReader::new(series.newest_block, start_ms);
        // The open chunk covers the whole range: no block is needed.
        if series.len > 0 && series.base_ms <= start_ms {
            chain.next = None;
        }
        let pending = block_stream::read_from_memory(self.pending_start, &self.pending);
        let pending_readable = chain.read_down_to(self.pending_start, &pending).is_some();
        let late = series.late.iter().flat_map(|late| late.samples.iter()).copied().filter(is_in_range).collect();
        RangeSamples {
            pending_readable,
            chain,
            down_to: self.truncated.before,
            open_chunk: series.open_samples().filter(is_in_range).collect(),
            late,
            end_ms,
        }
    }

    /// Returns the time from which on every sample pushed to the series is still available.
    pub fn complete_from_ms(&self, id: SeriesId) -> i64 {
        let late = self.series.get(id.index()).and_then(|series| series.late.as_ref());
        late.map_or(i64::MIN, |late| late.complete_ms).max(self.truncated.newest_ms.saturating_add(1))
    }

    /// Returns the times of the oldest and the newest sample of a series, late samples excluded.
    pub fn span_ms(&self, id: SeriesId) -> Option<(i64, i64)> {
        let series = self.series.get(id.index())?;
        let newest_ms = series.newest_ms()?;
        Some((series.first_ms.max(self.truncated.newest_ms).min(newest_ms), newest_ms))
    }
}

/// The state that [`RecentSamples::save`] writes: start of the unpersisted blocks, these, the series, the flushed
/// position, the unflushed late samples.
type SavedState<'a> = (u64, Vec<u8>, Vec<SeriesSnapshot<'a>>, u64, Option<Vec<(SeriesId, Sample)>>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::block_stream::read_from_memory;
    use super::*;

    const ID: SeriesId = SeriesId(0);

    fn unreadable(_: u64, _: &mut [u8]) -> Option<usize> {
        None
    }

    #[test]
    fn reports_the_time_up_to_which_samples_are_truncated() {
        let (mut recent, mut persisted) = (RecentSamples::new(), Vec::new());
        let mut half = 0;
        for second in 0..5000 {
            recent.push(ID, Sample { ts_ms: second * 1000, value: (second as f64).sin() }, &unreadable);
            if second % 500 == 0 {
                let (address, bytes) = recent.unpersisted_blocks();
                assert_eq!(address, STREAM_START + persisted.len() as u64);
                persisted.extend(bytes);
                half = if second == 2500 { persisted.len() as u64 } else { half };
                recent.mark_persisted();
            }
        }
        let all = |recent: &RecentSamples, start_ms, end_ms| {
            recent.range(ID, start_ms, end_ms).read_all(&read_from_memory(STREAM_START, &persisted)).unwrap()
        };
        assert_eq!(all(&recent, i64::MIN, i64::MAX).len(), 5000);
        assert_eq!(all(&recent, 4_990_000, 4_995_000).len(), 6);
        assert_eq!(recent.span_ms(ID), Some((0, 4_999_000)));
        assert!(recent.range(ID, 0, i64::MAX).read_all(&unreadable).is_none(), "the stream cannot be read");
        assert!(
            recent.range(ID, 4_998_000, i64::MAX).read_all(&unreadable).is_some(),
            "the open chunk needs no stream"
        );
        recent.truncate_before(STREAM_START + half, 2_500_000);
        let complete = recent.complete_from_ms(ID);
        assert_eq!(complete, 2_500_001);
        assert_eq!(all(&recent, complete, i64::MAX).len(), 2499);
        assert_eq!(recent.span_ms(ID), Some((2_500_000, 4_999_000)));
    }

    proptest! {
        #[test]
        fn samples_are_read_in_time_order_and_the_later_arrival_wins(
            times in prop::collection::vec((0_i64..200, prop::bool::weighted(0.05)), 1..300),
            flushes in prop::collection::btree_set(0_usize..300, 0..9),
        ) {
            let (mut recent, mut persisted, mut expected) = (RecentSamples::new(), Vec::new(), BTreeMap::new());
            for (step, ((ts, far), value)) in times.iter().zip(0..).enumerate() {
                // Mostly close together, sometimes more than 2^32 ms apart.
                let ts_ms = if *far { ts + (1 << 33) } else { ts + i64::from(value) };
                // Some samples repeat both time and value.
                let value = f64::from(value / 2);
                let known = expected.get(&ts_ms).is_some_and(|known| *known == value);
                let newest = expected.last_key_value().is_none_or(|(newest, _)| *newest < ts_ms);
                let outcome = recent.push(ID, Sample { ts_ms, value }, &read_from_memory(STREAM_START, &persisted));
                prop_assert_eq!(known, outcome == PushOutcome::Duplicate);
                prop_assert_eq!(newest, outcome == PushOutcome::InOrder);
                expected.insert(ts_ms, value);
                if flushes.contains(&step) {
                    persisted.extend(recent.unpersisted_blocks().1);
                    recent.mark_persisted();
                }
            }
            let got = recent.range(ID, i64::MIN, i64::MAX).read_all(&read_from_memory(STREAM_START, &persisted)).unwrap();
            let got: BTreeMap<i64, f64> = got.iter().map(|sample| (sample.ts_ms, sample.value)).collect();
            prop_assert_eq!(&got, &expected);
            let mut bytes = Vec::new();
            recent.save(&mut bytes).unwrap();
            let (restored, rest) = RecentSamples::load(&bytes).unwrap();
            prop_assert!(rest.is_empty());
            let from = *expected.keys().nth(expected.len() / 2).unwrap();
            let got = restored.range(ID, from, i64::MAX).read_all(&read_from_memory(STREAM_START, &persisted)).unwrap();
            let got: Vec<i64> = got.iter().map(|sample| sample.ts_ms).collect();
            prop_assert_eq!(got, expected.range(from..).map(|(ts_ms, _)| *ts_ms).collect::<Vec<_>>());
        }
    }
}
