//! What each series measured lately.
//!
//! The newest samples of a series stand uncompressed in its tail; a full tail is sealed into a block.
//! A sample older than the tail (senders retry, and some are late) waits beside the blocks and is merged in
//! when read. Of two samples with one timestamp the later arrival wins.

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Sample, SeriesId};

use crate::Config;
use crate::block::{self, BLOCK};

/// Sealed bytes are dropped in one go once this many are out of date.
const STALE_BYTES: usize = 256;
/// Late samples kept beside the blocks of a series; more push the oldest out.
const LATE: usize = 1024;

/// The recent samples of one tenant's series, by id.
#[derive(Debug)]
pub struct Recent {
    horizon_ms: i64,
    series: Vec<Live>,
    /// Blocks sealed since the journal was last taken.
    journal: Vec<u8>,
}

#[derive(Debug)]
struct Live {
    /// Time of the first sample of the tail.
    base_ms: i64,
    /// How many samples the tail holds.
    len: u32,
    /// Their distance to `base_ms`.
    offsets: [u32; BLOCK],
    values: [f64; BLOCK],
    sealed: Vec<u8>,
    /// Few have any, and each series pays for the room.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each of a million series")]
    late: Option<Box<Vec<Sample>>>,
    /// Nothing from here on was ever dropped.
    complete_ms: i64,
}

impl Recent {
    /// Nothing yet.
    pub fn new(config: &Config) -> Self {
        Self { horizon_ms: i64::from(config.recent_minutes) * 60_000, series: Vec::new(), journal: Vec::new() }
    }

    /// Adds a sample. Ids may come in any order; the ones between are empty.
    pub fn push(&mut self, id: SeriesId, sample: Sample) {
        if id.index() >= self.series.len() {
            self.series.resize_with(id.index() + 1, Live::new);
        }
        self.series[id.index()].push(sample, self.horizon_ms, (id, &mut self.journal));
    }

    /// The blocks sealed since this was last called, for [`Recent::load`] after a restart. Whoever never calls it
    /// lets them grow.
    pub fn take_journal(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.journal)
    }

    /// Takes blocks back that could not be kept; they come first again.
    pub fn give_back(&mut self, blocks: Vec<u8>) {
        let newer = std::mem::replace(&mut self.journal, blocks);
        self.journal.extend(newer);
    }

    /// Bytes that [`Recent::take_journal`] would give.
    pub const fn journal_len(&self) -> usize {
        self.journal.len()
    }

    /// Writes what is not in a block yet.
    ///
    /// # Errors
    /// The writer's.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let tails: Vec<Tail<'_>> = self.series.iter().map(Live::tail).collect();
        postcard::to_io(&tails, out).map(drop)
    }

    /// Goes on from what [`Recent::save`] wrote and the journals before it, oldest first, and says what follows.
    ///
    /// # Errors
    /// It is not whole.
    pub fn load<'a>(
        config: &Config,
        bytes: &'a [u8],
        journals: &[Vec<u8>],
    ) -> Result<(Self, &'a [u8]), postcard::Error> {
        let (tails, after): (Vec<Tail<'_>>, _) = postcard::take_from_bytes(bytes)?;
        let mut recent = Self::new(config);
        recent.series =
            tails.into_iter().map(Live::of).collect::<Option<_>>().ok_or(postcard::Error::DeserializeBadEncoding)?;
        let mut scratch = Vec::with_capacity(BLOCK);
        for journal in journals {
            let mut rest = journal.as_slice();
            while let Some((head, tail)) = rest.split_first_chunk::<6>() {
                let id = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let size = usize::from(u16::from_le_bytes([head[4], head[5]]));
                let (block, tail) = tail.split_at_checked(size).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
                rest = tail;
                scratch.clear();
                block::decode(block, &mut scratch).ok_or(postcard::Error::DeserializeBadEncoding)?;
                let live = recent.series.get_mut(id).ok_or(postcard::Error::DeserializeBadEncoding)?;
                live.take_back(block, scratch.last().map_or(i64::MIN, |last| last.ts_ms), recent.horizon_ms);
            }
        }
        Ok((recent, after))
    }

    /// The samples of a series within a stretch of time, both ends included, ascending by time.
    pub fn samples(&self, id: SeriesId, start_ms: i64, end_ms: i64) -> Vec<Sample> {
        let Some(live) = self.series.get(id.index()) else { return Vec::new() };
        let mut all = live.all();
        all.retain(|sample| (start_ms..=end_ms).contains(&sample.ts_ms));
        all
    }

    /// From which moment on every sample pushed is still here.
    pub fn complete_from_ms(&self, id: SeriesId) -> i64 {
        self.series.get(id.index()).map_or(i64::MIN, |live| live.complete_ms)
    }

    /// Times of the oldest and the newest sample of a series, late ones not counted.
    pub fn span_ms(&self, id: SeriesId) -> Option<(i64, i64)> {
        let live = self.series.get(id.index())?;
        let newest = live.newest_ms()?;
        let mut first = Vec::with_capacity(BLOCK);
        block::decode(&live.sealed, &mut first);
        Some((first.first().map_or(live.base_ms, |sample| sample.ts_ms), newest))
    }
}

/// What of a series is not in a block.
#[derive(Serialize, Deserialize)]
struct Tail<'a> {
    base_ms: i64,
    offsets: Cow<'a, [u32]>,
    values: Cow<'a, [f64]>,
    late: Vec<(i64, f64)>,
    complete_ms: i64,
}

impl Live {
    const fn new() -> Self {
        Self {
            base_ms: 0,
            len: 0,
            offsets: [0; BLOCK],
            values: [0.0; BLOCK],
            sealed: Vec::new(),
            late: None,
            complete_ms: i64::MIN,
        }
    }

    fn push(&mut self, sample: Sample, horizon_ms: i64, journal: (SeriesId, &mut Vec<u8>)) {
        let len = self.len as usize;
        let offset = sample.ts_ms.wrapping_sub(self.base_ms);
        let last = len.checked_sub(1).map(|last| i64::from(self.offsets[last]));
        match last {
            Some(last) if offset > last && offset <= i64::from(u32::MAX) && len < BLOCK => {
                self.offsets[len] = offset as u32;
                self.values[len] = sample.value;
                self.len += 1;
            }
            Some(last) if offset > last => {
                self.seal(horizon_ms, journal);
                self.start(sample);
            }
            Some(_) => self.put_back(sample),
            None => self.start(sample),
        }
    }

    fn start(&mut self, sample: Sample) {
        self.base_ms = sample.ts_ms;
        self.offsets[0] = 0;
        self.values[0] = sample.value;
        self.len = 1;
    }

    /// A sample that does not come last: into the tail if it falls there, else beside the blocks.
    fn put_back(&mut self, sample: Sample) {
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
            let late = self.late.get_or_insert_default();
            let at = late.partition_point(|known| known.ts_ms < sample.ts_ms);
            match late.get_mut(at) {
                Some(known) if known.ts_ms == sample.ts_ms => *known = sample,
                _ => late.insert(at, sample),
            }
            if late.len() > LATE {
                self.complete_ms = self.complete_ms.max(late.remove(0).ts_ms + 1);
            }
        }
    }

    fn seal(&mut self, horizon_ms: i64, (id, journal): (SeriesId, &mut Vec<u8>)) {
        let mut samples = [Sample { ts_ms: 0, value: 0.0 }; BLOCK];
        let samples = &mut samples[..self.len as usize];
        for (at, slot) in samples.iter_mut().enumerate() {
            *slot = Sample { ts_ms: self.base_ms + i64::from(self.offsets[at]), value: self.values[at] };
        }
        let oldest_ms = self.newest_ms().unwrap_or_default().saturating_sub(horizon_ms);
        self.forget(oldest_ms);
        journal.extend(id.0.to_le_bytes());
        journal.extend([0; 2]);
        let start = journal.len();
        block::encode(samples, journal);
        let block = &journal[start..];
        // Grown by what comes, not doubled: a series must not hold twice what it needs.
        self.sealed.reserve_exact(block.len());
        self.sealed.extend(block);
        let size = (block.len() as u16).to_le_bytes();
        journal[start - 2..start].copy_from_slice(&size);
        self.len = 0;
    }

    /// A block from a journal: from before the tail, and older than what came back since.
    fn take_back(&mut self, block: &[u8], last_ms: i64, horizon_ms: i64) {
        let newest_ms = self.newest_ms().unwrap_or(last_ms);
        let oldest_ms = newest_ms.saturating_sub(horizon_ms);
        if last_ms < oldest_ms {
            self.complete_ms = self.complete_ms.max(last_ms + 1);
        } else {
            self.sealed.extend(block);
        }
    }

    fn tail(&self) -> Tail<'_> {
        let len = self.len as usize;
        let late = self.late.iter().flat_map(|late| late.iter()).map(|sample| (sample.ts_ms, sample.value)).collect();
        Tail {
            base_ms: self.base_ms,
            offsets: self.offsets[..len].into(),
            values: self.values[..len].into(),
            late,
            complete_ms: self.complete_ms,
        }
    }

    fn of(tail: Tail<'_>) -> Option<Self> {
        let mut live = Self { base_ms: tail.base_ms, complete_ms: tail.complete_ms, ..Self::new() };
        let len = tail.offsets.len();
        live.offsets.get_mut(..len)?.copy_from_slice(&tail.offsets);
        live.values.get_mut(..len)?.get_mut(..tail.values.len())?.copy_from_slice(&tail.values);
        live.len = len as u32;
        let late: Vec<Sample> = tail.late.into_iter().map(|(ts_ms, value)| Sample { ts_ms, value }).collect();
        live.late = (!late.is_empty()).then(|| Box::new(late));
        (tail.values.len() == len).then_some(live)
    }

    /// Drops what ended before `oldest_ms`, once it is worth the move.
    fn forget(&mut self, oldest_ms: i64) {
        if let Some(late) = self.late.as_mut().filter(|late| late.first().is_some_and(|first| first.ts_ms < oldest_ms))
        {
            late.retain(|sample| sample.ts_ms >= oldest_ms);
            self.complete_ms = self.complete_ms.max(oldest_ms);
        }
        if self.sealed.len() < STALE_BYTES {
            return;
        }
        let (mut scratch, mut rest, mut stale) = (Vec::with_capacity(BLOCK), self.sealed.as_slice(), 0);
        while let Some(next) = block::decode(rest, &mut scratch) {
            if scratch.last().is_none_or(|sample| sample.ts_ms >= oldest_ms) {
                break;
            }
            rest = next;
            stale = self.sealed.len() - rest.len();
            scratch.clear();
        }
        if stale >= STALE_BYTES {
            self.sealed.drain(..stale);
            self.complete_ms = self.complete_ms.max(oldest_ms);
        }
    }

    fn newest_ms(&self) -> Option<i64> {
        let last = (self.len as usize).checked_sub(1)?;
        Some(self.base_ms + i64::from(self.offsets[last]))
    }

    fn all(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut rest = self.sealed.as_slice();
        while let Some(next) = block::decode(rest, &mut samples) {
            rest = next;
        }
        for at in 0..self.len as usize {
            samples.push(Sample { ts_ms: self.base_ms + i64::from(self.offsets[at]), value: self.values[at] });
        }
        for sample in self.late.iter().flat_map(|late| late.iter()) {
            match samples.binary_search_by_key(&sample.ts_ms, |known| known.ts_ms) {
                Ok(at) => samples[at] = *sample,
                Err(at) => samples.insert(at, *sample),
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ID: SeriesId = SeriesId(0);

    fn recent(minutes: u32) -> Recent {
        Recent::new(&Config { recent_minutes: minutes, ..Config::default() })
    }

    #[test]
    fn the_horizon_moves_and_memory_with_it() {
        let mut recent = recent(10);
        for at in 0..5000 {
            recent.push(ID, Sample { ts_ms: at * 1000, value: (at as f64).sin() });
        }
        let samples = recent.samples(ID, i64::MIN, i64::MAX);
        assert!(samples.len() >= 600, "{} samples", samples.len());
        assert!(samples.len() < 750, "{} samples", samples.len());
        assert_eq!(recent.samples(ID, 4_990_000, 4_995_000).len(), 6);
        let (oldest, newest) = recent.span_ms(ID).unwrap();
        assert_eq!((oldest, newest), (samples[0].ts_ms, 4_999_000));
        let complete = recent.complete_from_ms(ID);
        assert_eq!(recent.samples(ID, complete, i64::MAX).len() as i64, 5000 - (complete + 999) / 1000);
    }

    proptest! {
        #[test]
        fn samples_come_back_ordered_and_the_later_arrival_wins(
            times in prop::collection::vec((0_i64..200, prop::bool::weighted(0.05)), 1..300),
        ) {
            let (mut recent, mut expected) = (recent(1_000_000), BTreeMap::new());
            for ((ts, far), value) in times.iter().zip(0..) {
                // Mostly near each other, now and then more than 2^32 ms away.
                let ts_ms = if *far { ts + (1 << 33) } else { ts + i64::from(value) };
                recent.push(ID, Sample { ts_ms, value: f64::from(value) });
                expected.insert(ts_ms, f64::from(value));
            }
            let got: BTreeMap<i64, f64> =
                recent.samples(ID, i64::MIN, i64::MAX).iter().map(|sample| (sample.ts_ms, sample.value)).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
