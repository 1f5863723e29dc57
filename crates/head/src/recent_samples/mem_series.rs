//! One series in memory: the open chunk with its newest samples, the address of its newest sealed block, and its
//! late samples.

use std::borrow::Cow;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use wardroom_domain::Sample;

use crate::recent_samples::block_codec::BLOCK_SAMPLES;
use crate::recent_samples::block_stream;

/// Late samples held per series; when more arrive, the oldest are dropped.
const MAX_LATE_SAMPLES: usize = 1024;

/// A series in memory.
#[derive(Debug)]
pub(crate) struct MemSeries {
    /// Time of the first sample of the open chunk; of the newest sample while the chunk is empty.
    pub(crate) base_ms: i64,
    /// Number of samples in the open chunk.
    pub(crate) len: u32,
    /// Times of the open chunk's samples, in ms after `base_ms`.
    pub(crate) offsets: [u32; BLOCK_SAMPLES],
    /// Values of the open chunk's samples.
    pub(crate) values: [f64; BLOCK_SAMPLES],
    /// Address of the newest sealed block.
    pub(crate) newest_block: Option<NonZeroU64>,
    /// Time of the first sample ever pushed.
    pub(crate) first_ms: i64,
    /// Boxed, because few series have late samples and every series has the field.
    pub(crate) late: Option<Box<LateSamples>>,
}

/// Samples older than the open chunk when they arrived, ascending by time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LateSamples {
    pub(crate) samples: Vec<Sample>,
    /// From this time on no late sample has been dropped.
    pub(crate) complete_ms: i64,
}

/// The part of a series that is not in a sealed block, as stored in a checkpoint (postcard: the field order is the
/// format).
#[derive(Serialize, Deserialize)]
pub(crate) struct SeriesSnapshot<'a> {
    pub(crate) base_ms: i64,
    pub(crate) offsets: Cow<'a, [u32]>,
    pub(crate) values: Cow<'a, [f64]>,
    pub(crate) newest_block: Option<NonZeroU64>,
    pub(crate) first_ms: i64,
    pub(crate) late: Option<Box<LateSamples>>,
}

impl MemSeries {
    pub(crate) const fn new() -> Self {
        Self {
            base_ms: 0,
            len: 0,
            offsets: [0; BLOCK_SAMPLES],
            values: [0.0; BLOCK_SAMPLES],
            newest_block: None,
            first_ms: i64::MIN,
            late: None,
        }
    }

    /// Adds a sample newer than all others. Seals the open chunk into `pending` first if the sample does not fit.
    #[inline]
    pub(crate) fn push(&mut self, sample: Sample, pending_start: u64, pending: &mut Vec<u8>) {
        let len = self.len as usize;
        let offset = sample.ts_ms.wrapping_sub(self.base_ms);
        if len > 0 && len < BLOCK_SAMPLES && (0..=i64::from(u32::MAX)).contains(&offset) {
            self.offsets[len] = offset as u32;
            self.values[len] = sample.value;
            self.len += 1;
            return;
        }
        if len > 0 {
            self.seal(pending_start, pending);
        } else if self.first_ms == i64::MIN {
            self.first_ms = sample.ts_ms;
        }
        self.base_ms = sample.ts_ms;
        self.offsets[0] = 0;
        self.values[0] = sample.value;
        self.len = 1;
    }

    /// Seals the open chunk even if it is not full; does nothing if it is empty.
    pub(crate) fn seal_open_chunk(&mut self, pending_start: u64, pending: &mut Vec<u8>) {
        if let Some(newest_ms) = self.newest_ms().filter(|_| self.len > 0) {
            self.seal(pending_start, pending);
            self.base_ms = newest_ms;
        }
    }

    /// Inserts a sample that is not newer than all others. Returns true if it went into the open chunk, false if it
    /// went to the late samples.
    pub(crate) fn insert_out_of_order(&mut self, sample: Sample) -> bool {
        let len = self.len as usize;
        let offset = sample.ts_ms.wrapping_sub(self.base_ms);
        let index = self.offsets[..len].partition_point(|known| i64::from(*known) < offset);
        if offset >= 0 && index < len && i64::from(self.offsets[index]) == offset {
            self.values[index] = sample.value;
        } else if offset > 0 && len < BLOCK_SAMPLES {
            self.offsets.copy_within(index..len, index + 1);
            self.values.copy_within(index..len, index + 1);
            self.offsets[index] = offset as u32;
            self.values[index] = sample.value;
            self.len += 1;
        } else {
            let late =
                self.late.get_or_insert_with(|| Box::new(LateSamples { samples: Vec::new(), complete_ms: i64::MIN }));
            late.insert(sample);
            return false;
        }
        true
    }

    fn seal(&mut self, pending_start: u64, pending: &mut Vec<u8>) {
        let mut samples = [Sample { ts_ms: 0, value: 0.0 }; BLOCK_SAMPLES];
        let samples = &mut samples[..self.len as usize];
        samples.iter_mut().zip(self.open_samples()).for_each(|(slot, sample)| *slot = sample);
        let address = pending_start + pending.len() as u64;
        let distance_bytes = self.newest_block.map_or(0, |before| address - before.get());
        block_stream::append_block(pending, distance_bytes, samples);
        self.newest_block = NonZeroU64::new(address);
        self.len = 0;
    }

    /// Returns the state to store in a checkpoint.
    pub(crate) fn snapshot(&self) -> SeriesSnapshot<'_> {
        let len = self.len as usize;
        SeriesSnapshot {
            base_ms: self.base_ms,
            offsets: self.offsets[..len].into(),
            values: self.values[..len].into(),
            newest_block: self.newest_block,
            first_ms: self.first_ms,
            late: self.late.clone(),
        }
    }

    /// Restores a series from its checkpoint; `None` if the snapshot is not valid.
    pub(crate) fn from_snapshot(snapshot: SeriesSnapshot<'_>) -> Option<Self> {
        let SeriesSnapshot { base_ms, offsets, values, newest_block, first_ms, late } = snapshot;
        let mut series = Self { base_ms, newest_block, first_ms, late, ..Self::new() };
        let len = offsets.len();
        series.offsets.get_mut(..len)?.copy_from_slice(&offsets);
        series.values.get_mut(..len)?.get_mut(..values.len())?.copy_from_slice(&values);
        series.len = len as u32;
        (values.len() == len).then_some(series)
    }

    /// Returns the time of the newest sample, late ones excluded.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        match (self.len as usize).checked_sub(1) {
            Some(last) => Some(self.base_ms + i64::from(self.offsets[last])),
            None => Some(self.base_ms).filter(|_| self.first_ms > i64::MIN),
        }
    }

    /// Returns the samples of the open chunk, ascending by time.
    pub(crate) fn open_samples(&self) -> impl Iterator<Item = Sample> {
        let len = self.len as usize;
        let pairs = self.offsets[..len].iter().zip(&self.values[..len]);
        pairs.map(|(offset, value)| Sample { ts_ms: self.base_ms + i64::from(*offset), value: *value })
    }
}

impl LateSamples {
    /// Inserts a sample; replaces the one with the same time. Drops the oldest beyond [`MAX_LATE_SAMPLES`].
    fn insert(&mut self, sample: Sample) {
        let index = self.samples.partition_point(|known| known.ts_ms < sample.ts_ms);
        match self.samples.get_mut(index) {
            Some(known) if known.ts_ms == sample.ts_ms => *known = sample,
            _ => self.samples.insert(index, sample),
        }
        if self.samples.len() > MAX_LATE_SAMPLES {
            self.complete_ms = self.complete_ms.max(self.samples.remove(0).ts_ms + 1);
        }
    }
}
