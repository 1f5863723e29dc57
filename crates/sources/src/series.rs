//! The series of a request as its protocol wrote them: found by a keyed hash, their labels read only when
//! that hash was never seen before.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use wardroom_domain::{Exemplar, Labels, Metrics, NativeHistogram, RefusalReason, Run, Sample, SeriesId};
use wardroom_edge::Inflated;

/// Why a record may not come in: the reason, and for the sender which field and what to do.
pub type Denial = (RefusalReason, String);

/// Secret of this process: nobody outside can look for two label sets with one key.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("series"));

/// The keyed hash of a series' bytes. Ways of writing labels are told apart, so that the bytes of one can
/// never pass for those of another.
pub(crate) fn key_of(bytes: &[u8], writing: Writing) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(bytes, SEED.wrapping_add(writing as u64))
}

/// A way of writing labels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Writing {
    /// As [`Labels`] holds them.
    Ours,
    /// A span of label messages.
    RemoteWrite1,
    /// The hashes of the symbols, in order.
    RemoteWrite2,
    /// One symbol.
    Symbol,
    /// A part of an OTLP request: resource, metric or attributes.
    OtlpPart,
    /// The hashes of such parts, and which series of the data point.
    Otlp,
}

/// The metric part of a request.
#[derive(Debug, Default)]
pub struct WireMetrics {
    found: Found,
    names: Names,
    /// Once they were looked up.
    ids: Vec<SeriesId>,
    generation: u64,
}

/// What a protocol found, series by series.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Each series' key.
    pub(crate) keys: Vec<u128>,
    /// What its protocol needs to read its labels: mostly where they stand.
    pub(crate) spans: Vec<(u32, u32)>,
    /// How many of `samples` each has.
    pub(crate) counts: Vec<u32>,
    pub(crate) samples: Vec<Sample>,
    /// Native histograms by the position of their series, ascending.
    pub(crate) histograms: Vec<(u32, NativeHistogram)>,
    /// Exemplars by the position of their series, ascending.
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
}

/// Where labels are read from.
#[derive(Debug, Default)]
enum Names {
    #[default]
    Nobody,
    /// Read already.
    Ready(Vec<Result<Labels, Denial>>),
    /// From the decompressed body, by the protocol's own function.
    Wire { text: Text, read: ReadLabels },
}

/// A decompressed body, and a table of places in it: the symbols of remote_write 2.0, the parts of OTLP.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) plain: Inflated,
    pub(crate) symbols: Vec<(u32, u32)>,
}

impl Text {
    /// The bytes of a span.
    pub(crate) fn span(&self, (start, end): (u32, u32)) -> &[u8] {
        self.plain.bytes().get(start as usize..end as usize).unwrap_or_default()
    }

    /// The bytes of a symbol, if there is one of that number.
    pub(crate) fn symbol(&self, at: u64) -> Option<&[u8]> {
        usize::try_from(at).ok().and_then(|at| self.symbols.get(at)).map(|span| self.span(*span))
    }
}

/// Reads one series' labels by its span.
pub(crate) type ReadLabels = fn(&Text, (u32, u32)) -> Result<Labels, Denial>;

thread_local! {
    /// The lists of the request before, emptied: large ones are dear to allocate for every request.
    static SPARE: Cell<Found> = Cell::default();
}

/// Of no more series than this a request's lists are kept for the next.
const MAX_SPARE: usize = 16 << 10;

impl Found {
    /// With room for so many series of one sample.
    pub(crate) fn with_capacity(guess: usize) -> Self {
        let mut found = SPARE.take();
        found.keys.reserve(guess);
        found.spans.reserve(guess);
        found.counts.reserve(guess);
        found.samples.reserve(guess);
        found
    }

    /// Leaves the lists that nobody needs any more to the next request of this thread.
    fn spare(mut self) {
        if self.keys.capacity().max(self.spans.capacity()).max(self.counts.capacity()) <= MAX_SPARE {
            self.keys.clear();
            self.spans.clear();
            self.counts.clear();
            SPARE.set(Self { keys: self.keys, spans: self.spans, counts: self.counts, ..Self::default() });
        }
    }

    /// The series found so far: the position of the next.
    pub(crate) fn len(&self) -> u32 {
        self.spans.len() as u32
    }

    /// These series, their labels read from the body by `read`.
    pub(crate) fn named(self, text: Text, read: ReadLabels) -> WireMetrics {
        WireMetrics { found: self, names: Names::Wire { text, read }, ids: Vec::new(), generation: 0 }
    }
}

impl WireMetrics {
    /// Adds one series whose labels were read already.
    pub(crate) fn push(&mut self, labels: Result<Labels, Denial>, samples: &[Sample]) {
        let key = labels.as_ref().map_or(0, |labels| key_of(labels.as_bytes(), Writing::Ours));
        self.found.keys.push(key);
        self.found.spans.push((0, 0));
        self.found.counts.push(samples.len() as u32);
        self.found.samples.extend(samples);
        if matches!(self.names, Names::Nobody) {
            self.names = Names::Ready(Vec::new());
        }
        if let Names::Ready(names) = &mut self.names {
            names.push(labels);
        }
    }

    /// Adds native histograms and exemplars of the series pushed last.
    pub(crate) fn push_more(&mut self, histograms: Vec<NativeHistogram>, exemplars: Vec<Exemplar>) {
        let series = self.found.len().saturating_sub(1);
        self.found.histograms.extend(histograms.into_iter().map(|histogram| (series, histogram)));
        self.found.exemplars.extend(exemplars.into_iter().map(|exemplar| (series, exemplar)));
    }

    /// The keys of the series, in order.
    pub fn keys(&self) -> &[u128] {
        &self.found.keys
    }

    /// The labels of the series at this position.
    ///
    /// # Errors
    /// They are not well formed.
    pub fn labels(&self, at: usize) -> Result<Labels, Denial> {
        let known = match &self.names {
            Names::Nobody => None,
            Names::Ready(names) => names.get(at).cloned(),
            Names::Wire { text, read } => self.found.spans.get(at).map(|span| read(text, *span)),
        };
        known.unwrap_or_else(|| Err((RefusalReason::BadLabels, "the series has no labels".into())))
    }

    /// All samples, series by series.
    pub fn samples(&self) -> &[Sample] {
        &self.found.samples
    }

    /// All native histograms, each with the position of its series.
    pub fn histograms(&self) -> &[(u32, NativeHistogram)] {
        &self.found.histograms
    }

    /// All exemplars, each with the position of its series.
    pub fn exemplars(&self) -> &[(u32, Exemplar)] {
        &self.found.exemplars
    }

    /// Each series' position with its samples.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[Sample])> {
        let mut rest = self.found.samples.as_slice();
        self.found.counts.iter().enumerate().map(move |(at, count)| {
            let (head, tail) = rest.split_at_checked(*count as usize).unwrap_or((rest, &[]));
            rest = tail;
            (at, head)
        })
    }

    /// Keeps the samples and native histograms `keep` says yes to, asked in order, the exemplars that lie in
    /// that time, and the series that still have something.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        let found = &mut self.found;
        let mut samples = std::mem::take(&mut found.samples).into_iter();
        for count in &mut found.counts {
            let before = found.samples.len();
            found.samples.extend(samples.by_ref().take(*count as usize).filter(|_| keep()));
            *count = (found.samples.len() - before) as u32;
        }
        found.histograms.retain(|_| keep());
        self.compact();
    }

    /// Keeps the exemplars `keep` says yes to.
    pub(crate) fn retain_exemplars(&mut self, mut keep: impl FnMut(u32, &Exemplar) -> bool) {
        let before = self.found.exemplars.len();
        self.found.exemplars.retain(|(series, exemplar)| keep(*series, exemplar));
        if self.found.exemplars.len() < before {
            self.compact();
        }
    }

    /// Takes out the series that have nothing left.
    fn compact(&mut self) {
        let found = &mut self.found;
        let mut kept: Vec<bool> = found.counts.iter().map(|count| *count > 0).collect();
        let more = found.histograms.iter().map(|(series, _)| *series);
        for series in more.chain(found.exemplars.iter().map(|(series, _)| *series)) {
            kept[series as usize] = true;
        }
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mut next = 0;
        let places: Vec<u32> = kept.iter().map(|kept| (next, next += u32::from(*kept)).0).collect();
        found.histograms.iter_mut().for_each(|(series, _)| *series = places[*series as usize]);
        found.exemplars.iter_mut().for_each(|(series, _)| *series = places[*series as usize]);
        retain_by(&mut found.keys, &kept);
        retain_by(&mut found.spans, &kept);
        retain_by(&mut found.counts, &kept);
        retain_by(&mut self.ids, &kept);
        if let Names::Ready(names) = &mut self.names {
            retain_by(names, &kept);
        }
    }

    /// Notes the ids that were found for the series, in order.
    pub fn identify(&mut self, ids: Vec<SeriesId>, generation: u64) {
        (self.ids, self.generation) = (ids, generation);
    }

    /// The same under the ids.
    pub(crate) fn resolved(self) -> Metrics {
        let ids = self.ids;
        let mut found = self.found;
        let id = |series: u32| ids.get(series as usize).copied();
        let mut runs = Vec::with_capacity(ids.len());
        let each = ids.iter().zip(&found.counts).filter(|(_, count)| **count > 0);
        runs.extend(each.map(|(series, count)| Run { series: *series, count: *count }));
        let (histograms, exemplars) = (std::mem::take(&mut found.histograms), std::mem::take(&mut found.exemplars));
        let samples = std::mem::take(&mut found.samples);
        found.spare();
        Metrics {
            generation: self.generation,
            runs,
            samples,
            histograms: histograms.into_iter().filter_map(|(at, found)| Some((id(at)?, found))).collect(),
            exemplars: exemplars.into_iter().filter_map(|(at, found)| Some((id(at)?, found))).collect(),
        }
    }
}

fn retain_by<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or_default());
}
