//! The series of a request as its protocol wrote them: found by a keyed hash, their labels read only when
//! that hash was never seen before.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use wardroom_domain::{Labels, Metrics, RefusalReason, Run, Sample, SeriesId};
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
}

/// The metric part of a request.
#[derive(Debug, Default)]
pub struct WireMetrics {
    /// Each series' key.
    keys: Vec<u128>,
    /// How many of `samples` each has.
    counts: Vec<u32>,
    samples: Vec<Sample>,
    names: Names,
}

/// Where labels are read from.
#[derive(Debug, Default)]
enum Names {
    #[default]
    Nobody,
    /// Read already.
    Ready(Vec<Result<Labels, Denial>>),
    /// Spans of the decompressed body, read by the protocol's own function.
    Wire { text: Text, spans: Vec<(u32, u32)>, read: ReadLabels },
}

/// A decompressed body, and where its symbols stand, if its protocol has a table of them.
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

/// Reads one series' labels from its span.
pub(crate) type ReadLabels = fn(&Text, &[u8]) -> Result<Labels, Denial>;

impl WireMetrics {
    /// Series whose labels stand in the decompressed body, by key; each with its span and its number of
    /// samples.
    pub(crate) fn wire(
        text: Text,
        keys: Vec<u128>,
        series: Vec<((u32, u32), u32)>,
        samples: Vec<Sample>,
        read: ReadLabels,
    ) -> Self {
        let (spans, counts) = series.into_iter().unzip();
        Self { keys, counts, samples, names: Names::Wire { text, spans, read } }
    }

    /// Adds one series whose labels were read already.
    pub(crate) fn push(&mut self, labels: Result<Labels, Denial>, samples: &[Sample]) {
        self.keys.push(labels.as_ref().map_or(0, |labels| key_of(labels.as_bytes(), Writing::Ours)));
        self.counts.push(samples.len() as u32);
        self.samples.extend(samples);
        if matches!(self.names, Names::Nobody) {
            self.names = Names::Ready(Vec::new());
        }
        if let Names::Ready(names) = &mut self.names {
            names.push(labels);
        }
    }

    /// The keys of the series, in order.
    pub fn keys(&self) -> &[u128] {
        &self.keys
    }

    /// The labels of the series at this position.
    ///
    /// # Errors
    /// They are not well formed.
    pub fn labels(&self, at: usize) -> Result<Labels, Denial> {
        let known = match &self.names {
            Names::Nobody => None,
            Names::Ready(names) => names.get(at).cloned(),
            Names::Wire { text, spans, read } => spans.get(at).map(|span| read(text, text.span(*span))),
        };
        known.unwrap_or_else(|| Err((RefusalReason::BadLabels, "the series has no labels".into())))
    }

    /// All samples, series by series.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Each series' position with its samples.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[Sample])> {
        let mut rest = self.samples.as_slice();
        self.counts.iter().enumerate().map(move |(at, count)| {
            let (head, tail) = rest.split_at_checked(*count as usize).unwrap_or((rest, &[]));
            rest = tail;
            (at, head)
        })
    }

    /// Keeps the samples `keep` says yes to, asked in order, and the series that still have one.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        let mut kept = Vec::with_capacity(self.counts.len());
        let mut samples = std::mem::take(&mut self.samples).into_iter();
        for count in &mut self.counts {
            let before = self.samples.len();
            self.samples.extend(samples.by_ref().take(*count as usize).filter(|_| keep()));
            *count = (self.samples.len() - before) as u32;
            kept.push(*count > 0);
        }
        retain_by(&mut self.keys, &kept);
        retain_by(&mut self.counts, &kept);
        match &mut self.names {
            Names::Nobody => {}
            Names::Ready(names) => retain_by(names, &kept),
            Names::Wire { spans, .. } => retain_by(spans, &kept),
        }
    }

    /// The same samples under their ids.
    pub(crate) fn resolved(self, ids: &[SeriesId]) -> Metrics {
        let runs = ids.iter().zip(&self.counts).map(|(series, count)| Run { series: *series, count: *count }).collect();
        Metrics { runs, samples: self.samples }
    }
}

fn retain_by<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or_default());
}
