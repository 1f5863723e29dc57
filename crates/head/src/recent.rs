//! What each series measured lately.
//!
//! The newest samples of a series stand uncompressed in its tail; a full tail is sealed into a block, and the
//! block goes to the stream ([`crate::sealed`]). A sample older than the tail (senders retry, and some are late)
//! waits beside the tail and is merged in when read. Of two samples with one timestamp the later arrival wins.

use std::io::Write;

use wardroom_domain::{Sample, SeriesId};

use crate::cut::Cut;
use crate::sealed::{self, Chain, Fetch, START};
use crate::tail::{Live, Tail};

/// Room for what waits to be kept between two cuts, in bytes.
const ROOM: usize = 2 << 20;
/// How long a late sample may still change what was concluded, in ms.
const LATE_MS: i64 = 5 * 60_000;

/// The recent samples of one tenant's series, by id.
#[derive(Debug)]
pub struct Recent {
    series: Vec<Live>,
    /// The end of the stream, which is not kept elsewhere yet, and its address.
    pending: Vec<u8>,
    base: u64,
    /// What of the stream there is no more.
    gone: Gone,
    /// Where the stream ended at the last cut.
    cut: u64,
    /// Samples since then that no block of the stream will hold, as they came; nobody asks for them without a lake.
    loose: Option<Vec<(SeriesId, Sample)>>,
}

/// The part of the stream that was dropped.
#[derive(Clone, Copy, Debug)]
struct Gone {
    before: u64,
    newest_ms: i64,
}

impl Gone {
    const NOTHING: Self = Self { before: START, newest_ms: i64::MIN };
}

/// How a sample came, as far as what is made of it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Newer than all of its series.
    Newest,
    /// After a newer one, by no more than five minutes.
    Late,
    /// After one that is newer by more: it is kept, and changes nothing that was concluded meanwhile.
    TooLate,
    /// Time and value are known.
    Repeated,
}

impl Arrival {
    /// Whether detection learns from it (decision D10).
    pub const fn counts(self) -> bool {
        matches!(self, Self::Newest | Self::Late)
    }
}

/// The samples of one series, as far as memory has them.
#[derive(Debug)]
pub struct Part {
    /// What was in memory could be read.
    sound: bool,
    chain: Chain,
    down_to: u64,
    newer: Vec<Sample>,
    late: Vec<Sample>,
    end_ms: i64,
}

impl Part {
    /// All of them, ascending, with the blocks that are kept elsewhere; `None` if these cannot be read.
    pub fn whole(mut self, fetch: &Fetch<'_>) -> Option<Vec<Sample>> {
        self.chain.follow(self.down_to, fetch).filter(|()| self.sound)?;
        let start_ms = self.chain.start_ms();
        let mut all = Vec::new();
        self.chain.put(&mut all);
        all.extend(self.newer);
        for sample in self.late {
            match all.binary_search_by_key(&sample.ts_ms, |known| known.ts_ms) {
                Ok(at) => all[at] = sample,
                Err(at) => all.insert(at, sample),
            }
        }
        all.retain(|sample| (start_ms..=self.end_ms).contains(&sample.ts_ms));
        Some(all)
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

impl Recent {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { series: Vec::new(), pending: Vec::new(), base: START, gone: Gone::NOTHING, cut: START, loose: None }
    }

    /// Whether [`Recent::cut`] will be asked for what comes from now on.
    pub fn gather(&mut self, wanted: bool) {
        if wanted != self.loose.is_some() {
            self.loose = wanted.then(Vec::new);
            // What came before is not asked for.
            self.close();
            self.cut = self.base + self.pending.len() as u64;
        }
    }

    /// Seals every tail, be it ever so short.
    pub fn close(&mut self) {
        self.series.iter_mut().for_each(|live| live.close(self.base, &mut self.pending));
    }

    /// What came since the last cut. Its blocks are in the stream, partly among what is pending.
    pub fn cut(&mut self) -> Cut {
        self.close();
        let mut heads = Vec::new();
        for (live, id) in self.series.iter().zip(0..) {
            heads.extend(live.sealed.filter(|at| at.get() >= self.cut).map(|at| (SeriesId(id), at)));
        }
        let from = std::mem::replace(&mut self.cut, self.base + self.pending.len() as u64);
        Cut::new(heads, from..self.cut, self.loose.as_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Where the stream ended at the last cut: what lies before is not asked for again.
    pub const fn cut_at(&self) -> u64 {
        self.cut
    }

    /// By id, of which series a cut would have something.
    pub fn uncut(&self) -> Vec<bool> {
        let Some(loose) = &self.loose else { return Vec::new() };
        let new = |live: &Live| live.len > 0 || live.sealed.is_some_and(|at| at.get() >= self.cut);
        let mut uncut: Vec<bool> = self.series.iter().map(new).collect();
        loose.iter().for_each(|(late, _)| uncut[late.index()] = true);
        uncut
    }

    /// Late samples that wait for the next cut.
    pub fn loose(&self) -> usize {
        self.loose.as_ref().map_or(0, Vec::len)
    }

    /// Adds a sample. Ids may come in any order; the ones between are empty. `fetch` reads the stream up to
    /// [`Recent::flushed`].
    pub fn push(&mut self, id: SeriesId, sample: Sample, fetch: &Fetch<'_>) -> Arrival {
        if id.index() >= self.series.len() {
            self.series.resize_with(id.index() + 1, Live::new);
        }
        let live = &mut self.series[id.index()];
        let Some(newest_ms) = live.newest_ms().filter(|newest_ms| sample.ts_ms <= *newest_ms) else {
            live.push(sample, self.base, &mut self.pending);
            return Arrival::Newest;
        };
        let arrival = self.arrival(id, sample, newest_ms, fetch);
        if arrival != Arrival::Repeated
            && !self.series[id.index()].put_back(sample)
            && let Some(loose) = &mut self.loose
        {
            loose.push((id, sample));
        }
        arrival
    }

    /// Has a sample go with the next cut though it is here already.
    pub fn again(&mut self, id: SeriesId, sample: Sample) {
        if let Some(loose) = &mut self.loose {
            loose.push((id, sample));
        }
    }

    /// How a sample comes that is not newer than the newest.
    #[cold]
    fn arrival(&self, id: SeriesId, sample: Sample, newest_ms: i64, fetch: &Fetch<'_>) -> Arrival {
        let known = self.part(id, sample.ts_ms, sample.ts_ms).whole(fetch);
        let same = known.unwrap_or_default().iter().any(|known| known.value.to_bits() == sample.value.to_bits());
        match newest_ms.saturating_sub(sample.ts_ms) {
            _ if same => Arrival::Repeated,
            0..=LATE_MS => Arrival::Late,
            _ => Arrival::TooLate,
        }
    }

    /// The end of the stream that is to be kept, and its address. Whoever never takes it lets it grow.
    pub fn pending(&self) -> (u64, &[u8]) {
        (self.base, &self.pending)
    }

    /// What was pending is kept.
    pub fn flushed(&mut self) {
        self.base += self.pending.len() as u64;
        self.pending.clear();
        // A cut closes every tail at once; as much comes only with the next.
        self.pending.shrink_to(ROOM);
    }

    /// The stream before this address is gone, and with it samples up to this time.
    pub fn forget(&mut self, before: u64, newest_ms: i64) {
        self.gone = Gone { before: before.max(START), newest_ms };
    }

    /// Keeps the series that have a new place; the places are dense, in the order of the ids. Late samples of those that leave
    /// must be cut before.
    pub fn renumber(&mut self, place: impl Fn(SeriesId) -> Option<SeriesId>) {
        if let Some(loose) = &mut self.loose {
            *loose = std::mem::take(loose).into_iter().filter_map(|(id, sample)| Some((place(id)?, sample))).collect();
        }
        let mut ids = (0..).map(SeriesId);
        self.series.retain(|_| ids.next().and_then(&place).is_some());
        self.series.shrink_to_fit();
    }

    /// Writes what is not in the stream.
    ///
    /// # Errors
    /// The writer's.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let tails: Vec<Tail<'_>> = self.series.iter().map(Live::tail).collect();
        postcard::to_io(&(self.base, &self.pending, tails, self.cut, &self.loose), out).map(drop)
    }

    /// Goes on from what [`Recent::save`] wrote, and says what follows. What of the stream is gone is told anew.
    ///
    /// # Errors
    /// It is not whole.
    pub fn load(bytes: &[u8]) -> Result<(Self, &[u8]), postcard::Error> {
        let (saved, after): (Saved<'_>, _) = postcard::take_from_bytes(bytes)?;
        let (base, pending, tails, cut, loose) = saved;
        let series = tails.into_iter().map(Live::of).collect::<Option<_>>();
        let series = series.ok_or(postcard::Error::DeserializeBadEncoding)?;
        Ok((Self { series, pending, base, gone: Gone::NOTHING, cut, loose }, after))
    }

    /// The samples of a series within a stretch of time, both ends included: [`Part::whole`] has all of them.
    pub fn part(&self, id: SeriesId, start_ms: i64, end_ms: i64) -> Part {
        let nobody = Live::new();
        let live = self.series.get(id.index()).unwrap_or(&nobody);
        let within = |sample: &Sample| (start_ms..=end_ms).contains(&sample.ts_ms);
        let mut chain = Chain::new(live.sealed, start_ms);
        // Asked only for the newest, nobody follows the chain.
        if live.len > 0 && live.base_ms <= start_ms {
            chain.next = None;
        }
        let pending = sealed::from_memory(self.base, &self.pending);
        let sound = chain.follow(self.base, &pending).is_some();
        let late = live.late.iter().flat_map(|late| late.samples.iter()).copied().filter(within).collect();
        Part {
            sound,
            chain,
            down_to: self.gone.before,
            newer: live.tail_samples().filter(within).collect(),
            late,
            end_ms,
        }
    }

    /// From which moment on every sample pushed is still here.
    pub fn complete_from_ms(&self, id: SeriesId) -> i64 {
        let late = self.series.get(id.index()).and_then(|live| live.late.as_ref());
        late.map_or(i64::MIN, |late| late.complete_ms).max(self.gone.newest_ms.saturating_add(1))
    }

    /// Times of the oldest and the newest sample of a series, late ones not counted.
    pub fn span_ms(&self, id: SeriesId) -> Option<(i64, i64)> {
        let live = self.series.get(id.index())?;
        let newest_ms = live.newest_ms()?;
        Some((live.first_ms.max(self.gone.newest_ms).min(newest_ms), newest_ms))
    }
}

/// What [`Recent::save`] writes.
type Saved<'a> = (u64, Vec<u8>, Vec<Tail<'a>>, u64, Option<Vec<(SeriesId, Sample)>>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ID: SeriesId = SeriesId(0);

    fn nowhere(_: u64, _: &mut [u8]) -> Option<usize> {
        None
    }

    #[test]
    fn what_was_dropped_is_told() {
        let (mut recent, mut kept) = (Recent::new(), Vec::new());
        let mut half = 0;
        for at in 0..5000 {
            recent.push(ID, Sample { ts_ms: at * 1000, value: (at as f64).sin() }, &nowhere);
            if at % 500 == 0 {
                let (address, bytes) = recent.pending();
                assert_eq!(address, START + kept.len() as u64);
                kept.extend(bytes);
                half = if at == 2500 { kept.len() as u64 } else { half };
                recent.flushed();
            }
        }
        let all = |recent: &Recent, start_ms, end_ms| {
            recent.part(ID, start_ms, end_ms).whole(&sealed::from_memory(START, &kept)).unwrap()
        };
        assert_eq!(all(&recent, i64::MIN, i64::MAX).len(), 5000);
        assert_eq!(all(&recent, 4_990_000, 4_995_000).len(), 6);
        assert_eq!(recent.span_ms(ID), Some((0, 4_999_000)));
        assert!(recent.part(ID, 0, i64::MAX).whole(&nowhere).is_none(), "the stream cannot be read");
        assert!(recent.part(ID, 4_998_000, i64::MAX).whole(&nowhere).is_some(), "the newest need no stream");
        recent.forget(START + half, 2_500_000);
        let complete = recent.complete_from_ms(ID);
        assert_eq!(complete, 2_500_001);
        assert_eq!(all(&recent, complete, i64::MAX).len(), 2499);
        assert_eq!(recent.span_ms(ID), Some((2_500_000, 4_999_000)));
    }

    proptest! {
        #[test]
        fn samples_come_back_ordered_and_the_later_arrival_wins(
            times in prop::collection::vec((0_i64..200, prop::bool::weighted(0.05)), 1..300),
            flushes in prop::collection::btree_set(0_usize..300, 0..9),
        ) {
            let (mut recent, mut kept, mut expected) = (Recent::new(), Vec::new(), BTreeMap::new());
            for (step, ((ts, far), value)) in times.iter().zip(0..).enumerate() {
                // Mostly near each other, now and then more than 2^32 ms away.
                let ts_ms = if *far { ts + (1 << 33) } else { ts + i64::from(value) };
                // A value comes twice now and then, too.
                let value = f64::from(value / 2);
                let known = expected.get(&ts_ms).is_some_and(|known| *known == value);
                let newest = expected.last_key_value().is_none_or(|(newest, _)| *newest < ts_ms);
                let arrival = recent.push(ID, Sample { ts_ms, value }, &sealed::from_memory(START, &kept));
                prop_assert_eq!(known, arrival == Arrival::Repeated);
                prop_assert_eq!(newest, arrival == Arrival::Newest);
                expected.insert(ts_ms, value);
                if flushes.contains(&step) {
                    kept.extend(recent.pending().1);
                    recent.flushed();
                }
            }
            let got = recent.part(ID, i64::MIN, i64::MAX).whole(&sealed::from_memory(START, &kept)).unwrap();
            let got: BTreeMap<i64, f64> = got.iter().map(|sample| (sample.ts_ms, sample.value)).collect();
            prop_assert_eq!(&got, &expected);
            let mut bytes = Vec::new();
            recent.save(&mut bytes).unwrap();
            let (again, rest) = Recent::load(&bytes).unwrap();
            prop_assert!(rest.is_empty());
            let from = *expected.keys().nth(expected.len() / 2).unwrap();
            let got = again.part(ID, from, i64::MAX).whole(&sealed::from_memory(START, &kept)).unwrap();
            let got: Vec<i64> = got.iter().map(|sample| sample.ts_ms).collect();
            prop_assert_eq!(got, expected.range(from..).map(|(ts_ms, _)| *ts_ms).collect::<Vec<_>>());
        }
    }
}
