//! What came between two moments, taken out of the live series for whoever keeps it for good.
//!
//! A cut closes every tail, so that all samples since the last one stand in blocks of one stretch of the stream, and
//! late ones in a list beside. The stretch is read once, from front to back, and the chains are followed in memory: two
//! hundred thousand small reads would cost more than everything that is done with the samples.

use std::num::NonZeroU64;
use std::ops::Range;

use wardroom_domain::{Sample, SeriesId};

use crate::sealed::{self, Chain, Fetch};

/// Bytes that are read from the stream at once.
const PIECE: usize = 1 << 20;

/// The samples since the last cut, as the stream has them. It stays good while more is written.
#[derive(Debug)]
pub struct Cut {
    /// The newest block of each series that has one here.
    heads: Vec<(SeriesId, NonZeroU64)>,
    /// Where the blocks are.
    stretch: Range<u64>,
    /// Late samples, by series, and as they came within one.
    loose: Vec<(SeriesId, Sample)>,
}

impl Cut {
    pub(crate) fn new(
        heads: Vec<(SeriesId, NonZeroU64)>,
        stretch: Range<u64>,
        mut loose: Vec<(SeriesId, Sample)>,
    ) -> Self {
        // Stable: of two with one time the later arrival stays behind the earlier.
        loose.sort_by_key(|(id, sample)| (*id, sample.ts_ms));
        Self { heads, stretch, loose }
    }

    /// Calls the series by other numbers, one for each id; they are handed over in the order of these.
    #[must_use]
    pub fn numbered(self, number: impl Fn(SeriesId) -> i64) -> NumberedCut {
        let heads = self.heads.into_iter().map(|(id, at)| (number(id), at)).collect();
        let loose = self.loose.into_iter().map(|(id, sample)| (number(id), sample)).collect();
        let mut cut = NumberedCut { heads, stretch: self.stretch, loose };
        cut.heads.sort_unstable_by_key(|(number, _)| *number);
        cut.loose.sort_by_key(|(number, _)| *number);
        cut
    }

    /// The series it has samples of, ascending.
    pub fn series(&self) -> Vec<SeriesId> {
        let mut all: Vec<_> =
            self.heads.iter().map(|(id, _)| *id).chain(self.loose.iter().map(|(id, _)| *id)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A cut whose series are called by numbers that outlive their ids.
#[derive(Debug)]
pub struct NumberedCut {
    heads: Vec<(i64, NonZeroU64)>,
    stretch: Range<u64>,
    loose: Vec<(i64, Sample)>,
}

impl NumberedCut {
    /// Hands over the samples of one series after the other, each ascending, one for each time: where there were several the
    /// one that came last. `None` if the stream cannot be read.
    ///
    /// # Errors
    /// Whatever `each` answers.
    pub fn each<E>(
        &self,
        fetch: &Fetch<'_>,
        mut each: impl FnMut(i64, &[Sample]) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let blocks = self.load(fetch)?;
        let stretch = sealed::from_memory(self.stretch.start, &blocks);
        let (mut heads, mut loose) = (self.heads.iter().peekable(), self.loose.as_slice());
        let (mut chain, mut samples) = (Chain::new(None, i64::MIN), Vec::new());
        while let Some(id) =
            [heads.peek().map(|(id, _)| *id), loose.first().map(|(id, _)| *id)].into_iter().flatten().min()
        {
            chain.again(heads.next_if(|(head, _)| *head == id).map(|(_, head)| *head));
            chain.follow(self.stretch.start, &stretch)?;
            samples.clear();
            chain.put(&mut samples);
            let (own, others) = loose.split_at(loose.partition_point(|(other, _)| *other == id));
            loose = others;
            for (_, sample) in own {
                match samples.binary_search_by_key(&sample.ts_ms, |known| known.ts_ms) {
                    Ok(at) => samples[at] = *sample,
                    Err(at) => samples.insert(at, *sample),
                }
            }
            if let Err(error) = each(id, &samples) {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    fn load(&self, fetch: &Fetch<'_>) -> Option<Vec<u8>> {
        let size = usize::try_from(self.stretch.end - self.stretch.start).ok()?;
        let (mut blocks, mut got) = (vec![0; size], 0);
        while got < size {
            let end = size.min(got + PIECE);
            let count = fetch(self.stretch.start + got as u64, &mut blocks[got..end])?;
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

    use crate::{Recent, START};

    use super::*;

    proptest! {
        /// Every sample pushed comes out of exactly one cut, unless a later one with its time replaced it before.
        #[test]
        fn cuts_hand_over_everything_once(
            pushes in prop::collection::vec((0_u32..4, 0_i64..120, prop::bool::weighted(0.1)), 1..400),
            cuts in prop::collection::btree_set(0_usize..400, 1..6),
        ) {
            let (mut recent, mut kept) = (Recent::new(), Vec::new());
            recent.gather(true);
            let mut known: BTreeMap<(u32, i64), f64> = BTreeMap::new();
            let (mut waiting, mut out) = (BTreeMap::new(), Vec::new());
            let mut take = |recent: &mut Recent, kept: &mut Vec<u8>, waiting: &mut BTreeMap<(u32, i64), f64>| {
                let cut = recent.cut();
                kept.extend(recent.pending().1);
                recent.flushed();
                let mut got = BTreeMap::new();
                let series = cut.series();
                let cut = cut.numbered(|id| i64::from(9 - id.0));
                let mut before = i64::MIN;
                let done = cut.each(&sealed::from_memory(START, kept), |number, samples| {
                    assert!(std::mem::replace(&mut before, number) < number);
                    assert!(samples.windows(2).all(|pair| pair[0].ts_ms < pair[1].ts_ms));
                    got.extend(samples.iter().map(|sample| ((9 - number as u32, sample.ts_ms), sample.value)));
                    Ok::<_, ()>(())
                });
                assert_eq!(done, Some(Ok(())));
                assert_eq!(series.len(), got.keys().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>().len());
                out.push((got, std::mem::take(waiting)));
            };
            for (step, (id, ts, late)) in pushes.iter().enumerate() {
                let ts_ms = if *late { *ts } else { step as i64 * 100 + ts };
                let value = (step / 3) as f64;
                recent.push(SeriesId(*id), Sample { ts_ms, value }, &sealed::from_memory(START, &kept));
                if known.insert((*id, ts_ms), value) != Some(value) {
                    waiting.insert((*id, ts_ms), value);
                }
                if step % 7 == 0 {
                    kept.extend(recent.pending().1);
                    recent.flushed();
                }
                if step % 31 == 0 {
                    let mut bytes = Vec::new();
                    recent.save(&mut bytes).unwrap();
                    recent = Recent::load(&bytes).unwrap().0;
                }
                if cuts.contains(&step) {
                    take(&mut recent, &mut kept, &mut waiting);
                }
            }
            take(&mut recent, &mut kept, &mut waiting);
            take(&mut recent, &mut kept, &mut waiting);
            prop_assert!(out.last().unwrap().0.is_empty(), "nothing comes twice");
            for (got, expected) in out {
                prop_assert_eq!(got, expected);
            }
            // What is asked for meanwhile is not disturbed.
            for id in 0..4 {
                let all = recent.part(SeriesId(id), i64::MIN, i64::MAX).whole(&sealed::from_memory(START, &kept)).unwrap();
                let all: BTreeMap<_, _> = all.iter().map(|sample| ((id, sample.ts_ms), sample.value)).collect();
                let expected: BTreeMap<_, _> = known.range((id, i64::MIN)..=(id, i64::MAX)).map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(all, expected);
            }
        }
    }
}
