//! The series of a request in columns, with their labels still encoded: labels are decoded only for series whose key is
//! not known yet.

use wardroom_domain::{Exemplar, Labels, Metrics, NativeHistogram, RefusalReason, Sample, SeriesId, SeriesRun};
use wardroom_edge::InflatedBody;

use crate::decode::refusals::RefusalCause;
use crate::decode::series_key::{LabelEncoding, series_key};

/// The metrics of a request.
#[derive(Debug, Default)]
pub struct WireMetrics {
    columns: SeriesColumns,
    labels: LabelSource,
    /// Empty until [`WireMetrics::set_series_ids`].
    ids: Vec<SeriesId>,
    generation: u64,
}

/// The series of a request, one element of `keys`, `spans` and `counts` for each.
#[derive(Debug, Default)]
pub(crate) struct SeriesColumns {
    /// Each series' key.
    pub(crate) keys: Vec<u128>,
    /// Where the labels are encoded; the meaning depends on the protocol.
    pub(crate) spans: Vec<(u32, u32)>,
    /// Number of samples of each series.
    pub(crate) counts: Vec<u32>,
    /// The samples of all series, series by series.
    pub(crate) samples: Vec<Sample>,
    /// Native histograms with the index of their series, ascending.
    pub(crate) histograms: Vec<(u32, NativeHistogram)>,
    /// Exemplars with the index of their series, ascending.
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
}

/// The labels of the series.
#[derive(Debug, Default)]
enum LabelSource {
    #[default]
    Empty,
    /// Decoded already.
    Decoded(Vec<Result<Labels, RefusalCause>>),
    /// Decoded on demand from the decompressed body by a function of the protocol.
    Encoded { body: PlainBody, decode: DecodeLabels },
}

/// A decompressed body with a table of spans in it: the symbols of remote_write 2.0, the message parts of OTLP.
#[derive(Debug)]
pub(crate) struct PlainBody {
    pub(crate) plain: InflatedBody,
    /// Spans of `plain`.
    pub(crate) symbols: Vec<(u32, u32)>,
}

impl PlainBody {
    /// Returns the bytes of a span.
    pub(crate) fn span(&self, (start, end): (u32, u32)) -> &[u8] {
        self.plain.bytes().get(start as usize..end as usize).unwrap_or_default()
    }

    /// Returns the bytes of a symbol, if it exists.
    pub(crate) fn symbol(&self, index: u64) -> Option<&[u8]> {
        usize::try_from(index).ok().and_then(|index| self.symbols.get(index)).map(|span| self.span(*span))
    }
}

/// Decodes the labels of one series by its span.
pub(crate) type DecodeLabels = fn(&PlainBody, (u32, u32)) -> Result<Labels, RefusalCause>;

impl SeriesColumns {
    /// Allocates columns for about `series` series of one sample.
    pub(crate) fn with_capacity(series: usize) -> Self {
        Self {
            keys: Vec::with_capacity(series),
            spans: Vec::with_capacity(series),
            counts: Vec::with_capacity(series),
            samples: Vec::with_capacity(series),
            ..Self::default()
        }
    }

    /// Returns the number of series, which is the index of the next.
    pub(crate) fn len(&self) -> u32 {
        self.spans.len() as u32
    }

    /// Finishes the columns; `decode` decodes labels from the body.
    pub(crate) fn into_metrics(self, body: PlainBody, decode: DecodeLabels) -> WireMetrics {
        WireMetrics { columns: self, labels: LabelSource::Encoded { body, decode }, ids: Vec::new(), generation: 0 }
    }
}

impl WireMetrics {
    /// Adds a series with decoded labels.
    pub(crate) fn push(&mut self, labels: Result<Labels, RefusalCause>, samples: &[Sample]) {
        let key = labels.as_ref().map_or(0, |labels| series_key(labels.as_bytes(), LabelEncoding::Canonical));
        self.columns.keys.push(key);
        self.columns.spans.push((0, 0));
        self.columns.counts.push(samples.len() as u32);
        self.columns.samples.extend(samples);
        if matches!(self.labels, LabelSource::Empty) {
            self.labels = LabelSource::Decoded(Vec::new());
        }
        if let LabelSource::Decoded(decoded) = &mut self.labels {
            decoded.push(labels);
        }
    }

    /// Adds native histograms and exemplars to the last series.
    pub(crate) fn push_histograms_and_exemplars(&mut self, histograms: Vec<NativeHistogram>, exemplars: Vec<Exemplar>) {
        let series = self.columns.len().saturating_sub(1);
        self.columns.histograms.extend(histograms.into_iter().map(|histogram| (series, histogram)));
        self.columns.exemplars.extend(exemplars.into_iter().map(|exemplar| (series, exemplar)));
    }

    /// Returns the keys of the series, in order.
    pub fn keys(&self) -> &[u128] {
        &self.columns.keys
    }

    /// Returns the labels of the series at this index.
    ///
    /// # Errors
    /// Returns an error if they are malformed.
    pub fn labels(&self, index: usize) -> Result<Labels, RefusalCause> {
        let known = match &self.labels {
            LabelSource::Empty => None,
            LabelSource::Decoded(decoded) => decoded.get(index).cloned(),
            LabelSource::Encoded { body, decode } => self.columns.spans.get(index).map(|span| decode(body, *span)),
        };
        known.unwrap_or_else(|| Err((RefusalReason::BadLabels, "the series has no labels".into())))
    }

    /// Returns all samples, series by series.
    pub fn samples(&self) -> &[Sample] {
        &self.columns.samples
    }

    /// Returns all native histograms, each with the index of its series.
    pub fn histograms(&self) -> &[(u32, NativeHistogram)] {
        &self.columns.histograms
    }

    /// Returns all exemplars, each with the index of its series.
    pub fn exemplars(&self) -> &[(u32, Exemplar)] {
        &self.columns.exemplars
    }

    /// Iterates over the series: index and samples.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[Sample])> {
        let mut rest = self.columns.samples.as_slice();
        self.columns.counts.iter().enumerate().map(move |(index, count)| {
            let (head, tail) = rest.split_at_checked(*count as usize).unwrap_or((rest, &[]));
            rest = tail;
            (index, head)
        })
    }

    /// Retains the samples and native histograms for which `keep`, called in order, returns true. Removes series that
    /// become empty.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        let columns = &mut self.columns;
        let mut samples = std::mem::take(&mut columns.samples).into_iter();
        for count in &mut columns.counts {
            let before = columns.samples.len();
            columns.samples.extend(samples.by_ref().take(*count as usize).filter(|_| keep()));
            *count = (columns.samples.len() - before) as u32;
        }
        columns.histograms.retain(|_| keep());
        self.compact();
    }

    /// Retains the exemplars for which `keep` returns true. Removes series that become empty.
    pub(crate) fn retain_exemplars(&mut self, mut keep: impl FnMut(u32, &Exemplar) -> bool) {
        let before = self.columns.exemplars.len();
        self.columns.exemplars.retain(|(series, exemplar)| keep(*series, exemplar));
        if self.columns.exemplars.len() < before {
            self.compact();
        }
    }

    /// Removes the series without samples, histograms and exemplars.
    fn compact(&mut self) {
        let columns = &mut self.columns;
        let mut kept: Vec<bool> = columns.counts.iter().map(|count| *count > 0).collect();
        let with_histograms = columns.histograms.iter().map(|(series, _)| *series);
        for series in with_histograms.chain(columns.exemplars.iter().map(|(series, _)| *series)) {
            kept[series as usize] = true;
        }
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mut next = 0;
        let new_index: Vec<u32> = kept.iter().map(|kept| (next, next += u32::from(*kept)).0).collect();
        columns.histograms.iter_mut().for_each(|(series, _)| *series = new_index[*series as usize]);
        columns.exemplars.iter_mut().for_each(|(series, _)| *series = new_index[*series as usize]);
        retain_by(&mut columns.keys, &kept);
        retain_by(&mut columns.spans, &kept);
        retain_by(&mut columns.counts, &kept);
        retain_by(&mut self.ids, &kept);
        if let LabelSource::Decoded(decoded) = &mut self.labels {
            retain_by(decoded, &kept);
        }
    }

    /// Sets the ids of the series, in order, and the registry generation they belong to.
    pub fn set_series_ids(&mut self, ids: Vec<SeriesId>, generation: u64) {
        (self.ids, self.generation) = (ids, generation);
    }

    /// Replaces the series by their ids.
    pub(crate) fn into_resolved(self) -> Metrics {
        let ids = self.ids;
        let SeriesColumns { counts, samples, histograms, exemplars, .. } = self.columns;
        let id = |series: u32| ids.get(series as usize).copied();
        let mut runs = Vec::with_capacity(ids.len());
        let with_samples = ids.iter().zip(&counts).filter(|(_, count)| **count > 0);
        runs.extend(with_samples.map(|(series, count)| SeriesRun { series: *series, count: *count }));
        Metrics {
            generation: self.generation,
            runs,
            samples,
            histograms: histograms.into_iter().filter_map(|(index, value)| Some((id(index)?, value))).collect(),
            exemplars: exemplars.into_iter().filter_map(|(index, value)| Some((id(index)?, value))).collect(),
        }
    }
}

/// Retains the elements at the indexes where `kept` is true.
fn retain_by<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or_default());
}
