//! One series: its newest samples uncompressed, and late ones beside.

use std::borrow::Cow;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use wardroom_domain::Sample;

use crate::block::BLOCK;
use crate::sealed;

/// Late samples kept beside the blocks of a series; more push the oldest out.
const LATE: usize = 1024;

/// A series: its tail, where its newest block is, and what came late.
#[derive(Debug)]
pub(crate) struct Live {
    /// Time of the first sample of the tail; of the newest sample while the tail is empty.
    pub(crate) base_ms: i64,
    /// How many samples the tail holds.
    pub(crate) len: u32,
    /// Their distance to `base_ms`.
    pub(crate) offsets: [u32; BLOCK],
    pub(crate) values: [f64; BLOCK],
    /// The newest block.
    pub(crate) sealed: Option<NonZeroU64>,
    /// Time of the first sample ever.
    pub(crate) first_ms: i64,
    /// Few have any, and each series pays for the room.
    pub(crate) late: Option<Box<Late>>,
}

/// Samples that came after newer ones were sealed, ascending.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Late {
    pub(crate) samples: Vec<Sample>,
    /// Nothing from here on was ever dropped.
    pub(crate) complete_ms: i64,
}

/// What of a series is not in a block.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tail<'a> {
    pub(crate) base_ms: i64,
    pub(crate) offsets: Cow<'a, [u32]>,
    pub(crate) values: Cow<'a, [f64]>,
    pub(crate) sealed: Option<NonZeroU64>,
    pub(crate) first_ms: i64,
    pub(crate) late: Option<Box<Late>>,
}

impl Live {
    pub(crate) const fn new() -> Self {
        Self {
            base_ms: 0,
            len: 0,
            offsets: [0; BLOCK],
            values: [0.0; BLOCK],
            sealed: None,
            first_ms: i64::MIN,
            late: None,
        }
    }

    /// Adds a sample newer than all.
    #[inline]
    pub(crate) fn push(&mut self, sample: Sample, base: u64, pending: &mut Vec<u8>) {
        let len = self.len as usize;
        let offset = sample.ts_ms.wrapping_sub(self.base_ms);
        if len > 0 && len < BLOCK && (0..=i64::from(u32::MAX)).contains(&offset) {
            self.offsets[len] = offset as u32;
            self.values[len] = sample.value;
            self.len += 1;
            return;
        }
        if len > 0 {
            self.seal(base, pending);
        } else if self.first_ms == i64::MIN {
            self.first_ms = sample.ts_ms;
        }
        self.base_ms = sample.ts_ms;
        self.offsets[0] = 0;
        self.values[0] = sample.value;
        self.len = 1;
    }

    /// Seals what the tail holds, be it ever so short.
    pub(crate) fn close(&mut self, base: u64, pending: &mut Vec<u8>) {
        if let Some(newest_ms) = self.newest_ms().filter(|_| self.len > 0) {
            self.seal(base, pending);
            self.base_ms = newest_ms;
        }
    }

    /// A sample that does not come last: into the tail if it falls there (then the answer is true), else beside the
    /// blocks.
    pub(crate) fn put_back(&mut self, sample: Sample) -> bool {
        let len = self.len as usize;
        let offset = sample.ts_ms.wrapping_sub(self.base_ms);
        let at = self.offsets[..len].partition_point(|known| i64::from(*known) < offset);
        if offset >= 0 && at < len && i64::from(self.offsets[at]) == offset {
            self.values[at] = sample.value;
        } else if offset > 0 && len < BLOCK {
            self.offsets.copy_within(at..len, at + 1);
            self.values.copy_within(at..len, at + 1);
            self.offsets[at] = offset as u32;
            self.values[at] = sample.value;
            self.len += 1;
        } else {
            let late = self.late.get_or_insert_with(|| Box::new(Late { samples: Vec::new(), complete_ms: i64::MIN }));
            late.put(sample);
            return false;
        }
        true
    }

    pub(crate) fn seal(&mut self, base: u64, pending: &mut Vec<u8>) {
        let mut samples = [Sample { ts_ms: 0, value: 0.0 }; BLOCK];
        let samples = &mut samples[..self.len as usize];
        samples.iter_mut().zip(self.tail_samples()).for_each(|(slot, sample)| *slot = sample);
        let address = base + pending.len() as u64;
        let back = self.sealed.map_or(0, |before| address - before.get());
        sealed::put(pending, back, samples);
        self.sealed = NonZeroU64::new(address);
        self.len = 0;
    }

    pub(crate) fn tail(&self) -> Tail<'_> {
        let len = self.len as usize;
        Tail {
            base_ms: self.base_ms,
            offsets: self.offsets[..len].into(),
            values: self.values[..len].into(),
            sealed: self.sealed,
            first_ms: self.first_ms,
            late: self.late.clone(),
        }
    }

    pub(crate) fn of(tail: Tail<'_>) -> Option<Self> {
        let Tail { base_ms, offsets, values, sealed, first_ms, late } = tail;
        let mut live = Self { base_ms, sealed, first_ms, late, ..Self::new() };
        let len = offsets.len();
        live.offsets.get_mut(..len)?.copy_from_slice(&offsets);
        live.values.get_mut(..len)?.get_mut(..values.len())?.copy_from_slice(&values);
        live.len = len as u32;
        (values.len() == len).then_some(live)
    }

    pub(crate) fn newest_ms(&self) -> Option<i64> {
        match (self.len as usize).checked_sub(1) {
            Some(last) => Some(self.base_ms + i64::from(self.offsets[last])),
            None => Some(self.base_ms).filter(|_| self.first_ms > i64::MIN),
        }
    }

    pub(crate) fn tail_samples(&self) -> impl Iterator<Item = Sample> {
        let len = self.len as usize;
        let pairs = self.offsets[..len].iter().zip(&self.values[..len]);
        pairs.map(|(offset, value)| Sample { ts_ms: self.base_ms + i64::from(*offset), value: *value })
    }
}

impl Late {
    pub(crate) fn put(&mut self, sample: Sample) {
        let at = self.samples.partition_point(|known| known.ts_ms < sample.ts_ms);
        match self.samples.get_mut(at) {
            Some(known) if known.ts_ms == sample.ts_ms => *known = sample,
            _ => self.samples.insert(at, sample),
        }
        if self.samples.len() > LATE {
            self.complete_ms = self.complete_ms.max(self.samples.remove(0).ts_ms + 1);
        }
    }
}
